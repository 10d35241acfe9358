package admin

import (
	"context"
	"errors"

	"barong/api/account"
	"barong/api/rest"
	"barong/api/view"
	"barong/db"
	"barong/internal/fault"
)

// listLevels answers GET /admin/levels: in pages, as the reference says, or whole, as release 2.4.17 did.
func (m *Module) listLevels(ctx context.Context, c *rest.Call) error {
	rows, err := m.DB.Levels(ctx)
	if err != nil {
		return err
	}
	if m.Legacy {
		return c.Answer(view.Levels(rows))
	}
	page, total := c.Page(), int64(len(rows))
	first := min(int64(page.Number-1)*int64(page.Size), total)
	last := min(first+int64(page.Size), total)
	return c.AnswerPage(view.Levels(rows[first:last]), total)
}

// listProfiles answers GET /admin/profiles. It names the owners, whom release 2.4.17 did not tell.
func (m *Module) listProfiles(ctx context.Context, c *rest.Call) error {
	rows, total, err := m.DB.AllProfiles(ctx, c.Page())
	if err != nil {
		return err
	}
	list := m.view().Profiles(rows)
	if !m.Legacy {
		ids := make([]int64, len(rows))
		for i := range rows {
			ids[i] = rows[i].UserID
		}
		owners, err := m.DB.ReferrerUIDs(ctx, ids)
		if err != nil {
			return err
		}
		for i := range rows {
			list[i].UID = owners[rows[i].UserID]
		}
	}
	return c.AnswerPage(list, total)
}

var errNoProfile = fault.New("admin.profiles.doesnt_exist_or_not_editable")

// updateProfile answers PUT /admin/profiles.
func (m *Module) updateProfile(ctx context.Context, c *rest.Call) error {
	var p db.Profile
	err := m.edit(ctx, c, func(ctx context.Context, u *account.Unit) error {
		user, err := u.LockUserByUID(ctx, c.String("uid"))
		if errors.Is(err, db.ErrNotFound) {
			return errNoProfile
		}
		if err != nil {
			return err
		}
		before, err := u.ProfileIn(ctx, user.ID, db.ProfileSubmitted)
		switch {
		case errors.Is(err, db.ErrNotFound):
			return errNoProfile
		case err != nil:
			return err
		case above(user.Role, c):
			return fault.New("admin.profiles.superadmin_change")
		}
		p = *before
		if err := fill(c, &p); err != nil {
			return err
		}
		return u.UpdateProfile(ctx, user, before, &p)
	})
	if err != nil {
		return err
	}
	return c.Answer(m.view().NewProfile(&p))
}

// fill puts the parameters that were sent into a profile.
func fill(c *rest.Call, p *db.Profile) error {
	account.FillProfile(p, c)
	if c.Has("state") {
		state, ok := db.ProfileState(c.String("state"))
		if !ok {
			return fault.Invalid("state.inclusion")
		}
		p.State = state
	}
	return nil
}
