// Package account owns the rules about accounts that the REST modules share: what a label, a sign-up or a changed
// password does to level, state, sessions and API keys, and which activities, events and mails that causes. A change and
// all it causes are one transaction (Service.Update); the handlers only read parameters and choose the answer.
//
// It knows no HTTP, and leaves to the modules who may call what. Refusals are faults of package fault; anything else that
// comes back as an error is an outage or a defect.
package account

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"barong/db"
	"barong/internal/bus"
	"barong/internal/crypto/passkey"
	"barong/internal/fault"
	"barong/internal/limit"
	"barong/internal/openid"
	"barong/session"
)

// Settings are the operator's choices that the rules depend on.
type Settings struct {
	UIDPrefix       string // two to six letters
	Domain          string // of the front end, as events and mails name it
	APIPrefix       string // path under which the API is published, without slashes at its ends
	AppName         string // issuer shown by authenticator apps
	DefaultLanguage string // of mails to users who chose none

	SessionTTL    time.Duration // sliding life of a session
	SessionMaxAge time.Duration // absolute life of a session
	MailTokenTTL  time.Duration // life of a confirmation or reset token

	Issuer   string // claim iss of mail tokens
	Audience []string

	ActivationRequirements map[string]string // private labels, key to value, that together make a user active
	StateTriggers          []Trigger         // in the order of the configuration file: the last that fits wins
}

// A Trigger is a state and the keys of the private labels that put a user there.
type Trigger struct {
	State string
	Keys  []string
}

// Options are what New needs. Only Passkeys, Providers, Publish, MailDropped, OthersMail, OldFactor, Notices, Country and
// UnknownBrowser may be nil.
type Options struct {
	Settings
	DB        *db.DB
	Sessions  session.Store
	Keys      Signer
	Passwords Passwords
	Policy    PasswordPolicy
	Limits    limit.Limiter
	Letters   Letters
	Passkeys  *passkey.Party          // nil where there are no passkeys: then nothing about them may be asked
	Providers *openid.Providers       // whom people may sign in with instead
	FileURL   func(key string) string // signed address of a stored file, for events

	// Publish takes an event into the outbox, in the transaction that caused it. Without it events are dropped.
	Publish func(ctx context.Context, tx *db.Tx, e Event) error
	// MailDropped is told the kind of a mail that is not written because the address is not confirmed.
	MailDropped func(kind string)
	// OthersMail reports whether another program writes the mails of a kind, on events: then none is written here.
	OthersMail func(kind string) bool
	// OldFactor judges a code of a second factor that an import could not bring along, where somebody still can: the error is
	// an outage. Nil: such codes are wrong.
	OldFactor func(ctx context.Context, uid, code string) (bool, error)
	// Notices tells the caches of all replicas about sessions that ended outside a transaction.
	Notices func(ctx context.Context, notices ...bus.Notice) error
	// Country is the ISO 3166-1 alpha-2 code of an address, or empty.
	Country func(netip.Addr) string
	// UnknownBrowser reports whether a User-Agent names no known browser.
	UnknownBrowser func(userAgent string) bool

	Now func() time.Time
	Log *slog.Logger
}

// A Signer signs the claims of a token. keys.Ring is one.
type Signer interface {
	Sign(claims any) (string, error)
}

// A Service applies the rules. It is safe for concurrent use.
type Service struct {
	Options
}

// New returns a service.
func New(o Options) *Service {
	if o.Providers == nil {
		o.Providers = openid.New(openid.Options{})
	}
	if o.Publish == nil {
		o.Publish = func(context.Context, *db.Tx, Event) error { return nil }
	}
	if o.MailDropped == nil {
		o.MailDropped = func(string) {}
	}
	if o.OthersMail == nil {
		o.OthersMail = func(string) bool { return false }
	}
	if o.Notices == nil {
		o.Notices = func(context.Context, ...bus.Notice) error { return nil }
	}
	if o.Country == nil {
		o.Country = func(netip.Addr) string { return "" }
	}
	if o.UnknownBrowser == nil {
		o.UnknownBrowser = func(string) bool { return false }
	}
	return &Service{Options: o}
}

// A Client is who acts: one browser or program at one address.
type Client struct {
	IP        netip.Addr // behind trusted proxies; the zero Addr when unknown
	UserAgent string     // as it is kept: UTF-8
	Country   string     // ISO 3166-1 alpha-2 of IP, or empty
}

// Client is the client at an address.
func (s *Service) Client(ip netip.Addr, userAgent string) Client {
	c := Client{IP: ip, UserAgent: userAgent}
	if ip.IsValid() {
		c.Country = s.Country(ip)
	}
	return c
}

// address is the client's address as text, empty when it is unknown.
func (c Client) address() string {
	if !c.IP.IsValid() {
		return ""
	}
	return c.IP.String()
}

// A Unit is one unit of work: a transaction, and with it the activities, events and mails that its changes cause. The
// methods that take a user lock their row and read it again into *user, so that they decide on what is true now and hand
// back what is true afterwards; fields that a caller has changed in it but not stored are lost.
type Unit struct {
	*db.Tx
	s         *Service
	referrers map[int64]*string     // uids by id
	rebased   map[session.Key]int64 // epoch that a kept session will have after the commit
}

// Update runs f in one transaction and commits it unless f returns an error. It may run f again after a lost race, so
// f must not keep anything it did outside the transaction.
func (s *Service) Update(ctx context.Context, f func(ctx context.Context, u *Unit) error) error {
	return s.DB.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		return f(ctx, &Unit{Tx: tx, s: s, referrers: map[int64]*string{}, rebased: map[session.Key]int64{}})
	})
}

// Lock locks the user's row until the end of the unit and reads it into *user.
func (u *Unit) Lock(ctx context.Context, user *db.User) error {
	now, err := u.LockUser(ctx, user.ID)
	if err != nil {
		return err
	}
	*user = *now
	return nil
}

// storable is text that every column takes: valid UTF-8 without NUL, of at most limit bytes.
func storable(text string, limit int) string {
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "")
	}
	return text
}

// outage is the answer when a store could not be asked: it says nothing about the caller's credentials.
func outage(err error) error { return fault.New(fault.Unavailable).Because(err) }
