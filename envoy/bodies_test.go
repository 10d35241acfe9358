package envoy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"barong/authz"
	"barong/envoy"
)

// A check is answered without its body, whatever its size, and what is sent of it afterwards breaks nothing.
func TestBodiesAreTakenAfterTheAnswer(t *testing.T) {
	addr := checks(t, envoy.Options{Checker: says(authz.Decision{Status: 401, Code: "authz.invalid_session"})})
	block := make([]byte, 1<<20)
	for target, headers := range map[string]string{
		"/api/v2/auth/x":       "",
		"/api/v2/forward-auth": "X-Forwarded-Method: POST\r\nX-Forwarded-Uri: /x\r\n",
		"/api/v2/auth-request": "X-Original-Method: POST\r\nX-Original-URI: /x\r\n",
		"/api/v2/auth/y":       "X-Forwarded-For : malformed\r\n",
		"/nothing":             "",
	} {
		for _, size := range []int{1, 100 << 10, 300 << 10, 3_000_000, 90 << 20, -1} {
			t.Run(fmt.Sprintf("%s/%d", target, size), func(t *testing.T) {
				t.Parallel()
				c := dial(t, addr)
				framing, first := fmt.Sprintf("Content-Length: %d", size), "x"
				if size < 0 {
					framing, first = "Transfer-Encoding: chunked", "1\r\nx\r\n"
				}
				if _, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: gateway\r\n%s%s\r\n\r\n%s", target, headers, framing, first); err != nil {
					t.Fatal(err)
				}
				res, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil {
					t.Fatal(err)
				}
				if body, err := io.ReadAll(res.Body); err != nil || res.StatusCode < 400 || len(body) == 0 {
					t.Errorf("got %v, %q, %v", res, body, err)
				}
				rest := max(size-1, 0)
				if size < 0 { // so long as it is taken, a body without a length may be any
					rest = 3_000_000
				}
				for rest > 0 {
					n, err := c.Write(block[:min(rest, len(block))])
					if err != nil {
						t.Fatalf("%d bytes before the end: %v", rest, err)
					}
					rest -= n
				}
			})
		}
	}
}

// What the audit trail wants of a body is read when the headers were judged, and never more than a little.
func TestBodiesOfChecks(t *testing.T) {
	checker := says(allow)
	addr := checks(t, envoy.Options{Checker: checker})
	for _, test := range []struct {
		method string
		size   int
		loaded bool
	}{
		{"POST", 1, true},
		{"PUT", 64 << 10, true},
		{"PATCH", 9000, true},
		{"DELETE", 10, true},
		{"POST", 0, false},
		{"POST", 64<<10 + 1, false},
		{"GET", 10, false},
		{"PROPFIND", 10, false},
	} {
		body := strings.Repeat("x", test.size)
		got, _ := raw(t, addr, request(test.method, "/api/v2/auth/x", body, fmt.Sprintf("Content-Length: %d", test.size), "Content-Type: a/b"))
		asked := checker.take()
		want := ""
		if test.loaded {
			want = body
		}
		if got.Status != 200 || len(asked) != 1 || asked[0].Body != want || (asked[0].ContentType == "a/b") != test.loaded {
			t.Errorf("%s of %d bytes: got %+v, loaded %d", test.method, test.size, got, len(asked[0].Body))
		}
	}
	// Nothing is read for a decision that needs none: the answer is there before the body.
	never := &script{check: func(_ context.Context, _ *authz.Request, d *authz.Decision) { *d = allow }}
	addr = checks(t, envoy.Options{Checker: headersOnly{never}})
	c := dial(t, addr)
	if _, err := io.WriteString(c, "POST /api/v2/auth/x HTTP/1.1\r\nHost: gateway\r\nContent-Length: 1000\r\n\r\nx"); err != nil {
		t.Fatal(err)
	}
	if res, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || res.StatusCode != 200 {
		t.Errorf("got %v, %v", res, err)
	}
}

// headersOnly decides without the body.
type headersOnly struct{ *script }

func (h headersOnly) Check(ctx context.Context, r *authz.Request, d *authz.Decision) {
	h.check(ctx, r, d)
}

// Envoy may be told to send the client's body along (with_request_body). Whatever its size, the check is answered, and the
// service gets all of it.
func TestEnvoySendsBodies(t *testing.T) {
	checker := &script{check: func(_ context.Context, r *authz.Request, d *authz.Decision) {
		*d = allow
		if r.Target != "/allowed" {
			*d = authz.Decision{Status: 401, Code: "authz.invalid_session"}
		}
	}}
	u := newUpstream(t)
	p := listen(t, checker)
	p.api, p.upstream = u.port, u.port
	for _, g := range gateways[:2] {
		t.Run(g.name, func(t *testing.T) {
			g.edit = func(text string) string {
				const at = "              transport_api_version: V3\n"
				if strings.Count(text, at) != 1 {
					t.Fatal("the configuration has changed")
				}
				text = strings.Replace(text, at, at+"              with_request_body: { max_request_bytes: 94371840, allow_partial_message: false, pack_as_bytes: true }\n", 1)
				// 90 MB take their time, on the way to barong and to the service.
				return strings.ReplaceAll(text, "timeout: 1s", "timeout: 30s")
			}
			addr := g.start(t, p)
			for _, size := range []int{0, 2, 100 << 10, 3_000_000, 90 << 20} {
				body := strings.Repeat("x", size)
				for target, status := range map[string]int{"/allowed": 200, "/refused": 401} {
					checker.take()
					u.take()
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					req, err := http.NewRequestWithContext(ctx, "POST", "http://"+addr+target, strings.NewReader(body))
					if err != nil {
						t.Fatal(err)
					}
					res, err := http.DefaultClient.Do(req)
					if err != nil {
						t.Fatal(err)
					}
					answer, _ := io.ReadAll(res.Body)
					res.Body.Close()
					asked, seen := checker.take(), u.take()
					if res.StatusCode != status || len(asked) != 1 || (len(seen) == 1) != (status == 200) {
						t.Fatalf("%s with %d bytes: got %v, %.200q, asked %d times, served %d times", target, size, res, answer, len(asked), len(seen))
					}
					if len(seen) == 1 && len(seen[0].Body) != size {
						t.Errorf("the service got %d of %d bytes", len(seen[0].Body), size)
					}
					if status == 401 && string(answer) != `{"errors":["authz.invalid_session"]}` {
						t.Errorf("%d bytes: refused with %q", size, answer)
					}
				}
			}
		})
	}
}

// Over gRPC a body is part of the check. Gateways may send it, and strangers may not fill the memory.
func TestGRPCMessageSizes(t *testing.T) {
	for _, test := range []struct {
		name    string
		trusted bool
		size    int
		code    codes.Code
		loaded  bool
	}{
		{"gateway", true, 64 << 10, codes.OK, true},
		{"gateway, long", true, 3_000_000, codes.OK, false},
		{"gateway, too long", true, 101 << 20, codes.ResourceExhausted, false},
		{"stranger", false, 64 << 10, codes.OK, false}, // and refused
		{"stranger, long", false, 300 << 10, codes.ResourceExhausted, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			checker := says(allow)
			o := envoy.Options{Checker: checker, Trusted: nobody}
			if test.trusted {
				o.Trusted = everyone
			}
			_, conn := listenGRPC(t, o)
			in := attributes("POST", "/x", nil)
			in.Attributes.Request.Http.RawBody = make([]byte, test.size)
			out, err := auth.NewAuthorizationClient(conn).Check(t.Context(), in)
			asked := checker.take()
			if status.Code(err) != test.code || (len(asked) == 1) != (test.trusted && test.code == codes.OK) {
				t.Fatalf("got %v, %v, asked %d times", out, err, len(asked))
			}
			if len(asked) == 1 && (len(asked[0].Body) == test.size) != test.loaded {
				t.Errorf("the checker saw %d bytes", len(asked[0].Body))
			}
		})
	}
}
