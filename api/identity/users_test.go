package identity_test

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"barong/api/account"
	"barong/db"
	"barong/internal/crypto/keys"
	"barong/internal/limit"
	"barong/internal/test/apitest"
	"barong/session"
)

const otherPassword = "Wm3#kdPq81zRo"

func TestSignUp(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		s := start(t, e, nil)
		a := s.Post(t, "/identity/users", apitest.JSON(map[string]any{
			"email": " New@Barong.Test ", "password": apitest.Password, "lang": "fr", "data": `{"language":"en", "a":[1]}`,
			"role": "superadmin", "level": 3, "state": "active", "otp": true, "captcha_response": "ignored",
		}), apitest.IP("203.0.113.8")).Want(t, 201)
		cookie, _ := opened(t, a)
		if !alive(t, e, cookie) {
			t.Error("the session does not live")
		}
		got := a.Object(t)
		for name, want := range map[string]any{
			"email": "new@barong.test", "role": "member", "level": 0.0, "otp": false, "state": "pending", "referral_uid": nil,
			"data": `{"language":"en", "a":[1]}`,
		} {
			if got[name] != want {
				t.Errorf("%s = %v, want %v", name, got[name], want)
			}
		}
		uid := got["uid"].(string)
		if len(uid) != 12 || !strings.HasPrefix(uid, "ID") {
			t.Errorf("uid %q", uid)
		}
		wantActivities(t, e, "account signup succeed")
		events := wantEvents(t, e, "model.user.created", "system.user.email.confirmation.token")
		if got := member[string](t, events[1], "language"); got != "FR" {
			t.Errorf("language %q", got)
		}
		if got := member[string](t, events[1], "domain"); got != "barong.test" {
			t.Errorf("domain %q", got)
		}
		want := apitest.Expect()
		want.Subject = keys.SubjectConfirmation
		claims, err := e.Keys.Verify(apitest.MailToken(t, events), want)
		if err != nil || claims.UID != uid || claims.Email != "new@barong.test" || claims.ExpiresAt.Sub(claims.IssuedAt) != time.Hour {
			t.Errorf("token %+v, %v", claims, err)
		}
		if strings.Contains(a.Body, apitest.MailToken(t, events)) {
			t.Error("the answer tells the token")
		}

		// A browser that was signed in has a new session and its old one is over.
		a = s.Post(t, "/identity/users", apitest.Form("email", "second@barong.test", "password", apitest.Password, "refid", uid), apitest.Cookie(cookieName, cookie)).Want(t, 201)
		if a.Object(t)["referral_uid"] != uid {
			t.Errorf("referral_uid %v", a.Object(t)["referral_uid"])
		}
		if fresh, _ := opened(t, a); fresh == cookie || alive(t, e, cookie) {
			t.Error("the old session stays")
		}
		// No lang is English, an empty refid is none.
		s.Post(t, "/identity/users", apitest.Form("email", "third@barong.test", "password", apitest.Password, "refid", "", "lang", "")).Want(t, 201)
		events = e.Events()
		if got := member[string](t, events[len(events)-1], "language"); got != "EN" {
			t.Errorf("language %q", got)
		}
	})
}

// TestOneAddressInManySpellings: whoever writes a domain in Unicode, with A-labels or in capitals writes one address.
func TestOneAddressInManySpellings(t *testing.T) {
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		s := start(t, e, nil)
		post := func(path, address, password string) *apitest.Answer {
			return s.Post(t, path, apitest.Form("email", address, "password", password))
		}
		for i, spellings := range [][]string{
			{"u@bücher.example", "U@xn--BCHER-kva.example", "u@BÜCHER.example", "u@bu\u0308cher.example", " u@bücher。example "},
			{"u@xn--e1afmkfd.xn--p1ai", "u@пример.рф"},
			{"josé@example.com", "JOSE\u0301@example.com"},
		} {
			shown := []string{"u@bücher.example", "u@пример.рф", "josé@example.com"}[i]
			if got := post("/identity/users", spellings[0], apitest.Password).Want(t, 201).Object(t)["email"]; got != shown {
				t.Errorf("%s is shown as %v", spellings[0], got)
			}
			for _, spelling := range spellings {
				post("/identity/users", spelling, apitest.Password).Want(t, 422, "email.taken")
				post("/identity/sessions", spelling, apitest.Password).Want(t, 201)
				if u, err := e.DB.UserByEmail(t.Context(), spelling); err != nil || u.Email != shown {
					t.Errorf("%q is found as %+v, %v", spelling, u, err)
				}
			}
			for _, m := range e.Mails(t) {
				if m.To != shown {
					t.Errorf("a mail to %q", m.To)
				}
			}
		}
		for _, address := range []string{"u@xn--0.example", "u@example.xn--0", "u@bü_cher.example", "u@bucher.exa_mple"} {
			post("/identity/users", address, apitest.Password).Want(t, 422, "email.invalid")
		}
		post("/identity/users", "u@bucher.example", apitest.Password).Want(t, 201) // another domain
		// The spellings of an address share one limit.
		for i := range limit.EmailCode.Max + 1 {
			address, want := []string{"u@bücher.example", "u@xn--bcher-kva.example"}[i%2], 201
			if i == limit.EmailCode.Max {
				want = 429
			}
			if a := s.Post(t, "/identity/users/email/generate_code", apitest.Form("email", address)); a.Status != want {
				t.Errorf("%d, for %s: %d %s", i, address, a.Status, a.Body)
			}
		}
	})
}

func TestSignUpRefusals(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		s := start(t, e, nil)
		u := e.NewUser(t, nil)
		s.Post(t, "/identity/users").Want(t, 400, "identity.user.missing_email", "identity.user.empty_email", "identity.user.missing_password", "identity.user.empty_password")
		s.Post(t, "/identity/users", apitest.Form("email", " ", "password", "")).Want(t, 400, "identity.user.empty_email", "identity.user.empty_password")
		for _, v := range []string{"email", "password", "refid", "lang", "data"} {
			form := map[string]any{"email": "x@barong.test", "password": apitest.Password}
			form[v] = []string{"x"}
			s.Post(t, "/identity/users", apitest.JSON(form)).Want(t, 422, "invalid")
		}
		for _, c := range []struct {
			form  []string
			codes []string
		}{
			{[]string{"email", "bad", "password", "x", "refid", "XX"}, []string{"identity.user.invalid_referral_format"}},
			{[]string{"refid", "id0123456789"}, []string{"identity.user.invalid_referral_format"}},
			{[]string{"refid", "ID0000000000"}, []string{"identity.user.referral_doesnt_exist"}},
			{[]string{"email", u.Email}, []string{"email.taken"}},
			{[]string{"email", strings.ToUpper(u.Email)}, []string{"email.taken"}},
			{[]string{"email", "bad", "password", "Password1"}, []string{"email.invalid", "password.weak"}},
			{[]string{"password", "simple"}, []string{"password.requirements"}},
			{[]string{"password", strings.Repeat("aB3$", 18) + "x"}, []string{"password.too_long"}},
			{[]string{"password", strings.Repeat("aB3$", 25)}, []string{"password.too_long", "password.requirements"}},
			{[]string{"data", "{"}, []string{"data.invalid_format"}},
			{[]string{"data", ""}, []string{"data.invalid_format"}},
			{[]string{"data", `"` + strings.Repeat("x", 1023) + `"`}, []string{"data.too_long"}},
			{[]string{"data", "{", "email", "bad", "password", "simple"}, []string{"data.invalid_format", "email.invalid", "password.requirements"}},
		} {
			form := []string{"email", "fresh@barong.test", "password", apitest.Password}
			s.Post(t, "/identity/users", apitest.Form(append(form, c.form...)...)).Want(t, 422, c.codes...)
		}
		wantActivities(t, e)
		wantEvents(t, e)
		if n, err := e.DB.CountUsers(t.Context()); err != nil || n != 1 {
			t.Errorf("%d users, %v", n, err)
		}
		statuses := parallel(4, func() int {
			return s.Post(t, "/identity/users", apitest.Form("email", "race@barong.test", "password", apitest.Password)).Status
		})
		if statuses[201] != 1 || statuses[422] != 3 {
			t.Errorf("parallel sign-ups by status: %v", statuses)
		}
	})
}

func TestSignUpWithoutRole(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	s := start(t, e, nil)
	e.Update(t, func(ctx context.Context, tx *db.Tx) error {
		_, err := tx.NewDelete().Model((*db.Permission)(nil)).Where("role = 'member'").Exec(ctx)
		return err
	})
	s.Post(t, "/identity/users", apitest.Form("email", "bad", "password", apitest.Password)).Want(t, 422, "role.doesnt_exist", "email.invalid")
}

// signUp creates an account over the API, and returns it with the token of its mail.
func signUp(t *testing.T, e *apitest.Env, email string) (*db.User, string) {
	t.Helper()
	s := start(t, e, nil)
	s.Post(t, "/identity/users", apitest.Form("email", email, "password", apitest.Password)).Want(t, 201)
	u, err := e.DB.UserByEmail(t.Context(), email)
	if err != nil {
		t.Fatal(err)
	}
	return u, apitest.MailToken(t, e.Events())
}

func TestConfirmEmail(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		s := start(t, e, nil)
		u, token := signUp(t, e, "confirm@barong.test")
		other, _ := signIn(t, s, u)
		e.Events()
		a := s.Post(t, "/identity/users/email/confirm_code", apitest.Form("token", token, "lang", "de"), apitest.Cookie(cookieName, other)).Want(t, 201)
		cookie, _ := opened(t, a)
		got := a.Object(t)
		labels := got["labels"].([]any)
		if got["level"] != 1.0 || got["state"] != "active" || len(labels) != 1 || labels[0].(map[string]any)["key"] != "email" ||
			labels[0].(map[string]any)["value"] != "verified" || labels[0].(map[string]any)["scope"] != "private" {
			t.Errorf("answer %s", a.Body)
		}
		if !alive(t, e, cookie) || alive(t, e, other) {
			t.Error("the session was not replaced")
		}
		id, _ := session.ParseID([]byte(cookie))
		if found, _, err := e.Accounts.Current(t.Context(), id); err != nil || found.Methods != session.MailedToken {
			t.Errorf("the session of a confirmation: %+v, %v", found, err)
		}
		events := wantEvents(t, e, "model.user.updated", "model.user.updated", "model.label.created", "system.user.email.confirmed")
		if got := member[string](t, events[3], "language"); got != "DE" {
			t.Errorf("language %q", got)
		}
		wantActivities(t, e, "account signup succeed", "session login succeed")
		s.Post(t, "/identity/users/email/confirm_code", apitest.Form("token", token)).Want(t, 422, "identity.user.active_or_doesnt_exist")
	})
}

// TestConfirmEmailIsNoSecondFactor holds that a mailbox alone, which is all that the token proves, opens no account with a
// second factor.
func TestConfirmEmailIsNoSecondFactor(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		s := start(t, e, nil)
		u, token := signUp(t, e, "factor@barong.test")
		e.Enable2FA(t, u)
		a := s.Post(t, "/identity/users/email/confirm_code", apitest.Form("token", token)).Want(t, 201)
		if a.SetCookie(cookieName) != nil || slices.Contains(a.Keys(t), "csrf_token") {
			t.Errorf("a session was opened: %s", a.Body)
		}
		if got := a.Object(t); got["state"] != "active" || got["otp"] != true {
			t.Errorf("answer %s", a.Body)
		}
		if live, err := e.Accounts.ListSessions(t.Context(), u); err != nil || len(live) != 1 { // of the sign-up
			t.Errorf("sessions %+v, %v", live, err)
		}
		s.Post(t, "/identity/users/email/confirm_code", apitest.Form("token", token)).Want(t, 422, "identity.user.active_or_doesnt_exist")
	})
}

func TestConfirmEmailParameters(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	s := start(t, e, nil)
	path := "/identity/users/email/confirm_code"
	s.Post(t, path).Want(t, 400, "identity.user.missing_token", "identity.user.empty_token")
	s.Post(t, path, apitest.Form("token", "  ")).Want(t, 400, "identity.user.empty_token")
	s.Post(t, path, apitest.JSON(map[string]any{"token": nil})).Want(t, 400, "identity.user.empty_token")
	s.Post(t, path, apitest.JSON(map[string]any{"token": []string{"x"}})).Want(t, 422, "invalid")
	s.Post(t, path, apitest.Form("token", "x", "lang", " ")).Want(t, 422, "identity.user.empty_lang")
}

// TestConfirmOnlyPending holds that a confirmation opens no account that staff has closed, and none twice.
func TestConfirmOnlyPending(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		s := start(t, e, nil)
		confirm := func(token string) *apitest.Answer {
			return s.Post(t, "/identity/users/email/confirm_code", apitest.Form("token", token))
		}
		for _, state := range []string{"banned", "locked", "deleted"} {
			u, token := signUp(t, e, state+"@barong.test")
			update(t, e, func(ctx context.Context, unit *account.Unit) error { return unit.SetState(ctx, u, state) })
			confirm(token).Want(t, 422, "identity.user.active_or_doesnt_exist")
			if got := e.Fresh(t, u).State; got != state {
				t.Errorf("%s became %s", state, got)
			}
		}
		// A state that staff has set stays, though the address is confirmed.
		u, token := signUp(t, e, "manual@barong.test")
		update(t, e, func(ctx context.Context, unit *account.Unit) error { return unit.SetState(ctx, u, "active") })
		update(t, e, func(ctx context.Context, unit *account.Unit) error { return unit.SetState(ctx, u, "pending") })
		if a := confirm(token).Want(t, 201); a.Object(t)["state"] != "pending" || a.Object(t)["level"] != 1.0 {
			t.Errorf("answer %s", a.Body)
		}
		confirm(token).Want(t, 422, "identity.user.utilized_token")

		// A label that is there already is no obstacle.
		u, token = signUp(t, e, "label@barong.test")
		update(t, e, func(ctx context.Context, unit *account.Unit) error {
			_, err := unit.CreateLabel(ctx, u, "email", "unknown", account.Private, nil)
			return err
		})
		if a := confirm(token).Want(t, 201); a.Object(t)["state"] != "active" {
			t.Errorf("answer %s", a.Body)
		}

		// Of parallel uses exactly one wins.
		_, token = signUp(t, e, "parallel@barong.test")
		statuses := parallel(5, func() int { return confirm(token).Status })
		if statuses[201] != 1 || statuses[422] != 4 {
			t.Errorf("parallel confirmations by status: %v", statuses)
		}

		// An address that belongs to somebody else by now is not confirmed by the token of its former owner.
		u, token = signUp(t, e, "former@barong.test")
		e.Update(t, func(ctx context.Context, tx *db.Tx) error {
			u.Email = "moved@barong.test"
			return tx.UpdateUser(ctx, u, "email")
		})
		confirm(token).Want(t, 422, "identity.user.active_or_doesnt_exist")
		e.NewUser(t, func(u *db.User) { u.Email, u.State = "former@barong.test", "pending" })
		confirm(token).Want(t, 422, "identity.user.active_or_doesnt_exist")
	})
}

func update(t *testing.T, e *apitest.Env, f func(ctx context.Context, u *account.Unit) error) {
	t.Helper()
	if err := e.Accounts.Update(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

func TestResendConfirmation(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		s := start(t, e, nil)
		path := "/identity/users/email/generate_code"
		u, first := signUp(t, e, "resend@barong.test")
		active := e.NewUser(t, nil)
		for _, email := range []string{"nobody@barong.test", "no address", active.Email} {
			a := s.Post(t, path, apitest.Form("email", email)).WantBody(t, 201, "201")
			if a.SetCookie(cookieName) != nil {
				t.Error("a cookie is set")
			}
			wantEvents(t, e)
		}
		s.Post(t, path, apitest.Form("email", strings.ToUpper(u.Email), "lang", "ru")).WantBody(t, 201, "201")
		events := wantEvents(t, e, "system.user.email.confirmation.token")
		if got := member[string](t, events[0], "language"); got != "RU" {
			t.Errorf("language %q", got)
		}
		// Whoever asks gets the same link sent: nobody's is ended by it.
		if again := apitest.MailToken(t, events); again != first {
			t.Error("another token was sent")
		}
		s.Post(t, "/identity/users/email/confirm_code", apitest.Form("token", first)).Want(t, 201)
		wantActivities(t, e, "account signup succeed")

		s.Post(t, path).Want(t, 400, "identity.user.missing_email", "identity.user.empty_email")
		s.Post(t, path, apitest.Form("email", "")).Want(t, 400, "identity.user.empty_email")
		s.Post(t, path, apitest.JSON(map[string]any{"email": []string{"x"}})).Want(t, 422, "invalid")
	})
}

// TestMailLimits holds that strangers cannot have mails sent without end, nor learn from the limit who has an account,
// nor have the owner refused a reset.
func TestMailLimits(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		s := start(t, e, nil)
		u := e.NewUser(t, func(u *db.User) { u.State = "pending" })
		const confirmation, reset = "/identity/users/email/generate_code", "/identity/users/password/generate_code"
		for path, c := range map[string]struct{ pass, sent int }{confirmation: {5, 5}, reset: {8, 3}} {
			for _, email := range []string{"nobody@barong.test", u.Email} {
				statuses := parallel(8, func() int { return s.Post(t, path, apitest.Form("email", email)).Status })
				if statuses[201] != c.pass || statuses[429] != 8-c.pass {
					t.Errorf("%s %s: answers by status: %v", path, email, statuses)
				}
			}
			sent := e.Mails(t)
			if len(sent) != c.sent {
				t.Errorf("%s: %d mails were sent, want %d", path, len(sent), c.sent)
			}
			for _, m := range sent {
				if m.Text != sent[0].Text {
					t.Errorf("%s: another link was sent", path)
				}
			}
		}
		if a := s.Post(t, confirmation, apitest.Form("email", " "+strings.ToUpper(u.Email))).Want(t, 429, "request.rate_limited"); a.Header.Get("Retry-After") == "" {
			t.Error("429 without Retry-After")
		}
		s.Post(t, reset, apitest.Form("email", " "+strings.ToUpper(u.Email))).WantBody(t, 201, "201")
		var asked int
		for _, row := range e.Activities(t) {
			if row.Topic == "password" {
				asked++
			}
		}
		if sent := e.Mails(t); len(sent) != 0 || asked != 3 {
			t.Errorf("%d mails and %d rows", len(sent), asked)
		}
		// One client is refused in any case, whatever the addresses.
		for range limit.ResetCodeAddress.Max {
			if err := e.Accounts.AllowAddress(t.Context(), limit.ResetCodeAddress, netip.MustParseAddr("203.0.113.8")); err != nil {
				t.Fatal(err)
			}
		}
		s.Post(t, reset, apitest.Form("email", "other@barong.test"), apitest.IP("203.0.113.8")).Want(t, 429, "request.rate_limited")
		e.Clock.Advance(61 * time.Minute)
		s.Post(t, confirmation, apitest.Form("email", u.Email)).Want(t, 201)
		s.Post(t, reset, apitest.Form("email", u.Email)).Want(t, 201)
		if got := len(e.Mails(t)); got != 2 {
			t.Errorf("%d mails were sent an hour later, want 2", got)
		}
	})
}

// TestTokenLimits holds that a client that tries tokens at random is stopped, and nobody else with it.
func TestTokenLimits(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	s := start(t, e, nil)
	confirm, reset := "/identity/users/email/confirm_code", "/identity/users/password/confirm_code"
	bad := apitest.Form("token", "x", "reset_password_token", "x", "password", otherPassword, "confirm_password", otherPassword)
	statuses := parallel(10, func() (n int) {
		for range 5 {
			n += s.Post(t, confirm, bad).Status
			n += s.Post(t, reset, bad).Status
		}
		return n
	})
	if statuses[4220] != 10 {
		t.Errorf("sums of statuses: %v", statuses)
	}
	s.Post(t, confirm, bad).Want(t, 429, "request.rate_limited")
	s.Post(t, reset, bad).Want(t, 429, "request.rate_limited")
	s.Post(t, confirm, bad, apitest.IP("203.0.113.5")).Want(t, 422, "jwt.decode_and_verify.segments")
}

func TestSignUpLimits(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	s := start(t, e, nil)
	bad := apitest.Form("email", "x", "password", "x", "refid", "XX")
	for range 100 {
		s.Post(t, "/identity/users", bad).Want(t, 422, "identity.user.invalid_referral_format")
	}
	s.Post(t, "/identity/users", bad).Want(t, 429, "request.rate_limited")
}

func TestPasswordReset(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		s := start(t, e, nil)
		u := e.NewUser(t, nil)
		e.Enable2FA(t, u)
		key := &db.APIKey{UserID: u.ID, KID: "0123456789abcdef", Algorithm: "HS256", State: "active", Secret: "s"}
		e.Update(t, func(ctx context.Context, tx *db.Tx) error { return tx.InsertAPIKey(ctx, key) })
		request := func(email string) []account.Event {
			t.Helper()
			s.Post(t, "/identity/users/password/generate_code", apitest.Form("email", email, "lang", "de")).WantBody(t, 201, "201")
			return e.Events()
		}
		reset := func(token, password string) *apitest.Answer {
			return s.Post(t, "/identity/users/password/confirm_code",
				apitest.Form("reset_password_token", token, "password", password, "confirm_password", password))
		}
		if got := request("nobody@barong.test"); len(got) != 0 {
			t.Errorf("events for nobody: %v", got)
		}
		old := apitest.MailToken(t, request(u.Email))
		events := request(strings.ToUpper(u.Email))
		token := apitest.MailToken(t, events)
		if len(events) != 1 || events[0].Name != "system.user.password.reset.token" || member[string](t, events[0], "language") != "DE" {
			t.Errorf("events %v", events)
		}
		want := apitest.Expect()
		want.Subject = keys.SubjectReset
		if claims, err := e.Keys.Verify(token, want); err != nil || !apitest.Hex(claims.ResetToken, 20) || claims.UID != u.UID {
			t.Errorf("token %+v, %v", claims, err)
		}
		if token != old {
			t.Error("another token was sent")
		}
		live := []string{openSession(t, e, u), openSession(t, e, u)}

		reset(token, "Password1").Want(t, 422, "password.weak")
		reset(token, "simple").Want(t, 422, "password.requirements")
		reset(token, strings.Repeat("aB3$", 19)).Want(t, 422, "password.too_long")
		reset(token, strings.Repeat("aB3$", 25)).Want(t, 422, "password.too_long", "password.requirements")
		if !alive(t, e, live[0]) {
			t.Error("a refused reset ended the sessions")
		}
		a := reset(token, otherPassword).WantBody(t, 201, "201")
		if a.SetCookie(cookieName) != nil {
			t.Error("a reset opens a session")
		}
		for _, cookie := range live {
			if alive(t, e, cookie) {
				t.Error("a session outlives the reset")
			}
		}
		if k, err := e.DB.UserAPIKey(t.Context(), u.ID, key.KID); err != nil || k.State != "inactive" {
			t.Errorf("API key %+v, %v", k, err)
		}
		if got := e.EventNames(); !slices.Equal(got, []string{"model.user.updated", "system.user.password.reset"}) {
			t.Errorf("events %q", got)
		}
		asked := "password request password reset succeed"
		wantActivities(t, e, asked, asked,
			`password password reset failed {"reason":"Password weak"}`,
			`password password reset failed {"reason":"Password requirements"}`,
			`password password reset failed {"reason":"Password is too long (maximum is 72 characters)"}`,
			`password password reset failed {"reason":"Password is too long (maximum is 72 characters) and Password requirements"}`,
			"password password reset succeed")
		reset(token, apitest.Password).Want(t, 422, "identity.user.utilized_token")
		s.Post(t, "/identity/sessions", apitest.Form("email", u.Email, "password", apitest.Password)).Want(t, 401, "identity.session.invalid_params")
		// The second factor is still asked for.
		s.Post(t, "/identity/sessions", apitest.Form("email", u.Email, "password", otherPassword)).Want(t, 401, "identity.session.missing_otp")

		// Of parallel uses exactly one wins. The new password may be the old one.
		token = apitest.MailToken(t, request(u.Email))
		statuses := parallel(4, func() int { return reset(token, otherPassword).Status })
		if statuses[201] != 1 || statuses[422] != 3 {
			t.Errorf("parallel resets by status: %v", statuses)
		}

		pending := e.NewUser(t, func(u *db.User) { u.State = "pending" })
		reset(apitest.MailToken(t, request(pending.Email)), otherPassword).Want(t, 201)
		signedIn := s.Post(t, "/identity/sessions", apitest.Form("email", pending.Email, "password", otherPassword)).Want(t, 201)
		opened(t, signedIn)
		for _, state := range []string{"banned", "deleted"} {
			closed := e.NewUser(t, func(u *db.User) { u.State = state })
			token := apitest.MailToken(t, request(closed.Email))
			reset(token, otherPassword).Want(t, 401, "identity.session."+state)
			if e.Fresh(t, closed).PasswordDigest != closed.PasswordDigest {
				t.Errorf("the password of a %s user was changed", state)
			}
		}
		gone := e.NewUser(t, nil)
		token = apitest.MailToken(t, request(gone.Email))
		e.Update(t, func(ctx context.Context, tx *db.Tx) error {
			_, err := tx.NewDelete().Model(gone).WherePK().Exec(ctx)
			return err
		})
		reset(token, otherPassword).Want(t, 404, "record.not_found")
		e.NewUser(t, func(u *db.User) { u.Email = gone.Email })
		reset(token, otherPassword).Want(t, 422, "identity.user.utilized_token")
	})
}

// openSession opens a session without the cost of a password.
func openSession(t *testing.T, e *apitest.Env, u *db.User) (cookie string) {
	t.Helper()
	id, _, err := e.Accounts.OpenSession(t.Context(), account.Client{}, nil, u.UID, e.Fresh(t, u).Epoch(), session.Password,
		func(context.Context, *account.Unit) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return id.String()
}

func TestPasswordResetParameters(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	s := start(t, e, nil)
	generate, confirm := "/identity/users/password/generate_code", "/identity/users/password/confirm_code"
	s.Post(t, generate).Want(t, 400, "identity.user.missing_email", "identity.user.empty_email")
	s.Post(t, generate, apitest.Form("email", "")).Want(t, 400, "identity.user.empty_email")
	s.Post(t, generate, apitest.JSON(map[string]any{"email": []string{"x"}})).Want(t, 422, "invalid")
	s.Post(t, generate, apitest.JSON(map[string]any{"email": nil})).Want(t, 400, "identity.user.empty_email")
	s.Post(t, confirm).Want(t, 400, "identity.user.missing_pass_token", "identity.user.empty_reset_password_token",
		"identity.user.missing_password", "identity.user.empty_password", "identity.user.missing_confirm_password",
		"identity.user.empty_confirm_password")
	s.Post(t, confirm, apitest.Form("reset_password_token", "", "password", " ", "confirm_password", "")).Want(t, 400,
		"identity.user.empty_reset_password_token", "identity.user.empty_password", "identity.user.empty_confirm_password")
	s.Post(t, confirm, apitest.JSON(map[string]any{"reset_password_token": []string{"x"}, "password": map[string]any{"a": 1}, "confirm_password": "x"})).
		Want(t, 422, "invalid", "invalid")
	// The passwords are compared before the token is looked at.
	s.Post(t, confirm, apitest.Form("reset_password_token", "x", "password", otherPassword, "confirm_password", "other")).
		Want(t, 422, "identity.user.passwords_doesnt_match")
	legacy := start(t, e, nil, apitest.Legacy)
	legacy.Post(t, generate).Want(t, 422, "identity.user.missing_email", "identity.user.empty_email")
}

// TestTokenWords holds what is told of a token that does not verify, for both kinds; and that none is taken for another.
func TestTokenWords(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	s := start(t, e, nil)
	u := e.NewUser(t, func(u *db.User) { u.State = "pending" })
	strange, err := keys.New(keys.EdDSA)
	if err != nil {
		t.Fatal(err)
	}
	other, err := keys.New(keys.ES256)
	if err != nil {
		t.Fatal(err)
	}
	foreign := keys.Fixed(strange, e.Clock.Now)
	for kind, send := range map[string]func(token string) *apitest.Answer{
		"confirmation": func(token string) *apitest.Answer {
			return s.Post(t, "/identity/users/email/confirm_code", apitest.Form("token", token))
		},
		"reset": func(token string) *apitest.Answer {
			return s.Post(t, "/identity/users/password/confirm_code",
				apitest.Form("reset_password_token", token, "password", otherPassword, "confirm_password", otherPassword))
		},
	} {
		now := e.Clock.Now().Unix()
		spoilt := func(name string, v any) string {
			claims := e.Claims(u)
			claims["sub"] = kind
			if name != "" {
				claims[name] = v
				if v == nil {
					delete(claims, name)
				}
			}
			return e.Sign(t, claims)
		}
		good := spoilt("", nil)
		head, rest, _ := strings.Cut(good, ".")
		body, signature, _ := strings.Cut(rest, ".")
		sign := func(r interface{ Sign(any) (string, error) }) string {
			claims := e.Claims(u)
			claims["sub"] = kind
			token, err := r.Sign(claims)
			if err != nil {
				t.Fatal(err)
			}
			return token
		}
		another := map[string]string{"confirmation": "reset", "reset": "confirmation"}[kind]
		for _, c := range []struct{ name, token, word string }{
			{"one part", "x", "segments"},
			{"two parts", "x.y", "segments"},
			{"four parts", good + ".x", "segments"},
			{"very many dots", strings.Repeat(".", 10_000), "segments"},
			{"unsigned", head + "." + body + ".", "segments"},
			{"algorithm none", "eyJhbGciOiJub25lIn0." + body + ".", "segments"},
			{"no base64", "a.b.c", "encoding"},
			{"claims that are no JSON", head + "." + "e30x" + "." + signature, "raised"},
			{"algorithm none, signed", "eyJhbGciOiJub25lIn0." + body + "." + signature, "algorithm"},
			{"HMAC", "eyJhbGciOiJIUzI1NiJ9." + body + "." + signature, "algorithm"},
			{"another algorithm", sign(keys.Fixed(other, e.Clock.Now)), "algorithm"},
			{"another's key", sign(foreign), "raised"},
			{"spoilt signature", good[:len(good)-4] + "AAAA", "raised"},
			{"expired", spoilt("exp", now-1), "expired"},
			{"no expiry", spoilt("exp", nil), "expired"},
			{"not yet valid", spoilt("nbf", now+60), "reached"},
			{"issued in the future", spoilt("iat", now+60), "iat"},
			{"issued at a word", spoilt("iat", "now"), "iat"},
			{"no id", spoilt("jti", nil), "jti"},
			{"a gateway's token", spoilt("sub", "session"), "session"},
			{"the other kind", spoilt("sub", another), another},
			{"a stranger's subject", spoilt("sub", "evil word"), "sub"},
			{"a stranger's issuer", spoilt("iss", "evil word"), "iss"},
			{"a stranger's audience", spoilt("aud", []string{"evil word"}), "aud"},
		} {
			if a := send(c.token); a.Status != 422 || !slices.Equal(a.Codes(), []string{"jwt.decode_and_verify." + c.word}) {
				t.Errorf("%s, %s: %d %s, want %s", kind, c.name, a.Status, a.Body, c.word)
			}
		}
		// Well signed, but never sent.
		send(good).Want(t, 422, "identity.user.utilized_token")
		unknown := e.Claims(u)
		unknown["sub"], unknown["email"] = kind, "nobody@barong.test"
		if kind == "confirmation" {
			send(e.Sign(t, unknown)).Want(t, 422, "identity.user.active_or_doesnt_exist")
		} else {
			send(e.Sign(t, unknown)).Want(t, 404, "record.not_found")
		}
	}
}

// TestTokensAreNotExchanged holds it for tokens that were really sent, and that neither signs anybody in by itself.
func TestTokensAreNotExchanged(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	s := start(t, e, nil)
	u, confirmation := signUp(t, e, "kinds@barong.test")
	s.Post(t, "/identity/users/password/generate_code", apitest.Form("email", u.Email)).Want(t, 201)
	reset := apitest.MailToken(t, e.Events())
	s.Post(t, "/identity/users/email/confirm_code", apitest.Form("token", reset)).Want(t, 422, "jwt.decode_and_verify.reset")
	s.Post(t, "/identity/users/password/confirm_code", apitest.Form("reset_password_token", confirmation,
		"password", otherPassword, "confirm_password", otherPassword)).Want(t, 422, "jwt.decode_and_verify.confirmation")
	for _, token := range []string{confirmation, reset} {
		if _, err := e.Keys.Verify(token, apitest.Expect()); err == nil {
			t.Error("a mail token passes for a gateway token")
		}
	}
	s.Post(t, "/identity/users/email/confirm_code", apitest.Form("token", confirmation)).Want(t, 201)
	s.Post(t, "/identity/users/password/confirm_code", apitest.Form("reset_password_token", reset,
		"password", otherPassword, "confirm_password", otherPassword)).Want(t, 201)
	u2, late := signUp(t, e, "late@barong.test")
	e.Clock.Advance(time.Hour)
	s.Post(t, "/identity/users/email/confirm_code", apitest.Form("token", late)).Want(t, 422, "jwt.decode_and_verify.expired")
	if got := e.Fresh(t, u2).State; got != "pending" {
		t.Errorf("state %s", got)
	}
}
