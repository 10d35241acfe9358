package admin

import (
	"context"
	"errors"

	"barong/api/account"
	"barong/api/rest"
	"barong/db"
	"barong/internal/fault"
	"barong/policy"
)

// rank orders roles: superadmin, admin, and all others alike. Nobody edits somebody above themselves, and nobody gives
// a role, or changes the rules of one, above their own. What a role may call is another matter: the permission rules say.
func rank(role string) int {
	switch role {
	case policy.Superadmin:
		return 2
	case "admin":
		return 1
	}
	return 0
}

// above reports whether a role ranks above the caller's.
func above(role string, c *rest.Call) bool { return rank(role) > rank(c.User.Role) }

// edit runs f in one unit of work, for a caller who still is who was let through: between the check of the token and
// the end of a slow body, somebody may have closed the caller's account or taken their role. The caller's row stays
// locked, so that this cannot happen during the unit either.
func (m *Module) edit(ctx context.Context, c *rest.Call, f func(ctx context.Context, u *account.Unit) error) error {
	return m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error {
		if err := lockPeople(ctx, c, u); err != nil {
			return err
		}
		caller, err := u.UserByID(ctx, c.User.ID)
		switch {
		case err != nil:
			return err
		case !caller.Open():
			return fault.New("authz.user_not_active")
		case caller.Role != c.User.Role:
			return fault.New("authz.invalid_permission")
		}
		return f(ctx, u)
	})
}

// lockPeople locks the caller and whom the call is about, who may edit each other just now. To take an office from a
// superadmin all superadmins are locked, which is to be done in the same order.
func lockPeople(ctx context.Context, c *rest.Call, u *account.Unit) error {
	ids, superadmins := []int64{c.User.ID}, false
	if c.Has(uid.Name) {
		user, err := u.UserByUID(ctx, c.String(uid.Name))
		switch {
		case err == nil:
			ids, superadmins = append(ids, user.ID), user.Role == policy.Superadmin
		case !errors.Is(err, db.ErrNotFound):
			return err
		}
	}
	return u.LockUsers(ctx, superadmins, ids...)
}

// target locks the user whom a call is about, for an edit.
func target(ctx context.Context, c *rest.Call, u *account.Unit) (*db.User, error) {
	user, err := u.LockUserByUID(ctx, c.String(uid.Name))
	switch {
	case errors.Is(err, db.ErrNotFound):
		return nil, errNoUser
	case err != nil:
		return nil, err
	case above(user.Role, c):
		return nil, errAbove
	}
	return user, nil
}

// otherTarget is target for what nobody may do to themselves.
func otherTarget(ctx context.Context, c *rest.Call, u *account.Unit) (*db.User, error) {
	user, err := target(ctx, c, u)
	if err == nil && user.ID == c.User.ID {
		return nil, errHimself
	}
	return user, err
}

// subject finds the user whom a call is about, for reading.
func (m *Module) subject(ctx context.Context, c *rest.Call) (*db.User, error) {
	user, err := m.DB.UserByUID(ctx, c.String(uid.Name))
	if errors.Is(err, db.ErrNotFound) {
		return nil, errNoUser
	}
	return user, err
}
