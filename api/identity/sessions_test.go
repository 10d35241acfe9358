package identity_test

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"barong/api/account"
	"barong/api/identity"
	"barong/authz"
	"barong/db"
	"barong/internal/bus"
	"barong/internal/fault"
	"barong/internal/limit"
	"barong/internal/test/apitest"
)

func TestSignIn(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		s := start(t, e, nil)
		u := e.NewUser(t, nil)
		a := s.Post(t, "/identity/sessions", apitest.Form("email", u.Email, "password", apitest.Password), apitest.IP("203.0.113.7")).Want(t, 201)
		cookie, _ := opened(t, a)
		want := []string{
			"email", "uid", "role", "level", "otp", "state", "referral_uid", "csrf_token", "data", "created_at", "updated_at",
			"labels", "phones", "profiles", "data_storages",
		}
		if got := a.Keys(t); !slices.Equal(got, want) {
			t.Errorf("members %q, want %q", got, want)
		}
		wantActivities(t, e, "session login succeed")
		if row := e.Activities(t)[0]; row.UserID != u.ID || row.UserIP != "203.0.113.7" || row.UserAgent != apitest.UserAgent || row.Category != "user" {
			t.Errorf("activity %+v", row)
		}
		events := wantEvents(t, e, "system.session.create")
		if member[string](t, events[0], "user_ip") != "203.0.113.7" || member[string](t, events[0], "user_agent") != apitest.UserAgent {
			t.Errorf("event %s", events[0].Record)
		}
		live, err := e.Accounts.ListSessions(t.Context(), u)
		if err != nil || len(live) != 1 || live[0].IP.String() != "203.0.113.7" || live[0].UserAgent != apitest.UserAgent {
			t.Errorf("sessions %+v, %v", live, err)
		}

		// The address is compared without case and space; a superfluous code is ignored.
		s.Post(t, "/identity/sessions", apitest.JSON(map[string]any{
			"email": " " + strings.ToUpper(u.Email), "password": apitest.Password, "otp_code": "123456", "captcha_response": "x",
		})).Want(t, 201)
		pending := e.NewUser(t, func(u *db.User) { u.State = "pending" })
		signIn(t, s, pending)

		// The same browser again: a new id, and the old session is over.
		again, _ := signIn(t, s, u, apitest.Cookie(cookieName, cookie))
		if again == cookie || alive(t, e, cookie) || !alive(t, e, again) {
			t.Error("the session of the same browser was not replaced")
		}
		// An id that somebody planted is never taken over.
		planted := strings.Repeat("ab", 32)
		if fresh, _ := signIn(t, s, u, apitest.Cookie(cookieName, planted)); fresh == planted || alive(t, e, planted) {
			t.Error("a planted session id was taken over")
		}
	})
}

func TestSignInStatusOfRelease(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	s := start(t, e, nil, apitest.Legacy)
	u := e.NewUser(t, nil)
	cookie, _ := opened(t, s.Post(t, "/identity/sessions", apitest.Form("email", u.Email, "password", apitest.Password)).Want(t, 200))
	s.Delete(t, "/identity/sessions", apitest.Cookie(cookieName, cookie)).WantBody(t, 200, "200")
	s.Post(t, "/identity/sessions").Want(t, 422, "identity.session.missing_email", "identity.session.missing_password")
}

func TestSignInParameters(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	s := start(t, e, nil)
	u := e.NewUser(t, nil)
	s.Post(t, "/identity/sessions").Want(t, 400, "identity.session.missing_email", "identity.session.missing_password")
	s.Post(t, "/identity/sessions", apitest.Form("email", u.Email)).Want(t, 400, "identity.session.missing_password")
	s.Post(t, "/identity/sessions", apitest.Form("password", "x")).Want(t, 400, "identity.session.missing_email")
	for _, c := range []struct {
		email, password any
		code            string
		status          int
	}{
		{"", "", "identity.session.invalid_params", 401},
		{nil, nil, "identity.session.invalid_params", 401},
		{[]string{u.Email}, apitest.Password, "invalid", 422},
		{map[string]any{"a": 1}, apitest.Password, "invalid", 422},
		{u.Email, []string{apitest.Password}, "invalid", 422},
		{u.Email + "\x00", apitest.Password, "request.malformed_body", 400},
		{"' OR 1=1 --", apitest.Password, "identity.session.invalid_params", 401},
		{u.Email, strings.Repeat("x", 10_000), "identity.session.invalid_params", 401},
	} {
		s.Post(t, "/identity/sessions", apitest.JSON(map[string]any{"email": c.email, "password": c.password})).Want(t, c.status, c.code)
	}
	for _, code := range []any{[]string{"1"}, map[string]any{"a": 1}} {
		s.Post(t, "/identity/sessions", apitest.JSON(map[string]any{"email": u.Email, "password": apitest.Password, "otp_code": code})).
			Want(t, 422, "invalid")
	}
}

// TestSignInTellsNothing holds that nobody learns from a refusal whether an address has an account, and in what state.
func TestSignInTellsNothing(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		s := start(t, e, nil)
		inState := func(state string) *db.User { return e.NewUser(t, func(u *db.User) { u.State = state }) }
		active, banned, deleted, locked, pending := inState("active"), inState("banned"), inState("deleted"), inState("locked"), inState("pending")
		factor := e.NewUser(t, nil)
		e.Enable2FA(t, factor)
		unreadable := e.NewUser(t, func(u *db.User) { u.PasswordDigest = "x" })
		var first *apitest.Answer
		for _, email := range []string{
			"nobody@barong.test", "no address", "", active.Email, banned.Email, deleted.Email, locked.Email, pending.Email, factor.Email,
			unreadable.Email,
		} {
			begin := time.Now()
			a := s.Post(t, "/identity/sessions", apitest.Form("email", email, "password", "wrong", "otp_code", "123456")).
				Want(t, 401, "identity.session.invalid_params")
			// The grain in which answers come; a slow machine takes several of it.
			if took := time.Since(begin); took < 100*time.Millisecond {
				t.Errorf("%q: answered after %s", email, took)
			}
			for _, name := range []string{"Date", "X-Request-Id"} { // as every answer has its own
				a.Header.Del(name)
			}
			if first == nil {
				first = a
			} else if a.Body != first.Body || !slices.Equal(headerLines(a.Header), headerLines(first.Header)) {
				t.Errorf("%q: %v %s, want %v %s", email, a.Header, a.Body, first.Header, first.Body)
			}
		}
		wrong := `session login failed {"reason":"Invalid Email or Password"}`
		wantActivities(t, e, wrong, wrong, wrong, wrong, wrong, wrong, wrong)
		wantEvents(t, e)

		for u, code := range map[*db.User]string{
			banned: "identity.session.banned", deleted: "identity.session.deleted", locked: "identity.session.not_active",
		} {
			a := s.Post(t, "/identity/sessions", apitest.Form("email", u.Email, "password", apitest.Password)).Want(t, 401, code)
			if a.SetCookie(cookieName) != nil {
				t.Error("a refused sign-in sets a cookie")
			}
		}
		rows := activities(t, e)[7:]
		slices.Sort(rows)
		if want := []string{
			`session login failed {"reason":"Your account is banned"}`, `session login failed {"reason":"Your account is deleted"}`,
			`session login failed {"reason":"Your account is not active"}`,
		}; !slices.Equal(rows, want) {
			t.Errorf("activities %q, want %q", rows, want)
		}
		wantEvents(t, e)
	})
}

func headerLines(h http.Header) []string {
	var out []string
	for name, values := range h {
		out = append(out, name+": "+strings.Join(values, ", "))
	}
	slices.Sort(out)
	return out
}

func TestSecondFactor(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		s := start(t, e, nil)
		u := e.NewUser(t, nil)
		secret := e.Enable2FA(t, u)
		with := func(code string) *apitest.Answer {
			return s.Post(t, "/identity/sessions", apitest.Form("email", u.Email, "password", apitest.Password, "otp_code", code))
		}
		s.Post(t, "/identity/sessions", apitest.Form("email", u.Email, "password", apitest.Password)).Want(t, 401, "identity.session.missing_otp")
		with(" ").Want(t, 401, "identity.session.missing_otp")
		wantActivities(t, e)
		with(e.WrongCode(t, secret)).Want(t, 403, "identity.session.invalid_otp")
		with("no code").Want(t, 403, "identity.session.invalid_otp")
		opened(t, with(e.Code(t, secret, 0)).Want(t, 201))
		with(e.Code(t, secret, 0)).Want(t, 422, "totp.error")
		failed := `session login::2fa failed {"reason":"OTP code is invalid"}`
		wantActivities(t, e, failed, "session login::2fa succeed")
		if n := e.Activities(t)[0].Count; n != 2 {
			t.Errorf("the row counts %d failures, want 2", n)
		}
		wantEvents(t, e, "system.session.create")

		// A recovery code works in place of one, once.
		var recovery []string
		if err := e.Accounts.Update(t.Context(), func(ctx context.Context, unit *account.Unit) (err error) {
			recovery, err = unit.NewRecoveryCodes(ctx, u)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		opened(t, with(strings.ToUpper(recovery[3])).Want(t, 201))
		with(recovery[3]).Want(t, 403, "identity.session.invalid_otp")

		// Five wrong codes, then nobody is asked any more, not even with a right one.
		e.Limits.Forget()
		for range 5 {
			with(e.WrongCode(t, secret)).Want(t, 403, "identity.session.invalid_otp")
		}
		if a := with(e.Code(t, secret, 1)).Want(t, 429, "request.rate_limited"); a.Header.Get("Retry-After") == "" {
			t.Error("429 without Retry-After")
		}
		e.Clock.Advance(16 * time.Minute)
		opened(t, with(e.Code(t, secret, 0)).Want(t, 201))
	})
}

// TestCodeInParallel holds that of parallel sign-ins with one code exactly one succeeds.
func TestCodeInParallel(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		s := start(t, e, nil)
		u := e.NewUser(t, nil)
		code := e.Code(t, e.Enable2FA(t, u), 0)
		statuses := parallel(5, func() int {
			return s.Post(t, "/identity/sessions", apitest.Form("email", u.Email, "password", apitest.Password, "otp_code", code)).Status
		})
		if statuses[201] != 1 || statuses[201]+statuses[422] != 5 {
			t.Errorf("answers by status: %v", statuses)
		}
	})
}

// parallel runs f n times at once and counts what it returns.
func parallel(n int, f func() int) map[int]int {
	var mu sync.Mutex
	var wg sync.WaitGroup
	begin, out := make(chan struct{}), map[int]int{}
	for range n {
		wg.Go(func() {
			<-begin
			got := f()
			mu.Lock()
			defer mu.Unlock()
			out[got]++
		})
	}
	close(begin)
	wg.Wait()
	return out
}

func TestPasswordLimits(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	s := start(t, e, nil)
	u, other := e.NewUser(t, nil), e.NewUser(t, nil)
	try := func(email, password, ip string) *apitest.Answer {
		return s.Post(t, "/identity/sessions", apitest.Form("email", email, "password", password), apitest.IP(ip))
	}
	for range 3 { // three mistakes never block, and a right password forgives them
		try(u.Email, "wrong", "198.51.100.1").Want(t, 401, "identity.session.invalid_params")
	}
	try(u.Email, apitest.Password, "198.51.100.1").Want(t, 201)
	statuses := parallel(22, func() int { return try(u.Email, "wrong", "198.51.100.2").Status })
	if statuses[401] != 20 || statuses[429] != 2 {
		t.Errorf("answers by status: %v", statuses)
	}
	// Another spelling and a neighbour share the count; the owner elsewhere does not.
	if a := try(strings.ToUpper(u.Email)+" ", apitest.Password, "198.51.100.3").Want(t, 429, "request.rate_limited"); a.Header.Get("Retry-After") == "" {
		t.Error("429 without Retry-After")
	}
	try(u.Email, apitest.Password, "192.0.2.1").Want(t, 201)
	// A client is counted over all addresses, known or not, and its right passwords do not wash it clean.
	try(other.Email, apitest.Password, "198.51.100.2").Want(t, 201)
	guess := func(n int, ip string) {
		t.Helper()
		for range n {
			if err := e.Accounts.PasswordTries("nobody@barong.test", netip.MustParseAddr(ip)).Begin(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	guess(9, "198.51.100.2")
	try("nobody@barong.test", "wrong", "198.51.100.2").Want(t, 401, "identity.session.invalid_params")
	try(other.Email, apitest.Password, "198.51.100.2").Want(t, 429, "request.rate_limited")
	try(other.Email, apitest.Password, "198.51.100.4").Want(t, 201)
	e.Clock.Advance(16 * time.Minute)
	try(u.Email, apitest.Password, "198.51.100.2").Want(t, 201)
	// An address that nobody has is limited as if somebody had it.
	guess(20, "198.51.100.5")
	try("nobody@barong.test", "wrong", "198.51.100.6").Want(t, 429, "request.rate_limited")
}

// TestWayBackInWhileOthersGuess holds that who has the mailbox gets in from a network that others' guesses shut out.
func TestWayBackInWhileOthersGuess(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "postgres")
	s := start(t, e, nil)
	u := e.NewUser(t, nil)
	for i := range limit.WrongPasswordAccount.Max {
		if err := e.Accounts.PasswordTries(u.Email, netip.AddrFrom4([4]byte{10, byte(i), 0, 1})).Begin(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	abroad := apitest.IP("203.0.113.9")
	s.Post(t, "/identity/sessions", apitest.Form("email", u.Email, "password", apitest.Password), abroad).Want(t, 429, "request.rate_limited")
	s.Post(t, "/identity/users/password/generate_code", apitest.Form("email", u.Email), abroad).Want(t, 201)
	s.Post(t, "/identity/users/password/confirm_code", apitest.Form(
		"reset_password_token", apitest.MailToken(t, e.Events()), "password", otherPassword, "confirm_password", otherPassword,
	), abroad).Want(t, 201)
	s.Post(t, "/identity/sessions", apitest.Form("email", u.Email, "password", otherPassword), abroad).Want(t, 201)
	s.Post(t, "/identity/sessions", apitest.Form("email", u.Email, "password", otherPassword), apitest.IP("203.0.114.9")).Want(t, 429, "request.rate_limited")
}

func TestSignOut(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		s := start(t, e, nil)
		u := e.NewUser(t, nil)
		cookie, _ := signIn(t, s, u)
		elsewhere, _ := signIn(t, s, u)
		for _, c := range []string{"", "x", strings.Repeat("0", 64), strings.ToUpper(cookie)} {
			s.Delete(t, "/identity/sessions", apitest.Cookie(cookieName, c)).Want(t, 404, "identity.session.not_found")
		}
		s.Delete(t, "/identity/sessions").Want(t, 404, "identity.session.not_found")
		e.Notices()
		a := s.Delete(t, "/identity/sessions", apitest.Cookie(cookieName, cookie)).WantBody(t, 204, "")
		if c := a.SetCookie(cookieName); c == nil || c.Value != "" || c.MaxAge >= 0 && !c.Expires.Before(time.Now()) || c.Path != "/" {
			t.Errorf("cookie after sign-out: %v", a.Header["Set-Cookie"])
		}
		if alive(t, e, cookie) || !alive(t, e, elsewhere) {
			t.Error("the wrong session was ended")
		}
		if got := notices(e); !slices.Contains(got, bus.SessionGone) {
			t.Errorf("the caches were told %v", got)
		}
		wantActivities(t, e, "session login succeed", "session login succeed", "session logout succeed")
		s.Delete(t, "/identity/sessions", apitest.Cookie(cookieName, cookie)).Want(t, 404, "identity.session.not_found")

		statuses := parallel(5, func() int {
			return s.Delete(t, "/identity/sessions", apitest.Cookie(cookieName, elsewhere)).Status
		})
		if statuses[204] != 1 || statuses[404] != 4 {
			t.Errorf("parallel sign-outs by status: %v", statuses)
		}
		expired, _ := signIn(t, s, u)
		e.Clock.Advance(31 * time.Minute)
		s.Delete(t, "/identity/sessions", apitest.Cookie(cookieName, expired)).Want(t, 404, "identity.session.not_found")
	})
}

func TestCookieAttributes(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	u := e.NewUser(t, nil)
	sent := func(s *apitest.Server, options ...apitest.Option) string {
		t.Helper()
		a := s.Post(t, "/identity/sessions", append(options, apitest.Form("email", u.Email, "password", apitest.Password))...).Want(t, 201)
		return a.Header.Get("Set-Cookie")
	}
	s := start(t, e, nil)
	plain, secure := sent(s), sent(s, apitest.HTTPS())
	for _, part := range []string{"; Path=/", "; HttpOnly", "; SameSite=Lax", "; Max-Age=86"} {
		if !strings.Contains(plain, part) || !strings.Contains(secure, part) {
			t.Errorf("%q lacks %q", plain, part)
		}
	}
	if strings.Contains(plain, "Secure") || !strings.Contains(secure, "; Secure") {
		t.Errorf("over http %q, over https %q", plain, secure)
	}
	own, err := authz.NewCookies(authz.CookieSettings{Name: "sid", Secure: "true", SameSite: "strict", Domain: "barong.test"})
	if err != nil {
		t.Fatal(err)
	}
	got := sent(start(t, e, func(o *identity.Options) { o.Cookies = own }))
	for _, part := range []string{"sid=", "; Secure", "; SameSite=Strict", "; Domain=barong.test"} {
		if !strings.Contains(got, part) {
			t.Errorf("%q lacks %q", got, part)
		}
	}
}

// busy are passwords that nobody has time to look at.
type busy struct{ account.Passwords }

func (busy) Verify(context.Context, string, string) (ok, stale bool, err error) {
	return false, false, fault.RateLimited(time.Second)
}

// TestUndecidedSignInsAreNoGuesses holds that a burst which nobody could answer does not lock the account's owner out.
func TestUndecidedSignInsAreNoGuesses(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	s := start(t, e, nil)
	u := e.NewUser(t, nil)
	passwords := e.Accounts.Passwords
	e.Accounts.Passwords = busy{passwords}
	for range limit.WrongPasswordAddress.Max + 1 {
		s.Post(t, "/identity/sessions", apitest.Form("email", u.Email, "password", "x")).Want(t, 429, "request.rate_limited")
	}
	e.Accounts.Passwords = passwords
	signIn(t, s, u)
}

// TestShowSession holds that a page learns whose session its cookie is, with the CSRF token, and strangers learn that it
// is nobody's.
func TestShowSession(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		s := start(t, e, nil)
		u := e.NewUser(t, nil)
		cookie, csrf := signIn(t, s, u)
		a := s.Get(t, "/identity/sessions/current", apitest.Cookie(cookieName, cookie)).
			WantBody(t, 200, `{"active":true,"uid":"`+u.UID+`","email":"`+u.Email+`","csrf_token":"`+csrf+`"}`)
		if got := a.Header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("Cache-Control %q", got)
		}
		nobody := `{"active":false}`
		s.Get(t, "/identity/sessions/current").WantBody(t, 200, nobody)
		s.Get(t, "/identity/sessions/current", apitest.Cookie(cookieName, strings.Repeat("ab", 32))).WantBody(t, 200, nobody)
		s.Get(t, "/identity/sessions/current", apitest.Cookie(cookieName, "caf\xe9")).WantBody(t, 200, nobody)
		other, _ := signIn(t, s, e.NewUser(t, nil))
		s.Get(t, "/identity/sessions/current", lines(cookie, other)).WantBody(t, 200, nobody) // a planted cookie makes nobody somebody else
		s.Get(t, "/identity/sessions/current", lines(cookie, cookie)).Want(t, 200)

		// A page of another site gets nothing, whatever CORS would let it read.
		s.Get(t, "/identity/sessions/current", apitest.Cookie(cookieName, cookie), apitest.Header("Sec-Fetch-Site", "cross-site"), apitest.Header("Sec-Fetch-Mode", "no-cors")).
			Want(t, 401, "authz.csrf_token_mismatch")

		e.Update(t, func(ctx context.Context, tx *db.Tx) error {
			row, err := tx.LockUser(ctx, u.ID)
			if err != nil {
				return err
			}
			row.State = account.Banned
			return tx.UpdateUser(ctx, row, "state")
		})
		s.Get(t, "/identity/sessions/current", apitest.Cookie(cookieName, cookie)).WantBody(t, 200, nobody)
	})
}
