package view

import (
	"context"

	"barong/db"
)

// An Activity is a row of the audit trail as its user sees it.
type Activity struct {
	UserIP    string  `json:"user_ip"`
	UserAgent string  `json:"user_agent"`
	Topic     string  `json:"topic"`
	Action    string  `json:"action"`
	Result    string  `json:"result"`
	Data      *string `json:"data"` // JSON text
	CreatedAt string  `json:"created_at"`
}

// A LegacyActivity is the raw row that release 2.4.17 showed to users.
type LegacyActivity struct {
	ID        int64   `json:"id"`
	UserID    int64   `json:"user_id"`
	TargetUID *string `json:"target_uid"`
	Category  string  `json:"category"`
	UserIP    string  `json:"user_ip"`
	UserAgent string  `json:"user_agent"`
	Topic     string  `json:"topic"`
	Action    string  `json:"action"`
	Result    string  `json:"result"`
	Data      *string `json:"data"`
	CreatedAt string  `json:"created_at"` // ms
}

// Activities is the list that users get of their own activities: []Activity, or []LegacyActivity in legacy mode.
func (b *Builder) Activities(rows []db.Activity) any {
	if b.Legacy {
		return each(rows, func(a *db.Activity) LegacyActivity {
			return LegacyActivity{
				ID: a.ID, UserID: a.UserID, TargetUID: a.TargetUID, Category: a.Category, UserIP: a.UserIP,
				UserAgent: a.UserAgent, Topic: a.Topic, Action: a.Action, Result: a.Result, Data: a.Data,
				CreatedAt: Milli(a.CreatedAt),
			}
		})
	}
	return each(rows, func(a *db.Activity) Activity {
		return Activity{
			UserIP: a.UserIP, UserAgent: a.UserAgent, Topic: a.Topic, Action: a.Action, Result: a.Result, Data: a.Data,
			CreatedAt: Sec(a.CreatedAt),
		}
	})
}

// An ActivityWithUser is a user's activity as staff sees it. User is null when the actor's row is gone.
type ActivityWithUser struct {
	UserIP    string  `json:"user_ip"`
	UserAgent string  `json:"user_agent"`
	Topic     string  `json:"topic"`
	Action    string  `json:"action"`
	Result    string  `json:"result"`
	Data      *string `json:"data"`
	User      *User   `json:"user"`
	CreatedAt string  `json:"created_at"`
}

// ActivitiesWithUser shows a page of users' activities to staff.
func (b *Builder) ActivitiesWithUser(ctx context.Context, rows []db.Activity) ([]ActivityWithUser, error) {
	actors, _, err := b.people(ctx, rows)
	if err != nil {
		return nil, err
	}
	return each(rows, func(a *db.Activity) ActivityWithUser {
		return ActivityWithUser{
			UserIP: a.UserIP, UserAgent: a.UserAgent, Topic: a.Topic, Action: a.Action, Result: a.Result, Data: a.Data,
			User: actors[a.UserID], CreatedAt: Sec(a.CreatedAt),
		}
	}), nil
}

// An AdminActivity is what a member of staff did, and to whom.
type AdminActivity struct {
	UserIP    string  `json:"user_ip"`
	UserAgent string  `json:"user_agent"`
	Topic     string  `json:"topic"`
	Action    string  `json:"action"`
	Result    string  `json:"result"`
	Data      *string `json:"data"`
	Admin     *User   `json:"admin"`
	Target    *User   `json:"target"` // null when there is none, or it is gone
	CreatedAt string  `json:"created_at"`
}

// AdminActivities shows a page of staff's activities.
func (b *Builder) AdminActivities(ctx context.Context, rows []db.Activity) ([]AdminActivity, error) {
	actors, targets, err := b.people(ctx, rows)
	if err != nil {
		return nil, err
	}
	return each(rows, func(a *db.Activity) AdminActivity {
		v := AdminActivity{
			UserIP: a.UserIP, UserAgent: a.UserAgent, Topic: a.Topic, Action: a.Action, Result: a.Result, Data: a.Data,
			Admin: actors[a.UserID], CreatedAt: Sec(a.CreatedAt),
		}
		if a.TargetUID != nil {
			v.Target = targets[*a.TargetUID]
		}
		return v
	}), nil
}

// people reads the actors by id, and the targets by uid, of a page of activities.
func (b *Builder) people(ctx context.Context, rows []db.Activity) (map[int64]*User, map[string]*User, error) {
	ids, uids := map[int64]bool{}, map[string]bool{}
	for i := range rows {
		ids[rows[i].UserID] = true
		if uid := rows[i].TargetUID; uid != nil && *uid != "" {
			uids[*uid] = true
		}
	}
	actors, err := b.DB.UsersByID(ctx, keys(ids)...)
	if err != nil {
		return nil, nil, err
	}
	targets, err := b.DB.UsersByUID(ctx, keys(uids)...)
	if err != nil {
		return nil, nil, err
	}
	referrers, err := b.referrers(ctx, append(append([]db.User(nil), actors...), targets...))
	if err != nil {
		return nil, nil, err
	}
	byID, byUID := make(map[int64]*User, len(actors)), make(map[string]*User, len(targets))
	for i := range actors {
		v := newUser(&actors[i], referrers)
		byID[actors[i].ID] = &v
	}
	for i := range targets {
		v := newUser(&targets[i], referrers)
		byUID[targets[i].UID] = &v
	}
	return byID, byUID, nil
}

func keys[K comparable](set map[K]bool) []K {
	out := make([]K, 0, len(set))
	for k := range set {
		out = append(out, k)
	}
	return out
}
