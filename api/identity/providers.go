package identity

import (
	"context"
	"errors"
	"net/url"

	"barong/api/account"
	"barong/api/rest"
	"barong/authz"
	"barong/internal/fault"
	"barong/internal/openid"
	"barong/internal/redirect"
	"barong/session"
)

const providers = "identity.provider"

func (m *Module) providerRoutes() []rest.Route {
	id := rest.Param{Name: "id", In: rest.Path, Required: true, Doc: "Id of the provider, from the list."}
	return []rest.Route{
		{
			Method: "GET", Path: "/identity/providers", Summary: "Lists the providers of OpenID Connect that people may sign in with.",
			Access: rest.Public, Prefix: providers, Success: 200, Output: "[{id:string,name:string}]", Added: true, Handle: m.listProviders,
		},
		{
			Method: "GET", Path: "/identity/providers/{id}/start",
			Summary: "Sends the browser to a provider to sign in there; when that cannot be, to the sign-in page with the code as error.",
			Access:  rest.Public, Prefix: providers, Params: []rest.Param{
				id, {Name: "rd", In: rest.Query, Doc: "Where the browser goes then: an address of this host, or of another that is allowed."},
			},
			Success: 302, Added: true, Handle: m.opened(m.startProvider), Errors: []fault.Code{fault.NotFound, crossSite},
		},
		{
			Method: "GET", Path: "/identity/providers/{id}/callback",
			Summary: "Where providers send browsers back to: signs in and goes on to rd; when that cannot be, to the sign-in page with the code as error.",
			Access:  rest.Public, Prefix: providers, Params: []rest.Param{
				id,
				{Name: "state", In: rest.Query, Doc: "As it was sent."},
				{Name: "code", In: rest.Query, Doc: "What the provider is to be asked with."},
				{Name: "iss", In: rest.Query, Doc: "Whose answer it is (RFC 9207)."},
				{Name: "error", In: rest.Query, Doc: "Why there is no code."},
				{Name: "error_description", In: rest.Query, Doc: "The same for people."},
			},
			Success: 302, Added: true, Handle: m.opened(m.endProvider), Errors: []fault.Code{fault.NotFound, crossSite},
		},
		{
			Method: "POST", Path: "/identity/sessions/provider",
			Summary: "Signs in who has just come from a provider and has a second factor: opens a session and sets its cookie.",
			Access:  rest.Public, Prefix: sessions, Params: []rest.Param{
				{Name: "otp_code", Type: rest.Code, Doc: "Code of the second factor, or a recovery code."},
			},
			Success: 201, Output: "UserWithFullInfo", Added: true, Handle: m.ownSite(m.counted(ByProvider, m.provideCode)),
			Errors: []fault.Code{
				"identity.provider.invalid_flow", "identity.session.missing_otp", "identity.session.invalid_otp", fault.TOTP, fault.TooMany,
				"identity.session.banned", "identity.session.deleted", "identity.session.not_active", "resource.provider.exists", crossSite,
			},
		},
	}
}

// Pages of the portal.
const (
	signInPage   = "/accounts/signin"
	securityPage = "/accounts/security"
)

// opened refuses what a page of a stranger's site loads without going there, such as a picture or a frame. Links may lead
// here from everywhere: nobody gets into an account but by what they do at the provider.
func (m *Module) opened(h rest.HandlerFunc) rest.HandlerFunc {
	return func(ctx context.Context, c *rest.Call) error {
		if c.Header("Sec-Fetch-Site") == "cross-site" && c.Header("Sec-Fetch-Dest") != "document" {
			return fault.New(crossSite)
		}
		return h(ctx, c)
	}
}

// listProviders answers GET /identity/providers.
func (m *Module) listProviders(_ context.Context, c *rest.Call) error {
	type provider struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	}
	all := []provider{}
	for _, p := range m.Accounts.Providers.All() {
		all = append(all, provider{p.ID, p.Name})
	}
	return c.Answer(all)
}

// cookie holds the sign-in that a browser is amidst of.
func (m *Module) cookie(c *rest.Call) authz.Beside {
	return m.Cookies.Beside(authz.ProviderCookie, c.HTTPS)
}

// startProvider answers GET /identity/providers/{id}/start.
func (m *Module) startProvider(ctx context.Context, c *rest.Call) error {
	var in struct {
		ID     string `param:"id"`
		Return string `param:"rd"`
	}
	c.Into(&in)
	flow := openid.Flow{Return: in.Return}
	location, sealed, err := m.Accounts.BeginProvider(ctx, in.ID, c.HTTPS, c.AskedHost, flow)
	if err != nil {
		return m.turnBack(c, m.signInPage(in.Return), err)
	}
	c.SetCookie(m.cookie(c).Set(sealed, openid.FlowLife))
	return c.Redirect(location)
}

// endProvider answers GET /identity/providers/{id}/callback.
func (m *Module) endProvider(ctx context.Context, c *rest.Call) error {
	if c.Head() { // whatever looks where this leads
		return c.Redirect(m.signInPage("").String())
	}
	var in struct {
		ID          string  `param:"id"`
		State       string  `param:"state"`
		Code        string  `param:"code"`
		Error       string  `param:"error"`
		Description string  `param:"error_description"`
		Issuer      *string `param:"iss"`
	}
	c.Into(&in)
	client := m.client(c)
	answer := openid.Answer{State: in.State, Code: in.Code, Error: in.Error, Description: in.Description, Issuer: in.Issuer}
	who, flow, err := m.Accounts.EndProvider(ctx, client, in.ID, c.Cookie(m.cookie(c).Name), answer)
	if flow == nil { // none of this browser's: what it has begun it may still end
		m.ended(ByProvider, err)
		return m.turnBack(c, m.signInPage(""), err)
	}
	if flow.UID != "" {
		c.SetCookie(m.cookie(c).Clear())
		if err == nil {
			err = m.Accounts.LinkProvider(ctx, client, flow, who)
		}
		if err != nil {
			return m.turnBack(c, &url.URL{Path: securityPage}, err)
		}
		return c.Redirect(m.target(c, flow.Return, securityPage))
	}
	keep := m.cookie(c).Clear()
	if err == nil {
		err = m.signInByProvider(ctx, c, client, who, &keep)
	}
	m.ended(ByProvider, err) // who is asked for a second factor goes on at provideCode
	c.SetCookie(keep)
	if err != nil {
		return m.turnBack(c, m.signInPage(flow.Return), err)
	}
	return c.Redirect(m.target(c, flow.Return, redirect.Home))
}

// target is where a browser goes on to: a page of ours where it does not say.
func (m *Module) target(c *rest.Call, rd, page string) string {
	if rd == "" {
		return page
	}
	target, _ := m.Redirects.Target(rd, c.AskedHost)
	return target
}

// signInPage is where people sign in, who then want to go on to rd.
func (m *Module) signInPage(rd string) *url.URL {
	u, err := url.Parse(m.LoginURL)
	if err != nil || m.LoginURL == "" {
		u = &url.URL{Path: signInPage}
	}
	if rd != "" {
		q := u.Query()
		q.Set("rd", rd)
		u.RawQuery = q.Encode()
	}
	return u
}

// turnBack leads to a page that tells the code of a refusal. That there is no such provider is told at once: nobody was sent
// here by a page of ours.
func (m *Module) turnBack(c *rest.Call, page *url.URL, err error) error {
	if f := fault.As(err); f.Has(fault.NotFound) {
		return err
	}
	q := page.Query()
	q.Set("error", string(c.Told(err)))
	page.RawQuery = q.Encode()
	return c.Redirect(page.String())
}

// signInByProvider opens a session for who has come from a provider. Who has a second factor is asked for it first:
// identity.session.missing_otp, and the browser is to keep meanwhile who it is, as the Set-Cookie header keep says.
func (m *Module) signInByProvider(
	ctx context.Context, c *rest.Call, client account.Client, who *openid.Identity, keep *string,
) error {
	v, err := m.Accounts.Recognize(ctx, who)
	if err != nil {
		return err
	}
	sent := m.sent(c)
	if v.User == nil {
		_, id, opened, err := m.Accounts.SignUpByProvider(ctx, client, sent.IDs(), v)
		if err != nil {
			return err
		}
		m.handOver(c, &sent, id, opened)
		return nil
	}
	if err := m.admissible(ctx, c, v.User); err != nil {
		return err
	}
	if v.NeedsCode() {
		sealed, err := m.Accounts.Providers.Suspend(openid.Pending{Identity: *who, UID: v.User.UID, Epoch: v.User.Epoch()})
		if err != nil {
			return err
		}
		*keep = m.cookie(c).Set(sealed, openid.PendingLife)
		return fault.New("identity.session.missing_otp")
	}
	if err := m.Accounts.Adopt(ctx, client, v); err != nil {
		return err
	}
	id, opened, err := m.Accounts.SignInByProvider(ctx, client, sent.IDs(), v, false)
	if err != nil {
		return err
	}
	m.handOver(c, &sent, id, opened)
	return nil
}

// handOver gives a session that was just opened to its browser.
func (m *Module) handOver(c *rest.Call, sent *authz.Sent, id session.ID, opened *session.Session) {
	m.expireOthers(c, sent)
	c.SetCookie(m.Cookies.Set(id, opened.EndsAt, m.Now(), c.HTTPS))
}

// provideCode answers POST /identity/sessions/provider.
func (m *Module) provideCode(ctx context.Context, c *rest.Call) error {
	errFlow := fault.New("identity.provider.invalid_flow")
	pending, use, err := m.Accounts.Providers.Resume(c.Cookie(m.cookie(c).Name))
	if err != nil {
		return errFlow.Because(err)
	}
	v, err := m.Accounts.Recognize(ctx, &pending.Identity)
	if f := fault.As(err); f != nil && f.Status < 500 {
		err = errFlow.Because(err)
	}
	if err != nil {
		return err
	}
	if v.User == nil || v.User.UID != pending.UID || v.User.Epoch() != pending.Epoch {
		return errFlow.Because(errors.New("the account changed meanwhile"))
	}
	if err := m.admissible(ctx, c, v.User); err != nil {
		return err
	}
	code := v.NeedsCode()
	if code {
		var in struct {
			Code string `param:"otp_code"`
		}
		c.Into(&in)
		if err := m.proveSecondFactor(ctx, c, v.User, in.Code); err != nil {
			return err
		}
	}
	if err := use(ctx); errors.Is(err, openid.ErrFlow) {
		return errFlow.Because(err)
	} else if err != nil {
		return err
	}
	client, sent := m.client(c), m.sent(c)
	if err := m.Accounts.Adopt(ctx, client, v); err != nil {
		return err
	}
	id, opened, err := m.Accounts.SignInByProvider(ctx, client, sent.IDs(), v, code)
	if err != nil {
		return err
	}
	c.SetCookie(m.cookie(c).Clear())
	return m.answerSession(ctx, c, v.User, id, opened)
}
