package envoy

import (
	"bytes"

	"github.com/valyala/fasthttp"

	"barong/internal/header"
)

// A headerScanner walks the header block of a request as it stood on the wire. fasthttp's own accessors keep the last
// User-Agent, join cookies, drop what they consumed and fold names, so a header sent twice looks like one; here every
// line is seen.
//
// It walks what fasthttp has let through: bytes that no value may hold, which are control bytes but the tab, and DEL, have
// been refused there already (RFC 9110, section 5.5). TestControlBytes holds that.
type headerScanner struct {
	block       []byte
	at          int // where the next line begins
	name, value []byte
	malformed   bool // the walk ended at something that two parsers may read differently
	lengths     int  // Content-Length lines seen
	codings     int  // Transfer-Encoding lines seen
}

// scan starts a walk.
func scan(h *fasthttp.RequestHeader) headerScanner { return headerScanner{block: h.RawHeaders()} }

// next moves to the next header and reports whether there is one.
func (s *headerScanner) next() bool {
	b, at := s.block, s.at
	if s.malformed || at >= len(b) {
		return false
	}
	if b[at] == '\r' { // the blank line that ends the block
		s.at = len(b)
		s.malformed = at+2 != len(b) || b[at+1] != '\n'
		return false
	}
	s.malformed = true // until all is well with the line
	colon, plain := nameEnd(b, at)
	if colon == at || colon >= len(b) || b[colon] != ':' { // a folded line begins with white space and ends here too
		return false
	}
	end := colon + bytes.IndexByte(b[colon:], '\n')
	if end <= colon || b[end-1] != '\r' { // a bare line feed ends a line for some parsers only
		return false
	}
	s.name, s.value, s.at = b[at:colon], header.TrimSpace(b[colon+1:end-1]), end+1
	switch len(s.name) {
	case len("content-length"):
		if nameContentLength.Is(s.name) {
			s.lengths++
		}
	case len("transfer-encoding"):
		if nameTransferEncoding.Is(s.name) {
			s.codings++
			if !valueChunked.Is(s.value) { // "identity", which fasthttp takes for no body, is a body without end elsewhere
				return false
			}
		}
	}
	if !plain && aliased(s.name) {
		return false
	}
	s.malformed = false
	return true
}

var (
	nameContentLength    = header.NewName("content-length")
	nameTransferEncoding = header.NewName("transfer-encoding")
	valueChunked         = header.NewName("chunked")
)

// ok reports, once the walk is over, that the block can mean one thing only. Both framings together, or one of them
// twice, are how requests are smuggled (RFC 9112, section 6.3).
func (s *headerScanner) ok() bool {
	return !s.malformed && s.lengths+s.codings <= 1
}

// WellFormed reports whether the request's header block can mean one thing only: no folded line, bare line feed,
// or control byte; no Transfer-Encoding but chunked, and no Content-Length beside it; no header
// whose name becomes one that decides when "_" is read as "-". fasthttp itself lets some of these through. What fails
// here must be answered 400 and its connection closed.
func WellFormed(h *fasthttp.RequestHeader) bool {
	s := scan(h)
	for s.next() {
	}
	return s.ok()
}

// deciding are the headers that a decision may rest on, in lower case. Servers that map headers to variables (CGI,
// WSGI, nginx) read "X_Forwarded_For" as "X-Forwarded-For", so a proxy that strips the one may hand on the other.
var deciding = [...]string{
	"authorization", "cookie", "host", "user-agent", "accept", "origin", "content-length", "transfer-encoding",
	"x-auth-apikey", "x-auth-nonce", "x-auth-signature", "x-csrf-token", "client-ip", "true-client-ip",
	"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-method", "x-forwarded-uri",
	"x-original-method", "x-original-uri", "x-original-url", "x-original-framing", "signature", "signature-input",
	"content-digest",
}

// aliased reports whether the name holds an underscore and is one of the deciding headers but for that.
func aliased(name []byte) bool {
	if bytes.IndexByte(name, '_') < 0 {
		return false
	}
	for _, d := range deciding {
		if len(d) == len(name) && foldEqual(name, d) {
			return true
		}
	}
	return false
}

// foldEqual compares a name with a lower-case one of the same length, and reads "_" as "-".
func foldEqual(name []byte, lower string) bool {
	for i, c := range name {
		switch {
		case c-'A' <= 'Z'-'A':
			c |= 0x20
		case c == '_':
			c = '-'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// nameEnd returns the end of the bytes from b[i] on that can stand in a header's name (RFC 9110, section 5.6.2). plain says
// that there is no underscore among them.
func nameEnd(b []byte, i int) (end int, plain bool) {
	plain = true
	for ; i < len(b) && tokenByte[b[i]]; i++ {
		if b[i] == '_' {
			plain = false
		}
	}
	return i, plain
}

// fieldValue reports whether all bytes can stand in a header's value (RFC 9110, section 5.5): any byte beyond ASCII, of
// whatever encoding, but no control byte except for the tab. Which headers may hold such bytes is for the decision to judge.
func fieldValue(value []byte) bool {
	for _, c := range value {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// tokenByte is true for the bytes of a header's name (RFC 9110, section 5.6.2).
var tokenByte = func() (t [256]bool) {
	for c := '0'; c <= '9'; c++ {
		t[c] = true
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c], t[c-'a'+'A'] = true, true
	}
	for _, c := range "!#$%&'*+-.^_`|~" {
		t[c] = true
	}
	return t
}()
