package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/valyala/fasthttp"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"

	"barong/authz"
	"barong/envoy"
	"barong/internal/crypto/keys"
	"barong/internal/listener"
	"barong/internal/obs"
	"barong/internal/rules"
	"barong/internal/trusted"
	"barong/policy"
	"barong/session"
	"barong/session/near"
	"barong/session/redisstore"
)

// The servers that this program starts of itself: "bench child KIND", with a childSpec on its standard input. A child
// says "listening on ADDRESS" once it does, and is killed when it is no longer needed.
const (
	childBare  = "bare"  // fasthttp that answers every request with the same bytes
	childGRPC  = "grpc"  // a gRPC server that answers every check with the same message
	childGet   = "get"   // the same, after one GET through the client that the gateway uses
	childStack = "stack" // the gateway's check path over sessions in memory, without what else a gateway is
)

// A childSpec is what a child needs to know.
type childSpec struct {
	Answer answer // of bare and get

	Token string // of grpc: the Authorization that it answers

	RedisURL string // of get and of a cold stack

	Sessions    int  // of stack
	Permissions int  // of stack
	Cold        bool // of stack: every check reads its session from Redis
	Tokens      bool // of stack: every session has been checked, and so has a token
	Algorithm   string
}

// An answer is one HTTP response.
type answer struct {
	Status  int
	Headers [][2]string // but Date and Content-Length, which fasthttp writes
	Body    string
}

func child(kind string) error {
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return err
	}
	var spec childSpec
	if err := json.Unmarshal(line, &spec); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var serve func(net.Listener) error
	switch kind {
	case childBare:
		serve = bareServer(&spec.Answer).Serve
	case childGRPC:
		serve = grpcServer(spec.Token).Serve
	case childGet:
		s, err := getServer(&spec)
		if err != nil {
			return err
		}
		serve = s.Serve
	case childStack:
		handler, note, err := stack(&spec)
		if err != nil {
			return err
		}
		fmt.Println(note)
		serve = listener.New(handler, listener.Options{}).Serve
	default:
		return fmt.Errorf("there is no child %q", kind)
	}
	fmt.Println("listening on", ln.Addr())
	return serve(ln)
}

// bareServer is fasthttp with nothing around it.
func bareServer(a *answer) *fasthttp.Server {
	names, values := make([][]byte, len(a.Headers)), make([][]byte, len(a.Headers))
	for i, h := range a.Headers {
		names[i], values[i] = []byte(h[0]), []byte(h[1])
	}
	body := []byte(a.Body)
	return &fasthttp.Server{
		NoDefaultServerHeader: true, NoDefaultContentType: true,
		Handler: func(ctx *fasthttp.RequestCtx) {
			ctx.Response.SetStatusCode(a.Status)
			for i := range names {
				ctx.Response.Header.SetCanonical(names[i], values[i])
			}
			ctx.Response.SetBodyRaw(body)
		},
	}
}

type constantAuthorization struct {
	auth.UnimplementedAuthorizationServer
	token string
}

func (c *constantAuthorization) Check(context.Context, *auth.CheckRequest) (*auth.CheckResponse, error) {
	return &auth.CheckResponse{
		Status: &status.Status{},
		HttpResponse: &auth.CheckResponse_OkResponse{OkResponse: &auth.OkHttpResponse{
			Headers: []*core.HeaderValueOption{{
				Header:       &core.HeaderValue{Key: "authorization", Value: c.token},
				AppendAction: core.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
			}},
		}},
	}, nil
}

func grpcServer(token string) *grpc.Server {
	s := grpc.NewServer()
	auth.RegisterAuthorizationServer(s, &constantAuthorization{token: token})
	return s
}

// getServer is a bare server that also makes one GET for each request.
func getServer(spec *childSpec) (*fasthttp.Server, error) {
	client, err := redisstore.Connect(spec.RedisURL)
	if err != nil {
		return nil, err
	}
	s := bareServer(&spec.Answer)
	answer := s.Handler
	s.Handler = func(ctx *fasthttp.RequestCtx) {
		if err := client.Get(context.Background(), getKey).Err(); err != nil {
			ctx.Error(err.Error(), fasthttp.StatusServiceUnavailable)
			return
		}
		answer(ctx)
	}
	return s, nil
}

// getKey is what getServer gets.
const getKey = "bench"

// stack is the check path over sessions in memory, and a line of JSON about what the sessions cost.
func stack(spec *childSpec) (fasthttp.RequestHandler, string, error) {
	var signer authz.Signer = sizedSigner{}
	if spec.Algorithm != sized {
		ring, err := keys.New(spec.Algorithm)
		if err != nil {
			return nil, "", err
		}
		signer = ring
	}
	snapshot, err := policy.Compile(policy.Source{Lists: policy.DefaultLists(), Permissions: permissions(spec.Permissions)})
	if err != nil {
		return nil, "", err
	}
	proxies, err := trusted.Parse("loopback")
	if err != nil {
		return nil, "", err
	}
	cookies, err := authz.NewCookies(authz.CookieSettings{Name: cookieName})
	if err != nil {
		return nil, "", err
	}
	users := &population{}
	o := near.Options{
		Store: users, Principals: users, APIKeys: users, Life: 24 * time.Hour, MaxSessions: max(2*spec.Sessions, 1<<16),
		Fresh: func(time.Time, time.Time) bool { return !spec.Cold },
		Trust: 24 * time.Hour, // a population cannot be read again
	}
	ctx := context.Background()
	if spec.Cold {
		client, err := redisstore.Connect(spec.RedisURL)
		if err != nil {
			return nil, "", err
		}
		store := redisstore.New(client)
		for i := range spec.Sessions {
			s := sessionOf(i)
			if err := store.Create(ctx, s); err != nil {
				// A repetition after a lost answer finds its own session.
				if _, lost := store.Get(ctx, s.Key, time.Now()); lost != nil {
					return nil, "", err
				}
			}
		}
		o.Store = store
	}
	var before, after runtime.MemStats
	debug.FreeOSMemory()
	without, err := resident(os.Getpid())
	if err != nil {
		return nil, "", err
	}
	runtime.ReadMemStats(&before)
	cache := near.New(o)
	if !spec.Cold {
		for i := range spec.Sessions {
			s := sessionOf(i)
			users.present.Store(s)
			if _, err := cache.Session(ctx, s.Key, time.Now()); err != nil {
				return nil, "", err
			}
		}
		users.present.Store(nil)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	engine, err := authz.New(authz.Options{
		Policy: func() *policy.Snapshot { return snapshot }, Cache: cache, Signer: func() authz.Signer { return signer },
		Proxies: &proxies, Cookies: cookies, CSRF: true, Bind: authz.Binding{UserAgent: true, IP: true}, Sampler: rules.NewSampler(),
		Token: authz.TokenSettings{Life: time.Hour, Reuse: 0.9, Issuer: "barong", Audience: []string{"peatio", "barong"}},
	})
	if err != nil {
		return nil, "", err
	}
	serve := envoy.New(envoy.Options{Checker: engine, Trusted: proxies.Trusted, Observer: obs.NewMetrics()}).ServeChecks
	n := stackNote{BytesPerSession: float64(after.HeapAlloc-before.HeapAlloc) / float64(spec.Sessions)}
	if spec.Tokens {
		if err := checkAll(serve, spec.Sessions); err != nil {
			return nil, "", err
		}
		debug.FreeOSMemory() // as the program itself does, within two minutes
		with, err := resident(os.Getpid())
		if err != nil {
			return nil, "", err
		}
		n.ResidentPerSession = float64(with-without) / float64(spec.Sessions)
	}
	note, err := json.Marshal(n)
	return serve, string(note), err
}

// checkAll has every session be checked once.
func checkAll(serve fasthttp.RequestHandler, sessions int) error {
	var ctx fasthttp.RequestCtx
	loopback := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}
	in := bufio.NewReader(nil)
	ctx.Init(new(fasthttp.Request), loopback, nil)
	for i := range sessions {
		ctx.Request.Reset()
		ctx.Response.Reset()
		in.Reset(bytes.NewReader(cookieCheck(i)))
		if err := ctx.Request.Read(in); err != nil {
			return err
		}
		if serve(&ctx); ctx.Response.StatusCode() != fasthttp.StatusOK {
			return fmt.Errorf("the check of session %d: %d %s", i, ctx.Response.StatusCode(), ctx.Response.Body())
		}
	}
	return nil
}

// A stackNote is the first line of a stack.
type stackNote struct{ BytesPerSession, ResidentPerSession float64 }

// sized is the algorithm of a sizedSigner.
const sized = "sized"

// A sizedSigner makes tokens that are as long as those with RS256 and 2,048 bits, and signed by nobody: to sign a million
// would take a quarter of an hour.
type sizedSigner struct{}

func (sizedSigner) KeyID() string { return "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG" }

func (s sizedSigner) SignPayload(payload []byte) ([]byte, error) {
	out := base64.RawURLEncoding.AppendEncode(nil, []byte(`{"alg":"RS256","kid":"`+s.KeyID()+`","typ":"JWT"}`))
	out = base64.RawURLEncoding.AppendEncode(append(out, '.'), payload)
	signature := make([]byte, 256)
	rand.Read(signature)
	return base64.RawURLEncoding.AppendEncode(append(out, '.'), signature), nil
}

// permissions are n rows of which the first lets members read their account.
func permissions(n int) []policy.Permission {
	rows := []policy.Permission{{ID: 1, Role: "member", Verb: "ALL", Path: "api/v2/peatio/account", Action: "ACCEPT"}}
	for i := 1; i < n; i++ {
		rows = append(rows, policy.Permission{
			ID: int64(i) + 1, Role: "member", Verb: "ALL", Path: fmt.Sprintf("api/v2/peatio/service%d", i), Action: "ACCEPT",
		})
	}
	return rows
}

// A population is the users of a stack, and the one session that is being read: a million of them twice would not show what
// the cache needs.
type population struct {
	session.Store // panics on what no check calls
	present       atomic.Pointer[session.Session]
}

func (p *population) Get(_ context.Context, key session.Key, _ time.Time) (*session.Session, error) {
	if s := p.present.Load(); s != nil && s.Key == key {
		return s, nil
	}
	return nil, session.ErrNotFound
}

func (p *population) Principal(_ context.Context, uid string) (*session.Principal, error) {
	n, err := strconv.ParseInt(uid[len(uidPrefix):], 16, 64)
	if err != nil {
		return nil, errors.Join(session.ErrNotFound, err)
	}
	return &session.Principal{
		UserID: n + 1, UID: uid, Email: emailOf(int(n)), Role: "member", State: "active", Level: 3, OTP: true,
	}, nil
}

func (p *population) APIKey(context.Context, string) (*session.APIKey, error) {
	return nil, session.ErrNotFound
}

func (p *population) PrincipalsOf(ctx context.Context, uids []string) ([]*session.Principal, error) {
	out := make([]*session.Principal, len(uids))
	for i, uid := range uids {
		out[i], _ = p.Principal(ctx, uid) // of a benchmark everybody is there
	}
	return out, nil
}

func (p *population) APIKeysOf(_ context.Context, kids []string) ([]*session.APIKey, error) {
	return make([]*session.APIKey, len(kids)), nil
}

// Names of the people of a benchmark, and of what they sign in with.
const (
	cookieName = "_barong_session"
	uidPrefix  = "ID"
	userAgent  = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"
	clientIP   = "203.0.113.7"
)

func uidOf(i int) string   { return fmt.Sprintf("%s%010X", uidPrefix, i) }
func emailOf(i int) string { return fmt.Sprintf("user%d@example.com", i) }

// sessionIDOf is the session id of person i: every process of a benchmark can tell it.
func sessionIDOf(i int) session.ID {
	var id session.ID
	copy(id[:], fmt.Sprintf("session of the person %d", i))
	return session.ID(id.Key())
}

func sessionOf(i int) *session.Session {
	now := time.Now().UTC().Truncate(time.Millisecond)
	return &session.Session{
		Key: sessionIDOf(i).Key(), UID: uidOf(i), CSRF: "0123456789abcdef0123", IP: netip.MustParseAddr(clientIP),
		UserAgent: userAgent, Country: "NL",
		CreatedAt: now, SeenAt: now, ExpiresAt: now.Add(24 * time.Hour), EndsAt: now.Add(48 * time.Hour),
	}
}
