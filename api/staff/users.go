package staff

import (
	"context"
	"errors"

	"barong/api/account"
	"barong/db"
	"barong/internal/fault"
	"barong/session"
)

// SetState sets the state of another user, which stays until staff sets another.
func (d *Desk) SetState(ctx context.Context, by *db.User, uid, state string) error {
	return d.editOther(ctx, by, uid, func(ctx context.Context, u *unit, user *db.User) error {
		if user.State == state {
			return fault.New("admin.user.state_no_change")
		}
		return u.SetState(ctx, user, state)
	})
}

// SetOTP switches the second factor of another user off. On is refused: only its owner can prove to have one.
func (d *Desk) SetOTP(ctx context.Context, by *db.User, uid string, on bool) error {
	return d.editOther(ctx, by, uid, func(ctx context.Context, u *unit, user *db.User) error {
		switch {
		case on:
			return fault.New("admin.user.enable_2fa")
		case !user.OTP:
			return fault.New("admin.user.otp_no_change")
		}
		return u.SetOTP(ctx, user, false, nil)
	})
}

// SetRole gives another user a role, not above the giver's own.
func (d *Desk) SetRole(ctx context.Context, by *db.User, uid, role string) error {
	return d.editOther(ctx, by, uid, func(ctx context.Context, u *unit, user *db.User) error {
		switch {
		case user.Role == role:
			return fault.New("admin.user.role_no_change")
		case above(role, by):
			return errAbove
		}
		return u.SetRole(ctx, user, role)
	})
}

// DeleteStorage deletes a data storage of a user, and the label that told of it. It returns the user.
func (d *Desk) DeleteStorage(ctx context.Context, by *db.User, uid, title string) (owner *db.User, err error) {
	err = d.edit(ctx, by, uid, func(ctx context.Context, u *unit, user *db.User) error {
		owner = user
		storage, err := u.DataStorage(ctx, user.ID, title)
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
	return owner, err
}

// EndSessions ends all sessions of a user.
func (d *Desk) EndSessions(ctx context.Context, by *db.User, uid string) error {
	return d.edit(ctx, by, uid, func(ctx context.Context, u *unit, user *db.User) error {
		return u.EndSessions(ctx, user, nil)
	})
}

// EndSession ends one session of a user, by the text of its key.
func (d *Desk) EndSession(ctx context.Context, by *db.User, uid, id string) error {
	var owner *db.User
	err := d.edit(ctx, by, uid, func(_ context.Context, _ *unit, user *db.User) error {
		owner = user
		return nil
	})
	if err != nil {
		return err
	}
	key, ok := session.ParseKey(id)
	if !ok {
		return fault.New(fault.NotFound)
	}
	err = d.Accounts.EndOwn(ctx, owner, key)
	if errors.Is(err, session.ErrNotFound) {
		return fault.New(fault.NotFound).Because(err)
	}
	return err
}

// UpdateProfile decides on the submitted profile of a user, or corrects it. State is a word, nil for no other one. It
// returns the profile as it is then.
func (d *Desk) UpdateProfile(
	ctx context.Context, by *db.User, uid string, edit db.ProfileEdit, state *string,
) (after *db.Profile, err error) {
	err = d.update(ctx, by, uid, func(ctx context.Context, u *unit) error {
		user, err := u.LockUserByUID(ctx, uid)
		if errors.Is(err, db.ErrNotFound) {
			return errNoProfile
		}
		if err != nil {
			return err
		}
		before, err := u.ProfileIn(ctx, user.ID, db.ProfileSubmitted)
		switch {
		case errors.Is(err, db.ErrNotFound):
			return errNoProfile
		case err != nil:
			return err
		case above(user.Role, by):
			return fault.New("admin.profiles.superadmin_change")
		}
		p := *before
		edit.Apply(&p)
		if state != nil {
			var ok bool
			if p.State, ok = db.ProfileState(*state); !ok {
				return fault.Invalid("state.inclusion")
			}
		}
		after = &p
		return u.UpdateProfile(ctx, user, before, after)
	})
	return after, err
}

var errNoProfile = fault.New("admin.profiles.doesnt_exist_or_not_editable")
