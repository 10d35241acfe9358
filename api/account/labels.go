package account

import (
	"context"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"barong/db"
	"barong/internal/fault"
)

// Scopes of labels.
const (
	Private = "private" // written by staff and by this program
	Public  = "public"  // written by the user
)

// NormalLabel is the form in which label keys and values are stored: lower case, trimmed, inner white space as one space.
func NormalLabel(text string) string { return strings.Join(strings.Fields(strings.ToLower(text)), " ") }

// ValidateLabel lists the rules that a label breaks after normalisation, in the order of the original: scope, key, value.
func ValidateLabel(key, value, scope string) []fault.Code {
	var codes []fault.Code
	if scope == "" {
		codes = append(codes, "scope.blank")
	}
	if scope != Private && scope != Public {
		codes = append(codes, "scope.inclusion")
	}
	codes = append(codes, validateWord("key", NormalLabel(key))...)
	return append(codes, validateWord("value", NormalLabel(value))...)
}

func validateWord(attribute fault.Code, word string) []fault.Code {
	var codes []fault.Code
	n := utf8.RuneCountInString(word)
	if n == 0 {
		codes = append(codes, attribute+".blank")
	}
	if n < 3 {
		codes = append(codes, attribute+".too_short")
	}
	if n > 255 {
		codes = append(codes, attribute+".too_long")
	}
	plain := n > 0 && strings.IndexFunc(word, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' && r != '-'
	}) < 0
	if !plain {
		codes = append(codes, attribute+".invalid")
	}
	return codes
}

// maxDescription is the longest description of a label, in characters: the column of the original.
const maxDescription = 255

func validateDescription(d *string) []fault.Code {
	if d != nil && utf8.RuneCountInString(*d) > maxDescription {
		return []fault.Code{"description.too_long"}
	}
	return nil
}

// CreateLabel adds a label. A private one moves level and state. The error is a 422 that lists every rule it breaks;
// key.taken when the user has one of that key and scope.
func (u *Unit) CreateLabel(
	ctx context.Context, user *db.User, key, value, scope string, description *string,
) (*db.Label, error) {
	if err := u.Lock(ctx, user); err != nil {
		return nil, err
	}
	l := &db.Label{
		UserID: user.ID, Key: NormalLabel(key), Value: NormalLabel(value), Scope: scope, Description: description,
	}
	codes := ValidateLabel(key, value, scope)
	if _, err := u.Label(ctx, user.ID, l.Key, l.Scope); err == nil {
		at := slices.IndexFunc(codes, func(c fault.Code) bool { return strings.HasPrefix(string(c), "value.") })
		if at < 0 {
			at = len(codes)
		}
		codes = slices.Insert(codes, at, fault.Code("key.taken"))
	} else if !errors.Is(err, db.ErrNotFound) {
		return nil, err
	}
	if codes = append(codes, validateDescription(description)...); len(codes) > 0 {
		return nil, fault.Invalid(codes...)
	}
	if err := u.InsertLabel(ctx, l); err != nil {
		return nil, err
	}
	return l, u.labelSaved(ctx, user, nil, l)
}

// UpdateLabel gives the label of that key and scope another value and description, and returns it as it is then. The
// error is db.ErrNotFound when there is none, or a 422. When nothing changes, nothing happens.
func (u *Unit) UpdateLabel(
	ctx context.Context, user *db.User, key, scope, value string, description *string,
) (*db.Label, error) {
	if err := u.Lock(ctx, user); err != nil {
		return nil, err
	}
	before, err := u.Label(ctx, user.ID, key, scope)
	if err != nil {
		return nil, err
	}
	if codes := append(validateWord("value", NormalLabel(value)), validateDescription(description)...); len(codes) > 0 {
		return nil, fault.Invalid(codes...)
	}
	after := *before
	after.Value, after.Description = NormalLabel(value), description
	if after.Value == before.Value && equal(after.Description, before.Description) {
		return before, nil
	}
	if err := u.Tx.UpdateLabel(ctx, &after); err != nil {
		return nil, err
	}
	return &after, u.labelSaved(ctx, user, before, &after)
}

// PutLabel makes sure that the user has the private label key with this value: how the program itself writes labels. It
// keeps a description. Doing it twice does nothing the second time.
func (u *Unit) PutLabel(ctx context.Context, user *db.User, key, value string) error {
	key = NormalLabel(key)
	have, err := u.lockedLabel(ctx, user, key)
	if errors.Is(err, db.ErrNotFound) {
		_, err = u.CreateLabel(ctx, user, key, value, Private, nil)
		return err
	}
	if err != nil {
		return err
	}
	_, err = u.UpdateLabel(ctx, user, key, Private, value, have.Description)
	return err
}

// lockedLabel locks the user and reads one of their private labels.
func (u *Unit) lockedLabel(ctx context.Context, user *db.User, key string) (*db.Label, error) {
	if err := u.Lock(ctx, user); err != nil {
		return nil, err
	}
	return u.Label(ctx, user.ID, key, Private)
}

// DeleteLabel removes the label of that key and scope; db.ErrNotFound when there is none. Removing a private one moves
// level and state, which makes one event of the user and none of the label.
func (u *Unit) DeleteLabel(ctx context.Context, user *db.User, key, scope string) error {
	if err := u.Lock(ctx, user); err != nil {
		return err
	}
	l, err := u.Label(ctx, user.ID, key, scope)
	if err != nil {
		return err
	}
	if err := u.Tx.DeleteLabel(ctx, l); err != nil {
		return err
	}
	if scope != Private {
		return nil
	}
	level, state, err := u.fromLabels(ctx, user)
	if err != nil {
		return err
	}
	before := *user
	user.Level = level
	return u.moveState(ctx, &before, user, state, nil, "level")
}

// labelSaved does what a new or changed label causes, in the order in which the original told it: level, document
// decision, state, the label itself. before is nil for a new label.
func (u *Unit) labelSaved(ctx context.Context, user *db.User, before, after *db.Label) error {
	if after.Scope == Private {
		level, state, err := u.fromLabels(ctx, user)
		if err != nil {
			return err
		}
		if level != user.Level {
			old := *user
			user.Level = level
			if err := u.saveUser(ctx, &old, user, "level"); err != nil {
				return err
			}
		}
		if after.Key == "document" && (before == nil || before.Value != after.Value) {
			if err := u.documentDecided(ctx, user, after); err != nil {
				return err
			}
		}
		if state != user.State {
			old := *user
			if err := u.moveState(ctx, &old, user, state, nil); err != nil {
				return err
			}
		}
	}
	if before == nil {
		return u.labelCreated(ctx, user, after)
	}
	return u.labelUpdated(ctx, user, before, after)
}

func equal(a, b *string) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}
