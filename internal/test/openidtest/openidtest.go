// Package openidtest runs providers of OpenID Connect for tests: zitadel's own server, with one person at a time who says yes
// to everything, and a switch for each thing that goes wrong at providers.
//
// Only tests import it. Servers end with their test.
package openidtest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
	"golang.org/x/text/language"

	"barong/internal/crypto/secret"
	"barong/internal/openid"
)

// A Person is who is signed in at a provider.
type Person struct {
	Subject, Email string
	Verified       bool
}

// A Sign is how an ID token is signed.
type Sign struct {
	Algorithm string // "none" for none
	Key       any    // private, or the bytes of a shared secret
	KeyID     string
}

// A Provider is a running provider with one client.
type Provider struct {
	Issuer, ClientID, ClientSecret string

	op     http.Handler
	store  *store
	server *httptest.Server
	calls  sync.Map // path to *atomic.Int64

	mu          sync.Mutex
	person      Person
	callbacks   []string
	key         *signingKey
	spoil       func(claims map[string]any, sign *Sign)
	says        func(document map[string]any)
	edit        func(answer url.Values)
	intercept   func(w http.ResponseWriter, r *http.Request) bool
	inToken     bool // the claims about the person stand in the ID token
	infoSubject string
}

// Start starts a provider, where somebody with a verified address is signed in.
func Start(t testing.TB) *Provider {
	t.Helper()
	p := &Provider{
		ClientID: "barong at " + rand.Text()[:6], ClientSecret: "s:/+% " + rand.Text(), inToken: true,
		person: Person{Subject: rand.Text(), Email: strings.ToLower(rand.Text()[:8]) + "@people.test", Verified: true},
	}
	p.Rotate()
	p.store = &store{p: p, requests: map[string]*request{}, codes: map[string]string{}}
	p.server = httptest.NewServer(http.HandlerFunc(p.serve))
	t.Cleanup(func() {
		p.server.CloseClientConnections()
		p.server.Close()
	})
	p.Issuer = p.server.URL
	var err error
	p.op, err = op.NewProvider(&op.Config{
		CryptoKey: [32]byte([]byte(rand.Text() + rand.Text())[:32]), CodeMethodS256: true,
		SupportedUILocales: []language.Tag{language.English},
	}, p.store, op.StaticIssuer(p.Issuer), op.WithAllowInsecure())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Config is how the provider is configured, under an id.
func (p *Provider) Config(id string, change func(*openid.Config)) openid.Config {
	c := openid.Config{
		ID: id, Name: "Provider " + id, Issuer: p.Issuer, ClientID: p.ClientID, ClientSecret: secret.Text(p.ClientSecret),
		Scopes: []string{"openid", "email", "profile"},
	}
	if change != nil {
		change(&c)
	}
	return c
}

// Callback says where the provider sends people back to.
func (p *Provider) Callback(address string) {
	p.set(func() { p.callbacks = append(p.callbacks, address) })
}

func (p *Provider) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

// Person is who is signed in at the provider; Become makes it somebody else.
func (p *Provider) Person() Person {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.person
}

// Become makes somebody else the one who is signed in.
func (p *Provider) Become(who Person) { p.set(func() { p.person = who }) }

// Rotate gives the provider a new key. The old ones are told no more.
func (p *Provider) Rotate() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic("openidtest: " + err.Error())
	}
	p.set(func() { p.key = &signingKey{id: rand.Text(), key: key} })
}

// PublicKey is the key that everybody can fetch.
func (p *Provider) PublicKey() crypto.PublicKey {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.key.key.Public()
}

// Spoil changes ID tokens before they are signed, and how they are; nil ends it.
func (p *Provider) Spoil(f func(claims map[string]any, sign *Sign)) { p.set(func() { p.spoil = f }) }

// Says changes what the provider says about itself; nil ends it.
func (p *Provider) Says(f func(document map[string]any)) { p.set(func() { p.says = f }) }

// Edit changes the answer that browsers bring back; nil ends it.
func (p *Provider) Edit(f func(answer url.Values)) { p.set(func() { p.edit = f }) }

// Intercept has a function answer the requests for which it returns true; nil ends it.
func (p *Provider) Intercept(f func(w http.ResponseWriter, r *http.Request) bool) {
	p.set(func() { p.intercept = f })
}

// TellOnRequest has the claims about the person stand in the answer of userinfo alone, which is about that subject.
func (p *Provider) TellOnRequest(subject string) {
	p.set(func() { p.inToken, p.infoSubject = false, subject })
}

// Break has the provider close every connection without an answer, until it is mended.
func (p *Provider) Break() (mend func()) {
	p.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			conn.Close()
		}
		return true
	})
	return func() { p.Intercept(nil) }
}

// Hang has the provider answer nothing below a path for as long as the client waits, until it is mended.
func (p *Provider) Hang(path string) (mend func()) {
	over := make(chan struct{})
	p.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, path) {
			return false
		}
		_, _ = io.Copy(io.Discard, r.Body) // only then the server notices that the client is gone
		select {
		case <-r.Context().Done():
		case <-over:
		}
		return true
	})
	return sync.OnceFunc(func() {
		close(over)
		p.Intercept(nil)
	})
}

// Calls is how often a path was asked for.
func (p *Provider) Calls(path string) int {
	n, ok := p.calls.Load(path)
	if !ok {
		return 0
	}
	return int(n.(*atomic.Int64).Load())
}

// Paths of the provider.
const (
	DiscoveryPath = "/.well-known/openid-configuration"
	KeysPath      = "/keys"
	TokenPath     = "/oauth/token"
	UserInfoPath  = "/userinfo"
)

// Visit goes where a browser was sent, as the person who is signed in there, and returns where it is sent back to.
func (p *Provider) Visit(t testing.TB, location string) *url.URL {
	t.Helper()
	client := &http.Client{
		Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	for range 5 {
		if !strings.HasPrefix(location, p.Issuer+"/") {
			u, err := url.Parse(location)
			if err != nil {
				t.Fatal(err)
			}
			return u
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, location, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		next, err := answer.Location()
		if err != nil {
			t.Fatalf("the provider answers %d %s to %s", answer.StatusCode, text, location)
		}
		location = next.String()
	}
	t.Fatal("the provider sends the browser in circles")
	return nil
}

func (p *Provider) serve(w http.ResponseWriter, r *http.Request) {
	n, _ := p.calls.LoadOrStore(r.URL.Path, new(atomic.Int64))
	n.(*atomic.Int64).Add(1)
	p.mu.Lock()
	intercept, says, spoil, edit := p.intercept, p.says, p.spoil, p.edit
	p.mu.Unlock()
	switch {
	case intercept != nil && intercept(w, r):
	case r.URL.Path == "/login":
		p.store.login(r.URL.Query().Get("id"))
		http.Redirect(w, r, "/authorize/callback?id="+url.QueryEscape(r.URL.Query().Get("id")), http.StatusFound)
	case r.URL.Path == DiscoveryPath && says != nil:
		p.rewrite(w, r, says)
	case r.URL.Path == TokenPath && spoil != nil:
		p.rewrite(w, r, func(answer map[string]any) { p.resign(answer, spoil) })
	case r.URL.Path == "/authorize/callback" && edit != nil:
		recorded := httptest.NewRecorder()
		p.op.ServeHTTP(recorded, r)
		if u, err := url.Parse(recorded.Header().Get("Location")); err == nil {
			q := u.Query()
			edit(q)
			u.RawQuery = q.Encode()
			recorded.Header().Set("Location", u.String())
		}
		pass(w, recorded, recorded.Body.Bytes())
	default:
		p.op.ServeHTTP(w, r)
	}
}

// rewrite changes the object that the server answers with.
func (p *Provider) rewrite(w http.ResponseWriter, r *http.Request, f func(map[string]any)) {
	recorded := httptest.NewRecorder()
	p.op.ServeHTTP(recorded, r)
	var object map[string]any
	if json.Unmarshal(recorded.Body.Bytes(), &object) != nil {
		pass(w, recorded, recorded.Body.Bytes())
		return
	}
	f(object)
	text, err := json.Marshal(object)
	if err != nil {
		panic("openidtest: " + err.Error())
	}
	pass(w, recorded, text)
}

func pass(w http.ResponseWriter, from *httptest.ResponseRecorder, body []byte) {
	maps.Copy(w.Header(), from.Header())
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(from.Code)
	_, _ = io.Copy(w, bytes.NewReader(body))
}

func (p *Provider) resign(answer map[string]any, spoil func(map[string]any, *Sign)) {
	text, _ := answer["id_token"].(string)
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return
	}
	plain, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		panic("openidtest: " + err.Error())
	}
	dec := json.NewDecoder(bytes.NewReader(plain))
	dec.UseNumber()
	var claims map[string]any
	if err := dec.Decode(&claims); err != nil {
		panic("openidtest: " + err.Error())
	}
	p.mu.Lock()
	sign := Sign{Algorithm: string(jose.ES256), Key: p.key.key, KeyID: p.key.id}
	p.mu.Unlock()
	spoil(claims, &sign)
	answer["id_token"] = Token(claims, sign)
}

// Token is a signed token.
func Token(claims map[string]any, sign Sign) string {
	payload, err := json.Marshal(claims)
	if err != nil {
		panic("openidtest: " + err.Error())
	}
	if sign.Algorithm == "none" {
		encode := base64.RawURLEncoding.EncodeToString
		return encode([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + encode(payload) + "."
	}
	key := jose.SigningKey{Algorithm: jose.SignatureAlgorithm(sign.Algorithm), Key: jose.JSONWebKey{Key: sign.Key, KeyID: sign.KeyID}}
	signer, err := jose.NewSigner(key, nil)
	if err != nil {
		panic("openidtest: " + err.Error())
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		panic("openidtest: " + err.Error())
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		panic("openidtest: " + err.Error())
	}
	return text
}

// A signingKey is a key of the provider.
type signingKey struct {
	id  string
	key *ecdsa.PrivateKey
}

func (k *signingKey) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.ES256 }
func (k *signingKey) Key() any                                    { return k.key }
func (k *signingKey) ID() string                                  { return k.id }

// A publicKey is a key as everybody sees it.
type publicKey struct{ *signingKey }

func (k publicKey) Algorithm() jose.SignatureAlgorithm { return jose.ES256 }
func (k publicKey) Use() string                        { return "sig" }
func (k publicKey) Key() any                           { return k.key.Public() }

// A request is a sign-in under way at the provider.
type request struct {
	*oidc.AuthRequest
	id, subject string
	at          time.Time
}

func (r *request) GetID() string                      { return r.id }
func (r *request) GetACR() string                     { return "" }
func (r *request) GetAMR() []string                   { return []string{"pwd"} }
func (r *request) GetAudience() []string              { return []string{r.ClientID} }
func (r *request) GetAuthTime() time.Time             { return r.at }
func (r *request) GetClientID() string                { return r.ClientID }
func (r *request) GetNonce() string                   { return r.Nonce }
func (r *request) GetRedirectURI() string             { return r.RedirectURI }
func (r *request) GetScopes() []string                { return r.Scopes }
func (r *request) GetState() string                   { return r.State }
func (r *request) GetSubject() string                 { return r.subject }
func (r *request) Done() bool                         { return r.subject != "" }
func (r *request) GetResponseType() oidc.ResponseType { return r.ResponseType }
func (r *request) GetResponseMode() oidc.ResponseMode { return r.ResponseMode }
func (r *request) GetCodeChallenge() *oidc.CodeChallenge {
	return &oidc.CodeChallenge{Challenge: r.CodeChallenge, Method: r.CodeChallengeMethod}
}

// A store is what the server keeps.
type store struct {
	p        *Provider
	mu       sync.Mutex
	requests map[string]*request
	codes    map[string]string // to the id of a request
}

var errNone = errors.New("there is none")

func (s *store) login(id string) {
	who := s.p.Person()
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.requests[id]; r != nil {
		r.subject, r.at = who.Subject, time.Now()
	}
}

func (s *store) CreateAuthRequest(_ context.Context, asked *oidc.AuthRequest, _ string) (op.AuthRequest, error) {
	if asked.CodeChallenge == "" || asked.CodeChallengeMethod != oidc.CodeChallengeMethodS256 {
		return nil, oidc.ErrInvalidRequest().WithDescription("this provider wants PKCE with S256")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &request{AuthRequest: asked, id: rand.Text()}
	s.requests[r.id] = r
	return r, nil
}

func (s *store) AuthRequestByID(_ context.Context, id string) (op.AuthRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.requests[id]; r != nil {
		return r, nil
	}
	return nil, errNone
}

func (s *store) AuthRequestByCode(ctx context.Context, code string) (op.AuthRequest, error) {
	s.mu.Lock()
	id := s.codes[code]
	s.mu.Unlock()
	return s.AuthRequestByID(ctx, id)
}

func (s *store) SaveAuthCode(_ context.Context, id, code string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.codes[code] = id
	return nil
}

func (s *store) DeleteAuthRequest(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.requests, id)
	return nil
}

func (s *store) CreateAccessToken(context.Context, op.TokenRequest) (string, time.Time, error) {
	return rand.Text(), time.Now().Add(5 * time.Minute), nil
}

func (s *store) CreateAccessAndRefreshTokens(context.Context, op.TokenRequest, string) (string, string, time.Time, error) {
	return "", "", time.Time{}, errNone
}

func (s *store) TokenRequestByRefreshToken(context.Context, string) (op.RefreshTokenRequest, error) {
	return nil, errNone
}
func (s *store) TerminateSession(context.Context, string, string) error { return nil }
func (s *store) RevokeToken(context.Context, string, string, string) *oidc.Error {
	return oidc.ErrInvalidRequest()
}

func (s *store) GetRefreshTokenInfo(context.Context, string, string) (string, string, error) {
	return "", "", op.ErrInvalidRefreshToken
}

func (s *store) SigningKey(context.Context) (op.SigningKey, error) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	return s.p.key, nil
}

func (s *store) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{jose.ES256}, nil
}

func (s *store) KeySet(context.Context) ([]op.Key, error) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	return []op.Key{publicKey{s.p.key}}, nil
}

func (s *store) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	if id != s.p.ClientID {
		return nil, errNone
	}
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	return &client{id: id, callbacks: slices.Clone(s.p.callbacks), inToken: s.p.inToken}, nil
}

func (s *store) AuthorizeClientIDSecret(_ context.Context, id, given string) error {
	if id != s.p.ClientID || given != s.p.ClientSecret {
		return errNone
	}
	return nil
}

func (s *store) SetUserinfoFromScopes(_ context.Context, info *oidc.UserInfo, subject, _ string, scopes []string) error {
	who := s.p.Person()
	info.Subject = subject
	if slices.Contains(scopes, oidc.ScopeEmail) {
		info.Email, info.EmailVerified = who.Email, oidc.Bool(who.Verified)
	}
	return nil
}

func (s *store) SetUserinfoFromToken(ctx context.Context, info *oidc.UserInfo, _, subject, _ string) error {
	s.p.mu.Lock()
	if s.p.infoSubject != "" {
		subject = s.p.infoSubject
	}
	s.p.mu.Unlock()
	return s.SetUserinfoFromScopes(ctx, info, subject, "", []string{oidc.ScopeEmail})
}

func (s *store) SetIntrospectionFromToken(context.Context, *oidc.IntrospectionResponse, string, string, string) error {
	return errNone
}

func (s *store) GetPrivateClaimsFromScopes(context.Context, string, string, []string) (map[string]any, error) {
	return nil, nil
}

func (s *store) GetKeyByIDAndClientID(context.Context, string, string) (*jose.JSONWebKey, error) {
	return nil, errNone
}

func (s *store) ValidateJWTProfileScopes(_ context.Context, _ string, scopes []string) ([]string, error) {
	return scopes, nil
}
func (s *store) Health(context.Context) error { return nil }

// A client is the one that the provider knows.
type client struct {
	id        string
	callbacks []string
	inToken   bool
}

func (c *client) GetID() string                       { return c.id }
func (c *client) RedirectURIs() []string              { return c.callbacks }
func (c *client) PostLogoutRedirectURIs() []string    { return nil }
func (c *client) ApplicationType() op.ApplicationType { return op.ApplicationTypeWeb }
func (c *client) AuthMethod() oidc.AuthMethod         { return oidc.AuthMethodBasic }
func (c *client) ResponseTypes() []oidc.ResponseType {
	return []oidc.ResponseType{oidc.ResponseTypeCode}
}

func (c *client) GrantTypes() []oidc.GrantType         { return []oidc.GrantType{oidc.GrantTypeCode} }
func (c *client) LoginURL(id string) string            { return "/login?id=" + url.QueryEscape(id) }
func (c *client) AccessTokenType() op.AccessTokenType  { return op.AccessTokenTypeBearer }
func (c *client) IDTokenLifetime() time.Duration       { return 5 * time.Minute }
func (c *client) DevMode() bool                        { return false }
func (c *client) IsScopeAllowed(string) bool           { return false }
func (c *client) IDTokenUserinfoClaimsAssertion() bool { return c.inToken }
func (c *client) ClockSkew() time.Duration             { return 0 }

//lint:ignore ST1003 the interface names it so
func (c *client) RestrictAdditionalIdTokenScopes() func([]string) []string {
	return func(scopes []string) []string { return scopes }
}

func (c *client) RestrictAdditionalAccessTokenScopes() func([]string) []string {
	return func(scopes []string) []string { return scopes }
}
