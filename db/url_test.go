package db_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"barong/db"
)

func TestSQLiteURLs(t *testing.T) {
	t.Chdir(t.TempDir())
	abs := t.TempDir()
	for url, want := range map[string]string{
		"sqlite:a.db":                    "a.db",
		"sqlite:data/a.db":               "data/a.db",
		"sqlite:./a.db":                  "a.db",
		"sqlite://b.db":                  "b.db",
		"sqlite://my data/a b.db":        "my data/a b.db",
		"sqlite://more%20data/a%3Fb.db":  "more data/a?b.db",
		"sqlite://100%25.db":             "100%.db",
		"sqlite://a#b.db":                "a#b.db",
		"sqlite://Köln/ü.db":             "Köln/ü.db",
		"sqlite:" + abs + "/one.db":      abs + "/one.db",
		"sqlite://" + abs + "/two.db":    abs + "/two.db",
		"sqlite:///" + abs + "/three.db": abs + "/three.db",
		"sqlite://:memory:.db":           ":memory:.db",
	} {
		if path, err := db.SQLitePath(url); err != nil || path != want {
			t.Errorf("%s: %q, %v, want %q", url, path, err, want)
			continue
		}
		if err := db.ValidateURL(url); err != nil {
			t.Errorf("%s: %v", url, err)
		}
		d, err := db.Open(t.Context(), db.Options{URL: url})
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		if _, err := d.MigrateUp(t.Context()); err != nil {
			t.Errorf("%s: %v", url, err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if info, err := os.Stat(want); err != nil || info.Size() == 0 {
			t.Errorf("%s: no file %s: %v", url, want, err)
		}
	}
	before := files(t)
	for url, want := range map[string]string{
		"sqlite://q.db?_busy_timeout=100":    "question mark",
		"sqlite:q.db?mode=memory":            "question mark",
		"sqlite://:memory:":                  ":memory:",
		"sqlite::memory:":                    ":memory:",
		"sqlite:///:memory:":                 ":memory:",
		"sqlite::memory:/.":                  ":memory:",
		"sqlite:x/../:memory:":               ":memory:",
		"sqlite:%3Amemory%3a":                ":memory:",
		"sqlite://file::memory:?cache=share": "question mark",
		"sqlite://":                          "names no file",
		"sqlite:":                            "names no file",
		"sqlite:///":                         "names no file",
		"sqlite://data/":                     "names no file",
		"sqlite://data":                      "a folder",
		"sqlite://a%zz.db":                   "%25",
		"sqlite://a%00.db":                   "zero byte",
	} {
		err := db.ValidateURL(url)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %s", url, err, want)
		}
		if d, err := db.Open(t.Context(), db.Options{URL: url}); err == nil {
			t.Errorf("%s: opened", url)
			d.Close()
		}
	}
	if after := files(t); after != before {
		t.Errorf("what is refused made files: %s, before %s", after, before)
	}
}

func files(t *testing.T) string {
	t.Helper()
	names, err := filepath.Glob("*")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, " ")
}

func TestPostgresURLs(t *testing.T) {
	for _, url := range []string{
		"postgres://h/d", "postgresql://u:p@h:5432/d?sslmode=disable", "postgres://u:p%40ss%2Fword@h/d", "postgres://u:p@ss@h/d",
		"postgres://u:p@h1:5432,h2:5432/d", "postgres:///d?host=/tmp", "postgres://[::1]:5432/d",
	} {
		if err := db.ValidateURL(url); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
	for _, url := range []string{
		"postgres://u:hunter/hunter@h/d", "postgres://u:hunter@h/hunter@h", "postgres://u:hunter?hunter@h/d", "postgres://u:12?hunter@h/d", "postgres://u:hunter#hunter@h/d",
		"postgres://u:hunter%@h/d", "postgres://u:hunter hunter@h/d", "postgres://u:hunter@h:port/d", "postgres://u:hunter@h/d?sslmode=hunter",
		"postgres://u:hunter@h/d?sslrootcert=/absent&password=hunter", "postgres:u:hunter@h/d", "mysql://u:hunter@h/d", "hunter",
	} {
		err := db.ValidateURL(url)
		if err == nil {
			t.Errorf("%s is accepted", url)
			continue
		}
		if _, oerr := db.Open(t.Context(), db.Options{URL: url}); oerr == nil || strings.Contains(err.Error()+oerr.Error(), "hunter") {
			t.Errorf("%s: %v, %v", url, err, oerr)
		}
	}
}

// FuzzSQLitePath: whatever follows the scheme, it is a file of that name or refused; never the database in memory, nor
// options of the driver.
func FuzzSQLitePath(f *testing.F) {
	for _, rest := range []string{"a.db", "//a b.db", "////abs", "q.db?_busy_timeout=1", ":memory:", "%3Amemory%3A", "x/../:memory:", ":memory:/.", "%00", "a%3fmode=memory"} {
		f.Add(rest)
	}
	f.Fuzz(func(t *testing.T, rest string) {
		path, err := db.SQLitePath("sqlite:" + rest)
		if err != nil {
			if path != "" {
				t.Fatalf("%q: %v, and the path %q", rest, err, path)
			}
			return
		}
		if path == "" || filepath.Base(path) == ":memory:" || strings.HasSuffix(path, "/") || strings.ContainsRune(path, 0) || strings.Contains(rest, "?") {
			t.Fatalf("%q is the path %q", rest, path)
		}
	})
}
