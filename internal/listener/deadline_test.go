package listener

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// timedPair is a connection whose deadlines are looked after, and its other end.
func timedPair(t *testing.T, limits timeouts) (*timedConn, net.Conn) {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := newTimedListener(inner, limits, places{limit: 1 << 20})
	t.Cleanup(func() { ln.Close() })
	other, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*timedConn), other
}

func readOne(c net.Conn) error {
	_, err := c.Read(make([]byte, 1))
	return err
}

// Whatever a deadline is, it strikes, and not before it is over.
func TestDeadlinesStrike(t *testing.T) {
	for _, after := range []time.Duration{-time.Hour, 0, 50 * time.Millisecond, 700 * time.Millisecond} {
		t.Run(after.String(), func(t *testing.T) {
			t.Parallel()
			c, _ := timedPair(t, timeouts{})
			at := time.Now().Add(after)
			if err := c.SetReadDeadline(at); err != nil {
				t.Fatal(err)
			}
			if err := readOne(c); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("read: %v, want the deadline's error", err)
			}
			if early := time.Until(at); early > 0 {
				t.Errorf("it struck %v early", early)
			}
		})
	}
}

func TestDeadlinesOfWrites(t *testing.T) {
	for name, c := range map[string]struct{ write, own time.Duration }{
		"the listener's": {write: 600 * time.Millisecond},
		"the handler's":  {write: time.Hour, own: 600 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, _ := timedPair(t, timeouts{write: c.write})
			if c.own > 0 {
				if err := conn.SetWriteDeadline(time.Now().Add(c.own)); err != nil {
					t.Fatal(err)
				}
			}
			block := make([]byte, 1<<20)
			for {
				if _, err := conn.Write(block); err != nil { // the other end reads nothing
					if !errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("write: %v, want the deadline's error", err)
					}
					return
				}
			}
		})
	}
}

// One that has struck, or was near, is lifted by the next.
func TestDeadlinesAreMoved(t *testing.T) {
	c, other := timedPair(t, timeouts{})
	for name, first := range map[string]time.Duration{"past": -time.Hour, "near": 20 * time.Millisecond, "far": 600 * time.Millisecond} {
		for _, next := range []time.Time{{}, time.Now().Add(time.Hour)} {
			if err := c.SetReadDeadline(time.Now().Add(first)); err != nil {
				t.Fatal(err)
			}
			if err := readOne(c); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("%s: %v", name, err)
			}
			if err := c.SetReadDeadline(next); err != nil {
				t.Fatal(err)
			}
			if _, err := other.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if err := readOne(c); err != nil {
				t.Errorf("%s: then %v: %v", name, next, err)
			}
		}
	}
}

// A deadline that is moved while others are looked through strikes nobody: whoever moves it has time.
func TestDeadlinesThatMoveDoNotStrike(t *testing.T) {
	c, other := timedPair(t, timeouts{})
	var group sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					c.l.strike()
				}
			}
		})
	}
	group.Go(func() { _, _ = io.Copy(other, other) })
	for range 2000 {
		if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := readOne(c); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	c.Close()
	group.Wait()
	c.l.strike()
	if c.l.mu.Lock(); len(c.l.open) != 0 {
		t.Error("a closed connection is still looked at")
	}
	c.l.mu.Unlock()
}

// A script is a connection that gives what it is told to, and takes everything.
type script struct {
	net.Conn
	reads []string
}

func (s *script) Read(p []byte) (int, error) {
	if len(s.reads) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.reads[0])
	s.reads = s.reads[1:]
	return n, nil
}

func (s *script) Write(p []byte) (int, error)      { return len(p), nil }
func (s *script) Close() error                     { return nil }
func (s *script) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

type scripted struct{ conn net.Conn }

func (s scripted) Accept() (net.Conn, error) { return s.conn, nil }
func (s scripted) Close() error              { return nil }
func (s scripted) Addr() net.Addr            { return nil }

// Each request has its time from when more than its first bytes is waited for, each pause between two and each answer has its own.
func TestTimeouts(t *testing.T) {
	const read, idle, write = 10 * time.Second, 3 * time.Minute, time.Minute
	inner := &script{reads: []string{"GET", " / ", "HTTP", "Host", "Accept", "POST", "body", "more"}}
	l := newTimedListener(scripted{inner}, timeouts{read: read, idle: idle, write: write}, places{limit: 1 << 20})
	l.looking = true // nobody but this test says what time it is
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := conn.(*timedConn)
	now := time.Duration(0)
	tick := func() {
		now += time.Second
		l.now.Store(int64(now))
	}
	want := func(what string, d *deadline, at time.Duration) {
		t.Helper()
		if got := time.Duration(d.at.Load()); got != at {
			t.Errorf("%s: the deadline is at %v, want %v", what, got, at)
		}
	}
	get := func() {
		t.Helper()
		tick()
		if _, err := c.Read(make([]byte, 16)); err != nil {
			t.Fatal(err)
		}
	}
	put := func(text string) {
		t.Helper()
		tick()
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	first := read + deadlineGrain
	want("a new connection", &c.read, first)
	get()
	want("a first byte on a new connection", &c.read, first)
	put(continues)
	want("100 Continue", &c.write, now+write+deadlineGrain)
	get()
	want("what follows 100 Continue", &c.read, first)
	put("HTTP/1.1 200 OK\r\n")
	answered := now + write + deadlineGrain
	want("an answer", &c.write, answered)
	put("\r\nmore")
	want("the rest of an answer", &c.write, answered)
	tick()
	inner.reads = append([]string{""}, inner.reads...) // nothing yet
	get()
	waits := now + idle + deadlineGrain
	want("the wait for a request", &c.read, waits)
	get()
	want("the first byte of a request", &c.read, waits)
	get()
	more := now + read + deadlineGrain
	want("more of a request", &c.read, more)
	get()
	want("still more of it", &c.read, more)
	put("HTTP/1.1 200 OK\r\n\r\n")
	get()
	if err := c.SetReadDeadline(l.start.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	get()
	want("an upload", &c.read, time.Hour)
	get()
	want("more of an upload", &c.read, time.Hour)
	put("HTTP/1.1 200 OK\r\n\r\n")
	if _, err := c.Read(make([]byte, 16)); err != io.EOF {
		t.Fatal(err)
	}
	want("the wait after an upload", &c.read, now+idle+deadlineGrain)
}

// Clients that overstay are told to go, also where a timeout is shorter than the looks that find them.
func TestServerTimeouts(t *testing.T) {
	for _, timeout := range []time.Duration{20 * time.Millisecond, 600 * time.Millisecond} {
		t.Run(timeout.String(), func(t *testing.T) {
			t.Parallel()
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			s := New(func(ctx *fasthttp.RequestCtx) { ctx.SetStatusCode(fasthttp.StatusNotFound) }, Options{ReadTimeout: timeout, IdleTimeout: timeout})
			ended := make(chan error, 1)
			go func() { ended <- s.Serve(ln) }()
			defer func() {
				if err := errors.Join(s.Shutdown(t.Context()), <-ended); err != nil {
					t.Error(err)
				}
			}()
			for name, c := range map[string]struct{ sent, status string }{
				"half a request":  {"GET / HTTP/1.1\r\nHost", "408"},
				"one and no more": {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "404"},
			} {
				conn, err := net.Dial("tcp", ln.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if _, err := io.WriteString(conn, c.sent); err != nil {
					t.Fatal(err)
				}
				answer, err := io.ReadAll(conn) // until the server closes
				if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 "+c.status) {
					t.Errorf("%s: got %q, %v", name, answer, err)
				}
			}
		})
	}
}

// BenchmarkDeadlines does what a request does with its connection, but for the kernel's part.
func BenchmarkDeadlines(b *testing.B) {
	inner := &script{}
	l := newTimedListener(scripted{inner}, timeouts{DefaultReadTimeout, DefaultIdleTimeout, DefaultUploadTimeout}, places{limit: 1 << 20})
	conn, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	reads, p := []string{"x"}, make([]byte, 1)
	b.ReportAllocs()
	for b.Loop() {
		inner.reads = reads
		_, _ = conn.Read(p)
		_, _ = conn.Write(p)
	}
}
