package account

import (
	"context"
	"errors"
	"strconv"
	"time"

	"barong/db"
	"barong/internal/delivery/mail"
)

// A Notification is something that another service tells about a user and that is worth a mail.
type Notification struct {
	Kind string    // what it is about, for counting
	ID   string    // the same however often it is told
	Ends time.Time // when it is accepted no longer
	// UID is who it is about. Without it, it is whoever has Email now.
	UID, Email string
	// Write writes the mail to the user, in a language: d has what is known of them.
	Write func(language string, d mail.Data) (mail.Message, error)
}

// How a notification ended.
const (
	Notified    = "mailed"
	Repeated    = "repeated"    // it was told before
	Unknown     = "unknown"     // there is no such user
	Unconfirmed = "unconfirmed" // the user's address is not confirmed, see Unit.mail
)

// Notify queues the mail of a notification, once: that it was told is noted in the same transaction. It returns how that
// ended.
func (s *Service) Notify(ctx context.Context, n Notification) (outcome string, err error) {
	err = s.Update(ctx, func(ctx context.Context, u *Unit) error {
		outcome, err = u.notify(ctx, n)
		return err
	})
	return outcome, err
}

func (u *Unit) notify(ctx context.Context, n Notification) (string, error) {
	fresh, err := u.Hear(ctx, n.ID, n.Ends)
	if err != nil || !fresh {
		return Repeated, err
	}
	var user *db.User
	if n.UID != "" {
		user, err = u.UserByUID(ctx, n.UID)
	} else {
		user, err = u.UserByEmail(ctx, n.Email)
	}
	if errors.Is(err, db.ErrNotFound) {
		return Unknown, nil
	}
	if err != nil {
		return "", err
	}
	confirmed, err := u.confirmed(ctx, user)
	if err != nil {
		return "", err
	}
	if !confirmed {
		u.AfterCommit(func(context.Context) { u.s.MailDropped(n.Kind) })
		return Unconfirmed, nil
	}
	language := u.s.mailLanguage(user)
	letter, err := n.Write(language, mail.Data{Email: user.Email, User: map[string]string{
		"uid": user.UID, "role": user.Role, "level": strconv.Itoa(user.Level), "state": user.State, "language": language,
	}})
	if err != nil {
		return "", err
	}
	if err := mail.Enqueue(ctx, u.Tx, letter); err != nil {
		return "", err
	}
	return Notified, nil
}
