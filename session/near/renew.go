package near

import (
	"bytes"
	"context"
	"log/slog"
	"time"

	"barong/session"
)

// Bounds of reading again.
const (
	renewBatch   = 256             // most keys that one reading asks for
	renewTimeout = 2 * time.Second // for one reading
	renewPause   = time.Second     // after one that failed
)

// A renewal is what the goroutines that read again have in common.
type renewal struct {
	ctx  context.Context // ends with the cache
	stop context.CancelFunc
}

// startRenewal starts a goroutine for each table, which goes through its parts in turn and reads again what is in use and
// will not be trusted for much longer.
//
// What was read lately is renewed after between a half and three quarters of Trust, each key at its own share of it, so
// that what was read in one moment is not read again in one. Where Fresh does not trust what is older than the TTL, since
// changes are not heard of, it is renewed after half of that.
func (c *Cache) startRenewal() {
	c.renewal.ctx, c.renewal.stop = context.WithCancel(context.Background())
	c.workers.Add(3)
	go c.sessions.renewing(func(v *sessionState, now time.Time) bool { return v.session.Live(now) })
	go c.users.renewing(nil)
	go c.apiKeys.renewing(nil)
}

// lead is how long before memory is trusted no longer it is read again, when nothing is heard of changes. Heartbeats come
// once a second, and with some delay: a shorter TTL leaves less.
func (c *Cache) lead() time.Duration {
	return min(max(c.ttl-3*time.Second/2, c.ttl/4), c.ttl/2)
}

// lap is how long going through all parts should take at now: far less than there is time for. It is 0 when nothing can
// be renewed in advance, since even what is read now will not be trusted by then.
func (c *Cache) lap(now time.Time) time.Duration {
	soon := now.Add(c.lead())
	switch {
	case !c.fresh(now, soon):
		return 0
	case !c.fresh(now.Add(-c.ttl), soon):
		return max(c.ttl/4, 200*time.Millisecond)
	}
	return c.trust / 8
}

// hurry has everything looked through at once.
func (t *table[K, V]) hurry() {
	select {
	case t.hurried <- struct{}{}:
	default:
	}
}

// renewing renews until Close. It reads only those again of which useful says yes; nil says yes of all.
func (t *table[K, V]) renewing(useful func(*V, time.Time) bool) {
	c := t.cache
	defer c.workers.Done()
	timer := time.NewTimer(0)
	defer timer.Stop()
	left := 0 // parts to be looked through without a pause
	healthy := true
	for i := 0; ; i = (i + 1) % parts {
		lap := c.lap(c.now())
		if left--; left < 0 {
			timer.Reset(max(lap, time.Second) / parts)
			select {
			case <-c.quit:
				return
			case <-t.hurried:
				left = parts
			case <-timer.C:
			}
		}
		if lap == 0 {
			continue
		}
		err := t.renewPart(&t.parts[i], useful)
		if err == nil {
			healthy = true
			continue
		}
		if c.closed.Load() {
			return
		}
		if healthy {
			healthy = false
			c.log.LogAttrs(c.renewal.ctx, slog.LevelWarn, "what is in use could not be read again", slog.String("what", t.what),
				slog.Any("error", err))
		}
		select {
		case <-c.quit:
			return
		case <-time.After(renewPause):
		}
	}
}

// renewPart reads again what is due in a part.
func (t *table[K, V]) renewPart(p *part[K, V], useful func(*V, time.Time) bool) error {
	c := t.cache
	now := c.now()
	at, soon := c.stamp(now), now.Add(c.lead())
	var due renewed[K, V]
	for n := range p.nodes.all {
		st := n.state.Load()
		if st == nil || at-st.used.Load() > 2*int64(c.trust) || useful != nil && !useful(&st.value, now) {
			continue
		}
		loaded := st.loaded.Load()
		share := int64(c.trust)/2 + int64(c.trust)/4*int64(t.hash(n.key)>>48)>>16
		if at-loaded < share && loaded > c.distrusted.Load() && c.fresh(c.base.Add(time.Duration(loaded)), soon) {
			continue
		}
		due.add(n, st)
		if len(due.keys) == renewBatch {
			if err := t.renew(&due); err != nil {
				return err
			}
		}
	}
	return t.renew(&due)
}

// renewed are keys to be read again, where they stand, and what is known of them.
type renewed[K comparable, V any] struct {
	keys   []K
	nodes  []*node[K, V]
	states []*known[V]
	values []*V
}

func (r *renewed[K, V]) add(n *node[K, V], st *known[V]) {
	r.keys, r.nodes = append(r.keys, n.key), append(r.nodes, n)
	r.states, r.values = append(r.states, st), append(r.values, &st.value)
}

// renew reads again what a few keys hold, and empties them. again answers for each key what it holds now: the same
// pointer as before when that has not changed, and nil when there is none, or none that can be told without looking at
// other things, too. What was read anew or forgotten meanwhile is left alone.
func (t *table[K, V]) renew(r *renewed[K, V]) error {
	if len(r.keys) == 0 {
		return nil
	}
	defer func() { *r = renewed[K, V]{r.keys[:0], r.nodes[:0], r.states[:0], r.values[:0]} }()
	ctx, cancel := context.WithTimeout(t.cache.renewal.ctx, renewTimeout)
	defer cancel()
	loaded := t.cache.begin()
	t.cache.reads(t.what, len(r.keys), true)
	values, err := t.again(ctx, r.keys, r.values, t.cache.now())
	if err != nil {
		return err
	}
	for i, k := range r.keys {
		h, n, st := t.hash(k), r.nodes[i], r.states[i]
		p := t.part(h)
		p.mu.Lock()
		if n.state.Load() == st && p.nodes.find(h, k) == n {
			switch v := values[i]; {
			case v == nil:
				p.nodes.remove(h, k)
			case v == r.values[i]:
				st.loaded.Store(loaded)
			default:
				st := knownSince(loaded, st.used.Load(), *v)
				if t.kept != nil {
					t.kept(n, st)
				}
				n.know(st)
			}
		}
		p.mu.Unlock()
	}
	return nil
}

// readSessions reads sessions again. The users are read for themselves.
func (c *Cache) readSessions(ctx context.Context, keys []session.Key, old []*sessionState, now time.Time) ([]*sessionState, error) {
	read, err := c.store.GetMany(ctx, keys, now)
	if err != nil {
		return nil, err
	}
	out := make([]*sessionState, len(keys))
	for i, s := range read {
		before := &old[i].session
		if s == nil || s.UID != before.UID {
			continue
		}
		switch now, ok := compact(s); {
		case !ok:
		case now == *before:
			out[i] = old[i]
		default:
			out[i] = &sessionState{session: c.own(now, before.UID), user: old[i].user}
		}
	}
	return out, nil
}

// readPrincipals reads users again.
func (c *Cache) readPrincipals(ctx context.Context, uids []string, old []*session.Principal, _ time.Time) ([]*session.Principal, error) {
	read, err := c.principals.PrincipalsOf(ctx, uids)
	if err != nil {
		return nil, err
	}
	out := make([]*session.Principal, len(uids))
	for i, p := range read {
		switch {
		case p == nil || p.UID != old[i].UID:
		case *p == *old[i]:
			out[i] = old[i]
		default:
			now := c.ownPrincipal(p)
			out[i] = &now
		}
	}
	return out, nil
}

// readAPIKeys reads API keys again. Their owners are read for themselves.
func (c *Cache) readAPIKeys(ctx context.Context, kids []string, old []*keyState, _ time.Time) ([]*keyState, error) {
	read, err := c.keys.APIKeysOf(ctx, kids)
	if err != nil {
		return nil, err
	}
	out := make([]*keyState, len(kids))
	for i, k := range read {
		switch before := &old[i].key; {
		case k == nil || k.UID != before.UID:
		case k.Active == before.Active && bytes.Equal(k.Secret, before.Secret):
			out[i] = old[i]
		default:
			now := keyStateOf(kids[i], k, old[i].user)
			out[i] = &now
		}
	}
	return out, nil
}
