package systemtest

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"barong/db"
	"barong/internal/test/testkit"
	"barong/session"
)

var drilling = flag.Bool("drill", false, "make every drill, and print what came of them as a table; without it TestDrills makes the short ones")

// A world is three replicas on stores that a drill may hurt. Relays stand before the stores.
type world struct {
	*cluster
	toPG, toVK *testkit.Relay // the second is nil where Valkey is more than one server
	disk       *testkit.Disk  // of Postgres; nil but for make drill, which has a C compiler
	valkeys    []*testkit.Server
	sentinels  []*testkit.Server
	clock      *testkit.WallClock // of the last replica; nil for the machine's
	made       int                // edits so far
	audit      func()
}

// A drill is something that fails, under load.
type drill struct {
	name  string
	short bool  // make test makes it, too
	hits  []int // replicas that it stops or hurts themselves
	lossy bool  // a sign-in may be lost in it: Redis comes back without the last writes, or empty
	// steady: the replicas that it does not hurt themselves refuse nobody as undecidable. make drill alone holds it to that, and
	// must, on a machine that is not too busy with other things.
	steady bool
	must   []string // kinds of edits that are answered whatever it fails, but at replicas that it hurts
	// excuses are codes that the hit replicas may answer meanwhile: what is signed for a moment is not good by another clock.
	excuses []string
	every   time.Duration                       // between edits; 0 is 120 ms
	hurt    func(t *testing.T, w *world) string // fails something, waits, mends it, and returns a remark for the table
}

func (d *drill) editEvery() time.Duration {
	if d.every > 0 {
		return d.every
	}
	return 120 * time.Millisecond
}

// drillEnv are the settings of replicas in drills.
var drillEnv = []string{
	"BARONG_SESSION_CACHE_TTL=" + cacheTTL.String(), "BARONG_DRAIN_TIME=1s", "BARONG_LOG_LEVEL=info",
	"BARONG_TRUSTED_PROXIES=127.0.0.1/32", // so that 127.0.0.2 is a stranger
	"BARONG_JWT_ALGORITHM=RS256",          // whose signatures are the dearest, so that a token thrown away shows
}

// ordinary is a world of one Postgres and one Valkey.
func ordinary(t *testing.T) *world {
	var pg *testkit.Server
	var disk *testkit.Disk
	if *drilling {
		pg, disk = testkit.PostgresOnDisk(t)
	} else {
		pg = testkit.PostgresServer(t)
	}
	vk := testkit.ValkeyServer(t)
	w := &world{toPG: testkit.NewRelay(t, pg.Addr), toVK: testkit.NewRelay(t, vk.Addr), valkeys: []*testkit.Server{vk}, disk: disk}
	w.cluster = plan{
		replicas: 3, pg: pg, vk: vk, env: drillEnv,
		database: strings.Replace(durable(pg.URL), pg.Addr, w.toPG.Addr, 1), redis: "redis://" + w.toVK.Addr, redisPast: vk.URL,
	}.build(t)
	return w
}

// guarded is a world of a Valkey with two replicas under three sentinels.
func guarded(t *testing.T) *world {
	pg := testkit.PostgresServer(t)
	url, nodes, sentinels := testkit.ValkeySentinels(t, 2, 3)
	w := &world{valkeys: nodes, sentinels: sentinels}
	w.cluster = plan{replicas: 3, pg: pg, env: drillEnv, database: durable(pg.URL), redis: url, redisPast: url}.build(t)
	return w
}

// sharded is a world of a Valkey Cluster of six nodes.
func sharded(t *testing.T) *world {
	pg := testkit.PostgresServer(t)
	url, nodes := testkit.ValkeyCluster(t, 3, 1, "--cluster-node-timeout", "1000", "--cluster-replica-validity-factor", "0")
	w := &world{valkeys: nodes}
	w.cluster = plan{replicas: 3, pg: pg, env: drillEnv, database: durable(pg.URL), redis: url, redisPast: url}.build(t)
	return w
}

// clocked is a world in which the last replica has a wall clock of its own.
func clocked(t *testing.T) *world {
	pg, vk := testkit.PostgresServer(t), testkit.ValkeyServer(t)
	w := &world{valkeys: []*testkit.Server{vk}, clock: testkit.NewWallClock(t), toPG: testkit.NewRelay(t, pg.Addr)}
	w.cluster = plan{
		replicas: 3, pg: pg, vk: vk, env: drillEnv, program: testkit.ClockedBarong(t),
		database: strings.Replace(durable(pg.URL), pg.Addr, w.toPG.Addr, 1), redis: vk.URL, redisPast: vk.URL,
		envOf: func(i int) []string {
			if i == 2 {
				return []string{w.clock.Env()}
			}
			return nil
		},
	}.build(t)
	return w
}

// pause fails and mends something with some seconds between.
func pause(fail, mend func(t *testing.T, w *world)) func(*testing.T, *world) string {
	return func(t *testing.T, w *world) string {
		time.Sleep(500 * time.Millisecond)
		fail(t, w)
		mended := false
		defer func() {
			if !mended {
				mend(t, w) // for the drills that follow
			}
		}()
		time.Sleep(hurtTime())
		mended = true
		mend(t, w)
		return ""
	}
}

// hurtTime is how long something stays broken: past what memory is trusted for.
func hurtTime() time.Duration {
	if *drilling {
		return trustOfMemory + time.Second
	}
	return cacheTTL
}

// exec runs statements in the database, past the relay.
func (w *world) exec(t *testing.T, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), w.pg.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, s := range statements {
		if _, err := conn.Exec(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
}

// readOnlyPostgres has Postgres take no writes, or take them again.
func (w *world) readOnlyPostgres(t *testing.T, how string) {
	t.Helper()
	w.exec(t, "SET transaction_read_only = off", "ALTER SYSTEM SET default_transaction_read_only = "+how, "SELECT pg_reload_conf()")
}

// valkey sends a command to the first Valkey, past the relay.
func (w *world) valkey(t *testing.T, args ...any) {
	t.Helper()
	if err := w.valkeys[0].Client(t).Do(t.Context(), args...).Err(); err != nil {
		t.Fatal(err)
	}
}

// parallel runs f n times at a time for d, again and again, and returns how often it ran.
func parallel(n int, d time.Duration, f func()) int64 {
	var all sync.WaitGroup
	var count atomic.Int64
	for end := time.Now().Add(d); n > 0; n-- {
		all.Go(func() {
			for time.Now().Before(end) {
				f()
				count.Add(1)
			}
		})
	}
	all.Wait()
	return count.Load()
}

// drillTables are the worlds with their drills.
var drillTables = []struct {
	name   string
	make   func(t *testing.T) *world
	drills []drill
}{
	{"Postgres and Valkey", ordinary, []drill{
		{name: "nothing fails", steady: true, must: allKinds(), hurt: pause(func(*testing.T, *world) {}, func(*testing.T, *world) {})},
		{name: "a replica is killed (-9)", short: true, hits: []int{2}, steady: true, must: allKinds(), hurt: killBusy},
		{name: "a replica is killed (-9), then Valkey hangs", hits: []int{2}, hurt: killThenHang},
		{name: "a replica hangs", hits: []int{2}, steady: true, hurt: pause(
			func(_ *testing.T, w *world) { w.replicas[2].process.Pause() }, func(_ *testing.T, w *world) { w.replicas[2].process.Resume() },
		)},
		{name: "replicas restart in turn, behind a real Envoy", hits: []int{0, 1, 2}, hurt: func(t *testing.T, w *world) string {
			return w.behindEnvoy(t, func() { w.restartInTurn() }, nil)
		}},
		{name: "Postgres hangs", short: true, hurt: hangPostgres},
		{name: "Postgres is killed (-9)", hurt: pause(
			func(_ *testing.T, w *world) { w.pg.Kill() }, func(t *testing.T, w *world) { w.pg.Start(t) },
		)},
		{name: "Postgres takes no writes", steady: true, must: []string{"logout"}, hurt: pause(
			func(t *testing.T, w *world) { w.readOnlyPostgres(t, "on") }, func(t *testing.T, w *world) { w.readOnlyPostgres(t, "off") },
		)},
		{name: "Postgres's disk is full", steady: true, must: []string{"logout"}, hurt: fillDisk},
		{name: "Postgres's disk is full, and its log as well", hurt: fillLog},
		{name: "Postgres has no connection left", hurt: takeConnections},
		{name: "Postgres is 100 ms away", steady: true, must: allKinds(), hurt: pause(
			func(_ *testing.T, w *world) { w.toPG.Delay(100 * time.Millisecond) }, func(_ *testing.T, w *world) { w.toPG.Delay(0) },
		)},
		{name: "connections to Postgres are cut, ten times", hurt: cutting(func(w *world) { w.toPG.Cut() })},
		{name: "Valkey hangs", short: true, hurt: pause(
			func(_ *testing.T, w *world) { w.vk.Pause() }, func(_ *testing.T, w *world) { w.vk.Resume() },
		)},
		{name: "Valkey is 100 ms away", steady: true, must: allKinds(), hurt: pause(
			func(_ *testing.T, w *world) { w.toVK.Delay(100 * time.Millisecond) }, func(_ *testing.T, w *world) { w.toVK.Delay(0) },
		)},
		{name: "Valkey is out of memory", steady: true, must: []string{"logout", "ban", "role"}, hurt: pause(
			func(t *testing.T, w *world) { w.valkey(t, "CONFIG", "SET", "maxmemory", "1") },
			func(t *testing.T, w *world) { w.valkey(t, "CONFIG", "SET", "maxmemory", "0") },
		)},
		{name: "Valkey takes no writes", lossy: true, steady: true, must: []string{"logout"}, hurt: pause(
			func(t *testing.T, w *world) {
				w.valkey(t, "CONFIG", "SET", "replica-serve-stale-data", "yes")
				w.valkey(t, "REPLICAOF", "127.0.0.1", strconv.Itoa(testkit.FreePort(t)))
			},
			func(t *testing.T, w *world) { w.valkey(t, "REPLICAOF", "NO", "ONE") },
		)},
		{name: "Valkey takes no more clients", hurt: fewClients},
		{name: "connections to Valkey are cut, ten times", short: true, hurt: cutting(func(w *world) { w.toVK.Cut() })},
		{name: "notices are lost, commands are not", steady: true, must: allKinds(), hurt: loseNotices},
		{name: "subscriptions are accepted and stay silent", steady: true, must: allKinds(), hurt: silentSubscriptions},
		{name: "both stores hang", hurt: pause(
			func(_ *testing.T, w *world) { w.vk.Pause(); w.pg.Pause() }, func(_ *testing.T, w *world) { w.pg.Resume(); w.vk.Resume() },
		)},
		{name: "Valkey comes back with an older snapshot", lossy: true, hurt: olderSnapshot},
		{name: "Valkey is killed and comes back empty", lossy: true, hurt: pause(
			func(_ *testing.T, w *world) { w.vk.Kill() }, func(t *testing.T, w *world) { w.vk.Start(t) },
		)},
		{name: "signing keys are rotated, five times", steady: true, must: allKinds(), hurt: rotateSigningKeys},
		{name: "the secret key is rotated", hits: []int{0, 1, 2}, hurt: rotateSecretKey},
		{name: "more checks than it can answer", steady: true, must: allKinds(), hurt: overload},
		{name: "1,000 clients send a byte a second", steady: true, must: allKinds(), hurt: slowClients},
		{name: "bodies of 20 MB", steady: true, must: allKinds(), hurt: largeBodies},
		{name: "more connections than it takes", steady: true, must: allKinds(), hurt: manyConnections},
		{name: "a storm of sign-ins", steady: true, must: allKinds(), hurt: signInStorm},
		{name: "a storm of wrong passwords", steady: true, must: allKinds(), hurt: guessingStorm},
		{name: "edits among 10,000 rules", steady: true, must: allKinds(), hurt: manyRules}, // which stay: it is the last
	}},
	{"Valkey under Sentinel", guarded, []drill{
		{name: "Sentinel: the primary is killed (-9)", lossy: true, hurt: killGuarded},
		{name: "Sentinel: the primary hangs and comes back", lossy: true, hurt: hangGuarded},
		{name: "Sentinel: the primary is cut off, takes writes and dies", lossy: true, hurt: cutOffGuarded},
	}},
	{"a Valkey Cluster of six", sharded, []drill{
		{name: "Cluster: a primary is killed (-9)", lossy: true, hurt: killSharded},
		{name: "Cluster: slots move", steady: true, hurt: moveSlots},
	}},
	{"a replica with a clock of its own", clocked, []drill{
		{name: "a replica's clock is a minute ahead", hits: []int{2}, steady: true, excuses: byAnotherClock, hurt: clockAhead(time.Minute)},
		{name: "a replica's clock steps back an hour, and Postgres hangs", hits: []int{2}, excuses: byAnotherClock, hurt: clockBack},
	}},
}

// allKinds are the names of all kinds of edits.
func allKinds() (names []string) {
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return names
}

var byAnotherClock = []string{"authz.nonce_expired", "jwt.decode_and_verify", "resource.otp.invalid", "resource.api_key.invalid_totp"}

// TestDrills breaks something in a world under load, again and again, and has an oracle hold that what was answered is
// kept, what was ended never passes again, and nobody is refused who must not be. make drill makes all drills and prints
// their table; without -drill only the short ones are made.
func TestDrills(t *testing.T) {
	t.Parallel()
	rows := []string{
		"| Drill | Checks | 503 | No answer | of these at replicas that nothing was done to | Longest without a pass there | Well again after | " +
			"Edits answered | Felt: median / longest | Sessions lost | Wrong | Remark |",
		"| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
	}
	for _, table := range drillTables {
		var todo []drill
		for _, d := range table.drills {
			if d.short || *drilling {
				todo = append(todo, d)
			}
		}
		if len(todo) == 0 {
			continue
		}
		t.Run(table.name, func(t *testing.T) {
			w := table.make(t)
			for _, d := range todo {
				t.Run(d.name, func(t *testing.T) {
					o := w.begin(t, &d)
					note := d.hurt(t, w)
					o.end(t)
					rows = append(rows, o.row(d.name, note))
					t.Log(rows[len(rows)-1])
				})
			}
		})
	}
	if *drilling {
		fmt.Printf("\n%s\n\n", strings.Join(rows, "\n"))
	}
}

// within holds what a drill measures to what is promised, with so much more for the machine that a busy one keeps it too.
func within(t *testing.T, what string, took, bound time.Duration) string {
	t.Helper()
	if took > bound {
		t.Errorf("%s took %s, and may take %s", what, took, bound)
	}
	return short(took)
}

// killBusy kills the last replica while the others are asked about many sessions, hundreds of times a second. Each of these
// has a token that is still valid: the silence of one replica may cost none of them an answer at another.
func killBusy(t *testing.T, w *world) string {
	sessions := 60
	if *drilling {
		sessions = 400
	}
	known := make([]*client, sessions)
	for i := range known {
		known[i] = w.open(w.person(false))
		for _, s := range w.replicas[:2] {
			known[i].at(s).checkPatiently(account).wants(t, "a session before the kill", 200)
		}
	}
	w.replicas[2].process.Kill()
	defer w.replicas[2].start()
	var refused atomic.Int64
	d := hurtTime()
	n := parallel(4, d, func() {
		i := int(clients.Add(1))
		if r := known[i/2%sessions].at(w.replicas[i%2]).check(account); r.status != 200 {
			refused.Add(1)
		}
		time.Sleep(2 * time.Millisecond)
	})
	if *drilling && refused.Load() > 0 {
		t.Errorf("%d of %d checks of %d sessions were refused", refused.Load(), n, sessions)
	}
	return fmt.Sprintf("%d checks a second of %d sessions beside, %d refused", int(float64(n)/d.Seconds()), sessions, refused.Load())
}

// killThenHang has Valkey hang when the others have missed a killed replica: memory is then trusted for the cache's lifetime
// from when it was read, and no longer.
func killThenHang(t *testing.T, w *world) string {
	c := w.open(w.person(false))
	w.replicas[2].process.Kill()
	defer w.replicas[2].start()
	time.Sleep(4 * time.Second) // three heartbeats, and one to spare
	c.checkPatiently(account).wants(t, "a session while a replica is missed", 200)
	w.vk.Pause()
	defer w.vk.Resume()
	return "memory lasted for " + short(w.memory(t, c))
}

// memory is how long a session goes on passing. It fails the test where that is longer than memory is trusted.
func (w *world) memory(t *testing.T, c *client) (last time.Duration) {
	t.Helper()
	hung := time.Now()
	for time.Since(hung) < trustOfMemory+2*time.Second {
		begun := time.Since(hung)
		if c.check(account).status == 200 {
			last = begun
		}
		time.Sleep(10 * time.Millisecond)
	}
	if last > trustOfMemory {
		t.Errorf("memory lasted for %s", last)
	}
	return last
}

// hangPostgres has Postgres hang. make drill also waits until a sign-in and a call of the API are given up.
func hangPostgres(t *testing.T, w *world) string {
	p := w.person(false)
	member := w.open(p)
	time.Sleep(500 * time.Millisecond)
	hung := time.Now()
	w.pg.Pause()
	defer w.pg.Resume()
	note := ""
	if *drilling {
		var signIn, call reply
		var both sync.WaitGroup
		both.Go(func() { signIn = w.a.client().signIn(p.Email, memberPassword) })
		both.Go(func() { call = member.call("GET", "/resource/users/me", nil) })
		both.Wait()
		for what, r := range map[string]reply{"a sign-in": signIn, "a call": call} {
			r.wants(t, what+" while Postgres hangs", 503, "authz.unavailable")
		}
		note = fmt.Sprintf("a sign-in was refused after %s, a call of the API after %s",
			within(t, "the refusal of a sign-in", signIn.took, 10*time.Second), within(t, "the refusal of a call", call.took, 10*time.Second))
	}
	time.Sleep(time.Until(hung.Add(hurtTime())))
	return note
}

// manyRules edits among 10,000 rules of one role, and tells how soon every replica felt each edit.
func manyRules(t *testing.T, w *world) string {
	const rules, edits = 10_000, 60
	path := func(i int) string { return fmt.Sprintf("api/v2/many/%d", i) }
	const batch = 100 // so that the edits of others, which wait for the same lock, are made in between
	for from := 0; from < rules; from += batch {
		err := w.db.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
			for i := range batch {
				p := &db.Permission{Role: "member", Verb: "ALL", Path: path(from + i), Action: "ACCEPT"}
				if err := tx.InsertPermission(ctx, db.Who{}, p); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	c := w.open(w.person(false))
	for _, s := range w.replicas {
		testkit.Eventually(t, patience, func() bool { return c.at(s).check("/"+path(rules-1)).status == 200 })
	}
	var kind func(c *cluster, n int) change
	for _, k := range kinds {
		if k.name == "permission" {
			kind = k.make
		}
	}
	var mu sync.Mutex
	var answered, felt []time.Duration
	for n := range edits {
		w.made++
		ch := kind(w.cluster, w.made)
		for _, s := range w.replicas {
			testkit.Eventually(t, patience, func() bool { return ch.ask(s).status == 200 })
		}
		r := ch.edit(w.replicas[n%len(w.replicas)]).wants(t, "an edit among many rules", ch.done)
		done := time.Now()
		answered = append(answered, r.took)
		var all sync.WaitGroup
		for _, s := range w.replicas {
			all.Go(func() {
				for time.Since(done) < patience {
					begun := time.Now()
					if ch.ask(s).code(401, ch.code) {
						mu.Lock()
						defer mu.Unlock()
						felt = append(felt, begun.Sub(done))
						return
					}
				}
			})
		}
		all.Wait()
	}
	if len(felt) != edits*len(w.replicas) {
		t.Errorf("%d of %d edits were felt", len(felt), edits*len(w.replicas))
	}
	note := fmt.Sprintf("%d edits of %d rules: answered %s; felt at all replicas %s", edits, rules, spread(answered), spread(felt))
	within(t, "half of the edits among many rules", felt[len(felt)/2], time.Second)
	return note
}

// behindEnvoy has requests go through a real Envoy on its reference configuration while f does something to the replicas.
// None of them may be refused; nor may what beside asks for meanwhile, several times a second, if it is not nil.
func (w *world) behindEnvoy(t *testing.T, f func(), beside func(gateway string, n int, answered func(what string, r reply))) string {
	t.Helper()
	upstream := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(rw, "served")
	})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = upstream.Serve(l) }() // ends with Close
	defer upstream.Close()
	var addrs []string
	for _, s := range w.replicas {
		addrs = append(addrs, s.api)
	}
	gateway, admin := addr(t), addr(t)
	_, adminPort, _ := net.SplitHostPort(admin)
	startGateway(t, "envoy", gateway, strings.Join(addrs, " "), strings.Join(addrs, " "), l.Addr().String(),
		"admin: { address: { socket_address: { address: 127.0.0.1, port_value: "+adminPort+" } } }\n")
	c := newClient(gateway, w.vault)
	c.ip = "" // Envoy tells the address
	p := w.person(true)
	k := &key{KID: p.kid, Secret: p.secret}
	c.signIn(w.person(false).Email, memberPassword).wants(t, "sign-in", 201)
	var asked, wrong atomic.Int64
	var refused sync.Map // by what was asked for: an answer
	answered := func(what string, r reply) {
		asked.Add(1)
		if r.err != nil || r.status >= 300 {
			wrong.Add(1)
			refused.LoadOrStore(what, r.String())
		}
	}
	stop := make(chan struct{})
	var work sync.WaitGroup
	for i := range 4 {
		work.Go(func() {
			own := *c
			for {
				select {
				case <-stop:
					return
				case <-time.After(2 * time.Millisecond):
				}
				switch i {
				case 0: // a key, whose secret is sealed
					bot := own
					bot.cookie, bot.csrf = "", ""
					answered("a check of a key", bot.send("GET", account, nil, k.sign()...))
				case 1:
					answered("a call that reads", own.call("GET", "/resource/users/me", nil))
				default:
					answered("a check of a session", own.send("GET", account, nil))
				}
			}
		})
	}
	if beside != nil {
		work.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				case <-time.After(100 * time.Millisecond):
				}
				beside(gateway, n, answered)
			}
		})
	}
	f()
	time.Sleep(200 * time.Millisecond)
	close(stop)
	work.Wait()
	// What a replica itself could not decide in time, or not even answer, a machine was too slow for that does other things: that
	// it restarts is no reason.
	slow := upstreamCount(t, admin, `^cluster\.barong(_checks)?\.(upstream_rq_timeout|upstream_rq_5xx)$`)
	again := upstreamCount(t, admin, `^cluster\.barong(_checks)?\.upstream_rq_retry$`)
	if wrong.Load() > slow || wrong.Load() > 0 && !*drilling {
		refused.Range(func(what, r any) bool {
			t.Errorf("refused: %s: %s", what, r)
			return true
		})
		t.Errorf("%d of %d requests through Envoy were refused; replicas were too slow for %d", wrong.Load(), asked.Load(), slow)
	}
	note := fmt.Sprintf("%d requests through Envoy, %d refused; Envoy asked %d times again", asked.Load(), wrong.Load(), again)
	if slow > 0 {
		note += fmt.Sprintf("; replicas were too slow for %d", slow)
	}
	return note
}

// upstreamCount adds up counters of Envoy.
func upstreamCount(t *testing.T, admin, filter string) (sum int64) {
	t.Helper()
	res, err := probes.Get("http://" + admin + "/stats?filter=" + url.QueryEscape(filter))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := 0
	for in := bufio.NewScanner(res.Body); in.Scan(); lines++ {
		_, value, _ := strings.Cut(in.Text(), ": ")
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			t.Fatalf("a counter of Envoy: %s", in.Text())
		}
		sum += n
	}
	if lines == 0 {
		t.Fatalf("Envoy counts nothing that matches %s", filter)
	}
	return sum
}

// restartInTurn stops and starts the replicas one after the other, each with more variables.
func (w *world) restartInTurn(env ...string) {
	for _, s := range w.replicas {
		s.stop()
		s.env = append(s.env, env...)
		s.start()
	}
}

// tight has every row that is added from now on take a page of its own, so that a full disk is felt with the first.
const tight = `DO $$ DECLARE t regclass; BEGIN
	FOR t IN SELECT oid::regclass FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' LOOP
		EXECUTE format('ALTER TABLE %s SET (fillfactor = 10)', t);
	END LOOP; END $$`

// fillDisk has Postgres's disk be full: reading goes on, and what has its place is written, but nothing is added.
func fillDisk(t *testing.T, w *world) string {
	// The log gets a segment of 16 MB that is empty, and so lasts.
	w.exec(t, tight, "SELECT pg_switch_wal()", "CHECKPOINT")
	defer w.exec(t, strings.ReplaceAll(tight, "SET (fillfactor = 10)", "RESET (fillfactor)"))
	time.Sleep(500 * time.Millisecond)
	w.disk.Fill(t)
	defer w.disk.Free(t)
	time.Sleep(hurtTime())
	for _, s := range w.replicas {
		testkit.Eventually(t, patience, func() bool { return s.probe("/readyz").status == http.StatusServiceUnavailable })
	}
	w.disk.Free(t)
	return "no replica was ready"
}

// fillLog has Postgres's log need room on a full disk: the server ends by itself, and comes back when there is some again.
func fillLog(t *testing.T, w *world) string {
	time.Sleep(500 * time.Millisecond)
	w.disk.Fill(t)
	defer w.disk.Free(t)
	began := time.Now()
	endlessLog(t, w.pg)
	gave := time.Since(began)
	time.Sleep(time.Until(began.Add(hurtTime())))
	w.disk.Free(t)
	w.pg.Start(t)
	return "Postgres ended by itself after " + short(gave)
}

// endlessLog writes the log of a Postgres whose disk is full until the server ends.
func endlessLog(t *testing.T, pg *testkit.Server) {
	t.Helper()
	testkit.Eventually(t, patience, func() bool {
		if !pg.Running() {
			return true
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if conn, err := pgx.Connect(ctx, pg.URL); err == nil { // it may be about to end
			_, _ = conn.Exec(ctx, "SELECT pg_switch_wal()") // which takes the rest of a segment; one of those that follow is missing
			_ = conn.Close(ctx)
		}
		return false
	})
}

// takeConnections takes all connections that Postgres has, from the replicas too.
func takeConnections(t *testing.T, w *world) string {
	var mine []*pgx.Conn
	defer func() {
		for _, c := range mine {
			c.Close(context.Background())
		}
	}()
	fill := func() {
		for {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			c, err := pgx.Connect(ctx, w.pg.URL)
			cancel()
			if err != nil {
				return
			}
			mine = append(mine, c)
		}
	}
	fill()
	pids := make([]int32, len(mine))
	for i, c := range mine {
		pids[i] = int32(c.PgConn().PID())
	}
	end := time.Now().Add(hurtTime())
	for time.Now().Before(end) {
		if _, err := mine[0].Exec(t.Context(),
			"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND NOT pid = ANY($1)", pids); err != nil {
			t.Fatal(err)
		}
		before := len(mine)
		fill()
		for _, c := range mine[before:] {
			pids = append(pids, int32(c.PgConn().PID()))
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Sprintf("%d connections taken", len(mine))
}

// cutting cuts connections ten times.
func cutting(cut func(w *world)) func(*testing.T, *world) string {
	return func(_ *testing.T, w *world) string {
		for range 10 {
			time.Sleep(300 * time.Millisecond)
			cut(w)
		}
		return ""
	}
}

// fewClients has Valkey take no more clients than it has, and then cuts those.
func fewClients(t *testing.T, w *world) string {
	c := w.valkeys[0].Client(t)
	conn := c.Conn() // stays
	defer conn.Close()
	if err := conn.ConfigSet(t.Context(), "maxclients", "2").Err(); err != nil {
		t.Fatal(err)
	}
	w.toVK.Cut()
	time.Sleep(hurtTime())
	if err := conn.ConfigSet(t.Context(), "maxclients", "10000").Err(); err != nil {
		t.Fatal(err)
	}
	return ""
}

// loseNotices cuts the connections that carry notices again and again, and no others.
func loseNotices(t *testing.T, w *world) string {
	c := w.valkeys[0].Client(t)
	for end := time.Now().Add(2 * hurtTime()); time.Now().Before(end); time.Sleep(15 * time.Millisecond) {
		if err := c.Do(t.Context(), "CLIENT", "KILL", "TYPE", "PUBSUB").Err(); err != nil {
			t.Fatal(err)
		}
	}
	return ""
}

// silentSubscriptions has every new subscription be accepted and never answered.
func silentSubscriptions(t *testing.T, w *world) string {
	w.toVK.Swallow("subscribe")
	w.valkey(t, "CLIENT", "KILL", "TYPE", "PUBSUB")
	time.Sleep(hurtTime())
	w.toVK.Swallow("")
	begun := time.Now()
	c := w.valkeys[0].Client(t)
	testkit.Eventually(t, patience, func() bool {
		clients, err := c.Do(t.Context(), "CLIENT", "LIST", "TYPE", "PUBSUB").Text()
		return err == nil && strings.Count(clients, "\n") >= len(w.replicas)
	})
	return "heard again after " + within(t, "hearing again", time.Since(begun), 8*time.Second)
}

// sessionKeys are what Valkey knows of sessions.
func sessionKeys(t *testing.T, vk *redis.Client) map[string]string {
	t.Helper()
	held := map[string]string{}
	keys, err := vk.Keys(t.Context(), "barong:session*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if v, err := vk.Dump(t.Context(), k).Result(); err == nil {
			held[k] = v
		}
	}
	return held
}

// olderSnapshot has Valkey come back with what it held a while before, and nothing of what it was told since.
func olderSnapshot(t *testing.T, w *world) string {
	vk := w.valkeys[0].Client(t)
	before := sessionKeys(t, vk)
	time.Sleep(hurtTime())
	w.toVK.Refuse(true)
	defer w.toVK.Refuse(false)
	since := sessionKeys(t, vk)
	for k := range since {
		if _, held := before[k]; !held {
			if err := vk.Del(t.Context(), k).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for k, v := range before {
		if err := vk.RestoreReplace(t.Context(), k, 0, v).Err(); err != nil {
			t.Fatal(err)
		}
	}
	w.toVK.Refuse(false)
	time.Sleep(time.Second)
	return fmt.Sprintf("%d keys of %s before, in place of %d", len(before), short(hurtTime()), len(since))
}

// rotateSigningKeys makes new signing keys beside the servers.
func rotateSigningKeys(t *testing.T, w *world) string {
	note := w.behindEnvoy(t, func() {
		for range 5 {
			time.Sleep(500 * time.Millisecond)
			w.a.must("keys", "rotate")
		}
	}, nil)
	return fmt.Sprintf("%s; %d keys are published", note, len(w.a.kids()))
}

// rotateSecretKey rotates the secret key as docs/operations.md says, with a restart of every replica in turn for each step,
// and back again. What one replica seals meanwhile, others open and find.
func rotateSecretKey(t *testing.T, w *world) string {
	fresh := base64.StdEncoding.EncodeToString([]byte("another key, of thirty-two bytes"))
	w.vault.keep("secret key", fresh)
	people, emails := make([]*client, 8), make([]string, 8)
	for i := range people {
		people[i], emails[i] = w.a.client(), w.person(false).Email
		people[i].ip = "" // Envoy tells the address
	}
	step := func(keys string) { w.restartInTurn("BARONG_SECRET_KEY=" + keys) }
	// The back door seals with the first key, and so does what comes after this drill.
	return w.behindEnvoy(t, func() {
		for _, keys := range [][2]string{{secretKey, fresh}, {fresh, secretKey}} {
			old, next := keys[0], keys[1]
			step("next:" + next + "," + old)
			step(next + "," + old)
			w.a.must("secrets", "rotate")
			step(next)
		}
	}, func(gateway string, n int, answered func(what string, r reply)) {
		c := people[n%len(people)]
		if c.base = "http://" + gateway; c.cookie == "" {
			answered("a sign-in", c.signIn(emails[n%len(emails)], memberPassword))
			return
		}
		number := fmt.Sprintf("+14152%06d", n)
		r := c.call("POST", "/resource/phones", params{"phone_number": number})
		if answered("a phone is added", r); r.status == 201 {
			answered("it is found", c.call("POST", "/resource/phones/send_code", params{"phone_number": number}))
		}
		answered("phones are read", c.call("GET", "/resource/phones", nil))
	})
}

// overload asks from as many connections as there may be, without pause.
func overload(_ *testing.T, w *world) string {
	c := w.open(w.person(false))
	var refused atomic.Int64
	d := hurtTime()
	n := parallel(64, d, func() {
		if r := c.at(w.replicas[int(clients.Add(1))%3]).check(account); r.status != 200 {
			refused.Add(1)
		}
	})
	return fmt.Sprintf("%d checks a second beside, %d refused", int(float64(n)/d.Seconds()), refused.Load())
}

// slowClients hold connections on which a request never ends.
func slowClients(t *testing.T, w *world) string {
	const begun = "GET /api/v2/auth/api/v2/peatio/account HTTP/1.1\r\nHost: x\r\nX-Slow: "
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for i := range 1000 {
		c, err := net.Dial("tcp", w.replicas[i%3].api)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
		if _, err := io.WriteString(c, begun); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(hurtTime()); time.Now().Before(end); time.Sleep(time.Second) {
		for _, c := range conns {
			_, _ = io.WriteString(c, "a") // the server may have given up
		}
	}
	return ""
}

// largeBodies sends checks with 20 MB behind them. Each is answered, on a connection that is not broken before.
func largeBodies(t *testing.T, w *world) string {
	c := w.open(w.person(false))
	chunk := make([]byte, 64<<10)
	var wrong atomic.Int64
	n := parallel(3, hurtTime(), func() {
		at := w.replicas[int(clients.Add(1))%3]
		conn, err := net.Dial("tcp", at.api)
		if err != nil {
			wrong.Add(1)
			return
		}
		defer conn.Close()
		const size = 20 << 20
		fmt.Fprintf(conn, "POST /api/v2/auth%s HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: %s\r\nUser-Agent: %s\r\nCookie: %s\r\nX-CSRF-Token: %s\r\n"+
			"Content-Length: %d\r\n\r\n", account, c.ip, browser, c.cookie, c.csrf, size)
		for range size / len(chunk) {
			if _, err := conn.Write(chunk); err != nil {
				wrong.Add(1)
				return
			}
		}
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			wrong.Add(1)
			return
		}
		res.Body.Close()
		if res.StatusCode != 200 {
			wrong.Add(1)
		}
	})
	if wrong.Load() > 0 {
		t.Errorf("%d of %d checks with 20 MB were not answered with 200", wrong.Load(), n)
	}
	return fmt.Sprintf("%d of them", n)
}

// signInStorm signs people in from eight places at a time.
func signInStorm(_ *testing.T, w *world) string {
	p := w.person(false)
	var in atomic.Int64
	n := parallel(8, hurtTime(), func() {
		if w.replicas[int(clients.Add(1))%3].client().signIn(p.Email, memberPassword).status == 201 {
			in.Add(1)
		}
	})
	return fmt.Sprintf("%d tried, %d signed in", n, in.Load())
}

// guessingStorm tries wrong passwords, of accounts that are there and of others.
func guessingStorm(t *testing.T, w *world) string {
	p := w.person(false)
	n := parallel(16, hurtTime(), func() {
		i := clients.Add(1)
		email := p.Email
		if i%2 == 0 {
			email = fmt.Sprintf("nobody%d@example.com", i)
		}
		r := w.replicas[int(i)%3].client().signIn(email, "Wv8-mXq2+aaa")
		if r.err == nil && r.status != 401 && r.status != 429 {
			t.Errorf("a wrong password: %s", r)
		}
	})
	return fmt.Sprintf("%d tried", n)
}

// primaryOf asks the sentinels who the primary is.
func (w *world) primaryOf(t *testing.T) *testkit.Server {
	t.Helper()
	at, err := w.sentinels[0].Client(t).Do(t.Context(), "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main").StringSlice()
	if err != nil || len(at) != 2 {
		t.Fatalf("the primary: %v, %v", at, err)
	}
	for _, s := range w.valkeys {
		if s.Addr == net.JoinHostPort(at[0], at[1]) {
			return s
		}
	}
	t.Fatalf("nobody is at %v", at)
	return nil
}

// failover waits until the sentinels have made another the primary, and tells how long checks of sessions that are in no
// memory then were still refused.
func (w *world) failover(t *testing.T, old *testkit.Server) string {
	t.Helper()
	began := time.Now()
	testkit.Eventually(t, patience, func() bool { return w.primaryOf(t) != old })
	whole := time.Now()
	p := w.person(false)
	at := w.a.client()
	testkit.Eventually(t, patience, func() bool { return at.signIn(p.Email, memberPassword).status == 201 })
	return fmt.Sprintf("another primary after %s, a sign-in %s later", short(whole.Sub(began)), short(time.Since(whole)))
}

func killGuarded(t *testing.T, w *world) string {
	time.Sleep(500 * time.Millisecond)
	old := w.primaryOf(t)
	old.Kill()
	note := w.failover(t, old)
	time.Sleep(hurtTime())
	old.Start(t)
	followed(t, old)
	return note
}

// followed waits until a Valkey that was the primary is a replica, as the sentinels want it.
func followed(t *testing.T, old *testkit.Server) {
	t.Helper()
	c := old.Client(t)
	testkit.Eventually(t, patience, func() bool { return testkit.Follows(c) })
}

// hangGuarded has the primary hang, so that another takes over; what it was told and has not handed on is lost when it
// wakes up.
func hangGuarded(t *testing.T, w *world) string {
	time.Sleep(500 * time.Millisecond)
	old := w.primaryOf(t)
	old.Pause()
	note := w.failover(t, old)
	old.Resume()
	followed(t, old)
	time.Sleep(hurtTime())
	return note
}

// cutOffGuarded parts the primary from its replicas, so that what it is told is known to nobody else, and kills it a while
// later: another takes over that has never heard of the last writes.
func cutOffGuarded(t *testing.T, w *world) string {
	time.Sleep(500 * time.Millisecond)
	old := w.primaryOf(t)
	var others []*testkit.Server
	for _, s := range w.valkeys {
		if s != old {
			others = append(others, s)
			s.Pause()
		}
	}
	resume := sync.OnceFunc(func() {
		for _, s := range others {
			s.Resume()
		}
	})
	defer resume()
	if err := old.Client(t).Do(t.Context(), "CLIENT", "KILL", "TYPE", "REPLICA").Err(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(hurtTime())
	old.Kill()
	resume()
	note := w.failover(t, old)
	time.Sleep(hurtTime())
	old.Start(t)
	followed(t, old)
	return note
}

// killSharded kills a primary of the cluster, and tells how long after the cluster is whole every replica can sign in.
func killSharded(t *testing.T, w *world) string {
	time.Sleep(500 * time.Millisecond)
	old, heir := w.valkeys[0], w.valkeys[3].Client(t)
	began := time.Now()
	old.Kill()
	testkit.Eventually(t, patience, func() bool {
		role, err := heir.Do(t.Context(), "ROLE").Slice()
		info, _ := w.valkeys[1].Client(t).ClusterInfo(t.Context()).Result()
		return err == nil && role[0] == "master" && strings.Contains(info, "cluster_state:ok")
	})
	whole := time.Now()
	// Sessions whose slots the killed node had.
	probe := redis.NewClient(&redis.Options{Addr: w.valkeys[1].Addr})
	defer probe.Close()
	lost := func(id session.ID) bool {
		slot, err := probe.ClusterKeySlot(t.Context(), "barong:session:"+id.Key().String()).Result()
		return err == nil && slot <= 5460
	}
	at := w.a.client()
	id := session.NewID()
	for !lost(id) {
		id = session.NewID()
	}
	at.cookie = "_barong_session=" + hex.EncodeToString(id[:])
	for _, s := range w.replicas {
		// That there is no such session is what the node that took over says.
		testkit.Eventually(t, patience, func() bool { return at.at(s).check(account).code(401, "authz.invalid_session") })
	}
	felt := within(t, "reading the slots of the new primary", time.Since(whole), 8*time.Second)
	time.Sleep(hurtTime())
	old.Start(t)
	followed(t, old)
	return fmt.Sprintf("whole after %s, every replica reads its slots %s later", short(whole.Sub(began)), felt)
}

// moveSlots moves slots from one primary to another, key by key, as an operator's tool does.
func moveSlots(t *testing.T, w *world) string {
	ctx := t.Context()
	// Who is primary may have changed in the drill before.
	var primaries []*redis.Client
	var ids []string
	for _, s := range w.valkeys {
		c := s.Client(t)
		if role, err := c.Do(ctx, "ROLE").Slice(); err == nil && role[0] == "master" {
			id, err := c.ClusterMyID(ctx).Result()
			if err != nil {
				t.Fatal(err)
			}
			primaries, ids = append(primaries, c), append(ids, id)
		}
	}
	//lint:ignore SA1019 Redis before 7 has nothing else
	slots, err := primaries[0].ClusterSlots(ctx).Result()
	if err != nil {
		t.Fatal(err)
	}
	from, to := 0, 1
	first := -1
	for _, s := range slots {
		if s.Nodes[0].ID == ids[from] {
			first = s.Start
		}
	}
	host, port, _ := net.SplitHostPort(primaries[to].Options().Addr)
	set := func(c *redis.Client, slot int, how, id string) {
		t.Helper()
		if err := c.Do(ctx, "CLUSTER", "SETSLOT", slot, how, id).Err(); err != nil {
			t.Fatalf("slot %d %s: %v", slot, how, err)
		}
	}
	moved, keysMoved := 0, 0
	for end := time.Now().Add(hurtTime()); time.Now().Before(end) && moved < 2000; moved++ {
		slot := first + moved
		set(primaries[to], slot, "IMPORTING", ids[from])
		set(primaries[from], slot, "MIGRATING", ids[to])
		for {
			keys, err := primaries[from].ClusterGetKeysInSlot(ctx, slot, 100).Result()
			if err != nil {
				t.Fatal(err)
			}
			if len(keys) == 0 {
				break
			}
			args := []any{"MIGRATE", host, port, "", 0, 5000, "KEYS"}
			for _, k := range keys {
				args = append(args, k)
			}
			if err := primaries[from].Do(ctx, args...).Err(); err != nil {
				t.Fatal(err)
			}
			keysMoved += len(keys)
		}
		set(primaries[to], slot, "NODE", ids[to])
		set(primaries[from], slot, "NODE", ids[to])
		time.Sleep(time.Millisecond)
	}
	return fmt.Sprintf("%d slots with %d keys", moved, keysMoved)
}

// clockAhead has the last replica's clock be ahead, and its tokens be used at the others.
func clockAhead(ahead time.Duration) func(t *testing.T, w *world) string {
	return func(t *testing.T, w *world) string {
		w.clock.Set(t, ahead)
		defer w.clock.Set(t, 0)
		last := w.replicas[2]
		c := w.open(w.person(false))
		r := c.at(last).check(account).wants(t, "a check at the replica that is ahead", 200)
		for _, s := range w.replicas {
			s.client().send("GET", "/api/v2/resource/users/me", nil, "Authorization: "+r.header.Get("Authorization")).
				wants(t, "its token at another", 200)
		}
		// Sessions that it opens are no others' to refuse.
		p := w.person(false)
		in := last.client()
		in.signIn(p.Email, memberPassword).wants(t, "a sign-in at the replica that is ahead", 201)
		in.at(w.a).checkPatiently(account).wants(t, "its session at another", 200)
		time.Sleep(hurtTime())
		off := regexp.MustCompile(`barong_clock_ahead_seconds\{store="\w+"\} (59|60|61)`)
		testkit.Eventually(t, patience, func() bool { return off.MatchString(last.probe("/metrics").body) }) // looked at twice a minute
		return "its tokens and sessions are good at the others"
	}
}

// clockBack moves a clock back by an hour and then has Postgres hang: memory must not last longer for it.
func clockBack(t *testing.T, w *world) string {
	time.Sleep(500 * time.Millisecond)
	w.clock.Set(t, -time.Hour)
	defer w.clock.Set(t, 0)
	c := w.open(w.person(false)).at(w.replicas[2])
	testkit.Eventually(t, patience, func() bool { return c.check(account).status == 200 })
	w.pg.Pause()
	defer w.pg.Resume()
	return "memory lasted for " + short(w.memory(t, c))
}

// manyConnections has more strangers connect to a replica than its listener takes, and keep still. Whom it trusts still
// finds a place.
func manyConnections(t *testing.T, w *world) string {
	const most = 16384
	strangers := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}, Timeout: patience}
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	to := w.replicas[2].api
	for range most + 500 {
		c, err := strangers.DialContext(t.Context(), "tcp", to)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	gateway := *w.open(w.person(false))
	gateway.http = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	for range 20 {
		gateway.at(w.replicas[2]).checkPatiently(account).wants(t, "a new connection of a gateway", 200)
	}
	return fmt.Sprintf("%d connections", len(conns))
}
