package limit_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"barong/db"
	"barong/internal/limit"
	"barong/internal/test/dbtest"
	"barong/internal/test/testkit"
	"barong/session/redisstore"

	"pgregory.net/rapid"
)

func hash(value, purpose string) string {
	mac := hmac.New(sha256.New, []byte("a key of the tests"))
	mac.Write([]byte(purpose + "\x00" + value))
	return hex.EncodeToString(mac.Sum(nil))
}

// A clock that tests move.
type clock struct{ ms atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.ms.Store(time.Now().UnixMilli())
	return c
}

func (c *clock) now() time.Time         { return time.UnixMilli(c.ms.Load()) }
func (c *clock) pass(d time.Duration)   { c.ms.Add(d.Milliseconds()) }
func (c *clock) options() limit.Options { return limit.Options{Hash: hash, Now: c.now} }

// A place is a store of counters: replica opens it once more, and dump is all its text.
type place struct {
	replica func(t *testing.T, o limit.Options) limit.Limiter
	dump    func(t *testing.T) string
}

func sqlPlace(t *testing.T, url string) place {
	open := func(t *testing.T) *db.DB {
		t.Helper()
		return dbtest.At(t, db.Options{URL: url})
	}
	return place{
		replica: func(t *testing.T, o limit.Options) limit.Limiter { return limit.SQL(open(t), o) },
		dump: func(t *testing.T) string {
			var keys []string
			if err := open(t).Bun().NewSelect().Table("rate_counters").Column("key").Scan(t.Context(), &keys); err != nil {
				t.Fatal(err)
			}
			return strings.Join(keys, "\n")
		},
	}
}

func redisPlace(t *testing.T) place {
	url := testkit.Valkey(t) + "?read_timeout=20s&write_timeout=20s&dial_timeout=20s&pool_timeout=20s"
	return place{
		replica: func(t *testing.T, o limit.Options) limit.Limiter {
			client, err := redisstore.Connect(url)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { client.Close() })
			return limit.Redis(client, o)
		},
		dump: func(t *testing.T) string {
			client, err := redisstore.Connect(url)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			keys, err := client.Keys(t.Context(), "*").Result()
			if err != nil {
				t.Fatal(err)
			}
			for _, key := range keys {
				if ttl := client.PTTL(t.Context(), key).Val(); ttl <= 0 {
					t.Errorf("%s never expires", key)
				}
			}
			return strings.Join(keys, "\n")
		},
	}
}

func TestLimiter(t *testing.T) {
	t.Parallel()
	for engine, open := range map[string]func(t *testing.T) place{
		"SQLite":   func(t *testing.T) place { return sqlPlace(t, dbtest.URL(t, "sqlite")) },
		"Postgres": func(t *testing.T) place { return sqlPlace(t, dbtest.URL(t, "postgres")) },
		"Valkey":   redisPlace,
	} {
		for _, c := range []struct {
			name string
			test func(t *testing.T, p place)
		}{
			{"max attempts pass, then the rest of the window is the wait", window},
			{"peek counts nothing", peek},
			{"refund gives one attempt back", refund},
			{"reset forgets", reset},
			{"keys and rules are apart", apart},
			{"of parallel attempts exactly max pass", parallel},
			{"replicas count together, and a restart forgets nothing", replicas},
			{"keys are hashed", hashed},
			{"purge drops what is over", purge},
			{"a cancelled context is an error", cancelled},
			{"odd keys and limits", odd},
			{"it counts as its model does", model},
		} {
			t.Run(engine+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				c.test(t, open(t))
			})
		}
	}
}

var rule = limit.Rule{Name: "test", Max: 3, Window: 15 * time.Minute}

// take expects a wait, or that the attempt passes when want is 0.
func take(t *testing.T, l limit.Limiter, r limit.Rule, key string, want time.Duration) {
	t.Helper()
	if wait, err := r.Take(t.Context(), l, key); err != nil || wait != want {
		t.Errorf("Take(%s, %s) = %s, %v, want %s", r.Name, key, wait, err, want)
	}
}

func look(t *testing.T, l limit.Limiter, r limit.Rule, key string, want time.Duration) {
	t.Helper()
	if wait, err := r.Peek(t.Context(), l, key); err != nil || wait != want {
		t.Errorf("Peek(%s, %s) = %s, %v, want %s", r.Name, key, wait, err, want)
	}
}

func window(t *testing.T, p place) {
	c := newClock()
	l := p.replica(t, c.options())
	for range 2 { // the second window is as the first
		take(t, l, rule, "a", 0)
		c.pass(5 * time.Minute)
		take(t, l, rule, "a", 0)
		take(t, l, rule, "a", 0)
		take(t, l, rule, "a", 10*time.Minute)
		c.pass(10*time.Minute - time.Millisecond)
		take(t, l, rule, "a", time.Millisecond) // refused attempts have not moved the end
		look(t, l, rule, "a", time.Millisecond)
		c.pass(time.Millisecond)
		look(t, l, rule, "a", 0)
	}
}

func peek(t *testing.T, p place) {
	c := newClock()
	l := p.replica(t, c.options())
	for range 10 {
		look(t, l, rule, "a", 0)
	}
	for range 3 {
		take(t, l, rule, "a", 0)
	}
	look(t, l, rule, "a", rule.Window)
	look(t, l, limit.Rule{Name: rule.Name, Max: 4, Window: rule.Window}, "a", 0) // the maximum is the caller's
}

func refund(t *testing.T, p place) {
	c := newClock()
	l := p.replica(t, c.options())
	give := func(key string) {
		t.Helper()
		if err := rule.Refund(t.Context(), l, key); err != nil {
			t.Errorf("Refund: %v", err)
		}
	}
	give("a") // none is counted
	for range 3 {
		take(t, l, rule, "a", 0)
	}
	c.pass(time.Minute)
	give("a")
	take(t, l, rule, "a", 0)
	take(t, l, rule, "a", 14*time.Minute)
	for range 5 {
		give("a") // more than there are
	}
	for range 3 {
		take(t, l, rule, "a", 0)
	}
	take(t, l, rule, "a", 14*time.Minute)
	c.pass(14 * time.Minute)
	give("a") // of a window that is over
	for range 3 {
		take(t, l, rule, "a", 0)
	}
	take(t, l, rule, "a", rule.Window)
}

func reset(t *testing.T, p place) {
	c := newClock()
	l := p.replica(t, c.options())
	for range 2 {
		for range 3 {
			take(t, l, rule, "a", 0)
		}
		take(t, l, rule, "a", rule.Window)
		c.pass(time.Minute)
		if err := rule.Reset(t.Context(), l, "a"); err != nil {
			t.Errorf("Reset: %v", err)
		}
		look(t, l, rule, "a", 0)
	}
}

func apart(t *testing.T, p place) {
	l := p.replica(t, newClock().options())
	other := limit.Rule{Name: "other", Max: 3, Window: time.Hour}
	for range 3 {
		take(t, l, rule, "a", 0)
	}
	take(t, l, rule, "a", rule.Window)
	for range 3 {
		take(t, l, rule, "b", 0)
		take(t, l, other, "a", 0)
	}
	take(t, l, other, "a", other.Window)
}

func parallel(t *testing.T, p place) {
	c := newClock()
	a, b := p.replica(t, c.options()), p.replica(t, c.options())
	r := limit.Rule{Name: "parallel", Max: 7, Window: time.Hour}
	for round := range 2 { // a new counter, and one whose window is over
		var passed atomic.Int32
		var group sync.WaitGroup
		for i := range 16 {
			group.Go(func() {
				for range 2 {
					wait, err := r.Take(t.Context(), []limit.Limiter{a, b}[i%2], "a")
					if err != nil {
						t.Errorf("Take: %v", err)
					}
					if wait == 0 {
						passed.Add(1)
					}
				}
			})
		}
		group.Wait()
		if n := passed.Load(); n != 7 {
			t.Errorf("round %d: %d of 32 parallel attempts passed, want 7", round, n)
		}
		c.pass(time.Hour)
	}
}

func replicas(t *testing.T, p place) {
	c := newClock()
	a, b := p.replica(t, c.options()), p.replica(t, c.options())
	take(t, a, rule, "a", 0)
	take(t, b, rule, "a", 0)
	take(t, a, rule, "a", 0)
	take(t, b, rule, "a", rule.Window)
	take(t, p.replica(t, c.options()), rule, "a", rule.Window)
}

func hashed(t *testing.T, p place) {
	l := p.replica(t, newClock().options())
	for _, key := range []string{"alice@example.com", "203.0.113.7", "ID0000000001"} {
		take(t, l, rule, key, 0)
	}
	text := p.dump(t)
	if n := strings.Count(text, "\n") + 1; n != 3 {
		t.Errorf("the store holds %d counters, want 3", n)
	}
	for _, clear := range []string{"alice", "example", "203.0", "ID0000000001"} {
		if strings.Contains(text, clear) {
			t.Errorf("the store holds %q in clear", clear)
		}
	}
}

func purge(t *testing.T, p place) {
	c := newClock()
	l := p.replica(t, c.options())
	for i := range 7 {
		take(t, l, rule, fmt.Sprint("dead", i), 0)
	}
	c.pass(rule.Window)
	for range 3 {
		take(t, l, rule, "live", 0)
	}
	var total int64
	for range 3 {
		n, err := l.Purge(t.Context(), 4)
		if err != nil || n > 4 {
			t.Errorf("Purge = %d, %v, want at most 4", n, err)
		}
		total += n
	}
	if total != 7 && total != 0 { // 0: the engine expires by itself
		t.Errorf("purged %d, want 7 (or 0)", total)
	}
	if n, err := l.Purge(t.Context(), 0); err != nil || n != 0 {
		t.Errorf("Purge of none = %d, %v", n, err)
	}
	take(t, l, rule, "live", rule.Window)
}

func cancelled(t *testing.T, p place) {
	l := p.replica(t, newClock().options())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := rule.Take(ctx, l, "a"); err == nil {
		t.Error("Take succeeds")
	}
	if _, err := rule.Peek(ctx, l, "a"); err == nil {
		t.Error("Peek succeeds")
	}
	if err := rule.Refund(ctx, l, "a"); err == nil {
		t.Error("Refund succeeds")
	}
	if err := rule.Reset(ctx, l, "a"); err == nil {
		t.Error("Reset succeeds")
	}
	for range 3 {
		take(t, l, rule, "a", 0) // nothing was counted
	}
}

func odd(t *testing.T, p place) {
	l := p.replica(t, newClock().options())
	for _, key := range []string{"", "nul\x00", "\xff\xfe", "'; DROP TABLE rate_counters; --", strings.Repeat("x", 100_000)} {
		for range 3 {
			take(t, l, rule, key, 0)
		}
		take(t, l, rule, key, rule.Window)
	}
	never := limit.Rule{Name: "never", Max: 0, Window: time.Minute}
	take(t, l, never, "a", time.Minute)
	look(t, l, never, "a", time.Minute)
}

// model runs random calls on a random clock against a counter in memory.
func model(t *testing.T, p place) {
	c := newClock()
	l := p.replica(t, c.options())
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		key := fmt.Sprint("key", run)
		r := limit.Rule{Name: "model", Max: rapid.IntRange(1, 4).Draw(rt, "max"), Window: time.Minute}
		count, end := 0, int64(0)
		for range rapid.IntRange(1, 12).Draw(rt, "calls") {
			now := c.ms.Load()
			want := time.Duration(0)
			if end > now && count >= r.Max {
				want = time.Duration(end-now) * time.Millisecond
			}
			var got time.Duration
			var err error
			switch call := rapid.SampledFrom([]string{"take", "take", "take", "peek", "refund", "reset", "pass"}).Draw(rt, "call"); call {
			case "take":
				got, err = r.Take(t.Context(), l, key)
				if want == 0 {
					if end <= now {
						count, end = 0, now+r.Window.Milliseconds()
					}
					count++
				}
			case "peek":
				got, err = r.Peek(t.Context(), l, key)
			case "refund":
				got, err = want, r.Refund(t.Context(), l, key)
				count = max(count-1, 0)
			case "reset":
				got, err = want, r.Reset(t.Context(), l, key)
				count, end = 0, 0
			default:
				got = want
				c.pass(time.Duration(rapid.IntRange(1, 70).Draw(rt, "seconds")) * time.Second)
			}
			if err != nil || got != want {
				rt.Fatalf("%s, %v, want %s", got, err, want)
			}
		}
	})
}

func TestOff(t *testing.T) {
	t.Parallel()
	for range 100 {
		take(t, limit.Off, limit.WrongTOTP, "a", 0)
	}
	look(t, limit.Off, limit.WrongTOTP, "a", 0)
}

// The rules keep what the contract promises: three mistakes never block, and names do not collide.
func TestRules(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, r := range limit.Rules() {
		if r.Max <= 3 && r != limit.ResetCode || r.Window <= 0 { // which refuses nobody
			t.Errorf("%s: %d in %s", r.Name, r.Max, r.Window)
		}
		if names[r.Name] || strings.Contains(r.Name, ":") {
			t.Errorf("%s: the name collides", r.Name)
		}
		names[r.Name] = true
	}
	for _, c := range []struct {
		rule limit.Rule
		max  int
	}{{limit.WrongTOTP, 5}, {limit.WrongPassword, 20}, {limit.WrongPasswordAccount, 200}, {limit.WrongPasswordAddress, 30}} {
		if c.rule.Max != c.max || c.rule.Window != 15*time.Minute {
			t.Errorf("%s: %d in %s, want %d in 15m", c.rule.Name, c.rule.Max, c.rule.Window, c.max)
		}
	}
}

// A store that does not answer is an error: callers refuse, they do not lift the limit.
func TestStoreFails(t *testing.T) {
	t.Parallel()
	server := testkit.ValkeyServer(t)
	client, err := redisstore.Connect(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	l := limit.Redis(client, newClock().options())
	for _, fail := range []func(){server.Pause, func() { server.Resume(); server.Kill() }} {
		fail()
		if _, err := rule.Take(t.Context(), l, "a"); err == nil {
			t.Error("Take succeeds without a server")
		}
		if _, err := rule.Peek(t.Context(), l, "a"); err == nil {
			t.Error("Peek succeeds without a server")
		}
	}
}

// When an answer is lost the client asks again: one attempt is counted, and one taken back.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	server := testkit.ValkeyServer(t)
	relay := testkit.NewRelay(t, server.Addr)
	client, err := redisstore.Connect("redis://" + relay.Addr + "?read_timeout=20s&write_timeout=20s&dial_timeout=20s&pool_timeout=20s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	l := limit.Redis(client, newClock().options())
	for range 2 {
		take(t, l, rule, "a", 0) // the server gets to know the scripts
		if err := rule.Refund(t.Context(), l, "a"); err != nil {
			t.Fatal(err)
		}
	}
	lose := func() { relay.LoseAnswers(1, "barong:limit:") }
	for range rule.Max {
		lose()
		take(t, l, rule, "a", 0)
	}
	take(t, l, rule, "a", rule.Window)
	lose()
	if err := rule.Refund(t.Context(), l, "a"); err != nil {
		t.Errorf("Refund: %v", err)
	}
	lose()
	take(t, l, rule, "a", 0)
	lose()
	take(t, l, rule, "a", rule.Window)
	if n := relay.Lost(); n != rule.Max+3 {
		t.Errorf("%d answers were lost, want %d", n, rule.Max+3)
	}
}
