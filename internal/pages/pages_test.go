package pages_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/fasthttputil"

	"barong/internal/pages"
	"barong/internal/redirect"
)

// fixed is a source of two pages and two files.
type fixed struct{}

func (fixed) Page(path string) ([]byte, bool) {
	return []byte("<!doctype html>" + path), path != "/accounts/nothing" && path != "/console/nothing"
}

func (fixed) Asset(path string) (*pages.Asset, bool) {
	switch path {
	case "portal-X.js":
		return &pages.Asset{Type: "text/javascript; charset=utf-8", Plain: []byte("plain"), Gzip: []byte("gzipped"), Brotli: []byte("brotli")}, true
	case "logo-X.png":
		return &pages.Asset{Type: "image/png", Plain: []byte("png")}, true
	}
	return nil, false
}

// serve runs a handler until the end of the test and returns a client of it, which follows no redirects.
func serve(t *testing.T, handler fasthttp.RequestHandler) *http.Client {
	t.Helper()
	l := fasthttputil.NewInmemoryListener()
	go func() { _ = fasthttp.Serve(l, handler) }() // it ends with the listener
	t.Cleanup(func() { _ = l.Close() })
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return l.Dial() }, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func send(t *testing.T, c *http.Client, method, target string, headers ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://portal.test"+target, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

func site(t *testing.T, console bool) *http.Client {
	s := pages.NewSite(pages.Options{
		Source: fixed{}, Console: console, Headers: plain, Redirects: redirect.Rules{Hosts: []string{"app.test"}},
		Host: func(rc *fasthttp.RequestCtx) string { return string(rc.Host()) },
	})
	return serve(t, func(rc *fasthttp.RequestCtx) {
		if !s.Handle(rc) {
			rc.SetStatusCode(http.StatusTeapot)
		}
	})
}

// plain are the headers without a captcha.
func plain() []pages.Header { return pages.Headers("none") }

// secured checks the headers under which every page goes out.
func secured(t *testing.T, what string, h http.Header) {
	t.Helper()
	for name, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; " +
			"form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
		"Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff", "Cross-Origin-Opener-Policy": "same-origin",
		"Permissions-Policy": "camera=(), display-capture=(), geolocation=(), hid=(), microphone=(), midi=(), payment=(), serial=(), usb=(), " +
			"publickey-credentials-create=(self), publickey-credentials-get=(self)",
	} {
		if got := h[name]; !slices.Equal(got, []string{want}) {
			t.Errorf("%s: %s is %q", what, name, got)
		}
	}
}

func TestSite(t *testing.T) {
	for _, test := range []struct {
		method, target string
		console        bool
		status         int
		location       string
		body           string
	}{
		{"GET", "/", true, 302, "/accounts/", ""},
		{"GET", "/?a=b", true, 302, "/accounts/", ""},
		{"GET", "/accounts", true, 302, "/accounts/", ""},
		{"GET", "/accounts/", true, 200, "", "<!doctype html>/accounts/"},
		{"GET", "/accounts/signin?rd=x", true, 200, "", "<!doctype html>/accounts/signin"},
		{"HEAD", "/accounts/signin", true, 200, "", ""},
		{"GET", "/accounts/nothing", true, 404, "", "<!doctype html>/accounts/nothing"},
		{"GET", "/console", true, 302, "/console/", ""},
		{"GET", "/console/users/ID1", true, 200, "", "<!doctype html>/console/users/ID1"},
		{"GET", "/console/nothing", true, 404, "", "<!doctype html>/console/nothing"},
		{"POST", "/accounts/signin", true, 405, "", ""},
		{"PUT", "/", true, 405, "", ""},
		{"DELETE", "/accounts/assets/portal-X.js", true, 405, "", ""},
		{"GET", "/accounts/continue", true, 302, "/accounts/", ""},
		{"GET", "/accounts/continue?rd=%2Fx%3Fy", true, 302, "/x?y", ""},
		{"GET", "/accounts/continue?rd=https%3A%2F%2Fapp.test%2Fx", true, 302, "https://app.test/x", ""},
		{"GET", "/accounts/continue?rd=http%3A%2F%2Fportal.test%3A8000%2Fx", true, 302, "http://portal.test:8000/x", ""},
		{"GET", "/accounts/continue?rd=https%3A%2F%2Fevil.test%2Fx", true, 302, "/accounts/", ""},
		{"GET", "/accounts/continue?rd=/%0d%0aSet-Cookie:x", true, 302, "/accounts/", ""},
		{"GET", "/accounts/continue?rd=/x&rd=/y", true, 302, "/accounts/", ""},
		{"GET", "/accounts/assets/nothing.js", true, 404, "", "Not found"},
		// Nobody else's.
		{"GET", "/accountsX", true, 418, "", ""},
		{"GET", "/Accounts/", true, 418, "", ""},
		{"GET", "/%61ccounts/", true, 418, "", ""},
		{"GET", "//accounts/", true, 418, "", ""},
		{"GET", "/api/v2/identity/ping", true, 418, "", ""},
		{"GET", "/console/", false, 418, "", ""},
		{"GET", "/accounts/", false, 200, "", "<!doctype html>/accounts/"},
	} {
		c := site(t, test.console)
		res, body := send(t, c, test.method, test.target)
		if res.StatusCode != test.status || res.Header.Get("Location") != test.location || body != test.body && test.status != 418 {
			t.Errorf("%s %s: got %d to %q: %q", test.method, test.target, res.StatusCode, res.Header.Get("Location"), body)
		}
		if test.status == 418 {
			continue
		}
		secured(t, test.target, res.Header)
		if res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: it may be kept: %v", test.target, res.Header)
		}
		if test.status == 200 && res.Header.Get("Content-Type") != "text/html; charset=utf-8" {
			t.Errorf("%s: is a %s", test.target, res.Header.Get("Content-Type"))
		}
	}
}

func TestAssets(t *testing.T) {
	c := site(t, true)
	for accept, want := range map[string][2]string{
		"":                     {"", "plain"},
		"gzip":                 {"gzip", "gzipped"},
		"gzip, deflate, br":    {"br", "brotli"},
		"gzip;q=1, br;q=0":     {"gzip", "gzipped"},
		"br;q=0.0, gzip;q=0":   {"", "plain"},
		"*":                    {"br", "brotli"},
		"*;q=0":                {"", "plain"},
		"br;q=0, *":            {"gzip", "gzipped"},
		"identity":             {"", "plain"},
		"BR":                   {"br", "brotli"},
		"br;q=x":               {"", "plain"},
		"gzipped, xbr, brotli": {"", "plain"},
	} {
		headers := []string{"Accept-Encoding", accept}
		if accept == "" {
			headers = nil
		}
		res, body := send(t, c, "GET", "/accounts/assets/portal-X.js", headers...)
		if res.Header.Get("Content-Encoding") != want[0] || body != want[1] || res.Header.Get("Vary") != "Accept-Encoding" ||
			res.Header.Get("Content-Type") != "text/javascript; charset=utf-8" || res.Header.Get("Cache-Control") != "public, max-age=31536000, immutable" {
			t.Errorf("%q: got %q, %v", accept, body, res.Header)
		}
		secured(t, accept, res.Header)
	}
	res, body := send(t, c, "GET", "/accounts/assets/logo-X.png", "Accept-Encoding", "br, gzip")
	if res.Header.Get("Content-Encoding") != "" || res.Header.Get("Vary") != "" || body != "png" {
		t.Errorf("a picture: %q, %v", body, res.Header)
	}
	if res, body := send(t, c, "HEAD", "/accounts/assets/portal-X.js"); res.StatusCode != 200 || body != "" || res.ContentLength != 5 {
		t.Errorf("HEAD: %d, %q, %d bytes", res.StatusCode, body, res.ContentLength)
	}
}

// A captcha widens the policy by what its provider tells that the page loads from there, and by nothing else.
func TestHeadersOfCaptchas(t *testing.T) {
	of := func(kind string) map[string]string {
		directives := map[string]string{}
		for directive := range strings.SplitSeq(pages.Headers(kind)[0].Value, "; ") {
			name, sources, _ := strings.Cut(directive, " ")
			directives[name] = sources
		}
		return directives
	}
	if !maps.Equal(of("none"), of("")) {
		t.Error("no captcha widens the policy")
	}
	for kind, wider := range map[string]map[string]string{
		// https://developers.google.com/recaptcha/docs/faq: no host of Google's as a whole, which would run what others put there.
		"recaptcha": {
			"script-src": "https://www.google.com/recaptcha/ https://www.gstatic.com/recaptcha/", "img-src": "https://www.gstatic.com/recaptcha/",
			"connect-src": "https://www.google.com/recaptcha/", "frame-src": "https://www.google.com/recaptcha/ https://recaptcha.google.com/recaptcha/",
		},
		// https://docs.hcaptcha.com/#content-security-policy-settings
		"hcaptcha": {
			"script-src": "https://hcaptcha.com https://*.hcaptcha.com", "style-src": "https://hcaptcha.com https://*.hcaptcha.com",
			"connect-src": "https://hcaptcha.com https://*.hcaptcha.com", "frame-src": "https://hcaptcha.com https://*.hcaptcha.com",
		},
		// https://developers.cloudflare.com/turnstile/reference/content-security-policy/
		"turnstile": {"script-src": "https://challenges.cloudflare.com", "frame-src": "https://challenges.cloudflare.com"},
		"geetest": {
			"script-src": "https://*.geetest.com", "style-src": "https://*.geetest.com", "img-src": "https://*.geetest.com", "connect-src": "https://*.geetest.com",
		},
	} {
		want := of("none")
		for name, sources := range wider {
			want[name] = strings.TrimSpace(want[name] + " " + sources)
		}
		if got := of(kind); !maps.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", kind, got, want)
		}
	}
}

// The page about the API has nothing inline, and nothing from elsewhere.
func TestDocs(t *testing.T) {
	c := serve(t, pages.Docs("/api/v2/openapi.json"))
	for _, target := range []string{"/docs", "/docs/"} {
		res, body := send(t, c, "GET", target)
		secured(t, target, res.Header)
		if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/html; charset=utf-8" || strings.Contains(body, "http") ||
			strings.Contains(body, "style=") || strings.Count(body, "<script src=") != strings.Count(body, "<script") {
			t.Errorf("%s: got %d %v %s", target, res.StatusCode, res.Header, body)
		}
		rest := body
		for {
			_, after, found := strings.Cut(rest, `="/docs/`)
			if !found {
				break
			}
			name, tail, _ := strings.Cut(after, `"`)
			rest = tail
			res, plain := send(t, c, "GET", "/docs/"+name)
			secured(t, name, res.Header)
			if res.StatusCode != 200 || len(plain) < 100 || res.Header.Get("Content-Encoding") != "" || res.Header.Get("Content-Type") == "" {
				t.Errorf("%s: got %d, %d bytes, %v", name, res.StatusCode, len(plain), res.Header)
			}
			res, packed := send(t, c, "GET", "/docs/"+name, "Accept-Encoding", "gzip")
			if res.Header.Get("Content-Encoding") != "gzip" {
				continue
			}
			r, err := gzip.NewReader(bytes.NewReader([]byte(packed)))
			if err != nil {
				t.Fatal(err)
			}
			if unpacked, err := io.ReadAll(r); err != nil || string(unpacked) != plain {
				t.Errorf("%s is another when it is packed: %v", name, err)
			}
		}
	}
	if _, body := send(t, c, "GET", "/docs/start.js"); !strings.Contains(body, `"/api/v2/openapi.json"`) {
		t.Errorf("it starts with %s", body)
	}
	for _, target := range []string{"/docs/nothing", "/docs/../docs/start.js", "/docs/embed.go"} {
		if res, _ := send(t, c, "GET", target); res.StatusCode != 404 {
			t.Errorf("%s: got %d", target, res.StatusCode)
		}
	}
}

// Every code that a page may be about has words in both languages, and each language the same ones.
func TestRefusalWords(t *testing.T) {
	r := pages.NewRefusals("Barong", nil, plain)
	for _, code := range []string{
		"authz.invalid_permission", "authz.user_not_active", "authz.client_session_mismatch", "authz.permission_denied",
		"authz.restrict.maintenance", "authz.restrict.blacklist", "authz.access_restricted", "authz.ambiguous_path", "authz.unavailable",
		"authz.something_new", "strange",
	} {
		en, ru := r.Page(pages.Refusal{Code: code, Status: 401, Back: "/x"}), r.Page(pages.Refusal{Code: code, Status: 401, Back: "/x", Languages: "ru"})
		if strings.Count(en, "<a ") != strings.Count(ru, "<a ") || strings.Count(en, "href=") == 0 {
			t.Errorf("%s: the languages lead elsewhere:\n%s\n%s", code, en, ru)
		}
		if !strings.ContainsAny(ru, "абвгдеж") || strings.ContainsAny(en, "абвгдеж") {
			t.Errorf("%s: wrong words:\n%s\n%s", code, en, ru)
		}
	}
}
