package management

import (
	"context"
	"errors"
	"net/mail"
	"regexp"
	"strings"
	"unicode"

	"barong/api/account"
	"barong/api/rest"
	"barong/db"
	"barong/internal/email"
	"barong/internal/fault"
	"barong/internal/phone"
)

// answerUsers sends one page of users, with their profiles if the call asks for them.
func (m *Module) answerUsers(ctx context.Context, c *rest.Call, rows []db.User, total int64) error {
	var list any
	var err error
	if c.Bool("extended") {
		list, err = m.view().UsersWithProfile(ctx, rows)
	} else {
		list, err = m.view().Users(ctx, rows)
	}
	if err != nil {
		return err
	}
	return c.AnswerPage(list, total)
}

func (m *Module) answerUser(ctx context.Context, c *rest.Call, user *db.User) error {
	list, err := m.view().UsersWithProfile(ctx, []db.User{*user})
	if err != nil {
		return err
	}
	return c.Answer(list[0])
}

// answerEdit shows the user of an edit, or lists the rules that it broke.
func (m *Module) answerEdit(ctx context.Context, c *rest.Call, user *db.User, err error) error {
	if codes := broken(err); codes != nil {
		return refuseList(c, sentences(codes))
	}
	if err != nil {
		return err
	}
	return m.answerUser(ctx, c, user)
}

func refuseList(c *rest.Call, list []string) error {
	return c.Refuse(422, map[string][]string{"error": list})
}

// listUsers answers POST /management/users/list.
func (m *Module) listUsers(ctx context.Context, c *rest.Call) error {
	rows, total, err := m.DB.FindUsers(ctx, c.UserFilter(), c.Page())
	if err != nil {
		return err
	}
	return m.answerUsers(ctx, c, rows, total)
}

// showUser answers POST /management/users/get.
func (m *Module) showUser(ctx context.Context, c *rest.Call) error {
	var user *db.User
	var err error
	switch {
	case c.Has("uid"):
		user, err = m.DB.UserByUID(ctx, c.String("uid"))
	case c.Has("email"):
		user, err = m.DB.UserByEmail(ctx, c.String("email"))
	default:
		number, _, ok := phone.Parse(c.String("phone_num"))
		if !ok { // it may stand there from when there was another numbering plan
			number = phone.Digits(c.String("phone_num"))
		}
		user, err = m.DB.UserByPhone(ctx, number)
	}
	if err != nil {
		return found(err)
	}
	all, err := m.view().UserWithKYC(ctx, user)
	if err != nil {
		return err
	}
	return c.Answer(all)
}

// referrer finds who recommended us to a new user.
func (m *Module) referrer(ctx context.Context, c *rest.Call) (*int64, error) {
	if !c.Has("referral_uid") {
		return nil, nil
	}
	user, err := m.DB.UserByUID(ctx, c.String("referral_uid"))
	if errors.Is(err, db.ErrNotFound) {
		return nil, fault.Plain(422, "Referral doesn't exist").Because(err)
	}
	if err != nil {
		return nil, err
	}
	return &user.ID, nil
}

// createUser answers POST /management/users.
func (m *Module) createUser(ctx context.Context, c *rest.Call) error {
	referrer, err := m.referrer(ctx, c)
	if err != nil {
		return err
	}
	user, err := m.Accounts.NewUser(ctx, db.User{Email: c.String("email"), ReferralID: referrer}, c.String("password"))
	if err == nil {
		err = m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error { return u.CreateUser(ctx, user) })
	}
	return m.answerEdit(ctx, c, user, err)
}

var errNoUser = fault.Plain(422, "user.doesnt_exist")

// edit runs f for the user that uid names in one transaction, and shows them.
func (m *Module) edit(ctx context.Context, c *rest.Call, f func(ctx context.Context, u *account.Unit, user *db.User) error) error {
	var user *db.User
	err := m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) (err error) {
		user, err = u.UserByUID(ctx, c.String("uid"))
		if errors.Is(err, db.ErrNotFound) {
			return errNoUser.Because(err)
		}
		if err != nil {
			return err
		}
		return f(ctx, u, user)
	})
	return m.answerEdit(ctx, c, user, err)
}

// updateUser answers POST /management/users/update.
func (m *Module) updateUser(ctx context.Context, c *rest.Call) error {
	return m.edit(ctx, c, func(ctx context.Context, u *account.Unit, user *db.User) error {
		return u.SetData(ctx, user, c.String("data"))
	})
}

// createProfile answers POST /management/profiles.
func (m *Module) createProfile(ctx context.Context, c *rest.Call) error {
	return m.edit(ctx, c, func(ctx context.Context, u *account.Unit, user *db.User) error {
		p, err := sentProfile(c)
		if err != nil {
			return err
		}
		return u.CreateProfile(ctx, user, p)
	})
}

// sentProfile is the profile of a call.
func sentProfile(c *rest.Call) (*db.Profile, error) {
	p := new(db.Profile)
	account.FillProfile(p, c)
	if c.Has("state") { // else it is drafted
		var ok bool
		if p.State, ok = db.ProfileState(c.String("state")); !ok {
			return nil, fault.Invalid("state.inclusion")
		}
	}
	return p, nil
}

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

// importUser answers POST /management/users/import: the user with their phone and profile, or nothing.
func (m *Module) importUser(ctx context.Context, c *rest.Call) error {
	address := db.NormalEmail(c.String("email"))
	if _, err := m.DB.UserByEmail(ctx, address); err == nil {
		return errImported
	} else if !errors.Is(err, db.ErrNotFound) {
		return err
	}
	referrer, err := m.referrer(ctx, c)
	if err != nil {
		return err
	}
	var wrong []string
	if !importable(address) {
		wrong = append(wrong, sentence("email.invalid"))
	}
	if !bcryptDigest.MatchString(c.String("password_digest")) {
		wrong = append(wrong, sentence("password_digest.invalid"))
	}
	number, country := "", ""
	if c.Has("phone") {
		var ok bool
		if number, country, ok = phone.Parse(c.String("phone")); !ok {
			wrong = append(wrong, sentence("number.invalid"))
		}
	}
	if wrong != nil {
		return refuseList(c, wrong)
	}
	uid, err := m.Accounts.NewUID(ctx)
	if err != nil {
		return err
	}
	user := &db.User{
		UID: uid, Email: address, PasswordDigest: c.String("password_digest"), Role: "member", State: account.Pending, ReferralID: referrer,
	}
	row := *user
	err = m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error {
		*user = row // this may run again
		if err := u.CreateUser(ctx, user); err != nil {
			if len(broken(err)) > 0 { // taken meanwhile
				return errImported.Because(err)
			}
			return err
		}
		if number != "" {
			now := u.Now()
			err := u.InsertPhone(ctx, &db.Phone{UserID: user.ID, Country: country, Number: number, ValidatedAt: &now})
			if taken := (*db.ErrTaken)(nil); errors.As(err, &taken) {
				return fault.Invalid("number.taken")
			}
			if err != nil {
				return err
			}
		}
		p, err := sentProfile(c)
		if err != nil {
			return err
		}
		p.Metadata = nil // it is none of this call's parameters
		return u.CreateProfile(ctx, user, p)
	})
	return m.answerEdit(ctx, c, user, err)
}

var errImported = fault.Plain(422, "User already exists by this email")
