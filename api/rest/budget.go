package rest

import (
	"context"
	"sync"
	"time"

	"barong/internal/fault"
)

// Bounds of the bodies that stand in memory, in bytes. Those of uploads wait in files, and few at a time.
const (
	bodiesAll = 16 << 20
	bodiesOne = 2 << 20 // of one caller

	bodyPatience = 3 * time.Second // the longest wait for others
)

// A budget bounds the bytes of bodies that stand in memory at the same time, of one caller and in all. A body takes its
// length before it is read, so that a client that sends slowly holds that length and nothing else. It is safe for
// concurrent use.
type budget struct {
	all, one int64

	mu   sync.Mutex
	used int64
	by   map[any]int64
	free chan struct{} // closed and made anew when something is given back
}

func newBudget(all, one int64) *budget {
	return &budget{all: all, one: one, by: map[any]int64{}, free: make(chan struct{})}
}

// take waits until n bytes are there for the caller; give returns them. The error is request.rate_limited where the caller
// has too many bodies under way, and authz.unavailable where all have.
func (b *budget) take(ctx context.Context, who any, n int64) (give func(), err error) {
	var late <-chan time.Time
	for {
		b.mu.Lock()
		mine := b.by[who]+n <= b.one || b.by[who] == 0
		if mine && (b.used+n <= b.all || b.used == 0) {
			b.used += n
			b.by[who] += n
			b.mu.Unlock()
			return sync.OnceFunc(func() { b.put(who, n) }), nil
		}
		free := b.free
		b.mu.Unlock()
		if late == nil {
			t := time.NewTimer(bodyPatience)
			defer t.Stop()
			late = t.C
		}
		select {
		case <-free:
			continue
		case <-late:
		case <-ctx.Done():
		}
		if !mine {
			return nil, fault.RateLimited(time.Second)
		}
		f := fault.New(fault.Unavailable)
		f.RetryAfter = time.Second
		return nil, f
	}
}

func (b *budget) put(who any, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	if b.by[who] -= n; b.by[who] == 0 {
		delete(b.by, who)
	}
	close(b.free)
	b.free = make(chan struct{})
}
