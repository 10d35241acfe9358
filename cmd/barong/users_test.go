package main_test

import (
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"barong/internal/test/testkit"
)

// TestUsers: an operator helps who is locked out beside a running server, which feels it, and the trail tells of it.
func TestUsers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	api, ops := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t)), fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	env := []string{
		"BARONG_HTTP_ADDR=" + api, "BARONG_OPS_ADDR=" + ops, "BARONG_GRPC_ADDR=", "BARONG_JWT_ALGORITHM=EdDSA", "BARONG_RATE_LIMITS=off",
		"BARONG_DATABASE_URL=sqlite://" + filepath.Join(dir, "barong.db"), "BARONG_JWT_PRIVATE_KEY_PATH=" + filepath.Join(dir, "jwt") + "/",
		"BARONG_SECRET_KEY=b3V0Ym94IHRlc3RzIHNlYWwgd2l0aCB0aGlzIGtleSE=", "ADMIN_EMAIL=root@b.test", "ADMIN_PASSWORD=Tr0ub4dor&3xyz",
		"BARONG_DOMAIN=b.test",
	}
	play(t, dir, step{call: "keys generate", env: env, out: "."})
	testkit.Start(t, testkit.Barong(t), []string{"serve"}, env, testkit.Answers("http://"+ops+"/readyz"))
	send := func(method, path, body string, cookie *http.Cookie) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+api+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		if cookie != nil {
			req.AddCookie(cookie)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp
	}
	signUp := send("POST", "/api/v2/identity/users", `{"email":"m@b.test","password":"Tr0ub4dor&3xyz"}`, nil)
	if signUp.StatusCode != 201 || len(signUp.Cookies()) != 1 {
		t.Fatalf("sign-up: %d", signUp.StatusCode)
	}
	cookie := signUp.Cookies()[0]
	me := func() int { return send("GET", "/api/v2/barong/resource/users/me", "", cookie).StatusCode }
	if me() != 200 {
		t.Fatal("the session does not work at first")
	}
	play(
		t, dir,
		step{call: "users sessions m@b.test", env: env, out: `CREATED.*127\.0\.0\.1 +Go-http-client`},
		step{call: "users ban nobody@b.test", env: env, status: 1, errs: "there is no user"},
		step{call: "users role root@b.test member", env: env, status: 1, errs: "last_superadmin"},
		step{call: "users role m@b.test emperor", env: env, status: 1, errs: "role"},
		step{call: "users reset-2fa m@b.test", env: env, status: 1, errs: "otp_no_change"},
	)
	// The link confirms the address.
	out, errs, status := call(t, dir, env, "users", "link", "m@b.test")
	link := regexp.MustCompile(`\Ahttps://b\.test/accounts/confirmation\?confirmation_token=([^&\s]+)\S*\n\z`).FindStringSubmatch(out)
	if status != 0 || link == nil {
		t.Fatalf("link: %d %q %q", status, out, errs)
	}
	token, err := url.QueryUnescape(link[1])
	if err != nil {
		t.Fatal(err)
	}
	if r := send("POST", "/api/v2/identity/users/email/confirm_code", `{"token":"`+token+`"}`, nil); r.StatusCode >= 300 {
		t.Errorf("the link does not confirm: %d", r.StatusCode)
	}
	play(t, dir, step{call: "users role m@b.test admin", env: env, out: "is admin"})
	if me() != 401 { // a change of role ends sessions, at once
		t.Error("the session goes on after a change of role")
	}
	in := send("POST", "/api/v2/identity/sessions", `{"email":"m@b.test","password":"Tr0ub4dor&3xyz"}`, nil)
	if in.StatusCode != 201 {
		t.Fatalf("sign-in: %d", in.StatusCode)
	}
	cookie = in.Cookies()[0]
	if me() != 200 {
		t.Error("the new session does not work")
	}
	play(t, dir, step{call: "users sessions --end m@b.test", env: env, out: "are ended"})
	if me() != 401 {
		t.Error("the session goes on after it was ended")
	}
	play(t, dir, step{call: "users ban m@b.test", env: env, out: "is banned"})
	if r := send("POST", "/api/v2/identity/sessions", `{"email":"m@b.test","password":"Tr0ub4dor&3xyz"}`, nil); r.StatusCode != 401 {
		t.Errorf("a banned user signs in: %d", r.StatusCode)
	}
	trail := strings.Join(exported(t, dir, env), "\n")
	for _, what := range []string{"link", "role admin", "sessions --end", "ban"} {
		if !strings.Contains(trail, `"note":"barong users `+what+`"`) {
			t.Errorf("the trail has no %q:\n%s", what, trail)
		}
	}
	if strings.Contains(trail, token) || strings.Contains(trail, "emperor") {
		t.Error("the trail has the link, or what was refused")
	}
}
