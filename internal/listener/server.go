package listener

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"barong/internal/fault"
)

// The bounds of a server whose Options do not say otherwise.
const (
	// DefaultMaxHeader fits what browsers collect for one domain and refuses what only an attacker sends.
	DefaultMaxHeader = 32 << 10
	// DefaultConcurrency bounds the connections of all gateways together; each holds about 40 KiB while in use.
	DefaultConcurrency = 16 << 10
	// DefaultReadTimeout counts from the first byte of a request to its last, so that nobody sends one forever.
	DefaultReadTimeout = 10 * time.Second
	// DefaultUploadTimeout replaces it for bodies that do not say how long they are. Long ones have their BodyTime.
	DefaultUploadTimeout = time.Minute
	// DefaultIdleTimeout is longer than gateways keep unused connections (nginx 60 s, Traefik 90 s, Caddy 120 s): the
	// side that sends the next request must be the one that closes, or that request is lost.
	DefaultIdleTimeout = 3 * time.Minute

	// spare is for connections that gave way and have not noticed yet.
	spare = 1 << 10

	// slowestRate is what the slowest client that is waited for sends or takes, in bytes a second: a photo from a phone where the
	// network is bad.
	slowestRate     = 32 << 10
	transferGrace   = 15 * time.Second
	longestBodyTime = 10 * time.Minute

	// shortBody is the length in bytes up to which a body has to arrive within the read timeout: at the slowest rate it does.
	shortBody = 256 << 10
)

// TransferTime is how long a client may take to send or to take so many bytes.
func TransferTime(n int64) time.Duration {
	return transferGrace + time.Duration(n/slowestRate)*time.Second
}

// BodyTime is how long a body may take to arrive of which its client says that it has so many bytes, whatever that is; negative
// where it does not say.
func BodyTime(n int) time.Duration {
	if n < 0 {
		return DefaultUploadTimeout
	}
	return min(TransferTime(min(int64(n), 1<<30)), longestBodyTime)
}

// What fasthttp says where there is no Content-Length.
const (
	chunkedBody = -1
	noBody      = -2
)

// Options are the bounds of a listener. The zero value of each field stands for its default.
type Options struct {
	MaxHeader   int // bytes of the request line and all headers; more is answered 431
	Concurrency int // connections at once
	// Trusted reports whether a peer is a gateway: an eighth of the connections is for those. nil keeps none.
	Trusted     func(netip.Addr) bool
	ReadTimeout time.Duration
	IdleTimeout time.Duration
	Log         *slog.Logger // receives what fasthttp itself has to say; nil discards it
}

// A Server answers HTTP requests.
type Server struct {
	http     *fasthttp.Server
	timeouts timeouts
	places   places
	leaving  atomic.Bool

	mu        sync.Mutex
	listeners []*timedListener
}

// New returns a server for checks, for the REST API, or for both. Nothing a stranger sends is unbounded, and
// every refusal that the handler never sees is answered in JSON with a code of the catalogue.
//
// Bodies are streamed: the handler reads what it wants of them, and decides how much that may be.
func New(handler fasthttp.RequestHandler, o Options) *Server {
	if o.MaxHeader <= 0 {
		o.MaxHeader = DefaultMaxHeader
	}
	if o.Concurrency <= 0 {
		o.Concurrency = DefaultConcurrency
	}
	if o.ReadTimeout <= 0 {
		o.ReadTimeout = DefaultReadTimeout
	}
	if o.IdleTimeout <= 0 {
		o.IdleTimeout = DefaultIdleTimeout
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	t := timeouts{read: o.ReadTimeout, idle: o.IdleTimeout, write: DefaultUploadTimeout}
	s := &Server{timeouts: t, places: places{limit: o.Concurrency, trusted: o.Trusted, refusals: new(atomic.Int64)}}
	s.http = &fasthttp.Server{
		Handler: func(ctx *fasthttp.RequestCtx) {
			// The last net below the handlers' own: fasthttp has none, and one request must not end all others.
			defer func() {
				if reason := recover(); reason != nil {
					o.Log.Error("request panicked", slog.Any("reason", reason), slog.String("stack", string(debug.Stack())))
					ctx.SetConnectionClose()
					Refuse(ctx, fasthttp.StatusInternalServerError, fault.InternalError)
				}
				if ctx.Request.IsBodyStream() {
					leaveBody(ctx)
				}
			}()
			restoreLength(ctx)
			handler(ctx)
			if s.leaving.Load() {
				ctx.SetConnectionClose()
			}
		},
		ErrorHandler: unreadable,
		HeaderReceived: func(h *fasthttp.RequestHeader) (c fasthttp.RequestConfig) {
			switch n := h.ContentLength(); {
			case n == 0:
				h.SetContentLength(noBody) // Envoy's checks say so; a stream of no bytes costs an allocation
			case n > shortBody || n == chunkedBody:
				c.ReadTimeout = max(o.ReadTimeout, BodyTime(n))
			}
			if h.ContentLength() > 0 {
				hideLength(h)
			}
			return c
		},
		ReadBufferSize:        o.MaxHeader, // what fasthttp bounds headers by
		Concurrency:           o.Concurrency + spare,
		TCPKeepalive:          true,
		StreamRequestBody:     true,
		CloseOnShutdown:       true,
		LazyRequestTime:       true,
		NoDefaultServerHeader: true,
		NoDefaultContentType:  true,
		// Reading a multipart form ahead would fill the disk with temporary files before anybody was asked.
		DisablePreParseMultipartForm: true,
		// Messages of refused requests would quote their headers, and so cookies and keys.
		SecureErrorLogMessage: true,
		Logger:                logger{o.Log},
	}
	return s
}

// Serve answers what comes in on ln until Shutdown, or until ln fails.
func (s *Server) Serve(ln net.Listener) error {
	timed := newTimedListener(ln, s.timeouts, s.places)
	s.mu.Lock()
	s.listeners = append(s.listeners, timed)
	s.mu.Unlock()
	return s.http.Serve(timed)
}

// Leave has every answer from now on close its connection, so that clients go elsewhere with their next request. New
// connections are still taken.
func (s *Server) Leave() { s.leaving.Store(true) }

// lastCall is how long a Shutdown waits for connections that may be bringing a request: one that was just accepted, or one
// whose client has not been told yet.
const lastCall = time.Second

// Shutdown takes what waits to be accepted, closes the listener, and waits until all requests under way are answered, or
// ctx is done. To lose no request, call Leave so long before that no client still sends any.
func (s *Server) Shutdown(ctx context.Context) error {
	s.Leave()
	s.mu.Lock()
	listeners := s.listeners
	s.mu.Unlock()
	for _, l := range listeners {
		l.stopAccepting()
	}
	waited, cancel := context.WithTimeout(ctx, lastCall)
	defer cancel()
	for _, l := range listeners {
		l.awaitEmpty(waited)
	}
	if err := s.http.ShutdownWithContext(ctx); !errors.Is(err, net.ErrClosed) { // the listener has closed
		return err
	}
	return nil
}

// leftBody is how much of a body that its handler left unread fasthttp takes off the connection to use it again, in bytes.
const leftBody = 256 << 10

// leaveBody sees to a body that its handler may have left unread: a long one, or one of unknown length, ends the connection,
// and one that ends anyway is not closed before the body was taken off it, so that who sends it gets the answer.
func leaveBody(ctx *fasthttp.RequestCtx) {
	closing := ctx.Response.ConnectionClose() || ctx.Request.Header.ConnectionClose()
	if n := ctx.Request.Header.ContentLength(); n >= 0 && n <= leftBody && !closing {
		return
	}
	ctx.SetConnectionClose()
	linger(ctx)
}

// linger has the connection of a request, which is about to close, wait for its client.
func linger(ctx *fasthttp.RequestCtx) {
	if c, ok := ctx.Conn().(*timedConn); ok {
		c.linger = true
	}
}

// unreadable answers a request that fasthttp could not read. The connection closes after it.
//
// The dialect is unknown here, so status and code are repeated in the headers that nginx needs.
func unreadable(ctx *fasthttp.RequestCtx, err error) {
	status := fasthttp.StatusBadRequest
	var tooBig *fasthttp.ErrSmallBuffer
	var network net.Error
	switch {
	case errors.As(err, &tooBig):
		status = fasthttp.StatusRequestHeaderFieldsTooLarge
	case errors.As(err, &network) && network.Timeout():
		status = fasthttp.StatusRequestTimeout
	}
	if status != fasthttp.StatusRequestTimeout { // of that one nothing came for long enough
		linger(ctx)
	}
	Refuse(ctx, status, fault.MalformedRequest)
	RepeatStatus(ctx, status, fault.MalformedRequest)
}

// logger hands fasthttp's lines over: they are about connections, and of no use but to who looks for one.
type logger struct{ log *slog.Logger }

func (l logger) Printf(format string, args ...any) {
	l.log.Debug("connection", slog.String("message", fmt.Sprintf(format, args...)))
}

// Peer is who speaks to this process, or the zero Addr when that is no IP address.
func Peer(ctx *fasthttp.RequestCtx) netip.Addr {
	if c, ok := ctx.Conn().(*timedConn); ok {
		return c.peer
	}
	return Addr(ctx.RemoteAddr())
}

// Addr is the IP address of a peer, or the zero Addr for one that has none.
func Addr(a net.Addr) netip.Addr {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	addr, _ := netip.AddrFromSlice(tcp.IP)
	return addr.Unmap()
}
