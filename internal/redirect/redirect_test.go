package redirect_test

import (
	_ "embed"
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"barong/internal/redirect"
)

//go:embed cases.json
var table []byte

type group struct {
	Host   string
	Domain string
	Hosts  []string
	Follow []string // led to as they are written
	Home   []string // not followed
}

func cases(t testing.TB) []group {
	t.Helper()
	var groups []group
	if err := json.Unmarshal(table, &groups); err != nil {
		t.Fatal(err)
	}
	return groups
}

// What links may lead to, and what they may not, whatever a browser would make of it.
func TestTarget(t *testing.T) {
	n := 0
	for _, g := range cases(t) {
		rules := redirect.Rules{Domain: g.Domain, Hosts: g.Hosts}
		for _, rd := range g.Follow {
			if got, ok := rules.Target(rd, g.Host); got != rd || !ok {
				t.Errorf("at %s %q: got %q, %v", g.Host, rd, got, ok)
			}
			n++
		}
		for _, rd := range g.Home {
			if got, ok := rules.Target(rd, g.Host); got != redirect.Home || ok {
				t.Errorf("at %s %q: got %q, %v", g.Host, rd, got, ok)
			}
			n++
		}
	}
	if n < 40 {
		t.Errorf("only %d cases", n)
	}
	if got, ok := (redirect.Rules{}).Target("/"+strings.Repeat("a", 8<<10), "a.example"); got != redirect.Home || ok {
		t.Errorf("an endless one: got %q", got)
	}
}

// FuzzTarget holds what is followed to what Go's own reader of addresses makes of it.
func FuzzTarget(f *testing.F) {
	for _, g := range cases(f) {
		for _, rd := range append(g.Follow, g.Home...) {
			f.Add(rd)
		}
	}
	rules := redirect.Rules{Domain: "example.com", Hosts: []string{"other.test:8443"}}
	f.Fuzz(func(t *testing.T, rd string) {
		got, ok := rules.Target(rd, "portal.test")
		if !ok {
			return
		}
		base := &url.URL{Scheme: "https", Host: "portal.test", Path: "/accounts/continue"}
		u, err := base.Parse(got)
		if err != nil {
			return // no browser gets anywhere with what net/url refuses but for escapes in paths, which lead nowhere else
		}
		host := strings.ToLower(u.Hostname())
		if u.Scheme != "https" && u.Scheme != "http" || u.User != nil || host != "portal.test" && host != "example.com" &&
			!strings.HasSuffix(host, ".example.com") && (host != "other.test" || u.Port() != "8443") {
			t.Errorf("%q leads to %s", rd, u)
		}
	})
}
