// Package redirect judges where a browser may be sent on to after it has signed in. The address comes out of the query of a
// link (rd), which anybody may write, so what is not plainly one of our own places leads home: a person who trusts the
// address of the sign-in page must not find themselves on a stranger's.
package redirect

import (
	"net"
	"regexp"
	"strconv"
	"strings"
)

// Home is where a browser goes whose address is not followed: the account.
const Home = "/accounts/"

// maxTarget is the longest address that is followed, in bytes.
const maxTarget = 8 << 10

// Rules say which hosts are our own, beside the one that the browser asked. The zero Rules name none.
type Rules struct {
	// Domain is that of the session's cookie (BARONG_COOKIE_DOMAIN): the host of that name and all below it get the session
	// anyhow. Empty for none.
	Domain string
	// Hosts are further ones (BARONG_PORTAL_REDIRECTS), with a port to allow that alone.
	Hosts []string
}

// absolute is an address with everything in it that decides where it leads, and nothing that two readers may read
// differently: no user info, no backslash, no escape in the host, no host in other letters.
var absolute = regexp.MustCompile(`^(?i:https?)://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?(?:[/?#].*)?$`)

// Target is where a browser is sent that was given rd and asked host, which may have a port: rd as it is written when it is
// a path, or an http or https address of the same host or of one of the rules. Ports do not tell hosts apart, as they do
// not for cookies, unless a rule names one. Any other rd is not followed: then ok is false, and the target Home.
func (r Rules) Target(rd, host string) (target string, ok bool) {
	if len(rd) > maxTarget || strings.ContainsFunc(rd, ambiguous) {
		return Home, false
	}
	if strings.HasPrefix(rd, "/") {
		if strings.HasPrefix(rd, "//") {
			return Home, false
		}
		return rd, true
	}
	m := absolute.FindStringSubmatch(rd)
	if m == nil || !r.allows(strings.ToLower(m[1]), m[2], host) {
		return Home, false
	}
	return rd, true
}

// ambiguous reports what no address holds that was written by a program: control bytes, spaces and what is beyond ASCII are
// escaped in one, and a backslash is a slash to some.
func ambiguous(c rune) bool { return c <= ' ' || c >= 0x7f || c == '\\' }

func (r Rules) allows(name, port, asked string) bool {
	if n, err := strconv.Atoi(port); port != "" && (err != nil || n == 0 || n > 65535) {
		return false
	}
	if strings.HasSuffix(name, ".") || strings.Contains(name, "..") || strings.HasPrefix(name, ".") {
		return false
	}
	if own, _ := split(asked); name == own {
		return true
	}
	if d := strings.ToLower(strings.TrimPrefix(r.Domain, ".")); d != "" && (name == d || strings.HasSuffix(name, "."+d)) {
		return true
	}
	for _, allowed := range r.Hosts {
		if host, only := split(allowed); name == host && (only == "" || only == port) {
			return true
		}
	}
	return false
}

// split takes a host, in lower case, from its port.
func split(host string) (name, port string) {
	if h, p, err := net.SplitHostPort(host); err == nil {
		name, port = h, p
		if strings.Contains(h, ":") {
			name = "[" + h + "]"
		}
	} else {
		name = host
	}
	return strings.ToLower(name), port
}
