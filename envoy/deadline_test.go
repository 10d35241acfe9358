package envoy

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// coarsePair is a connection with coarse deadlines and its other end.
func coarsePair(t *testing.T) (*coarseConn, net.Conn) {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := CoarseDeadlines(inner)
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
	return c.(*coarseConn), other
}

func readOne(c net.Conn) error {
	_, err := c.Read(make([]byte, 1))
	return err
}

// Whatever a deadline is, it strikes, and not before it is over.
func TestCoarseDeadlinesStrike(t *testing.T) {
	for _, after := range []time.Duration{-time.Hour, 0, 50 * time.Millisecond, 700 * time.Millisecond} {
		t.Run(after.String(), func(t *testing.T) {
			t.Parallel()
			c, _ := coarsePair(t)
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

func TestCoarseDeadlinesOfWrites(t *testing.T) {
	c, _ := coarsePair(t)
	if err := c.SetDeadline(time.Now().Add(600 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 1<<20)
	for {
		if _, err := c.Write(block); err != nil { // the other end reads nothing
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("write: %v, want the deadline's error", err)
			}
			return
		}
	}
}

// One that has struck, or was near, is lifted by the next.
func TestCoarseDeadlinesAreMoved(t *testing.T) {
	c, other := coarsePair(t)
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
func TestCoarseDeadlinesThatMoveDoNotStrike(t *testing.T) {
	c, other := coarsePair(t)
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

// BenchmarkDeadlines moves the three deadlines of a request.
func BenchmarkDeadlines(b *testing.B) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer inner.Close()
	ln := CoarseDeadlines(inner)
	for name, accept := range map[string]func() (net.Conn, error){"own": inner.Accept, "coarse": ln.Accept} {
		b.Run(name, func(b *testing.B) {
			other, err := net.Dial("tcp", inner.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			defer other.Close()
			c, err := accept()
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			now := time.Now()
			b.ReportAllocs()
			for b.Loop() {
				_ = c.SetReadDeadline(now.Add(DefaultIdleTimeout))
				_ = c.SetReadDeadline(now.Add(DefaultReadTimeout))
				_ = c.SetWriteDeadline(now.Add(DefaultUploadTimeout))
			}
		})
	}
}
