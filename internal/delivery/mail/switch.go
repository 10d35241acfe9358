package mail

import (
	"context"
	"sync/atomic"
)

// A Switch is a Sender that may be replaced while it is in use. Make one with NewSwitch.
type Switch struct{ now atomic.Pointer[Sender] }

// NewSwitch returns a switch that sends by s.
func NewSwitch(s Sender) *Switch {
	w := &Switch{}
	w.now.Store(&s)
	return w
}

// Replace sends by another from now on. The sender before is closed; what it has in hand it still sends.
func (w *Switch) Replace(s Sender) error { return (*w.now.Swap(&s)).Close() }

// Send implements Sender.
func (w *Switch) Send(ctx context.Context, m Message) error { return (*w.now.Load()).Send(ctx, m) }

// Close implements Sender.
func (w *Switch) Close() error { return (*w.now.Load()).Close() }
