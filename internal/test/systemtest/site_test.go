package systemtest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"barong/internal/test/browsertest"
	"barong/internal/test/openidtest"
	"barong/internal/test/testkit"
)

// A site is the program behind a gateway, before a service, as browsers meet it. It listens on localhost: there browsers
// offer passkeys without TLS.
type site struct {
	*server
	mails   *mailServer
	origin  string // of the gateway: http://localhost:port
	port    string
	checks  string
	service string

	provider *openidtest.Provider // of OpenID Connect; nil without one

	language string                                    // of the browsers
	say      func(key string, values ...string) string // the words of the pages in it
	subjects map[string]string                         // of mails in it, by those in English
}

// newSite starts a site behind envoy or traefik. The variables are added to those of the program; {port} in them is the
// gateway's.
func newSite(t *testing.T, v *vault, gateway string, env ...string) *site {
	t.Helper()
	s := &site{mails: newMailServer(t), checks: addr(t), service: newService(t)}
	s.speaks(t, "en")
	host, port, err := net.SplitHostPort(s.mails.addr)
	if err != nil {
		t.Fatal(err)
	}
	public := addr(t)
	s.origin, s.port = local(t, public)
	all := []string{
		"BARONG_CHECK_ADDR=" + s.checks, "BARONG_SMTP_HOST=" + host, "BARONG_SMTP_PORT=" + port, "BARONG_DOMAIN=" + s.origin,
	}
	for _, e := range env {
		all = append(all, strings.ReplaceAll(e, "{port}", s.port))
	}
	s.server = newServer(t, v, all...)
	s.must("migrate", "up")
	s.must("seed")
	s.start()
	startGateway(t, gateway, public, s.api, s.checks, s.service)
	return s
}

// another starts one more gateway before the same program, and returns its origin.
func (s *site) another(t *testing.T, gateway string) (origin string) {
	t.Helper()
	public := addr(t)
	startGateway(t, gateway, public, s.api, s.checks, s.service)
	origin, _ = local(t, public)
	return origin
}

// speaks makes the people of a site speak a language.
func (s *site) speaks(t *testing.T, language string) {
	t.Helper()
	s.language, s.say, s.subjects = language, words(t, language), map[string]string{}
	subjects := func(language string) map[string]string {
		b, err := os.ReadFile(filepath.Join(testkit.Root(t), "internal", "delivery", "mail", "templates", language+".tmpl"))
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]string{}
		for _, m := range regexp.MustCompile(`{{define "([^"]+) subject"}}([^{]+){{end}}`).FindAllStringSubmatch(string(b), -1) {
			out[m[1]] = m[2]
		}
		return out
	}
	own := subjects(language)
	for kind, subject := range subjects("en") {
		s.subjects[subject] = own[kind]
	}
}

// mail waits for a mail to somebody who speaks the language of the site, by its subject in English.
func (s *site) mail(t *testing.T, to, subject string) letter {
	t.Helper()
	return s.mails.await(t, to, s.subjects[subject])
}

// elsewhere is the site for somebody who comes from another address.
func (s *site) elsewhere(t *testing.T) *site {
	t.Helper()
	away := *s
	away.origin, away.port = local(t, testkit.NewRelayFrom(t, "127.0.0.2", net.JoinHostPort("127.0.0.1", s.port)).Addr)
	return &away
}

// local is the origin of an address on this machine, as browsers call it.
func local(t *testing.T, addr string) (origin, port string) {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return "http://localhost:" + port, port
}

// newService starts the service behind a gateway, and returns its address. Its pages say whom the token names.
func newService(t *testing.T) (addr string) {
	t.Helper()
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var claims struct{ Email string }
		if parts := strings.Split(r.Header.Get("Authorization"), "."); len(parts) == 3 {
			if b, err := base64.RawURLEncoding.DecodeString(parts[1]); err == nil {
				_ = json.Unmarshal(b, &claims) // a token that cannot be read names nobody
			}
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(w, `<!doctype html><html lang="en"><title>Orders</title><main><h1>Orders</h1><p>You are <b id="email">%s</b>.</p></main></html>`,
			html.EscapeString(claims.Email))
	}))
	t.Cleanup(service.Close)
	return service.Listener.Addr().String()
}

// A holder has an account.
type holder struct {
	email, password string
	factor          *authenticator // nil without a second factor
}

var browsing atomic.Int64

// holder makes an account whose address is confirmed, by calls of the API.
func (s *site) holder(t *testing.T) *holder {
	t.Helper()
	return s.holderAt(t, "person%d@example.com")
}

// holderAt is holder with an address of one's own, which has the verb %d in it.
func (s *site) holderAt(t *testing.T, address string) *holder {
	t.Helper()
	n := browsing.Add(1)
	p := &holder{email: fmt.Sprintf(address, n), password: s.vault.keep("password", fmt.Sprintf("Wd6-hJk2+%dqTz", n))}
	s.client().call("POST", "/identity/users", params{
		"email": p.email, "password": p.password, "lang": s.language, "data": browsertest.JSON(params{"language": s.language}),
	}).wants(t, "sign-up", 201)
	token := s.mail(t, p.email, "Registration Confirmation").token(t, s.vault)
	s.client().call("POST", "/identity/users/email/confirm_code", params{"token": token}).wants(t, "confirmation", 201)
	return p
}

// A guest is somebody at a browser of their own, who can also call the API as a script of a page does.
type guest struct {
	*browsertest.Page
	t    *testing.T
	s    *site
	csrf string
}

// visit opens a browser.
func (s *site) visit(t *testing.T, o browsertest.Options) *guest {
	t.Helper()
	if o.Language == "" {
		o.Language = s.language
	}
	return &guest{Page: browsertest.Open(t, o), t: t, s: s}
}

// knows signs a guest in by a call, and opens a page.
func (s *site) knows(t *testing.T, o browsertest.Options, p *holder, path string) *guest {
	t.Helper()
	c := s.visit(t, o)
	c.opens(bare)
	proof := params{"email": p.email, "password": p.password}
	if p.factor != nil {
		proof["otp_code"] = p.factor.code(t)
	}
	c.call("POST", "/identity/sessions", proof).wants(t, "sign-in", 201)
	c.opens(path)
	return c
}

// at makes a part of the test the one that fails for what the guest meets, until its end.
func (c *guest) at(t *testing.T) {
	before := c.t
	c.t = t
	t.Cleanup(func() { c.t = before })
	c.For(t)
}

// opens goes to a path of the site.
func (c *guest) opens(path string) {
	c.t.Helper()
	c.Go(c.s.origin + path)
}

// call calls the API by a script of the page that the browser is at.
func (c *guest) call(method, path string, body any) reply {
	c.t.Helper()
	return c.answer(browsertest.Eval[answer](c.Page, fmt.Sprintf("(%s)(%s)", send, browsertest.JSON([]any{method, path, body, c.csrf}))))
}

// An answer is a reply as a script tells of it.
type answer struct {
	Status int
	Body   string
}

// answer keeps the CSRF token that an answer may hold.
func (c *guest) answer(a answer) reply {
	r := reply{status: a.Status, body: a.Body}
	var user struct {
		CSRF string `json:"csrf_token"`
	}
	if json.Unmarshal([]byte(a.Body), &user) == nil && user.CSRF != "" {
		c.csrf = c.s.vault.keep("CSRF token", user.CSRF)
	}
	return r
}

// send is a script that calls the API.
const send = `async ([method, path, body, csrf]) => {
	const headers = {"X-CSRF-Token": csrf};
	if (body !== null) headers["Content-Type"] = "application/json";
	const r = await fetch("/api/v2/barong" + path, {method, headers, body: body === null ? undefined : JSON.stringify(body)});
	return {status: r.status, body: await r.text()};
}`
