package main

import (
	"fmt"
	"sync/atomic"

	"github.com/valyala/fasthttp"

	"barong/internal/config"
	"barong/internal/listener"
	"barong/internal/pages"
	"barong/internal/redirect"
	"barong/web"
)

// openPages makes the pages for people: nothing, where they are off.
func (v *server) openPages() error {
	c := v.config
	if !c.HasPortal() {
		if c.InPlaceOfPages() {
			v.log.Warn("there are no pages for people: the API is published where they would be", "BARONG_API_PREFIX", c.APIPrefix)
		}
		return nil
	}
	source, err := web.New(web.Options{
		Name: c.AppName, API: "/" + c.APIPrefix, Console: c.HasConsole(), Passkeys: v.passkeys != nil,
		Phones: c.PhoneVerification != "none", Logo: c.PortalLogo, CSS: c.PortalCSS, Languages: c.PortalLanguages,
	})
	if err != nil {
		return fmt.Errorf("the pages of the portal (BARONG_PORTAL_LOGO, BARONG_PORTAL_CSS, BARONG_PORTAL_LANGUAGES): %w", err)
	}
	// The captcha may change, and with it what the pages may load.
	var current atomic.Pointer[[]pages.Header]
	first := pages.Headers(c.Captcha)
	current.Store(&first)
	headers := func() []pages.Header { return *current.Load() }
	v.reloads(func(c *config.Config) (func(), error) {
		next := pages.Headers(c.Captcha)
		return func() { current.Store(&next) }, nil
	})
	v.refusals = pages.NewRefusals(c.AppName, source.Styles(), headers)
	v.site = pages.NewSite(pages.Options{
		Source: webPages{source}, Console: c.HasConsole(), Headers: headers,
		Redirects: v.redirects(),
		Host: func(rc *fasthttp.RequestCtx) string {
			return v.proxies.Host(listener.Peer(rc), rc.Request.Header.Peek(fasthttp.HeaderXForwardedHost), rc.Host())
		},
	})
	return nil
}

// redirects say where people may be led after signing in.
func (v *server) redirects() redirect.Rules {
	return redirect.Rules{Domain: v.config.CookieDomain, Hosts: v.config.PortalRedirects}
}

// webPages are the pages of package web, as package pages serves them.
type webPages struct{ *web.Pages }

func (w webPages) Asset(path string) (*pages.Asset, bool) {
	a, ok := w.Pages.Asset(path)
	return (*pages.Asset)(a), ok
}

// loginOpen reports whether the portal's page for signing in passes the check. A rules file says all that passes, and may
// have been written before there were pages.
func (v *server) loginOpen() bool {
	rules, path := v.rules.Snapshot(), config.SignIn[1:]
	_, blocked := rules.Blocked(path)
	_, passed := rules.Passed(fasthttp.MethodGet, path)
	return passed && !blocked
}
