package account

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"barong/db"
	"barong/internal/email"
	"barong/internal/fault"
	"barong/session"
)

// A SignUp is what a new user sends.
type SignUp struct {
	Email    string
	Password string
	Data     *string // JSON text
	RefID    string  // uid of who recommended us; empty for nobody
	Lang     string  // as sent; see Language
}

// SignUp creates a member and opens their first session: user, activity, confirmation mail. The error is the 422 of the
// referral, or the one that lists every rule that the rest breaks.
func (s *Service) SignUp(
	ctx context.Context, c Client, old []session.ID, in SignUp,
) (*db.User, session.ID, *session.Session, error) {
	referrer, err := s.referrer(ctx, in.RefID)
	if err != nil {
		return nil, session.ID{}, nil, err
	}
	user, err := s.NewUser(s.Asking(ctx, c.IP, in.Email), db.User{Email: in.Email, Data: in.Data, ReferralID: referrer}, in.Password)
	if err != nil {
		return nil, session.ID{}, nil, err
	}
	id, opened, err := s.OpenSession(ctx, c, old, user.UID, user.Epoch(), session.Password, func(ctx context.Context, u *Unit) error {
		if err := u.CreateUser(ctx, user); err != nil {
			return err
		}
		if err := u.Record(ctx, user, c, "account", "signup", Succeed, ""); err != nil {
			return err
		}
		if err := u.Welcome(ctx, user, c); err != nil {
			return err
		}
		return u.IssueMailToken(ctx, user, Confirmation, in.Lang)
	})
	if err != nil {
		return nil, session.ID{}, nil, err
	}
	return user, id, opened, nil
}

func (s *Service) referrer(ctx context.Context, refid string) (*int64, error) {
	if refid == "" {
		return nil, nil
	}
	if !strings.HasPrefix(refid, strings.ToUpper(s.UIDPrefix)) {
		return nil, fault.New("identity.user.invalid_referral_format")
	}
	user, err := s.DB.UserByUID(ctx, refid)
	if errors.Is(err, db.ErrNotFound) {
		return nil, fault.New("identity.user.referral_doesnt_exist")
	}
	if err != nil {
		return nil, err
	}
	return &user.ID, nil
}

// NewUser checks a user that does not exist yet and completes it: normal form of the address, uid, digest of the
// password, and role member and state pending unless others are given. The error is a 422 that lists every broken rule
// in the order of the original.
func (s *Service) NewUser(ctx context.Context, user db.User, password string) (*db.User, error) {
	user.Email = db.NormalEmail(user.Email)
	if user.Role == "" {
		user.Role = "member"
	}
	if user.State == "" {
		user.State = Pending
	}
	var codes []fault.Code
	secret := s.Policy.Codes(password)
	tooLong := len(secret) > 0 && secret[0] == "password.too_long"
	data := validateData(user.Data)
	if tooLong {
		codes = append(codes, secret...)
	}
	if len(data) > 0 && data[0] == "data.too_long" {
		codes, data = append(codes, data...), nil
	}
	known, err := s.DB.RoleExists(ctx, user.Role)
	if err != nil {
		return nil, err
	}
	if !known {
		codes = append(codes, "role.doesnt_exist")
	}
	codes = append(codes, data...)
	email, err := s.validateEmail(ctx, user.Email)
	if err != nil {
		return nil, err
	}
	codes = append(codes, email...)
	if !tooLong {
		codes = append(codes, secret...)
	}
	if len(codes) > 0 {
		return nil, fault.Invalid(codes...)
	}
	if user.PasswordDigest, err = s.Passwords.Hash(ctx, password); err != nil {
		return nil, err
	}
	return &user, s.complete(ctx, &user)
}

// complete gives a new user what it lacks: uid, role member, state pending.
func (s *Service) complete(ctx context.Context, user *db.User) (err error) {
	if user.Role == "" {
		user.Role = "member"
	}
	if user.State == "" {
		user.State = Pending
	}
	if user.UID == "" {
		if user.UID, err = s.NewUID(ctx); err != nil {
			return err
		}
	}
	user.SessionEra, err = s.DB.SessionEra(ctx)
	return err
}

// NewUID draws a uid that nobody has.
func (s *Service) NewUID(ctx context.Context) (string, error) {
	return s.DB.NewUID(ctx, s.UIDPrefix, func(b []byte) { rand.Read(b) })
}

func (s *Service) validateEmail(ctx context.Context, email string) ([]fault.Code, error) {
	var codes []fault.Code
	if !ValidEmail(email) {
		codes = append(codes, "email.invalid")
	}
	if email == "" {
		return append(codes, "email.blank"), nil
	}
	_, err := s.DB.UserByEmail(ctx, email)
	if errors.Is(err, db.ErrNotFound) {
		return codes, nil
	}
	if err != nil {
		return nil, err
	}
	return append(codes, "email.taken"), nil
}

// CreateUser stores a user that NewUser made and tells of it. An address that was taken meanwhile is email.taken.
func (u *Unit) CreateUser(ctx context.Context, user *db.User) error {
	err := u.InsertUser(ctx, user)
	if taken := (*db.ErrTaken)(nil); errors.As(err, &taken) && taken.Index == "users_email" {
		return fault.Invalid("email.taken")
	}
	if err != nil {
		return err
	}
	return u.userCreated(ctx, user)
}

// maxEmail is the longest address, in characters: the width of the column.
const maxEmail = 255

// ValidEmail reports whether an address, already in its normal form, has the syntax that is accepted: atoms separated by
// single dots before the last "@", labels of letters, digits and inner hyphens behind it, the last one letters only. It
// is narrower than RFC 5321 (no quoted strings, no address literals). A domain of other scripts must have A-labels, which
// are what mail servers take, and must not be too long with them.
func ValidEmail(address string) bool {
	at := strings.LastIndexByte(address, '@')
	if at < 0 || !utf8.ValidString(address) || utf8.RuneCountInString(address) > maxEmail {
		return false
	}
	delivered, ok := email.ASCIIDomain(address)
	if !ok || utf8.RuneCountInString(delivered) > maxEmail {
		return false
	}
	local, domain := address[:at], address[at+1:]
	if utf8.RuneCountInString(local) > 64 {
		return false
	}
	for atom := range strings.SplitSeq(local, ".") {
		if atom == "" || strings.IndexFunc(atom, func(r rune) bool { return !atomRune(r) }) >= 0 {
			return false
		}
	}
	labels := strings.Split(domain, ".")
	for i, label := range labels {
		last := i == len(labels)-1
		if n := utf8.RuneCountInString(label); n == 0 || n > 64 || last && n > 63 {
			return false
		}
		if label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		if strings.IndexFunc(label, func(r rune) bool {
			return !(unicode.IsLetter(r) || unicode.IsMark(r) || !last && (unicode.IsDigit(r) || r == '-'))
		}) >= 0 {
			return false
		}
	}
	return true
}

func atomRune(r rune) bool {
	return unicode.IsUpper(r) || unicode.IsLower(r) || unicode.IsTitle(r) || unicode.IsDigit(r) ||
		strings.ContainsRune("-+_!\"'#$%^&*{}/=?`|~", r)
}
