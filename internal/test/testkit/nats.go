package testkit

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// natsServer is the path of a NATS server, built from the modules of the tools once per test binary.
var natsServer = sync.OnceValues(func() (string, error) {
	return built("nats-server", "nats-lock", func(root, _, target string) (*exec.Cmd, error) {
		cmd := exec.Command("go", "build", "-o", target, "github.com/nats-io/nats-server/v2")
		cmd.Dir = filepath.Join(root, "tools")
		return cmd, nil
	})
})

// NATS starts a NATS server that the test has for itself. more is further lines of its configuration; JetStream is on unless
// they speak of it. Its URL names no user.
func NATS(t testing.TB, more string) *Server {
	t.Helper()
	s, err := newNATS(more)
	if err != nil {
		t.Fatalf("testkit: %v", err)
	}
	return s.forTest(t)
}

func newNATS(more string) (*Server, error) {
	program, err := natsServer()
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	dir, err := temporary("nats", nil)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "nats.conf")
	text := fmt.Sprintf("listen: 127.0.0.1:%d\n%s\n", port, more)
	if !strings.Contains(more, "jetstream") {
		text += fmt.Sprintf("jetstream { store_dir: %q }\n", filepath.Join(dir, "data"))
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	s := &Server{Addr: addr, URL: "nats://" + addr, name: "nats-server", folder: dir}
	s.command = command{
		path: program, dir: dir, folder: dir, env: os.Environ(), stop: syscall.SIGTERM, log: filepath.Join(dir, "log"),
		args: []string{"-c", file},
	}
	s.ready = func() error { return greets(addr) }
	if err := s.start(); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return s, nil
}

// greets reports whether a NATS server says who it is.
func greets(addr string) error {
	conn, err := net.DialTimeout("tcp", addr, dialTimeout)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && !strings.HasPrefix(line, "INFO ") {
		err = fmt.Errorf("it says %q", line)
	}
	return err
}
