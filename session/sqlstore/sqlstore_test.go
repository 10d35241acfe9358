package sqlstore_test

import (
	"net/netip"
	"sync"
	"testing"
	"time"

	"barong/db"
	"barong/internal/test/testkit"
	"barong/session"
	"barong/session/sessiontest"
	"barong/session/sqlstore"
)

func open(t *testing.T, url string) *sqlstore.Store {
	t.Helper()
	return sqlstore.New(database(t, url))
}

func database(t *testing.T, url string) *db.DB {
	t.Helper()
	d, err := db.Open(t.Context(), db.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	if _, err := d.MigrateUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d
}

// versionBefore stores a session as the version did that knew nothing of methods, and reads it.
func versionBefore(t *testing.T, d *db.DB) {
	v := &session.Session{
		Key: session.NewID().Key(), UID: "ID0000000001", Epoch: 3, CSRF: "0123456789abcdef0123", Country: "NL",
		IP: netip.MustParseAddr("203.0.113.7"), UserAgent: "curl/8", AuthTime: time.UnixMilli(1).UTC(), CreatedAt: time.UnixMilli(1).UTC(),
		SeenAt: time.UnixMilli(2).UTC(), ExpiresAt: time.UnixMilli(3_000).UTC(), EndsAt: time.UnixMilli(4_000).UTC(),
	}
	_, err := d.Bun().NewRaw(`INSERT INTO sessions
		(key, uid, epoch, csrf, ip, user_agent, country, created_at, seen_at, expires_at, ends_at)
		VALUES (?, 'ID0000000001', 3, '0123456789abcdef0123', '203.0.113.7', 'curl/8', 'NL', 1, 2, 3000, 4000)`, v.Key.String()).Exec(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, err := sqlstore.New(d).Get(t.Context(), v.Key, v.CreatedAt)
	if err != nil || *got != *v {
		t.Errorf("got %+v, %v, want %+v", got, err, v)
	}
}

func TestSQLiteOfTheVersionBefore(t *testing.T) {
	t.Parallel()
	versionBefore(t, database(t, "sqlite://"+t.TempDir()+"/barong.db"))
}

func TestSQLite(t *testing.T) {
	t.Parallel()
	sessiontest.Run(t, func(t *testing.T) session.Store { return open(t, "sqlite://"+t.TempDir()+"/barong.db") })
}

func TestPostgres(t *testing.T) {
	t.Parallel()
	// One database for all, in turns: making thirty takes longer than everything else.
	d := database(t, testkit.Postgres(t))
	versionBefore(t, d)
	store := sqlstore.New(d)
	var turn sync.Mutex
	sessiontest.Run(t, func(t *testing.T) session.Store {
		turn.Lock()
		t.Cleanup(turn.Unlock)
		if _, err := store.DeleteAll(t.Context()); err != nil {
			t.Fatal(err)
		}
		return store
	})
}
