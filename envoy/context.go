package envoy

import (
	"context"
	"sync"
	"time"
)

// A lazyContext limits the time that one check may spend on stores. A warm check asks no store and never looks at its
// context, so the timer, the channel and their allocations only come to be when somebody asks for them. The limit
// counts from that moment.
type lazyContext struct {
	base  context.Context
	limit time.Duration

	mu     sync.Mutex
	real   context.Context // nil until asked for
	cancel context.CancelFunc
}

func (c *lazyContext) begin(base context.Context, limit time.Duration) {
	c.base, c.limit = base, limit
}

// end releases the timer. It reports whether nobody has asked for the context's end, so that it may be used for another
// check: whoever has asked may still hold it.
func (c *lazyContext) end() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.real == nil {
		c.base = context.Background()
		return true
	}
	c.cancel()
	return false
}

func (c *lazyContext) started() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.real == nil {
		c.real, c.cancel = context.WithTimeout(c.base, c.limit)
	}
	return c.real
}

// Deadline starts the time limit.
func (c *lazyContext) Deadline() (time.Time, bool) { return c.started().Deadline() }

// Done starts the time limit.
func (c *lazyContext) Done() <-chan struct{} { return c.started().Done() }

// Err is nil until the limit was started and ran out, or the base ended.
func (c *lazyContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.real != nil {
		return c.real.Err()
	}
	return c.base.Err()
}

// Value is the base's, or that of the started limit: the latter lets contexts derived from this one join it directly
// instead of spending a goroutine on watching it.
func (c *lazyContext) Value(key any) any {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.real != nil {
		return c.real.Value(key)
	}
	return c.base.Value(key)
}
