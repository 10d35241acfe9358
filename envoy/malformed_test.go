package envoy_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"barong/authz"
	"barong/envoy"
	"barong/internal/listener"
)

// malformed are requests that two parsers may read differently, as they stand on the wire. %s is the path of a check.
var malformed = []struct{ name, request string }{
	{"Content-Length and Transfer-Encoding", "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	{"Transfer-Encoding and Content-Length", "POST %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"},
	{"Transfer-Encoding twice", "POST %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"},
	{"chunked twice", "POST %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	{"unknown Transfer-Encoding", "POST %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"},
	{"Transfer-Encoding identity", "POST %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n"},
	{"Transfer-Encoding without a value", "POST %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n"},
	{"Transfer-Encoding that nobody decodes", "POST %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"},
	{"Transfer-Encoding in HTTP/1.0", "POST %s HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	{"two lengths", "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n"},
	{"one length twice", "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n"},
	{"length list", "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 5\r\n\r\n"},
	{"signed length", "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: +0\r\n\r\n"},
	{"negative length", "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n"},
	{"bare line feed after a header", "GET %s HTTP/1.1\r\nHost: a\nX-A: b\r\n\r\n"},
	{"bare line feeds", "GET %s HTTP/1.1\nHost: a\nX-A: b\n\n"},
	{"bare carriage return", "GET %s HTTP/1.1\r\nHost: a\r\nX-A: b\rX-B: c\r\n\r\n"},
	{"folded header", "GET %s HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n"},
	{"folded first header", "GET %s HTTP/1.1\r\n Host: a\r\n\r\n"},
	{"header folded by a tab", "GET %s HTTP/1.1\r\nHost: a\r\nCookie: a=b;\r\n\tc=d\r\n\r\n"},
	{"space before the colon", "GET %s HTTP/1.1\r\nHost: a\r\nCookie : a=b\r\n\r\n"},
	{"space in a name", "GET %s HTTP/1.1\r\nHost: a\r\nX A: b\r\n\r\n"},
	{"no colon", "GET %s HTTP/1.1\r\nHost: a\r\nnothing\r\n\r\n"},
	{"empty name", "GET %s HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"},
	{"NUL in a value", "GET %s HTTP/1.1\r\nHost: a\r\nX-A: b\x00c\r\n\r\n"},
	{"escape in a value", "GET %s HTTP/1.1\r\nHost: a\r\nX-A: b\x1bc\r\n\r\n"},
	{"DEL in a value", "GET %s HTTP/1.1\r\nHost: a\r\nX-A: b\x7fc\r\n\r\n"},
	{"NUL in a name", "GET %s HTTP/1.1\r\nHost: a\r\nX-\x00A: b\r\n\r\n"},
	{"Latin-1 in a name", "GET %s HTTP/1.1\r\nHost: a\r\nX-Caf\xe9: b\r\n\r\n"},
	{"DEL in Latin-1", "GET %s HTTP/1.1\r\nHost: a\r\nX-A: caf\xe9\x7f\r\n\r\n"},
	{"control byte in Latin-1", "GET %s HTTP/1.1\r\nHost: a\r\nX-A: \xe9\x02\r\n\r\n"},
	{"cookie alias", "GET %s HTTP/1.1\r\nHost: a\r\nX_Auth_Apikey: b\r\n\r\n"},
	{"alias of the address", "GET %s HTTP/1.1\r\nHost: a\r\nX_Forwarded-For: 6.6.6.6\r\n\r\n"},
	{"alias of the address in upper case", "GET %s HTTP/1.1\r\nHost: a\r\nX-FORWARDED_FOR: 6.6.6.6\r\n\r\n"},
	{"alias of the CSRF token", "GET %s HTTP/1.1\r\nHost: a\r\nx_csrf_token: b\r\n\r\n"},
	{"alias of the framing", "POST %s HTTP/1.1\r\nHost: a\r\nContent_Length: 5\r\n\r\n"},
	{"alias of the other framing", "POST %s HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\n\r\n"},
	{"two hosts", "GET %s HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"},
	{"no version", "GET %s\r\nHost: a\r\n\r\n"},
	{"space in the target", "GET %s /y HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"bytes in the method", "G\x00T %s HTTP/1.1\r\nHost: a\r\n\r\n"},
}

// What cannot be read in one way only is answered 400, in JSON, and the connection ends, since nobody knows where on
// it the next request begins.
func TestMalformedRequests(t *testing.T) {
	checker := says(allow)
	h := envoy.New(envoy.Options{Checker: checker, Trusted: everyone})
	addrs := map[string]string{
		"/api/v2/auth/x":         serve(t, h.ServeChecks, listener.Options{}),
		"/api/v2/forward-auth":   serve(t, h.ServeChecks, listener.Options{}),
		"/api/v2/auth-request":   serve(t, h.ServeChecks, listener.Options{}),
		"/api/v2/identity/ping":  serve(t, h.ServeChecks, listener.Options{}),
		"/api/v2/auth/y":         serve(t, func(ctx *fasthttp.RequestCtx) { _ = envoy.RefuseChecks(ctx) }, listener.Options{}),
		"/api/v2/identity/time":  serve(t, func(ctx *fasthttp.RequestCtx) { _ = envoy.RefuseChecks(ctx) }, listener.Options{}),
		"/api/v2/barong/x/y?z=a": serve(t, func(ctx *fasthttp.RequestCtx) { _ = h.Gate(ctx, func() {}) }, listener.Options{}),
	}
	for _, test := range malformed {
		for path, addr := range addrs {
			t.Run(test.name+path, func(t *testing.T) {
				// The follower must never be looked at.
				wire := fmt.Sprintf(test.request, path)
				c := dial(t, addr)
				if _, err := io.WriteString(c, wire+request("GET", "/api/v2/auth/follower", "")); err != nil {
					t.Fatal(err)
				}
				all, _ := io.ReadAll(c) // a reset of the connection, for what it did not read, is as good as its end
				answers := string(all)
				if !strings.HasPrefix(answers, "HTTP/1.1 400 ") || strings.Count(answers, "HTTP/1.1") != 1 ||
					!strings.HasSuffix(answers, `{"errors":["authz.malformed_request"]}`) ||
					!strings.Contains(answers, "Content-Type: application/json\r\n") || !strings.Contains(answers, "Connection: close\r\n") {
					t.Errorf("got %q", answers)
				}
				if asked := checker.take(); len(asked) != 0 {
					t.Errorf("the checker was asked %+v", asked)
				}
			})
		}
	}
}

// No byte that ends a value for some reader gets as far as the walk over the headers, at its beginning, within or at its end.
func TestControlBytes(t *testing.T) {
	checker := says(allow)
	addr := checks(t, envoy.Options{Checker: checker})
	for c := range 256 {
		for _, value := range []string{"%cbcdefghij", "abcdefg%chij", "abcdefghij%c"} {
			value = strings.ReplaceAll(value, "%c", string([]byte{byte(c)}))
			r, _ := raw(t, addr, "GET /api/v2/auth/x HTTP/1.1\r\nHost: a\r\nX-A: "+value+"\r\nX-B: c\r\n\r\n")
			want := 200
			if c < ' ' && c != '\t' || c == 0x7f {
				want = 400
			}
			if asked := len(checker.take()); r.Status != want || asked != 0 != (want == 200) {
				t.Errorf("%q: got %d, asked %d times", value, r.Status, asked)
			}
		}
	}
}

// What only looks odd is judged.
func TestOddRequests(t *testing.T) {
	checker := says(allow)
	addr := checks(t, envoy.Options{Checker: checker})
	for name, wire := range map[string]string{
		"UTF-8":                   "GET /api/v2/auth/x HTTP/1.1\r\nHost: a\r\nUser-Agent: café\r\n\r\n",
		"Latin-1":                 "GET /api/v2/auth/x HTTP/1.1\r\nHost: a\r\nUser-Agent: caf\xe9\r\nCF-IPCity: K\xf6ln\r\nReferer: /\xff\r\n\r\n",
		"Latin-1 in a cookie":     "GET /api/v2/auth/x HTTP/1.1\r\nHost: a\r\nCookie: theme=caf\xe9; a=\xc0\xaf\r\n\r\n",
		"twenty Cookie lines":     "GET /api/v2/auth/x HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("Cookie: a=b\r\n", 20) + "\r\n",
		"empty value":             "GET /api/v2/auth/x HTTP/1.1\r\nHost: a\r\nX-A:\r\n\r\n",
		"tab in a value":          "GET /api/v2/auth/x HTTP/1.1\r\nHost: a\r\nX-A: \tb\tc\t\r\n\r\n",
		"no header but the host":  "GET /api/v2/auth/x HTTP/1.1\r\nHost: a\r\n\r\n",
		"no header at all":        "GET /api/v2/auth/x HTTP/1.0\r\n\r\n",
		"underscore of no matter": "GET /api/v2/auth/x HTTP/1.1\r\nHost: a\r\nX_Request_Id: b\r\n\r\n",
		"odd punctuation":         "GET /api/v2/auth/x HTTP/1.1\r\nHost: a\r\n!#$%&'*+-.^`|~: b\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			if r, _ := raw(t, addr, wire); r.Status != 200 || len(checker.take()) != 1 {
				t.Errorf("got %+v", r)
			}
		})
	}
}

// Headers up to the server's bound pass; larger ones are refused in JSON, and nginx is told as well.
func TestHeaderBounds(t *testing.T) {
	checker := says(allow)
	addr := checks(t, envoy.Options{Checker: checker})
	for size, want := range map[int]int{1 << 10: 200, 16 << 10: 200, 31 << 10: 200, 33 << 10: 431, 64 << 10: 431, 1 << 20: 431} {
		r, closed := raw(t, addr, request("GET", "/api/v2/auth/x", "", "Cookie: a="+strings.Repeat("x", size)))
		if r.Status != want || want == 431 && (!closed || r.Body != `{"errors":["authz.malformed_request"]}` ||
			r.Header.Get("Content-Type") != "application/json" || r.Header.Get("X-Auth-Status") != "431" ||
			r.Header.Get("X-Auth-Code") != "authz.malformed_request") {
			t.Errorf("%d bytes: got %+v, closed %v", size, r, closed)
		}
	}
	if r, _ := raw(t, addr, request("GET", "/api/v2/auth/"+strings.Repeat("x", 64<<10), "")); r.Status != 431 {
		t.Errorf("long target: got %+v", r)
	}
}

// A request that does not arrive in time is given up.
func TestSlowRequest(t *testing.T) {
	h := envoy.New(envoy.Options{Checker: says(allow), Trusted: everyone})
	addr := serve(t, h.ServeChecks, listener.Options{ReadTimeout: 50 * time.Millisecond})
	r, closed := raw(t, addr, "GET /api/v2/auth/x HTTP/1.1\r\nHost: ")
	if r.Status != 408 || r.Body != `{"errors":["authz.malformed_request"]}` || !closed {
		t.Errorf("got %+v, closed %v", r, closed)
	}
}

// A long body, of a form or not, is nobody's business in a check: the answer does not wait for it.
func TestLongBodiesAreNotAwaited(t *testing.T) {
	checker := says(allow)
	addr := checks(t, envoy.Options{Checker: checker})
	for _, kind := range []string{"application/octet-stream", "multipart/form-data; boundary=x"} {
		begun := request("POST", "/api/v2/auth/x", strings.Repeat("x", 8<<10), "Content-Length: 90000000", "Content-Type: "+kind)
		r, closed := raw(t, addr, begun)
		if r.Status != 200 || !closed || len(checker.take()) != 1 {
			t.Errorf("%s: got %+v, closed %v", kind, r, closed)
		}
	}
}

// A panic above the handlers costs one request, not the process.
func TestServerSurvivesPanics(t *testing.T) {
	addr := serve(t, func(ctx *fasthttp.RequestCtx) {
		if string(ctx.Path()) == "/panic" {
			panic("boom")
		}
	}, listener.Options{})
	if r := get(t, addr, "/panic"); r.Status != 500 || r.Body != `{"errors":["server.internal_error"]}` {
		t.Errorf("got %+v", r)
	}
	if r := get(t, addr, "/"); r.Status != 200 || r.Header.Get("Server") != "" || r.Header.Get("Content-Type") != "" {
		t.Errorf("got %+v", r)
	}
}

// Whatever passes as well formed is read alike by another parser: the same names with the same values, in the same
// order, and one framing at most.
func FuzzWellFormed(f *testing.F) {
	for _, test := range malformed {
		f.Add([]byte(fmt.Sprintf(test.request, "/x")))
	}
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a\r\nX-A:\tb\r\nX-B: \r\nx-b: caf\xc3\xa9\r\n\r\n"))
	f.Fuzz(func(t *testing.T, wire []byte) {
		var h fasthttp.RequestHeader
		h.DisableNormalizing()
		if h.Read(bufio.NewReaderSize(bytes.NewReader(wire), 64<<10)) != nil || !envoy.WellFormed(&h) {
			return
		}
		_, block, _ := bytes.Cut(bytes.TrimLeft(wire, "\r\n"), []byte("\n"))
		theirs, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(block))).ReadMIMEHeader()
		if err != nil {
			t.Fatalf("%q: another parser refuses it: %v", wire, err)
		}
		framings := 0
		for name, values := range theirs {
			var ours []string
			for _, line := range bytes.Split(h.RawHeaders(), []byte("\r\n")) {
				if n, v, ok := bytes.Cut(line, []byte(":")); ok && textproto.CanonicalMIMEHeaderKey(string(n)) == name {
					ours = append(ours, strings.Trim(string(v), " \t"))
				}
			}
			if !slices.Equal(ours, values) {
				t.Fatalf("%q: %s is %q here and %q there", wire, name, ours, values)
			}
			if name == "Content-Length" || name == "Transfer-Encoding" {
				framings += len(values)
			}
		}
		if framings > 1 {
			t.Fatalf("%q: framed %d times", wire, framings)
		}
	})
}

// No bytes on the wire make the server panic, answer a refusal with 2xx, or ask about a target that was not sent.
func FuzzServeChecks(f *testing.F) {
	for _, test := range malformed {
		f.Add([]byte(fmt.Sprintf(test.request, "/api/v2/auth/x")))
	}
	f.Add([]byte("GET /api/v2/forward-auth HTTP/1.1\r\nHost: a\r\nX-Forwarded-Method: GET\r\nX-Forwarded-Uri: /a\r\n\r\n"))
	f.Add([]byte("POST /api/v2/auth/x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"))
	f.Fuzz(func(t *testing.T, wire []byte) {
		checker := says(authz.Decision{Status: 401, Code: "authz.invalid_session"})
		h := envoy.New(envoy.Options{Checker: checker, Trusted: everyone})
		var ctx fasthttp.RequestCtx
		ctx.Init(&fasthttp.Request{}, nil, nil)
		if ctx.Request.Read(bufio.NewReaderSize(bytes.NewReader(wire), 64<<10)) != nil {
			return
		}
		h.ServeChecks(&ctx)
		if status := ctx.Response.StatusCode(); status < 400 {
			t.Fatalf("%q: got %d", wire, status)
		}
		for _, a := range checker.take() {
			if a.Target == "" || a.Target[0] != '/' || a.Method == "" || !bytes.Contains(wire, []byte(a.Target)) {
				t.Fatalf("%q: asked %+v", wire, a)
			}
		}
	})
}
