package header

import "unsafe"

// View is b as a string that shares its bytes, and lives as long as b does: until the check is over, or the fasthttp
// handler returns. What outlives that is cloned.
func View(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// BytesOf is s as bytes that share its memory, and must only be read.
func BytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// Unhex is the value of a hexadecimal digit of either case, or 0xff.
func Unhex(c byte) byte {
	switch {
	case c-'0' <= 9:
		return c - '0'
	case c-'a' <= 5:
		return c - 'a' + 10
	case c-'A' <= 5:
		return c - 'A' + 10
	}
	return 0xff
}
