package listener

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// Strangers take no place from gateways, idle connections give way, and who finds no place is told so by a code.
func TestPlaces(t *testing.T) {
	t.Parallel()
	var gateway atomic.Bool // whether who connects now is one
	busy := make(chan struct{})
	s := New(func(ctx *fasthttp.RequestCtx) {
		if string(ctx.Path()) == "/busy" {
			<-busy
		}
		ctx.SetStatusCode(204)
	}, Options{Concurrency: 16, Trusted: func(netip.Addr) bool { return gateway.Load() }})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ln) }()
	defer func() {
		close(busy)
		_ = s.Shutdown(t.Context())
		<-ended
	}()
	send := func(path string) net.Conn {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	answer := func(conn net.Conn) (int, string) {
		r, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		body, _ := io.ReadAll(r.Body)
		return r.StatusCode, withType(body, r)
	}
	ask := func(what string, want int) net.Conn {
		conn := send("/")
		if status, body := answer(conn); status != want || want == 503 && body != `{"errors":["authz.unavailable"]} application/json` {
			t.Errorf("%s: got %d %s, want %d", what, status, body, want)
		}
		return conn
	}
	open := func() int {
		l := s.listeners[0]
		l.mu.Lock()
		defer l.mu.Unlock()
		n := 0
		for c := range l.open {
			if c.waiting.Load() == 0 {
				n++
			}
		}
		return n
	}
	idle := ask("the first", 204)
	for range 13 {
		send("/busy")
	}
	for deadline := time.Now().Add(30 * time.Second); open() < 13; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are busy", open())
		}
	}
	ask("one for which an idle one gives way", 204)
	if _, err := idle.Read(make([]byte, 1)); err == nil {
		t.Error("the idle connection did not give way")
	}
	send("/busy")
	for deadline := time.Now().Add(30 * time.Second); open() < 14; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are busy", open())
		}
	}
	ask("a stranger too many", 503)
	gateway.Store(true)
	ask("a gateway", 204)
	ask("another gateway", 204)
	ask("a third, for which an idle one gives way", 204)
	gateway.Store(false)
	ask("a stranger, for whom no gateway gives way", 503)
}

func withType(body []byte, r *http.Response) string {
	return strings.TrimSpace(string(body)) + " " + r.Header.Get("Content-Type")
}
