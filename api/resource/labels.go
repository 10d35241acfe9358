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

// notFound is the answer to a look-up that found nothing.
func notFound(err error) error {
	if errors.Is(err, db.ErrNotFound) || errors.Is(err, session.ErrNotFound) {
		return fault.New(fault.NotFound).Because(err)
	}
	return err
}

// listLabels answers GET /resource/labels.
func (m *Module) listLabels(ctx context.Context, c *rest.Call) error {
	rows, err := m.DB.Labels(ctx, c.User.ID)
	if err != nil {
		return err
	}
	return c.Answer(view.Labels(rows))
}

// findLabel finds the caller's label of a key. Where there is one of each scope the public one counts, which is the
// caller's to change.
func (m *Module) findLabel(ctx context.Context, c *rest.Call) (*db.Label, error) {
	key := account.NormalLabel(c.String("key"))
	l, err := m.DB.Label(ctx, c.User.ID, key, account.Public)
	if errors.Is(err, db.ErrNotFound) {
		l, err = m.DB.Label(ctx, c.User.ID, key, account.Private)
	}
	return l, notFound(err)
}

// ownLabel is findLabel for a change.
func (m *Module) ownLabel(ctx context.Context, c *rest.Call) (*db.Label, error) {
	l, err := m.findLabel(ctx, c)
	if err == nil && l.Scope != account.Public {
		return nil, fault.New("resource.labels.private")
	}
	return l, err
}

// getLabel answers GET /resource/labels/{key}.
func (m *Module) getLabel(ctx context.Context, c *rest.Call) error {
	l, err := m.findLabel(ctx, c)
	if err != nil {
		return err
	}
	return c.Answer(view.NewLabel(l))
}

// createLabel answers POST /resource/labels.
func (m *Module) createLabel(ctx context.Context, c *rest.Call) error {
	var l *db.Label
	err := m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) (err error) {
		l, err = u.CreateLabel(ctx, c.User, c.String("key"), c.String("value"), account.Public, nil)
		return err
	})
	if err != nil {
		return err
	}
	return c.Answer(view.NewLabel(l))
}

// updateLabel answers PATCH /resource/labels/{key}.
func (m *Module) updateLabel(ctx context.Context, c *rest.Call) error {
	own, err := m.ownLabel(ctx, c)
	if err != nil {
		return err
	}
	var l *db.Label
	err = m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) (err error) {
		l, err = u.UpdateLabel(ctx, c.User, own.Key, account.Public, c.String("value"), own.Description)
		return err
	})
	if err != nil {
		return notFound(err)
	}
	return c.Answer(view.NewLabel(l))
}

// deleteLabel answers DELETE /resource/labels/{key}.
func (m *Module) deleteLabel(ctx context.Context, c *rest.Call) error {
	own, err := m.ownLabel(ctx, c)
	if err != nil {
		return err
	}
	err = m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error {
		return u.DeleteLabel(ctx, c.User, own.Key, account.Public)
	})
	if err != nil {
		return notFound(err)
	}
	return c.Done()
}
