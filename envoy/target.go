package envoy

import (
	"bytes"
	"strings"

	"barong/internal/header"
)

// A Kind says to which part of the process a request target belongs.
type Kind uint8

// The kinds of targets. Only Other may reach a router.
const (
	Other         Kind = iota // no check: the REST API and what else the process serves
	ExtAuthz                  // /api/v2/auth/<path>: Envoy's HTTP ext_authz
	ForwardAuth               // /api/v2/forward-auth
	AuthRequest               // /api/v2/auth-request
	BarePrefix                // /api/v2/auth or /api/v2/auth/ with no path behind it: an unknown route but to browsers
	RefusedTarget             // not in origin form, or another spelling of a check's path
)

// The paths of the checks.
const (
	ExtAuthzPrefix  = "/api/v2/auth" // Envoy's path_prefix: the client's raw target follows, with its slash
	ForwardAuthPath = "/api/v2/forward-auth"
	AuthRequestPath = "/api/v2/auth-request"
)

// Owns decides on the raw, undecoded request target whether a request is a check, something else, or neither.
//
// It must be asked before any router or decoder sees the target. A decoded path can leave the check space: the target
// "/api/v2/auth/x/..%2f..%2fidentity/ping" is a check of "/x/..%2f..%2fidentity/ping" here, and the REST route
// /api/v2/identity/ping to whoever decodes it, whose 200 would mean "allowed" to the gateway. The other way round, a
// target that only becomes a check once it is decoded is a RefusedTarget.
func Owns(target []byte) Kind {
	if len(target) == 0 || target[0] != '/' {
		return RefusedTarget // absolute form, authority form, or "*"
	}
	path := target
	if i := bytes.IndexByte(path, '?'); i >= 0 {
		path = path[:i]
	}
	if len(path) > len(ExtAuthzPrefix) && path[len(ExtAuthzPrefix)] == '/' && string(path[:len(ExtAuthzPrefix)]) == ExtAuthzPrefix {
		if len(path) == len(ExtAuthzPrefix)+1 {
			return BarePrefix
		}
		return ExtAuthz
	}
	switch string(path) {
	case ExtAuthzPrefix:
		return BarePrefix
	case ForwardAuthPath:
		return ForwardAuth
	case AuthRequestPath:
		return AuthRequest
	}
	if plain(path) {
		return Other
	}
	if disguised(path) {
		return RefusedTarget
	}
	return Other
}

// plain reports that no decoder or cleaner of paths would change the path: no escape, no backslash, no parameter, no
// fragment, no upper case, no empty segment (so no final slash) and none that begins with a dot.
func plain(path []byte) bool {
	after := byte(0)
	for _, c := range path {
		switch {
		case c == '%' || c == '\\' || c == ';' || c == '#' || c-'A' <= 'Z'-'A':
			return false
		case after == '/' && (c == '/' || c == '.'):
			return false
		}
		after = c
	}
	return after != '/'
}

// disguised reports whether some lenient reading of the path is the path of a check. The reading is as wide as
// decoders get: escapes decoded until none is left, backslashes as slashes, dot and empty segments resolved, path
// parameters and fragments dropped, case folded, and what follows two slashes at the beginning taken for a host.
func disguised(path []byte) bool {
	p := string(path)
	for depth := 0; strings.Contains(p, "%"); depth++ {
		q := unescape(p)
		if q == p {
			break
		}
		if depth == 3 {
			return true // nobody needs escapes of escapes of escapes, and undoing them all takes quadratic time
		}
		p = q
	}
	p, _, _ = strings.Cut(p, "#")
	p, _, _ = strings.Cut(p, "?")
	p = strings.ToLower(strings.ReplaceAll(p, `\`, "/"))
	if rest, ok := strings.CutPrefix(p, "//"); ok {
		if _, rest, _ = strings.Cut(rest, "/"); leadsToChecks(rest) {
			return true
		}
	}
	return leadsToChecks(p)
}

// leadsToChecks reports whether a path that is decoded and in lower case is that of a check, or below it.
func leadsToChecks(p string) bool {
	// Every prefix of the walk counts, since a reader may resolve dot segments or not.
	var segments []string
	for segment := range strings.SplitSeq(p, "/") {
		segment, _, _ = strings.Cut(segment, ";")
		switch segment {
		case "", ".":
			continue
		case "..":
			segments = segments[:max(len(segments)-1, 0)]
			continue
		}
		segments = append(segments, segment)
		if len(segments) == 3 && segments[0] == "api" && segments[1] == "v2" &&
			(segment == "auth" || segment == "forward-auth" || segment == "auth-request") {
			return true
		}
	}
	return false
}

// unescape decodes every valid percent escape once, and leaves the rest as it is.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			hi, lo := header.Unhex(s[i+1]), header.Unhex(s[i+2])
			if hi < 16 && lo < 16 {
				b.WriteByte(hi<<4 | lo)
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
