package near

import (
	"net/netip"
	"time"

	"barong/session"
)

// csrfSize is the length of a CSRF token.
const csrfSize = 20

// A Session is what a check may ask of a session, in half of the memory of a session.Session: a replica keeps a million of
// them. Where it is kept has its key, and no check asks from which country it was opened. Times are as precise as in the
// stores, to the millisecond.
type Session struct {
	// What every check looks at comes first, so that it lies together in memory.
	Epoch     int64
	expires   int64 // Unix milliseconds, as all times here
	ends      int64
	UID       string // shares the memory of the user's
	UserAgent string
	ip        [16]byte
	ipBits    uint8 // 0 for an unknown address, 32 or 128
	Methods   session.Methods

	csrfLen  uint8
	csrf     [csrfSize]byte
	authTime int64
	created  int64
	seen     int64
}

// compact is what is kept of a session, whose texts it still shares. ok is false for one that cannot be: no version has
// made a CSRF token that long.
func compact(s *session.Session) (c Session, ok bool) {
	c = Session{
		Epoch: s.Epoch, UID: s.UID, UserAgent: s.UserAgent, Methods: s.Methods,
		expires: s.ExpiresAt.UnixMilli(), ends: s.EndsAt.UnixMilli(), authTime: s.AuthTime.UnixMilli(),
		created: s.CreatedAt.UnixMilli(), seen: s.SeenAt.UnixMilli(),
	}
	if ip := s.IP.Unmap(); ip.IsValid() {
		c.ip, c.ipBits = ip.As16(), uint8(ip.BitLen())
	}
	c.csrfLen = uint8(copy(c.csrf[:], s.CSRF))
	return c, len(s.CSRF) <= csrfSize
}

// IP is the client's address at sign-in, an IPv4 one as such; the zero Addr when it was unknown.
func (s *Session) IP() netip.Addr {
	switch s.ipBits {
	case 0:
		return netip.Addr{}
	case 32:
		return netip.AddrFrom4([4]byte(s.ip[12:]))
	}
	return netip.AddrFrom16(s.ip)
}

// CSRF is the session's CSRF token. It must only be read.
func (s *Session) CSRF() []byte { return s.csrf[:s.csrfLen] }

// AuthTime is when the user has proved last who they are.
func (s *Session) AuthTime() time.Time { return moment(s.authTime) }

// CreatedAt is when the session began.
func (s *Session) CreatedAt() time.Time { return moment(s.created) }

// SeenAt is when its sliding expiry was written back last.
func (s *Session) SeenAt() time.Time { return moment(s.seen) }

// ExpiresAt is its sliding expiry.
func (s *Session) ExpiresAt() time.Time { return moment(s.expires) }

// EndsAt is its absolute end.
func (s *Session) EndsAt() time.Time { return moment(s.ends) }

// Live is session.Session.Live.
func (s *Session) Live(now time.Time) bool { return s.liveAt(now.UnixMilli()) }

func (s *Session) liveAt(now int64) bool { return now < s.expires && now < s.ends }

func moment(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
