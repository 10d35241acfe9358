package admin_test

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"barong/api/admin"
	"barong/api/rest"
	"barong/db"
	"barong/internal/rules"
	"barong/internal/test/apitest"
)

func rank(role string) int { return slices.Index([]string{"admin", "superadmin"}, role) + 1 }

// A standing is what the ranks protect: people, what belongs to them, and the rules of their roles.
type standing struct {
	users  map[string]db.User
	labels map[string][]db.Label
	rows   []db.Permission
}

func (w *world) standing(t testing.TB, people []*db.User) standing {
	t.Helper()
	s := standing{users: map[string]db.User{}, labels: map[string][]db.Label{}}
	for _, u := range people {
		now := *w.Fresh(t, u)
		now.SessionEra = 0 // everybody's: a blocklogin ends all sessions, those of whoever sets it as well
		s.users[u.UID] = now
		labels, err := w.DB.Labels(t.Context(), u.ID)
		if err != nil {
			t.Fatal(err)
		}
		s.labels[u.UID] = labels
	}
	rows, err := w.DB.AllPermissions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.rows = rows
	return s
}

// above are the parts of it that rank above a role.
func (s standing) above(role string, who map[string]db.User) standing {
	out := standing{users: map[string]db.User{}, labels: map[string][]db.Label{}}
	for uid, u := range who {
		if rank(u.Role) > rank(role) {
			out.users[uid], out.labels[uid] = s.users[uid], s.labels[uid]
		}
	}
	for _, p := range s.rows {
		if rank(p.Role) > rank(role) {
			out.rows = append(out.rows, p)
		}
	}
	return out
}

// clear takes all rules away and all staff out of office.
func (w *world) clear(t testing.TB) {
	t.Helper()
	w.Update(t, func(ctx ctx, tx *db.Tx) error {
		if _, err := tx.NewDelete().Model((*db.Permission)(nil)).Where("1 = 1").Exec(ctx); err != nil {
			return err
		}
		_, err := tx.NewUpdate().Model((*db.User)(nil)).Set("role = 'retired'").Where("1 = 1").Exec(ctx)
		return err
	})
}

// TestNobodyRises plays any staff who work together against the API: whatever calls the members of one rank make, with
// whatever permissions, nobody's rank passes theirs, nothing that belongs to people or roles above them moves, and some
// superadmin can still act.
func TestNobodyRises(t *testing.T) {
	t.Parallel()
	w := start(t, apitest.New(t, "sqlite"))
	rapid.Check(t, func(rt *rapid.T) {
		pick := func(label string, from ...string) string { return rapid.SampledFrom(from).Draw(rt, label) }
		w.clear(t)
		roles := []string{"superadmin", "admin", "support", "member"}
		role := pick("rank of the players", roles...)
		rule := func(role, action, verb, path string) {
			w.Update(t, func(ctx ctx, tx *db.Tx) error {
				return tx.InsertPermission(ctx, db.Who{}, &db.Permission{Role: role, Verb: verb, Path: path, Action: action})
			})
		}
		paths := []string{"api/v2", "api/v2/barong", "api/v2/barong/admin", "api/v2/barong/admin/users", "api/v2/barong/admin/users/role", "api/v2/barong/admin/permissions", "x"}
		rule("superadmin", "ACCEPT", "ALL", "api/v2")
		rule("superadmin", "ACCEPT", "ALL", "api/v2/barong")
		for _, r := range roles[1:] {
			rule(r, "ACCEPT", "ALL", pick("path of "+r, paths...))
			rule(r, pick("action of "+r, "ACCEPT", "DROP", "AUDIT"), pick("verb of "+r, "GET", "POST", "ALL"), pick("another path of "+r, paths...))
		}
		rule(role, "ACCEPT", "ALL", "api/v2/barong/admin")
		w.reload(t)

		people := []*db.User{
			w.NewStaff(t, "superadmin"), w.NewStaff(t, "superadmin"), w.NewStaff(t, "admin"), w.NewStaff(t, "support"), w.NewStaff(t, "member"),
			w.NewStaff(t, role),
		}
		var uids []string
		var players []*db.User
		for _, u := range people {
			w.Enable2FA(t, u)
			w.label(t, u, "email", "verified", "private")
			w.profile(t, u, db.Profile{State: db.ProfileSubmitted})
			uids = append(uids, u.UID)
			if rank(u.Role) <= rank(role) {
				players = append(players, u)
			}
		}
		before := w.standing(t, people)

		move := func(rt *rapid.T) {
			caller := rapid.SampledFrom(players).Draw(rt, "caller")
			method, path, form := w.anyCall(t, rt, uids, roles, paths)
			a := w.s.Do(t, method, path, apitest.As(caller), apitest.Form(form...))
			if a.Status >= 500 {
				rt.Fatalf("%s %s %q: %d %s", method, path, form, a.Status, a.Body)
			}
		}
		for range rapid.IntRange(1, 15).Draw(rt, "calls") {
			move(rt)
		}

		after := w.standing(t, people)
		for uid, u := range after.users {
			if rank(u.Role) > max(rank(before.users[uid].Role), rank(role)) {
				rt.Errorf("%s: a %s became %s by the calls of %s", uid, before.users[uid].Role, u.Role, role)
			}
		}
		if was, is := before.above(role, before.users), after.above(role, before.users); !reflect.DeepEqual(was, is) {
			rt.Errorf("what ranks above %s changed from\n%+v\nto\n%+v", role, was, is)
		}
		w.superadminActs(t, rt, people)
	})
}

// anyCall draws a call of admin: mostly sensible ones, with more parameters than they have.
func (w *world) anyCall(t testing.TB, rt *rapid.T, uids, roles, paths []string) (method, path string, form []string) {
	t.Helper()
	routes := admin.New(admin.Options{}).Routes()
	edits := slices.DeleteFunc(routes, func(r rest.Route) bool { return r.Method == http.MethodGet })
	rulesAlone := slices.DeleteFunc(slices.Clone(edits), func(r rest.Route) bool { return r.Path != "/admin/permissions" })
	r := rapid.OneOf(rapid.SampledFrom(edits), rapid.SampledFrom(rulesAlone)).Draw(rt, "route")
	pick := func(name string, from ...string) string { return rapid.SampledFrom(from).Draw(rt, name) }
	rows, err := w.DB.AllPermissions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, p := range rows {
		ids = append(ids, id(p.ID))
	}
	values := map[string]string{
		"uid":    pick("uid", uids...),
		"role":   pick("role", append(roles, roles[0], "auditor")...),
		"state":  pick("state", "active", "banned", "pending", "verified", "enabled"),
		"otp":    "false",
		"key":    pick("key", "email", "document", "delete", "ban"),
		"value":  pick("value", "verified", "192.0.2.1"),
		"scope":  pick("scope", "private", "public", "ip", "all"),
		"id":     pick("id", ids...),
		"verb":   pick("verb", "get", "post", "put", "delete", "all"),
		"path":   pick("path", append(paths, "api/v2/barong/admin/restrictions")...),
		"action": pick("action", "accept", "drop", "audit"),
		"title":  "personal", "category": pick("category", "blacklist", "blocklogin"),
		"changes": pick("changes", `[{"op":"delete","id":`+pick("gone", ids...)+`}]`,
			`[{"op":"create","role":"`+pick("for", append(roles, "auditor")...)+`","verb":"all","path":"api/v2/barong/admin","action":"`+pick("does", "accept", "drop")+`"},{"op":"delete","id":`+pick("gone too", ids...)+`}]`),
		"first_name": "Eve",
		"level":      "3", "email": "eve@barong.test", "password_digest": "x", "session_epoch": "0", "state_manual": "true", // no parameter anywhere
	}
	if len(r.OneOf) > 0 {
		delete(values, pick("one of", r.OneOf...))
	}
	path = r.Path
	if r.Path == "/admin/users/{uid}/sessions" || r.Path == "/admin/users/{uid}/sessions/{id}" {
		path = fmt.Sprintf("/admin/users/%s/sessions", values["uid"])
	}
	for name, value := range values {
		form = append(form, name, value)
	}
	return r.Method, path, form
}

// superadminActs holds that one of the superadmins can still do what only they can.
func (w *world) superadminActs(t testing.TB, rt *rapid.T, people []*db.User) {
	t.Helper()
	rows, err := w.DB.AllPermissions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !w.rules.SuperadminCanAct(rules.Permissions(rows)) {
		rt.Errorf("the rules lock out superadmins: %v", w.rows(t))
	}
	for _, u := range people {
		if now := w.Fresh(t, u); now.Role == "superadmin" && now.Open() {
			form := apitest.Form("role", "member", "verb", "get", "path", "api/v2/mended", "action", "accept")
			if a := w.s.Post(t, "/admin/permissions", apitest.As(now), form); a.Status != 201 {
				rt.Errorf("a superadmin cannot act: %d %s", a.Status, a.Body)
			}
			return
		}
	}
	rt.Error("no superadmin is left")
}

// TestSuperadminsAtOnce holds that parallel edits, each of which would be fine alone, leave a superadmin who can act.
func TestSuperadminsAtOnce(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		for round := range 5 {
			ring := []*db.User{w.root}
			for range 3 {
				ring = append(ring, w.NewStaff(t, "superadmin"))
			}
			var all sync.WaitGroup
			for i, u := range ring {
				next := ring[(i+1)%len(ring)]
				all.Go(func() {
					var a *apitest.Answer
					if round%2 == 0 {
						a = w.s.Post(t, "/admin/users/role", apitest.As(u), apitest.Form("uid", next.UID, "role", "member"))
					} else {
						a = w.s.Put(t, "/admin/users", apitest.As(u), apitest.Form("uid", next.UID, "state", "banned"))
					}
					if a.Status >= 500 {
						t.Errorf("%d %s", a.Status, a.Body)
					}
				})
			}
			all.Wait()
			left := 0
			for _, u := range ring {
				if now := w.Fresh(t, u); now.Role == "superadmin" && now.Open() {
					left++
					w.root = now
				}
			}
			if left == 0 {
				t.Fatal("no superadmin is left")
			}
		}

		// Two rules of the same effect: either may go, but not both.
		w.s.Post(t, "/admin/permissions", w.as("role", "superadmin", "verb", "all", "path", "api/v2", "action", "accept")...).Want(t, 201)
		rows := []string{"1", id(w.last(t).ID)}
		statuses := make([]int, len(rows))
		var both sync.WaitGroup
		for i, row := range rows {
			both.Go(func() { statuses[i] = w.s.Delete(t, "/admin/permissions", w.ask("id", row)...).Status })
		}
		both.Wait()
		if slices.Sort(statuses); !slices.Equal(statuses, []int{204, 422}) {
			t.Errorf("statuses %v", statuses)
		}
	})
}
