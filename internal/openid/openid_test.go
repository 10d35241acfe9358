package openid_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"barong/internal/crypto/secret"
	"barong/internal/openid"
	"barong/internal/test/openidtest"
)

const callback = "https://barong.test/api/v2/barong/identity/providers/one/callback"

// memory counts in memory.
type memory struct {
	mu   sync.Mutex
	have map[string]bool
	err  error
}

func (m *memory) Take(_ context.Context, key string, _ int, window time.Duration) (time.Duration, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.have[key] {
		return window, m.err
	}
	m.have[key] = true
	return 0, m.err
}

// A world is providers as this program sees them.
type world struct {
	*openid.Providers
	memory *memory
	mu     sync.Mutex
	ahead  time.Duration
}

func newWorld(t *testing.T, list ...openid.Config) *world {
	t.Helper()
	box, err := secret.New(secret.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{memory: &memory{have: map[string]bool{}}}
	w.Providers = openid.New(openid.Options{Providers: list, Sealer: box, Memory: w.memory, Now: func() time.Time {
		w.mu.Lock()
		defer w.mu.Unlock()
		return time.Now().Add(w.ahead)
	}})
	return w
}

// one is a world with a running provider of id "one".
func one(t *testing.T) (*openidtest.Provider, *world) {
	t.Helper()
	p := openidtest.Start(t)
	p.Callback(callback)
	return p, newWorld(t, p.Config("one", nil))
}

func (w *world) begin(t *testing.T, id string) (location, sealed string) {
	t.Helper()
	location, sealed, err := w.Begin(t.Context(), id, openid.Flow{Callback: callback, Return: "/there"})
	if err != nil {
		t.Fatal(err)
	}
	return location, sealed
}

// answer is what a browser brings back.
func answer(u *url.URL) openid.Answer {
	q := u.Query()
	a := openid.Answer{State: q.Get("state"), Code: q.Get("code"), Error: q.Get("error"), Description: q.Get("error_description")}
	if q.Has("iss") {
		issuer := q.Get("iss")
		a.Issuer = &issuer
	}
	return a
}

// signIn goes the whole way.
func (w *world) signIn(t *testing.T, p *openidtest.Provider, id string) (*openid.Identity, *openid.Flow, error) {
	t.Helper()
	location, sealed := w.begin(t, id)
	return w.Finish(t.Context(), id, sealed, answer(p.Visit(t, location)))
}

func want(t *testing.T, err, kind error) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("got %v, want %v", err, kind)
	}
}

func TestSignIn(t *testing.T) {
	t.Parallel()
	p, w := one(t)
	if p.Calls(openidtest.DiscoveryPath) != 0 {
		t.Error("the provider was asked before anybody came")
	}
	location, sealed := w.begin(t, "one")
	u, err := url.Parse(location)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	if !strings.HasPrefix(location, p.Issuer+"/authorize?") || q.Get("response_type") != "code" || q.Get("client_id") != p.ClientID ||
		q.Get("redirect_uri") != callback || q.Get("scope") != "openid email profile" || q.Get("code_challenge_method") != "S256" ||
		len(q.Get("code_challenge")) != 43 || len(q.Get("state")) < 26 || len(q.Get("nonce")) < 26 || q.Get("state") == q.Get("nonce") {
		t.Errorf("the browser goes to %s", location)
	}
	for _, hidden := range []string{q.Get("state"), q.Get("nonce"), "/there"} {
		if strings.Contains(sealed, hidden) {
			t.Errorf("the cookie shows %s", hidden)
		}
	}
	back := answer(p.Visit(t, location))
	who, flow, err := w.Finish(t.Context(), "one", sealed, back)
	if err != nil {
		t.Fatal(err)
	}
	here := p.Person()
	if *who != (openid.Identity{Provider: "one", Issuer: p.Issuer, Subject: here.Subject, Email: here.Email, Verified: true}) {
		t.Errorf("it is %+v", who)
	}
	if flow.Return != "/there" || flow.Callback != callback || flow.UID != "" {
		t.Errorf("flow %+v", flow)
	}
	if p.Calls(openidtest.UserInfoPath) != 0 {
		t.Error("the provider was asked for what it had told")
	}
	_, flow, err = w.Finish(t.Context(), "one", sealed, back)
	want(t, err, openid.ErrFlow)
	if flow != nil {
		t.Error("a flow that was used says where it leads")
	}
	if n := p.Calls(openidtest.TokenPath); n != 1 {
		t.Errorf("a flow that was used has the provider asked: %d calls", n)
	}
	// What the provider says, and its keys, are asked for once.
	if _, _, err := w.signIn(t, p, "one"); err != nil {
		t.Fatal(err)
	}
	if d, k := p.Calls(openidtest.DiscoveryPath), p.Calls(openidtest.KeysPath); d != 1 || k != 1 {
		t.Errorf("%d discoveries, %d times the keys", d, k)
	}
	if _, _, err := w.Begin(t.Context(), "two", openid.Flow{}); !errors.Is(err, openid.ErrUnknown) {
		t.Errorf("an unknown provider: %v", err)
	}
	if _, _, err := w.Finish(t.Context(), "two", sealed, back); !errors.Is(err, openid.ErrUnknown) {
		t.Errorf("an unknown provider: %v", err)
	}
}

// Providers may tell the address in the ID token or on request.
func TestUserInfo(t *testing.T) {
	t.Parallel()
	p, w := one(t)
	p.TellOnRequest("")
	who, _, err := w.signIn(t, p, "one")
	if err != nil || who.Email != p.Person().Email || !who.Verified {
		t.Fatalf("it is %+v, %v", who, err)
	}
	p.TellOnRequest("somebody else")
	_, _, err = w.signIn(t, p, "one")
	want(t, err, openid.ErrToken)
	p.TellOnRequest("")
	p.Intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == openidtest.UserInfoPath {
			http.Error(rw, "no", http.StatusBadGateway)
			return true
		}
		return false
	})
	_, _, err = w.signIn(t, p, "one")
	want(t, err, openid.ErrUnavailable)
	p.Intercept(nil)
	p.Become(openidtest.Person{Subject: "x"})
	if who, _, err = w.signIn(t, p, "one"); err != nil || who.Email != "" || who.Verified {
		t.Errorf("without an address: %+v, %v", who, err)
	}
}

// An ID token counts only when all about it is right.
func TestTokens(t *testing.T) {
	t.Parallel()
	p, w := one(t)
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(p.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	now := time.Now().Unix()
	for name, spoil := range map[string]func(c map[string]any, s *openidtest.Sign){
		"another nonce":    func(c map[string]any, _ *openidtest.Sign) { c["nonce"] = "x" },
		"no nonce":         func(c map[string]any, _ *openidtest.Sign) { delete(c, "nonce") },
		"another audience": func(c map[string]any, _ *openidtest.Sign) { c["aud"] = []string{"another client"} },
		"no audience":      func(c map[string]any, _ *openidtest.Sign) { delete(c, "aud") },
		"a second audience": func(c map[string]any, _ *openidtest.Sign) {
			c["aud"] = []string{p.ClientID, "another"}
			delete(c, "azp")
		},
		"issued to another":          func(c map[string]any, _ *openidtest.Sign) { c["azp"] = "another client" },
		"another issuer":             func(c map[string]any, _ *openidtest.Sign) { c["iss"] = "https://issuer.test" },
		"the issuer with a slash":    func(c map[string]any, _ *openidtest.Sign) { c["iss"] = p.Issuer + "/" },
		"expired":                    func(c map[string]any, _ *openidtest.Sign) { c["exp"] = now - 60 },
		"without an end":             func(c map[string]any, _ *openidtest.Sign) { delete(c, "exp") },
		"not yet":                    func(c map[string]any, _ *openidtest.Sign) { c["nbf"] = now + 3600 },
		"issued tomorrow":            func(c map[string]any, _ *openidtest.Sign) { c["iat"] = now + 86400; c["exp"] = now + 90000 },
		"no subject":                 func(c map[string]any, _ *openidtest.Sign) { delete(c, "sub") },
		"an endless subject":         func(c map[string]any, _ *openidtest.Sign) { c["sub"] = strings.Repeat("x", 256) },
		"a subject with a zero byte": func(c map[string]any, _ *openidtest.Sign) { c["sub"] = "a\x00b" },
		"another access token":       func(c map[string]any, _ *openidtest.Sign) { c["at_hash"] = "AAAAAAAAAAAAAAAAAAAAAA" },
		"unsigned":                   func(_ map[string]any, s *openidtest.Sign) { s.Algorithm = "none" },
		"with the client's secret": func(_ map[string]any, s *openidtest.Sign) {
			s.Algorithm, s.Key = "HS256", bytes.Repeat([]byte(p.ClientSecret), 2)
		},
		"with the public key as secret": func(_ map[string]any, s *openidtest.Sign) { s.Algorithm, s.Key = "HS256", public },
		"with a stranger's key":         func(_ map[string]any, s *openidtest.Sign) { s.Key = stranger },
		"with a stranger's key and id":  func(_ map[string]any, s *openidtest.Sign) { s.Key, s.KeyID = stranger, "mine" },
		"with a stranger's nameless key": func(_ map[string]any, s *openidtest.Sign) {
			s.Key, s.KeyID = stranger, ""
		},
	} {
		p.Spoil(spoil)
		_, flow, err := w.signIn(t, p, "one")
		if !errors.Is(err, openid.ErrToken) || flow == nil || flow.Return != "/there" {
			t.Errorf("%s: %v, flow %v", name, err, flow)
		}
	}
	for name, spoil := range map[string]func(c map[string]any, s *openidtest.Sign){
		"its own": func(map[string]any, *openidtest.Sign) {},
		"two audiences": func(c map[string]any, _ *openidtest.Sign) {
			c["aud"] = []string{p.ClientID, "another"}
			c["azp"] = p.ClientID
		},
		"verified as a text":  func(c map[string]any, _ *openidtest.Sign) { c["email_verified"] = "true" },
		"a key without name":  func(_ map[string]any, s *openidtest.Sign) { s.KeyID = "" },
		"one audience":        func(c map[string]any, _ *openidtest.Sign) { c["aud"] = p.ClientID; delete(c, "azp") },
		"without access hash": func(c map[string]any, _ *openidtest.Sign) { delete(c, "at_hash") },
	} {
		p.Spoil(spoil)
		if who, _, err := w.signIn(t, p, "one"); err != nil || !who.Verified || who.Subject != p.Person().Subject {
			t.Errorf("%s: %+v, %v", name, who, err)
		}
	}
	for _, verified := range []any{false, "false", "yes", 1, nil, []bool{true}} {
		p.Spoil(func(c map[string]any, _ *openidtest.Sign) { c["email_verified"] = verified })
		if who, _, err := w.signIn(t, p, "one"); err != nil || who.Verified {
			t.Errorf("email_verified %v: %+v, %v", verified, who, err)
		}
	}
	p.Spoil(func(c map[string]any, _ *openidtest.Sign) { c["email"] = "a\nb@people.test" })
	if who, _, err := w.signIn(t, p, "one"); err != nil || strings.ContainsAny(who.Email, "\n") {
		t.Errorf("an address with a line break: %+v, %v", who, err)
	}
	p.Spoil(nil)
	p.Intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == openidtest.TokenPath {
			rw.Header().Set("Content-Type", "application/json")
			_, _ = rw.Write([]byte(`{"access_token":"x","token_type":"Bearer"}`))
			return true
		}
		return false
	})
	_, _, err = w.signIn(t, p, "one")
	want(t, err, openid.ErrToken)
}

// A return counts only in the browser that has left, once, in time, and from whom it had gone to.
// TestReplace: others take the place of the providers there are. Who is under way to one that stays comes back, whoever is under
// way to one that is another now does not.
func TestReplace(t *testing.T) {
	t.Parallel()
	p, q := openidtest.Start(t), openidtest.Start(t)
	p.Callback(callback)
	q.Callback(callback)
	one, two := p.Config("one", nil), q.Config("two", nil)
	w := newWorld(t, one, two)
	location, sealed := w.begin(t, "one")
	back := answer(p.Visit(t, location))
	elsewhere, lost := w.begin(t, "two")
	gone := answer(q.Visit(t, elsewhere))
	if w.Replace([]openid.Config{one, two}) {
		t.Error("the same providers are others")
	}
	other := two
	other.Issuer = "https://other.example"
	if !w.Replace([]openid.Config{other, one}) {
		t.Error("other providers are the same")
	}
	if all := w.All(); len(all) != 2 || all[0].Issuer != other.Issuer || all[1].ID != "one" {
		t.Errorf("providers %+v", all)
	}
	if who, _, err := w.Finish(t.Context(), "one", sealed, back); err != nil || who.Issuer != one.Issuer {
		t.Errorf("back from one that stays: %+v, %v", who, err)
	}
	if _, _, err := w.Finish(t.Context(), "two", lost, gone); !errors.Is(err, openid.ErrFlow) {
		t.Errorf("back from one that is another now: %v", err)
	}
	if w.Replace(nil); len(w.All()) != 0 {
		t.Errorf("providers %+v", w.All())
	}
	if _, _, err := w.Begin(t.Context(), "one", openid.Flow{Callback: callback}); !errors.Is(err, openid.ErrUnknown) {
		t.Errorf("one that is gone: %v", err)
	}
}

func TestFlows(t *testing.T) {
	t.Parallel()
	p, q := openidtest.Start(t), openidtest.Start(t)
	p.Callback(callback)
	q.Callback(callback)
	w := newWorld(t, p.Config("one", nil), q.Config("two", nil))
	refused := func(name, id, sealed string, a openid.Answer) {
		t.Helper()
		if _, flow, err := w.Finish(t.Context(), id, sealed, a); !errors.Is(err, openid.ErrFlow) || flow != nil {
			t.Errorf("%s: %v, flow %v", name, err, flow)
		}
	}
	location, sealed := w.begin(t, "one")
	back := answer(p.Visit(t, location))
	_, other := w.begin(t, "one")
	changed := back
	changed.State = back.State[:len(back.State)-1] + "_"
	refused("another state", "one", sealed, changed)
	changed.State = ""
	refused("no state", "one", sealed, changed)
	refused("another browser", "one", other, back)
	refused("a browser without cookie", "one", "", back)
	refused("a cookie of somebody's making", "one", "s1.00000000.AAAA", back)
	refused("an endless cookie", "one", strings.Repeat("x", 1<<20), back)
	refused("a changed cookie", "one", sealed[:len(sealed)-2]+"AA", back)
	refused("the other provider", "two", sealed, back)
	pending, err := w.Suspend(openid.Pending{UID: "ID1"})
	if err != nil {
		t.Fatal(err)
	}
	refused("a sign-in that waits for a code", "one", pending, back)
	if _, _, err := w.Resume(sealed); !errors.Is(err, openid.ErrFlow) {
		t.Errorf("a flow as a sign-in that waits for a code: %v", err)
	}
	if n := p.Calls(openidtest.TokenPath) + q.Calls(openidtest.TokenPath); n != 0 {
		t.Errorf("the providers were asked %d times", n)
	}
	if _, _, err := w.Finish(t.Context(), "one", sealed, back); err != nil {
		t.Errorf("after all that in vain: %v", err)
	}

	// Expired.
	location, sealed = w.begin(t, "one")
	back = answer(p.Visit(t, location))
	w.ahead = openid.FlowLife
	refused("too late", "one", sealed, back)
	w.ahead = 0
	if _, _, err := w.Finish(t.Context(), "one", sealed, back); err != nil {
		t.Errorf("in time: %v", err)
	}

	// The code of somebody else's sign-in, in one's own flow: PKCE.
	location, _ = w.begin(t, "one")
	stolen := answer(p.Visit(t, location))
	location, sealed = w.begin(t, "one")
	mine := answer(p.Visit(t, location))
	mine.Code = stolen.Code
	if _, flow, err := w.Finish(t.Context(), "one", sealed, mine); !errors.Is(err, openid.ErrFlow) || flow == nil {
		t.Errorf("somebody else's code: %v", err)
	}
	// A code of the other provider.
	location, _ = w.begin(t, "two")
	stolen = answer(q.Visit(t, location))
	location, sealed = w.begin(t, "one")
	mine = answer(p.Visit(t, location))
	mine.Code = stolen.Code
	if _, _, err := w.Finish(t.Context(), "one", sealed, mine); !errors.Is(err, openid.ErrFlow) {
		t.Errorf("another provider's code: %v", err)
	}
	// No code, and one that is too long to be one.
	for _, code := range []string{"", strings.Repeat("c", 10<<10)} {
		location, sealed = w.begin(t, "one")
		mine = answer(p.Visit(t, location))
		mine.Code = code
		if _, _, err := w.Finish(t.Context(), "one", sealed, mine); !errors.Is(err, openid.ErrFlow) {
			t.Errorf("a code of %d bytes: %v", len(code), err)
		}
	}

	// Of two that are fast only one gets in.
	location, sealed = w.begin(t, "one")
	back = answer(p.Visit(t, location))
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		wg.Go(func() { _, _, errs[i] = w.Finish(t.Context(), "one", sealed, back) })
	}
	wg.Wait()
	in := 0
	for _, err := range errs {
		if err == nil {
			in++
		} else if !errors.Is(err, openid.ErrFlow) {
			t.Errorf("a parallel return: %v", err)
		}
	}
	if in != 1 {
		t.Errorf("%d of four parallel returns got in", in)
	}

	// What cannot be remembered is refused.
	location, sealed = w.begin(t, "one")
	back = answer(p.Visit(t, location))
	down := errors.New("down")
	w.memory.err = down
	_, _, err = w.Finish(t.Context(), "one", sealed, back)
	want(t, err, down)
}

// RFC 9207: an answer says whose it is, and who promises that does.
func TestIssuer(t *testing.T) {
	t.Parallel()
	p := openidtest.Start(t)
	p.Callback(callback)
	promise := func(document map[string]any) { document["authorization_response_iss_parameter_supported"] = true }
	for _, c := range []struct {
		name     string
		promises bool
		issuer   string
		ok       bool
	}{
		{"silent", false, "", true},
		{"its own", false, p.Issuer, true},
		{"another's", false, "https://issuer.test", false},
		{"its own, promised", true, p.Issuer, true},
		{"silent, against the promise", true, "", false},
		{"another's, promised", true, p.Issuer + "/", false},
	} {
		p.Says(nil)
		if c.promises {
			p.Says(promise)
		}
		p.Edit(func(answer url.Values) {
			if c.issuer != "" {
				answer.Set("iss", c.issuer)
			}
		})
		w := newWorld(t, p.Config("one", nil))
		before := p.Calls(openidtest.TokenPath)
		_, _, err := w.signIn(t, p, "one")
		switch {
		case c.ok && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case !c.ok && !errors.Is(err, openid.ErrFlow):
			t.Errorf("%s: %v", c.name, err)
		case !c.ok && p.Calls(openidtest.TokenPath) != before:
			t.Errorf("%s: the code went to the provider", c.name)
		}
	}
}

func TestDenied(t *testing.T) {
	t.Parallel()
	p, w := one(t)
	for code, kind := range map[string]error{
		"access_denied": openid.ErrDenied, "login_required": openid.ErrDenied, "invalid_scope": openid.ErrDenied,
		"server_error": openid.ErrUnavailable, "temporarily_unavailable": openid.ErrUnavailable,
	} {
		p.Edit(func(answer url.Values) {
			answer.Del("code")
			answer.Set("error", code)
			answer.Set("error_description", "because\r\nof this")
		})
		_, flow, err := w.signIn(t, p, "one")
		want(t, err, kind)
		if flow == nil || strings.ContainsAny(err.Error(), "\r\n") {
			t.Errorf("%s: %q, flow %v", code, err, flow)
		}
	}
	if n := p.Calls(openidtest.TokenPath); n != 0 {
		t.Errorf("the provider was asked %d times", n)
	}
}

// A provider that is down costs only itself, and only until it is up again.
func TestDown(t *testing.T) {
	t.Parallel()
	p, q := openidtest.Start(t), openidtest.Start(t)
	p.Callback(callback)
	q.Callback(callback)
	w := newWorld(t, p.Config("one", nil), q.Config("two", nil))
	w.Hurry(0, 0, time.Hour)
	mend := p.Break()
	for range 3 {
		_, _, err := w.Begin(t.Context(), "one", openid.Flow{Callback: callback})
		want(t, err, openid.ErrUnavailable)
	}
	if n := p.Calls(openidtest.DiscoveryPath); n == 0 || n > 2 { // the client tries a broken connection again
		t.Errorf("it was asked %d times", n)
	}
	if _, _, err := w.signIn(t, q, "two"); err != nil {
		t.Errorf("the other one: %v", err)
	}
	mend()
	_, _, err := w.Begin(t.Context(), "one", openid.Flow{Callback: callback})
	want(t, err, openid.ErrUnavailable)
	w.Hurry(0, 0, time.Nanosecond)
	if _, _, err := w.signIn(t, p, "one"); err != nil {
		t.Errorf("up again: %v", err)
	}
	// Down in the middle.
	location, sealed := w.begin(t, "one")
	back := answer(p.Visit(t, location))
	mend = p.Break()
	_, flow, err := w.Finish(t.Context(), "one", sealed, back)
	want(t, err, openid.ErrUnavailable)
	if flow == nil {
		t.Error("no way back")
	}
	// What it had said before holds for a while, and is asked for in the background.
	w.Hurry(time.Nanosecond, 0, time.Nanosecond)
	w.begin(t, "one")
	w.Hurry(0, time.Nanosecond, 0)
	_, _, err = w.Begin(t.Context(), "one", openid.Flow{Callback: callback})
	want(t, err, openid.ErrUnavailable)
	mend()
}

// One that is slow holds nobody up but those who want to go there, for a bounded time and in a bounded number.
func TestSlow(t *testing.T) {
	t.Parallel()
	p, q := openidtest.Start(t), openidtest.Start(t)
	p.Callback(callback)
	q.Callback(callback)
	w := newWorld(t, p.Config("one", nil), q.Config("two", nil))
	mend := p.Hang(openidtest.DiscoveryPath)
	began := make(chan error, 10)
	for range cap(began) {
		go func() {
			_, _, err := w.Begin(t.Context(), "one", openid.Flow{Callback: callback})
			began <- err
		}()
	}
	for p.Calls(openidtest.DiscoveryPath) == 0 {
		time.Sleep(time.Millisecond)
	}
	if _, _, err := w.signIn(t, q, "two"); err != nil {
		t.Errorf("the other one: %v", err)
	}
	impatient, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, _, err := w.Begin(impatient, "one", openid.Flow{Callback: callback})
	want(t, err, openid.ErrUnavailable)
	for range cap(began) {
		want(t, <-began, openid.ErrUnavailable) // after the five seconds that one call may take
	}
	if n := p.Calls(openidtest.DiscoveryPath); n != 1 {
		t.Errorf("ten who wait have it asked %d times", n)
	}
	mend()

	// Slow at the end of flows.
	w = newWorld(t, p.Config("one", nil), q.Config("two", nil))
	type departure struct {
		sealed string
		back   openid.Answer
	}
	var gone []departure
	for range openid.Parallel + 1 {
		location, sealed := w.begin(t, "one")
		gone = append(gone, departure{sealed, answer(p.Visit(t, location))})
	}
	mend = p.Hang(openidtest.TokenPath)
	ended := make(chan error, openid.Parallel)
	for _, d := range gone[:openid.Parallel] {
		go func() {
			_, _, err := w.Finish(t.Context(), "one", d.sealed, d.back)
			ended <- err
		}()
	}
	for p.Calls(openidtest.TokenPath) < openid.Parallel {
		time.Sleep(time.Millisecond)
	}
	last := gone[openid.Parallel]
	_, _, err = w.Finish(t.Context(), "one", last.sealed, last.back)
	if !errors.Is(err, openid.ErrUnavailable) || len(ended) > 0 {
		t.Errorf("one too many: %v, while %d have ended", err, len(ended))
	}
	if _, _, err := w.signIn(t, q, "two"); err != nil {
		t.Errorf("the other one: %v", err)
	}
	mend()
	for range openid.Parallel {
		<-ended // by an error, or not, as the server was let go in time
	}
	if _, _, err := w.signIn(t, p, "one"); err != nil {
		t.Errorf("fast again: %v", err)
	}
}

// New keys are fetched when they are first met, and old ones are forgotten with them.
func TestRotation(t *testing.T) {
	t.Parallel()
	p, w := one(t)
	for range 2 {
		if _, _, err := w.signIn(t, p, "one"); err != nil {
			t.Fatal(err)
		}
		p.Rotate()
	}
	if _, _, err := w.signIn(t, p, "one"); err != nil {
		t.Fatal(err)
	}
	if n := p.Calls(openidtest.KeysPath); n != 3 {
		t.Errorf("keys were fetched %d times for three", n)
	}
	p.Rotate()
	p.Intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == openidtest.KeysPath {
			http.Error(rw, "no", http.StatusServiceUnavailable)
			return true
		}
		return false
	})
	_, _, err := w.signIn(t, p, "one")
	want(t, err, openid.ErrUnavailable)
}

// What a provider says about itself must make sense.
func TestDiscovery(t *testing.T) {
	t.Parallel()
	p := openidtest.Start(t)
	p.Callback(callback)
	for name, says := range map[string]func(document map[string]any){
		"another issuer":         func(d map[string]any) { d["issuer"] = "https://issuer.test" },
		"a token endpoint apart": func(d map[string]any) { d["token_endpoint"] = "http://192.0.2.1/token" },
		"no keys":                func(d map[string]any) { delete(d, "jwks_uri") },
		"a script":               func(d map[string]any) { d["authorization_endpoint"] = "javascript:alert(1)" },
		"secrets alone":          func(d map[string]any) { d["id_token_signing_alg_values_supported"] = []string{"HS256", "none"} },
		"an endless text":        func(d map[string]any) { d["x"] = strings.Repeat("x", 2<<20) },
	} {
		p.Says(says)
		w := newWorld(t, p.Config("one", nil))
		_, _, err := w.Begin(t.Context(), "one", openid.Flow{Callback: callback})
		if !errors.Is(err, openid.ErrUnavailable) || len(err.Error()) > 1000 {
			t.Errorf("%s: %.2000v", name, err)
		}
		if err := w.Probe(t.Context(), "one"); err == nil {
			t.Errorf("%s: nothing wrong with it", name)
		}
	}
	// The secret goes the way that it takes.
	for _, methods := range [][]string{{"client_secret_post"}, {"client_secret_basic"}, nil} {
		p.Says(func(d map[string]any) { d["token_endpoint_auth_methods_supported"] = methods })
		var basic bool
		p.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == openidtest.TokenPath {
				_, _, basic = r.BasicAuth()
			}
			return false
		})
		w := newWorld(t, p.Config("one", nil))
		_, _, err := w.signIn(t, p, "one")
		post := len(methods) > 0 && methods[0] == "client_secret_post"
		if basic == post || !post && err != nil {
			t.Errorf("%q: basic %v, %v", methods, basic, err)
		}
	}
	// Moved elsewhere.
	p.Says(nil)
	p.Intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		http.Redirect(rw, r, "http://127.0.0.1:1/", http.StatusFound)
		return true
	})
	w := newWorld(t, p.Config("one", nil))
	_, _, err := w.Begin(t.Context(), "one", openid.Flow{Callback: callback})
	want(t, err, openid.ErrUnavailable)
}

func TestPending(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	x := openid.Pending{Identity: openid.Identity{Provider: "one", Issuer: "https://i.test", Subject: "s", Email: "a@b.test", Verified: true}, UID: "ID1", Epoch: 7}
	sealed, err := w.Suspend(x)
	if err != nil {
		t.Fatal(err)
	}
	got, use, err := w.Resume(sealed)
	if err != nil || *got != x {
		t.Fatalf("%+v, %v", got, err)
	}
	if err := use(t.Context()); err != nil {
		t.Error(err)
	}
	want(t, use(t.Context()), openid.ErrFlow)
	w.ahead = openid.PendingLife
	_, _, err = w.Resume(sealed)
	want(t, err, openid.ErrFlow)
}

func TestParseConfig(t *testing.T) {
	t.Parallel()
	files := map[string]string{"secret": " from a file\n", "empty": "\n"}
	read := func(name string) ([]byte, error) {
		text, ok := files[name]
		if !ok {
			return nil, errors.New("no such file")
		}
		return []byte(text), nil
	}
	getenv := func(name string) (string, bool) { return "of " + name, name == "SECRET" }
	list, warnings, err := openid.ParseConfig([]byte(`
- id: one
  issuer: https://one.test
  client_id: barong
  client_secret: <%= ENV["SECRET"] %>
- id: two-2
  name: Two
  issuer: https://two.test/realms/x
  client_id: 17
  client_secret_file: secret
  scopes: profile
  sign_up: true
  domains: [Two.test, "@bücher.example"]
  trust_email: true
  colour: red
- {id: three, issuer: "http://127.0.0.1:9999", client_id: c, scopes: [openid, email], domains: a.test b.test}
`), getenv, read)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range []openid.Config{
		{ID: "one", Name: "one", Issuer: "https://one.test", ClientID: "barong", ClientSecret: "of SECRET", Scopes: []string{"openid", "email", "profile"}},
		{
			ID: "two-2", Name: "Two", Issuer: "https://two.test/realms/x", ClientID: "17", ClientSecret: "from a file",
			Scopes: []string{"openid", "profile"}, SignUp: true, Domains: []string{"two.test", "xn--bcher-kva.example"}, TrustEmail: true,
		},
		{ID: "three", Name: "three", Issuer: "http://127.0.0.1:9999", ClientID: "c", Scopes: []string{"openid", "email"}, Domains: []string{"a.test", "b.test"}},
	} {
		if i >= len(list) || show(list[i]) != show(c) {
			t.Errorf("got %+v, want %+v", list, c)
		}
	}
	if len(warnings) != 2 || !strings.Contains(warnings[0], "colour has no effect") || !strings.Contains(warnings[1], "two-2: scopes without email") {
		t.Errorf("warnings %q", warnings)
	}
	for _, empty := range []string{"", "# nothing\n", "[]", "{}"} {
		if list, _, err := openid.ParseConfig([]byte(empty), nil, read); err != nil || len(list) != 0 {
			t.Errorf("%q: %v, %v", empty, list, err)
		}
	}
	good := "id: one, issuer: 'https://one.test', client_id: c"
	for text, words := range map[string]string{
		"id: one":                            "want a list",
		"- one":                              "line 1: want a mapping",
		"- {" + good + ", signup: true}":     "unknown key signup: sign_up is meant",
		"- {" + good + ", trust_mail: true}": "unknown key trust_mail: trust_email is meant",
		"- {" + good + ", sign_up: perhaps}": "cannot unmarshal",
		"- {id: One, issuer: 'https://one.test', client_id: c}":                   "id: want",
		"- {id: a/b, issuer: 'https://one.test', client_id: c}":                   "id: want",
		"- {issuer: 'https://one.test', client_id: c}":                            "id: want",
		"- {id: one, client_id: c}":                                               "one: issuer: want an https address",
		"- {id: one, issuer: 'http://one.test', client_id: c}":                    "one: issuer: want https",
		"- {id: one, issuer: 'https://one.test?x=1', client_id: c}":               "without query",
		"- {id: one, issuer: 'https://u@one.test', client_id: c}":                 "issuer",
		"- {id: one, issuer: 'https://one.test'}":                                 "client_id: missing",
		"- {" + good + ", client_secret: a, client_secret_file: secret}":          "one of them is too much",
		"- {" + good + ", client_secret_file: none}":                              "client_secret_file: no such file",
		"- {" + good + ", client_secret_file: empty}":                             "there is nothing in it",
		"- {" + good + ", domains: [localhost]}":                                  "no domain of addresses",
		"- {" + good + ", domains: ['*.test']}":                                   "no domain of addresses",
		"- {" + good + ", name: '" + strings.Repeat("n", 65) + "'}":               "name: more than 64",
		"- {" + good + "}\n- {id: one, issuer: 'https://two.test', client_id: c}": "line 2: two providers have the id one",
		"- {" + good + "}\n- {id: two, issuer: 'https://one.test', client_id: d}": "one and two have the same issuer",
		"- {" + good + ", client_secret: <%= `id` %>}":                            "templates",
		strings.Repeat("- {"+good+"}\n", 51):                                      "more than 50 providers",
		strings.Repeat("#", 2<<20):                                                "larger than",
	} {
		_, _, err := openid.ParseConfig([]byte(text), nil, read)
		if err == nil || !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), "openid.") {
			t.Errorf("%.100s: got %v, want %s", text, err, words)
		}
	}
}

// show is a configuration as text, its secret in clear.
func show(c openid.Config) string {
	text, err := json.Marshal(struct {
		openid.Config
		Secret string
	}{c, c.ClientSecret.Reveal()})
	if err != nil {
		return err.Error()
	}
	return string(text)
}
