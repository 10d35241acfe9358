package staff

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"barong/db"
	"barong/internal/fault"
	"barong/internal/rules"
	"barong/policy"
)

// Verbs and actions that a rule may be given, in any case.
var (
	verbs   = []string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "ALL"}
	actions = []string{"ACCEPT", "DROP", "AUDIT"}
)

// ErrVerb refuses a verb.
var ErrVerb = fault.Invalid("admin.permissions.invalid_verb")

var (
	errAction       = fault.Invalid("admin.permissions.invalid_action")
	errNoPermission = fault.New("admin.permission.doesnt_exist")
)

// maxText is the longest role, path or topic of a rule, in characters: the column of the original.
const maxText = 255

// ChangePermission makes a change of the permission rules; see ChangePermissions.
func (d *Desk) ChangePermission(ctx context.Context, by *db.User, change rules.Change) error {
	return d.change(ctx, by, []rules.Change{change})
}

// maxChanges is how many changes are made at once.
const maxChanges = 200

// ChangePermissions makes changes of the permission rules one after the other, all of them or none, which are in force in
// this process when it returns nil; other replicas follow the notice of the commit. What would in the end take from
// superadmins the means to undo it is refused.
func (d *Desk) ChangePermissions(ctx context.Context, by *db.User, changes []rules.Change) error {
	if len(changes) == 0 || len(changes) > maxChanges {
		return fault.Invalid("changes.invalid")
	}
	for i := range changes {
		c := &changes[i]
		if err := validateChange(c); err != nil {
			return err
		}
		if c.Op == rules.Create && (blank(c.Role) || blank(c.Verb) || blank(c.Path) || blank(c.Action)) ||
			c.Op == rules.Update && (empty(c.Role) || empty(c.Verb) || empty(c.Path) || empty(c.Action)) {
			return fault.Invalid("changes.invalid")
		}
	}
	return d.change(ctx, by, changes)
}

// blank reports a text that is absent or says nothing, and empty one that is there and says nothing.
func blank(s *string) bool { return s == nil || empty(s) }

func empty(s *string) bool { return s != nil && strings.TrimSpace(*s) == "" }

func (d *Desk) change(ctx context.Context, by *db.User, changes []rules.Change) error {
	err := d.update(ctx, by, "", func(ctx context.Context, u *unit) error {
		if err := u.LockRules(ctx); err != nil { // no other edit of rules crosses this one
			return err
		}
		// What superadmins may do lies in the rules of their role, unless the operator's own model reads others, too.
		read := func(ctx context.Context) ([]db.Permission, error) { return u.PermissionsOf(ctx, policy.Superadmin) }
		if d.Rules.Snapshot().OwnModel() {
			read = u.AllPermissions
		}
		before, err := read(ctx)
		if err != nil {
			return err
		}
		for i := range changes {
			if err := u.changePermission(ctx, &changes[i]); err != nil {
				return err
			}
		}
		after, err := read(ctx)
		if err != nil {
			return err
		}
		// Where superadmins were locked out already, by an edit of the tables, any change may be the first step back.
		if !d.Rules.SuperadminCanAct(rules.Permissions(after)) && d.Rules.SuperadminCanAct(rules.Permissions(before)) {
			return fault.New("admin.permission.last_superadmin")
		}
		return nil
	})
	if err != nil {
		return err
	}
	return d.reload(ctx)
}

// reload has the stored rules in force in this process.
func (d *Desk) reload(ctx context.Context) error {
	if err := d.Rules.Refresh(ctx); err != nil {
		return fault.New(fault.Unavailable).Because(fmt.Errorf("the change is stored, but not in force: %w", err))
	}
	return nil
}

// who is the member of staff, for the record of an edit.
func (u *unit) who() db.Who { return db.Who{UserID: u.by.ID, UID: u.by.UID} }

func (u *unit) changePermission(ctx context.Context, change *rules.Change) error {
	if change.Op == rules.Create {
		p := new(db.Permission)
		if err := u.fillPermission(ctx, p, change); err != nil {
			return err
		}
		return u.InsertPermission(ctx, u.who(), p)
	}
	before, err := u.Permission(ctx, change.ID)
	switch {
	case errors.Is(err, db.ErrNotFound):
		return errNoPermission
	case err != nil:
		return err
	case above(before.Role, u.by):
		return errAbove
	case change.Op == rules.Delete:
		return u.DeletePermission(ctx, u.who(), before)
	}
	after := *before
	if err := u.fillPermission(ctx, &after, change); err != nil {
		return err
	}
	if rules.Permission(before) == rules.Permission(&after) {
		return nil
	}
	return u.UpdatePermission(ctx, u.who(), before, &after)
}

// fillPermission makes a change in a rule and checks it.
func (u *unit) fillPermission(ctx context.Context, p *db.Permission, change *rules.Change) error {
	set(&p.Role, change.Role)
	set(&p.Verb, change.Verb)
	set(&p.Path, change.Path)
	set(&p.Action, change.Action)
	if change.Topic != nil {
		p.Topic = change.Topic
	}
	p.Verb, p.Action = strings.ToUpper(p.Verb), strings.ToUpper(p.Action)
	switch {
	case change.Verb != nil && !slices.Contains(verbs, p.Verb):
		return ErrVerb
	case change.Action != nil && !slices.Contains(actions, p.Action):
		return errAction
	case above(p.Role, u.by):
		return errAbove
	case change.Role != nil:
		if err := u.validateRole(ctx, p.Role); err != nil {
			return err
		}
	}
	wrong := slices.Concat(validateText("role", change.Role), validateText("path", change.Path), validateText("topic", change.Topic))
	if len(wrong) > 0 {
		return fault.Invalid(wrong...)
	}
	return nil
}

func set(to, from *string) {
	if from != nil {
		*to = *from
	}
}

// validateRole refuses a role that no rule names yet, which the original did to everybody, so that no role could ever be
// added. A superadmin adds one by its first rule; for others an unknown role is a slip, or an attempt at something.
func (u *unit) validateRole(ctx context.Context, role string) error {
	if u.by.Role == policy.Superadmin {
		return nil
	}
	known, err := u.RoleExists(ctx, role)
	if err == nil && !known {
		return fault.New("admin.permission.role_doesnt_exist")
	}
	return err
}

// validateText lists what is wrong with a text of a rule. The policy refuses control characters too, and with them all
// rules, so none may ever be stored.
func validateText(attribute fault.Code, text *string) []fault.Code {
	if text == nil {
		return nil
	}
	var wrong []fault.Code
	if utf8.RuneCountInString(*text) > maxText {
		wrong = append(wrong, attribute+".too_long")
	}
	if strings.ContainsFunc(*text, unicode.IsControl) {
		wrong = append(wrong, attribute+".invalid")
	}
	return wrong
}

// PreviewPermissions rehearses changes on recent decisions, and returns those that would turn. A change is refused with
// the codes of the real one, as far as it can be told without making it.
func (d *Desk) PreviewPermissions(ctx context.Context, changes []rules.Change) ([]rules.Turn, error) {
	for i := range changes {
		if err := validateChange(&changes[i]); err != nil {
			return nil, err
		}
	}
	turns, err := d.Rules.Preview(ctx, changes)
	var refused *rules.ChangeError
	switch {
	case errors.As(err, &refused) && errors.Is(err, db.ErrNotFound):
		return nil, errNoPermission.Because(err)
	case errors.As(err, &refused):
		return nil, fault.Invalid("changes.invalid").Because(err)
	}
	return turns, err
}

func validateChange(change *rules.Change) error {
	switch {
	case !slices.Contains([]string{rules.Create, rules.Update, rules.Delete}, change.Op):
		return fault.Invalid("op.inclusion")
	case change.Op == rules.Delete:
	case change.Verb != nil && !slices.Contains(verbs, strings.ToUpper(*change.Verb)):
		return ErrVerb
	case change.Action != nil && !slices.Contains(actions, strings.ToUpper(*change.Action)):
		return errAction
	}
	return nil
}
