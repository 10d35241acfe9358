package systemtest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"barong/internal/test/testkit"
)

// These tests wait more than they work, so more of them than there are processors run at a time.
func TestMain(m *testing.M) { testkit.Main(m, 6) }

const (
	adminEmail    = "admin@example.com"
	adminPassword = "Kq7!vNz3-Rw9xTb2"
	// patience bounds what must happen soon. It is far longer than what any machine needs: passing it is a defect.
	patience = time.Minute
)

// secretKey is a BARONG_SECRET_KEY for replicas that share a database.
var secretKey = base64.StdEncoding.EncodeToString([]byte("0123456789abcdefghijklmnopqrstuv"))

// A vault knows the secrets that a test has used. None may stand in a log.
type vault struct {
	mu      sync.Mutex
	secrets map[string]string // by value: what it is
}

func newVault() *vault {
	v := &vault{secrets: map[string]string{}}
	v.keep("admin's password", adminPassword)
	v.keep("secret key", secretKey)
	return v
}

// keep remembers a secret.
func (v *vault) keep(what, secret string) string {
	if len(secret) >= 6 {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.secrets[secret] = what
	}
	return secret
}

// tokens are signed tokens, wherever they come from.
var tokens = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}`)

// search looks for the secrets in a log.
func (v *vault) search(t *testing.T, log string) {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	if found := tokens.FindString(log); found != "" {
		t.Errorf("the log holds a token: %s", found)
	}
	for secret, what := range v.secrets {
		at := strings.Index(log, secret)
		if at < 0 {
			continue
		}
		if _, err := strconv.Atoi(secret); err == nil {
			// A code is short: digits around it make it part of another number.
			if !regexp.MustCompile(`(^|[^0-9.])` + secret + `([^0-9]|$)`).MatchString(log) {
				continue
			}
		}
		t.Errorf("the log holds a secret (%s): ...%s...", what, log[max(0, at-200):min(len(log), at+200)])
	}
}

// A server is the program in a folder of its own, which outlives its process.
type server struct {
	t       *testing.T
	dir     string
	env     []string
	api     string // host:port of the API and the checks
	ops     string
	vault   *vault
	program string // empty for the one that is built from this checkout
	process *testkit.Process
}

// addr is a listener's address that nobody has.
func addr(t *testing.T) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(testkit.FreePort(t)))
}

// newServer prepares a server with variables of its own, and does not start it. Signing keys are those that are made
// fastest, and the log says all it can.
func newServer(t *testing.T, v *vault, env ...string) *server {
	t.Helper()
	s := &server{t: t, dir: t.TempDir(), api: addr(t), ops: addr(t), vault: v}
	s.env = append([]string{
		"BARONG_HTTP_ADDR=" + s.api, "BARONG_OPS_ADDR=" + s.ops, "BARONG_GRPC_ADDR=", "BARONG_JWT_ALGORITHM=EdDSA",
		"BARONG_LOG_LEVEL=debug", "BARONG_DRAIN_TIME=0s", "BARONG_RATE_LIMITS=off", "ADMIN_EMAIL=" + adminEmail, "ADMIN_PASSWORD=" + adminPassword,
	}, env...)
	return s
}

// startServer starts a server and waits until it is ready.
func startServer(t *testing.T, v *vault, env ...string) *server {
	t.Helper()
	s := newServer(t, v, env...)
	s.start()
	return s
}

// start starts the server, or starts it again, and waits until it is ready.
func (s *server) start(args ...string) {
	s.t.Helper()
	s.run(func() error {
		if r := s.probe("/readyz"); r.status != http.StatusOK {
			return fmt.Errorf("readyz: %d %s %w", r.status, r.body, r.err)
		}
		return nil
	}, args...)
}

// run starts the server and waits for ready, which may be nil. At the end of the test a server that still runs must
// stop in order, and no log may hold a secret.
func (s *server) run(ready func() error, args ...string) {
	s.t.Helper()
	program := s.program
	if program == "" {
		program = testkit.Barong(s.t)
	}
	line := append([]string{"-c", `cd "$0" && exec "$@"`, s.dir, program, "serve"}, args...)
	p := testkit.Start(s.t, "/bin/sh", line, s.env, ready)
	s.process = p
	s.t.Cleanup(func() {
		if p.Running() {
			if err := p.Signal(15); err != nil {
				s.t.Error(err)
			}
			if status := p.Wait(); status != 0 {
				s.t.Errorf("the server ended with %d", status)
			}
		}
		s.vault.search(s.t, p.Output())
		if strings.Contains(p.Output(), "panic") {
			s.t.Error("the log tells of a panic")
		}
	})
}

// barong runs another command beside the server, in its folder and with its variables, and returns what it prints. One
// that does not end is stopped, with the status of a success.
func (s *server) barong(env []string, args ...string) (output string, status int) {
	s.t.Helper()
	program := testkit.Barong(s.t)
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Dir = s.dir
	cmd.Env = append(append(os.Environ(), s.env...), env...)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		s.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// must is barong with a command that has to succeed.
func (s *server) must(args ...string) string {
	s.t.Helper()
	out, status := s.barong(nil, args...)
	if status != 0 {
		s.t.Fatalf("barong %s: status %d\n%s", strings.Join(args, " "), status, out)
	}
	return out
}

var probes = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// probe asks the operations listener.
func (s *server) probe(path string) reply {
	res, err := probes.Get("http://" + s.ops + path)
	if err != nil {
		return reply{err: err}
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return reply{status: res.StatusCode, header: res.Header, body: string(b), err: err}
}

// parts are the states of the parts that readyz reports.
func (s *server) parts() (status int, parts map[string]struct{ Status, Reason string }) {
	s.t.Helper()
	r := s.probe("/readyz")
	var state struct {
		Parts map[string]struct{ Status, Reason string }
	}
	if r.err != nil || json.Unmarshal([]byte(r.body), &state) != nil {
		s.t.Fatalf("readyz: %+v", r)
	}
	return r.status, state.Parts
}

// outbox is the server's folder of mails and messages.
func (s *server) outbox() string { return filepath.Join(s.dir, "data", "outbox") }

// file reads a file of the server's folder.
func (s *server) file(names ...string) string {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{s.dir}, names...)...))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}
