package envoy_test

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fasthttp/router"
	"github.com/valyala/fasthttp"

	"barong/authz"
	"barong/envoy"
	"barong/internal/listener"
	"barong/internal/reqid"
)

// dialects are the ways to ask over HTTP. Each asks for GET /api/v2/orders?page=2.
var dialects = []struct {
	name    string
	dialect authz.Dialect
	ask     func(t *testing.T, addr string, headers ...string) reply
}{
	{"ext_authz", authz.EnvoyHTTP, func(t *testing.T, addr string, headers ...string) reply {
		return get(t, addr, "/api/v2/auth/api/v2/orders?page=2", headers...)
	}},
	{"forward_auth", authz.ForwardAuth, func(t *testing.T, addr string, headers ...string) reply {
		return get(t, addr, "/api/v2/forward-auth",
			append(headers, "X-Forwarded-Method: GET", "X-Forwarded-Uri: /api/v2/orders?page=2")...)
	}},
	{"auth_request", authz.AuthRequest, func(t *testing.T, addr string, headers ...string) reply {
		return get(t, addr, "/api/v2/auth-request",
			append(headers, "X-Original-Method: GET", "X-Original-URI: /api/v2/orders?page=2")...)
	}},
}

// decisions are what a Checker may say, and what must be made of it.
var decisions = []struct {
	name     string
	decision authz.Decision
	status   int
	code     string // of the answer; empty when the request may pass
	counted  string
}{
	{"allowed", allow, 200, "", "allow  cookie"},
	{"allowed, session renewed", authz.Decision{
		Effect: authz.Allow, Status: 200, Authorization: []byte("Bearer a.b.c"),
		SetCookie: "_barong_session=x; path=/; HttpOnly",
	}, 200, "", "allow  none"},
	{"passed", authz.Decision{Effect: authz.Pass, Status: 200}, 200, "", "pass  none"},
	{"refused", authz.Decision{Status: 401, Code: "authz.invalid_session"}, 401, "authz.invalid_session", "deny authz.invalid_session none"},
	{
		"refused, session renewed",
		authz.Decision{Status: 401, Code: "authz.invalid_permission", SetCookie: "_barong_session=x", Credential: authz.Cookie},
		401, "authz.invalid_permission", "deny authz.invalid_permission cookie",
	},
	{"restricted", authz.Decision{Status: 471, Code: "authz.restrict.maintenance"}, 471, "authz.restrict.maintenance", "deny authz.restrict.maintenance none"},
	{"locked", authz.Decision{Status: 423, Code: "authz.restrict.blacklist"}, 423, "authz.restrict.blacklist", "deny authz.restrict.blacklist none"},
	{"key headers", authz.Decision{Status: 422, Code: "authz.invalid_api_key_headers"}, 422, "authz.invalid_api_key_headers", "deny authz.invalid_api_key_headers none"},
	{"undecided", authz.Decision{Status: 503, Code: "authz.unavailable"}, 503, "authz.unavailable", "deny authz.unavailable none"},
	{"nothing said", authz.Decision{}, 503, "authz.unavailable", "deny authz.unavailable none"},
	{"allowed without a token", authz.Decision{Effect: authz.Allow, Status: 200}, 503, "authz.unavailable", "deny authz.unavailable none"},
	{"refused with 200", authz.Decision{Status: 200, Code: "authz.restrict.blacklist"}, 503, "authz.unavailable", "deny authz.unavailable none"},
	{"refused with 302", authz.Decision{Status: 302, Code: "authz.restrict.blacklist"}, 503, "authz.unavailable", "deny authz.unavailable none"},
	{"refused with 700", authz.Decision{Status: 700, Code: "authz.restrict.blacklist"}, 503, "authz.unavailable", "deny authz.unavailable none"},
	{"refused without a code", authz.Decision{Status: 403}, 503, "authz.unavailable", "deny authz.unavailable none"},
	{"neither", authz.Decision{Effect: 9, Status: 200, Authorization: []byte("Bearer a.b.c")}, 503, "authz.unavailable", "deny authz.unavailable none"},
}

func TestAnswers(t *testing.T) {
	for _, dialect := range dialects {
		for _, test := range decisions {
			t.Run(dialect.name+"/"+test.name, func(t *testing.T) {
				checker := says(test.decision)
				count := &observed{}
				addr := checks(t, envoy.Options{Checker: checker, Observer: count})
				got := dialect.ask(t, addr)

				want := reply{Status: test.status, Header: http.Header{"Cache-Control": {"no-store"}}}
				switch {
				case test.code != "":
					want.Body = `{"errors":["` + test.code + `"]}`
					want.Header.Set("Content-Type", "application/json")
					want.Header.Set(reqid.Header, got.Header.Get(reqid.Header)) // see TestRefusalsCarryTheNameOfTheirRequest
				case test.decision.Effect == authz.Allow:
					want.Header.Set("Authorization", "Bearer a.b.c")
				default:
					want.Header.Set("X-Envoy-Auth-Headers-To-Remove", "authorization")
				}
				if test.decision.SetCookie != "" {
					want.Header.Set("Set-Cookie", test.decision.SetCookie)
				}
				if dialect.dialect == authz.AuthRequest {
					want.Header.Set("X-Auth-Status", strconv.Itoa(test.status))
					if test.code != "" {
						want.Header.Set("X-Auth-Code", test.code)
					}
				}
				want.Header.Set("Content-Length", strconv.Itoa(len(want.Body)))
				if got.Status != want.Status || got.Body != want.Body || !maps.EqualFunc(got.Header, want.Header, slices.Equal) {
					t.Errorf("got  %+v\nwant %+v", got, want)
				}
				if counted, want := count.take(), dialect.dialect.String()+" "+test.counted; len(counted) != 1 || counted[0] != want {
					t.Errorf("counted %q, want %q", counted, want)
				}
				asked := checker.take()
				if len(asked) != 1 || asked[0].Dialect != dialect.dialect || asked[0].Method != "GET" ||
					asked[0].Target != "/api/v2/orders?page=2" || asked[0].Peer != netip.MustParseAddr("127.0.0.1") {
					t.Errorf("the checker was asked %+v", asked)
				}
			})
		}
	}
}

// A refusal must not be cached, and must look the same to HEAD but for its body.
func TestHead(t *testing.T) {
	addr := checks(t, envoy.Options{Checker: says(authz.Decision{Status: 401, Code: "authz.invalid_session"})})
	r, _ := raw(t, addr, request("HEAD", "/api/v2/auth/x", ""))
	if r.Status != 401 || r.Body != "" || r.Header.Get("Content-Length") != "36" || r.Header.Get("Content-Type") != "application/json" {
		t.Errorf("got %+v", r)
	}
}

// Every method is the client's own, whatever override headers say.
func TestMethodsArePassedOn(t *testing.T) {
	checker := says(allow)
	addr := checks(t, envoy.Options{Checker: checker})
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PURGE", "get", "M-SEARCH"} {
		raw(t, addr, request(method, "/api/v2/auth/x", "", "X-HTTP-Method-Override: DELETE", "X-HTTP-Method: DELETE", "X-Method-Override: DELETE"))
		if asked := checker.take(); len(asked) != 1 || asked[0].Method != method || asked[0].Target != "/x" {
			t.Errorf("%s: the checker was asked %+v", method, asked)
		}
	}
}

// Override headers are reported, but no more than once a minute.
func TestOverridesAreReported(t *testing.T) {
	var out strings.Builder
	addr := checks(t, envoy.Options{Checker: says(allow), Log: slog.New(slog.NewTextHandler(&out, nil))})
	for range 3 {
		get(t, addr, "/api/v2/auth/x", "X-Http-Method-Override: DELETE")
	}
	if n := strings.Count(out.String(), "method override"); n != 1 {
		t.Errorf("reported %d times:\n%s", n, &out)
	}
}

// The dialects whose target stands in headers believe trusted peers only, and want each header exactly once.
func TestForwardedHeaders(t *testing.T) {
	type variant struct {
		path, method, target string
	}
	for _, v := range []variant{
		{"/api/v2/forward-auth", "X-Forwarded-Method", "X-Forwarded-Uri"},
		{"/api/v2/auth-request", "X-Original-Method", "X-Original-URI"},
	} {
		other := [2]string{"X-Original-Method: GET", "X-Original-URI: /pub"}
		if v.method == "X-Original-Method" {
			other = [2]string{"X-Forwarded-Method: GET", "X-Forwarded-Uri: /pub"}
		}
		for _, test := range []struct {
			name    string
			headers []string
			want    string // target that the checker is asked; empty: 400
		}{
			{"as it should be", []string{v.method + ": GET", v.target + ": /a?b=c"}, "/a?b=c"},
			{"in lower case", []string{strings.ToLower(v.method) + ": GET", strings.ToLower(v.target) + ": /a"}, "/a"},
			{"beside the other dialect's", []string{other[0], other[1], v.method + ": GET", v.target + ": /a"}, "/a"},
			{"nothing", nil, ""},
			{"the other dialect's alone", other[:], ""},
			{"no method", []string{v.target + ": /a"}, ""},
			{"no target", []string{v.method + ": GET"}, ""},
			{"empty method", []string{v.method + ": ", v.target + ": /a"}, ""},
			{"empty target", []string{v.method + ": GET", v.target + ":"}, ""},
			{"method twice", []string{v.method + ": GET", v.method + ": GET", v.target + ": /a"}, ""},
			{"target twice", []string{v.method + ": GET", v.target + ": /a", v.target + ": /a"}, ""},
			{"target twice in two spellings", []string{v.method + ": GET", v.target + ": /a", strings.ToUpper(v.target) + ": /b"}, ""},
			{"absolute target", []string{v.method + ": GET", v.target + ": http://other/a"}, ""},
			{"relative target", []string{v.method + ": GET", v.target + ": a"}, ""},
			{"asterisk", []string{v.method + ": OPTIONS", v.target + ": *"}, ""},
			{"underscore alias", []string{v.method + ": GET", v.target + ": /a", strings.ReplaceAll(v.target, "-", "_") + ": /pub"}, ""},
			{"underscore alias alone", []string{strings.ReplaceAll(v.method, "-", "_") + ": GET", v.target + ": /a"}, ""},
		} {
			t.Run(v.path+"/"+test.name, func(t *testing.T) {
				checker := says(allow)
				addr := checks(t, envoy.Options{Checker: checker})
				got := get(t, addr, v.path+"?x=/pub", test.headers...)
				asked := checker.take()
				if test.want == "" {
					if got.Status != 400 || got.Body != `{"errors":["authz.malformed_request"]}` || len(asked) != 0 {
						t.Errorf("got %+v, asked %+v", got, asked)
					}
					return
				}
				if got.Status != 200 || len(asked) != 1 || asked[0].Target != test.want || asked[0].Method != "GET" {
					t.Errorf("got %+v, asked %+v", got, asked)
				}
			})
		}
		t.Run(v.path+"/untrusted peer", func(t *testing.T) {
			checker := says(allow)
			addr := checks(t, envoy.Options{Checker: checker, Trusted: nobody})
			got, closed := raw(t, addr, request("GET", v.path, "", v.method+": GET", v.target+": /a"))
			if got.Status != 403 || got.Body != `{"errors":["authz.untrusted_proxy"]}` || !closed || len(checker.take()) != 0 {
				t.Errorf("got %+v, closed %v", got, closed)
			}
		})
	}
}

// A client that speaks to ext_authz directly is believed to be itself, so no trust is needed.
func TestExtAuthzFromAnyPeer(t *testing.T) {
	addr := checks(t, envoy.Options{Checker: says(allow), Trusted: nobody})
	if r := get(t, addr, "/api/v2/auth/x"); r.Status != 200 {
		t.Errorf("got %+v", r)
	}
}

// A checker that panics costs its own request a 500, in every dialect, and nothing else.
func TestPanic(t *testing.T) {
	for _, dialect := range dialects {
		t.Run(dialect.name, func(t *testing.T) {
			first := true
			checker := &script{check: func(_ context.Context, _ *authz.Request, d *authz.Decision) {
				*d = allow
				if first {
					first = false
					panic("boom")
				}
			}}
			count := &observed{}
			addr := checks(t, envoy.Options{Checker: checker, Observer: count})
			got := dialect.ask(t, addr)
			if got.Status != 500 || got.Body != `{"errors":["server.internal_error"]}` || got.Header.Get("Authorization") != "" {
				t.Errorf("got %+v", got)
			}
			if status := got.Header.Get("X-Auth-Status"); (status == "500") != (dialect.dialect == authz.AuthRequest) {
				t.Errorf("X-Auth-Status: %q", status)
			}
			if counted := count.take(); len(counted) != 1 || !strings.HasSuffix(counted[0], "deny server.internal_error none") {
				t.Errorf("counted %q", counted)
			}
			if got := dialect.ask(t, addr); got.Status != 200 {
				t.Errorf("the next check got %+v", got)
			}
		})
	}
}

// The checker's context ends after the time that a check may spend, and one that was never asked for costs nothing.
func TestTimeout(t *testing.T) {
	checker := &script{check: func(ctx context.Context, _ *authz.Request, d *authz.Decision) {
		if ctx.Err() != nil {
			panic("the context ended before it began")
		}
		if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > 50*time.Millisecond {
			panic("the context has no near end")
		}
		inner, cancel := context.WithCancel(ctx)
		defer cancel()
		<-inner.Done()
		if ctx.Err() != context.DeadlineExceeded {
			panic(ctx.Err())
		}
		*d = authz.Decision{Status: 503, Code: "authz.unavailable"}
	}}
	addr := checks(t, envoy.Options{Checker: checker, Timeout: 50 * time.Millisecond})
	for range 2 {
		if r := get(t, addr, "/api/v2/auth/x"); r.Status != 503 {
			t.Errorf("got %+v", r)
		}
	}
}

// A base context that ends takes the checks under way with it.
func TestBaseContext(t *testing.T) {
	base, cancel := context.WithCancel(context.Background())
	checker := &script{check: func(ctx context.Context, _ *authz.Request, d *authz.Decision) {
		cancel()
		<-ctx.Done()
		*d = authz.Decision{Status: 503, Code: "authz.unavailable"}
	}}
	addr := checks(t, envoy.Options{Checker: checker, Timeout: time.Minute, Base: base})
	if r := get(t, addr, "/api/v2/auth/x"); r.Status != 503 {
		t.Errorf("got %+v", r)
	}
}

// Nothing but a decision can answer with a 200 on a listener for checks, and no check is answered elsewhere.
func TestListenersKeepApart(t *testing.T) {
	h := envoy.New(envoy.Options{Checker: says(allow), Trusted: everyone})
	api := func(ctx *fasthttp.RequestCtx) { ctx.SetBodyString("the API") }
	both := serve(t, func(ctx *fasthttp.RequestCtx) {
		if !h.Handle(ctx) {
			api(ctx)
		}
	}, listener.Options{})
	only := serve(t, h.ServeChecks, listener.Options{})
	none := serve(t, func(ctx *fasthttp.RequestCtx) {
		if !envoy.RefuseChecks(ctx) {
			api(ctx)
		}
	}, listener.Options{})
	const missing = `{"error":"Route is not found"}`
	for _, test := range []struct {
		target           string
		both, only, none int
	}{
		{"/api/v2/auth/x", 200, 200, 404},
		{"/api/v2/auth/x?y", 200, 200, 404},
		{"/api/v2/auth", 404, 404, 404},
		{"/api/v2/auth/", 404, 404, 404},
		{"/api/v2/auth/?x", 404, 404, 404},
		{"/api/v2/auth?x", 404, 404, 404},
		{"/api/v2/identity/ping", 200, 404, 200},
		{"/", 200, 404, 200},
		{"/livez", 200, 404, 200},
		{"/api/v2/%61uth/x", 400, 400, 400},
		{"http://gateway/api/v2/auth/x", 400, 400, 400},
	} {
		for listener, want := range map[string]int{both: test.both, only: test.only, none: test.none} {
			got := get(t, listener, test.target)
			if got.Status != want {
				t.Errorf("%s: got %+v, want %d", test.target, got, want)
			}
			if want == 404 && (got.Body != missing || got.Header.Get("Content-Type") != "application/json") {
				t.Errorf("%s: got %+v", test.target, got)
			}
		}
	}
	for _, target := range []string{"/api/v2/forward-auth", "/api/v2/auth-request"} {
		if r := get(t, none, target, "X-Forwarded-Method: GET", "X-Forwarded-Uri: /", "X-Original-Method: GET", "X-Original-URI: /"); r.Status != 404 {
			t.Errorf("%s: got %+v", target, r)
		}
	}
}

// Once a target is decoded and its dots are resolved, a check may look like a REST route of this process, whose 200
// would open the gateway.
func TestDecodedPathsNeverReachTheAPI(t *testing.T) {
	checker := says(authz.Decision{Status: 401, Code: "authz.invalid_session"})
	h := envoy.New(envoy.Options{Checker: checker, Trusted: everyone})
	rest := router.New()
	rest.GET("/api/v2/identity/ping", func(ctx *fasthttp.RequestCtx) { ctx.SetBodyString("pong") })
	addr := serve(t, func(ctx *fasthttp.RequestCtx) {
		if !h.Handle(ctx) {
			rest.Handler(ctx)
		}
	}, listener.Options{})
	if r := get(t, addr, "/api/v2/identity/ping"); r.Status != 200 || r.Body != "pong" {
		t.Fatalf("the API answered %+v", r)
	}
	for _, client := range []string{
		"/x/..%2f..%2fidentity/ping", "/x/..%2F..%2Fidentity/ping", "/../identity/ping", "/x/../../identity/ping",
		"/%2e%2e/identity/ping", "/x/%2e%2e/%2e%2e/identity/ping", "/..;/identity/ping", `/..\identity\ping`, "//identity/ping",
	} {
		got := get(t, addr, "/api/v2/auth"+client)
		asked := checker.take()
		if got.Status != 401 || len(asked) != 1 || asked[0].Target != client {
			t.Errorf("%s: got %+v, asked %+v", client, got, asked)
		}
	}
}

// The gate decides for its own process, and what goes on carries the token or nothing.
func TestGate(t *testing.T) {
	for _, test := range decisions {
		t.Run(test.name, func(t *testing.T) {
			checker := says(test.decision)
			h := envoy.New(envoy.Options{Checker: checker, Trusted: nobody})
			addr := serve(t, func(ctx *fasthttp.RequestCtx) {
				if h.Gate(ctx, func() {}) {
					ctx.SetBodyString("token: " + string(ctx.Request.Header.Peek("Authorization")))
				}
			}, listener.Options{})
			got := get(t, addr, "/api/v2/barong/resource/users/me?x=1", "Authorization: Bearer forged", "X-Forwarded-Uri: /pub")
			want := `{"errors":["` + test.code + `"]}`
			if test.code == "" {
				want = "token: " + string(test.decision.Authorization)
			}
			if got.Status != test.status || got.Body != want || got.Header.Get("Authorization") != "" ||
				got.Header.Get("Set-Cookie") != test.decision.SetCookie {
				t.Errorf("got %+v, want %d %s", got, test.status, want)
			}
			asked := checker.take()
			if len(asked) != 1 || asked[0].Dialect != authz.SelfGate || asked[0].Target != "/api/v2/barong/resource/users/me?x=1" {
				t.Errorf("the checker was asked %+v", asked)
			}
		})
	}
	t.Run("panic", func(t *testing.T) {
		h := envoy.New(envoy.Options{Trusted: everyone, Checker: &script{check: func(_ context.Context, _ *authz.Request, d *authz.Decision) {
			*d = allow
			panic("boom")
		}}})
		addr := serve(t, func(ctx *fasthttp.RequestCtx) {
			if h.Gate(ctx, func() {}) {
				ctx.SetBodyString("gone on")
			}
		}, listener.Options{})
		if r := get(t, addr, "/api/v2/barong/x"); r.Status != 500 || r.Body != `{"errors":["server.internal_error"]}` {
			t.Errorf("got %+v", r)
		}
	})
}

// The audit trail sees short bodies of calls that may change something, whether they stream or not.
func TestBodies(t *testing.T) {
	long := strings.Repeat("x", 64<<10)
	for _, test := range []struct {
		name, method, body, framing, want string
	}{
		{"short", "POST", "uid=ID1", "Content-Length: 7", "uid=ID1"},
		{"put", "PUT", "{}", "Content-Length: 2", "{}"},
		{"patch", "PATCH", "{}", "Content-Length: 2", "{}"},
		{"delete", "DELETE", "{}", "Content-Length: 2", "{}"},
		{"get", "GET", "{}", "Content-Length: 2", ""},
		{"options", "OPTIONS", "{}", "Content-Length: 2", ""},
		{"at the limit", "POST", long, "Content-Length: 65536", long},
		{"over the limit", "POST", long + "x", "Content-Length: 65537", ""},
		{"of unknown length", "POST", "2\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked", ""},
		{"empty", "POST", "", "Content-Length: 0", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			checker := says(allow)
			addr := checks(t, envoy.Options{Checker: checker})
			got, _ := raw(t, addr, request(test.method, "/api/v2/auth/x", test.body, "Content-Type: application/json", test.framing))
			asked := checker.take()
			if got.Status != 200 || len(asked) != 1 || asked[0].Body != test.want {
				t.Fatalf("got %+v, asked %.200v", got, asked)
			}
			if want := "application/json"; (asked[0].ContentType == want) != (test.want != "") {
				t.Errorf("content type %q", asked[0].ContentType)
			}
		})
	}
	t.Run("cut off", func(t *testing.T) {
		checker := says(allow)
		addr := checks(t, envoy.Options{Checker: checker})
		c := dial(t, addr)
		if _, err := c.Write([]byte(request("POST", "/api/v2/auth/x", long[:32<<10], "Content-Length: 65536"))); err != nil {
			t.Fatal(err)
		}
		if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 12)
		if _, err := c.Read(b); err != nil || string(b) != "HTTP/1.1 503" || len(checker.take()) != 0 {
			t.Errorf("got %q, %v", b, err)
		}
	})
}
