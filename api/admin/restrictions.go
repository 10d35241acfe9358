package admin

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"time"

	"barong/api/account"
	"barong/api/rest"
	"barong/api/view"
	"barong/db"
	"barong/internal/fault"
	"barong/internal/rules"
	"barong/policy"
)

const (
	enabled    = "enabled"
	whitelist  = "whitelist"
	blocklogin = "blocklogin"
)

var (
	scopes     = policy.Scopes()
	categories = policy.Categories()

	errNoRestriction = fault.New("admin.restriction.doesnt_exist")
)

// listRestrictions answers GET /admin/restrictions.
func (m *Module) listRestrictions(ctx context.Context, c *rest.Call) error {
	rows, total, err := m.DB.Restrictions(ctx, db.RestrictionFilter{
		Category: c.Optional("category"), Scope: c.Optional("scope"), Updated: c.String("range") == "updated",
		From: c.Number("from"), To: c.Number("to"),
	}, c.Page())
	if err != nil {
		return err
	}
	return c.AnswerPage(view.Restrictions(rows), total)
}

// fillRestriction puts the parameters that were sent into a restriction and checks it.
func fillRestriction(c *rest.Call, r *db.Restriction) error {
	for _, f := range []struct {
		name string
		to   *string
	}{{"category", &r.Category}, {"scope", &r.Scope}, {"value", &r.Value}, {"state", &r.State}} {
		if c.Has(f.name) {
			*f.to = c.String(f.name)
		}
	}
	asked := c.Number("code")
	if asked != nil && r.Category != whitelist { // a whitelist rule refuses nobody; its code means nothing
		code := int(*asked)
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
	if asked != nil && !policy.ValidCode(*r.Code) {
		wrong = append(wrong, "code.inclusion")
	}
	if len(wrong) > 0 {
		return fault.Invalid(wrong...)
	}
	return nil
}

// editRestriction is editRules. When f reports that sign-ins are blocked from now on, everybody's sessions end, once the
// rule is in force: who signs in again is refused then.
func (m *Module) editRestriction(
	ctx context.Context, c *rest.Call, f func(ctx context.Context, u *account.Unit, who db.Who) (blocks bool, err error),
) error {
	blocks := false
	err := m.editRules(ctx, c, func(ctx context.Context, u *account.Unit, who db.Who) (err error) {
		blocks, err = f(ctx, u, who)
		return err
	})
	if taken := (*db.ErrTaken)(nil); errors.As(err, &taken) {
		return fault.Invalid("value.taken").Because(err)
	}
	if err != nil {
		return err
	}
	if blocks {
		if err := m.Accounts.EndEverybody(ctx); err != nil {
			return err
		}
	}
	return c.Done()
}

func blocksLogins(r *db.Restriction) bool { return r.Category == blocklogin && r.State == enabled }

// createRestriction answers POST /admin/restrictions.
func (m *Module) createRestriction(ctx context.Context, c *rest.Call) error {
	return m.editRestriction(ctx, c, func(ctx context.Context, u *account.Unit, who db.Who) (bool, error) {
		r := new(db.Restriction)
		if err := fillRestriction(c, r); err != nil {
			return false, err
		}
		return blocksLogins(r), u.InsertRestriction(ctx, who, r)
	})
}

func storedRestriction(ctx context.Context, c *rest.Call, u *account.Unit) (*db.Restriction, error) {
	r, err := u.Restriction(ctx, c.Int("id"))
	if errors.Is(err, db.ErrNotFound) {
		return nil, errNoRestriction
	}
	return r, err
}

// updateRestriction answers PUT /admin/restrictions.
func (m *Module) updateRestriction(ctx context.Context, c *rest.Call) error {
	return m.editRestriction(ctx, c, func(ctx context.Context, u *account.Unit, who db.Who) (bool, error) {
		before, err := storedRestriction(ctx, c, u)
		if err != nil {
			return false, err
		}
		after := *before
		if err := fillRestriction(c, &after); err != nil {
			return false, err
		}
		if rules.Restriction(before) == rules.Restriction(&after) {
			return false, nil
		}
		return blocksLogins(&after) && !blocksLogins(before), u.UpdateRestriction(ctx, who, before, &after)
	})
}

// deleteRestriction answers DELETE /admin/restrictions.
func (m *Module) deleteRestriction(ctx context.Context, c *rest.Call) error {
	return m.editRestriction(ctx, c, func(ctx context.Context, u *account.Unit, who db.Who) (bool, error) {
		r, err := storedRestriction(ctx, c, u)
		if err != nil {
			return false, err
		}
		return false, u.DeleteRestriction(ctx, who, r)
	})
}

// createWhitelink answers POST /admin/restrictions/whitelink. The store keeps a digest of the token alone.
func (m *Module) createWhitelink(ctx context.Context, c *rest.Call) error {
	unit := 24 * time.Hour
	if c.String("range") == "hour" {
		unit = time.Hour
	}
	var random [32]byte
	rand.Read(random[:]) // never fails since Go 1.24
	token := hex.EncodeToString(random[:])
	err := m.edit(ctx, c, func(ctx context.Context, u *account.Unit) error {
		return u.InsertWhitelink(ctx, token, c.User.ID, u.Now().Add(time.Duration(c.Int("expire_time"))*unit))
	})
	if err != nil {
		return err
	}
	return c.Answer(map[string]string{"whitelink_token": token})
}
