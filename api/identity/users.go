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
	if err := m.verifyCaptcha(ctx, c, userCreate); err != nil {
		return err
	}
	if err := m.Accounts.AllowAddress(ctx, limit.SignUpAddress, c.Client); err != nil {
		return err
	}
	var in struct {
		Email    string  `param:"email"`
		Password string  `param:"password"`
		Data     *string `param:"data"`
		RefID    string  `param:"refid"`
		Lang     string  `param:"lang"`
	}
	c.Into(&in)
	sent := m.sent(c)
	user, id, opened, err := m.Accounts.SignUp(ctx, m.client(c), sent.IDs(), account.SignUp(in))
	if err != nil {
		return err
	}
	return m.answerSession(ctx, c, user, id, opened)
}

// resendConfirmation answers POST /identity/users/email/generate_code, alike whether there is something to confirm.
func (m *Module) resendConfirmation(ctx context.Context, c *rest.Call) error {
	limits := mailLimits{account: limit.EmailCode, address: limit.EmailCodeAddress}
	return m.mail(ctx, c, emailConfirmation, limits, func(ctx context.Context, u *account.Unit, user *db.User, lang string) error {
		if user.State == account.Active {
			return nil
		}
		return u.IssueMailToken(ctx, user, account.Confirmation, lang)
	})
}

// requestReset answers POST /identity/users/password/generate_code, alike whether the address has an account, and
// whether somebody has asked too often: their mails were sent, and the owner is not to be refused for it.
func (m *Module) requestReset(ctx context.Context, c *rest.Call) error {
	limits := mailLimits{account: limit.ResetCode, address: limit.ResetCodeAddress, quiet: true}
	return m.mail(ctx, c, passwordReset, limits, func(ctx context.Context, u *account.Unit, user *db.User, lang string) error {
		if err := u.Record(ctx, user, m.client(c), "password", "request password reset", account.Succeed, ""); err != nil {
			return err
		}
		return u.IssueMailToken(ctx, user, account.Reset, lang)
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
	send func(ctx context.Context, u *account.Unit, user *db.User, lang string) error,
) error {
	var in struct {
		Email string `param:"email"`
		Lang  string `param:"lang"`
	}
	c.Into(&in)
	if err := m.verifyCaptcha(ctx, c, operation); err != nil {
		return err
	}
	if err := m.Accounts.AllowAddress(ctx, limits.address, c.Client); err != nil {
		return err
	}
	err := m.Accounts.AllowEmail(ctx, limits.account, in.Email)
	f := fault.As(err)
	enough := limits.quiet && f != nil && f.Has(fault.TooMany)
	if err != nil && !enough {
		return err
	}
	err = patiently(ctx, func() error {
		if enough {
			return nil
		}
		user, err := m.DB.UserByEmail(ctx, in.Email)
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
			return send(ctx, u, user, in.Lang)
		})
	})
	if err != nil {
		return err
	}
	return c.Done()
}

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

// confirmEmail answers POST /identity/users/email/confirm_code.
func (m *Module) confirmEmail(ctx context.Context, c *rest.Call) error {
	var in struct {
		Token string `param:"token"`
		Lang  string `param:"lang"`
	}
	c.Into(&in)
	token, err := m.verifyMailToken(in.Token, account.Confirmation)
	if err != nil {
		return err
	}
	sent := m.sent(c)
	user, id, opened, err := m.Accounts.ConfirmEmail(ctx, m.client(c), sent.IDs(), token, in.Lang)
	if err != nil {
		return err
	}
	if opened != nil {
		return m.answerSession(ctx, c, user, id, opened)
	}
	info, err := m.view(c).FullInfo(ctx, user, "")
	if err != nil {
		return err
	}
	return c.Answer(info)
}

// resetPassword answers POST /identity/users/password/confirm_code.
func (m *Module) resetPassword(ctx context.Context, c *rest.Call) error {
	var in struct {
		Token    string `param:"reset_password_token"`
		Password string `param:"password"`
		Again    string `param:"confirm_password"`
		Lang     string `param:"lang"`
	}
	c.Into(&in)
	if in.Password != in.Again {
		return fault.Invalid("identity.user.passwords_doesnt_match")
	}
	token, err := m.verifyMailToken(in.Token, account.Reset)
	if err != nil {
		return err
	}
	if err := m.Accounts.ResetPassword(ctx, m.client(c), token, in.Password, in.Lang); err != nil {
		return err
	}
	return c.Done()
}
