package envoy

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
	"unsafe"

	"github.com/valyala/fasthttp"

	"barong/internal/header"
)

// A headerScanner walks the header block of a request as it stood on the wire. fasthttp's own accessors keep the last
// User-Agent, join cookies, drop what they consumed and fold names, so a header sent twice looks like one; here every
// line is seen.
//
// A check spends more on this walk than on its decision, so each byte is looked at once, together with seven others.
type headerScanner struct {
	rest        []byte
	name, value []byte
	malformed   bool // the walk ended at something that two parsers may read differently
	lengths     int  // Content-Length lines seen
	codings     int  // Transfer-Encoding lines seen
}

// scan starts a walk.
func scan(h *fasthttp.RequestHeader) headerScanner { return headerScanner{rest: h.RawHeaders()} }

// next moves to the next header and reports whether there is one.
func (s *headerScanner) next() bool {
	if s.malformed || len(s.rest) == 0 {
		return false
	}
	line := s.rest
	if line[0] == '\r' { // the blank line that ends the block
		s.rest = nil
		s.malformed = len(line) != 2 || line[1] != '\n'
		return false
	}
	s.malformed = true // until all is well with the line
	colon, plain := nameEnd(line)
	if colon == 0 || colon == len(line) || line[colon] != ':' { // a folded line begins with white space and ends here too
		return false
	}
	value := line[colon+1:]
	end, ascii := valueEnd(value)
	if len(value)-end < 2 || value[end] != '\r' || value[end+1] != '\n' { // a bare line feed ends a line for some parsers only
		return false
	}
	s.name, s.value, s.rest = line[:colon], trimSpace(value[:end]), value[end+2:]
	if !ascii && !utf8.Valid(s.value) { // gateways replace, drop or fail on such bytes, each in its own way
		return false
	}
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

// What follows looks at eight bytes as one number. In the results, the high bit of a byte says something about it.
const (
	ones = 0x0101010101010101
	high = 0x8080808080808080
)

// atLeast has the high bits of the bytes that are c or more. Of w, high bits are not looked at; c is below 0x80.
func atLeast(w uint64, c byte) uint64 { return (w | high) - uint64(c)*ones }

// nameEnd returns how many bytes of b can stand in a header's name (RFC 9110, section 5.6.2). plain says that all of them
// are letters, digits and dashes.
func nameEnd(b []byte) (n int, plain bool) {
	for ; len(b)-n >= 8; n += 8 {
		w := binary.LittleEndian.Uint64(b[n:])
		lower := w | 0x20*ones
		letters := atLeast(lower, 'a') &^ atLeast(lower, 'z'+1)
		digits := atLeast(w, '0') &^ atLeast(w, '9'+1)
		dashes := atLeast(w, '-') &^ atLeast(w, '-'+1)
		if odd := high &^ ((letters | digits | dashes) &^ w); odd != 0 {
			n += bits.TrailingZeros64(odd) / 8
			if b[n] == ':' {
				return n, true
			}
			break
		}
	}
	for n < len(b) && tokenByte[b[n]] {
		n++
	}
	return n, false
}

// valueEnd returns how many bytes of b can stand in a header's value: all up to a control byte that is no tab. ascii says
// that none of them is beyond ASCII; it may be false where only what follows them is.
func valueEnd(b []byte) (n int, ascii bool) {
	beyond := uint64(0)
	for ; len(b)-n >= 8; n += 8 {
		w := binary.LittleEndian.Uint64(b[n:])
		beyond |= w
		for controls := (^atLeast(w, ' ') | atLeast(w, 0x7f)) &^ w & high; controls != 0; controls &= controls - 1 {
			if at := n + bits.TrailingZeros64(controls)/8; b[at] != '\t' {
				return at, beyond&high == 0
			}
		}
	}
	for ; n < len(b); n++ {
		c := b[n]
		if c < ' ' && c != '\t' || c == 0x7f {
			break
		}
		beyond |= uint64(c)
	}
	return n, beyond&high == 0
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
