package resource

import (
	"context"
	"errors"
	"slices"

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
	return answerList(m, c, rows, func(rows []db.Label) any { return view.Labels(rows) })
}

// A labelReader is a *db.DB, or a unit of work.
type labelReader interface {
	Label(ctx context.Context, userID int64, key, scope string) (*db.Label, error)
}

// A labelInput is a label as a call names and describes it.
type labelInput struct {
	Key   string `param:"key"`
	Value string `param:"value"`
}

// findLabel finds a user's label of a key. Where there is one of each scope the public one counts, which is the user's to
// change.
func findLabel(ctx context.Context, user *db.User, key string, from labelReader) (*db.Label, error) {
	key = account.NormalLabel(key)
	l, err := from.Label(ctx, user.ID, key, account.Public)
	if errors.Is(err, db.ErrNotFound) {
		l, err = from.Label(ctx, user.ID, key, account.Private)
	}
	return l, notFound(err)
}

// ownLabel is findLabel for a change, of a locked user.
func ownLabel(ctx context.Context, user *db.User, key string, u *account.Unit) (*db.Label, error) {
	if err := u.Lock(ctx, user); err != nil {
		return nil, err
	}
	l, err := findLabel(ctx, user, key, u)
	if err == nil && l.Scope != account.Public {
		return nil, fault.New("resource.labels.private")
	}
	return l, err
}

// getLabel answers GET /resource/labels/{key}.
func (m *Module) getLabel(ctx context.Context, c *rest.Call) error {
	var in labelInput
	c.Into(&in)
	l, err := findLabel(ctx, c.User, in.Key, m.DB)
	if err != nil {
		return err
	}
	return c.Answer(view.NewLabel(l))
}

// reserved reports whether a key belongs to the program's own labels. Nothing of ours reads a public label for a private
// one, but staff and other services might. Release 2.4.17 reserved none.
func (m *Module) reserved(key string) bool {
	switch key = account.NormalLabel(key); key {
	case "email", "phone", "profile", "document", "otp", "delete":
		return !m.Legacy
	}
	return !m.Legacy && slices.ContainsFunc(m.StorageTitles, func(title string) bool { return account.NormalLabel(title) == key })
}

// maxLabels is how many public labels users may give themselves. They are shown, and told in events, with the user.
const maxLabels = 100

// createLabel answers POST /resource/labels.
func (m *Module) createLabel(ctx context.Context, c *rest.Call) error {
	var in labelInput
	c.Into(&in)
	if m.reserved(in.Key) {
		return fault.Invalid(codes([]fault.Code{"key.exclusion"}, account.ValidateLabel(in.Key, in.Value, account.Public))...)
	}
	var l *db.Label
	err := m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) (err error) {
		if l, err = u.CreateLabel(ctx, c.User, in.Key, in.Value, account.Public, nil); err != nil {
			return err
		}
		n, err := u.CountLabels(ctx, c.User.ID, account.Public)
		if err == nil && n > maxLabels {
			err = fault.New("resource.labels.limit_reached")
		}
		return err
	})
	if err != nil {
		return err
	}
	return c.Answer(view.NewLabel(l))
}

// updateLabel answers PATCH /resource/labels/{key}.
func (m *Module) updateLabel(ctx context.Context, c *rest.Call) error {
	var in labelInput
	c.Into(&in)
	var l *db.Label
	err := m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error {
		own, err := ownLabel(ctx, c.User, in.Key, u)
		if err != nil {
			return err
		}
		l, err = u.UpdateLabel(ctx, c.User, own.Key, account.Public, in.Value, own.Description)
		return err
	})
	if err != nil {
		return err
	}
	return c.Answer(view.NewLabel(l))
}

// deleteLabel answers DELETE /resource/labels/{key}.
func (m *Module) deleteLabel(ctx context.Context, c *rest.Call) error {
	var in labelInput
	c.Into(&in)
	err := m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error {
		own, err := ownLabel(ctx, c.User, in.Key, u)
		if err != nil {
			return err
		}
		return u.DeleteLabel(ctx, c.User, own.Key, account.Public)
	})
	if err != nil {
		return err
	}
	return c.Done()
}
