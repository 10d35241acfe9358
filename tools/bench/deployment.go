package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"barong/db"
	"barong/internal/crypto/password"
	"barong/internal/crypto/secret"
	"barong/internal/test/testkit"
	"barong/session/redisstore"
)

// A deployment is the program as an operator runs it: replicas on one Postgres and one Valkey, with people of whom each has a
// session. The stores run on the processor of the load.
type deployment struct {
	b        *bench
	dir      string
	settings []string
	db       *db.DB
	redis    redis.UniversalClient
	redisURL string
	people   int
	close    func()
}

const (
	peoplesPassword = "Jw6-vTn2+QkRz"
	staffUID        = "IDFFFFFFFFFF"
	staffSession    = -1 // see sessionIDOf
	nobody          = -2 // has none
)

// deploy starts the stores and prepares them for nobody yet.
func (b *bench) deploy() (_ *deployment, failed error) {
	dir, err := b.folder("deployment")
	if err != nil {
		return nil, err
	}
	if err := os.RemoveAll(dir); err != nil { // another deployment's
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	data, err := os.MkdirTemp("", "barong-scale-") // where whoever runs Postgres gets at it
	if err != nil {
		return nil, err
	}
	url, stop, err := testkit.KeepPostgres(data, "shared_buffers=512MB", "max_wal_size=4GB", "max_connections=200")
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(data))
	}
	d := &deployment{b: b, dir: dir}
	d.close = func() {
		if d.db != nil {
			_ = d.db.Close()
		}
		if d.redis != nil {
			_ = d.redis.Close()
		}
		stop()
		_ = os.RemoveAll(data)
	}
	defer func() {
		if failed != nil {
			d.close()
		}
	}()
	redisURL, err := b.startValkey(dir)
	if err != nil {
		return nil, err
	}
	d.redisURL = redisURL
	proxies, err := trustedHere()
	if err != nil {
		return nil, err
	}
	key := secret.NewKey()
	d.settings = []string{
		"BARONG_DATABASE_URL=" + url, "BARONG_REDIS_URL=" + redisURL, "BARONG_SECRET_KEY=" + key.Reveal(), "BARONG_RATE_LIMITS=off", proxies,
		"BARONG_JWT_PRIVATE_KEY_PATH=" + filepath.Join(dir, "keys") + "/", "BARONG_DRAIN_TIME=0s", "ADMIN_EMAIL=first@example.com",
		"ADMIN_PASSWORD=" + peoplesPassword,
	}
	for _, args := range [][]string{{"migrate", "up"}, {"seed"}, {"keys", "generate"}} {
		c := exec.CommandContext(b.ctx, b.program, args...)
		c.Dir, c.Env = dir, append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}, d.settings...)
		if out, err := c.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%v: %w\n%s", args, err, out)
		}
	}
	box, err := secret.New(key)
	if err != nil {
		return nil, err
	}
	if d.db, err = db.Open(b.ctx, db.Options{URL: url, Sealer: box}); err != nil {
		return nil, err
	}
	// The back door waits for a Valkey that is filled with a million sessions as long as it takes.
	if d.redis, err = redisstore.ConnectWithin(redisURL, time.Minute); err != nil {
		return nil, err
	}
	err = d.db.Update(b.ctx, func(ctx context.Context, tx *db.Tx) error {
		return tx.InsertUser(ctx, &db.User{UID: staffUID, Email: "staff@example.com", Role: "superadmin", Level: 3, State: "active"})
	})
	if err != nil {
		return nil, err
	}
	s := sessionOf(staffSession)
	s.UID = staffUID
	return d, redisstore.New(d.redis).Create(b.ctx, s)
}

// grow adds people until there are n, each with a session.
func (d *deployment) grow(n int) error {
	if n <= d.people {
		return nil
	}
	d.b.say("%d people", n)
	digest, err := password.NewHasher(password.HasherOptions{}).Hash(d.b.ctx, peoplesPassword)
	if err != nil {
		return err
	}
	conn, err := pgx.Connect(d.b.ctx, d.db.URL())
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	for _, s := range []struct {
		sql  string
		args []any
	}{
		{"SET synchronous_commit = off", nil},
		{`INSERT INTO users (uid, email, password_digest, role, state, level, otp, created_at, updated_at)
			SELECT 'ID' || upper(lpad(to_hex(i), 10, '0')), 'user' || i || '@example.com', $1::text, 'member', 'active', 3, false,
				date_trunc('second', now() - interval '1 minute' * ($3::bigint - i)), date_trunc('second', now())
			FROM generate_series($2::bigint, $3::bigint - 1) AS i`, []any{digest, d.people, n}},
		{"VACUUM (ANALYZE) users", nil},
		{"CHECKPOINT", nil}, // whose writes would fall into what is measured
	} {
		if _, err := conn.Exec(d.b.ctx, s.sql, s.args...); err != nil {
			return fmt.Errorf("%w\n%s", err, s.sql)
		}
	}
	u, err := d.db.UserByUID(d.b.ctx, uidOf(0))
	if err != nil {
		return err
	}
	return d.openSessions(n, u.Epoch())
}

// openSessions opens a session of each person from the first that has none up to n.
func (d *deployment) openSessions(n int, epoch int64) error {
	client, err := redisstore.Connect(d.redisURL)
	if err != nil {
		return err
	}
	defer client.Close()
	kept := &keeper{pipe: d.redis.Pipeline()}
	client.AddHook(kept)
	store := redisstore.New(client)
	const together = 512 // sessions
	for ; d.people < n; d.people++ {
		s := sessionOf(d.people)
		s.UID, s.Epoch = uidOf(d.people), epoch
		if err := store.Create(d.b.ctx, s); err != nil {
			return err
		}
		if d.people%together == together-1 || d.people == n-1 {
			if err := kept.send(d.b.ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// A keeper answers what the store of sessions sends to open one, without asking Redis, and keeps it until it is sent with the
// rest: one after the other, a million sessions would take minutes.
type keeper struct {
	generation string
	pipe       redis.Pipeliner
}

func (k *keeper) DialHook(next redis.DialHook) redis.DialHook { return next }

func (k *keeper) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (k *keeper) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, c redis.Cmder) error {
		switch answer := c.(type) {
		case *redis.StringCmd: // the generation of sessions
			if k.generation == "" {
				err := next(ctx, c)
				k.generation = answer.Val()
				return err
			}
			answer.SetVal(k.generation)
			return nil
		case *redis.Cmd: // a script that answers 1 when it has done what it is for
			k.pipe.Do(ctx, c.Args()...)
			answer.SetVal(int64(1))
			return nil
		}
		return next(ctx, c) // what makes a connection
	}
}

// send sends what was kept, and holds that each command has done what its answer was.
func (k *keeper) send(ctx context.Context) error {
	done, err := k.pipe.Exec(ctx)
	if err != nil {
		return err
	}
	for _, c := range done {
		if c, ok := c.(*redis.Cmd); !ok || c.Val() != int64(1) {
			return fmt.Errorf("opening a session: %v", c)
		}
	}
	return nil
}

// replica starts the i-th one, and tells how long it took until it answered, and how much of a processor.
func (d *deployment) replica(i int) (s *server, took, processor time.Duration, err error) {
	begun := time.Now()
	if s, err = d.b.launch(d.b.coreOf(i), d.dir, d.settings...); err != nil {
		return nil, 0, 0, err
	}
	if err = s.await(time.Minute); err != nil {
		return nil, 0, 0, err
	}
	took = time.Since(begun)
	processor, err = processorTime(s.pid())
	return s, took, processor, err
}

// stop ends a replica at once.
func (d *deployment) stop(s *server) {
	s.stop()
	d.b.servers = slices.DeleteFunc(d.b.servers, func(other *server) bool { return other == s })
}

var staff = &http.Client{Timeout: time.Minute}

// call calls a replica with the session of person i, or with none; body may be nil.
func (d *deployment) call(s *server, i int, method, path string, body any, status int) error {
	var reader io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		reader = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(d.b.ctx, method, "http://"+s.addr+path, reader)
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", userAgent)
	r.Header.Set("X-Forwarded-For", clientIP)
	r.Header.Set("X-Forwarded-Proto", "https")
	if i != nobody {
		r.Header.Set("X-CSRF-Token", sessionOf(i).CSRF)
		r.Header.Set("Cookie", cookieName+"="+sessionIDOf(i).String())
	}
	res, err := staff.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != status {
		err = fmt.Errorf("%s %s: got %d %s, want %d\n%s", method, path, res.StatusCode, text, status, s.log.String())
	}
	return err
}

const api = "/api/v2/barong"

// signIn signs person i in.
func (d *deployment) signIn(s *server, i int) error {
	return d.call(s, nobody, "POST", api+"/identity/sessions", map[string]string{"email": emailOf(i), "password": peoplesPassword}, 201)
}

// edit makes a rule that refuses everybody a path.
func (d *deployment) edit(s *server, path string) error {
	return d.call(s, staffSession, "POST", api+"/admin/permissions",
		map[string]string{"role": "member", "verb": "all", "path": path, "action": "drop"}, 201)
}

// cost calls f so often, and returns the median of its times and the mean of what a replica, with the processes that it has for
// passwords, spent of a processor, both in milliseconds.
func (d *deployment) cost(s *server, times int, f func(n int) error) (took, processor float64, err error) {
	before, err := familyTime(s.pid())
	if err != nil {
		return 0, 0, err
	}
	all := make([]float64, times)
	for n := range times {
		begun := time.Now()
		if err := f(n); err != nil {
			return 0, 0, err
		}
		all[n] = float64(time.Since(begun)) / float64(time.Millisecond)
	}
	after, err := familyTime(s.pid())
	return median(all), float64(after-before) / float64(time.Millisecond) / float64(times), err
}

// familyTime is the processor time of a process and its children, as far as they are there: a child that has just been started
// counts with what it took for that.
func familyTime(pid int) (time.Duration, error) {
	sum, err := processorTime(pid)
	if err != nil {
		return 0, err
	}
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return 0, err
	}
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // a thread that has ended
		}
		for _, word := range strings.Fields(string(text)) {
			child, err := strconv.Atoi(word)
			if err != nil {
				return 0, err
			}
			if t, err := processorTime(child); err == nil {
				sum += t
			}
		}
	}
	return sum, nil
}

// held is how much memory Valkey has in use, in bytes.
func (d *deployment) held() (float64, error) {
	info, err := d.redis.Info(d.b.ctx, "memory").Result()
	if err != nil {
		return 0, err
	}
	m := regexp.MustCompile(`used_memory:(\d+)`).FindStringSubmatch(info)
	if m == nil {
		return 0, errors.New("valkey does not say how much memory it uses")
	}
	return strconv.ParseFloat(m[1], 64)
}

const (
	besideValue    = "beside a bare server's"
	startValue     = "a start"
	startCPUValue  = "processor time of a start"
	memoryValue    = "resident memory of a replica"
	signInValue    = "a sign-in"
	signInCPUValue = "processor time of a sign-in"
	storedValue    = "an edit: answered"
	firstValue     = "list of users: first page"
	middleValue    = "a page amid it"
	searchValue    = "one found by address"
	heldValue      = "memory of a session in Valkey"
)

// scaleUsers measures a whole replica on stores with so many people, each with a session.
func (b *bench) scaleUsers(sizes []int) (*dimension, error) {
	g := &dimension{
		name: "users", unit: "users, each with a session",
		values: []string{
			rateValue, besideValue, processorValue, p99Value, memoryValue, startValue, startCPUValue, signInValue, signInCPUValue, storedValue, firstValue,
			middleValue, searchValue, heldValue,
		},
		units: map[string]string{
			processorValue: "µs", p99Value: "µs", memoryValue: "MiB", startValue: "ms", startCPUValue: "ms", signInValue: "ms", signInCPUValue: "ms",
			storedValue: "ms", firstValue: "ms", middleValue: "ms", searchValue: "ms", heldValue: "bytes",
		},
	}
	d, err := b.deploy()
	if err != nil {
		return nil, err
	}
	defer d.close()
	empty, err := d.held()
	if err != nil {
		return nil, err
	}
	for _, n := range sizes {
		if err := d.grow(n); err != nil {
			return nil, err
		}
		held, err := d.held()
		if err != nil {
			return nil, err
		}
		b.say("a replica with %d users", n)
		values, err := d.measure()
		if err != nil {
			return nil, fmt.Errorf("%d users: %w", n, err)
		}
		values[heldValue] = (held - empty) / float64(n)
		b.say("%v", values)
		g.steps = append(g.steps, scaleStep{n, values})
	}
	return g, nil
}

// measure measures one replica with everybody that there is.
func (d *deployment) measure() (map[string]float64, error) {
	b, out := d.b, map[string]float64{}
	var s *server
	var starts, startCPU []float64
	for range max(1, min(b.rounds, 5)) {
		if s != nil {
			d.stop(s)
		}
		var took, processor time.Duration
		var err error
		if s, took, processor, err = d.replica(0); err != nil {
			return nil, err
		}
		starts, startCPU = append(starts, took.Seconds()*1e3), append(startCPU, processor.Seconds()*1e3)
	}
	defer d.stop(s)
	out[startValue], out[startCPUValue] = median(starts), median(startCPU)

	const asked = 1_000
	checks := requests(asked, func(i int) []byte { return cookieCheck(i * (d.people / asked)) })
	if err := b.each(s, checks, 200); err != nil {
		return nil, err
	}
	bare, err := b.bareLike(s, checks)
	if err != nil {
		return nil, err
	}
	defer d.stop(bare)
	medians, beside, err := b.inTurns(b.loaded(bare, checks), b.loaded(s, checks))
	if err != nil {
		return nil, err
	}
	v := medians[1]
	out[rateValue], out[processorValue], out[p99Value], out[besideValue] = v.Rate, v.Processor, v.P99, beside[1]
	r, err := resident(s.pid())
	if err != nil {
		return nil, err
	}
	out[memoryValue] = float64(r) / (1 << 20)

	times := 4 * max(1, b.rounds)
	person := func(n int) int { return n * 7919 % d.people }
	if err := d.signIn(s, 0); err != nil { // which starts the processes for passwords
		return nil, err
	}
	if out[signInValue], out[signInCPUValue], err = d.cost(s, times, func(n int) error { return d.signIn(s, person(n)) }); err != nil {
		return nil, err
	}
	if out[storedValue], _, err = d.cost(s, times, func(n int) error { return d.edit(s, fmt.Sprintf("api/v2/edited/%d/%d", d.people, n)) }); err != nil {
		return nil, err
	}
	for value, query := range map[string]func(n int) string{
		firstValue:  func(int) string { return "limit=50&page=1" },
		middleValue: func(int) string { return "limit=50&page=" + strconv.Itoa(max(1, d.people/100)) },
		searchValue: func(n int) string { return "email=" + emailOf(person(n)) },
	} {
		out[value], _, err = d.cost(s, times, func(n int) error {
			return d.call(s, staffSession, "GET", api+"/admin/users?"+query(n), nil, 200)
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

const (
	togetherValue   = "checks a second, together"
	processorsValue = "processors that they are bound to"
	oneMoreValue    = "beside one replica's"
	feltValue       = "an edit: felt at all after its answer"
	feltMostValue   = "the longest of these"
)

// scaleReplicas measures several replicas of the whole program, each bound to a processor: one of its own while there are enough
// besides that of load and stores, and one that they share where there are not. What they answer together then says
// what each costs the others.
func (b *bench) scaleReplicas(counts []int) (*dimension, error) {
	g := &dimension{
		name: "replicas", unit: "replicas",
		values: []string{
			processorsValue, togetherValue, oneMoreValue, processorValue, p99Value, memoryValue, storedValue, feltValue, feltMostValue,
		},
		units: map[string]string{
			processorValue: "µs", p99Value: "µs", memoryValue: "MiB", storedValue: "ms", feltValue: "ms", feltMostValue: "ms",
		},
	}
	d, err := b.deploy()
	if err != nil {
		return nil, err
	}
	defer d.close()
	const asked = 1_000
	if err := d.grow(asked); err != nil {
		return nil, err
	}
	checks := requests(asked, cookieCheck)
	var replicas []*server
	var all []loaded
	for _, n := range counts {
		b.say("%d replicas", n)
		values := map[string]float64{}
		for len(replicas) < n {
			s, _, _, err := d.replica(len(replicas))
			if err != nil {
				return nil, err
			}
			if err := b.each(s, checks, 200); err != nil {
				return nil, err
			}
			replicas = append(replicas, s)
		}
		cores := map[int]bool{}
		for i := range n {
			cores[b.coreOf(i)] = true
		}
		values[processorsValue] = float64(len(cores))
		if err := d.feel(replicas, values); err != nil {
			return nil, fmt.Errorf("%d replicas: %w", n, err)
		}
		all = append(all, b.share(slices.Clone(replicas), checks))
		g.steps = append(g.steps, scaleStep{n, values})
	}
	b.say("replicas: all in turns")
	medians, beside, err := b.inTurns(all...)
	if err != nil {
		return nil, err
	}
	for i, v := range medians {
		values := g.steps[i].Values
		values[togetherValue], values[oneMoreValue], values[processorValue], values[p99Value] = v.Rate, beside[i], v.Processor, v.P99
		for _, s := range all[i].servers {
			r, err := resident(s.pid())
			if err != nil {
				return nil, err
			}
			values[memoryValue] = max(values[memoryValue], float64(r)/(1<<20))
		}
		b.say("%d replicas: %v", g.steps[i].N, values)
	}
	return g, nil
}

// share is servers that share the connections of the load.
func (b *bench) share(servers []*server, checks [][]byte) loaded {
	return loaded{servers: servers, open: func() (list []caller, err error) {
		for _, s := range servers {
			own, err := b.callers(s.addr, 200, checks)
			if err != nil {
				closeAll(list)
				return nil, err
			}
			mine := max(1, len(own)/len(servers))
			list = append(list, own[:mine]...)
			closeAll(own[mine:])
		}
		return list, nil
	}}
}

// feel edits a rule again and again, and has everybody asked from the moment of the answer on, each over a connection of its
// own, until it refuses: the answer by which the last one does is when the edit is felt.
func (d *deployment) feel(replicas []*server, values map[string]float64) error {
	callers := make([]*httpCaller, len(replicas))
	for i, s := range replicas {
		c, err := newHTTPCaller(s.addr, 0)
		if err != nil {
			return err
		}
		defer c.close()
		callers[i] = c
	}
	var stored, felt []float64
	for n := range 4 * max(1, d.b.rounds) {
		path := fmt.Sprintf("api/v2/peatio/account/edited/%d/%03d", len(replicas), n)
		for _, c := range callers {
			c.requests, c.next = [][]byte{wire("GET", checkPrefix+"/"+path, browserOf(0)...)}, 0
			if got, err := c.exchange(); err != nil || got != 200 {
				return fmt.Errorf("a check before the edit: got %d, %w", got, err)
			}
		}
		begun := time.Now()
		if err := d.edit(replicas[n%len(replicas)], path); err != nil {
			return err
		}
		answered := time.Now()
		took, errs := make([]time.Duration, len(callers)), make([]error, len(callers))
		var group sync.WaitGroup
		for i, c := range callers {
			group.Go(func() {
				for took[i] < time.Minute {
					var got int
					got, errs[i] = c.exchange()
					took[i] = time.Since(answered)
					if errs[i] != nil || got == 401 {
						return
					}
				}
				errs[i] = errors.New("an edit is not felt after a minute")
			})
		}
		group.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
		stored = append(stored, float64(answered.Sub(begun))/float64(time.Millisecond))
		felt = append(felt, float64(slices.Max(took))/float64(time.Millisecond))
	}
	values[storedValue], values[feltValue], values[feltMostValue] = median(stored), median(felt), slices.Max(felt)
	return nil
}
