package authz

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"slices"
	"sync"
	"time"

	"barong/internal/header"
	"barong/session"
	"barong/session/near"
)

// What follows checks HTTP Message Signatures (RFC 9421) of API keys. Unlike a signature over a nonce, one of these fits one
// method, one target and one body. A warm check allocates nothing, so the two structured fields (RFC 9651) are read in place.

// The components that a signature may cover. What else a client may want to cover does not reach the check through every
// gateway, and a component that cannot be told cannot be checked.
const (
	coveredMethod = iota
	coveredTarget
	coveredAuthority
	coveredPath
	coveredQuery
	coveredDigest
	components
)

var componentNames = [components]string{"@method", "@target-uri", "@authority", "@path", "@query", "content-digest"}

// Bounds of a signature.
const (
	maxLabels     = 8 // signatures of one request
	maxParameters = 16
	minNonce      = 16 // characters
	maxNonce      = 128

	ownLabel = "barong" // of several signatures, the one that is meant for this program
)

// A signatureInput is what Signature-Input says about one signature. Its bytes are views of the field.
type signatureInput struct {
	label      []byte
	covered    [components]uint8 // in their order
	count      int
	has        uint8 // a bit for each that is covered
	parameters [maxParameters]parameter
	named      int // how many of parameters

	keyID, nonce, algorithm []byte
	created                 int64 // Unix seconds
	expires                 int64
}

// A parameter is one of a structured field, as it is serialised. The value of a boolean true is empty.
type parameter struct{ key, value []byte }

func (s *signatureInput) covers(component int) bool { return s.has&(1<<component) != 0 }

// parse reads the signature that counts: the one labelled barong, or the only one. It reports false for
// anything that RFC 9421 does not allow, and for what two readers may take for different things: labels, components and
// parameters named twice, numbers in a spelling of their own.
func (s *signatureInput) parse(field []byte) bool {
	var labels [maxLabels][]byte
	count, begin := 0, 0
	r := fieldReader{text: field}
	for more := true; more; {
		label, ok := r.key()
		if !ok || count == maxLabels || contains(labels[:count], label) || !r.take('=') {
			return false
		}
		if count == 0 || string(label) == ownLabel {
			s.label, begin = label, r.at
		}
		if !r.innerList(nil) {
			return false
		}
		labels[count] = label
		count++
		if more, ok = r.member(); !ok {
			return false
		}
	}
	if count > 1 && string(s.label) != ownLabel {
		return false
	}
	r.at = begin
	return r.innerList(s) && s.understand()
}

func contains(list [][]byte, one []byte) bool {
	for _, other := range list {
		if bytes.Equal(other, one) {
			return true
		}
	}
	return false
}

// understand reads the parameters. It reports false when one that must be there is not, or is no such value.
func (s *signatureInput) understand() bool {
	var created, expires bool
	for i := range s.parameters[:s.named] {
		p := &s.parameters[i]
		ok := true
		switch string(p.key) {
		case "created":
			s.created, ok = integer(p.value)
			created = ok
		case "expires":
			s.expires, ok = integer(p.value)
			expires = ok
		case "keyid":
			s.keyID, ok = quoted(p.value)
		case "nonce":
			s.nonce, ok = quoted(p.value)
		case "alg":
			s.algorithm, ok = quoted(p.value)
		}
		if !ok {
			return false
		}
	}
	if !expires {
		s.expires = 1<<63 - 1
	}
	// A quote or backslash within a nonce is two bytes here, and one character.
	characters := len(s.nonce) - escapes(s.nonce)
	return created && s.keyID != nil && characters >= minNonce && characters <= maxNonce
}

func escapes(text []byte) (n int) {
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' {
			n++
			i++
		}
	}
	return n
}

// integer reads a serialised integer, which a fieldReader has found to be one.
func integer(value []byte) (n int64, ok bool) {
	digits := bytes.TrimPrefix(value, []byte("-"))
	if len(digits) == 0 || digits[0]-'0' > 9 {
		return 0, false
	}
	for _, c := range digits {
		n = n*10 + int64(c-'0')
	}
	if len(digits) < len(value) {
		n = -n
	}
	return n, true
}

// quoted is what stands between the quotes of a serialised string.
func quoted(value []byte) ([]byte, bool) {
	if len(value) < 2 || value[0] != '"' {
		return nil, false
	}
	return value[1 : len(value)-1], true
}

// parseSignatureField finds the signature of a label in Signature, as base64.
func parseSignatureField(field, label []byte) (signature []byte, ok bool) {
	ok = byteSequences(field, func(key, value []byte) {
		if bytes.Equal(key, label) {
			signature = value
		}
	})
	if !ok {
		return nil, false
	}
	return signature, signature != nil
}

// parseDigest reads Content-Digest (RFC 9530). strong says that it holds a SHA-256 or SHA-512 digest.
func parseDigest(field []byte) (strong, ok bool) {
	ok = byteSequences(field, func(name, value []byte) {
		switch size := decodedSize(value); string(name) {
		case "sha-256":
			strong = strong || size == sha256.Size
		case "sha-512":
			strong = strong || size == sha512.Size
		}
	})
	return strong && ok, ok
}

// byteSequences reads a dictionary whose members are all byte sequences, and calls each with the key and the base64 of every one.
// It reports false for any other field, and for keys that are there twice.
func byteSequences(field []byte, each func(key, value []byte)) bool {
	var keys [maxLabels][]byte
	count := 0
	r := fieldReader{text: field}
	for more := true; more; {
		key, ok := r.key()
		if !ok || count == maxLabels || contains(keys[:count], key) || !r.take('=') {
			return false
		}
		value, kind := r.item()
		if kind != sfBytes || !r.parameters(nil) {
			return false
		}
		each(key, value[1:len(value)-1])
		keys[count] = key
		count++
		if more, ok = r.member(); !ok {
			return false
		}
	}
	return true
}

// decodedSize is how many bytes a base64 text is.
func decodedSize(text []byte) int {
	return len(text)/4*3 - bytes.Count(text, []byte("="))
}

// A fieldReader reads a dictionary of structured fields (RFC 9651) from left to right. Of what the format allows it takes
// what has one spelling alone, since a signature covers how a value is serialised: integers without needless zeros, base64
// with its padding, no true but the implied one as a parameter. Decimals, dates and display strings, which nothing here
// uses, are refused.
type fieldReader struct {
	text []byte
	at   int
}

// Kinds of bare items.
type sfKind uint8

const (
	sfNone sfKind = iota // it is none
	sfString
	sfInteger
	sfToken
	sfBytes
	sfBoolean
)

// next is the byte ahead, or 0 at the end. A field holds no such byte.
func (r *fieldReader) next() byte {
	if r.at < len(r.text) {
		return r.text[r.at]
	}
	return 0
}

func (r *fieldReader) take(c byte) bool {
	if r.next() != c {
		return false
	}
	r.at++
	return true
}

func (r *fieldReader) spaces() {
	for r.take(' ') {
	}
}

// member goes from one member of a dictionary to the next, and reports whether there is one.
func (r *fieldReader) member() (more, ok bool) {
	optional := func() {
		for r.next() == ' ' || r.next() == '\t' {
			r.at++
		}
	}
	optional()
	if r.at == len(r.text) {
		return false, true
	}
	if !r.take(',') {
		return false, false
	}
	optional()
	return true, r.at < len(r.text)
}

func lower(c byte) bool { return c-'a' <= 'z'-'a' }
func digit(c byte) bool { return c-'0' <= 9 }

func (r *fieldReader) key() ([]byte, bool) {
	begin := r.at
	if c := r.next(); !lower(c) && c != '*' {
		return nil, false
	}
	for c := r.next(); lower(c) || digit(c) || c == '_' || c == '-' || c == '.' || c == '*'; c = r.next() {
		r.at++
	}
	return r.text[begin:r.at], true
}

// item reads a bare item, and returns it as it is serialised.
func (r *fieldReader) item() ([]byte, sfKind) {
	begin, kind := r.at, sfNone
	switch c := r.next(); {
	case c == '"':
		kind = r.string()
	case c == '-' || digit(c):
		kind = r.integer()
	case c == ':':
		kind = r.bytes()
	case c == '?':
		r.at++
		if r.take('0') || r.take('1') {
			kind = sfBoolean
		}
	case c == '*' || lower(c|0x20):
		for tokenBytes[r.next()] {
			r.at++
		}
		kind = sfToken
	}
	return r.text[begin:r.at], kind
}

func (r *fieldReader) string() sfKind {
	for r.at++; ; r.at++ {
		switch c := r.next(); {
		case c == '"':
			r.at++
			return sfString
		case c == '\\':
			r.at++
			if c = r.next(); c != '"' && c != '\\' {
				return sfNone
			}
		case c < ' ' || c >= 0x7f:
			return sfNone
		}
	}
}

func (r *fieldReader) integer() sfKind {
	negative := r.take('-')
	begin := r.at
	for digit(r.next()) {
		r.at++
	}
	digits := r.text[begin:r.at]
	if len(digits) == 0 || len(digits) > 15 || digits[0] == '0' && (len(digits) > 1 || negative) || r.next() == '.' {
		return sfNone
	}
	return sfInteger
}

func (r *fieldReader) bytes() sfKind {
	r.at++
	end := bytes.IndexByte(r.text[r.at:], ':')
	if end < 0 || !strictBase64(r.text[r.at:r.at+end]) {
		return sfNone
	}
	r.at += end + 1
	return sfBytes
}

// strictBase64 reports whether a text is base64 in its one spelling: padded, and with no bit that means nothing.
func strictBase64(text []byte) bool {
	if len(text)%4 != 0 {
		return false
	}
	if len(text) == 0 {
		return true
	}
	body := bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("=")), []byte("="))
	for _, c := range body {
		if base64Value[c] == noBase64 {
			return false
		}
	}
	last := base64Value[body[len(body)-1]]
	switch len(text) - len(body) {
	case 1:
		return last&0b11 == 0
	case 2:
		return last&0b1111 == 0
	}
	return true
}

const noBase64 = 0xff

var base64Value = func() (values [256]uint8) {
	for i := range values {
		values[i] = noBase64
	}
	for i, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/" {
		values[c] = uint8(i)
	}
	return values
}()

var tokenBytes = func() (token [256]bool) {
	for c := range token {
		token[c] = c > ' ' && c < 0x7f && bytes.IndexByte([]byte(`"(),;<=>?@[\]{}`), byte(c)) < 0
	}
	return token
}()

// innerList reads a list of components with its parameters into s, or only makes sure that it is a list.
func (r *fieldReader) innerList(s *signatureInput) bool {
	if !r.take('(') {
		return false
	}
	for {
		r.spaces()
		if r.take(')') {
			return r.parameters(s)
		}
		name, kind := r.item()
		if kind == sfNone || s != nil && (kind != sfString || !s.cover(name[1:len(name)-1]) || r.next() == ';') ||
			s == nil && !r.parameters(nil) || r.next() != ' ' && r.next() != ')' {
			return false
		}
	}
}

// cover notes a component, unless it is not known or was named before.
func (s *signatureInput) cover(name []byte) bool {
	i := slices.Index(componentNames[:], header.View(name))
	if i < 0 || s.covers(i) {
		return false
	}
	s.covered[s.count] = uint8(i)
	s.count++
	s.has |= 1 << i
	return true
}

// parameters reads parameters into s, or only makes sure that they are some.
func (r *fieldReader) parameters(s *signatureInput) bool {
	var keys [maxParameters][]byte
	count := 0
	for r.take(';') {
		r.spaces()
		key, ok := r.key()
		if !ok || count == maxParameters || contains(keys[:count], key) {
			return false
		}
		var value []byte
		if r.take('=') {
			var kind sfKind
			if value, kind = r.item(); kind == sfNone || kind == sfBoolean && value[1] == '1' {
				return false
			}
		}
		keys[count] = key
		count++
		if s != nil {
			s.parameters[s.named] = parameter{key, value}
			s.named++
		}
	}
	return true
}

// A signatureScratch is what checking one signature needs, kept for the next.
type signatureScratch struct {
	input     signatureInput
	base      []byte // what was signed
	signature [ed25519.SignatureSize]byte
}

var signatureScratches = sync.Pool{New: func() any { return new(signatureScratch) }}

// errUntold says that the gateway does not hand on what a signature covers.
var errUntold = errors.New("authz: a covered component cannot be told")

// bySignature decides a request that has Signature-Input. Whatever else it holds is no credential. The answers come in the
// order of byAPIKey: form, key, time, signature, use of the nonce, key state, owner.
func (c *check) bySignature(ctx context.Context) {
	e, d, h := c.engine, c.decision, &c.request.headers
	d.Credential = APIKey
	if h.odd&(1<<signatureInputs|1<<signatures|1<<contentDigest) != 0 || h.has&keyHeaders != 0 {
		d.refuse(malformedRequest) // two of a kind, or both schemes
		return
	}
	s := signatureScratches.Get().(*signatureScratch)
	defer func() {
		s.input = signatureInput{} // no view outlives the check
		signatureScratches.Put(s)
	}()
	in := &s.input
	if !in.parse(h.single[signatureInputs]) {
		d.refuse(malformedSignature)
		return
	}
	signature, ok := parseSignatureField(h.single[signatures], in.label)
	strong := false
	if ok && in.covers(coveredDigest) {
		strong, ok = parseDigest(h.single[contentDigest])
	}
	if !ok || c.writeBase(s) != nil {
		d.refuse(malformedSignature)
		return
	}
	sufficient := in.covers(coveredMethod) && (in.covers(coveredTarget) || in.covers(coveredPath) && in.covers(coveredQuery)) &&
		strong == in.covers(coveredDigest) && (strong || !c.request.mayHaveContent())

	found, err := e.cacheKey(ctx, in.keyID, c.now)
	switch {
	case errors.Is(err, session.ErrNotFound):
		d.refuse(unexistentKey)
		return
	case err != nil:
		c.unavailable(ctx, "API key", err)
		return
	}
	d.KID = found.Key.KID
	switch {
	case !e.recent(in, c.now):
		d.refuse(nonceExpired)
		return
	case !sufficient || !s.verify(found, signature):
		d.refuse(invalidSignature)
		return
	}
	// The nonce is remembered until the signature is too old by any clock that may have made it, which counts whole
	// seconds.
	if c.firstUse(ctx, e.signatureNonces, found, in.nonce, c.now.Add(2*e.nonceLifetime+time.Second)) {
		c.byOwner(ctx, found)
	}
}

// recent reports whether a signature was made less than the lifetime of a nonce before or after now, as far as whole
// seconds tell, and has not expired by its own parameter.
func (e *Engine) recent(in *signatureInput, now time.Time) bool {
	const second = int64(time.Second / time.Millisecond)
	ms, created := now.UnixMilli(), in.created*second
	distance := max(created-ms, ms-(created+second-1), 0)
	return distance < int64(e.nonceLifetime/time.Millisecond) && now.Unix() < in.expires
}

// verify reports whether a signature, as base64, is one of the base by that key.
func (s *signatureScratch) verify(found near.FoundKey, signature []byte) bool {
	if len(signature) > base64.StdEncoding.EncodedLen(len(s.signature)) {
		return false
	}
	n, err := base64.StdEncoding.Decode(s.signature[:], signature)
	if err != nil {
		return false
	}
	said := s.input.algorithm // nil when the key alone says it
	if public := found.Key.PublicKey; public != nil {
		return (said == nil || string(said) == "ed25519") && n == ed25519.SignatureSize &&
			ed25519.Verify(public, s.base, s.signature[:])
	}
	return (said == nil || string(said) == "hmac-sha256") && n == sha256.Size &&
		found.MAC.Verify(s.base, nil, (*[sha256.Size]byte)(s.signature[:]))
}

// writeBase writes what the signature was made of (RFC 9421, section 2.5).
func (c *check) writeBase(s *signatureScratch) error {
	b := s.base[:0]
	in := &s.input
	path, query := c.request.Target, "?" // of an empty query too (section 2.2.7)
	for i := range path {
		if path[i] == '?' {
			path, query = path[:i], path[i:]
			break
		}
	}
	for _, component := range in.covered[:in.count] {
		b = append(append(append(b, '"'), componentNames[component]...), `": `...)
		begin, ok := len(b), true
		switch component {
		case coveredMethod:
			b = append(b, c.request.Method...)
		case coveredPath:
			b = append(b, path...)
		case coveredQuery:
			b = append(b, query...)
		case coveredAuthority:
			b, ok = c.appendAuthority(b)
		case coveredTarget:
			b = append(append(b, c.scheme()...), "://"...)
			b, ok = c.appendAuthority(b)
			b = append(b, c.request.Target...)
			ok = ok && c.scheme() != ""
		case coveredDigest:
			b = append(b, c.request.headers.single[contentDigest]...)
		}
		if !ok || bytes.ContainsAny(b[begin:], "\r\n") {
			s.base = b
			return errUntold
		}
		b = append(b, '\n')
	}
	b = append(b, `"@signature-params": (`...)
	for i, component := range in.covered[:in.count] {
		if i > 0 {
			b = append(b, ' ')
		}
		b = append(append(append(b, '"'), componentNames[component]...), '"')
	}
	b = append(b, ')')
	for i := range in.parameters[:in.named] {
		p := &in.parameters[i]
		b = append(append(b, ';'), p.key...)
		if p.value != nil {
			b = append(append(b, '='), p.value...)
		}
	}
	s.base = b
	return nil
}

// scheme is the one that the client used, as the gateway says; empty when that is not said, or by somebody who is not
// believed.
func (c *check) scheme() string {
	r := c.request
	forwarded := ""
	if trusted := c.engine.proxies.Trusted(r.Peer); trusted && r.headers.present(forwardedProto) {
		first, _, _ := bytes.Cut(r.headers.single[forwardedProto], []byte(","))
		switch first = bytes.TrimSpace(first); {
		case httpsName.Is(first):
			forwarded = "https"
		case httpName.Is(first):
			forwarded = "http"
		}
	} else if r.Dialect == SelfGate {
		forwarded = "http"
	} else if !trusted {
		return ""
	}
	if r.Scheme == "" || r.Dialect == EnvoyGRPC && forwarded != "" {
		return forwarded
	}
	return r.Scheme
}

// appendAuthority appends the host that the client asked for, and its port unless it is the usual one, in lower case
// (RFC 9421, section 2.2.3). It reports false when the gateway does not hand them on.
func (c *check) appendAuthority(b []byte) ([]byte, bool) {
	r, h := c.request, &c.request.headers
	host := header.BytesOf(r.Host)
	if len(host) == 0 {
		i := hostName
		if r.Dialect == ForwardAuth || r.Dialect == AuthRequest {
			i = forwardedHost
		}
		if r.Dialect == EnvoyGRPC || h.odd&(1<<i) != 0 {
			return b, false
		}
		host = h.single[i]
	}
	if len(host) == 0 || r.Dialect != SelfGate && !c.engine.proxies.Trusted(r.Peer) {
		return b, false
	}
	for _, usual := range [...]struct{ scheme, port string }{{"https", ":443"}, {"http", ":80"}} {
		if bytes.HasSuffix(host, header.BytesOf(usual.port)) {
			switch c.scheme() {
			case "":
				return b, false
			case usual.scheme:
				host = host[:len(host)-len(usual.port)]
			}
		}
	}
	for _, ch := range host {
		switch {
		case ch-'A' <= 'Z'-'A':
			ch |= 0x20
		case ch <= ' ' || ch >= 0x7f || ch == '/' || ch == '?' || ch == '#' || ch == '@' || ch == ',' || ch == '\\':
			return b, false
		}
		b = append(b, ch)
	}
	return b, true
}
