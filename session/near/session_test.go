package near

import (
	"net/netip"
	"strings"
	"testing"
	"time"
	"unsafe"

	"pgregory.net/rapid"

	"barong/session"
)

// What is kept of a session says the same as the session.
func TestCompact(t *testing.T) {
	at := rapid.Map(rapid.Int64Range(0, 1<<45), func(ms int64) time.Time { return time.UnixMilli(ms).UTC() })
	ip := rapid.SampledFrom([]netip.Addr{
		{},
		netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("::ffff:203.0.113.7"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("::"),
		netip.MustParseAddr("0.0.0.0"),
	})
	rapid.Check(t, func(t *rapid.T) {
		s := session.Session{
			Epoch: rapid.Int64().Draw(t, "epoch"), UID: rapid.String().Draw(t, "uid"), UserAgent: rapid.String().Draw(t, "agent"),
			IP: ip.Draw(t, "ip"), CSRF: rapid.StringMatching(`[0-9a-f]{0,20}`).Draw(t, "csrf"),
			Methods: session.Methods(rapid.Uint8().Draw(t, "methods")), AuthTime: at.Draw(t, "auth"), CreatedAt: at.Draw(t, "created"),
			SeenAt: at.Draw(t, "seen"), ExpiresAt: at.Draw(t, "expires"), EndsAt: at.Draw(t, "ends"),
		}
		if rapid.Bool().Draw(t, "no time") {
			s.AuthTime = time.Time{}
		}
		c, ok := compact(&s)
		if !ok || c.Epoch != s.Epoch || c.UID != s.UID || c.UserAgent != s.UserAgent || c.IP() != s.IP.Unmap() || string(c.CSRF()) != s.CSRF ||
			c.Methods != s.Methods || !c.AuthTime().Equal(s.AuthTime) || !c.CreatedAt().Equal(s.CreatedAt) || !c.SeenAt().Equal(s.SeenAt) ||
			!c.ExpiresAt().Equal(s.ExpiresAt) || !c.EndsAt().Equal(s.EndsAt) {
			t.Errorf("%+v is kept as %+v, %v", s, c, ok)
		}
		now := at.Draw(t, "now")
		if c.Live(now) != s.Live(now) {
			t.Errorf("live %v, want %v", c.Live(now), s.Live(now))
		}
	})
	if _, ok := compact(&session.Session{CSRF: strings.Repeat("0", csrfSize+1)}); ok {
		t.Error("half of a CSRF token is kept")
	}
}

// A session that cannot be kept is refused, not shown in part.
func TestTooLongToBeKept(t *testing.T) {
	b := newBackend()
	key := b.open(1)
	c := b.cache(t, nil)
	b.want(t, c, key, nil)
	b.setSession(key, func(s *session.Session) { s.CSRF += "0" })
	b.want(t, c, key, nil) // nobody has told
	c.ForgetSession(key)
	b.want(t, c, key, errTooLong)
}

// What is remembered pins no memory of what a store has read: its texts may be parts of a whole record.
func TestTextsOfRecordsAreNotPinned(t *testing.T) {
	b := newBackend()
	key := b.open(1)
	c := b.cache(t, nil)
	record := strings.Repeat("x", 1<<10) + "ID0000000001"
	b.setSession(key, func(s *session.Session) { s.UID = record[1<<10:] })
	f := b.want(t, c, key, nil)
	for n := range c.users.parts[c.users.hash("ID0000000001")%parts].nodes.all {
		if !sameMemory(n.key, f.Principal.UID) || !sameMemory(f.Session.UID, f.Principal.UID) {
			t.Error("the id of a user is kept more than once")
		}
		if sameMemory(n.key, record[1<<10:]) {
			t.Error("the record is kept")
		}
	}
}

func sameMemory(a, b string) bool { return unsafe.StringData(a) == unsafe.StringData(b) }
