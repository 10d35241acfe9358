package admin_test

import (
	"slices"
	"strings"
	"testing"

	"barong/db"
	"barong/internal/test/apitest"
)

func (w *world) labelsOf(t testing.TB, u *db.User) []string {
	t.Helper()
	rows, err := w.DB.Labels(t.Context(), u.ID)
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, l := range rows {
		text := l.Key + "=" + l.Value + " " + l.Scope
		if l.Description != nil {
			text += " (" + *l.Description + ")"
		}
		out = append(out, text)
	}
	return out
}

func (w *world) wantLabels(t testing.TB, u *db.User, want ...string) {
	t.Helper()
	if got := w.labelsOf(t, u); !slices.Equal(got, want) {
		t.Errorf("labels %q, want %q", got, want)
	}
}

// fresh is a user whose state follows the labels.
func (w *world) fresh(t testing.TB) *db.User {
	t.Helper()
	return w.NewUser(t, func(u *db.User) { u.State = "pending" })
}

func TestCreateLabel(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		adm := w.staff(t, "admin")
		u := w.fresh(t)
		const path = "/admin/users/labels"
		long := strings.Repeat("x", 256)
		for _, c := range []struct {
			form []string
			want []string
		}{
			{nil, []string{"admin.user.missing_uid", "admin.user.empty_uid", "admin.user.missing_key", "admin.user.empty_key", "admin.user.missing_value", "admin.user.empty_value"}},
			{
				[]string{"uid", "", "key", "", "value", "", "description", "", "scope", ""},
				[]string{"admin.user.empty_uid", "admin.user.empty_key", "admin.user.empty_value", "admin.user.empty_description", "admin.user.empty_scope"},
			},
			{[]string{"uid", u.UID, "key", "ab", "value", "one"}, []string{"key.too_short"}},
			{[]string{"uid", u.UID, "key", "a b", "value", "one"}, []string{"key.invalid"}},
			{[]string{"uid", u.UID, "key", long, "value", long}, []string{"key.too_long", "value.too_long"}},
			{[]string{"uid", u.UID, "key", "note", "value", "a!"}, []string{"value.too_short", "value.invalid"}},
			{[]string{"uid", u.UID, "key", "x", "value", "y", "scope", "weird"}, []string{"scope.inclusion", "key.too_short", "value.too_short"}},
			{[]string{"uid", u.UID, "key", "note", "value", "one", "scope", "PRIVATE"}, []string{"scope.inclusion"}},
			{[]string{"uid", u.UID, "key", "note", "value", "one", "description", long}, []string{"description.too_long"}},
			{[]string{"uid[]", "x", "key", "note", "value", "one"}, []string{"invalid"}},
			{[]string{"uid", w.root.UID, "key", "note", "value", "one"}, []string{"admin.user.update_himself"}},
		} {
			w.s.Post(t, path, w.as(c.form...)...).Want(t, 422, c.want...)
		}
		w.s.Post(t, path, w.as("uid", "ID0000000000", "key", "note", "value", "one")...).Want(t, 404, "admin.user.doesnt_exist")
		w.s.Post(t, path, apitest.As(adm), apitest.Form("uid", w.root.UID, "key", "note", "value", "one")).Want(t, 422, "admin.user.superadmin_change")
		w.s.Post(t, path, apitest.As(adm), apitest.Form("uid", adm.UID, "key", "document", "value", "verified", "scope", "private")).
			Want(t, 422, "admin.user.update_himself")

		w.Events()
		w.s.Post(t, path, w.as("uid", u.UID, "key", "note", "value", "one")...).WantBody(t, 201, "201")
		w.s.Post(t, path, w.as("uid", u.UID, "key", " NOTE ", "value", "Two")...).Want(t, 422, "key.taken")
		w.s.Post(t, path, w.as("uid", u.UID, "key", "note", "value", "x")...).Want(t, 422, "key.taken", "value.too_short")
		if got := w.EventNames(); !slices.Equal(got, []string{"model.label.created"}) {
			t.Errorf("events %q", got)
		}
		w.old.Post(t, path, w.as("uid", u.UID, "key", "Email", "value", "Verified", "scope", "private", "description", "seen")...).WantBody(t, 200, "200")
		if got := w.Fresh(t, u); got.Level != 1 || got.State != "active" {
			t.Errorf("level %d, state %s", got.Level, got.State)
		}
		if got := w.EventNames(); !slices.Equal(got, []string{"model.user.updated", "model.user.updated", "model.label.created"}) {
			t.Errorf("events %q", got)
		}
		w.wantLabels(t, u, "note=one public", "email=verified private (seen)")
	})
}

func TestPutAndUpdateLabel(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		adm := w.staff(t, "admin")
		long := strings.Repeat("x", 256)
		for _, call := range []struct {
			method, path string
			success      int
		}{{"PUT", "/admin/users/labels", 200}, {"POST", "/admin/users/labels/update", 201}} {
			put := call.method == "PUT"
			do := func(s *apitest.Server, who *db.User, form ...string) *apitest.Answer {
				t.Helper()
				return s.Do(t, call.method, call.path, apitest.As(who), apitest.Form(form...))
			}
			u := w.fresh(t)
			w.label(t, u, "note", "one", "private")
			missing := []string{
				"admin.user.missing_uid", "admin.user.empty_uid", "admin.user.missing_key", "admin.user.empty_key",
				"admin.user.missing_scope", "admin.user.empty_scope", "admin.user.missing_value", "admin.user.empty_value",
			}
			do(w.s, w.root).Want(t, 400, missing...)
			do(w.old, w.root).Want(t, 422, missing...)
			blank := []string{"admin.user.empty_uid", "admin.user.empty_key", "admin.user.empty_scope", "admin.user.empty_value", "admin.user.empty_description"}
			if put {
				blank[3], blank[4] = blank[4], blank[3]
			}
			do(w.s, w.root, "uid", "", "key", "", "scope", "", "value", "", "description", "").Want(t, 400, blank...)
			do(w.s, w.root, "uid", u.UID, "key", "note", "scope", "private", "value", "one", "description", "").Want(t, 422, "admin.user.empty_description")
			do(w.s, w.root, "uid[]", "x", "key[]", "y", "scope", "private", "value", "one").Want(t, 422, "invalid", "invalid")
			do(w.s, w.root, "uid", "ID0000000000", "key", "note", "scope", "private", "value", "one").Want(t, 404, "admin.user.doesnt_exist")
			do(w.s, adm, "uid", w.root.UID, "key", "note", "scope", "private", "value", "one").Want(t, 422, "admin.user.superadmin_change")
			do(w.s, adm, "uid", adm.UID, "key", "note", "scope", "private", "value", "one").Want(t, 422, "admin.user.update_himself")
			do(w.s, w.root, "uid", u.UID, "key", "note", "scope", "private", "value", "?").Want(t, 422, "value.too_short", "value.invalid")
			do(w.s, w.root, "uid", u.UID, "key", "note", "scope", "private", "value", long, "description", long).Want(t, 422, "value.too_long", "description.too_long")

			do(w.s, w.root, "uid", u.UID, "key", "note", "scope", "private", "value", "Two", "description", "why").WantBody(t, call.success, map[bool]string{true: "200", false: "201"}[put])
			do(w.old, w.root, "uid", u.UID, "key", "NOTE", "scope", "private", "value", "three").WantBody(t, 200, "200")
			w.wantLabels(t, u, "note=three private (why)") // a description that is not sent stays

			// No such label.
			if put {
				do(w.s, w.root, "uid", u.UID, "key", "note", "scope", "public", "value", "one").Want(t, 404, "admin.label.doesnt_exist")
				continue
			}
			do(w.s, w.root, "uid", u.UID, "key", "note", "scope", "public", "value", "one", "replace", "false").Want(t, 404, "admin.label.doesnt_exist")
			do(w.s, w.root, "uid", u.UID, "key", "note", "scope", "public", "value", "one", "replace", "x").Want(t, 422, "admin.user.non_boolean_replace")
			do(w.s, w.root, "uid", u.UID, "key", "x", "scope", "weird", "value", "one").Want(t, 422, "scope.inclusion", "key.too_short")
			do(w.s, w.root, "uid", u.UID, "key", long, "scope", "public", "value", "one").Want(t, 422, "key.too_long")
			do(w.s, w.root, "uid", u.UID, "key", "a b", "scope", "public", "value", "one").Want(t, 422, "key.invalid")
			do(w.s, w.root, "uid", u.UID, "key", " NOTE ", "scope", "private", "value", "one").Want(t, 422, "key.taken")
			do(w.s, w.root, "uid", u.UID, "key", "email", "scope", "private", "value", "verified", "description", "new").Want(t, 201)
			w.wantLabels(t, u, "note=three private (why)", "email=verified private (new)")
			if got := w.Fresh(t, u); got.Level != 1 || got.State != "active" {
				t.Errorf("level %d, state %s", got.Level, got.State)
			}
		}
	})
}

func TestDeleteLabel(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		adm := w.staff(t, "admin")
		u := w.fresh(t)
		const path = "/admin/users/labels"
		for _, key := range []string{"email", "note"} {
			w.s.Post(t, path, w.as("uid", u.UID, "key", key, "value", "verified", "scope", "private")...).Want(t, 201)
		}
		w.s.Delete(t, path, w.ask()...).Want(t, 422,
			"admin.user.missing_uid", "admin.user.empty_uid", "admin.user.missing_key", "admin.user.empty_key", "admin.user.missing_scope", "admin.user.empty_scope")
		w.s.Delete(t, path, w.ask("uid[]", "x", "key", "note", "scope", "private")...).Want(t, 422, "invalid")
		w.s.Delete(t, path, w.ask("uid", "ID0000000000", "key", "note", "scope", "private")...).Want(t, 404, "admin.user.doesnt_exist")
		w.s.Delete(t, path, w.ask("uid", u.UID, "key", "note", "scope", "public")...).Want(t, 404, "admin.label.doesnt_exist")
		w.s.Delete(t, path, apitest.As(adm), apitest.Query("uid", w.root.UID, "key", "note", "scope", "private")).Want(t, 422, "admin.user.superadmin_change")
		w.s.Delete(t, path, apitest.As(adm), apitest.Query("uid", adm.UID, "key", "note", "scope", "private")).Want(t, 422, "admin.user.update_himself")
		w.Events()
		w.s.Delete(t, path, w.ask("uid", u.UID, "key", "email", "scope", "private")...).WantBody(t, 204, "")
		if got := w.Fresh(t, u); got.Level != 0 || got.State != "pending" {
			t.Errorf("level %d, state %s", got.Level, got.State)
		}
		if got := w.EventNames(); !slices.Equal(got, []string{"model.user.updated"}) {
			t.Errorf("events %q", got)
		}
		w.old.Delete(t, path, apitest.As(w.root), apitest.JSON(map[string]string{"uid": u.UID, "key": "note", "scope": "private"})).WantBody(t, 200, "200")
		w.wantLabels(t, u)
	})
}

func TestSearchLabels(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		alice, bob := w.NewUser(t, nil), w.NewUser(t, nil)
		w.s.Get(t, "/admin/users/labels/list", apitest.As(w.root)).WantBody(t, 200, "{}")
		w.label(t, alice, "kyc", "done", "private")
		w.label(t, alice, "kyc", "done", "public")
		w.label(t, bob, "kyc", "done", "public")
		w.label(t, bob, "email", "verified", "private")
		const path = "/admin/users/labels"
		wantUIDs(t, w.s.Get(t, path, w.ask("key", "kyc", "value", "done")...), alice, bob) // each once
		wantUIDs(t, w.s.Get(t, path, w.ask("key", "kyc", "value", "done", "scope", "private")...), alice)
		wantUIDs(t, w.old.Get(t, path, w.ask("key", "kyc", "value", "done", "scope", "private")...), alice, bob)
		wantUIDs(t, w.s.Get(t, path, w.ask("key", "kyc", "value", "nothing")...))
		wantUIDs(t, w.s.Get(t, path, w.ask("key", "", "value", "")...))
		w.s.Get(t, path, w.ask()...).Want(t, 422, "admin.user.missing_key", "admin.user.missing_value")
		w.s.Get(t, path, w.ask("key[]", "kyc", "value[]", "done")...).Want(t, 422, "invalid", "invalid")
		paged(t, w.s, path, "2", w.ask("key", "kyc", "value", "done")...)
		w.s.Get(t, "/admin/users/labels/list", apitest.As(w.root)).
			WantBody(t, 200, `{"[\"email\", \"verified\"]":1,"[\"kyc\", \"done\"]":1}`)
	})
}
