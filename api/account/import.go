package account

import (
	"context"
	"errors"
	"net/mail"
	"regexp"
	"strings"
	"unicode"

	"barong/db"
	"barong/internal/email"
	"barong/internal/fault"
	"barong/internal/phone"
)

// An Import is a user who is taken over from elsewhere.
type Import struct {
	Email          string
	PasswordDigest string  // bcrypt, as the original made them
	ReferralUID    *string // of who recommended us; nil for nobody
	Phone          *string // taken for verified; nil for none
	Person         db.ProfileEdit
	ProfileState   *string // a word; nil for drafted
}

// Refusals of imports, and of new users whom somebody recommended.
var (
	ErrImported   = errors.New("there is a user with this email")
	ErrNoReferrer = errors.New("who recommended us is nobody's uid")
)

// bcryptDigest is the form of the digests that the original made. A cost beyond 14 takes seconds to check.
var bcryptDigest = regexp.MustCompile(`^\$2[aby]\$(0[4-9]|1[0-4])\$[./A-Za-z0-9]{53}$`)

// importable reports whether an address, which other rules may have let in than those for people who sign up, can be
// written to and stored.
func importable(address string) bool {
	parsed, err := mail.ParseAddress(address)
	_, deliverable := email.ASCIIDomain(address)
	return err == nil && deliverable && parsed.Name == "" && parsed.Address == address && len(address) <= 255 &&
		strings.IndexFunc(address, func(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) }) < 0
}

// ReferrerID finds who recommended us, if anybody did. The error is ErrNoReferrer when there is no such user.
func (s *Service) ReferrerID(ctx context.Context, uid *string) (*int64, error) {
	if uid == nil {
		return nil, nil
	}
	user, err := s.DB.UserByUID(ctx, *uid)
	if errors.Is(err, db.ErrNotFound) {
		return nil, ErrNoReferrer
	}
	if err != nil {
		return nil, err
	}
	return &user.ID, nil
}

// ImportUser stores a user with their phone and profile, or nothing. The error is ErrImported, ErrNoReferrer, or a fault
// that lists the rules that were broken.
func (s *Service) ImportUser(ctx context.Context, in Import) (*db.User, error) {
	address := db.NormalEmail(in.Email)
	if _, err := s.DB.UserByEmail(ctx, address); err == nil {
		return nil, ErrImported
	} else if !errors.Is(err, db.ErrNotFound) {
		return nil, err
	}
	referrer, err := s.ReferrerID(ctx, in.ReferralUID)
	if err != nil {
		return nil, err
	}
	var wrong []fault.Code
	if !importable(address) {
		wrong = append(wrong, "email.invalid")
	}
	if !bcryptDigest.MatchString(in.PasswordDigest) {
		wrong = append(wrong, "password_digest.invalid")
	}
	var number *db.Phone
	if in.Phone != nil {
		digits, country, ok := phone.Parse(*in.Phone)
		if !ok {
			wrong = append(wrong, "number.invalid")
		}
		number = &db.Phone{Country: country, Number: digits}
	}
	if len(wrong) > 0 {
		return nil, fault.Invalid(wrong...)
	}
	uid, err := s.NewUID(ctx)
	if err != nil {
		return nil, err
	}
	row := db.User{
		UID: uid, Email: address, PasswordDigest: in.PasswordDigest, Role: "member", State: Pending, ReferralID: referrer,
	}
	user := new(db.User)
	err = s.Update(ctx, func(ctx context.Context, u *Unit) error {
		*user = row // this may run again
		return u.importUser(ctx, user, number, &in)
	})
	return user, err
}

func (u *Unit) importUser(ctx context.Context, user *db.User, number *db.Phone, in *Import) error {
	err := u.CreateUser(ctx, user)
	if f := (*fault.Error)(nil); errors.As(err, &f) && f.Has("email.taken") { // meanwhile
		return ErrImported
	}
	if err != nil {
		return err
	}
	if number != nil {
		now := u.Now()
		err := u.InsertPhone(ctx, &db.Phone{UserID: user.ID, Country: number.Country, Number: number.Number, ValidatedAt: &now})
		if taken := (*db.ErrTaken)(nil); errors.As(err, &taken) {
			return fault.Invalid("number.taken")
		}
		if err != nil {
			return err
		}
	}
	return u.CreateProfileAs(ctx, user, in.Person, in.ProfileState)
}
