package admin_test

import (
	"slices"
	"strings"
	"testing"

	"barong/api/admin"
	"barong/api/rest"
	"barong/authz"
	"barong/db"
	"barong/internal/geoip"
	"barong/internal/rules"
	"barong/internal/test/apitest"
)

func TestMain(m *testing.M) {
	apitest.Main(m, admin.New(admin.Options{}).Routes())
}

// A world is the module on the stores of an Env, in both modes, with a superadmin.
type world struct {
	*apitest.Env
	rules *rules.Rules
	root  *db.User
	s     *apitest.Server // reference mode
	old   *apitest.Server // as BARONG_COMPAT=2.4.17
}

const cookieName = "_barong_session"

func start(t *testing.T, e *apitest.Env, change ...func(*rules.Options)) *world {
	t.Helper()
	o := rules.Options{DB: e.DB, Prefix: apitest.Prefix, Locator: geoip.Embedded(), Now: e.Clock.Now}
	for _, f := range change {
		f(&o)
	}
	r, err := rules.New(o)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Env: e, rules: r}
	w.reload(t)
	w.s, w.old = w.serve(t, false), w.serve(t, true)
	w.root = e.NewStaff(t, "superadmin")
	return w
}

func (w *world) serve(t *testing.T, legacy bool, options ...func(*rest.Options)) *apitest.Server {
	t.Helper()
	cookies, err := authz.NewCookies(authz.CookieSettings{Name: cookieName})
	if err != nil {
		t.Fatal(err)
	}
	m := admin.New(admin.Options{
		Accounts: w.Accounts, DB: w.DB, Rules: w.rules, Cookies: cookies, Legacy: legacy,
		FileURL: func(key string) string { return "http://files.test/" + key }, System: someSystem,
	})
	mode := func(o *rest.Options) { o.Policy, o.Legacy = w.rules.Snapshot, legacy }
	return w.Serve(t, m.Routes(), append(options, mode)...)
}

func (w *world) reload(t testing.TB) {
	t.Helper()
	if err := w.rules.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// staff is a new user of a role that may call all of admin.
func (w *world) staff(t testing.TB, role string) *db.User {
	t.Helper()
	w.Permit(t, role, "ALL", apitest.Prefix+"/admin")
	w.reload(t)
	return w.NewStaff(t, role)
}

// each runs f on both engines.
func each(t *testing.T, f func(t *testing.T, w *world)) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) { f(t, start(t, e)) })
}

// as sends the token of the superadmin and a form.
func (w *world) as(form ...string) []apitest.Option {
	return []apitest.Option{apitest.As(w.root), apitest.Form(form...)}
}

// ask sends the token of the superadmin and a query.
func (w *world) ask(query ...string) []apitest.Option {
	return []apitest.Option{apitest.As(w.root), apitest.Query(query...)}
}

// label gives a user a label past the API.
func (w *world) label(t testing.TB, u *db.User, key, value, scope string) {
	t.Helper()
	w.Update(t, func(ctx ctx, tx *db.Tx) error {
		return tx.InsertLabel(ctx, &db.Label{UserID: u.ID, Key: key, Value: value, Scope: scope})
	})
}

// uids are the uids of the users in a list.
func uids(t testing.TB, a *apitest.Answer) []string {
	t.Helper()
	out := []string{}
	for _, u := range a.Want(t, 200).List(t) {
		uid, _ := u["uid"].(string)
		out = append(out, uid)
	}
	return out
}

func wantUIDs(t testing.TB, a *apitest.Answer, want ...*db.User) {
	t.Helper()
	expected := []string{}
	for _, u := range want {
		expected = append(expected, u.UID)
	}
	if got := uids(t, a); !slices.Equal(got, expected) {
		t.Errorf("got %v, want %v", got, expected)
	}
}

// paged holds the codes of page and limit, and what headers a page has.
func paged(t testing.TB, s *apitest.Server, path string, total string, options ...apitest.Option) {
	t.Helper()
	a := s.Get(t, path, options...).Want(t, 200)
	if a.Header.Get("Total") != total || a.Header.Get("Page") != "1" || a.Header.Get("Per-Page") != "100" {
		t.Errorf("%s: headers %v, want a total of %s", path, a.Header, total)
	}
	a = s.Get(t, path, append(options, apitest.Query("page", "7", "limit", "2"))...).Want(t, 200)
	if a.Body != "[]" || !strings.Contains(a.Header.Get("Link"), `rel="first"`) {
		t.Errorf("%s: beyond the end: %s, %v", path, a.Body, a.Header)
	}
	s.Get(t, path, append(options, apitest.Query("page", "x", "limit", "y"))...).
		Want(t, 422, "non_integer_page", "non_positive_page", "non_integer_limit", "invalid_limit")
	s.Get(t, path, append(options, apitest.Query("page", "0", "limit", "101"))...).Want(t, 422, "non_positive_page", "invalid_limit")
}

// TestAccess holds that no route answers without a token, or for a role that no rule lets through.
func TestAccess(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		member := w.NewUser(t, nil)
		for _, r := range admin.New(admin.Options{}).Routes() {
			path := strings.NewReplacer("{uid}", w.root.UID, "{id}", strings.Repeat("0", 64)).Replace(r.Path)
			w.s.Do(t, r.Method, path).Want(t, 401, "jwt.decode_and_verify")
			w.s.Do(t, r.Method, path, apitest.As(member)).Want(t, 401, "authz.invalid_permission")
			if r.Method == "GET" {
				if a := w.s.Do(t, "HEAD", path, apitest.As(w.root)); a.Body != "" || a.Status != 200 && a.Status != 422 {
					t.Errorf("HEAD %s: %d %q", path, a.Status, a.Body)
				}
			}
			if a := w.s.Do(t, "OPTIONS", path, apitest.As(w.root)); a.Status != 204 || !strings.Contains(a.Header.Get("Allow"), r.Method) {
				t.Errorf("OPTIONS %s: %d, Allow %q", path, a.Status, a.Header.Get("Allow"))
			}
		}
		if got := len(w.Audited()); got == 0 {
			t.Error("refusals were not recorded")
		}
	})
}

// TestRefusalsAreWhole holds that a refusal of a direct call is recorded with what the call asked for, in any form.
func TestRefusalsAreWhole(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		member := w.NewUser(t, nil)
		for _, c := range []struct {
			option apitest.Option
			body   string
		}{
			{apitest.Form("uid", w.root.UID), "uid=" + w.root.UID},
			{apitest.Body("application/json", `{"uid":"x"}`), `{"uid":"x"}`},
			{apitest.Body("application/json", strings.Repeat("x", rest.DefaultMaxBody+1)), ""}, // refused, and recorded, all the same
			{apitest.Query("uid", "x"), ""},
		} {
			w.Audited()
			w.s.Do(t, "PUT", "/admin/users", apitest.As(member), c.option).Want(t, 401, "authz.invalid_permission")
			rows := w.Audited()
			if len(rows) != 1 || string(rows[0].Body) != c.body || c.body != "" && rows[0].ContentType == "" {
				t.Errorf("%.50q: recorded %+.200v", c.body, rows)
			}
		}
	})
}

// TestBody holds what a handler gets to see of a body that is none.
func TestBody(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		for _, s := range []*apitest.Server{w.s, w.old} {
			s.Post(t, "/admin/users/labels", apitest.As(w.root), apitest.Body("application/json", "{bad")).Want(t, 400, "request.malformed_body")
			s.Post(t, "/admin/users/labels", apitest.As(w.root), apitest.Body("application/xml", "<a/>")).
				WantBody(t, 415, `{"error":"The provided content-type 'application/xml' is not supported."}`)
			s.Get(t, "/admin/nothing", apitest.As(w.root)).WantBody(t, 404, `{"error":"Route is not found"}`)
			s.Patch(t, "/admin/users", apitest.As(w.root)).WantBody(t, 404, `{"error":"Route is not found"}`)
		}
	})
}

// TestCallerMeanwhile holds that a caller who was let through, and lost their account or role before the body had
// arrived, changes nothing.
func TestCallerMeanwhile(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		u := w.NewUser(t, nil)
		seen := make(chan struct{}, 1)
		s := w.serve(t, false, func(o *rest.Options) { o.Users = watched{w.DB, seen} })
		for _, c := range []struct {
			column string
			lose   func(u *db.User)
			code   string
		}{
			{"role", func(u *db.User) { u.Role = "member" }, "authz.invalid_permission"},
			{"state", func(u *db.User) { u.State = "banned" }, "authz.user_not_active"},
		} {
			staff := w.NewStaff(t, "superadmin")
			body := &slow{
				text: "uid=" + u.UID + "&state=banned",
				halfway: func() {
					<-seen
					c.lose(staff)
					w.Update(t, func(ctx ctx, tx *db.Tx) error { return tx.UpdateUser(ctx, staff, c.column) })
				},
			}
			if status, answer := body.put(t, s.URL+"/api/v2/admin/users", w.Token(t, staff)); status != 401 || !strings.Contains(answer, c.code) {
				t.Errorf("%s: got %d %s, want %s", c.column, status, answer, c.code)
			}
			if w.Fresh(t, u).State != "active" {
				t.Errorf("%s: the edit was made", c.column)
			}
		}
	})
}
