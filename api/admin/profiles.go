package admin

import (
	"context"

	"barong/api/rest"
	"barong/api/view"
	"barong/db"
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

// updateProfile answers PUT /admin/profiles.
func (m *Module) updateProfile(ctx context.Context, c *rest.Call) error {
	var in struct {
		UID string `param:"uid"`
		rest.Person
		State db.NewText `param:"state"`
	}
	c.Into(&in)
	p, err := m.desk.UpdateProfile(ctx, c.User, in.UID, in.Edit(), in.State.Sent())
	if err != nil {
		return err
	}
	return c.Answer(m.view().NewProfile(p))
}
