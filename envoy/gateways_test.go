package envoy_test

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"barong/authz"
	"barong/envoy"
	"barong/internal/listener"
	"barong/internal/pages"
	"barong/internal/reqid"
	"barong/internal/test/testkit"
)

// A gateway is a real one, run on the reference configuration that lies beside the code.
type gateway struct {
	name    string
	program string
	files   []string // the first is given to the program
	args    func(config string) []string
	// checkless is what the gateway itself answers when the check cannot be reached.
	checkless int
	edit      func(text string) string // changes the reference configuration; nil does not
	bare      bool                     // says nothing but a status about an outage, and no CORS about a refusal
}

var gateways = []gateway{
	{"envoy over HTTP", "envoy", []string{"envoy.yaml"}, func(config string) []string {
		return []string{"-c", config, "--concurrency", "2", "--use-dynamic-base-id", "--log-level", "warn"}
	}, 503, nil, false},
	{"envoy over gRPC", "envoy", []string{"envoy-grpc.yaml"}, func(config string) []string {
		return []string{"-c", config, "--concurrency", "2", "--use-dynamic-base-id", "--log-level", "warn"}
	}, 503, nil, false},
	{"traefik", "traefik", []string{"traefik.yml", "traefik-dynamic.yml"}, func(config string) []string {
		return []string{"--configFile=" + config}
	}, 500, nil, false},
	{"caddy", "caddy", []string{"Caddyfile"}, func(config string) []string {
		return []string{"run", "--config", config, "--adapter", "caddyfile"}
	}, 502, nil, false},
	{"nginx", "nginx", []string{"nginx.conf"}, func(config string) []string {
		// The workers of a test run by root have to read files that only root may.
		return []string{"-p", filepath.Dir(config), "-c", config, "-g", "daemon off; user root;"}
	}, 503, nil, false},
	{"haproxy", "haproxy", []string{"haproxy.cfg", "haproxy.lua"}, func(config string) []string {
		return []string{"-db", "-f", config}
	}, 503, nil, false},
}

// ports are what the reference configurations are changed in for a test: nothing else.
type ports struct{ gateway, api, checks, grpc, upstream int }

var defaultPorts = ports{gateway: 8000, api: 8080, checks: 8081, grpc: 9191, upstream: 8090}

func (p ports) list() []int { return []int{p.gateway, p.api, p.checks, p.grpc, p.upstream} }

// replace writes these ports in the place of those of the reference configurations.
func (p ports) replace(text string) string {
	for i, from := range defaultPorts.list() {
		text = regexp.MustCompile(fmt.Sprintf(`\b%d\b`, from)).ReplaceAllString(text, fmt.Sprintf("port%d", i))
	}
	for i, to := range p.list() {
		text = strings.ReplaceAll(text, fmt.Sprintf("port%d", i), strconv.Itoa(to))
	}
	return text
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// copyConfiguration writes a gateway's reference files to a folder, with other ports, and returns the first one's path.
func copyConfiguration(t *testing.T, g gateway, p ports) string {
	t.Helper()
	dir := t.TempDir()
	for _, file := range g.files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text := string(b)
		if g.edit != nil {
			text = g.edit(text)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), []byte(p.replace(text)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, filepath.Base(g.files[0]))
}

// start runs the gateway until the end of the test, once the checker behind it refuses GET /.ready.
func (g gateway) start(t *testing.T, p ports) (addr string) {
	t.Helper()
	p.gateway = testkit.FreePort(t)
	config := copyConfiguration(t, g, p)
	// Files that a configuration names are looked for in the working directory.
	args := append([]string{"-c", `cd "$0" && exec "$@"`, filepath.Dir(config), testkit.Bin(t, g.program)}, g.args(config)...)
	addr = local(p.gateway)
	client := &http.Client{Timeout: 5 * time.Second}
	testkit.Start(t, "/bin/sh", args, []string{"HOME=" + filepath.Dir(config)}, func() error {
		res, err := client.Get("http://" + addr + "/.ready")
		if err != nil {
			return err
		}
		res.Body.Close()
		if res.StatusCode != http.StatusUnauthorized {
			return fmt.Errorf("got %d", res.StatusCode)
		}
		return nil
	})
	client.CloseIdleConnections()
	return addr
}

// upstream is the service behind the gateways. It answers 200 with what it was given, and remembers it.
type upstream struct {
	port int
	mu   sync.Mutex
	seen []delivery
}

// A delivery is a request as the upstream got it.
type delivery struct {
	Method string
	Target string // raw
	Header map[string]string
	Body   string
}

func newUpstream(t *testing.T) *upstream {
	u := &upstream{}
	addr := serve(t, func(ctx *fasthttp.RequestCtx) {
		d := delivery{Method: string(ctx.Method()), Target: string(ctx.Request.Header.RequestURI()), Header: map[string]string{}}
		for name, value := range ctx.Request.Header.All() {
			d.Header[strings.ToLower(string(name))] += string(value)
		}
		d.Body = string(ctx.Request.Body())
		u.mu.Lock()
		u.seen = append(u.seen, d)
		u.mu.Unlock()
		if d.Header["upgrade"] == "websocket" {
			ctx.Response.Header.Set("Upgrade", "websocket")
			ctx.Response.Header.Set("Connection", "Upgrade")
			// Some gateways see to it that the service has understood.
			sum := sha1.Sum([]byte(d.Header["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
			ctx.Response.Header.Set("Sec-WebSocket-Accept", base64.StdEncoding.EncodeToString(sum[:]))
			ctx.SetStatusCode(fasthttp.StatusSwitchingProtocols)
			ctx.Hijack(func(c net.Conn) { _, _ = io.Copy(c, c) })
			return
		}
		b, err := json.Marshal(d)
		if err != nil {
			panic(err)
		}
		ctx.SetContentType("application/json")
		ctx.Response.Header.Set("X-Upstream", "1")
		ctx.Response.Header.Set("Access-Control-Allow-Origin", "*")
		ctx.SetBody(b)
	}, listener.Options{MaxHeader: 128 << 10})
	u.port = port(t, addr)
	return u
}

// take returns what arrived since the last call.
func (u *upstream) take() []delivery {
	u.mu.Lock()
	defer u.mu.Unlock()
	seen := u.seen
	u.seen = nil
	return seen
}

// listen serves a checker's decisions over HTTP and gRPC until the end of the test.
func listen(t *testing.T, checker envoy.Checker) (p ports) {
	t.Helper()
	h := envoy.New(envoy.Options{Checker: checker, Trusted: loopback, Refusals: refusals()})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := envoy.NewGRPC(h)
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // the gateways are gone, and their connections with them
		_ = g.Shutdown(ctx)
		<-done
	})
	p.grpc = port(t, l.Addr().String())
	p.checks = port(t, serve(t, func(ctx *fasthttp.RequestCtx) {
		// A query may hold what is nobody's business twice; where a header carries the target, it stands there alone.
		target := string(ctx.Request.Header.RequestURI())
		if !strings.HasPrefix(target, envoy.ExtAuthzPrefix+"/") && strings.Contains(target, "?") {
			t.Errorf("a check was sent to %s", target)
		}
		h.ServeChecks(ctx)
	}, listener.Options{}))
	return p
}

func port(t *testing.T, addr string) int {
	t.Helper()
	_, text, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Every decision, and what belongs to it, reaches the client or the upstream through every gateway.
func TestGatewaysCarryDecisions(t *testing.T) {
	var mu sync.Mutex
	say := authz.Decision{Status: 401, Code: "authz.invalid_session"}
	checker := &script{check: func(_ context.Context, r *authz.Request, d *authz.Decision) {
		mu.Lock()
		defer mu.Unlock()
		*d = say
		if r.Target == "/.ready" {
			*d = authz.Decision{Status: 401, Code: "authz.invalid_session"}
		}
	}}
	u := newUpstream(t)
	p := listen(t, checker)
	p.api, p.upstream = u.port, u.port
	for _, g := range slices.Concat(gateways, controlled) {
		t.Run(g.name, func(t *testing.T) {
			addr := g.start(t, p)
			t.Run("upgraded", func(t *testing.T) {
				for _, decision := range []authz.Decision{{Status: 401, Code: "authz.invalid_session"}, allow} {
					mu.Lock()
					say = decision
					mu.Unlock()
					upgrade(t, addr, decision.Effect == authz.Allow)
				}
			})
			t.Run("other origins", func(t *testing.T) {
				mu.Lock()
				say = authz.Decision{Status: 401, Code: "authz.invalid_session"}
				mu.Unlock()
				preflights(t, addr, checker, u, !g.bare)
				mu.Lock()
				say = allow
				mu.Unlock()
				for origin, want := range map[string]string{"https://app.example.com": "https://app.example.com", "https://other.example": "*"} {
					r := get(t, addr, "/api/v2/orders", "Origin: "+origin) // the service says *
					if got := r.Header["Access-Control-Allow-Origin"]; r.Status != 200 || !slices.Equal(got, []string{want}) {
						t.Errorf("%s: got %+v", origin, r)
					}
				}
			})
			t.Run("a page about a refusal", func(t *testing.T) {
				for _, decision := range []authz.Decision{
					notForMe,
					{Status: 471, Code: "authz.restrict.maintenance", Credential: authz.Cookie, Principal: ann, SetCookie: "a=b"},
					{Status: 422, Code: "authz.other", Credential: authz.Cookie, Principal: ann},
				} {
					mu.Lock()
					say = decision
					mu.Unlock()
					page(t, addr, decision)
				}
			})
			for _, test := range decisions {
				t.Run(test.name, func(t *testing.T) {
					mu.Lock()
					say = test.decision
					mu.Unlock()
					checker.take()
					u.take()
					got, _ := raw(t, addr, request("POST", "/api/v2/orders?page=2&a=%20b", "{}",
						"Content-Length: 2", "Authorization: Bearer forged", "User-Agent: tests", "Cookie: a=b",
						"X-Forwarded-Method: GET", "X-Forwarded-Uri: /pub", "X-Original-Method: GET", "X-Original-URI: /pub",
						"X-Original-URL: /pub", "X-Rewrite-URL: /pub", "X-HTTP-Method-Override: DELETE", "X-HTTP-Method: DELETE",
						"X-Method-Override: DELETE", "X-Forwarded-For: 203.0.113.7", "True-Client-IP: 203.0.113.7", "Client-IP: 203.0.113.7"))
					asked := checker.take()
					if len(asked) != 1 || asked[0].Method != "POST" || asked[0].Target != "/api/v2/orders?page=2&a=%20b" {
						t.Errorf("the checker was asked %+v", asked)
					}
					if cookie := got.Header.Get("Set-Cookie"); !strings.EqualFold(cookie, test.decision.SetCookie) {
						t.Errorf("the client got the cookie %q, want %q", cookie, test.decision.SetCookie)
					}
					seen := u.take()
					if test.status == 503 && g.bare {
						if got.Status != 503 || len(seen) != 0 {
							t.Errorf("got %+v, and the service %+v", got, seen)
						}
						return
					}
					if test.code != "" {
						if got.Status != test.status || got.Body != `{"errors":["`+test.code+`"]}` || len(seen) != 0 ||
							!strings.HasPrefix(got.Header.Get("Content-Type"), "application/json") || got.Header.Get("Cache-Control") != "no-store" {
							t.Errorf("got %+v", got)
						}
						if got.Header.Get(reqid.Header) == "" {
							t.Errorf("a refusal without the name of its request: %+v", got)
						}
						return
					}
					if got.Status != 200 || got.Header.Get("X-Upstream") != "1" || len(seen) != 1 {
						t.Fatalf("got %+v", got)
					}
					d := seen[0]
					if d.Method != "POST" || d.Target != "/api/v2/orders?page=2&a=%20b" || d.Body != "{}" {
						t.Errorf("the upstream got %+v", d)
					}
					if token, sent := d.Header["authorization"]; token != string(test.decision.Authorization) || sent != (token != "") {
						t.Errorf("the upstream got the token %q", token)
					}
					for _, name := range []string{
						"x-forwarded-method", "x-forwarded-uri", "x-original-method", "x-original-uri", "x-original-url", "x-rewrite-url",
						"x-http-method-override", "x-http-method", "x-method-override", "true-client-ip", "client-ip",
					} {
						if value, ok := d.Header[name]; ok {
							t.Errorf("the upstream got %s: %q", name, value)
						}
					}
					for _, name := range slices.Sorted(maps.Keys(got.Header)) {
						if lower := strings.ToLower(name); lower == "authorization" || strings.HasPrefix(lower, "x-auth-") ||
							lower == "x-envoy-auth-headers-to-remove" {
							t.Errorf("the client got %s: %q", name, got.Header[name])
						}
					}
				})
			}
		})
	}
}

// page asks as a browser that is signed in, in Russian, and is refused; and as a program.
func page(t *testing.T, addr string, d authz.Decision) {
	t.Helper()
	r := get(t, addr, "/app?a=b", "Accept: text/html,*/*;q=0.8", "Accept-Language: ru", "User-Agent: tests")
	back := url.QueryEscape("http://gateway/app?a=b")
	if d.Code != notForMe.Code {
		back = ""
	}
	if r.Status != d.Status || !strings.HasPrefix(r.Header.Get("Content-Type"), "text/html") || !strings.Contains(r.Body, `<html lang="ru">`) ||
		!strings.Contains(r.Body, `data-code="`+d.Code+`"`) || !strings.Contains(r.Body, "Вы вошли как <strong>ann+") ||
		!strings.HasSuffix(r.Body, "</html>") || !strings.Contains(r.Body, back) {
		t.Errorf("%s: got %+v", d.Code, r)
	}
	for _, want := range append(pages.Headers("none"), pages.Header{Name: "Cache-Control", Value: "no-store"}) {
		if got := r.Header[http.CanonicalHeaderKey(want.Name)]; !slices.Equal(got, []string{want.Value}) {
			t.Errorf("%s: %s is %q", d.Code, want.Name, got)
		}
	}
	if cookie := r.Header.Get("Set-Cookie"); cookie != d.SetCookie {
		t.Errorf("%s: the cookie is %q", d.Code, cookie)
	}
	r = get(t, addr, "/app?a=b", "Accept: application/json", "User-Agent: tests")
	if r.Status != d.Status || r.Body != `{"errors":["`+d.Code+`"]}` || r.Header.Get("Content-Security-Policy") != "" {
		t.Errorf("%s to a program: got %+v", d.Code, r)
	}
}

// upgrade asks for a WebSocket: it is checked once, and then bytes flow, or it is refused.
func upgrade(t *testing.T, addr string, allowed bool) {
	t.Helper()
	c := dial(t, addr)
	wire := request("GET", "/api/v2/ranger/private/?stream=a.b", "", "Connection: Upgrade", "Upgrade: websocket",
		"Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
	if _, err := io.WriteString(c, wire); err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(c)
	res, err := http.ReadResponse(br, &http.Request{Method: http.MethodGet})
	if err != nil {
		t.Fatal(err)
	}
	if !allowed {
		if res.StatusCode != http.StatusUnauthorized {
			t.Errorf("got %d", res.StatusCode)
		}
		return
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %d", res.StatusCode)
	}
	if _, err := io.WriteString(c, "ping"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4)
	if _, err := io.ReadFull(br, b); err != nil || string(b) != "ping" {
		t.Errorf("got %q, %v", b, err)
	}
}

// preflights asks as pages of other origins do. A preflight of one that the gateway knows is answered by the gateway, since
// barong never answers one with a 200 that would mean "allowed"; and a page of one can read why it was refused.
// Istio's, where that stands behind the check, cannot (readable).
func preflights(t *testing.T, addr string, checker *script, u *upstream, readable bool) {
	t.Helper()
	const origin, other = "https://app.example.com", "https://app.example.com.evil.example"
	preflight := []string{"Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: x-csrf-token"}
	checker.take()
	u.take()
	r := do(t, addr, "OPTIONS", "/api/v2/orders?a=b", append(preflight, "Origin: "+origin)...)
	h := r.Header
	if r.Status != 200 && r.Status != 204 || !slices.Equal(h["Access-Control-Allow-Origin"], []string{origin}) ||
		h.Get("Access-Control-Allow-Credentials") != "true" || h.Get("Access-Control-Max-Age") != "3600" ||
		!strings.Contains(h.Get("Access-Control-Allow-Methods"), "PUT") || !strings.Contains(h.Get("Access-Control-Allow-Headers"), "x-csrf-token") {
		t.Errorf("a preflight: got %+v", r)
	}
	if asked := checker.take(); len(asked) != 0 {
		t.Errorf("a preflight was judged: %+v", asked)
	}
	r = get(t, addr, "/api/v2/orders", "Origin: "+origin)
	if h := r.Header; r.Status != 401 || readable && (!slices.Equal(h["Access-Control-Allow-Origin"], []string{origin}) ||
		!slices.Equal(h["Access-Control-Allow-Credentials"], []string{"true"})) || r.Body != `{"errors":["authz.invalid_session"]}` {
		t.Errorf("a refusal: got %+v", r)
	}
	if len(checker.take()) != 1 {
		t.Error("a request of another origin was not judged")
	}
	for what, r := range map[string]reply{
		"a preflight of another origin": do(t, addr, "OPTIONS", "/api/v2/orders", append(preflight, "Origin: "+other)...),
		"another origin":                get(t, addr, "/api/v2/orders", "Origin: "+other),
		"no origin":                     do(t, addr, "OPTIONS", "/api/v2/orders", preflight...),
	} {
		if allowed := r.Header["Access-Control-Allow-Origin"]; len(allowed) > 0 {
			t.Errorf("%s: got %+v", what, r)
		}
	}
	if r := do(t, addr, "OPTIONS", "/api/v2/orders", "Origin: "+origin); r.Status != 401 {
		t.Errorf("no preflight, since it asks for no method: got %+v", r)
	}
	if seen := u.take(); len(seen) != 0 {
		t.Errorf("the service got %+v", seen)
	}
}

// oddTargets are targets that a gateway, this program and a service may read differently. Those below the API's published
// path are rewritten by the gateway as well.
var oddTargets = []string{
	"/api/v2/peatio/public/../management/x",
	"/api/v2/peatio/public/%2e%2e/management/x",
	"/api/v2/peatio/public/.%2E/management/x",
	"/api/v2/peatio/public/..%2fmanagement/x",
	"/api/v2/peatio/public/..%2Fmanagement/x",
	"//api//v2/peatio/public/x",
	"/api/v2/peatio//public/x",
	"/api/v2/peatio/public;x=1/../management",
	"/api/v2/peatio/public/..;/management",
	`/api/v2/peatio/public/..\..\management`,
	"/api/v2/peatio/public/..%5cmanagement",
	"/api/v2/peatio/public/%00",
	"/api/v2/peatio/public/x%0d%0ay",
	"/api/v2/peatio/public/x#/../../management",
	"/api/v2/peatio/public/x?y#/../../management",
	"/api/v2/peatio/public/x%23/../management",
	"/api/v2/peatio/public/x%3f/../management",
	"/API/V2/PEATIO/PUBLIC/x",
	"/api/v2/peatio/public/%252e%252e/management",
	"/api/v2/peatio/public/.",
	"/api/v2/peatio/public/./x",
	"/api/v2/peatio/publicx",
	"/api/v2/peatio/%70ublic/x",
	"/api/v2/peatio/public/caf%C3%A9",
	"/api/v2/peatio/public/caf%e9",
	"/api/v2/peatio/public/%",
	"/api/v2/peatio/public/%zz",
	"/api/v2/peatio/public/x%20y?z=%2f..%2f",
	"/api/v2/barong/identity/../admin/users",
	"/api/v2/barong/identity/%2e%2e/admin/users",
	"/api/v2/barong/identity/..%2fadmin/users",
	"/api/v2/barong/..%2fbarong/admin/users",
	"/api/v2/barong/../barong/admin/users",
	"/api/v2/barong//admin/users",
	"/api/v2/barong/./admin/users",
	"/api/v2/barong/identity;/../admin/users",
	`/api/v2/barong/identity\..\admin\users`,
	"/API/v2/barong/admin/users",
	"/api/v2/Barong/admin/users",
	"/api/v2/%62arong/admin/users",
	"/api/v2/barong%2fadmin/users",
	"/api/v2/barong/%61dmin/users",
	"/api/v2/barong",
	"/api/v2/barong/",
	"/api/v2/barong/resource/labels/a%20b",
	"/api/v2/peatio/public/../../barong/admin/users",
	"/api/v2/peatio/public/..%2f..%2fbarong/admin/users",
	"/accounts",
	"/accounts/",
	"/accounts/signin?rd=/x",
	"/accounts/../admin",
	"/accounts/..%2fadmin",
	"/accounts%2f..%2fadmin",
	"/accounts//x",
	"/Accounts/x",
	"/%61ccounts/x",
	"/accountsx",
	"/accounts.json",
	"/console",
	"/console/users",
	"/console/%2e%2e/accounts",
	"/x/../accounts/y",
	"/api/v2/auth/x",
	"http://gateway/api/v2/peatio/public/x",
	"*",
	"/.check",
}

// Whatever a gateway makes of an odd target: what it serves is what was judged. Here all is passed that has one
// canonical form, so that nothing but the paths counts.
func TestGatewaysServeWhatWasJudged(t *testing.T) {
	checker := &script{check: func(_ context.Context, r *authz.Request, d *authz.Decision) {
		*d = authz.Decision{Effect: authz.Pass}
		if _, ok := authz.Canonical(r.Target); !ok {
			*d = authz.Decision{Status: 400, Code: "authz.ambiguous_path"}
		}
		if r.Target == "/.ready" {
			*d = authz.Decision{Status: 401, Code: "authz.invalid_session"}
		}
	}}
	service, api := newUpstream(t), newUpstream(t)
	p := listen(t, checker)
	p.api, p.upstream = api.port, service.port
	for _, g := range slices.Concat(gateways, controlled) {
		t.Run(g.name, func(t *testing.T) {
			addr := g.start(t, p)
			served := 0
			for _, target := range oddTargets {
				checker.take()
				got, _ := raw(t, addr, request("GET", target, "", "Connection: close"))
				asked := checker.take()
				toService, toAPI := service.take(), api.take()
				if got.Status >= 400 && len(toService)+len(toAPI) == 0 {
					continue
				}
				if got.Status == 301 && target == "/api/v2/barong" && len(toService)+len(toAPI) == 0 {
					continue // nginx's own, with a slash added: nothing was served
				}
				served++
				if len(asked) != 1 || len(toService)+len(toAPI) != 1 {
					t.Errorf("%s: got %+v, asked %+v, served %+v and %+v", target, got, asked, toService, toAPI)
					continue
				}
				judged, _ := authz.Canonical(asked[0].Target)
				var delivered, prefix string
				if len(toService) == 1 {
					delivered = toService[0].Target
				} else if delivered = toAPI[0].Target; strings.HasPrefix(delivered, "/api/v2/") {
					delivered, prefix = "/"+strings.TrimPrefix(delivered, "/api/v2/"), "api/v2/barong/"
				} else if first, _, _ := strings.Cut(judged, "/"); first != "accounts" && first != "console" {
					t.Errorf("%s: judged %q, and handed to the API", target, judged)
				}
				path, ok := authz.Canonical(delivered)
				if !ok || strings.TrimSuffix(prefix+path, "/") != judged {
					t.Errorf("%s: judged %q, served %q", target, judged, prefix+path)
				}
			}
			if served == 0 {
				t.Error("the gateway served nothing, so nothing was tested")
			}
			// Load balancers look for health so. Envoy takes no HTTP/1.0.
			if old, _ := raw(t, addr, "GET /old HTTP/1.0\r\n\r\n"); old.Status != 200 && old.Status != 426 {
				t.Errorf("HTTP/1.0 without a host: got %+v", old)
			}
			checker.take()
			service.take()
			t.Logf("served %d of %d", served, len(oddTargets))
		})
	}
}

// What two parsers may read differently gets nothing past a gateway that was not judged: the service sees no request but
// those that were allowed, whatever stands in the body of another or behind it on the connection.
func TestGatewaysServeNothingUnjudged(t *testing.T) {
	checker := &script{check: func(_ context.Context, r *authz.Request, d *authz.Decision) {
		*d = authz.Decision{Status: 401, Code: "authz.invalid_session"}
		if strings.HasPrefix(r.Target, "/api/v2/orders/") {
			*d = authz.Decision{Effect: authz.Pass}
		}
	}}
	u := newUpstream(t)
	p := listen(t, checker)
	p.api, p.upstream = u.port, u.port
	const inner = "GET /api/v2/smuggled/%d HTTP/1.1\r\nHost: a\r\n\r\n"
	corpus := slices.Clone(malformed)
	for _, framing := range []string{
		"Content-Length: %d\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: %d",
		"Content-Length: %d\r\nTransfer-Encoding: xchunked", "Content-Length: %d\r\nTransfer-Encoding : chunked",
		"Content-Length: %d\r\nTransfer-Encoding:\tchunked", "Content-Length: %d\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity",
		"Content-Length: %d\r\nX: y\nTransfer-Encoding: chunked", "Content-Length: %d\r\nTransfer_Encoding: chunked",
		"Content-Length: %d\r\nContent-Length: 5", "Content-Length: 5\r\nContent-Length: %d",
	} {
		const body = "0\r\n\r\nGET /api/v2/smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
		corpus = append(corpus, struct{ name, request string }{
			"a request in the body: " + framing, "POST %s HTTP/1.1\r\nHost: a\r\n" + fmt.Sprintf(framing, len(body)+len("/99")) + "\r\n\r\n" + body,
		})
	}
	for _, g := range gateways {
		t.Run(g.name, func(t *testing.T) {
			addr := g.start(t, p)
			checker.take()
			u.take()
			var all sync.WaitGroup
			for i, test := range corpus {
				all.Go(func() {
					c, err := net.Dial("tcp", addr)
					if err != nil {
						t.Error(err)
						return
					}
					defer c.Close()
					wire := fmt.Sprintf(strings.ReplaceAll(test.request, "smuggled", fmt.Sprintf("smuggled/%d", i)), fmt.Sprintf("/api/v2/orders/%d", i))
					_, _ = io.WriteString(c, wire+fmt.Sprintf(inner, i)) // the gateway may have given up already
					// The gateway may wait for more of a body, or answer and keep the connection.
					_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
					_, _ = io.Copy(io.Discard, c)
				})
			}
			all.Wait()
			judged := map[string]int{}
			for _, a := range checker.take() {
				judged[a.Method+" "+a.Target]++
			}
			served := 0
			for _, d := range u.take() {
				served++
				what := d.Method + " " + d.Target
				if judged[what]--; judged[what] < 0 || !strings.HasPrefix(d.Target, "/api/v2/orders/") {
					t.Errorf("the service got %s, which was not allowed", what)
				}
			}
			if served == 0 {
				t.Error("nothing reached the service, so nothing was tested")
			}
			t.Logf("%d of %d reached the service", served, len(corpus))
		})
	}
}

// Traefik may strip a prefix before or behind the check. Whatever stands encoded in the path, what it serves is what was
// judged, with the prefix that it stripped behind the check.
func TestTraefikStripsWhatWasJudged(t *testing.T) {
	checker := &script{check: func(_ context.Context, r *authz.Request, d *authz.Decision) {
		*d = authz.Decision{Effect: authz.Pass}
		if _, ok := authz.Canonical(r.Target); !ok {
			*d = authz.Decision{Status: 400, Code: "authz.ambiguous_path"}
		}
		if r.Target == "/.ready" {
			*d = authz.Decision{Status: 401, Code: "authz.invalid_session"}
		}
	}}
	u, api := newUpstream(t), newUpstream(t)
	p := listen(t, checker)
	p.api, p.upstream = api.port, u.port
	traefik := gateways[slices.IndexFunc(gateways, func(g gateway) bool { return g.name == "traefik" })]
	const prefix = "/api/v2/peatio"
	targets := append(slices.Clone(oddTargets), prefix+"%2Fmanagement/x", prefix+"/%2Fmanagement", "/api/v2%2fpeatio/x", prefix+"/..%2fbarong/admin",
		prefix+"/x%2F..%2Fmanagement", prefix, prefix+"/")
	for name, strip := range map[string]string{
		"stripPrefix": "stripPrefix: {prefixes: [" + prefix + "]}", "stripPrefixRegex": `stripPrefixRegex: {regex: ["^/api/v[0-9]+/peatio"]}`,
	} {
		for _, order := range []string{"check, strip", "strip, check"} {
			t.Run(name+" as in "+order, func(t *testing.T) {
				g := traefik
				g.edit = func(text string) string {
					text = strings.ReplaceAll(text, "middlewares: [cors, clean, check]", "middlewares: [cors, clean, "+order+"]")
					return strings.Replace(text, "    publish:\n", "    strip:\n      "+strip+"\n    publish:\n", 1)
				}
				addr := g.start(t, p)
				stripped := 0
				for _, target := range targets {
					checker.take()
					u.take()
					got, _ := raw(t, addr, request("GET", target, "", "Connection: close"))
					asked, seen := checker.take(), u.take()
					if len(seen) == 0 && (got.Status >= 400 || len(api.take()) == 1) {
						continue // refused, or of the route to this program's API, which strips nothing: see TestGatewaysServeWhatWasJudged
					}
					if len(asked) != 1 || len(seen) != 1 {
						t.Errorf("%s: got %+v, asked %+v, served %+v", target, got, asked, seen)
						continue
					}
					judged, _ := authz.Canonical(asked[0].Target)
					path, ok := authz.Canonical(seen[0].Target)
					full := strings.TrimSuffix(prefix[1:]+"/"+path, "/")
					if behind := order == "check, strip" && judged == full; behind {
						stripped++
					} else if !ok || path != judged {
						t.Errorf("%s: judged %q, served %q", target, judged, path)
					}
					if order == "strip, check" && ok && path == judged && strings.HasPrefix(target, prefix) {
						stripped++
					}
				}
				if stripped == 0 {
					t.Error("nothing was stripped, so nothing was tested")
				}
			})
		}
	}
}
