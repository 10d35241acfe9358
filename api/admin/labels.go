package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"barong/api/account"
	"barong/api/rest"
	"barong/db"
	"barong/internal/fault"
)

// listByLabel answers GET /admin/users/labels. Release 2.4.17 knew no scope here.
func (m *Module) listByLabel(ctx context.Context, c *rest.Call) error {
	var scope *string
	if !m.Legacy {
		scope = c.Optional("scope")
	}
	rows, total, err := m.DB.FindUsersByLabel(ctx, c.String("key"), c.String("value"), scope, c.Page())
	if err != nil {
		return err
	}
	return m.answerUsers(ctx, c, rows, total)
}

// countLabels answers GET /admin/users/labels/list: an object whose names are lists of key and value, as text.
func (m *Module) countLabels(ctx context.Context, c *rest.Call) error {
	rows, err := m.DB.LabelCounts(ctx)
	if err != nil {
		return err
	}
	counts := make(map[string]int64, len(rows))
	for _, l := range rows {
		key, err1 := json.Marshal(l.Key)
		value, err2 := json.Marshal(l.Value)
		if err := errors.Join(err1, err2); err != nil {
			return fmt.Errorf("count labels: %w", err)
		}
		counts["["+string(key)+", "+string(value)+"]"] = l.Count
	}
	return c.Answer(counts)
}

// editLabel runs f for a user other than the caller: labels make levels and states, which nobody gives themselves.
func (m *Module) editLabel(
	ctx context.Context, c *rest.Call, f func(ctx context.Context, u *account.Unit, user *db.User) error,
) error {
	err := m.edit(ctx, c, func(ctx context.Context, u *account.Unit) error {
		user, err := otherTarget(ctx, c, u)
		if err != nil {
			return err
		}
		return f(ctx, u, user)
	})
	if err != nil {
		return err
	}
	return c.Done()
}

// findLabel finds the label that a call names, without regard to case, as the original's database did.
func findLabel(ctx context.Context, c *rest.Call, u *account.Unit, user *db.User) (*db.Label, error) {
	l, err := u.Label(ctx, user.ID, strings.ToLower(c.String("key")), strings.ToLower(c.String("scope")))
	if errors.Is(err, db.ErrNotFound) {
		return nil, fault.New("admin.label.doesnt_exist").Because(err)
	}
	return l, err
}

// changeLabel gives a label the value of the call, and its description if it has one.
func changeLabel(ctx context.Context, c *rest.Call, u *account.Unit, user *db.User, l *db.Label) error {
	description := l.Description
	if c.Has("description") {
		description = c.Optional("description")
	}
	_, err := u.UpdateLabel(ctx, user, l.Key, l.Scope, c.String("value"), description)
	return err
}

func addLabel(ctx context.Context, c *rest.Call, u *account.Unit, user *db.User) error {
	_, err := u.CreateLabel(ctx, user, c.String("key"), c.String("value"), c.String("scope"), c.Optional("description"))
	return err
}

// createLabel answers POST /admin/users/labels.
func (m *Module) createLabel(ctx context.Context, c *rest.Call) error {
	return m.editLabel(ctx, c, func(ctx context.Context, u *account.Unit, user *db.User) error {
		return addLabel(ctx, c, u, user)
	})
}

// putLabel answers POST /admin/users/labels/update. A description that is not sent stays; the original erased it.
func (m *Module) putLabel(ctx context.Context, c *rest.Call) error {
	return m.editLabel(ctx, c, func(ctx context.Context, u *account.Unit, user *db.User) error {
		l, err := findLabel(ctx, c, u, user)
		if errors.Is(err, db.ErrNotFound) && c.Bool("replace") {
			return addLabel(ctx, c, u, user)
		}
		if err != nil {
			return err
		}
		return changeLabel(ctx, c, u, user, l)
	})
}

// updateLabel answers PUT /admin/users/labels.
func (m *Module) updateLabel(ctx context.Context, c *rest.Call) error {
	return m.editLabel(ctx, c, func(ctx context.Context, u *account.Unit, user *db.User) error {
		l, err := findLabel(ctx, c, u, user)
		if err != nil {
			return err
		}
		return changeLabel(ctx, c, u, user, l)
	})
}

// deleteLabel answers DELETE /admin/users/labels.
func (m *Module) deleteLabel(ctx context.Context, c *rest.Call) error {
	return m.editLabel(ctx, c, func(ctx context.Context, u *account.Unit, user *db.User) error {
		l, err := findLabel(ctx, c, u, user)
		if err != nil {
			return err
		}
		return u.DeleteLabel(ctx, user, l.Key, l.Scope)
	})
}
