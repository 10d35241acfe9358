package header

import (
	"bytes"
	"unicode/utf8"
)

// UTF8 returns value with a "!" for each byte that is no part of a UTF-8 character: value itself where there is none.
// HTTP lets any byte beyond ASCII through, and databases do not. Envoy writes the same where it can send no others.
func UTF8(value []byte) []byte {
	if utf8.Valid(value) {
		return value
	}
	value = bytes.Clone(value)
	for i := 0; i < len(value); {
		r, n := utf8.DecodeRune(value[i:])
		if r == utf8.RuneError && n == 1 {
			value[i] = '!'
		}
		i += n
	}
	return value
}
