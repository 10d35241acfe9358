package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"barong/db"
	"barong/internal/crypto/secret"
	"barong/session"
	"barong/session/redisstore"
)

// The paths that the people of a benchmark ask for.
const (
	allowedPath = "/api/v2/peatio/account/balances?limit=10"
	passedPath  = "/api/v2/peatio/public/markets"
	droppedPath = "/api/v2/peatio/account/withdraws"
)

func kidOf(i int) string    { return fmt.Sprintf("%016x", i+1) }
func secretOf(i int) string { return fmt.Sprintf("%032x", i+1) }
func ownKidOf(i int) string { return fmt.Sprintf("e%015x", i+1) }

// keyOf is the key pair of person i's bot.
func keyOf(i int) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed([]byte(secretOf(i)))
}

// fill makes the folder of a gateway: a database with people, each with an API key and a session, and some rules. With a
// Redis URL the sessions are there.
func fill(ctx context.Context, dir, redisURL string, people, sessions int) error {
	data := filepath.Join(dir, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	list, _, err := secret.LoadOrCreate(filepath.Join(data, "secret.key"))
	if err != nil {
		return err
	}
	box, err := secret.New(list)
	if err != nil {
		return err
	}
	d, err := db.Open(ctx, db.Options{URL: "sqlite://" + databaseOf(dir), Sealer: box})
	if err != nil {
		return err
	}
	defer d.Close()
	if _, err := d.MigrateUp(ctx); err != nil {
		return err
	}
	err = d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		for _, p := range []db.Permission{
			{Role: "member", Verb: "ALL", Path: "api/v2/peatio/account", Action: "ACCEPT"},
			{Role: "member", Verb: "ALL", Path: "api/v2/peatio/account/withdraws", Action: "DROP"},
		} {
			if err := tx.InsertPermission(ctx, db.Who{}, &p); err != nil {
				return err
			}
		}
		for i := range people {
			u := &db.User{UID: uidOf(i), Email: emailOf(i), Role: "member", Level: 3, OTP: true, State: "active"}
			if err := tx.InsertUser(ctx, u); err != nil {
				return err
			}
			k := &db.APIKey{UserID: u.ID, KID: kidOf(i), Algorithm: "HS256", State: "active", Secret: secretOf(i)}
			if err := tx.InsertAPIKey(ctx, k); err != nil {
				return err
			}
			public := keyOf(i).Public().(ed25519.PublicKey)
			k = &db.APIKey{UserID: u.ID, KID: ownKidOf(i), Algorithm: "Ed25519", State: "active", PublicKey: public}
			if err := tx.InsertAPIKey(ctx, k); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	var store session.Store = d.Sessions()
	if redisURL != "" {
		client, err := redisstore.Connect(redisURL)
		if err != nil {
			return err
		}
		defer client.Close()
		store = redisstore.New(client)
	}
	for i := range sessions {
		s := sessionOf(i)
		s.UID = uidOf(i % people)
		if err := store.Create(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

func databaseOf(dir string) string { return filepath.Join(dir, "data", "barong.sqlite") }

// A server is a process under load.
type server struct {
	cmd    *exec.Cmd
	name   string
	addr   string // where it listens
	grpc   string // of a gateway
	note   string // what a child said first
	status int    // that a bare server answers
	in     io.WriteCloser
	out    *bufio.Reader

	log bytesLog
}

// bytesLog keeps what a process writes to its standard error.
type bytesLog struct {
	mu   sync.Mutex
	text []byte
}

func (b *bytesLog) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.text) < 64<<10 {
		b.text = append(b.text, p...)
	}
	return len(p), nil
}

func (b *bytesLog) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.text)
}

func (s *server) pid() int { return s.cmd.Process.Pid }

func (s *server) stop() {
	_ = s.cmd.Process.Kill() // it has ended already otherwise
	_ = s.cmd.Wait()         // it was killed, and says so
}

// startChild starts this program as one of its children.
func (b *bench) startChild(kind string, spec *childSpec) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &server{name: kind, cmd: exec.Command(self, "child", kind)}
	s.cmd.Stderr = &s.log
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.out = bufio.NewReader(out)
	if err := b.start(s.cmd); err != nil {
		return nil, err
	}
	b.servers = append(b.servers, s)
	if err := json.NewEncoder(s.in).Encode(spec); err != nil {
		return nil, err
	}
	for {
		line, err := s.out.ReadString('\n')
		if err != nil {
			return nil, fmt.Errorf("the server %s ended: %s", kind, s.log.String())
		}
		if addr, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on "); ok {
			s.addr = addr
			return s, nil
		}
		s.note = strings.TrimSpace(line)
	}
}

// start starts a server's process on the servers' processor.
func (b *bench) start(c *exec.Cmd) error { return b.startAt(b.serverCore, c) }

// startAt starts a process on a processor; below 0 is wherever the system likes.
func (b *bench) startAt(core int, c *exec.Cmd) error {
	if core < 0 {
		return c.Start()
	}
	return startOn(core, c)
}

// coreOf is the processor of the i-th of several replicas. Each has one of its own while there are enough besides that of the
// load; then they share.
func (b *bench) coreOf(i int) int {
	all := append([]int{b.serverCore}, b.otherCores...)
	return all[i%len(all)]
}

// startGateway starts the program under test in dir, with settings added, and waits until it answers.
func (b *bench) startGateway(dir string, settings ...string) (*server, error) {
	s, err := b.launch(b.serverCore, dir, settings...)
	if err != nil {
		return nil, err
	}
	return s, s.await(30 * time.Second)
}

// launch starts the program under test on a processor, without waiting for it.
func (b *bench) launch(core int, dir string, settings ...string) (*server, error) {
	s := &server{name: "barong"}
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	s.addr, s.grpc = ports[0], ports[1]
	s.cmd = exec.Command(b.program, "serve")
	s.cmd.Dir = dir
	s.cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "BARONG_DATABASE_URL=sqlite://" + databaseOf(dir),
		"BARONG_HTTP_ADDR=" + s.addr, "BARONG_GRPC_ADDR=" + s.grpc, "BARONG_OPS_ADDR=" + ports[2],
		// Longer than any run here, so that no token has to be signed again within one.
		"BARONG_JWT_EXPIRE_TIME=7200",
	}
	s.cmd.Env = append(s.cmd.Env, settings...)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	if err := b.startAt(core, s.cmd); err != nil {
		return nil, err
	}
	b.servers = append(b.servers, s)
	return s, nil
}

// await waits until the gateway answers a check.
func (s *server) await(limit time.Duration) error {
	deadline := time.Now().Add(limit)
	request := wire("GET", "/api/v2/auth"+passedPath, browserOf(0)...)
	for {
		a, err := ask(s.addr, request)
		if err == nil && a.Status == 200 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the gateway does not answer (%v): %s", errors.Join(err), s.log.String())
		}
		time.Sleep(time.Millisecond)
	}
}

// freePorts finds addresses that nobody listens on.
func freePorts(n int) ([]string, error) {
	var list []string
	var open []net.Listener
	defer func() {
		for _, l := range open {
			l.Close()
		}
	}()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		open = append(open, l)
		list = append(list, l.Addr().String())
	}
	return list, nil
}

// startValkey starts the store that .ci/tools has brought, on the processor of the load: the gateway alone is measured.
func (b *bench) startValkey(dir string) (string, error) {
	program, err := filepath.EvalSymlinks(filepath.Join(b.root, ".tools", "servers", "valkey-server"))
	if err != nil {
		return "", fmt.Errorf("%w (make tools brings it)", err)
	}
	ports, err := freePorts(1)
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(ports[0])
	if err != nil {
		return "", err
	}
	s := &server{name: "valkey", addr: ports[0]}
	s.cmd = exec.Command(program, "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", dir)
	s.cmd.Stderr = &s.log
	if err := b.startAt(b.loadCore, s.cmd); err != nil {
		return "", err
	}
	b.servers = append(b.servers, s)
	for range 500 {
		if conn, err := net.Dial("tcp", s.addr); err == nil {
			conn.Close()
			return "redis://" + s.addr + "/0", nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return "", fmt.Errorf("valkey does not listen: %s", s.log.String())
}

// resident is a process's memory in bytes that is in RAM.
func resident(pid int) (int64, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("no VmRSS in /proc/PID/status")
}
