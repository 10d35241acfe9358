package envoy

import (
	"io"

	"github.com/valyala/fasthttp"

	"barong/authz"
	"barong/internal/fault"
	"barong/internal/header"
	"barong/internal/listener"
)

// maxBody is how much of a request body a check looks at, in bytes. Only the audit trail sees it: no decision rests on
// a body, so a gateway has no need to send it, and a longer one is taken off the connection behind the answer.
const maxBody = 64 << 10

// ExtAuthz answers Envoy's HTTP ext_authz, whose method is the client's and whose target is the client's raw one behind
// ExtAuthzPrefix. The argument is that target, beginning with its slash; no header replaces it.
func (h *Handler) ExtAuthz(ctx *fasthttp.RequestCtx, target []byte) {
	defer h.recovered(ctx, authz.EnvoyHTTP)
	t := h.task(authz.EnvoyHTTP)
	t.request.Method = header.View(ctx.Request.Header.Method())
	t.request.Target = header.View(target)
	t.request.Peer = listener.Peer(ctx)
	if h.readExtAuthz(ctx, t) {
		if n := ctx.Request.Header.ContentLength(); n > 0 && n <= maxBody && audited(t.request.Method) {
			t.http, t.request.LoadBody = ctx, t.load
		}
		h.decide(h.base, t)
	}
	h.finish(ctx, t)
}

// readExtAuthz takes over the headers of a request that is its client's own, and reports whether there is something to
// decide.
func (h *Handler) readExtAuthz(ctx *fasthttp.RequestCtx, t *task) bool {
	var f framing
	s := scan(&ctx.Request.Header)
	for s.next() {
		switch {
		case nameFraming.Is(s.name):
			f.value = s.value
			f.lines++
		case nameAccept.Is(s.name):
			t.accept = s.value
			t.accepts++
		case overrides(s.name):
			h.reportOverride(s.name)
		}
		t.request.AddHeader(s.name, s.value)
	}
	if !s.ok() || !originForm(t.request.Target) {
		ctx.SetConnectionClose()
		t.refuse(fault.MalformedRequest)
		return false
	}
	switch {
	case framed(&ctx.Request.Header):
		t.request.Content = authz.HasContent
	case t.request.Dialect == authz.SelfGate:
		t.request.Content = authz.NoContent
	case f.lines > 0 && h.trusted(t.request.Peer): // Envoy sends no body, and says so of the check itself
		t.request.Content = f.content()
	}
	return true
}

// loadBody reads the body of a call that may change something.
func (t *task) loadBody(r *authz.Request) error {
	stream := t.http.RequestBodyStream()
	if stream == nil {
		return nil
	}
	body := make([]byte, t.http.Request.Header.ContentLength())
	if _, err := io.ReadFull(stream, body); err != nil {
		t.http.SetConnectionClose()
		return err
	}
	r.Body, r.ContentType = body, header.View(t.http.Request.Header.ContentType())
	return nil
}

// audited reports whether the audit trail wants the bodies of this method.
func audited(method string) bool {
	switch method {
	case fasthttp.MethodPost, fasthttp.MethodPut, fasthttp.MethodPatch, fasthttp.MethodDelete:
		return true
	}
	return false
}

// originForm reports whether a client's target is a path with or without a query, which is all that can be judged.
func originForm(target string) bool { return len(target) > 0 && target[0] == '/' }
