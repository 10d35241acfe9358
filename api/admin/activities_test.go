package admin_test

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"barong/db"
	"barong/internal/test/apitest"
)

// record adds activities a minute apart, and returns the time of the last.
func (w *world) record(t testing.TB, rows ...db.Activity) {
	t.Helper()
	for i := range rows {
		r := &rows[i]
		r.UserIP, r.UserAgent = "192.0.2.1", "curl/8"
		w.Clock.Advance(time.Minute)
		w.Update(t, func(ctx ctx, tx *db.Tx) error { return tx.InsertActivities(ctx, *r) })
	}
}

// seen are topic and action of a list of activities.
func seen(t testing.TB, a *apitest.Answer) []string {
	t.Helper()
	out := []string{}
	for _, r := range a.Want(t, 200).List(t) {
		out = append(out, fmt.Sprint(r["topic"], " ", r["action"], " ", r["result"]))
	}
	return out
}

func TestListActivities(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		u := w.NewUser(t, nil)
		w.record(t,
			db.Activity{UserID: u.ID, Category: "user", Topic: "account", Action: "signup", Result: "succeed"},
			db.Activity{UserID: u.ID, Category: "user", Topic: "session", Action: "login", Result: "failed", Data: ptr(`{"reason":"x"}`)},
			db.Activity{UserID: w.root.ID, Category: "user", Topic: "session", Action: "login", Result: "succeed"},
			db.Activity{UserID: w.root.ID, Category: "admin", Topic: "users", Action: "update", Result: "succeed", TargetUID: &u.UID},
		)
		const path = "/admin/activities"
		half := strconv.FormatInt(w.Clock.Now().Add(-2*time.Minute-30*time.Second).Unix(), 10)
		all := []string{"session login succeed", "session login failed", "account signup succeed"}
		for _, c := range []struct {
			query []string
			want  []string
		}{
			{nil, all},
			{[]string{"topic", "session"}, all[:2]},
			{[]string{"action", "signup"}, all[2:]},
			{[]string{"uid", u.UID}, all[1:]},
			{[]string{"email", w.root.Email}, all[:1]},
			{[]string{"result", "failed"}, all[1:2]},
			{[]string{"from", half}, all[:2]},
			{[]string{"to", half}, all[2:]},
			{[]string{"topic", ""}, nil},
			{[]string{"uid", ""}, nil},
			{[]string{"limit", "1", "page", "3"}, all[2:]},
		} {
			if got := seen(t, w.s.Get(t, path, w.ask(c.query...)...)); !slices.Equal(got, c.want) && len(got)+len(c.want) > 0 {
				t.Errorf("%q: got %q, want %q", c.query, got, c.want)
			}
		}
		a := w.s.Get(t, path, w.ask("uid", u.UID, "limit", "1")...)
		keys := apitest.ObjectKeys(t, a.Body[1:len(a.Body)-1])
		if !slices.Equal(keys, []string{"user_ip", "user_agent", "topic", "action", "result", "data", "user", "created_at"}) {
			t.Errorf("keys %q", keys)
		}
		if r := a.List(t)[0]; r["data"] != `{"reason":"x"}` || r["user"].(map[string]any)["uid"] != u.UID {
			t.Errorf("row %v", r)
		}
		if got := seen(t, w.old.Get(t, path, w.ask("result", "failed")...)); !slices.Equal(got, all) {
			t.Errorf("release 2.4.17 knew no filter of results: got %q", got)
		}
		paged(t, w.s, path, "3", apitest.As(w.root))
		w.s.Get(t, path, w.ask("topic[]", "x", "action[]", "x", "uid[]", "x", "email[]", "x", "from", "x", "to", "x", "result[]", "x")...).Want(t, 422,
			"admin.activity.non_string_topic", "admin.activity.non_string_action", "admin.activity.non_string_uid",
			"admin.activity.non_string_email", "invalid", "invalid", "invalid")
	})
}

func TestListAdminActivities(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		u := w.NewUser(t, nil)
		gone := "ID0000000000"
		w.record(t,
			db.Activity{UserID: u.ID, Category: "user", Topic: "account", Action: "signup", Result: "succeed"},
			db.Activity{UserID: w.root.ID, Category: "admin", Topic: "users", Action: "update", Result: "succeed", TargetUID: &u.UID},
			db.Activity{UserID: u.ID, Category: "admin", Topic: "metrics", Action: "read", Result: "denied"},
			db.Activity{UserID: w.root.ID, Category: "admin", Topic: "users", Action: "delete", Result: "succeed", TargetUID: &gone},
		)
		const path = "/admin/activities/admin"
		all := []string{"users delete succeed", "metrics read denied", "users update succeed"}
		half := strconv.FormatInt(w.Clock.Now().Add(-30*time.Second).Unix(), 10)
		for _, c := range []struct {
			query []string
			want  []string
		}{
			{nil, all},
			{[]string{"topic", "users"}, []string{all[0], all[2]}},
			{[]string{"target_uid", u.UID}, all[2:]},
			{[]string{"uid", u.UID}, all[1:2]},
			{[]string{"email", u.Email}, all[1:2]},
			{[]string{"action", "delete", "topic", "users"}, all[:1]},
			{[]string{"result", "denied"}, all[1:2]},
			{[]string{"range", "created", "from", half}, all[:1]},
			{[]string{"target_uid", "nothing"}, nil},
		} {
			if got := seen(t, w.s.Get(t, path, w.ask(c.query...)...)); !slices.Equal(got, c.want) && len(got)+len(c.want) > 0 {
				t.Errorf("%q: got %q, want %q", c.query, got, c.want)
			}
		}
		rows := w.s.Get(t, path, apitest.As(w.root)).List(t)
		if rows[0]["target"] != nil || rows[1]["target"] != nil || rows[2]["target"].(map[string]any)["uid"] != u.UID ||
			rows[2]["admin"].(map[string]any)["uid"] != w.root.UID {
			t.Errorf("rows %v", rows)
		}
		if got := seen(t, w.old.Get(t, path, w.ask("result", "denied")...)); !slices.Equal(got, all) {
			t.Errorf("release 2.4.17 knew no filter of results: got %q", got)
		}
		paged(t, w.s, path, "3", apitest.As(w.root))
		w.s.Get(t, path, w.ask("range", "updated")...).Want(t, 422, "admin.activity.invalid_range")
		w.s.Get(t, path, w.ask("topic[]", "x", "action[]", "x", "uid[]", "x", "email[]", "x", "from", "x", "to", "x", "target_uid[]", "x", "result[]", "x")...).
			Want(t, 422, "admin.activity.non_string_topic", "admin.activity.non_string_action", "admin.activity.non_string_uid",
				"admin.activity.non_string_email", "invalid", "invalid", "admin.activity.non_string_target_uid", "invalid")
	})
}

func TestMetrics(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		u := w.NewUser(t, nil)
		w.label(t, u, "document", "pending", "private")
		w.record(t,
			db.Activity{UserID: u.ID, Category: "user", Topic: "account", Action: "signup", Result: "succeed"},
			db.Activity{UserID: u.ID, Category: "user", Topic: "session", Action: "login", Result: "succeed"},
			db.Activity{UserID: u.ID, Category: "user", Topic: "session", Action: "login::2fa", Result: "succeed"},
			db.Activity{UserID: u.ID, Category: "user", Topic: "session", Action: "login", Result: "failed"},
		)
		now := w.Clock.Now().UTC()
		const none = `{"signups":{},"sucessful_logins":{},"failed_logins":{},"pending_applications":1}`
		total := func(query ...string) string {
			t.Helper()
			var f struct {
				SignUps map[string]int `json:"signups"`
				Logins  map[string]int `json:"sucessful_logins"`
				Failed  map[string]int `json:"failed_logins"`
				Pending int            `json:"pending_applications"`
			}
			w.s.Get(t, "/admin/metrics", w.ask(query...)...).Want(t, 200).Decode(t, &f)
			sum := func(days map[string]int) (n int) {
				for day, count := range days {
					if _, err := time.Parse(time.DateOnly, day); err != nil {
						t.Error(err)
					}
					n += count
				}
				return n
			}
			return fmt.Sprint(sum(f.SignUps), sum(f.Logins), sum(f.Failed), f.Pending)
		}
		unix := func(d time.Duration) string { return strconv.FormatInt(now.Add(d).Unix(), 10) }
		today, before := now.Format(time.DateOnly), now.Add(-48*time.Hour).Format(time.DateOnly)
		for _, c := range []struct {
			query []string
			want  string
		}{
			{nil, "1 2 1 1"},
			{[]string{"created_from", "", "created_to", " "}, "1 2 1 1"},
			{[]string{"created_from", unix(-time.Hour), "created_to", unix(time.Hour)}, "1 2 1 1"},
			{[]string{"created_from", unix(-90 * time.Second)}, "0 1 1 1"},
			{[]string{"created_to", unix(-90 * time.Second)}, "1 1 0 1"},
			{[]string{"created_from", before, "created_to", today}, "1 2 1 1"}, // days are counted to their end
			{[]string{"created_from", now.Add(-48 * time.Hour).Format("02/01/2006"), "created_to", now.Format("02.01.2006")}, "1 2 1 1"},
		} {
			if got := total(c.query...); got != c.want {
				t.Errorf("%q: got %s, want %s", c.query, got, c.want)
			}
		}
		w.s.Get(t, "/admin/metrics", w.ask("created_from", unix(time.Hour))...).WantBody(t, 200, none)
		w.old.Get(t, "/admin/metrics", w.ask("created_to", "0")...).WantBody(t, 200, none)
		w.s.Get(t, "/admin/metrics", w.ask("created_from", "abc")...).Want(t, 422, "invalid")
		w.s.Get(t, "/admin/metrics", w.ask("created_to", "2020-13-01")...).Want(t, 422, "invalid")
		w.s.Get(t, "/admin/metrics", w.ask("created_from", "x", "created_to", "y")...).Want(t, 422, "invalid", "invalid")
		w.s.Get(t, "/admin/metrics", w.ask("created_to[]", "1")...).Want(t, 422, "invalid")
	})
}
