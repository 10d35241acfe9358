// Package mailer writes mails on what other services tell over the message broker: a deposit that was accepted, a
// beneficiary that waits for its PIN. It is the mailer of the original without its process: a mailer.yml says which events
// of whom are worth a mail.
//
// A message counts when the service that may publish at its exchange has signed it, for three days, and once. The mail goes
// to the user that it is about, at the address that they have here and have confirmed, through the outbox; that the message
// was heard is noted in the same transaction. Whatever else comes is told in the log, counted, and set aside by the broker.
//
// The mails on events of this program itself are written where they are caused, by package account.
package mailer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"barong/api/account"
	"barong/internal/crypto/jws"
	"barong/internal/delivery/events"
	"barong/internal/delivery/mail"
	"barong/internal/delivery/outbox"
	"barong/internal/fault"
)

// Queue is the name of the queue at the broker that the replicas share.
const Queue = "barong.mailer"

// Bounds of what is accepted.
const (
	clockSkew = time.Minute
	maxID     = 256 // bytes of a jti, a uid or an address
)

// Options are what New needs.
type Options struct {
	Config *Config
	// Notify queues the mails: account.Service's.
	Notify func(ctx context.Context, n account.Notification) (outcome string, err error)
	// Strict refuses what has expired by its own claim, as the original did: its services give a minute, so that what waits
	// longer in the queue is lost. Otherwise a message counts for three days, or for longer if it says so, up to a month.
	Strict bool
	// Observe, when set, is told how each message ended: one of package account's outcomes of a notification, "ignored" where
	// nothing is to be mailed about it, or "dead".
	Observe func(outcome string)

	Log *slog.Logger
	Now func() time.Time
}

// A Mailer deals with messages. It is safe for concurrent use.
type Mailer struct{ o Options }

// New returns a mailer.
func New(o Options) *Mailer {
	if o.Observe == nil {
		o.Observe = func(string) {}
	}
	return &Mailer{o: o}
}

// Handle deals with a message: it is the handler of an events.Consumer. Errors repeat nothing of what the message says.
func (m *Mailer) Handle(ctx context.Context, d events.Delivery) error {
	var entries []event
	for _, e := range m.o.Config.events {
		if e.exchange == d.Exchange && e.key == d.Key {
			entries = append(entries, e)
		}
	}
	if len(entries) == 0 { // bound by an older configuration
		m.o.Observe("ignored")
		return nil
	}
	msg, err := read(d.Body, m.o.Config.keychain, entries[0].signer, d.Key, m.o.Now(), m.o.Strict)
	if err != nil {
		return outbox.Permanent(err)
	}
	first := slices.IndexFunc(entries, func(e event) bool { return e.holds == nil || e.holds(msg.event) })
	if first < 0 || mailedAnyway(d, msg.event) {
		m.o.Observe("ignored")
		return nil
	}
	outcome, err := m.o.Notify(ctx, account.Notification{
		Kind: d.Key, ID: msg.id, Ends: msg.ends, UID: msg.uid, Email: msg.email,
		Write: func(language string, data mail.Data) (mail.Message, error) {
			data.Event = msg.event
			letter, err := entries[first].mail.Render(language, data)
			if err != nil {
				return mail.Message{}, outbox.Permanent(err)
			}
			return letter, nil
		},
	})
	if err != nil {
		return err
	}
	if outcome == account.Unknown {
		m.o.Log.WarnContext(ctx, "an event is about somebody who has no account", "exchange", d.Exchange, "key", d.Key)
	}
	m.o.Observe(outcome)
	return nil
}

// Dead tells of a message that is given up: it is the Dead of an events.Consumer.
func (m *Mailer) Dead(d events.Delivery, err error) {
	cause := err.Error()
	if refused, ok := errors.AsType[*fault.Error](err); ok && refused.Err != nil {
		cause = refused.Err.Error()
	}
	m.o.Log.Error("a message of another service was set aside", "exchange", d.Exchange, "key", d.Key, "bytes", len(d.Body),
		"queue", Queue+".dead", "error", cause)
	m.o.Observe("dead")
}

// mailedAnyway reports whether this program has itself written a mail on an event of its own about a label.
func mailedAnyway(d events.Delivery, event map[string]any) bool {
	if !slices.Contains(ours[d.Exchange], d.Key) {
		return false
	}
	text := func(path string) string {
		s, _ := mail.At(event, path).(string)
		return s
	}
	_, mailed := mail.OfLabel(d.Key == mail.LabelCreated, text("record.scope"), text("record.key"), text("record.value"))
	return mailed || text("record.scope") == "public" // which its owner writes
}

// A message is what a service has signed.
type message struct {
	id         string    // the same however often it is sent
	ends       time.Time // when it counts no longer
	event      map[string]any
	uid, email string // of the user it is about; one of them is there
}

// read verifies a message and takes it apart. It must be signed by the one signer and be about an event with that routing
// key. strict, see Options. Errors repeat nothing of what it says.
func read(body []byte, chain jws.Keychain, signer, key string, now time.Time, strict bool) (*message, error) {
	signed, err := jws.Parse(body)
	if err != nil {
		return nil, err
	}
	by, err := signed.Verify(chain, []string{signer})
	if err != nil {
		return nil, err
	}
	if !slices.Contains(by, signer) {
		return nil, fmt.Errorf("%s has not signed it", signer)
	}
	payload, err := signed.Bytes()
	if err != nil {
		return nil, err
	}
	claims, err := jws.Object(payload)
	if err != nil {
		return nil, fmt.Errorf("payload: %w", err)
	}
	m := &message{}
	if m.ends, err = life(claims, now, strict); err != nil {
		return nil, err
	}
	var id string
	if text, ok := claims["jti"]; ok && json.Unmarshal(text, &id) != nil || len(id) > maxID {
		return nil, fmt.Errorf("jti is not a text of at most %d bytes", maxID)
	}
	if id == "" {
		sum := sha256.Sum256(payload)
		id = "payload " + hex.EncodeToString(sum[:])
	}
	m.id = signer + "\x00" + id
	decoded := decodeJSON(claims["event"])
	var ok bool
	if m.event, ok = decoded.(map[string]any); !ok {
		return nil, errors.New("event is not an object")
	}
	if name, ok := m.event["name"].(string); ok {
		if _, rest, _ := strings.Cut(name, "."); rest != key { // the routing key is not signed
			return nil, errors.New("it was signed as another event")
		}
	}
	if _, ok := m.event["record"].(map[string]any); !ok {
		return nil, errors.New("event.record is not an object")
	}
	for _, path := range []string{"record.user.uid", "record.uid"} {
		if uid, ok := mail.At(m.event, path).(string); ok && uid != "" && m.uid == "" {
			m.uid = uid
		}
	}
	if email, ok := mail.At(m.event, "record.user.email").(string); ok && m.uid == "" {
		m.email = email
	}
	if m.uid == "" && m.email == "" || len(m.uid) > maxID || len(m.email) > maxID {
		return nil, errors.New("event.record.user names nobody")
	}
	return m, nil
}

// longest is how far ahead the end of a message may lie: so long it is remembered.
const longest = 31 * 24 * time.Hour

// life judges the times of a message and returns when it counts no longer.
func life(claims map[string]json.RawMessage, now time.Time, strict bool) (ends time.Time, err error) {
	at := map[string]time.Time{}
	for _, name := range []string{"iat", "exp", "nbf"} {
		text, ok := claims[name]
		if !ok || string(text) == "null" {
			continue
		}
		var seconds float64
		if err := json.Unmarshal(text, &seconds); err != nil || seconds < 0 || seconds > 1e11 {
			return ends, fmt.Errorf("%s is not a time", name)
		}
		at[name] = time.UnixMilli(int64(seconds * 1000))
	}
	issued, expires := at["iat"], at["exp"]
	ends = expires
	if !strict || expires.IsZero() {
		if kept := issued.Add(events.Kept); !issued.IsZero() && kept.After(ends) {
			ends = kept
		}
	}
	switch {
	case ends.IsZero():
		return ends, errors.New("neither iat nor exp is there, one of which is needed")
	case issued.After(now.Add(clockSkew)) || at["nbf"].After(now.Add(clockSkew)):
		return ends, errors.New("it is from the future")
	case ends.After(now.Add(longest)):
		return ends, errors.New("exp is more than a month ahead")
	case !now.Before(ends):
		return ends, errors.New("it is too old")
	}
	return ends, nil
}
