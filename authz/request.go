package authz

import (
	"unicode/utf8"

	"barong/internal/header"
	"barong/internal/trusted"
)

var (
	httpName  = header.NewName("http")
	httpsName = header.NewName("https")
)

// Bounds of what a request may carry. A request beyond them is malformed: whoever sends more is not a browser or bot.
const (
	maxHeaders     = 256      // header lines, whatever their names
	maxHeaderBytes = 64 << 10 // of names and values together
	maxLines       = 8        // of Cookie, and of X-Forwarded-For, that are kept without an allocation
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
	signatureInputs
	signatures
	contentDigest
	hostName
	forwardedHost
	singles
)

// A single is a header of which a request has one at most, and the longest value it may have, in bytes. A credential is
// compared with texts, so what is no UTF-8 is none.
var singleHeaders = [singles]struct {
	name       header.Name
	max        int
	credential bool
}{
	userAgent:       {header.NewName("user-agent"), maxHeaderBytes, false},
	csrfToken:       {header.NewName("x-csrf-token"), 256, true},
	apiKeyID:        {header.NewName("x-auth-apikey"), 256, true},
	apiKeyNonce:     {header.NewName("x-auth-nonce"), 256, true},
	apiKeySignature: {header.NewName("x-auth-signature"), 256, true},
	authorization:   {header.NewName("authorization"), maxHeaderBytes, false},
	trueClientIP:    {header.NewName("true-client-ip"), 256, false},
	forwardedProto:  {header.NewName("x-forwarded-proto"), 256, false},
	signatureInputs: {header.NewName("signature-input"), 4096, false},
	signatures:      {header.NewName("signature"), 4096, false},
	contentDigest:   {header.NewName("content-digest"), 1024, false},
	hostName:        {header.NewName("host"), 256, false},
	forwardedHost:   {header.NewName("x-forwarded-host"), 256, false},
}

// The headers of which a request has several lines.
var (
	cookieName       = header.NewName("cookie")
	forwardedForName = header.NewName("x-forwarded-for")
)

// The headers on which nothing rests: they name the request, for logs and traces. Of several lines the last counts.
var (
	requestIDName   = header.NewName("x-request-id")
	traceParentName = header.NewName("traceparent")
)

// headers are views of the header values that a decision may rest on. Client-Ip, which the original believed, is not
// among them: gateways set X-Forwarded-For, and pass a client's own Client-Ip on.
type headers struct {
	single    [singles][]byte
	has       uint16 // a bit for each of single
	odd       uint16 // a bit for each of single that was sent twice, is too long, or is a credential and no UTF-8
	cookie    lines
	forwarded lines // X-Forwarded-For: several lines are one list

	requestID, traceParent []byte

	count   int
	size    int
	tooMuch bool
}

// onlySigned are the bits of the headers that only the verification of a signature reads. It judges them itself.
const onlySigned = 1<<signatureInputs | 1<<signatures | 1<<contentDigest | 1<<hostName | 1<<forwardedHost

// malformed reports what makes the request malformed. What nobody reads does not.
func (h *headers) malformed(p *trusted.Proxies) bool {
	odd := h.odd &^ onlySigned
	if !p.BelievesTrueClientIP() {
		odd &^= 1 << trueClientIP
	}
	return h.tooMuch || odd != 0
}

// lines are the values of a header that may be sent in several lines, in order.
type lines struct {
	first [maxLines][]byte
	count int
	all   [][]byte // once there are more
}

func (l *lines) add(value []byte) {
	switch {
	case l.count < maxLines:
		l.first[l.count] = value
	case l.count == maxLines:
		l.all = append(append(l.all, l.first[:]...), value)
	default:
		l.all = append(l.all, value)
	}
	l.count++
}

func (l *lines) list() [][]byte {
	if l.count <= maxLines {
		return l.first[:l.count]
	}
	return l.all
}

func (h *headers) present(i int) bool { return h.has&(1<<i) != 0 }

// RequestID and TraceParent are X-Request-Id and traceparent (W3C Trace Context) as they came, unchecked; empty when they did
// not. They name the request for logs and traces, and decide nothing.
func (r *Request) RequestID() []byte   { return r.headers.requestID }
func (r *Request) TraceParent() []byte { return r.headers.traceParent } // see RequestID

// Reset makes the request empty and drops every view that it holds.
func (r *Request) Reset() { *r = Request{} }

// AddHeader adds one of the client's header lines, in the order in which they arrived. It keeps views of the values that
// matter until Reset and counts the rest. What must not be there twice, or is too large, makes the request malformed, as
// far as the decision may read it.
func (r *Request) AddHeader(name, value []byte) {
	h := &r.headers
	h.count++
	h.size += len(name) + len(value)
	if h.count > maxHeaders || h.size > maxHeaderBytes {
		h.tooMuch = true
		return
	}
	var i int
	switch len(name) {
	case len("cookie"):
		if cookieName.Is(name) {
			h.cookie.add(value)
		}
		return
	case len("host"):
		i = hostName
	case len("signature"):
		i = signatures
	case len("user-agent"):
		i = userAgent
	case len("x-auth-nonce"): // x-csrf-token and x-request-id are as long
		i = apiKeyNonce
		switch name[2] | 0x20 {
		case 'c':
			i = csrfToken
		case 'r':
			if requestIDName.Is(name) {
				h.requestID = value
			}
			return
		}
	case len("traceparent"):
		if traceParentName.Is(name) {
			h.traceParent = value
		}
		return
	case len("x-auth-apikey"): // authorization is as long
		i = apiKeyID
		if name[0]|0x20 == 'a' {
			i = authorization
		}
	case len("true-client-ip"): // content-digest is as long
		i = trueClientIP
		if name[0]|0x20 == 'c' {
			i = contentDigest
		}
	case len("x-forwarded-for"): // signature-input is as long
		if forwardedForName.Is(name) {
			h.forwarded.add(value)
			return
		}
		i = signatureInputs
	case len("x-auth-signature"): // x-forwarded-host is as long
		i = apiKeySignature
		if name[2]|0x20 == 'f' {
			i = forwardedHost
		}
	case len("x-forwarded-proto"):
		i = forwardedProto
	default:
		return
	}
	kind := &singleHeaders[i]
	if !kind.name.Is(name) {
		return
	}
	if h.present(i) || len(value) > kind.max || kind.credential && !utf8.Valid(value) {
		h.odd |= 1 << i
	}
	h.single[i] = value
	h.has |= 1 << i
}
