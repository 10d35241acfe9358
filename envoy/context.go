package envoy

import (
	"context"
	"sync"
	"time"

	"barong/authz"
	"barong/internal/reqid"
)

// A lazyContext limits the time that one check may spend on stores. A warm check asks no store and never looks at its
// context, so the timer, the channel and their allocations only come to be when somebody asks for them. The limit
// counts from that moment. So does the name of the request, which is made, or copied, for who asks.
type lazyContext struct {
	base    context.Context
	limit   time.Duration
	request *authz.Request // whose name it has

	mu     sync.Mutex
	real   context.Context // nil until asked for
	asked  bool            // by somebody who waits: for that, or whether it is over already
	begun  time.Time       // when they began
	cancel context.CancelFunc
	over   bool                // the request is not to be looked at any more
	made   [reqid.MadeLen]byte // the name, if it was sent none
	named  bool                // made holds it
	id     string              // the name, once somebody has kept it
}

func (c *lazyContext) begin(base context.Context, limit time.Duration) {
	c.base, c.limit = base, limit
}

// end releases the timer. It reports whether nobody has asked for the context, and whether nobody has asked for its end, so
// that it may be used for another check: whoever has may still hold it.
func (c *lazyContext) end() (warm, reusable bool) {
	c.mu.Lock()
	if c.real == nil {
		warm = !c.asked
		c.base, c.named, c.id, c.asked = context.Background(), false, "", false
		c.mu.Unlock()
		return warm, true
	}
	defer c.mu.Unlock()
	c.cancel()
	if c.id == "" { // who still holds the context may ask
		c.id = string(c.name())
	}
	c.over = true
	return false, false
}

// requestID is the name of the request: what it was sent, or what was made for it. It may be a view of the request.
func (c *lazyContext) requestID() []byte {
	c.mu.Lock()
	id := c.name()
	c.mu.Unlock()
	return id
}

func (c *lazyContext) name() []byte {
	if !c.over {
		if sent := c.request.RequestID(); reqid.Valid(sent) {
			return sent
		}
	}
	if !c.named {
		reqid.Make(&c.made)
		c.named = true
	}
	return c.made[:]
}

func (c *lazyContext) started() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.real == nil {
		c.ask()
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
	c.ask()
	if c.real != nil {
		return c.real.Err()
	}
	return c.base.Err()
}

// ask notes that somebody begins to wait. The lock is held.
func (c *lazyContext) ask() {
	if !c.asked {
		c.asked, c.begun = true, time.Now()
	}
}

// Value is the base's, or that of the started limit: the latter lets contexts derived from this one join it directly
// instead of spending a goroutine on watching it. The name of the request is the context's own.
func (c *lazyContext) Value(key any) any {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := key.(reqid.IDKey); ok {
		if c.id == "" {
			c.id = string(c.name())
		}
		return c.id
	}
	if c.real != nil {
		return c.real.Value(key)
	}
	return c.base.Value(key)
}
