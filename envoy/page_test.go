package envoy_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/valyala/fasthttp"

	"barong/authz"
	"barong/envoy"
	"barong/internal/listener"
	"barong/internal/pages"
	"barong/session"
	"barong/session/near"
)

var (
	ann      = &session.Principal{UID: "ID1", Email: `ann+<b>"x"@example.com`, Role: "member", State: "active"}
	notForMe = authz.Decision{Status: 401, Code: "authz.invalid_permission", Credential: authz.Cookie, Principal: ann, Session: &near.Session{}}
)

func refusals() *pages.Refusals {
	return pages.NewRefusals("Café & Co", []string{"/accounts/assets/style-X.css"}, func() []pages.Header { return pages.Headers("none") })
}

// A browser that is signed in and refused gets a page of the same status, and nobody else does.
func TestRefusalPage(t *testing.T) {
	mismatch := notForMe
	mismatch.Code = "authz.client_session_mismatch"
	of := func(status int, code string) authz.Decision {
		return authz.Decision{Status: status, Code: code, Credential: authz.Cookie, Principal: ann, Session: &near.Session{}}
	}
	const browser = "Accept: text/html,application/xhtml+xml,*/*;q=0.8"
	for _, test := range []struct {
		name, method string
		headers      []string
		decision     authz.Decision
		has          []string // of the page; nil for none
		hasNot       []string
	}{
		{
			"not permitted", "GET",
			[]string{browser},
			notForMe,
			[]string{
				`<html lang="en">`, "You may not open this page", `data-code="authz.invalid_permission"`, "ann+&lt;b&gt;&#34;x&#34;@example.com", "(member)",
				`href="/accounts/signout?rd=`, `href="/accounts/"`, `href="/accounts/assets/style-X.css"`, "Café &amp; Co", "· 401 ·",
			},
			[]string{"<b>", "<script", "style=", "\n"},
		},
		{
			"in Russian", "GET",
			[]string{browser, "Accept-Language: de, ru-RU;q=0.9, en;q=0.8"},
			notForMe,
			[]string{`<html lang="ru">`, "Эта страница вам недоступна", "Вы вошли как"},
			nil,
		},
		{"in no language that there is", "GET", []string{browser, "Accept-Language: de, fr;q=x, ru;q=0"}, notForMe, []string{`<html lang="en">`}, nil},
		{"the gateway's id", "GET", []string{browser, "X-Request-Id: 0c3a3f4e-1d0f"}, notForMe, []string{"<code>0c3a3f4e-1d0f</code>"}, nil},
		{"an id that is none", "GET", []string{browser, "X-Request-Id: <script>"}, notForMe, []string{"Request <code>"}, []string{"<script"}},
		{"somebody else's session", "GET", []string{browser}, mismatch, []string{"Please sign in again", `href="/accounts/signin?rd=`}, []string{"ann", "member"}},
		{"a closed account", "GET", []string{browser}, of(401, "authz.user_not_active"), []string{"Your account is closed", "ann+"}, nil},
		{"an outage", "GET", []string{browser}, of(503, "authz.unavailable"), []string{"Please try again in a moment", `data-code="authz.unavailable"`}, nil},
		{"maintenance", "GET", []string{browser}, of(471, "authz.restrict.maintenance"), []string{"We will be back soon"}, nil},
		{"another restriction", "GET", []string{browser}, of(423, "authz.restrict.geo.strange"), []string{"Not available from where you are"}, nil},
		{"another code", "GET", []string{browser}, of(451, "authz.new"), []string{"This page was refused", `data-code="authz.new"`}, nil},
		{"a program", "GET", []string{"Accept: application/json"}, notForMe, nil, nil},
		{"anything", "GET", []string{"Accept: */*"}, notForMe, nil, nil},
		{"nothing", "GET", nil, notForMe, nil, nil},
		{"a form", "POST", []string{browser, "Content-Length: 0"}, notForMe, nil, nil},
		{"HEAD", "HEAD", []string{browser}, notForMe, nil, nil},
		{"an API key", "GET", []string{browser}, authz.Decision{Status: 401, Code: "authz.invalid_permission", Credential: authz.APIKey, Principal: ann}, nil, nil},
		{"nobody", "GET", []string{browser}, noSession, nil, nil},
		{"nobody and a restriction", "GET", []string{browser}, authz.Decision{Status: 471, Code: "authz.restrict.maintenance"}, nil, nil},
		{"allowed", "GET", []string{browser}, allow, nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := envoy.Options{Checker: says(test.decision), Refusals: refusals()}
			h := envoy.New(envoy.Options{Checker: o.Checker, Refusals: o.Refusals, Trusted: everyone})
			gate := serve(t, func(ctx *fasthttp.RequestCtx) {
				if h.Gate(ctx, func() {}) {
					ctx.SetStatusCode(http.StatusOK)
				}
			}, listener.Options{})
			addr := checks(t, o)
			looks := func(dialect, kind, page string, status int, header http.Header) {
				t.Helper()
				if len(test.has) == 0 {
					if strings.Contains(kind, "html") || strings.Contains(page, "<") || header.Get("Content-Security-Policy") != "" {
						t.Errorf("%s: got %s %s %v", dialect, kind, page, header)
					}
					return
				}
				if status != test.decision.Status || kind != "text/html; charset=utf-8" {
					t.Errorf("%s: got %d %s", dialect, status, kind)
				}
				for _, want := range test.has {
					if !strings.Contains(page, want) {
						t.Errorf("%s: no %q in %s", dialect, want, page)
					}
				}
				for _, not := range test.hasNot {
					if strings.Contains(page, not) {
						t.Errorf("%s: %q in %s", dialect, not, page)
					}
				}
				for _, want := range pages.Headers("none") {
					if header.Get(want.Name) != want.Value {
						t.Errorf("%s: %s is %q", dialect, want.Name, header.Get(want.Name))
					}
				}
				if header.Get("Cache-Control") != "no-store" {
					t.Errorf("%s: it may be kept: %v", dialect, header)
				}
			}
			for dialect, got := range map[string]reply{
				"forward_auth": get(t, addr, "/api/v2/forward-auth", append(test.headers, "X-Forwarded-Method: "+test.method, "X-Forwarded-Uri: /app?a=b&c")...),
				"ext_authz":    do(t, addr, test.method, "/api/v2/auth/app?a=b&c", test.headers...),
				"gate":         do(t, gate, test.method, "/app?a=b&c", test.headers...),
			} {
				looks(dialect, got.Header.Get("Content-Type"), got.Body, got.Status, got.Header)
				if len(test.has) == 0 && test.decision.Effect == authz.Deny && test.method != "HEAD" && got.Body != `{"errors":["`+test.decision.Code+`"]}` {
					t.Errorf("%s: got %+v", dialect, got)
				}
			}
			// nginx has no place for a body: the page comes in a header, to who asks for it.
			headers := append(test.headers, "X-Original-Method: "+test.method, "X-Original-URI: /app?a=b&c")
			got := get(t, addr, "/api/v2/auth-request", headers...)
			if got.Header.Get("X-Auth-Page") != "" || strings.Contains(got.Header.Get("Content-Type"), "html") {
				t.Errorf("auth_request without being asked for a page: got %+v", got)
			}
			got = get(t, addr, "/api/v2/auth-request", append(headers, "X-Auth-Page: yes")...)
			kind := ""
			if got.Header.Get("X-Auth-Page") != "" {
				kind = "text/html; charset=utf-8"
			}
			looks("auth_request", kind, got.Header.Get("X-Auth-Page"), got.Status, got.Header)
			if test.decision.Effect == authz.Deny && got.Body != `{"errors":["`+test.decision.Code+`"]}` {
				t.Errorf("auth_request: got %+v", got)
			}

			_, conn := listenGRPC(t, o)
			sent := map[string]string{}
			for _, h := range test.headers {
				name, value, _ := strings.Cut(h, ": ")
				sent[strings.ToLower(name)] = value
			}
			denied := check(t, conn, attributes(test.method, "/app?a=b&c", sent)).GetDeniedResponse()
			header := http.Header{}
			for name, value := range values(denied.GetHeaders()) {
				header.Set(name, strings.TrimSuffix(value, " OVERWRITE_IF_EXISTS_OR_ADD"))
			}
			looks("gRPC", header.Get("Content-Type"), denied.GetBody(), int(denied.GetStatus().GetCode()), header)
		})
	}
}

// Where the page leads is where the browser was, as a trusted gateway says, and where the portal is.
func TestRefusalPageLinks(t *testing.T) {
	for _, test := range []struct {
		name, login, target string
		headers             []string
		want                string
	}{
		{"a host", "/accounts/signin", "/a?b", []string{"Proto: https", "Host: a.example"}, `"/accounts/signout?rd=https%3A%2F%2Fa.example%2Fa%3Fb"`},
		{"no host", "/accounts/signin", "/a", nil, `"/accounts/signout?rd=%2Fa"`},
		{"a host of its own", "https://login.example/accounts/signin", "/a", nil, `"https://login.example/accounts/signout?rd=%2Fa"`},
		{"a login page of somebody else's", "https://login.example/in", "/a", nil, `"/accounts/signout?rd=%2Fa"`},
		{"no login page", "", "/a", nil, `"/accounts/signout?rd=%2Fa"`},
		{"an endless address", "", "/" + strings.Repeat("a", 5000), nil, `"/accounts/signout?rd=%2F"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			addr := checks(t, envoy.Options{Checker: says(notForMe), Refusals: refusals(), LoginURL: test.login})
			headers := []string{"X-Forwarded-Method: GET", "X-Forwarded-Uri: " + test.target, "Accept: text/html"}
			for _, h := range test.headers {
				headers = append(headers, "X-Forwarded-"+h)
			}
			if r := get(t, addr, "/api/v2/forward-auth", headers...); !strings.Contains(r.Body, test.want) {
				t.Errorf("no %s in %+v", test.want, r)
			}
		})
	}
	// An ambiguous address is not repeated as a link to another host.
	ambiguous := authz.Decision{Status: 400, Code: "authz.other", Credential: authz.Cookie, Principal: ann}
	addr := checks(t, envoy.Options{Checker: says(ambiguous), Refusals: refusals()})
	if r := get(t, addr, "/api/v2/auth//evil.example/x", "Accept: text/html"); !strings.Contains(r.Body, `href="/"`) || strings.Contains(r.Body, "evil") {
		t.Errorf("got %+v", r)
	}
}

// A lockedBuffer is written by a server while a test reads it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// knowing is a checker that knows whose session is shown.
type knowing struct {
	*script
	calls atomic.Int32
}

func (k *knowing) Identify(_ context.Context, _ *authz.Request, d *authz.Decision) {
	k.calls.Add(1)
	d.Principal = ann
}

// Who is signed in is asked only for browsers that were refused before anybody was asked, and told to the log with the id
// that the page shows.
func TestRefusalPageIdentifies(t *testing.T) {
	for _, test := range []struct {
		name, accept, method string
		decision             authz.Decision
		asked                bool
	}{
		{"a restriction", "text/html", "GET", authz.Decision{Status: 471, Code: "authz.restrict.maintenance"}, true},
		{"a blocked path", "text/html", "GET", authz.Decision{Status: 401, Code: "authz.permission_denied"}, true},
		{"to a program", "*/*", "GET", authz.Decision{Status: 471, Code: "authz.restrict.maintenance"}, false},
		{"to a form", "text/html", "POST", authz.Decision{Status: 471, Code: "authz.restrict.maintenance"}, false},
		{"known", "text/html", "GET", notForMe, false},
		{"allowed", "text/html", "GET", allow, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			checker := &knowing{script: says(test.decision)}
			var log lockedBuffer
			addr := checks(t, envoy.Options{
				Checker: checker, Refusals: refusals(), Trusted: func(netip.Addr) bool { return true }, Log: slog.New(slog.NewTextHandler(&log, nil)),
			})
			r := do(t, addr, test.method, "/api/v2/auth/app", "Accept: "+test.accept, "X-Request-Id: abc.1", "Content-Length: 0")
			if (checker.calls.Load() > 0) != test.asked || test.asked && !strings.Contains(r.Body, "ann+") {
				t.Errorf("asked %d times, got %+v", checker.calls.Load(), r)
			}
			logged := strings.Contains(log.String(), "a browser was refused") && strings.Contains(log.String(), "uid=ID1")
			if logged != strings.Contains(r.Body, "<code>abc.1</code>") {
				t.Errorf("the page %s, the log %s", r.Body, log.String())
			}
		})
	}
	// What nobody trusts, or nobody can read, is not looked into.
	checker := &knowing{script: says(allow)}
	addr := checks(t, envoy.Options{Checker: checker, Refusals: refusals(), Trusted: nobody})
	if r := get(t, addr, "/api/v2/forward-auth", "X-Forwarded-Method: GET", "X-Forwarded-Uri: /a", "Accept: text/html"); r.Status != 403 || checker.calls.Load() > 0 {
		t.Errorf("asked %d times, got %+v", checker.calls.Load(), r)
	}
}

// A login page that nobody reaches without a session is none.
func TestLoginOpen(t *testing.T) {
	var open atomic.Bool
	addr := checks(t, envoy.Options{Checker: says(noSession), LoginURL: "/accounts/signin", LoginOpen: open.Load})
	for _, want := range []int{401, 302} {
		if r := get(t, addr, "/api/v2/auth/app", "Accept: text/html"); r.Status != want {
			t.Errorf("open %v: got %+v", open.Load(), r)
		}
		open.Store(true)
	}
}
