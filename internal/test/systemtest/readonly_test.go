package systemtest

import (
	"net/http"
	"strconv"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sys/unix"

	"barong/internal/test/testkit"
)

// A store that answers and takes no writes makes a replica not ready, and one that takes them again ready.
func TestReadOnlyStores(t *testing.T) {
	t.Parallel()
	pg, vk := testkit.PostgresServer(t), testkit.ValkeyServer(t)
	s := newServer(t, newVault(), "BARONG_DATABASE_URL="+pg.URL, "BARONG_REDIS_URL="+vk.URL, "BARONG_SECRET_KEY="+secretKey)
	s.must("migrate", "up")
	s.must("seed")
	s.start()
	o, err := redis.ParseURL(vk.URL)
	if err != nil {
		t.Fatal(err)
	}
	r := redis.NewClient(o)
	t.Cleanup(func() { r.Close() })
	conn, err := pgx.Connect(t.Context(), pg.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(t.Context()) })
	valkey := func(args ...any) {
		t.Helper()
		if err := r.Do(t.Context(), args...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	postgres := func(readOnly string) {
		t.Helper()
		for _, q := range []string{
			"SET transaction_read_only = off", "ALTER SYSTEM SET default_transaction_read_only = " + readOnly, "SELECT pg_reload_conf()",
		} {
			if _, err := conn.Exec(t.Context(), q); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.parts()
	for _, c := range []struct {
		what, part string
		fail, mend func()
	}{
		{
			"Valkey becomes a replica", "redis",
			func() { valkey("REPLICAOF", "127.0.0.1", strconv.Itoa(testkit.FreePort(t))) }, func() { valkey("REPLICAOF", "NO", "ONE") },
		},
		{
			"Valkey is full", "redis",
			func() { valkey("CONFIG", "SET", "maxmemory", "1") }, func() { valkey("CONFIG", "SET", "maxmemory", "0") },
		},
		{
			"Valkey runs no scripts", "redis",
			func() { valkey("ACL", "SETUSER", "default", "-@scripting") }, func() { valkey("ACL", "SETUSER", "default", "+@all") },
		},
		{
			"Postgres is read-only", "database",
			func() { postgres("on") }, func() { postgres("off") },
		},
	} {
		c.fail()
		testkit.Eventually(t, patience, func() bool {
			status, parts := s.parts()
			for name, p := range parts {
				if name != c.part && p.Status != "ok" {
					t.Fatalf("%s: readyz says of %s: %+v", c.what, name, p)
				}
			}
			return status == http.StatusServiceUnavailable && parts[c.part].Status == "failed" && parts[c.part].Reason != ""
		})
		_, parts := s.parts()
		t.Logf("%s: %+v", c.what, parts[c.part])
		if live := s.probe("/livez"); live.status != http.StatusOK {
			t.Errorf("%s: livez: got %s", c.what, live)
		}
		c.mend()
		testkit.Eventually(t, patience, func() bool { return s.probe("/readyz").status == http.StatusOK })
	}
}

// The same of an embedded database whose disk has no room.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	s := startServer(t, newVault())
	limit := func(bytes uint64) {
		t.Helper()
		files := unix.Rlimit{Cur: bytes, Max: unix.RLIM_INFINITY}
		if err := unix.Prlimit(s.process.Pid, unix.RLIMIT_FSIZE, &files, nil); err != nil {
			t.Fatal(err)
		}
	}
	limit(4096)
	testkit.Eventually(t, patience, func() bool {
		status, parts := s.parts()
		return status == http.StatusServiceUnavailable && parts["database"].Status == "failed"
	})
	_, parts := s.parts()
	t.Logf("%+v", parts["database"])
	limit(unix.RLIM_INFINITY)
	testkit.Eventually(t, patience, func() bool { return s.probe("/readyz").status == http.StatusOK })
}
