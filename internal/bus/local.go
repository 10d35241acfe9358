package bus

import (
	"bytes"
	"context"
	"runtime"
	"strconv"
	"sync"
	"time"
)

// A Local is the bus of a process that has no replicas.
type Local struct{ handlers handlers }

var _ Bus = (*Local)(nil)

// NewLocal returns a bus that reaches this process alone.
func NewLocal() *Local { return &Local{} }

// Publish implements Bus. It never fails.
func (l *Local) Publish(_ context.Context, notices ...Notice) error {
	l.handlers.deliver(notices)
	return nil
}

// Subscribe implements Bus.
func (l *Local) Subscribe(h Handler) { l.handlers.add(h) }

// Fresh implements Bus: there is nobody else who could change anything.
func (l *Local) Fresh(_, _ time.Time, _ time.Duration) bool { return true }

// Healthy implements Bus.
func (l *Local) Healthy(time.Time) error { return nil }

// Close implements Bus.
func (l *Local) Close() error { return nil }

// handlers calls the handlers, from one goroutine at a time and in the order of subscription.
type handlers struct {
	mu    sync.Mutex
	idle  sync.Cond // signalled when nobody delivers any more; its L is &mu, set by the first who waits
	all   []Handler
	busy  bool
	owner uint64   // the goroutine that delivers while busy
	queue []Notice // what handlers published meanwhile
}

func (h *handlers) add(f Handler) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all[:len(h.all):len(h.all)], f) // a copy: a delivery may be reading the old one
}

// deliver returns when every handler has seen the notices. Called by a handler, it returns at once, and the notices
// follow when the handlers are through with the present one: waiting for oneself would never end. A handler must not
// wait for another goroutine that publishes either.
func (h *handlers) deliver(notices []Notice) {
	if len(notices) == 0 {
		return
	}
	self := goroutine()
	h.mu.Lock()
	if h.busy && h.owner == self {
		h.queue = append(h.queue, notices...)
		h.mu.Unlock()
		return
	}
	h.idle.L = &h.mu
	for h.busy {
		h.idle.Wait()
	}
	h.busy, h.owner = true, self
	h.queue = append(h.queue, notices...)
	defer func() { // also when a handler panics
		h.busy = false
		h.idle.Signal()
		h.mu.Unlock()
	}()
	for len(h.queue) > 0 {
		n, all := h.queue[0], h.all
		h.queue = h.queue[1:]
		h.call(all, n)
	}
	h.queue = nil
}

// call runs the handlers without the lock, and holds it again when it returns.
func (h *handlers) call(all []Handler, n Notice) {
	h.mu.Unlock()
	defer h.mu.Lock()
	for _, f := range all {
		f(n)
	}
}

// goroutine is the number of the calling goroutine, as its stack trace begins: "goroutine 18 [running]:". A handler gets
// no context that could say who called it, so this is how a publishing handler is recognised; it takes a microsecond.
func goroutine() uint64 {
	var buf [64]byte
	line := buf[:runtime.Stack(buf[:], false)]
	line = bytes.TrimPrefix(line, []byte("goroutine "))
	if i := bytes.IndexByte(line, ' '); i > 0 {
		line = line[:i]
	}
	n, _ := strconv.ParseUint(string(line), 10, 64) // 0 for nobody: numbers begin at 1
	return n
}
