package near

import (
	"barong/internal/bus"
	"barong/session"
)

// Hear forgets what a notice names. It is a bus.Handler.
func (c *Cache) Hear(n bus.Notice) {
	switch n.Kind {
	case bus.UserChanged:
		c.ForgetUser(n.Subject)
	case bus.SessionGone:
		if key, ok := session.ParseKey(n.Subject); ok {
			c.ForgetSession(key)
		}
	case bus.SessionsGone:
		c.ForgetSessions()
	case bus.KeyChanged:
		c.ForgetKey(n.Subject)
	case bus.Everything:
		c.ForgetAll()
	case bus.PolicyChanged, bus.SigningChanged: // rules and signing keys are remembered elsewhere
	}
}
