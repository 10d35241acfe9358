package envoy

import (
	"bytes"
	"net/url"
	"strings"

	"github.com/valyala/fasthttp"

	"barong/authz"
	"barong/internal/header"
)

// A loginPage is where browsers without a session are sent.
type loginPage struct {
	base     string // the address up to the value of rd
	fragment string // with its "#", or empty
	relative bool   // a path, of whichever host was asked for
	host     string // of an address that is not relative, without its port
	path     string // canonical
}

// newLoginPage reads an http or https address, or a path that begins with a slash. It returns nil for no address, and
// for what is none.
func newLoginPage(address string) *loginPage {
	u, err := url.Parse(address)
	if address == "" || err != nil {
		return nil
	}
	canonical, ok := authz.Canonical("/" + strings.TrimPrefix(u.EscapedPath(), "/"))
	if !ok {
		return nil
	}
	l := &loginPage{relative: u.Host == "", host: u.Hostname(), path: canonical}
	l.base = address
	if i := strings.IndexByte(address, '#'); i >= 0 {
		l.base, l.fragment = address[:i], address[i:]
	}
	switch {
	case !strings.Contains(l.base, "?"):
		l.base += "?"
	case !strings.HasSuffix(l.base, "?") && !strings.HasSuffix(l.base, "&"):
		l.base += "&"
	}
	l.base += "rd="
	return l
}

// maxReturn is the longest address to return to, in bytes. Gateways bound the headers of answers; a longer one is left out.
const maxReturn = 4 << 10

// location is where a browser goes that asked for the target, at an origin such as "https://app.example", which is empty
// when it is not known. It is empty for the login page itself, whatever its query: that would go on forever.
func (l *loginPage) location(origin, target string) string {
	path, ok := authz.Canonical(target)
	if !ok || path == l.path && l.at(origin) {
		return ""
	}
	location := l.base + url.QueryEscape(returnTo(origin, target)) + l.fragment
	if l.relative {
		// Traefik resolves a path as one of this process's own.
		location = origin + location
	}
	return location
}

// returnTo is the address that was asked for. One that is too long, or no path with one reading, is left out.
func returnTo(origin, target string) string {
	back := origin + target
	if _, ok := authz.Canonical(target); !ok || len(back) > maxReturn {
		back = origin + "/"
	}
	return back
}

// at reports whether an origin may be that of the login page. One that is not known may be.
func (l *loginPage) at(origin string) bool {
	u, err := url.Parse(origin)
	return l.relative || origin == "" || err != nil || strings.EqualFold(u.Hostname(), l.host)
}

// A visitor is what a check says about the client that it is about. It is looked for when the check has refused them, and
// costs nothing until then.
type visitor struct {
	html      bool   // it accepts pages
	languages []byte // Accept-Language
	page      bool   // the gateway takes a page in a header
	host      []byte
	scheme    []byte // the whole X-Forwarded-Proto
	hosts     int    // how often the host was named
}

// mayWantHTML reports whether a request over HTTP may ask for a page, which visitorOf tells. Programs do not, and their
// refusals need no second walk through the headers.
func (t *task) mayWantHTML() bool { return t.accepts > 1 || acceptsHTML(t.accept) }

// visitor reads the headers of a check over HTTP once more.
func (t *task) visitorOf(ctx *fasthttp.RequestCtx) (v visitor) {
	host := &nameForwardedHost
	if d := t.request.Dialect; d == authz.EnvoyHTTP || d == authz.SelfGate {
		host = &nameHost
	}
	s := scan(&ctx.Request.Header)
	for s.next() {
		v.note(host, s.name, s.value)
	}
	if t.request.Host != "" { // of an absolute address
		v.scheme, v.host, v.hosts = header.BytesOf(t.request.Scheme), header.BytesOf(t.request.Host), 1
	}
	return v
}

// note takes over a header, if it says something about the visitor. host is the header that names the host; nil for none.
func (v *visitor) note(host *header.Name, name, value []byte) {
	switch {
	case nameAccept.Is(name):
		v.html = v.html || acceptsHTML(value)
	case nameAcceptLanguage.Is(name):
		v.languages = value
	case nameAuthPage.Is(name):
		v.page = true
	case host != nil && host.Is(name):
		v.host = value
		v.hosts++
	case nameForwardedProto.Is(name):
		v.scheme = value
	}
}

// origin is where the visitor asked, as the gateway says, such as "https://app.example:8443". It is empty when that is not
// said, or not clearly.
func (v *visitor) origin() string {
	first, _, _ := bytes.Cut(v.scheme, []byte(","))
	scheme := strings.ToLower(string(header.TrimSpace(first)))
	if scheme != "http" && scheme != "https" || v.hosts != 1 || !plainHost(v.host) {
		return ""
	}
	return scheme + "://" + string(v.host)
}

// plainHost reports whether the text is a host with or without a port, and nothing that ends it for some reader.
func plainHost(host []byte) bool {
	if len(host) == 0 || len(host) > 255 {
		return false
	}
	for _, c := range host {
		switch {
		case c|0x20-'a' <= 'z'-'a', c-'0' <= 9, c == '.', c == '-', c == '_', c == ':', c == '[', c == ']':
		default:
			return false
		}
	}
	return true
}

// redirect is where a client belongs that was refused: a browser (GET or HEAD, with Accept: text/html) without a session
// goes to the login page, if there is one. It is empty for all others. What a peer says that is not trusted about hosts
// is not repeated.
func (h *Handler) redirect(t *task, v *visitor) string {
	r := &t.request
	if h.login == nil || !v.html || !signedOut(&t.decision) || r.Method != "GET" && r.Method != "HEAD" ||
		r.Dialect == authz.SelfGate || h.loginOpen != nil && !h.loginOpen() {
		return ""
	}
	return h.login.location(h.origin(t, v), r.Target)
}

// origin is where the visitor asked, as far as the peer is trusted to say.
func (h *Handler) origin(t *task, v *visitor) string {
	if !h.trusted(t.request.Peer) {
		return ""
	}
	return v.origin()
}

// signedOut reports a denial that signing in would cure: there is no session, or it has expired. A denial of a session that
// belongs to somebody else names that session.
func signedOut(d *authz.Decision) bool {
	if d.Effect != authz.Deny || d.Credential == authz.APIKey {
		return false
	}
	return d.Code == "authz.invalid_session" || d.Code == "authz.client_session_mismatch" && d.Session == nil
}

// writeLogin sends a refused browser to the login page, or tells nginx, which redirects nobody by itself, where that is.
func writeLogin(ctx *fasthttp.RequestCtx, dialect authz.Dialect, location string) {
	ctx.Response.Header.Set(fasthttp.HeaderLocation, location)
	if dialect == authz.AuthRequest {
		return
	}
	ctx.Response.ResetBody()
	ctx.Response.Header.Del(fasthttp.HeaderContentType)
	ctx.SetStatusCode(fasthttp.StatusFound)
}

var (
	nameAccept         = header.NewName("accept")
	nameAcceptLanguage = header.NewName("accept-language")
	nameAuthPage       = header.NewName("x-auth-page")
	valueHTML          = header.NewName("text/html")
	nameHost           = header.NewName("host")
	nameForwardedHost  = header.NewName("x-forwarded-host")
	nameForwardedProto = header.NewName("x-forwarded-proto")
)

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
