// Package bustest is the contract of bus.Bus between replicas as tests, for every transport.
package bustest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"barong/internal/bus"
)

// patience is how long a test waits for what must happen. It says nothing about how long it takes.
const patience = 2 * time.Minute

// Heartbeat is the interval at which tests run a bus: short, so that silence is noticed soon, and long enough for a busy
// machine.
const Heartbeat = 400 * time.Millisecond

// Await waits until ok.
func Await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

// A Recorder is a handler that keeps what it was told.
type Recorder struct {
	mu   sync.Mutex
	seen []bus.Notice
}

// Record subscribes a new Recorder.
func Record(b bus.Bus) *Recorder {
	r := &Recorder{}
	b.Subscribe(r.handle)
	return r
}

func (r *Recorder) handle(n bus.Notice) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, n)
}

// All are the notices so far, but for those of Everything, which a gap may add at any time.
func (r *Recorder) All() []bus.Notice {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(r.seen), func(n bus.Notice) bool { return n.Kind == bus.Everything })
}

// Gaps is how often Everything was to be forgotten.
func (r *Recorder) Gaps() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	gaps := 0
	for _, n := range r.seen {
		if n.Kind == bus.Everything {
			gaps++
		}
	}
	return gaps
}

// Run tests a transport. open makes a place where replicas meet; what it returns joins a replica there.
func Run(t *testing.T, open func(t *testing.T) func() *bus.Shared) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, join func() *bus.Shared)
	}{
		{"notices reach every replica in order, and each once", delivers},
		{"own handlers are called before Publish returns", ownFirst},
		{"long lists and long subjects arrive", long},
		{"parallel publishers lose nothing", parallel},
		{"a handler may publish", handlerPublishes},
		{"memory is fresh while the bus is heard", fresh},
		{"a replica that leaves is not missed", leaves},
		{"after Close the others are not told", closed},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.test(t, open(t))
		})
	}
}

func publish(t testing.TB, b bus.Bus, notices ...bus.Notice) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := b.Publish(ctx, notices...); err != nil {
		t.Errorf("Publish: %v", err)
	}
}

func user(i int) bus.Notice {
	return bus.Notice{Kind: bus.UserChanged, Subject: fmt.Sprintf("ID%010d", i)}
}

func delivers(t *testing.T, join func() *bus.Shared) {
	replicas := []*bus.Shared{join(), join(), join()}
	var heard []*Recorder
	for _, b := range replicas {
		heard = append(heard, Record(b))
	}
	want := []bus.Notice{
		user(1),
		{Kind: bus.SessionGone, Subject: strings.Repeat("0f", 32)},
		{Kind: bus.SessionsGone},
		{Kind: bus.KeyChanged, Subject: `quote " backslash \ NUL-free ünïcode`},
		{Kind: bus.PolicyChanged},
		{Kind: bus.SigningChanged},
		{Kind: "a kind of a later version", Subject: "x"},
	}
	publish(t, replicas[0], want[:3]...)
	publish(t, replicas[0], want[3:]...)
	publish(t, replicas[0]) // nothing
	for i, r := range heard {
		Await(t, "notices", func() bool { return len(r.All()) >= len(want) })
		if got := r.All(); !slices.Equal(got, want) {
			t.Errorf("replica %d heard %v, want %v", i, got, want)
		}
	}
	// What comes after shows that nothing came twice.
	publish(t, replicas[1], user(2))
	for i, r := range heard {
		Await(t, "the last notice", func() bool { return slices.Contains(r.All(), user(2)) })
		if got := r.All(); !slices.Equal(got, append(slices.Clone(want), user(2))) {
			t.Errorf("replica %d heard %v", i, got)
		}
	}
}

func ownFirst(t *testing.T, join func() *bus.Shared) {
	b := join()
	r := Record(b)
	for i := range 10 {
		publish(t, b, user(i))
		if got := r.All(); len(got) != i+1 || got[i] != user(i) {
			t.Fatalf("after Publish %d the handler has seen %v", i, got)
		}
	}
	// Also when the others can not be told.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = b.Publish(ctx, user(10)) // whether it still went out is chance
	if got := r.All(); len(got) != 11 {
		t.Errorf("after a cancelled Publish the handler has seen %d notices, want 11", len(got))
	}
}

// Benchmark measures how long a notice takes from one replica to another.
func Benchmark(b *testing.B, join func() *bus.Shared) {
	from, to := join(), join()
	arrived := make(chan bus.Notice, 100)
	to.Subscribe(func(n bus.Notice) { arrived <- n })
	i := 0
	for b.Loop() {
		publish(b, from, user(i))
		for n := range arrived {
			if n == user(i) {
				break
			}
		}
		i++
	}
}

func long(t *testing.T, join func() *bus.Shared) {
	a, b := join(), join()
	r := Record(b)
	var want []bus.Notice
	for i := range 600 {
		want = append(want, user(i))
	}
	publish(t, a, want...)
	Await(t, "600 notices", func() bool { return len(r.All()) >= len(want) })
	if got := r.All(); !slices.Equal(got, want) {
		t.Errorf("heard %d notices, want %d in order", len(got), len(want))
	}
	// A subject that is longer than any message arrives, or everything is to be forgotten.
	gaps := r.Gaps()
	huge := bus.Notice{Kind: bus.KeyChanged, Subject: strings.Repeat("k", 100_000)}
	publish(t, a, huge)
	Await(t, "a huge notice", func() bool { return slices.Contains(r.All(), huge) || r.Gaps() > gaps })
}

func parallel(t *testing.T, join func() *bus.Shared) {
	replicas := []*bus.Shared{join(), join()}
	heard := []*Recorder{Record(replicas[0]), Record(replicas[1])}
	const publishers, each = 8, 10
	var group sync.WaitGroup
	for p := range publishers {
		group.Go(func() {
			for i := range each {
				publish(t, replicas[p%2], user(p*each+i))
			}
		})
	}
	group.Wait()
	for i, r := range heard {
		Await(t, "all notices", func() bool { return len(r.All()) >= publishers*each })
		got := r.All()
		slices.SortFunc(got, func(a, b bus.Notice) int { return strings.Compare(a.Subject, b.Subject) })
		if compact := slices.Compact(slices.Clone(got)); len(got) != publishers*each || len(compact) != len(got) {
			t.Errorf("replica %d heard %d notices, %d different, want %d", i, len(got), len(compact), publishers*each)
		}
	}
}

func handlerPublishes(t *testing.T, join func() *bus.Shared) {
	a, b := join(), join()
	ra, rb := Record(a), Record(b)
	b.Subscribe(func(n bus.Notice) {
		if n.Kind == bus.PolicyChanged {
			publish(t, b, bus.Notice{Kind: bus.SigningChanged})
		}
	})
	publish(t, a, bus.Notice{Kind: bus.PolicyChanged}) // b's handler publishes from the listener
	publish(t, b, bus.Notice{Kind: bus.PolicyChanged}) // and within Publish
	for _, r := range []*Recorder{ra, rb} {
		Await(t, "answers", func() bool { return len(r.All()) >= 4 })
	}
}

func fresh(t *testing.T, join func() *bus.Shared) {
	b := join()
	other := join()
	loaded := time.Now()
	// Long after any TTL counted from loaded, memory is trusted while heartbeats prove that nothing was missed.
	const ttl = 5 * Heartbeat
	time.Sleep(2 * ttl)
	for _, r := range []*bus.Shared{b, other} {
		Await(t, "fresh", func() bool {
			now := time.Now()
			return now.Sub(loaded) > ttl && r.Fresh(loaded, now, ttl) && r.Healthy(now) == nil
		})
	}
	now := time.Now()
	before := loaded.Add(-time.Hour) // before this replica joined
	if b.Fresh(before, now, ttl) {
		t.Error("memory from before the bus is trusted")
	}
	if !b.Fresh(before, now, 2*time.Hour) {
		t.Error("memory younger than the TTL is not trusted")
	}
	if b.Fresh(loaded, now.Add(time.Hour), ttl) {
		t.Error("memory is trusted an hour after the last heartbeat")
	}
	if b.Healthy(now.Add(time.Hour)) == nil {
		t.Error("healthy an hour after the last heartbeat")
	}
}

func leaves(t *testing.T, join func() *bus.Shared) {
	a, b := join(), join()
	r := Record(a)
	publish(t, b, user(1))
	Await(t, "notice", func() bool { return len(r.All()) == 1 })
	gaps := r.Gaps()
	if err := b.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	loaded := time.Now()
	time.Sleep(5 * Heartbeat) // long enough for a silent replica to be missed
	if got := r.Gaps(); got != gaps {
		t.Errorf("%d gaps after a replica left", got-gaps)
	}
	Await(t, "fresh", func() bool { return a.Fresh(loaded, time.Now(), 4*Heartbeat) })
}

func closed(t *testing.T, join func() *bus.Shared) {
	a, b := join(), join()
	ra, rb := Record(a), Record(b)
	if err := a.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if err := a.Publish(context.Background(), user(1)); err == nil {
		t.Error("Publish after Close succeeds")
	}
	if len(ra.All()) != 1 {
		t.Error("own handlers were not called")
	}
	if a.Healthy(time.Now()) == nil {
		t.Error("healthy after Close")
	}
	publish(t, b, user(2))
	if got := rb.All(); !slices.Equal(got, []bus.Notice{user(2)}) {
		t.Errorf("the other replica heard %v", got)
	}
	if got := ra.All(); len(got) != 1 {
		t.Errorf("a closed bus heard %v", got)
	}
}
