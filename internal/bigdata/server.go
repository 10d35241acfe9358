package main

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
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// A server is a Postgres of the repository's .tools folder, with its default settings but for the size of its cache:
// what is measured on it is what an operator gets.
type server struct {
	url     string
	process *exec.Cmd
}

// startServer starts Postgres on a data directory below dir, which is made unless it is there.
func startServer(ctx context.Context, dir string) (*server, error) {
	root, err := findRoot()
	if err != nil {
		return nil, err
	}
	if out, err := exec.CommandContext(ctx, "sh", filepath.Join(root, ".ci", "tools")).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("install postgres: %w\n%s", err, out)
	}
	as, err := unprivileged()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("start postgres: %w", err)
	}
	if as != nil {
		if err := os.Chown(dir, int(as.Uid), int(as.Gid)); err != nil {
			return nil, fmt.Errorf("start postgres: %w", err)
		}
	}
	command := func(name string, args ...string) *exec.Cmd {
		c := exec.Command(filepath.Join(root, ".tools", "servers", name), args...)
		c.Dir, c.Env = dir, []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LC_ALL=C", "TZ=UTC"}
		c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: as} // an interrupt at the terminal is ours alone
		return c
	}
	data := filepath.Join(dir, "data")
	if _, err := os.Stat(data); errors.Is(err, fs.ErrNotExist) {
		out, err := command("initdb", "-D", data, "-U", "barong", "-A", "trust", "-E", "UTF8", "--no-instructions").CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("initdb: %w\n%s", err, out)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start postgres: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	s := &server{url: fmt.Sprintf("postgres://barong@127.0.0.1:%d/postgres?sslmode=disable", port)}
	s.process = command("postgres", "-D", data, "-p", strconv.Itoa(port), "-c", "listen_addresses=127.0.0.1",
		"-c", "unix_socket_directories=", "-c", "shared_buffers=2GB", "-c", "max_wal_size=4GB")
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, fmt.Errorf("start postgres: %w", err)
	}
	defer log.Close()
	s.process.Stdout, s.process.Stderr = log, log
	if err := s.process.Start(); err != nil {
		return nil, fmt.Errorf("start postgres: %w", err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		conn, err := pgx.Connect(ctx, s.url)
		if err == nil {
			return s, conn.Close(ctx)
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			s.stop()
			return nil, fmt.Errorf("start postgres: %w", err)
		}
	}
}

// stop ends the server in order.
func (s *server) stop() {
	_ = s.process.Process.Signal(syscall.SIGINT) // fast shutdown; the error says that it has ended already
	_ = s.process.Wait()
}

// unprivileged is the user that runs Postgres, which refuses to run as root; nil when this is not root.
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

func findRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod above the working directory")
		}
		dir = parent
	}
}
