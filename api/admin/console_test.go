package admin_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"barong/api/view"
	"barong/db"
	"barong/internal/bus"
	"barong/internal/test/apitest"
)

// someSystem is what the process says of itself in these tests.
func someSystem(context.Context) (view.System, error) {
	return view.System{
		Version: "1.2.3", Commit: "c0ffee", BuiltAt: "2026-01-02T15:04:05Z", StartedAt: "2026-01-02T15:04:05Z", Environment: "development",
		Compat: "reference", Status: "ready", Parts: []view.Part{{Name: "database", Status: "failed", Essential: true, Reason: "dial 10.0.0.1"}},
		Policy: view.PolicyAge{Version: 7, Warnings: []string{}}, Keys: []view.SignKey{{KID: "k", Algorithm: "RS256", State: "active"}},
		Settings: []view.Setting{{Name: "BARONG_SMTP_HOST", Value: "mail.internal", Source: "env"}},
	}, nil
}

// TestSystem: everybody whom the rules let see it, sees how the process is; its settings, and what its servers said, are for
// superadmins alone.
func TestSystem(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		all := w.s.Get(t, "/admin/system", apitest.As(w.root)).Want(t, 200)
		for _, want := range []string{`"version":"1.2.3"`, `"reason":"dial 10.0.0.1"`, `"name":"BARONG_SMTP_HOST","value":"mail.internal","source":"env"`, `"state":"active"`} {
			if !strings.Contains(all.Body, want) {
				t.Errorf("no %s in %s", want, all.Body)
			}
		}
		some := w.s.Get(t, "/admin/system", apitest.As(w.staff(t, "technical"))).Want(t, 200)
		if strings.Contains(some.Body, "mail.internal") || strings.Contains(some.Body, "10.0.0.1") || !strings.Contains(some.Body, `"name":"database","status":"failed","essential":true}`) {
			t.Errorf("others than superadmins see %s", some.Body)
		}
		w.s.Get(t, "/admin/system", apitest.As(w.NewUser(t, nil))).Want(t, 401, "authz.invalid_permission")
	})
}

func TestListAllAPIKeys(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		u := w.NewUser(t, nil)
		const path = "/admin/api_keys/list"
		w.s.Get(t, path, w.ask()...).WantBody(t, 200, "[]")
		w.s.Get(t, path, w.ask("state", "x")...).Want(t, 422, "admin.apikey.invalid_state")
		w.s.Get(t, path, w.ask("uid[]", "x")...).Want(t, 422, "invalid")
		w.key(t, u, "0123456789abcdef", "trade")
		w.key(t, u, "fedcba9876543210")
		w.key(t, w.root, "0000000000000000")
		w.Update(t, func(ctx ctx, tx *db.Tx) error {
			k, err := tx.UserAPIKey(ctx, u.ID, "fedcba9876543210")
			if err != nil {
				return err
			}
			k.State = "disabled"
			return tx.UpdateAPIKey(ctx, k)
		})
		paged(t, w.s, path, "3", w.ask()...)
		list := w.s.Get(t, path, w.ask("limit", "1")...).Want(t, 200)
		if got := apitest.ObjectKeys(t, list.Body[1:len(list.Body)-1]); !slices.Equal(got, []string{
			"kid", "uid", "email", "algorithm", "scope", "state", "created_at", "updated_at",
		}) {
			t.Errorf("got %q", got)
		}
		for _, c := range []struct{ query, want []string }{
			{nil, []string{"0123456789abcdef " + u.UID, "fedcba9876543210 " + u.UID, "0000000000000000 " + w.root.UID}},
			{[]string{"uid", u.UID}, []string{"0123456789abcdef " + u.UID, "fedcba9876543210 " + u.UID}},
			{[]string{"kid", "0000000000000000"}, []string{"0000000000000000 " + w.root.UID}},
			{[]string{"state", "inactive"}, []string{"fedcba9876543210 " + u.UID}},
			{[]string{"state", "active", "uid", u.UID}, []string{"0123456789abcdef " + u.UID}},
			{[]string{"uid", "ID0000000000"}, nil},
		} {
			var got []string
			for _, k := range w.s.Get(t, path, w.ask(c.query...)...).Want(t, 200).List(t) {
				got = append(got, fmt.Sprint(k["kid"], " ", k["uid"]))
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%q: got %q, want %q", c.query, got, c.want)
			}
		}
	})
}

// TestChangePermissions: several changes are made together or not at all, by the rules of each, and what would lock
// superadmins out only counts in the end.
func TestChangePermissions(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		type change = map[string]any
		do := func(who *db.User, changes ...change) *apitest.Answer {
			t.Helper()
			return w.s.Post(t, "/admin/permissions/changes", apitest.As(who), apitest.JSON(map[string]any{"changes": changes}))
		}
		adm := w.staff(t, "admin")
		good := change{"op": "create", "role": "member", "verb": "get", "path": "api/v2/things", "action": "accept"}
		create := func(role, verb, path, action string) change {
			return change{"op": "create", "role": role, "verb": verb, "path": path, "action": action}
		}
		before := w.rows(t)
		long := strings.Repeat("é", 256)
		for _, c := range []struct {
			who  *db.User
			last change
			code string
		}{
			{w.root, change{"op": "nothing"}, "op.inclusion"},
			{w.root, change{"op": "create", "role": "member", "verb": "get", "action": "drop"}, "changes.invalid"},
			{w.root, change{"op": "create", "role": " ", "verb": "get", "path": "x", "action": "drop"}, "changes.invalid"},
			{w.root, change{"op": "update", "id": w.last(t).ID, "path": ""}, "changes.invalid"},
			{w.root, change{"op": "delete", "id": 999999}, "admin.permission.doesnt_exist"},
			{w.root, create("member", "options", "x", "drop"), "admin.permissions.invalid_verb"},
			{w.root, create("member", "get", "x", "pass"), "admin.permissions.invalid_action"},
			{w.root, create(long, "get", "x", "drop"), "role.too_long"},
			{w.root, create("member", "get", long, "drop"), "path.too_long"},
			{w.root, change{"op": "create", "role": "member", "verb": "get", "path": "x", "action": "audit", "topic": long}, "topic.too_long"},
			{w.root, create("a\tb", "get", "x", "drop"), "role.invalid"},
			{w.root, create("member", "get", "a\x7f", "drop"), "path.invalid"},
			{w.root, change{"op": "create", "role": "member", "verb": "get", "path": "x", "action": "audit", "topic": "a\u0085"}, "topic.invalid"},
			{w.root, create("superadmin", "all", "api/v2/barong/admin", "drop"), "admin.permission.last_superadmin"},
			{adm, create("superadmin", "get", "x", "accept"), "admin.user.superadmin_change"},
			{adm, create("nothing", "get", "x", "accept"), "admin.permission.role_doesnt_exist"},
		} {
			status := 422
			if c.code == "admin.permission.doesnt_exist" {
				status = 404
			}
			do(c.who, good, c.last).Want(t, status, c.code)
		}
		do(w.root).Want(t, 422, "admin.permission.empty_changes")
		many := make([]change, 201)
		for i := range many {
			many[i] = good
		}
		do(w.root, many...).Want(t, 422, "changes.invalid")
		do(w.root, change{"op": "create", "what": "x"}).Want(t, 400, "request.malformed_body")
		w.s.Post(t, "/admin/permissions/changes", apitest.As(w.root), apitest.File("changes", "a", "text/plain", "x")).Want(t, 422, "invalid")
		w.s.Post(t, "/admin/permissions/changes", w.as()...).Want(t, 422, "admin.permission.missing_changes", "admin.permission.empty_changes")
		if got := w.rows(t); !slices.Equal(got, before) || len(w.changes(t)) > 0 {
			t.Fatalf("refused calls left %q", got)
		}

		// Rules that lock superadmins out between one change and the next lock nobody out.
		w.Notices()
		var own int64
		all, err := w.DB.AllPermissions(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i := range all {
			if all[i].Role == "superadmin" && all[i].Action == "ACCEPT" {
				own = all[i].ID
			}
		}
		do(w.root, good, change{"op": "delete", "id": own}, create("superadmin", "all", "api", "accept"),
			change{"op": "update", "id": w.last(t).ID, "topic": "x"}).WantBody(t, 201, "201")
		if got := w.Notices(); !slices.Contains(got, bus.Notice{Kind: bus.PolicyChanged}) {
			t.Errorf("notices %v", got)
		}
		if got := w.changes(t); len(got) != 4 || !strings.HasPrefix(got[1], w.root.UID+" delete") {
			t.Errorf("changes %q", got)
		}
		if !w.rules.Snapshot().Permit("member", "GET", "api/v2/things").Allow {
			t.Error("the changes are not in force")
		}
	})
}

func TestRuleHistory(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		const path = "/admin/permissions/history"
		var before int
		first := w.s.Get(t, path, w.ask()...).Want(t, 200)
		before = len(first.List(t))
		w.s.Get(t, path, w.ask("subject", "user")...).Want(t, 422, "admin.permission.invalid_subject")
		w.s.Get(t, path, w.ask("subject[]", "x")...).Want(t, 422, "invalid", "admin.permission.invalid_subject")
		w.s.Post(t, "/admin/permissions", w.as("role", "member", "verb", "get", "path", "x", "action", "drop")...).Want(t, 201)
		row := w.last(t)
		w.s.Put(t, "/admin/permissions", w.as("id", id(row.ID), "action", "accept")...).Want(t, 200)
		w.s.Delete(t, "/admin/permissions", w.ask("id", id(row.ID))...).Want(t, 204)
		w.s.Post(t, "/admin/restrictions", w.as("scope", "ip", "value", "203.0.113.7")...).Want(t, 201)
		paged(t, w.s, path, fmt.Sprint(before+4), w.ask()...)
		list := w.s.Get(t, path, w.ask("subject", "permission", "limit", "3")...).Want(t, 200)
		if got := apitest.ObjectKeys(t, first.Body[1:len(first.Body)-1]); before > 0 && !slices.Equal(got[:3], []string{"id", "uid", "subject"}) {
			t.Errorf("got %q", got)
		}
		var changes []view.RuleChange
		if err := json.Unmarshal([]byte(list.Body), &changes); err != nil || len(changes) != 3 {
			t.Fatalf("got %s, %v", list.Body, err)
		}
		for i, want := range []struct{ action, before, after string }{
			{"delete", `"action":"ACCEPT"`, "null"}, {"update", `"action":"DROP"`, `"action":"ACCEPT"`}, {"create", "null", `"action":"DROP"`},
		} {
			c := changes[i]
			if c.Action != want.action || c.UID == nil || *c.UID != w.root.UID || c.SubjectID != row.ID || c.Subject != "permission" ||
				!strings.Contains(string(c.Before), want.before) || !strings.Contains(string(c.After), want.after) {
				t.Errorf("got %+v %s %s, want %+v", c, c.Before, c.After, want)
			}
		}
		if got := w.s.Get(t, path, w.ask("subject", "restriction", "limit", "1")...).Want(t, 200).Body; !strings.Contains(got, "203.0.113.7") {
			t.Errorf("got %s", got)
		}
	})
}
