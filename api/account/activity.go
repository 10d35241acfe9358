package account

import (
	"context"
	"encoding/json"

	"barong/db"
)

// Results of activities.
const (
	Succeed = db.ResultSucceed
	Failed  = db.ResultFailed
)

// Record writes one activity of the category user: what a user did or tried, from where, and how it ended. reason says
// why it failed, in the words that staff reads; it must hold no secret. A missing or odd User-Agent never loses the row.
func (u *Unit) Record(ctx context.Context, user *db.User, c Client, topic, action, result, reason string) error {
	a := db.Activity{
		UserID: user.ID, Category: db.CategoryUser, UserIP: c.address(), UserAgent: c.UserAgent,
		Topic: topic, Action: action, Result: result, Data: u.s.activityData(c, reason),
	}
	if c.Country != "" {
		a.UserIPCountry = &c.Country
	}
	return u.InsertActivities(ctx, a)
}

// activityData is the JSON text of an activity's data, or nil when there is nothing to say.
func (s *Service) activityData(c Client, reason string) *string {
	data := struct {
		Reason string `json:"reason,omitempty"`
		Note   string `json:"note,omitempty"`
	}{Reason: reason}
	if s.UnknownBrowser(c.UserAgent) {
		data.Note = "Detected suspicious browser"
	}
	if data.Reason == "" && data.Note == "" {
		return nil
	}
	b, err := json.Marshal(data)
	if err != nil { // strings only: cannot fail
		panic("account: encode activity data: " + err.Error())
	}
	text := string(b)
	return &text
}
