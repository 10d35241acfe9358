package envoy

import (
	"context"
	"log/slog"
	"strings"

	"github.com/valyala/fasthttp"

	"barong/authz"
	"barong/internal/fault"
	"barong/internal/pages"
	"barong/internal/reqid"
)

// An Identifier tells who is signed in with a request that was refused before anybody was asked. authz.Engine is one.
type Identifier interface {
	// Identify fills in the principal and the session of d, if the request shows that it is theirs.
	Identify(ctx context.Context, r *authz.Request, d *authz.Decision)
}

const typeHTML = "text/html; charset=utf-8"

// page is the page for a browser (GET, with Accept: text/html) that is signed in and was refused. It is empty for all
// others. The log tells of it, with the request's id.
func (h *Handler) page(t *task, v *visitor) string {
	r, d := &t.request, &t.decision
	if h.refusals == nil || !v.html || r.Method != "GET" || d.Credential == authz.APIKey {
		return ""
	}
	if r.Dialect == authz.AuthRequest && !v.page {
		return ""
	}
	if d.Principal == nil && d.Code != string(fault.MalformedRequest) && d.Code != string(fault.UntrustedProxy) {
		if identifier, ok := h.checker.(Identifier); ok {
			identifier.Identify(&t.ctx, r, d)
		}
	}
	if d.Principal == nil {
		return ""
	}
	about := pages.Refusal{
		Status: d.Status, Code: d.Code, Languages: string(v.languages), Back: returnTo(h.origin(t, v), r.Target),
		Portal: h.portal(), RequestID: string(t.ctx.requestID()),
	}
	if d.Code != "authz.client_session_mismatch" { // whoever shows it may have stolen it
		about.Email, about.Role = d.Principal.Email, d.Principal.Role
	}
	h.log.LogAttrs(reqid.With(h.base, about.RequestID), slog.LevelInfo, "a browser was refused",
		slog.String("code", d.Code), slog.String("uid", d.Principal.UID), slog.String("path", d.Path))
	return h.refusals.Page(about)
}

// portal is the origin of the portal, where browsers are sent to that of another host to sign in.
func (h *Handler) portal() string {
	if h.login == nil || h.login.relative || h.login.path != "accounts/signin" {
		return ""
	}
	scheme, rest, _ := strings.Cut(h.login.base, "://")
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		rest = rest[:end]
	}
	return scheme + "://" + rest
}

// writePage puts the page in the place of the refusal's JSON, or tells it to nginx, which has no place for it.
func (h *Handler) writePage(ctx *fasthttp.RequestCtx, dialect authz.Dialect, page string) {
	for _, extra := range h.refusals.Headers() {
		ctx.Response.Header.Set(extra.Name, extra.Value)
	}
	if dialect == authz.AuthRequest {
		ctx.Response.Header.Set("X-Auth-Page", page)
		return
	}
	ctx.Response.Header.SetContentType(typeHTML)
	ctx.Response.SetBodyString(page)
}
