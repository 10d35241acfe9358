package account

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"barong/db"
	"barong/internal/fault"
	"barong/policy"
)

// maxMetadata is the longest profile or document metadata, in bytes: the column of the original.
const maxMetadata = 65535

// validateProfile brings a profile into its normal form (runs of white space collapsed in names, city and postcode, one kind
// of apostrophe in those and the address, a blank date none) and lists the rules it breaks, in the order of the original.
// Blank fields break none.
func validateProfile(p *db.Profile, now time.Time) []fault.Code {
	for _, f := range []**string{&p.FirstName, &p.LastName, &p.City, &p.Address, &p.Postcode} {
		if *f == nil {
			continue
		}
		text := apostrophes.Replace(joiners(**f))
		if f != &p.Address {
			text = strings.Join(strings.Fields(text), " ")
		}
		*f = &text
	}
	if !filled(p.DOB) {
		p.DOB = nil
	}
	var codes []fault.Code
	codes = append(codes, validateText("first_name", p.FirstName, 1, nameRunes)...)
	codes = append(codes, validateText("last_name", p.LastName, 1, nameRunes)...)
	codes = append(codes, validateDOB(p.DOB, now)...)
	codes = append(codes, validateText("city", p.City, 1, "-–.~'"+joinerRunes)...)
	if filled(p.Country) && !policy.IsCountry(*p.Country) {
		codes = append(codes, "country.must have alpha2 or alpha3 format")
	}
	codes = append(codes, validateText("postcode", p.Postcode, 2, "-")...)
	codes = append(codes, validateText("address", p.Address, 1, "-–,.~;/:#\"\\&'()"+joinerRunes)...)
	return append(codes, ValidateMetadata(p.Metadata)...)
}

// joinerRunes are the zero-width joiner and non-joiner, which words of some scripts are not written without.
const joinerRunes = "\u200c\u200d"

// nameRunes stand in names beside letters: "Smith-Jones Jr.", "山田・太郎", "迪丽热巴·迪力木拉提".
const nameRunes = "-'.·・･" + joinerRunes

// apostrophes are those that keyboards write for the one of ASCII.
var apostrophes = strings.NewReplacer("\u2018", "'", "\u2019", "'", "\uff07", "'")

// joiners is a text without the joiners that join nothing, and would tell two texts apart that look the same.
func joiners(text string) string {
	if !strings.ContainsAny(text, joinerRunes) {
		return text
	}
	letter := func(r rune) bool { return unicode.In(r, unicode.L, unicode.M) }
	var b strings.Builder
	last := rune(0)
	for i, r := range text {
		if strings.ContainsRune(joinerRunes, r) {
			next, _ := utf8.DecodeRuneInString(text[i+utf8.RuneLen(r):])
			if !letter(last) || !letter(next) {
				continue
			}
		}
		b.WriteRune(r)
		last = r
	}
	return b.String()
}

// ValidateMetadata lists what is wrong with the JSON text of a profile or document.
func ValidateMetadata(text *string) []fault.Code {
	if text == nil {
		return nil
	}
	var codes []fault.Code
	if len(*text) > maxMetadata {
		codes = append(codes, "metadata.too_long")
	}
	if !json.Valid([]byte(*text)) {
		codes = append(codes, "metadata.invalid_format")
	}
	return codes
}

func filled(s *string) bool { return s != nil && strings.TrimSpace(*s) != "" }

// validateDOB refuses what is no date. The original took birthdays of the future; nobody has one.
func validateDOB(text *string, now time.Time) []fault.Code {
	if text == nil {
		return nil
	}
	day, err := time.Parse(time.DateOnly, *text)
	if err != nil || day.After(now.UTC().AddDate(0, 0, 1)) { // east of UTC it is tomorrow already
		return []fault.Code{"dob.invalid"}
	}
	return nil
}

// validateText checks length and characters of a field: letters, marks and digits of any script, underscores, white space,
// and others.
func validateText(attribute fault.Code, text *string, shortest int, others string) []fault.Code {
	if !filled(text) {
		return nil
	}
	var codes []fault.Code
	n := utf8.RuneCountInString(*text)
	if n < shortest {
		codes = append(codes, attribute+".too_short")
	}
	if n > 255 {
		codes = append(codes, attribute+".too_long")
	}
	if strings.IndexFunc(*text, func(r rune) bool {
		return !(unicode.In(r, unicode.L, unicode.M, unicode.Nd) || r == '_' || unicode.IsSpace(r) || strings.ContainsRune(others, r))
	}) >= 0 {
		codes = append(codes, attribute+".invalid")
	}
	return codes
}

// CreateProfile stores a new profile. The error is a 422 of the rules it breaks, with state.exists appended when the user
// has a drafted or submitted profile already and this would be another; state.exists alone is a 409.
func (u *Unit) CreateProfile(ctx context.Context, user *db.User, p *db.Profile) error {
	codes := validateProfile(p, u.Now())
	if err := u.Lock(ctx, user); err != nil {
		return err
	}
	if p.State == db.ProfileDrafted || p.State == db.ProfileSubmitted {
		_, err := u.ProfileIn(ctx, user.ID, db.ProfileDrafted, db.ProfileSubmitted)
		switch {
		case err == nil && len(codes) == 0:
			return fault.New("state.exists")
		case err == nil:
			codes = append(codes, "state.exists")
		case !errors.Is(err, db.ErrNotFound):
			return err
		}
	}
	if len(codes) > 0 {
		return fault.Invalid(codes...)
	}
	p.UserID = user.ID
	if err := u.InsertProfile(ctx, p); err != nil {
		return err
	}
	if err := u.profileSaved(ctx, user, nil, p); err != nil {
		return err
	}
	r, err := u.profileRecord(ctx, user, p)
	if err != nil {
		return err
	}
	return u.created(ctx, "profile", r)
}

// CreateProfileAs is CreateProfile of what is said about a person. State is a word, nil for drafted; another is
// state.inclusion.
func (u *Unit) CreateProfileAs(ctx context.Context, user *db.User, person db.ProfileEdit, state *string) error {
	p := new(db.Profile)
	person.Apply(p)
	if state != nil {
		var ok bool
		if p.State, ok = db.ProfileState(*state); !ok {
			return fault.Invalid("state.inclusion")
		}
	}
	return u.CreateProfile(ctx, user, p)
}

// UpdateProfile stores a changed profile of which before is the stored row, read after Lock. The error is a 422 of
// the rules it breaks. When nothing changes, nothing happens.
func (u *Unit) UpdateProfile(ctx context.Context, user *db.User, before, p *db.Profile) error {
	if codes := validateProfile(p, u.Now()); len(codes) > 0 {
		return fault.Invalid(codes...)
	}
	if err := u.Lock(ctx, user); err != nil {
		return err
	}
	if before.State == p.State && sameIdentity(before, p) && equal(before.Metadata, p.Metadata) {
		return nil
	}
	if err := u.Tx.UpdateProfile(ctx, p); err != nil {
		return err
	}
	if err := u.profileSaved(ctx, user, before, p); err != nil {
		return err
	}
	old, err := u.profileRecord(ctx, user, before)
	if err != nil {
		return err
	}
	now, err := u.profileRecord(ctx, user, p)
	if err != nil {
		return err
	}
	return u.updated(ctx, "profile", old, now)
}

// profileSaved shows a profile's state in the private label "profile", and takes back the verification of the documents
// when the person they speak of is not the same any more: a profile is submitted, or says something new.
func (u *Unit) profileSaved(ctx context.Context, user *db.User, before, after *db.Profile) error {
	if err := u.PutLabel(ctx, user, "profile", after.StateName()); err != nil {
		return err
	}
	submitted := after.State == db.ProfileSubmitted && (before == nil || before.State != db.ProfileSubmitted)
	if before == nil {
		before = &db.Profile{} // a new profile says who somebody is as much as a changed one does
	}
	if !submitted && sameIdentity(before, after) {
		return nil
	}
	document, err := u.lockedLabel(ctx, user, "document")
	if errors.Is(err, db.ErrNotFound) || err == nil && document.Value != "verified" {
		return nil
	}
	if err != nil {
		return err
	}
	return u.PutLabel(ctx, user, "document", "replaced")
}

func sameIdentity(a, b *db.Profile) bool {
	return equal(a.FirstName, b.FirstName) && equal(a.LastName, b.LastName) && equal(a.DOB, b.DOB) &&
		equal(a.Address, b.Address) && equal(a.Postcode, b.Postcode) && equal(a.City, b.City) && equal(a.Country, b.Country)
}
