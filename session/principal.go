package session

import "context"

// A Principal is who a credential proved: the user row as a check needs it. It is immutable once published; a change
// of the row makes a new one.
type Principal struct {
	// What every check looks at comes first, so that it lies together in memory.
	Epoch int64 // current session epoch: a session of another epoch is dead
	UID   string
	State string // "active", "pending", or one that closes the account
	Role  string

	UserID     int64
	Email      string
	ReferralID int64 // users.id of the referrer, 0 for none
	Level      int32
	OTP        bool // second factor on

	// Ended are the tags, one after the other, of the sessions that ended one by one and might live otherwise: a session
	// store that comes back with older data still has them.
	Ended string
}

// HasEnded reports whether a session of the user is one of those that have ended.
func (p *Principal) HasEnded(key Key) bool {
	if p.Ended == "" {
		return false
	}
	tag := key.String()[:TagLen]
	for rest := p.Ended; len(rest) >= TagLen; rest = rest[TagLen:] {
		if rest[:TagLen] == tag {
			return true
		}
	}
	return false
}

// Open reports whether the account may be used: state active or pending.
func (p *Principal) Open() bool { return OpenState(p.State) }

// Principals reads principals from where they live.
type Principals interface {
	// Principal is the user of that uid, or ErrNotFound.
	Principal(ctx context.Context, uid string) (*Principal, error)
	// PrincipalsOf are the users of these uids, which are different ones, in their order; nil stands for one who is not there.
	PrincipalsOf(ctx context.Context, uids []string) ([]*Principal, error)
}

// An APIKey is a key pair's server side as a check needs it.
type APIKey struct {
	KID       string
	UID       string // the owner
	Secret    []byte // used as it is (ASCII hexadecimal text) for the HMAC; empty makes none
	PublicKey []byte // of Ed25519, 32 bytes, for a key that has no secret; else nil
	Active    bool
}

// APIKeys reads API keys from where they live.
type APIKeys interface {
	// APIKey is the key of that id, or ErrNotFound.
	APIKey(ctx context.Context, kid string) (*APIKey, error)
	// APIKeysOf are the keys of these ids, which are different ones, in their order; nil stands for one that is not there,
	// or that cannot be read by itself.
	APIKeysOf(ctx context.Context, kids []string) ([]*APIKey, error)
}

// The states of open accounts; any other closes an account.
const (
	Active  = "active"
	Pending = "pending"
)

// OpenStates are the states of open accounts.
func OpenStates() []string { return []string{Active, Pending} }

// OpenState reports whether a state is one of OpenStates.
func OpenState(state string) bool { return state == Active || state == Pending }
