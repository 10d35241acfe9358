package envoy

import (
	"io"

	"github.com/valyala/fasthttp"

	"barong/authz"
)

// maxBody is how much of a request body a check looks at, in bytes. Only the audit trail sees it: no decision rests on
// a body, so a gateway has no need to send it, and a longer one is left unread.
const maxBody = 64 << 10

// Check answers Envoy's HTTP ext_authz, whose method is the client's and whose target is the client's raw one behind
// ExtAuthzPrefix. The argument is that target, beginning with its slash; no header replaces it.
func (h *Handler) Check(ctx *fasthttp.RequestCtx, target []byte) {
	defer h.recovered(ctx, authz.EnvoyHTTP)
	t := h.task(authz.EnvoyHTTP)
	t.request.Method = view(ctx.Request.Header.Method())
	t.request.Target = view(target)
	t.request.Peer = Peer(ctx)
	if h.readExtAuthz(ctx, t) && t.readBody(ctx) {
		h.decide(h.base, t)
	}
	h.finish(ctx, t)
}

// readExtAuthz takes over the headers of a request that is its client's own, and reports whether there is something to
// decide.
func (h *Handler) readExtAuthz(ctx *fasthttp.RequestCtx, t *task) bool {
	s := scan(&ctx.Request.Header)
	for s.next() {
		if overrides(s.name) {
			h.reportOverride(s.name)
		}
		if h.login != nil {
			t.visitor.note(&nameHost, s.name, s.value)
		}
		t.request.AddHeader(s.name, s.value)
	}
	if !s.ok() || !originForm(t.request.Target) {
		ctx.SetConnectionClose()
		t.refuse(fasthttp.StatusBadRequest, codeMalformed)
		return false
	}
	return true
}

// readBody reads the body of a call that may change something, if it is short and its length is known. It reports
// false, with a refusal, when the body ends before its announced length.
func (t *task) readBody(ctx *fasthttp.RequestCtx) bool {
	n := ctx.Request.Header.ContentLength()
	if n <= 0 || n > maxBody || !audited(t.request.Method) {
		return true
	}
	if stream := ctx.RequestBodyStream(); stream != nil {
		if cap(t.body) < n {
			t.body = make([]byte, n)
		}
		if _, err := io.ReadFull(stream, t.body[:n]); err != nil {
			ctx.SetConnectionClose()
			t.refuse(fasthttp.StatusBadRequest, codeMalformed)
			return false
		}
		t.request.Body = t.body[:n]
	} else {
		t.request.Body = ctx.Request.Body()
	}
	t.request.ContentType = view(ctx.Request.Header.ContentType())
	return true
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
