package admin

import (
	"context"
	"strconv"
	"strings"
	"time"

	"barong/api/rest"
	"barong/db"
	"barong/internal/fault"
)

// activityFilter reads the filters of a list of activities.
func activityFilter(c *rest.Call, category string) db.ActivityFilter {
	var in struct {
		UID       *string `param:"uid"`
		Email     *string `param:"email"`
		TargetUID *string `param:"target_uid"`
		Topic     *string `param:"topic"`
		Action    *string `param:"action"`
		Result    *string `param:"result"`
		From      *int64  `param:"from"`
		To        *int64  `param:"to"`
	}
	c.Into(&in)
	f := db.ActivityFilter{
		Category: category, UID: in.UID, Email: in.Email, TargetUID: in.TargetUID, Topic: in.Topic, Action: in.Action,
		Result: in.Result, From: in.From, To: in.To,
	}
	if c.Legacy {
		f.Result = nil
	}
	return f
}

// listActivities answers GET /admin/activities.
func (m *Module) listActivities(ctx context.Context, c *rest.Call) error {
	rows, total, err := m.DB.Activities(ctx, activityFilter(c, db.CategoryUser), c.Page())
	if err != nil {
		return err
	}
	list, err := m.view().ActivitiesWithUser(ctx, rows)
	if err != nil {
		return err
	}
	return c.AnswerPage(list, total)
}

// listAdminActivities answers GET /admin/activities/admin.
func (m *Module) listAdminActivities(ctx context.Context, c *rest.Call) error {
	rows, total, err := m.DB.Activities(ctx, activityFilter(c, db.CategoryAdmin), c.Page())
	if err != nil {
		return err
	}
	list, err := m.view().AdminActivities(ctx, rows)
	if err != nil {
		return err
	}
	return c.AnswerPage(list, total)
}

// figures are the answer of GET /admin/metrics. The misspelling is the interface.
type figures struct {
	SignUps      map[string]int64 `json:"signups"`
	Logins       map[string]int64 `json:"sucessful_logins"`
	FailedLogins map[string]int64 `json:"failed_logins"`
	Pending      int64            `json:"pending_applications"`
}

// metrics answers GET /admin/metrics.
func (m *Module) metrics(ctx context.Context, c *rest.Call) error {
	var in struct {
		From string `param:"created_from"`
		To   string `param:"created_to"`
	}
	c.Into(&in)
	first, ok1 := bound(in.From, 0)
	last, ok2 := bound(in.To, 24*time.Hour-time.Second)
	switch { // a code for each
	case !ok1 && !ok2:
		return fault.Invalid("invalid", "invalid")
	case !ok1 || !ok2:
		return fault.Invalid("invalid")
	}
	f, err := m.DB.Metrics(ctx, first, last)
	if err != nil {
		return err
	}
	return c.Answer(figures{SignUps: f.SignUps, Logins: f.Logins, FailedLogins: f.FailedLogins, Pending: f.Pending})
}

// bound reads a bound of a period: seconds since 1970, or a day, of which the moment at into counts. Blank text is none.
func bound(text string, into time.Duration) (seconds *int64, ok bool) {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, true
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return &n, true
	}
	date, ok := rest.Day(text)
	if !ok {
		return nil, false
	}
	day, err := time.Parse(time.DateOnly, date)
	if err != nil { // a year beyond 9999
		return nil, false
	}
	n := day.Add(into).Unix()
	return &n, true
}
