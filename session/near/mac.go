package near

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding"
	"fmt"
	"hash"
	"sync"
)

// A MAC is an API key's secret, ready to verify HMAC-SHA-256 signatures (RFC 2104): the hash states behind its two pads,
// which would otherwise be computed anew for each signature. It is immutable and safe for concurrent use.
type MAC struct{ inner, outer []byte }

// NewMAC prepares a secret, which is used as it is. An empty one, which everybody knows, verifies nothing: the MAC is nil.
func NewMAC(secret []byte) *MAC {
	if len(secret) == 0 {
		return nil
	}
	var pad [sha256.BlockSize]byte
	if len(secret) > len(pad) {
		sum := sha256.Sum256(secret)
		copy(pad[:], sum[:])
	} else {
		copy(pad[:], secret)
	}
	state := func(mask byte) []byte {
		h := sha256.New()
		for _, b := range pad {
			h.Write([]byte{b ^ mask})
		}
		marshaled, err := h.(encoding.BinaryMarshaler).MarshalBinary()
		if err != nil {
			panic(fmt.Sprintf("session: marshal a SHA-256 state: %v", err)) // the standard library's cannot fail
		}
		return marshaled
	}
	return &MAC{inner: state(0x36), outer: state(0x5c)}
}

// A macScratch is what one verification needs, kept for the next.
type macScratch struct {
	digest interface {
		hash.Hash
		encoding.BinaryUnmarshaler
	}
	sum [sha256.Size]byte
}

var macScratches = sync.Pool{New: func() any {
	s := new(macScratch)
	s.digest = sha256.New().(interface {
		hash.Hash
		encoding.BinaryUnmarshaler
	})
	return s
}}

// Verify reports, in a time that does not depend on where they differ, whether signature is the MAC of a followed by b.
func (m *MAC) Verify(a, b []byte, signature *[sha256.Size]byte) bool {
	if m == nil {
		return false
	}
	s := macScratches.Get().(*macScratch)
	defer macScratches.Put(s)
	s.resume(m.inner)
	s.digest.Write(a)
	s.digest.Write(b)
	s.digest.Sum(s.sum[:0])
	s.resume(m.outer)
	s.digest.Write(s.sum[:])
	s.digest.Sum(s.sum[:0])
	return subtle.ConstantTimeCompare(s.sum[:], signature[:]) == 1
}

func (s *macScratch) resume(state []byte) {
	if err := s.digest.UnmarshalBinary(state); err != nil {
		panic(fmt.Sprintf("session: resume a SHA-256 state: %v", err)) // it was made by the same code
	}
}
