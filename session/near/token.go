package near

import (
	"sync/atomic"
	"unsafe"

	"barong/session"
)

// A TokenHead is how the Authorizations of many tokens begin: scheme, header, and the claims that are the same in all.
type TokenHead struct {
	Text  string
	KeyID string // of the key that signed them
}

// A Token is what was last signed for a session or API key. It is immutable, but for Refreshing. What its text begins with
// is kept once for all: of a token with RS256 that is a quarter.
type Token struct {
	Head       *TokenHead
	Tail       string             // of "Bearer <JWT>", behind the head
	Principal  *session.Principal // whose claims it carries
	Until      int64              // nanoseconds since its maker began: from then on, it must not be handed out any more
	Expires    int64              // Unix nanoseconds: nor from then on, which another wall clock may reach earlier
	Refreshing atomic.Bool
}

// A TokenSlot is where the cache keeps the token of a session or API key. It is emptied when they have ended, and outlives
// that what is known of them is trusted no longer: whoever is handed it was found anew.
type TokenSlot = atomic.Pointer[Token]

// AppendTo appends the Authorization, "Bearer <JWT>".
func (t *Token) AppendTo(dst []byte) []byte { return append(append(dst, t.Head.Text...), t.Tail...) }

// NewToken makes a token whose Authorization is the head followed by tail. The token and its text share one piece of memory
// if the text has a usual length: a check reads the one right after the other, and memory is handed out in few sizes.
func NewToken(head *TokenHead, tail []byte) *Token {
	token, text := emptyToken(len(tail))
	text = append(text, tail...)
	token.Head, token.Tail = head, unsafe.String(unsafe.SliceData(text), len(text))
	return token
}

// emptyToken makes a token and room for its text of n bytes. Each of the lengths fills a size that Go's runtime hands out,
// with the eight bytes that it adds to what holds pointers and is above 512: 448 and 512 bytes for tokens with ES256 and
// EdDSA, 704 for most with RS256 of 2048 bits.
func emptyToken(n int) (*Token, []byte) {
	switch {
	case n <= 392:
		return tokenWith[[392]byte]()
	case n <= 456:
		return tokenWith[[456]byte]()
	case n <= 512:
		return tokenWith[[512]byte]()
	case n <= 576:
		return tokenWith[[576]byte]()
	case n <= 640:
		return tokenWith[[640]byte]()
	case n <= 704:
		return tokenWith[[704]byte]()
	case n <= 832:
		return tokenWith[[832]byte]()
	case n <= 960:
		return tokenWith[[960]byte]()
	}
	return new(Token), make([]byte, 0, n)
}

func tokenWith[T any]() (*Token, []byte) {
	m := new(struct {
		token Token
		text  T
	})
	return &m.token, unsafe.Slice((*byte)(unsafe.Pointer(&m.text)), unsafe.Sizeof(m.text))[:0]
}
