package authz

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"barong/internal/header"
	"barong/internal/trusted"
	"barong/policy"
	"barong/session"
	"barong/session/near"
)

// Options are what an Engine is made of. Policy, Cache, Signer, Proxies, Cookies and Token are required.
type Options struct {
	Policy  func() *policy.Snapshot // the snapshot in force; nil from it refuses everything as unavailable
	Cache   *near.Cache
	Signer  func() Signer // the key in force, which may change at any time; nil from it refuses
	Proxies *trusted.Proxies
	Cookies *Cookies
	Token   TokenSettings

	CSRF          bool          // BARONG_CSRF_PROTECTION
	Bind          Binding       // BARONG_SESSION_BIND
	NonceLifetime time.Duration // BARONG_APIKEY_NONCE_LIFETIME; 0 is DefaultNonceLifetime
	Nonces        Nonces        // BARONG_APIKEY_REPLAY: NewLocalNonces for local; nil is off, but for signed requests
	NoKeyHeaders  bool          // BARONG_APIKEY_SCHEMES without v1: who sends X-Auth-* is refused
	NoSignatures  bool          // BARONG_APIKEY_SCHEMES without rfc9421: Signature-Input means nothing here
	Auditor       Auditor       // nil refuses what an AUDIT rule wants to be recorded, since it would not be
	Sampler       Sampler       // nil samples nothing
	// Forwarder is called for each request whose X-Forwarded-For is ignored since its peer is no trusted proxy; it must not
	// block. nil counts nothing.
	Forwarder func()
	// Signed is told of each signature of a token, which must not block; nil tells nobody.
	Signed func(took time.Duration, err error)
	// Mismatch is called with BindUserAgent or BindIP for each check whose client does not fit a session and passes all the
	// same; it must not block. nil counts nothing.
	Mismatch func(item string)

	// Compat is BARONG_COMPAT=2.4.17: a session that does not fit is ended, and IPv6 clients are bound to a /96. What
	// else that mode changes is a setting here: no Nonces, other Proxies.
	Compat bool

	Now func() time.Time // nil is time.Now
	Log *slog.Logger     // nil logs nothing
}

// A Binding says what a session is tied to.
type Binding struct {
	UserAgent bool // the User-Agent of the sign-in, byte for byte
	IP        bool // the network of the sign-in's address: IPv4 /16, IPv6 /64

	// What is only watched: a client that does not fit is told of and passes. Without effect beside the above.
	LogUserAgent, LogIP bool
}

// The items of a Binding, as BARONG_SESSION_BIND and Options.Mismatch name them.
const (
	BindUserAgent = "user_agent"
	BindIP        = "ip"
)

// ParseBinding reads BARONG_SESSION_BIND, a comma list of user_agent and ip, each of which may end in ":log".
func ParseBinding(list string) (Binding, error) {
	var b Binding
	for item := range strings.SplitSeq(list, ",") {
		switch strings.TrimSpace(item) {
		case BindUserAgent:
			b.UserAgent = true
		case BindUserAgent + ":log":
			b.LogUserAgent = true
		case BindIP:
			b.IP = true
		case BindIP + ":log":
			b.LogIP = true
		case "":
		default:
			return Binding{}, fmt.Errorf("session binding %q is none of user_agent, ip, user_agent:log, ip:log", item)
		}
	}
	return b, nil
}

// DefaultNonceLifetime is how far the nonce of an API key may be from now when Options say nothing.
const DefaultNonceLifetime = 5 * time.Second

// An Engine decides requests. It is safe for concurrent use, and the only place where a check is decided.
type Engine struct {
	policy  func() *policy.Snapshot
	cache   *near.Cache
	proxies *trusted.Proxies
	cookies *Cookies
	csrf    bool
	bind    Binding
	nonces  Nonces // nil remembers none
	auditor Auditor
	sampler Sampler
	compat  bool
	now     func() time.Time
	log     *slog.Logger

	signatureNonces Nonces // of signed requests, which are never accepted twice
	noKeyHeaders    bool
	noSignatures    bool

	nonceLifetime time.Duration
	tokens        *tokens
	nobody        *near.MAC // of no key: what the signature of an unknown key is compared with
	forwarder     func()
	mismatch      func(item string)
	untrusted     throttle // of reports about ignored forwarding headers
	mismatched    throttle // of reports about sessions that do not fit
	undecided     throttle // of reports about what could not be told
}

// A throttle lets one of many reports through.
type throttle struct{ last atomic.Int64 } // Unix seconds

func (t *throttle) open(now time.Time, seconds int64) bool {
	last := t.last.Load()
	return now.Unix()-last >= seconds && t.last.CompareAndSwap(last, now.Unix())
}

// New returns an engine and starts the goroutines that replace tokens in use before they get old; Close stops them.
func New(o Options) (*Engine, error) {
	switch {
	case o.Policy == nil || o.Cache == nil || o.Signer == nil || o.Proxies == nil || o.Cookies == nil:
		return nil, errors.New("authz: Policy, Cache, Signer, Proxies and Cookies are required")
	case o.Token.Life < time.Second:
		return nil, fmt.Errorf("authz: a token life of %v is below a second", o.Token.Life)
	case !(o.Token.Reuse >= 0 && o.Token.Reuse < 1):
		return nil, fmt.Errorf("authz: a reuse share of %v is not from 0 to below 1", o.Token.Reuse)
	case o.Token.Issuer == "" || len(o.Token.Audience) == 0:
		return nil, errors.New("authz: tokens need an issuer and an audience")
	}
	if o.NonceLifetime <= 0 {
		o.NonceLifetime = DefaultNonceLifetime
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	signatureNonces := o.Nonces
	if signatureNonces == nil {
		signatureNonces = NewLocalNonces(0, o.Now)
	}
	secret := make([]byte, 32)
	rand.Read(secret) // never fails since Go 1.24
	return &Engine{
		policy: o.Policy, cache: o.Cache, proxies: o.Proxies, cookies: o.Cookies, csrf: o.CSRF, bind: o.Bind,
		nonces: o.Nonces, auditor: o.Auditor, sampler: o.Sampler, compat: o.Compat, now: o.Now, log: o.Log,
		signatureNonces: signatureNonces, noKeyHeaders: o.NoKeyHeaders, noSignatures: o.NoSignatures,
		nonceLifetime: o.NonceLifetime, forwarder: o.Forwarder, mismatch: o.Mismatch,
		tokens: newTokens(&o, max(1, runtime.GOMAXPROCS(0)/2)),
		nobody: near.NewMAC(secret),
	}, nil
}

// Close stops the engine's goroutines. Checks still work, but each signs for itself once its token gets old.
func (e *Engine) Close() { e.tokens.close() }

// Check fills d with the decision about r. It keeps no view of r's strings and bytes, nor ctx, which limits what stores
// may take; a warm check asks none and does not look at it. A panic leaves a denial behind.
func (e *Engine) Check(ctx context.Context, r *Request, d *Decision) {
	*d = Decision{Status: unavailable.status, Code: unavailable.code, token: d.token[:0]}
	h := &r.headers
	path, ok := Canonical(r.Target)
	if !ok {
		d.refuse(ambiguousPath)
		return
	}
	d.Path = path
	if h.malformed(e.proxies) || !policy.Method(r.Method) {
		d.refuse(malformedRequest)
		return
	}
	c := check{engine: e, request: r, decision: d}
	e.cookies.find(&c.sent, h.cookie.list())
	if c.sent.count == 1 {
		if c.id, c.named = session.ParseID(c.sent.values[0]); c.named {
			c.key = c.id.Key()
			e.cache.Expect(c.key)
		}
	}
	d.Client = e.Client(r.Peer, h.single[trueClientIP], h.forwarded.list()...)
	rules := e.policy()
	if o := rules.Restrict(d.Client, path); o.Refused {
		d.refuse(refusal{o.Code, o.Status})
		if o.Rule != nil {
			d.Rule = o.Rule.Value
		}
		return
	}
	if c.named {
		e.cache.ExpectSoon(c.key)
	}
	if rule, ok := rules.Blocked(path); ok {
		d.refuse(permissionDenied)
		d.Rule = rule
		return
	}
	if rule, ok := rules.Passed(r.Method, path); ok {
		d.Rule = rule
		d.Status, d.Code, d.Effect = 200, "", Pass
		return
	}
	c.rules, c.now = rules, e.now()
	switch {
	case h.present(signatureInputs) && !e.noSignatures:
		c.bySignature(ctx)
	case h.has&keyHeaders != 0:
		c.byAPIKey(ctx)
	default:
		c.byCookie(ctx)
	}
}

// Identify tells whose session a request shows that was refused before anybody was asked, such as by a restriction: it fills
// in Decision.Principal and Session where the cookie is that of a live one which fits the client. It decides nothing.
func (e *Engine) Identify(ctx context.Context, r *Request, d *Decision) {
	h := &r.headers
	if d.Effect != Deny || d.Principal != nil || h.has&keyHeaders != 0 || h.malformed(e.proxies) {
		return
	}
	c := check{engine: e, request: r, decision: &Decision{}, now: e.now()}
	e.cookies.find(&c.sent, h.cookie.list())
	if c.sent.count == 0 || c.sent.odd() {
		return
	}
	found, err := c.among(ctx)
	if err != nil || !e.fits(found.Session, h.single[userAgent], e.proxies.Client(r.Peer, h.single[trueClientIP], h.forwarded.list()...)) {
		return
	}
	d.Session, d.Principal = found.Session, found.Principal
}

// Client is Proxies.Client, and tells of a peer whose forwarding headers are ignored.
func (e *Engine) Client(peer netip.Addr, trueClientIP []byte, forwardedFor ...[]byte) netip.Addr {
	if len(forwardedFor) > 0 && !e.proxies.Trusted(peer) {
		e.reportUntrusted(peer)
	}
	return e.proxies.Client(peer, trueClientIP, forwardedFor...)
}

// reportUntrusted tells, at most once a minute, of a peer whose forwarding headers are ignored: either it forges them, or
// a proxy is missing in the configuration.
func (e *Engine) reportUntrusted(peer netip.Addr) {
	if e.forwarder != nil {
		e.forwarder()
	}
	if !e.untrusted.open(e.now(), 60) {
		return
	}
	e.log.LogAttrs(context.Background(), slog.LevelWarn, "a peer that is no trusted proxy sends X-Forwarded-For, which is "+
		"ignored: everybody behind it counts as one client, with one address for restrictions and one counter of sign-in "+
		"attempts; if it is your gateway, name it in BARONG_TRUSTED_PROXIES", slog.String("peer", peer.String()))
}

// A check is one decision under way.
type check struct {
	engine   *Engine
	request  *Request
	decision *Decision
	rules    *policy.Snapshot
	now      time.Time

	sent  Sent // the session cookies
	named bool // there is one, and it names the session below
	id    session.ID
	key   session.Key
}

// unavailable refuses because something could not be told, and says in the log what, at most once a second: in an outage
// every check ends here.
func (c *check) unavailable(ctx context.Context, what string, err error) {
	c.decision.refuse(unavailable)
	if !c.engine.undecided.open(c.now, 1) {
		return
	}
	c.engine.log.LogAttrs(ctx, slog.LevelError, "a check could not be decided", slog.String("at", what), slog.Any("error", err))
}

// errDisputed says that the session cookies are of different users, or too many to be looked up.
var errDisputed = errors.New("authz: the session cookies are of different users")

// byCookie decides a request that has no API key.
func (c *check) byCookie(ctx context.Context) {
	e, d, h := c.engine, c.decision, &c.request.headers
	if !c.named && c.sent.odd() {
		d.refuse(malformedRequest)
		return
	}
	csrf := e.csrf && changesState(c.request.Method)
	if csrf && !h.present(csrfToken) {
		d.refuse(missingCSRFToken)
		return
	}
	var (
		found near.Found
		err   = session.ErrNotFound
	)
	switch {
	case c.named:
		d.Credential = Cookie
		found, err = e.cache.Session(ctx, c.key, c.now)
	case c.sent.count > 1:
		found, err = c.among(ctx)
	}
	switch {
	case err == nil, errors.Is(err, session.ErrNotFound), errors.Is(err, near.ErrExpired):
	case errors.Is(err, errDisputed):
		d.refuse(invalidSession)
		return
	default:
		c.unavailable(ctx, "session", err)
		return
	}
	if csrf && (found.Session == nil || !sameSecret(h.single[csrfToken], found.Session.CSRF())) {
		d.refuse(csrfTokenMismatch)
		return
	}
	switch {
	case err == nil:
	case errors.Is(err, near.ErrExpired):
		d.refuse(sessionMismatch)
		return
	default:
		d.refuse(invalidSession)
		return
	}
	d.Session, d.Principal = found.Session, found.Principal
	if !e.fits(found.Session, h.single[userAgent], d.Client) {
		if e.compat {
			e.cache.End(ctx, found)
		}
		d.refuse(sessionMismatch)
		return
	}
	if e.cache.Slide(found, c.now) {
		https := e.proxies.HTTPS(c.request.Peer, h.single[forwardedProto])
		d.SetCookie = e.cookies.Set(c.id, found.Session.EndsAt(), c.now, https)
	}
	if !found.Principal.Open() {
		d.refuse(userNotActive)
		return
	}
	c.byRole(ctx, found.Principal, found.Session, found.Token)
}

// among finds the session that counts when several session cookies were sent, as Cache.Session does with one, and names it.
func (c *check) among(ctx context.Context) (near.Found, error) {
	c.decision.Credential = Cookie
	if c.sent.count > maxSent {
		return near.Found{}, errDisputed
	}
	var (
		choice  session.Choice
		found   near.Found
		outcome = session.ErrNotFound
	)
	for _, value := range c.sent.values[:c.sent.count] {
		id, ok := session.ParseID(value)
		if !ok {
			continue
		}
		one, err := c.engine.cache.Session(ctx, id.Key(), c.now)
		switch {
		case err == nil:
			if choice.Add(one.Session.UID, one.Session.CreatedAt(), one.Key()) {
				found, outcome, c.id = one, nil, id
			}
		case !errors.Is(err, session.ErrNotFound) && !errors.Is(err, near.ErrExpired):
			return near.Found{}, err // it may be the one that counts
		case outcome != nil && one.Session != nil: // a dead one, for its CSRF token
			found, outcome = one, err
		}
	}
	if choice.Disputed() {
		return near.Found{}, errDisputed
	}
	return found, outcome
}

// sameSecret compares in a time that does not depend on where the two differ. An empty secret equals nothing.
func sameSecret(sent, secret []byte) bool {
	return len(secret) > 0 && subtle.ConstantTimeCompare(sent, secret) == 1
}

// fits reports whether the client is the one that the session is tied to. What is only watched is told of.
func (e *Engine) fits(s *near.Session, agent []byte, client netip.Addr) bool {
	b := &e.bind
	if (b.UserAgent || b.LogUserAgent) && !sameAgent(s.UserAgent, agent) {
		if b.UserAgent {
			return false
		}
		e.reportMismatch(s, BindUserAgent, s.UserAgent, string(header.UTF8(agent[:min(len(agent), session.MaxUserAgent)])))
	}
	if !b.IP && !b.LogIP {
		return true
	}
	bits6 := 64 // what a provider gives to one customer; privacy addresses change below it
	if e.compat {
		bits6 = 96
	}
	if !sameNetwork(s.IP(), client, bits6) {
		if b.IP {
			return false
		}
		e.reportMismatch(s, BindIP, s.IP().String(), client.String())
	}
	return true
}

// reportMismatch counts a client that does not fit a session, and tells of it, at most once a second.
func (e *Engine) reportMismatch(s *near.Session, item, was, is string) {
	if e.mismatch != nil {
		e.mismatch(item)
	}
	if !e.mismatched.open(e.now(), 1) {
		return
	}
	e.log.LogAttrs(context.Background(), slog.LevelWarn, "a session was shown from elsewhere; it passes, since BARONG_SESSION_BIND "+
		"only logs that", slog.String("item", item), slog.String("uid", s.UID), slog.String("was", was), slog.String("is", is))
}

// sameAgent reports whether a User-Agent is the one that was kept: as it came, or with its odd bytes replaced.
func sameAgent(kept string, agent []byte) bool {
	if string(agent[:min(len(agent), session.MaxUserAgent)]) == kept {
		return true
	}
	agent = header.UTF8(agent)
	return string(agent[:min(len(agent), session.MaxUserAgent)]) == kept
}

// sameNetwork reports whether two addresses are in one IPv4 /16, or in one IPv6 network of so many bits, which are whole
// bytes. Two unknown addresses fit each other, and an unknown one nothing else.
func sameNetwork(a, b netip.Addr, bits6 int) bool {
	switch {
	case a.Is4() && b.Is4():
		x, y := a.As4(), b.As4()
		return x[0] == y[0] && x[1] == y[1]
	case a.Is6() && b.Is6():
		x, y := a.As16(), b.As16()
		return string(x[:bits6/8]) == string(y[:bits6/8])
	}
	return !a.IsValid() && !b.IsValid()
}

// byRole decides what a principal whose account is open may do, and gives the token.
func (c *check) byRole(ctx context.Context, p *session.Principal, s *near.Session, slot *near.TokenSlot) {
	e, r, d := c.engine, c.request, c.decision
	verdict := c.rules.Permit(p.Role, r.Method, d.Path)
	if verdict.Undecided {
		c.unavailable(ctx, "permissions", errUndecided)
		return
	}
	if verdict.Rule != nil {
		d.Rule = verdict.Rule.Path
	}
	if e.sampler != nil {
		e.sampler.Sample(p.Role, r.Method, d.Path, verdict.Allow)
	}
	if !verdict.Allow {
		d.refuse(invalidPermission)
		if err := c.audit(ctx, p, "", false); err != nil {
			e.log.LogAttrs(ctx, slog.LevelError, "a refusal could not be recorded", slog.Any("error", err))
		}
		return
	}
	token, err := e.tokens.authorization(ctx, slot, p, s, c.now)
	if err != nil {
		c.unavailable(ctx, "token", err)
		return
	}
	if verdict.Audit {
		if err := c.audit(ctx, p, verdict.Topic, true); err != nil {
			c.unavailable(ctx, "audit", err)
			return
		}
	}
	d.token = token.AppendTo(d.token[:0])
	d.Authorization = d.token
	d.Status, d.Code, d.Effect = 200, "", Allow
}

var (
	errUndecided = errors.New("authz: the permissions give no answer")
	errNoAuditor = errors.New("authz: there is nobody to record it")
)
