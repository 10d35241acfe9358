package envoy

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	kind "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	grpcpeer "google.golang.org/grpc/peer"
	grpcstatus "google.golang.org/grpc/status"

	"barong/authz"
	"barong/internal/fault"
	"barong/internal/header"
	"barong/internal/listener"
	"barong/internal/reqid"
)

// Bounds of the gRPC listener. Envoy passes at most 60 KiB of headers on by default, and opens one connection per
// worker thread, with a stream for each check under way.
const (
	maxMessage    = 256 << 10 // bytes of one check, without the body of its request
	maxStreams    = 4096      // checks under way on one connection
	maxHeaderList = 16 << 10  // bytes of one call's own metadata
)

// A GRPC is the gRPC listener: Envoy's envoy.service.auth.v3.Authorization beside the standard health service.
//
// A message stands in memory before anybody sees it. Gateways hold the bodies that they send along (with_request_body)
// themselves, and may send checks as large as those; strangers may not, so each kind of peer has a server of its own.
type GRPC struct {
	gateways, strangers *grpc.Server
	trusted             func(netip.Addr) bool
	health              *health.Server
}

// NewGRPC returns a listener that answers with the handler's checks and reports itself healthy from the start.
func NewGRPC(h *Handler) *GRPC {
	g := &GRPC{trusted: h.trusted, health: health.NewServer()}
	g.gateways, g.strangers = g.newServer(h, listener.MaxUnread+maxMessage), g.newServer(h, maxMessage)
	g.SetServing(true)
	return g
}

func (g *GRPC) newServer(h *Handler, maxSize int) *grpc.Server {
	server := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxSize),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxHeaderListSize(maxHeaderList),
		grpc.ConnectionTimeout(5*time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 10 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.UnaryInterceptor(h.recoverUnary),
	)
	auth.RegisterAuthorizationServer(server, authorization{h: h})
	healthv1.RegisterHealthServer(server, g.health)
	return server
}

// SetServing sets what the health service says of the process and of the authorization service.
func (g *GRPC) SetServing(serving bool) {
	s := healthv1.HealthCheckResponse_NOT_SERVING
	if serving {
		s = healthv1.HealthCheckResponse_SERVING
	}
	g.health.SetServingStatus("", s)
	g.health.SetServingStatus(auth.Authorization_ServiceDesc.ServiceName, s)
}

// Serve answers on the listener, which it closes, until Shutdown. It returns nil then.
func (g *GRPC) Serve(l net.Listener) error {
	gateways, strangers := newHanded(l), newHanded(l)
	var serving sync.WaitGroup
	serving.Go(func() { _ = g.gateways.Serve(gateways) }) // it ends when the listener is closed, which is told below
	serving.Go(func() { _ = g.strangers.Serve(strangers) })
	var err error
	for {
		var conn net.Conn
		if conn, err = l.Accept(); err != nil {
			if temporary, ok := err.(interface{ Temporary() bool }); ok && temporary.Temporary() {
				time.Sleep(50 * time.Millisecond) // no file descriptor is free
				continue
			}
			break
		}
		if g.trusted(listener.Addr(conn.RemoteAddr())) {
			gateways.hand(conn)
		} else {
			strangers.hand(conn)
		}
	}
	_, _ = gateways.Close(), strangers.Close() // closed already, or broken
	serving.Wait()
	if !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("serve gRPC on %s: %w", l.Addr(), err)
	}
	return nil
}

// A handed is a listener whose connections another one has accepted, which closes with it.
type handed struct {
	net.Listener
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newHanded(l net.Listener) *handed {
	return &handed{Listener: l, conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *handed) hand(c net.Conn) {
	select {
	case l.conns <- c:
	case <-l.closed:
		_ = c.Close() // nobody accepts it any more
	}
}

// Accept implements net.Listener.
func (l *handed) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *handed) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// Leave has the health service say that this process is going.
func (g *GRPC) Leave() { g.health.Shutdown() }

// Shutdown tells clients to go elsewhere (GOAWAY), lets the checks under way end, and cuts off what is left when the context ends.
func (g *GRPC) Shutdown(ctx context.Context) error {
	g.health.Shutdown()
	servers := []*grpc.Server{g.gateways, g.strangers}
	var stopping sync.WaitGroup
	done := make(chan struct{})
	for _, server := range servers {
		stopping.Go(server.GracefulStop)
	}
	go func() {
		stopping.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		for _, server := range servers {
			server.Stop()
		}
		<-done
		return ctx.Err()
	}
}

// recoverUnary turns a panic into an error of that call alone. Envoy refuses a check whose call failed.
func (h *Handler) recoverUnary(ctx context.Context, in any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (out any, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			id := reqid.Of(nil)
			h.panicked(reqid.With(ctx, id), authz.EnvoyGRPC, reason)
			out, err = nil, grpcstatus.Error(codes.Internal, string(fault.InternalError))
			if _, ok := in.(*auth.CheckRequest); ok {
				out, err = denied(refusal(fault.InternalError), "", id), nil
			}
		}
	}()
	return next(ctx, in)
}

// authorization is the gRPC service.
type authorization struct {
	auth.UnimplementedAuthorizationServer
	h *Handler
}

// Check answers one check. Its error is always nil: refusals are answers.
func (a authorization) Check(ctx context.Context, in *auth.CheckRequest) (*auth.CheckResponse, error) {
	t := a.h.task(authz.EnvoyGRPC)
	if a.h.readGRPC(ctx, t, in) {
		a.h.decide(ctx, t)
	}
	a.h.conclude(t)
	var out *auth.CheckResponse
	if t.decision.Effect == authz.Deny {
		out = a.h.deniedBrowser(t, in)
	} else {
		out = granted(&t.decision)
	}
	a.h.release(t)
	return out, nil
}

// readGRPC fills the task from the attributes of a check, and reports whether there is something to decide.
func (h *Handler) readGRPC(ctx context.Context, t *task, in *auth.CheckRequest) bool {
	if p, ok := grpcpeer.FromContext(ctx); ok {
		t.request.Peer = listener.Addr(p.Addr)
	}
	if !h.trusted(t.request.Peer) {
		t.refuse(fault.UntrustedProxy)
		return false
	}
	attributes := in.GetAttributes()
	request := attributes.GetRequest().GetHttp()
	t.request.Method = request.GetMethod()
	t.request.Target = request.GetPath() // undecoded, with its query
	g := grpcHeaders{handler: h, task: t, path: request.GetPath(), method: request.GetMethod(), ok: true}
	eachHeader(request, g.add)
	t.request.Host, t.request.Scheme = request.GetHost(), request.GetScheme()
	t.request.Content = (&framing{value: g.framing, lines: 1}).content()
	g.lastHop(attributes.GetSource().GetAddress())
	if audited(t.request.Method) {
		body := request.GetRawBody() // Envoy's pack_as_bytes
		if len(body) == 0 {
			body = header.BytesOf(request.GetBody())
		}
		if len(body) <= maxBody {
			t.request.Body = body
		}
	}
	if !g.ok || t.request.Method == "" || !originForm(t.request.Target) {
		t.refuse(fault.MalformedRequest)
		return false
	}
	return true
}

// eachHeader calls f with the headers of a request.
func eachHeader(request *auth.AttributeContext_HttpRequest, f func(name string, value []byte)) {
	if raw := request.GetHeaderMap().GetHeaders(); len(raw) > 0 { // Envoy's encode_raw_headers
		for _, field := range raw {
			value := field.GetRawValue()
			if len(value) == 0 {
				value = header.BytesOf(field.GetValue())
			}
			f(field.GetKey(), value)
		}
		return
	}
	for name, value := range request.GetHeaders() {
		f(name, header.BytesOf(value))
	}
}

// grpcHeaders takes the headers of one check over into its request.
type grpcHeaders struct {
	handler      *Handler
	task         *task
	method, path string
	forwarded    []string // values of X-Forwarded-For, in order
	framing      []byte   // Content-Length or Transfer-Encoding; Envoy keeps no "chunked", so none says nothing
	ok           bool
}

var (
	nameForwardedFor = header.NewName("x-forwarded-for")
	nameContentType  = header.NewName("content-type")
)

func (g *grpcHeaders) add(name string, value []byte) {
	if strings.HasPrefix(name, ":") { // HTTP/2's pseudo headers repeat the attributes, and must not contradict them
		switch name {
		case ":path":
			g.ok = g.ok && string(value) == g.path
		case ":method":
			g.ok = g.ok && string(value) == g.method
		}
		return
	}
	n := header.BytesOf(name)
	nameLength, _ := nameEnd(n, 0)
	if len(n) == 0 || nameLength != len(n) || aliased(n) || !fieldValue(value) {
		g.ok = false
		return
	}
	switch {
	case nameForwardedFor.Is(n):
		g.forwarded = append(g.forwarded, string(value))
		return
	case nameContentLength.Is(n), nameTransferEncoding.Is(n):
		g.framing = append([]byte(" "), value...)
	case nameContentType.Is(n):
		g.task.request.ContentType = header.View(value)
	case overrides(n):
		g.handler.reportOverride(n)
	}
	g.task.request.AddHeader(n, value)
}

// lastHop hands X-Forwarded-For over with the address that spoke to Envoy as its last item, so that a client behind
// Envoy is found by the same walk as one behind a gateway that speaks HTTP. An Envoy that appended the address itself
// only names it twice. Addresses that are none, such as a pipe, end nothing: who reached Envoy over one is local.
func (g *grpcHeaders) lastHop(source *core.Address) {
	if s := source.GetSocketAddress().GetAddress(); s != "" {
		g.forwarded = append(g.forwarded, s)
	}
	if len(g.forwarded) > 0 {
		g.task.request.AddHeader([]byte("X-Forwarded-For"), []byte(strings.Join(g.forwarded, ", ")))
	}
}

// granted is the answer to a check that may pass.
func granted(d *authz.Decision) *auth.CheckResponse {
	ok := &auth.OkHttpResponse{}
	if d.Effect == authz.Allow {
		ok.Headers = []*core.HeaderValueOption{option("authorization", string(d.Authorization), replace)}
	} else {
		ok.HeadersToRemove = []string{"authorization"}
	}
	if d.SetCookie != "" {
		ok.ResponseHeadersToAdd = []*core.HeaderValueOption{option("set-cookie", d.SetCookie, add)}
	}
	return &auth.CheckResponse{
		Status:       &status.Status{Code: int32(codes.OK)},
		HttpResponse: &auth.CheckResponse_OkResponse{OkResponse: ok},
	}
}

// deniedBrowser is denied, for a client that may be a browser.
func (h *Handler) deniedBrowser(t *task, in *auth.CheckRequest) *auth.CheckResponse {
	d, id := &t.decision, string(t.ctx.requestID())
	if h.login == nil && h.refusals == nil {
		return denied(d, "", id)
	}
	request := in.GetAttributes().GetRequest().GetHttp()
	v := visitor{host: header.BytesOf(request.GetHost()), hosts: 1}
	eachHeader(request, func(name string, value []byte) {
		if len(name) > 0 && name[0] != ':' {
			v.note(nil, header.BytesOf(name), value)
		}
	})
	if len(v.scheme) == 0 {
		v.scheme = header.BytesOf(request.GetScheme())
	}
	location := h.redirect(t, &v)
	out := denied(d, location, id)
	if location != "" {
		return out
	}
	if page := h.page(t, &v); page != "" {
		answer := out.GetDeniedResponse()
		answer.Body = page
		for _, h := range answer.Headers {
			if h.Header.Key == "content-type" {
				h.Header.Value = typeHTML
			}
		}
		for _, extra := range h.refusals.Headers() {
			answer.Headers = append(answer.Headers, option(strings.ToLower(extra.Name), extra.Value, replace))
		}
	}
	return out
}

// denied is the answer to a check of that name that may not pass, or is redirected to a location. Envoy passes the body on
// as it is.
func denied(d *authz.Decision, location, id string) *auth.CheckResponse {
	code := codes.PermissionDenied
	switch d.Status {
	case 401:
		code = codes.Unauthenticated
	case 503:
		code = codes.Unavailable
	}
	headers := []*core.HeaderValueOption{option("cache-control", "no-store", replace), option("x-request-id", id, replace)}
	httpStatus, body := d.Status, `{"errors":["`+d.Code+`"]}`
	if location != "" {
		httpStatus, body = 302, ""
		headers = append(headers, option("location", location, replace))
	} else {
		headers = append(headers, option("content-type", "application/json", replace))
	}
	if d.SetCookie != "" {
		headers = append(headers, option("set-cookie", d.SetCookie, add))
	}
	return &auth.CheckResponse{
		Status: &status.Status{Code: int32(code), Message: d.Code},
		HttpResponse: &auth.CheckResponse_DeniedResponse{DeniedResponse: &auth.DeniedHttpResponse{
			Status:  &kind.HttpStatus{Code: kind.StatusCode(min(httpStatus, math.MaxInt16))},
			Headers: headers,
			Body:    body,
		}},
	}
}

const (
	replace = core.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
	add     = core.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
)

func option(name, value string, action core.HeaderValueOption_HeaderAppendAction) *core.HeaderValueOption {
	return &core.HeaderValueOption{
		Header:       &core.HeaderValue{Key: name, Value: value},
		AppendAction: action,
	}
}
