package envoy

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"
	"unsafe"

	"github.com/valyala/fasthttp"
)

// A headerScanner walks the header block of a request as it stood on the wire. fasthttp's own accessors keep the last
// User-Agent, join cookies, drop what they consumed and fold names, so a header sent twice looks like one; here every
// line is seen.
type headerScanner struct {
	rest        []byte
	name, value []byte
	malformed   bool // the walk ended at something that two parsers may read differently
	lengths     int  // Content-Length lines seen
	codings     int  // Transfer-Encoding lines seen
}

// scan starts a walk. A block that is not UTF-8 is malformed from the start: gateways replace, drop or fail on such
// bytes, each in its own way.
func scan(h *fasthttp.RequestHeader) headerScanner {
	block := h.RawHeaders()
	return headerScanner{rest: block, malformed: !utf8.Valid(block)}
}

// next moves to the next header and reports whether there is one.
func (s *headerScanner) next() bool {
	if s.malformed {
		return false
	}
	end := bytes.IndexByte(s.rest, '\n')
	if end < 0 {
		s.malformed = len(s.rest) > 0
		return false
	}
	line := s.rest[:end]
	s.rest = s.rest[end+1:]
	if end == 0 || line[end-1] != '\r' {
		s.malformed = true // a bare line feed ends a line for some parsers only
		return false
	}
	line = line[:end-1]
	if len(line) == 0 {
		s.malformed = len(s.rest) > 0
		return false // the blank line that ends the block
	}
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 {
		s.malformed = true
		return false
	}
	s.name, s.value = line[:colon], trimSpace(line[colon+1:])
	for _, c := range s.name {
		if !tokenByte[c] { // a folded line begins with white space and ends here too
			s.malformed = true
			return false
		}
	}
	if controls(s.value) {
		s.malformed = true
		return false
	}
	switch len(s.name) {
	case len("content-length"):
		if named(s.name, "content-length") {
			s.lengths++
		}
	case len("transfer-encoding"):
		if named(s.name, "transfer-encoding") {
			s.codings++
			if !named(s.value, "chunked") { // "identity", which fasthttp takes for no body, is a body without end elsewhere
				s.malformed = true
				return false
			}
		}
	}
	if aliased(s.name) {
		s.malformed = true
		return false
	}
	return true
}

// ok reports, once the walk is over, that the block can mean one thing only. Both framings together, or one of them
// twice, are how requests are smuggled (RFC 9112, section 6.3).
func (s *headerScanner) ok() bool {
	return !s.malformed && s.lengths+s.codings <= 1
}

// WellFormed reports whether the request's header block can mean one thing only: no folded line, bare line feed,
// control byte, or text that is no UTF-8; no Transfer-Encoding but chunked, and no Content-Length beside it; no header
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
	"x-original-method", "x-original-uri",
}

// aliased reports whether the name holds an underscore and is one of the deciding headers but for that.
func aliased(name []byte) bool {
	if bytes.IndexByte(name, '_') < 0 {
		return false
	}
	for _, d := range deciding {
		if len(d) == len(name) && foldEqual(name, d, true) {
			return true
		}
	}
	return false
}

// named reports whether the header's name is lower, which is in lower case.
func named(name []byte, lower string) bool {
	return len(name) == len(lower) && foldEqual(name, lower, false)
}

// foldEqual compares a name with a lower-case one of the same length; dash reads "_" as "-" too.
func foldEqual(name []byte, lower string, dash bool) bool {
	for i, c := range name {
		switch {
		case c-'A' <= 'Z'-'A':
			c |= 0x20
		case c == '_' && dash:
			c = '-'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// controls reports whether a header's value holds a control byte other than a tab. Most bytes of a check stand in
// values, so eight of them are looked at together.
func controls(value []byte) bool {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	for len(value) >= 8 {
		w := binary.LittleEndian.Uint64(value)
		del := w ^ 0x7f*ones
		// The high bit of a byte stays set where it was below 0x20, or 0x7f.
		if ((w-0x20*ones)&^w|(del-ones)&^del)&high != 0 && control(value[:8]) {
			return true
		}
		value = value[8:]
	}
	return control(value)
}

func control(value []byte) bool {
	for _, c := range value {
		if c < ' ' && c != '\t' || c == 0x7f {
			return true
		}
	}
	return false
}

func trimSpace(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
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

// view is b as a string that shares its bytes. It lives as long as b does: until the fasthttp handler returns, which
// is longer than the check that reads it.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// bytesOf is s as bytes that share its memory, and must only be read.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
