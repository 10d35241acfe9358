package near

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"barong/session"
)

// Bounds of writing sliding expiries back.
const (
	touchShare   = 20              // a session's expiry is written back once per this share of its life
	touchers     = 4               // goroutines that write
	maxTouches   = 1 << 12         // touches that wait
	touchTimeout = 2 * time.Second // for one
	touchPause   = 1 * time.Second // after a failure, before the same session is tried again
	sweepEvery   = time.Minute
	userIdle     = time.Hour // after that long without a check, a user and an API key are dropped from memory
)

// A touch is a sliding expiry to be written back.
type touch struct {
	key       session.Key
	node      *node[session.Key, sessionState]
	known     *known[sessionState]
	seenAt    time.Time
	expiresAt time.Time
}

func (c *Cache) touchEvery() stamp { return int64(c.life / touchShare) }

// Slide has the sliding expiry of a session moved to now plus its life, if that was not done within a 1/20 of its life.
// The store is written to in the background. It reports whether the expiry is on its way.
func (c *Cache) Slide(f Found, now time.Time) bool {
	at := c.stamp(now)
	due := f.node.nextTouch.Load()
	if at < due || !f.node.nextTouch.CompareAndSwap(due, at+c.touchEvery()) {
		return false
	}
	t := touch{key: f.Key(), node: f.node, known: f.known, seenAt: now.UTC(), expiresAt: now.Add(c.life).UTC()}
	if ends := f.Session.EndsAt(); t.expiresAt.After(ends) {
		t.expiresAt = ends
	}
	if !c.closed.Load() {
		select {
		case c.touches <- t:
			return true
		default: // a later check tries again
		}
	}
	f.node.nextTouch.Store(due)
	return false
}

func (c *Cache) touchWorker() {
	defer c.workers.Done()
	for {
		select {
		case t := <-c.touches:
			c.writeBack(t)
		case <-c.quit:
			for {
				select {
				case t := <-c.touches:
					c.writeBack(t)
				default:
					return
				}
			}
		}
	}
}

func (c *Cache) writeBack(t touch) {
	ctx, cancel := context.WithTimeout(context.Background(), touchTimeout)
	defer cancel()
	switch err := c.store.Touch(ctx, t.key, t.seenAt, t.expiresAt); {
	case err == nil:
		state := t.known.value
		state.session.seen, state.session.expires = t.seenAt.UnixMilli(), t.expiresAt.UnixMilli()
		moved := knownSince(t.known.loaded.Load(), t.known.used.Load(), state)
		t.node.state.CompareAndSwap(t.known, moved) // fails when it was forgotten or read again, both of which are better
	case errors.Is(err, session.ErrNotFound):
		c.ForgetSession(t.key)
	default:
		t.node.nextTouch.Store(c.stamp(c.now()) + int64(touchPause))
		c.log.LogAttrs(ctx, slog.LevelWarn, "a session's expiry could not be written back", slog.Any("error", err))
	}
}

// sweeper drops dead memory until Close.
func (c *Cache) sweeper() {
	defer c.workers.Done()
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-c.quit:
			return
		case <-ticker.C:
			c.sweep(c.now())
		}
	}
}

func (c *Cache) sweep(now time.Time) {
	at := c.stamp(now)
	c.sessions.sweep(now, func(_ *node[session.Key, sessionState], st *known[sessionState]) bool {
		return !st.value.session.Live(now)
	})
	c.apiKeys.sweep(now, func(_ *node[string, keyState], st *known[keyState]) bool { return at-st.used.Load() > int64(userIdle) })
	c.users.sweep(now, func(_ *node[string, session.Principal], st *known[session.Principal]) bool {
		return at-st.used.Load() > int64(userIdle)
	})
}
