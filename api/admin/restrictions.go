package admin

import (
	"context"
	"time"

	"barong/api/rest"
	"barong/api/staff"
	"barong/api/view"
	"barong/db"
	"barong/policy"
)

var (
	scopes     = policy.Scopes()
	categories = policy.Categories()
)

// listRestrictions answers GET /admin/restrictions.
func (m *Module) listRestrictions(ctx context.Context, c *rest.Call) error {
	var in struct {
		Category *string `param:"category"`
		Scope    *string `param:"scope"`
		Range    string  `param:"range"`
		From     *int64  `param:"from"`
		To       *int64  `param:"to"`
	}
	c.Into(&in)
	rows, total, err := m.DB.Restrictions(ctx, db.RestrictionFilter{
		Category: in.Category, Scope: in.Scope, Updated: in.Range == "updated", From: in.From, To: in.To,
	}, c.Page())
	if err != nil {
		return err
	}
	return c.AnswerPage(view.Restrictions(rows), total)
}

// A restrictionInput is what a call says about a restriction.
type restrictionInput struct {
	Category *string `param:"category"`
	Scope    *string `param:"scope"`
	Value    *string `param:"value"`
	State    *string `param:"state"`
	Code     *int64  `param:"code"`
}

// createRestriction answers POST /admin/restrictions.
func (m *Module) createRestriction(ctx context.Context, c *rest.Call) error {
	var in restrictionInput
	c.Into(&in)
	return done(c, m.desk.CreateRestriction(ctx, c.User, staff.RestrictionEdit(in)))
}

// updateRestriction answers PUT /admin/restrictions.
func (m *Module) updateRestriction(ctx context.Context, c *rest.Call) error {
	var in struct {
		ID int64 `param:"id"`
		restrictionInput
	}
	c.Into(&in)
	return done(c, m.desk.UpdateRestriction(ctx, c.User, in.ID, staff.RestrictionEdit(in.restrictionInput)))
}

// deleteRestriction answers DELETE /admin/restrictions.
func (m *Module) deleteRestriction(ctx context.Context, c *rest.Call) error {
	var in struct {
		ID int64 `param:"id"`
	}
	c.Into(&in)
	return done(c, m.desk.DeleteRestriction(ctx, c.User, in.ID))
}

// createWhitelink answers POST /admin/restrictions/whitelink.
func (m *Module) createWhitelink(ctx context.Context, c *rest.Call) error {
	var in struct {
		ExpireTime int64  `param:"expire_time"`
		Range      string `param:"range"`
	}
	c.Into(&in)
	unit := 24 * time.Hour
	if in.Range == "hour" {
		unit = time.Hour
	}
	token, err := m.desk.CreateWhitelink(ctx, c.User, time.Duration(in.ExpireTime)*unit)
	if err != nil {
		return err
	}
	return c.Answer(map[string]string{"whitelink_token": token})
}
