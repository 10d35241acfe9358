package envoy_test

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"barong/authz"
	"barong/envoy"
	"barong/internal/reqid"
)

// listenGRPC serves a handler over gRPC until the end of the test, and returns a client.
func listenGRPC(t *testing.T, o envoy.Options) (*envoy.GRPC, *grpc.ClientConn) {
	t.Helper()
	if o.Trusted == nil {
		o.Trusted = everyone
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := envoy.NewGRPC(envoy.New(o))
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := g.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return g, conn
}

func check(t *testing.T, conn *grpc.ClientConn, in *auth.CheckRequest) *auth.CheckResponse {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out, err := auth.NewAuthorizationClient(conn).Check(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// attributes are a check as Envoy sends it.
func attributes(method, path string, headers map[string]string) *auth.CheckRequest {
	return &auth.CheckRequest{Attributes: &auth.AttributeContext{Request: &auth.AttributeContext_Request{
		Http: &auth.AttributeContext_HttpRequest{Method: method, Path: path, Headers: headers},
	}}}
}

func values(options []*core.HeaderValueOption) map[string]string {
	m := map[string]string{}
	for _, o := range options {
		m[o.GetHeader().GetKey()] = o.GetHeader().GetValue() + " " + o.GetAppendAction().String()
	}
	return m
}

func TestGRPCAnswers(t *testing.T) {
	const replaced, added = " OVERWRITE_IF_EXISTS_OR_ADD", " APPEND_IF_EXISTS_OR_ADD"
	for _, test := range decisions {
		t.Run(test.name, func(t *testing.T) {
			checker := says(test.decision)
			count := &observed{}
			_, conn := listenGRPC(t, envoy.Options{Checker: checker, Observer: count})
			out := check(t, conn, attributes("GET", "/api/v2/orders?page=2", map[string]string{
				":path": "/api/v2/orders?page=2", ":method": "GET", ":authority": "gateway", "user-agent": "x",
			}))
			cookie := test.decision.SetCookie
			if test.code == "" {
				ok := out.GetOkResponse()
				if out.GetStatus().GetCode() != int32(codes.OK) || ok == nil {
					t.Fatalf("got %v", out)
				}
				want := map[string]string{}
				if test.decision.Effect == authz.Allow {
					want["authorization"] = "Bearer a.b.c" + replaced
				}
				if got := values(ok.GetHeaders()); !maps.Equal(got, want) {
					t.Errorf("headers %v", got)
				}
				if removed := strings.Join(ok.GetHeadersToRemove(), ","); (removed == "authorization") != (test.decision.Effect == authz.Pass) {
					t.Errorf("removes %q", removed)
				}
				want = map[string]string{}
				if cookie != "" {
					want["set-cookie"] = cookie + added
				}
				if got := values(ok.GetResponseHeadersToAdd()); !maps.Equal(got, want) {
					t.Errorf("headers for the client %v", got)
				}
			} else {
				denied := out.GetDeniedResponse()
				if out.GetStatus().GetCode() == int32(codes.OK) || denied == nil || out.GetOkResponse() != nil ||
					int(denied.GetStatus().GetCode()) != test.status || denied.GetBody() != `{"errors":["`+test.code+`"]}` {
					t.Fatalf("got %v", out)
				}
				want := map[string]string{"content-type": "application/json" + replaced, "cache-control": "no-store" + replaced}
				if cookie != "" {
					want["set-cookie"] = cookie + added
				}
				got := values(denied.GetHeaders())
				if id, ok := strings.CutSuffix(got["x-request-id"], replaced); !ok || len(id) != reqid.MadeLen {
					t.Errorf("the request is named %q", id)
				}
				delete(got, "x-request-id")
				if !maps.Equal(got, want) {
					t.Errorf("headers %v", got)
				}
			}
			if counted, want := count.take(), "envoy_grpc "+test.counted; len(counted) != 1 || counted[0] != want {
				t.Errorf("counted %q, want %q", counted, want)
			}
			asked := checker.take()
			if len(asked) != 1 || asked[0].Dialect != authz.EnvoyGRPC || asked[0].Method != "GET" ||
				asked[0].Target != "/api/v2/orders?page=2" || asked[0].Peer != netip.MustParseAddr("127.0.0.1") {
				t.Errorf("the checker was asked %+v", asked)
			}
		})
	}
}

func TestGRPCRefusesWhatIsMalformed(t *testing.T) {
	raw := func(pairs ...string) *auth.CheckRequest {
		in := attributes("GET", "/a", nil)
		var list []*core.HeaderValue
		for i := 0; i < len(pairs); i += 2 {
			list = append(list, &core.HeaderValue{Key: pairs[i], RawValue: []byte(pairs[i+1])})
		}
		in.Attributes.Request.Http.HeaderMap = &core.HeaderMap{Headers: list}
		return in
	}
	for name, in := range map[string]*auth.CheckRequest{
		"nothing":                  {},
		"no HTTP request":          {Attributes: &auth.AttributeContext{Request: &auth.AttributeContext_Request{}}},
		"no method":                attributes("", "/a", nil),
		"no path":                  attributes("GET", "", nil),
		"absolute path":            attributes("GET", "http://other/a", nil),
		"asterisk":                 attributes("OPTIONS", "*", nil),
		"another :path":            attributes("GET", "/a", map[string]string{":path": "/b"}),
		"another :method":          attributes("GET", "/a", map[string]string{":method": "POST"}),
		"another raw :path":        raw(":path", "/b"),
		"underscore alias":         attributes("GET", "/a", map[string]string{"x_forwarded_for": "6.6.6.6"}),
		"raw underscore alias":     raw("x_auth_apikey", "a"),
		"DEL in Latin-1":           raw("user-agent", "caf\xe9\x7f"),
		"control byte":             raw("cookie", "a=b\x00"),
		"line feed":                raw("cookie", "a=b\nx: y"),
		"control byte, not raw":    attributes("GET", "/a", map[string]string{"cookie": "a=\x7f"}),
		"empty name":               raw("", "b"),
		"no token":                 raw("a b", "c"),
		"no token, not raw":        attributes("GET", "/a", map[string]string{"a:b": "c"}),
		"one bad among good, last": raw("user-agent", "x", "cookie", "a=b", "x\x00", "y"),
	} {
		t.Run(name, func(t *testing.T) {
			checker := says(allow)
			_, conn := listenGRPC(t, envoy.Options{Checker: checker})
			out := check(t, conn, in)
			if denied := out.GetDeniedResponse(); denied.GetStatus().GetCode() != 400 || denied.GetBody() != `{"errors":["authz.malformed_request"]}` ||
				len(checker.take()) != 0 {
				t.Errorf("got %v", out)
			}
		})
	}
}

func TestGRPCUntrustedPeer(t *testing.T) {
	checker := says(allow)
	_, conn := listenGRPC(t, envoy.Options{Checker: checker, Trusted: nobody})
	out := check(t, conn, attributes("GET", "/a", nil))
	if denied := out.GetDeniedResponse(); denied.GetStatus().GetCode() != 403 || denied.GetBody() != `{"errors":["authz.untrusted_proxy"]}` ||
		len(checker.take()) != 0 {
		t.Errorf("got %v", out)
	}
}

// The audit trail sees the bodies that Envoy sends along, as text or as bytes, if they are short.
func TestGRPCBodies(t *testing.T) {
	for _, test := range []struct {
		name, method, text string
		raw                []byte
		want               string
	}{
		{"text", "POST", "uid=ID1", nil, "uid=ID1"},
		{"bytes", "PUT", "", []byte("uid=ID1"), "uid=ID1"},
		{"of a read", "GET", "uid=ID1", nil, ""},
		{"long", "POST", strings.Repeat("x", 64<<10+1), nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			checker := says(allow)
			_, conn := listenGRPC(t, envoy.Options{Checker: checker})
			in := attributes(test.method, "/a", map[string]string{"content-type": "application/x-www-form-urlencoded"})
			in.Attributes.Request.Http.Body, in.Attributes.Request.Http.RawBody = test.text, test.raw
			check(t, conn, in)
			asked := checker.take()
			if len(asked) != 1 || asked[0].Body != test.want || asked[0].ContentType != "application/x-www-form-urlencoded" {
				t.Errorf("asked %.200v", asked)
			}
		})
	}
}

// A panic refuses its own check, as an answer, and nothing else.
func TestGRPCPanic(t *testing.T) {
	first := true
	checker := &script{check: func(_ context.Context, _ *authz.Request, d *authz.Decision) {
		*d = allow
		if first {
			first = false
			panic("boom")
		}
	}}
	_, conn := listenGRPC(t, envoy.Options{Checker: checker})
	out := check(t, conn, attributes("GET", "/a", nil))
	if denied := out.GetDeniedResponse(); denied.GetStatus().GetCode() != 500 || denied.GetBody() != `{"errors":["server.internal_error"]}` {
		t.Errorf("got %v", out)
	}
	if out := check(t, conn, attributes("GET", "/a", nil)); out.GetOkResponse() == nil {
		t.Errorf("the next check got %v", out)
	}
}

// Envoy gives up on a check before barong does: the stores hear of it.
func TestGRPCContextEndsWithTheCall(t *testing.T) {
	ended, gone := make(chan struct{}), make(chan struct{})
	checker := &script{check: func(ctx context.Context, _ *authz.Request, d *authz.Decision) {
		<-ctx.Done()
		close(ended)
		<-gone // an answer could still outrun the end of the call
		*d = authz.Decision{Status: 503, Code: "authz.unavailable"}
	}}
	_, conn := listenGRPC(t, envoy.Options{Checker: checker, Timeout: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := auth.NewAuthorizationClient(conn).Check(ctx, attributes("GET", "/a", nil)); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
	close(gone)
	<-ended
}

func TestGRPCHealth(t *testing.T) {
	g, conn := listenGRPC(t, envoy.Options{Checker: says(allow)})
	client := healthv1.NewHealthClient(conn)
	for _, service := range []string{"", "envoy.service.auth.v3.Authorization"} {
		for _, serving := range []bool{true, false, true} {
			g.SetServing(serving)
			out, err := client.Check(t.Context(), &healthv1.HealthCheckRequest{Service: service})
			if err != nil || (out.GetStatus() == healthv1.HealthCheckResponse_SERVING) != serving {
				t.Errorf("%q: got %v, %v; want serving %v", service, out, err, serving)
			}
		}
	}
	if _, err := client.Check(t.Context(), &healthv1.HealthCheckRequest{Service: "other"}); status.Code(err) != codes.NotFound {
		t.Errorf("unknown service: %v", err)
	}
}

// Shutdown lets the checks under way end.
func TestGRPCShutdown(t *testing.T) {
	begun, proceed := make(chan struct{}), make(chan struct{})
	checker := &script{check: func(_ context.Context, _ *authz.Request, d *authz.Decision) {
		close(begun)
		<-proceed
		*d = allow
	}}
	g, conn := listenGRPC(t, envoy.Options{Checker: checker})
	answer := make(chan *auth.CheckResponse, 1)
	go func() {
		out, _ := auth.NewAuthorizationClient(conn).Check(context.Background(), attributes("GET", "/a", nil))
		answer <- out
	}()
	<-begun
	done := make(chan error, 1)
	go func() { done <- g.Shutdown(context.Background()) }()
	close(proceed)
	if out := <-answer; out.GetOkResponse() == nil {
		t.Errorf("the check under way got %v", out)
	}
	if err := <-done; err != nil {
		t.Errorf("shutdown: %v", err)
	}
}

// A check that hangs does not keep the listener from ending.
func TestGRPCShutdownInTime(t *testing.T) {
	begun := make(chan struct{})
	checker := &script{check: func(ctx context.Context, _ *authz.Request, d *authz.Decision) {
		close(begun)
		<-ctx.Done()
		*d = authz.Decision{Status: 503, Code: "authz.unavailable"}
	}}
	g, conn := listenGRPC(t, envoy.Options{Checker: checker, Timeout: time.Hour})
	go func() {
		_, _ = auth.NewAuthorizationClient(conn).Check(context.Background(), attributes("GET", "/a", nil))
	}()
	<-begun
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := g.Shutdown(ctx); err != context.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
}

// A method is found by its whole path, with a slash before it: others are nobody's (CVE-2026-33186 was about those without).
func TestGRPCPaths(t *testing.T) {
	checker := says(allow)
	_, conn := listenGRPC(t, envoy.Options{Checker: checker})
	for _, method := range []string{
		"envoy.service.auth.v3.Authorization/Check", "/envoy.service.auth.v3.Authorization/check", "/envoy.service.auth.v3.Authorization/Check/",
		"//envoy.service.auth.v3.Authorization/Check", "/Authorization/Check", "/",
	} {
		err := conn.Invoke(t.Context(), method, attributes("GET", "/a", nil), new(auth.CheckResponse))
		if code := status.Code(err); code != codes.Unimplemented {
			t.Errorf("%s: %v", method, err)
		}
	}
	if asked := checker.take(); len(asked) != 0 {
		t.Errorf("asked %+v", asked)
	}
}
