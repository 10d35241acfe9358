package sqlbus_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"barong/db"
	"barong/internal/bus"
	"barong/internal/bus/bustest"
	"barong/internal/bus/sqlbus"
	"barong/internal/test/dbtest"
	"barong/internal/test/testkit"
)

func open(t testing.TB, url string) *db.DB {
	t.Helper()
	return dbtest.At(t, db.Options{URL: url})
}

func join(t testing.TB, d *db.DB) *bus.Shared {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	b, err := sqlbus.Open(ctx, d, bus.Options{Heartbeat: bustest.Heartbeat})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// Each replica has a handle of its own, as each process would.
func TestSQLite(t *testing.T) {
	t.Parallel()
	bustest.Run(t, func(t *testing.T) func() *bus.Shared {
		url := dbtest.URL(t, "sqlite")
		return func() *bus.Shared { return join(t, open(t, url)) }
	})
}

func TestPostgres(t *testing.T) {
	t.Parallel()
	bustest.Run(t, func(t *testing.T) func() *bus.Shared {
		url := dbtest.URL(t, "postgres")
		return func() *bus.Shared { return join(t, open(t, url)) }
	})
}

func BenchmarkNotice(b *testing.B) {
	for name, url := range map[string]string{
		"SQLite": dbtest.URL(b, "sqlite"), "Postgres": dbtest.URL(b, "postgres"),
	} {
		b.Run(name, func(b *testing.B) { bustest.Benchmark(b, func() *bus.Shared { return join(b, open(b, url)) }) })
	}
}

// The notices of a transaction reach the other process's handlers.
func TestUpdateTellsOthers(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]string{
		"SQLite": dbtest.URL(t, "sqlite"), "Postgres": dbtest.URL(t, "postgres"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mine, theirs := open(t, url), open(t, url)
			a, b := join(t, mine), join(t, theirs)
			mine.PublishTo(a.Publish)
			ra, rb := bustest.Record(a), bustest.Record(b)
			want := bus.Notice{Kind: bus.UserChanged, Subject: "ID0000000001"}
			err := mine.Update(t.Context(), func(_ context.Context, tx *db.Tx) error {
				tx.Notify(want.Kind, want.Subject)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if got := ra.All(); !slices.Equal(got, []bus.Notice{want}) {
				t.Errorf("own handlers have seen %v when Update returns", got)
			}
			bustest.Await(t, "notice", func() bool { return slices.Equal(rb.All(), []bus.Notice{want}) })
		})
	}
}

func exec(t *testing.T, d *db.DB, query string, args ...any) {
	t.Helper()
	if _, err := d.Bun().DB.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatal(err)
	}
}

// Rows that were removed before they were read are a gap; old rows are removed by the next notice.
func TestSQLiteGapsAndPurge(t *testing.T) {
	t.Parallel()
	d := open(t, dbtest.URL(t, "sqlite"))
	b := join(t, d)
	r := bustest.Record(b)
	const insert = "INSERT INTO bus_notices (origin, kind, subject, created_at) VALUES ('x', 'user', ?, ?)"
	now := time.Now().UnixMilli()
	exec(t, d, insert, "read", now)
	bustest.Await(t, "notice", func() bool { return len(r.All()) == 1 })
	err := d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
		if _, err := tx.ExecContext(ctx, insert, "lost", now); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "DELETE FROM bus_notices WHERE subject = 'lost'")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	bustest.Await(t, "gap", func() bool { return r.Gaps() == 1 })
	exec(t, d, insert, "old", now-time.Hour.Milliseconds())
	bustest.Await(t, "old notice", func() bool { return len(r.All()) == 2 })
	if err := b.Publish(t.Context(), bus.Notice{Kind: bus.PolicyChanged}); err != nil {
		t.Fatal(err)
	}
	var subjects []string
	if err := d.Bun().NewSelect().Table("bus_notices").Column("subject").Order("id").Scan(t.Context(), &subjects); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(subjects, []string{"read", ""}) {
		t.Errorf("the table holds %q, want the young ones", subjects)
	}
	if got := r.Gaps(); got != 1 {
		t.Errorf("%d gaps, want 1", got)
	}
}

// While the server hangs or is gone, memory older than the TTL is not trusted; after it, everything is forgotten once
// and trusted again.
func TestPostgresFails(t *testing.T) {
	t.Parallel()
	server := testkit.PostgresServer(t)
	a, b := join(t, open(t, server.URL)), join(t, open(t, server.URL))
	r := bustest.Record(b)
	const ttl = 5 * bustest.Heartbeat
	for _, c := range []struct {
		name       string
		fail, mend func()
	}{
		{"hangs", server.Pause, server.Resume},
		{"is killed", server.Kill, func() { server.Start(t) }},
	} {
		gaps, loaded := r.Gaps(), time.Now()
		c.fail()
		bustest.Await(t, c.name+": noticed", func() bool {
			now := time.Now()
			return b.Healthy(now) != nil && !b.Fresh(loaded, now, ttl)
		})
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		if b.Publish(ctx, bus.Notice{Kind: bus.PolicyChanged}) == nil {
			t.Errorf("%s: Publish succeeds", c.name)
		}
		cancel()
		c.mend()
		bustest.Await(t, c.name+": mended", func() bool {
			now := time.Now()
			return a.Healthy(now) == nil && b.Healthy(now) == nil && r.Gaps() > gaps
		})
		want := bus.Notice{Kind: bus.UserChanged, Subject: c.name}
		for heard := false; !heard; { // on a busy machine the connection may be given up once more, which is another gap
			gaps := r.Gaps()
			bustest.Await(t, c.name+": Publish", func() bool { return a.Publish(t.Context(), want) == nil })
			bustest.Await(t, c.name+": notice", func() bool {
				heard = slices.Contains(r.All(), want)
				return heard || r.Gaps() > gaps
			})
		}
	}
}

// A backend that is ended is a gap, however soon there is another.
func TestPostgresConnectionIsCut(t *testing.T) {
	t.Parallel()
	d := open(t, dbtest.URL(t, "postgres"))
	b := join(t, d)
	r := bustest.Record(b)
	for i := range 3 {
		gaps := r.Gaps()
		exec(t, d, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND query LIKE 'LISTEN%'`)
		bustest.Await(t, "gap", func() bool { return r.Gaps() > gaps })
		want := bus.Notice{Kind: bus.UserChanged, Subject: strings.Repeat("x", i+1)}
		bustest.Await(t, "healthy", func() bool { return b.Healthy(time.Now()) == nil })
		if err := b.Publish(t.Context(), want); err != nil {
			t.Errorf("Publish: %v", err)
		}
	}
}

// A connection that is accepted and never begins to listen is given up.
func TestPostgresHalfOpen(t *testing.T) {
	t.Parallel()
	server := testkit.PostgresServer(t)
	relay := testkit.NewRelay(t, server.Addr)
	d := open(t, server.URL)
	b := join(t, open(t, strings.Replace(server.URL, server.Addr, relay.Addr, 1)))
	r := bustest.Record(b)
	relay.Swallow("LISTEN")
	gaps := r.Gaps()
	exec(t, d, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
	bustest.Await(t, "silence", func() bool { return b.Healthy(time.Now()) != nil })
	time.Sleep(2 * time.Second) // the connection stays open
	if b.Healthy(time.Now()) == nil || r.Gaps() != gaps {
		t.Error("the bus is heard through a connection that is silent")
	}
	relay.Swallow("")
	bustest.Await(t, "healthy", func() bool { return b.Healthy(time.Now()) == nil && r.Gaps() > gaps })
}
