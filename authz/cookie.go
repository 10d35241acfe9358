package authz

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"barong/internal/header"
	"barong/session"
)

// maxCookies bounds the cookies of one request. RFC 6265 section 6.1 asks for at least 50 per domain.
const maxCookies = 512

// findCookie looks for the cookie of that name in Cookie header lines (RFC 6265 section 4.2.1). ok is false when there
// are two of that name, or too many of any: which one counts would depend on who reads them.
func findCookie(lines [][]byte, name string) (value []byte, found, ok bool) {
	count := 0
	for _, line := range lines {
		for len(line) > 0 {
			pair := line
			if end := bytes.IndexByte(line, ';'); end >= 0 {
				pair, line = line[:end], line[end+1:]
			} else {
				line = nil
			}
			if count++; count > maxCookies {
				return nil, false, false
			}
			for len(pair) > 0 && (pair[0] == ' ' || pair[0] == '\t') {
				pair = pair[1:]
			}
			if len(pair) < len(name) || string(pair[:len(name)]) != name {
				continue
			}
			rest := pair[len(name):]
			for len(rest) > 0 && (rest[0] == ' ' || rest[0] == '\t') { // "name =value": the same cookie for some readers
				rest = rest[1:]
			}
			if len(rest) == 0 || rest[0] != '=' {
				continue
			}
			if found {
				return nil, false, false
			}
			value, found = header.TrimSpace(rest[1:]), true
		}
	}
	return value, found, true
}

// SessionID finds the session's id among Cookie header lines. sent is false when there is none, or what there is can be
// no id. ok is false when the lines hold two session cookies or too many of any, which is a malformed request.
func (c *Cookies) SessionID(lines ...[]byte) (id session.ID, sent, ok bool) {
	value, found, ok := findCookie(lines, c.name)
	if !ok || !found {
		return session.ID{}, false, ok
	}
	id, sent = session.ParseID(value)
	return id, sent, true
}

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
	secure     string
	attributes string // what does not change, from "; Path=/" on
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
	c := &Cookies{name: s.Name, attributes: "; Path=/"}
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
	if s.Domain != "" {
		c.attributes += "; Domain=" + s.Domain
	}
	c.attributes += "; HttpOnly"
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
	return c.value(id.String(), ends, max(0, int64(ends.Sub(now)/time.Second)), https)
}

// Clear is the value of the Set-Cookie header that makes the browser drop the cookie.
func (c *Cookies) Clear(https bool) string { return c.value("", time.Unix(0, 0), 0, https) }

func (c *Cookies) value(value string, expires time.Time, maxAge int64, https bool) string {
	b := make([]byte, 0, 256)
	b = append(b, c.name...)
	b = append(b, '=')
	b = append(b, value...)
	b = append(b, c.attributes...)
	b = append(b, "; Expires="...)
	b = expires.UTC().AppendFormat(b, "Mon, 02 Jan 2006 15:04:05 GMT")
	b = append(b, "; Max-Age="...)
	b = strconv.AppendInt(b, maxAge, 10)
	if c.secure == SecureAlways || c.secure == SecureAuto && https {
		b = append(b, "; Secure"...)
	}
	return string(b)
}
