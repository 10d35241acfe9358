package resource_test

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"barong/api/account"
	"barong/api/identity"
	"barong/api/resource"
	"barong/authz"
	"barong/db"
	"barong/internal/captcha"
	"barong/internal/crypto/passkey/passkeytest"
	"barong/internal/crypto/password"
	"barong/internal/openid"
	"barong/internal/test/apitest"
	"barong/internal/test/openidtest"
)

// public serves what providers send browsers back to, on the stores of e.
func public(t *testing.T, e *apitest.Env) *apitest.Server {
	t.Helper()
	cookies, err := authz.NewCookies(authz.CookieSettings{Name: cookieName})
	if err != nil {
		t.Fatal(err)
	}
	none, err := captcha.New(captcha.Options{Kind: captcha.None})
	if err != nil {
		t.Fatal(err)
	}
	return e.Serve(t, identity.New(identity.Options{
		Accounts: e.Accounts, DB: e.DB, Cookies: cookies, Captcha: none, FileURL: func(key string) string { return key }, Tokens: e.Keys,
		MailToken: apitest.Expect(), JWKS: e.Keys.JWKS, Reload: e.Reload, Entropy: e.Strength.Entropy, Now: e.Clock.Now,
	}).Routes())
}

const providerCookie = cookieName + "_provider"

// A linking is a user's way to a provider and back.
type linking struct{ cookie, back string }

// link begins to link a provider, and comes back from there.
func (b *bench) link(t *testing.T, p *openidtest.Provider, id string, options ...apitest.Option) linking {
	t.Helper()
	a := b.Post(t, "/resource/providers/"+id+"/start", options...).Want(t, 201)
	location, _ := a.Object(t)["location"].(string)
	cookie := a.SetCookie(providerCookie)
	if !strings.HasPrefix(location, p.Issuer+"/authorize?") || cookie == nil || !cookie.HttpOnly || cookie.MaxAge != 600 ||
		cookie.SameSite != http.SameSiteLaxMode || len(a.Keys(t)) != 1 {
		t.Fatalf("answer %s, cookie %v", a.Body, cookie)
	}
	return linking{cookie.Value, p.Visit(t, location).RawQuery}
}

// end returns where the browser goes on to.
func (l linking) end(t *testing.T, s *apitest.Server, id string, options ...apitest.Option) string {
	t.Helper()
	a := s.Get(t, "/identity/providers/"+id+"/callback?"+l.back, append(options, apitest.Cookie(providerCookie, l.cookie))...)
	a.WantBody(t, 302, "")
	if a.SetCookie(cookieName) != nil {
		t.Error("linking opens a session")
	}
	return a.Header.Get("Location")
}

func failed(code string) string { return "/accounts/security?" + url.Values{"error": {code}}.Encode() }

func TestProviders(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		p, q := openidtest.Start(t), openidtest.Start(t)
		e.Providers(p.Config("one", nil), q.Config("two", func(c *openid.Config) { c.Domains = []string{"firm.test"} }))
		s := public(t, e)
		for _, changes := range [][]func(*resource.Options){nil, {legacy}} {
			b := start(t, e, changes...)
			for id, at := range map[string]*openidtest.Provider{"one": p, "two": q} {
				at.Callback(b.URL + "/" + apitest.Prefix + "/identity/providers/" + id + "/callback")
			}
			u := e.NewUser(t, nil)
			b.Get(t, "/resource/providers", apitest.As(u)).WantBody(t, 200, "[]")
			b.Post(t, "/resource/providers/none/start", apitest.As(u)).Want(t, 404, "record.not_found")
			b.Post(t, "/resource/providers/one/start", apitest.As(u), apitest.JSON(map[string]any{"rd": []int{1}})).Want(t, 422, "invalid")
			p.Become(openidtest.Person{Subject: "ann at " + b.URL, Email: "Ann@People.test"}) // that nobody verifies: it is another's sign-in that counts
			e.Mails(t)
			before := len(e.Activities(t))
			if to := b.link(t, p, "one", apitest.As(u), apitest.Form("rd", "/there")).end(t, s, "one"); to != "/there" {
				t.Fatalf("leads to %s", to)
			}
			if kinds := e.MailKinds(t); !slices.Equal(kinds, []string{"provider.linked"}) {
				t.Errorf("mails %q", kinds)
			}
			if rows := e.Activities(t)[before:]; len(rows) != 1 || rows[0].Topic != "session" || rows[0].Action != "provider::create" || rows[0].UserID != u.ID {
				t.Errorf("activities %+v", rows)
			}
			list := b.Get(t, "/resource/providers", apitest.As(u)).Want(t, 200)
			if got := list.List(t); len(got) != 1 || got[0]["id"] != "one" || got[0]["name"] != "Provider one" || got[0]["email"] != "ann@people.test" || got[0]["last_used_at"] != nil {
				t.Errorf("list %s", list.Body)
			}
			// Again: nothing happens.
			if to := b.link(t, p, "one", apitest.As(u)).end(t, s, "one"); to != "/accounts/security" {
				t.Errorf("again leads to %s", to)
			}
			if kinds := e.MailKinds(t); len(kinds) != 0 {
				t.Errorf("mails %q", kinds)
			}
			// It is somebody's; somebody has another one; it is for others.
			other := e.NewUser(t, nil)
			if to := b.link(t, p, "one", apitest.As(other)).end(t, s, "one"); to != failed("resource.provider.taken") {
				t.Errorf("somebody else's leads to %s", to)
			}
			ann := p.Person()
			p.Become(openidtest.Person{Subject: "second " + b.URL, Email: "x@people.test"})
			if to := b.link(t, p, "one", apitest.As(u)).end(t, s, "one"); to != failed("resource.provider.exists") {
				t.Errorf("a second one leads to %s", to)
			}
			if to := b.link(t, q, "two", apitest.As(u)).end(t, s, "two"); to != failed("identity.provider.domain_not_allowed") {
				t.Errorf("a foreign address leads to %s", to)
			}
			// It signs in.
			p.Become(ann)
			a := s.Get(t, "/identity/providers/one/start")
			signing := linking{a.SetCookie(providerCookie).Value, ""}
			p.Callback(s.URL + "/" + apitest.Prefix + "/identity/providers/one/callback")
			signing.back = p.Visit(t, a.Header.Get("Location")).RawQuery
			in := s.Get(t, "/identity/providers/one/callback?"+signing.back, apitest.Cookie(providerCookie, signing.cookie))
			if in.Header.Get("Location") != "/accounts/" || in.SetCookie(cookieName) == nil {
				t.Errorf("sign-in: %v", in.Header)
			}
			if got := b.Get(t, "/resource/providers", apitest.As(u)).List(t); got[0]["last_used_at"] == nil {
				t.Errorf("list %v", got)
			}
			e.Mails(t)
			// Away with it.
			before = len(e.Activities(t))
			b.Delete(t, "/resource/providers/two", apitest.As(u)).Want(t, 404, "record.not_found")
			b.Delete(t, "/resource/providers/one", apitest.As(other)).Want(t, 404, "record.not_found")
			b.Delete(t, "/resource/providers/one", apitest.As(u)).WantBody(t, 204, "")
			if kinds := e.MailKinds(t); !slices.Equal(kinds, []string{"provider.unlinked"}) {
				t.Errorf("mails %q", kinds)
			}
			if rows := e.Activities(t)[before:]; len(rows) != 1 || rows[0].Action != "provider::delete" {
				t.Errorf("activities %+v", rows)
			}
			b.Get(t, "/resource/providers", apitest.As(u)).WantBody(t, 200, "[]")
			mend := q.Break()
			e.Providers(p.Config("one", nil), q.Config("two", nil))
			b.Post(t, "/resource/providers/two/start", apitest.As(u)).Want(t, 503, "identity.provider.unavailable")
			mend()
			e.Providers(p.Config("one", nil), q.Config("two", func(c *openid.Config) { c.Domains = []string{"firm.test"} }))
		}
	})
}

// A link is made for the session and the account that began it, as long as they last.
func TestLinkingEnds(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		p := openidtest.Start(t)
		e.Providers(p.Config("one", nil))
		s, b := public(t, e), start(t, e)
		p.Callback(b.URL + "/" + apitest.Prefix + "/identity/providers/one/callback")
		const flow = "identity.provider.invalid_flow"
		signIn := func(u *db.User) string {
			return s.Post(t, "/identity/sessions", apitest.Form("email", u.Email, "password", apitest.Password)).Want(t, 201).SetCookie(cookieName).Value
		}
		for name, change := range map[string]func(u *db.User, cookie string){
			"a sign-out": func(_ *db.User, cookie string) {
				s.Delete(t, "/identity/sessions", apitest.Cookie(cookieName, cookie)).Want(t, 204)
			},
			"a new password": func(u *db.User, _ string) {
				b.Put(t, "/resource/users/password", apitest.As(u), apitest.Form("old_password", apitest.Password,
					"new_password", apitest.Password+"x", "confirm_password", apitest.Password+"x"))
			},
			"a ban": func(u *db.User, _ string) {
				if err := e.Accounts.Update(t.Context(), func(ctx context.Context, un *account.Unit) error {
					return un.SetState(ctx, u, account.Banned)
				}); err != nil {
					t.Fatal(err)
				}
			},
			"a provider that was taken away": func(*db.User, string) { e.Providers() },
		} {
			e.Providers(p.Config("one", nil))
			u := e.NewUser(t, nil)
			cookie := signIn(u)
			l := b.link(t, p, "one", apitest.As(u), apitest.Cookie(cookieName, cookie))
			change(u, cookie)
			if name == "a provider that was taken away" {
				s.Get(t, "/identity/providers/one/callback?"+l.back, apitest.Cookie(providerCookie, l.cookie)).Want(t, 404, "record.not_found")
			} else if to := l.end(t, s, "one"); to != failed(flow) {
				t.Errorf("after %s it leads to %s", name, to)
			}
			if rows, err := e.DB.Identities(t.Context(), u.ID); err != nil || len(rows) != 0 {
				t.Errorf("after %s linked: %+v, %v", name, rows, err)
			}
		}
		// The answer of somebody else's browser does not link.
		e.Providers(p.Config("one", nil))
		u := e.NewUser(t, nil)
		mine, theirs := b.link(t, p, "one", apitest.As(u)), b.link(t, p, "one", apitest.As(e.NewUser(t, nil)))
		if to := (linking{mine.cookie, theirs.back}).end(t, s, "one"); to != "/accounts/signin?error="+flow {
			t.Errorf("another's answer leads to %s", to)
		}
		p.Edit(func(answer url.Values) { answer.Del("code"); answer.Set("error", "access_denied") })
		if to := b.link(t, p, "one", apitest.As(u)).end(t, s, "one"); to != failed("identity.provider.denied") {
			t.Errorf("a person who said no gets to %s", to)
		}
	})
}

// Nobody locks themselves out.
func TestUnlinkLastWayIn(t *testing.T) {
	t.Parallel()
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		p, q := openidtest.Start(t), openidtest.Start(t)
		e.Providers(p.Config("one", nil), q.Config("two", nil))
		b := start(t, e)
		u := e.NewUser(t, func(u *db.User) { u.PasswordDigest = password.None })
		add := func(issuer, id string) {
			e.Update(t, func(ctx context.Context, tx *db.Tx) error {
				return tx.InsertIdentity(ctx, &db.Identity{UserID: u.ID, Provider: id, Issuer: issuer, Subject: u.UID})
			})
		}
		remove := func(id string) *apitest.Answer { return b.Delete(t, "/resource/providers/"+id, apitest.As(u)) }
		const last = "resource.provider.last_way_in"
		add(p.Issuer, "one")
		remove("one").Want(t, 422, last)
		// One that is no longer configured opens nothing.
		add("https://gone.test", "gone")
		remove("one").Want(t, 422, last)
		if list := b.Get(t, "/resource/providers", apitest.As(u)).List(t); len(list) != 2 || list[1]["id"] != "gone" || list[1]["name"] != "gone" {
			t.Errorf("list %v", list)
		}
		remove("gone").WantBody(t, 204, "")
		add(q.Issuer, "two")
		remove("one").WantBody(t, 204, "")
		remove("two").Want(t, 422, last)
		e.NewPasskey(t, u, passkeytest.Ed25519)
		remove("two").WantBody(t, 204, "")
		add(q.Issuer, "two")
		e.Update(t, func(ctx context.Context, tx *db.Tx) error {
			keys, err := tx.Passkeys(ctx, u.ID)
			if err != nil {
				return err
			}
			return tx.DeletePasskey(ctx, &keys[0])
		})
		remove("two").Want(t, 422, last)
		digest := e.NewUser(t, nil).PasswordDigest
		e.Update(t, func(ctx context.Context, tx *db.Tx) error {
			fresh := *e.Fresh(t, u)
			fresh.PasswordDigest = digest
			return tx.UpdateUser(ctx, &fresh, "password_digest")
		})
		remove("two").WantBody(t, 204, "")
	})
}
