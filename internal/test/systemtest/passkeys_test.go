package systemtest

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"barong/internal/test/browsertest"
)

// bare is an answer without a page, of which no script is: tests call the API from it by scripts of their own.
const bare = "/api/v2/barong/identity/ping"

// ceremony runs a ceremony of passkeys in the page: it asks for options at one path, changes them by a script, has the
// browser make or use a passkey, and brings the outcome to another path. method is create or get.
func (c *guest) ceremony(method, options, finish string, begin, end params, change string) string {
	return fmt.Sprintf(`(async () => {
		const call = %s, csrf = %s;
		const begun = await call(["POST", %s, %s, csrf]);
		if (begun.status !== 201) return begun;
		const {flow, publicKey} = JSON.parse(begun.body);
		(o => {%s})(publicKey);
		const parsed = PublicKeyCredential[%s](publicKey);
		const credential = await navigator.credentials[%s]({publicKey: parsed});
		const sent = {...%s, flow, credential: credential.toJSON()};
		sessionStorage.sent = JSON.stringify(sent);
		return call(["POST", %s, sent, csrf]);
	})()`, send, browsertest.JSON(c.csrf), browsertest.JSON(options), browsertest.JSON(begin), change,
		browsertest.JSON(map[string]string{"create": "parseCreationOptionsFromJSON", "get": "parseRequestOptionsFromJSON"}[method]),
		browsertest.JSON(method), browsertest.JSON(end), browsertest.JSON(finish))
}

func (c *guest) making(password, name, change string) string {
	return c.ceremony("create", "/resource/passkeys/options", "/resource/passkeys", params{"password": password}, params{"name": name}, change)
}

func (c *guest) using(change string) string {
	return c.ceremony("get", "/identity/sessions/passkey/options", "/identity/sessions/passkey", params{}, params{}, change)
}

// run runs a script that calls the API, and returns the answer.
func (c *guest) run(script string) reply {
	c.t.Helper()
	return c.answer(browsertest.Eval[answer](c.Page, script))
}

// A real browser and its authenticator make a passkey and sign in with it, through a real gateway. What another page, another
// domain, an authenticator that has not verified its user, a copy of it or a forged signature sends is refused.
func TestPasskeysInABrowser(t *testing.T) {
	t.Parallel()
	// A page below app.localhost may ask too, so that a passkey of that domain gets as far as being judged.
	s := newSite(t, newVault(), "envoy", "BARONG_WEBAUTHN_ORIGINS=http://localhost:{port},http://app.localhost:{port}")
	below := "http://app.localhost:" + s.port
	// A second gateway is another origin of the same domain, which nobody has named.
	other := s.another(t, "traefik")

	owner := s.holder(t)
	email, password := owner.email, owner.password
	c := s.visit(t, browsertest.Options{})
	device := c.NewAuthenticator()
	c.opens(bare)
	signIn := func() {
		c.t.Helper()
		c.call("POST", "/identity/sessions", params{"email": email, "password": password}).wants(c.t, "sign-in", 201)
	}
	signIn()
	// signedIn holds that the service behind the gateway is told who it is, and signs out.
	signedIn := func(what string) {
		c.t.Helper()
		c.opens(account)
		if got := c.Text("#email"); got != email {
			c.t.Errorf("%s: the service was told of %q", what, got)
		}
		c.opens(bare)
		c.call("DELETE", "/identity/sessions", nil).wants(c.t, "sign-out", 204)
		c.call("GET", "/resource/users/me", nil).wants(c.t, "signed out", 401)
	}
	refused := func(what, change string) {
		c.t.Helper()
		c.run(c.using(change)).wants(c.t, what, 401, "identity.session.invalid_passkey")
		c.call("GET", "/resource/users/me", nil).wants(c.t, what+", and no session", 401)
	}

	var made struct {
		ID         int64
		Name       string
		Transports []string
	}
	c.run(c.making(password, "This laptop", "")).wants(t, "a passkey", 201).into(t, &made)
	if made.Name != "This laptop" || !slices.Equal(made.Transports, []string{"internal"}) || len(device.Passkeys()) != 1 {
		t.Errorf("made %+v, and the authenticator holds %d", made, len(device.Passkeys()))
	}
	s.mails.await(t, email, "New Passkey")
	if name := browsertest.Failure(c.Page, c.making(password, "Twice", "")); name != "InvalidStateError" {
		t.Errorf("a second passkey on the same device: the browser says %q", name)
	}
	signedIn("by password")
	c.run(c.using("")).wants(t, "sign-in", 201)
	signedIn("by passkey")

	t.Run("sent again", func(t *testing.T) {
		c.at(t)
		c.run(c.using("")).wants(t, "sign-in", 201)
		signedIn("by passkey")
		c.run(`(`+send+`)(["POST", "/identity/sessions/passkey", JSON.parse(sessionStorage.sent), ""])`).
			wants(t, "the same flow and credential", 401, "identity.session.invalid_passkey")
	})
	t.Run("another domain", func(t *testing.T) {
		c.at(t)
		c.Go(below + bare)
		if name := browsertest.Failure(c.Page, c.using(`o.rpId = "example.com"`)); name != "SecurityError" {
			t.Errorf("the browser says %q to a domain that is not the page's", name)
		}
		key, stray := *device.Passkeys()[0], *device.Passkeys()[0]
		stray.RpID = "app.localhost"
		device.Put(&stray)
		refused("a passkey of another domain", `o.rpId = "app.localhost"`)
		device.Put(&key)
		c.opens(bare)
	})
	t.Run("another origin", func(t *testing.T) {
		c.at(t)
		c.Go(other + bare)
		refused("a page that nobody has named", "")
		c.opens(bare)
	})
	t.Run("no verified user", func(t *testing.T) {
		c.at(t)
		device.Verifies(false)
		if name := browsertest.Failure(c.Page, c.using("")); name != "NotAllowedError" {
			t.Errorf("the browser says %q where its user is not recognised", name)
		}
		device.Verifies(true)
		device.Lie(false, true)
		refused("the user was not verified", "")
	})
	t.Run("forged", func(t *testing.T) {
		c.at(t)
		device.Lie(true, false)
		refused("a forged signature", "")
		device.Lie(false, false)
	})
	t.Run("a copy", func(t *testing.T) {
		c.at(t)
		c.run(c.using("")).wants(t, "sign-in", 201)
		signedIn("before the copy")
		key := *device.Passkeys()[0]
		newest := key.SignCount
		key.SignCount = 1
		device.Put(&key)
		refused("an older count", "")
		if l := s.mails.await(t, email, "Passkey Refused"); !strings.Contains(l.text, "may have been copied") {
			t.Errorf("the mail says %s", l.text)
		}
		if !strings.Contains(s.process.Output(), "count of signatures") {
			t.Error("the log does not tell of the count")
		}
		key.SignCount = newest
		device.Put(&key)
		c.run(c.using("")).wants(t, "sign-in with a count that has risen", 201)
		signedIn("with a count that has risen")
	})
	t.Run("removed", func(t *testing.T) {
		c.at(t)
		signIn()
		c.call("DELETE", fmt.Sprintf("/resource/passkeys/%d?password=%s", made.ID, url.QueryEscape(password)), nil).wants(t, "removal", 204)
		s.mails.await(t, email, "Passkey Removed")
		c.call("DELETE", "/identity/sessions", nil).wants(t, "sign-out", 204)
		refused("a passkey that was removed", "")
	})
	t.Run("made wrongly", func(t *testing.T) {
		c.at(t)
		signIn()
		device.Lie(false, true)
		c.run(c.making(password, "Wrong", "")).wants(t, "the user was not verified", 422, "resource.passkey.invalid")
		device.Lie(false, false)
		c.Go(other + bare)
		signIn() // sessions are bound to the address, which each gateway tells in its own way
		c.run(c.making(password, "Wrong", "")).wants(t, "a page that nobody has named", 422, "resource.passkey.invalid")
		c.Go(below + bare)
		signIn()
		c.run(c.making(password, "Wrong", `o.rp.id = "app.localhost"`)).wants(t, "another domain", 422, "resource.passkey.invalid")
		if r := c.call("GET", "/resource/passkeys", nil); r.status != 200 || r.body != "[]" {
			t.Errorf("the account has %s", r)
		}
	})
}
