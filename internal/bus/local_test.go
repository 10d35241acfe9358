package bus

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestLocal(t *testing.T) {
	t.Parallel()
	b := NewLocal()
	var seen []Notice
	b.Subscribe(func(n Notice) { seen = append(seen, n) })
	b.Subscribe(func(n Notice) {
		if n.Kind == PolicyChanged {
			if err := b.Publish(context.Background(), Notice{Kind: SigningChanged}); err != nil {
				t.Errorf("Publish in a handler: %v", err)
			}
		}
	})
	want := []Notice{{Kind: PolicyChanged}, {Kind: UserChanged, Subject: "ID1"}, {Kind: SigningChanged}}
	if err := b.Publish(context.Background(), want[:2]...); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(seen, want) {
		t.Errorf("seen %v, want %v", seen, want)
	}
	now := time.Now()
	if !b.Fresh(now.Add(-time.Hour), now, time.Second) || b.Healthy(now) != nil || b.Close() != nil {
		t.Error("a bus without replicas misses somebody")
	}
}

// Handlers run from one goroutine at a time, and every Publish returns after its notices were handled.
func TestHandlersTakeTurns(t *testing.T) {
	t.Parallel()
	b := NewLocal()
	var inside, calls atomic.Int32
	seen := map[string]bool{} // guarded by nothing but the promise
	b.Subscribe(func(n Notice) {
		if inside.Add(1) != 1 {
			t.Error("two handlers at a time")
		}
		seen[n.Subject] = true
		calls.Add(1)
		inside.Add(-1)
	})
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for j := range 50 {
				before := calls.Load()
				if err := b.Publish(context.Background(), Notice{Kind: UserChanged, Subject: string(rune('a' + i*50 + j))}); err != nil {
					t.Error(err)
				}
				if calls.Load() == before {
					t.Error("Publish returned before the handler was called")
				}
			}
		})
	}
	group.Wait()
	if len(seen) != 400 || calls.Load() != 400 {
		t.Errorf("%d calls for %d notices, want 400", calls.Load(), len(seen))
	}
}

// A handler that subscribes another, and one that panics, leave the bus usable.
func TestHandlersOddities(t *testing.T) {
	t.Parallel()
	b := NewLocal()
	count := 0
	b.Subscribe(func(n Notice) {
		if n.Kind == KeyChanged {
			b.Subscribe(func(Notice) { count++ })
		}
		if n.Kind == SigningChanged {
			panic("handler")
		}
	})
	publish := func(k Kind) (panicked any) {
		defer func() { panicked = recover() }()
		_ = b.Publish(context.Background(), Notice{Kind: k})
		return nil
	}
	publish(KeyChanged)
	if publish(SigningChanged) == nil {
		t.Error("the panic was swallowed")
	}
	publish(UserChanged)
	if count != 1 {
		t.Errorf("the second handler was called %d times, want 1", count)
	}
}

func TestSplit(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		notice := rapid.Custom(func(t *rapid.T) Notice {
			return Notice{
				Kind:    rapid.SampledFrom([]Kind{UserChanged, SessionGone, PolicyChanged}).Draw(t, "kind"),
				Subject: strings.Repeat(rapid.String().Draw(t, "text"), rapid.IntRange(0, 5).Draw(t, "times")),
			}
		})
		notices := rapid.SliceOf(notice).Draw(t, "notices")
		limit := rapid.IntRange(250, 1000).Draw(t, "limit")
		kept := slices.Clone(notices)
		var all []Notice
		for _, batch := range split(notices, limit) {
			text, err := json.Marshal(Message{
				Origin: strings.Repeat("f", 16), Number: 1<<64 - 1, At: -1 << 63, Leaving: true, Notices: batch,
			})
			if err != nil || len(text) > limit {
				t.Fatalf("a message of %d bytes, %v, limit %d", len(text), err, limit)
			}
			if len(batch) == 0 {
				t.Fatal("an empty batch")
			}
			all = append(all, batch...)
		}
		if !slices.Equal(kept, notices) {
			t.Fatal("the caller's notices were changed")
		}
		if len(all) != len(notices) {
			t.Fatalf("%d notices of %d", len(all), len(notices))
		}
		for i, n := range notices {
			if all[i] != n && (all[i].Kind != Everything || encodedLen(n) < limit-200) {
				t.Fatalf("notice %d became %v", i, all[i])
			}
		}
	})
	if got := split([]Notice{{Kind: UserChanged, Subject: strings.Repeat("x", 9000)}}, 0); len(got) != 1 || got[0][0].Kind != UserChanged {
		t.Errorf("without a limit: %v", got)
	}
}

// Memory that nothing contradicts is trusted beyond its lifetime only while the database it was filled from answers.
func TestFreshNeedsTheSource(t *testing.T) {
	t.Parallel()
	answers := true
	s := &Shared{start: time.Now(), source: func(time.Time) bool { return answers }}
	loaded, ttl := s.start.Add(time.Minute), time.Second
	now := loaded.Add(time.Hour)
	s.proof.Store(s.at(now)) // everything has been heard
	for _, c := range []struct {
		now     time.Time
		answers bool
		want    bool
	}{
		{now, true, true}, {now, false, false}, {loaded.Add(ttl), false, true}, {loaded.Add(ttl + 1), false, false},
	} {
		answers = c.answers
		if got := s.Fresh(loaded, c.now, ttl); got != c.want {
			t.Errorf("%s after it was filled, source answers %v: fresh %v, want %v", c.now.Sub(loaded), c.answers, got, c.want)
		}
	}
}

// What every check asks costs no memory.
func TestFreshAllocatesNothing(t *testing.T) {
	s := &Shared{start: time.Now()}
	now := time.Now()
	if n := testing.AllocsPerRun(100, func() { s.Fresh(now, now, time.Second) }); n != 0 {
		t.Errorf("Fresh allocates %v times", n)
	}
}
