package secret

import (
	"crypto/rand"
	"encoding/hex"
)

// RandomHex draws n random bytes and returns them as 2n hexadecimal digits.
func RandomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails since Go 1.24
	return hex.EncodeToString(b)
}
