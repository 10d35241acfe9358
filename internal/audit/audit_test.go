package audit

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"barong/authz"
	"barong/db"
	"barong/internal/test/dbtest"
	"barong/internal/test/testkit"
)

func open(t *testing.T, url string) *db.DB {
	t.Helper()
	return dbtest.At(t, db.Options{URL: url})
}

// closing closes a writer and fails the test if that fails.
func closing(t *testing.T, w *Writer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := w.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

// rows shows all rows, "topic result count", in the order of ids.
func rows(t *testing.T, d *db.DB) []db.Activity {
	t.Helper()
	all, _, err := d.Activities(context.Background(), db.ActivityFilter{Category: db.CategoryAdmin}, db.Page{Number: 1, Size: 100_000})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func entry(user int64, method, path string, allowed bool) *authz.AuditEntry {
	return &authz.AuditEntry{UserID: user, Method: method, Path: path, Allowed: allowed, UserAgent: "curl"}
}

func TestAuditIsCommittedWhenItReturns(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		w := New(Options{DB: d})
		defer closing(t, w)
		odd := entry(1, "PATCH", "admin/users\x7f\xff", true)
		odd.UserAgent, odd.Topic, odd.Query = strings.Repeat("ü\x00\xff", 1000), strings.Repeat("t", 1000), "uid="+strings.Repeat("%00%ffID", 1000)
		for i, e := range []*authz.AuditEntry{
			entry(1, "POST", "admin/users", true), entry(1, "POST", "admin/users", true), entry(1, "POST", "admin/users", false), odd,
		} {
			if err := w.Audit(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			if got := rows(t, d); len(got) != i+1 {
				t.Fatalf("%d rows after %d entries", len(got), i+1)
			}
		}
		got := rows(t, d)[0]
		if got.TargetUID == nil || !strings.HasSuffix(*got.TargetUID, "ID") && len(*got.TargetUID) < 200 || len(got.UserAgent) > 255 || len(got.Topic) != 255 {
			t.Errorf("got %+v", got)
		}
	})
}

func TestManyInParallel(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		w := New(Options{DB: d})
		const callers, each = 50, 20
		var wg sync.WaitGroup
		for c := range callers {
			wg.Go(func() {
				for n := range each {
					// Back-pressure is no failure: a caller that was told to come back does.
					for {
						err := w.Audit(context.Background(), entry(int64(c), "POST", fmt.Sprintf("admin/a/%d/%d", c, n), n%2 == 0))
						if err == nil {
							break
						}
						if !errors.Is(err, errSlow) {
							t.Error(err)
							return
						}
					}
				}
			})
		}
		wg.Wait()
		closing(t, w)
		if got := rows(t, d); len(got) < callers*each {
			t.Errorf("got %d rows", len(got))
		}
	})
}

func TestRepeatedRefusalsAreFolded(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		var clock atomic.Int64
		clock.Store(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Unix())
		w := New(Options{DB: d, Now: func() time.Time { return time.Unix(clock.Load(), 0) }})
		refuse := func(n int, user int64, method, path string) {
			t.Helper()
			var wg sync.WaitGroup
			for range n {
				wg.Go(func() {
					if err := w.Audit(context.Background(), entry(user, method, path, false)); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
		}
		refuse(20, 1, "GET", "admin/x")
		if got := rows(t, d); len(got) != 1 {
			t.Errorf("got %d rows before the counts are stored", len(got))
		}
		refuse(2, 2, "GET", "admin/x")
		refuse(3, 1, "PUT", "admin/x")
		refuse(1, 1, "GET", "admin/y")
		clock.Add(59)
		refuse(5, 1, "GET", "admin/x")
		clock.Add(1)
		refuse(4, 1, "GET", "admin/x")
		closing(t, w)
		var got []string
		for _, r := range rows(t, d) {
			got = append(got, fmt.Sprintf("%d %s %d", r.UserID, r.Action, r.Count))
		}
		if want := "1 read 4, 1 read 1, 1 update 3, 2 read 2, 1 read 25"; strings.Join(got, ", ") != want {
			t.Errorf("got %s, want %s", strings.Join(got, ", "), want)
		}
	})
}

func TestCountsAreStoredWhileRunning(t *testing.T) {
	d := dbtest.Open(t, "sqlite", db.Options{})
	w := New(Options{DB: d})
	defer closing(t, w)
	for range 7 {
		if err := w.Audit(t.Context(), entry(1, "GET", "admin/x", false)); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(20 * time.Second); rows(t, d)[0].Count != 7; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the count is %d", rows(t, d)[0].Count)
		}
	}
}

// TestPathsOfOneUser holds that whoever asks for ever other forbidden paths does not fill the table.
func TestPathsOfOneUser(t *testing.T) {
	var clock atomic.Int64
	d := dbtest.Open(t, "sqlite", db.Options{})
	w := New(Options{DB: d, Now: func() time.Time { return time.Unix(clock.Load(), 0) }})
	refuse := func(user int64, from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			if err := w.Audit(t.Context(), entry(user, "GET", fmt.Sprint("admin/", i), false)); err != nil {
				t.Fatal(err)
			}
		}
	}
	refuse(1, 0, rowsPerUser+30)
	refuse(1, 0, 1) // has a row of its own
	refuse(2, 0, 2)
	if err := w.Audit(t.Context(), entry(1, "GET", "admin/x", true)); err != nil {
		t.Fatal(err)
	}
	clock.Add(60)
	refuse(1, 500, 502)
	closing(t, w)
	counts := map[string]int{}
	all := rows(t, d)
	for _, r := range all {
		others := strings.Contains(*r.Data, `"others":true`)
		counts[fmt.Sprint(r.UserID, " ", r.Result, " ", r.Count, " ", others)]++
	}
	want := map[string]int{
		"1 denied 1 false": rowsPerUser - 1 + 2, "1 denied 2 false": 1, "1 denied 30 true": 1, "1 succeed 1 false": 1, "2 denied 1 false": 2,
	}
	if !maps.Equal(counts, want) {
		t.Errorf("got %v, want %v", counts, want)
	}
}

func TestFoldsAreBounded(t *testing.T) {
	w := &Writer{
		o: Options{Now: time.Now}, seed: maphash.MakeSeed(),
		folds: map[foldKey]fold{}, repeats: map[int64]int{}, budgets: map[int64]budget{},
	}
	now := time.Now()
	for i := range foldsKept + 100 {
		if _, first, err := w.admit(entry(int64(i), "GET", fmt.Sprint(i), false), now); !first || err != nil {
			t.Fatalf("%d: %v, %v", i, first, err)
		}
	}
	if len(w.folds) != foldsKept {
		t.Errorf("%d folds", len(w.folds))
	}
}

// TestOutage: without the database Audit fails in time, and what it had taken is stored when the database is back.
func TestOutage(t *testing.T) {
	server := testkit.PostgresServer(t)
	d := open(t, server.URL)
	w := New(Options{DB: d})
	if err := w.Audit(t.Context(), entry(1, "POST", "admin/before", true)); err != nil {
		t.Fatal(err)
	}
	server.Stop() // in order: a test server does not sync what it commits
	if err := w.Audit(t.Context(), entry(1, "POST", "admin/during", true)); !errors.Is(err, errSlow) {
		t.Errorf("got %v", err)
	}
	if err := w.Audit(t.Context(), entry(1, "POST", "admin/refused", false)); !errors.Is(err, errSlow) {
		t.Errorf("got %v", err)
	}
	server.Start(t)
	closing(t, w)
	var got []string
	for _, r := range rows(t, d) {
		got = append(got, r.Topic)
	}
	if strings.Join(got, " ") != "refused during before" {
		t.Errorf("got %q", got)
	}
}

func TestClose(t *testing.T) {
	d := dbtest.Open(t, "sqlite", db.Options{})
	w := New(Options{DB: d})
	var wg sync.WaitGroup
	var stored atomic.Int64
	for i := range 100 {
		wg.Go(func() {
			if w.Audit(context.Background(), entry(int64(i), "POST", "admin/x", true)) == nil {
				stored.Add(1)
			}
		})
	}
	closing(t, w)
	wg.Wait()
	if got := rows(t, d); int64(len(got)) != stored.Load() {
		t.Errorf("%d rows of %d that were promised", len(got), stored.Load())
	}
	if err := w.Audit(t.Context(), entry(1, "POST", "admin/x", true)); !errors.Is(err, errClosed) {
		t.Errorf("got %v", err)
	}
	closing(t, w) // again
}

func TestCloseGivesUpInTime(t *testing.T) {
	server := testkit.PostgresServer(t)
	w := New(Options{DB: open(t, server.URL)})
	server.Kill()
	_ = w.Audit(t.Context(), entry(1, "POST", "admin/x", true))
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := w.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestAuditEndsWithItsCaller(t *testing.T) {
	w := &Writer{o: Options{Now: time.Now}, folds: map[foldKey]fold{}, queue: make(chan *item)}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := w.Audit(ctx, entry(1, "POST", "admin/x", true)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestRefusedRowDoesNotKeepOthersOut gives the database a row that it will not take.
func TestRefusedRowDoesNotKeepOthersOut(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		err := d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
			text := "CREATE TRIGGER no BEFORE INSERT ON activities WHEN NEW.data LIKE '%poison%' BEGIN SELECT RAISE(ABORT, 'no'); END"
			if !d.SQLite() {
				text = "ALTER TABLE activities ADD CHECK (data NOT LIKE '%poison%')"
			}
			_, err := tx.ExecContext(ctx, text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		w := New(Options{DB: d})
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				e := entry(int64(i), "POST", "admin/x", true)
				if i == 3 {
					e.Query = "a=poison"
				}
				if err := w.Audit(context.Background(), e); err != nil && !errors.Is(err, errSlow) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		closing(t, w)
		got := rows(t, d)
		if len(got) != 10 {
			t.Errorf("got %d rows", len(got))
		}
		for _, r := range got {
			if r.UserID == 3 && *r.Data != `{"note":"The request could not be stored"}` {
				t.Errorf("got %s", *r.Data)
			}
		}
	})
}

func BenchmarkAudit(b *testing.B) {
	w := New(Options{DB: dbtest.Open(b, "sqlite", db.Options{})})
	defer w.Close(context.Background())
	b.Run("allowed", func(b *testing.B) {
		b.SetParallelism(64)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := w.Audit(context.Background(), entry(1, "POST", "api/v2/barong/admin/users", true)); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
	b.Run("refused again", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := w.Audit(context.Background(), entry(1, "POST", "api/v2/barong/admin/users", false)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
