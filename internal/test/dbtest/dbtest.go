// Package dbtest gives tests databases at the newest schema, on both engines. The migrations run once an engine in each test
// binary; what a test gets is a copy, which costs a twentieth of them.
package dbtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"barong/db"
	"barong/internal/crypto/secret"
	"barong/internal/test/testkit"
)

// Engines are those on which everything behaves alike.
var Engines = []string{"sqlite", "postgres"}

// URL is that of a new database of an engine, for tests that open several handles of it. It ends with the test.
func URL(t testing.TB, engine string) string {
	t.Helper()
	if engine == "postgres" {
		return testkit.PostgresCopy(t, "migrated", migrate)
	}
	template, err := sqlite()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "barong.db")
	if err := os.WriteFile(file, template, 0o600); err != nil {
		t.Fatal(err)
	}
	return "sqlite://" + file
}

// Open opens a new database of an engine. Of the options the URL is set here, and the sealer, if there is none, has a key of
// its own.
func Open(t testing.TB, engine string, o db.Options) *db.DB {
	t.Helper()
	o.URL = URL(t, engine)
	return open(t, o)
}

// At opens the database of the options, whichever it is, and brings its schema up to date.
func At(t testing.TB, o db.Options) *db.DB {
	t.Helper()
	d := open(t, o)
	if _, err := d.MigrateUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d
}

func open(t testing.TB, o db.Options) *db.DB {
	t.Helper()
	if o.Sealer == nil {
		box, err := secret.New(secret.NewKey())
		if err != nil {
			t.Fatal(err)
		}
		o.Sealer = box
	}
	d, err := db.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// Each runs f as a subtest on a new database of each engine.
func Each(t *testing.T, f func(t *testing.T, d *db.DB)) {
	t.Helper()
	for _, engine := range Engines {
		t.Run(engine, func(t *testing.T) { f(t, Open(t, engine, db.Options{})) })
	}
}

// migrate brings the schema of an empty database up to date, and leaves no connection open.
func migrate(url string) error {
	d, err := db.Open(context.Background(), db.Options{URL: url})
	if err != nil {
		return err
	}
	_, err = d.MigrateUp(context.Background())
	return errors.Join(err, d.Close())
}

// sqlite is the file of a migrated database. It is whole: closing the last connection takes in the write-ahead log.
var sqlite = sync.OnceValues(func() ([]byte, error) {
	folder, err := os.MkdirTemp("", "barong-dbtest-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	file := filepath.Join(folder, "barong.db")
	if err := migrate("sqlite://" + file); err != nil {
		return nil, err
	}
	if info, err := os.Stat(file + "-wal"); err == nil && info.Size() > 0 {
		return nil, fmt.Errorf("dbtest: %d bytes are left in the write-ahead log", info.Size())
	}
	return os.ReadFile(file)
})
