// Package events tells other services what happened: it takes events into the outbox, in the transactions that cause them,
// and publishes them from there, signed, one after the other: to a message broker that speaks AMQP 0-9-1, and to a stream of
// NATS JetStream.
//
// An event is delivered at least once to each, in the order in which events were queued, over all replicas. One that comes
// again has the same id ("jti"), and over both ways the same.
//
// It knows nothing of what events say; that is package account's.
package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"barong/db"
	"barong/internal/crypto/jws"
	"barong/internal/delivery/outbox"
)

// OutboxKind is the kind of events in the outbox that leave over AMQP.
const OutboxKind = "event"

// The names that receivers know the sender by: the issuer of the claims and the key id of the signature.
const (
	issuer = "barong"
	keyID  = "barong"
)

// Expiry is how long the receivers of the original are given to accept an event, see [Options].
const Expiry = time.Minute

// An Event tells what happened. Record and Changes are JSON objects; Changes is nil unless something was updated.
type Event struct {
	Name    string // category and routing key: "model.user.updated", "system.session.create"
	Record  json.RawMessage
	Changes json.RawMessage
}

// queued is an event in the outbox. Its id and time are made there, so that it keeps them however often it is sent.
type queued struct {
	ID    string `json:"jti"`
	At    int64  `json:"iat"` // Unix seconds
	Event body   `json:"event"`
}

// body is the event in its envelope. The order of members is the original's: its receivers keep it.
type body struct {
	Record  json.RawMessage `json:"record"`
	Changes json.RawMessage `json:"changes,omitempty"`
	Name    string          `json:"name"`
}

// claims is the envelope, in the original's order.
type claims struct {
	Issuer    string `json:"iss"`
	ID        string `json:"jti"`
	IssuedAt  int64  `json:"iat"`
	ExpiresAt int64  `json:"exp,omitempty"`
	Event     body   `json:"event"`
}

// Enqueue takes an event into the outbox, once for each of the kinds, OutboxKind and NATSKind. It leaves only if the
// transaction commits.
func Enqueue(ctx context.Context, tx *db.Tx, e Event, kinds ...string) error {
	if _, _, err := split(e.Name); err != nil {
		return err
	}
	payload, err := json.Marshal(queued{
		ID: uuid.NewString(), At: tx.Now().Unix(), Event: body{Record: e.Record, Changes: e.Changes, Name: e.Name},
	})
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	for _, kind := range kinds {
		if err := tx.Enqueue(ctx, kind, e.Name, payload); err != nil {
			return err
		}
	}
	return nil
}

// split parts the name of an event into its exchange and its routing key.
func split(name string) (exchange, key string, err error) {
	category, key, _ := strings.Cut(name, ".")
	if category != "model" && category != "system" || key == "" || len(key) > 255 { // a short string of the protocol
		return "", "", fmt.Errorf("event %.100q: its name is not model.… or system.…", name)
	}
	return "barong.events." + category, key, nil
}

// A signed event is what leaves.
type signed struct {
	id, name string
	message  []byte
}

// envelope makes the message of a queued event.
func envelope(payload []byte, expiry time.Duration, signer jws.Signer, now time.Time) (*signed, error) {
	var q queued
	if err := json.Unmarshal(payload, &q); err != nil || q.ID == "" {
		return nil, outbox.Permanent(errors.New("the queued event is not readable")) // its text stays out of the log
	}
	if _, _, err := split(q.Event.Name); err != nil {
		return nil, outbox.Permanent(err)
	}
	c := claims{Issuer: issuer, ID: q.ID, IssuedAt: q.At, Event: q.Event}
	if expiry > 0 {
		c.ExpiresAt = now.Add(expiry).Unix()
	}
	// Without white space, and <, >, &, U+2028 and U+2029 escaped, as encoding/json does: the original's receivers parse
	// the payload, write it anew in that form, and verify what they have written.
	text, err := json.Marshal(c)
	if err != nil {
		return nil, outbox.Permanent(errors.New("the queued event cannot be encoded"))
	}
	m := jws.New(text)
	if err := m.Sign(keyID, signer); err != nil {
		return nil, err
	}
	message, err := json.Marshal(m)
	return &signed{id: q.ID, name: q.Event.Name, message: message}, err
}

// Kind is how the outbox delivers events over a publisher's Handle. While the broker is away they wait: nothing is given up for
// a week. Every event waits for the first of them, so a broker that is back does not wait long.
func Kind(handle outbox.Handler) outbox.Kind {
	return outbox.Kind{
		Handler: handle, Ordered: true, Timeout: 10 * time.Second, MaxAge: 7 * 24 * time.Hour, MaxBackoff: 30 * time.Second,
	}
}
