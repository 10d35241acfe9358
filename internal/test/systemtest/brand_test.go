package systemtest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"barong/internal/test/browsertest"
	"barong/internal/test/testkit"
)

// What docs/portal.md shows to brand the pages and to translate them does so, and leaves them as they are for everybody else.
func TestBrand(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile(filepath.Join(testkit.Root(t), "docs", "portal.md"))
	if err != nil {
		t.Fatal(err)
	}
	// shown is the part of the page that begins with those words, as it is indented there.
	shown := func(begin string) string {
		t.Helper()
		at := strings.Index(string(b), "    "+begin)
		if at < 0 {
			t.Fatalf("docs/portal.md shows no %s", begin)
		}
		part, _, _ := strings.Cut(string(b)[at:], "\n\n")
		return regexp.MustCompile(`(?m)^    `).ReplaceAllString(part, "")
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"acme.css":          shown(":root {"),
		"acme.svg":          `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 80 40"><rect width="80" height="40" fill="#7a1fa2"/></svg>`,
		"languages/de.json": shown("{\n      \"language\""),
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := newSite(t, newVault(), "envoy", "BARONG_APP_NAME=Acme", "BARONG_PORTAL_LOGO="+filepath.Join(dir, "acme.svg"),
		"BARONG_PORTAL_CSS="+filepath.Join(dir, "acme.css"), "BARONG_PORTAL_LANGUAGES="+filepath.Join(dir, "languages"))
	german := s.visit(t, browsertest.Options{Language: "de"})
	german.opens("/accounts/signin")
	german.settled()
	german.AwaitText("E-Mail-Adresse")
	german.AwaitText(words(t, "en")("signin.forgot")) // what the catalogue lacks
	german.looks(place{"/accounts/signin with a brand", ""})
	got := browsertest.Eval[[]any](german.Page, `[document.title, document.documentElement.lang, getComputedStyle(document.querySelector("button[type=submit]")).backgroundColor,
		document.querySelector(".brand img").naturalWidth > 0, document.querySelector(".brand img").alt]`)
	want := []any{"Anmelden · Acme", "de", "rgb(122, 31, 162)", true, "Acme"}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("the page has %v, want %v", got, want)
			break
		}
	}
	german.Fill("email", "nobody@example.com")
	german.Fill("password", "Wd6-hJk2+qTz")
	german.sends("password")
	german.AwaitFault("identity.session.invalid_params")
	german.AwaitText("Adresse oder Passwort stimmt nicht.")
	english := s.visit(t, browsertest.Options{})
	english.opens("/accounts/signin")
	english.AwaitText(words(t, "en")("field.email"))
}
