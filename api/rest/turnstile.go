package rest

import (
	"context"
	"sync"
	"time"

	"barong/internal/fault"
)

const (
	waiting = 3                // calls of a caller that may wait for each one that may run
	longest = 30 * time.Second // the longest wait
)

// A turnstile bounds how many calls of one caller run at the same time, where a call is dear: others wait outside, with
// their bodies unread. It is safe for concurrent use.
type turnstile struct {
	parallel int

	mu    sync.Mutex
	lines map[any]*line // by who calls: an id, an address
}

type line struct {
	running chan struct{}
	calls   int // running and waiting
}

func newTurnstile(parallel int) *turnstile {
	return &turnstile{parallel: parallel, lines: map[any]*line{}}
}

// enter waits until a call of the caller may run; leave must follow it. The error is request.rate_limited when too many
// wait already, or when it takes too long.
func (t *turnstile) enter(ctx context.Context, who any) (leave func(), err error) {
	l := t.join(who)
	if l == nil {
		return nil, fault.RateLimited(time.Second)
	}
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	select {
	case l.running <- struct{}{}:
		return func() {
			<-l.running
			t.quit(who, l)
		}, nil
	case <-ctx.Done():
		t.quit(who, l)
		return nil, fault.RateLimited(time.Second).Because(ctx.Err())
	}
}

// join is a place in the caller's line, or nil when that is long enough.
func (t *turnstile) join(who any) *line {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.lines[who]
	switch {
	case l == nil:
		l = &line{running: make(chan struct{}, t.parallel)}
		t.lines[who] = l
	case l.calls >= t.parallel*(1+waiting):
		return nil
	}
	l.calls++
	return l
}

func (t *turnstile) quit(who any, l *line) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.calls--; l.calls == 0 {
		delete(t.lines, who)
	}
}
