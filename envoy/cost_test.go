package envoy_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"barong/authz"
	"barong/envoy"
	"barong/internal/listener"
)

// fixed is a Checker that costs nothing.
type fixed struct{ decision authz.Decision }

func (f *fixed) Check(_ context.Context, _ *authz.Request, d *authz.Decision) { *d = f.decision }

// browser are headers as a gateway passes them on.
var browser = []string{
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0",
	"Cookie: theme=dark; _barong_session=4cff598ee40d3d2ec38875ddc904fc464cff598ee40d3d2ec38875ddc904fc46; lang=en",
	"X-CSRF-Token: 4cff598ee40d3d2ec388", "X-Forwarded-For: 203.0.113.7, 10.0.0.1", "X-Forwarded-Proto: https",
	"Accept: application/json", "X-Request-Id: 0c3a3f4e-1d0f-4ee1-8a44-4f3f4d1f6f3b", "Content-Length: 0",
}

// costs are the checks whose cost counts.
var costs = []struct {
	name     string
	wire     string
	decision authz.Decision
}{
	{"ext_authz/allow", request("GET", "/api/v2/auth/api/v2/orders?page=2", "", browser...), allow},
	{"ext_authz/pass", request("GET", "/api/v2/auth/api/v2/public", "", browser...), authz.Decision{Effect: authz.Pass}},
	{"ext_authz/deny", request("GET", "/api/v2/auth/api/v2/orders", "", browser...), authz.Decision{Status: 401, Code: "authz.invalid_session"}},
	{"forward_auth/allow", request("GET", "/api/v2/forward-auth", "",
		append(browser, "X-Forwarded-Method: GET", "X-Forwarded-Uri: /api/v2/orders")...), allow},
	{"forward_auth/deny", request("GET", "/api/v2/forward-auth", "",
		append(browser, "X-Forwarded-Method: GET", "X-Forwarded-Uri: /api/v2/orders")...), authz.Decision{Status: 401, Code: "authz.invalid_session"}},
	{"auth_request/allow", request("GET", "/api/v2/auth-request", "",
		append(browser, "X-Original-Method: GET", "X-Original-URI: /api/v2/orders")...), allow},
	{"auth_request/deny", request("GET", "/api/v2/auth-request", "",
		append(browser, "X-Original-Method: GET", "X-Original-URI: /api/v2/orders")...), authz.Decision{Status: 471, Code: "authz.restrict.maintenance"}},
}

// prepared is a request that was read from the wire, ready to be handled again and again.
func prepared(tb testing.TB, wire string) *fasthttp.RequestCtx {
	tb.Helper()
	ctx := &fasthttp.RequestCtx{}
	ctx.Init(&fasthttp.Request{}, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1234}, nil)
	if err := ctx.Request.Read(bufio.NewReader(strings.NewReader(wire))); err != nil {
		tb.Fatal(err)
	}
	return ctx
}

func loopback(a netip.Addr) bool { return a.IsLoopback() }

// BenchmarkCheck is what the edge adds to fasthttp and to the decision; "empty" is a handler that does nothing.
func BenchmarkCheck(b *testing.B) {
	b.Run("empty", func(b *testing.B) {
		ctx := prepared(b, costs[0].wire)
		b.ReportAllocs()
		for b.Loop() {
			ctx.Response.Reset()
		}
	})
	for _, cost := range costs {
		b.Run(cost.name, func(b *testing.B) {
			h := envoy.New(envoy.Options{Checker: &fixed{cost.decision}, Trusted: loopback, LoginURL: "/accounts/signin", Refusals: refusals()})
			ctx := prepared(b, cost.wire)
			b.ReportAllocs()
			for b.Loop() {
				ctx.Response.Reset()
				h.ServeChecks(ctx)
			}
			if status := ctx.Response.StatusCode(); status != max(cost.decision.Status, 200) {
				b.Fatalf("got %d", status)
			}
		})
	}
}

// A replay is a listener with one connection, on which the same request comes again and again.
type replay struct {
	net.Conn
	request []byte
	left    int
	state   chan struct{} // holds the connection until it is accepted, and is closed with it
}

func (r *replay) Accept() (net.Conn, error) {
	if _, open := <-r.state; !open {
		return nil, io.EOF
	}
	return r, nil
}

func (r *replay) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	r.left--
	return copy(p, r.request), nil
}

func (r *replay) Write(p []byte) (int, error) { return len(p), nil }

func (r *replay) Close() error {
	if r.left == 0 {
		r.left = -1
		close(r.state)
	}
	return nil
}

func (r *replay) Addr() net.Addr                   { return loopbackAddr }
func (r *replay) RemoteAddr() net.Addr             { return loopbackAddr }
func (r *replay) LocalAddr() net.Addr              { return loopbackAddr }
func (r *replay) SetDeadline(time.Time) error      { return nil }
func (r *replay) SetReadDeadline(time.Time) error  { return nil }
func (r *replay) SetWriteDeadline(time.Time) error { return nil }

var loopbackAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1234}

// BenchmarkServe is all that a check takes outside the kernel and the decision, beside fasthttp as it comes with the same
// answer.
func BenchmarkServe(b *testing.B) {
	h := envoy.New(envoy.Options{Checker: &fixed{allow}, Trusted: loopback})
	bare := &fasthttp.Server{NoDefaultServerHeader: true, NoDefaultContentType: true, Handler: func(ctx *fasthttp.RequestCtx) {
		ctx.Response.Header.SetCanonical([]byte("Cache-Control"), []byte("no-store"))
		ctx.Response.Header.SetCanonical([]byte("Authorization"), allow.Authorization)
	}}
	for name, serve := range map[string]func(net.Listener) error{
		"check": listener.New(h.ServeChecks, listener.Options{}).Serve,
		"bare":  bare.Serve,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			r := &replay{request: []byte(costs[0].wire), left: b.N, state: make(chan struct{}, 1)}
			r.state <- struct{}{}
			if err := serve(r); err != nil {
				b.Fatal(err)
			}
		})
	}
}
