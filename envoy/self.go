package envoy

import (
	"github.com/valyala/fasthttp"

	"barong/authz"
	"barong/internal/header"
	"barong/internal/listener"
)

// Gate stands before this process's own REST API as a gateway would: it decides the request for the path it was sent
// to, and reports whether the request may go on. A refusal is answered. A request that may go on carries the token in
// its Authorization header; on a pass path it carries none, whatever the client sent.
//
// The body is seen by the audit trail alone, for which load reads it when the headers were judged: it makes the request's
// body one that does not flow, or leaves it alone when it is not one to be recorded.
func (h *Handler) Gate(ctx *fasthttp.RequestCtx, load func()) (proceed bool) {
	defer h.recovered(ctx, authz.SelfGate)
	t := h.task(authz.SelfGate)
	t.request.Method = header.View(ctx.Request.Header.Method())
	t.request.Target = header.View(ctx.Request.Header.RequestURI())
	t.request.Peer = listener.Peer(ctx)
	t.request.LoadBody = func(r *authz.Request) error {
		load()
		if !ctx.Request.IsBodyStream() {
			r.Body, r.ContentType = ctx.Request.Body(), header.View(ctx.Request.Header.ContentType())
		}
		return nil // whoever serves the call refuses a body that cannot be read
	}
	if h.readExtAuthz(ctx, t) {
		h.decide(h.base, t)
	}
	d := &t.decision
	if d.Effect == authz.Deny {
		h.finish(ctx, t)
		return false
	}
	h.conclude(t)
	ctx.Request.Header.SetCanonical(nameRequestID, t.ctx.requestID()) // the call has the name of its check
	ctx.Request.Header.Del(fasthttp.HeaderAuthorization)
	if d.Effect == authz.Allow {
		ctx.Request.Header.SetBytesV(fasthttp.HeaderAuthorization, d.Authorization)
	}
	if d.SetCookie != "" {
		ctx.Response.Header.Add(fasthttp.HeaderSetCookie, d.SetCookie)
	}
	h.release(t)
	return true
}
