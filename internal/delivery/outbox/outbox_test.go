package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"barong/db"
	"barong/internal/crypto/secret"
	"barong/internal/delivery/outbox"
	"barong/internal/test/dbtest"
	"barong/internal/test/testkit"
)

// open returns a function that opens one more replica of an empty database.
func engines(t *testing.T, f func(t *testing.T, open func() *db.DB)) {
	for _, engine := range dbtest.Engines {
		t.Run(engine, func(t *testing.T) {
			box, err := secret.New("b3V0Ym94IHRlc3RzIHNlYWwgd2l0aCB0aGlzIGtleSE=")
			if err != nil {
				t.Fatal(err)
			}
			url := dbtest.URL(t, engine)
			f(t, func() *db.DB { return dbtest.At(t, db.Options{URL: url, Sealer: box}) })
		})
	}
}

func enqueue(t *testing.T, d *db.DB, kind string, payloads ...string) {
	t.Helper()
	if err := d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
		for _, p := range payloads {
			if err := tx.Enqueue(ctx, kind, "topic of "+p, []byte(p)); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func start(t *testing.T, o outbox.Options) *outbox.Outbox {
	t.Helper()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	b, err := outbox.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return b
}

func depth(t *testing.T, d *db.DB) db.OutboxDepth {
	t.Helper()
	all, err := d.OutboxDepths(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		return db.OutboxDepth{}
	}
	return all[0]
}

// sink collects payloads.
type sink struct {
	mu  sync.Mutex
	got []string
}

func (s *sink) take(_ context.Context, topic string, payload []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if topic != "topic of "+string(payload) {
		return fmt.Errorf("topic %q", topic)
	}
	s.got = append(s.got, string(payload))
	return nil
}

func (s *sink) list() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got)
}

func TestDeliversAtOnceWhatIsCommitted(t *testing.T) {
	engines(t, func(t *testing.T, open func() *db.DB) {
		d := open()
		var s sink
		// A poll that never comes: only the commit can wake it.
		b := start(t, outbox.Options{Store: d, Poll: time.Hour, Kinds: map[string]outbox.Kind{"mail": {Handler: s.take}}})
		rolledBack := errors.New("rolled back")
		err := d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
			if err := tx.Enqueue(ctx, "mail", "topic", []byte("never")); err != nil {
				return err
			}
			return rolledBack
		})
		if !errors.Is(err, rolledBack) {
			t.Fatal(err)
		}
		enqueue(t, d, "mail", "one", "two")
		enqueue(t, d, "other", "left alone")
		testkit.Eventually(t, time.Minute, func() bool { return len(s.list()) == 2 })
		if err := b.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := s.list(); !slices.Contains(got, "one") || !slices.Contains(got, "two") {
			t.Errorf("got %v", got)
		}
		if n := depth(t, d); n.Kind != "other" || n.Waiting != 1 {
			t.Errorf("left: %+v", n)
		}
	})
}

// TestKindsChange: a running outbox delivers kinds that come, in another way those that change, and leaves what waits for those
// that are gone.
func TestKindsChange(t *testing.T) {
	engines(t, func(t *testing.T, open func() *db.DB) {
		d := open()
		var first, second, third sink
		b := start(t, outbox.Options{Store: d, Poll: time.Hour, Kinds: map[string]outbox.Kind{"a": {Handler: first.take}, "b": {Handler: first.take, Ordered: true}}})
		enqueue(t, d, "a", "1")
		enqueue(t, d, "c", "2")
		testkit.Eventually(t, time.Minute, func() bool { return len(first.list()) == 1 })
		b.Change(map[string]outbox.Kind{"a": {Handler: second.take}, "c": {Handler: third.take}}, []string{"b", "none"})
		enqueue(t, d, "a", "3")
		enqueue(t, d, "b", "4")
		enqueue(t, d, "c", "5")
		testkit.Eventually(t, time.Minute, func() bool { return len(second.list()) == 1 && len(third.list()) == 2 })
		if err := b.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.Change(map[string]outbox.Kind{"b": {Handler: first.take}}, nil)
		if n := depth(t, d); n.Kind != "b" || n.Waiting != 1 || len(first.list()) != 1 {
			t.Errorf("left: %+v; the first has %v", n, first.list())
		}
	})
}

func TestPayloadIsSealedInTheRow(t *testing.T) {
	engines(t, func(t *testing.T, open func() *db.DB) {
		d := open()
		enqueue(t, d, "mail", "a secret link")
		var payload string
		if err := d.Bun().NewSelect().Table("outbox").Column("payload").Scan(t.Context(), &payload); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(payload, "secret") || payload == "" {
			t.Errorf("row holds %q", payload)
		}
		// A payload moved to another kind does not open, and is given up rather than tried for ever.
		if _, err := d.Bun().NewUpdate().Table("outbox").Set("kind = ?", "event").Where("1 = 1").Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
		var s sink
		start(t, outbox.Options{Store: d, Kinds: map[string]outbox.Kind{"event": {Handler: s.take}}})
		testkit.Eventually(t, time.Minute, func() bool { return depth(t, d).Dead == 1 })
		if got := s.list(); len(got) != 0 {
			t.Errorf("delivered %v", got)
		}
	})
}

func TestReplicasNeverDeliverTwice(t *testing.T) {
	engines(t, func(t *testing.T, open func() *db.DB) {
		const n = 40
		var mu sync.Mutex
		times := map[string]int{}
		handler := func(_ context.Context, _ string, payload []byte) error {
			mu.Lock()
			defer mu.Unlock()
			times[string(payload)]++
			return nil
		}
		first := open()
		var want []string
		for i := range n {
			want = append(want, fmt.Sprint(i))
		}
		for _, d := range []*db.DB{first, open(), open()} {
			start(t, outbox.Options{Store: d, Poll: 10 * time.Millisecond, Kinds: map[string]outbox.Kind{"mail": {Handler: handler}}})
		}
		enqueue(t, first, "mail", want...)
		testkit.Eventually(t, time.Minute, func() bool { return depth(t, first).Waiting == 0 })
		mu.Lock()
		defer mu.Unlock()
		if len(times) != n {
			t.Errorf("delivered %d of %d", len(times), n)
		}
		for p, k := range times {
			if k != 1 {
				t.Errorf("%s was delivered %d times", p, k)
			}
		}
	})
}

func TestOrderedItemsKeepTheirOrderOverReplicas(t *testing.T) {
	engines(t, func(t *testing.T, open func() *db.DB) {
		const n = 40
		var s sink
		var fails atomic.Int64
		handler := func(ctx context.Context, topic string, payload []byte) error {
			if string(payload) == "7" && fails.Add(1) <= 2 {
				return errors.New("not yet")
			}
			return s.take(ctx, topic, payload)
		}
		first := open()
		for _, d := range []*db.DB{first, open()} {
			start(t, outbox.Options{
				Store: d, Poll: 10 * time.Millisecond, Backoff: 20 * time.Millisecond,
				Kinds: map[string]outbox.Kind{"event": {Handler: handler, Ordered: true}},
			})
		}
		var want []string
		for i := range n {
			want = append(want, fmt.Sprint(i))
			enqueue(t, first, "event", want[i])
		}
		testkit.Eventually(t, time.Minute, func() bool { return depth(t, first).Waiting == 0 })
		if got := s.list(); !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
		if fails.Load() != 3 {
			t.Errorf("%d attempts at the one that fails twice", fails.Load())
		}
	})
}

func TestFailuresAreTriedAgainAndThenGivenUp(t *testing.T) {
	engines(t, func(t *testing.T, open func() *db.DB) {
		d := open()
		var mu sync.Mutex
		outcomes := map[string][]string{}
		var attempts atomic.Int64
		handler := func(_ context.Context, _ string, payload []byte) error {
			switch {
			case string(payload) == "panics":
				panic("a defect")
			case string(payload) == "hopeless":
				return fmt.Errorf("refused: %w", outbox.Permanent(errors.New("no such mailbox\x00\n")))
			case attempts.Add(1) < 3:
				return errors.New("try later")
			}
			return nil
		}
		b := start(t, outbox.Options{
			Store: d, Poll: 10 * time.Millisecond, Backoff: time.Millisecond, MaxBackoff: 4 * time.Millisecond,
			Kinds: map[string]outbox.Kind{
				"mail": {Handler: handler}, "bad": {Handler: handler}, "old": {Handler: handler, MaxAge: time.Millisecond},
			},
			Observe: func(kind, outcome string) {
				mu.Lock()
				defer mu.Unlock()
				outcomes[kind] = append(outcomes[kind], outcome)
			},
		})
		enqueue(t, d, "mail", "mended")
		enqueue(t, d, "bad", "hopeless")
		enqueue(t, d, "old", "panics")
		testkit.Eventually(t, time.Minute, func() bool {
			waiting, _ := b.Depth("mail")
			_, bad := b.Depth("bad")
			_, old := b.Depth("old")
			return waiting == 0 && bad == 1 && old == 1 && attempts.Load() == 3
		})
		if err := b.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		for kind, want := range map[string][]string{
			"mail": {"failed", "failed", "delivered"}, "bad": {"dead"}, "old": {"dead"},
		} {
			if got := outcomes[kind]; !slices.Equal(got, want) {
				t.Errorf("%s: %v", kind, got)
			}
		}
		var reason string
		if err := d.Bun().NewSelect().Table("outbox").Column("last_error").Where("kind = ?", "bad").Scan(t.Context(), &reason); err != nil {
			t.Fatal(err)
		}
		if reason != "refused: no such mailbox  " {
			t.Errorf("reason %q", reason)
		}
	})
}

// pauses notes when items are to be tried again.
type pauses struct {
	outbox.Store
	next chan time.Duration
}

func (p pauses) RetryOutbox(ctx context.Context, item db.OutboxItem, next time.Time, reason string) error {
	p.next <- time.Until(next)
	return p.Store.RetryOutbox(ctx, item, next, reason)
}

func TestTheLongestPauseIsTheKinds(t *testing.T) {
	engines(t, func(t *testing.T, open func() *db.DB) {
		d := open()
		p := pauses{d, make(chan time.Duration, 2)}
		failing := func(context.Context, string, []byte) error { return errors.New("try later") }
		for kind, longest := range map[string]time.Duration{"eager": time.Minute, "patient": time.Hour} {
			enqueue(t, d, kind, "x")
			if _, err := d.Bun().NewUpdate().Table("outbox").Set("attempts = 40").Where("kind = ?", kind).Exec(t.Context()); err != nil {
				t.Fatal(err)
			}
			b := start(t, outbox.Options{
				Store: p, Poll: 10 * time.Millisecond, MaxBackoff: time.Hour,
				Kinds: map[string]outbox.Kind{"eager": {Handler: failing, MaxBackoff: time.Minute}, "patient": {Handler: failing}},
			})
			if pause := <-p.next; pause > longest*3/2 || pause < longest/3 {
				t.Errorf("%s: %v", kind, pause)
			}
			if err := b.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestALeaseThatRanOutIsTakenOver(t *testing.T) {
	engines(t, func(t *testing.T, open func() *db.DB) {
		d := open()
		enqueue(t, d, "mail", "orphan")
		// A worker that dies right after its lease.
		items, err := d.LeaseOutbox(t.Context(), "mail", 10, 20*time.Millisecond, false)
		if err != nil || len(items) != 1 || items[0].Attempts != 1 {
			t.Fatalf("%+v, %v", items, err)
		}
		again, err := d.LeaseOutbox(t.Context(), "mail", 10, time.Minute, false)
		if err != nil {
			t.Fatal(err)
		}
		for len(again) == 0 { // the lease runs out
			time.Sleep(5 * time.Millisecond)
			if again, err = d.LeaseOutbox(t.Context(), "mail", 10, time.Minute, false); err != nil {
				t.Fatal(err)
			}
		}
		if again[0].Attempts != 2 || string(again[0].Payload) != "orphan" {
			t.Errorf("%+v", again[0])
		}
		// What the dead one might still say no longer counts.
		for _, say := range []func() error{
			func() error { return d.DeleteOutbox(t.Context(), items[0]) },
			func() error { return d.BuryOutbox(t.Context(), items[0], "late") },
			func() error { return d.RetryOutbox(t.Context(), items[0], time.Now(), "late") },
			func() error { return d.ReleaseOutbox(t.Context(), items[0]) },
		} {
			if err := say(); err != nil {
				t.Fatal(err)
			}
		}
		if more, err := d.LeaseOutbox(t.Context(), "mail", 10, time.Minute, false); len(more) != 0 || err != nil {
			t.Errorf("leased twice: %+v, %v", more, err)
		}
		if err := d.DeleteOutbox(t.Context(), again[0]); err != nil {
			t.Fatal(err)
		}
		if n := depth(t, d); n.Waiting != 0 || n.Dead != 0 {
			t.Errorf("left: %+v", n)
		}
	})
}

func TestCloseFinishesWhatIsInHand(t *testing.T) {
	engines(t, func(t *testing.T, open func() *db.DB) {
		d := open()
		began, release := make(chan struct{}), make(chan struct{})
		var done atomic.Bool
		b := start(t, outbox.Options{Store: d, Kinds: map[string]outbox.Kind{"mail": {Handler: func(ctx context.Context, _ string, _ []byte) error {
			close(began)
			<-release
			done.Store(true)
			return ctx.Err()
		}}}})
		enqueue(t, d, "mail", "in hand")
		<-began
		closed := make(chan error, 1)
		go func() { closed <- b.Close(context.Background()) }()
		enqueue(t, d, "mail", "too late")
		close(release)
		if err := <-closed; err != nil || !done.Load() {
			t.Errorf("closed with %v, delivered: %v", err, done.Load())
		}
		if n := depth(t, d); n.Waiting != 1 {
			t.Errorf("left: %+v", n)
		}
	})
}

func TestCloseCutsShortWhatTakesTooLong(t *testing.T) {
	engines(t, func(t *testing.T, open func() *db.DB) {
		d := open()
		began := make(chan struct{})
		b, err := outbox.New(outbox.Options{
			Store: d, Log: slog.New(slog.DiscardHandler),
			Kinds: map[string]outbox.Kind{"mail": {Handler: func(ctx context.Context, _ string, _ []byte) error {
				close(began)
				<-ctx.Done()
				return ctx.Err()
			}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		enqueue(t, d, "mail", "slow")
		<-began
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if err := b.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		// It is free again, and the attempt does not count.
		items, err := d.LeaseOutbox(t.Context(), "mail", 1, time.Minute, false)
		if err != nil || len(items) != 1 || items[0].Attempts != 1 {
			t.Errorf("%+v, %v", items, err)
		}
	})
}

func TestNewRefusesAKindWithoutHandler(t *testing.T) {
	if _, err := outbox.New(outbox.Options{Kinds: map[string]outbox.Kind{"mail": {}}}); err == nil {
		t.Error("accepted")
	}
}
