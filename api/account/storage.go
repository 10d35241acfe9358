package account

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"barong/db"
	"barong/internal/fault"
)

// Store keeps a JSON text of a user under a title, once, and labels them with it. titles are those that there may be.
func (s *Service) Store(ctx context.Context, user *db.User, titles []string, title, data string) error {
	d := &db.DataStorage{UserID: user.ID, Title: title, Data: data}
	wrong := validateStorage(d, titles)
	return s.Update(ctx, func(ctx context.Context, u *Unit) error {
		if err := u.Lock(ctx, user); err != nil {
			return err
		}
		_, err := u.DataStorage(ctx, user.ID, d.Title)
		taken := err == nil
		if err != nil && !errors.Is(err, db.ErrNotFound) {
			return err
		}
		if found := wrong.with(taken); len(found) > 0 {
			return fault.Invalid(found...)
		}
		if err := u.InsertDataStorage(ctx, d); err != nil {
			return err
		}
		if err := u.labelStored(ctx, user, d.Title); err != nil {
			return err
		}
		return u.DataStorageCreated(ctx, user, d)
	})
}

// labelStored labels a user with a title that they have stored something under, if it is fit for a label and they have none
// of that key yet.
func (u *Unit) labelStored(ctx context.Context, user *db.User, title string) error {
	const value = "recorded"
	key := NormalLabel(title)
	if len(ValidateLabel(key, value, Private)) > 0 {
		return nil
	}
	if _, err := u.Label(ctx, user.ID, key, Private); !errors.Is(err, db.ErrNotFound) {
		return err
	}
	return u.PutLabel(ctx, user, key, value)
}

// Bounds of a data storage, in characters. The title's is the width of its column.
const (
	maxStored = 5120
	maxTitle  = 64
)

// storageFaults are the rules that a data storage breaks, of its data and of its title.
type storageFaults struct{ data, title []fault.Code }

// with lists the codes; a taken title comes before what else is wrong with it.
func (f storageFaults) with(taken bool) []fault.Code {
	if !taken {
		return slices.Concat(f.data, f.title)
	}
	return slices.Concat(f.data, []fault.Code{"title.taken"}, f.title)
}

func validateStorage(d *db.DataStorage, titles []string) (f storageFaults) {
	if utf8.RuneCountInString(d.Data) > maxStored {
		f.data = append(f.data, "data.too_long")
	}
	if !json.Valid([]byte(d.Data)) {
		f.data = append(f.data, "data.invalid_format")
	}
	if !slices.Contains(titles, d.Title) {
		f.title = append(f.title, "title.inclusion")
	}
	switch strings.ToLower(d.Title) {
	case "document", "label", "profile", "phone", "user":
		f.title = append(f.title, "title.exclusion")
	}
	if utf8.RuneCountInString(d.Title) > maxTitle {
		f.title = append(f.title, "title.too_long")
	}
	return f
}
