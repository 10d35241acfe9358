package envoy_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"barong/authz"
	"barong/envoy"
	"barong/internal/listener"
)

// script is a Checker that does what a test says, and remembers what it was asked.
type script struct {
	check func(ctx context.Context, r *authz.Request, d *authz.Decision)

	mu    sync.Mutex
	asked []asked
}

// asked is what reached the checker, copied.
type asked struct {
	Dialect                           authz.Dialect
	Method, Target, Body, ContentType string
	Peer                              netip.Addr
}

func (s *script) Check(ctx context.Context, r *authz.Request, d *authz.Decision) {
	if r.LoadBody != nil {
		if r.LoadBody(r) != nil {
			*d = authz.Decision{Status: 503, Code: "authz.unavailable"}
			return
		}
	}
	s.mu.Lock()
	s.asked = append(s.asked, asked{
		Dialect: r.Dialect, Method: strings.Clone(r.Method), Target: strings.Clone(r.Target), Body: string(r.Body),
		ContentType: strings.Clone(r.ContentType), Peer: r.Peer,
	})
	s.mu.Unlock()
	s.check(ctx, r, d)
}

// take returns what was asked since the last call.
func (s *script) take() []asked {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.asked
	s.asked = nil
	return a
}

func says(d authz.Decision) *script {
	return &script{check: func(_ context.Context, _ *authz.Request, out *authz.Decision) { *out = d }}
}

var allow = authz.Decision{Effect: authz.Allow, Status: 200, Authorization: []byte("Bearer a.b.c"), Credential: authz.Cookie}

func everyone(netip.Addr) bool { return true }

func nobody(netip.Addr) bool { return false }

// observed counts what the handler counts.
type observed struct {
	mu   sync.Mutex
	seen []string
}

func (o *observed) Took(authz.Dialect, bool, time.Duration, uint64) {}

func (o *observed) Observe(d authz.Dialect, e authz.Effect, code string, c authz.Credential) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen = append(o.seen, d.String()+" "+[...]string{"deny", "allow", "pass"}[e]+" "+code+" "+c.String())
}

func (o *observed) take() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.seen
	o.seen = nil
	return s
}

// serve runs a real server until the end of the test and returns its address.
func serve(t testing.TB, handler fasthttp.RequestHandler, o listener.Options) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := listener.New(handler, o)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		l.Close() // the connections are the tests' own, and closed before this runs
		<-done
	})
	return l.Addr().String()
}

// checks serves a handler for checks alone.
func checks(t testing.TB, o envoy.Options) string {
	t.Helper()
	if o.Trusted == nil {
		o.Trusted = everyone
	}
	return serve(t, envoy.New(o).ServeChecks, listener.Options{})
}

// reply is an answer as it stood on the wire, without the Date.
type reply struct {
	Status int
	Header http.Header
	Body   string
	URL    *url.URL // where redirects ended, of a client that follows them
}

// dial opens a connection on which nothing waits forever.
func dial(t testing.TB, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// raw sends bytes and returns the first answer, and whether the server closed the connection after it.
func raw(t testing.TB, addr, request string) (r reply, closed bool) {
	t.Helper()
	c := dial(t, addr)
	go func() { _, _ = io.WriteString(c, request) }() // the server may answer before it has read everything
	method, _, _ := strings.Cut(request, " ")
	br := bufio.NewReader(c)
	res, err := http.ReadResponse(br, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("no answer to %.200q: %v", request, err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("body of the answer to %.200q: %v", request, err)
	}
	res.Header.Del("Date")
	return reply{Status: res.StatusCode, Header: res.Header, Body: string(body)}, res.Close
}

func get(t testing.TB, addr, target string, headers ...string) reply {
	t.Helper()
	r, _ := raw(t, addr, request("GET", target, "", headers...))
	return r
}

// request writes a request; headers are "Name: value" lines.
func request(method, target, body string, headers ...string) string {
	var b strings.Builder
	b.WriteString(method + " " + target + " HTTP/1.1\r\nHost: gateway\r\n")
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	b.WriteString("\r\n" + body)
	return b.String()
}
