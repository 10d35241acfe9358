package admin

import (
	"context"
	"errors"
	"strings"

	"barong/api/rest"
	"barong/api/staff"
	"barong/api/view"
	"barong/db"
	"barong/internal/fault"
	"barong/internal/rules"
	"barong/policy"
)

// listPermissions answers GET /admin/permissions.
func (m *Module) listPermissions(ctx context.Context, c *rest.Call) error {
	rows, total, err := m.DB.Permissions(ctx, c.Page())
	if err != nil {
		return err
	}
	return c.AnswerPage(view.Permissions(rows), total)
}

// A permissionInput is what a call says about a rule.
type permissionInput struct {
	ID     int64   `param:"id"`
	Role   *string `param:"role"`
	Verb   *string `param:"verb"`
	Path   *string `param:"path"`
	Action *string `param:"action"`
	Topic  *string `param:"topic"`
}

func (m *Module) changePermission(ctx context.Context, c *rest.Call, op string) error {
	var in permissionInput
	c.Into(&in)
	err := m.desk.ChangePermission(ctx, c.User, rules.Change{
		Op: op, ID: in.ID, Role: in.Role, Verb: in.Verb, Path: in.Path, Action: in.Action, Topic: in.Topic,
	})
	return done(c, err)
}

// createPermission answers POST /admin/permissions.
func (m *Module) createPermission(ctx context.Context, c *rest.Call) error {
	return m.changePermission(ctx, c, rules.Create)
}

// updatePermission answers PUT /admin/permissions.
func (m *Module) updatePermission(ctx context.Context, c *rest.Call) error {
	return m.changePermission(ctx, c, rules.Update)
}

// deletePermission answers DELETE /admin/permissions.
func (m *Module) deletePermission(ctx context.Context, c *rest.Call) error {
	return m.changePermission(ctx, c, rules.Delete)
}

// checkPermission answers POST /admin/permissions/check.
func (m *Module) checkPermission(ctx context.Context, c *rest.Call) error {
	var in struct {
		UID  *string `param:"uid"`
		Role string  `param:"role"`
		Verb string  `param:"verb"`
		Path string  `param:"path"`
	}
	c.Into(&in)
	verb := strings.ToUpper(in.Verb)
	if !policy.Method(verb) {
		return staff.ErrVerb
	}
	var answer *rules.Explanation
	var err error
	if in.UID != nil {
		answer, err = m.Rules.ExplainUser(ctx, *in.UID, verb, in.Path)
	} else {
		answer, err = m.Rules.Explain(in.Role, verb, in.Path)
	}
	switch {
	case errors.Is(err, rules.ErrPath):
		return fault.New("authz.ambiguous_path").Because(err)
	case errors.Is(err, db.ErrNotFound):
		return staff.ErrNoUser
	case err != nil:
		return err
	}
	return c.Answer(answer)
}

// previewPermissions answers POST /admin/permissions/preview.
func (m *Module) previewPermissions(ctx context.Context, c *rest.Call) error {
	var changes []rules.Change
	if err := c.Decode("changes", &changes); err != nil {
		return err
	}
	turns, err := m.desk.PreviewPermissions(ctx, changes)
	if err != nil {
		return err
	}
	return c.Answer(turns)
}
