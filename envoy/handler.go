package envoy

import (
	"context"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"barong/authz"
	"barong/internal/fault"
	"barong/internal/header"
	"barong/internal/listener"
)

// A Checker decides requests. authz.Engine is the one that does.
type Checker interface {
	// Check fills d with the decision about r. It keeps no view of r's strings and bytes, nor ctx.
	Check(ctx context.Context, r *authz.Request, d *authz.Decision)
}

// An Observer counts checks. It is called once for each, from many goroutines, and must not block.
type Observer interface {
	Observe(dialect authz.Dialect, effect authz.Effect, code string, credential authz.Credential)
}

// DefaultTimeout limits the stores' share of a check when Options says nothing. It is half of the second that gateways wait
// in the reference configurations: the other half is for the connection and for queues on the way, so that the answer is a
// 503 with a code and not the gateway's own. It covers the commit of an audit row, which on a disk with other work may
// take some hundreds of milliseconds.
const DefaultTimeout = 500 * time.Millisecond

// gateTimeout replaces it for calls of the REST API, whose callers wait longer than gateways do: a busy database that
// commits an audit row late is no reason to refuse them.
const gateTimeout = 2 * time.Second

// Options are what a Handler is made of. Checker and Trusted are required.
type Options struct {
	Checker Checker
	// Trusted reports whether a peer is a gateway whose word about its clients is believed. It is asked with the zero
	// Addr for peers on a unix socket.
	Trusted  func(netip.Addr) bool
	LoginURL string        // where browsers without a session are sent, an address or a path; empty: nowhere
	Timeout  time.Duration // for the stores, per check; 0 is DefaultTimeout
	Observer Observer      // nil counts nothing
	Log      *slog.Logger  // nil logs nothing
	// Base ends the checks under way when it ends; nil never does.
	Base context.Context
}

// A Handler answers checks in every dialect. It is safe for concurrent use.
type Handler struct {
	checker  Checker
	trusted  func(netip.Addr) bool
	login    *loginPage // nil for none
	timeout  time.Duration
	observer Observer
	log      *slog.Logger
	verbose  bool // every check is logged
	base     context.Context

	tasks        sync.Pool    // of *task
	lastOverride atomic.Int64 // when a method override was last reported, in Unix seconds
}

// New returns a handler.
func New(o Options) *Handler {
	h := &Handler{
		checker: o.Checker, trusted: o.Trusted, login: newLoginPage(o.LoginURL), timeout: o.Timeout,
		observer: o.Observer, log: o.Log, base: o.Base,
	}
	if h.timeout <= 0 {
		h.timeout = DefaultTimeout
	}
	if h.observer == nil {
		h.observer = nobody{}
	}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	if h.base == nil {
		h.base = context.Background()
	}
	h.verbose = h.log.Enabled(h.base, slog.LevelDebug)
	h.tasks.New = func() any {
		t := new(task)
		t.load = t.loadBody
		return t
	}
	return h
}

type nobody struct{}

func (nobody) Observe(authz.Dialect, authz.Effect, string, authz.Credential) {}

// A task is what one check needs, kept for the next one.
type task struct {
	request  authz.Request
	decision authz.Decision
	visitor  visitor                    // as far as there is a login page
	http     *fasthttp.RequestCtx       // of a check whose body load reads
	load     func(*authz.Request) error // loadBody, made once
	ctx      lazyContext
}

func (h *Handler) task(dialect authz.Dialect) *task {
	t := h.tasks.Get().(*task)
	t.request.Dialect = dialect
	return t
}

// release keeps the task for another check, unless somebody may still hold its context. It is not called when a check
// panicked: nobody knows then what still points into the task.
func (h *Handler) release(t *task) {
	t.request.Reset()
	t.decision = authz.Decision{}
	t.visitor, t.http = visitor{}, nil
	if t.ctx.end() {
		h.tasks.Put(t)
	}
}

// decide has the task's request decided and makes sure that the decision is one that can be said.
func (h *Handler) decide(base context.Context, t *task) {
	limit := h.timeout
	if t.request.Dialect == authz.SelfGate {
		limit = max(limit, gateTimeout)
	}
	t.ctx.begin(base, limit)
	d := &t.decision
	h.checker.Check(&t.ctx, &t.request, d)
	switch {
	case d.Effect == authz.Pass:
		d.Status = fasthttp.StatusOK
	case d.Effect == authz.Allow && len(d.Authorization) > 0:
		d.Status = fasthttp.StatusOK
	case d.Effect == authz.Deny && d.Status >= 400 && d.Status <= 599 && d.Code != "":
	default: // a decision that says nothing is a defect, and refuses
		credential := d.Credential
		*d = *refusal(fault.Unavailable)
		d.Credential = credential
	}
}

// refuse makes the decision about a request that never reached the checker.
func (t *task) refuse(code fault.Code) { t.decision = *refusal(code) }

// refusal is the decision to refuse with a code of the catalogue.
func refusal(code fault.Code) *authz.Decision {
	return &authz.Decision{Status: code.Status(), Code: string(code)}
}

// conclude counts the check and logs it.
func (h *Handler) conclude(t *task) {
	d := &t.decision
	h.observer.Observe(t.request.Dialect, d.Effect, d.Code, d.Credential)
	if h.verbose {
		h.log.LogAttrs(h.base, slog.LevelDebug, "check",
			slog.String("dialect", t.request.Dialect.String()), slog.String("method", t.request.Method),
			slog.String("path", d.Path), slog.Int("status", d.Status), slog.String("code", d.Code),
			slog.String("rule", d.Rule), slog.String("credential", d.Credential.String()),
			slog.String("client", d.Client.String()))
	}
}

// panicked reports a check that blew up. Whatever it had decided is worth nothing.
func (h *Handler) panicked(dialect authz.Dialect, reason any) {
	h.observer.Observe(dialect, authz.Deny, string(fault.InternalError), authz.NoCredential)
	h.log.LogAttrs(h.base, slog.LevelError, "check panicked",
		slog.String("dialect", dialect.String()), slog.Any("reason", reason), slog.String("stack", string(debug.Stack())))
}

// Handle answers the request if it is a check, or one that no part of the process may take, and reports whether it
// did. It stands before every router of a listener that serves both checks and the REST API.
func (h *Handler) Handle(ctx *fasthttp.RequestCtx) bool {
	target := ctx.Request.Header.RequestURI()
	switch kind := Owns(target); kind {
	case ExtAuthz:
		h.ExtAuthz(ctx, target[len(ExtAuthzPrefix):])
	case ForwardAuth:
		h.ForwardAuth(ctx)
	case AuthRequest:
		h.AuthRequest(ctx)
	default:
		return turnAway(ctx, kind)
	}
	return true
}

// turnAway answers a request that is no check here, unless a router may have it. It reports whether it answered.
func turnAway(ctx *fasthttp.RequestCtx, kind Kind) bool {
	if kind == RefusedTarget || !WellFormed(&ctx.Request.Header) {
		ctx.SetConnectionClose() // where its end is, and so what follows it, is anybody's guess
		listener.Refuse(ctx, fasthttp.StatusBadRequest, fault.MalformedRequest)
		return true
	}
	if kind == Other {
		return false
	}
	routeNotFound(ctx)
	return true
}

// ServeChecks is the whole handler of a listener for checks alone: whatever is no check is an unknown route there, so
// nothing but a decision can ever answer with a 200.
func (h *Handler) ServeChecks(ctx *fasthttp.RequestCtx) {
	if !h.Handle(ctx) {
		routeNotFound(ctx)
	}
}

// RefuseChecks answers checks, on a listener that does not serve them because another one does, with an unknown route.
// It reports whether it answered, as Handle does.
func RefuseChecks(ctx *fasthttp.RequestCtx) bool {
	return turnAway(ctx, Owns(ctx.Request.Header.RequestURI()))
}

// Header names and values that answers are made of, in the spelling that goes on the wire.
var (
	nameAuthorization = []byte("Authorization")
	nameCacheControl  = []byte("Cache-Control")
	nameRemove        = []byte("X-Envoy-Auth-Headers-To-Remove")

	valueNoStore       = []byte("no-store")
	valueAuthorization = []byte("authorization")
	valueJSON          = []byte("application/json")
)

// write puts a decision into the response.
func write(ctx *fasthttp.RequestCtx, d *authz.Decision) {
	r := &ctx.Response
	r.Header.SetNoDefaultContentType(true)
	r.Header.SetCanonical(nameCacheControl, valueNoStore)
	r.SetStatusCode(d.Status)
	switch d.Effect {
	case authz.Allow:
		r.Header.SetCanonical(nameAuthorization, d.Authorization)
	case authz.Pass:
		// Nobody was identified. Envoy would hand the client's own Authorization on to the service behind it.
		r.Header.SetCanonical(nameRemove, valueAuthorization)
	default:
		listener.WriteRefusal(ctx, d.Status, fault.Code(d.Code))
	}
	if d.SetCookie != "" {
		r.Header.Add(fasthttp.HeaderSetCookie, d.SetCookie)
	}
}

func routeNotFound(ctx *fasthttp.RequestCtx) {
	ctx.Response.Reset()
	ctx.Response.Header.SetCanonical(nameCacheControl, valueNoStore)
	ctx.Response.Header.SetContentTypeBytes(valueJSON)
	ctx.SetStatusCode(fasthttp.StatusNotFound)
	ctx.SetBodyString(`{"error":"Route is not found"}`)
}

// finish counts the check, answers it and gives the task back.
func (h *Handler) finish(ctx *fasthttp.RequestCtx, t *task) {
	h.conclude(t)
	write(ctx, &t.decision)
	if location := h.redirect(t); location != "" {
		writeLogin(ctx, t.request.Dialect, location)
	}
	h.release(t)
}

// recovered turns a panic of the check into a 500 for that request alone.
func (h *Handler) recovered(ctx *fasthttp.RequestCtx, dialect authz.Dialect) {
	if reason := recover(); reason != nil {
		h.panicked(dialect, reason)
		listener.Refuse(ctx, fasthttp.StatusInternalServerError, fault.InternalError)
		if dialect == authz.AuthRequest {
			listener.RepeatStatus(ctx, fasthttp.StatusInternalServerError, fault.InternalError)
		}
	}
}

// reportOverride warns, at most once a minute, of headers that ask to judge another method than the one that was sent.
// They are never obeyed; a service behind the gateway that does obey them runs what nobody decided.
func (h *Handler) reportOverride(name []byte) {
	now := time.Now().Unix()
	last := h.lastOverride.Load()
	if now-last < 60 || !h.lastOverride.CompareAndSwap(last, now) {
		return
	}
	h.log.LogAttrs(h.base, slog.LevelWarn, "a client sent a method override header; it is ignored and must not be obeyed upstream",
		slog.String("header", string(name)))
}

// overrides reports whether the header is one of the usual method overrides.
func overrides(name []byte) bool {
	switch len(name) {
	case len("x-http-method"):
		return nameHTTPMethod.Is(name)
	case len("x-method-override"):
		return nameMethodOverride.Is(name)
	case len("x-http-method-override"):
		return nameHTTPMethodOverride.Is(name)
	}
	return false
}

var (
	nameHTTPMethod         = header.NewName("x-http-method")
	nameMethodOverride     = header.NewName("x-method-override")
	nameHTTPMethodOverride = header.NewName("x-http-method-override")
)
