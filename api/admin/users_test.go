package admin_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"time"

	"barong/api/account"
	"barong/db"
	"barong/internal/bus"
	"barong/internal/delivery/mail"
	"barong/internal/test/apitest"
	"barong/session"
)

// ptr is a pointer to a text.
func ptr(s string) *string { return &s }

// profile gives a user a profile.
func (w *world) profile(t testing.TB, u *db.User, p db.Profile) *db.Profile {
	t.Helper()
	p.UserID = u.ID
	w.Update(t, func(ctx ctx, tx *db.Tx) error { return tx.InsertProfile(ctx, &p) })
	return &p
}

// open gives a user a session and returns it.
func (w *world) open(t testing.TB, u *db.User) (session.ID, *session.Session) {
	t.Helper()
	now := w.Clock.Now().UTC().Truncate(time.Millisecond)
	id := session.NewID()
	s := &session.Session{
		Key: id.Key(), UID: u.UID, Epoch: w.Fresh(t, u).Epoch(), CSRF: "00000000000000000000", IP: netip.MustParseAddr("192.0.2.7"),
		UserAgent: apitest.UserAgent, CreatedAt: now, SeenAt: now, ExpiresAt: now.Add(time.Hour), EndsAt: now.Add(time.Hour),
	}
	if err := w.Sessions.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	return id, s
}

func (w *world) sessions(t testing.TB, u *db.User) int {
	t.Helper()
	list, err := w.Accounts.ListSessions(t.Context(), w.Fresh(t, u))
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// key gives a user an API key.
func (w *world) key(t testing.TB, u *db.User, kid string, scope ...string) {
	t.Helper()
	w.Update(t, func(ctx ctx, tx *db.Tx) error {
		return tx.InsertAPIKey(ctx, &db.APIKey{UserID: u.ID, KID: kid, Algorithm: "HS256", Scope: scope, State: "active", Secret: "s"})
	})
}

func (w *world) keyStates(t testing.TB, u *db.User) []string {
	t.Helper()
	rows, _, err := w.DB.UserAPIKeys(t.Context(), u.ID, db.Page{Number: 1, Size: 100})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, k := range rows {
		out = append(out, k.State)
	}
	return out
}

func TestListUsers(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.Clock.Advance(time.Hour) // root is older than the others
		alice := w.NewUser(t, func(u *db.User) { u.Level, u.ReferralID, u.Data = 2, &w.root.ID, ptr(`{"a":1}`) })
		bob := w.NewUser(t, func(u *db.User) { u.State = "locked" })
		w.profile(t, alice, db.Profile{FirstName: ptr("Robert"), LastName: ptr("Brown"), Country: ptr("gb")})
		w.profile(t, alice, db.Profile{FirstName: ptr("Bob"), LastName: ptr("Green"), State: db.ProfileVerified})
		w.profile(t, bob, db.Profile{FirstName: ptr("Robert"), LastName: ptr("Green"), Country: ptr("US")})
		hour := strconv.FormatInt(w.Clock.Now().Add(-time.Minute).Unix(), 10)
		for _, c := range []struct {
			query []string
			want  []*db.User
		}{
			{nil, []*db.User{w.root, alice, bob}},
			{[]string{"uid", alice.UID}, []*db.User{alice}},
			{[]string{"uid", ""}, nil},
			{[]string{"email", bob.Email}, []*db.User{bob}},
			{[]string{"email", ""}, nil},
			{[]string{"role", "member"}, []*db.User{alice, bob}},
			{[]string{"role", "member", "state", "locked"}, []*db.User{bob}},
			{[]string{"state", ""}, nil},
			{[]string{"level", "2"}, []*db.User{alice}},
			{[]string{"level", ""}, nil},
			{[]string{"level", "99999999999"}, nil},
			{[]string{"first_name", "Robert"}, []*db.User{alice, bob}},
			{[]string{"first_name", "rOBERT"}, []*db.User{alice, bob}},
			{[]string{"first_name", "robert "}, []*db.User{alice, bob}},
			{[]string{"first_name", "rob"}, nil},
			{[]string{"first_name", "Robert", "last_name", "Green"}, []*db.User{bob}}, // in one profile
			{[]string{"first_name", "Robert", "country", "gb"}, []*db.User{alice}},
			{[]string{"country", "Gb"}, []*db.User{alice}},
			{[]string{"country", "GBR"}, nil},
			{[]string{"from", hour}, []*db.User{alice, bob}},
			{[]string{"to", hour}, []*db.User{w.root}},
			{[]string{"from", ""}, []*db.User{w.root, alice, bob}},
			{[]string{"to", ""}, nil},
			{[]string{"range", "updated", "from", hour}, []*db.User{alice, bob}},
			{[]string{"from", "-9223372036854775808", "to", "9223372036854775807"}, []*db.User{w.root, alice, bob}},
			{[]string{"limit", "1", "page", "2"}, []*db.User{alice}},
			{[]string{"uid", "' OR 1=1 --"}, nil},
			{[]string{"role", `\`, "state", "-- "}, nil},
			{[]string{"extended", "true", "uid", bob.UID}, []*db.User{bob}},
		} {
			wantUIDs(t, w.s.Get(t, "/admin/users", w.ask(c.query...)...), c.want...)
		}
		w.s.Get(t, "/admin/users", w.ask("uid", alice.UID)...).WantBody(t, 200, fmt.Sprintf(
			`[{"email":%q,"uid":%q,"role":"member","level":2,"otp":false,"state":"active","referral_uid":%q,"data":"{\"a\":1}"}]`,
			alice.Email, alice.UID, w.root.UID))
		w.s.Get(t, "/admin/users?uid", apitest.As(w.root), apitest.Query("limit", "1")).Want(t, 200) // a bare name is no filter

		a := w.s.Get(t, "/admin/users", w.ask("uid", alice.UID, "extended", "yes")...).Want(t, 200)
		if list := a.List(t); len(list) != 1 || len(list[0]["profiles"].([]any)) != 2 {
			t.Errorf("extended: %s", a.Body)
		}
		paged(t, w.s, "/admin/users", "3", apitest.As(w.root))
		w.s.Get(t, "/admin/users", w.ask("extended", "x", "level", "y", "range", "z", "from", "a", "to", "b")...).
			Want(t, 422, "admin.user.non_boolean_extended", "invalid", "admin.user.invalid_range", "invalid", "invalid")
		w.s.Get(t, "/admin/users", w.ask("uid[]", "x", "email[a]", "y")...).Want(t, 422, "invalid", "invalid")
	})
}

func TestListPending(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		alice, bob, carol := w.NewUser(t, nil), w.NewUser(t, nil), w.NewUser(t, nil)
		w.label(t, carol, "document", "pending", "public") // users write these themselves
		w.label(t, bob, "document", "replaced", "private")
		w.Clock.Advance(time.Minute)
		w.label(t, alice, "document", "pending", "private")
		w.label(t, carol, "document", "verified", "private")
		const path = "/admin/users/documents/pending"
		wantUIDs(t, w.s.Get(t, path, w.ask()...), bob, alice)
		wantUIDs(t, w.s.Get(t, path, w.ask("uid", alice.UID)...), alice)
		wantUIDs(t, w.s.Get(t, path, w.ask("role", "trader")...))
		wantUIDs(t, w.s.Get(t, path, w.ask("limit", "1", "page", "2")...), alice)
		a := w.s.Get(t, path, w.ask("extended", "true", "uid", bob.UID)...).Want(t, 200)
		if list := a.List(t); len(list) != 1 || len(list[0]["labels"].([]any)) != 1 || list[0]["documents"] == nil {
			t.Errorf("extended: %s", a.Body)
		}
		paged(t, w.s, path, "2", apitest.As(w.root))
		w.s.Get(t, path, w.ask("extended", "x", "range", "z", "level", "x")...).
			Want(t, 422, "admin.user.non_boolean_extended", "invalid", "admin.user.invalid_range")
	})
}

func TestShowUser(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		u := w.NewUser(t, func(u *db.User) { u.ReferralID = &w.root.ID })
		w.label(t, u, "note", "open", "public")
		a := w.s.Get(t, "/admin/users/"+u.UID, apitest.As(w.root)).Want(t, 200)
		want := []string{
			"email", "uid", "role", "level", "otp", "state", "data", "profiles", "labels", "phones", "documents", "data_storages",
			"referral_uid", "created_at", "updated_at",
		}
		if got := a.Keys(t); !slices.Equal(got, want) {
			t.Errorf("got %q", got)
		}
		if o := a.Object(t); o["referral_uid"] != w.root.UID || len(o["labels"].([]any)) != 1 {
			t.Errorf("got %s", a.Body)
		}
		// Names that begin like a literal path are uids too, and a literal path is none.
		for _, uid := range []string{"ID0000000000", "l", "labelsx", "label", "docs", "documents", "role", "labels%20"} {
			w.s.Get(t, "/admin/users/"+uid, apitest.As(w.root)).Want(t, 404, "admin.user.doesnt_exist")
		}
		w.s.Get(t, "/admin/users/%20", apitest.As(w.root)).Want(t, 422, "admin.user.empty_uid")
		w.s.Get(t, "/admin/users/labels", apitest.As(w.root)).Want(t, 422, "admin.user.missing_key", "admin.user.missing_value")
		w.s.Get(t, "/admin/users/labels/list", apitest.As(w.root)).Want(t, 200)
		wantUIDs(t, w.s.Get(t, "/admin/users/documents/pending", apitest.As(w.root)))
		w.s.Get(t, "/admin/users/documents/sessions", apitest.As(w.root)).Want(t, 404, "admin.user.doesnt_exist")
	})
}

// updates are the two spellings of one call, and what their success is in both modes.
var updates = []struct {
	method, path string
	success      int
}{{"PUT", "/admin/users", 200}, {"POST", "/admin/users/update", 201}}

func TestUpdateUser(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		adm, support := w.staff(t, "admin"), w.staff(t, "support")
		for _, call := range updates {
			do := func(who *db.User, form ...string) *apitest.Answer {
				t.Helper()
				return w.s.Do(t, call.method, call.path, apitest.As(who), apitest.Form(form...))
			}
			u := w.NewUser(t, nil)
			for _, c := range []struct {
				form []string
				want []string
			}{
				{nil, []string{"admin.user.missing_uid", "admin.user.empty_uid", "admin.user.one_of_state_otp"}},
				{[]string{"uid", " ", "state", "x"}, []string{"admin.user.empty_uid"}},
				{[]string{"uid", u.UID}, []string{"admin.user.one_of_state_otp"}},
				{[]string{"uid", u.UID, "state", "banned", "otp", "false"}, []string{"admin.user.one_of_state_otp"}},
				{[]string{"uid", u.UID, "state", ""}, []string{"admin.user.empty_state"}},
				{[]string{"uid", u.UID, "otp", ""}, []string{"admin.user.empty_otp"}},
				{[]string{"uid", u.UID, "otp", "x"}, []string{"invalid"}},
				{[]string{"uid", u.UID, "otp", "true"}, []string{"admin.user.enable_2fa"}},
				{[]string{"uid", u.UID, "otp", "false"}, []string{"admin.user.otp_no_change"}},
				{[]string{"uid", u.UID, "state", "active"}, []string{"admin.user.state_no_change"}},
				{[]string{"uid", u.UID, "state", "any_word"}, []string{"state.inclusion"}},
				{[]string{"uid", w.root.UID, "state", "banned"}, []string{"admin.user.update_himself"}},
			} {
				do(w.root, c.form...).Want(t, 422, c.want...)
			}
			do(w.root, "uid", "ID0000000000", "state", "banned").Want(t, 404, "admin.user.doesnt_exist")

			// Ranks: superadmin, admin, everybody else.
			do(adm, "uid", w.root.UID, "state", "banned").Want(t, 422, "admin.user.superadmin_change")
			do(support, "uid", adm.UID, "otp", "false").Want(t, 422, "admin.user.superadmin_change")
			do(support, "uid", support.UID, "state", "banned").Want(t, 422, "admin.user.update_himself")
			do(adm, "uid", support.UID, "state", "pending").Want(t, call.success)
			do(support, "uid", w.NewStaff(t, "support").UID, "state", "pending").Want(t, call.success)
			do(w.root, "uid", support.UID, "state", "active").Want(t, call.success)

			// No other column is ever written, wherever its name stands.
			before := w.Fresh(t, u)
			do(w.root, "role", "superadmin", "level", "9", "email", "x@y.test", "uid", u.UID, "state", "pending", "password_digest", "x").
				WantBody(t, call.success, strconv.Itoa(call.success))
			after := w.Fresh(t, u)
			if after.State != "pending" || !after.StateManual || after.Role != before.Role || after.Level != before.Level ||
				after.Email != before.Email || after.PasswordDigest != before.PasswordDigest {
				t.Errorf("got %+v", after)
			}

			// A ban ends sessions and puts API keys to sleep, and stays whatever the labels say.
			w.open(t, u)
			w.key(t, u, "kid"+call.method)
			w.Events()
			w.Notices()
			do(w.root, "uid", u.UID, "state", "banned").Want(t, call.success)
			if w.sessions(t, u) != 0 || !slices.Equal(w.keyStates(t, u), []string{"inactive"}) {
				t.Errorf("after a ban: %d sessions, keys %v", w.sessions(t, u), w.keyStates(t, u))
			}
			if got := w.EventNames(); !slices.Equal(got, []string{"model.user.updated"}) {
				t.Errorf("events %q", got)
			}
			if !slices.Contains(w.Notices(), bus.Notice{Kind: bus.UserChanged, Subject: u.UID}) {
				t.Error("other replicas were not told")
			}
			w.s.Post(t, "/admin/users/labels", w.as("uid", u.UID, "key", "email", "value", "verified", "scope", "private")...).Want(t, 201)
			if got := w.Fresh(t, u); got.State != "banned" || got.Level != 1 {
				t.Errorf("state %s, level %d after a label", got.State, got.Level)
			}

			// Switching the second factor off.
			w.Update(t, func(ctx ctx, tx *db.Tx) error { u.State = "active"; return tx.UpdateUser(ctx, u, "state") })
			u = w.Fresh(t, u)
			w.Enable2FA(t, u)
			w.label(t, u, "otp", "enabled", "private")
			w.key(t, u, "kid2"+call.method)
			w.open(t, u)
			w.MailKinds(t)
			do(w.root, "uid", u.UID, "otp", "true").Want(t, 422, "admin.user.enable_2fa")
			do(w.root, "uid", u.UID, "otp", "false").Want(t, call.success)
			if u := w.Fresh(t, u); u.OTP || w.sessions(t, u) != 0 || slices.Contains(w.keyStates(t, u), "active") {
				t.Errorf("after the second factor is off: %+v, %d sessions, keys %v", u, w.sessions(t, u), w.keyStates(t, u))
			}
			if _, err := w.DB.Label(t.Context(), u.ID, "otp", account.Private); err == nil {
				t.Error("the label otp stays")
			}
			if got := w.MailKinds(t); !slices.Equal(got, []string{mail.OTPDisabled}) {
				t.Errorf("mails %q", got)
			}

			w.old.Do(t, call.method, call.path, w.as("uid", u.UID, "state", "locked")...).WantBody(t, 200, "200")
			w.old.Do(t, call.method, call.path, w.as()...).
				Want(t, 422, "admin.user.missing_uid", "admin.user.empty_uid", "admin.user.one_of_state_otp")
			w.old.Do(t, call.method, call.path, apitest.As(w.root), apitest.JSON(map[string]any{"uid": []string{"x"}, "state": map[string]int{"a": 1}})).
				Want(t, 422, "invalid", "invalid")
		}
	})
}

func TestSetRole(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		adm, support := w.staff(t, "admin"), w.staff(t, "support")
		u := w.NewUser(t, nil)
		do := func(who *db.User, form ...string) *apitest.Answer {
			t.Helper()
			return w.s.Post(t, "/admin/users/role", apitest.As(who), apitest.Form(form...))
		}
		do(w.root).Want(t, 422, "admin.user.missing_uid", "admin.user.empty_uid", "admin.user.missing_role", "admin.user.empty_role")
		w.s.Post(t, "/admin/users/role", apitest.As(w.root), apitest.JSON(map[string]any{"uid": []string{"x"}, "role": nil})).
			Want(t, 422, "invalid", "admin.user.empty_role")
		do(w.root, "uid", "ID0000000000", "role", "admin").Want(t, 404, "admin.user.doesnt_exist")
		do(w.root, "uid", w.root.UID, "role", "member").Want(t, 422, "admin.user.update_himself")
		do(w.root, "uid", u.UID, "role", "member").Want(t, 422, "admin.user.role_no_change")
		do(w.root, "uid", u.UID, "role", "nothing").Want(t, 422, "role.doesnt_exist")
		do(w.root, "uid", u.UID, "role", "Support").Want(t, 422, "role.doesnt_exist")

		do(adm, "uid", w.root.UID, "role", "member").Want(t, 422, "admin.user.superadmin_change")
		do(adm, "uid", u.UID, "role", "superadmin").Want(t, 422, "admin.user.superadmin_change")
		do(support, "uid", u.UID, "role", "admin").Want(t, 422, "admin.user.superadmin_change")
		do(support, "uid", adm.UID, "role", "member").Want(t, 422, "admin.user.superadmin_change")
		if got := w.Fresh(t, u).Role; got != "member" {
			t.Fatalf("role %s", got)
		}

		w.open(t, u)
		w.Events()
		do(support, "uid", u.UID, "role", "support").WantBody(t, 201, "201")
		if got := w.Fresh(t, u); got.Role != "support" || w.sessions(t, u) != 0 {
			t.Errorf("role %s, %d sessions", got.Role, w.sessions(t, u))
		}
		if got := w.EventNames(); !slices.Equal(got, []string{"model.user.updated"}) {
			t.Errorf("events %q", got)
		}
		do(adm, "uid", u.UID, "role", "admin").Want(t, 201)
		do(w.root, "uid", u.UID, "role", "superadmin").Want(t, 201)
		w.old.Post(t, "/admin/users/role", w.as("uid", u.UID, "role", "member")...).WantBody(t, 200, "200")
	})
}

func TestDeleteStorage(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		adm := w.staff(t, "admin")
		u := w.NewUser(t, nil)
		store := func(u *db.User, title string) {
			w.Update(t, func(ctx ctx, tx *db.Tx) error {
				return tx.InsertDataStorage(ctx, &db.DataStorage{UserID: u.ID, Title: title, Data: `{"k":"v"}`})
			})
		}
		labels := func() []string {
			rows, err := w.DB.Labels(t.Context(), u.ID)
			if err != nil {
				t.Fatal(err)
			}
			out := []string{}
			for _, l := range rows {
				out = append(out, l.Key+"="+l.Value+" "+l.Scope)
			}
			return out
		}
		const path = "/admin/users/data_storage"
		w.s.Delete(t, path, w.ask()...).
			Want(t, 422, "admin.user.missing_uid", "admin.user.empty_uid", "admin.user.missing_title", "admin.user.empty_title")
		w.s.Delete(t, path, w.ask("uid[]", "x", "title", "y")...).Want(t, 422, "invalid")
		w.s.Delete(t, path, w.ask("uid", "ID0000000000", "title", "x")...).Want(t, 404, "admin.user.doesnt_exist")
		w.s.Delete(t, path, w.ask("uid", u.UID, "title", "x")...).Want(t, 404, "admin.storage.doesnt_exist")
		store(w.root, "personal")
		w.s.Delete(t, path, apitest.As(adm), apitest.Query("uid", w.root.UID, "title", "personal")).Want(t, 422, "admin.user.superadmin_change")

		store(u, "Personal")
		w.label(t, u, "personal", "recorded", "private")
		w.label(t, u, "personal", "recorded", "public")
		w.s.Delete(t, path, w.ask("uid", u.UID, "title", "personal")...).WantBody(t, 204, "")
		if got := labels(); !slices.Equal(got, []string{"personal=recorded public"}) {
			t.Errorf("labels %q", got)
		}
		store(u, "company")
		w.label(t, u, "company", "reviewed", "private") // somebody made something else of it
		a := w.old.Delete(t, path, w.as("uid", u.UID, "title", "company")...).Want(t, 200)
		if o := a.Object(t); o["uid"] != u.UID || len(o["data_storages"].([]any)) != 0 || len(o["labels"].([]any)) != 2 {
			t.Errorf("2.4.17: %s", a.Body)
		}
		store(u, "third")
		w.s.Delete(t, path, w.as("uid", u.UID, "title", "third")...).Want(t, 204)
	})
}

func TestSessions(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		adm := w.staff(t, "admin")
		u := w.NewUser(t, nil)
		path := "/admin/users/" + u.UID + "/sessions"
		w.s.Get(t, path, apitest.As(w.root)).WantBody(t, 200, "[]")
		_, first := w.open(t, u)
		w.open(t, u)
		rootID, rootSession := w.open(t, w.root)

		list := w.s.Get(t, path, apitest.As(adm)).Want(t, 200).List(t)
		if len(list) != 2 || list[0]["user_ip"] != "192.0.2.7" || list[0]["device"] != "Firefox on Linux" || list[0]["current"] != false {
			t.Errorf("list %v", list)
		}
		own := w.s.Get(t, "/admin/users/"+w.root.UID+"/sessions", apitest.As(w.root), apitest.Cookie(cookieName, rootID.String())).Want(t, 200).List(t)
		if len(own) != 1 || own[0]["current"] != true || own[0]["id"] != rootSession.Key.String() {
			t.Errorf("own list %v", own)
		}
		for _, s := range []struct{ method, path string }{{"GET", ""}, {"DELETE", ""}, {"DELETE", "/" + first.Key.String()}} {
			w.s.Do(t, s.method, "/admin/users/ID0000000000/sessions"+s.path, apitest.As(w.root)).Want(t, 404, "admin.user.doesnt_exist")
			w.s.Do(t, s.method, "/admin/users/%20/sessions"+s.path, apitest.As(w.root)).Want(t, 422, "admin.user.empty_uid")
		}

		// Whose session it is counts, and who may end it.
		w.s.Delete(t, path+"/"+rootSession.Key.String(), apitest.As(w.root)).Want(t, 404, "record.not_found")
		w.s.Delete(t, path+"/x", apitest.As(w.root)).Want(t, 404, "record.not_found")
		w.s.Delete(t, path+"/%20", apitest.As(w.root)).Want(t, 422, "admin.user.empty_id")
		w.s.Delete(t, "/admin/users/"+w.root.UID+"/sessions/"+rootSession.Key.String(), apitest.As(adm)).Want(t, 422, "admin.user.superadmin_change")
		w.s.Delete(t, "/admin/users/"+w.root.UID+"/sessions", apitest.As(adm)).Want(t, 422, "admin.user.superadmin_change")
		if w.sessions(t, w.root) != 1 || w.sessions(t, u) != 2 {
			t.Fatal("a refused call ended sessions")
		}

		w.Notices()
		w.s.Delete(t, path+"/"+first.Key.String(), apitest.As(adm)).WantBody(t, 204, "")
		if w.sessions(t, u) != 1 || !slices.Contains(w.Notices(), bus.Notice{Kind: bus.SessionGone, Subject: first.Key.String()}) {
			t.Error("the session stays, or nobody was told")
		}
		w.s.Delete(t, path+"/"+first.Key.String(), apitest.As(adm)).Want(t, 404, "record.not_found")
		epoch := w.Fresh(t, u).SessionEpoch
		w.s.Delete(t, path, apitest.As(adm)).WantBody(t, 204, "")
		if w.sessions(t, u) != 0 || w.Fresh(t, u).SessionEpoch <= epoch || w.sessions(t, w.root) != 1 {
			t.Error("sessions stay, or others ended")
		}
	})
}

func TestListAPIKeys(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		u := w.NewUser(t, nil)
		const path = "/admin/api_keys"
		w.s.Get(t, path, w.ask()...).Want(t, 422, "admin.apikey.missing_uid", "admin.apikey.empty_uid")
		w.s.Get(t, path, w.ask("uid[]", "x")...).Want(t, 422, "invalid")
		w.s.Get(t, path, w.ask("uid", "ID0000000000")...).Want(t, 404, "admin.user.doesnt_exist")
		w.s.Get(t, path, w.ask("uid", u.UID)...).WantBody(t, 200, "[]")
		w.key(t, u, "0123456789abcdef", "trade")
		w.key(t, u, "fedcba9876543210")
		w.key(t, w.root, "0000000000000000")
		paged(t, w.s, path, "2", w.ask("uid", u.UID)...)
		list := w.s.Get(t, path, w.ask("uid", u.UID, "limit", "1")...).Want(t, 200)
		if got := apitest.ObjectKeys(t, list.Body[1:len(list.Body)-1]); !slices.Equal(got, []string{"kid", "algorithm", "scope", "state", "created_at", "updated_at"}) {
			t.Errorf("got %q", got)
		}
	})
}
