// Package mail writes the mails to people, and sends them.
//
// A Renderer turns a kind and its data into a Message in the reader's language: a plain-text part, and the same words as
// HTML without images or anything else to be fetched. A Message goes through the outbox as JSON and leaves by a Sender:
// over SMTP, or into a folder when no server is set.
package mail

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"barong/db"
	"barong/internal/delivery/outbox"
	"barong/internal/limit"
)

// Kinds of mail. Where an event of that name exists, the mail goes with it.
const (
	Confirmation     = "user.email.confirmation.token"
	ResetToken       = "user.password.reset.token"
	PasswordReset    = "user.password.reset"
	PasswordChanged  = "user.password.change"
	AccountDeleted   = "user.account.deleted"
	SessionCreated   = "session.create"
	LabelCreated     = "label.created" // a phone number was verified
	LabelUpdated     = "label.updated" // the same, after another value
	DocumentVerified = "document.verified"
	DocumentRejected = "document.rejected"
	ProfileVerified  = "profile.verified"
	ProfileRejected  = "profile.rejected"
	OTPEnabled       = "otp.enabled"
	OTPDisabled      = "otp.disabled"
	APIKeyCreated    = "api_key.created"
	PasskeyCreated   = "passkey.created"
	PasskeyDeleted   = "passkey.deleted"
	PasskeyCopied    = "passkey.copied" // a sign-in was refused: the passkey may have been copied
	ProviderLinked   = "provider.linked"
	ProviderUnlinked = "provider.unlinked"
)

// OfLabel tells which mail the new value of a label is worth. Public labels are worth none: their owner writes them.
func OfLabel(created bool, scope, key, value string) (kind string, ok bool) {
	if scope != "private" {
		return "", false
	}
	switch key + ":" + value {
	case "phone:verified":
		if created {
			return LabelCreated, true
		}
		return LabelUpdated, true
	case "document:verified":
		return DocumentVerified, true
	case "document:rejected":
		return DocumentRejected, true
	case "profile:verified":
		return ProfileVerified, true
	case "profile:rejected":
		return ProfileRejected, true
	}
	return "", false
}

// Told reports whether an event tells of what a kind of mail is about, so that whoever consumes events can write that mail.
// Of decisions about a profile the event of the label tells.
func Told(kind string) bool {
	switch kind {
	case OTPEnabled, OTPDisabled, APIKeyCreated, PasskeyCreated, PasskeyDeleted, PasskeyCopied, ProviderLinked, ProviderUnlinked:
		return false
	}
	return true
}

// A Message is a finished mail but for its sender.
type Message struct {
	ID      string    `json:"id"` // of the Message-ID, the same at every attempt to send it
	Kind    string    `json:"kind"`
	To      string    `json:"to"` // a bare address
	Subject string    `json:"subject"`
	Text    string    `json:"text"`
	HTML    string    `json:"html"`
	Date    time.Time `json:"date"`
}

// A Sender sends. An error that no later attempt can mend is marked by outbox.Permanent. Safe for concurrent use.
type Sender interface {
	Send(ctx context.Context, m Message) error
	Close() error
}

// OutboxKind is the kind of the mails in the outbox.
const OutboxKind = "mail"

// Queue is the part of a transaction that mails are queued with.
type Queue interface {
	Enqueue(ctx context.Context, kind, topic string, payload []byte) error
}

// Enqueue queues a message in a transaction.
func Enqueue(ctx context.Context, q Queue, m Message) error {
	payload, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("queue mail: %w", err)
	}
	return q.Enqueue(ctx, OutboxKind, m.Kind, payload)
}

// Handler delivers from the outbox what Enqueue has queued, as many to one mailbox as limits allow; what is beyond is not
// sent, and dropped is told its kind. A mailbox is the recipient without regard to case, dots and what follows a plus.
func Handler(s Sender, limits limit.Limiter, dropped func(kind string)) outbox.Handler {
	return func(ctx context.Context, _ string, payload []byte) error {
		var m Message
		if err := json.Unmarshal(payload, &m); err != nil {
			return outbox.Permanent(errors.New("the queued mail is not readable")) // its text stays out of the log
		}
		to := mailbox(m.To)
		wait, err := limit.Mail.Take(ctx, limits, to)
		if err != nil {
			return err
		}
		if wait > 0 {
			dropped(m.Kind)
			return nil
		}
		if err := s.Send(ctx, m); err != nil {
			// What was not sent does not count. If that cannot be said, it does for ten minutes.
			_ = limit.Mail.Refund(context.WithoutCancel(ctx), limits, to)
			return err
		}
		return nil
	}
}

// mailbox is what most servers take an address for.
func mailbox(address string) string {
	local, domain := cut(db.NormalEmail(address))
	local, _, _ = strings.Cut(local, "+")
	return strings.ReplaceAll(local, ".", "") + "@" + domain
}

// cut cuts an address at its last at sign.
func cut(address string) (local, domain string) {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return address, ""
	}
	return address[:at], address[at+1:]
}
