// Package patience limits how long a call waits for the stores. What it waits for elsewhere, and has bounds of its own,
// does not count: a client that sends a body, the queue of password work, a provider of text messages.
package patience

import (
	"context"
	"errors"
	"sync"
	"time"
)

// ErrOver is the cause of a context whose time is over.
var ErrOver = errors.New("the stores took too long")

type key struct{}

// A budget is the time that a call has left.
type budget struct {
	mu      sync.Mutex
	timer   *time.Timer
	left    time.Duration // when it last began to count
	since   time.Time
	outside int // waits under way that do not count
}

// Limit returns a context that is cancelled after so long, times of Outside apart, or by the returned function.
func Limit(parent context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	b := &budget{left: d, since: time.Now(), timer: time.AfterFunc(d, func() { cancel(ErrOver) })}
	return context.WithValue(ctx, key{}, b), func() {
		b.timer.Stop()
		cancel(context.Canceled)
	}
}

// Outside stops the time of a context that comes from Limit, until back is called. For any other it does nothing.
func Outside(ctx context.Context) (back func()) {
	b, ok := ctx.Value(key{}).(*budget)
	if !ok {
		return func() {}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.outside++; b.outside == 1 {
		b.timer.Stop()
		b.left -= time.Since(b.since)
	}
	return sync.OnceFunc(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.outside--; b.outside == 0 {
			b.since = time.Now()
			b.timer.Reset(max(b.left, 0))
		}
	})
}
