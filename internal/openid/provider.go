package openid

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"barong/internal/patience"
)

// Bounds of what waits for a provider.
const (
	parallel = 16      // ends of flows at the same time; further ones are told at once that it is busy
	maxBody  = 1 << 20 // bytes of an answer
)

// times are how long a provider is waited for, and how long what it says about itself holds.
type times struct {
	call   time.Duration // for one call
	finish time.Duration // for all that the end of a flow asks for
	fresh  time.Duration // then it is asked again, and its keys with it
	stale  time.Duration // what it said before is used so long when it does not answer
	retry  time.Duration // between two questions when it does not answer
}

var usual = times{call: 5 * time.Second, finish: 10 * time.Second, fresh: time.Hour, stale: 24 * time.Hour, retry: 5 * time.Second}

// A provider is a Config, and what the provider says about itself.
type provider struct {
	Config
	http   *http.Client
	places chan struct{}
	times  times

	mu     sync.Mutex
	found  *discovered
	asking *question // under way
	failed time.Time // when it was last asked in vain
	why    error
}

// A question is a discovery under way. The error may be read when done is closed.
type question struct {
	done  chan struct{}
	found *discovered
	err   error
}

// discovered is what a provider says about itself.
type discovered struct {
	Config     *Config
	oidc       *oidc.Provider
	keys       oidc.KeySet
	algorithms []string
	style      oauth2.AuthStyle
	saysIssuer bool // its answers say whose they are (RFC 9207)
	at         time.Time
}

func newProvider(c Config, transport http.RoundTripper) *provider {
	if transport == nil {
		transport = &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 3 * time.Second}).DialContext,
			TLSHandshakeTimeout: 3 * time.Second, MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second,
			MaxResponseHeaderBytes: 64 << 10, ForceAttemptHTTP2: true,
		}
	}
	return &provider{
		Config: c, places: make(chan struct{}, parallel), times: usual,
		http: &http.Client{
			Transport: bounded{transport}, Timeout: usual.call,
			// Nothing that is asked for here is anywhere else; who follows can be led.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// bounded bounds the bodies of answers.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := b.next.RoundTrip(r)
	if err == nil {
		answer.Body = &body{answer.Body, maxBody}
	}
	return answer, err
}

type body struct {
	io.ReadCloser
	left int
}

var errTooLong = errors.New("the answer is too long")

func (b *body) Read(p []byte) (int, error) {
	if b.left <= 0 {
		// It may end right here.
		if n, err := b.ReadCloser.Read(make([]byte, 1)); n == 0 {
			return 0, err
		}
		return 0, errTooLong
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// enter takes a place among those who wait for the provider.
func (one *provider) enter() (leave func(), err error) {
	select {
	case one.places <- struct{}{}:
		return func() { <-one.places }, nil
	default:
		return nil, because(ErrUnavailable, "%d sign-ins wait for it already", parallel)
	}
}

// discover is what the provider says about itself, asked for at most once at a time. What it said within the last hour
// holds; after that it is asked in the background, unless it has not answered for a day.
func (one *provider) discover(ctx context.Context) (*discovered, error) {
	one.mu.Lock()
	now := time.Now()
	known := one.found
	age := time.Duration(0)
	if known != nil {
		age = now.Sub(known.at)
	}
	usable := known != nil && age < one.times.stale
	switch {
	case known != nil && age < one.times.fresh:
		one.mu.Unlock()
		return known, nil
	case one.asking == nil && one.why != nil && now.Sub(one.failed) < one.times.retry:
		why := one.why
		one.mu.Unlock()
		if usable {
			return known, nil
		}
		return nil, because(ErrUnavailable, "it did not answer a moment ago: %s", brief(why))
	case one.asking == nil:
		one.asking = &question{done: make(chan struct{})}
		go one.ask(one.asking)
	}
	q := one.asking
	one.mu.Unlock()
	if usable {
		return known, nil
	}
	defer patience.Outside(ctx)()
	select {
	case <-q.done:
	case <-ctx.Done():
		return nil, because(ErrUnavailable, "it has not answered yet")
	}
	if q.err != nil {
		return nil, because(ErrUnavailable, "%s", brief(q.err))
	}
	return q.found, nil
}

// ask asks for whoever waits; the caller that came first may be gone before there is an answer.
func (one *provider) ask(q *question) {
	ctx, cancel := context.WithTimeout(context.Background(), one.times.call)
	defer cancel()
	q.found, q.err = one.describe(ctx)
	one.mu.Lock()
	defer one.mu.Unlock()
	one.asking = nil
	if q.err != nil {
		one.failed, one.why = time.Now(), q.err
	} else {
		one.found, one.why = q.found, nil
	}
	close(q.done)
}

func (one *provider) describe(ctx context.Context) (*discovered, error) {
	ctx = oidc.ClientContext(ctx, one.http)
	p, err := oidc.NewProvider(ctx, one.Issuer)
	if err != nil {
		return nil, err
	}
	var says struct {
		Keys       string   `json:"jwks_uri"`
		Methods    []string `json:"token_endpoint_auth_methods_supported"`
		Algorithms []string `json:"id_token_signing_alg_values_supported"`
		SaysIssuer bool     `json:"authorization_response_iss_parameter_supported"`
	}
	if err := p.Claims(&says); err != nil {
		return nil, err
	}
	d := &discovered{Config: &one.Config, oidc: p, saysIssuer: says.SaysIssuer, at: time.Now()}
	issuer, err := url.Parse(one.Issuer)
	if err != nil {
		return nil, err
	}
	for _, a := range []struct{ what, address string }{
		{"authorization_endpoint", p.Endpoint().AuthURL},
		{"token_endpoint", p.Endpoint().TokenURL},
		{"jwks_uri", says.Keys},
		{"userinfo_endpoint", p.UserInfoEndpoint()},
	} {
		u, err := url.Parse(a.address)
		switch {
		case a.address == "" && a.what == "userinfo_endpoint":
		case err != nil || u.Host == "" || !safe(u) || issuer.Scheme == "https" && u.Scheme != "https":
			return nil, fmt.Errorf("its %s is no https address", a.what)
		}
	}
	// Of what it signs with, what everybody can verify and it alone can make.
	for _, name := range []string{
		oidc.RS256, oidc.RS384, oidc.RS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.EdDSA,
	} {
		if len(says.Algorithms) == 0 && name == oidc.RS256 || slices.Contains(says.Algorithms, name) {
			d.algorithms = append(d.algorithms, name)
		}
	}
	if len(d.algorithms) == 0 {
		return nil, fmt.Errorf("it signs with none of the algorithms that are accepted, only with %.200q", says.Algorithms)
	}
	// Which way the secret goes is settled here: to try both would use up the code.
	switch {
	case one.ClientSecret == "", !slices.Contains(says.Methods, "client_secret_basic") && slices.Contains(says.Methods, "client_secret_post"):
		d.style = oauth2.AuthStyleInParams
	default:
		d.style = oauth2.AuthStyleInHeader
	}
	d.keys = keySet{oidc.NewRemoteKeySet(ctx, says.Keys)}
	return d, nil
}

// client is what speaks to the provider for flows that return to an address.
func (d *discovered) client(callback string) *oauth2.Config {
	endpoint := d.oidc.Endpoint()
	endpoint.AuthStyle = d.style
	return &oauth2.Config{
		ClientID: d.Config.ClientID, ClientSecret: d.Config.ClientSecret.Reveal(), Endpoint: endpoint, RedirectURL: callback,
		Scopes: d.Config.Scopes,
	}
}

func (d *discovered) verifier(now func() time.Time) *oidc.IDTokenVerifier {
	return oidc.NewVerifier(d.Config.Issuer, d.keys, &oidc.Config{
		ClientID: d.Config.ClientID, SupportedSigningAlgs: d.algorithms, Now: now,
	})
}

func (one *provider) asksEmail() bool { return slices.Contains(one.Scopes, "email") }

// A keySet tells a provider's keys that could not be fetched from a signature that is none, which the library does not.
type keySet struct{ remote *oidc.RemoteKeySet }

type fetchKey struct{}

func (k keySet) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	payload, err := k.remote.VerifySignature(ctx, token)
	if cause := errors.Unwrap(err); cause != nil {
		if fetch, ok := ctx.Value(fetchKey{}).(*error); ok {
			*fetch = cause
		}
	}
	return payload, err
}
