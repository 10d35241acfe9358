// Package bus carries notices between replicas: "this user changed", "that session is gone", "the policy has a new
// version". A notice holds no data, only what to forget; whoever hears it reads the truth again from the store. So a
// notice that comes twice or late is harmless, and one that is lost is bounded by the heartbeat: see Bus.Fresh.
package bus

import (
	"context"
	"time"
)

// A Kind says what a notice is about.
type Kind string

// The kinds of notices, and what Subject holds in each.
const (
	UserChanged    Kind = "user"       // Subject: uid. Role, state, level, e-mail, second factor or session epoch.
	SessionGone    Kind = "session"    // Subject: session key in hexadecimal.
	SessionsGone   Kind = "sessions"   // Subject: empty. Every session of everybody.
	KeyChanged     Kind = "key"        // Subject: API key id.
	PolicyChanged  Kind = "policy"     // Subject: empty. Permissions or restrictions.
	SigningChanged Kind = "signing"    // Subject: empty. The JWT signing keys.
	Everything     Kind = "everything" // Subject: empty. Forget all memory: sent to local handlers after a gap.
)

// A Notice is one thing to forget.
type Notice struct {
	Kind    Kind   `json:"k"`
	Subject string `json:"s,omitempty"`
}

// A Handler forgets what a notice names. It is called from one goroutine at a time and must return quickly.
type Handler func(Notice)

// A Bus delivers notices to every replica, this one included.
type Bus interface {
	// Publish sends the notices to the other replicas and meanwhile calls this process's handlers; both before it
	// returns. The error says that the others may not have heard; they then find out within the cache TTL.
	Publish(ctx context.Context, notices ...Notice) error
	// Subscribe adds a handler. It is called for the notices of every replica, including this one's.
	Subscribe(h Handler)
	// Fresh reports whether memory filled at loaded may still be trusted at now: the bus has been heard without a gap
	// since then and what memory is filled from answers, or loaded is not older than ttl.
	Fresh(loaded, now time.Time, ttl time.Duration) bool
	// Healthy reports nil while heartbeats arrive, else why not.
	Healthy(now time.Time) error
	// Close stops the bus's goroutines and waits for them.
	Close() error
}
