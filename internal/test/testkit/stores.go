package testkit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
)

// Server is a Postgres or Valkey that one test has for itself and may stop, kill, pause and start again; port and data
// stay the same.
type Server struct {
	// Addr is host:port on loopback.
	Addr string
	// URL is the connection URL: of an empty database of a Postgres, of database 0 of a Valkey.
	URL string

	name    string
	command command
	ready   func() error
	process *Process
	folder  string
}

func (s *Server) start() error {
	p, err := spawn(s.command)
	if err != nil {
		return err
	}
	if err := p.awaitReady(s.name, s.ready); err != nil {
		p.Kill()
		return err
	}
	s.process = p
	return nil
}

// Start starts a server that was stopped or killed, on its old port, and waits until it answers.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	if err := s.start(); err != nil {
		t.Fatalf("testkit: %v", err)
	}
}

// Stop ends the server in order; its clients see their connections close.
func (s *Server) Stop() { s.process.Stop() }

// Kill ends the server without notice.
func (s *Server) Kill() { s.process.Kill() }

// Pause freezes the server: connections stay open, nothing answers.
func (s *Server) Pause() { s.process.Pause() }

// Resume lets a paused server go on.
func (s *Server) Resume() { s.process.Resume() }

// Running tells whether the server has not ended, or crashed.
func (s *Server) Running() bool { return s.process.Running() }

// forTest ends the server with the test.
func (s *Server) forTest(t testing.TB) *Server {
	t.Cleanup(func() {
		s.process.Kill()
		if t.Failed() {
			t.Logf("output of %s:\n%s", s.name, s.process.tail())
		}
		os.RemoveAll(s.folder)
	})
	return s
}

// unprivileged is the user that runs Postgres when the tests run as root, as which it refuses to run; nil otherwise.
func unprivileged() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("postgres cannot run as root, and there is neither a user postgres nor nobody")
}

// reachable tells whether every user can walk down to a path.
func reachable(path string) bool {
	for {
		info, err := os.Stat(path)
		if err != nil || info.Mode()&0o001 == 0 {
			return false
		}
		if parent := filepath.Dir(path); parent != path {
			path = parent
			continue
		}
		return true
	}
}

// temporary makes a folder that the given user owns and can reach.
func temporary(name string, owner *syscall.Credential) (string, error) {
	base := os.TempDir()
	if owner != nil && !reachable(base) {
		base = "/tmp"
	}
	dir, err := os.MkdirTemp(base, "barong-"+name+"-")
	if err == nil && owner != nil {
		err = os.Chown(dir, int(owner.Uid), int(owner.Gid))
	}
	return dir, err
}

// postgresBin returns the folder of the Postgres programs; a copy below dir when the user that runs them could not read
// them where they are, as with a checkout in root's home.
func postgresBin(dir string, as *syscall.Credential) (string, error) {
	program, err := bin("postgres")
	if err != nil {
		return "", err
	}
	folder := filepath.Dir(program)
	if as == nil || reachable(program) {
		return folder, nil
	}
	to := filepath.Join(dir, "install")
	from := filepath.Dir(folder)
	for _, part := range []string{"bin", "lib", "share"} {
		if err := os.CopyFS(filepath.Join(to, part), os.DirFS(filepath.Join(from, part))); err != nil {
			return "", fmt.Errorf("copy postgres: %w", err)
		}
	}
	err = filepath.WalkDir(to, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, int(as.Uid), int(as.Gid))
	})
	return filepath.Join(to, "bin"), err
}

const (
	pgUser      = "barong"
	dialTimeout = 5 * time.Second
)

// newPostgres starts a Postgres that nothing outlives. prepare, if it is not nil, does something to it before, in its folder.
func newPostgres(prepare func(s *Server, dir string) error) (*Server, error) {
	as, err := unprivileged()
	if err != nil {
		return nil, err
	}
	dir, err := temporary("postgres", as)
	if err != nil {
		return nil, err
	}
	// Nothing of it outlives the tests, so nothing has to reach the disk.
	s, err := postgresIn(dir, dir, as, "fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200")
	if err == nil && prepare != nil {
		err = prepare(s, dir)
	}
	if err == nil {
		err = s.start()
	}
	if err == nil {
		s.URL, err = s.createDatabase(pgUser, "template0")
	}
	if err != nil {
		if s != nil && s.process != nil {
			s.process.Kill()
		}
		os.RemoveAll(dir)
		return nil, err
	}
	return s, nil
}

// postgresIn prepares a Postgres on the data directory below dir, which is made unless it is there. The folder is removed
// when the process that started the server ends without a word; empty for none.
func postgresIn(dir, folder string, as *syscall.Credential, settings ...string) (*Server, error) {
	programs, err := postgresBin(dir, as)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LC_ALL=C", "LANG=C", "TZ=UTC"}
	if _, err := os.Stat(data); errors.Is(err, fs.ErrNotExist) {
		initdb := exec.Command(filepath.Join(programs, "initdb"), "-D", data, "-U", pgUser, "-A", "trust", "-E", "UTF8",
			"--no-sync", "--no-instructions")
		initdb.Dir, initdb.Env = dir, env
		if as != nil {
			initdb.SysProcAttr = &syscall.SysProcAttr{Credential: as}
		}
		if out, err := initdb.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("initdb: %w\n%s", err, out)
		}
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s := &Server{Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), name: "postgres", folder: folder}
	s.command = command{
		path: filepath.Join(programs, "postgres"), dir: dir, env: env, user: as, folder: folder,
		args: []string{
			"-D", data, "-p", strconv.Itoa(port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
			"-c", "timezone=UTC", "-c", "log_timezone=UTC",
		},
		stop: syscall.SIGINT, // fast shutdown: closes the connections, keeps the data
		log:  filepath.Join(dir, "log"),
	}
	for _, setting := range settings {
		s.command.args = append(s.command.args, "-c", setting)
	}
	s.ready = func() error { return s.execute("SELECT 1") }
	return s, nil
}

// KeepPostgres starts a Postgres whose data stays below dir, with its default settings but for those given, such as
// "shared_buffers=2GB". The URL is that of its database postgres; stop ends the server in order. It is for programs that
// measure what an operator gets; tests take [Postgres].
func KeepPostgres(dir string, settings ...string) (url string, stop func(), err error) {
	as, err := unprivileged()
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err == nil && as != nil {
		err = os.Chown(dir, int(as.Uid), int(as.Gid))
	}
	if err != nil {
		return "", nil, fmt.Errorf("start postgres: %w", err)
	}
	s, err := postgresIn(dir, "", as, settings...)
	if err == nil {
		err = s.start()
	}
	if err != nil {
		return "", nil, fmt.Errorf("start postgres: %w", err)
	}
	return s.databaseURL("postgres"), func() {
		_ = s.execute("CHECKPOINT") // what is left to write could take longer than the server is given to end
		s.Stop()
	}, nil
}

func (s *Server) databaseURL(name string) string {
	return fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable", pgUser, pgUser, s.Addr, name)
}

// execute runs one statement in the maintenance database of a Postgres.
func (s *Server) execute(sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.databaseURL("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}

func (s *Server) createDatabase(name, template string) (string, error) {
	if err := s.execute("CREATE DATABASE " + name + " TEMPLATE " + template); err != nil {
		return "", fmt.Errorf("create database %s: %w", name, err)
	}
	return s.databaseURL(name), nil
}

// PostgresServer starts a Postgres that the test has for itself.
func PostgresServer(t testing.TB) *Server {
	t.Helper()
	s, err := newPostgres(nil)
	if err != nil {
		t.Fatalf("testkit: %v", err)
	}
	return s.forTest(t)
}

// sharedPostgres is the server of this test binary. Nothing stops it but the end of the process, which its watchdog
// notices.
var sharedPostgres = sync.OnceValues(func() (*Server, error) { return newPostgres(nil) })

var databases struct {
	sync.Mutex
	n         int
	templates map[string]bool
}

// Postgres returns the URL of a fresh, empty database on a server that the test binary shares. The database is dropped
// at the end of the test.
func Postgres(t testing.TB) string {
	t.Helper()
	return freshPostgres(t, "", nil)
}

// PostgresCopy is Postgres with a database that is a copy of a template. The first call of the test binary for a template
// makes it: fill gets the URL of an empty database, and must leave no connection to it open.
func PostgresCopy(t testing.TB, template string, fill func(url string) error) string {
	t.Helper()
	return freshPostgres(t, template, fill)
}

func freshPostgres(t testing.TB, template string, fill func(url string) error) string {
	t.Helper()
	s, err := sharedPostgres()
	if err != nil {
		t.Fatalf("testkit: %v", err)
	}
	// One at a time: Postgres wants the template to itself.
	databases.Lock()
	defer databases.Unlock()
	from := "template0"
	if template != "" {
		from = "template_" + template
		if !databases.templates[template] {
			url, err := s.createDatabase(from, "template0")
			if err == nil {
				err = fill(url)
			}
			if err != nil {
				t.Fatalf("testkit: make the template %s: %v", template, err)
			}
			if databases.templates == nil {
				databases.templates = map[string]bool{}
			}
			databases.templates[template] = true
		}
	}
	databases.n++
	name := "test_" + strconv.Itoa(databases.n)
	url, err := s.createDatabase(name, from)
	if err != nil {
		t.Fatalf("testkit: %v", err)
	}
	t.Cleanup(func() {
		if err := s.execute("DROP DATABASE IF EXISTS " + name + " WITH (FORCE)"); err != nil {
			t.Logf("testkit: drop database: %v", err)
		}
	})
	return url
}

// valkeyDatabases is how many databases a Valkey has; each test gets one.
const valkeyDatabases = 1024

func newValkey() (*Server, error) { return newValkeyWith() }

// newValkeyWith starts a Valkey with more arguments; what comes later wins.
func newValkeyWith(args ...string) (*Server, error) {
	program, err := bin("valkey-server")
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	dir, err := temporary("valkey", nil)
	if err != nil {
		return nil, err
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	s := &Server{Addr: addr, URL: "redis://" + addr + "/0", name: "valkey", folder: dir}
	s.command = command{
		path: program, dir: dir, folder: dir, env: os.Environ(), stop: syscall.SIGTERM, log: filepath.Join(dir, "log"),
		args: append([]string{
			"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
			"--databases", strconv.Itoa(valkeyDatabases), "--dir", dir,
		}, args...),
	}
	s.ready = func() error { return pong(addr) }
	if err := s.start(); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return s, nil
}

// pong asks a Valkey or a sentinel whether it is there.
func pong(addr string) error {
	conn, err := net.DialTimeout("tcp", addr, dialTimeout)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(dialTimeout))
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	answer := make([]byte, 7)
	if _, err := conn.Read(answer); err != nil {
		return err
	}
	if !strings.HasPrefix(string(answer), "+PONG") {
		return fmt.Errorf("valkey answers %q", answer)
	}
	return nil
}

// ValkeyServer starts a Valkey that the test has for itself. It keeps nothing on disk: a server started again is empty.
func ValkeyServer(t testing.TB) *Server {
	t.Helper()
	s, err := newValkey()
	if err != nil {
		t.Fatalf("testkit: %v", err)
	}
	return s.forTest(t)
}

var sharedValkey = sync.OnceValues(newValkey)

var valkeyNext struct {
	sync.Mutex
	n int
}

// Valkey returns the URL of an empty database on a server that the test binary shares. Pub/sub channels know no
// databases: tests that publish and run in parallel use names of their own, or a [ValkeyServer].
func Valkey(t testing.TB) string {
	t.Helper()
	s, err := sharedValkey()
	if err != nil {
		t.Fatalf("testkit: %v", err)
	}
	valkeyNext.Lock()
	db := valkeyNext.n % valkeyDatabases
	valkeyNext.n++
	valkeyNext.Unlock()
	client := redis.NewClient(&redis.Options{Addr: s.Addr, DB: db})
	defer client.Close()
	if err := client.FlushDB(context.Background()).Err(); err != nil {
		t.Fatalf("testkit: empty the Valkey database: %v", err)
	}
	return fmt.Sprintf("redis://%s/%d", s.Addr, db)
}
