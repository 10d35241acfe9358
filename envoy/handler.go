package envoy

import (
	"context"
	"log/slog"
	"math/rand/v2"
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
	"barong/internal/pages"
	"barong/internal/reqid"
)

// A Checker decides requests. authz.Engine is the one that does.
type Checker interface {
	// Check fills d with the decision about r. It keeps no view of r's strings and bytes, nor ctx.
	Check(ctx context.Context, r *authz.Request, d *authz.Decision)
}

// An Observer counts checks. It is called from many goroutines, and must not block.
type Observer interface {
	// Observe is called once for each check.
	Observe(dialect authz.Dialect, effect authz.Effect, code string, credential authz.Credential)
	// Took tells how long a check took, which stands for so many like it. A warm one waited for nobody: no store, no
	// signature, no row to be committed. Of those one in TimedOf is timed, for the clock would cost more than the count.
	Took(dialect authz.Dialect, warm bool, took time.Duration, checks uint64)
}

// TimedOf is of how many warm checks one is timed.
const TimedOf = 16

// A Tracer makes spans of checks.
type Tracer interface {
	// Check begins the span of a check, in the trace that a traceparent header names, which may be nil or odd, or else in
	// a new one. The context that it returns carries the span to the stores.
	Check(ctx context.Context, parent []byte) (context.Context, Span)
}

// A Span is the span of one check.
type Span interface {
	// Decided ends it. What it is given must not be kept.
	Decided(r *authz.Request, d *authz.Decision, requestID string)
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
	LoginURL string // where browsers without a session are sent, an address or a path; empty: nowhere
	// LoginOpen reports whether somebody without a session reaches LoginURL. Nil: they do.
	LoginOpen func() bool
	// Refusals make the pages for browsers that are signed in and refused; nil: they get what programs get.
	Refusals *pages.Refusals
	Timeout  time.Duration // for the stores, per check; 0 is DefaultTimeout
	Observer Observer      // nil counts nothing
	Tracer   Tracer        // nil traces nothing
	// AccessLog is the share of checks, from 0 to 1, that are logged as information. All are when debugging.
	AccessLog float64
	Log       *slog.Logger // nil logs nothing
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
	tracer   Tracer // may be nil
	log      *slog.Logger
	verbose  atomic.Bool   // every check is logged
	access   atomic.Uint64 // a check is logged when a random number of 32 bits is below this
	timed    atomic.Bool   // every check is timed
	base     context.Context

	loginOpen func() bool
	refusals  *pages.Refusals // nil for none

	tasks        sync.Pool    // of *task
	lastOverride atomic.Int64 // when a method override was last reported, in Unix seconds
}

// New returns a handler.
func New(o Options) *Handler {
	h := &Handler{
		checker: o.Checker, trusted: o.Trusted, login: newLoginPage(o.LoginURL), timeout: o.Timeout,
		observer: o.Observer, tracer: o.Tracer, log: o.Log, base: o.Base,
		loginOpen: o.LoginOpen, refusals: o.Refusals,
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
	h.LogShare(o.AccessLog)
	h.tasks.New = func() any {
		t := new(task)
		t.load = t.loadBody
		t.ctx.request, t.ctx.base = &t.request, context.Background()
		t.turn = uint8(rand.Uint32()) // so that tasks which do not last are timed as often as the others
		return t
	}
	return h
}

// LogShare sets Options.AccessLog anew, and asks the log again whether it is for debugging.
func (h *Handler) LogShare(share float64) {
	verbose, access := h.log.Enabled(h.base, slog.LevelDebug), uint64(share*(1<<32))
	h.timed.Store(verbose || access > 0) // before a check wants to know how long it took
	h.verbose.Store(verbose)
	h.access.Store(access)
}

type nobody struct{}

func (nobody) Observe(authz.Dialect, authz.Effect, string, authz.Credential) {}
func (nobody) Took(authz.Dialect, bool, time.Duration, uint64)               {}

// A task is what one check needs, kept for the next one.
type task struct {
	request  authz.Request
	decision authz.Decision
	http     *fasthttp.RequestCtx       // of a check whose body load reads
	load     func(*authz.Request) error // loadBody, made once
	ctx      lazyContext
	span     Span   // nil for none
	accept   []byte // the Accept header over HTTP, the last of several
	accepts  int    // how many there are

	turn  uint8 // checks that this task was for, as far as that tells which is timed
	timed bool
	begun time.Time // of a check that is timed
}

func (h *Handler) task(dialect authz.Dialect) *task {
	t := h.tasks.Get().(*task)
	t.request.Dialect = dialect
	if t.turn++; h.timed.Load() || t.turn%TimedOf == 0 {
		t.timed, t.begun = true, time.Now()
	}
	return t
}

// release keeps the task for another check, unless somebody may still hold its context. It is not called when a check
// panicked: nobody knows then what still points into the task.
func (h *Handler) release(t *task) {
	warm, reusable := t.ctx.end()
	switch {
	case !warm && !t.timed: // what came before it began to wait took microseconds
		h.observer.Took(t.request.Dialect, false, time.Since(t.ctx.begun), 1)
	case !warm || t.timed && h.timed.Load():
		h.observer.Took(t.request.Dialect, warm, time.Since(t.begun), 1)
	case t.timed:
		h.observer.Took(t.request.Dialect, true, time.Since(t.begun), TimedOf)
	}
	t.request.Reset()
	t.decision.Reset()
	t.http, t.timed, t.accept, t.accepts = nil, false, nil, 0
	if reusable {
		h.tasks.Put(t)
	}
}

// decide has the task's request decided and makes sure that the decision is one that can be said.
func (h *Handler) decide(base context.Context, t *task) {
	limit := h.timeout
	if t.request.Dialect == authz.SelfGate {
		limit = max(limit, gateTimeout)
	}
	if h.tracer != nil {
		var parent []byte
		if h.trusted(t.request.Peer) {
			parent = t.request.TraceParent()
		}
		base, t.span = h.tracer.Check(base, parent)
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

// conclude counts the check, logs it and ends its span.
func (h *Handler) conclude(t *task) {
	d := &t.decision
	h.observer.Observe(t.request.Dialect, d.Effect, d.Code, d.Credential)
	if h.verbose.Load() || h.access.Load() > 0 {
		h.logCheck(t)
	}
	if t.span != nil {
		t.span.Decided(&t.request, d, string(t.ctx.requestID()))
		t.span = nil
	}
}

// logCheck logs the check, if it is one of those. It says neither the query nor a header: secrets stand there.
func (h *Handler) logCheck(t *task) {
	level := slog.LevelDebug
	if access := h.access.Load(); access > 0 && uint64(rand.Uint32()) < access {
		level = slog.LevelInfo
	} else if !h.verbose.Load() {
		return
	}
	d, uid := &t.decision, ""
	if d.Principal != nil {
		uid = d.Principal.UID
	}
	seconds := 0.0
	if t.timed { // not of one that began before they were logged
		seconds = time.Since(t.begun).Seconds()
	}
	ctx := reqid.With(t.ctx.base, string(t.ctx.requestID()))
	h.log.LogAttrs(ctx, level, "check",
		slog.String("dialect", t.request.Dialect.String()), slog.String("method", t.request.Method),
		slog.String("path", d.Path), slog.Int("status", d.Status), slog.String("code", d.Code),
		slog.String("rule", d.Rule), slog.String("credential", d.Credential.String()), slog.String("uid", uid),
		slog.String("client", d.Client.String()), slog.Float64("seconds", seconds))
}

// panicked reports a check that blew up. Whatever it had decided is worth nothing.
func (h *Handler) panicked(ctx context.Context, dialect authz.Dialect, reason any) {
	h.observer.Observe(dialect, authz.Deny, string(fault.InternalError), authz.NoCredential)
	h.log.LogAttrs(ctx, slog.LevelError, "check panicked",
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
		if kind != BarePrefix || !opensRoot(ctx, target) {
			return turnAway(ctx, kind)
		}
		h.ExtAuthz(ctx, target[len(ExtAuthzPrefix):])
	}
	return true
}

// opensRoot reports that a browser asks Envoy for the address alone, whose check has no path behind the prefix. That is an
// unknown route to programs, as it was in the original; a person would be left there, whom a check sends to the login page.
func opensRoot(ctx *fasthttp.RequestCtx, target []byte) bool {
	h := &ctx.Request.Header
	if len(target) == len(ExtAuthzPrefix) || target[len(ExtAuthzPrefix)] != '/' || !h.IsGet() && !h.IsHead() {
		return false
	}
	s := scan(h)
	for s.next() {
		if nameAccept.Is(s.name) && acceptsHTML(s.value) {
			return true
		}
	}
	return false
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
	nameRequestID     = []byte(reqid.Header)

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
	if t.decision.Effect == authz.Deny && (h.login != nil || h.refusals != nil) && t.mayWantHTML() {
		v := t.visitorOf(ctx)
		if location := h.redirect(t, &v); location != "" {
			writeLogin(ctx, t.request.Dialect, location)
		} else if page := h.page(t, &v); page != "" {
			h.writePage(ctx, t.request.Dialect, page)
		}
	}
	if t.decision.Effect == authz.Deny { // who asks why says which one
		ctx.Response.Header.SetCanonical(nameRequestID, t.ctx.requestID())
	}
	h.release(t)
}

// recovered turns a panic of the check into a 500 for that request alone.
func (h *Handler) recovered(ctx *fasthttp.RequestCtx, dialect authz.Dialect) {
	if reason := recover(); reason != nil {
		id := reqid.Of(ctx.Request.Header.Peek(reqid.Header))
		h.panicked(reqid.With(h.base, id), dialect, reason)
		listener.Refuse(ctx, fasthttp.StatusInternalServerError, fault.InternalError)
		ctx.Response.Header.Set(reqid.Header, id)
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
