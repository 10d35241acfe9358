package authz

import (
	"strings"
	"unicode/utf8"

	"barong/internal/header"
)

// Canonical returns the one path that a raw request target can mean, or ok false when two readers might see two: what is
// ambiguous is refused and never repaired. The query is cut off, one slash is taken off either end, and percent escapes
// are decoded once. "/API/x%20y/?q=1" is "API/x y".
//
// Refused are a target that does not begin with a slash; empty, "." and ".." segments; a backslash, ";" or a control
// byte; "#" anywhere, also in the query; text that is not UTF-8, before or after decoding; an escape that is none; and
// the escapes of ".", "/", "\", "%", ";", "#", "?" and control bytes, since some readers decode before they split.
func Canonical(target string) (path string, ok bool) {
	if target == "" || target[0] != '/' {
		return "", false
	}
	path = target[1:]
	escaped, plain := false, true
scan:
	for i := 0; i < len(path); i++ {
		kind := pathBytes[path[i]]
		if kind == pathPlain { // most are
			continue
		}
		begins := i == 0 || path[i-1] == '/' // a segment
		switch kind {
		case pathSlash:
			if begins {
				return "", false
			}
		case pathDot:
			if begins && dotSegment(path[i:]) {
				return "", false
			}
		case pathPercent:
			escaped = true
		case pathHigh:
			plain = false
		case pathQuery:
			if strings.IndexByte(path[i:], '#') >= 0 {
				return "", false
			}
			path = path[:i]
			break scan
		default:
			return "", false
		}
	}
	path = strings.TrimSuffix(path, "/")
	if !plain && !utf8.ValidString(path) {
		return "", false
	}
	if escaped {
		return unescape(path)
	}
	return path, true
}

// Kinds of bytes in a raw path.
const (
	pathPlain = iota
	pathSlash
	pathDot
	pathPercent
	pathQuery
	pathHigh // part of a character beyond ASCII
	pathBad
)

var pathBytes = func() (kinds [256]uint8) {
	for c := range kinds {
		switch {
		case c < ' ' || c == 0x7f || c == '\\' || c == ';' || c == '#':
			kinds[c] = pathBad
		case c >= utf8.RuneSelf:
			kinds[c] = pathHigh
		}
	}
	kinds['/'], kinds['.'], kinds['%'], kinds['?'] = pathSlash, pathDot, pathPercent, pathQuery
	return kinds
}()

// dotSegment reports whether rest, which begins with a dot, begins with the segment "." or "..".
func dotSegment(rest string) bool {
	rest = strings.TrimPrefix(rest[1:], ".")
	return rest == "" || rest[0] == '/' || rest[0] == '?'
}

// unescape decodes the percent escapes of a path once, or refuses it.
func unescape(path string) (string, bool) {
	var b strings.Builder
	b.Grow(len(path))
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' {
			if i+2 >= len(path) {
				return "", false
			}
			hi, lo := header.Unhex(path[i+1]), header.Unhex(path[i+2])
			if hi > 15 || lo > 15 {
				return "", false
			}
			c = hi<<4 | lo
			i += 2
			if kind := pathBytes[c]; kind != pathPlain && kind != pathHigh {
				return "", false
			}
		}
		b.WriteByte(c)
	}
	if decoded := b.String(); utf8.ValidString(decoded) {
		return decoded, true
	}
	return "", false
}

// changesState reports whether a cookie's request needs the CSRF token: whether its method is none of those that are
// registered as safe.
func changesState(method string) bool {
	switch method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH":
		return false
	}
	return true
}
