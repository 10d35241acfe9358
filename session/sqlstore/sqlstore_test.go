package sqlstore_test

import (
	"sync"
	"testing"

	"barong/db"
	"barong/internal/testkit"
	"barong/session"
	"barong/session/sessiontest"
	"barong/session/sqlstore"
)

func open(t *testing.T, url string) *sqlstore.Store {
	t.Helper()
	d, err := db.Open(t.Context(), db.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	if _, err := d.MigrateUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	return sqlstore.New(d)
}

func TestSQLite(t *testing.T) {
	t.Parallel()
	sessiontest.Run(t, func(t *testing.T) session.Store { return open(t, "sqlite://"+t.TempDir()+"/barong.db") })
}

func TestPostgres(t *testing.T) {
	t.Parallel()
	// One database for all, in turns: making thirty takes longer than everything else.
	store := open(t, testkit.Postgres(t))
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
