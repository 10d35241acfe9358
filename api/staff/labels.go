package staff

import (
	"context"
	"errors"
	"strings"

	"barong/db"
	"barong/internal/fault"
)

// A Label is a label of a user, as an edit names and describes it.
type Label struct {
	Key, Scope, Value string
	Description       db.NewText // the one of a label that is there stays unless another is given
}

// CreateLabel adds a label to another user: labels make levels and states, which nobody gives themselves.
func (d *Desk) CreateLabel(ctx context.Context, by *db.User, uid string, l Label) error {
	return d.editOther(ctx, by, uid, func(ctx context.Context, u *unit, user *db.User) error {
		return u.addLabel(ctx, user, &l)
	})
}

// PutLabel changes a label of another user, and adds it if there is none and create says so.
func (d *Desk) PutLabel(ctx context.Context, by *db.User, uid string, l Label, create bool) error {
	return d.editOther(ctx, by, uid, func(ctx context.Context, u *unit, user *db.User) error {
		before, err := u.findLabel(ctx, user, &l)
		if errors.Is(err, db.ErrNotFound) && create {
			return u.addLabel(ctx, user, &l)
		}
		if err != nil {
			return err
		}
		_, err = u.UpdateLabel(ctx, user, before.Key, before.Scope, l.Value, l.Description.Or(before.Description))
		return err
	})
}

// DeleteLabel removes a label of another user.
func (d *Desk) DeleteLabel(ctx context.Context, by *db.User, uid string, l Label) error {
	return d.editOther(ctx, by, uid, func(ctx context.Context, u *unit, user *db.User) error {
		before, err := u.findLabel(ctx, user, &l)
		if err != nil {
			return err
		}
		return u.DeleteLabel(ctx, user, before.Key, before.Scope)
	})
}

// findLabel finds a label without regard to case, as the original's database did.
func (u *unit) findLabel(ctx context.Context, user *db.User, l *Label) (*db.Label, error) {
	found, err := u.Label(ctx, user.ID, strings.ToLower(l.Key), strings.ToLower(l.Scope))
	if errors.Is(err, db.ErrNotFound) {
		return nil, fault.New("admin.label.doesnt_exist").Because(err)
	}
	return found, err
}

func (u *unit) addLabel(ctx context.Context, user *db.User, l *Label) error {
	_, err := u.CreateLabel(ctx, user, l.Key, l.Value, l.Scope, l.Description.Text)
	return err
}
