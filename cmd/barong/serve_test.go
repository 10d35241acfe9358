package main_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"barong/internal/test/testkit"
)

// TestSockets: every listener may be a unix socket. Who reaches one is on this machine, so it is as trusted as loopback.
func TestSockets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	socket := func(name string) string { return filepath.Join(dir, name+".sock") }
	send := func(name, path string, headers ...string) (status int, body string, err error) {
		client := http.Client{Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", socket(name))
			},
		}}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://barong"+path, nil)
		if err != nil {
			return 0, "", err
		}
		for i := 0; i+1 < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		resp, err := client.Do(req)
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b), err
	}
	env := []string{"BARONG_JWT_ALGORITHM=EdDSA", "ADMIN_PASSWORD=Tr0ub4dor&3xyz", "BARONG_PHONE_VERIFICATION=none"}
	for _, name := range []string{"http", "check", "grpc", "ops"} {
		env = append(env, fmt.Sprintf("BARONG_%s_ADDR=unix:%s", map[string]string{
			"http": "HTTP", "check": "CHECK", "grpc": "GRPC", "ops": "OPS",
		}[name], socket(name)))
	}
	testkit.Start(t, testkit.Barong(t), []string{"serve"}, env, func() error {
		status, body, err := send("ops", "/readyz")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("readyz: %d %s", status, body)
		}
		return err
	})
	const pass, guarded = "/api/v2/barong/identity/ping", "/api/v2/peatio/account"
	for _, c := range []struct {
		listener, path string
		headers        []string
		status         int
		body           string
	}{
		{"http", "/api/v2/identity/ping", nil, 200, `{"ping":"pong"}`},
		{"http", "/api/v2/auth" + pass, nil, 404, `{"error":"Route is not found"}`},
		{"check", "/api/v2/auth" + pass, nil, 200, ""},
		{"check", "/api/v2/forward-auth", []string{"X-Forwarded-Method", "GET", "X-Forwarded-Uri", pass}, 200, ""},
		{"check", "/api/v2/forward-auth", []string{"X-Forwarded-Method", "GET", "X-Forwarded-Uri", guarded}, 401, `{"errors":["authz.invalid_session"]}`},
		{"check", "/api/v2/auth-request", []string{"X-Original-Method", "GET", "X-Original-URI", pass}, 200, ""},
		{"check", "/api/v2/identity/ping", nil, 404, `{"error":"Route is not found"}`},
		// Without phones there are none of their routes; others of the section want a token.
		{"http", "/api/v2/resource/phones", nil, 404, `{"error":"Route is not found"}`},
		{"http", "/api/v2/resource/phones/verify", nil, 404, `{"error":"Route is not found"}`},
		{"http", "/api/v2/resource/profiles/me", nil, 401, `{"errors":["jwt.decode_and_verify"]}`},
	} {
		status, body, err := send(c.listener, c.path, c.headers...)
		if err != nil || status != c.status || body != c.body {
			t.Errorf("%s %s %v: got %d %s, %v; want %d %s", c.listener, c.path, c.headers, status, body, err, c.status, c.body)
		}
	}
	for _, document := range []string{"/api/v2/openapi.json", "/api/v2/restful_api.json"} {
		status, body, err := send("http", document)
		if err != nil || status != 200 || strings.Contains(body, "/resource/phones") || !strings.Contains(body, "/resource/profiles") {
			t.Errorf("%s: %d, %v, phones %v", document, status, err, strings.Contains(body, "/resource/phones"))
		}
	}
	if _, body, err := send("http", "/api/v2/identity/configs"); err != nil || !strings.Contains(body, `"phone_verification_type":"none"`) {
		t.Errorf("configs: %s, %v", body, err)
	}
	conn, err := grpc.NewClient("unix:"+socket("grpc"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answer, err := auth.NewAuthorizationClient(conn).Check(t.Context(), &auth.CheckRequest{Attributes: &auth.AttributeContext{
		Request: &auth.AttributeContext_Request{Http: &auth.AttributeContext_HttpRequest{Method: "GET", Path: pass}},
	}})
	if err != nil || answer.GetOkResponse() == nil {
		t.Errorf("gRPC: %v, %v", answer, err)
	}
}

// TestPublishedElsewhere: with another BARONG_API_PREFIX, what is built in names the API where it is published: people can
// sign in, and an admin has the rights of an admin, no more and no less.
func TestPublishedElsewhere(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"api/v2/accounts", "accounts"} {
		t.Run(prefix, func(t *testing.T) {
			dir := t.TempDir()
			api, ops := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t)), fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
			env := []string{
				"BARONG_API_PREFIX=" + prefix, "BARONG_HTTP_ADDR=" + api, "BARONG_OPS_ADDR=" + ops, "BARONG_GRPC_ADDR=",
				"BARONG_JWT_ALGORITHM=EdDSA", "ADMIN_EMAIL=root@b.test", "ADMIN_PASSWORD=Tr0ub4dor&3xyz",
				"BARONG_DATABASE_URL=sqlite://" + filepath.Join(dir, "barong.db"), "BARONG_TRUSTED_PROXIES=10.0.0.0/8",
			}
			testkit.Start(t, testkit.Barong(t), []string{"serve"}, env, testkit.Answers("http://"+ops+"/readyz"))
			resp, err := http.Post("http://"+api+"/"+prefix+"/identity/sessions", "application/json",
				strings.NewReader(`{"email":"root@b.test","password":"Tr0ub4dor&3xyz"}`))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusCreated || len(resp.Cookies()) != 1 {
				t.Fatalf("sign-in: %d, cookies %v", resp.StatusCode, resp.Cookies())
			}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+api+"/"+prefix+"/admin/users", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.AddCookie(resp.Cookies()[0])
			users, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer users.Body.Close()
			if users.StatusCode != http.StatusOK {
				t.Errorf("the superadmin at /admin/users: %d", users.StatusCode)
			}
			// Who forwards without being trusted to is one client for the limits: the doctor asks the server for such.
			play(t, dir, step{call: "doctor", env: env, out: `trusted proxies +ok +10\.0\.0\.0/8; no other peer has sent X-Forwarded-For`})
			req.Header.Set("X-Forwarded-For", "203.0.113.7")
			again, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			again.Body.Close()
			play(t, dir, step{call: "doctor", env: env, out: `trusted proxies +warning .*ignored in \d calls.*one counter of sign-in attempts.*BARONG_TRUSTED_PROXIES`})
			check := func(role, path string) step {
				return step{call: "policy check --role " + role + " --method PUT " + prefix + path, env: env}
			}
			allowed := func(s step) step { s.out = `^ALLOWED\n\z`; return s }
			denied := func(s step, by string) step { s.status, s.out = 1, by+`.*^DENIED\n\z`; return s }
			play(
				t, dir,
				allowed(check("superadmin", "/admin/permissions")),
				allowed(check("admin", "/admin/users")),
				denied(check("admin", "/admin/permissions"), "DROP"),
				denied(check("admin", "/admin/users/role"), "DROP"),
				allowed(check("member", "/resource/users/password")),
				denied(check("member", "/admin/users"), "no rule matches"),
				denied(check("superadmin", "/management/x"), "block list"),
				step{
					call: "policy check --role superadmin --method PUT " + prefix + "/admin/users", env: env,
					out: `AUDIT +records.*^ALLOWED\n\z`,
				},
			)
		})
	}
}
