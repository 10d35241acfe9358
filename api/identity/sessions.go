package identity

import (
	"context"
	"errors"
	"strings"

	"barong/api/account"
	"barong/api/rest"
	"barong/db"
	"barong/internal/fault"
	"barong/session"
)

// signIn answers POST /identity/sessions. The password comes first: until it is right, the answer is the same for
// every address, whether it has an account, and in what state.
func (m *Module) signIn(ctx context.Context, c *rest.Call) error {
	if err := m.verifyCaptcha(ctx, c, sessionCreate); err != nil {
		return err
	}
	var in struct {
		Email    string `param:"email"`
		Password string `param:"password"`
		Code     string `param:"otp_code"`
	}
	c.Into(&in)
	user, err := m.provePassword(ctx, c, in.Email, in.Password)
	if err != nil {
		return err
	}
	if err := m.admissible(ctx, c, user); err != nil {
		return err
	}
	if user.OTP {
		if err := m.proveSecondFactor(ctx, c, user, in.Code); err != nil {
			return err
		}
	}
	sent := m.sent(c)
	id, opened, err := m.Accounts.SignIn(ctx, m.client(c), sent.IDs(), user)
	if err != nil {
		return err
	}
	return m.answerSession(ctx, c, user, id, opened)
}

var errSignIn = fault.New("identity.session.invalid_params")

// provePassword finds the user whose address and password were sent.
func (m *Module) provePassword(ctx context.Context, c *rest.Call, email, password string) (*db.User, error) {
	ctx = m.Accounts.Asking(ctx, c.Client, email)
	tries := m.Accounts.PasswordTries(email, c.Client)
	if err := tries.Begin(ctx); err != nil {
		return nil, err
	}
	user, err := m.DB.UserByEmail(ctx, email)
	if err != nil && !errors.Is(err, db.ErrNotFound) {
		tries.Undecided(ctx)
		return nil, err
	}
	right, err := m.Accounts.VerifyPassword(ctx, user, password)
	if err != nil {
		tries.Undecided(ctx)
		return nil, err
	}
	if right {
		return user, tries.Right(ctx)
	}
	return nil, patiently(ctx, func() error {
		if user != nil {
			if err := m.recordFailure(ctx, c, user, "login", "Invalid Email or Password"); err != nil {
				return err
			}
		}
		return errSignIn
	})
}

// admissible refuses an account that may not be used, to somebody who has proved to own it.
func (m *Module) admissible(ctx context.Context, c *rest.Call, user *db.User) error {
	var code fault.Code
	var reason string
	switch {
	case user.Open():
		return nil
	case user.State == account.Banned:
		code, reason = "identity.session.banned", "Your account is banned"
	case user.State == account.Deleted:
		code, reason = "identity.session.deleted", "Your account is deleted"
	default:
		code, reason = "identity.session.not_active", "Your account is not active"
	}
	if err := m.recordFailure(ctx, c, user, "login", reason); err != nil {
		return err
	}
	return fault.New(code)
}

func (m *Module) proveSecondFactor(ctx context.Context, c *rest.Call, user *db.User, code string) error {
	if strings.TrimSpace(code) == "" {
		return fault.New("identity.session.missing_otp")
	}
	err := m.Accounts.VerifySignInCode(ctx, user, code)
	if !errors.Is(err, account.ErrWrongCode) {
		return err
	}
	if err := m.recordFailure(ctx, c, user, "login::2fa", "OTP code is invalid"); err != nil {
		return err
	}
	return fault.New("identity.session.invalid_otp")
}

func (m *Module) recordFailure(ctx context.Context, c *rest.Call, user *db.User, action, reason string) error {
	return m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error {
		return u.Record(ctx, user, m.client(c), "session", action, account.Failed, reason)
	})
}

// showSession answers GET /identity/sessions/current: how a page that was just loaded learns whether somebody is signed in, and gets
// the CSRF token that only the answer of the sign-in held. Who is not signed in is told so, by 200 as well. The binding of
// the session is not looked at: what the token is used for is, by the check.
func (m *Module) showSession(ctx context.Context, c *rest.Call) error {
	type answer struct {
		Active bool   `json:"active"`
		UID    string `json:"uid,omitempty"`
		Email  string `json:"email,omitempty"`
		CSRF   string `json:"csrf_token,omitempty"`
	}
	c.SetHeader("Cache-Control", "no-store")
	sent := m.sent(c)
	current, user, err := m.Accounts.Current(ctx, sent.IDs()...)
	switch {
	case errors.Is(err, session.ErrNotFound) || err == nil && !user.Open():
		return c.Answer(answer{})
	case err != nil:
		return err
	}
	return c.Answer(answer{true, user.UID, user.Email, current.CSRF})
}

// signOut answers DELETE /identity/sessions.
func (m *Module) signOut(ctx context.Context, c *rest.Call) error {
	sent := m.sent(c)
	ids := sent.IDs()
	current, user, err := m.Accounts.Current(ctx, ids...)
	if err == nil {
		err = m.Accounts.SignOut(ctx, m.client(c), user, current, ids...)
	}
	if err == nil || errors.Is(err, session.ErrNotFound) {
		m.expireOthers(c, &sent) // also when they are of different users, and so nobody's
	}
	if errors.Is(err, session.ErrNotFound) { // never there, or ended by a parallel call
		return fault.New("identity.session.not_found").Because(err)
	}
	if err != nil {
		return err
	}
	c.SetCookie(m.Cookies.Clear(c.HTTPS))
	return c.Done()
}
