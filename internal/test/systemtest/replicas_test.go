package systemtest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"flag"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"barong/db"
	"barong/internal/crypto/password"
	"barong/internal/crypto/secret"
	"barong/internal/test/testkit"
	"barong/session"
	"barong/session/redisstore"
)

var edits = flag.Int("edits", 200, "how many edits TestReplicas makes; docs/operations.md has the figures of 1000")

// memberPassword is the password of everybody in a cluster.
const memberPassword = "Jw6-vTn2+QkRz"

// patientRedis are options of a Redis URL where a busy machine's slow answers are not what is tested.
const patientRedis = "?read_timeout=20s&write_timeout=20s&dial_timeout=20s&pool_timeout=20s"

// A cluster is replicas on the same stores, and a back door into those: it makes people and sessions faster than any
// replica would.
type cluster struct {
	t        *testing.T
	replicas []*server
	a, b     *server         // the first two
	pg, vk   *testkit.Server // vk may be nil
	db       *db.DB
	sessions session.Store
	digest   string
	vault    *vault
	admin    *client
	members  int
}

// A plan is what a cluster is made of.
type plan struct {
	replicas        int
	pg, vk          *testkit.Server // vk may be nil
	database, redis string          // URLs by which the replicas reach the stores; redis may be empty
	redisPast       string          // URL of the same Redis for the back door, past what stands in the way of the replicas
	program         string          // see server
	env             []string
	envOf           func(i int) []string // of one replica; may be nil
}

func newCluster(t *testing.T, withValkey bool, env ...string) *cluster {
	t.Helper()
	p := plan{replicas: 2, pg: testkit.PostgresServer(t), env: env}
	p.database = p.pg.URL
	if withValkey {
		p.vk = testkit.ValkeyServer(t)
		p.redis, p.redisPast = p.vk.URL, p.vk.URL
	}
	return p.build(t)
}

func (p plan) build(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, pg: p.pg, vk: p.vk, vault: newVault()}
	c.vault.keep("password", memberPassword)
	env := []string{
		"BARONG_DATABASE_URL=" + p.database, "BARONG_SECRET_KEY=" + secretKey,
		"BARONG_JWT_PRIVATE_KEY_PATH=" + filepath.Join(t.TempDir(), "keys") + "/",
	}
	if p.redis != "" {
		env = append(env, "BARONG_REDIS_URL="+p.redis)
	}
	env = append(env, p.env...)
	for i := range p.replicas {
		own := env
		if p.envOf != nil {
			own = append(slices.Clone(env), p.envOf(i)...)
		}
		s := newServer(t, c.vault, own...)
		s.program = p.program
		c.replicas = append(c.replicas, s)
	}
	c.a, c.b = c.replicas[0], c.replicas[1]
	c.a.must("keys", "generate")
	c.a.must("migrate", "up")
	c.a.must("seed")
	for _, s := range c.replicas {
		s.start()
	}

	box, err := secret.New(secret.Text(secretKey))
	if err != nil {
		t.Fatal(err)
	}
	if c.db, err = db.Open(t.Context(), db.Options{URL: p.pg.URL, Sealer: box}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.db.Close() })
	c.sessions = c.db.Sessions()
	if p.redis != "" {
		r, err := redisstore.Connect(p.redisPast + patientRedis)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		c.sessions = redisstore.New(r)
	}
	if c.digest, err = password.NewHasher(password.HasherOptions{}).Hash(t.Context(), memberPassword); err != nil {
		t.Fatal(err)
	}
	c.admin = c.a.admin()
	return c
}

// A person is an active member.
type person struct {
	*db.User
	authenticator
	kid, secret string // of an active API key, when the second factor is on
}

func (c *cluster) person(secondFactor bool) *person {
	c.t.Helper()
	c.members++
	p := &person{User: &db.User{
		Email: fmt.Sprintf("person%d@example.com", c.members), PasswordDigest: c.digest, Role: "member", State: "active",
		OTP: secondFactor, UID: fmt.Sprintf("ID%010X", c.members),
	}}
	p.authenticator = authenticator{secret: c.vault.keep("second factor", random32()), vault: c.vault}
	if secondFactor {
		b := make([]byte, 24)
		rand.Read(b)
		p.kid, p.secret = hex.EncodeToString(b[:8]), c.vault.keep("API key's secret", hex.EncodeToString(b[8:]))
	}
	err := c.db.Update(c.t.Context(), func(ctx context.Context, tx *db.Tx) error {
		if err := tx.InsertUser(ctx, p.User); err != nil || !secondFactor {
			return err
		}
		if err := tx.PutTOTPKey(ctx, p.ID, p.authenticator.secret); err != nil {
			return err
		}
		return tx.InsertAPIKey(ctx, &db.APIKey{UserID: p.ID, KID: p.kid, Algorithm: "HS256", State: "active", Secret: p.secret})
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return p
}

// random32 is a random secret in base32.
func random32() string { return strings.ToUpper(rand.Text()) + "234567" }

// epoch is the epoch that a session of a person must have.
func (c *cluster) epoch(p *person) int64 {
	now, err := c.db.UserByUID(c.t.Context(), p.UID)
	if err != nil {
		c.t.Fatal(err)
	}
	return now.Epoch()
}

// open opens a session of a person, at replica A.
func (c *cluster) open(p *person) *client {
	c.t.Helper()
	id, now := session.NewID(), time.Now().UTC().Truncate(time.Millisecond)
	cl := c.a.client()
	b := make([]byte, 10)
	rand.Read(b)
	cl.csrf = c.vault.keep("CSRF token", hex.EncodeToString(b))
	cl.cookie = "_barong_session=" + c.vault.keep("cookie", id.String())
	err := c.sessions.Create(c.t.Context(), &session.Session{
		Key: id.Key(), UID: p.UID, Epoch: c.epoch(p), CSRF: cl.csrf, IP: netip.MustParseAddr(cl.ip), UserAgent: browser,
		CreatedAt: now, SeenAt: now, ExpiresAt: now.Add(30 * time.Minute), EndsAt: now.Add(24 * time.Hour),
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return cl
}

// A change is one edit at a replica and how it shows at all.
type change struct {
	ask  func(at *server) reply
	edit func(at *server) reply
	done int    // status of the edit
	code string // of the refusal once the edit is felt; before it, who asks passes
}

// kinds are the kinds of edits, with their share of all.
var kinds = []struct {
	name  string
	share int
	make  func(c *cluster, n int) change
}{
	{"logout", 5, func(c *cluster, _ int) change {
		s := c.open(c.person(false))
		return change{
			ask:  func(at *server) reply { return s.at(at).check(account) },
			edit: func(at *server) reply { return s.at(at).call("DELETE", "/identity/sessions", nil) }, done: 204, code: "authz.invalid_session",
		}
	}},
	{"ban", 4, func(c *cluster, _ int) change {
		p := c.person(false)
		s := c.open(p)
		return change{
			ask: func(at *server) reply { return s.at(at).check(account) },
			edit: func(at *server) reply {
				return c.admin.at(at).call("PUT", "/admin/users", params{"uid": p.UID, "state": "banned"})
			},
			done: 200, code: "authz.invalid_session",
		}
	}},
	{"role", 4, func(c *cluster, _ int) change {
		p := c.person(false)
		s := c.open(p)
		return change{
			ask: func(at *server) reply { return s.at(at).check(account) },
			edit: func(at *server) reply {
				return c.admin.at(at).call("POST", "/admin/users/role", params{"uid": p.UID, "role": "trader"})
			},
			done: 201, code: "authz.invalid_session",
		}
	}},
	{"password", 1, func(c *cluster, n int) change {
		p := c.person(false)
		s, other := c.open(p), c.open(p)
		next := c.vault.keep("password", fmt.Sprintf("Hq5+rMx9-%dWcTf", n))
		return change{
			ask: func(at *server) reply { return other.at(at).check(account) },
			edit: func(at *server) reply {
				return s.at(at).call("PUT", "/resource/users/password",
					params{"old_password": memberPassword, "new_password": next, "confirm_password": next})
			},
			done: 201, code: "authz.invalid_session",
		}
	}},
	{"second factor on", 3, func(c *cluster, _ int) change {
		p := c.person(false)
		err := c.db.Update(c.t.Context(), func(ctx context.Context, tx *db.Tx) error {
			return tx.PutTOTPKey(ctx, p.ID, p.authenticator.secret)
		})
		if err != nil {
			c.t.Fatal(err)
		}
		s, other := c.open(p), c.open(p)
		return change{
			ask: func(at *server) reply { return other.at(at).check(account) },
			edit: func(at *server) reply {
				return s.at(at).call("POST", "/resource/otp/enable", params{"code": p.code(c.t)})
			},
			done: 201, code: "authz.invalid_session",
		}
	}},
	{"API key deleted", 3, func(c *cluster, _ int) change {
		p := c.person(true)
		s, k := c.open(p), &key{KID: p.kid, Secret: p.secret}
		return change{
			ask: func(at *server) reply { return at.client().check(account, k.sign()...) },
			edit: func(at *server) reply {
				return s.at(at).call("DELETE", "/resource/api_keys/"+p.kid+"?totp_code="+p.code(c.t), nil)
			},
			done: 204, code: "authz.unexistent_apikey",
		}
	}},
	{"API key switched off", 3, func(c *cluster, _ int) change {
		p := c.person(true)
		s, k := c.open(p), &key{KID: p.kid, Secret: p.secret}
		return change{
			ask: func(at *server) reply { return at.client().check(account, k.sign()...) },
			edit: func(at *server) reply {
				return s.at(at).call("PATCH", "/resource/api_keys/"+p.kid, params{"state": "inactive", "totp_code": p.code(c.t)})
			},
			done: 200, code: "authz.apikey_not_active",
		}
	}},
	{"permission", 4, func(c *cluster, n int) change {
		s := c.open(c.person(false))
		path := fmt.Sprintf("api/v2/peatio/account/p%06d", n)
		return change{
			ask: func(at *server) reply { return s.at(at).check("/" + path) },
			edit: func(at *server) reply {
				return c.admin.at(at).call("POST", "/admin/permissions", params{"role": "member", "verb": "all", "path": path, "action": "drop"})
			},
			done: 201, code: "authz.invalid_permission",
		}
	}},
	{"restriction", 3, func(c *cluster, n int) change {
		s := c.a.client()
		s.ip = fmt.Sprintf("198.18.%d.%d", n>>8&0xff, n&0xff)
		return change{
			ask: func(at *server) reply { return s.at(at).check("/api/v2/peatio/public/markets") },
			edit: func(at *server) reply {
				return c.admin.at(at).call("POST", "/admin/restrictions",
					params{"scope": "ip", "value": s.ip, "category": "blacklist", "code": 401})
			},
			done: 201, code: "authz.restrict.blacklist",
		}
	}},
}

// Whatever is changed at one replica is felt at the other, within moments.
func TestReplicas(t *testing.T) {
	t.Parallel()
	for _, withValkey := range []bool{true, false} {
		name := "Postgres alone"
		if withValkey {
			name = "Postgres and Valkey"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, withValkey)
			shares := 0
			for _, k := range kinds {
				shares += k.share
			}
			var all []time.Duration
			n := 0
			for _, k := range kinds {
				var felt []time.Duration
				for range max(1, *edits*k.share/shares) {
					felt = append(felt, c.feel(k.name, func() change {
						n++
						return k.make(c, n)
					}))
				}
				all = append(all, felt...)
				t.Logf("%s: %-22s %4d edits: %s", name, k.name, len(felt), spread(felt))
			}
			t.Logf("%s: %-22s %4d edits: %s", name, "all", len(all), spread(all))
			// Without the bus each would take as long as memory is trusted. One that is late may be the machine's doing.
			if median := all[len(all)/2]; median > 2*time.Second {
				t.Errorf("every other edit takes longer than %s", median)
			}
		})
	}
}

// spread sorts durations and describes them.
func spread(d []time.Duration) string {
	slices.Sort(d)
	return fmt.Sprintf("median %s, 99%% %s, max %s", d[len(d)/2].Round(10*time.Microsecond),
		d[len(d)*99/100].Round(10*time.Microsecond), d[len(d)-1].Round(10*time.Microsecond))
}

// feel makes a change and tells how long after the answer it was felt. Where the machine is so busy that something cannot be
// decided in time (503), a check neither passes nor is the change felt, so it is asked again; and of an edit it is not
// known whether it was made, so another is.
func (c *cluster) feel(what string, makeChange func() change) time.Duration {
	c.t.Helper()
	began := time.Now()
	var ch change
	ask := func() (r reply, asked time.Time) {
		for {
			asked = time.Now()
			if r = ch.ask(c.b); r.status != 503 || time.Since(began) > patience {
				return r, asked
			}
		}
	}
	for edited := false; !edited; {
		ch = makeChange()
		for range 2 {
			r, _ := ask()
			r.wants(c.t, what+": before the edit", 200)
		}
		r := ch.edit(c.a)
		if edited = r.status != 503 || time.Since(began) > patience; edited {
			r.wants(c.t, what, ch.done)
		}
	}
	answered := time.Now()
	for {
		time.Sleep(2 * time.Millisecond) // nonces count on from the clock: asked without a pause they get ahead of it
		switch r, asked := ask(); {
		case r.code(401, ch.code):
			r, _ = ask()
			r.wants(c.t, what+": once more", 401, ch.code)
			return asked.Sub(answered)
		case r.status != 200:
			c.t.Fatalf("%s: got %s, want 401 %s", what, r, ch.code)
		case time.Since(answered) > patience:
			c.t.Fatalf("%s is not felt after %s", what, time.Since(answered))
		}
	}
}

// When the bus is cut off again and again, an edit is still felt within BARONG_SESSION_CACHE_TTL.
func TestBrokenBus(t *testing.T) {
	t.Parallel()
	for _, withValkey := range []bool{true, false} {
		name := "Postgres alone"
		if withValkey {
			name = "Postgres and Valkey"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, withValkey, "BARONG_SESSION_CACHE_TTL="+cacheTTL.String())
			cut := c.cutBus(withValkey)
			stop := make(chan struct{})
			var cutter sync.WaitGroup
			cutter.Go(func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(15 * time.Millisecond):
						if err := cut(); err != nil {
							t.Error(err)
							return
						}
					}
				}
			})
			var felt []time.Duration
			for n := range 3 {
				for i, k := range kinds {
					if k.name != "permission" && k.name != "restriction" { // these have another net: the rules are asked for every 5 s
						felt = append(felt, c.feel(k.name, func() change { return k.make(c, n*len(kinds)+i) }))
					}
				}
			}
			close(stop)
			cutter.Wait()
			t.Log(spread(felt))
			if median := felt[len(felt)/2]; median > cacheTTL+time.Second { // one that is late may be the machine's doing
				t.Errorf("every other edit was felt after %s", median)
			}
		})
	}
}

// cutBus returns a function that breaks the connections by which replicas hear of each other.
func (c *cluster) cutBus(withValkey bool) func() error {
	if withValkey {
		o, err := redis.ParseURL(c.vk.URL)
		if err != nil {
			c.t.Fatal(err)
		}
		r := redis.NewClient(o)
		c.t.Cleanup(func() { r.Close() })
		return func() error { return r.Do(context.Background(), "CLIENT", "KILL", "TYPE", "PUBSUB").Err() }
	}
	conn, err := pgx.Connect(c.t.Context(), c.pg.URL)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { conn.Close(context.Background()) })
	return func() error {
		_, err := conn.Exec(context.Background(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ILIKE 'LISTEN%'")
		return err
	}
}

// olderValkey has Valkey come back with what it held before sessions were ended: none of them passes again, and those that
// were not ended do. Then its memory is full: whoever is signed in can still leave.
func (c *cluster) olderValkey() {
	t, ctx := c.t, c.t.Context()
	o, err := redis.ParseURL(c.vk.URL + patientRedis)
	if err != nil {
		t.Fatal(err)
	}
	vk := redis.NewClient(o)
	defer vk.Close()
	snapshot := map[string]string{}
	take := func() {
		keys, err := vk.Keys(ctx, "barong:session*").Result()
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			if snapshot[k], err = vk.Dump(ctx, k).Result(); err != nil {
				t.Fatal(err)
			}
		}
	}
	restore := func() {
		for k, v := range snapshot {
			if err := vk.RestoreReplace(ctx, k, 0, v).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	p, other := c.person(false), c.person(false)
	out, ended, replaced, stays, others := c.open(p), c.open(p), c.open(p), c.open(p), c.open(other)
	id := session.ID{}
	if b, err := hex.DecodeString(strings.TrimPrefix(ended.cookie, "_barong_session=")); err == nil {
		copy(id[:], b)
	}
	cookie := replaced.cookie
	take()
	out.call("DELETE", "/identity/sessions", nil).wants(t, "logout", 204)
	stays.call("DELETE", "/resource/sessions/"+id.Key().String(), nil).wants(t, "end of another session", 204)
	replaced.signIn(p.Email, memberPassword).wants(t, "sign-in over an old session", 201)
	old := *replaced
	old.cookie = cookie
	restore()
	for _, s := range []*server{c.a, c.b} {
		for what, one := range map[string]*client{"signed out": out, "ended": ended, "replaced": &old} {
			one.at(s).check(account).wants(t, "a session that was "+what, 401, "authz.invalid_session")
		}
		stays.at(s).check(account).wants(t, "a session that was not ended", 200)
		others.at(s).check(account).wants(t, "another's session", 200)
	}

	take()
	c.admin.call("POST", "/admin/restrictions", params{"scope": "ip", "value": "198.51.100.254", "category": "blocklogin"}).
		wants(t, "the end of all sessions", 201)
	restore()
	for _, s := range []*server{c.a, c.b} {
		for what, one := range map[string]*client{"a member's session": stays, "the admin's session": c.admin} {
			one.at(s).ends(t, what)
		}
	}
	c.admin = c.a.admin()

	last := c.open(c.person(false))
	if err := vk.ConfigSet(ctx, "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	last.at(c.b).check(account).wants(t, "a session while Valkey has no memory", 200)
	last.call("DELETE", "/identity/sessions", nil).wants(t, "logout while Valkey has no memory", 204)
	last.at(c.b).ends(t, "the session that was signed out")
	if err := vk.ConfigSet(ctx, "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
}

// While Valkey hangs, what was changed in the meantime is not passed for longer than the cache's lifetime; and once it
// answers again, not a single time.
func TestChangeDuringOutage(t *testing.T) {
	t.Parallel()
	c := newCluster(t, true, "BARONG_SESSION_CACHE_TTL="+cacheTTL.String())
	c.olderValkey()
	type subject struct {
		p  *person
		at *client
		k  *key
	}
	var subjects []subject
	for range 3 {
		p := c.person(true)
		s := subject{p, c.open(p).at(c.b), &key{KID: p.kid, Secret: p.secret}}
		s.at.check(account).wants(t, "before", 200)
		c.b.client().check(account, s.k.sign()...).wants(t, "before", 200)
		subjects = append(subjects, s)
	}
	c.admin.call("GET", "/admin/levels", nil).wants(t, "the admin", 200)
	c.vk.Pause()
	began := time.Now()
	banned := 0
	for _, s := range subjects {
		if r := c.admin.call("PUT", "/admin/users", params{"uid": s.p.UID, "state": "banned"}); r.status == 200 {
			banned++
		} else if r.status != 503 {
			t.Errorf("a ban while Valkey hangs: got %s", r)
		}
	}
	answered := time.Now()
	t.Logf("%d of %d bans were answered within %s", banned, len(subjects), answered.Sub(began))
	if banned == 0 {
		t.Fatal("no ban was possible, so nothing is tested")
	}
	state := func(s subject) string {
		u, err := c.db.UserByUID(t.Context(), s.p.UID)
		if err != nil {
			t.Fatal(err)
		}
		return u.State
	}
	for time.Since(answered) < 2*cacheTTL {
		for _, s := range subjects {
			begun := time.Now()
			for what, r := range map[string]reply{"session": s.at.check(account), "key": c.b.client().check(account, s.k.sign()...)} {
				if r.status == 200 && begun.Sub(answered) > cacheTTL && state(s) == "banned" {
					t.Fatalf("the %s of somebody banned passed after %s", what, begun.Sub(answered))
				}
				if r.status != 200 && r.status != 503 && (what == "session" || r.status != 401) {
					t.Fatalf("the %s of somebody banned: got %s", what, r)
				}
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	c.vk.Resume()
	for _, s := range subjects {
		if state(s) != "banned" {
			continue
		}
		testkit.Eventually(t, patience, func() bool {
			r := s.at.check(account)
			if r.status == 200 {
				t.Fatalf("a session of somebody banned passed")
			}
			return r.status == 401
		})
	}
	testkit.Eventually(t, patience, func() bool { return c.admin.call("GET", "/admin/levels", nil).status == 200 })
	c.readOnly()
}

// readOnly has Postgres take no writes, as a standby or one whose disk is full: what must be written is refused as an
// outage, and people can still leave.
func (c *cluster) readOnly() {
	t := c.t
	p := c.person(true)
	s, leaver, plain := c.open(p), c.open(p), c.person(false)
	label := params{"key": "colour", "value": "blue"}
	set := func(how string) {
		conn, err := pgx.Connect(t.Context(), c.pg.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		for _, statement := range []string{
			"SET default_transaction_read_only = off", "ALTER SYSTEM SET default_transaction_read_only = " + how,
			"SELECT pg_reload_conf()",
		} {
			if _, err := conn.Exec(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
		}
	}
	set("on")
	testkit.Eventually(t, patience, func() bool { return s.call("POST", "/resource/labels", label).code(503, "authz.unavailable") })
	for what, r := range map[string]reply{
		"sign-in":         c.a.client().signIn(plain.Email, memberPassword),
		"API keys":        s.call("POST", "/resource/api_keys", params{"algorithm": "HS256", "totp_code": p.code(t)}),
		"a second factor": s.call("POST", "/resource/otp/disable", params{"code": p.code(t)}),
	} {
		if !r.code(503, "authz.unavailable") {
			t.Errorf("%s while Postgres is read-only: got %s", what, r)
		}
	}
	s.check(account).wants(t, "a session while Postgres is read-only", 200)
	leaver.call("DELETE", "/identity/sessions", nil).wants(t, "logout while Postgres is read-only", 204)
	leaver.at(c.b).ends(t, "the session that was signed out")
	set("off")
	label["key"] = "shade" // the first may have been stored before Postgres heard of the setting
	testkit.Eventually(t, patience, func() bool { return s.call("POST", "/resource/labels", label).status == 201 })
}
