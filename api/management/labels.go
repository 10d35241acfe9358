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
	var in struct {
		Key   string  `param:"key"`
		Value *string `param:"value"`
		Scope *string `param:"scope"`
		Range string  `param:"range"`
		From  *int64  `param:"from"`
		To    *int64  `param:"to"`
	}
	c.Into(&in)
	rows, total, err := m.DB.FindUsersOfLabels(ctx, db.LabelFilter{
		Key: in.Key, Value: in.Value, Scope: in.Scope, Updated: in.Range == "updated", From: in.From, To: in.To,
	}, c.Page())
	if err != nil {
		return err
	}
	return m.answerUsers(ctx, c, rows, total)
}

// listLabels answers POST /management/labels/list.
func (m *Module) listLabels(ctx context.Context, c *rest.Call) error {
	var in struct {
		UserUID string `param:"user_uid"`
	}
	c.Into(&in)
	user, err := m.DB.UserByUID(ctx, in.UserUID)
	if err != nil {
		return found(err)
	}
	rows, err := m.DB.Labels(ctx, user.ID)
	if err != nil {
		return err
	}
	return c.Answer(view.AdminLabels(rows))
}

// A labelInput is a label of a user as a call names and describes it.
type labelInput struct {
	UserUID     string     `param:"user_uid"`
	Key         string     `param:"key"`
	Value       string     `param:"value"`
	Scope       string     `param:"scope"`
	Description db.NewText `param:"description"`
	Replace     bool       `param:"replace"`
}

// label runs f for the user of a call in one transaction, and shows the label that it returns.
func (m *Module) label(
	ctx context.Context, c *rest.Call, f func(ctx context.Context, u *account.Unit, user *db.User, in *labelInput) (*db.Label, error),
) error {
	var in labelInput
	c.Into(&in)
	var label *db.Label
	err := m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error {
		user, err := u.UserByUID(ctx, in.UserUID)
		if err != nil {
			return found(err)
		}
		label, err = f(ctx, u, user, &in)
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
	return m.label(ctx, c, func(ctx context.Context, u *account.Unit, user *db.User, in *labelInput) (*db.Label, error) {
		return u.CreateLabel(ctx, user, in.Key, in.Value, account.Private, in.Description.Text)
	})
}

// putLabel answers PUT /management/labels.
func (m *Module) putLabel(ctx context.Context, c *rest.Call) error {
	return m.label(ctx, c, func(ctx context.Context, u *account.Unit, user *db.User, in *labelInput) (*db.Label, error) {
		l, err := u.Label(ctx, user.ID, account.NormalLabel(in.Key), account.Private)
		switch {
		case errors.Is(err, db.ErrNotFound) && in.Replace:
			scope := account.Private
			if s := strings.TrimSpace(in.Scope); s != "" {
				scope = strings.ToLower(s)
			}
			return u.CreateLabel(ctx, user, in.Key, in.Value, scope, in.Description.Text)
		case errors.Is(err, db.ErrNotFound):
			return nil, fault.Plain(404, "label doesnt exist").Because(err)
		case err != nil:
			return nil, err
		}
		return u.UpdateLabel(ctx, user, l.Key, l.Scope, in.Value, in.Description.Or(l.Description))
	})
}

// deleteLabel answers POST /management/labels/delete.
func (m *Module) deleteLabel(ctx context.Context, c *rest.Call) error {
	return m.label(ctx, c, func(ctx context.Context, u *account.Unit, user *db.User, in *labelInput) (*db.Label, error) {
		return nil, found(u.DeleteLabel(ctx, user, account.NormalLabel(in.Key), account.Private))
	})
}
