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

func activityFilter(c *rest.Call, category string) db.ActivityFilter {
	f := db.ActivityFilter{
		Category: category, UID: c.Optional("uid"), Email: c.Optional("email"), TargetUID: c.Optional("target_uid"),
		Topic: c.Optional("topic"), Action: c.Optional("action"), From: c.Number("from"), To: c.Number("to"),
	}
	if !c.Legacy {
		f.Result = c.Optional("result")
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
	first, ok1 := bound(c.String("created_from"), 0)
	last, ok2 := bound(c.String("created_to"), 24*time.Hour-time.Second)
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
