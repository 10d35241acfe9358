package apitest

import (
	"context"
	"strconv"
	"sync/atomic"
	"time"

	"barong/internal/limit"
)

// Limits are the counters of an Env, which a test can forget.
type Limits struct {
	limit.Limiter
	age atomic.Int64
}

// Forget forgets all attempts.
func (l *Limits) Forget() { l.age.Add(1) }

func (l *Limits) key(key string) string { return strconv.FormatInt(l.age.Load(), 10) + ":" + key }

// Take is Limiter.Take.
func (l *Limits) Take(ctx context.Context, key string, limit int, window time.Duration) (time.Duration, error) {
	return l.Limiter.Take(ctx, l.key(key), limit, window)
}

// Peek is Limiter.Peek.
func (l *Limits) Peek(ctx context.Context, key string, limit int, window time.Duration) (time.Duration, error) {
	return l.Limiter.Peek(ctx, l.key(key), limit, window)
}

// Refund is Limiter.Refund.
func (l *Limits) Refund(ctx context.Context, key string) error {
	return l.Limiter.Refund(ctx, l.key(key))
}

// Reset is Limiter.Reset.
func (l *Limits) Reset(ctx context.Context, key string) error {
	return l.Limiter.Reset(ctx, l.key(key))
}
