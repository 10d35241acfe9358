package resource

import (
	"context"
	"errors"

	"barong/api/account"
	"barong/api/rest"
	"barong/db"
	"barong/internal/fault"
)

// listProfiles answers GET /resource/profiles/me.
func (m *Module) listProfiles(ctx context.Context, c *rest.Call) error {
	rows, err := m.DB.Profiles(ctx, c.User.ID)
	if err != nil {
		return err
	}
	if len(rows) == 0 && !m.Legacy {
		return fault.New("resource.profile.not_exist")
	}
	return answerList(m, c, rows, func(rows []db.Profile) any { return m.view().Profiles(rows) })
}

// A profileInput is what a call says about the caller.
type profileInput struct {
	rest.Person
	Confirm bool `param:"confirm"`
}

// fill makes what was sent in a profile.
func (in *profileInput) fill(p *db.Profile) {
	edit := in.Edit()
	edit.Apply(p)
	p.State = db.ProfileDrafted
	if in.Confirm {
		p.State = db.ProfileSubmitted
	}
}

// createProfile answers POST /resource/profiles.
func (m *Module) createProfile(ctx context.Context, c *rest.Call) error {
	var in profileInput
	c.Into(&in)
	var p *db.Profile
	err := m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error {
		p = &db.Profile{UserID: c.User.ID}
		in.fill(p)
		return u.CreateProfile(ctx, c.User, p)
	})
	if err != nil {
		var f *fault.Error
		if m.Legacy && errors.As(err, &f) && f.Has("state.exists") {
			return f.WithStatus(422)
		}
		return err
	}
	return c.Answer(m.view().NewProfile(p))
}

// updateProfile answers PUT /resource/profiles.
func (m *Module) updateProfile(ctx context.Context, c *rest.Call) error {
	var in profileInput
	c.Into(&in)
	var p db.Profile
	err := m.Accounts.Update(ctx, func(ctx context.Context, u *account.Unit) error {
		if err := u.Lock(ctx, c.User); err != nil {
			return err
		}
		before, err := u.ProfileIn(ctx, c.User.ID, db.ProfileDrafted)
		if errors.Is(err, db.ErrNotFound) {
			return fault.New("resource.profile.doesnt_exist_or_not_editable")
		}
		if err != nil {
			return err
		}
		p = *before
		in.fill(&p)
		return u.UpdateProfile(ctx, c.User, before, &p)
	})
	if err != nil {
		return err
	}
	return c.Answer(m.view().NewProfile(&p))
}
