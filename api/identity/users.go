package identity

import (
	"context"
	"errors"

	"barong/api/account"
	"barong/api/rest"
	"barong/db"
	"barong/internal/fault"
	"barong/internal/limit"
)

// signUp answers POST /identity/users.
func (m *Module) signUp(ctx context.Context, c *rest.Call) error {
	if err := m.checkCaptcha(ctx, c, userCreate); err != nil {
		return err
	}
	if err := m.Accounts.AllowAddress(ctx, limit.SignUpAddress, c.Client); err != nil {
		return err
	}
	sent := m.sent(c)
	user, id, opened, err := m.Accounts.SignUp(ctx, m.client(c), sent.IDs(), account.SignUp{
		Email: c.String("email"), Password: c.String("password"), Data: c.Optional("data"), RefID: c.String("refid"),
		Lang: c.String("lang"),
	})
	if err != nil {
		return err
	}
	return m.answerSession(ctx, c, user, id, opened)
}

// resendConfirmation answers POST /identity/users/email/generate_code, alike whether there is something to confirm.
func (m *Module) resendConfirmation(ctx context.Context, c *rest.Call) error {
	limits := mailLimits{account: limit.EmailCode, address: limit.EmailCodeAddress}
	return m.mail(ctx, c, emailConfirmation, limits, func(ctx context.Context, u *account.Unit, user *db.User) error {
		if user.State == account.Active {
			return nil
		}
		return u.IssueMailToken(ctx, user, account.Confirmation, c.String("lang"))
	})
}

// requestReset answers POST /identity/users/password/generate_code, alike whether the address has an account, and
// whether somebody has asked too often: their mails were sent, and the owner is not to be refused for it.
func (m *Module) requestReset(ctx context.Context, c *rest.Call) error {
	limits := mailLimits{account: limit.ResetCode, address: limit.ResetCodeAddress, quiet: true}
	return m.mail(ctx, c, passwordReset, limits, func(ctx context.Context, u *account.Unit, user *db.User) error {
		if err := u.Record(ctx, user, m.client(c), "password", "request password reset", account.Succeed, ""); err != nil {
			return err
		}
		return u.IssueMailToken(ctx, user, account.Reset, c.String("lang"))
	})
}

// mailLimits bound the mails that strangers can have sent: to one address, known or not, and from one client. Quiet ones
// send nothing more to an address, and do not say so.
type mailLimits struct {
	account, address limit.Rule
	quiet            bool
}

// mail runs send for the owner of the address, if there is one, and answers the same in any case.
func (m *Module) mail(
	ctx context.Context, c *rest.Call, operation string, limits mailLimits,
	send func(context.Context, *account.Unit, *db.User) error,
) error {
	if err := m.checkCaptcha(ctx, c, operation); err != nil {
		return err
	}
	if err := m.Accounts.AllowAddress(ctx, limits.address, c.Client); err != nil {
		return err
	}
	err := m.Accounts.AllowEmail(ctx, limits.account, c.String("email"))
	f := fault.As(err)
	enough := limits.quiet && f != nil && f.Has(fault.TooMany)
	if err != nil && !enough {
		return err
	}
	err = patiently(ctx, func() error {
		if enough {
			return nil
		}
		user, err := m.DB.UserByEmail(ctx, c.String("email"))
		if errors.Is(err, db.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error {
			if err := u.Lock(ctx, user); err != nil {
				return err
			}
			return send(ctx, u, user)
		})
	})
	if err != nil {
		return err
	}
	return c.Done()
}

// Refusals of mail tokens.
var (
	errNothingToConfirm = fault.New("identity.user.active_or_doesnt_exist")
	errSpent            = fault.New("identity.user.utilized_token")
)

// guessed wraps a handler that a mail token opens: a client whose calls fail too often is not answered for a while.
func (m *Module) guessed(h rest.HandlerFunc) rest.HandlerFunc {
	return func(ctx context.Context, c *rest.Call) error {
		if err := m.Accounts.PeekAddress(ctx, limit.MailTokenAddress, c.Client); err != nil {
			return err
		}
		err := h(ctx, c)
		if f := fault.As(err); f != nil && f.Status < 500 {
			if limited := m.Accounts.AllowAddress(ctx, limit.MailTokenAddress, c.Client); limited != nil {
				return limited
			}
		}
		return err
	}
}

// confirmEmail answers POST /identity/users/email/confirm_code. An account with a second factor gets no session by it.
func (m *Module) confirmEmail(ctx context.Context, c *rest.Call) error {
	claims, err := m.verifyMailToken(c.String("token"), account.Confirmation)
	if err != nil {
		return err
	}
	user, err := m.DB.UserByEmail(ctx, claims.Email)
	if errors.Is(err, db.ErrNotFound) || err == nil && !confirmable(user, claims.UID) {
		return errNothingToConfirm
	}
	if err != nil {
		return err
	}
	epoch := user.Epoch()
	confirm := func(ctx context.Context, u *account.Unit) error {
		if err := u.Lock(ctx, user); err != nil {
			return err
		}
		if !confirmable(user, claims.UID) {
			return errNothingToConfirm
		}
		if user.Epoch() != epoch { // the session would be born dead
			return fault.New(fault.Unavailable).Because(errors.New("the user's sessions were ended meanwhile"))
		}
		latest, err := u.UseMailToken(ctx, claims.ID, user.ID, string(account.Confirmation))
		if err != nil {
			return err
		}
		if !latest {
			return errSpent
		}
		if err := u.PutLabel(ctx, user, "email", "verified"); err != nil {
			return err
		}
		if err := u.Welcome(ctx, user, m.client(c)); err != nil {
			return err
		}
		return u.EmailConfirmed(ctx, user, c.String("lang"))
	}
	if user.OTP { // the mailbox is one factor: the other is asked for at the sign-in
		if err := m.Accounts.Update(ctx, confirm); err != nil {
			return err
		}
		info, err := m.view(c).FullInfo(ctx, user, "")
		if err != nil {
			return err
		}
		return c.Answer(info)
	}
	sent := m.sent(c)
	id, opened, err := m.Accounts.OpenSession(ctx, m.client(c), sent.IDs(), user.UID, epoch, confirm)
	if err != nil {
		return err
	}
	return m.answerSession(ctx, c, user, id, opened)
}

// confirmable reports whether there is an address to confirm. Only a pending account has one: confirming must not open a
// session of a banned one. The uid keeps a token from working for whoever has the address next.
func confirmable(user *db.User, uid string) bool {
	return user.State == account.Pending && (uid == "" || uid == user.UID)
}

// resetPassword answers POST /identity/users/password/confirm_code. It opens no session: the second factor, if there is
// one, is asked for at the next sign-in.
func (m *Module) resetPassword(ctx context.Context, c *rest.Call) error {
	if c.String("password") != c.String("confirm_password") {
		return fault.Invalid("identity.user.passwords_doesnt_match")
	}
	claims, err := m.verifyMailToken(c.String("reset_password_token"), account.Reset)
	if err != nil {
		return err
	}
	user, err := m.DB.UserByEmail(ctx, claims.Email)
	if err != nil {
		return err // record.not_found when the address is nobody's any more
	}
	if claims.UID != "" && claims.UID != user.UID {
		return errSpent
	}
	usable, err := m.DB.MailTokenUsable(ctx, claims.ID, user.ID, string(account.Reset))
	if err != nil {
		return err
	}
	if !usable {
		return errSpent
	}
	if err := resettable(user); err != nil {
		return err
	}
	digest, err := m.Accounts.HashPassword(m.Accounts.Asking(ctx, c.Client, user.Email), c.String("password"))
	if reason, refused := account.PasswordReason(err); refused {
		if rerr := m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error {
			return u.Record(ctx, user, m.client(c), "password", "password reset", account.Failed, reason)
		}); rerr != nil {
			return rerr
		}
		return err
	}
	if err != nil {
		return err
	}
	err = m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error {
		if err := u.Lock(ctx, user); err != nil {
			return err
		}
		if err := resettable(user); err != nil {
			return err
		}
		latest, err := u.UseMailToken(ctx, claims.ID, user.ID, string(account.Reset))
		if err != nil {
			return err
		}
		if !latest {
			return errSpent
		}
		if err := u.SetPassword(ctx, user, digest, nil); err != nil {
			return err
		}
		// Whoever knew the old password could have made keys that outlive it.
		if err := u.DeactivateAPIKeys(ctx, user.ID); err != nil {
			return err
		}
		if err := u.Record(ctx, user, m.client(c), "password", "password reset", account.Succeed, ""); err != nil {
			return err
		}
		// The mailbox tells the owner as a sign-in does: the way in again for who is away from home while others guess.
		if err := u.Welcome(ctx, user, m.client(c)); err != nil {
			return err
		}
		return u.PasswordReset(ctx, user, c.String("lang"))
	})
	if err != nil {
		return err
	}
	if err := m.Accounts.PasswordTries(user.Email, c.Client).Forgive(ctx); err != nil {
		return err
	}
	return c.Done()
}

// resettable refuses accounts that are closed for good. Whoever holds the token has the mailbox, and so may know.
func resettable(user *db.User) error {
	switch user.State {
	case account.Banned:
		return fault.New("identity.session.banned")
	case account.Deleted:
		return fault.New("identity.session.deleted")
	}
	return nil
}
