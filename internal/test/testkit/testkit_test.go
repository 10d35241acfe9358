package testkit_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"barong/internal/test/testkit"
)

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func TestPostgresGivesEachCallADatabase(t *testing.T) {
	one, two := testkit.Postgres(t), testkit.Postgres(t)
	if one == two {
		t.Fatalf("the same database twice: %s", one)
	}
	if _, err := connect(t, one).Exec(t.Context(), "CREATE TABLE users (id bigint)"); err != nil {
		t.Fatal(err)
	}
	var n int
	err := connect(t, two).QueryRow(t.Context(), "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").Scan(&n)
	if err != nil || n != 0 {
		t.Fatalf("tables in the second database: %d, %v", n, err)
	}
}

func TestPostgresServerKeepsItsData(t *testing.T) {
	s := testkit.PostgresServer(t)
	if _, err := connect(t, s.URL).Exec(t.Context(), "CREATE TABLE kept AS SELECT 7 AS n"); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	if conn, err := pgx.Connect(t.Context(), s.URL); err == nil {
		conn.Close(t.Context())
		t.Fatal("a stopped server accepts connections")
	}
	s.Start(t)
	var n int
	if err := connect(t, s.URL).QueryRow(t.Context(), "SELECT n FROM kept").Scan(&n); err != nil || n != 7 {
		t.Fatalf("after the second start: %d, %v", n, err)
	}
	s.Kill()
	s.Start(t)
	conn := connect(t, s.URL)
	s.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := conn.Ping(ctx); err == nil {
		t.Fatal("a paused server answers on an open connection")
	}
	s.Resume()
	if err := connect(t, s.URL).Ping(t.Context()); err != nil {
		t.Fatalf("after the pause: %v", err)
	}
}

// TestKeepPostgres holds that a server which was stopped leaves its data to the next one on the same folder.
func TestKeepPostgres(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("/tmp", "barong-kept-") // whoever Postgres runs as must reach it
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for i, query := range []string{"CREATE TABLE kept ()", "DROP TABLE kept"} {
		url, stop, err := testkit.KeepPostgres(filepath.Join(dir, "server"), "shared_buffers=32MB")
		if err != nil {
			t.Fatal(err)
		}
		conn, err := pgx.Connect(t.Context(), url)
		if err != nil {
			stop()
			t.Fatal(err)
		}
		var buffers, fsync string
		err = errors.Join(conn.QueryRow(t.Context(), "SHOW shared_buffers").Scan(&buffers), conn.QueryRow(t.Context(), "SHOW fsync").Scan(&fsync))
		if err != nil || buffers != "32MB" || fsync != "on" {
			t.Errorf("settings %s, %s, %v", buffers, fsync, err)
		}
		if _, err := conn.Exec(t.Context(), query); err != nil {
			t.Errorf("start %d: %v", i+1, err)
		}
		_ = conn.Close(t.Context())
		stop()
	}
}

func TestValkeyGivesEachCallADatabase(t *testing.T) {
	var clients []*redis.Client
	for range 2 {
		options, err := redis.ParseURL(testkit.Valkey(t))
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, redis.NewClient(options))
		t.Cleanup(func() { clients[len(clients)-1].Close() })
	}
	if err := clients[0].Set(t.Context(), "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if err := clients[1].Get(t.Context(), "k").Err(); !errors.Is(err, redis.Nil) {
		t.Fatalf("the second database knows the key of the first: %v", err)
	}
}

func TestValkeyServerStopsAndStarts(t *testing.T) {
	s := testkit.ValkeyServer(t)
	options, err := redis.ParseURL(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	options.MaxRetries, options.ReadTimeout = -1, 300*time.Millisecond
	client := redis.NewClient(options)
	defer client.Close()
	ping := func() error { return client.Ping(t.Context()).Err() }
	for _, step := range []struct {
		name string
		do   func()
		up   bool
	}{
		{"first start", func() {}, true},
		{"stop", s.Stop, false},
		{"start", func() { s.Start(t) }, true},
		{"pause", s.Pause, false},
		{"resume", s.Resume, true},
		{"kill", s.Kill, false},
		{"start after kill", func() { s.Start(t) }, true},
	} {
		step.do()
		if step.up {
			testkit.Eventually(t, 30*time.Second, func() bool { return ping() == nil })
		} else if ping() == nil {
			t.Errorf("%s: the server answers", step.name)
		}
	}
}

func TestBinKnowsEveryServer(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"envoy", []string{"--version"}, "1.40.0"},
		{"nginx", []string{"-V"}, "http_auth_request_module"},
		{"caddy", []string{"version"}, "v2.11.7"},
		{"traefik", []string{"version"}, "3.7.15"},
		{"valkey-server", []string{"--version"}, "v=9.1.2"},
		{"postgres", []string{"--version"}, "18.6"},
		{"node", []string{"--version"}, "v24.19"},
		{"chromium", []string{"--version"}, "Chromium 153."},
	} {
		out, err := exec.Command(testkit.Bin(t, tt.name), tt.args...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), tt.want) {
			t.Errorf("%s: %v, no %q in:\n%s", tt.name, err, tt.want, out)
		}
	}
}

func TestFreePortNeverTwice(t *testing.T) {
	seen := map[int]bool{}
	for range 50 {
		port := testkit.FreePort(t)
		if seen[port] {
			t.Fatalf("port %d twice", port)
		}
		seen[port] = true
	}
}

func TestStart(t *testing.T) {
	p := testkit.Start(t, "/bin/sh", []string{"-c", `echo "hello $WHO"; trap 'exit 3' TERM; while :; do sleep 0.05; done`},
		[]string{"WHO=you"}, nil)
	testkit.Eventually(t, 30*time.Second, func() bool { return strings.Contains(p.Output(), "hello you") })
	if !p.Running() {
		t.Fatal("ended by itself")
	}
	if status := p.Stop(); status != 3 {
		t.Fatalf("status %d, want 3", status)
	}
	if err := syscall.Kill(p.Pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Fatalf("the process is still there: %v", err)
	}
}

// TestOrphans kills a test binary that has started servers and expects them, their children and their folders to go.
func TestOrphans(t *testing.T) {
	if out := os.Getenv("TESTKIT_ORPHANS"); out != "" {
		pg := testkit.PostgresServer(t)
		vk := testkit.ValkeyServer(t)
		sh := testkit.Start(t, "/bin/sh", []string{"-c", "trap '' TERM; sleep 1000 & wait"}, nil, nil)
		_ = sh
		if err := os.WriteFile(out, []byte(pg.Addr+"\n"+vk.Addr+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		select {} // until killed
	}
	base, err := os.MkdirTemp("/tmp", "barong-orphans-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(base, "started")
	cmd := exec.Command(os.Args[0], "-test.run=^TestOrphans$")
	cmd.Env = append(os.Environ(), "TESTKIT_ORPHANS="+out, "TMPDIR="+base)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	testkit.Eventually(t, 2*time.Minute, func() bool {
		b, err := os.ReadFile(out)
		return err == nil && strings.Count(string(b), "\n") == 2
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	testkit.Eventually(t, time.Minute, func() bool {
		for _, kind := range []string{"postgres", "valkey", "process"} {
			left, err := filepath.Glob(filepath.Join(base, "barong-"+kind+"-*"))
			if err != nil {
				t.Fatal(err)
			}
			if len(left) > 0 {
				return false
			}
		}
		return true
	})
	testkit.Eventually(t, time.Minute, func() bool { // a killed process takes a moment to be gone
		processes, err := filepath.Glob("/proc/[0-9]*/cwd")
		if err != nil {
			t.Fatal(err)
		}
		return !slices.ContainsFunc(processes, func(cwd string) bool {
			dir, err := os.Readlink(cwd)
			return err == nil && strings.HasPrefix(dir, base)
		})
	})
}
