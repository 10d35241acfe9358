package identity_test

import (
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"barong/api/account"
	"barong/api/identity"
	"barong/api/rest"
	"barong/authz"
	"barong/db"
	"barong/internal/bus"
	"barong/internal/captcha"
	"barong/internal/limit"
	"barong/internal/test/apitest"
	"barong/session"
)

func TestMain(m *testing.M) {
	apitest.Main(m, identity.New(identity.Options{}).Routes()) // The store refuses a role that nobody permits; every Env permits member. See TestSignUpWithoutRole.
	// A token's issuer and audience are checked before its subject, so that no token of ours can have a third one
	// and still be ours; the cause is shown in TestTokenWords with a foreign subject.
}

const cookieName = "_barong_session"

// provider is a stand-in for a captcha's provider, which confirms the response "right".
func provider(t *testing.T, kind string) *captcha.Captcha {
	t.Helper()
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]bool{"success": r.FormValue("response") == "right" && r.FormValue("secret") == "key"})
	}))
	t.Cleanup(up.Close)
	c, err := captcha.New(captcha.Options{Kind: kind, SiteKey: "site", SecretKey: "key", GeeTestID: "gt-id", GeeTestKey: "gt-key", VerifyURL: up.URL})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// start serves the module on the stores of e.
func start(t *testing.T, e *apitest.Env, change func(*identity.Options), options ...func(*rest.Options)) *apitest.Server {
	t.Helper()
	cookies, err := authz.NewCookies(authz.CookieSettings{Name: cookieName})
	if err != nil {
		t.Fatal(err)
	}
	none, err := captcha.New(captcha.Options{Kind: captcha.None})
	if err != nil {
		t.Fatal(err)
	}
	o := identity.Options{
		Captcha:  none,
		Accounts: e.Accounts, DB: e.DB, Cookies: cookies, FileURL: func(key string) string { return key },
		Tokens: e.Keys, MailToken: apitest.Expect(), JWKS: e.Keys.JWKS, Reload: e.Reload,
		Domain: "https://front.test/",
		Configs: identity.Configs{
			SessionTTL: 30 * time.Minute, PhoneVerification: "mock", MinEntropy: 14,
			PasswordRegexp: apitest.PasswordPattern,
		},
		Build:   identity.Build{Tag: "2.4.0", Commit: "ad69add", Date: time.Date(2020, 3, 23, 18, 49, 39, 0, time.FixedZone("", 7200))},
		Entropy: e.Strength.Entropy, Now: e.Clock.Now,
	}
	if change != nil {
		change(&o)
	}
	return e.Serve(t, identity.New(o).Routes(), options...)
}

// guards says which operations the captcha guards.
func guards(operations ...string) func() []string { return func() []string { return operations } }

// signIn opens a session and returns its cookie's value and CSRF token.
func signIn(t *testing.T, s *apitest.Server, u *db.User, options ...apitest.Option) (cookie, csrf string) {
	t.Helper()
	a := s.Post(t, "/identity/sessions", append(options, apitest.Form("email", u.Email, "password", apitest.Password))...).Want(t, 201)
	return opened(t, a)
}

// opened checks an answer that opens a session.
func opened(t *testing.T, a *apitest.Answer) (cookie, csrf string) {
	t.Helper()
	csrf, _ = a.Object(t)["csrf_token"].(string)
	c := a.SetCookie(cookieName)
	if c == nil || !apitest.Hex(c.Value, 64) || !apitest.Hex(csrf, 20) || !c.HttpOnly || c.Path != "/" {
		t.Fatalf("cookie %v, csrf_token %q", c, csrf)
	}
	return c.Value, csrf
}

// alive reports whether a cookie still names a session that could be used.
func alive(t *testing.T, e *apitest.Env, cookie string) bool {
	t.Helper()
	id, ok := session.ParseID([]byte(cookie))
	if !ok {
		return false
	}
	_, _, err := e.Accounts.Current(t.Context(), id)
	if err != nil && !errors.Is(err, session.ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

// activities are topic, action, result and data of the audit rows, one text each.
func activities(t *testing.T, e *apitest.Env) []string {
	t.Helper()
	var out []string
	for _, a := range e.Activities(t) {
		text := a.Topic + " " + a.Action + " " + a.Result
		if a.Data != nil {
			text += " " + *a.Data
		}
		out = append(out, text)
	}
	return out
}

func wantActivities(t *testing.T, e *apitest.Env, want ...string) {
	t.Helper()
	if got := activities(t, e); !slices.Equal(got, want) {
		t.Errorf("activities:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func wantEvents(t *testing.T, e *apitest.Env, want ...string) []account.Event {
	t.Helper()
	events := e.Events()
	names := make([]string, len(events))
	for i, event := range events {
		names[i] = event.Name
	}
	if !slices.Equal(names, want) {
		t.Errorf("events %q, want %q", names, want)
	}
	return events
}

func member[T any](t *testing.T, event account.Event, name string) T {
	t.Helper()
	var record map[string]any
	if err := json.Unmarshal(event.Record, &record); err != nil {
		t.Fatal(err)
	}
	v, ok := record[name].(T)
	if !ok {
		t.Fatalf("%s has no such %s: %s", event.Name, name, event.Record)
	}
	return v
}

func TestGeneral(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	s := start(t, e, nil)
	s.Get(t, "/identity/ping").WantBody(t, 200, `{"ping":"pong"}`)
	if got := s.Get(t, "/identity/time").Object(t)["time"].(float64); int64(got) < e.Clock.Now().Unix()-60 || int64(got) > e.Clock.Now().Unix() {
		t.Errorf("time: %v", got)
	}
	s.Get(t, "/identity/version").WantBody(t, 200,
		`{"git_tag":"2.4.0","git_sha":"ad69add","build_date":"2020-03-23T18:49:39.000+02:00","version":"2.4.0"}`)
	s.Get(t, "/identity/configs").WantBody(t, 200, `{"session_expire_time":1800,"captcha_type":"none","phone_verification_type":"mock",`+
		`"password_min_entropy":14,"password_regexp":"(?-mix:^(?=.*[[:lower:]])(?=.*[[:upper:]])(?=.*[[:digit:]])(?=.*[[:graph:]]).{8,80}$)","captcha_endpoints":[]}`)
	if got := start(t, e, nil, apitest.Legacy).Get(t, "/identity/configs").Object(t); len(got) != 5 {
		t.Errorf("release 2.4.17: %v", got)
	}
	guarded := start(t, e, func(o *identity.Options) { o.Guarded = guards("user_create", "password_reset") }).Get(t, "/identity/configs").Object(t)
	if got, _ := guarded["captcha_endpoints"].([]any); !slices.Equal(got, []any{"user_create", "password_reset"}) {
		t.Errorf("guarded: %v", guarded)
	}
	for kind, id := range map[string]any{"none": nil, "geetest": nil, "recaptcha": "site", "hcaptcha": "site", "turnstile": "site"} {
		s := start(t, e, func(o *identity.Options) { o.Captcha = provider(t, kind) })
		if got := s.Get(t, "/identity/configs").Object(t); got["captcha_type"] != kind || got["captcha_id"] != id {
			t.Errorf("%s: %v", kind, got)
		}
	}
	a := s.Get(t, "/identity/jwks").WantBody(t, 200, string(e.Keys.JWKS()))
	if a.Header.Get("Content-Type") != "application/json" || a.Header.Get("Cache-Control") != "public, max-age=60" {
		t.Errorf("jwks: %v", a.Header)
	}
	if keys := a.Object(t)["keys"].([]any); len(keys) != 1 || keys[0].(map[string]any)["d"] != nil {
		t.Errorf("jwks: %s", a.Body)
	}
}

func TestValidatePassword(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	s := start(t, e, nil)
	for password, want := range map[string]string{
		"password": "2", "Tecohvi0": "15.5", "Xwqe213PZCXwe": "21.21875", "1234567890": "2", "": "-2", "eeC2BiCucxWEQ": "21.1875",
	} {
		s.Post(t, "/identity/password/validate", apitest.Form("password", password)).WantBody(t, 201, `{"entropy":`+want+`}`)
	}
	s.Post(t, "/identity/password/validate", apitest.JSON(map[string]any{"password": 12345678})).Want(t, 201)
	s.Post(t, "/identity/password/validate").Want(t, 422, "identity.general.missing_password")
	s.Post(t, "/identity/password/validate?password=Tecohvi0").Want(t, 422, "identity.general.missing_password")
	for _, v := range []any{[]string{"x"}, map[string]any{"a": 1}, nil} {
		s.Post(t, "/identity/password/validate", apitest.JSON(map[string]any{"password": v})).Want(t, 422, "invalid")
	}
}

func TestCaptcha(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	s := start(t, e, func(o *identity.Options) {
		o.Captcha, o.Guarded = provider(t, captcha.ReCaptcha), guards("user_create", "session_create", "password_reset", "email_confirmation")
	})
	u := e.NewUser(t, nil)
	ok := map[string]int{}
	for _, c := range []struct {
		path, badType string
		form          map[string]any
	}{
		{"/identity/sessions", "identity.session.invalid_captcha_format", map[string]any{"email": u.Email, "password": apitest.Password}},
		{"/identity/users", "invalid", map[string]any{"email": "captcha@barong.test", "password": apitest.Password}},
		{"/identity/users/email/generate_code", "invalid", map[string]any{"email": u.Email}},
		{"/identity/users/password/generate_code", "invalid", map[string]any{"email": u.Email}},
	} {
		with := func(v any) *apitest.Answer {
			form := map[string]any{"captcha_response": v}
			for k, v := range c.form {
				form[k] = v
			}
			return s.Post(t, c.path, apitest.JSON(form))
		}
		s.Post(t, c.path, apitest.JSON(c.form)).Want(t, 400, "identity.captcha.required")
		with(" ").Want(t, 400, "identity.captcha.required")
		with(nil).Want(t, 400, "identity.captcha.required")
		with(map[string]any{"a": "right"}).Want(t, 422, "identity.captcha.verification_failed")
		with("wrong").Want(t, 422, "identity.captcha.verification_failed")
		with([]string{"right"}).Want(t, 422, c.badType)
		ok[c.path] = with("right").Want(t, 201).Status
		// Parameters come first.
		s.Post(t, c.path, apitest.JSON(map[string]any{"captcha_response": "wrong"})).Want(t, 400,
			s.Post(t, c.path).Codes()...)
	}
	if len(ok) != 4 {
		t.Errorf("passed: %v", ok)
	}
	unguarded := start(t, e, func(o *identity.Options) { o.Captcha = provider(t, captcha.ReCaptcha) })
	unguarded.Post(t, "/identity/sessions", apitest.Form("email", u.Email, "password", apitest.Password)).Want(t, 201)
}

func TestGeeTest(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	sum := func(text string) string {
		s := md5.Sum([]byte(text))
		return hex.EncodeToString(s[:])
	}
	challenge, down := strings.Repeat("0123456789abcdef", 2), false
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case down:
			w.WriteHeader(http.StatusBadGateway)
		case r.URL.Path == "/register.php":
			_, _ = io.WriteString(w, challenge)
		default:
			_, _ = io.WriteString(w, sum(r.FormValue("seccode")))
		}
	}))
	t.Cleanup(up.Close)
	geetest, err := captcha.New(captcha.Options{
		Kind: captcha.GeeTest, GeeTestID: "gt-id", GeeTestKey: "gt-key", VerifyURL: up.URL + "/validate.php",
	})
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, e, func(o *identity.Options) {
		o.Captcha, o.Guarded = geetest, guards("user_create", "session_create", "password_reset", "email_confirmation")
	})
	s.Get(t, "/identity/users/register_geetest").WantBody(t, 200, `{"gt":"gt-id","challenge":"`+sum(challenge+"gt-key")+`"}`)
	for path, form := range map[string]map[string]any{
		"/identity/sessions":                     {"email": "x@barong.test", "password": "wrong"},
		"/identity/users":                        {"email": "x@barong.test", "password": "simple"},
		"/identity/users/email/generate_code":    {"email": "x@barong.test"},
		"/identity/users/password/generate_code": {"email": "x@barong.test"},
	} {
		form["captcha_response"] = map[string]any{"geetest_challenge": "c", "geetest_validate": "v"}
		s.Post(t, path, apitest.JSON(form)).Want(t, 400, "identity.captcha.mandatory_fields")
		form["captcha_response"] = map[string]any{"geetest_challenge": "c", "geetest_validate": "v", "geetest_seccode": "s"}
		s.Post(t, path, apitest.JSON(form)).Want(t, 422, "identity.captcha.verification_failed")
		form["captcha_response"] = map[string]any{"geetest_challenge": "c", "geetest_validate": sum("gt-keygeetestc"), "geetest_seccode": "s"}
		if a := s.Post(t, path, apitest.JSON(form)); slices.ContainsFunc(a.Codes(), func(c string) bool { return strings.Contains(c, "captcha") }) {
			t.Errorf("%s: %d %s", path, a.Status, a.Body)
		}
	}
	down = true
	s.Get(t, "/identity/users/register_geetest").Want(t, 503, "authz.unavailable")
	start(t, e, nil).Get(t, "/identity/users/register_geetest").Want(t, 404, "record.not_found")
}

// TestCaptchaLimits holds that nobody has the captcha's provider called without end.
func TestCaptchaLimits(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	var calls atomic.Int64
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		_, _ = io.WriteString(w, strings.Repeat("0", 32)) // a challenge, and no confirmation of anything
	}))
	t.Cleanup(up.Close)
	geetest, err := captcha.New(captcha.Options{
		Kind: captcha.GeeTest, GeeTestID: "gt-id", GeeTestKey: "gt-key", VerifyURL: up.URL + "/validate.php",
	})
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, e, func(o *identity.Options) { o.Captcha, o.Guarded = geetest, guards("session_create") })
	register := func(ip string) *apitest.Answer {
		return s.Get(t, "/identity/users/register_geetest", apitest.IP(ip))
	}
	sum := md5.Sum([]byte("gt-keygeetestc"))
	signIn := func(ip string) *apitest.Answer {
		return s.Post(t, "/identity/sessions", apitest.IP(ip), apitest.JSON(map[string]any{
			"email": "x@barong.test", "password": "wrong", "captcha_response": map[string]string{
				"geetest_challenge": "c", "geetest_validate": hex.EncodeToString(sum[:]), "geetest_seccode": "s",
			},
		}))
	}
	signIn("203.0.113.1").Want(t, 422, "identity.captcha.verification_failed")
	for range limit.CaptchaAddress.Max - 1 {
		register("203.0.113.1").Want(t, 200)
	}
	made := calls.Load()
	for _, refused := range []*apitest.Answer{register("203.0.113.1"), signIn("203.0.113.1")} {
		if refused.Want(t, 429, "request.rate_limited").Header.Get("Retry-After") == "" {
			t.Error("429 without Retry-After")
		}
	}
	if calls.Load() != made {
		t.Errorf("%d calls beyond the limit", calls.Load()-made)
	}
	s.Post(t, "/identity/sessions", apitest.IP("203.0.113.1")).Want(t, 400, "identity.session.missing_email", "identity.session.missing_password")
	register("203.0.113.2").Want(t, 200)
	signIn("203.0.113.2").Want(t, 422, "identity.captcha.verification_failed")
}

// TestOwnSite holds which browsers' calls are taken for our own pages'.
func TestOwnSite(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	const listed, evil = "https://app.test", "https://evil.test"
	strict := start(t, e, func(o *identity.Options) { o.CORS = rest.CORS{Origins: []string{listed}} })
	open := start(t, e, func(o *identity.Options) { o.CORS = rest.CORS{Any: true} })
	h := apitest.Header
	host := h("Host", "api.test")
	for _, c := range []struct {
		name         string
		strict, open bool
		with         []apitest.Option
	}{
		{"no browser", true, true, nil},
		{"own page", true, true, []apitest.Option{h("Origin", "https://api.test"), h("Sec-Fetch-Site", "same-origin")}},
		{"sibling page", true, true, []apitest.Option{h("Origin", "https://www.api.test"), h("Sec-Fetch-Site", "same-site")}},
		{"address bar", true, true, []apitest.Option{h("Sec-Fetch-Site", "none")}},
		{"listed page", true, true, []apitest.Option{h("Origin", "HTTPS://app.test"), h("Sec-Fetch-Site", "cross-site"), h("Sec-Fetch-Mode", "cors")}},
		{"stranger's script", false, true, []apitest.Option{h("Origin", evil), h("Sec-Fetch-Site", "cross-site"), h("Sec-Fetch-Mode", "cors")}},
		{"stranger's form", false, false, []apitest.Option{h("Origin", evil), h("Sec-Fetch-Site", "cross-site"), h("Sec-Fetch-Mode", "navigate")}},
		{"stranger's form without its name", false, false, []apitest.Option{h("Origin", "null"), h("Sec-Fetch-Site", "cross-site"), h("Sec-Fetch-Mode", "navigate")}},
		{"old browser, own page", true, true, []apitest.Option{h("Origin", "http://api.test")}},
		{"old browser, rewritten host", true, true, []apitest.Option{h("Origin", "http://public.test"), h("X-Forwarded-Host", "public.test")}},
		{"old browser, front end", true, true, []apitest.Option{h("Origin", "https://front.test")}},
		{"old browser, stranger", false, true, []apitest.Option{h("Origin", evil)}},
		{"old browser, stranger's form", false, false, []apitest.Option{h("Origin", evil), h("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")}},
		{"old browser, sandbox", false, true, []apitest.Option{h("Origin", "null")}},
		{"another port is another origin", false, true, []apitest.Option{h("Origin", "http://api.test:81")}},
	} {
		for server, ok := range map[*apitest.Server]bool{strict: c.strict, open: c.open} {
			a := server.Post(t, "/identity/users/access", append(c.with, host, apitest.Form("whitelink_token", "x"))...)
			want := "authz.csrf_token_mismatch"
			if ok {
				want = "identity.user.access.invalid_token"
			}
			if !slices.Equal(a.Codes(), []string{want}) {
				t.Errorf("%s (any %v): %d %s, want %s", c.name, server == open, a.Status, a.Body, want)
			}
		}
		e.Limits.Forget()
	}
	// Where browsers take the cookie from other sites too, only the listed ones may have it set.
	everywhere, err := authz.NewCookies(authz.CookieSettings{Name: cookieName, Secure: "always", SameSite: "none"})
	if err != nil {
		t.Fatal(err)
	}
	loose := start(t, e, func(o *identity.Options) { o.CORS, o.Cookies = rest.CORS{Any: true}, everywhere })
	for _, with := range [][]apitest.Option{
		{h("Origin", evil)},
		{h("Origin", evil), h("Sec-Fetch-Site", "cross-site"), h("Sec-Fetch-Mode", "cors")},
	} {
		loose.Post(t, "/identity/sessions", append(with, host, apitest.Form("email", "a", "password", "b"))...).Want(t, 401, "authz.csrf_token_mismatch")
	}
	stranger := []apitest.Option{h("Origin", evil), h("Sec-Fetch-Site", "cross-site"), host}
	for _, c := range [][3]string{
		{"POST", "/identity/sessions", "email=a&password=b"},
		{"DELETE", "/identity/sessions", ""},
		{"POST", "/identity/users", "email=a&password=b"},
		{"POST", "/identity/users/email/generate_code", "email=a"},
		{"POST", "/identity/users/email/confirm_code", "token=a"},
		{"POST", "/identity/users/password/generate_code", "email=a"},
		{"POST", "/identity/users/password/confirm_code", "reset_password_token=a&password=b&confirm_password=b"},
	} {
		strict.Do(t, c[0], c[1], append(stranger, apitest.Body("application/x-www-form-urlencoded", c[2]))...).
			Want(t, 401, "authz.csrf_token_mismatch")
	}
}

func notices(e *apitest.Env) []bus.Kind {
	var out []bus.Kind
	for _, n := range e.Notices() {
		out = append(out, n.Kind)
	}
	return out
}
