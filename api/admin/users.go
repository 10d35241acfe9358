package admin

import (
	"context"
	"errors"

	"barong/api/rest"
	"barong/api/staff"
	"barong/api/view"
	"barong/db"
	"barong/session"
)

// extended reports whether a list of users is to show more of them.
func extended(c *rest.Call) bool {
	var in struct {
		Extended bool `param:"extended"`
	}
	c.Into(&in)
	return in.Extended
}

// listUsers answers GET /admin/users.
func (m *Module) listUsers(ctx context.Context, c *rest.Call) error {
	rows, total, err := m.DB.FindUsers(ctx, c.UserFilter(), c.Page())
	if err != nil {
		return err
	}
	if extended(c) {
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
	if extended(c) {
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
	var in struct {
		UID   string  `param:"uid"`
		State *string `param:"state"`
		OTP   bool    `param:"otp"`
	}
	c.Into(&in)
	if in.State != nil {
		return done(c, m.desk.SetState(ctx, c.User, in.UID, *in.State))
	}
	return done(c, m.desk.SetOTP(ctx, c.User, in.UID, in.OTP))
}

// setRole answers POST /admin/users/role.
func (m *Module) setRole(ctx context.Context, c *rest.Call) error {
	var in struct {
		UID  string `param:"uid"`
		Role string `param:"role"`
	}
	c.Into(&in)
	return done(c, m.desk.SetRole(ctx, c.User, in.UID, in.Role))
}

// deleteStorage answers DELETE /admin/users/data_storage.
func (m *Module) deleteStorage(ctx context.Context, c *rest.Call) error {
	var in struct {
		UID   string `param:"uid"`
		Title string `param:"title"`
	}
	c.Into(&in)
	owner, err := m.desk.DeleteStorage(ctx, c.User, in.UID, in.Title)
	if err != nil {
		return err
	}
	if m.Legacy {
		return m.answerKYC(ctx, c, owner)
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

// A sessionInput names a session, or all of a user.
type sessionInput struct {
	UID string `param:"uid"`
	ID  string `param:"id"`
}

// endSessions answers DELETE /admin/users/{uid}/sessions.
func (m *Module) endSessions(ctx context.Context, c *rest.Call) error {
	var in sessionInput
	c.Into(&in)
	return done(c, m.desk.EndSessions(ctx, c.User, in.UID))
}

// endSession answers DELETE /admin/users/{uid}/sessions/{id}.
func (m *Module) endSession(ctx context.Context, c *rest.Call) error {
	var in sessionInput
	c.Into(&in)
	return done(c, m.desk.EndSession(ctx, c.User, in.UID, in.ID))
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

// subject finds the user whom a call is about, for reading.
func (m *Module) subject(ctx context.Context, c *rest.Call) (*db.User, error) {
	var in struct {
		UID string `param:"uid"`
	}
	c.Into(&in)
	user, err := m.DB.UserByUID(ctx, in.UID)
	if errors.Is(err, db.ErrNotFound) {
		return nil, staff.ErrNoUser
	}
	return user, err
}
