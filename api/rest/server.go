package rest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net/netip"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/fasthttp/router"
	"github.com/valyala/fasthttp"

	"barong/authz"
	"barong/db"
	"barong/internal/crypto/keys"
	"barong/internal/fault"
	"barong/internal/header"
	"barong/internal/listener"
	"barong/internal/patience"
	"barong/internal/reqid"
	"barong/internal/trusted"
	"barong/policy"
)

// Base is the path below which the API is served to gateways, which have rewritten the published path to it.
const Base = "/api/v2"

const (
	// callTimeout bounds what one call may take, uploads aside.
	callTimeout = 20 * time.Second
	// storeTimeout bounds what a call waits for the stores, all its questions together.
	storeTimeout = 5 * time.Second
)

// Options are what a Server is made of. All are required but those that say otherwise.
type Options struct {
	Routes []Route
	Users  interface {
		UserByUID(ctx context.Context, uid string) (*db.User, error)
	}
	Tokens interface {
		Verify(token string, want keys.Expect) (keys.Claims, error)
	}
	Expect keys.Expect // what a bearer token must be
	Policy func() *policy.Snapshot
	Prefix string // path under which gateways publish the API, without slashes at its ends: "api/v2/barong"

	// Gate decides a request to the self-gated API as the gateway would. It answers and returns false, or sets the
	// Authorization header of the request to the token, removes one that proves nothing, and returns true. It calls load
	// when it wants the body, which flows until then.
	Gate func(rc *fasthttp.RequestCtx, load func()) bool
	// Client tells who calls.
	Client func(rc *fasthttp.RequestCtx) Caller
	// Audit records a call that this server itself refuses for want of permission.
	Audit authz.Auditor
	// Open verifies the message of a call to a Signed route and returns the JSON object of its parameters. It may be nil
	// where no route is Signed.
	Open func(ctx context.Context, r *Route, m Message) ([]byte, error)

	Observe func(route *Route, status int, took time.Duration) // may be nil
	// Trace begins the span of a call, which end ends. nil traces nothing.
	Trace  func(ctx context.Context, r *Route, rc *fasthttp.RequestCtx) (traced context.Context, end func(status int))
	CORS   CORS
	Legacy bool
	Base   context.Context // ends calls under way; may be nil
	Log    *slog.Logger    // may be nil
}

// A Server answers the REST API, both as an upstream behind a gateway (/api/v2/…) and gated by itself
// (/<prefix>/…). It is safe for concurrent use.
type Server struct {
	Options
	router     *router.Router
	gated      []byte // "/api/v2/barong/"
	turnstiles map[*Route]*turnstile
	unknown    *turnstile // for all large calls to Signed routes

	streams, streamsOne *turnstile // see Call.Stream
	bodies              *budget
}

// New returns a server for the routes. It panics on a route without Access, which is a mistake of the program.
func New(o Options) *Server {
	s := &Server{
		Options: o, router: router.New(), gated: []byte("/" + o.Prefix + "/"), turnstiles: map[*Route]*turnstile{},
		unknown: newTurnstile(unknownCalls), streams: newTurnstile(streams), streamsOne: newTurnstile(streamsOne),
		bodies: newBudget(bodiesAll, bodiesOne),
	}
	if s.Base == nil {
		s.Base = context.Background()
	}
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	// The redirects compare decoded paths and would answer for a path that nobody registered.
	s.router.RedirectTrailingSlash, s.router.RedirectFixedPath = false, false
	s.router.HandleMethodNotAllowed, s.router.HandleOPTIONS = false, false
	s.router.NotFound = func(rc *fasthttp.RequestCtx) { WriteFault(rc, errNoRoute) }
	verbs := map[string][]*Route{}
	for i := range o.Routes {
		r := &o.Routes[i]
		if r.Access == 0 {
			panic("rest: " + r.Method + " " + r.Path + " does not say who may call")
		}
		if r.Parallel > 0 {
			s.turnstiles[r] = newTurnstile(r.Parallel)
		}
		h := func(rc *fasthttp.RequestCtx) { s.serve(rc, r) }
		s.router.Handle(r.Method, r.Path, h)
		if r.Method == fasthttp.MethodGet {
			s.router.Handle(fasthttp.MethodHead, r.Path, h)
		}
		if r.Access != Signed { // services know what they may ask
			verbs[r.Path] = append(verbs[r.Path], r)
		}
	}
	for path, routes := range verbs {
		s.router.Handle(fasthttp.MethodOptions, path, func(rc *fasthttp.RequestCtx) { s.options(rc, routes) })
	}
	return s
}

// A Message is what a call to a Signed route consists of.
type Message struct {
	Query       bool // there is a query
	ContentType string
	Body        []byte // good until the call ends
}

var errNoRoute = fault.Plain(fasthttp.StatusNotFound, "Route is not found")

// Handle answers any request that is no check.
func (s *Server) Handle(rc *fasthttp.RequestCtx) {
	defer func() {
		if reason := recover(); reason != nil {
			s.Log.Error("call panicked", "method", string(rc.Method()), "request_id", requestID(rc), "reason", reason, "stack", string(debug.Stack()))
			rc.Response.Reset()
			WriteFault(rc, fault.New(fault.InternalError))
		}
		if len(rc.Response.Header.Peek(reqid.Header)) == 0 { // a refusal of the gate has it
			rc.Response.Header.Set(reqid.Header, requestID(rc))
		}
		s.CORS.decorate(rc)
	}()
	rc.Response.Header.Set(fasthttp.HeaderCacheControl, "no-store")
	if s.CORS.preflight(rc) {
		return
	}
	raw, rest, hasQuery := bytes.Cut(rc.Request.Header.RequestURI(), []byte("?"))
	var path string // below Base, as it is served
	switch {
	case bytes.HasPrefix(raw, s.gated):
		// Headers behind the body come from the caller alone, so the caller is told before it may be read.
		from := s.Client(rc)
		rc.SetUserValue(userCaller, from)
		judged := withoutSuffix(string(raw))
		if len(judged) != len(raw) { // the path that is judged must be the one that is served
			target := judged
			if hasQuery {
				target += "?" + string(rest)
			}
			rc.Request.SetRequestURI(target)
		}
		give, unread := func() {}, error(nil)
		defer func() { give() }()
		if !s.Gate(rc, func() { give, unread = s.readWhole(s.Base, rc, from.Addr) }) {
			return
		}
		if unread != nil {
			WriteFault(rc, unread)
			return
		}
		path = slashes(judged[len(s.gated)-1:])
	case bytes.HasPrefix(raw, []byte(Base+"/")):
		path = tidy(string(raw[len(Base):]))
	default:
		rc.SetStatusCode(fasthttp.StatusNotFound)
		rc.SetBodyString("Not found")
		return
	}
	rc.Request.SetRequestURI(path + query(rc))
	s.router.Handler(rc)
}

// userCaller is the key of who calls, where that is known before the call is read.
const userCaller = "caller"

// userRequest is the key of the name of a call, once somebody has asked for it.
const userRequest = "request"

// requestID is the name of a call: see package reqid. It stays the same while the call lasts, whatever its header becomes.
func requestID(rc *fasthttp.RequestCtx) string {
	if id, ok := rc.UserValue(userRequest).(string); ok {
		return id
	}
	id := reqid.Of(rc.Request.Header.Peek(reqid.Header))
	rc.SetUserValue(userRequest, id)
	return id
}

// A Caller is who calls, behind trusted proxies.
type Caller struct {
	Addr  netip.Addr // the zero Addr when it could not be told
	HTTPS bool       // they came over https
	Host  string     // that they asked for, with the port if they said one
}

// CallerBehind tells who calls behind trusted proxies. engine knows them as well, and takes note of peers whose forwarding
// headers are ignored.
func CallerBehind(proxies *trusted.Proxies, engine *authz.Engine) func(rc *fasthttp.RequestCtx) Caller {
	return func(rc *fasthttp.RequestCtx) Caller {
		h := &rc.Request.Header
		peer := listener.Peer(rc)
		return Caller{
			Addr:  engine.Client(peer, h.Peek("True-Client-Ip"), h.PeekAll("X-Forwarded-For")...),
			HTTPS: proxies.HTTPS(peer, h.Peek("X-Forwarded-Proto")),
			Host:  proxies.Host(peer, h.Peek("X-Forwarded-Host"), rc.Host()),
		}
	}
}

func query(rc *fasthttp.RequestCtx) string {
	if q := rc.Request.URI().QueryString(); len(q) > 0 {
		return "?" + string(q)
	}
	return ""
}

// tidy forgives what clients of the original get away with: doubled slashes, one at the end, and the suffix .json.
func tidy(path string) string { return withoutSuffix(slashes(path)) }

// slashes makes doubled slashes one, and takes off the one at the end.
func slashes(path string) string {
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	if len(path) > 1 {
		path = strings.TrimSuffix(path, "/")
	}
	return path
}

// documents are the names whose suffix is part of them.
var documents = []string{"/openapi", "/restful_api", "/management/management"}

// withoutSuffix takes off the suffix .json with a slash behind it, if that is not the name of a document.
func withoutSuffix(path string) string {
	trimmed, ok := strings.CutSuffix(strings.TrimSuffix(path, "/"), ".json")
	if !ok || slices.ContainsFunc(documents, func(name string) bool { return strings.HasSuffix(trimmed, name) }) {
		return path
	}
	return trimmed
}

func (s *Server) call(rc *fasthttp.RequestCtx, r *Route) *Call {
	c := &Call{Route: r, Legacy: s.Legacy, rc: rc, server: s, UserAgent: string(header.UTF8(rc.UserAgent()))}
	from, known := rc.UserValue(userCaller).(Caller)
	if !known {
		from = s.Client(rc)
	}
	c.Client, c.HTTPS, c.AskedHost = from.Addr, from.HTTPS, from.Host
	return c
}

func (s *Server) logRefusal(ctx context.Context, r *Route, f *fault.Error) {
	if f.Status >= 500 {
		s.Log.ErrorContext(ctx, "call failed", "method", r.Method, "route", r.Path, "status", f.Status, "error", f.Error())
	} else {
		s.Log.DebugContext(ctx, "call refused", "method", r.Method, "route", r.Path, "status", f.Status, "error", f.Error())
	}
}

func (s *Server) serve(rc *fasthttp.RequestCtx, r *Route) {
	begin := time.Now()
	limit := callTimeout
	if r.MaxBody > DefaultMaxBody { // an upload, which may wait for another one, and for a slow client
		limit += longest + listener.BodyTime(rc.Request.Header.ContentLength())
	}
	ctx, cancel := context.WithTimeout(s.Base, limit)
	defer cancel()
	c := s.call(rc, r)
	defer c.giveBack()
	ctx = reqid.With(ctx, requestID(rc))
	if s.Trace != nil {
		traced, end := s.Trace(ctx, r, rc)
		ctx = traced
		defer func() { end(rc.Response.StatusCode()) }()
	}
	ctx, stop := patience.Limit(ctx, storeTimeout)
	defer stop()
	if err := s.guard(ctx, c); err != nil {
		rc.Response.ResetBody()
		s.logRefusal(ctx, r, WriteFault(rc, err))
	}
	if c.form != nil {
		if err := c.form.RemoveAll(); err != nil {
			s.Log.WarnContext(ctx, "temporary files of an upload are left", "error", err)
		}
	}
	if s.Observe != nil {
		s.Observe(r, rc.Response.StatusCode(), time.Since(begin))
	}
}

// guard is run, with a panic as the error of this one call: what was opened for it is still closed.
func (s *Server) guard(ctx context.Context, c *Call) (err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = fmt.Errorf("panic: %v\n%s", reason, debug.Stack())
			c.rc.Response.Reset()
			c.rc.Response.Header.Set(fasthttp.HeaderCacheControl, "no-store")
		}
	}()
	return s.run(ctx, c)
}

// run takes a call through its steps: who, what, and whether it fits; then the handler.
func (s *Server) run(ctx context.Context, c *Call) error {
	if c.Route.Access == Signed {
		// Such routes are for services in the same network: what came by the self-gated API, which is for everybody, does
		// not reach them.
		if _, gated := c.rc.UserValue(userCaller).(Caller); gated {
			return errNoRoute
		}
		leave, err := s.enterUnknown(ctx, c)
		if err != nil {
			return err
		}
		defer leave()
	}
	if err := s.authenticate(ctx, c); err != nil {
		return err
	}
	if c.User != nil {
		leave, err := enter(ctx, c, s.turnstiles[c.Route], c.User.ID, listener.BodyTime(c.rc.Request.Header.ContentLength()))
		if err != nil {
			return err
		}
		defer leave()
	}
	back := patience.Outside(ctx)
	err := c.read(ctx)
	back()
	if err != nil {
		return err
	}
	if codes, required := c.Route.validate(c.args); len(codes) > 0 {
		status := fasthttp.StatusUnprocessableEntity
		if required && c.Route.BadRequest && !c.Legacy {
			status = fasthttp.StatusBadRequest
		}
		return c.Route.style().refusal(status, codes)
	}
	return c.Route.Handle(ctx, c)
}

// enter waits for a place among the calls of a caller, on a route that has few; leave must follow it. The time in which the
// body must arrive begins when it returns: the client is not to blame for the wait.
func enter(ctx context.Context, c *Call, gate *turnstile, who any, body time.Duration) (leave func(), err error) {
	if gate == nil {
		return func() {}, nil
	}
	defer patience.Outside(ctx)()
	if leave, err = gate.enter(ctx, who); err != nil {
		unread(c.rc)
		return nil, err
	}
	_ = c.rc.SetReadDeadline(time.Now().Add(body)) // one that is gone fails when read
	return leave, nil
}

// Bounds of calls to Signed routes with large bodies, which stand in memory before it is known who sends them.
const (
	unknownCalls    = 16 // at the same time, of all addresses
	unknownBodyTime = 15 * time.Second
)

// enterUnknown is enter for a call whose caller stands in its body: places are by address, and few in all.
func (s *Server) enterUnknown(ctx context.Context, c *Call) (leave func(), err error) {
	gate := s.turnstiles[c.Route]
	one, err := enter(ctx, c, gate, c.Client, unknownBodyTime)
	if err != nil || gate == nil {
		return one, err
	}
	all, err := enter(ctx, c, s.unknown, nil, unknownBodyTime)
	if err != nil {
		one()
		return nil, err
	}
	return func() {
		all()
		one()
	}, nil
}

// authenticate finds the caller of a route that is not public, from the token that a gateway has injected. Role and state
// are those of the database, never those of the token.
func (s *Server) authenticate(ctx context.Context, c *Call) error {
	switch c.Route.Access {
	case Public:
		return nil
	case Signed:
		return s.open(ctx, c)
	case User, Staff:
	}
	given := c.rc.Request.Header.PeekAll(fasthttp.HeaderAuthorization)
	if len(given) > 1 { // a gateway that adds its token to the client's, and which of them counts is anybody's guess
		return fault.New("authz.malformed_request")
	}
	token, ok := []byte(nil), false
	if len(given) == 1 {
		token, ok = bytes.CutPrefix(given[0], []byte("Bearer "))
	}
	if !ok {
		return fault.New(fault.BadToken)
	}
	claims, err := s.Tokens.Verify(string(token), s.Expect)
	if err != nil {
		return fault.New(fault.BadToken).Because(err)
	}
	if claims.UID == "" {
		return fault.New(fault.BadToken).Because(errors.New("the token names no user"))
	}
	user, err := s.Users.UserByUID(ctx, claims.UID)
	if err != nil {
		return err
	}
	if !user.Open() {
		return fault.New("authz.user_not_active")
	}
	c.User = user
	if c.Route.Access != Staff {
		return nil
	}
	return s.permit(ctx, c)
}

// open puts the parameters that a signed message carries in the place of the request's body.
func (s *Server) open(ctx context.Context, c *Call) error {
	give, err := s.reserve(ctx, c.rc, c.Client, c.Route.maxBody())
	if err != nil {
		return err
	}
	c.held = append(c.held, give)
	back := patience.Outside(ctx)
	err = readLimited(c.rc, c.Route.maxBody())
	back()
	if err != nil {
		return err
	}
	data, err := s.Open(ctx, c.Route, Message{
		Query: len(c.rc.URI().QueryString()) > 0, ContentType: string(c.rc.Request.Header.ContentType()), Body: c.rc.Request.Body(),
	})
	if err != nil {
		return err
	}
	c.rc.Request.SetBodyRaw(data)
	return nil
}

// permit asks the rules that the gateway asks, with the path that the gateway sees, so that a direct call of this
// process never gives more than one through the gateway.
func (s *Server) permit(ctx context.Context, c *Call) error {
	method := string(c.rc.Method())
	path, ok := authz.Canonical("/" + s.Prefix + string(c.rc.Request.URI().PathOriginal()))
	if !ok {
		return fault.New("authz.ambiguous_path")
	}
	verdict := s.Policy().Permit(c.User.Role, method, path)
	if verdict.Undecided {
		return fault.New(fault.Unavailable)
	}
	if verdict.Allow {
		return nil
	}
	entry := &authz.AuditEntry{
		UserID: c.User.ID, UID: c.User.UID, Role: c.User.Role, Method: method, Path: path, Topic: verdict.Topic,
		Query: string(c.rc.URI().QueryString()), Client: c.Client, UserAgent: c.UserAgent, RequestID: reqid.From(ctx),
	}
	// What was asked for stands in the body, most often. One that cannot be read changes nothing about the refusal.
	give, err := s.readWhole(ctx, c.rc, c.User.ID)
	c.held = append(c.held, give)
	if err == nil && !isMultipart(c.rc) {
		entry.Body, entry.ContentType = c.rc.Request.Body(), string(c.rc.Request.Header.ContentType())
	}
	if err := s.Audit.Audit(ctx, entry); err != nil {
		s.Log.ErrorContext(ctx, "a refusal could not be recorded", "error", err)
	}
	return fault.New("authz.invalid_permission")
}

// read decodes the parameters of a call.
func (c *Call) read(ctx context.Context) error {
	path := map[string]string{}
	for segment := range strings.SplitSeq(c.Route.Path, "/") {
		if name, ok := strings.CutPrefix(segment, "{"); ok {
			name = strings.TrimSuffix(name, "}")
			raw, _ := c.rc.UserValue(name).(string)
			value, err := url.PathUnescape(raw)
			if err != nil || !clean(value) {
				return errMalformed
			}
			path[name] = value
		}
	}
	who := any(c.Client)
	if c.User != nil {
		who = c.User.ID
	}
	give, err := c.server.reserve(ctx, c.rc, who, c.Route.maxBody())
	if err != nil {
		return err
	}
	c.held = append(c.held, give)
	c.args, c.form, err = readArgs(c.rc, path, c.Route.maxBody())
	return err
}

// reserve waits until a body that still flows, of which a call takes so many bytes at most, has its place in memory.
func (s *Server) reserve(ctx context.Context, rc *fasthttp.RequestCtx, who any, limit int) (give func(), err error) {
	n := rc.Request.Header.ContentLength()
	if rc.RequestBodyStream() == nil || n > limit {
		return func() {}, nil // it is there already, or will not be read
	}
	if n < 0 {
		n = limit
	}
	if give, err = s.bodies.take(ctx, who, int64(min(n, multipartMemory))); err != nil {
		unread(rc)
		return nil, err
	}
	return give, nil
}

// readWhole makes a body that still flows an ordinary one, so that the audit of a call can see it. A multipart body flows
// on: it may be long, and its files are nobody's business there. give follows when the body is done with.
func (s *Server) readWhole(ctx context.Context, rc *fasthttp.RequestCtx, who any) (give func(), err error) {
	if isMultipart(rc) {
		return func() {}, nil
	}
	if give, err = s.reserve(ctx, rc, who, DefaultMaxBody); err != nil {
		return func() {}, err
	}
	return give, readLimited(rc, DefaultMaxBody)
}

func isMultipart(rc *fasthttp.RequestCtx) bool {
	media, _, _ := bytes.Cut(rc.Request.Header.ContentType(), []byte(";"))
	return strings.EqualFold(strings.TrimSpace(string(media)), "multipart/form-data")
}

// tooLarge refuses a body.
func tooLarge(rc *fasthttp.RequestCtx) *fault.Error {
	unread(rc)
	return fault.New(fault.TooLarge)
}

// unread ends the connection of a call whose body nobody reads.
func unread(rc *fasthttp.RequestCtx) { rc.SetConnectionClose() }

// readLimited reads a body that still flows, up to limit bytes.
func readLimited(rc *fasthttp.RequestCtx, limit int) error {
	if n := rc.Request.Header.ContentLength(); n > limit {
		return tooLarge(rc)
	}
	stream := rc.RequestBodyStream()
	if stream == nil {
		if len(rc.Request.Body()) > limit {
			return fault.New(fault.TooLarge)
		}
		return nil
	}
	var body []byte
	var err error
	if n := rc.Request.Header.ContentLength(); n >= 0 {
		body = make([]byte, n)
		_, err = io.ReadFull(stream, body)
	} else {
		body, err = io.ReadAll(io.LimitReader(stream, int64(limit)+1))
	}
	if err != nil {
		rc.SetConnectionClose()
		return errMalformed.Because(fmt.Errorf("read body: %w", err))
	}
	if len(body) > limit {
		return tooLarge(rc)
	}
	rc.Request.SetBodyRaw(body)
	return nil
}

// multipartMemory is how much of an upload's parts is held in memory; the rest waits in temporary files.
const multipartMemory = 1 << 20

// readForm reads a multipart body, up to limit bytes. One without a byte has no parts, whatever its header says.
func readForm(rc *fasthttp.RequestCtx, boundary string, limit int) (*multipart.Form, error) {
	if n := rc.Request.Header.ContentLength(); n > limit {
		return nil, tooLarge(rc)
	}
	stream := rc.RequestBodyStream()
	if stream == nil {
		stream = bytes.NewReader(rc.Request.Body())
	}
	bounded := &io.LimitedReader{R: stream, N: int64(limit) + 1}
	body := bufio.NewReader(bounded)
	if _, err := body.Peek(1); errors.Is(err, io.EOF) {
		return new(multipart.Form), nil
	}
	if boundary == "" {
		unread(rc)
		return nil, errMalformed
	}
	form, err := multipart.NewReader(body, boundary).ReadForm(multipartMemory)
	if bounded.N <= 0 {
		if form != nil {
			err = errors.Join(err, form.RemoveAll())
		}
		return nil, tooLarge(rc).Because(err)
	}
	if err != nil {
		return nil, errMalformed.Because(err)
	}
	if _, err := io.Copy(io.Discard, bounded); err == nil && bounded.N > 0 { // read to its end
		rc.Request.SetBodyRaw(nil)
	}
	return form, nil
}

// options answers a plain OPTIONS: what the path can do, to whoever may know.
func (s *Server) options(rc *fasthttp.RequestCtx, routes []*Route) {
	ctx, cancel := context.WithTimeout(s.Base, callTimeout)
	defer cancel()
	if err := s.authenticate(ctx, s.call(rc, routes[0])); err != nil {
		WriteFault(rc, err)
		return
	}
	allow := []string{fasthttp.MethodOptions}
	for _, r := range routes {
		allow = append(allow, r.Method)
	}
	slices.Sort(allow[1:])
	if slices.Contains(allow, fasthttp.MethodGet) {
		allow = append(allow, fasthttp.MethodHead)
	}
	rc.Response.Header.Set(fasthttp.HeaderAllow, strings.Join(allow, ", "))
	rc.SetStatusCode(fasthttp.StatusNoContent)
}
