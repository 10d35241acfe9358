package resource

import (
	"context"
	"errors"

	"barong/api/account"
	"barong/api/rest"
	"barong/api/view"
	"barong/db"
	"barong/internal/fault"
	"barong/session"
)

// me answers GET /resource/users/me.
func (m *Module) me(ctx context.Context, c *rest.Call) error { return m.answerMe(ctx, c, c.User) }

// setData answers PUT /resource/users/me.
func (m *Module) setData(ctx context.Context, c *rest.Call) error {
	var in struct {
		Data string `param:"data"`
	}
	c.Into(&in)
	err := m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error {
		return u.SetData(ctx, c.User, in.Data)
	})
	if err != nil {
		return err
	}
	return m.answerMe(ctx, c, c.User)
}

// deleteMe answers DELETE /resource/users/me. The second factor is asked for after the password, so that a code is not
// used up by a wrong one.
func (m *Module) deleteMe(ctx context.Context, c *rest.Call) error {
	var in struct {
		Password string     `param:"password"`
		Code     db.NewText `param:"otp_code"`
	}
	c.Into(&in)
	if err := m.provePassword(ctx, c, in.Password, fault.New("resource.user.invalid_password")); err != nil {
		return err
	}
	if c.User.OTP {
		if !in.Code.Given {
			return fault.Invalid("resource.user.missing_otp_code")
		}
		if err := m.proveCode(ctx, c, *in.Code.Sent(), fault.New("resource.user.invalid_otp")); err != nil {
			return err
		}
	}
	err := m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error {
		if err := u.DeleteAccount(ctx, c.User); err != nil {
			return err
		}
		return u.Record(ctx, c.User, m.client(c), "user", "delete", account.Succeed, "")
	})
	if err != nil {
		return err
	}
	c.SetCookie(m.Cookies.Clear(c.HTTPS))
	return c.Done()
}

// provePassword checks the caller's password, with the same limits as a sign-in: a stolen session must not be a way to
// guess it.
func (m *Module) provePassword(ctx context.Context, c *rest.Call, password string, wrong *fault.Error) error {
	ctx = m.Accounts.Asking(ctx, c.Client, c.User.Email)
	tries := m.Accounts.PasswordTries(c.User.Email, c.Client)
	if err := tries.Begin(ctx); err != nil {
		return err
	}
	right, err := m.Accounts.VerifyPassword(ctx, c.User, password)
	if err != nil {
		tries.Undecided(ctx)
		return err
	}
	if !right {
		return wrong
	}
	return tries.Right(ctx)
}

// proveCode uses up a code of the caller's second factor.
func (m *Module) proveCode(ctx context.Context, c *rest.Call, code string, wrong *fault.Error) error {
	err := m.Accounts.VerifyTOTP(ctx, c.User, code)
	if errors.Is(err, account.ErrWrongCode) {
		return wrong.Because(err)
	}
	return err
}

// activity answers GET /resource/users/activity/{topic}.
func (m *Module) activity(ctx context.Context, c *rest.Call) error {
	var in struct {
		Topic  string  `param:"topic"`
		Result *string `param:"result"`
		From   *int64  `param:"time_from"`
		To     *int64  `param:"time_to"`
	}
	c.Into(&in)
	filter := db.ActivityFilter{UserID: c.User.ID}
	switch in.Topic {
	case "all":
	case "password", "session", "otp", "account":
		filter.Topic = &in.Topic
	default:
		return fault.Invalid("resource.user.wrong_topic")
	}
	if !m.Legacy {
		filter.Result, filter.From, filter.To = in.Result, in.From, in.To
	}
	filtered := filter.Result != nil || filter.From != nil || filter.To != nil
	rows, total, err := m.DB.Activities(ctx, filter, c.Page())
	if err != nil {
		return err
	}
	if total == 0 && !filtered { // a filter that fits nothing is no mistake
		return fault.Invalid("resource.user.no_activity")
	}
	return c.AnswerPage(m.view().Activities(rows), total)
}

// changePassword answers PUT /resource/users/password.
func (m *Module) changePassword(ctx context.Context, c *rest.Call) error {
	const topic, action = "password", "password change"
	failed := func(reason string, f *fault.Error) error {
		if err := m.record(ctx, c, topic, action, account.Failed, reason); err != nil {
			return err
		}
		return f
	}
	var in struct {
		Old   string `param:"old_password"`
		New   string `param:"new_password"`
		Again string `param:"confirm_password"`
		Lang  string `param:"lang"`
	}
	c.Into(&in)
	if in.New != in.Again {
		return failed("New passwords don't match", fault.Invalid("resource.password.doesnt_match"))
	}
	wrong := fault.New("resource.password.prev_pass_not_correct")
	if err := m.provePassword(ctx, c, in.Old, wrong); errors.Is(err, wrong) {
		return failed("Previous password is not correct", wrong)
	} else if err != nil {
		return err
	}
	if in.New == in.Old {
		return failed("New password cant be the same, as old one", fault.New("resource.password.no_change_provided"))
	}
	digest, err := m.Accounts.HashPassword(m.Accounts.Asking(ctx, c.Client, c.User.Email), in.New)
	if reason, ok := account.PasswordReason(err); ok {
		if err := m.record(ctx, c, topic, action, account.Failed, reason); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	keep := m.current(ctx, c)
	before := c.User.PasswordDigest
	err = m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error {
		if err := u.Lock(ctx, c.User); err != nil {
			return err
		}
		if c.User.PasswordDigest != before { // somebody else was faster: what was proved is no longer the password
			return wrong
		}
		if err := u.SetPassword(ctx, c.User, digest, keep); err != nil {
			return err
		}
		if err := u.Record(ctx, c.User, m.client(c), topic, action, account.Succeed, ""); err != nil {
			return err
		}
		return u.PasswordChanged(ctx, c.User, in.Lang)
	})
	if errors.Is(err, wrong) {
		return failed("Previous password is not correct", wrong)
	}
	if err != nil {
		return err
	}
	return c.Done()
}

// listLevels answers GET /resource/levels.
func (m *Module) listLevels(ctx context.Context, c *rest.Call) error {
	rows, err := m.DB.Levels(ctx)
	if err != nil {
		return err
	}
	return c.Answer(view.Levels(rows))
}

// listSessions answers GET /resource/sessions.
func (m *Module) listSessions(ctx context.Context, c *rest.Call) error {
	list, err := m.Accounts.ListSessions(ctx, c.User)
	if err != nil {
		return err
	}
	return c.Answer(m.view().Sessions(list, m.current(ctx, c)))
}

// endSession answers DELETE /resource/sessions/{id}.
func (m *Module) endSession(ctx context.Context, c *rest.Call) error {
	var in struct {
		ID string `param:"id"`
	}
	c.Into(&in)
	key, ok := session.ParseKey(in.ID)
	if !ok {
		return fault.New(fault.NotFound)
	}
	if err := m.Accounts.EndOwn(ctx, c.User, key); err != nil {
		return notFound(err)
	}
	return c.Done()
}

// endSessions answers DELETE /resource/sessions. A caller without a session of their own, such as an API key, ends all.
func (m *Module) endSessions(ctx context.Context, c *rest.Call) error {
	keep := m.current(ctx, c)
	err := m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error {
		return u.EndSessions(ctx, c.User, keep)
	})
	if err != nil {
		return err
	}
	return c.Done()
}

// store answers POST /resource/data_storage.
func (m *Module) store(ctx context.Context, c *rest.Call) error {
	var in struct {
		Title string `param:"title"`
		Data  string `param:"data"`
	}
	c.Into(&in)
	if err := m.Accounts.Store(ctx, c.User, m.StorageTitles, in.Title, in.Data); err != nil {
		return err
	}
	return c.Done()
}

// listAbilities answers GET /resource/abilities.
func (m *Module) listAbilities(_ context.Context, c *rest.Call) error {
	return c.Answer(struct {
		Role  string   `json:"role"`
		Calls []string `json:"calls"`
	}{c.User.Role, m.Abilities(c.User.Role)})
}
