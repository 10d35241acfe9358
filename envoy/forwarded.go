package envoy

import (
	"github.com/valyala/fasthttp"

	"barong/authz"
	"barong/internal/header"
)

var (
	nameForwardedMethod = header.NewName("x-forwarded-method")
	nameForwardedURI    = header.NewName("x-forwarded-uri")
	nameOriginalMethod  = header.NewName("x-original-method")
	nameOriginalURI     = header.NewName("x-original-uri")
	nameAccept          = header.NewName("accept")
	valueHTML           = header.NewName("text/html")
)

// ForwardAuth answers Traefik's forwardAuth and Caddy's forward_auth. Method and target of the client's request stand
// in X-Forwarded-Method and X-Forwarded-Uri, which are believed from trusted peers only. The method and query of the
// check itself mean nothing: Traefik always sends GET, and Caddy repeats the client's query there.
//
// A browser (Accept: text/html) without a session is redirected to the login page, if there is one.
func (h *Handler) ForwardAuth(ctx *fasthttp.RequestCtx) {
	defer h.recovered(ctx, authz.ForwardAuth)
	t := h.task(authz.ForwardAuth)
	html, proceed := h.readForwarded(ctx, t, &nameForwardedMethod, &nameForwardedURI)
	if proceed {
		h.decide(h.base, t)
	}
	redirect := html && h.loginURL != "" && signedOut(&t.decision)
	h.finish(ctx, t)
	if redirect {
		ctx.Response.ResetBody()
		ctx.Response.Header.Del(fasthttp.HeaderContentType)
		ctx.Response.Header.Set(fasthttp.HeaderLocation, h.loginURL)
		ctx.SetStatusCode(fasthttp.StatusFound)
	}
}

// signedOut reports a denial that signing in would cure: there is no session, or it has expired, which the decision tells
// from one that is somebody else's by naming none.
func signedOut(d *authz.Decision) bool {
	if d.Effect != authz.Deny || d.Credential == authz.APIKey {
		return false
	}
	return d.Code == "authz.invalid_session" || d.Code == "authz.client_session_mismatch" && d.Session == nil
}

// AuthRequest answers nginx's auth_request. Method and target of the client's request stand in X-Original-Method and
// X-Original-URI, which are believed from trusted peers only.
//
// nginx turns every status but 2xx, 401 and 403 into its own 500 and drops the body, so the answer repeats its status
// in X-Auth-Status and its code in X-Auth-Code, from which the reference configuration restores both.
func (h *Handler) AuthRequest(ctx *fasthttp.RequestCtx) {
	defer h.recovered(ctx, authz.AuthRequest)
	t := h.task(authz.AuthRequest)
	if _, proceed := h.readForwarded(ctx, t, &nameOriginalMethod, &nameOriginalURI); proceed {
		h.decide(h.base, t)
	}
	status, code := t.decision.Status, t.decision.Code
	h.finish(ctx, t)
	writeStatus(ctx, status, code)
}

// readForwarded fills the task from a check whose dialect carries method and target in the two headers named. Each
// must be there exactly once. It reports whether the client accepts HTML, and whether there is something to decide.
func (h *Handler) readForwarded(ctx *fasthttp.RequestCtx, t *task, method, target *header.Name) (html, proceed bool) {
	t.request.Peer = Peer(ctx)
	if !h.trusted(t.request.Peer) {
		ctx.SetConnectionClose() // its headers were not looked at, so nobody knows where the request ends
		t.refuse(fasthttp.StatusForbidden, codeUntrusted)
		return false, false
	}
	var methods, targets int
	s := scan(&ctx.Request.Header)
	for s.next() {
		switch {
		case method.Is(s.name):
			methods++
			t.request.Method = view(s.value)
			continue
		case target.Is(s.name):
			targets++
			t.request.Target = view(s.value)
			continue
		case nameAccept.Is(s.name):
			html = html || acceptsHTML(s.value)
		case overrides(s.name):
			h.reportOverride(s.name)
		}
		t.request.AddHeader(s.name, s.value)
	}
	if !s.ok() {
		ctx.SetConnectionClose()
	} else if methods == 1 && targets == 1 && t.request.Method != "" && originForm(t.request.Target) {
		return html, true
	}
	t.refuse(fasthttp.StatusBadRequest, codeMalformed)
	return false, false
}

// acceptsHTML reports whether an Accept header names text/html without refusing it by a weight of zero.
func acceptsHTML(accept []byte) bool {
	for len(accept) > 0 {
		item := accept
		accept = nil
		for i, c := range item {
			if c == ',' {
				item, accept = item[:i], item[i+1:]
				break
			}
		}
		kind, weight := item, []byte(nil)
		for i, c := range item {
			if c == ';' {
				kind, weight = item[:i], item[i:]
				break
			}
		}
		if valueHTML.Is(header.TrimSpace(kind)) && !refusedWeight(weight) {
			return true
		}
	}
	return false
}

// refusedWeight reports whether the parameters hold q=0, in any of its spellings.
func refusedWeight(parameters []byte) bool {
	for i := 0; i+2 < len(parameters); i++ {
		if (parameters[i] == 'q' || parameters[i] == 'Q') && parameters[i+1] == '=' {
			for _, c := range header.TrimSpace(parameters[i+2:]) {
				if c != '0' && c != '.' {
					return c == ';'
				}
			}
			return true
		}
	}
	return false
}
