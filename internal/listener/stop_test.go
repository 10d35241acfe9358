package listener

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// Whoever could connect to a server that stops gets an answer: no connection is left waiting to be accepted when the listener
// closes. Clients come all the time, each with a connection of its own, as they do where every answer ends one; like gateways,
// they give up connecting after a while.
func TestStopAnswersWhoeverConnected(t *testing.T) {
	t.Parallel()
	var answered, lost atomic.Int64
	var first atomic.Value
	for range 12 {
		ln, err := Open("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := New(func(ctx *fasthttp.RequestCtx) { ctx.SetStatusCode(204) }, Options{})
		ended := make(chan error, 1)
		go func() { ended <- s.Serve(ln) }()
		var clients sync.WaitGroup
		begun := answered.Load()
		for range 8 {
			clients.Go(func() {
				for {
					conn, err := net.DialTimeout("tcp", ln.Addr().String(), 100*time.Millisecond)
					if err != nil {
						return // it has stopped
					}
					if err := askOnce(conn); err != nil {
						lost.Add(1)
						first.CompareAndSwap(nil, err.Error())
					} else {
						answered.Add(1)
					}
					conn.Close()
				}
			})
		}
		for end := time.Now().Add(time.Minute); answered.Load() < begun+20 && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		clients.Wait()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d answered", answered.Load())
	if n := lost.Load(); n > 0 {
		t.Errorf("%d clients connected and got no answer, such as: %v", n, first.Load())
	}
}

func askOnce(conn net.Conn) error {
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return err
	}
	r, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	r.Body.Close()
	if r.StatusCode != 204 {
		return fmt.Errorf("got %d", r.StatusCode)
	}
	return nil
}
