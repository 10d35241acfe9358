package admin_test

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"barong/db"
	"barong/internal/bus"
	"barong/internal/test/apitest"
)

// lines are the restrictions, a line each.
func (w *world) lines(t testing.TB) []string {
	t.Helper()
	all, err := w.DB.AllRestrictions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, r := range all {
		code := "none"
		if r.Code != nil {
			code = strconv.Itoa(*r.Code)
		}
		out = append(out, strings.Join([]string{r.Category, r.Scope, r.Value, code, r.State}, " "))
	}
	return out
}

func (w *world) lastRestriction(t testing.TB) string {
	t.Helper()
	all, err := w.DB.AllRestrictions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return id(all[len(all)-1].ID)
}

func TestCreateRestriction(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		do := func(form ...string) *apitest.Answer {
			t.Helper()
			return w.s.Post(t, "/admin/restrictions", w.as(form...)...)
		}
		scope := []string{"admin.restriction.missing_scope", "admin.restriction.empty_scope", "admin.restriction.invalid_scope"}
		value := []string{"admin.restriction.missing_value", "admin.restriction.empty_value"}
		category := []string{"admin.restriction.missing_category", "admin.restriction.invalid_category", "admin.restriction.empty_category"}
		do().Want(t, 422, slices.Concat(scope, value)...)
		w.old.Post(t, "/admin/restrictions", w.as()...).Want(t, 422, slices.Concat(scope, value, category)...)
		do("scope", "", "value", "", "category", "", "state", "", "code", "").Want(t, 422,
			"admin.restriction.empty_scope", "admin.restriction.invalid_scope", "admin.restriction.empty_value",
			"admin.restriction.invalid_category", "admin.restriction.empty_category",
			"admin.restriction.empty_state", "admin.restriction.invalid_state", "admin.restriction.empty_code")
		for _, c := range []struct {
			form []string
			want []string
		}{
			{[]string{"scope", "zz", "value", "x", "category", "zz", "state", "zz", "code", "zz"}, []string{
				"admin.restriction.invalid_scope", "admin.restriction.invalid_category", "admin.restriction.invalid_state", "invalid",
			}},
			{[]string{"scope", "ip", "value", "x"}, []string{"value.invalid"}},
			{[]string{"scope", "ip", "value", "192.0.2.256"}, []string{"value.invalid"}},
			{[]string{"scope", "ip_subnet", "value", "192.0.2.0"}, []string{"value.invalid"}},
			{[]string{"scope", "ip_subnet", "value", "192.0.2.0/33"}, []string{"value.invalid"}},
			{[]string{"scope", "country", "value", strings.Repeat("x", 65)}, []string{"value.too_long"}},
			{[]string{"scope", "ip", "value", "192.0.2.1", "code", "200"}, []string{"code.inclusion"}},
			{[]string{"scope", "ip", "value", "192.0.2.1", "code", "302"}, []string{"code.inclusion"}},
			{[]string{"scope", "ip", "value", "192.0.2.1", "code", "0"}, []string{"code.inclusion"}},
			{[]string{"scope", "ip", "value", "192.0.2.1", "code", "9223372036854775807"}, []string{"code.inclusion"}},
			{[]string{"scope", "ip", "value", "x", "code", "600"}, []string{"value.invalid", "code.inclusion"}},
		} {
			do(c.form...).Want(t, 422, c.want...)
		}
		if got := w.lines(t); len(got) != 0 {
			t.Fatalf("a refused call left %q", got)
		}

		w.Notices()
		do("scope", "ip", "value", "192.0.2.1").WantBody(t, 201, "201")
		if got := w.Notices(); !slices.Equal(got, []bus.Notice{{Kind: bus.PolicyChanged}}) {
			t.Errorf("notices %v", got)
		}
		if o := w.rules.Snapshot().Restrict(netip.MustParseAddr("192.0.2.1"), "x"); !o.Refused || o.Status != 401 {
			t.Errorf("not in force: %+v", o)
		}
		do("scope", "ip", "value", "192.0.2.1").Want(t, 422, "value.taken")
		do("scope", "ip", "value", "192.0.2.1", "category", "whitelist", "code", "200").Want(t, 201) // its code means nothing
		do("scope", "ip", "value", "2001:db8::1", "category", "maintenance").Want(t, 201)
		do("scope", "ip_subnet", "value", "192.0.2.0/24", "code", "451").Want(t, 201)
		do("scope", "country", "value", "UA", "state", "disabled").Want(t, 201)
		do("scope", "continent", "value", "Europe").Want(t, 201)
		w.old.Post(t, "/admin/restrictions", w.as("scope", "all", "value", "all", "category", "maintenance", "state", "disabled")...).WantBody(t, 200, "200")
		want := []string{
			"blacklist ip 192.0.2.1 401 enabled", "whitelist ip 192.0.2.1 401 enabled", "maintenance ip 2001:db8::1 471 enabled",
			"blacklist ip_subnet 192.0.2.0/24 451 enabled", "blacklist country UA 423 disabled", "blacklist continent Europe 423 enabled",
			"maintenance all all 471 disabled",
		}
		if got := w.lines(t); !slices.Equal(got, want) {
			t.Errorf("got %q", got)
		}
		if got := w.changes(t); len(got) != 7 || !strings.HasPrefix(got[0], w.root.UID+` create restriction {"id":`) ||
			!strings.HasSuffix(got[0], `"category":"blacklist","scope":"ip","value":"192.0.2.1","code":401,"state":"enabled"}`) {
			t.Errorf("changes %q", got)
		}
	})
}

func TestUpdateRestriction(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		do := func(form ...string) *apitest.Answer {
			t.Helper()
			return w.s.Put(t, "/admin/restrictions", w.as(form...)...)
		}
		w.s.Post(t, "/admin/restrictions", w.as("scope", "ip", "value", "192.0.2.1")...).Want(t, 201)
		w.s.Post(t, "/admin/restrictions", w.as("scope", "ip", "value", "192.0.2.2")...).Want(t, 201)
		row := w.lastRestriction(t)
		do().Want(t, 422, "admin.restriction.missing_id", "admin.restriction.empty_id")
		do("id", "x").Want(t, 422, "invalid")
		do("id", "0", "state", "disabled").Want(t, 404, "admin.restriction.doesnt_exist")
		do("id", row, "scope", "", "category", "", "value", "", "state", "", "code", "").Want(t, 422,
			"admin.restriction.empty_scope", "admin.restriction.invalid_scope",
			"admin.restriction.invalid_category", "admin.restriction.empty_category", "admin.restriction.empty_value",
			"admin.restriction.empty_state", "admin.restriction.invalid_state", "admin.restriction.empty_code")
		do("id", row, "scope", "ip_subnet").Want(t, 422, "value.invalid") // an address is no network
		do("id", row, "value", strings.Repeat("x", 65), "scope", "country").Want(t, 422, "value.too_long")
		do("id", row, "code", "399").Want(t, 422, "code.inclusion")
		do("id", row, "value", "192.0.2.1").Want(t, 422, "value.taken")
		changes := len(w.changes(t))
		do("id", row).WantBody(t, 200, "200")
		if got := len(w.changes(t)); got != changes {
			t.Errorf("nothing changed, and %d changes were recorded", got-changes)
		}
		do("id", row, "category", "maintenance").Want(t, 200) // keeps its code
		do("id", row, "code", "503").Want(t, 200)
		do("id", row, "category", "whitelist", "code", "503").Want(t, 200)
		do("id", row, "state", "disabled").Want(t, 200)
		if got := w.lines(t); got[1] != "whitelist ip 192.0.2.2 401 disabled" {
			t.Errorf("got %q", got)
		}
		got := w.changes(t)
		if !strings.HasPrefix(got[changes], w.root.UID+" update restriction ") || !strings.Contains(got[changes], `"category":"blacklist"`) ||
			!strings.Contains(got[changes], `"category":"maintenance","scope":"ip","value":"192.0.2.2","code":401`) {
			t.Errorf("change %s", got[changes])
		}
		w.old.Put(t, "/admin/restrictions", w.as("id", row, "state", "enabled")...).WantBody(t, 200, "200")
		if o := w.rules.Snapshot().Restrict(netip.MustParseAddr("192.0.2.2"), "x"); o.Rule == nil || o.Rule.Category != "whitelist" {
			t.Errorf("not in force: %+v", o)
		}

		// A row whose code was never valid can still be switched off.
		bad := 200
		w.Update(t, func(ctx ctx, tx *db.Tx) error {
			return tx.InsertRestriction(ctx, db.Who{}, &db.Restriction{Category: "blacklist", Scope: "ip", Value: "192.0.2.3", Code: &bad, State: "enabled"})
		})
		do("id", w.lastRestriction(t), "state", "disabled").Want(t, 200)
	})
}

func TestDeleteRestriction(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		const path = "/admin/restrictions"
		w.s.Post(t, path, w.as("scope", "ip", "value", "192.0.2.1")...).Want(t, 201)
		w.s.Post(t, path, w.as("scope", "ip", "value", "192.0.2.2")...).Want(t, 201)
		w.s.Delete(t, path, w.ask()...).Want(t, 422, "admin.restriction.missing_id", "admin.restriction.empty_id")
		w.s.Delete(t, path, w.ask("id", "x")...).Want(t, 422, "invalid")
		w.s.Delete(t, path, w.ask("id", "999999")...).Want(t, 404, "admin.restriction.doesnt_exist")
		row := w.lastRestriction(t)
		w.s.Delete(t, path, w.ask("id", row)...).WantBody(t, 204, "")
		w.s.Delete(t, path, w.ask("id", row)...).Want(t, 404, "admin.restriction.doesnt_exist")
		if o := w.rules.Snapshot().Restrict(netip.MustParseAddr("192.0.2.2"), "x"); o.Refused {
			t.Errorf("still in force: %+v", o)
		}
		w.old.Delete(t, path, w.as("id", w.lastRestriction(t))...).WantBody(t, 200, "200")
		got := w.changes(t)
		if len(got) != 4 || !strings.HasPrefix(got[2], w.root.UID+" delete restriction {") {
			t.Errorf("changes %q", got)
		}
	})
}

func TestListRestrictions(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		const path = "/admin/restrictions"
		w.s.Post(t, path, w.as("scope", "ip", "value", "192.0.2.1")...).Want(t, 201)
		w.Clock.Advance(time.Hour)
		w.s.Post(t, path, w.as("scope", "country", "value", "UA", "category", "maintenance")...).Want(t, 201)
		w.s.Put(t, path, w.as("id", "1", "state", "disabled")...).Want(t, 200)
		hour := strconv.FormatInt(w.Clock.Now().Add(-time.Minute).Unix(), 10)
		for _, c := range []struct {
			query []string
			want  string
		}{
			{nil, "192.0.2.1 UA"},
			{[]string{"scope", "ip"}, "192.0.2.1"},
			{[]string{"category", "maintenance"}, "UA"},
			{[]string{"category", "maintenance", "scope", "ip"}, ""},
			{[]string{"from", hour}, "UA"},
			{[]string{"to", hour}, "192.0.2.1"},
			{[]string{"range", "updated", "from", hour}, "192.0.2.1 UA"},
			{[]string{"from", ""}, "192.0.2.1 UA"},
			{[]string{"limit", "1", "page", "2"}, "UA"},
		} {
			var got []string
			a := w.s.Get(t, path, w.ask(c.query...)...).Want(t, 200)
			for _, r := range a.List(t) {
				got = append(got, r["value"].(string))
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("%q: got %q, want %q", c.query, got, c.want)
			}
		}
		a := w.s.Get(t, path, w.ask("limit", "1")...)
		keys := apitest.ObjectKeys(t, a.Body[1:len(a.Body)-1])
		if !slices.Equal(keys, []string{"id", "category", "scope", "value", "code", "state", "created_at", "updated_at"}) {
			t.Errorf("keys %q", keys)
		}
		paged(t, w.s, path, "2", apitest.As(w.root))
		w.s.Get(t, path, w.ask("scope", "", "category", "", "range", "")...).Want(t, 422,
			"admin.restriction.empty_scope", "admin.restriction.invalid_scope", "admin.restriction.empty_category",
			"admin.restriction.invalid_category", "admin.restriction.invalid_range")
		w.s.Get(t, path, w.ask("from", "x", "to[]", "1")...).Want(t, 422, "invalid", "invalid")
		w.old.Get(t, path, w.ask("from", "x")...).Want(t, 200)
	})
}

func TestBlockLogin(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		const path = "/admin/restrictions"
		u := w.NewUser(t, nil)
		open := func() {
			t.Helper()
			w.open(t, u)
			w.open(t, w.root)
			w.Notices()
		}
		ended := func(what string, want bool) {
			t.Helper()
			told := slices.Contains(w.Notices(), bus.Notice{Kind: bus.SessionsGone})
			if gone := w.sessions(t, u)+w.sessions(t, w.root) == 0; gone != want || told != want {
				t.Errorf("%s: sessions gone %v, others told %v, want %v", what, gone, told, want)
			}
		}
		open()
		w.s.Post(t, path, w.as("scope", "ip", "value", "192.0.2.1", "category", "blocklogin", "state", "disabled")...).Want(t, 201)
		ended("disabled", false)
		row := w.lastRestriction(t)
		w.s.Put(t, path, w.as("id", row, "state", "enabled")...).Want(t, 200)
		ended("enabled", true)
		open()
		w.s.Put(t, path, w.as("id", row, "code", "403")...).Want(t, 200)
		ended("another code", false)
		w.s.Delete(t, path, w.ask("id", row)...).Want(t, 204)
		ended("deleted", false)
		w.s.Post(t, path, w.as("scope", "all", "value", "all", "category", "blocklogin")...).Want(t, 201)
		ended("created", true)
		open()
		w.s.Post(t, path, w.as("scope", "ip", "value", "192.0.2.1")...).Want(t, 201)
		ended("another category", false)
		w.s.Put(t, path, w.as("id", w.lastRestriction(t), "category", "blocklogin")...).Want(t, 200)
		ended("changed to blocklogin", true)
	})
}

func TestWhitelink(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		const path = "/admin/restrictions/whitelink"
		do := func(form ...string) *apitest.Answer {
			t.Helper()
			return w.s.Post(t, path, w.as(form...)...)
		}
		seen := map[string]bool{}
		for _, c := range []struct {
			form []string
			life time.Duration
		}{
			{nil, 24 * time.Hour},
			{[]string{"expire_time", "5", "range", "hour"}, 5 * time.Hour},
			{[]string{"expire_time", "30"}, 30 * 24 * time.Hour},
		} {
			token, _ := do(c.form...).Want(t, 201).Object(t)["whitelink_token"].(string)
			if !apitest.Hex(token, 64) || seen[token] {
				t.Errorf("token %q", token)
			}
			seen[token] = true
			link, err := w.DB.Whitelink(t.Context(), token)
			if err != nil {
				t.Fatal(err)
			}
			if left := link.ExpiresAt.Sub(w.Clock.Now()); left > c.life || left < c.life-time.Minute || link.UserID != w.root.ID || link.Used {
				t.Errorf("%q: %+v, %v left", c.form, link, left)
			}
		}
		w.old.Post(t, path, apitest.As(w.root), apitest.JSON(map[string]any{"expire_time": 30, "range": "day"})).Want(t, 201)
		for _, c := range []struct {
			form []string
			want []string
		}{
			{[]string{"expire_time", "31"}, []string{"invalid_expire"}},
			{[]string{"expire_time", "0"}, []string{"invalid_expire"}},
			{[]string{"expire_time", "x"}, []string{"invalid", "invalid_expire"}},
			{[]string{"expire_time", "", "range", ""}, []string{"admin.restriction.empty_expire_time", "invalid_expire", "admin.restriction.empty_range", "invalid_range"}},
			{[]string{"range", "week"}, []string{"invalid_range"}},
		} {
			do(c.form...).Want(t, 422, c.want...)
		}
	})
}
