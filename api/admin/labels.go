package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"barong/api/rest"
	"barong/api/staff"
	"barong/db"
)

// listByLabel answers GET /admin/users/labels. Release 2.4.17 knew no scope here.
func (m *Module) listByLabel(ctx context.Context, c *rest.Call) error {
	var in struct {
		Key   string  `param:"key"`
		Value string  `param:"value"`
		Scope *string `param:"scope"`
	}
	c.Into(&in)
	if m.Legacy {
		in.Scope = nil
	}
	rows, total, err := m.DB.FindUsersByLabel(ctx, in.Key, in.Value, in.Scope, c.Page())
	if err != nil {
		return err
	}
	return m.answerUsers(ctx, c, rows, total)
}

// countLabels answers GET /admin/users/labels/list: an object whose names are lists of key and value, as text.
func (m *Module) countLabels(ctx context.Context, c *rest.Call) error {
	rows, err := m.DB.LabelCounts(ctx)
	if err != nil {
		return err
	}
	counts := make(map[string]int64, len(rows))
	for _, l := range rows {
		key, err1 := json.Marshal(l.Key)
		value, err2 := json.Marshal(l.Value)
		if err := errors.Join(err1, err2); err != nil {
			return fmt.Errorf("count labels: %w", err)
		}
		counts["["+string(key)+", "+string(value)+"]"] = l.Count
	}
	return c.Answer(counts)
}

// A labelInput is a label of a user as a call names and describes it.
type labelInput struct {
	UID         string     `param:"uid"`
	Key         string     `param:"key"`
	Scope       string     `param:"scope"`
	Value       string     `param:"value"`
	Description db.NewText `param:"description"`
	Replace     bool       `param:"replace"`
}

func readLabel(c *rest.Call) (in labelInput, l staff.Label) {
	c.Into(&in)
	return in, staff.Label{Key: in.Key, Scope: in.Scope, Value: in.Value, Description: in.Description}
}

// createLabel answers POST /admin/users/labels.
func (m *Module) createLabel(ctx context.Context, c *rest.Call) error {
	in, label := readLabel(c)
	return done(c, m.desk.CreateLabel(ctx, c.User, in.UID, label))
}

// putLabel answers POST /admin/users/labels/update. A description that is not sent stays; the original erased it.
func (m *Module) putLabel(ctx context.Context, c *rest.Call) error {
	in, label := readLabel(c)
	return done(c, m.desk.PutLabel(ctx, c.User, in.UID, label, in.Replace))
}

// updateLabel answers PUT /admin/users/labels.
func (m *Module) updateLabel(ctx context.Context, c *rest.Call) error {
	in, label := readLabel(c)
	return done(c, m.desk.PutLabel(ctx, c.User, in.UID, label, false))
}

// deleteLabel answers DELETE /admin/users/labels.
func (m *Module) deleteLabel(ctx context.Context, c *rest.Call) error {
	in, label := readLabel(c)
	return done(c, m.desk.DeleteLabel(ctx, c.User, in.UID, label))
}
