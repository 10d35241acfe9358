package systemtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"barong/internal/test/browsertest"
	"barong/internal/test/openidtest"
)

// elsewhere starts a provider of OpenID Connect, and writes the file that names it.
func elsewhere(t *testing.T, v *vault) (p *openidtest.Provider, file string) {
	t.Helper()
	p = openidtest.Start(t)
	file = filepath.Join(t.TempDir(), "providers.yml")
	if err := os.WriteFile(file, fmt.Appendf(nil, "- {id: one, name: Elsewhere, issuer: %q, client_id: %q, client_secret: %q, sign_up: true}\n",
		p.Issuer, p.ClientID, v.keep("client secret", p.ClientSecret)), 0o600); err != nil {
		t.Fatal(err)
	}
	return p, file
}

// byProvider signs up, signs in and links by way of a provider.
func byProvider(t *testing.T, s *site) {
	p := s.provider
	p.Callback(s.origin + "/api/v2/barong/identity/providers/one/callback")
	button := s.say("signin.provider", "name", "Elsewhere")

	c := s.visit(t, browsertest.Options{})
	c.Allow(p.Issuer)
	// signedIn holds that the browser has come back to the page that it wanted, as somebody.
	signedIn := func(what, email string) {
		c.t.Helper()
		c.AwaitPath(account)
		if got := c.Text("#email"); got != email {
			c.t.Errorf("%s: the service was told of %q, want %q", what, got, email)
		}
	}
	signOut := func() {
		c.t.Helper()
		c.opens(bare)
		var current struct {
			CSRF string `json:"csrf_token"`
		}
		c.call("GET", "/identity/sessions/current", nil).wants(c.t, "the session", 200).into(c.t, &current)
		c.csrf = current.CSRF
		c.call("DELETE", "/identity/sessions", nil).wants(c.t, "sign-out", 204)
	}

	// Nobody yet: from the page that was asked for to the portal, to the provider, and back to the page.
	p.Become(openidtest.Person{Subject: "ann", Email: "ann@people.test", Verified: true})
	c.opens(account)
	c.AwaitPath("/accounts/signin")
	c.Press(button)
	signedIn("a new account", "ann@people.test")
	// It has nothing else to sign in with.
	c.opens("/accounts/security")
	c.AwaitText("Elsewhere")
	c.Click(`section[aria-labelledby="providers"] button`)
	c.AwaitFault("resource.provider.last_way_in")
	signOut()

	// Somebody who has an account: the provider's word about the address is not enough.
	owner := s.holder(t)
	p.Become(openidtest.Person{Subject: "bob", Email: owner.email, Verified: true})
	c.opens(account)
	c.AwaitPath("/accounts/signin")
	c.Press(button)
	c.AwaitPath("/accounts/signin")
	c.AwaitFault("identity.provider.link_required")
	c.signsIn(owner)
	signedIn("by password", owner.email)
	c.opens("/accounts/security")
	c.Click(`section[aria-labelledby="providers"] button`)
	c.AwaitPath("/accounts/security")
	c.AwaitText(s.say("providers.unlink"))
	s.mail(t, owner.email, "New Way to Sign In")
	signOut()
	c.opens(account)
	c.AwaitPath("/accounts/signin")
	c.Press(button)
	signedIn("by the provider", owner.email)

	// A provider is no second factor.
	signOut()
	script := s.client()
	script.signIn(owner.email, owner.password).wants(t, "sign-in", 201)
	app := script.enable2FA(t)
	c.opens(account)
	c.AwaitPath("/accounts/signin")
	c.Press(button)
	c.AwaitElement("[name=otp_code]")
	if strings.Contains(c.URL(), p.ClientSecret) || c.Has("[name=password]") {
		t.Errorf("the page that asks for the code is %s", c.URL())
	}
	c.Fill("otp_code", app.code(t))
	c.sends("otp_code")
	signedIn("with a code", owner.email)
}
