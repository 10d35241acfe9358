package authz

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"barong/internal/header"
	"barong/session"
)

// maxSent is how many different values of the session cookie are looked at. A request with more is nobody's.
const maxSent = 4

// Sent is what a request carries of the session cookie. There may be several: a changed domain leaves the old cookie
// behind, and siblings and parent domains may set one of the same name. They are views of the Cookie lines.
type Sent struct {
	values [maxSent][]byte // the different ones, in order
	count  int             // of different ones; maxSent+1 stands for any more
	pairs  int             // of all
}

// Sent finds the session cookies in Cookie header lines (RFC 6265 section 4.2.1). Several lines are read as one.
func (c *Cookies) Sent(lines ...[]byte) (s Sent) {
	c.find(&s, lines)
	return s
}

// find is Sent into an empty s. It looks for the name alone: what other cookies hold is not its business.
func (c *Cookies) find(s *Sent, lines [][]byte) {
	for _, line := range lines {
		for from := 0; ; {
			at := bytes.Index(line[from:], c.lookedFor)
			if at < 0 {
				break
			}
			at += from
			from = at + len(c.lookedFor)
			for at > 0 && isSpace(line[at-1]) {
				at--
			}
			if at > 0 && line[at-1] != ';' { // within another name, or a value
				continue
			}
			pair := line[from:]
			if end := bytes.IndexByte(pair, ';'); end >= 0 {
				pair = pair[:end]
			}
			from += len(pair)
			for len(pair) > 0 && isSpace(pair[0]) { // "name =value": the same cookie for some readers
				pair = pair[1:]
			}
			if len(pair) > 0 && pair[0] == '=' {
				s.add(header.TrimSpace(pair[1:]))
			}
		}
	}
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' }

func (s *Sent) add(value []byte) {
	s.pairs++
	for _, known := range s.values[:min(s.count, maxSent)] {
		if bytes.Equal(known, value) {
			return
		}
	}
	if s.count < maxSent {
		s.values[s.count] = value
	}
	s.count = min(s.count+1, maxSent+1)
}

// IDs are the sessions that the cookies may name: none where they have too many different values.
func (s *Sent) IDs() []session.ID {
	if s.count > maxSent {
		return nil
	}
	var ids []session.ID
	for _, value := range s.values[:s.count] {
		if id, ok := session.ParseID(value); ok {
			ids = append(ids, id)
		}
	}
	return ids
}

// odd reports whether one of the values that are looked at holds bytes that are no UTF-8.
func (s *Sent) odd() bool {
	for _, value := range s.values[:min(s.count, maxSent)] {
		if !utf8.Valid(value) {
			return true
		}
	}
	return false
}

// Ambiguous reports that the browser has more than one session cookie, or one that makes checks malformed: Expire them.
func (s *Sent) Ambiguous() bool { return s.pairs > 1 || s.odd() }

// Values of CookieSettings.Secure.
const (
	SecureAuto   = "auto"   // when the client came over https
	SecureAlways = "always" // also "true"
	SecureNever  = "never"  // also "false"
)

// CookieSettings describe the session cookie. Empty Secure is auto, empty SameSite lax, empty Domain the host alone.
type CookieSettings struct {
	Name     string // BARONG_SESSION_NAME
	Secure   string // BARONG_COOKIE_SECURE
	SameSite string // BARONG_COOKIE_SAMESITE: lax, strict or none
	Domain   string // BARONG_COOKIE_DOMAIN
}

// Cookies make and read the session cookie. They are immutable.
type Cookies struct {
	name       string
	lookedFor  []byte // the name
	secure     string
	domain     string
	attributes string // what does not change, from "; HttpOnly" on
}

// NewCookies checks the settings, which a browser would otherwise refuse silently.
func NewCookies(s CookieSettings) (*Cookies, error) {
	if s.Name == "" || strings.ContainsFunc(s.Name, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`()<>@,;:\"/[]?={}`, r)
	}) {
		return nil, fmt.Errorf("session cookie name %q is no token (RFC 6265)", s.Name)
	}
	if strings.ContainsFunc(s.Domain, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == ';' || r == ',' }) {
		return nil, fmt.Errorf("session cookie domain %q is no host name", s.Domain)
	}
	c := &Cookies{name: s.Name, lookedFor: []byte(s.Name), domain: s.Domain, attributes: "; HttpOnly"}
	switch strings.ToLower(s.Secure) {
	case "", SecureAuto:
		c.secure = SecureAuto
	case SecureAlways, "true":
		c.secure = SecureAlways
	case SecureNever, "false":
		c.secure = SecureNever
	default:
		return nil, fmt.Errorf("session cookie: Secure %q is none of auto, always, never", s.Secure)
	}
	switch strings.ToLower(s.SameSite) {
	case "", "lax":
		c.attributes += "; SameSite=Lax"
	case "strict":
		c.attributes += "; SameSite=Strict"
	case "none":
		if c.secure != SecureAlways {
			return nil, errors.New("session cookie: browsers take SameSite=None only with Secure set to always")
		}
		c.attributes += "; SameSite=None"
	default:
		return nil, fmt.Errorf("session cookie: SameSite %q is none of lax, strict, none", s.SameSite)
	}
	host := strings.HasPrefix(s.Name, "__Host-")
	if (host || strings.HasPrefix(s.Name, "__Secure-")) && c.secure != SecureAlways || host && s.Domain != "" {
		return nil, fmt.Errorf("session cookie name %q needs Secure set to always, and __Host- no Domain", s.Name)
	}
	return c, nil
}

// Name is the cookie's name.
func (c *Cookies) Name() string { return c.name }

// CrossSite reports whether browsers take and send the cookie in calls that other sites cause (SameSite=None).
func (c *Cookies) CrossSite() bool { return strings.HasSuffix(c.attributes, "; SameSite=None") }

// Set is the value of the Set-Cookie header that hands a session to its browser, or renews it. The cookie lives until
// ends, the session's EndsAt: gateways that drop Set-Cookie from a check must not shorten a session, and the sliding
// expiry is kept by the server.
func (c *Cookies) Set(id session.ID, ends, now time.Time, https bool) string {
	return c.value(id.String(), c.domain, ends, max(0, int64(ends.Sub(now)/time.Second)), https)
}

// Clear is the value of the Set-Cookie header that makes the browser drop the cookie.
func (c *Cookies) Clear(https bool) string { return c.clear(c.domain, https) }

func (c *Cookies) clear(domain string, https bool) string {
	return c.value("", domain, time.Unix(0, 0), 0, https)
}

// maxDomains bounds the domains for which Expire drops cookies: who asks for a host with more only asks for themselves.
const maxDomains = 16

// Expire are the values of the Set-Cookie headers that make the browser drop every cookie of that name which it sends to
// a host: the host's own, and that of each domain above it. host may have a port; one that is no name has no domains.
func (c *Cookies) Expire(host string, https bool) []string {
	all := []string{c.clear("", https)}
	if strings.HasPrefix(c.name, "__Host-") { // such cookies have no domain
		return all
	}
	domains := domainsOf(host)
	for _, domain := range domains[max(0, len(domains)-maxDomains):] {
		all = append(all, c.clear(domain, https))
	}
	return all
}

// domainsOf are the domains for which a host may have cookies: itself and those above it, without the topmost, which
// browsers take from nobody.
func domainsOf(host string) (domains []string) {
	if name, port, ok := strings.Cut(host, ":"); ok && !strings.Contains(port, ":") {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if len(host) > 253 || strings.ContainsFunc(host, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
	}) {
		return nil
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	for strings.Contains(host, ".") {
		domains = append(domains, host)
		_, host, _ = strings.Cut(host, ".")
	}
	return domains
}

// ProviderCookie is the cookie beside the session's that holds a sign-in by a provider while it is under way.
const ProviderCookie = "provider"

// A Beside is a cookie beside that of the session, for this host alone and for as long as what it holds. Browsers send it
// when somebody comes back from another site by a link or a redirect.
type Beside struct {
	Name   string
	secure bool
}

// Beside names a cookie beside that of the session. Over https its name is one that no other host and no page without
// encryption can set: what it holds was given to this browser.
func (c *Cookies) Beside(what string, https bool) Beside {
	name := strings.TrimPrefix(strings.TrimPrefix(c.name, "__Host-"), "__Secure-") + "_" + what
	if c.isSecure(https) {
		return Beside{"__Host-" + name, true}
	}
	return Beside{name, false}
}

// Set is the value of the Set-Cookie header that gives the browser a value, which is letters that cookies hold.
func (b Beside) Set(value string, life time.Duration) string {
	text := b.Name + "=" + value + "; Path=/; HttpOnly; SameSite=Lax; Max-Age=" + strconv.FormatInt(int64(life/time.Second), 10)
	if b.secure {
		text += "; Secure"
	}
	return text
}

// Clear is the value of the Set-Cookie header that makes the browser drop the cookie.
func (b Beside) Clear() string { return b.Set("", 0) }

func (c *Cookies) isSecure(https bool) bool {
	return c.secure == SecureAlways || c.secure == SecureAuto && https
}

func (c *Cookies) value(value, domain string, expires time.Time, maxAge int64, https bool) string {
	b := make([]byte, 0, 256)
	b = append(b, c.name...)
	b = append(b, '=')
	b = append(b, value...)
	b = append(b, "; Path=/"...)
	if domain != "" {
		b = append(b, "; Domain="...)
		b = append(b, domain...)
	}
	b = append(b, c.attributes...)
	b = append(b, "; Expires="...)
	b = expires.UTC().AppendFormat(b, "Mon, 02 Jan 2006 15:04:05 GMT")
	b = append(b, "; Max-Age="...)
	b = strconv.AppendInt(b, maxAge, 10)
	if c.isSecure(https) {
		b = append(b, "; Secure"...)
	}
	return string(b)
}
