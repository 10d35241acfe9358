package testkit

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Root returns the repository's folder.
func Root(t testing.TB) string {
	t.Helper()
	root, err := FindRoot()
	if err != nil {
		t.Fatalf("testkit: %v", err)
	}
	return root
}

// FindRoot returns the repository's folder: the one above the working directory that holds .ci/tools. A go.mod does not
// tell it, since the repository has more than one.
func FindRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, ".ci", "tools")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("the working directory is not inside the repository: no .ci/tools above it")
		}
		dir = parent
	}
}

// installed is the repository's .tools folder, filled. The script behind it takes a file lock and returns at once when
// there is nothing to do.
var installed = sync.OnceValues(func() (string, error) {
	root, err := FindRoot()
	if err != nil {
		return "", err
	}
	out, err := exec.Command("sh", filepath.Join(root, ".ci", "tools")).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("install the servers of the tests: %w\n%s", err, out)
	}
	return filepath.Join(root, ".tools"), nil
})

// Tools returns the .tools folder, a Python venv with the servers and tools of the tests, and installs it when needed.
func Tools(t testing.TB) string {
	t.Helper()
	dir, err := installed()
	if err != nil {
		t.Fatalf("testkit: %v", err)
	}
	return dir
}

// Bin returns the path of a binary: envoy, nginx, caddy, traefik, valkey-server, postgres, initdb, node or chromium.
func Bin(t testing.TB, name string) string {
	t.Helper()
	path, err := bin(name)
	if err != nil {
		t.Fatalf("testkit: %v", err)
	}
	return path
}

func bin(name string) (string, error) {
	dir, err := installed()
	if err != nil {
		return "", err
	}
	path, err := filepath.EvalSymlinks(filepath.Join(dir, "servers", name))
	if err != nil {
		return "", fmt.Errorf("find the binary of %s: %w", name, err)
	}
	return path, nil
}

// locked runs f while this process holds the lock file of that path.
func locked(path string, f func() error) error {
	lock, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", path, err)
	}
	return f()
}

// built builds a program into the folder of programs that test binaries share, and returns a link to it of this binary's own:
// another one may build anew at any moment. command builds it as target; root is the project's folder. Programs of one lock
// are not built at the same time.
func built(name, lock string, command func(root, shared, target string) (*exec.Cmd, error)) (string, error) {
	dir, err := installed()
	if err != nil {
		return "", err
	}
	shared := filepath.Join(dir, "barong")
	if err := os.MkdirAll(shared, 0o755); err != nil {
		return "", err
	}
	target := filepath.Join(shared, name)
	own := target + "-" + strconv.Itoa(os.Getpid())
	err = locked(filepath.Join(shared, lock), func() error {
		removeStale(shared)
		cmd, err := command(filepath.Dir(dir), shared, target)
		if err != nil {
			return err
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
		_ = os.Remove(own) // of an earlier process of the same number, if there is one
		return os.Link(target, own)
	})
	return own, err
}

var barong = sync.OnceValues(func() (string, error) {
	args, name := []string{"build"}, "barong"
	if raceEnabled {
		args, name = append(args, "-race"), "barong-race"
		// As the Makefile has it: these have no goroutines, and would take five to ten times as long.
		for _, unwatched := range []string{"modernc.org/sqlite/lib", "modernc.org/libc", "golang.org/x/crypto/blowfish"} {
			args = append(args, "-gcflags="+unwatched+"=-race=false")
		}
	}
	return built(name, "lock", func(root, _, target string) (*exec.Cmd, error) {
		cmd := exec.Command("go", append(args, "-o", target, "./cmd/barong")...)
		cmd.Dir = root
		return cmd, nil
	})
})

// removeStale removes the links of test binaries that have ended.
func removeStale(dir string) {
	links, _ := filepath.Glob(filepath.Join(dir, "*-[0-9]*"))
	for _, link := range links {
		pid, err := strconv.Atoi(link[lastDash(link)+1:])
		if err == nil && syscall.Kill(pid, 0) == syscall.ESRCH {
			_ = os.Remove(link)
		}
	}
}

func lastDash(s string) int {
	i := len(s) - 1
	for i >= 0 && s[i] != '-' {
		i--
	}
	return i
}

// Barong returns the path of the program itself, built from this checkout once per test binary, with the race detector
// when the test binary has it.
func Barong(t testing.TB) string {
	t.Helper()
	path, err := barong()
	if err != nil {
		t.Fatalf("testkit: %v", err)
	}
	return path
}

// ports hands out TCP ports below the range from which systems choose by themselves, so that no outgoing connection can
// take a port between its choice and its use. A lock file per port, held as long as the process lives, keeps test
// binaries that run side by side apart.
var ports = struct {
	sync.Mutex
	next int
	held []*os.File
}{}

const (
	firstPort = 20000
	lastPort  = 31999
)

// FreePort returns a TCP port of 127.0.0.1 that nobody listens on, never the same twice in one process.
func FreePort(t testing.TB) int {
	t.Helper()
	port, err := freePort()
	if err != nil {
		t.Fatalf("testkit: %v", err)
	}
	return port
}

func freePort() (int, error) {
	ports.Lock()
	defer ports.Unlock()
	dir := filepath.Join(os.TempDir(), "barong-ports-"+strconv.Itoa(os.Getuid()))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, err
	}
	span := lastPort - firstPort + 1
	if ports.next == 0 {
		ports.next = os.Getpid() * 61 % span
	}
	for range span {
		port := firstPort + ports.next%span
		ports.next++
		lock, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(port)), os.O_CREATE|os.O_RDWR, 0o644)
		if err != nil {
			return 0, err
		}
		if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
			lock.Close()
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			lock.Close()
			continue
		}
		l.Close()
		ports.held = append(ports.held, lock)
		return port, nil
	}
	return 0, fmt.Errorf("no free port between %d and %d", firstPort, lastPort)
}

// Eventually asks f until it is true and fails the test when that takes longer than d.
func Eventually(t testing.TB, d time.Duration, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(d)
	for !f() {
		if time.Now().After(deadline) {
			_, file, line, _ := runtime.Caller(1)
			t.Fatalf("testkit: what %s:%d waits for did not happen within %s", filepath.Base(file), line, d)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// A Block is a piece of code that a page of the documentation fences.
type Block struct {
	Language string
	Name     string // what stands behind the language, as the name of a file
	Code     string
}

// Blocks are the code blocks of a page of the documentation, in their order, also those within lists. page is its path from
// the repository's folder.
func Blocks(t testing.TB, page string) []Block {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(Root(t), page))
	if err != nil {
		t.Fatalf("testkit: %v", err)
	}
	const fence = "```"
	var blocks []Block
	var code strings.Builder
	indent, inside := "", false
	for line := range strings.Lines(string(text)) {
		bare := strings.TrimLeft(line, " ")
		switch {
		case inside && strings.TrimSpace(line) == fence:
			inside = false
			blocks[len(blocks)-1].Code = code.String()
		case inside:
			code.WriteString(strings.TrimPrefix(line, indent))
		case strings.HasPrefix(bare, fence):
			inside, indent = true, line[:len(line)-len(bare)]
			language, name, _ := strings.Cut(strings.TrimSpace(bare[len(fence):]), " ")
			blocks = append(blocks, Block{Language: language, Name: name})
			code.Reset()
		}
	}
	if inside {
		t.Fatalf("testkit: %s has a code block that does not end", page)
	}
	return blocks
}

// Sample is a program that stands in a page of the documentation: the code block that is fenced with its language and this
// name.
func Sample(t testing.TB, page, name string) string {
	t.Helper()
	blocks := named(t, page, name)
	if len(blocks) != 1 {
		t.Fatalf("testkit: %s has %d code blocks %s", page, len(blocks), name)
	}
	return blocks[0]
}

// Pieces is a file that a page of the documentation goes through: all code blocks that are fenced with its name, one after
// another.
func Pieces(t testing.TB, page, name string) string {
	t.Helper()
	blocks := named(t, page, name)
	if len(blocks) == 0 {
		t.Fatalf("testkit: %s has no code block %s", page, name)
	}
	return strings.Join(blocks, "")
}

// named are the code blocks of a page that are fenced with a name.
func named(t testing.TB, page, name string) (code []string) {
	t.Helper()
	for _, b := range Blocks(t, page) {
		if b.Name == name {
			code = append(code, b.Code)
		}
	}
	return code
}
