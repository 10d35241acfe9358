package systemtest

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
)

// A keeper is a browser that keeps cookies as browsers do, at a host that leads to the server.
type keeper struct {
	t    *testing.T
	http *http.Client
	host string
	csrf string
}

func (s *server) visitor(host string) *keeper {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", s.api)
	}
	transport := &http.Transport{DialContext: dial}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &keeper{t: s.t, http: &http.Client{Jar: jar, Transport: transport, Timeout: patience}, host: host}
}

func (v *keeper) send(method, path, form string) reply {
	v.t.Helper()
	req, err := http.NewRequestWithContext(v.t.Context(), method, "http://"+v.host+path, strings.NewReader(form))
	if err != nil {
		v.t.Fatal(err)
	}
	req.Header.Set("User-Agent", browser)
	if form != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if v.csrf != "" {
		req.Header.Set("X-CSRF-Token", v.csrf)
	}
	res, err := v.http.Do(req)
	if err != nil {
		v.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return reply{status: res.StatusCode, header: res.Header, body: string(body)}
}

func (v *keeper) signIn(email, password string) {
	v.t.Helper()
	form := url.Values{"email": {email}, "password": {password}}
	r := v.send("POST", "/api/v2/barong/identity/sessions", form.Encode()).wants(v.t, "sign-in", 201)
	var user struct {
		CSRF string `json:"csrf_token"`
	}
	if err := json.Unmarshal([]byte(r.body), &user); err != nil {
		v.t.Fatal(err)
	}
	v.csrf = user.CSRF
}

func (v *keeper) signOut() {
	v.t.Helper()
	v.send("DELETE", "/api/v2/barong/identity/sessions", "").wants(v.t, "sign-out", 204)
	v.csrf = ""
}

// uid is who the visitor is for the API.
func (v *keeper) uid() string {
	v.t.Helper()
	var me struct{ UID string }
	v.send("GET", "/api/v2/barong/resource/users/me", "").wants(v.t, "who am I", 200).into(v.t, &me)
	return me.UID
}

func (v *keeper) cookies(path string) int {
	return len(v.http.Jar.Cookies(&url.URL{Scheme: "http", Host: v.host, Path: path}))
}

// A browser that was signed in before BARONG_COOKIE_DOMAIN was set stays so, and whatever cookies it has gathered since,
// signing in once more or signing out leaves it with what it asked for.
func TestAnotherCookieDomain(t *testing.T) {
	t.Parallel()
	s := startServer(t, newVault())
	_, email, password := s.member()
	_, otherEmail, otherPassword := s.member()

	v, leaving, planted := s.visitor("app.example.test"), s.visitor("app.example.test"), s.visitor("app.example.test")
	for _, one := range []*keeper{v, leaving, planted} {
		one.signIn(email, password)
	}
	self := v.uid()
	s.stop()
	s.env = append(s.env, "BARONG_COOKIE_DOMAIN=example.test")
	s.start()

	if got := v.uid(); got != self {
		t.Errorf("after the restart the browser is %s, want %s", got, self)
	}
	v.send("GET", "/api/v2/auth"+account, "").wants(t, "check with the cookie from before", 200)

	// Beside the cookie of the host there is one of the domain now.
	v.signIn(email, password)
	if got := v.uid(); got != self {
		t.Errorf("signed in again the browser is %s, want %s", got, self)
	}
	v.send("GET", "/api/v2/auth"+account, "").wants(t, "check with what is there after signing in again", 200)
	v.signOut()
	v.send("GET", "/api/v2/auth"+account, "").wants(t, "check after signing out", 401)
	v.signIn(email, password)
	v.signOut()
	if n := v.cookies("/"); n != 0 {
		t.Errorf("signed out the browser still has %d cookies", n)
	}

	leaving.signOut()
	leaving.send("GET", "/api/v2/auth"+account, "").wants(t, "check after signing out with the cookie from before", 401)
	leaving.signIn(email, password) // beside the dead cookie of the host, of which the server cannot know
	if got := leaving.uid(); got != self {
		t.Errorf("signed in beside a dead cookie the browser is %s, want %s", got, self)
	}

	// A cookie of somebody else's beside one's own makes one nobody, and never that other; signing in mends it.
	stranger := s.visitor("other.example.test")
	stranger.signIn(otherEmail, otherPassword)
	planted.http.Jar.SetCookies(&url.URL{Scheme: "http", Host: planted.host, Path: "/"}, plantedFrom(stranger))
	planted.send("GET", "/api/v2/auth"+account, "").wants(t, "check with the cookies of two people", 401, "authz.invalid_session")
	planted.signIn(email, password)
	if got := planted.uid(); got != self {
		t.Errorf("signed in beside a planted cookie the browser is %s, want %s", got, self)
	}
}

// plantedFrom are the cookies of a browser as a sibling host sets them for all hosts of the domain.
func plantedFrom(other *keeper) []*http.Cookie {
	cookies := other.http.Jar.Cookies(&url.URL{Scheme: "http", Host: other.host, Path: "/"})
	for _, c := range cookies {
		c.Domain, c.Path = "example.test", "/"
	}
	return cookies
}
