package envoy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"barong/authz"
)

// fickle is a replica that answers the first request on each connection and closes it, without an answer, when the second
// arrives: what a request meets that goes out on a kept connection just when a replica that stops closes it.
type fickle struct {
	port int
	mu   sync.Mutex
	came map[string]int // requests by method and path, answered or not
	lost map[string]int // of these, those without an answer
}

func newFickle(t *testing.T) *fickle {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fickle{port: port(t, l.Addr().String()), came: map[string]int{}, lost: map[string]int{}}
	var work sync.WaitGroup
	t.Cleanup(func() { l.Close(); work.Wait() }) // the gateways are gone, and their connections with them
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() { f.serve(c) })
		}
	})
	return f
}

func (f *fickle) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	for n := range 2 {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		what := r.Method + " " + r.URL.Path
		f.mu.Lock()
		f.came[what]++
		f.lost[what] += n
		f.mu.Unlock()
		if n > 0 {
			return
		}
		status := "200 OK"
		if strings.HasSuffix(r.URL.Path, "/.ready") {
			status = "401 Unauthorized"
		}
		if _, err := fmt.Fprintf(c, "HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n", status); err != nil {
			return
		}
	}
}

// count adds up the requests whose method and path begin so.
func (f *fickle) count(of map[string]int, prefix string) (sum int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for what, n := range of {
		if strings.HasPrefix(what, prefix) {
			sum += n
		}
	}
	return sum
}

// Through Envoy, a connection that ends under a check or a call that reads costs nobody an answer; a call that may change
// something is not sent twice.
func TestConnectionsThatEndUnderARequest(t *testing.T) {
	for _, g := range gateways[:2] {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			f, u := newFickle(t), newUpstream(t)
			p := listen(t, &script{check: func(_ context.Context, r *authz.Request, d *authz.Decision) {
				if *d = allow; r.Target == "/.ready" {
					*d = authz.Decision{Status: 401, Code: "authz.invalid_session"}
				}
			}})
			overHTTP := g.name == "envoy over HTTP"
			if overHTTP {
				p.checks = f.port
			}
			p.api, p.upstream = f.port, u.port
			client := &http.Client{Timeout: 20 * time.Second}
			base := "http://" + g.start(t, p)
			ask := func(method, path string) int {
				t.Helper()
				req, err := http.NewRequestWithContext(t.Context(), method, base+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				res, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				return res.StatusCode
			}
			for n := range 5 {
				for _, path := range []string{"/api/v2/peatio/orders", "/api/v2/barong/resource/users/me", "/api/v2/barong/resource/users/me/again"} {
					if status := ask("GET", fmt.Sprintf("%s/%d", path, n)); status != 200 {
						t.Errorf("GET %s: %d", path, status)
					}
				}
				status := ask("POST", fmt.Sprintf("/api/v2/barong/resource/labels/%d", n))
				what := fmt.Sprintf("POST /api/v2/resource/labels/%d", n)
				switch came, lost := f.count(f.came, what), f.count(f.lost, what); {
				case status == 200 && came == 1 && lost == 0:
				case (status == 502 || status == 503) && came == lost && came <= 1: // lost, or refused for its check on a busy machine
				default:
					t.Errorf("%s: %d; it came %d times and met the end of a connection %d times", what, status, came, lost)
				}
			}
			if overHTTP && f.count(f.lost, "GET /api/v2/auth/api/v2/peatio/") == 0 || f.count(f.lost, "GET /api/v2/resource/") == 0 {
				t.Error("no connection ended under a check and under a call that reads, so nothing was tested")
			}
			if f.count(f.came, "POST /api/v2/resource/") == 0 {
				t.Error("no call that writes came, so nothing was tested")
			}
		})
	}
}

// A check has the whole of its time, also where it is given more: Envoy does not give it up sooner to ask again.
func TestSlowChecksAreNotGivenUp(t *testing.T) {
	for _, g := range gateways[:2] {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			checker := &script{check: func(_ context.Context, r *authz.Request, d *authz.Decision) {
				if *d = allow; r.Target == "/.ready" {
					*d = authz.Decision{Status: 401, Code: "authz.invalid_session"}
					return
				}
				time.Sleep(1500 * time.Millisecond)
			}}
			u := newUpstream(t)
			p := listen(t, checker)
			p.api, p.upstream = u.port, u.port
			g.edit = func(text string) string { return strings.ReplaceAll(text, "timeout: 1s", "timeout: 30s") }
			base := "http://" + g.start(t, p)
			checker.take()
			res, err := http.Get(base + "/slow")
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if asked := checker.take(); res.StatusCode != 200 || len(asked) != 1 {
				t.Errorf("got %s, asked %d times", res.Status, len(asked))
			}
		})
	}
}
