package account

import (
	"context"
	"errors"
	"time"

	"barong/db"
	"barong/internal/fault"
	"barong/session"
)

// ErrSpent refuses a mail token that was used, or that another one has replaced.
var ErrSpent = fault.New("identity.user.utilized_token")

// A MailToken is what a mail token that was verified says.
type MailToken struct {
	ID    string // claim jti
	Email string
	UID   string // empty in tokens of the original

	IssuedAt, ExpiresAt time.Time // zero IssuedAt if it tells none
	KeyID               string    // in the header; the original names none
}

// imported is the token as one that the original sent, if it may be one. It is not once the user's sessions were ended
// here, as by a new password: older links must not work after that.
func (t *MailToken) imported(user *db.User, kind TokenKind) (db.ImportedMailToken, bool) {
	return db.ImportedMailToken{JTI: t.ID, UserID: user.ID, Kind: string(kind), IssuedAt: t.IssuedAt, ExpiresAt: t.ExpiresAt},
		t.KeyID == "" && !t.IssuedAt.IsZero() && user.SessionEpoch == 0
}

// redeem spends a token: one of this program, or one that the original sent before its database was imported.
func (u *Unit) redeem(ctx context.Context, token MailToken, user *db.User, kind TokenKind) (bool, error) {
	used, err := u.UseMailToken(ctx, token.ID, user.ID, string(kind))
	if t, old := token.imported(user, kind); old && err == nil && !used {
		return u.UseImportedMailToken(ctx, t)
	}
	return used, err
}

// ResetPassword gives the owner of a reset token a new password and ends their sessions. It opens none: the second factor,
// if there is one, is asked for at the next sign-in. The language is the one of the client, as sent.
func (s *Service) ResetPassword(ctx context.Context, c Client, token MailToken, password, lang string) error {
	user, err := s.resettable(ctx, token)
	if err != nil {
		return err
	}
	digest, err := s.HashPassword(s.Asking(ctx, c.IP, user.Email), password)
	if reason, refused := PasswordReason(err); refused {
		if rerr := s.Update(ctx, func(ctx context.Context, u *Unit) error {
			return u.Record(ctx, user, c, "password", "password reset", Failed, reason)
		}); rerr != nil {
			return rerr
		}
		return err
	}
	if err != nil {
		return err
	}
	err = s.Update(ctx, func(ctx context.Context, u *Unit) error {
		return u.resetPassword(ctx, user, c, token, digest, lang)
	})
	if err != nil {
		return err
	}
	return s.PasswordTries(user.Email, c.IP).Forgive(ctx)
}

// resettable is the owner of a token that may set a password, as it looks before the slow work of hashing one.
func (s *Service) resettable(ctx context.Context, token MailToken) (*db.User, error) {
	user, err := s.DB.UserByEmail(ctx, token.Email)
	if err != nil {
		return nil, err // record.not_found when the address is nobody's any more
	}
	if token.UID != "" && token.UID != user.UID {
		return nil, ErrSpent
	}
	usable, err := s.DB.MailTokenUsable(ctx, token.ID, user.ID, string(Reset))
	if t, old := token.imported(user, Reset); old && err == nil && !usable {
		usable, err = s.DB.ImportedMailTokenUsable(ctx, t)
	}
	if err != nil {
		return nil, err
	}
	if !usable {
		return nil, ErrSpent
	}
	return user, notClosed(user)
}

func (u *Unit) resetPassword(ctx context.Context, user *db.User, c Client, token MailToken, digest, lang string) error {
	if err := u.Lock(ctx, user); err != nil {
		return err
	}
	if err := notClosed(user); err != nil {
		return err
	}
	latest, err := u.redeem(ctx, token, user, Reset)
	if err != nil {
		return err
	}
	if !latest {
		return ErrSpent
	}
	if err := u.SetPassword(ctx, user, digest, nil); err != nil {
		return err
	}
	// Who had an account made in the name of somebody else's address must not stay when its owner comes.
	confirmed, err := u.confirmed(ctx, user)
	if err != nil {
		return err
	}
	if !confirmed {
		if err := u.forgetDevices(ctx, user); err != nil {
			return err
		}
	}
	// Whoever knew the old password could have made keys that outlive it.
	if err := u.DeactivateAPIKeys(ctx, user.ID); err != nil {
		return err
	}
	if err := u.Record(ctx, user, c, "password", "password reset", Succeed, ""); err != nil {
		return err
	}
	// Whoever has the mailbox is the owner, as after a sign-in: this lets them in again from a new network while others
	// guess at the password.
	if err := u.Welcome(ctx, user, c); err != nil {
		return err
	}
	return u.PasswordReset(ctx, user, lang)
}

// notClosed refuses accounts that are closed for good. Whoever holds the token has the mailbox, and so may know.
func notClosed(user *db.User) error {
	switch user.State {
	case Banned:
		return fault.New("identity.session.banned")
	case Deleted:
		return fault.New("identity.session.deleted")
	}
	return nil
}

// ErrNothingToConfirm refuses a confirmation token of an account that is none, or not pending.
var ErrNothingToConfirm = fault.New("identity.user.active_or_doesnt_exist")

// ConfirmEmail confirms the address of a confirmation token and opens a session, with old ones as in OpenSession. An
// account with a second factor gets no session by it: the mailbox is one factor, and the other is asked for at the
// sign-in. The language is the one of the client, as sent.
func (s *Service) ConfirmEmail(
	ctx context.Context, c Client, old []session.ID, token MailToken, lang string,
) (*db.User, session.ID, *session.Session, error) {
	user, err := s.DB.UserByEmail(ctx, token.Email)
	if errors.Is(err, db.ErrNotFound) || err == nil && !confirmable(user, token.UID) {
		err = ErrNothingToConfirm
	}
	if err != nil {
		return nil, session.ID{}, nil, err
	}
	epoch := user.Epoch()
	confirm := func(ctx context.Context, u *Unit) error { return u.confirmEmail(ctx, user, epoch, c, token, lang) }
	if user.OTP {
		return user, session.ID{}, nil, s.Update(ctx, confirm)
	}
	id, opened, err := s.OpenSession(ctx, c, old, user.UID, epoch, session.MailedToken, confirm)
	return user, id, opened, err
}

func (u *Unit) confirmEmail(ctx context.Context, user *db.User, epoch int64, c Client, token MailToken, lang string) error {
	if err := u.Lock(ctx, user); err != nil {
		return err
	}
	if !confirmable(user, token.UID) {
		return ErrNothingToConfirm
	}
	if user.Epoch() != epoch { // the session would be born dead
		return fault.New(fault.Unavailable).Because(errors.New("the user's sessions were ended meanwhile"))
	}
	latest, err := u.redeem(ctx, token, user, Confirmation)
	if err != nil {
		return err
	}
	if !latest {
		return ErrSpent
	}
	if err := u.PutLabel(ctx, user, "email", "verified"); err != nil {
		return err
	}
	if err := u.Welcome(ctx, user, c); err != nil {
		return err
	}
	return u.EmailConfirmed(ctx, user, lang)
}

// confirmable reports whether there is an address to confirm. Only a pending account has one: confirming must not open a
// session of a banned one. The uid keeps a token from working for whoever has the address next.
func confirmable(user *db.User, uid string) bool {
	return user.State == Pending && (uid == "" || uid == user.UID)
}
