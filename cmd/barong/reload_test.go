package main_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"barong/internal/test/testkit"
)

// TestReload: what may change while a server runs changes with its file, all of it or nothing; what may not says so.
func TestReload(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var secrets []string // with which the captcha's provider was asked
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		secrets = append(secrets, r.FormValue("secret"))
		fmt.Fprint(w, `{"success":true}`)
	}))
	defer provider.Close()

	dir := t.TempDir()
	file, key := filepath.Join(dir, "barong.yml"), filepath.Join(dir, "captcha.key")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	settings := func(change ...string) string {
		all := []string{
			"trusted_proxies: loopback", "api_cors_origins: https://one.example", "log_level: info", "sender_email: one@b.test",
			"captcha: hcaptcha", "hcaptcha_site_key: site-one", "captcha_verify_url: " + provider.URL, "hcaptcha_secret_key_file: " + key,
			"captcha_protected_endpoints: [password_reset]",
		}
		for _, line := range change {
			name, _, _ := strings.Cut(line, ":")
			for i := range all {
				if strings.HasPrefix(all[i], name+":") {
					all[i] = ""
				}
			}
			all = append(all, line)
		}
		return strings.Join(all, "\n") + "\n"
	}
	write(key, "key-one\n")
	write(file, settings())
	api, ops := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t)), fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	p := testkit.Start(t, testkit.Barong(t), []string{"serve"}, []string{
		"BARONG_CONFIG=" + file, "BARONG_HTTP_ADDR=" + api, "BARONG_OPS_ADDR=" + ops, "BARONG_GRPC_ADDR=", "BARONG_JWT_ALGORITHM=EdDSA",
		"ADMIN_EMAIL=root@b.test", "ADMIN_PASSWORD=Tr0ub4dor&3xyz", "BARONG_RATE_LIMITS=off",
	}, testkit.Answers("http://"+ops+"/readyz"))
	ask := func(method, url, body string, headers ...string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		for i := 0; i+1 < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(text)
	}
	// What a server answers by its settings.
	state := func() string {
		forwarded, _ := ask("GET", "http://"+api+"/api/v2/forward-auth", "", "X-Forwarded-Method", "GET", "X-Forwarded-Uri", "/x")
		ping, _ := ask("GET", "http://"+api+"/api/v2/identity/ping", "", "Origin", "https://two.example")
		_, configs := ask("GET", "http://"+api+"/api/v2/identity/configs", "")
		site := "site-one"
		if strings.Contains(configs, "site-two") {
			site = "site-two"
		}
		if strings.Contains(configs, `"captcha_endpoints":["password_reset","session_create"]`) {
			site += " guarded"
		}
		return fmt.Sprint(forwarded.StatusCode, " ", ping.Header.Get("Access-Control-Allow-Origin"), " ", site)
	}
	becomes := func(want string) {
		t.Helper()
		testkit.Eventually(t, time.Minute, func() bool { return state() == want })
	}
	// reset has a mail sent, and returns the secret that the captcha was asked with.
	reset := func() string {
		t.Helper()
		resp, text := ask("POST", "http://"+api+"/api/v2/identity/users/password/generate_code", `{"email":"root@b.test","captcha_response":"x"}`)
		if resp.StatusCode != 201 {
			t.Fatalf("reset: %d %s", resp.StatusCode, text)
		}
		mu.Lock()
		defer mu.Unlock()
		return secrets[len(secrets)-1]
	}
	part := func() (text string, stale bool) {
		_, text = ask("GET", "http://"+ops+"/readyz", "")
		_, metrics := ask("GET", "http://"+ops+"/metrics", "")
		return text, strings.Contains(metrics, "barong_config_stale 1\n")
	}

	before := "401  site-one"
	if got := state(); got != before || reset() != "key-one" {
		t.Fatalf("at first: %s", got)
	}
	// One change that is good beside one that is bad: neither is taken up.
	write(file, settings("trusted_proxies: 10.0.0.0/8", "smtp_port: no port", "smtp_host: localhost"))
	testkit.Eventually(t, time.Minute, func() bool { _, stale := part(); return stale })
	if text, _ := part(); !strings.Contains(text, "BARONG_SMTP_PORT") || !strings.Contains(text, `"status":"ready"`) || state() != before {
		t.Errorf("with a bad file: %s, %s", state(), text)
	}
	// No YAML at all, and no file.
	write(file, "trusted_proxies: [")
	if err := p.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, time.Minute, func() bool { text, _ := part(); return !strings.Contains(text, "BARONG_SMTP_PORT") })
	if got := state(); got != before {
		t.Errorf("without YAML: %s", got)
	}
	// All of it, and something that needs a restart.
	write(key, "key-two\n")
	write(file, settings("trusted_proxies: 10.0.0.0/8", "api_cors_origins: https://two.example", "hcaptcha_site_key: site-two",
		"log_level: debug", "sender_email: two@b.test", "session_name: other", "captcha_protected_endpoints: [password_reset, session_create]"))
	becomes("403 https://two.example site-two guarded")
	if resp, text := ask("POST", "http://"+api+"/api/v2/identity/sessions", `{"email":"root@b.test","password":"Tr0ub4dor&3xyz"}`); resp.StatusCode < 400 || !strings.Contains(text, "captcha") {
		t.Errorf("a sign-in without a captcha: %d %s", resp.StatusCode, text)
	}
	if _, stale := part(); stale {
		t.Error("a good file, and still stale")
	}
	if got := reset(); got != "key-two" {
		t.Errorf("the captcha is asked with %q", got)
	}
	log := p.Output()
	if !strings.Contains(log, "BARONG_SESSION_NAME") || !strings.Contains(log, "need a restart") || !strings.Contains(log, `"level":"DEBUG"`) ||
		strings.Contains(log, "key-one") || strings.Contains(log, "key-two") {
		t.Errorf("log:\n%s", log)
	}
	testkit.Eventually(t, time.Minute, func() bool { return strings.Count(p.Output(), "user.password.reset.token") > 0 })
	// The secret alone.
	write(key, "key-three\n")
	testkit.Eventually(t, time.Minute, func() bool { return reset() == "key-three" })
}
