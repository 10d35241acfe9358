// Package authz decides one question: may this request pass, and as whom? A Request goes in, a Decision comes out. It
// knows no HTTP library, SQL or Redis; what it needs from outside it declares as interfaces, and whatever cannot be
// decided is refused.
//
// The order of a check: the path is made canonical or refused, malformed or duplicate credentials are refused, then
// restrictions, block list, pass list, CSRF, who (session or API key), state, permissions, token.
package authz

import (
	"net/netip"

	"barong/session"
	"barong/session/near"
)

// A Dialect is the gateway protocol by which a check arrived. It labels metrics and logs, and decides nothing.
type Dialect uint8

// The dialects.
const (
	EnvoyHTTP   Dialect = iota // ext_authz over HTTP
	EnvoyGRPC                  // ext_authz over gRPC
	ForwardAuth                // Traefik forwardAuth, Caddy forward_auth
	AuthRequest                // nginx auth_request
	SelfGate                   // this process before its own REST API
)

// String is the metric label of the dialect.
func (d Dialect) String() string {
	return [...]string{"envoy_http", "envoy_grpc", "forward_auth", "auth_request", "self"}[d]
}

// A Credential is the kind of proof a request presented.
type Credential uint8

// The kinds of credentials.
const (
	NoCredential Credential = iota
	Cookie
	APIKey
)

// String is the metric label of the credential.
func (c Credential) String() string { return [...]string{"none", "cookie", "api_key"}[c] }

// A Request is one request to be decided, as the gateway received it from its client. An edge fills it: the fields by
// assignment, the client's headers through AddHeader. Strings and bytes may be views of the edge's buffers: they are
// read only until Check returns, and what outlives it is copied there. The zero Request is empty; Reset makes it so.
type Request struct {
	Dialect Dialect
	Method  string     // the client's method, verbatim: "GET"; a method override header is never looked at
	Target  string     // the client's raw request target: undecoded path and query, beginning with "/"
	Peer    netip.Addr // who speaks to this process: the gateway, or the client itself; zero when unknown (unix socket)

	// Scheme and Host are those that the client used, where the gateway names them elsewhere than in the headers: the
	// attributes of gRPC, or an absolute address. Empty leaves them to the headers.
	Scheme, Host string
	// Content says whether the client's request has a body, as far as the gateway tells. A signature covers the digest of
	// one.
	Content Content

	// Body and ContentType are what the gateway passed on of the client's body, for the audit row alone. No decision
	// rests on them: a service behind the gateway may read the same bytes otherwise.
	Body        []byte
	ContentType string
	// LoadBody fills them when they are wanted, which is after the headers were judged, and once at most. An error, such as
	// that of a body which did not arrive, refuses what would be allowed. Nil when nothing is to be loaded.
	LoadBody func(*Request) error

	headers headers // what AddHeader kept
}

// A Content says whether a request has a body.
type Content uint8

// What may be known about the body of a request.
const (
	UnknownContent Content = iota
	NoContent
	HasContent
)

// mayHaveContent reports whether the request may have a body that means something: where the gateway does not tell, every
// method may have one but those whose bodies mean nothing.
func (r *Request) mayHaveContent() bool {
	if r.Content == UnknownContent {
		switch r.Method {
		case "GET", "HEAD", "OPTIONS", "TRACE":
			return false
		}
	}
	return r.Content != NoContent
}

// An Effect is what a decision does. Its zero value refuses.
type Effect uint8

// The effects.
const (
	Deny  Effect = iota
	Allow        // identified: Authorization holds the token
	Pass         // on the pass list: nobody was identified, and the client's own Authorization must be removed
)

// A Decision is the answer to one request. Check fills all of it.
type Decision struct {
	Effect     Effect
	Status     int    // HTTP status: 200 unless Effect is Deny
	Code       string // error code of a denial, e.g. "authz.invalid_session"; empty otherwise
	Credential Credential

	// Authorization is the header value "Bearer <JWT>" of an Allow. It is good until the Decision is filled again.
	Authorization []byte
	// SetCookie is the value of a Set-Cookie header that renews the session's cookie, or empty. Only when the sliding
	// expiry was written back, which is at most once per 1/20 of the session's life.
	SetCookie string

	Principal *session.Principal // who, from Allow or from a denial after identification; else nil
	Session   *near.Session      // the session of a cookie check that found a live one; else nil
	KID       string             // the API key's id when one was found; else empty

	Path   string     // canonical path: no leading or trailing slash; a view of Request.Target
	Client netip.Addr // client address behind trusted proxies; the zero Addr when unknown
	Rule   string     // the rule that decided, for logs: a list entry, a permission's path or a restriction's value; may be empty

	token []byte // room for Authorization
}

// Reset makes the Decision empty. It keeps the room that the next one needs.
func (d *Decision) Reset() { *d = Decision{token: d.token[:0]} }
