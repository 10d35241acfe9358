// Package staff owns what members of staff may do to others and to the rules: who ranks above whom, and each edit that
// the admin API offers, as one call with values. The rules about accounts themselves stand in package account, what
// permissions and restrictions mean in package policy.
//
// It knows no HTTP. Refusals are faults of package fault; anything else that comes back as an error is an outage or a
// defect.
package staff

import (
	"context"
	"errors"

	"barong/api/account"
	"barong/db"
	"barong/internal/fault"
	"barong/internal/rules"
	"barong/policy"
)

// Answers that several edits give.
var (
	ErrNoUser = fault.New("admin.user.doesnt_exist")

	errAbove   = fault.New("admin.user.superadmin_change")
	errHimself = fault.New("admin.user.update_himself")
)

// A Desk is where staff works. It is safe for concurrent use.
type Desk struct {
	Accounts *account.Service
	Rules    *rules.Rules // the policy that the server asks; edits are in force there before they return
}

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

// above reports whether a role ranks above a member of staff.
func above(role string, by *db.User) bool { return rank(role) > rank(by.Role) }

// A unit is one unit of work of a member of staff.
type unit struct {
	*account.Unit
	by *db.User
}

// update runs f in one unit of work, for a member of staff who still is who was let through: between the check of the
// token and the end of a slow body, somebody may have closed their account or taken their role. Their row stays locked,
// so that this cannot happen during the unit either. The uid is of whom the edit is about; empty for nobody.
func (d *Desk) update(ctx context.Context, by *db.User, uid string, f func(ctx context.Context, u *unit) error) error {
	return d.Accounts.Update(ctx, func(ctx context.Context, au *account.Unit) error {
		u := &unit{au, by}
		if err := u.lockPeople(ctx, uid); err != nil {
			return err
		}
		now, err := u.UserByID(ctx, by.ID)
		switch {
		case err != nil:
			return err
		case !now.Open():
			return fault.New("authz.user_not_active")
		case now.Role != by.Role:
			return fault.New("authz.invalid_permission")
		}
		return f(ctx, u)
	})
}

// lockPeople locks the member of staff and whom the edit is about, who may edit each other just now. To take an office
// from a superadmin all superadmins are locked, which is to be done in the same order.
func (u *unit) lockPeople(ctx context.Context, uid string) error {
	ids, office := []int64{u.by.ID}, ""
	if uid != "" {
		user, err := u.UserByUID(ctx, uid)
		switch {
		case err == nil:
			if ids = append(ids, user.ID); user.Role == policy.Superadmin {
				office = user.Role
			}
		case !errors.Is(err, db.ErrNotFound):
			return err
		}
	}
	return u.LockUsers(ctx, office, ids...)
}

// target locks the user whom an edit is about.
func (u *unit) target(ctx context.Context, uid string) (*db.User, error) {
	user, err := u.LockUserByUID(ctx, uid)
	switch {
	case errors.Is(err, db.ErrNotFound):
		return nil, ErrNoUser
	case err != nil:
		return nil, err
	case above(user.Role, u.by):
		return nil, errAbove
	}
	return user, nil
}

// edit runs f for the user of a uid.
func (d *Desk) edit(ctx context.Context, by *db.User, uid string, f func(ctx context.Context, u *unit, user *db.User) error) error {
	return d.update(ctx, by, uid, func(ctx context.Context, u *unit) error {
		user, err := u.target(ctx, uid)
		if err != nil {
			return err
		}
		return f(ctx, u, user)
	})
}

// editOther is edit for what nobody may do to themselves.
func (d *Desk) editOther(ctx context.Context, by *db.User, uid string, f func(ctx context.Context, u *unit, user *db.User) error) error {
	return d.edit(ctx, by, uid, func(ctx context.Context, u *unit, user *db.User) error {
		if user.ID == by.ID {
			return errHimself
		}
		return f(ctx, u, user)
	})
}
