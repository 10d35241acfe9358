package systemtest

import (
	"context"
	"database/sql"
	"encoding/hex"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"barong/internal/test/testkit"
)

// cacheTTL is BARONG_SESSION_CACHE_TTL of the tests about outages.
const cacheTTL = 2 * time.Second

// An outage is one way in which stores fail.
type outage struct {
	name         string
	fail, mend   func(t testing.TB, pg, vk *testkit.Server)
	redis        bool     // sessions live in Valkey, else in Postgres
	parts        []string // that readyz reports
	sessionsLost bool     // the store that kept them came back empty
	// sessions and keys: nothing tells any more whether a session or a key still holds, so that memory counts for the
	// TTL alone. Otherwise they can be read, and callers who are known go on.
	sessions, keys bool
	// noSuch: it can still be told that there is no session of some id.
	noSuch bool
}

var outages = []outage{
	{
		name: "Postgres alone hangs", parts: []string{"database"}, sessions: true, keys: true,
		fail: func(_ testing.TB, pg, _ *testkit.Server) { pg.Pause() }, mend: func(_ testing.TB, pg, _ *testkit.Server) { pg.Resume() },
	},
	{
		name: "Postgres alone is killed", parts: []string{"database"}, sessions: true, keys: true,
		fail: func(_ testing.TB, pg, _ *testkit.Server) { pg.Kill() }, mend: func(t testing.TB, pg, _ *testkit.Server) { pg.Start(t) },
	},
	{
		name: "Postgres hangs", redis: true, parts: []string{"database"}, sessions: true, keys: true, noSuch: true,
		fail: func(_ testing.TB, pg, _ *testkit.Server) { pg.Pause() }, mend: func(_ testing.TB, pg, _ *testkit.Server) { pg.Resume() },
	},
	{
		name: "Postgres is killed", redis: true, parts: []string{"database"}, sessions: true, keys: true, noSuch: true,
		fail: func(_ testing.TB, pg, _ *testkit.Server) { pg.Kill() }, mend: func(t testing.TB, pg, _ *testkit.Server) { pg.Start(t) },
	},
	{
		name: "Valkey hangs", redis: true, parts: []string{"redis"}, sessions: true,
		fail: func(_ testing.TB, _, vk *testkit.Server) { vk.Pause() }, mend: func(_ testing.TB, _, vk *testkit.Server) { vk.Resume() },
	},
	{
		name: "Valkey is killed", redis: true, parts: []string{"redis"}, sessions: true, sessionsLost: true,
		fail: func(_ testing.TB, _, vk *testkit.Server) { vk.Kill() }, mend: func(t testing.TB, _, vk *testkit.Server) { vk.Start(t) },
	},
	{
		name: "Valkey is stopped", redis: true, parts: []string{"redis"}, sessions: true, sessionsLost: true,
		fail: func(_ testing.TB, _, vk *testkit.Server) { vk.Stop() }, mend: func(t testing.TB, _, vk *testkit.Server) { vk.Start(t) },
	},
	{
		name: "both hang", redis: true, parts: []string{"redis", "database"}, sessions: true, keys: true,
		fail: func(_ testing.TB, pg, vk *testkit.Server) { vk.Pause(); pg.Pause() },
		mend: func(_ testing.TB, pg, vk *testkit.Server) { pg.Resume(); vk.Resume() },
	},
}

// While a store is away, what cannot be decided is refused as such: 503 and not 401, which would look like a logout, and
// never 2xx on memory that is too old. Once it is back all is well again, without a restart.
func TestOutages(t *testing.T) {
	t.Parallel()
	for _, o := range outages {
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			o.run(t)
		})
	}
}

// durable is the URL of a test's Postgres with commits that outlive a kill, as an operator's do.
func durable(url string) string { return url + "&options=-csynchronous_commit%3Don" }

func (o outage) run(t *testing.T) {
	pg := testkit.PostgresServer(t)
	env := []string{
		"BARONG_DATABASE_URL=" + durable(pg.URL), "BARONG_SECRET_KEY=" + secretKey, "BARONG_SESSION_CACHE_TTL=" + cacheTTL.String(),
	}
	var vk *testkit.Server
	if o.redis {
		vk = testkit.ValkeyServer(t)
		env = append(env, "BARONG_REDIS_URL="+vk.URL)
	}
	s := newServer(t, newVault(), env...)
	s.must("migrate", "up")
	s.must("seed")
	s.start()
	known, email, password := s.member()
	idle, _, _ := s.member() // has a session, but this process has seen neither it nor its user in a check
	owner, _, _ := s.member()
	bot, k := s.client(), owner.newKey(t, owner.enable2FA(t))
	stranger := s.client()
	stranger.cookie = "_barong_session=" + hex.EncodeToString(make([]byte, 32))
	stranger.check(account).wants(t, "a session that never was", 401, "authz.invalid_session")
	warm := func() bool {
		return known.check(account).status == 200 && bot.check(account, k.sign()...).status == 200
	}
	read := time.Now() // both are read now, or later
	testkit.Eventually(t, patience, warm)

	o.fail(t, pg, vk) // which may take seconds on a busy machine: nothing can be read from its beginning on
	failed := time.Now()
	early := func() bool { return time.Since(read) < cacheTTL/4 }
	inTime := early()
	mended := false
	defer func() {
		if !mended {
			o.mend(t, pg, vk) // for the tests that follow
		}
	}()
	// What is known goes on for the TTL, and then no more.
	var refusals []time.Duration
	refuse := func(what string, r reply) {
		t.Helper()
		if !r.code(503, "authz.unavailable") {
			t.Errorf("%s, %s after the store went away: got %s, want 503 authz.unavailable", what, time.Since(failed), r)
			return
		}
		refusals = append(refusals, r.took)
	}
	passed := 0
	for time.Since(failed) < 2*cacheTTL {
		for _, caller := range []struct {
			what   string
			unsure bool
			ask    func() reply
		}{
			{"a known session", o.sessions, func() reply { return known.check(account) }},
			{"a known key", o.keys, func() reply { return bot.check(account, k.sign()...) }},
		} {
			begun := time.Since(failed)
			switch r := caller.ask(); {
			case r.err != nil || r.status != 200 && r.status != 503:
				t.Fatalf("%s, %s after the store went away: got %s", caller.what, begun, r)
			case r.status == 503:
				refuse(caller.what, r)
				if !caller.unsure || early() {
					t.Fatalf("%s was refused %s after the store went away", caller.what, begun)
				}
			case caller.unsure && begun > cacheTTL:
				t.Fatalf("%s passed %s after the store went away, on memory that is too old", caller.what, begun)
			default:
				passed++
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	if passed == 0 && inTime {
		t.Error("no known caller passed during the outage")
	}
	for range 5 {
		if o.keys {
			refuse("a known key", bot.check(account, k.sign()...))
		}
		refuse("a session that is not in memory", idle.check(account))
		refuse("a known session", known.check(account))
		if o.noSuch {
			stranger.check(account).wants(t, "a session that never was, as Valkey knows", 401, "authz.invalid_session")
		} else {
			refuse("a session that never was", stranger.check(account))
		}
	}
	var calls sync.WaitGroup
	for what, call := range map[string]func() reply{
		"sign-in": func() reply { return s.client().signIn(email, password) },
		"sign-up": func() reply { return s.client().signUp("late@example.com", "Yw4-nEk9+0qZm") },
		"the API": func() reply { return idle.call("GET", "/resource/users/me", nil) },
	} {
		calls.Go(func() {
			if r := call(); !r.code(503, "authz.unavailable") {
				t.Errorf("%s: got %s", what, r)
			} else {
				t.Logf("%s was refused after %s", what, r.took.Round(time.Millisecond))
				if r.took > 15*time.Second { // it waits five seconds for the stores
					t.Errorf("%s was refused after %s", what, r.took)
				}
			}
		})
	}
	calls.Wait()
	if r := s.client().check("/api/v2/peatio/public/markets"); r.status != 200 {
		t.Errorf("a path that needs nobody: got %s", r)
	}
	status, parts := s.parts()
	if status != http.StatusServiceUnavailable {
		t.Errorf("readyz: got %d", status)
	}
	for _, part := range o.parts {
		if p := parts[part]; p.Status != "failed" || p.Reason == "" {
			t.Errorf("readyz says of %s: %+v", part, p)
		}
	}
	t.Logf("readyz: %+v", parts)
	if r := s.probe("/livez"); r.status != http.StatusOK {
		t.Errorf("livez: got %s", r)
	}

	mended = true
	o.mend(t, pg, vk)
	testkit.Eventually(t, patience, func() bool { return s.probe("/readyz").status == http.StatusOK })
	if o.sessionsLost {
		testkit.Eventually(t, patience, func() bool { return known.check(account).code(401, "authz.invalid_session") })
	} else {
		testkit.Eventually(t, patience, func() bool { return known.check(account).status == 200 })
		testkit.Eventually(t, patience, func() bool { return idle.check(account).status == 200 })
	}
	testkit.Eventually(t, patience, func() bool { return bot.check(account, k.sign()...).status == 200 })
	stranger.check(account).wants(t, "a session that never was", 401, "authz.invalid_session")
	fresh := s.client()
	fresh.signIn(email, password).wants(t, "sign-in after the outage", 201)
	fresh.check(account).wants(t, "the new session", 200)
	s.client().signUp("late@example.com", "Yw4-nEk9+0qZm").wants(t, "the sign-up that was refused before", 201)

	slices.Sort(refusals)
	if len(refusals) == 0 {
		t.Fatal("nothing was refused")
	}
	median, worst := refusals[len(refusals)/2], refusals[len(refusals)-1]
	t.Logf("%d refusals took %s in the middle and %s at most", len(refusals), median.Round(time.Millisecond), worst.Round(time.Millisecond))
	if median > time.Second || worst > 15*time.Second { // one that is late may be the machine's doing
		t.Errorf("refusals took %s in the middle and %s at most", median, worst)
	}
}

// A Redis that is a tenth of a second away slows down what asks it, and refuses nobody.
func TestDistantRedis(t *testing.T) {
	t.Parallel()
	relay := testkit.NewRelay(t, testkit.ValkeyServer(t).Addr)
	relay.Delay(100 * time.Millisecond)
	s := startServer(t, newVault(), "BARONG_REDIS_URL=redis://"+relay.Addr, "BARONG_APIKEY_REPLAY=shared")
	known, email, password := s.member()
	known.check(account).wants(t, "check", 200)
	again := s.client()
	again.signIn(email, password).wants(t, "sign-in", 201)
	again.check(account).wants(t, "first check of a session", 200)
	k := known.newKey(t, known.enable2FA(t))
	for range 3 {
		s.client().check(account, k.sign()...).wants(t, "API key", 200)
	}
	if r := s.probe("/metrics"); !strings.Contains(r.body, `barong_clock_ahead_seconds{store="redis"} 0`) {
		t.Errorf("metrics do not compare the clock with Redis's: %d", r.status)
	}
	known.call("DELETE", "/identity/sessions", nil).wants(t, "logout", 204)
	known.check(account).wants(t, "after the logout", 401, "authz.invalid_session")
	if r := s.probe("/readyz"); r.status != http.StatusOK {
		t.Errorf("readyz: got %s", r)
	}
}

// While another process holds the embedded database, checks go on; what must be written waits, and is refused as
// unavailable when it waits too long.
func TestLockedDatabase(t *testing.T) {
	t.Parallel()
	s := startServer(t, newVault(), "BARONG_SESSION_CACHE_TTL="+cacheTTL.String())
	known, email, password := s.member()
	idle := s.client()
	idle.signIn(email, password).wants(t, "sign-in", 201)
	known.check(account).wants(t, "check", 200)

	other, err := sql.Open("sqlite", "file:"+filepath.Join(s.dir, "data", "barong.db")+"?_txlock=immediate&_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	lock, err := other.BeginTx(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan reply, 1)
	late := s.client()
	go func() { answered <- late.signIn(email, password) }()
	var refused reply
	for waiting := true; waiting; {
		select {
		case refused = <-answered:
			waiting = false
		case <-time.After(200 * time.Millisecond):
			if r := known.check(account); r.status != 200 {
				t.Errorf("a known session: got %s", r)
			}
		}
	}
	if !refused.code(503, "authz.unavailable") {
		t.Errorf("sign-in: got %s", refused)
	}
	t.Logf("sign-in was refused after %s", refused.took.Round(time.Millisecond))
	if refused.took > 15*time.Second {
		t.Errorf("sign-in was refused after %s", refused.took)
	}
	idle.check(account).wants(t, "a session that is not in memory, which is only read", 200)
	if err := lock.Rollback(); err != nil {
		t.Fatal(err)
	}
	late.signIn(email, password).wants(t, "sign-in after the lock", 201)
	late.check(account).wants(t, "the new session", 200)
	if !strings.Contains(s.process.Output(), "call failed") {
		t.Error("the log does not tell of the call that failed")
	}
}
