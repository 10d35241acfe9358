package admin_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"barong/db"
	"barong/internal/bus"
	"barong/internal/rules"
	"barong/internal/test/apitest"
)

// rows are the permissions, a line each.
func (w *world) rows(t testing.TB) []string {
	t.Helper()
	all, err := w.DB.AllPermissions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for i := range all {
		out = append(out, line(&all[i]))
	}
	return out
}

func line(p *db.Permission) string {
	text := p.Role + " " + p.Action + " " + p.Verb + " " + p.Path
	if p.Topic != nil {
		text += " (" + *p.Topic + ")"
	}
	return text
}

// last is the row that was stored last.
func (w *world) last(t testing.TB) *db.Permission {
	t.Helper()
	all, err := w.DB.AllPermissions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &all[len(all)-1]
}

func id(n int64) string { return strconv.FormatInt(n, 10) }

// changes are the recorded changes of rules: who, what, before and after.
func (w *world) changes(t testing.TB) []string {
	t.Helper()
	var rows []db.PolicyChange
	if err := w.DB.Bun().NewSelect().Model(&rows).Where("uid IS NOT NULL").Order("id").Scan(t.Context()); err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, c := range rows {
		text := *c.UID + " " + c.Action + " " + c.Subject
		for _, side := range []*string{c.Before, c.After} {
			if side != nil {
				text += " " + *side
			}
		}
		out = append(out, text)
	}
	return out
}

func TestListPermissions(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		all := w.rows(t)
		paged(t, w.s, "/admin/permissions", strconv.Itoa(len(all)), apitest.As(w.root))
		a := w.s.Get(t, "/admin/permissions", w.ask("limit", "1")...).Want(t, 200)
		got := apitest.ObjectKeys(t, a.Body[1:len(a.Body)-1])
		if !slices.Equal(got, []string{"id", "action", "role", "verb", "path", "topic", "created_at", "updated_at"}) {
			t.Errorf("keys %q", got)
		}
	})
}

func TestCreatePermission(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		adm, support := w.staff(t, "admin"), w.staff(t, "support")
		do := func(who *db.User, form ...string) *apitest.Answer {
			t.Helper()
			return w.s.Post(t, "/admin/permissions", apitest.As(who), apitest.Form(form...))
		}
		rule := func(role, verb, path, action string) []string {
			return []string{"role", role, "verb", verb, "path", path, "action", action}
		}
		long := strings.Repeat("é", 256)
		for _, c := range []struct {
			form []string
			want []string
		}{
			{nil, []string{
				"admin.permission.missing_role", "admin.permission.empty_role", "admin.permission.missing_verb", "admin.permission.empty_verb",
				"admin.permission.missing_path", "admin.permission.empty_path", "admin.permission.missing_action", "admin.permission.empty_action",
			}},
			{append(rule("", "", "", ""), "topic", ""), []string{
				"admin.permission.empty_role", "admin.permission.empty_verb", "admin.permission.empty_path", "admin.permission.empty_action",
				"admin.permission.empty_topic",
			}},
			{[]string{"role[]", "x", "verb", "get", "path", "x", "action", "drop"}, []string{"invalid"}},
			{rule("member", "options", "x", "x"), []string{"admin.permissions.invalid_verb"}},
			{rule("member", "get", "x", "x"), []string{"admin.permissions.invalid_action"}},
			{append(rule(long, "get", long, "drop"), "topic", long), []string{"role.too_long", "path.too_long", "topic.too_long"}},
			{append(rule("a\tb", "get", "a\x7f", "drop"), "topic", "a\u0085"), []string{"role.invalid", "path.invalid", "topic.invalid"}},
			// What would lock out superadmins: nobody could mend it.
			{rule("superadmin", "all", "api/v2/barong/admin", "drop"), []string{"admin.permission.last_superadmin"}},
			{rule("superadmin", "post", "api/v2/barong/admin/users/role", "drop"), []string{"admin.permission.last_superadmin"}},
		} {
			do(w.root, c.form...).Want(t, 422, c.want...)
		}
		before := w.rows(t)
		do(adm, rule("superadmin", "get", "x", "accept")...).Want(t, 422, "admin.user.superadmin_change")
		do(adm, rule("superadmin", "get", "x", "drop")...).Want(t, 422, "admin.user.superadmin_change")
		do(support, rule("admin", "get", "x", "accept")...).Want(t, 422, "admin.user.superadmin_change")
		do(adm, rule("nothing", "get", "x", "accept")...).Want(t, 422, "admin.permission.role_doesnt_exist")
		if got := w.rows(t); !slices.Equal(got, before) || len(w.changes(t)) > 0 {
			t.Fatalf("a refused call left %q", got[len(before):])
		}

		w.Notices()
		do(w.root, append(rule("member", "get", "api/v2/things", "accept"), "topic", "things", "id", "1")...).WantBody(t, 201, "201")
		if got := w.Notices(); !slices.Contains(got, bus.Notice{Kind: bus.PolicyChanged}) {
			t.Errorf("notices %v", got)
		}
		do(adm, rule("admin", "PuT", "api/v2/things", "Drop")...).Want(t, 201)
		do(support, rule("member", "all", "x", "audit")...).Want(t, 201)
		w.old.Post(t, "/admin/permissions", w.as(rule("member", "all", "x", "audit")...)...).WantBody(t, 200, "200") // duplicates are allowed
		want := []string{
			"member ACCEPT GET api/v2/things (things)", "admin DROP PUT api/v2/things", "member AUDIT ALL x", "member AUDIT ALL x",
		}
		if got := w.rows(t)[len(before):]; !slices.Equal(got, want) {
			t.Errorf("rows %q", got)
		}
		got := w.changes(t)
		if want := w.root.UID + ` create permission {"id":`; len(got) != 4 || !strings.HasPrefix(got[0], want) ||
			!strings.HasSuffix(got[0], `"role":"member","verb":"GET","path":"api/v2/things","action":"ACCEPT","topic":"things"}`) ||
			!strings.HasPrefix(got[1], adm.UID+" create") {
			t.Errorf("changes %q", got)
		}

		// A superadmin makes a role by its first rule, and can then give it.
		u := w.NewUser(t, nil)
		w.s.Post(t, "/admin/users/role", w.as("uid", u.UID, "role", "auditor")...).Want(t, 422, "role.doesnt_exist")
		do(w.root, rule("auditor", "get", "api/v2/barong/admin/metrics", "accept")...).Want(t, 201)
		w.s.Post(t, "/admin/users/role", w.as("uid", u.UID, "role", "auditor")...).Want(t, 201)
		w.s.Get(t, "/admin/metrics", apitest.As(u)).Want(t, 200)
	})
}

func TestUpdatePermission(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		adm := w.staff(t, "admin")
		super := id(1) // the first rule of an Env: superadmin ACCEPT ALL api/v2
		w.s.Post(t, "/admin/permissions", w.as("role", "member", "verb", "get", "path", "api/v2/things", "action", "accept")...).Want(t, 201)
		row := id(w.last(t).ID)
		do := func(who *db.User, form ...string) *apitest.Answer {
			t.Helper()
			return w.s.Put(t, "/admin/permissions", apitest.As(who), apitest.Form(form...))
		}
		long := strings.Repeat("x", 256)
		for _, c := range []struct {
			form []string
			want []string
		}{
			{nil, []string{"admin.permission.missing_id", "admin.permission.empty_id"}},
			{[]string{"id", "x"}, []string{"invalid"}},
			{
				[]string{"id", row, "role", "", "verb", "", "path", "", "action", "", "topic", ""},
				[]string{
					"admin.permission.empty_role", "admin.permission.empty_verb", "admin.permission.empty_path", "admin.permission.empty_action",
					"admin.permission.empty_topic",
				},
			},
			{[]string{"id", row, "verb", "whatever", "action", "all"}, []string{"admin.permissions.invalid_verb"}},
			{[]string{"id", row, "action", "all"}, []string{"admin.permissions.invalid_action"}},
			{[]string{"id", row, "role", long, "path", long, "topic", long}, []string{"role.too_long", "path.too_long", "topic.too_long"}},
			{[]string{"id", row, "role", "a\nb", "path", "\x01", "topic", "a\tb"}, []string{"role.invalid", "path.invalid", "topic.invalid"}},
			{[]string{"id", super, "role", "member"}, []string{"admin.permission.last_superadmin"}},
			{[]string{"id", super, "verb", "get"}, []string{"admin.permission.last_superadmin"}},
			{[]string{"id", super, "path", "api/v2/barong/resource"}, []string{"admin.permission.last_superadmin"}},
			{[]string{"id", super, "action", "audit"}, []string{"admin.permission.last_superadmin"}},
		} {
			do(w.root, c.form...).Want(t, 422, c.want...)
		}
		do(w.root, "id", "0", "role", "member").Want(t, 404, "admin.permission.doesnt_exist")
		do(w.root, "id", "-9223372036854775808").Want(t, 404, "admin.permission.doesnt_exist")
		do(adm, "id", super, "topic", "x").Want(t, 422, "admin.user.superadmin_change")
		do(adm, "id", row, "role", "superadmin").Want(t, 422, "admin.user.superadmin_change")
		do(adm, "id", row, "role", "nothing").Want(t, 422, "admin.permission.role_doesnt_exist")
		changes := len(w.changes(t))
		do(w.root, "id", row).WantBody(t, 200, "200")
		do(w.root, "id", row, "verb", "Get").Want(t, 200)
		if got := len(w.changes(t)); got != changes {
			t.Errorf("nothing changed, and %d changes were recorded", got-changes)
		}
		do(w.root, "id", row, "verb", "post", "action", "Audit", "topic", "other").Want(t, 200)
		if got := line(w.last(t)); got != "member AUDIT POST api/v2/things (other)" {
			t.Errorf("row %s", got)
		}
		got := w.changes(t)
		want := fmt.Sprintf(`%s update permission {"id":%s,"role":"member","verb":"GET","path":"api/v2/things","action":"ACCEPT","topic":null}`+
			` {"id":%s,"role":"member","verb":"POST","path":"api/v2/things","action":"AUDIT","topic":"other"}`, w.root.UID, row, row)
		if got[len(got)-1] != want {
			t.Errorf("change %s", got[len(got)-1])
		}
		w.old.Put(t, "/admin/permissions", w.as("id", row, "role", "auditor")...).WantBody(t, 200, "200") // a new role
	})
}

func TestDeletePermission(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		adm := w.staff(t, "admin")
		const path = "/admin/permissions"
		w.s.Delete(t, path, w.ask()...).Want(t, 422, "admin.permission.missing_id", "admin.permission.empty_id")
		w.s.Delete(t, path, w.ask("id", "abc")...).Want(t, 422, "invalid")
		w.s.Delete(t, path, w.ask("id", "999999")...).Want(t, 404, "admin.permission.doesnt_exist")
		w.s.Delete(t, path, w.ask("id", "1")...).Want(t, 422, "admin.permission.last_superadmin")
		w.s.Delete(t, path, apitest.As(adm), apitest.Query("id", "1")).Want(t, 422, "admin.user.superadmin_change")
		// With another rule of the same effect the first may go.
		w.s.Post(t, path, w.as("role", "superadmin", "verb", "all", "path", "api", "action", "accept")...).Want(t, 201)
		w.s.Delete(t, path, w.ask("id", "1")...).WantBody(t, 204, "")
		w.s.Delete(t, path, w.ask("id", "1")...).Want(t, 404, "admin.permission.doesnt_exist")
		w.s.Delete(t, path, w.ask("id", id(w.last(t).ID))...).Want(t, 422, "admin.permission.last_superadmin")
		got := w.changes(t)
		if !strings.HasPrefix(got[len(got)-1], w.root.UID+` delete permission {"id":1,"role":"superadmin"`) {
			t.Errorf("change %s", got[len(got)-1])
		}
		w.Permit(t, "member", "GET", "x")
		w.old.Delete(t, path, w.as("id", id(w.last(t).ID))...).WantBody(t, 200, "200")
	})
}

// TestLockedOut holds that where superadmins cannot act already, other edits are not refused for that.
func TestLockedOut(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		adm := w.staff(t, "admin")
		w.Drop(t, "superadmin", "DELETE", "api/v2/barong/admin/restrictions")
		w.reload(t)
		w.s.Post(t, "/admin/permissions", apitest.As(adm), apitest.Form("role", "member", "verb", "get", "path", "x", "action", "accept")).Want(t, 201)
		w.s.Post(t, "/admin/permissions", w.as("role", "superadmin", "verb", "get", "path", "x", "action", "drop")...).Want(t, 201)
	})
}

// TestInForceBeforeTheAnswer holds that who has the answer of an edit sees its effect, among other edits at once.
// Nothing else reloads the rules here.
func TestInForceBeforeTheAnswer(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		var all sync.WaitGroup
		for n := range 4 {
			role := "role" + strconv.Itoa(n)
			staff, u := w.NewStaff(t, "superadmin"), w.NewStaff(t, role)
			all.Go(func() {
				for range 5 {
					w.s.Get(t, "/admin/levels", apitest.As(u)).Want(t, 401, "authz.invalid_permission")
					w.s.Post(t, "/admin/permissions", apitest.As(staff),
						apitest.Form("role", role, "verb", "get", "path", "api/v2/barong/admin/levels", "action", "accept")).Want(t, 201)
					w.s.Get(t, "/admin/levels", apitest.As(u)).Want(t, 200)
					rows, err := w.DB.AllPermissions(t.Context())
					if err != nil {
						t.Error(err)
						return
					}
					i := slices.IndexFunc(rows, func(p db.Permission) bool { return p.Role == role })
					w.s.Put(t, "/admin/permissions", apitest.As(staff), apitest.Form("id", id(rows[i].ID), "verb", "post")).Want(t, 200)
					w.s.Get(t, "/admin/levels", apitest.As(u)).Want(t, 401, "authz.invalid_permission")
					w.s.Put(t, "/admin/permissions", apitest.As(staff), apitest.Form("id", id(rows[i].ID), "verb", "all")).Want(t, 200)
					w.s.Get(t, "/admin/levels", apitest.As(u)).Want(t, 200)
					w.s.Delete(t, "/admin/permissions", apitest.As(staff), apitest.Query("id", id(rows[i].ID))).Want(t, 204)
				}
			})
		}
		all.Wait()
	})
}

// TestNotInForce holds that an edit which cannot be put in force is not answered as if it were.
func TestNotInForce(t *testing.T) {
	t.Parallel()
	lists := filepath.Join(t.TempDir(), "lists.yml")
	if err := os.WriteFile(lists, []byte("rules:\n  pass:\n    - api/v2/barong/identity\n  block: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := start(t, apitest.New(t, "sqlite"), func(o *rules.Options) { o.ListsFile, o.ListsRequired = lists, true })
	if err := os.WriteFile(lists, []byte("rules: ["), 0o600); err != nil {
		t.Fatal(err)
	}
	w.s.Post(t, "/admin/permissions", w.as("role", "member", "verb", "get", "path", "x", "action", "accept")...).Want(t, 503, "authz.unavailable")
	w.s.Post(t, "/admin/restrictions", w.as("scope", "ip", "value", "192.0.2.1")...).Want(t, 503, "authz.unavailable")
}

func TestCheckPermission(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.Permit(t, "support", "GET", "api/v2/barong/admin")
		w.Drop(t, "support", "ALL", "api/v2/barong/admin/permissions")
		w.reload(t)
		do := func(form ...string) *apitest.Answer {
			t.Helper()
			return w.s.Post(t, "/admin/permissions/check", w.as(form...)...)
		}
		do().Want(t, 422, "admin.permission.missing_verb", "admin.permission.empty_verb", "admin.permission.missing_path",
			"admin.permission.empty_path", "admin.permission.one_of_role_uid")
		do("role", "support", "uid", w.root.UID, "verb", "get", "path", "x").Want(t, 422, "admin.permission.one_of_role_uid")
		do("role", "", "verb", "get", "path", "x").Want(t, 422, "admin.permission.empty_role")
		do("uid", " ", "verb", "get", "path", "x").Want(t, 422, "admin.permission.empty_uid")
		do("uid", "ID0000000000", "verb", "get", "path", "x").Want(t, 404, "admin.user.doesnt_exist")
		do("role[]", "x", "verb", "get", "path", "x").Want(t, 422, "invalid")
		for _, verb := range []string{"all", "connect", "pri", "purge"} {
			do("role", "support", "verb", verb, "path", "x").Want(t, 422, "admin.permissions.invalid_verb")
		}
		do("role", "support", "verb", "get", "path", "a/../b").Want(t, 400, "authz.ambiguous_path")
		a := do("role", "support", "verb", "get", "path", "/api/v2/barong/admin/metrics").Want(t, 200)
		if o := a.Object(t); o["allowed"] != true || o["path"] != "api/v2/barong/admin/metrics" || len(o["matches"].([]any)) != 1 {
			t.Errorf("got %s", a.Body)
		}
		a = do("role", "support", "verb", "propfind", "path", "api/v2/barong/admin/permissions").Want(t, 200)
		if o := a.Object(t); o["allowed"] != false || len(o["matches"].([]any)) != 1 {
			t.Errorf("got %s", a.Body)
		}
		a = do("role", "support", "verb", "GET", "path", "api/v2/barong/admin/permissions").Want(t, 200)
		if o := a.Object(t); o["allowed"] != false || o["permitted"] != false || len(o["matches"].([]any)) != 2 {
			t.Errorf("got %s", a.Body)
		}
		// Of a user: their role, and whether a check would look at it at all.
		u := w.NewStaff(t, "support")
		const path = "api/v2/barong/admin/metrics"
		o := do("uid", u.UID, "verb", "get", "path", path).Want(t, 200).Object(t)
		if o["role"] != "support" || o["uid"] != u.UID || o["state"] != "active" || o["allowed"] != true || o["permitted"] != true {
			t.Errorf("got %v", o)
		}
		w.Update(t, func(ctx ctx, tx *db.Tx) error { u.State = "banned"; return tx.UpdateUser(ctx, u, "state") })
		o = do("uid", u.UID, "verb", "get", "path", path).Want(t, 200).Object(t)
		if o["state"] != "banned" || o["allowed"] != false || o["permitted"] != true {
			t.Errorf("of a banned user: %v", o)
		}
		o = do("uid", u.UID, "verb", "post", "path", "api/v2/barong/identity/sessions").Want(t, 200).Object(t)
		if o["allowed"] != true {
			t.Errorf("a path that everybody may call, for a banned user: %v", o)
		}
		if got := len(w.changes(t)); got != 0 {
			t.Errorf("%d changes", got)
		}
	})
}

func TestPreviewPermissions(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.Permit(t, "support", "GET", "api/v2/barong/admin/metrics")
		w.reload(t)
		row := w.last(t).ID
		s := w.rules.Snapshot()
		for _, path := range []string{"api/v2/barong/admin/metrics", "api/v2/barong/admin/users"} {
			v := s.Permit("support", "GET", path)
			w.rules.Sampler().Sample("support", "GET", path, v.Allow)
		}
		do := func(changes any) *apitest.Answer {
			t.Helper()
			return w.s.Post(t, "/admin/permissions/preview", apitest.As(w.root), apitest.JSON(map[string]any{"changes": changes}))
		}
		type change = map[string]any
		turned := func(a *apitest.Answer) []string {
			out := []string{}
			for _, turn := range a.Want(t, 200).List(t) {
				out = append(out, fmt.Sprint(turn["role"], " ", turn["path"], " ", turn["before"], " ", turn["after"]))
			}
			return out
		}
		got := turned(do([]change{
			{"op": "delete", "id": row},
			{"op": "create", "role": "support", "verb": "get", "path": "api/v2/barong/admin/users", "action": "accept"},
		}))
		slices.Sort(got)
		if !slices.Equal(got, []string{"support api/v2/barong/admin/metrics true false", "support api/v2/barong/admin/users false true"}) {
			t.Errorf("got %q", got)
		}
		if got := turned(do([]change{{"op": "update", "id": row, "path": "api/v2/barong/admin"}})); !slices.Equal(got, []string{"support api/v2/barong/admin/users false true"}) {
			t.Errorf("got %q", got)
		}
		text, err := json.Marshal([]change{{"op": "update", "id": row, "topic": "x"}})
		if err != nil {
			t.Fatal(err)
		}
		w.s.Post(t, "/admin/permissions/preview", w.as("changes", string(text))...).WantBody(t, 200, "[]")
		if got := len(w.changes(t)); got != 0 || w.last(t).ID != row || w.last(t).Path != "api/v2/barong/admin/metrics" {
			t.Errorf("a preview changed something: %q", w.changes(t))
		}

		w.s.Post(t, "/admin/permissions/preview", w.as()...).Want(t, 422, "admin.permission.missing_changes", "admin.permission.empty_changes")
		w.s.Post(t, "/admin/permissions/preview", apitest.As(w.root), apitest.File("changes", "a", "text/plain", "x")).Want(t, 422, "invalid")
		do([]change{}).Want(t, 422, "admin.permission.empty_changes")
		do([]change{{"op": "rename"}}).Want(t, 422, "op.inclusion")
		do([]change{{"op": "delete", "id": 0}}).Want(t, 404, "admin.permission.doesnt_exist")
		do([]change{{"op": "create", "role": "x", "verb": "options", "path": "x", "action": "accept"}}).Want(t, 422, "admin.permissions.invalid_verb")
		do([]change{{"op": "create", "role": "x", "verb": "get", "path": "x", "action": "x"}}).Want(t, 422, "admin.permissions.invalid_action")
		do([]change{{"op": "create", "role": "x", "verb": "get"}}).Want(t, 422, "changes.invalid")
		do("x").Want(t, 400, "request.malformed_body")
		do([]change{{"op": "delete", "id": 1, "other": true}}).Want(t, 400, "request.malformed_body")
	})
}
