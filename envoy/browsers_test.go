package envoy_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"barong/internal/header"
)

// latinAgent is a User-Agent that is no UTF-8, as its sessions are opened with.
const latinAgent = "User-Agent: Caf\xe9/1.0 \xff"

// An ask sends a client's request and returns the status of the answer, and the code of a refusal.
type ask func(t *testing.T, method, target string, headers ...string) (status int, code string)

// sessions are what browsers' requests are made of: cookies of sessions of the admin, of which newer is the newest, and
// of somebody else.
type sessions struct{ older, newer, others, csrf string }

// signIn opens a session, from an address of a browser that has these cookies already, and returns its own cookie, its
// CSRF token and all cookies that the answer sets.
func signIn(t *testing.T, addr, target, email string, cookies ...string) (cookie, csrf string, set []*http.Cookie) {
	t.Helper()
	body := fmt.Sprintf(`{"email":%q,"password":%q}`, email, adminPassword)
	headers := []string{latinAgent, "Content-Type: application/json", fmt.Sprintf("Content-Length: %d", len(body)), "Connection: close"}
	if len(cookies) > 0 {
		headers = append(headers, "Cookie: "+strings.Join(cookies, "; "))
	}
	r := rawFrom(t, addr, here, strings.Replace(request("POST", target, body, headers...), "Host: gateway", "Host: app.example.test", 1))
	var user struct {
		CSRF string `json:"csrf_token"`
	}
	err := json.Unmarshal([]byte(r.Body), &user)
	set = (&http.Response{Header: r.Header}).Cookies()
	if r.Status != 201 || err != nil || len(set) == 0 {
		t.Fatalf("sign in at %s: got %+v", target, r)
	}
	own := set[len(set)-1]
	return own.Name + "=" + own.Value, user.CSRF, set
}

// openSessions makes the sessions, at the program itself.
func (w *world) openSessions(t *testing.T) (s sessions) {
	t.Helper()
	api := local(w.ports.api)
	s.older, _, _ = signIn(t, api, "/api/v2/barong/identity/sessions", adminEmail)
	s.newer, s.csrf, _ = signIn(t, api, "/api/v2/barong/identity/sessions", adminEmail)
	s.others, _, _ = signIn(t, api, "/api/v2/barong/identity/users", "other@example.com")
	return s
}

// browsers are requests as browsers and programs send them, and what becomes of them.
func browsers(s sessions) []struct {
	what, method, target string
	headers              []string
	status               int
	code                 string
} {
	const unknown, garbled = "_barong_session=00000000000000000000000000000000000000000000000000000000000000aa", "_barong_session=x"
	five := "Cookie: _barong_session=a; _barong_session=b; _barong_session=c; _barong_session=d; " + s.newer
	return []struct {
		what, method, target string
		headers              []string
		status               int
		code                 string
	}{
		{"one session", "GET", account, []string{"Cookie: " + s.newer}, 200, ""},
		{"the same twice", "GET", account, []string{"Cookie: " + s.newer + "; theme=x; " + s.newer}, 200, ""},
		{"in two lines", "GET", account, []string{"Cookie: theme=x", "Cookie: " + s.newer}, 200, ""},
		{"the same in two lines", "GET", account, []string{"Cookie: " + s.newer, "Cookie: " + s.newer}, 200, ""},
		{"a garbled one first", "GET", account, []string{"Cookie: " + garbled + "; " + s.newer}, 200, ""},
		{"an unknown one last", "GET", account, []string{"Cookie: " + s.newer + "; " + unknown}, 200, ""},
		{"two of one user", "POST", account, []string{"Cookie: " + s.older + "; " + s.newer, "X-CSRF-Token: " + s.csrf, "Content-Length: 0"}, 200, ""},
		{"two users", "GET", account, []string{"Cookie: " + s.newer + "; " + s.others}, 401, "authz.invalid_session"},
		{"two users in two lines", "GET", account, []string{"Cookie: " + s.others, "Cookie: " + s.newer}, 401, "authz.invalid_session"},
		{"two users at the API", "GET", "/api/v2/barong/resource/users/me", []string{"Cookie: " + s.newer + "; " + s.others}, 401, "authz.invalid_session"},
		{"five values", "GET", account, []string{five}, 401, "authz.invalid_session"},
		{"two users on a public path", "GET", public, []string{"Cookie: " + s.newer + "; " + s.others}, 200, ""},
		{"five values on a public path", "GET", public, []string{five}, 200, ""},

		{"Latin-1 in another cookie", "GET", account, []string{"Cookie: theme=caf\xe9; " + s.newer}, 200, ""},
		{"Latin-1 in other headers", "GET", account, []string{"CF-IPCity: K\xf6ln", "Referer: http://a/\xe9", "Cookie: " + s.newer}, 200, ""},
		{"Latin-1 on a public path", "GET", public, []string{"CF-IPCity: K\xf6ln", "Cookie: theme=caf\xe9"}, 200, ""},
		{"Latin-1 in the session", "GET", account, []string{"Cookie: _barong_session=caf\xe9"}, 400, "authz.malformed_request"},
		{"Latin-1 in the session on a public path", "GET", public, []string{"Cookie: _barong_session=caf\xe9"}, 200, ""},
		{"Latin-1 in the CSRF token", "GET", account, []string{"Cookie: " + s.newer, "X-CSRF-Token: \xe9"}, 400, "authz.malformed_request"},

		{"PROPFIND on a public path", "PROPFIND", public, nil, 200, ""},
		{"MKCOL on a public path", "MKCOL", public, nil, 200, ""},
		{"PROPFIND", "PROPFIND", account, []string{"Cookie: " + s.newer}, 200, ""},
		{"MKCOL", "MKCOL", account, []string{"Cookie: " + s.newer, "X-CSRF-Token: " + s.csrf}, 200, ""},
		{"MKCOL without a token", "MKCOL", account, []string{"Cookie: " + s.newer}, 401, "authz.missing_csrf_token"},
		{"PROPFIND without a session", "PROPFIND", account, nil, 401, "authz.invalid_session"},
		{"MKCOL on a blocked path", "MKCOL", blocked, []string{"Cookie: " + s.newer}, 401, "authz.permission_denied"},
	}
}

func runBrowsers(t *testing.T, s sessions, send ask) {
	t.Helper()
	for _, b := range browsers(s) {
		status, code := send(t, b.method, b.target, append([]string{latinAgent}, b.headers...)...)
		if status != b.status || code != b.code {
			t.Errorf("%s: got %d %s, want %d %s", b.what, status, code, b.status, b.code)
		}
	}
	for _, method := range []string{"PURGE", "BREW", "propfind", "CONNECT", "PRI"} {
		if status, _ := send(t, method, public, latinAgent); status < 400 {
			t.Errorf("%s: got %d", method, status)
		}
	}
}

// rawFrom is raw for a client at an address: Envoy takes one at its own for another.
func rawFrom(t *testing.T, addr, from, request string) reply {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 5 * time.Second}
	c, err := dialer.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.WriteString(c, request) }()
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("no answer to %.200q: %v", request, err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("body of the answer to %.200q: %v", request, err)
	}
	return reply{Status: res.StatusCode, Header: res.Header, Body: string(body)}
}

// asking sends requests over HTTP as wire writes them.
func asking(addr, from string, wire func(method, target string, headers []string) string) ask {
	return func(t *testing.T, method, target string, headers ...string) (int, string) {
		t.Helper()
		r := rawFrom(t, addr, from, wire(method, target, append(headers, "Connection: close")))
		return r.Status, codeIn(r.Body)
	}
}

func codeIn(body string) string {
	var refusal struct{ Errors []string }
	if json.Unmarshal([]byte(body), &refusal) != nil || len(refusal.Errors) != 1 {
		return ""
	}
	return refusal.Errors[0]
}

// dialects are the program's own listener, asked in each dialect.
func (w *world) dialects(t *testing.T, s sessions) {
	checks := local(w.ports.checks)
	forwarded := func(path, method, target string) func(string, string, []string) string {
		return func(m, tg string, headers []string) string {
			return request("GET", path, "", append(headers, method+": "+m, target+": "+tg, "X-Forwarded-For: "+here)...)
		}
	}
	conn, err := grpc.NewClient(local(w.ports.grpc), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	overGRPC := func(raw bool) ask {
		return func(t *testing.T, method, target string, headers ...string) (int, string) {
			t.Helper()
			in := attributes(method, target, map[string]string{})
			request := in.Attributes.Request.Http
			var list []*core.HeaderValue
			for _, line := range headers {
				name, value, _ := strings.Cut(line, ": ")
				name = strings.ToLower(name)
				list = append(list, &core.HeaderValue{Key: name, RawValue: []byte(value)})
				if known := request.Headers[name]; known != "" { // as Envoy joins cookies
					value = known + "; " + value
				}
				request.Headers[name] = string(header.UTF8([]byte(value))) // as Envoy does
			}
			if raw {
				request.Headers, request.HeaderMap = nil, &core.HeaderMap{Headers: list}
			}
			out := check(t, conn, in)
			if denied := out.GetDeniedResponse(); denied != nil {
				return int(denied.GetStatus().GetCode()), codeIn(denied.GetBody())
			}
			return 200, ""
		}
	}
	for name, send := range map[string]ask{
		"ext_authz": asking(checks, "127.0.0.1", func(method, target string, headers []string) string {
			return request(method, "/api/v2/auth"+target, "", append(headers, "X-Forwarded-For: "+here)...)
		}),
		"forward_auth": asking(checks, "127.0.0.1", forwarded("/api/v2/forward-auth", "X-Forwarded-Method", "X-Forwarded-Uri")),
		"auth_request": asking(checks, "127.0.0.1", forwarded("/api/v2/auth-request", "X-Original-Method", "X-Original-URI")),
		"gRPC":         overGRPC(true),
	} {
		t.Run(name, func(t *testing.T) { runBrowsers(t, s, send) })
	}
	// Without encode_raw_headers, Envoy itself has replaced what is no UTF-8.
	t.Run("gRPC without raw headers", func(t *testing.T) {
		send := overGRPC(false)
		for _, b := range browsers(s) {
			if b.status == 400 {
				continue
			}
			status, code := send(t, b.method, b.target, append([]string{latinAgent}, b.headers...)...)
			if status != b.status || code != b.code {
				t.Errorf("%s: got %d %s, want %d %s", b.what, status, code, b.status, b.code)
			}
		}
	})
}

// throughGateway sends the same through a gateway, and signs in there with cookies that it has to get rid of.
func (w *world) throughGateway(t *testing.T, addr string, s sessions) {
	defer w.service.take()
	runBrowsers(t, s, asking(addr, here, func(method, target string, headers []string) string {
		return request(method, target, "", headers...)
	}))
	const path = "/api/v2/barong/identity/sessions"
	first, _, set := signIn(t, addr, path, adminEmail)
	if len(set) != 1 {
		t.Errorf("a browser without cookies was set %v", set)
	}
	second, _, set := signIn(t, addr, path, adminEmail, first, "theme=caf\xe9", "_barong_session=x")
	var domains []string
	for _, c := range set[:len(set)-1] {
		if c.MaxAge >= 0 {
			t.Errorf("%v drops nothing", c)
		}
		domains = append(domains, c.Domain)
	}
	if !slices.Equal(domains, []string{"", "app.example.test", "example.test"}) {
		t.Errorf("signing in with two cookies dropped those of %q", domains)
	}
	for cookie, want := range map[string]int{first: 401, second: 200} {
		if r := rawFrom(t, addr, here, request("GET", account, "", latinAgent, "Cookie: "+cookie, "Connection: close")); r.Status != want {
			t.Errorf("after signing in again: got %+v, want %d", r, want)
		}
	}
}
