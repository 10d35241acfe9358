package management

import (
	"context"
	"errors"

	"barong/api/account"
	"barong/api/rest"
	"barong/db"
	"barong/internal/fault"
	"barong/internal/phone"
)

// answerUsers sends one page of users, with their profiles if the call asks for them.
func (m *Module) answerUsers(ctx context.Context, c *rest.Call, rows []db.User, total int64) error {
	var in struct {
		Extended bool `param:"extended"`
	}
	c.Into(&in)
	var list any
	var err error
	if in.Extended {
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
	var in struct {
		UID   *string `param:"uid"`
		Email *string `param:"email"`
		Phone string  `param:"phone_num"`
	}
	c.Into(&in)
	var user *db.User
	var err error
	switch {
	case in.UID != nil:
		user, err = m.DB.UserByUID(ctx, *in.UID)
	case in.Email != nil:
		user, err = m.DB.UserByEmail(ctx, *in.Email)
	default:
		number, _, ok := phone.Parse(in.Phone)
		if !ok { // it may stand there from when there was another numbering plan
			number = phone.Digits(in.Phone)
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

// Refusals that the rules about accounts know by other names.
var (
	errImported   = fault.Plain(422, "User already exists by this email")
	errNoReferrer = fault.Plain(422, "Referral doesn't exist")
)

// createUser answers POST /management/users.
func (m *Module) createUser(ctx context.Context, c *rest.Call) error {
	var in struct {
		Email       string  `param:"email"`
		Password    string  `param:"password"`
		ReferralUID *string `param:"referral_uid"`
	}
	c.Into(&in)
	referrer, err := m.Accounts.ReferrerID(ctx, in.ReferralUID)
	if errors.Is(err, account.ErrNoReferrer) {
		return errNoReferrer.Because(err)
	}
	if err != nil {
		return err
	}
	user, err := m.Accounts.NewUser(ctx, db.User{Email: in.Email, ReferralID: referrer}, in.Password)
	if err == nil {
		err = m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error { return u.CreateUser(ctx, user) })
	}
	return m.answerEdit(ctx, c, user, err)
}

var errNoUser = fault.Plain(422, "user.doesnt_exist")

// edit runs f for the user that uid names in one transaction, and shows them.
func (m *Module) edit(ctx context.Context, c *rest.Call, f func(ctx context.Context, u *account.Unit, user *db.User) error) error {
	var in struct {
		UID string `param:"uid"`
	}
	c.Into(&in)
	var user *db.User
	err := m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) (err error) {
		user, err = u.UserByUID(ctx, in.UID)
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
	var in struct {
		Data string `param:"data"`
	}
	c.Into(&in)
	return m.edit(ctx, c, func(ctx context.Context, u *account.Unit, user *db.User) error {
		return u.SetData(ctx, user, in.Data)
	})
}

// createProfile answers POST /management/profiles.
func (m *Module) createProfile(ctx context.Context, c *rest.Call) error {
	var in struct {
		rest.Person
		State *string `param:"state"`
	}
	c.Into(&in)
	return m.edit(ctx, c, func(ctx context.Context, u *account.Unit, user *db.User) error {
		return u.CreateProfileAs(ctx, user, in.Edit(), in.State)
	})
}

// importUser answers POST /management/users/import.
func (m *Module) importUser(ctx context.Context, c *rest.Call) error {
	var in struct {
		Email          string  `param:"email"`
		PasswordDigest string  `param:"password_digest"`
		ReferralUID    *string `param:"referral_uid"`
		Phone          *string `param:"phone"`
		rest.Person
		State *string `param:"state"`
	}
	c.Into(&in)
	in.Metadata = db.NewText{} // it is none of this call's parameters
	user, err := m.Accounts.ImportUser(ctx, account.Import{
		Email: in.Email, PasswordDigest: in.PasswordDigest, ReferralUID: in.ReferralUID, Phone: in.Phone,
		Person: in.Edit(), ProfileState: in.State,
	})
	switch {
	case errors.Is(err, account.ErrImported):
		return errImported.Because(err)
	case errors.Is(err, account.ErrNoReferrer):
		return errNoReferrer.Because(err)
	}
	return m.answerEdit(ctx, c, user, err)
}
