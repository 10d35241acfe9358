package staff

import (
	"context"
	"errors"
	"time"

	"barong/db"
	"barong/internal/crypto/secret"
	"barong/internal/fault"
	"barong/internal/rules"
	"barong/policy"
)

const (
	enabled    = "enabled"
	whitelist  = "whitelist"
	blocklogin = "blocklogin"
)

// A RestrictionEdit is what an edit says about a restriction. What is nil stays.
type RestrictionEdit struct {
	Category, Scope, Value, State *string
	Code                          *int64 // status of the refusal
}

// fill makes the edit in a restriction and checks it.
func (e *RestrictionEdit) fill(r *db.Restriction) error {
	set(&r.Category, e.Category)
	set(&r.Scope, e.Scope)
	set(&r.Value, e.Value)
	set(&r.State, e.State)
	if e.Code != nil && r.Category != whitelist { // a whitelist rule refuses nobody; its code means nothing
		code := int(*e.Code)
		r.Code = &code
	}
	if r.Code == nil || r.Category == whitelist {
		code := policy.DefaultCode(r.Category, r.Scope)
		r.Code = &code
	}
	rule := rules.Restriction(r)
	rule.Code = 0 // an imported code that was never valid must not keep the rule from being changed
	var wrong []fault.Code
	for _, code := range policy.ValidateRestriction(rule) {
		wrong = append(wrong, fault.Code(code))
	}
	if e.Code != nil && !policy.ValidCode(*r.Code) {
		wrong = append(wrong, "code.inclusion")
	}
	if len(wrong) > 0 {
		return fault.Invalid(wrong...)
	}
	return nil
}

func blocksLogins(r *db.Restriction) bool { return r.Category == blocklogin && r.State == enabled }

// CreateRestriction adds a restriction, which is in force in this process when it returns nil. When it blocks sign-ins,
// everybody's sessions end.
func (d *Desk) CreateRestriction(ctx context.Context, by *db.User, edit RestrictionEdit) error {
	return d.changeRestrictions(ctx, by, func(ctx context.Context, u *unit) (bool, error) {
		r := new(db.Restriction)
		if err := edit.fill(r); err != nil {
			return false, err
		}
		return blocksLogins(r), u.InsertRestriction(ctx, u.who(), r)
	})
}

// UpdateRestriction changes a restriction as CreateRestriction adds one.
func (d *Desk) UpdateRestriction(ctx context.Context, by *db.User, id int64, edit RestrictionEdit) error {
	return d.changeRestrictions(ctx, by, func(ctx context.Context, u *unit) (bool, error) {
		before, err := u.restriction(ctx, id)
		if err != nil {
			return false, err
		}
		after := *before
		if err := edit.fill(&after); err != nil {
			return false, err
		}
		if rules.Restriction(before) == rules.Restriction(&after) {
			return false, nil
		}
		return blocksLogins(&after) && !blocksLogins(before), u.UpdateRestriction(ctx, u.who(), before, &after)
	})
}

// DeleteRestriction removes a restriction.
func (d *Desk) DeleteRestriction(ctx context.Context, by *db.User, id int64) error {
	return d.changeRestrictions(ctx, by, func(ctx context.Context, u *unit) (bool, error) {
		r, err := u.restriction(ctx, id)
		if err != nil {
			return false, err
		}
		return false, u.DeleteRestriction(ctx, u.who(), r)
	})
}

// changeRestrictions runs f in one unit that no other edit of rules crosses, and has what it changed in force. When f
// reports that sign-ins are blocked from now on, everybody's sessions end after that: who signs in again is refused then.
func (d *Desk) changeRestrictions(
	ctx context.Context, by *db.User, f func(ctx context.Context, u *unit) (blocks bool, err error),
) error {
	blocks := false
	err := d.update(ctx, by, "", func(ctx context.Context, u *unit) (err error) {
		if err := u.LockRules(ctx); err != nil {
			return err
		}
		blocks, err = f(ctx, u)
		return err
	})
	if err == nil {
		err = d.reload(ctx)
	}
	if taken := (*db.ErrTaken)(nil); errors.As(err, &taken) {
		return fault.Invalid("value.taken").Because(err)
	}
	if err != nil || !blocks {
		return err
	}
	return d.Accounts.EndEverybody(ctx)
}

func (u *unit) restriction(ctx context.Context, id int64) (*db.Restriction, error) {
	r, err := u.Restriction(ctx, id)
	if errors.Is(err, db.ErrNotFound) {
		return nil, fault.New("admin.restriction.doesnt_exist")
	}
	return r, err
}

// CreateWhitelink returns a token that lets whoever has it past the restrictions for a while. The store keeps a digest of
// it alone.
func (d *Desk) CreateWhitelink(ctx context.Context, by *db.User, life time.Duration) (token string, err error) {
	token = secret.RandomHex(32)
	err = d.update(ctx, by, "", func(ctx context.Context, u *unit) error {
		return u.InsertWhitelink(ctx, token, by.ID, u.Now().Add(life))
	})
	return token, err
}
