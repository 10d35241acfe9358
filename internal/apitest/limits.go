package apitest

import (
	"context"
	"sync"
	"time"
)

// Limits counts attempts in memory, by the clock of an Env. It implements account.Limiter.
type Limits struct {
	now func() time.Time

	mu     sync.Mutex
	counts map[string]*count
}

type count struct {
	n    int
	ends time.Time
}

// Take counts one attempt unless the limit is reached.
func (l *Limits) Take(_ context.Context, key string, limit int, window time.Duration) (time.Duration, error) {
	return l.look(key, limit, window, 1), nil
}

// Peek is Take without counting.
func (l *Limits) Peek(_ context.Context, key string, limit int, window time.Duration) (time.Duration, error) {
	return l.look(key, limit, window, 0), nil
}

func (l *Limits) look(key string, limit int, window time.Duration, add int) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	c := l.counts[key]
	if c == nil || !now.Before(c.ends) {
		c = &count{ends: now.Add(window)}
		l.counts[key] = c
	}
	if c.n >= limit {
		return c.ends.Sub(now)
	}
	c.n += add
	return 0
}

// Reset forgets what was counted for the key.
func (l *Limits) Reset(_ context.Context, key string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.counts, key)
	return nil
}

// Forget forgets everything.
func (l *Limits) Forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.counts)
}
