package systemtest

import (
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"barong/internal/test/browsertest"
	"barong/internal/test/testkit"
)

// What docs/portal.md shows does what it says: a rules file with the pages in it, a brand, another language, and the portal on a
// host of its own, from which people come back to where they were. Everybody else sees the pages as they are.
func TestPortalByItsPage(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile(filepath.Join(testkit.Root(t), "docs", "portal.md"))
	if err != nil {
		t.Fatal(err)
	}
	// shown is the part of the page that begins with those words, as it is indented there.
	shown := func(begin string) string {
		t.Helper()
		m := regexp.MustCompile(`\n( {4,})` + regexp.QuoteMeta(begin)).FindStringSubmatchIndex(string(b))
		if m == nil {
			t.Fatalf("docs/portal.md shows no %s", begin)
		}
		part, _, _ := strings.Cut(string(b)[m[2]:], "\n\n")
		return regexp.MustCompile(`(?m)^`+string(b)[m[2]:m[3]]).ReplaceAllString(part, "")
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"acme.css":          shown(":root {"),
		"acme.svg":          `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 80 40"><rect width="80" height="40" fill="#7a1fa2"/></svg>`,
		"languages/de.json": shown("{\n      \"language\""),
		"rules.yml":         shown("rules:"),
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"BARONG_AUTHZ_RULES_FILE=" + filepath.Join(dir, "rules.yml")}
	here := strings.NewReplacer("/etc/barong", dir, "https://login.example.com", "http://login.example.test:{port}", "example.com", "example.test")
	for _, begin := range []string{"BARONG_APP_NAME", "BARONG_PORTAL_LANGUAGES", "BARONG_LOGIN_URL"} {
		env = append(env, strings.Fields(here.Replace(shown(begin)))...)
	}
	s := newSite(t, newVault(), "envoy", env...)
	login, app := "http://login.example.test:"+s.port, "http://app.example.test:"+s.port
	s.origin = login
	p := s.holder(t)
	visit := func(language string) *guest {
		c := s.visit(t, browsertest.Options{Language: language})
		c.Expect("Cross-Origin-Opener-Policy header has been ignored") // where there is no TLS
		c.Allow(login)
		return c
	}

	german := visit("de")
	german.Go(app + account)
	german.AwaitPath("/accounts/signin")
	if want := login + "/accounts/signin?rd=" + url.QueryEscape(app+account); german.URL() != want {
		t.Errorf("the app sends to %s, want %s", german.URL(), want)
	}
	german.settled()
	german.AwaitText("E-Mail-Adresse")
	german.AwaitText(s.say("signin.forgot")) // what the catalogue lacks
	german.looks(place{path: "/accounts/signin with a brand"})
	got := browsertest.Eval[[]any](german.Page, `[document.title, document.documentElement.lang, getComputedStyle(document.querySelector("button[type=submit]")).backgroundColor,
		document.querySelector(".brand img").naturalWidth > 0, document.querySelector(".brand img").alt]`)
	want := []any{"Anmelden · Acme", "de", "rgb(122, 31, 162)", true, "Acme"}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("the page has %v, want %v", got, want)
			break
		}
	}
	german.Fill("email", p.email)
	german.Fill("password", "Wrong"+p.password)
	german.sends("password")
	german.AwaitFault("identity.session.invalid_params")
	german.AwaitText("Adresse oder Passwort stimmt nicht.")
	german.signsIn(p)
	german.served(p.email)
	if german.URL() != app+account {
		t.Errorf("came back to %s, want %s", german.URL(), app+account)
	}
	german.Go("http://shop.example.test:" + s.port + account) // one sign-in counts for all
	german.served(p.email)

	// Who is refused elsewhere gets on at the portal's host.
	german.Go(app + "/api/v2/nobody/allowed/this")
	german.AwaitFault("authz.invalid_permission")
	german.Click(`main a[href^="` + login + `/accounts/signout"]`)
	german.AwaitPath("/accounts/signout")

	english := visit("en")
	english.Go(login + "/accounts/signin?rd=" + url.QueryEscape("http://evil.test:"+s.port+"/"))
	english.AwaitText(s.say("field.email"))
	english.signsIn(p)
	english.AwaitPath("/accounts/")
	if !strings.HasPrefix(english.URL(), login+"/") {
		t.Errorf("was led to %s", english.URL())
	}
}
