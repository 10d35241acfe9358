package systemtest

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var soak = flag.Duration("soak", 0, "how long TestSoak puts load on two replicas, and print what they used as a table; 0 is what make test takes")

// shortSoak is what make test takes: three times as long as most of what a replica forgets by itself within seconds.
const shortSoak = 24 * time.Second

// A sample is what one replica uses at one moment.
type sample struct {
	at         time.Duration
	resident   float64 // bytes
	goroutines float64
	files      float64       // and sockets, open
	sockets    float64       // of these, connections of clients and to stores
	checks     int64         // since the sample before
	p99        time.Duration // of warm checks since the sample before
}

// metric reads one number of the server's metrics.
func (s *server) metric(name string) float64 {
	s.t.Helper()
	for line := range strings.Lines(s.probe("/metrics").body) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				s.t.Fatal(err)
			}
			return n
		}
	}
	s.t.Fatalf("there is no metric %s", name)
	return 0
}

// A mixture is the load of a soak: everything that clients do, in shares that keep two processors busy and not full.
type mixture struct {
	w      *cluster
	mu     sync.Mutex
	took   []time.Duration // of warm checks, since the last sample
	checks atomic.Int64
	wrong  atomic.Int64
	first  atomic.Value // of what was wrong

	answers, undecided atomic.Int64
}

// want counts what is answered as nobody may be. A machine that is too busy to decide in time says so, which is counted apart.
func (m *mixture) want(what string, r reply, statuses ...int) reply {
	m.answers.Add(1)
	if r.code(503, "authz.unavailable") {
		m.undecided.Add(1)
		return r
	}
	if r.err != nil || !slices.Contains(statuses, r.status) {
		m.wrong.Add(1)
		m.first.CompareAndSwap(nil, fmt.Sprintf("%s: %s", what, r))
	}
	return r
}

// check asks, and measures.
func (m *mixture) check(what string, c *client, path string, status int, headers ...string) {
	r := m.want(what, c.check(path, headers...), status)
	m.checks.Add(1)
	m.mu.Lock()
	m.took = append(m.took, r.took)
	m.mu.Unlock()
}

// TestSoak puts a mixed load on two replicas and holds that what they use does not grow: memory, goroutines, files,
// connections to the stores, and the time of a check. make soak SOAK=8h does so for hours, and prints a table.
func TestSoak(t *testing.T) {
	t.Parallel()
	length := *soak
	if length == 0 {
		length = shortSoak
	}
	c := newCluster(t, true, "BARONG_LOG_LEVEL=warn", "BARONG_SESSION_CACHE_TTL="+cacheTTL.String())
	m := &mixture{w: c}
	var known []*client
	var keys []*key
	for range 40 {
		known = append(known, c.open(c.person(false)))
	}
	for range 10 {
		p := c.person(true)
		keys = append(keys, &key{KID: p.kid, Secret: p.secret})
	}
	people := make([]*person, 20)
	for i := range people {
		people[i] = c.person(false)
	}
	both := func(n int) *server { return c.replicas[n%2] }
	done := make(chan struct{})
	var work sync.WaitGroup
	loop := func(pause time.Duration, f func(n int)) {
		work.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				case <-time.After(pause):
					f(n)
				}
			}
		})
	}
	for range 3 {
		loop(3*time.Millisecond, func(n int) {
			m.check("a known session", known[rand.IntN(len(known))].at(both(n)), account, 200)
		})
	}
	loop(10*time.Millisecond, func(n int) {
		m.check("a known key", both(n).client(), account, 200, keys[rand.IntN(len(keys))].sign()...)
	})
	loop(10*time.Millisecond, func(n int) { // strangers, each with another cookie and address
		s := both(n).client()
		s.cookie = fmt.Sprintf("_barong_session=%064x", rand.Uint64())
		m.want("a stranger", s.check(fmt.Sprintf("/api/v2/peatio/account/%d", n)), 401)
	})
	loop(15*time.Millisecond, func(n int) { // what is refused is counted by path
		m.want("a path of nobody", known[n%len(known)].at(both(n)).check(fmt.Sprintf("/denied/%d", n)), 401)
	})
	loop(400*time.Millisecond, func(n int) {
		s := both(n).client()
		if m.want("a sign-in", s.signIn(people[n%len(people)].Email, memberPassword), 201, 503).status != 201 {
			return
		}
		m.want("the session of a sign-in", s.at(both(n+1)).checkPatiently(account), 200)
		label := fmt.Sprintf("colour%d", n)
		if m.want("a label", s.call("POST", "/resource/labels", params{"key": label, "value": "blue"}), 201, 503).status == 201 {
			m.want("the end of a label", s.call("DELETE", "/resource/labels/"+label, nil), 204, 503)
		}
		m.want("the own account", s.call("GET", "/resource/users/me", nil), 200)
		m.want("a logout", s.call("DELETE", "/identity/sessions", nil), 204)
	})
	loop(700*time.Millisecond, func(n int) {
		m.want("a wrong password", both(n).client().signIn(people[n%len(people)].Email, "Wv8-mXq2+aaa"), 401, 503)
	})
	loop(time.Second, func(n int) {
		s := both(n).client()
		m.want("a sign-up", s.signUp(fmt.Sprintf("soak%d@example.com", n), memberPassword), 201, 503)
	})
	admin := *c.admin
	loop(500*time.Millisecond, func(n int) { // a rule comes and goes
		path := fmt.Sprintf("api/v2/soak/%d", n)
		at := admin.at(both(n))
		if m.want("a rule", at.call("POST", "/admin/permissions", params{"role": "soaker", "verb": "get", "path": path, "action": "accept"}), 201, 503).status != 201 {
			return
		}
		rows, err := c.db.PermissionsOf(context.Background(), "soaker")
		if err != nil || len(rows) == 0 {
			m.want(fmt.Sprint("rules: ", err), reply{})
			return
		}
		m.want("the end of a rule", at.call("DELETE", fmt.Sprintf("/admin/permissions?id=%d", rows[0].ID), nil), 204, 503)
	})
	loop(time.Second, func(n int) { m.want("a list", admin.at(both(n)).call("GET", "/admin/users?limit=50", nil), 200, 503) })

	every := max(length/40, time.Second)
	var samples [2][]sample
	begun := time.Now()
	for time.Since(begun) < length {
		time.Sleep(every)
		m.mu.Lock()
		took := m.took
		m.took = nil
		m.mu.Unlock()
		if len(took) == 0 {
			t.Fatal("no check was answered")
		}
		slices.Sort(took)
		for i, s := range c.replicas {
			files, sockets := descriptors(t, s)
			samples[i] = append(samples[i], sample{
				at: time.Since(begun), resident: s.metric("process_resident_memory_bytes"), goroutines: s.metric("go_goroutines"),
				files: files, sockets: sockets, checks: int64(len(took)), p99: took[len(took)*99/100],
			})
		}
	}
	close(done)
	work.Wait()
	if n := m.wrong.Load(); n > 0 {
		t.Errorf("%d answers were wrong, such as %v", n, m.first.Load())
	}
	if n, all := m.undecided.Load(), m.answers.Load(); n > all/100 {
		t.Errorf("%d of %d answers could not be decided", n, all)
	}
	var table strings.Builder
	fmt.Fprint(&table, "| After | Replica | Resident, MiB | Goroutines | Files | Sockets | Checks | p99 of a check |\n"+
		"| --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for i, all := range samples {
		for k, s := range all {
			if step := max(1, len(all)/12); k%step == 0 || k == len(all)-1 {
				fmt.Fprintf(&table, "| %s | %d | %.0f | %.0f | %.0f | %.0f | %d | %s |\n", s.at.Round(time.Second), i+1, s.resident/(1<<20), s.goroutines,
					s.files, s.sockets, s.checks, short(s.p99))
			}
		}
		flat(t, i+1, all)
	}
	t.Logf("\n%s", table.String())
	if *soak > 0 {
		fmt.Printf("\n%s\n", table.String())
	}
}

// descriptors counts what a replica has open.
func descriptors(t *testing.T, s *server) (files, sockets float64) {
	t.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", s.process.Pid))
	if err != nil || len(links) == 0 {
		t.Fatalf("%d open files, %v", len(links), err)
	}
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil {
			files++
			if strings.HasPrefix(to, "socket:") {
				sockets++
			}
		}
	}
	return files, sockets
}

// flat compares the last third of samples with the second, when everything has been used once.
func flat(t *testing.T, replica int, all []sample) {
	t.Helper()
	third := len(all) / 3
	if third < 2 {
		t.Fatalf("%d samples", len(all))
	}
	middle := func(s []sample, of func(sample) float64) float64 {
		values := make([]float64, len(s))
		for i := range s {
			values[i] = of(s[i])
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	// A machine that is busy with other things is slower by chance, for seconds at a time: in a short run only another order of
	// magnitude is growth.
	chance := time.Second
	if *soak >= 5*time.Minute {
		chance = 100 * time.Millisecond
	}
	for _, what := range []struct {
		name  string
		of    func(sample) float64
		share float64 // that it may grow
		some  float64 // and so much besides, which short runs need
	}{
		{"resident memory", func(s sample) float64 { return s.resident }, 0.10, 24 << 20},
		{"goroutines", func(s sample) float64 { return s.goroutines }, 0.10, 40},
		{"files", func(s sample) float64 { return s.files }, 0.10, 40},
		{"sockets", func(s sample) float64 { return s.sockets }, 0.10, 40},
		{"p99 of a check", func(s sample) float64 { return float64(s.p99) }, 1, float64(chance)},
	} {
		before, after := middle(all[third:2*third], what.of), middle(all[2*third:], what.of)
		if after > before*(1+what.share)+what.some {
			t.Errorf("replica %d: %s grew from %.0f to %.0f", replica, what.name, before, after)
		}
	}
}
