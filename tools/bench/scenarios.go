package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"barong/internal/crypto/keys"
	"barong/session/redisstore"
)

// people of a gateway, and how many of them each connection asks for in turn.
const people = 1024

// A contest is a row that is about to be measured.
type contest struct {
	row
	base, server     *server
	baseCallers, our []caller
}

// compete lets two servers take turns, and adds the row.
func (b *bench) compete(c *contest) error {
	defer closeAll(c.baseCallers)
	defer closeAll(c.our)
	b.say("%s", c.Name)
	warm := max(b.turn/4, 100*time.Millisecond)
	for i := range b.rounds + 1 {
		turn := b.turn
		if i == 0 {
			turn = warm
		}
		base, err := measure(c.base, c.baseCallers, turn)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", c.Name, c.Base, err)
		}
		our, err := measure(c.server, c.our, turn)
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", c.Name, err, c.server.log.String())
		}
		if err := b.ctx.Err(); err != nil {
			return err
		}
		if i > 0 {
			c.BaseRounds, c.Rounds = append(c.BaseRounds, base), append(c.Rounds, our)
		}
	}
	r := c.row
	b.add(&r)
	return nil
}

// add settles a row and puts it into the report.
func (b *bench) add(r *row) {
	r.settle()
	b.report.Rows = append(b.report.Rows, r)
}

func closeAll(callers []caller) {
	for _, c := range callers {
		c.close()
	}
}

// measure is one turn of one server.
func measure(s *server, callers []caller, turn time.Duration) (sample, error) {
	instructions, countErr := countInstructions(s.pid())
	before, clockErr := processorTime(s.pid())
	l, err := loop(callers, turn)
	counted := int64(0)
	if countErr == nil {
		counted, countErr = instructions()
	}
	if err != nil {
		return sample{}, err
	}
	if l.requests == 0 {
		return sample{}, fmt.Errorf("no answer within %v", turn)
	}
	v := sample{
		Rate: float64(l.requests) / l.took.Seconds(),
		P50:  float64(l.p50) / float64(time.Microsecond), P99: float64(l.p99) / float64(time.Microsecond),
	}
	if countErr == nil {
		v.Instructions = float64(counted) / float64(l.requests)
	}
	if clockErr == nil {
		after, err := processorTime(s.pid())
		if err != nil {
			return sample{}, err
		}
		v.Processor = float64(after-before) / float64(time.Microsecond) / float64(l.requests)
		v.Busy = (after - before).Seconds() / l.took.Seconds()
	}
	return v, nil
}

// callers makes a caller per connection; requests are dealt out to them.
func (b *bench) callers(addr string, status int, requests [][]byte) ([]caller, error) {
	var list []caller
	for i := range b.connections {
		var own [][]byte
		for j := i; j < len(requests); j += b.connections {
			own = append(own, slices.Clone(requests[j]))
		}
		c, err := newHTTPCaller(addr, status, own...)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

// beside measures requests at a server beside a bare one that gives the server's answer to the first of them.
func (b *bench) beside(r row, s *server, requests [][]byte) error {
	bare, err := b.bareLike(s, requests)
	if err != nil {
		return fmt.Errorf("%s: %w", r.Name, err)
	}
	c := contest{row: r, base: bare, server: s}
	if r.Base == "" {
		c.Base = "bare fasthttp"
	}
	if c.baseCallers, err = b.callers(bare.addr, bare.status, requests); err != nil {
		return err
	}
	if c.our, err = b.callers(s.addr, bare.status, requests); err != nil {
		return err
	}
	return b.compete(&c)
}

// bareLike starts a bare server that gives a server's answer to the first of the requests.
func (b *bench) bareLike(s *server, requests [][]byte) (*server, error) {
	a, err := ask(s.addr, requests[0])
	if err != nil {
		return nil, err
	}
	bare, err := b.startChild(childBare, &childSpec{Answer: *a})
	if err != nil {
		return nil, err
	}
	same, err := ask(bare.addr, requests[0])
	if err != nil {
		return nil, err
	}
	if same.Status != a.Status || same.size() != a.size() {
		return nil, fmt.Errorf("the bare server answers %d in %d bytes, the gateway %d in %d", same.Status, same.size(), a.Status, a.size())
	}
	bare.status = a.Status
	return bare, nil
}

// requests are those of the first n people.
func requests(n int, make func(i int) []byte) [][]byte {
	var list [][]byte
	for i := range n {
		list = append(list, make(i))
	}
	return list
}

const checkPrefix = "/api/v2/auth"

func cookieCheck(i int) []byte { return wire("GET", checkPrefix+allowedPath, browserOf(i)...) }

// everything runs what is wanted. What one part could not measure keeps no other from being measured.
func (b *bench) everything() (failed error) {
	for _, part := range []struct {
		names []string
		quick bool // is part of a smoke test
		run   func() error
	}{
		{[]string{
			"cookie", "pass list", "refused: no session", "refused: DROP", "forward-auth", "gRPC", "API key, replay local",
			"API key, RFC 9421, HMAC", "API key, RFC 9421, Ed25519", "through Envoy, HTTP", "through Envoy, gRPC", "latency at half load",
		}, true, b.embedded},
		{[]string{"API key, replay off"}, false, b.withoutReplay},
		{[]string{"API key, replay shared", "new sessions"}, false, b.shared},
		{[]string{"sign in"}, false, b.signIns},
		{[]string{"cold check"}, false, b.cold},
		{[]string{"10,000 permissions", "1,000,000 sessions", "bytes a session"}, false, b.sizes},
		{[]string{"start", "resident memory", "size of the program"}, true, b.footprint},
		{[]string{"Go benchmarks"}, false, b.benchmarks},
	} {
		if b.quick && !part.quick || !b.wanted(part.names...) {
			continue
		}
		if err := part.run(); err != nil {
			failed = errors.Join(failed, err)
			b.report.Notes = append(b.report.Notes, "Not everything was measured: "+err.Error())
		}
		b.stopAll()
		if err := b.ctx.Err(); err != nil {
			return err
		}
	}
	return failed
}

func (b *bench) folder(name string) (string, error) {
	dir := filepath.Join(b.tmp, name)
	return dir, os.MkdirAll(dir, 0o700)
}

// embedded measures a gateway that runs complete by itself.
func (b *bench) embedded() error {
	dir, err := b.folder("embedded")
	if err != nil {
		return err
	}
	n := people
	if b.quick {
		n = 64
	}
	b.say("filling a database")
	if err := fill(b.ctx, dir, "", n, n); err != nil {
		return err
	}
	proxies, err := trustedHere()
	if err != nil {
		return err
	}
	gateway, err := b.startGateway(dir, proxies)
	if err != nil {
		return err
	}
	warm := requests(n, cookieCheck)
	if err := b.each(gateway, warm, 200); err != nil {
		return err
	}
	for _, r := range []struct {
		row
		checks [][]byte
	}{
		{row{Name: "cookie", Target: ">= 0.85, p99 <= 1.5"}, warm},
		{row{Name: "pass list"}, requests(n, func(i int) []byte { return wire("GET", checkPrefix+passedPath, browserOf(i)...) })},
		{row{Name: "refused: no session", Target: ">= 0.85"}, requests(n, func(i int) []byte {
			return wire("GET", checkPrefix+allowedPath, append([]string{"User-Agent: " + userAgent, "Accept: */*"}, forwarded...)...)
		})},
		{row{Name: "refused: DROP", Target: ">= 0.85"}, requests(n, func(i int) []byte {
			return wire("GET", checkPrefix+droppedPath, browserOf(i)...)
		})},
		{row{Name: "forward-auth"}, requests(n, func(i int) []byte {
			return wire("GET", "/api/v2/forward-auth", append(browserOf(i), "X-Forwarded-Method: GET", "X-Forwarded-Uri: "+allowedPath)...)
		})},
	} {
		if !b.wanted(r.Name) {
			continue
		}
		if err := b.beside(r.row, gateway, r.checks); err != nil {
			return err
		}
	}
	for _, r := range []struct{ name, scheme, target string }{
		{"API key, replay local", schemeNonce, ">= 0.70"},
		{"API key, RFC 9421, HMAC", schemeHMAC, ""},
		{"API key, RFC 9421, Ed25519", schemeEd25519, ""},
	} {
		if !b.wanted(r.name) {
			continue
		}
		if err := b.apiKeys(row{Name: r.name, Target: r.target}, r.scheme, gateway, n); err != nil {
			return err
		}
	}
	if b.wanted("gRPC") {
		if err := b.overGRPC(gateway, n); err != nil {
			return err
		}
	}
	if !b.quick {
		if err := b.throughEnvoy(gateway, warm); err != nil {
			return err
		}
	}
	if b.wanted("latency at half load") {
		return b.halfLoad(gateway, warm)
	}
	return nil
}

// each sends every request once, so that what they need is in memory.
func (b *bench) each(s *server, requests [][]byte, status int) error {
	c, err := newHTTPCaller(s.addr, status, requests...)
	if err != nil {
		return err
	}
	defer c.close()
	for range requests {
		if err := c.call(); err != nil {
			return fmt.Errorf("%w\n%s", err, s.log.String())
		}
	}
	return nil
}

// apiKeys measures checks of API keys. Every request is signed as it is sent, whichever server it goes to.
func (b *bench) apiKeys(r row, scheme string, gateway *server, people int) error {
	make := func(addr string) ([]caller, error) {
		var list []caller
		for i := range b.connections {
			var requests [][]byte
			var signers []signer
			for j := i; j < people; j += b.connections {
				request, s := botOf(j, scheme, checkPrefix, allowedPath)
				requests, signers = append(requests, request), append(signers, s)
			}
			c, err := newHTTPCaller(addr, 200, requests...)
			if err != nil {
				return nil, err
			}
			signed(c, signers)
			c.lenient = strings.HasSuffix(r.Name, "shared")
			list = append(list, c)
		}
		return list, nil
	}
	request, s := botOf(0, scheme, checkPrefix, allowedPath)
	s.sign(request)
	a, err := ask(gateway.addr, request)
	if err != nil {
		return err
	}
	if a.Status != 200 {
		return fmt.Errorf("%s: got %d %s", r.Name, a.Status, a.Body)
	}
	bare, err := b.startChild(childBare, &childSpec{Answer: *a})
	if err != nil {
		return err
	}
	c := contest{row: r, base: bare, server: gateway}
	c.Base = "bare fasthttp"
	if c.baseCallers, err = make(bare.addr); err != nil {
		return err
	}
	if c.our, err = make(gateway.addr); err != nil {
		return err
	}
	// Each key has to be read and get its token once.
	for _, one := range c.our {
		for range (people + b.connections - 1) / b.connections {
			if err := one.call(); err != nil {
				return err
			}
		}
	}
	return b.compete(&c)
}

func (b *bench) overGRPC(gateway *server, people int) error {
	a, err := ask(gateway.addr, cookieCheck(0))
	if err != nil {
		return err
	}
	token := ""
	for _, h := range a.Headers {
		if h[0] == "Authorization" {
			token = h[1]
		}
	}
	base, err := b.startChild(childGRPC, &childSpec{Token: token})
	if err != nil {
		return err
	}
	c := contest{row: row{Name: "gRPC", Base: "gRPC server", Target: ">= 0.90"}, base: base, server: gateway}
	for i := range b.connections {
		one, err := newGRPCCaller(base.addr, checkRequest(i%people, allowedPath))
		if err != nil {
			return err
		}
		other, err := newGRPCCaller(gateway.grpc, checkRequest(i%people, allowedPath))
		if err != nil {
			return err
		}
		c.baseCallers, c.our = append(c.baseCallers, one), append(c.our, other)
	}
	return b.compete(&c)
}

// halfLoad measures latency at half of the rate that the gateway reaches in a closed loop.
func (b *bench) halfLoad(gateway *server, checks [][]byte) error {
	a, err := ask(gateway.addr, checks[0])
	if err != nil {
		return err
	}
	bare, err := b.startChild(childBare, &childSpec{Answer: *a})
	if err != nil {
		return err
	}
	var callers [2][]caller
	for i, s := range []*server{bare, gateway} {
		if callers[i], err = b.callers(s.addr, 200, checks); err != nil {
			return err
		}
		defer closeAll(callers[i])
	}
	full, err := measure(gateway, callers[1], b.turn)
	if err != nil {
		return err
	}
	r := row{Name: "latency at half load", Base: "bare fasthttp", Target: "<= 1.5"}
	b.say("%s, %.0f a second", r.Name, full.Rate/2)
	for range b.rounds {
		for i, to := range []*[]sample{&r.BaseRounds, &r.Rounds} {
			p50, p99, err := pace(callers[i], full.Rate/2, b.turn)
			if err != nil {
				return fmt.Errorf("%s: %w", r.Name, err)
			}
			*to = append(*to, sample{P50: micros(p50), P99: micros(p99)})
		}
	}
	b.add(&r)
	return nil
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func (b *bench) withoutReplay() error {
	dir, err := b.folder("off")
	if err != nil {
		return err
	}
	if err := fill(b.ctx, dir, "", people, 1); err != nil {
		return err
	}
	gateway, err := b.startGateway(dir, "BARONG_APIKEY_REPLAY=off")
	if err != nil {
		return err
	}
	return b.apiKeys(row{Name: "API key, replay off"}, schemeNonce, gateway, people)
}

// shared measures a gateway whose sessions and nonces are in Valkey.
func (b *bench) shared() error {
	dir, err := b.folder("shared")
	if err != nil {
		return err
	}
	url, err := b.startValkey(dir)
	if err != nil {
		return err
	}
	if err := fill(b.ctx, dir, url, people, people+stormSessions); err != nil {
		return err
	}
	gateway, err := b.startGateway(dir, "BARONG_APIKEY_REPLAY=shared", "BARONG_REDIS_URL="+url)
	if err != nil {
		return err
	}
	if b.wanted("API key, replay shared") {
		if err := b.apiKeys(row{Name: "API key, replay shared"}, schemeNonce, gateway, people); err != nil {
			return err
		}
	}
	if b.wanted("new sessions") {
		return b.storm(dir, url)
	}
	return nil
}

// A storm: so many sessions are new within so long.
const (
	stormSessions = 10_000
	stormTime     = 5 * time.Second
)

// storm measures how long warm checks take while every other one is the first of its session, which has to be read from
// Valkey and signed for: latency at a constant rate, without and with the storm.
func (b *bench) storm(dir, url string) error {
	for _, algorithm := range []string{keys.EdDSA, keys.RS256} {
		r := row{Name: "warm checks while 10,000 new sessions come, " + algorithm, Base: "without them", Target: "<= 2"}
		b.say("%s", r.Name)
		if err := os.RemoveAll(filepath.Join(dir, "data", "jwt")); err != nil {
			return err
		}
		for range b.rounds {
			// Started anew, it remembers no session.
			gateway, err := b.startGateway(dir, "BARONG_REDIS_URL="+url, "BARONG_JWT_ALGORITHM="+algorithm)
			if err != nil {
				return err
			}
			if err := b.stormOnce(&r, gateway); err != nil {
				return fmt.Errorf("%s: %w\n%s", r.Name, err, gateway.log.String())
			}
			gateway.stop()
			b.servers = b.servers[:len(b.servers)-1]
		}
		b.add(&r)
	}
	return nil
}

func (b *bench) stormOnce(r *row, gateway *server) error {
	warm := func(turn time.Duration) (sample, error) {
		p50, p99, err := at(warmRate, turn, "http://"+gateway.addr+checkPrefix+allowedPath, browserOf(0), 200)
		return sample{P50: micros(p50), P99: micros(p99)}, err
	}
	if _, err := warm(b.turn / 4); err != nil {
		return err
	}
	quiet, err := warm(stormTime / 2)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- b.newSessions(gateway) }()
	loud, err := warm(stormTime)
	if err := errors.Join(err, <-ended); err != nil {
		return err
	}
	r.BaseRounds, r.Rounds = append(r.BaseRounds, quiet), append(r.Rounds, loud)
	return nil
}

// warmRate is how many warm checks a second come beside a storm.
const warmRate = 500

// newSessions checks each session for the first time, evenly spread over the time of the storm. What cannot be decided in time (503) is asked again later by its browser, and is no failure here.
func (b *bench) newSessions(gateway *server) error {
	begin := time.Now()
	var next atomic.Int64
	next.Store(people) // those before are warm
	errs := make(chan error, 64)
	for range cap(errs) {
		go func() {
			errs <- func() error {
				c, err := newHTTPCaller(gateway.addr, 0, nil)
				if err != nil {
					return err
				}
				defer c.close()
				for {
					i := int(next.Add(1)) - 1
					if i >= people+stormSessions {
						return nil
					}
					time.Sleep(time.Until(begin.Add(stormTime * time.Duration(i-people) / stormSessions)))
					c.requests[0], c.next = cookieCheck(i), 0
					if err := c.call(); err != nil {
						return err
					}
				}
			}()
		}()
	}
	var all error
	for range cap(errs) {
		all = errors.Join(all, <-errs)
	}
	return all
}

// cold measures checks whose session has to be read from Valkey, beside a bare server that makes one GET through the same
// client. The token is kept, since what a signature costs is the choice of its algorithm.
func (b *bench) cold() error {
	dir, err := b.folder("cold")
	if err != nil {
		return err
	}
	url, err := b.startValkey(dir)
	if err != nil {
		return err
	}
	client, err := redisstore.Connect(url)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.Set(b.ctx, getKey, strings.Repeat("x", 300), 0).Err(); err != nil { // as long as a session is
		return err
	}
	t := contest{row: row{Name: "cold check", Base: "bare fasthttp and a GET", Target: ">= 0.60"}}
	t.server, err = b.startChild(childStack, &childSpec{
		RedisURL: url, Cold: true, Sessions: people, Permissions: 10, Algorithm: keys.EdDSA,
	})
	if err != nil {
		return err
	}
	checks := requests(people, cookieCheck)
	if err := b.each(t.server, checks, 200); err != nil {
		return err
	}
	a, err := ask(t.server.addr, checks[0])
	if err != nil {
		return err
	}
	if t.base, err = b.startChild(childGet, &childSpec{RedisURL: url, Answer: *a}); err != nil {
		return err
	}
	if t.baseCallers, err = b.callers(t.base.addr, 200, checks); err != nil {
		return err
	}
	if t.our, err = b.callers(t.server.addr, 200, checks); err != nil {
		return err
	}
	return b.compete(&t)
}

// sizes measures what the number of rules and of sessions adds: the same stack, small beside large.
func (b *bench) sizes() error {
	const few = 1_000
	for _, c := range []struct {
		row
		small, large childSpec
	}{
		{
			row{Name: "10,000 permissions", Base: "10 permissions", Target: ">= 0.91 (1.1 times the cost)"},
			childSpec{Sessions: few, Permissions: 10},
			childSpec{Sessions: few, Permissions: 10_000},
		},
		{
			row{Name: "1,000,000 sessions", Base: "1,000 sessions", Target: ">= 0.80 (1.25 times the cost)"},
			childSpec{Sessions: few, Permissions: 10},
			childSpec{Sessions: 1_000_000, Permissions: 10},
		},
	} {
		if !b.wanted(c.Name) {
			continue
		}
		t := contest{row: c.row}
		var sides []func() error
		for _, side := range []struct {
			spec    *childSpec
			server  **server
			callers *[]caller
		}{{&c.small, &t.base, &t.baseCallers}, {&c.large, &t.server, &t.our}} {
			side.spec.Algorithm = keys.EdDSA
			b.say("%s: a stack of %d sessions and %d permissions", c.Name, side.spec.Sessions, side.spec.Permissions)
			s, err := b.startChild(childStack, side.spec)
			if err != nil {
				return err
			}
			// The sessions that are asked for lie far apart among all of them. More than the small stack has would measure
			// what the requests themselves take of the caches.
			apart := side.spec.Sessions / few
			checks := requests(few, func(i int) []byte { return cookieCheck(i * apart) })
			if err := b.each(s, checks, 200); err != nil {
				return err
			}
			*side.server = s
			sides = append(sides, func() error {
				*side.callers, err = b.callers(s.addr, 200, checks)
				return err
			})
		}
		for _, connect := range sides { // now that both are there: an idle connection is soon closed
			if err := connect(); err != nil {
				return err
			}
		}
		var note stackNote
		if err := json.Unmarshal([]byte(t.server.note), &note); err != nil {
			return err
		}
		if err := b.compete(&t); err != nil {
			return err
		}
		if c.large.Sessions > few {
			b.report.Facts = append(b.report.Facts, fact{"memory of a session and its user", note.BytesPerSession, "bytes", "<= 560"})
		}
		b.stopAll()
	}
	return nil
}

// footprint measures how soon a gateway answers its first check, and what it takes of memory and disk.
func (b *bench) footprint() error {
	dir, err := b.folder("footprint")
	if err != nil {
		return err
	}
	if err := fill(b.ctx, dir, "", 8, 8); err != nil {
		return err
	}
	b.say("start")
	var starts []float64
	var last *server
	for i := range b.rounds + 1 { // the first makes the keys
		begin := time.Now()
		s, err := b.launch(b.serverCore, dir)
		if err != nil {
			return err
		}
		if err := s.await(30 * time.Second); err != nil {
			return err
		}
		if i > 0 {
			starts = append(starts, float64(time.Since(begin))/float64(time.Millisecond))
		}
		if last = s; i < b.rounds {
			b.stopAll()
		}
	}
	if !b.quick {
		time.Sleep(5 * time.Second) // until it is idle
	}
	memory, err := resident(last.pid())
	if err != nil {
		return err
	}
	program, err := os.Stat(b.program)
	if err != nil {
		return err
	}
	b.report.Facts = append(b.report.Facts,
		fact{"start to the first answered check, a warm embedded database", median(starts), "ms", "< 150"},
		fact{"resident memory when idle", float64(memory) / (1 << 20), "MiB", "< 40"},
		fact{"size of the program", float64(program.Size()) / (1 << 20), "MiB", ""},
	)
	return nil
}

// benchmarks runs the Go benchmarks of the check's path.
func (b *bench) benchmarks() error {
	b.say("Go benchmarks")
	c := exec.CommandContext(b.ctx, "go", "test", "-run=^$", "-bench=Check(Cookie|APIKey|Pass|Block|$)|Session$|Deadlines", "-benchmem", "-benchtime=200ms", "-cpu=1",
		"./authz", "./envoy", "./session/near")
	c.Dir = b.root
	out, err := c.Output()
	if err != nil {
		return fmt.Errorf("go test -bench: %w\n%s", err, out)
	}
	b.report.Benchmarks = parseBenchmarks(string(out))
	return nil
}
