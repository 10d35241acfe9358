package authz

import (
	"unsafe"

	"barong/internal/header"
)

// Bounds of what a request may carry. A request beyond them is malformed: whoever sends more is not a browser or bot.
const (
	maxHeaders     = 256      // header lines, whatever their names
	maxHeaderBytes = 64 << 10 // of names and values together
	maxLines       = 8        // of Cookie, and of X-Forwarded-For
)

// The headers of which a request has one at most.
const (
	userAgent = iota
	csrfToken
	apiKeyID
	apiKeyNonce
	apiKeySignature
	authorization
	trueClientIP
	forwardedProto
	singles
)

// A single is a header of which a request has one at most, and the longest value it may have, in bytes.
var singleHeaders = [singles]struct {
	name header.Name
	max  int
}{
	userAgent:       {header.NewName("user-agent"), 8 << 10},
	csrfToken:       {header.NewName("x-csrf-token"), 256},
	apiKeyID:        {header.NewName("x-auth-apikey"), 256},
	apiKeyNonce:     {header.NewName("x-auth-nonce"), 256},
	apiKeySignature: {header.NewName("x-auth-signature"), 256},
	authorization:   {header.NewName("authorization"), 16 << 10},
	trueClientIP:    {header.NewName("true-client-ip"), 256},
	forwardedProto:  {header.NewName("x-forwarded-proto"), 256},
}

// The headers of which a request has several lines.
var (
	cookieName       = header.NewName("cookie")
	forwardedForName = header.NewName("x-forwarded-for")
)

// headers are views of the header values that a decision may rest on. Client-Ip, which the original believed, is not
// among them: gateways set X-Forwarded-For, and pass a client's own Client-Ip on.
type headers struct {
	single    [singles][]byte
	has       uint16 // a bit for each of single
	cookie    [maxLines][]byte
	cookies   uint8
	forwarded [maxLines][]byte // X-Forwarded-For: several lines are one list
	forwards  uint8

	count     int
	size      int
	malformed bool
}

func (h *headers) present(i int) bool { return h.has&(1<<i) != 0 }

// Reset makes the request empty and drops every view that it holds.
func (r *Request) Reset() { *r = Request{} }

// AddHeader adds one of the client's header lines, in the order in which they arrived. It keeps views of the values that
// matter until Reset and counts the rest. What must not be there twice, or is too large, makes the request malformed.
func (r *Request) AddHeader(name, value []byte) {
	h := &r.headers
	h.count++
	h.size += len(name) + len(value)
	if h.count > maxHeaders || h.size > maxHeaderBytes {
		h.malformed = true
		return
	}
	var i int
	switch len(name) {
	case len("cookie"):
		if cookieName.Is(name) {
			h.cookies = h.addLine(&h.cookie, h.cookies, value)
		}
		return
	case len("user-agent"):
		i = userAgent
	case len("x-auth-nonce"): // x-csrf-token is as long
		i = apiKeyNonce
		if name[2]|0x20 == 'c' {
			i = csrfToken
		}
	case len("x-auth-apikey"): // authorization is as long
		i = apiKeyID
		if name[0]|0x20 == 'a' {
			i = authorization
		}
	case len("true-client-ip"):
		i = trueClientIP
	case len("x-forwarded-for"):
		if forwardedForName.Is(name) {
			h.forwards = h.addLine(&h.forwarded, h.forwards, value)
		}
		return
	case len("x-auth-signature"):
		i = apiKeySignature
	case len("x-forwarded-proto"):
		i = forwardedProto
	default:
		return
	}
	if !singleHeaders[i].name.Is(name) {
		return
	}
	if h.present(i) || len(value) > singleHeaders[i].max {
		h.malformed = true
		return
	}
	h.single[i] = value
	h.has |= 1 << i
}

func (h *headers) addLine(lines *[maxLines][]byte, n uint8, value []byte) uint8 {
	if n == maxLines {
		h.malformed = true
		return n
	}
	lines[n] = value
	return n + 1
}

// view is b as a string that shares its bytes, and lives as long as b does: until the check is over. What outlives the
// check is cloned.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// bytesOf is s as bytes that share its memory, and must only be read.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
