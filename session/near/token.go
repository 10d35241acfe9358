package near

import (
	"sync/atomic"
	"unsafe"

	"barong/session"
)

// A Token is what was last signed for a session or API key. It is immutable, but for Refreshing.
type Token struct {
	Authorization string             // "Bearer <JWT>"
	Principal     *session.Principal // whose claims it carries
	KeyID         string             // of the key that signed it
	Until         int64              // nanoseconds since its maker began: from then on, it must not be handed out any more
	Expires       int64              // Unix nanoseconds: nor from then on, which another wall clock may reach earlier
	Refreshing    atomic.Bool
}

// A TokenSlot is where the cache keeps the token of a session or API key. It is emptied when they end. While what is known
// of them is not trusted any more, the token stays, and is handed out again once they were found anew.
type TokenSlot = atomic.Pointer[Token]

// NewToken makes a token whose Authorization is the scheme followed by the compact token. The token and its text share one
// piece of memory if the text has a usual length: a check reads the one right after the other.
func NewToken(scheme string, compact []byte) *Token {
	token, text := emptyToken(len(scheme) + len(compact))
	text = append(append(text, scheme...), compact...)
	token.Authorization = unsafe.String(unsafe.SliceData(text), len(text))
	return token
}

// emptyToken makes a token and room for its text of n bytes.
func emptyToken(n int) (*Token, []byte) {
	switch {
	case n <= 448: // signed with ES256 or EdDSA
		m := new(struct {
			token Token
			text  [448]byte
		})
		return &m.token, m.text[:0]
	case n <= 960: // with RS256 and 2048 bits
		m := new(struct {
			token Token
			text  [960]byte
		})
		return &m.token, m.text[:0]
	}
	return new(Token), make([]byte, 0, n)
}
