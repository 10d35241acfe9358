// Package openid signs people in with providers of OpenID Connect, by the code flow with PKCE. It keeps nothing: a flow under
// way, from the departure to the provider until the return, is a sealed text that the browser keeps in a cookie, and that it
// was used is remembered by a counter that all replicas share. So what strangers begin takes no room, any replica can end what
// another has begun, and no other browser can.
//
// What a provider says about itself, and its keys, are fetched when they are first needed, and kept for a while. A provider
// that is down, slow or lies costs its own sign-ins and nothing else: what waits for it is bounded in time and in number.
//
// It depends on go-oidc, and knows neither accounts nor the database.
package openid

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"barong/internal/patience"
)

const (
	// FlowLife is how long somebody may be away at a provider.
	FlowLife = 10 * time.Minute
	// PendingLife is how long a second factor may be waited for.
	PendingLife = 5 * time.Minute
	// MaxReturn is the longest address to return to that a flow keeps, in bytes: gateways bound the headers of an answer, and
	// browsers a cookie.
	MaxReturn = 1 << 10
)

const (
	maxSealed  = 4096 // bytes of a cookie
	maxAnswer  = 8192 // bytes of each part of a provider's answer that the browser brings
	maxSubject = 255  // OpenID Connect Core, section 2
	skew       = 5 * time.Minute
)

// Errors of sign-ins. Any other is an outage of our own stores. The chain tells the log why.
var (
	ErrUnknown     = errors.New("openid: no such provider")
	ErrUnavailable = errors.New("openid: the provider does not answer as it should")
	ErrFlow        = errors.New("openid: this is not what this browser has begun")
	ErrDenied      = errors.New("openid: the provider lets nobody in")
	ErrToken       = errors.New("openid: the provider's word does not count")
)

// A Sealer seals flows. secret.Box is one.
type Sealer interface {
	Seal(plain []byte, context string) string
	Open(sealed, context string) ([]byte, error)
}

// A Memory counts, for all replicas. A limit.Limiter is one; it must not be limit.Off.
type Memory interface {
	Take(ctx context.Context, key string, max int, window time.Duration) (wait time.Duration, err error)
}

// Options are what New needs.
type Options struct {
	Providers []Config
	Sealer    Sealer
	Memory    Memory
	Now       func() time.Time
	Transport http.RoundTripper // nil for one of its own
}

// Providers are those that people may sign in with. They are safe for concurrent use.
type Providers struct {
	o   Options
	now atomic.Pointer[[]*provider]
}

// New returns providers. None of them is asked for anything yet.
func New(o Options) *Providers {
	p := &Providers{o: o}
	p.now.Store(new([]*provider))
	p.Replace(o.Providers)
	return p
}

// Replace puts others in the place of those that people may sign in with. Of one that stays as it was, what it said about itself
// is kept. Who is under way to one that is gone, or is another one now, is not signed in. It reports whether anything has changed.
func (p *Providers) Replace(configs []Config) bool {
	before := p.list()
	list := make([]*provider, 0, len(configs))
	for _, c := range configs {
		same := slices.IndexFunc(before, func(one *provider) bool { return reflect.DeepEqual(one.Config, c) })
		if same >= 0 {
			list = append(list, before[same])
		} else {
			list = append(list, newProvider(c, p.o.Transport))
		}
	}
	changed := !slices.Equal(list, before)
	p.now.Store(&list)
	return changed
}

func (p *Providers) list() []*provider { return *p.now.Load() }

// All are the providers in the order of the file.
func (p *Providers) All() []Config {
	list := p.list()
	out := make([]Config, len(list))
	for i, one := range list {
		out[i] = one.Config
	}
	return out
}

// Of is the provider with that issuer, if there still is one.
func (p *Providers) Of(issuer string) (Config, bool) {
	for _, one := range p.list() {
		if one.Issuer == issuer {
			return one.Config, true
		}
	}
	return Config{}, false
}

func (p *Providers) find(id string) *provider {
	for _, one := range p.list() {
		if one.ID == id {
			return one
		}
	}
	return nil
}

// Probe asks a provider what it says about itself. The error says what is wrong with it.
func (p *Providers) Probe(ctx context.Context, id string) error {
	one := p.find(id)
	if one == nil {
		return ErrUnknown
	}
	_, err := one.discover(ctx)
	return err
}

// A Flow is what the return from a provider must find again.
type Flow struct {
	Callback string `json:"c"`           // our own address that the provider sends the browser back to
	Return   string `json:"r,omitempty"` // where the browser wants to go then

	// Who is signed in and wants to link the provider; empty for a sign-in.
	UID     string `json:"u,omitempty"`
	Epoch   int64  `json:"h,omitempty"` // of their sessions: a flow does not outlive it
	Session string `json:"k,omitempty"` // the key of the session, if there is one
}

// sealedFlow is a flow with what makes it one.
type sealedFlow struct {
	Flow
	Provider string `json:"p"`
	Issuer   string `json:"i"`
	State    string `json:"s"`
	Nonce    string `json:"n"`
	Verifier string `json:"v"` // of PKCE (RFC 7636)
	Expires  int64  `json:"e"` // Unix milliseconds
}

// Contexts of seals.
const (
	flowContext    = "openid.flow"
	pendingContext = "openid.pending"
)

// Begin begins a flow: where the browser is to go, and the text that it must bring back. The error is ErrUnknown or
// ErrUnavailable.
func (p *Providers) Begin(ctx context.Context, id string, f Flow) (location, sealed string, err error) {
	one := p.find(id)
	if one == nil {
		return "", "", ErrUnknown
	}
	if len(f.Return) > MaxReturn {
		f.Return = ""
	}
	found, err := one.discover(ctx)
	if err != nil {
		return "", "", err
	}
	s := sealedFlow{
		Flow: f, Provider: id, Issuer: one.Issuer, State: random(), Nonce: random(), Verifier: oauth2.GenerateVerifier(),
		Expires: p.o.Now().Add(FlowLife).UnixMilli(),
	}
	plain, err := json.Marshal(s)
	if err != nil {
		return "", "", fmt.Errorf("flow: %w", err)
	}
	location = found.client(f.Callback).AuthCodeURL(s.State, oidc.Nonce(s.Nonce), oauth2.S256ChallengeOption(s.Verifier))
	return location, p.o.Sealer.Seal(plain, flowContext), nil
}

// random is a word that nobody guesses: 130 bits.
func random() string { return rand.Text() }

// An Answer is what a browser brings from a provider, in the query of the callback.
type Answer struct {
	State, Code, Error, Description string
	Issuer                          *string // RFC 9207; nil when it is absent
}

// An Identity is somebody as a provider knows them.
type Identity struct {
	Provider string `json:"p"` // its id
	Issuer   string `json:"i"`
	Subject  string `json:"s"`           // together with Issuer: who it is
	Email    string `json:"m,omitempty"` // as the provider says it; may be anybody's
	Verified bool   `json:"w,omitempty"` // the provider says that the address is theirs
}

// Finish ends what Begin has begun, once. sealed is what the browser has brought back. The flow is nil unless the answer fits
// it, and comes with most errors too. The error is ErrUnknown, ErrFlow, ErrDenied, ErrToken, ErrUnavailable, or an outage.
func (p *Providers) Finish(ctx context.Context, id, sealed string, a Answer) (*Identity, *Flow, error) {
	one := p.find(id)
	if one == nil {
		return nil, nil, ErrUnknown
	}
	s, err := p.open(ctx, one, sealed, &a)
	if err != nil {
		return nil, nil, err
	}
	who, err := p.finish(ctx, one, s, &a)
	return who, &s.Flow, err
}

// open reads the flow that an answer belongs to, and uses it up.
func (p *Providers) open(ctx context.Context, one *provider, sealed string, a *Answer) (*sealedFlow, error) {
	s := new(sealedFlow)
	if err := p.unseal(sealed, flowContext, s); err != nil {
		return nil, err
	}
	switch {
	case subtle.ConstantTimeCompare([]byte(s.State), []byte(a.State)) != 1:
		return nil, because(ErrFlow, "the state is another's")
	case s.Provider != one.ID || s.Issuer != one.Issuer:
		return nil, because(ErrFlow, "it was begun with %s", s.Provider)
	case p.o.Now().UnixMilli() >= s.Expires:
		return nil, because(ErrFlow, "it has expired")
	}
	return s, p.once(ctx, "openid.flow:"+s.State, FlowLife)
}

func (p *Providers) unseal(sealed, context string, into any) error {
	if sealed == "" || len(sealed) > maxSealed {
		return because(ErrFlow, "the browser brings nothing of ours")
	}
	plain, err := p.o.Sealer.Open(sealed, context)
	if err != nil {
		return because(ErrFlow, "what the browser brings is not ours: %w", err)
	}
	if err := json.Unmarshal(plain, into); err != nil {
		return because(ErrFlow, "what the browser brings cannot be read: %w", err)
	}
	return nil
}

// once remembers that something was used, for longer than it lives: clocks of replicas differ.
func (p *Providers) once(ctx context.Context, key string, life time.Duration) error {
	wait, err := p.o.Memory.Take(ctx, key, 1, 2*life)
	if err != nil {
		return err
	}
	if wait > 0 {
		return because(ErrFlow, "it was used before")
	}
	return nil
}

// finish asks the provider who it is.
func (p *Providers) finish(ctx context.Context, one *provider, s *sealedFlow, a *Answer) (*Identity, error) {
	if len(a.Code) > maxAnswer || len(a.Error) > maxAnswer || len(a.Description) > maxAnswer {
		return nil, because(ErrFlow, "the answer is too long")
	}
	if a.Issuer != nil && *a.Issuer != one.Issuer {
		return nil, because(ErrFlow, "it is the answer of %.200q", *a.Issuer)
	}
	defer patience.Outside(ctx)()
	ctx, cancel := context.WithTimeout(ctx, one.times.finish)
	defer cancel()
	found, err := one.discover(ctx)
	if err != nil {
		return nil, err
	}
	if a.Issuer == nil && found.saysIssuer {
		return nil, because(ErrFlow, "the answer does not say whose it is (RFC 9207)")
	}
	switch {
	case a.Error == "temporarily_unavailable" || a.Error == "server_error":
		return nil, because(ErrUnavailable, "it says %.100q: %.300q", a.Error, a.Description)
	case a.Error != "":
		return nil, because(ErrDenied, "it says %.100q: %.300q", a.Error, a.Description)
	case a.Code == "":
		return nil, because(ErrFlow, "there is no code")
	}
	leave, err := one.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	return one.redeem(ctx, found, s, a.Code, p.o.Now())
}

// redeem exchanges a code for the provider's word about who it is.
func (one *provider) redeem(ctx context.Context, found *discovered, s *sealedFlow, code string, now time.Time) (*Identity, error) {
	ctx = oidc.ClientContext(ctx, one.http)
	tokens, err := found.client(s.Callback).Exchange(ctx, code, oauth2.VerifierOption(s.Verifier))
	if refused := (*oauth2.RetrieveError)(nil); errors.As(err, &refused) && refused.ErrorCode == "invalid_grant" {
		return nil, because(ErrFlow, "the provider does not take the code: %.300q", refused.ErrorDescription)
	}
	if err != nil {
		return nil, because(ErrUnavailable, "exchange the code: %s", brief(err))
	}
	text, _ := tokens.Extra("id_token").(string)
	if text == "" {
		return nil, because(ErrToken, "there is no ID token")
	}
	var fetch error
	token, err := found.verifier(func() time.Time { return now }).Verify(context.WithValue(ctx, fetchKey{}, &fetch), text)
	switch {
	case fetch != nil:
		return nil, because(ErrUnavailable, "fetch its keys: %s", brief(fetch))
	case err != nil:
		return nil, because(ErrToken, "%s", brief(err))
	}
	who, err := one.identity(token, s, now)
	if err != nil {
		return nil, err
	}
	if token.AccessTokenHash != "" {
		if err := token.VerifyAccessToken(tokens.AccessToken); err != nil {
			return nil, because(ErrToken, "%s", brief(err))
		}
	}
	if who.Email == "" && found.oidc.UserInfoEndpoint() != "" && one.asksEmail() {
		// Where claims of a scope are told is for the provider to choose (OpenID Connect Core, section 5.4).
		info, err := found.oidc.UserInfo(ctx, oauth2.StaticTokenSource(tokens))
		if err != nil {
			return nil, because(ErrUnavailable, "ask about the person: %s", brief(err))
		}
		if info.Subject != who.Subject { // section 5.3.2
			return nil, because(ErrToken, "what it tells of the person is about another")
		}
		who.Email, who.Verified = address(info.Email), info.EmailVerified
	}
	who.Verified = who.Verified && who.Email != ""
	return who, nil
}

// identity reads an ID token whose signature, issuer, audience and time are right.
func (one *provider) identity(token *oidc.IDToken, s *sealedFlow, now time.Time) (*Identity, error) {
	var claims struct {
		AuthorizedParty string `json:"azp"`
		Email           string `json:"email"`
		Verified        flag   `json:"email_verified"`
	}
	if err := token.Claims(&claims); err != nil {
		return nil, because(ErrToken, "its claims cannot be read: %s", brief(err))
	}
	switch {
	case subtle.ConstantTimeCompare([]byte(token.Nonce), []byte(s.Nonce)) != 1:
		return nil, because(ErrToken, "its nonce is another's")
	case claims.AuthorizedParty != one.ClientID && (claims.AuthorizedParty != "" || len(token.Audience) > 1): // section 3.1.3.7
		return nil, because(ErrToken, "it was issued to %.200q", claims.AuthorizedParty)
	case token.IssuedAt.After(now.Add(skew)):
		return nil, because(ErrToken, "it was issued in the future")
	case token.Subject == "" || len(token.Subject) > maxSubject || !clean(token.Subject):
		return nil, because(ErrToken, "its subject is none")
	}
	return &Identity{
		Provider: one.ID, Issuer: one.Issuer, Subject: token.Subject, Email: address(claims.Email), Verified: bool(claims.Verified),
	}, nil
}

// maxAddress is the longest address, in bytes.
const maxAddress = 1024

// address is an address as a provider says it, or nothing where it cannot be one.
func address(text string) string {
	if text = strings.TrimSpace(text); len(text) > maxAddress || !clean(text) {
		return ""
	}
	return text
}

func clean(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, unicode.IsControl)
}

// A flag is a boolean that some providers write as a text.
type flag bool

func (f *flag) UnmarshalJSON(text []byte) error {
	*f = string(text) == "true" || string(text) == `"true"`
	return nil
}

// A Pending is a sign-in that wants a second factor yet.
type Pending struct {
	Identity
	UID   string `json:"u"`
	Epoch int64  `json:"h"`
}

type sealedPending struct {
	Pending
	ID      string `json:"x"`
	Expires int64  `json:"e"` // Unix milliseconds
}

// Suspend is a pending sign-in as a text that the browser keeps meanwhile.
func (p *Providers) Suspend(x Pending) (string, error) {
	plain, err := json.Marshal(sealedPending{Pending: x, ID: random(), Expires: p.o.Now().Add(PendingLife).UnixMilli()})
	if err != nil {
		return "", fmt.Errorf("pending sign-in: %w", err)
	}
	return p.o.Sealer.Seal(plain, pendingContext), nil
}

// Resume is what Suspend was given. use uses it up, once; its error is ErrFlow, or an outage, as that of Resume.
func (p *Providers) Resume(sealed string) (x *Pending, use func(context.Context) error, err error) {
	s := new(sealedPending)
	if err := p.unseal(sealed, pendingContext, s); err != nil {
		return nil, nil, err
	}
	if p.o.Now().UnixMilli() >= s.Expires {
		return nil, nil, because(ErrFlow, "it has expired")
	}
	return &s.Pending, func(ctx context.Context) error { return p.once(ctx, "openid.pending:"+s.ID, PendingLife) }, nil
}

func because(kind error, format string, args ...any) error {
	return fmt.Errorf("%w: %w", kind, fmt.Errorf(format, args...))
}

// brief is an error of a library in one line of bounded length: it may hold what the provider has sent.
func brief(err error) string {
	text := strings.Join(strings.FieldsFunc(err.Error(), unicode.IsSpace), " ")
	if len(text) > 300 {
		text = text[:300] + "…"
	}
	return strings.ToValidUTF8(text, "?")
}
