package account

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"barong/db"
	"barong/internal/delivery/mail"
)

// A Letters writes the mails. mail.Renderer is one.
type Letters interface {
	Render(kind, language string, d mail.Data) (mail.Message, error)
}

// mail queues a letter to the user, in the transaction that causes it. Who has not confirmed their address gets none but
// the two that strangers can ask for as well: the address may be that of somebody who never heard of us.
func (u *Unit) mail(ctx context.Context, user *db.User, kind string, data mail.Data) error {
	if u.s.OthersMail(kind) {
		return nil
	}
	if kind != mail.Confirmation && kind != mail.ResetToken {
		confirmed, err := u.confirmed(ctx, user)
		if err != nil {
			return err
		}
		if !confirmed {
			u.AfterCommit(func(context.Context) { u.s.MailDropped(kind) })
			return nil
		}
	}
	data.Email = user.Email
	letter, err := u.s.Letters.Render(kind, u.s.mailLanguage(user), data)
	if err != nil {
		if data.Token != "" { // a token that reaches nobody is of no use to who asked for it
			return fmt.Errorf("mail %s: %w", kind, err)
		}
		// An operator's faulty template must not keep people from signing in, or from changing their password.
		u.s.Log.ErrorContext(ctx, "write mail", "kind", kind, "error", err)
		return nil
	}
	return mail.Enqueue(ctx, u.Tx, letter)
}

// confirmed reports whether the user's address is known to be theirs: they have followed the link of a mail, or somebody
// who vouches for them has made the account active. An account that labels made active counts where they must include the
// label of the address.
func (u *Unit) confirmed(ctx context.Context, user *db.User) (bool, error) {
	if user.State == Active && (user.StateManual || u.s.ActivationRequirements["email"] != "") {
		return true, nil
	}
	l, err := u.Label(ctx, user.ID, "email", Private)
	if errors.Is(err, db.ErrNotFound) {
		return false, nil
	}
	return err == nil && l.Value == "verified", err
}

// mailLanguage is the member language of the user's data, or the default. Data may be any JSON, or have been imported.
func (s *Service) mailLanguage(user *db.User) string {
	var data struct {
		Language string `json:"language"`
	}
	if user.Data != nil && json.Unmarshal([]byte(*user.Data), &data) == nil && data.Language != "" {
		return data.Language
	}
	return s.DefaultLanguage
}

// mailLabel tells the user by mail of a decision about them, if the label is one.
func (u *Unit) mailLabel(ctx context.Context, user *db.User, l *db.Label, created bool) error {
	kind, ok := mail.OfLabel(created, l.Scope, l.Key, l.Value)
	if !ok {
		return nil
	}
	return u.mail(ctx, user, kind, mail.Data{})
}

// APIKeyCreated tells the user by mail that an API key of theirs was made. Keys make no events.
func (u *Unit) APIKeyCreated(ctx context.Context, user *db.User, kid string) error {
	return u.mail(ctx, user, mail.APIKeyCreated, mail.Data{Key: kid})
}
