package redisbus_test

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"barong/internal/bus"
	"barong/internal/bus/bustest"
	"barong/internal/bus/redisbus"
	"barong/internal/test/testkit"
	"barong/session/redisstore"

	"github.com/redis/go-redis/v9"
)

func connect(t testing.TB, url string) redis.UniversalClient {
	t.Helper()
	client, err := redisstore.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func join(t testing.TB, url string) *bus.Shared {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	b, err := redisbus.Open(ctx, connect(t, url), bus.Options{Heartbeat: bustest.Heartbeat})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func TestBus(t *testing.T) {
	t.Parallel()
	bustest.Run(t, func(t *testing.T) func() *bus.Shared {
		url := testkit.Valkey(t) + "?read_timeout=5s&write_timeout=5s&dial_timeout=5s"
		return func() *bus.Shared { return join(t, url) }
	})
}

func BenchmarkNotice(b *testing.B) {
	url := testkit.Valkey(b)
	bustest.Benchmark(b, func() *bus.Shared { return join(b, url) })
}

// Databases of one server are installations of their own.
func TestDatabasesAreApart(t *testing.T) {
	t.Parallel()
	server := testkit.ValkeyServer(t)
	a, b := join(t, "redis://"+server.Addr+"/0"), join(t, "redis://"+server.Addr+"/1")
	c := join(t, "redis://"+server.Addr+"/0")
	rb, rc := bustest.Record(b), bustest.Record(c)
	if err := a.Publish(t.Context(), bus.Notice{Kind: bus.PolicyChanged}); err != nil {
		t.Fatal(err)
	}
	bustest.Await(t, "notice", func() bool { return len(rc.All()) == 1 })
	if got := rb.All(); len(got) != 0 {
		t.Errorf("the other database heard %v", got)
	}
}

func TestOpenGivesUp(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if b, err := redisbus.Open(ctx, connect(t, "redis://127.0.0.1:1"), bus.Options{}); err == nil {
		b.Close()
		t.Error("a bus without a server opens")
	}
}

// While the server hangs or is gone, memory older than the TTL is not trusted; after it, everything is forgotten once
// and trusted again.
func TestServerFails(t *testing.T) {
	t.Parallel()
	server := testkit.ValkeyServer(t)
	b := join(t, server.URL)
	r := bustest.Record(b)
	const ttl = 5 * bustest.Heartbeat
	for _, c := range []struct {
		name       string
		fail, mend func()
	}{
		{"hangs", server.Pause, server.Resume},
		{"is killed", server.Kill, func() { server.Start(t) }},
		{"stops", server.Stop, func() { server.Start(t) }},
	} {
		gaps, loaded := r.Gaps(), time.Now()
		c.fail()
		bustest.Await(t, c.name+": noticed", func() bool {
			now := time.Now()
			return b.Healthy(now) != nil && !b.Fresh(loaded, now, ttl)
		})
		if now := time.Now(); !b.Fresh(now, now, ttl) {
			t.Errorf("%s: memory younger than the TTL is not trusted", c.name)
		}
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		err := b.Publish(ctx, bus.Notice{Kind: bus.PolicyChanged})
		cancel()
		if err == nil {
			t.Errorf("%s: Publish succeeds", c.name)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s: Publish took %s", c.name, took)
		}
		c.mend()
		bustest.Await(t, c.name+": mended", func() bool { return b.Healthy(time.Now()) == nil && r.Gaps() > gaps })
		again := time.Now()
		if b.Fresh(loaded, again, again.Sub(loaded)/2) {
			t.Errorf("%s: memory from before the gap is trusted", c.name)
		}
		bustest.Await(t, c.name+": fresh", func() bool {
			now := time.Now()
			return now.Sub(again) > ttl && b.Fresh(again, now, ttl)
		})
	}
}

// A connection that is cut is a gap, however soon the client has another.
func TestConnectionIsCut(t *testing.T) {
	t.Parallel()
	server := testkit.ValkeyServer(t)
	a, b := join(t, server.URL), join(t, server.URL)
	ra, rb := bustest.Record(a), bustest.Record(b)
	admin := connect(t, server.URL)
	for i := range 3 {
		ga, gb, loaded := ra.Gaps(), rb.Gaps(), time.Now()
		if err := admin.Do(t.Context(), "CLIENT", "KILL", "TYPE", "pubsub").Err(); err != nil {
			t.Fatal(err)
		}
		bustest.Await(t, "gaps", func() bool { return ra.Gaps() > ga && rb.Gaps() > gb })
		if now := loaded.Add(time.Hour); a.Fresh(loaded, now, time.Minute) {
			t.Error("memory from before the cut is trusted")
		}
		want := bus.Notice{Kind: bus.UserChanged, Subject: string(rune('a' + i))}
		gb = rb.Gaps()
		if err := a.Publish(t.Context(), want); err != nil {
			t.Errorf("Publish: %v", err)
		}
		bustest.Await(t, "notice, or another gap", func() bool { return slices.Contains(rb.All(), want) || rb.Gaps() > gb })
	}
}

// A stranger on the channel plays replicas whose messages get lost, and one that dies.
func TestGaps(t *testing.T) {
	t.Parallel()
	server := testkit.ValkeyServer(t)
	b := join(t, server.URL)
	r := bustest.Record(b)
	client := connect(t, server.URL)
	say := func(v any) {
		t.Helper()
		text, ok := v.(string)
		if !ok {
			encoded, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			text = string(encoded)
		}
		if err := client.Publish(t.Context(), "barong:bus", text).Err(); err != nil {
			t.Fatal(err)
		}
	}
	marks := 0
	heard := func() int { // how many gaps there were when all that was said is heard
		t.Helper()
		marks++
		mark := bus.Notice{Kind: bus.KeyChanged, Subject: string(rune('A' + marks))}
		say(bus.Message{Origin: "marker", Number: uint64(marks), Notices: []bus.Notice{mark}})
		bustest.Await(t, "mark", func() bool { return slices.Contains(r.All(), mark) })
		return r.Gaps()
	}
	notice := []bus.Notice{{Kind: bus.UserChanged, Subject: "ID1"}}
	base := heard()
	for _, c := range []struct {
		what string
		say  any
		gap  bool
	}{
		{"the first message of a replica", bus.Message{Origin: "x", Number: 1}, false},
		{"the next", bus.Message{Origin: "x", Number: 2, Notices: notice}, false},
		{"the same again", bus.Message{Origin: "x", Number: 2, Notices: notice}, false},
		{"one left out", bus.Message{Origin: "x", Number: 4}, true},
		{"the next", bus.Message{Origin: "x", Number: 5}, false},
		{"a replica that was there before", bus.Message{Origin: "y", Number: 7}, true},
		{"it leaves", bus.Message{Origin: "y", Number: 8, Leaving: true}, false},
		{"no JSON", "hello", true},
		{"no origin", "{}", true},
		{"the last", bus.Message{Origin: "x", Number: 6, Leaving: true}, false},
	} {
		say(c.say)
		got := heard()
		if (got > base) != c.gap {
			t.Errorf("%s: %d gaps, want a gap: %v", c.what, got-base, c.gap)
		}
		base = got
	}
	// A replica that falls silent may change something and not be heard: no trust beyond the TTL until it is back, and no
	// gap. The marker does from now on, and so that it alone is silent, nothing else is said.
	const ttl = 5 * bustest.Heartbeat
	loaded := time.Now()
	bustest.Await(t, "distrust", func() bool {
		now := time.Now()
		return now.Sub(loaded) > ttl && !b.Fresh(loaded, now, ttl)
	})
	if now := time.Now(); !b.Fresh(now, now, ttl) {
		t.Error("memory younger than the TTL is not trusted")
	}
	if err := b.Healthy(time.Now()); err != nil {
		t.Errorf("another replica's silence makes this one unhealthy: %v", err)
	}
	if got := r.Gaps(); got != base {
		t.Errorf("%d gaps for a silence, want none", got-base)
	}
	// It was merely slow: nothing was missed, and what was known is trusted again.
	marks++
	say(bus.Message{Origin: "marker", Number: uint64(marks)})
	bustest.Await(t, "trust", func() bool { now := time.Now(); return now.Sub(loaded) > ttl && b.Fresh(loaded, now, ttl) })
	// It is silent again, and something of it was lost: a gap.
	bustest.Await(t, "distrust", func() bool { return !b.Fresh(loaded, time.Now(), ttl) })
	marks += 2
	say(bus.Message{Origin: "marker", Number: uint64(marks), Leaving: true})
	bustest.Await(t, "gap", func() bool { return r.Gaps() > base })
	if b.Fresh(loaded, time.Now(), time.Since(loaded)/2) {
		t.Error("memory from before what was lost is trusted")
	}
	again := time.Now()
	bustest.Await(t, "trust", func() bool { now := time.Now(); return now.Sub(again) > ttl && b.Fresh(again, now, ttl) })
}

// A subscription that is accepted and never answered is given up, so that the bus is heard again soon after connections
// work; commands have gone on all the time.
func TestHalfOpenSubscription(t *testing.T) {
	t.Parallel()
	server := testkit.ValkeyServer(t)
	relay := testkit.NewRelay(t, server.Addr)
	a, b := join(t, server.URL), join(t, "redis://"+relay.Addr)
	rb := bustest.Record(b)
	admin := connect(t, server.URL)
	relay.Swallow("subscribe")
	if err := admin.Do(t.Context(), "CLIENT", "KILL", "TYPE", "pubsub").Err(); err != nil {
		t.Fatal(err)
	}
	bustest.Await(t, "silence", func() bool { return b.Healthy(time.Now()) != nil })
	for began := time.Now(); time.Since(began) < 3*time.Second; time.Sleep(bustest.Heartbeat) { // it stays so
		if b.Healthy(time.Now()) == nil {
			t.Error("the bus is heard through a connection that is silent")
		}
		if err := b.Publish(t.Context(), bus.Notice{Kind: bus.PolicyChanged}); err != nil {
			t.Errorf("Publish: %v", err)
		}
	}
	relay.Swallow("")
	began := time.Now()
	bustest.Await(t, "healthy", func() bool { return b.Healthy(time.Now()) == nil })
	t.Logf("heard again after %s", time.Since(began))
	want := bus.Notice{Kind: bus.UserChanged, Subject: "after"}
	bustest.Await(t, "notice", func() bool {
		if err := a.Publish(t.Context(), want); err != nil {
			t.Errorf("Publish: %v", err)
		}
		return slices.Contains(rb.All(), want)
	})
}
