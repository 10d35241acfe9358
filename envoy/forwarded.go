package envoy

import (
	"strings"

	"github.com/valyala/fasthttp"

	"barong/authz"
	"barong/internal/fault"
	"barong/internal/header"
	"barong/internal/listener"
)

var (
	nameForwardedMethod = header.NewName("x-forwarded-method")
	nameForwardedURI    = header.NewName("x-forwarded-uri")
	nameOriginalMethod  = header.NewName("x-original-method")
	nameOriginalURI     = header.NewName("x-original-uri")
	nameOriginalURL     = header.NewName("x-original-url")
)

// ForwardAuth answers Traefik's forwardAuth and Caddy's forward_auth. Method and target of the client's request stand
// in X-Forwarded-Method and X-Forwarded-Uri, which are believed from trusted peers only. The method and query of the
// check itself mean nothing: Traefik always sends GET, and Caddy repeats the client's query there.
//
// A browser without a session is redirected to the login page, if there is one.
func (h *Handler) ForwardAuth(ctx *fasthttp.RequestCtx) {
	defer h.recovered(ctx, authz.ForwardAuth)
	t := h.task(authz.ForwardAuth)
	if h.readForwarded(ctx, t, forwardedNames) {
		h.decide(h.base, t)
	}
	h.finish(ctx, t)
}

// AuthRequest answers nginx's auth_request, also as ingress-nginx asks. The method of the client's request stands in
// X-Original-Method, its target in X-Original-URI, or in X-Original-URL, which may be absolute, or alike in both. They are
// believed from trusted peers only.
//
// nginx turns every status but 2xx, 401 and 403 into its own 500 and drops the body, so the answer repeats its status
// in X-Auth-Status and its code in X-Auth-Code, from which the reference configuration restores both. For the same reason
// a browser without a session is answered 401, with the login page in Location, and the page about a refusal stands in
// X-Auth-Page, if the gateway asks for it by a header of that name: it has to make room for one.
func (h *Handler) AuthRequest(ctx *fasthttp.RequestCtx) {
	defer h.recovered(ctx, authz.AuthRequest)
	t := h.task(authz.AuthRequest)
	if h.readForwarded(ctx, t, originalNames) {
		h.decide(h.base, t)
	}
	status, code := t.decision.Status, t.decision.Code
	h.finish(ctx, t)
	listener.RepeatStatus(ctx, status, fault.Code(code))
}

// carriers are the headers in which a dialect carries the method and the target of the client's request.
type carriers struct {
	method, target *header.Name
	url            *header.Name // of a target that may be absolute; nil for none
}

var (
	forwardedNames = carriers{method: &nameForwardedMethod, target: &nameForwardedURI}
	originalNames  = carriers{method: &nameOriginalMethod, target: &nameOriginalURI, url: &nameOriginalURL}
)

// readForwarded fills the task from a check whose dialect carries method and target in headers. Each must be there exactly
// once, or the target in both of its headers alike. It reports whether there is something to decide.
func (h *Handler) readForwarded(ctx *fasthttp.RequestCtx, t *task, names carriers) bool {
	t.request.Peer = listener.Peer(ctx)
	if !h.trusted(t.request.Peer) {
		ctx.SetConnectionClose() // its headers were not looked at, so nobody knows where the request ends
		t.refuse(fault.UntrustedProxy)
		return false
	}
	var methods, targets, urls int
	var address string
	var f framing
	s := scan(&ctx.Request.Header)
	for s.next() {
		switch {
		case names.method.Is(s.name):
			methods++
			t.request.Method = header.View(s.value)
			continue
		case names.target.Is(s.name):
			targets++
			t.request.Target = header.View(s.value)
			continue
		case names.url != nil && names.url.Is(s.name):
			urls++
			address = header.View(s.value)
			continue
		case nameFraming.Is(s.name):
			f.value = s.value
			f.lines++
			continue
		case nameAccept.Is(s.name):
			t.accept = s.value
			t.accepts++
		case overrides(s.name):
			h.reportOverride(s.name)
		}
		t.request.AddHeader(s.name, s.value)
	}
	if !s.ok() {
		ctx.SetConnectionClose()
	} else if methods == 1 && targets <= 1 && urls <= 1 && targets+urls > 0 && (urls == 0 || t.readURL(address, targets > 0)) &&
		t.request.Method != "" && originForm(t.request.Target) {
		if t.request.Content = f.content(); framed(&ctx.Request.Header) {
			t.request.Content = authz.HasContent
		}
		return true
	}
	t.refuse(fault.MalformedRequest)
	return false
}

// readURL takes the target of the client's request from its address. It reports false when that is none, or when the
// target is known and another one.
func (t *task) readURL(address string, known bool) bool {
	scheme, host, target, ok := splitURL(address)
	if !ok || known && target != t.request.Target {
		return false
	}
	t.request.Target = target
	if host != "" {
		t.request.Scheme, t.request.Host = strings.ToLower(scheme), host
	}
	return true
}

// splitURL splits an address, a path or absolute, before its path; a path has neither scheme nor host. It reports false for
// schemes other than http and https, for an absolute address without a path, and for a host that holds anything which
// another reader may end it at.
func splitURL(address string) (scheme, host, target string, ok bool) {
	if strings.HasPrefix(address, "/") {
		return "", "", address, true
	}
	scheme, rest, ok := strings.Cut(address, "://")
	slash := strings.IndexByte(rest, '/')
	if !ok || slash < 0 || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
		return "", "", "", false
	}
	host, target = rest[:slash], rest[slash:]
	return scheme, host, target, plainHost(header.BytesOf(host))
}
