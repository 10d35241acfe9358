package systemtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"barong/internal/test/testkit"
)

// Bounds of trust: how long after its answer an edit may still not be felt, whatever fails. Memory of sessions, users and
// keys counts for the cache's lifetime; rules are asked for so often that five seconds are kept. A second is for the machine.
const (
	trustOfMemory = cacheTTL + time.Second
	trustOfRules  = 6 * time.Second
)

// A subject is a session, an API key or a rule, with what the oracle knows of it.
type subject struct {
	name  string
	kind  string // of the edit that ends it
	code  string // of its refusal
	trust time.Duration
	ask   func(at *server) reply

	mu      sync.Mutex
	asked   bool        // somebody has begun to end it
	ended   time.Time   // when that was answered; zero while it is not known to be ended
	refused []time.Time // when each replica refused it first, after that
	lost    time.Time   // when it was refused first and nobody had asked for that
}

// An oracle knows what every session, key and rule may do, while others ask the replicas, and edit at them, all the time.
type oracle struct {
	w        *world
	hit      map[int]bool // replicas that the drill stops or hurts themselves
	lossy    bool         // sign-ins may be lost
	excuses  []string     // codes that the hit replicas may answer
	steady   bool         // nobody is refused as undecidable where the drill hurts nothing
	must     []string     // kinds of edits that have to be answered
	subjects []*subject   // that checks ask about at random; guarded by mu
	keepers  []*subject   // never ended
	stock    []*subject
	edits    []change // of the stock
	labels   []string // that were answered

	stop     chan struct{}
	work     sync.WaitGroup
	mu       sync.Mutex
	faults   map[string]int // what must never be, with how often
	refusals map[string]int // edits that were refused and should not have been, on a machine that is not too busy
	felt     []time.Duration
	last     []time.Time     // for each replica: when a check of a keeper last passed
	gap      []time.Duration // the longest time in which none did
	back     time.Duration
	logged   []int         // how much each replica had logged before
	stall    time.Duration // the longest time in which this process, and so maybe a replica, did not get to run

	checks, passed, unavailable, silent, elsewhere, done, unanswered, lost, odd atomic.Int64
}

func (o *oracle) fault(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.faults[fmt.Sprintf(format, args...)]++
}

// look asks a replica about a subject, and judges the answer.
func (o *oracle) look(s *subject, i int) reply {
	begun := time.Now()
	r := s.ask(o.w.replicas[i])
	o.judge(s, i, begun, r)
	return r
}

func (o *oracle) judge(s *subject, i int, begun time.Time, r reply) {
	now := time.Now()
	o.checks.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case r.err != nil:
		o.silent.Add(1)
		if !o.hit[i] {
			o.elsewhere.Add(1)
		}
	case r.status == 503:
		o.unavailable.Add(1)
		if !o.hit[i] {
			o.elsewhere.Add(1)
		}
		if !r.code(503, "authz.unavailable") {
			o.fault("a 503 without its code: %s", r)
		}
	case r.status == 200:
		o.passed.Add(1)
		o.sawPass(s, i, begun, now)
	case o.refusal(s, r):
		switch {
		case !s.asked && o.lossy:
			if s.lost.IsZero() {
				s.lost = now
				o.lost.Add(1)
			}
		case !s.asked:
			o.fault("a live %s was refused: %s", s.name, r)
		case !s.ended.IsZero() && s.refused[i].IsZero():
			s.refused[i] = now
		}
	case o.hit[i] && o.excused(r):
		o.odd.Add(1)
	default:
		o.fault("%s: %s", s.name, r)
	}
}

// excused reports whether an answer is one that a replica which the drill hurts may give.
func (o *oracle) excused(r reply) bool {
	return slices.ContainsFunc(o.excuses, func(code string) bool { return r.body == `{"errors":["`+code+`"]}` })
}

// refusal reports whether an answer is that of a subject that has ended. Where sessions may be lost, it may also be about
// the session of whoever asks about a rule.
func (o *oracle) refusal(s *subject, r reply) bool {
	return r.code(401, s.code) || o.lossy && r.code(401, "authz.invalid_session")
}

// sawPass judges a check that passed. The subject is locked.
func (o *oracle) sawPass(s *subject, i int, begun, now time.Time) {
	if !s.ended.IsZero() && begun.After(s.ended) {
		if late := begun.Sub(s.ended); late > s.trust {
			o.fault("%s passed %s after it was ended", s.name, late.Round(time.Millisecond))
		}
		if at := s.refused[i]; !at.IsZero() && begun.After(at) {
			o.fault("%s passed again", s.name)
		}
	}
	// What Redis has lost, replicas still remember that have read it before: for as long as memory is trusted.
	if late := begun.Sub(s.lost); !s.lost.IsZero() && late > trustOfMemory {
		o.fault("%s passed again %s after it had been lost", s.name, late.Round(time.Millisecond))
	}
	if s.asked {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.gap[i] = max(o.gap[i], now.Sub(o.last[i]))
	o.last[i] = now
}

// edit ends a subject at a replica, and follows at all of them how soon that is felt.
func (o *oracle) edit(s *subject, c change, i int) {
	s.mu.Lock()
	s.asked = true
	s.mu.Unlock()
	r := c.edit(o.w.replicas[i])
	answered := time.Now()
	if r.err != nil || r.status != c.done {
		o.unanswered.Add(1)
		if o.hit[i] && o.excused(r) {
			o.odd.Add(1)
		} else if *drilling && !o.hit[i] && slices.Contains(o.must, s.kind) {
			o.mu.Lock()
			o.refusals[fmt.Sprintf("the edit %s was not answered: %s", s.kind, r)]++
			o.mu.Unlock()
		} else if r.err == nil && r.status != 503 && !(o.lossy && (r.status == 401 || r.status == 404)) {
			o.fault("the end of %s: %s", s.name, r)
		}
		return
	}
	o.done.Add(1)
	s.mu.Lock()
	s.ended = answered
	s.mu.Unlock()
	for i := range o.w.replicas {
		o.work.Go(func() {
			for {
				begun := time.Now()
				r := o.look(s, i)
				if r.code(401, s.code) {
					o.mu.Lock()
					if !o.hit[i] { // one that is down feels it when it is back
						o.felt = append(o.felt, begun.Sub(answered))
					}
					o.mu.Unlock()
					return
				}
				select {
				case <-o.stop:
					return
				case <-time.After(time.Millisecond):
				}
			}
		})
	}
}

// loop calls f until the drill ends, with so long a pause between calls.
func (o *oracle) loop(pause time.Duration, f func(n int)) {
	o.work.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-o.stop:
				return
			case <-time.After(pause):
				f(n)
			}
		}
	})
}

// stockOf are edits of all kinds, by their shares.
func (w *world) stockOf(o *oracle, n int) {
	var names []int
	for k, kind := range kinds {
		for range kind.share {
			names = append(names, k)
		}
	}
	rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for i := range n {
		kind := kinds[names[i%len(names)]]
		w.made++
		c := kind.make(w.cluster, w.made)
		s := &subject{name: "a subject of the edit " + kind.name, kind: kind.name, code: c.code, trust: trustOfMemory, ask: c.ask}
		if kind.name == "permission" || kind.name == "restriction" {
			s.trust = trustOfRules
		}
		o.stock, o.edits = append(o.stock, s), append(o.edits, c)
	}
}

// begin makes the people of a drill, waits until every replica knows them, and lets the load begin.
func (w *world) begin(t *testing.T, d *drill) *oracle {
	t.Helper()
	w.admin = w.a.admin()
	o := &oracle{
		w: w, hit: map[int]bool{}, lossy: d.lossy, excuses: d.excuses, steady: d.steady, must: d.must, stop: make(chan struct{}), faults: map[string]int{}, refusals: map[string]int{},
		last: make([]time.Time, len(w.replicas)), gap: make([]time.Duration, len(w.replicas)),
	}
	for _, i := range d.hits {
		o.hit[i] = true
	}
	for _, s := range w.replicas {
		o.logged = append(o.logged, len(s.process.Output()))
	}
	for range 6 {
		s := w.open(w.person(false))
		o.keepers = append(o.keepers, &subject{
			name: "session", code: "authz.invalid_session", ask: func(at *server) reply { return s.at(at).check(account) },
		})
	}
	for range 3 {
		p := w.person(true)
		k := &key{KID: p.kid, Secret: p.secret}
		o.keepers = append(o.keepers, &subject{
			name: "API key", code: "authz.unexistent_apikey", ask: func(at *server) reply { return at.client().check(account, k.sign()...) },
		})
	}
	stock := 48
	if !*drilling {
		stock = 16
	}
	w.stockOf(o, stock)
	people := make([]*person, 12)
	for i := range people {
		people[i] = w.person(false)
	}
	labelled := w.person(false)
	o.subjects = slices.Concat(o.keepers, o.keepers, o.stock) // keepers are asked for more often
	for _, s := range o.subjects {
		s.refused = make([]time.Time, len(w.replicas))
	}
	for i, at := range w.replicas {
		for _, s := range slices.Concat(o.keepers, o.stock) {
			testkit.Eventually(t, patience, func() bool { return s.ask(at).status == 200 })
		}
		o.last[i] = time.Now()
	}

	for i := range w.replicas {
		for range 2 {
			o.loop(8*time.Millisecond, func(int) {
				o.mu.Lock()
				s := o.subjects[rand.IntN(len(o.subjects))]
				o.mu.Unlock()
				o.look(s, i)
			})
		}
	}
	o.loop(d.editEvery(), func(n int) {
		if n < len(o.stock) {
			// Each in a goroutine of its own: one that waits for a store keeps no other from being made.
			o.work.Go(func() { o.edit(o.stock[n], o.edits[n], n%len(w.replicas)) })
		}
	})
	admin := *w.admin
	o.loop(60*time.Millisecond, func(n int) {
		k := fmt.Sprintf("key%d", n)
		r := admin.at(w.replicas[n%len(w.replicas)]).call("POST", "/admin/users/labels",
			params{"uid": labelled.UID, "key": k, "value": "kept", "scope": "private"})
		if r.err == nil && r.status == 201 {
			o.labels = append(o.labels, k)
		}
	})
	o.loop(400*time.Millisecond, func(n int) {
		c := w.replicas[n%len(w.replicas)].client()
		if r := c.signIn(people[n%len(people)].Email, memberPassword); r.err != nil || r.status != 201 {
			if r.err == nil && r.status != 503 && r.status != 429 {
				o.fault("a sign-in: %s", r)
			}
			return
		}
		s := &subject{
			name: "session of a sign-in", code: "authz.invalid_session", refused: make([]time.Time, len(w.replicas)),
			ask: func(at *server) reply { return c.at(at).check(account) },
		}
		o.mu.Lock()
		o.subjects = append(o.subjects, s)
		o.keepers = append(o.keepers, s)
		o.mu.Unlock()
	})
	o.work.Go(func() {
		const grain = 10 * time.Millisecond
		for last := time.Now(); ; {
			select {
			case <-o.stop:
				return
			case <-time.After(grain):
				now := time.Now()
				o.stall = max(o.stall, now.Sub(last)-grain) // read when all work is done
				last = now
			}
		}
	})
	t.Cleanup(func() { o.halt() }) // also when the drill failed half-way
	o.labelled(t, labelled)
	return o
}

// labelled has the labels of a person be compared with those that were answered, when the drill ends.
func (o *oracle) labelled(t *testing.T, p *person) {
	o.w.audit = func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		conn, err := pgx.Connect(ctx, o.w.pg.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(ctx)
		rows, err := conn.Query(ctx, "SELECT key FROM labels WHERE user_id = $1", p.ID)
		if err != nil {
			t.Fatal(err)
		}
		keys, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range o.labels {
			if !slices.Contains(keys, k) {
				o.fault("a label that was answered is gone")
			}
		}
	}
}

// halt ends the load. It may be called twice.
func (o *oracle) halt() {
	select {
	case <-o.stop:
	default:
		close(o.stop)
	}
	o.work.Wait()
}

// end waits until everything is well again, ends the load, and asks every replica about every subject a last time.
func (o *oracle) end(t *testing.T) {
	t.Helper()
	mended := time.Now()
	for _, at := range o.w.replicas {
		testkit.Eventually(t, patience, func() bool { return at.probe("/readyz").status == 200 })
	}
	each := func(subjects []*subject, ok func(s *subject, r reply) bool) {
		for i := range o.w.replicas {
			for _, s := range subjects {
				testkit.Eventually(t, patience, func() bool { return ok(s, o.look(s, i)) })
			}
		}
	}
	o.mu.Lock()
	keepers := slices.Clone(o.keepers)
	o.mu.Unlock()
	lives := func(s *subject, r reply) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return r.status == 200 || !s.lost.IsZero() && r.status == 401
	}
	each(keepers, lives)
	o.back = time.Since(mended)
	time.Sleep(200 * time.Millisecond)
	o.halt()
	var ended, live []*subject
	for _, s := range o.stock {
		s.mu.Lock()
		switch {
		case !s.ended.IsZero():
			ended = append(ended, s)
		case !s.asked:
			live = append(live, s)
		}
		s.mu.Unlock()
	}
	each(ended, func(s *subject, r reply) bool { return o.refusal(s, r) })
	each(live, lives)
	o.w.audit()
	o.errors()
	if len(o.felt) > 0 {
		slices.Sort(o.felt)
	}
	if o.passed.Load() == 0 {
		t.Error("no check passed")
	}
	if n := o.elsewhere.Load(); *drilling && o.steady && n > 0 {
		o.hold(t, "%d checks were refused, or not answered, at replicas that nothing was done to", n)
	}
	for what, n := range o.refusals {
		o.hold(t, "%d times: %s", n, what)
	}
	for what, n := range o.faults {
		t.Errorf("%d times: %s", n, what)
	}
}

// hold fails the test, unless the machine was too busy with other things for checks and edits to be decided in time.
func (o *oracle) hold(t *testing.T, format string, args ...any) {
	t.Helper()
	if o.stall < tooBusy {
		t.Errorf(format, args...)
		return
	}
	t.Logf(format+"; but the machine let this process wait for "+short(o.stall), args...)
}

// tooBusy is how long a process may have to wait for a processor on a machine that is to be held to refuse nobody: a check
// has half a second for all that it asks.
const tooBusy = 150 * time.Millisecond

// errors looks for what a replica itself calls a defect.
func (o *oracle) errors() {
	for i, s := range o.w.replicas {
		output := s.process.Output()
		for line := range strings.Lines(output[min(o.logged[i], len(output)):]) {
			if strings.Contains(line, `"status":500`) || strings.Contains(line, "panic") {
				o.fault("a replica's log: %s", strings.TrimSpace(line))
			}
		}
	}
}

// row is the oracle's line of the table.
func (o *oracle) row(name, note string) string {
	worst := time.Duration(0)
	for i, gap := range o.gap {
		if !o.hit[i] {
			worst = max(worst, gap)
		}
	}
	felt := "-"
	if n := len(o.felt); n > 0 {
		felt = fmt.Sprintf("%s / %s", short(o.felt[n/2]), short(o.felt[n-1]))
	}
	if o.stall >= tooBusy {
		if note != "" {
			note += "; "
		}
		note += "the machine was late by " + short(o.stall)
	}
	wrong := 0
	for _, n := range o.faults {
		wrong += n
	}
	return strings.Join([]string{
		"| " + name, fmt.Sprint(o.checks.Load()), fmt.Sprint(o.unavailable.Load()), fmt.Sprint(o.silent.Load()), fmt.Sprint(o.elsewhere.Load()),
		short(worst), short(o.back), fmt.Sprintf("%d of %d", o.done.Load(), o.done.Load()+o.unanswered.Load()), felt,
		fmt.Sprint(o.lost.Load()), fmt.Sprint(wrong), note + " |",
	}, " | ")
}

// short is a duration in as many digits as say something.
func short(d time.Duration) string {
	switch {
	case d < 0:
		return "0"
	case d < 10*time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(time.Millisecond).String()
}
