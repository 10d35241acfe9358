package password

import (
	"bytes"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
	"pgregory.net/rapid"

	"barong/internal/test/testkit"
)

// asServer has this test program hash for another.
const asServer = "hash"

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == asServer {
		if err := Serve(os.Stdin, os.Stdout); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A stage is a Hasher with processes of its own, which a test may hurt.
type stage struct {
	*Hasher
	processes *Processes
	log       safeBuffer

	mu      sync.Mutex
	started []*exec.Cmd
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newStage(t *testing.T, program string) *stage {
	s := &stage{}
	s.processes = NewProcesses(func() *exec.Cmd {
		s.mu.Lock()
		defer s.mu.Unlock()
		c := exec.Command(program, asServer)
		s.started = append(s.started, c)
		return c
	}, slog.New(slog.NewTextHandler(&s.log, nil)))
	s.Hasher = NewHasher(HasherOptions{MemoryKiB: 64, Passes: 1, Workers: 2, Processes: s.processes})
	t.Cleanup(s.processes.Close)
	return s
}

// last is the process that was started last, and how many were.
func (s *stage) last() (*os.Process, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.started) == 0 {
		return nil, 0
	}
	return s.started[len(s.started)-1].Process, len(s.started)
}

// signIn makes a digest and compares passwords with it.
func (s *stage) signIn(t *testing.T) {
	t.Helper()
	digest, err := s.Hash(t.Context(), "Tecohvi0")
	if err != nil {
		t.Fatal(err)
	}
	old, err := bcrypt.GenerateFromPassword([]byte("Tecohvi0"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	for _, stored := range []string{digest, string(old)} {
		for password, want := range map[string]bool{"Tecohvi0": true, "tecohvi0": false, "": false} {
			if ok, _, err := s.Verify(t.Context(), stored, password); ok != want || err != nil {
				t.Errorf("%q against %s: %v, %v", password, stored, ok, err)
			}
		}
	}
	if ok, _, err := s.Verify(t.Context(), string(old[:20]), "Tecohvi0"); ok || err == nil {
		t.Errorf("against half of a digest: %v, %v", ok, err)
	}
}

// ended reports whether a process is no more.
func ended(p *os.Process) bool { return p.Signal(syscall.Signal(0)) != nil }

func TestProcesses(t *testing.T) {
	s := newStage(t, os.Args[0])
	s.signIn(t)
	p, n := s.last()
	if n != 1 {
		t.Fatalf("%d processes for one task after the other, want one", n)
	}
	if text := s.log.String(); text != "" {
		t.Errorf("told: %s", text)
	}
	s.processes.Close()
	testkit.Eventually(t, 10*time.Second, func() bool { return ended(p) })
	s.signIn(t) // by a process of its own, which does not stay
	last, _ := s.last()
	testkit.Eventually(t, 10*time.Second, func() bool { return ended(last) })
}

// Whatever becomes of a process, the password is hashed.
func TestProcessesThatFail(t *testing.T) {
	t.Run("killed", func(t *testing.T) {
		s := newStage(t, os.Args[0])
		s.signIn(t)
		p, _ := s.last()
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
		s.signIn(t)
		s.signIn(t)
		if _, n := s.last(); n != 2 {
			t.Errorf("%d processes were started, want another after the first", n)
		}
	})
	t.Run("hangs", func(t *testing.T) {
		s := newStage(t, os.Args[0])
		s.processes.taskLimit = 300 * time.Millisecond
		s.signIn(t)
		p, _ := s.last()
		if err := p.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		if ok, _, err := s.Verify(t.Context(), None, "x"); ok || err != nil {
			t.Errorf("%v, %v", ok, err)
		}
		testkit.Eventually(t, 10*time.Second, func() bool { return ended(p) })
	})
	t.Run("cannot be started", func(t *testing.T) {
		s := newStage(t, "/nonexistent")
		s.signIn(t)
		s.signIn(t)
		if _, n := s.last(); n != 1 {
			t.Errorf("tried %d times to start a program that is not there", n)
		}
		if n := strings.Count(s.log.String(), "\n"); n != 1 {
			t.Errorf("told %d times: %s", n, s.log.String())
		}
	})
	t.Run("says something else", func(t *testing.T) {
		echo, err := exec.LookPath("cat")
		if err != nil {
			t.Fatal(err)
		}
		s := newStage(t, echo)
		s.processes.command = func() *exec.Cmd { return exec.Command(echo) }
		s.processes.taskLimit = 200 * time.Millisecond
		s.signIn(t)
	})
}

// A process ends when it has nothing to do, and when nobody is there to do it for, also amid a task.
func TestProcessesEnd(t *testing.T) {
	s := newStage(t, os.Args[0])
	s.processes.idleTime = 50 * time.Millisecond
	s.signIn(t)
	p, _ := s.last()
	testkit.Eventually(t, 10*time.Second, func() bool { return ended(p) })

	one, err := start(exec.Command(os.Args[0], asServer))
	if err != nil {
		t.Fatal(err)
	}
	dear := task{digest: standIn(MaxBcryptCost), password: []byte("x")} // some ten seconds
	if err := dear.send(one.in); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	begun := time.Now()
	one.in.Close()
	testkit.Eventually(t, 10*time.Second, func() bool { return ended(one.cmd.Process) })
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("ended %v after it was alone", took)
	}
	one.stop()
}

func TestMessages(t *testing.T) {
	text := rapid.SliceOfN(rapid.Byte(), 0, 100)
	rapid.Check(t, func(t *rapid.T) {
		sent := task{
			number:   rapid.Uint32().Draw(t, "number"),
			password: text.Draw(t, "password"), digest: text.Draw(t, "digest"), salt: text.Draw(t, "salt"),
			cost:  cost{rapid.Uint32Range(1, maxMemoryKiB).Draw(t, "memory"), rapid.Uint32Range(1, 99).Draw(t, "passes")},
			lanes: rapid.Uint8Range(1, maxLanes).Draw(t, "lanes"), size: rapid.Uint32().Draw(t, "size"),
		}
		var wire bytes.Buffer
		if err := sent.send(&wire); err != nil {
			t.Fatal(err)
		}
		var got task
		if err := got.receive(&wire); err != nil || wire.Len() != 0 {
			t.Fatalf("%v, %d bytes left", err, wire.Len())
		}
		if !bytes.Equal(got.password, sent.password) || !bytes.Equal(got.digest, sent.digest) || !bytes.Equal(got.salt, sent.salt) ||
			got.number != sent.number || got.cost != sent.cost || got.lanes != sent.lanes || got.size != sent.size {
			t.Errorf("%+v became %+v", sent, got)
		}
	})
}

// What is no message is an error, and neither a panic nor memory without bound.
func FuzzMessages(f *testing.F) {
	var wire bytes.Buffer
	if err := (&task{password: []byte("x"), salt: []byte("y"), cost: cost{64, 1}, lanes: 1, size: 32}).send(&wire); err != nil {
		f.Fatal(err)
	}
	f.Add(wire.Bytes())
	f.Add(bytes.Repeat([]byte{0xff}, 64))
	f.Fuzz(func(_ *testing.T, message []byte) {
		_ = new(task).receive(bytes.NewReader(message))    // whatever it says
		_ = new(outcome).receive(bytes.NewReader(message)) // the same
	})
}
