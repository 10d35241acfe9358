package password

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// Bounds of processes that hash.
const (
	idleTime  = time.Minute      // after so long without a task a process ends
	taskLimit = 30 * time.Second // for one task, above what the dearest digest takes; then it is done here
	failPause = time.Minute      // after a process that could not be started
)

// Processes do the dear part of hashing in other processes of this program.
//
// Within one process Go runs a hash on a processor until its slice of 10 ms is over, however many checks come meanwhile, and
// the 32 MiB that each hash takes are a collection of garbage each, for which all of the process stops, also while the
// kernel lets somebody else have the processor of the hash. Between processes the kernel divides, and gives a check that
// comes in its turn soon.
//
// 2,000 warm checks a second while eight people sign in without a pause, 99th percentile (go -C tools run ./bench -only
// "sign in"; with -free for two processors), times that beside a program that keeps a processor busy, which was 3 ms on two
// processors and 5 ms on one:
//
//	                                    two processors   one
//	hashes in this process              5 to 6           130 (median 300 ms, not 0.8)
//	the same, threads of low priority   5 to 6           not measured
//	processes                           1.0              0.9
//	processes of low priority           1.1 to 1.8       0.8
//
// Sign-ins a second stay the same on two processors (16), and are 13.7 instead of 14.4 on one. With a low priority
// passwords would starve where others keep the machine busy: a hash took seconds at nice 10 among 30 busy programs.
//
// A process does one task after the other, is started when it is needed and ends when it has had nothing to do for a
// minute, or when this process ends. A task whose process cannot be started, dies, or takes too long is done in this process.
// A Processes is safe for concurrent use.
type Processes struct {
	command func() *exec.Cmd
	log     *slog.Logger

	idleTime, taskLimit time.Duration

	mu     sync.Mutex
	idle   []*process
	closed bool
	next   time.Time // until then none is started, since one could not be
}

// A process is one that runs Serve.
type process struct {
	cmd *exec.Cmd
	in  *os.File
	out *os.File
	end *time.Timer // when it has had nothing to do for so long

	tasks uint32 // so far
}

// NewProcesses has tasks done by the processes of a command, which must call Serve with its standard input and output. It
// starts none yet.
func NewProcesses(command func() *exec.Cmd, log *slog.Logger) *Processes {
	return &Processes{command: command, log: log, idleTime: idleTime, taskLimit: taskLimit}
}

// Close ends the processes that have nothing to do. What is under way is done to its end.
func (p *Processes) Close() {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.closed = nil, true
	p.mu.Unlock()
	for _, one := range idle {
		one.stop()
	}
}

// do does a task.
func (p *Processes) do(t *task) outcome {
	one, err := p.take()
	if err == nil {
		var o outcome
		if o, err = one.do(t, p.taskLimit); err == nil {
			p.put(one)
			return o
		}
		one.stop()
	}
	if !errors.Is(err, errPaused) {
		p.log.Warn("a password is hashed in this process, since another could not do it", "error", err)
	}
	return t.do()
}

// errPaused says that no process is started for a while, which was told already.
var errPaused = errors.New("password: no process could be started a moment ago")

// take returns a process that has nothing to do.
func (p *Processes) take() (*process, error) {
	p.mu.Lock()
	if n := len(p.idle); n > 0 {
		one := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		one.end.Stop()
		return one, nil
	}
	paused := time.Now().Before(p.next)
	p.mu.Unlock()
	if paused {
		return nil, errPaused
	}
	one, err := start(p.command())
	if err != nil {
		p.mu.Lock()
		p.next = time.Now().Add(failPause)
		p.mu.Unlock()
	}
	return one, err
}

// put keeps a process for the next task.
func (p *Processes) put(one *process) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		one.stop()
		return
	}
	one.end = time.AfterFunc(p.idleTime, func() { p.drop(one) })
	p.idle = append(p.idle, one)
}

// drop ends a process, unless it was taken meanwhile.
func (p *Processes) drop(one *process) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.idle {
		if p.idle[i] == one {
			p.idle = append(p.idle[:i], p.idle[i+1:]...)
			one.stop()
			return
		}
	}
}

func start(cmd *exec.Cmd) (*process, error) {
	theirIn, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer theirIn.Close()
	out, theirOut, err := os.Pipe()
	if err != nil {
		in.Close()
		return nil, err
	}
	defer theirOut.Close()
	cmd.Stdin, cmd.Stdout = theirIn, theirOut
	if err := cmd.Start(); err != nil {
		in.Close()
		out.Close()
		return nil, err
	}
	go func() { _ = cmd.Wait() }() // whatever it says: nobody hears an answer from it any more
	return &process{cmd: cmd, in: in, out: out}, nil
}

// do has the process do a task.
func (p *process) do(t *task, limit time.Duration) (o outcome, err error) {
	deadline := time.Now().Add(limit)
	if err := errors.Join(p.in.SetWriteDeadline(deadline), p.out.SetReadDeadline(deadline)); err != nil {
		return outcome{}, err
	}
	p.tasks++
	t.number = p.tasks
	if err := t.send(p.in); err != nil {
		return outcome{}, err
	}
	if err := o.receive(p.out); err != nil {
		return outcome{}, err
	}
	if !o.answers(t) {
		return outcome{}, errPart
	}
	return o, nil
}

// stop ends a process, also one that hangs.
func (p *process) stop() {
	p.in.Close()
	p.out.Close()
	_ = p.cmd.Process.Kill() // it has ended already otherwise
}

// Serve does tasks for the process at the other end until that one ends, also while a task is under way. What the terminal
// or a supervisor tells the whole group is not meant for it: the other process ends it when it is done.
func Serve(in io.Reader, out io.Writer) error {
	signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	_ = os.WriteFile("/proc/self/comm", []byte("barong-hash"), 0) // what top calls it; elsewhere than on Linux nothing
	ended := make(chan error, 2)
	tasks := make(chan *task)
	go func() {
		for {
			t := new(task)
			if err := t.receive(in); err != nil {
				ended <- err
				return
			}
			tasks <- t
		}
	}()
	go func() {
		for t := range tasks {
			o := t.do()
			clear(t.password)
			if err := o.send(out); err != nil {
				ended <- err
				return
			}
		}
	}()
	if err := <-ended; !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
