package systemtest

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"barong/internal/test/browsertest"
)

// wanted are pages that somebody may be said to have wanted, and whether they are led there. {port} is the gateway's.
var wanted = []struct {
	rd     string
	follow bool
}{
	// The host itself, and what stands on it.
	{"/", true},
	{"/orders?page=2&sort=%2Bdate", true},
	{"/orders#bottom", true},
	{"/accounts/security", true},
	{"/a//b", true},
	{"/orders?next=https://evil.test/", true},
	{"http://portal.example.test:{port}/orders", true},
	{"HTTP://Portal.Example.TEST:{port}/orders", true},
	// Hosts below the domain of the cookie, and one that is named.
	{"http://app.example.test:{port}/orders", true},
	{"https://app.example.test/orders", true},
	{"https://a.b.example.test/", true},
	{"https://example.test/", true},
	{"https://partner.test/welcome?x=1#y", true},
	// Others, and those that look like them.
	{"https://evil.test/", false},
	{"http://evil.test:{port}/", false},
	{"https://example.test.evil.test/", false},
	{"https://evilexample.test/", false},
	{"https://sub.partner.test/", false},
	{"https://evil.test/?https://portal.example.test/", false},
	{"https://evil.test#portal.example.test", false},
	{"https://portal.example.test@evil.test/", false},
	{"https://evil.test\\@portal.example.test/", false},
	{"https://portal.example.test:pass@evil.test/", false},
	{"https://portal.example.test%2eevil.test/", false},
	{"https://portal.example.test%00.evil.test/", false},
	{"//evil.test/", false},
	{"///evil.test/", false},
	{"/\\evil.test/", false},
	{"\\\\evil.test/", false},
	{"/\t/evil.test/", false},
	{"\t//evil.test/", false},
	{" https://evil.test/", false},
	{"https:evil.test", false},
	{"https:/evil.test", false},
	{"http:\\\\evil.test", false},
	{"javascript:window.hacked=1", false},
	{"java\nscript:window.hacked=1", false},
	{"data:text/html,<script>window.hacked=1</script>", false},
	{"ftp://portal.example.test/", false},
	{"/orders\r\nLocation: https://evil.test/", false},
	{"https://evil。test/", false},
	{"", false},
}

// Nobody is led away: whatever page a sign-in is said to be for, it ends there or at the account, through both gateways and
// as a browser reads the address.
func TestRedirects(t *testing.T) {
	t.Parallel()
	s := newSite(t, newVault(), "envoy", "BARONG_COOKIE_DOMAIN=example.test", "BARONG_PORTAL_REDIRECTS=partner.test")
	p := s.holder(t)
	second, err := url.Parse(s.another(t, "traefik"))
	if err != nil {
		t.Fatal(err)
	}
	for gateway, port := range map[string]string{"envoy": s.port, "traefik": second.Port()} {
		t.Run(gateway, func(t *testing.T) {
			host := "portal.example.test:" + port
			origin := "http://" + host
			const plain = "Cross-Origin-Opener-Policy header has been ignored" // where there is no TLS
			c := s.visit(t, browsertest.Options{})
			c.Expect(plain)
			c.Go(origin + "/accounts/signin")
			client := &http.Client{
				Timeout:       patience,
				Transport:     &http.Transport{DisableKeepAlives: true},
				CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			}
			for _, w := range wanted {
				rd := strings.ReplaceAll(w.rd, "{port}", port)
				req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+net.JoinHostPort("127.0.0.1", port)+"/accounts/continue?rd="+url.QueryEscape(rd), nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Host = host
				res, err := client.Do(req)
				if err != nil {
					t.Fatalf("%q: %v", rd, err)
				}
				res.Body.Close()
				location := res.Header.Values("Location")
				if res.StatusCode/100 != 3 || len(location) != 1 {
					t.Errorf("%q: got %d to %q", rd, res.StatusCode, location)
					continue
				}
				// A browser reads addresses in its own way.
				got := browsertest.Eval[string](c.Page, fmt.Sprintf(`new URL(%s, %s).href`, browsertest.JSON(location[0]), browsertest.JSON(origin+"/accounts/continue")))
				want := origin + "/accounts/"
				if w.follow {
					want = browsertest.Eval[string](c.Page, fmt.Sprintf(`new URL(%s, %s).href`, browsertest.JSON(rd), browsertest.JSON(origin)))
				}
				if got != want {
					t.Errorf("%q leads to %q, want %q", rd, got, want)
				}
			}

			// The same by signing in.
			for rd, want := range map[string]string{
				"http://app.example.test:" + port + account: "http://app.example.test:" + port + account,
				"http://evil.test:" + port + "/":            origin + "/accounts/",
				"//evil.test:" + port + "/":                 origin + "/accounts/",
				"javascript:window.hacked=1":                origin + "/accounts/",
			} {
				c := s.visit(t, browsertest.Options{})
				c.Expect(plain)
				c.Allow("http://app.example.test:" + port)
				c.Go(origin + "/accounts/signin?rd=" + url.QueryEscape(rd))
				c.signsIn(p)
				c.Await(fmt.Sprintf(`location.href === %s && document.readyState === "complete"`, browsertest.JSON(want)))
				c.untouched(rd)
			}
		})
	}
}
