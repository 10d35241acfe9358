package listener_test

import (
	"bytes"
	"io"
	"math"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"barong/internal/listener"
)

// A long body may take as long as a slow network needs for it; a short one, which anybody sends anywhere, has the time of a
// request.
func TestSlowBodies(t *testing.T) {
	t.Parallel()
	server := listener.New(func(ctx *fasthttp.RequestCtx) {
		if _, err := io.Copy(io.Discard, ctx.RequestBodyStream()); err != nil {
			ctx.SetStatusCode(http.StatusRequestTimeout)
		}
	}, listener.Options{ReadTimeout: time.Second})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go server.Serve(ln)
	for _, c := range []struct {
		name   string
		size   int
		status int
	}{
		{"long", 300 << 10, http.StatusOK},
		{"short", 200 << 10, http.StatusRequestTimeout},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			body := bytes.Repeat([]byte("x"), c.size)
			r, w := io.Pipe()
			go func() {
				w.Write(body[:c.size/2])
				time.Sleep(3 * time.Second)
				w.Write(body[c.size/2:])
				w.Close()
			}()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+ln.Addr().String(), r)
			if err != nil {
				t.Fatal(err)
			}
			req.ContentLength = int64(c.size)
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != c.status {
				t.Errorf("got %s, want %d", res.Status, c.status)
			}
		})
	}
}

// Ten megabytes have more than five minutes. No body has more than ten, whatever its client says; an answer has what its length needs.
func TestTransferTime(t *testing.T) {
	for n, want := range map[int]time.Duration{
		0: 15 * time.Second, 900_000: 42 * time.Second, 10 << 20: 335 * time.Second, 1 << 40: 10 * time.Minute,
		math.MaxInt: 10 * time.Minute, -1: time.Minute,
	} {
		if got := listener.BodyTime(n); got != want {
			t.Errorf("a body of %d bytes: %s, want %s", n, got, want)
		}
	}
	if got, want := listener.TransferTime(100<<20), 3215*time.Second; got != want {
		t.Errorf("an answer of 100 MiB: %s, want %s", got, want)
	}
}
