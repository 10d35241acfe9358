package envoy_test

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"barong/authz"
	"barong/envoy"
	"barong/internal/reqid"
	"barong/session/near"
)

var noSession = authz.Decision{Status: 401, Code: "authz.invalid_session"}

// Browsers that nobody is signed in with are redirected, and nobody else.
func TestLoginRedirect(t *testing.T) {
	const page = "https://login.example/in?lang=en#form"
	const there = "https://login.example/in?lang=en&rd=%2Fapp%3Fa%3Db%26c#form"
	for _, test := range []struct {
		name, method, accept string
		decision             authz.Decision
		login                string
		redirected           bool
	}{
		{"browser", "GET", "text/html,application/xhtml+xml,*/*;q=0.8", noSession, page, true},
		{"head", "HEAD", "text/html", noSession, page, true},
		{"weighted", "GET", "application/json, TEXT/HTML ; q=0.5", noSession, page, true},
		{"refused", "GET", "application/json, text/html;q=0", noSession, page, false},
		{"refused to three places", "GET", "text/html; q=0.000", noSession, page, false},
		{"anything", "GET", "*/*", noSession, page, false},
		{"another type", "GET", "text/htmlx", noSession, page, false},
		{"script", "GET", "application/json", noSession, page, false},
		{"nothing", "GET", "", noSession, page, false},
		{"a form", "POST", "text/html", noSession, page, false},
		{"no login page", "GET", "text/html", noSession, "", false},
		{"API key", "GET", "text/html", authz.Decision{Status: 401, Code: "authz.invalid_session", Credential: authz.APIKey}, page, false},
		{"expired", "GET", "text/html", authz.Decision{Status: 401, Code: "authz.client_session_mismatch", Credential: authz.Cookie}, page, true},
		{
			"another's session", "GET", "text/html",
			authz.Decision{Status: 401, Code: "authz.client_session_mismatch", Credential: authz.Cookie, Session: &near.Session{}},
			page, false,
		},
		{"signed in, not permitted", "GET", "text/html", authz.Decision{Status: 401, Code: "authz.invalid_permission", Credential: authz.Cookie}, page, false},
		{"outage", "GET", "text/html", authz.Decision{Status: 503, Code: "authz.unavailable"}, page, false},
		{"allowed", "GET", "text/html", allow, page, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := envoy.Options{Checker: says(test.decision), LoginURL: test.login}
			addr := checks(t, o)
			for dialect, got := range map[string]reply{
				"forward_auth": get(t, addr, "/api/v2/forward-auth", "X-Forwarded-Method: "+test.method, "X-Forwarded-Uri: /app?a=b&c", "Accept: "+test.accept),
				"ext_authz":    do(t, addr, test.method, "/api/v2/auth/app?a=b&c", "Accept: "+test.accept),
			} {
				if test.redirected != (got.Status == 302) || test.redirected != (got.Header.Get("Location") != "") {
					t.Errorf("%s: got %+v", dialect, got)
				}
				want := http.Header{"Location": {there}, "Cache-Control": {"no-store"}, "Content-Length": {"0"}}
				got.Header.Del(reqid.Header)
				if test.redirected && (got.Body != "" || !maps.EqualFunc(got.Header, want, slices.Equal)) && dialect == "forward_auth" {
					t.Errorf("%s: got %+v", dialect, got)
				}
			}
			// nginx knows no redirect in the answer to a check: it is told where to.
			got := get(t, addr, "/api/v2/auth-request", "X-Original-Method: "+test.method, "X-Original-URI: /app?a=b&c", "Accept: "+test.accept)
			if got.Status == 302 || test.redirected != (got.Header.Get("Location") == there) || test.redirected && got.Status != 401 {
				t.Errorf("auth_request: got %+v", got)
			}
			_, conn := listenGRPC(t, o)
			denied := check(t, conn, attributes(test.method, "/app?a=b&c", map[string]string{"accept": test.accept})).GetDeniedResponse()
			location := values(denied.GetHeaders())["location"]
			if test.redirected != (denied.GetStatus().GetCode() == 302) || test.redirected != strings.HasPrefix(location, there+" ") ||
				test.redirected && denied.GetBody() != "" {
				t.Errorf("gRPC: got %+v", denied)
			}
		})
	}
}

// do is get with a method.
func do(t *testing.T, addr, method, target string, headers ...string) reply {
	t.Helper()
	r, _ := raw(t, addr, request(method, target, "", headers...))
	return r
}

// The login page is found from where the client stands, as a trusted gateway says, and never leads to another site.
func TestLoginLocation(t *testing.T) {
	for _, test := range []struct {
		name, login, target string
		headers             []string // of forward-auth
		want                string   // empty: no redirect
	}{
		{"relative", "/signin", "/app", []string{"Proto: https", "Host: a.example"}, "https://a.example/signin?rd=https%3A%2F%2Fa.example%2Fapp"},
		{"a port", "/signin", "/", []string{"Proto: http", "Host: a.example:8000"}, "http://a.example:8000/signin?rd=http%3A%2F%2Fa.example%3A8000%2F"},
		{"IPv6", "/signin", "/", []string{"Proto: HTTP", "Host: [::1]:80"}, "http://[::1]:80/signin?rd=http%3A%2F%2F%5B%3A%3A1%5D%3A80%2F"},
		{"two proxies", "/signin", "/a", []string{"Proto: https, http", "Host: a.example"}, "https://a.example/signin?rd=https%3A%2F%2Fa.example%2Fa"},
		{"absolute", "https://login.example", "/a", []string{"Proto: https", "Host: a.example"}, "https://login.example?rd=https%3A%2F%2Fa.example%2Fa"},
		{"a query", "/in?a=b&", "/a", nil, "/in?a=b&rd=%2Fa"},
		{"a fragment", "/#/signin", "/a", nil, "/?rd=%2Fa#/signin"},
		{"no host", "/signin", "/a", []string{"Proto: https"}, "/signin?rd=%2Fa"},
		{"no scheme", "/signin", "/a", []string{"Host: a.example"}, "/signin?rd=%2Fa"},
		{"another scheme", "/signin", "/a", []string{"Proto: javascript", "Host: a.example"}, "/signin?rd=%2Fa"},
		{"two hosts", "/signin", "/a", []string{"Proto: https", "Host: a.example", "Host: evil.example"}, "/signin?rd=%2Fa"},
		{"a list of hosts", "/signin", "/a", []string{"Proto: https", "Host: a.example, evil.example"}, "/signin?rd=%2Fa"},
		{"userinfo", "/signin", "/a", []string{"Proto: https", "Host: a.example@evil.example"}, "/signin?rd=%2Fa"},
		{"a path in the host", "/signin", "/a", []string{"Proto: https", "Host: evil.example/x?"}, "/signin?rd=%2Fa"},
		{"a backslash", "/signin", "/a", []string{"Proto: https", `Host: evil.example\.a`}, "/signin?rd=%2Fa"},
		{"an endless address", "/signin", "/a?" + strings.Repeat("x", 5000), []string{"Proto: https", "Host: a.example"}, "https://a.example/signin?rd=https%3A%2F%2Fa.example%2F"},
		{"the page itself", "/signin", "/signin", []string{"Proto: https", "Host: a.example"}, ""},
		{"with a query", "/signin", "/signin?rd=%2Fsignin", nil, ""},
		{"with a slash", "/signin", "/signin/?x", nil, ""},
		{"with an escape", "/signin", "/%73ignin", nil, ""},
		{"below it", "/signin", "/signin/help", nil, "/signin?rd=%2Fsignin%2Fhelp"},
		{"beside it", "/signin", "/signing", nil, "/signin?rd=%2Fsigning"},
		{"itself, absolute", "https://a.example/signin", "/signin?x", []string{"Proto: https", "Host: A.example:443"}, ""},
		{"itself, perhaps", "https://a.example/signin", "/signin", nil, ""},
		{
			"its path elsewhere", "https://login.example/signin", "/signin",
			[]string{"Proto: https", "Host: a.example"},
			"https://login.example/signin?rd=https%3A%2F%2Fa.example%2Fsignin",
		},
		{"an ambiguous path", "/signin", "/a/../b", nil, ""},
		{"another site's", "/signin", "//evil.example/a", nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			addr := checks(t, envoy.Options{Checker: says(noSession), LoginURL: test.login})
			headers := []string{"X-Forwarded-Method: GET", "X-Forwarded-Uri: " + test.target, "Accept: text/html", "Host: checks.internal:8081"}
			for _, h := range test.headers {
				headers = append(headers, "X-Forwarded-"+h)
			}
			r, _ := raw(t, addr, strings.Replace(request("GET", "/api/v2/forward-auth", "", headers...), "Host: gateway\r\n", "", 1))
			if got := r.Header.Get("Location"); got != test.want || (r.Status == 302) != (test.want != "") {
				t.Errorf("got %d to %q, want %q", r.Status, got, test.want)
			}
		})
	}

	// Envoy passes the client's own Host on; X-Forwarded-Host is any client's to send.
	const want = "https://a.example:8443/signin?rd=https%3A%2F%2Fa.example%3A8443%2Fapp"
	o := envoy.Options{Checker: says(noSession), LoginURL: "/signin"}
	ask := func(addr string) string {
		r, _ := raw(t, addr, "GET /api/v2/auth/app HTTP/1.1\r\nHost: a.example:8443\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.example\r\nAccept: text/html\r\n\r\n")
		return r.Header.Get("Location")
	}
	if got := ask(checks(t, o)); got != want {
		t.Errorf("ext_authz: %q", got)
	}
	_, conn := listenGRPC(t, o)
	in := attributes("GET", "/app", map[string]string{"accept": "text/html", "x-forwarded-proto": "https", "x-forwarded-host": "evil.example"})
	in.Attributes.Request.Http.Host, in.Attributes.Request.Http.Scheme = "a.example:8443", "http"
	where := func(in *auth.CheckRequest) string {
		return values(check(t, conn, in).GetDeniedResponse().GetHeaders())["location"]
	}
	if got := where(in); !strings.HasPrefix(got, want+" ") {
		t.Errorf("gRPC: %q", got)
	}
	delete(in.Attributes.Request.Http.Headers, "x-forwarded-proto")
	if got := where(in); !strings.HasPrefix(got, "http://a.example:8443/signin?rd=") {
		t.Errorf("gRPC without X-Forwarded-Proto: %q", got)
	}
	o.Trusted = nobody
	if got := ask(checks(t, o)); got != "/signin?rd=%2Fapp" {
		t.Errorf("of a peer that nobody trusts: %q", got)
	}
}

// The address alone, which has no path behind Envoy's prefix, is an unknown route to programs. Browsers are sent to the login
// page as from every other gateway, and told what was refused when they are signed in.
func TestLoginRoot(t *testing.T) {
	const html = "Accept: text/html,*/*;q=0.8"
	addr := checks(t, envoy.Options{Checker: says(noSession), LoginURL: "/signin"})
	for _, test := range []struct {
		method, target, accept string
		status                 int
		location               string
	}{
		{"GET", "/api/v2/auth/", html, 302, "/signin?rd=%2F"},
		{"GET", "/api/v2/auth/?tab=1", html, 302, "/signin?rd=%2F%3Ftab%3D1"},
		{"HEAD", "/api/v2/auth/", html, 302, "/signin?rd=%2F"},
		{"GET", "/api/v2/auth", html, 404, ""},
		{"GET", "/api/v2/auth?/", html, 404, ""},
		{"GET", "/api/v2/auth/", "Accept: */*", 404, ""},
		{"GET", "/api/v2/auth/", "Accept: text/html;q=0", 404, ""},
		{"POST", "/api/v2/auth/", html, 404, ""},
		{"GET", "/api/v2/auth//", html, 401, ""}, // of a path with two readings there is no address to return to
	} {
		got := do(t, addr, test.method, test.target, test.accept, "X-Forwarded-Proto: ftp")
		if got.Status != test.status || got.Header.Get("Location") != test.location {
			t.Errorf("%s %s, %s: got %+v", test.method, test.target, test.accept, got)
		}
	}
	denied := authz.Decision{Status: 401, Code: "authz.invalid_permission", Credential: authz.Cookie}
	if got := get(t, checks(t, envoy.Options{Checker: says(denied), LoginURL: "/signin"}), "/api/v2/auth/", html); got.Status != 401 || !strings.Contains(got.Body, denied.Code) {
		t.Errorf("signed in: got %+v", got)
	}
}

// ingress-nginx names the client's target by its address. Where both headers are there, they name one.
func TestOriginalURL(t *testing.T) {
	for _, test := range []struct {
		name    string
		headers []string
		want    string // target that the checker is asked; empty: 400
	}{
		{"absolute", []string{"URL: https://app.example/x?a=b"}, "/x?a=b"},
		{"in capitals, with a port", []string{"URL: HTTP://APP.example:8443/x"}, "/x"},
		{"a path", []string{"URL: /x?a=https://b/c"}, "/x?a=https://b/c"},
		{"IPv6", []string{"URL: http://[::1]/"}, "/"},
		{"both alike", []string{"URL: https://app.example/x?a", "URI: /x?a"}, "/x?a"},
		{"another path", []string{"URL: https://app.example/x", "URI: /y"}, ""},
		{"another query", []string{"URL: https://app.example/x?a", "URI: /x?b"}, ""},
		{"another spelling", []string{"URL: https://app.example/%78", "URI: /x"}, ""},
		{"twice", []string{"URL: /x", "URL: /x"}, ""},
		{"beside two", []string{"URL: /x", "URI: /x", "URI: /x"}, ""},
		{"another scheme", []string{"URL: ftp://app.example/x"}, ""},
		{"no scheme", []string{"URL: app.example/x"}, ""},
		{"no path", []string{"URL: https://app.example"}, ""},
		{"no path but a query", []string{"URL: https://app.example?/x"}, ""},
		{"no path but a fragment", []string{"URL: https://app.example#/x"}, ""},
		{"no host", []string{"URL: https:///x"}, ""},
		{"userinfo", []string{"URL: https://app.example@evil/x"}, ""},
		{"a backslash", []string{`URL: https://app.example\x/y`}, ""},
		{"one slash", []string{"URL: https:/x"}, ""},
		{"nothing", []string{"URL:"}, ""},
		{"an alias", []string{"URI: /x", "U_RL: /x"}, "/x"},
	} {
		t.Run(test.name, func(t *testing.T) {
			checker := says(allow)
			addr := checks(t, envoy.Options{Checker: checker})
			headers := []string{"X-Original-Method: GET"}
			for _, h := range test.headers {
				headers = append(headers, "X-Original-"+h)
			}
			got := get(t, addr, "/api/v2/auth-request", headers...)
			asked := checker.take()
			if test.want == "" {
				if got.Status != 400 || got.Body != `{"errors":["authz.malformed_request"]}` || len(asked) != 0 {
					t.Errorf("got %+v, asked %+v", got, asked)
				}
				return
			}
			if got.Status != 200 || len(asked) != 1 || asked[0].Target != test.want {
				t.Errorf("got %+v, asked %+v", got, asked)
			}
		})
	}
	addr := checks(t, envoy.Options{Checker: says(allow)})
	if r := get(t, addr, "/api/v2/auth-request", "X-Original-Method: GET", "X-Original-URI: /x", "X_Original_URL: /y"); r.Status != 400 {
		t.Errorf("an alias of the header: got %+v", r)
	}
	// Where the client is to sign in is told from the address.
	addr = checks(t, envoy.Options{Checker: says(noSession), LoginURL: "/signin"})
	r := get(t, addr, "/api/v2/auth-request", "X-Original-Method: GET", "X-Original-URL: https://app.example/x", "Accept: text/html")
	if want := "https://app.example/signin?rd=https%3A%2F%2Fapp.example%2Fx"; r.Status != 401 || r.Header.Get("Location") != want {
		t.Errorf("got %+v", r)
	}
}
