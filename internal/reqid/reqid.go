// Package reqid names requests, so that what a log, a refusal, an audit row and a trace say of one request can be put
// together. A gateway or client may have named it in X-Request-Id; what has no name, or an odd one, is given one.
package reqid

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
)

// Header carries the name, both ways.
const Header = "X-Request-Id"

// Bounds of names, in bytes.
const (
	MaxLen  = 128 // of one that was sent
	MadeLen = 32  // of one that was made
)

// Valid reports whether a name that was sent may be used: 1 to MaxLen letters, digits and marks that mean nothing in a log,
// a header or a query.
func Valid(id []byte) bool {
	if len(id) == 0 || len(id) > MaxLen {
		return false
	}
	for _, c := range id {
		if !plain[c] {
			return false
		}
	}
	return true
}

var plain = func() (t [256]bool) {
	for c := '0'; c <= '9'; c++ {
		t[c] = true
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c], t[c-'a'+'A'] = true, true
	}
	for _, c := range "-._~:/+=@" {
		t[c] = true
	}
	return t
}()

// Make fills a buffer with a new name and returns it. Names are unlike each other; nothing rests on nobody guessing them.
func Make(buffer *[MadeLen]byte) []byte {
	var raw [MadeLen / 2]byte
	binary.LittleEndian.PutUint64(raw[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(raw[8:], rand.Uint64())
	hex.Encode(buffer[:], raw[:])
	return buffer[:]
}

// Of is the name of a request that was sent one, which may be nil: that, or a new one.
func Of(sent []byte) string {
	if Valid(sent) {
		return string(sent)
	}
	var buffer [MadeLen]byte
	return string(Make(&buffer))
}

// IDKey and TraceKey are the keys under which a context has, as strings, the name of its request and the id of its trace.
// They are there for contexts that find the value when it is asked for.
type (
	IDKey    struct{}
	TraceKey struct{}
)

// With returns a context of the request of that name.
func With(ctx context.Context, id string) context.Context { return context.WithValue(ctx, IDKey{}, id) }

// From is the name of the context's request, or empty.
func From(ctx context.Context) string {
	id, _ := ctx.Value(IDKey{}).(string)
	return id
}

// WithTrace returns a context whose trace has that id.
func WithTrace(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, TraceKey{}, id)
}

// Trace is the id of the context's trace, or empty.
func Trace(ctx context.Context) string {
	id, _ := ctx.Value(TraceKey{}).(string)
	return id
}
