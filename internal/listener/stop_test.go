//go:build linux

package listener

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// late is a listener whose Accept gets to run only when its time is over, as on a machine that is busy: what clients have
// connected waits.
type late struct {
	*net.TCPListener
	over chan struct{}
	once *sync.Once
}

// Accept implements net.Listener.
func (l late) Accept() (net.Conn, error) {
	<-l.over
	return nil, os.ErrDeadlineExceeded
}

// SetDeadline is called by a stop.
func (l late) SetDeadline(time.Time) error {
	l.once.Do(func() { time.AfterFunc(20*time.Millisecond, func() { close(l.over) }) })
	return nil
}

// Whoever could connect to a server that stops gets an answer: no connection is left waiting to be accepted when the listener
// closes, however late that is.
func TestStopAnswersWhoeverConnected(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New(func(ctx *fasthttp.RequestCtx) { ctx.SetStatusCode(204) }, Options{})
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(late{ln.(*net.TCPListener), make(chan struct{}), new(sync.Once)}) }()
	var clients []net.Conn
	for range 8 {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, conn)
	}
	for { // until Serve has been called
		s.mu.Lock()
		n := len(s.listeners)
		s.mu.Unlock()
		if n > 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	for i, conn := range clients {
		r, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("client %d: %v", i, err)
			continue
		}
		if r.Body.Close(); r.StatusCode != 204 || !r.Close {
			t.Errorf("client %d: %d, closes %v", i, r.StatusCode, r.Close)
		}
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if conn, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		conn.Close()
		t.Error("a server that has stopped still takes connections")
	}
}
