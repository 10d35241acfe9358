package testkit

import (
	"bufio"
	_ "embed"
	"fmt"
	"io"
	"net/http"
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

// startTimeout bounds the start of a server. It is generous: machines that test are slow and busy.
const startTimeout = 90 * time.Second

//go:embed watch.py
var watchdog string

// Process is a running program in a process group of its own. It ends with its test, and with the test binary in any
// case.
type Process struct {
	// Pid is the program's process id.
	Pid int

	log    string
	stdin  io.WriteCloser // the watchdog's: a line stops the program, as does its end
	done   chan struct{}
	status int
	once   sync.Once
}

// command is what spawn starts.
type command struct {
	path   string
	args   []string
	env    []string
	dir    string
	user   *syscall.Credential // nil: the user of the tests
	stop   syscall.Signal
	log    string // file that receives standard output and error
	folder string // removed when the test binary ends without a word
}

func spawn(c command) (*Process, error) {
	tools, err := installed()
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	user := "-"
	if c.user != nil {
		user = fmt.Sprintf("%d:%d", c.user.Uid, c.user.Gid)
	}
	report, reportEnd, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	args := append([]string{"-I", "-S", "-c", watchdog, strconv.Itoa(int(c.stop)), user, c.folder, c.path}, c.args...)
	cmd := exec.Command(filepath.Join(tools, "bin", "python"), args...)
	cmd.Dir, cmd.Env = c.dir, c.env
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{reportEnd}
	// A session of its own: an interrupt at the terminal ends the tests, and that ends the servers in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	reportEnd.Close()
	if err != nil {
		report.Close()
		return nil, fmt.Errorf("start the watchdog of %s: %w", c.path, err)
	}
	lines := bufio.NewScanner(report)
	lines.Scan()
	p := &Process{log: c.log, stdin: stdin, done: make(chan struct{})}
	if n, err := fmt.Sscanf(lines.Text(), "pid %d", &p.Pid); n != 1 || err != nil {
		stdin.Close()
		report.Close()
		_ = cmd.Wait()
		return nil, fmt.Errorf("start %s: %s", c.path, lines.Text())
	}
	go func() {
		defer close(p.done)
		defer report.Close()
		p.status = -1
		for lines.Scan() {
			_, _ = fmt.Sscanf(lines.Text(), "exit %d", &p.status)
		}
		_ = cmd.Wait()
	}()
	return p, nil
}

// awaitReady asks ready until it succeeds, and gives up when the program ends or startTimeout is over.
func (p *Process) awaitReady(name string, ready func() error) error {
	if ready == nil {
		return nil
	}
	deadline := time.Now().Add(startTimeout)
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended with status %d before it was ready (%w):\n%s", name, p.status, err, p.tail())
		case <-time.After(25 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is not ready after %s: %w\n%s", name, startTimeout, err, p.tail())
		}
	}
}

// Start runs a program until the end of the test, with env (KEY=value) added to the environment, and waits until ready
// (may be nil) returns nil. name is a path, or the name of a server that [Bin] knows. The working directory is an empty
// folder. When the test fails, what the program wrote is in its log.
func Start(t testing.TB, name string, args, env []string, ready func() error) *Process {
	t.Helper()
	path := name
	if !strings.ContainsRune(name, filepath.Separator) {
		path = Bin(t, name)
	}
	folder, err := os.MkdirTemp("", "barong-process-")
	if err != nil {
		t.Fatalf("testkit: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	dir := filepath.Join(folder, "work")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatalf("testkit: %v", err)
	}
	p, err := spawn(command{
		path: path, args: args, dir: dir, stop: syscall.SIGTERM, folder: folder,
		env: append(os.Environ(), env...), log: filepath.Join(folder, "output"),
	})
	if err != nil {
		t.Fatalf("testkit: %v", err)
	}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("output of %s:\n%s", filepath.Base(name), p.tail())
		}
	})
	if err := p.awaitReady(filepath.Base(name), ready); err != nil {
		t.Fatalf("testkit: %v", err)
	}
	return p
}

// Answers returns a check whether a URL answers 200, for Start.
func Answers(url string) func() error {
	return func() error {
		r, err := http.Get(url)
		if err != nil {
			return err
		}
		defer r.Body.Close()
		if r.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %d", url, r.StatusCode)
		}
		return nil
	}
}

// Stop asks the program to end, waits, and returns its exit status (negative: the signal that ended it). What is left
// after five seconds is killed.
func (p *Process) Stop() int {
	p.once.Do(func() {
		_, _ = io.WriteString(p.stdin, "stop\n") // the error says that the program has ended already
		p.stdin.Close()
	})
	<-p.done
	return p.status
}

// Kill ends the program and its children without notice and waits until it is gone.
func (p *Process) Kill() {
	if p.Running() {
		p.signalTree(syscall.SIGKILL)
	}
	p.Stop()
}

// Pause freezes the program and its children, as a machine that hangs: connections stay open, nothing answers.
func (p *Process) Pause() { p.signalTree(syscall.SIGSTOP) }

// Resume lets a paused program go on.
func (p *Process) Resume() { p.signalTree(syscall.SIGCONT) }

// Signal sends one signal to the program alone.
func (p *Process) Signal(s syscall.Signal) error {
	if !p.Running() {
		return os.ErrProcessDone
	}
	return syscall.Kill(p.Pid, s)
}

// Wait returns the exit status once the program has ended by itself.
func (p *Process) Wait() int {
	<-p.done
	return p.status
}

// Running tells whether the program has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Output returns what the program has written so far.
func (p *Process) Output() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (p *Process) tail() string {
	const most = 8 << 10
	s := p.Output()
	if len(s) > most {
		s = "...\n" + s[len(s)-most:]
	}
	return s
}

// signalTree signals the program's group and its children elsewhere: Postgres gives each of its processes a group. It looks
// again until it finds no more: one that was forked meanwhile must not go on when the others are stopped.
func (p *Process) signalTree(s syscall.Signal) {
	if !p.Running() {
		return
	}
	children := descendants(p.Pid) // before the parent may be gone
	_ = syscall.Kill(-p.Pid, s)
	done := map[int]bool{}
	for more := true; more; children = descendants(p.Pid) {
		more = false
		for _, pid := range children {
			if !done[pid] {
				_ = syscall.Kill(pid, s)
				done[pid], more = true, true
			}
		}
	}
}

// descendants lists the processes below pid, read from /proc; elsewhere than on Linux it knows none.
func descendants(pid int) []int {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	below := map[int][]int{}
	for _, stat := range stats {
		b, err := os.ReadFile(stat)
		if err != nil {
			continue // it has just ended
		}
		// pid (name, which may hold anything) state ppid
		i := strings.LastIndexByte(string(b), ')')
		var state string
		var parent int
		if i < 0 {
			continue
		}
		if _, err := fmt.Sscan(string(b[i+1:]), &state, &parent); err != nil {
			continue
		}
		child, err := strconv.Atoi(filepath.Base(filepath.Dir(stat)))
		if err == nil {
			below[parent] = append(below[parent], child)
		}
	}
	all := append([]int(nil), below[pid]...)
	for i := 0; i < len(all); i++ {
		all = append(all, below[all[i]]...)
	}
	return all
}
