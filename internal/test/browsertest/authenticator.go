package browsertest

import (
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
)

// An Authenticator is a virtual one of the browser's: it makes passkeys that its page can use, and says yes at once.
type Authenticator struct {
	p  *Page
	id webauthn.AuthenticatorID
}

// NewAuthenticator gives the window an authenticator that is built into its device, holds passkeys and verifies its user.
func (p *Page) NewAuthenticator() *Authenticator {
	p.t.Helper()
	p.do(command(webauthn.Enable, webauthn.EnableParams{}))
	r, err := chromedp.Call(p.ctx, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{
		Options: &webauthn.VirtualAuthenticatorOptions{
			Protocol: webauthn.AuthenticatorProtocolCtap2, Ctap2version: webauthn.Ctap2versionCtap21,
			Transport: webauthn.AuthenticatorTransportInternal, HasResidentKey: true, HasUserVerification: true,
			IsUserVerified: true, AutomaticPresenceSimulation: true,
		},
	})
	if err != nil {
		p.t.Fatalf("browsertest: %v", err)
	}
	return &Authenticator{p: p, id: r.AuthenticatorID}
}

// Remove takes the authenticator away.
func (a *Authenticator) Remove() {
	a.p.t.Helper()
	a.p.do(command(webauthn.RemoveVirtualAuthenticator, webauthn.RemoveVirtualAuthenticatorParams{AuthenticatorID: a.id}))
}

// Verifies says whether its user is recognised from now on.
func (a *Authenticator) Verifies(yes bool) {
	a.p.t.Helper()
	a.p.do(command(webauthn.SetUserVerified, webauthn.SetUserVerifiedParams{AuthenticatorID: a.id, IsUserVerified: yes}))
}

// Present says whether its user touches it from now on. What a page asks meanwhile stays without an answer.
func (a *Authenticator) Present(yes bool) {
	a.p.t.Helper()
	a.p.do(command(webauthn.SetAutomaticPresenceSimulation, webauthn.SetAutomaticPresenceSimulationParams{AuthenticatorID: a.id, Enabled: yes}))
}

// Lie makes the authenticator spoil what it signs from now on: the signature, or the word that the user was verified.
func (a *Authenticator) Lie(signature, verified bool) {
	a.p.t.Helper()
	a.p.do(command(webauthn.SetResponseOverrideBits, webauthn.SetResponseOverrideBitsParams{
		AuthenticatorID: a.id, IsBogusSignature: &signature, IsBadUV: &verified,
	}))
}

// Passkeys are those that the authenticator holds, with their private keys.
func (a *Authenticator) Passkeys() []*webauthn.Credential {
	a.p.t.Helper()
	r, err := chromedp.Call(a.p.ctx, webauthn.GetCredentials, webauthn.GetCredentialsParams{AuthenticatorID: a.id})
	if err != nil {
		a.p.t.Fatalf("browsertest: %v", err)
	}
	return r.Credentials
}

// Put gives the authenticator a passkey, in place of the one with the same id: that of another authenticator, or an older
// copy of its own.
func (a *Authenticator) Put(c *webauthn.Credential) {
	a.p.t.Helper()
	for _, have := range a.Passkeys() {
		if string(have.CredentialID) == string(c.CredentialID) {
			a.p.do(command(webauthn.RemoveCredential, webauthn.RemoveCredentialParams{AuthenticatorID: a.id, CredentialID: c.CredentialID}))
		}
	}
	a.p.do(command(addCredential, newCredential{a.id, map[string]any{
		"credentialId": c.CredentialID, "isResidentCredential": c.IsResidentCredential, "rpId": c.RpID, "privateKey": c.PrivateKey,
		"userHandle": c.UserHandle, "signCount": c.SignCount, "userName": c.UserName, "userDisplayName": c.UserDisplayName,
	}}))
}

// addCredential is webauthn.AddCredential without what authenticators of this browser do not support.
var addCredential = cdp.Command[newCredential, cdp.Empty]{Method: webauthn.CommandAddCredential}

type newCredential struct {
	AuthenticatorID webauthn.AuthenticatorID `json:"authenticatorId"`
	Credential      map[string]any           `json:"credential"`
}
