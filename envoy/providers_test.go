package envoy_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"barong/internal/test/openidtest"
)

const providers = "/api/v2/barong/identity/providers"

// providersFile is a file that names a provider, with the id "one".
func providersFile(t *testing.T, p *openidtest.Provider) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "providers.yml")
	text := fmt.Sprintf("- {id: one, name: One, issuer: %q, client_id: %q, client_secret: %q, sign_up: true}\n", p.Issuer, p.ClientID, p.ClientSecret)
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// throughProvider signs somebody up through a gateway, at another provider, as a browser does.
func (w *world) throughProvider(t *testing.T, addr string) {
	origin := "http://" + addr
	w.provider.Callback(origin + providers + "/one/callback")
	w.provider.Become(openidtest.Person{Subject: "at " + addr, Email: "p" + addr[strings.IndexByte(addr, ':')+1:] + "@people.test", Verified: true})
	c := newClient(t, addr, here)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c.http.Jar = jar
	var way []string
	c.http.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
		if !slices.Contains([]string{addr, strings.TrimPrefix(w.provider.Issuer, "http://")}, r.URL.Host) {
			return fmt.Errorf("it leads to %s", r.URL)
		}
		way = append(way, r.URL.Path)
		return nil
	}
	r := c.call(t, "GET", providers+"/one/start?rd="+url.QueryEscape(origin+account+"?a=b"), nil, "Accept: text/html")
	claims := w.arrived(t, "signed in by a provider", r)
	if claims["email"] != w.provider.Person().Email || fmt.Sprint(claims["amr"]) != "[fed]" || claims["state"] != "active" {
		t.Errorf("the service is told %v", claims)
	}
	if len(way) < 4 || way[len(way)-2] != providers+"/one/callback" || r.URL.String() != origin+account+"?a=b" {
		t.Errorf("the way was %q", way)
	}
	// The account has nothing but the provider: it is linked anew by a script of a page, and cannot be unlinked.
	own := "/api/v2/barong/resource/providers"
	r = c.call(t, "GET", "/api/v2/barong/identity/sessions/current", nil)
	var current struct {
		CSRF string `json:"csrf_token"`
	}
	if err := json.Unmarshal([]byte(r.Body), &current); err != nil || current.CSRF == "" {
		t.Fatalf("the session: got %+v", r)
	}
	csrf := "X-CSRF-Token: " + current.CSRF
	if r := c.call(t, "GET", own, nil); r.Status != 200 || !strings.Contains(r.Body, `"id":"one"`) {
		t.Errorf("the linked ones: got %+v", r)
	}
	refused(t, "linking without a CSRF token", c.call(t, "POST", own+"/one/start", nil), 401, "authz.missing_csrf_token")
	r = c.call(t, "POST", own+"/one/start", map[string]string{"rd": "/"}, csrf)
	var begun struct{ Location string }
	if err := json.Unmarshal([]byte(r.Body), &begun); err != nil || r.Status != 201 || !strings.HasPrefix(begun.Location, w.provider.Issuer) {
		t.Errorf("linking: got %+v", r)
	}
	refused(t, "unlinking the last way in", c.call(t, "DELETE", own+"/one", nil, csrf), 422, "resource.provider.last_way_in")
	// The callback again, with all that the browser has: nobody's.
	if r := c.call(t, "GET", providers+"/one/callback?state=x&code=y", nil); !strings.Contains(r.URL.RawQuery, "error=identity.provider.invalid_flow") {
		t.Errorf("a made-up answer leads to %s", r.URL)
	}
	w.service.take()
}
