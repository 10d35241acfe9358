package account

import (
	"context"
	"encoding/json"
	"time"

	"barong/db"
)

// Results of activities.
const (
	Succeed = db.ResultSucceed
	Failed  = db.ResultFailed
)

// Record writes one activity of the category user: what a user did or tried, from where, and how it ended. reason says
// why it failed, in the words that staff reads; it must hold no secret. A missing or odd User-Agent never loses the row.
// What failed is folded as RecordRepeatable does: whoever fails can do so again and again.
func (u *Unit) Record(ctx context.Context, user *db.User, c Client, topic, action, result, reason string) error {
	a := u.activity(user, c, topic, action, result, reason)
	if result == Failed {
		return u.insertOrFold(ctx, a)
	}
	return u.InsertActivities(ctx, a)
}

// RecordRepeatable records a success that costs its user nothing to repeat: for a minute, those like it from the same
// address only add to the count of the first one's row.
func (u *Unit) RecordRepeatable(ctx context.Context, user *db.User, c Client, topic, action string) error {
	return u.insertOrFold(ctx, u.activity(user, c, topic, action, Succeed, ""))
}

func (u *Unit) activity(user *db.User, c Client, topic, action, result, reason string) db.Activity {
	a := db.Activity{
		UserID: user.ID, Category: db.CategoryUser, UserIP: c.address(), UserAgent: c.UserAgent,
		Topic: topic, Action: action, Result: result, Data: u.s.activityData(c, reason),
	}
	if c.Country != "" {
		a.UserIPCountry = &c.Country
	}
	return a
}

// Bounds of the rows of what repeats.
const (
	foldTime = time.Minute
	// ownRows is how many rows of repeated activities a user gets within foldTime. Further ones, from other addresses or
	// with other clients, are added to the count of the last row of their topic and action, whatever else that row says.
	ownRows = 20
)

// insertOrFold stores an activity, or adds it to the count of one like it that is a minute old at most.
func (u *Unit) insertOrFold(ctx context.Context, a db.Activity) error {
	// Of parallel ones the first gets the row.
	if _, err := u.LockUser(ctx, a.UserID); err != nil {
		return err
	}
	const most = 200 // of what is looked at: what does not repeat comes less often
	rows, err := u.LatestActivities(ctx, a.UserID, u.Now().Add(-foldTime), most)
	if err != nil {
		return err
	}
	alike, kind := int64(0), int64(0)
	for i := range rows {
		have := &rows[i]
		if have.Category != a.Category || have.Topic != a.Topic || have.Action != a.Action || have.Result != a.Result {
			continue
		}
		if kind == 0 {
			kind = have.ID
		}
		if have.UserIP == a.UserIP && equal(have.Data, a.Data) {
			alike = have.ID
			break
		}
	}
	switch {
	case alike != 0:
		return u.AddToActivities(ctx, map[int64]int{alike: 1})
	case kind != 0 && len(rows) >= ownRows:
		return u.AddToActivities(ctx, map[int64]int{kind: 1})
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
