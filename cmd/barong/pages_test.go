package main_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"barong/internal/test/testkit"
)

// TestPages: the pages for people are there unless they are switched off, and where they are off, browsers are answered as
// programs are.
func TestPages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	css, rules := filepath.Join(dir, "brand.css"), filepath.Join(dir, "rules.yml")
	for path, text := range map[string]string{css: "h1 { letter-spacing: 0.1em; }", rules: "rules: {pass: [public]}\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name   string
		env    []string
		status map[string]int // by path
		login  string         // where a browser without a session is sent; empty: it is answered 401
	}{
		{
			"on",
			[]string{"BARONG_PORTAL_CSS=" + css},
			map[string]int{"/": 302, "/accounts/signin": 200, "/accounts/nothing": 404, "/console/users": 200, "/docs": 200, "/accounts/continue?rd=/x": 302},
			"/accounts/signin?rd=%2Fapp",
		},
		{
			"without a console",
			[]string{"BARONG_CONSOLE=off"},
			map[string]int{"/": 302, "/accounts/signin": 200, "/console/": 404, "/console": 404},
			"/accounts/signin?rd=%2Fapp",
		},
		{
			"off",
			[]string{"BARONG_PORTAL=off"},
			map[string]int{"/": 404, "/accounts": 404, "/accounts/signin": 404, "/accounts/continue?rd=/x": 404, "/console/": 404, "/docs": 200},
			"",
		},
		{
			"off, with a login page elsewhere",
			[]string{"BARONG_PORTAL=off", "BARONG_LOGIN_URL=https://login.test/in"},
			map[string]int{"/accounts/signin": 404},
			"https://login.test/in?rd=%2Fapp",
		},
		{
			"behind a rules file that does not list them",
			[]string{"BARONG_AUTHZ_RULES_FILE=" + rules},
			map[string]int{"/accounts/signin": 200},
			"",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			api, ops := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t)), fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
			env := append(c.env, "BARONG_HTTP_ADDR="+api, "BARONG_OPS_ADDR="+ops, "BARONG_GRPC_ADDR=", "BARONG_JWT_ALGORITHM=EdDSA",
				"BARONG_PHONE_VERIFICATION=none", "ADMIN_PASSWORD=Tr0ub4dor&3xyz", "BARONG_TRUSTED_PROXIES=")
			testkit.Start(t, testkit.Barong(t), []string{"serve"}, env, testkit.Answers("http://"+ops+"/readyz"))
			client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
			get := func(path string) (*http.Response, string) {
				t.Helper()
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+api+path, http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Accept", "text/html")
				res, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				body, err := io.ReadAll(res.Body)
				if err != nil {
					t.Fatal(err)
				}
				return res, string(body)
			}
			for path, want := range c.status {
				res, body := get(path)
				if res.StatusCode != want {
					t.Errorf("%s: got %d, want %d", path, res.StatusCode, want)
				}
				if policy := res.Header.Get("Content-Security-Policy"); want < 400 && !strings.HasPrefix(policy, "default-src 'none'; script-src 'self';") {
					t.Errorf("%s: its policy is %q", path, policy)
				}
				if c.name == "on" && path == "/accounts/signin" && !strings.Contains(body, `href="/accounts/assets/brand-`) {
					t.Errorf("%s has no style sheet of its own: %s", path, body)
				}
			}
			res, body := get("/api/v2/auth/app")
			if c.login == "" {
				if res.StatusCode != 401 || body != `{"errors":["authz.invalid_session"]}` {
					t.Errorf("a check: got %d %s", res.StatusCode, body)
				}
			} else if res.StatusCode != 302 || res.Header.Get("Location") != c.login {
				t.Errorf("a check: got %d to %q, want %q", res.StatusCode, res.Header.Get("Location"), c.login)
			}
		})
	}
}
