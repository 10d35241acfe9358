package management

import (
	"context"
	"errors"
	"strings"

	"barong/api/account"
	"barong/api/rest"
	"barong/api/view"
	"barong/db"
	"barong/internal/fault"
)

// listByLabel answers POST /management/labels/filter/users.
func (m *Module) listByLabel(ctx context.Context, c *rest.Call) error {
	rows, total, err := m.DB.FindUsersOfLabels(ctx, db.LabelFilter{
		Key: c.String("key"), Value: c.Optional("value"), Scope: c.Optional("scope"), Updated: c.String("range") == "updated",
		From: c.Number("from"), To: c.Number("to"),
	}, c.Page())
	if err != nil {
		return err
	}
	return m.answerUsers(ctx, c, rows, total)
}

// listLabels answers POST /management/labels/list.
func (m *Module) listLabels(ctx context.Context, c *rest.Call) error {
	user, err := m.DB.UserByUID(ctx, c.String("user_uid"))
	if err != nil {
		return found(err)
	}
	rows, err := m.DB.Labels(ctx, user.ID)
	if err != nil {
		return err
	}
	return c.Answer(view.AdminLabels(rows))
}

// label runs f for the user of a call in one transaction, and shows the label that it returns.
func (m *Module) label(
	ctx context.Context, c *rest.Call, f func(ctx context.Context, u *account.Unit, user *db.User) (*db.Label, error),
) error {
	var label *db.Label
	err := m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error {
		user, err := u.UserByUID(ctx, c.String("user_uid"))
		if err != nil {
			return found(err)
		}
		label, err = f(ctx, u, user)
		return err
	})
	if codes := broken(err); codes != nil {
		return c.Refuse(422, listed(codes))
	}
	if err != nil {
		return err
	}
	if label == nil {
		return c.Done()
	}
	return c.Answer(view.NewLabel(label))
}

// createLabel answers POST /management/labels.
func (m *Module) createLabel(ctx context.Context, c *rest.Call) error {
	return m.label(ctx, c, func(ctx context.Context, u *account.Unit, user *db.User) (*db.Label, error) {
		return u.CreateLabel(ctx, user, c.String("key"), c.String("value"), account.Private, c.Optional("description"))
	})
}

// putLabel answers PUT /management/labels.
func (m *Module) putLabel(ctx context.Context, c *rest.Call) error {
	return m.label(ctx, c, func(ctx context.Context, u *account.Unit, user *db.User) (*db.Label, error) {
		l, err := u.Label(ctx, user.ID, account.NormalLabel(c.String("key")), account.Private)
		switch {
		case errors.Is(err, db.ErrNotFound) && c.Bool("replace"):
			scope := account.Private
			if s := strings.TrimSpace(c.String("scope")); s != "" {
				scope = strings.ToLower(s)
			}
			return u.CreateLabel(ctx, user, c.String("key"), c.String("value"), scope, c.Optional("description"))
		case errors.Is(err, db.ErrNotFound):
			return nil, fault.Plain(404, "label doesnt exist").Because(err)
		case err != nil:
			return nil, err
		}
		description := l.Description
		if c.Has("description") {
			description = c.Optional("description")
		}
		return u.UpdateLabel(ctx, user, l.Key, l.Scope, c.String("value"), description)
	})
}

// deleteLabel answers POST /management/labels/delete.
func (m *Module) deleteLabel(ctx context.Context, c *rest.Call) error {
	return m.label(ctx, c, func(ctx context.Context, u *account.Unit, user *db.User) (*db.Label, error) {
		return nil, found(u.DeleteLabel(ctx, user, account.NormalLabel(c.String("key")), account.Private))
	})
}
