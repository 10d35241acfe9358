package testkit

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// A WallClock is the wall clock of programs that [ClockedBarong] returns, which a test moves. Their running clock, by which
// waits are measured, goes on as it does.
type WallClock struct {
	path string
	file *os.File
}

// clockVariable names the file that holds how many seconds a program's wall clock is ahead of the machine's.
const clockVariable = "BARONG_TEST_CLOCK"

// NewWallClock returns a clock that is right.
func NewWallClock(t testing.TB) *WallClock {
	t.Helper()
	c := &WallClock{path: filepath.Join(t.TempDir(), "clock")}
	var err error
	if c.file, err = os.Create(c.path); err != nil {
		t.Fatalf("testkit: %v", err)
	}
	t.Cleanup(func() { c.file.Close() })
	c.Set(t, 0)
	return c
}

// Set moves the clock to so far ahead of the machine's, in whole seconds.
func (c *WallClock) Set(t testing.TB, ahead time.Duration) {
	t.Helper()
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], uint64(int64(ahead/time.Second)))
	if _, err := c.file.WriteAt(b[:], 0); err != nil {
		t.Fatalf("testkit: %v", err)
	}
}

// Env is the variable by which a program finds the clock.
func (c *WallClock) Env() string { return clockVariable + "=" + c.path }

// clockSource is what is put beside package time.
const clockSource = `package time

import (
	"syscall"
	"unsafe"
)

var ahead = new(int64)

func init() {
	path, found := syscall.Getenv("` + clockVariable + `")
	if !found {
		return
	}
	fd, err := syscall.Open(path, syscall.O_RDONLY, 0)
	if err != nil {
		panic(path + ": " + err.Error())
	}
	memory, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic(path + ": " + err.Error())
	}
	ahead = (*int64)(unsafe.Pointer(&memory[0]))
}
`

var clocked = sync.OnceValues(func() (string, error) {
	return built("barong-clocked", "lock", func(root, shared, target string) (*exec.Cmd, error) {
		overlay, err := clockOverlay(shared)
		if err != nil {
			return nil, err
		}
		cmd := exec.Command("go", "build", "-overlay", overlay, "-o", target, "./cmd/barong")
		cmd.Dir = root
		return cmd, nil
	})
})

// clockOverlay writes the files by which the compiler takes another package time, and returns the one that lists them.
func clockOverlay(dir string) (string, error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOROOT: %w", err)
	}
	std := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	original, err := os.ReadFile(filepath.Join(std, "time.go"))
	if err != nil {
		return "", err
	}
	const before, now = "func Now() Time {\n", "	sec, nsec, mono := runtimeNow()\n"
	source := strings.Replace(string(original), before+now, before+now+"	sec += *ahead\n", 1)
	if source == string(original) {
		return "", fmt.Errorf("%s asks for the time in another way", runtime.Version())
	}
	replace := map[string]string{}
	for name, text := range map[string]string{"time.go": source, "testclock.go": clockSource} {
		file := filepath.Join(dir, "clocked-"+name+".txt")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return "", err
		}
		replace[filepath.Join(std, name)] = file
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "clocked.json")
	return path, os.WriteFile(path, list, 0o644)
}

// ClockedBarong returns the path of the program as [Barong] does, with a wall clock that a [WallClock] moves. The first
// build of it compiles everything once more.
func ClockedBarong(t testing.TB) string {
	t.Helper()
	path, err := clocked()
	if err != nil {
		t.Fatalf("testkit: %v", err)
	}
	return path
}
