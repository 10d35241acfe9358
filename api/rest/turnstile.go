package rest

import (
	"context"
	"sync"
	"time"

	"barong/internal/fault"
)

const (
	waiting  = 3                // calls of a user that may wait for each one that may run
	patience = 30 * time.Second // the longest wait
	bodyTime = time.Minute      // for the body of a call that has waited, from then on
)

// A turnstile bounds how many calls of one user run at the same time, where a call is dear: others wait outside, with
// their bodies unread. It is safe for concurrent use.
type turnstile struct {
	parallel int

	mu    sync.Mutex
	lines map[int64]*line // by user
}

type line struct {
	running chan struct{}
	calls   int // running and waiting
}

func newTurnstile(parallel int) *turnstile {
	return &turnstile{parallel: parallel, lines: map[int64]*line{}}
}

// enter waits until a call of the user may run; leave must follow it. The error is request.rate_limited when too many
// wait already, or when it takes too long.
func (t *turnstile) enter(ctx context.Context, user int64) (leave func(), err error) {
	l := t.join(user)
	if l == nil {
		return nil, fault.RateLimited(time.Second)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case l.running <- struct{}{}:
		return func() {
			<-l.running
			t.quit(user, l)
		}, nil
	case <-ctx.Done():
		t.quit(user, l)
		return nil, fault.RateLimited(time.Second).Because(ctx.Err())
	}
}

// join is a place in the user's line, or nil when that is long enough.
func (t *turnstile) join(user int64) *line {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.lines[user]
	switch {
	case l == nil:
		l = &line{running: make(chan struct{}, t.parallel)}
		t.lines[user] = l
	case l.calls >= t.parallel*(1+waiting):
		return nil
	}
	l.calls++
	return l
}

func (t *turnstile) quit(user int64, l *line) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.calls--; l.calls == 0 {
		delete(t.lines, user)
	}
}
