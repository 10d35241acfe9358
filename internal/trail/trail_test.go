package trail_test

import (
	"context"
	"crypto/sha256"
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
	"barong/internal/test/dbtest"
	"barong/internal/test/testkit"
	"barong/internal/trail"
)

var (
	start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	quiet = slog.New(slog.DiscardHandler)
)

var errRolledBack = errors.New("rolled back")

// A clock is set by tests.
type clock struct{ at atomic.Int64 }

func newClock(t time.Time) *clock {
	c := new(clock)
	c.at.Store(t.UnixNano())
	return c
}
func (c *clock) now() time.Time       { return time.Unix(0, c.at.Load()).UTC() }
func (c *clock) pass(d time.Duration) { c.at.Add(int64(d)) }

// fortnight is a time after which no id is awaited any more, also while other tests have transactions under way on the same
// server.
const fortnight = 14 * 24 * time.Hour

func newSealer(d *db.DB, c *clock) *trail.Sealer {
	return trail.NewSealer(trail.Options{DB: d, Now: c.now, Log: quiet})
}

// row is an activity that a user has caused at a time.
func row(id int64, at time.Time) db.Activity {
	data, target := fmt.Sprintf(`{"n":%d}`, id), "ID1"
	a := db.Activity{
		ID: id, UserID: 1 + id%7, Category: "user", UserIP: "::1", UserAgent: "a", Topic: "session", Action: "login", Result: "succeed",
		Data: &data, Count: 1, CreatedAt: at,
	}
	if id%2 == 0 {
		a.TargetUID = &target
	}
	return a
}

// add adds rows with ids from first to last, a minute apart.
func add(t testing.TB, d *db.DB, first, last int64) {
	t.Helper()
	var rows []db.Activity
	for id := first; id <= last; id++ {
		rows = append(rows, row(id, start.Add(time.Duration(id)*time.Minute)))
	}
	for part := range slices.Chunk(rows, 500) {
		if err := d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error { return tx.InsertActivities(ctx, part...) }); err != nil {
			t.Fatal(err)
		}
	}
}

func seal(t testing.TB, s *trail.Sealer) {
	t.Helper()
	for {
		more, err := s.Seal(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			return
		}
	}
}

func exec(t testing.TB, d *db.DB, statement string, args ...any) {
	t.Helper()
	if _, err := d.Bun().ExecContext(t.Context(), statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// verify returns the summary, and a line for each finding: its kind, block and ids.
func verify(t testing.TB, d *db.DB, o trail.VerifyOptions) (*trail.Summary, []string) {
	t.Helper()
	var lines []string
	o.Found = func(f trail.Finding) error {
		line := f.Kind
		if f.Block > 0 {
			line += fmt.Sprintf(" b%d", f.Block)
		}
		if f.Through > 0 {
			line += fmt.Sprintf("-b%d", f.Through)
		}
		if f.FirstID > 0 {
			line += fmt.Sprintf(" %d-%d", f.FirstID, f.LastID)
		}
		if f.FirstID > 0 && (f.From.IsZero() || f.Until.Before(f.From)) {
			t.Errorf("%s tells no time", line)
		}
		lines = append(lines, line)
		return nil
	}
	sum, err := trail.Verify(t.Context(), d, o)
	if err != nil {
		t.Fatal(err)
	}
	if sum.Whole != (len(lines) == 0) || sum.Findings != int64(len(lines)) {
		t.Errorf("%+v with findings %v", sum, lines)
	}
	return sum, lines
}

// whole fails unless the trail is whole and has that many sealed rows.
func whole(t testing.TB, d *db.DB, rows int64) *trail.Summary {
	t.Helper()
	sum, lines := verify(t, d, trail.VerifyOptions{})
	if len(lines) > 0 || sum.Rows != rows {
		t.Errorf("%d rows, want %d; findings %q", sum.Rows, rows, lines)
	}
	return sum
}

func head(t testing.TB, sum *trail.Summary) *trail.Head {
	t.Helper()
	h, err := trail.ParseHead(sum.Head)
	if err != nil || h.String() != sum.Head {
		t.Fatalf("head %q: %v, %v", sum.Head, h, err)
	}
	return &h
}

// activity reads a row to put it back later.
func activity(t testing.TB, d *db.DB, id int64) db.Activity {
	t.Helper()
	rows, err := d.ActivitiesByID(t.Context(), []int64{id})
	if err != nil || len(rows) != 1 {
		t.Fatalf("row %d: %v, %v", id, rows, err)
	}
	return rows[0]
}

func put(t testing.TB, d *db.DB, rows ...db.Activity) {
	t.Helper()
	if _, err := d.Bun().NewInsert().Model(&rows).Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func blocks(t testing.TB, d *db.DB, after int64) []db.AuditBlock {
	t.Helper()
	list, err := d.AuditBlocks(t.Context(), after, 1000)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestFindings: whatever is changed, removed or added among what is sealed is told, by its id; and nothing else is.
func TestFindings(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		if sum := whole(t, d, 0); sum.Head != "0" {
			t.Errorf("head of nothing: %s", sum.Head)
		}
		c := newClock(start.AddDate(1, 0, 0))
		s := newSealer(d, c)
		add(t, d, 1, 1500)
		add(t, d, 1601, 2900) // what lies between was rolled back
		seal(t, s)
		c.pass(fortnight)
		add(t, d, 2901, 2902)
		seal(t, s) // by now nobody waits for what was rolled back
		sum := whole(t, d, 2802)
		if sum.Blocks != 4 || sum.Late != 2802 || sum.Waiting != 0 || !sum.From.Equal(start.Add(time.Minute)) || !sum.Until.Equal(start.Add(2902*time.Minute)) {
			t.Errorf("summary %+v", sum)
		}
		kept := head(t, sum)
		update := func(column string, value any) func() func() {
			return func() func() {
				before := activity(t, d, 7)
				exec(t, d, "UPDATE activities SET "+column+" = ? WHERE id = 7", value)
				return func() {
					exec(t, d, "DELETE FROM activities WHERE id = 7")
					put(t, d, before)
				}
			}
		}
		block := func(seq int64, change func(b *db.AuditBlock)) func() func() {
			return func() func() {
				b, err := d.AuditBlock(t.Context(), seq)
				if err != nil {
					t.Fatal(err)
				}
				before, err := d.AuditBlock(t.Context(), seq)
				if err != nil {
					t.Fatal(err)
				}
				change(b)
				write := func(b *db.AuditBlock) {
					exec(t, d, "DELETE FROM audit_blocks WHERE seq = ?", seq)
					if _, err := d.Bun().NewInsert().Model(b).Exec(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				write(b)
				return func() { write(before) }
			}
		}
		remove := func(condition string) func() func() {
			return func() func() {
				var rows []db.Activity
				if err := d.Bun().NewSelect().Model(&rows).Where(condition).Scan(t.Context()); err != nil {
					t.Fatal(err)
				}
				exec(t, d, "DELETE FROM activities WHERE "+condition)
				return func() {
					for part := range slices.Chunk(rows, 500) {
						put(t, d, part...)
					}
				}
			}
		}
		dropBlocks := func(condition string) func() func() {
			return func() func() {
				var list []db.AuditBlock
				if err := d.Bun().NewSelect().Model(&list).Where(condition).Scan(t.Context()); err != nil {
					t.Fatal(err)
				}
				exec(t, d, "DELETE FROM audit_blocks WHERE "+condition)
				return func() {
					if _, err := d.Bun().NewInsert().Model(&list).Exec(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		both := func(all ...func() func()) func() func() {
			return func() func() {
				var undo []func()
				for _, f := range all {
					undo = append(undo, f())
				}
				return func() {
					for _, f := range undo {
						f()
					}
				}
			}
		}
		insert := func(id int64) func() func() {
			return func() func() {
				put(t, d, row(id, start))
				return func() { exec(t, d, "DELETE FROM activities WHERE id = ?", id) }
			}
		}
		list := blocks(t, d, 0)
		for _, x := range []struct {
			name   string
			tamper func() (undo func())
			want   string // lines
		}{
			{"user", update("user_id", 99), "edited b1 7-7"},
			{"category", update("category", "admin"), "edited b1 7-7"},
			{"address", update("user_ip", "::2"), "edited b1 7-7"},
			{"country", update("user_ip_country", ""), "edited b1 7-7"},
			{"agent", update("user_agent", "b"), "edited b1 7-7"},
			{"topic", update("topic", "sessions"), "edited b1 7-7"},
			{"action", update("action", "logout"), "edited b1 7-7"},
			{"result", update("result", "denied"), "edited b1 7-7"},
			{"data", update("data", `{"n":8}`), "edited b1 7-7"},
			{"no data", update("data", nil), "edited b1 7-7"},
			{"target", update("target_uid", "ID9"), "edited b1 7-7"},
			{"request", update("request_id", "x"), "edited b1 7-7"},
			{"time", update("created_at", start.Add(7*time.Minute+time.Second)), "edited b1 7-7"},
			{"count, which grows", update("count", 5), ""},
			{"a row deleted", remove("id = 1"), "deleted b1 1-1"},
			{"rows deleted", remove("id BETWEEN 1020 AND 1030"), "deleted b1 1020-1024|deleted b2 1025-1030"},
			{"the last rows deleted", remove("id > 2900"), "deleted b4 2901-2902"},
			{"all rows deleted", remove("id > 0"), "deleted b1 1-1024|deleted b2 1025-2148|deleted b3 2149-2900|deleted b4 2901-2902"},
			{"a row inserted", insert(1550), "inserted 1550-1550"},
			{"rows inserted", both(insert(1501), insert(1502), insert(1600)), "inserted 1501-1502|inserted 1600-1600"},
			{"rows swapped", func() func() {
				swap := func() {
					exec(t, d, "UPDATE activities SET id = -1 WHERE id = 10")
					exec(t, d, "UPDATE activities SET id = 10 WHERE id = 11")
					exec(t, d, "UPDATE activities SET id = 11 WHERE id = -1")
				}
				swap()
				return swap
			}, "edited b1 10-11"},
			{"a row moved", func() func() {
				exec(t, d, "UPDATE activities SET id = 1550 WHERE id = 10")
				return func() { exec(t, d, "UPDATE activities SET id = 10 WHERE id = 1550") }
			}, "deleted b1 10-10|inserted 1550-1550"},
			{"a block's entries", block(2, func(b *db.AuditBlock) { b.Entries[3] ^= 1 }), "altered b2|unproven 1025-1500|unproven 1601-2148"},
			{"a block's entries and digest", block(2, func(b *db.AuditBlock) {
				b.Entries[3] ^= 1
				sum := sha256.Sum256(b.Entries)
				b.Digest = sum[:]
			}), "altered b2|unproven 1025-1500|unproven 1601-2148"},
			{"a block's range", block(2, func(b *db.AuditBlock) { b.ThroughID++ }), "altered b2|unproven 1025-1500|unproven 1601-2148"},
			{"a block's time", block(4, func(b *db.AuditBlock) { b.SealedAt = b.SealedAt.Add(-time.Hour) }), "altered b4|unproven 2901-2902"},
			{
				"a block's link", block(3, func(b *db.AuditBlock) { b.Previous[0] ^= 1 }),
				"altered b3|altered b3|unproven 2149-2900",
			},
			{"another block's seal", block(2, func(b *db.AuditBlock) { b.Seal = list[0].Seal }), "altered b2|unproven 1025-1500|unproven 1601-2148"},
			{"a block that pretends to be purged", both(remove("id BETWEEN 1025 AND 2148"), block(2, func(b *db.AuditBlock) { b.Entries = nil })), "altered b2"},
			{"a block that pretends to be purged, with a record", both(remove("id BETWEEN 1025 AND 2148"), block(2, func(b *db.AuditBlock) {
				b.Entries, b.Purge = nil, &list[1].Seal
			})), "altered b2"},
		} {
			undo := x.tamper()
			_, lines := verify(t, d, trail.VerifyOptions{Head: kept})
			undo()
			if got := strings.Join(lines, "|"); got != x.want {
				t.Errorf("%s: found %q, want %q", x.name, got, x.want)
			}
		}
		for _, x := range []struct {
			name   string
			tamper func() func()
			want   string
		}{
			{"a block", dropBlocks("seq = 2"), "gap b2-b2|unproven 1025-1500|unproven 1601-2148"},
			{"a block with its rows", both(dropBlocks("seq = 2"), remove("id BETWEEN 1025 AND 2148")), "gap b2-b2"},
			{"the first blocks", dropBlocks("seq < 3"), "gap b1-b2|unproven 1-1500|unproven 1601-2148"},
		} {
			undo := x.tamper()
			_, lines := verify(t, d, trail.VerifyOptions{})
			undo()
			if got := strings.Join(lines, "|"); got != x.want {
				t.Errorf("%s deleted: found %q, want %q", x.name, got, x.want)
			}
		}

		// What is cut off at the end is seen by who has kept the head.
		undo := both(dropBlocks("seq > 3"), remove("id > 2900"))()
		if cut := whole(t, d, 2800); cut.Head == kept.String() {
			t.Error("the head is the same")
		}
		if _, lines := verify(t, d, trail.VerifyOptions{Head: kept}); !slices.Equal(lines, []string{"cut b4"}) {
			t.Errorf("cut: %q", lines)
		}
		undo()
		other := *kept
		other.Hash[0] ^= 1
		if _, lines := verify(t, d, trail.VerifyOptions{Head: &other}); !slices.Equal(lines, []string{"cut b4"}) {
			t.Errorf("another head: %q", lines)
		}

		// From a head on.
		add(t, d, 2903, 2910)
		seal(t, s)
		exec(t, d, "UPDATE activities SET topic = 'x' WHERE id IN (7, 2905)")
		if sum, lines := verify(t, d, trail.VerifyOptions{From: kept, Head: kept}); !slices.Equal(lines, []string{"edited b5 2905-2905"}) || sum.Rows != 8 {
			t.Errorf("from a head on: %+v, %q", sum, lines)
		}
		if _, lines := verify(t, d, trail.VerifyOptions{From: &other}); !slices.Equal(lines, []string{"cut b4", "edited b1 7-7", "edited b5 2905-2905"}) {
			t.Errorf("from another head on: %q", lines)
		}
	})
}

// TestCutUnderItsEyes: a process that runs while blocks are cut off goes on after those that it knows, so that it shows.
func TestCutUnderItsEyes(t *testing.T) {
	t.Parallel()
	d := dbtest.Open(t, "sqlite", db.Options{})
	s := newSealer(d, newClock(start))
	for id := range int64(4) {
		add(t, d, id+1, id+1)
		seal(t, s)
	}
	exec(t, d, "DELETE FROM audit_blocks WHERE seq > 2")
	exec(t, d, "DELETE FROM activities WHERE id > 2")
	whole(t, d, 2)
	add(t, d, 5, 5)
	seal(t, s)
	if _, lines := verify(t, d, trail.VerifyOptions{}); !slices.Equal(lines, []string{"gap b3-b4"}) || s.Breaks() != 1 || s.Seq() != 5 {
		t.Errorf("found %q, breaks %d, block %d", lines, s.Breaks(), s.Seq())
	}
}

// TestLateCommits: rows whose transaction commits after later ones are sealed when they do; ids that nobody can commit any more
// are not waited for.
func TestLateCommits(t *testing.T) {
	t.Parallel()
	d := dbtest.Open(t, "postgres", db.Options{})
	c := newClock(start)
	s := newSealer(d, c)
	// begin inserts a row, and commits it, or not, when it is told to.
	begin := func() (end func(commit bool)) {
		t.Helper()
		ready, answer, done := make(chan struct{}), make(chan bool), make(chan error)
		go func() {
			done <- d.Update(context.Background(), func(ctx context.Context, tx *db.Tx) error {
				if err := tx.InsertActivities(ctx, row(0, start)); err != nil {
					return err
				}
				close(ready)
				if !<-answer {
					return errRolledBack
				}
				return nil
			})
		}()
		select {
		case <-ready:
		case err := <-done:
			t.Fatal(err)
		}
		return func(commit bool) {
			t.Helper()
			answer <- commit
			if err := <-done; commit && err != nil || !commit && !errors.Is(err, errRolledBack) {
				t.Fatal(err)
			}
		}
	}
	now := func() { begin()(true) }
	now() // 1
	late := begin()
	never := begin()
	now() // 4
	seal(t, s)
	whole(t, d, 2)
	c.pass(time.Hour) // a transaction may take its time
	now()             // 5
	seal(t, s)
	late(true)
	if sum := whole(t, d, 3); sum.Waiting != 1 {
		t.Errorf("a row that came late: %+v", sum)
	}
	seal(t, s)
	if sum := whole(t, d, 4); sum.Waiting != 0 {
		t.Errorf("a row that came late, sealed: %+v", sum)
	}
	never(false)
	rows := int64(4)
	testkit.Eventually(t, time.Minute, func() bool { // transactions of other tests count as well
		now() // from 6 on
		rows++
		seal(t, s)
		newest, err := d.NewestAuditBlock(t.Context())
		return err == nil && len(newest.Awaited) == 0
	})
	whole(t, d, rows)
	put(t, d, row(3, start))
	if _, lines := verify(t, d, trail.VerifyOptions{}); !slices.Equal(lines, []string{"inserted 3-3"}) {
		t.Errorf("found %q", lines)
	}
	seal(t, s) // and nothing seals it
	if _, lines := verify(t, d, trail.VerifyOptions{}); !slices.Equal(lines, []string{"inserted 3-3"}) {
		t.Errorf("found %q", lines)
	}
}

// TestImports: an import may write rows below those that are sealed.
func TestImports(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		c := newClock(start.AddDate(1, 0, 0))
		s := newSealer(d, c)
		add(t, d, 1, 10)
		add(t, d, 5001, 5003)
		seal(t, s)
		c.pass(fortnight)
		add(t, d, 5004, 5004)
		seal(t, s)
		err := d.Import(t.Context(), func(ctx context.Context, im *db.Import) error {
			var rows []db.Importable
			for id := int64(11); id <= 3000; id++ {
				a := row(id, start)
				rows = append(rows, &a)
			}
			if err := im.Insert(ctx, rows); err != nil {
				return err
			}
			return im.Finish(ctx, &db.Run{Version: "x", ActivitiesThrough: 3000, BegunAt: start}, map[string]int64{"activities": 3000})
		})
		if err != nil {
			t.Fatal(err)
		}
		if sum := whole(t, d, 14); sum.Waiting != 2990 || !sum.Since.Equal(start) {
			t.Errorf("before they are sealed: %+v", sum)
		}
		seal(t, s)
		if sum := whole(t, d, 3004); sum.Waiting != 0 {
			t.Errorf("after: %+v", sum)
		}
		exec(t, d, "UPDATE activities SET topic = 'x' WHERE id IN (7, 2000)")
		exec(t, d, "DELETE FROM activities WHERE id = 2001")
		put(t, d, row(4000, start))
		_, lines := verify(t, d, trail.VerifyOptions{})
		if got := strings.Join(lines, "|"); got != "edited b1 7-7|edited b4 2000-2000|deleted b4 2001-2001|inserted 4000-4000" {
			t.Errorf("found %q", got)
		}
	})
}

// TestPurge: what is too old goes by whole blocks, and the chain goes on; nobody else can make rows look purged.
func TestPurge(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		now := start.AddDate(1, 0, 0)
		s := newSealer(d, newClock(now))
		purge := func(before time.Time, want int64) {
			t.Helper()
			if n, err := trail.Purge(ctx, d, before, now, quiet); err != nil || n != want {
				t.Errorf("purged %d, %v, want %d", n, err, want)
			}
		}
		add(t, d, 1, 5)
		purge(start.Add(time.Hour), 0) // nothing is sealed
		var first *trail.Head
		for n := range int64(7) { // blocks of five rows
			if n > 0 {
				add(t, d, 5*n+1, 5*n+5)
			}
			if seal(t, s); n == 0 {
				first = head(t, whole(t, d, 5))
			}
		}
		kept := head(t, whole(t, d, 35))
		at := func(id int64) time.Time { return start.Add(time.Duration(id)*time.Minute + time.Second) }
		purge(at(12), 10)
		if sum := whole(t, d, 25); sum.Purged != 10 || sum.Blocks != 6 {
			t.Errorf("after the first purge: %+v", sum)
		}
		purge(at(12), 0)

		// Rows that were changed before they were purged are told of for ever.
		exec(t, d, "UPDATE activities SET topic = 'x' WHERE id = 13")
		exec(t, d, "DELETE FROM activities WHERE id = 14")
		purge(at(16), 4)
		found := func(o trail.VerifyOptions, want ...string) {
			t.Helper()
			if _, lines := verify(t, d, o); !slices.Equal(lines, want) {
				t.Errorf("found %q, want %q", lines, want)
			}
		}
		found(trail.VerifyOptions{Head: kept}, "purged b3")
		found(trail.VerifyOptions{Head: first}, "purged b3", "cut b1") // nothing is left to compare it with

		// Old rows that came later go at once, whatever is still kept before them.
		for id := int64(36); id <= 40; id++ {
			put(t, d, row(id, start))
		}
		seal(t, s)
		purge(at(16), 5)
		found(trail.VerifyOptions{Head: kept}, "purged b3")
		if list := blocks(t, d, 0); len(list) != 6 || list[0].Seq != 3 || list[5].Purge == nil || list[5].Entries != nil {
			t.Errorf("%d blocks are left", len(list))
		}

		// Who has no keys cannot say that rows were purged.
		list := blocks(t, d, 0)
		exec(t, d, "UPDATE audit_blocks SET entries = NULL, purge = ? WHERE seq = 4", *list[5].Purge)
		exec(t, d, "DELETE FROM activities WHERE id BETWEEN 16 AND 20")
		found(trail.VerifyOptions{}, "purged b3", "altered b4")
		purge(at(26), 5) // block 5
		found(trail.VerifyOptions{}, "purged b3", "altered b4")
		if got := blocks(t, d, 0); len(got) != len(list) {
			t.Errorf("%d blocks are left of %d", len(got), len(list))
		}
		exec(t, d, "DELETE FROM audit_blocks WHERE seq < 5")
		found(trail.VerifyOptions{}, "gap b1-b4")
		purge(at(26), 0)
		if got := blocks(t, d, 0); len(got) != 4 || got[0].Seq != 5 {
			t.Errorf("blocks without a record of those before are drawn together: %d are left", len(got))
		}
	})
}

// TestRotation: the chain is verified under every key of the list, and after a rotation under the newest alone.
func TestRotation(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, first *db.DB) {
		with := func(keys ...secret.Text) *db.DB {
			t.Helper()
			var list []string
			for _, k := range keys {
				list = append(list, k.Reveal())
			}
			box, err := secret.New(secret.Text(strings.Join(list, ",")))
			if err != nil {
				t.Fatal(err)
			}
			d, err := db.Open(t.Context(), db.Options{URL: first.URL(), Sealer: box})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { d.Close() })
			return d
		}
		old, fresh := secret.NewKey(), secret.NewKey()
		before, during, after := with(old), with(fresh, old), with(fresh)
		now := start.AddDate(1, 0, 0)
		for i, d := range []*db.DB{before, during, before} {
			add(t, d, int64(1+3*i), int64(3+3*i))
			s := newSealer(d, newClock(now))
			if _, err := s.Seal(t.Context()); err != nil {
				t.Errorf("sealer %d: %v", i, err)
			}
			if want := int64(i / 2); s.Breaks() != want { // the third does not know the key of the newest block, and says so
				t.Errorf("sealer %d: %d breaks, want %d", i, s.Breaks(), want)
			}
		}
		if n, err := trail.Purge(t.Context(), during, start.Add(4*time.Minute), now, quiet); n != 3 || err != nil {
			t.Errorf("purged %d, %v", n, err)
		}
		whole(t, during, 6)
		if _, lines := verify(t, after, trail.VerifyOptions{}); !slices.Equal(lines, []string{"no_key b1-b3", "unproven 7-9"}) {
			t.Errorf("without the old key: %q", lines)
		}
		if _, lines := verify(t, before, trail.VerifyOptions{}); !slices.Equal(lines, []string{"no_key b1-b2", "unproven 4-6"}) { // the purge was by the new one
			t.Errorf("without the new key: %q", lines)
		}
		if _, err := during.Reseal(t.Context()); err != nil {
			t.Fatal(err)
		}
		whole(t, after, 6)
	})
}

// TestTogether: writers, two sealers and a purge at work, nothing is lost or sealed twice, and whoever verifies meanwhile hears
// of nothing that is not so.
func TestTogether(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		const writers, each = 4, 50
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var writing, working sync.WaitGroup
		for w := range writers {
			writing.Go(func() {
				for i := range each {
					err := d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
						a := row(0, start.Add(time.Duration(i)*time.Second))
						if err := tx.InsertActivities(ctx, a); err != nil || i%10 != 9 {
							return err
						}
						return errRolledBack
					})
					if err != nil && i%10 != 9 {
						t.Errorf("writer %d: %v", w, err)
					}
				}
			})
		}
		c := newClock(start.AddDate(1, 0, 0))
		sealers := []*trail.Sealer{newSealer(d, c), newSealer(d, c)}
		for _, s := range sealers {
			working.Go(func() {
				for ctx.Err() == nil {
					if _, err := s.Seal(ctx); err != nil && ctx.Err() == nil {
						t.Error(err)
					}
				}
			})
		}
		var purged atomic.Int64
		working.Go(func() {
			for ctx.Err() == nil {
				n, err := trail.Purge(ctx, d, start.Add(20*time.Second), c.now(), quiet)
				purged.Add(n)
				if err != nil && ctx.Err() == nil {
					t.Error(err)
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
		done := make(chan struct{})
		go func() {
			defer close(done)
			writing.Wait()
		}()
		for running := true; running; {
			select {
			case <-done:
				running = false
			default:
			}
			if _, lines := verify(t, d, trail.VerifyOptions{}); len(lines) > 0 {
				t.Fatalf("meanwhile: %q", lines)
			}
		}
		cancel()
		working.Wait()
		for _, s := range sealers {
			seal(t, s)
		}
		sum := whole(t, d, writers*each*9/10-purged.Load())
		if sum.Waiting != 0 || sum.Purged != purged.Load() || sealers[0].Breaks()+sealers[1].Breaks() != 0 {
			t.Errorf("in the end: %+v, purged %d", sum, purged.Load())
		}
	})
}
