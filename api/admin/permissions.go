package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"barong/api/account"
	"barong/api/rest"
	"barong/api/view"
	"barong/db"
	"barong/internal/fault"
	"barong/internal/rules"
	"barong/policy"
)

// Verbs and actions that a rule may be given through the API, in any case.
var (
	verbs   = []string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "ALL"}
	actions = []string{"ACCEPT", "DROP", "AUDIT"}
)

var (
	errVerb         = fault.Invalid("admin.permissions.invalid_verb")
	errAction       = fault.Invalid("admin.permissions.invalid_action")
	errNoPermission = fault.New("admin.permission.doesnt_exist")
)

// listPermissions answers GET /admin/permissions.
func (m *Module) listPermissions(ctx context.Context, c *rest.Call) error {
	rows, total, err := m.DB.Permissions(ctx, c.Page())
	if err != nil {
		return err
	}
	return c.AnswerPage(view.Permissions(rows), total)
}

// editRules runs f in one unit that no other edit of rules crosses, and has what it changed in force in this process
// before it returns. Other replicas follow the notice of the commit.
func (m *Module) editRules(
	ctx context.Context, c *rest.Call, f func(ctx context.Context, u *account.Unit, who db.Who) error,
) error {
	err := m.edit(ctx, c, func(ctx context.Context, u *account.Unit) error {
		if err := u.LockRules(ctx); err != nil {
			return err
		}
		return f(ctx, u, db.Who{UserID: c.User.ID, UID: c.User.UID})
	})
	if err != nil {
		return err
	}
	if err := m.Rules.Reload(ctx); err != nil {
		return fault.New(fault.Unavailable).Because(fmt.Errorf("the change is stored, but not in force: %w", err))
	}
	return nil
}

// editPermissions is editRules, and refuses what would take from superadmins the means to undo it.
func (m *Module) editPermissions(
	ctx context.Context, c *rest.Call, f func(ctx context.Context, u *account.Unit, who db.Who) error,
) error {
	err := m.editRules(ctx, c, func(ctx context.Context, u *account.Unit, who db.Who) error {
		before, err := u.AllPermissions(ctx)
		if err != nil {
			return err
		}
		if err := f(ctx, u, who); err != nil {
			return err
		}
		after, err := u.AllPermissions(ctx)
		if err != nil {
			return err
		}
		// Where superadmins were locked out already, by an edit of the tables, any change may be the first step back.
		if !m.Rules.SuperadminCanAct(rules.Permissions(after)) && m.Rules.SuperadminCanAct(rules.Permissions(before)) {
			return fault.New("admin.permission.last_superadmin")
		}
		return nil
	})
	if err != nil {
		return err
	}
	return c.Done()
}

// fillPermission puts the parameters that were sent into a rule and checks it.
func fillPermission(ctx context.Context, c *rest.Call, u *account.Unit, p *db.Permission) error {
	for _, f := range []struct {
		name string
		to   *string
	}{{"role", &p.Role}, {"verb", &p.Verb}, {"path", &p.Path}, {"action", &p.Action}} {
		if c.Has(f.name) {
			*f.to = c.String(f.name)
		}
	}
	if c.Has("topic") {
		p.Topic = c.Optional("topic")
	}
	p.Verb, p.Action = strings.ToUpper(p.Verb), strings.ToUpper(p.Action)
	switch {
	case c.Has("verb") && !slices.Contains(verbs, p.Verb):
		return errVerb
	case c.Has("action") && !slices.Contains(actions, p.Action):
		return errAction
	case above(p.Role, c):
		return errAbove
	case c.Has("role"):
		if err := checkRole(ctx, c, u, p.Role); err != nil {
			return err
		}
	}
	var wrong []fault.Code
	for _, name := range []string{"role", "path", "topic"} {
		wrong = append(wrong, checkText(c, name)...)
	}
	if len(wrong) > 0 {
		return fault.Invalid(wrong...)
	}
	return nil
}

// checkRole refuses a role that no rule names yet, which the original did to everybody, so that no role could ever be
// added. A superadmin adds one by its first rule; for others an unknown role is a slip, or an attempt at something.
func checkRole(ctx context.Context, c *rest.Call, u *account.Unit, role string) error {
	if c.User.Role == policy.Superadmin {
		return nil
	}
	known, err := u.RoleExists(ctx, role)
	if err == nil && !known {
		return fault.New("admin.permission.role_doesnt_exist")
	}
	return err
}

// maxText is the longest role, path or topic of a rule, in characters: the column of the original.
const maxText = 255

// checkText lists what is wrong with a text of a rule. The policy refuses control characters too, and with them all
// rules, so none may ever be stored.
func checkText(c *rest.Call, name string) []fault.Code {
	var wrong []fault.Code
	if utf8.RuneCountInString(c.String(name)) > maxText {
		wrong = append(wrong, fault.Code(name+".too_long"))
	}
	if strings.ContainsFunc(c.String(name), unicode.IsControl) {
		wrong = append(wrong, fault.Code(name+".invalid"))
	}
	return wrong
}

// createPermission answers POST /admin/permissions.
func (m *Module) createPermission(ctx context.Context, c *rest.Call) error {
	return m.editPermissions(ctx, c, func(ctx context.Context, u *account.Unit, who db.Who) error {
		p := new(db.Permission)
		if err := fillPermission(ctx, c, u, p); err != nil {
			return err
		}
		return u.InsertPermission(ctx, who, p)
	})
}

// storedPermission reads the rule that a call names, if the caller may change it.
func storedPermission(ctx context.Context, c *rest.Call, u *account.Unit) (*db.Permission, error) {
	p, err := u.Permission(ctx, c.Int("id"))
	switch {
	case errors.Is(err, db.ErrNotFound):
		return nil, errNoPermission
	case err != nil:
		return nil, err
	case above(p.Role, c):
		return nil, errAbove
	}
	return p, nil
}

// updatePermission answers PUT /admin/permissions.
func (m *Module) updatePermission(ctx context.Context, c *rest.Call) error {
	return m.editPermissions(ctx, c, func(ctx context.Context, u *account.Unit, who db.Who) error {
		before, err := storedPermission(ctx, c, u)
		if err != nil {
			return err
		}
		after := *before
		if err := fillPermission(ctx, c, u, &after); err != nil {
			return err
		}
		if rules.Permission(before) == rules.Permission(&after) {
			return nil
		}
		return u.UpdatePermission(ctx, who, before, &after)
	})
}

// deletePermission answers DELETE /admin/permissions.
func (m *Module) deletePermission(ctx context.Context, c *rest.Call) error {
	return m.editPermissions(ctx, c, func(ctx context.Context, u *account.Unit, who db.Who) error {
		p, err := storedPermission(ctx, c, u)
		if err != nil {
			return err
		}
		return u.DeletePermission(ctx, who, p)
	})
}

// checkPermission answers POST /admin/permissions/check.
func (m *Module) checkPermission(ctx context.Context, c *rest.Call) error {
	verb := strings.ToUpper(c.String("verb"))
	if !policy.Method(verb) {
		return errVerb
	}
	var answer *rules.Check
	var err error
	if c.Has(uid.Name) {
		answer, err = m.Rules.CheckUser(ctx, c.String(uid.Name), verb, c.String("path"))
	} else {
		answer, err = m.Rules.Check(c.String("role"), verb, c.String("path"))
	}
	switch {
	case errors.Is(err, rules.ErrPath):
		return fault.New("authz.ambiguous_path").Because(err)
	case errors.Is(err, db.ErrNotFound):
		return errNoUser
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
	for i := range changes {
		if err := checkChange(&changes[i]); err != nil {
			return err
		}
	}
	turns, err := m.Rules.Preview(ctx, changes)
	var refused *rules.ChangeError
	switch {
	case errors.As(err, &refused) && errors.Is(err, db.ErrNotFound):
		return errNoPermission.Because(err)
	case errors.As(err, &refused):
		return fault.Invalid("changes.invalid").Because(err)
	case err != nil:
		return err
	}
	return c.Answer(turns)
}

// checkChange refuses a change with the codes of the real edit.
func checkChange(change *rules.Change) error {
	switch {
	case !slices.Contains([]string{"create", "update", "delete"}, change.Op):
		return fault.Invalid("op.inclusion")
	case change.Op == "delete":
	case change.Verb != nil && !slices.Contains(verbs, strings.ToUpper(*change.Verb)):
		return errVerb
	case change.Action != nil && !slices.Contains(actions, strings.ToUpper(*change.Action)):
		return errAction
	}
	return nil
}
