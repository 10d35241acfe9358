package identity_test

import (
	"context"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"barong/api/account"
	"barong/api/identity"
	"barong/api/rest"
	"barong/db"
	"barong/internal/crypto/passkey/passkeytest"
	"barong/internal/crypto/password"
	"barong/internal/limit"
	"barong/internal/openid"
	"barong/internal/redirect"
	"barong/internal/test/apitest"
	"barong/internal/test/openidtest"
	"barong/session"
)

// A browser keeps what it is told to.
type browser struct {
	s       *apitest.Server
	cookies map[string]string
}

func newBrowser(s *apitest.Server) *browser { return &browser{s, map[string]string{}} }

func (b *browser) do(t *testing.T, method, path string, options ...apitest.Option) *apitest.Answer {
	t.Helper()
	for name, value := range b.cookies {
		options = append(options, apitest.Cookie(name, value))
	}
	a := b.s.Do(t, method, path, options...)
	answer := http.Response{Header: a.Header}
	for _, c := range answer.Cookies() {
		if delete(b.cookies, c.Name); c.MaxAge >= 0 {
			b.cookies[c.Name] = c.Value
		}
	}
	return a
}

// depart begins to sign in, and returns what the provider sends back.
func (b *browser) depart(t *testing.T, p *openidtest.Provider, id, rd string, options ...apitest.Option) (back string) {
	t.Helper()
	a := b.do(t, "GET", "/identity/providers/"+id+"/start", append(options, apitest.Query("rd", rd))...)
	a.WantBody(t, 302, "")
	location := a.Header.Get("Location")
	if !strings.HasPrefix(location, p.Issuer+"/authorize?") {
		t.Fatalf("it leads to %s", location)
	}
	return p.Visit(t, location).RawQuery
}

// arrive comes back, and returns where it goes on to.
func (b *browser) arrive(t *testing.T, id, back string, options ...apitest.Option) string {
	t.Helper()
	a := b.do(t, "GET", "/identity/providers/"+id+"/callback?"+back, options...)
	a.WantBody(t, 302, "")
	return a.Header.Get("Location")
}

// signIn goes the whole way.
func (b *browser) signIn(t *testing.T, p *openidtest.Provider, id, rd string) string {
	t.Helper()
	return b.arrive(t, id, b.depart(t, p, id, rd))
}

// refused is where somebody is told a code, who wanted to go to rd.
func refused(code, rd string) string {
	q := url.Values{"error": {code}}
	if rd != "" {
		q.Set("rd", rd)
	}
	return "/accounts/signin?" + q.Encode()
}

// startProvider starts a provider of the id, known to a served module.
func startProvider(t *testing.T, e *apitest.Env, id string, change func(*openid.Config)) (*openidtest.Provider, openid.Config) {
	t.Helper()
	p := openidtest.Start(t)
	return p, p.Config(id, change)
}

// knows says where a provider sends browsers back to.
func knows(p *openidtest.Provider, s *apitest.Server, id string) {
	p.Callback(s.URL + "/" + apitest.Prefix + "/identity/providers/" + id + "/callback")
}

func signsUp(c *openid.Config) { c.SignUp = true }
func trusts(c *openid.Config)  { c.TrustEmail = true }

func TestSignUpByProvider(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		p, config := startProvider(t, e, "one", signsUp)
		e.Providers(config)
		for _, options := range [][]func(*rest.Options){nil, {apitest.Legacy}} {
			s := start(t, e, nil, options...)
			knows(p, s, "one")
			s.Get(t, "/identity/providers").WantBody(t, 200, `[{"id":"one","name":"Provider one"}]`)
			p.Become(openidtest.Person{Subject: "subject " + s.URL, Email: "Ann" + s.URL[len(s.URL)-4:] + "@People.test", Verified: true})
			b := newBrowser(s)
			if to := b.signIn(t, p, "one", "/there?a=b"); to != "/there?a=b" {
				t.Fatalf("it leads to %s", to)
			}
			if !alive(t, e, b.cookies[cookieName]) || len(b.cookies) != 1 {
				t.Errorf("cookies %v", b.cookies)
			}
			u, err := e.DB.UserByEmail(t.Context(), p.Person().Email)
			if err != nil {
				t.Fatal(err)
			}
			if u.State != account.Active || u.Role != "member" || u.Email != strings.ToLower(p.Person().Email) || u.PasswordDigest != password.None {
				t.Errorf("user %+v", u)
			}
			if live, err := e.Accounts.ListSessions(t.Context(), u); err != nil || len(live) != 1 || live[0].Methods != session.Federated {
				t.Errorf("sessions %+v, %v", live, err)
			}
			wantActivities(t, e, "account signup succeed")
			wantEvents(t, e, "model.user.created", "model.user.updated", "model.user.updated", "model.label.created", "system.user.email.confirmed")
			if kinds := e.MailKinds(t); len(kinds) != 0 {
				t.Errorf("mails %q", kinds)
			}
			// No password fits; one can be set by mail.
			for _, guess := range []string{"", "*", apitest.Password} {
				s.Post(t, "/identity/sessions", apitest.JSON(map[string]any{"email": u.Email, "password": guess})).Want(t, 401, "identity.session.invalid_params")
			}
			e.Events()
			s.Post(t, "/identity/users/password/generate_code", apitest.Form("email", u.Email)).Want(t, 201)
			s.Post(t, "/identity/users/password/confirm_code", apitest.Form("reset_password_token", apitest.MailToken(t, e.Events()),
				"password", apitest.Password, "confirm_password", apitest.Password)).Want(t, 201)
			e.Events()
			s.Post(t, "/identity/sessions", apitest.Form("email", u.Email, "password", apitest.Password))
			wantEvents(t, e, "system.session.create")
			e.Mails(t)
			e.Events()

			// Again: the same account.
			other := newBrowser(s)
			if to := other.signIn(t, p, "one", ""); to != "/accounts/" {
				t.Errorf("without rd it leads to %s", to)
			}
			if kinds := e.MailKinds(t); !slices.Equal(kinds, []string{"session.create"}) {
				t.Errorf("mails %q", kinds)
			}
			wantEvents(t, e, "system.session.create")
			rows, err := e.DB.Identities(t.Context(), u.ID)
			if err != nil || len(rows) != 1 || rows[0].LastUsedAt == nil || rows[0].Issuer != p.Issuer || rows[0].Subject != p.Person().Subject {
				t.Errorf("identities %+v, %v", rows, err)
			}
			// The session of the same browser is replaced.
			before := other.cookies[cookieName]
			other.signIn(t, p, "one", "")
			if alive(t, e, before) || !alive(t, e, other.cookies[cookieName]) {
				t.Error("the session of the same browser was not replaced")
			}
			forget(t, e)
		}

		// An address that nobody has verified is asked for by mail.
		s := start(t, e, nil)
		knows(p, s, "one")
		p.Become(openidtest.Person{Subject: "unverified", Email: "bob@people.test"})
		b := newBrowser(s)
		if to := b.signIn(t, p, "one", "/there"); to != "/there" {
			t.Fatalf("it leads to %s", to)
		}
		u, err := e.DB.UserByEmail(t.Context(), "bob@people.test")
		if err != nil || u.State != account.Pending {
			t.Fatalf("user %+v, %v", u, err)
		}
		if kinds := e.MailKinds(t); !slices.Equal(kinds, []string{"user.email.confirmation.token"}) {
			t.Errorf("mails %q", kinds)
		}
		s.Post(t, "/identity/users/email/confirm_code", apitest.Form("token", apitest.MailToken(t, e.Events()))).Want(t, 201)
		if u = e.Fresh(t, u); u.State != account.Active {
			t.Errorf("state %s", u.State)
		}
	})
}

// forget empties the audit trail.
func forget(t *testing.T, e *apitest.Env) {
	t.Helper()
	if _, err := e.DB.Bun().NewDelete().Table("activities").Where("TRUE").Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.Events()
	e.Mails(t)
}

// An account with the same address is linked by itself only by a provider that is trusted, and says that it has verified it.
func TestProviderOfKnownAddress(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		trusted, trustedConfig := startProvider(t, e, "trusted", func(c *openid.Config) { c.TrustEmail, c.SignUp = true, true })
		plain, plainConfig := startProvider(t, e, "plain", signsUp)
		e.Providers(trustedConfig, plainConfig)
		s := start(t, e, nil)
		knows(trusted, s, "trusted")
		knows(plain, s, "plain")
		u := e.NewUser(t, nil)
		const linkRequired = "identity.provider.link_required"
		for _, c := range []struct {
			p        *openidtest.Provider
			id       string
			verified bool
		}{{plain, "plain", true}, {plain, "plain", false}, {trusted, "trusted", false}} {
			c.p.Become(openidtest.Person{Subject: "liar", Email: strings.ToUpper(u.Email), Verified: c.verified})
			b := newBrowser(s)
			if to := b.signIn(t, c.p, c.id, "/x"); to != refused(linkRequired, "/x") || len(b.cookies) != 0 {
				t.Errorf("%s, verified %v: leads to %s with %v", c.id, c.verified, to, b.cookies)
			}
		}
		if rows, err := e.DB.Identities(t.Context(), u.ID); err != nil || len(rows) != 0 {
			t.Errorf("linked %+v, %v", rows, err)
		}
		forget(t, e)
		trusted.Become(openidtest.Person{Subject: "owner", Email: strings.ToUpper(u.Email), Verified: true})
		b := newBrowser(s)
		if to := b.signIn(t, trusted, "trusted", "/x"); to != "/x" || !alive(t, e, b.cookies[cookieName]) {
			t.Errorf("leads to %s with %v", to, b.cookies)
		}
		wantActivities(t, e, "session provider::create succeed", "session login succeed")
		if kinds := e.MailKinds(t); !slices.Equal(kinds, []string{"provider.linked", "session.create"}) {
			t.Errorf("mails %q", kinds)
		}
		if after := e.Fresh(t, u); after.PasswordDigest != u.PasswordDigest || after.Epoch() != u.Epoch() {
			t.Error("the account of a confirmed address was changed")
		}
		// Another person there with the same address now.
		trusted.Become(openidtest.Person{Subject: "heir", Email: u.Email, Verified: true})
		if to := newBrowser(s).signIn(t, trusted, "trusted", ""); to != refused("resource.provider.exists", "") {
			t.Errorf("a second one of that provider leads to %s", to)
		}

		// Who has made an account in the name of an address that was never confirmed does not stay in it.
		pending := e.NewUser(t, func(u *db.User) { u.State = account.Pending })
		cookie, _ := signIn(t, s, pending)
		e.Enable2FA(t, pending)
		e.NewPasskey(t, pending, passkeytest.Ed25519)
		e.Update(t, func(ctx context.Context, tx *db.Tx) error {
			if err := tx.InsertIdentity(ctx, &db.Identity{UserID: pending.ID, Provider: "plain", Issuer: plain.Issuer, Subject: "squatter"}); err != nil {
				return err
			}
			return tx.InsertAPIKey(ctx, &db.APIKey{UserID: pending.ID, KID: "0123456789abcdef", Algorithm: "HS256", State: "active", Secret: "x"})
		})
		trusted.Become(openidtest.Person{Subject: "victim", Email: pending.Email, Verified: true})
		b = newBrowser(s)
		if to := b.signIn(t, trusted, "trusted", "/x"); to != "/x" || !alive(t, e, b.cookies[cookieName]) {
			t.Errorf("leads to %s with %v", to, b.cookies)
		}
		after := e.Fresh(t, pending)
		if after.State != account.Active || after.OTP || after.PasswordDigest != password.None || alive(t, e, cookie) {
			t.Errorf("user %+v, its first session lives: %v", after, alive(t, e, cookie))
		}
		s.Post(t, "/identity/sessions", apitest.Form("email", pending.Email, "password", apitest.Password)).Want(t, 401, "identity.session.invalid_params")
		if keys, err := e.DB.Passkeys(t.Context(), pending.ID); err != nil || len(keys) != 0 {
			t.Errorf("passkeys %+v, %v", keys, err)
		}
		if rows, err := e.DB.Identities(t.Context(), pending.ID); err != nil || len(rows) != 1 || rows[0].Subject != "victim" {
			t.Errorf("identities %+v, %v", rows, err)
		}
		if key, err := e.DB.UserAPIKey(t.Context(), pending.ID, "0123456789abcdef"); err != nil || key.State == "active" {
			t.Errorf("API key %+v, %v", key, err)
		}
	})
}

// A password that is reset by mail takes away what was set up before the address was known to be the owner's.
func TestResetForgetsStrangers(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		p, config := startProvider(t, e, "one", signsUp)
		e.Providers(config)
		s := start(t, e, nil)
		knows(p, s, "one")
		p.Become(openidtest.Person{Subject: "squatter", Email: "victim@people.test"})
		squatter := newBrowser(s)
		squatter.signIn(t, p, "one", "")
		e.Events()
		s.Post(t, "/identity/users/password/generate_code", apitest.Form("email", "victim@people.test")).Want(t, 201)
		s.Post(t, "/identity/users/password/confirm_code", apitest.Form("reset_password_token", apitest.MailToken(t, e.Events()),
			"password", apitest.Password, "confirm_password", apitest.Password)).Want(t, 201)
		if alive(t, e, squatter.cookies[cookieName]) {
			t.Error("the stranger's session lives")
		}
		if to := squatter.signIn(t, p, "one", ""); to != refused("identity.provider.link_required", "") {
			t.Errorf("the stranger gets to %s", to)
		}
	})
}

// A provider is no second factor.
func TestProviderAndSecondFactor(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		p, config := startProvider(t, e, "one", trusts)
		e.Providers(config)
		var mu sync.Mutex
		ends := map[string]int{}
		s := start(t, e, func(o *identity.Options) {
			o.SignedIn = func(by, code string) {
				mu.Lock()
				defer mu.Unlock()
				ends[by+" "+code]++
			}
		})
		old := start(t, e, nil, apitest.Legacy)
		knows(p, s, "one")
		knows(p, old, "one")
		const time2FA = 30 * time.Second
		const path, flow = "/identity/sessions/provider", "identity.provider.invalid_flow"
		p.Spoil(func(c map[string]any, _ *openidtest.Sign) { c["exp"] = e.Clock.Now().Unix() + 300 }) // the clock of this test goes ahead
		u := e.NewUser(t, nil)
		secret := e.Enable2FA(t, u)
		p.Become(openidtest.Person{Subject: "owner", Email: u.Email, Verified: true})
		missing := refused("identity.session.missing_otp", "/x")
		b := newBrowser(s)
		if to := b.signIn(t, p, "one", "/x"); to != missing || b.cookies[cookieName] != "" || len(b.cookies) != 1 {
			t.Fatalf("leads to %s with %v", to, b.cookies)
		}
		if rows, err := e.DB.Identities(t.Context(), u.ID); err != nil || len(rows) != 0 {
			t.Errorf("linked before the code: %+v, %v", rows, err)
		}
		forget(t, e)
		b.do(t, "POST", path).Want(t, 401, "identity.session.missing_otp")
		b.do(t, "POST", path, apitest.Form("otp_code", "")).Want(t, 401, "identity.session.missing_otp")
		b.do(t, "POST", path, apitest.JSON(map[string]any{"otp_code": []int{1}})).Want(t, 422, "invalid")
		b.do(t, "POST", path, apitest.Form("otp_code", e.WrongCode(t, secret))).Want(t, 403, "identity.session.invalid_otp")
		b.do(t, "POST", path, apitest.Form("otp_code", e.Code(t, secret, 0)), apitest.Header("Sec-Fetch-Site", "cross-site")).
			Want(t, 401, "authz.csrf_token_mismatch")
		newBrowser(s).do(t, "POST", path, apitest.Form("otp_code", e.Code(t, secret, 0))).Want(t, 401, flow)
		pending := b.cookies[cookieName+"_provider"]
		cookie, _ := opened(t, b.do(t, "POST", path, apitest.Form("otp_code", e.Code(t, secret, 0))).Want(t, 201))
		if !alive(t, e, cookie) || len(b.cookies) != 1 {
			t.Errorf("cookies %v", b.cookies)
		}
		if live, err := e.Accounts.ListSessions(t.Context(), u); err != nil || len(live) != 1 || live[0].Methods != session.Federated|session.Code {
			t.Errorf("sessions %+v, %v", live, err)
		}
		wantActivities(t, e, `session login::2fa failed {"reason":"OTP code is invalid"}`, "session provider::create succeed", "session login::2fa succeed")
		s.Post(t, path, apitest.Cookie(cookieName+"_provider", pending), apitest.Form("otp_code", e.Code(t, secret, 1))).Want(t, 401, flow)
		if to := newBrowser(s).arrive(t, "one", "state=x&code=y"); to != refused(flow, "") {
			t.Errorf("who was not sent to the provider is led to %s", to)
		}
		mu.Lock()
		if want := map[string]int{"provider identity.session.missing_otp": 3, "provider identity.session.invalid_otp": 1, "provider " + flow: 3, "provider ": 1}; !maps.Equal(ends, want) {
			t.Errorf("sign-ins ended with %v, want %v", ends, want)
		}
		mu.Unlock()

		again := newBrowser(old)
		if to := again.signIn(t, p, "one", "/x"); to != missing {
			t.Fatalf("leads to %s", to)
		}
		again.do(t, "POST", path, apitest.Form("otp_code", e.Code(t, secret, 1))).Want(t, 422, "totp.error") // used above
		e.Clock.Advance(2 * time2FA)
		codes := []string{}
		if err := e.Accounts.Update(t.Context(), func(ctx context.Context, un *account.Unit) (err error) {
			codes, err = un.NewRecoveryCodes(ctx, u)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		opened(t, again.do(t, "POST", path, apitest.Form("otp_code", codes[0])).Want(t, 201))

		// What ends a pending sign-in.
		for name, change := range map[string]func(){
			"time": func() { e.Clock.Advance(openid.PendingLife) },
			"a new password": func() {
				if err := e.Accounts.Update(t.Context(), func(ctx context.Context, un *account.Unit) error {
					return un.EndSessions(ctx, u, nil)
				}); err != nil {
					t.Fatal(err)
				}
			},
			"an unlinked provider": func() {
				if err := e.Accounts.Update(t.Context(), func(ctx context.Context, un *account.Unit) error {
					return un.Unlink(ctx, u, account.Client{}, "one")
				}); err != nil {
					t.Fatal(err)
				}
				p.Become(openidtest.Person{Subject: "owner", Email: u.Email})
			},
		} {
			p.Become(openidtest.Person{Subject: "owner", Email: u.Email, Verified: true})
			b := newBrowser(s)
			if name == "an unlinked provider" {
				e.Providers(p.Config("one", nil)) // which is not linked by itself again
			} else {
				e.Providers(config)
			}
			if to := b.signIn(t, p, "one", "/x"); to != missing {
				t.Fatalf("%s: leads to %s", name, to)
			}
			change()
			e.Clock.Advance(time2FA)
			b.do(t, "POST", path, apitest.Form("otp_code", e.Code(t, secret, 0))).Want(t, 401, flow)
		}

		// Another one of that provider was linked meanwhile.
		e.Providers(config)
		p.Become(openidtest.Person{Subject: "owner", Email: u.Email, Verified: true})
		b = newBrowser(s)
		if to := b.signIn(t, p, "one", "/x"); to != missing {
			t.Fatalf("leads to %s", to)
		}
		e.Update(t, func(ctx context.Context, tx *db.Tx) error {
			rows, err := tx.Identities(ctx, u.ID)
			if err != nil {
				return err
			}
			for i := range rows {
				if err := tx.DeleteIdentity(ctx, &rows[i]); err != nil {
					return err
				}
			}
			return tx.InsertIdentity(ctx, &db.Identity{UserID: u.ID, Provider: "one", Issuer: p.Issuer, Subject: "another"})
		})
		e.Clock.Advance(2 * time2FA)
		b.do(t, "POST", path, apitest.Form("otp_code", e.Code(t, secret, 0))).Want(t, 422, "resource.provider.exists")

		// The account was closed meanwhile; too many codes.
		p.Become(openidtest.Person{Subject: "another", Email: u.Email, Verified: true})
		for state, code := range map[string]string{
			"banned": "identity.session.banned", "deleted": "identity.session.deleted", "locked": "identity.session.not_active",
		} {
			b := newBrowser(s)
			if to := b.signIn(t, p, "one", "/x"); to != missing {
				t.Fatalf("leads to %s", to)
			}
			e.Update(t, func(ctx context.Context, tx *db.Tx) error {
				u := *e.Fresh(t, u)
				u.State = state
				return tx.UpdateUser(ctx, &u, "state")
			})
			b.do(t, "POST", path, apitest.Form("otp_code", "000000")).Want(t, 401, code)
			if to := b.signIn(t, p, "one", "/x"); to != refused(code, "/x") {
				t.Errorf("%s leads to %s", state, to)
			}
			e.Update(t, func(ctx context.Context, tx *db.Tx) error {
				u := *e.Fresh(t, u)
				u.State = account.Active
				return tx.UpdateUser(ctx, &u, "state")
			})
		}
		b = newBrowser(s)
		b.signIn(t, p, "one", "/x")
		for range limit.WrongTOTP.Max {
			b.do(t, "POST", path, apitest.Form("otp_code", e.WrongCode(t, secret))).Want(t, 403, "identity.session.invalid_otp")
		}
		b.do(t, "POST", path, apitest.Form("otp_code", e.Code(t, secret, 0))).Want(t, 429, "request.rate_limited")
	})
}

// Whatever is not right leads back to the sign-in page, and opens no session.
func TestProviderRefusals(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		p, config := startProvider(t, e, "one", signsUp)
		q, other := startProvider(t, e, "two", nil)
		r, only := startProvider(t, e, "three", func(c *openid.Config) { c.SignUp, c.Domains = true, []string{"firm.test", "xn--bcher-kva.test"} })
		e.Providers(config, other, only)
		s := start(t, e, nil)
		knows(p, s, "one")
		knows(q, s, "two")
		knows(r, s, "three")
		wrong := func(name, to, code string, b *browser) {
			t.Helper()
			if to != refused(code, "/x") || b.cookies[cookieName] != "" {
				t.Errorf("%s leads to %s with %v", name, to, b.cookies)
			}
		}
		for _, path := range []string{"start", "callback"} {
			s.Get(t, "/identity/providers/none/"+path).Want(t, 404, "record.not_found")
			s.Get(t, "/identity/providers/one/"+path, apitest.Header("Sec-Fetch-Site", "cross-site"), apitest.Header("Sec-Fetch-Dest", "image")).
				Want(t, 401, "authz.csrf_token_mismatch")
		}
		s.Get(t, "/identity/providers/one/start?rd[]=x").Want(t, 422, "invalid")
		s.Get(t, "/identity/providers/one/callback?state[]=x").Want(t, 422, "invalid")

		b := newBrowser(s)
		wrong("no account", b.signIn(t, q, "two", "/x"), "identity.provider.no_account", b)
		for _, who := range []openidtest.Person{{Subject: "a", Email: "", Verified: true}, {Subject: "a", Email: "not an address", Verified: true}, {Subject: "a", Email: "<x>@people.test", Verified: true}} {
			p.Become(who)
			wrong("address "+who.Email, b.signIn(t, p, "one", "/x"), "identity.provider.email_required", b)
		}
		for _, who := range []openidtest.Person{
			{Subject: "a", Email: "", Verified: true},
			{Subject: "a", Email: "boss@elsewhere.test", Verified: true},
			{Subject: "a", Email: "boss@firm.test", Verified: false},
			{Subject: "a", Email: "boss@sub.firm.test", Verified: true},
			{Subject: "a", Email: "firm.test", Verified: true},
			{Subject: "a", Email: "firm.test@elsewhere.test", Verified: true},
		} {
			r.Become(who)
			wrong("domain of "+who.Email, b.signIn(t, r, "three", "/x"), "identity.provider.domain_not_allowed", b)
		}
		for _, address := range []string{"Boss@FIRM.test", "ann@bücher.test", "bob@xn--bcher-kva.test"} {
			r.Become(openidtest.Person{Subject: address, Email: address, Verified: true})
			if to := newBrowser(s).signIn(t, r, "three", "/x"); to != "/x" {
				t.Errorf("%s leads to %s", address, to)
			}
		}
		// A linked account of a domain that the provider no longer says, too.
		r.Become(openidtest.Person{Subject: "Boss@FIRM.test", Email: "boss@home.test", Verified: true})
		wrong("a changed address", b.signIn(t, r, "three", "/x"), "identity.provider.domain_not_allowed", b)

		p.Become(openidtest.Person{Subject: "ann", Email: "ann@people.test", Verified: true})
		const flow = "identity.provider.invalid_flow"
		e.Limits.Forget()

		// Another browser.
		back := b.depart(t, p, "one", "/x")
		if to := newBrowser(s).arrive(t, "one", back); to != refused(flow, "") {
			t.Errorf("another browser gets to %s", to)
		}
		// From one provider, to the address of another.
		if to := b.arrive(t, "two", back); to != refused(flow, "") {
			t.Errorf("the other provider's answer leads to %s", to)
		}
		// Another state.
		if to := b.arrive(t, "one", strings.Replace(back, "state=", "state=x", 1)); to != refused(flow, "") {
			t.Errorf("another state leads to %s", to)
		}
		// A look, as programs do that draw previews of links, uses nothing up.
		if a := b.do(t, "HEAD", "/identity/providers/one/callback?"+back); a.Status != 302 || a.Header.Get("Location") != "/accounts/signin" {
			t.Errorf("HEAD answers %d %s", a.Status, a.Header.Get("Location"))
		}
		kept := b.cookies[cookieName+"_provider"]
		if to := b.arrive(t, "one", back); to != "/x" || !alive(t, e, b.cookies[cookieName]) {
			t.Errorf("after all that in vain: %s", to)
		}
		// Again.
		thief := newBrowser(s)
		thief.cookies[cookieName+"_provider"] = kept
		if to := thief.arrive(t, "one", back); to != refused(flow, "") {
			t.Errorf("a second time leads to %s", to)
		}
		// Too late.
		b = newBrowser(s)
		back = b.depart(t, p, "one", "/x")
		e.Clock.Advance(openid.FlowLife)
		if to := b.arrive(t, "one", back); to != refused(flow, "") {
			t.Errorf("too late leads to %s", to)
		}

		p.Spoil(func(c map[string]any, _ *openidtest.Sign) { c["nonce"] = "x"; c["exp"] = e.Clock.Now().Unix() + 300 })
		wrong("another nonce", b.signIn(t, p, "one", "/x"), "identity.provider.invalid_token", b)
		p.Spoil(func(c map[string]any, _ *openidtest.Sign) { c["exp"] = e.Clock.Now().Unix() + 300 })
		p.Edit(func(answer url.Values) { answer.Del("code"); answer.Set("error", "access_denied") })
		wrong("a person who said no", b.signIn(t, p, "one", "/x"), "identity.provider.denied", b)
		p.Edit(nil)
		back = b.depart(t, p, "one", "/x")
		mend := p.Break()
		wrong("a broken provider", b.arrive(t, "one", back), "identity.provider.unavailable", b)
		mend()
		mend = q.Break()
		e.Providers(config, other, only)
		a := b.do(t, "GET", "/identity/providers/two/start", apitest.Query("rd", "/x"))
		wrong("a provider that was never there", a.WantBody(t, 302, "").Header.Get("Location"), "identity.provider.unavailable", b)
		mend()

		// Who comes back in vain too often is not listened to, and a right return does not wash that clean.
		e.Limits.Forget()
		for range limit.ProviderAddress.Max {
			if to := b.arrive(t, "one", "state=x&code=y", apitest.IP("203.0.113.9")); to != refused(flow, "") {
				t.Fatalf("leads to %s", to)
			}
		}
		back = b.depart(t, p, "one", "/x")
		if to := b.arrive(t, "one", back, apitest.IP("203.0.113.9")); to != refused("request.rate_limited", "") {
			t.Errorf("too often leads to %s", to)
		}
		if to := b.arrive(t, "one", back, apitest.IP("203.0.113.10")); to != "/x" {
			t.Errorf("somebody else gets to %s", to)
		}
		p.Become(openidtest.Person{Subject: "many", Email: "many@people.test", Verified: true})
		for range limit.SignUpAddress.Max {
			if err := e.Accounts.AllowAddress(t.Context(), limit.SignUpAddress, netip.MustParseAddr("203.0.113.11")); err != nil {
				t.Fatal(err)
			}
		}
		b = newBrowser(s)
		wrong("one sign-up too many", b.arrive(t, "one", b.depart(t, p, "one", "/x"), apitest.IP("203.0.113.11")), "request.rate_limited", b)
	})
}

// Where browsers go on to is judged, wherever they come from.
func TestProviderRedirects(t *testing.T) {
	t.Parallel()
	e := apitest.New(t, "sqlite")
	p, config := startProvider(t, e, "one", signsUp)
	e.Providers(config)
	s := start(t, e, func(o *identity.Options) {
		o.LoginURL, o.Redirects = "https://login.test/in?lang=en#top", redirect.Rules{Domain: "barong.test", Hosts: []string{"app.test:8443"}}
	})
	knows(p, s, "one")
	p.Callback("https://www.barong.test/" + apitest.Prefix + "/identity/providers/one/callback")
	p.Callback("https://barong.test/" + apitest.Prefix + "/identity/providers/one/callback")
	host := strings.TrimPrefix(s.URL, "http://")
	for _, rd := range []string{"/a?b=c#d", "http://" + host + "/a", "https://x.barong.test/a", "https://app.test:8443/"} {
		if to := newBrowser(s).signIn(t, p, "one", rd); to != rd {
			t.Errorf("%s leads to %s", rd, to)
		}
	}
	for _, rd := range []string{
		"https://evil.test/", "//evil.test", `/\evil.test`, "javascript:alert(1)", "https://x.barong.test@evil.test/", "https://app.test/",
		"/a\r\nSet-Cookie: x=y", "/" + strings.Repeat("a", openid.MaxReturn),
	} {
		if to := newBrowser(s).signIn(t, p, "one", rd); to != "/accounts/" {
			t.Errorf("%q leads to %s", rd, to)
		}
	}
	p.Edit(func(answer url.Values) { answer.Del("code"); answer.Set("error", "access_denied") })
	if to := newBrowser(s).signIn(t, p, "one", "/a"); to != "https://login.test/in?error=identity.provider.denied&lang=en&rd=%2Fa#top" {
		t.Errorf("refused leads to %s", to)
	}
	p.Edit(nil)

	// Over https the cookie is one that no other host can set. The front end's own host has the scheme that is configured.
	for _, c := range []struct {
		host    string
		options []apitest.Option
		prefix  string
	}{
		{"www.barong.test", []apitest.Option{apitest.HTTPS()}, "__Host-"},
		{"barong.test", nil, ""},
	} {
		b := newBrowser(s)
		options := append(c.options, apitest.Header("Host", c.host))
		a := b.do(t, "GET", "/identity/providers/one/start", append(options, apitest.Query("rd", "https://"+c.host+"/x"))...)
		cookie := a.SetCookie(c.prefix + cookieName + "_provider")
		if cookie == nil || !cookie.HttpOnly || cookie.SameSite != http.SameSiteLaxMode || cookie.MaxAge != 600 || cookie.Path != "/" ||
			cookie.Domain != "" || cookie.Secure != (c.prefix != "") || len(cookie.Value) > 2000 {
			t.Fatalf("cookies %v", a.Header["Set-Cookie"])
		}
		if a.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("headers %v", a.Header)
		}
		back := p.Visit(t, a.Header.Get("Location"))
		if back.Scheme != "https" || back.Host != c.host {
			t.Errorf("the provider sends back to %s", back)
		}
		if to := b.arrive(t, "one", back.RawQuery, options...); to != "https://"+c.host+"/x" {
			t.Errorf("leads to %s", to)
		}
	}
}
