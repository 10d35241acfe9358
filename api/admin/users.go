package admin

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

// listUsers answers GET /admin/users.
func (m *Module) listUsers(ctx context.Context, c *rest.Call) error {
	rows, total, err := m.DB.FindUsers(ctx, c.UserFilter(), c.Page())
	if err != nil {
		return err
	}
	if c.Bool("extended") {
		list, err := m.view().UsersWithProfile(ctx, rows)
		if err != nil {
			return err
		}
		return c.AnswerPage(list, total)
	}
	return m.answerUsers(ctx, c, rows, total)
}

func (m *Module) answerUsers(ctx context.Context, c *rest.Call, rows []db.User, total int64) error {
	list, err := m.view().Users(ctx, rows)
	if err != nil {
		return err
	}
	return c.AnswerPage(list, total)
}

// listPending answers GET /admin/users/documents/pending.
func (m *Module) listPending(ctx context.Context, c *rest.Call) error {
	rows, total, err := m.DB.FindPendingUsers(ctx, c.UserFilter(), c.Page())
	if err != nil {
		return err
	}
	if c.Bool("extended") {
		list, err := m.view().UsersWithKYC(ctx, rows)
		if err != nil {
			return err
		}
		return c.AnswerPage(list, total)
	}
	return m.answerUsers(ctx, c, rows, total)
}

// showUser answers GET /admin/users/{uid}.
func (m *Module) showUser(ctx context.Context, c *rest.Call) error {
	user, err := m.subject(ctx, c)
	if err != nil {
		return err
	}
	return m.answerKYC(ctx, c, user)
}

func (m *Module) answerKYC(ctx context.Context, c *rest.Call, user *db.User) error {
	all, err := m.view().UserWithKYC(ctx, user)
	if err != nil {
		return err
	}
	return c.Answer(all)
}

// updateUser answers PUT /admin/users and POST /admin/users/update. It writes what these two parameters say and no other
// column, whatever else was sent.
func (m *Module) updateUser(ctx context.Context, c *rest.Call) error {
	err := m.edit(ctx, c, func(ctx context.Context, u *account.Unit) error {
		user, err := otherTarget(ctx, c, u)
		switch {
		case err != nil:
			return err
		case c.Has("state") && c.String("state") == user.State:
			return fault.New("admin.user.state_no_change")
		case c.Has("state"):
			return u.SetState(ctx, user, c.String("state"))
		case c.Bool("otp"):
			return fault.New("admin.user.enable_2fa") // only its owner can prove to have a second factor
		case !user.OTP:
			return fault.New("admin.user.otp_no_change")
		}
		return u.SetOTP(ctx, user, false, nil)
	})
	if err != nil {
		return err
	}
	return c.Done()
}

// setRole answers POST /admin/users/role.
func (m *Module) setRole(ctx context.Context, c *rest.Call) error {
	role := c.String("role")
	err := m.edit(ctx, c, func(ctx context.Context, u *account.Unit) error {
		user, err := otherTarget(ctx, c, u)
		switch {
		case err != nil:
			return err
		case user.Role == role:
			return fault.New("admin.user.role_no_change")
		case above(role, c):
			return errAbove
		}
		return u.SetRole(ctx, user, role)
	})
	if err != nil {
		return err
	}
	return c.Done()
}

// deleteStorage answers DELETE /admin/users/data_storage. The label that told of the storage goes with it.
func (m *Module) deleteStorage(ctx context.Context, c *rest.Call) error {
	var user *db.User
	err := m.edit(ctx, c, func(ctx context.Context, u *account.Unit) (err error) {
		if user, err = target(ctx, c, u); err != nil {
			return err
		}
		storage, err := u.DataStorage(ctx, user.ID, c.String("title"))
		if errors.Is(err, db.ErrNotFound) {
			return fault.New("admin.storage.doesnt_exist")
		}
		if err != nil {
			return err
		}
		if err := u.DeleteDataStorage(ctx, storage); err != nil {
			return err
		}
		label, err := u.Label(ctx, user.ID, account.NormalLabel(storage.Title), account.Private)
		if errors.Is(err, db.ErrNotFound) || err == nil && label.Value != "recorded" {
			return nil
		}
		if err != nil {
			return err
		}
		return u.DeleteLabel(ctx, user, label.Key, label.Scope)
	})
	if err != nil {
		return err
	}
	if m.Legacy {
		return m.answerKYC(ctx, c, user)
	}
	return c.Done()
}

// listSessions answers GET /admin/users/{uid}/sessions.
func (m *Module) listSessions(ctx context.Context, c *rest.Call) error {
	user, err := m.subject(ctx, c)
	if err != nil {
		return err
	}
	list, err := m.Accounts.ListSessions(ctx, user)
	if err != nil {
		return err
	}
	sent := m.Cookies.Sent(c.Cookies()...)
	current, _, err := m.Accounts.Current(ctx, sent.IDs()...)
	if err != nil && !errors.Is(err, session.ErrNotFound) {
		return err
	}
	return c.Answer(m.view().Sessions(list, current))
}

// endSessions answers DELETE /admin/users/{uid}/sessions.
func (m *Module) endSessions(ctx context.Context, c *rest.Call) error {
	err := m.edit(ctx, c, func(ctx context.Context, u *account.Unit) error {
		user, err := target(ctx, c, u)
		if err != nil {
			return err
		}
		return u.EndSessions(ctx, user, nil)
	})
	if err != nil {
		return err
	}
	return c.Done()
}

// endSession answers DELETE /admin/users/{uid}/sessions/{id}.
func (m *Module) endSession(ctx context.Context, c *rest.Call) error {
	var user *db.User
	err := m.edit(ctx, c, func(ctx context.Context, u *account.Unit) (err error) {
		user, err = target(ctx, c, u)
		return err
	})
	if err != nil {
		return err
	}
	key, ok := session.ParseKey(c.String("id"))
	if !ok {
		return fault.New(fault.NotFound)
	}
	if err := m.Accounts.EndOwn(ctx, user, key); err != nil {
		if errors.Is(err, session.ErrNotFound) {
			return fault.New(fault.NotFound).Because(err)
		}
		return err
	}
	return c.Done()
}

// listAPIKeys answers GET /admin/api_keys.
func (m *Module) listAPIKeys(ctx context.Context, c *rest.Call) error {
	user, err := m.subject(ctx, c)
	if err != nil {
		return err
	}
	rows, total, err := m.DB.UserAPIKeys(ctx, user.ID, c.Page())
	if err != nil {
		return err
	}
	return c.AnswerPage(view.APIKeys(rows), total)
}
