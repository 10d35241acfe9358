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
	} {
		if _, err := conn.Exec(d.b.ctx, s.sql, s.args...); err != nil {
			return fmt.Errorf("%w\n%s", err, s.sql)
		}
	}
	u, err := d.db.UserByUID(d.b.ctx, uidOf(0))
	if err != nil {
		return err
	}
	store := redisstore.New(d.redis)
	const makers = 16
	var all sync.WaitGroup
	errs := make([]error, makers)
	for m := range makers {
		all.Go(func() {
			for i := d.people + m; i < n && errs[m] == nil; i += makers {
				s := sessionOf(i)
				s.UID, s.Epoch = uidOf(i), u.Epoch()
				errs[m] = store.Create(d.b.ctx, s)
			}
		})
	}
	all.Wait()
	d.people = n
	return errors.Join(errs...)
}

// replica starts one, and tells how long it took until it answered, and how much of a processor.
func (d *deployment) replica() (s *server, took, processor time.Duration, err error) {
	begun := time.Now()
	if s, err = d.b.launch(d.dir, d.settings...); err != nil {
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
		err = fmt.Errorf("%s %s: got %d %s, want %d", method, path, res.StatusCode, text, status)
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

// cost calls f so often, and returns the median of its times and the mean of what a replica spent of a processor, both in
// milliseconds.
func (d *deployment) cost(s *server, times int, f func(n int) error) (took, processor float64, err error) {
	before, err := processorTime(s.pid())
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
	after, err := processorTime(s.pid())
	return median(all), float64(after-before) / float64(time.Millisecond) / float64(times), err
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
			rateValue, processorValue, p99Value, memoryValue, startValue, startCPUValue, signInValue, signInCPUValue, storedValue, firstValue,
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
		if s, took, processor, err = d.replica(); err != nil {
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
	callers, err := b.callers(s.addr, 200, checks)
	if err != nil {
		return nil, err
	}
	v, err := b.middle(s, callers)
	closeAll(callers)
	if err != nil {
		return nil, err
	}
	out[rateValue], out[processorValue], out[p99Value] = v.Rate, v.Processor, v.P99
	r, err := resident(s.pid())
	if err != nil {
		return nil, err
	}
	out[memoryValue] = float64(r) / (1 << 20)

	times := 4 * max(1, b.rounds)
	person := func(n int) int { return n * 7919 % d.people }
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
	togetherValue = "checks a second of all replicas on one processor"
	feltValue     = "an edit: felt at all replicas"
)

// scaleReplicas runs several replicas on one processor, each with its share of the load and so of the processor: what they
// answer together says what a replica more costs, and a check's processor time what each would answer on one of its own.
func (b *bench) scaleReplicas(counts []int) (*dimension, error) {
	g := &dimension{
		name: "replicas", unit: "replicas that share one processor", values: []string{togetherValue, processorValue, p99Value, memoryValue, feltValue},
		units: map[string]string{processorValue: "µs", p99Value: "µs", memoryValue: "MiB", feltValue: "ms"},
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
	var replicas []*server
	for _, n := range counts {
		b.say("%d replicas", n)
		for len(replicas) < n {
			s, _, _, err := d.replica()
			if err != nil {
				return nil, err
			}
			replicas = append(replicas, s)
		}
		values, err := d.together(replicas, requests(asked, cookieCheck))
		if err != nil {
			return nil, fmt.Errorf("%d replicas: %w", n, err)
		}
		b.say("%v", values)
		g.steps = append(g.steps, scaleStep{n, values})
	}
	return g, nil
}

// together measures replicas that are all asked at the same time.
func (d *deployment) together(replicas []*server, checks [][]byte) (map[string]float64, error) {
	b, out := d.b, map[string]float64{}
	var callers []caller
	defer func() { closeAll(callers) }()
	for _, s := range replicas {
		if err := b.each(s, checks, 200); err != nil {
			return nil, err
		}
	}
	for _, s := range replicas {
		own, err := b.callers(s.addr, 200, checks)
		if err != nil {
			return nil, err
		}
		mine := max(1, len(own)/len(replicas))
		callers = append(callers, own[:mine]...)
		closeAll(own[mine:])
	}
	used := func() (sum time.Duration, err error) {
		for _, s := range replicas {
			t, e := processorTime(s.pid())
			sum, err = sum+t, errors.Join(err, e)
		}
		return sum, err
	}
	var rates, processors, p99s []float64
	for range b.rounds {
		before, err := used()
		if err != nil {
			return nil, err
		}
		l, err := loop(callers, b.turn)
		if err != nil {
			return nil, err
		}
		after, err := used()
		if err != nil {
			return nil, err
		}
		rates, p99s = append(rates, float64(l.requests)/l.took.Seconds()), append(p99s, micros(l.p99))
		processors = append(processors, micros(after-before)/float64(l.requests))
	}
	out[togetherValue], out[processorValue], out[p99Value] = median(rates), median(processors), median(p99s)
	for _, s := range replicas {
		r, err := resident(s.pid())
		if err != nil {
			return nil, err
		}
		out[memoryValue] = max(out[memoryValue], float64(r)/(1<<20))
	}
	var felt []float64
	for n := range 4 * max(1, b.rounds) {
		path := fmt.Sprintf("api/v2/peatio/account/edited/%d/%03d", len(replicas), n)
		for _, s := range replicas {
			if err := d.call(s, 0, "GET", checkPrefix+"/"+path, nil, 200); err != nil {
				return nil, err
			}
		}
		if err := d.edit(replicas[n%len(replicas)], path); err != nil {
			return nil, err
		}
		answered := time.Now()
		for _, s := range replicas {
			for d.call(s, 0, "GET", checkPrefix+"/"+path, nil, 401) != nil {
				if time.Since(answered) > time.Minute {
					return nil, errors.New("an edit is not felt after a minute")
				}
			}
		}
		felt = append(felt, float64(time.Since(answered))/float64(time.Millisecond))
	}
	out[feltValue] = median(felt)
	return out, nil
}
