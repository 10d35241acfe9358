package systemtest

import (
	"syscall"
	"testing"
	"time"

	"barong/internal/test/testkit"
	"barong/session"
	"barong/session/near"
)

// What somebody edits in the stores by hand is felt within a minute, and at once after a hangup; who is not edited keeps the
// token, and nobody is refused meanwhile.
func TestEditsByHand(t *testing.T) {
	t.Parallel()
	editsByHand(t, true)
}

// A test of its own, so that both wait for their minute while others still work: parts of a test begin last.
func TestEditsByHandInPostgresAlone(t *testing.T) {
	t.Parallel()
	editsByHand(t, false)
}

func editsByHand(t *testing.T, withValkey bool) {
	c := newCluster(t, withValkey, "BARONG_JWT_EXPIRE_TIME=3600")
	banned, ended, off, other := c.person(true), c.person(false), c.person(true), c.person(true)
	bannedAt, endedAt, otherAt := c.open(banned), c.open(ended), c.open(other)
	keyOf := func(p *person) *key { return &key{KID: p.kid, Secret: p.secret} }
	callers := []struct {
		what string
		code string // of the refusal after the edit; empty for none
		ask  func(s *server) reply
	}{
		{"session of somebody banned", "authz.user_not_active", func(s *server) reply { return bannedAt.at(s).check(account) }},
		{"key of somebody banned", "authz.invalid_session", func(s *server) reply { return s.client().check(account, keyOf(banned).sign()...) }},
		{"session that was deleted", "authz.invalid_session", func(s *server) reply { return endedAt.at(s).check(account) }},
		{"key that was switched off", "authz.apikey_not_active", func(s *server) reply { return s.client().check(account, keyOf(off).sign()...) }},
		{"session of somebody else", "", func(s *server) reply { return otherAt.at(s).check(account) }},
	}
	tokens := map[*server]string{}
	for _, s := range []*server{c.a, c.b} {
		for _, caller := range callers {
			tokens[s] = caller.ask(s).wants(t, caller.what, 200).header.Get("Authorization")
		}
	}
	for _, q := range []string{
		"UPDATE users SET state = 'banned' WHERE uid = '" + banned.UID + "'",
		"UPDATE apikeys SET state = 'inactive' WHERE kid = '" + off.kid + "'",
	} {
		if _, err := c.db.Bun().DB.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	id, ok := session.ParseID([]byte(endedAt.cookie[len("_barong_session="):]))
	if !ok {
		t.Fatal("no cookie")
	}
	if err := c.sessions.Delete(t.Context(), id.Key()); err != nil {
		t.Fatal(err)
	}
	edited := time.Now()
	felt := func(s *server) bool {
		all := true
		for _, caller := range callers {
			switch r := caller.ask(s); {
			case r.status == 200 && caller.code == "":
				if got := r.header.Get("Authorization"); got != tokens[s] {
					t.Fatal("another token was signed for who is what he was")
				}
			case r.status == 200:
				all = false
			case caller.code == "" || !r.code(401, caller.code):
				t.Fatalf("%s: got %s", caller.what, r)
			}
		}
		return all
	}
	if err := c.a.process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, patience, func() bool { return felt(c.a) })
	hangup := time.Since(edited)
	testkit.Eventually(t, 2*near.DefaultTrust, func() bool {
		time.Sleep(200 * time.Millisecond)
		return felt(c.b)
	})
	t.Logf("felt %s after a hangup, and after %s by itself", hangup.Round(time.Millisecond), time.Since(edited).Round(time.Second))
}
