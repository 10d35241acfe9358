package account_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"barong/db"
)

// memoryLimiter counts in fixed windows.
type memoryLimiter struct {
	mu     sync.Mutex
	now    func() time.Time
	counts map[string]*window
}

type window struct {
	count int
	ends  time.Time
}

func newLimiter(_ *testing.T, _ *db.DB, now func() time.Time) *memoryLimiter {
	return &memoryLimiter{now: now, counts: map[string]*window{}}
}

func (l *memoryLimiter) at(key string, length time.Duration) *window {
	w := l.counts[key]
	if w == nil || !l.now().Before(w.ends) {
		w = &window{ends: l.now().Add(length)}
		l.counts[key] = w
	}
	return w
}

func (l *memoryLimiter) Take(ctx context.Context, key string, limit int, length time.Duration) (time.Duration, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.at(key, length)
	if w.count >= limit {
		return w.ends.Sub(l.now()), nil
	}
	w.count++
	return 0, nil
}

func (l *memoryLimiter) Peek(_ context.Context, key string, limit int, length time.Duration) (time.Duration, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w := l.at(key, length); w.count >= limit {
		return w.ends.Sub(l.now()), nil
	}
	return 0, nil
}

func (l *memoryLimiter) Reset(_ context.Context, key string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.counts, key)
	return nil
}
