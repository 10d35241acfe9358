package identity

import (
	"context"
	"net/url"
	"strings"

	"barong/api/rest"
	"barong/internal/fault"
)

// ownSite refuses what a page of a stranger's site has a browser do, such as signing its visitor in to somebody else's
// account, before h runs. It is a second lock behind the cookie's SameSite attribute: there is no session yet whose
// CSRF token could be asked for. Programs, which send neither Sec-Fetch-Site nor Origin, pass.
func (m *Module) ownSite(h rest.HandlerFunc) rest.HandlerFunc {
	return func(ctx context.Context, c *rest.Call) error {
		if !m.sameSite(c) {
			return fault.New(crossSite)
		}
		return h(ctx, c)
	}
}

// sameSite reports whether the call comes from our own pages, from those that the CORS settings allow, or from no page.
func (m *Module) sameSite(c *rest.Call) bool {
	origin := c.Origin()
	if origin != "" && m.CORS.Lists(origin) {
		return true
	}
	switch c.Header("Sec-Fetch-Site") { // Fetch Metadata: browsers set it, pages cannot
	case "same-origin", "same-site", "none":
		return true
	case "":
		// An old browser, one on plain http, or no browser.
		return origin == "" || m.ownOrigin(c, origin) || m.anyScript() && !strings.Contains(c.Header("Accept"), "text/html")
	default: // cross-site
		return m.anyScript() && c.Header("Sec-Fetch-Mode") == "cors"
	}
}

// anyScript reports whether scripts of every origin may call. They may where CORS allows every origin, since the browser
// stores no cookie for them. A form or a link, which asks for text/html, has the cookie stored and never may. Neither may a
// script where the cookie's SameSite attribute is none.
func (m *Module) anyScript() bool { return m.CORS.AllowsAny() && !m.Cookies.CrossSite() }

// ownOrigin reports whether the origin's host is the one that the browser asked, or that of the front end. Gateways may
// have put another Host in front and the browser's into X-Forwarded-Host; a page cannot set either of them.
func (m *Module) ownOrigin(c *rest.Call, origin string) bool {
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" {
		return false // "null": a sandbox or a redirect from elsewhere
	}
	if strings.EqualFold(u.Host, c.Host()) || strings.EqualFold(u.Host, c.Header("X-Forwarded-Host")) {
		return true
	}
	domain := m.Domain
	if _, rest, ok := strings.Cut(domain, "://"); ok {
		domain = rest
	}
	domain, _, _ = strings.Cut(domain, "/")
	return domain != "" && strings.EqualFold(u.Host, domain)
}
