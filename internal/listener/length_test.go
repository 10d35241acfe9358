package listener

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// TestHandlersNeedNoBody holds that handlers begin before the first byte of a body has come, know its length, and read that
// much of it; and that what follows a body which nobody read is the next request.
func TestHandlersNeedNoBody(t *testing.T) {
	s := New(func(ctx *fasthttp.RequestCtx) {
		n, body := ctx.Request.Header.ContentLength(), []byte("unread")
		if string(ctx.Path()) == "/read" {
			var err error
			if body, err = io.ReadAll(ctx.RequestBodyStream()); err != nil {
				body = []byte(err.Error())
			}
		}
		fmt.Fprintf(ctx, "%s %d %q %s", ctx.Method(), n, ctx.Request.Header.Peek("Transfer-Encoding"), body)
	}, Options{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	t.Cleanup(func() {
		if err := s.Shutdown(t.Context()); err != nil {
			t.Log(err)
		}
		<-done
	})
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(c)
	hidden := "GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
	for _, step := range []struct{ send, want string }{
		{"POST /unread HTTP/1.1\r\nHost: x\r\ncontent-length: " + fmt.Sprint(len(hidden)) + "\r\n\r\n", fmt.Sprintf(`POST %d "" unread`, len(hidden))},
		{hidden + "POST /read HTTP/1.1\r\nHost: x\r\nContent-Length:\t5 \r\n\r\nhello", `POST 5 "" hello`},
		{"POST /unread HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n", `POST 2 "" unread`},
		{"okPOST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n" + strings.Repeat("a", 70000), `POST 70000 "" ` + strings.Repeat("a", 70000)},
		{"PUT /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", `PUT -1 "chunked" abc`},
	} {
		if _, err := io.WriteString(c, step.send); err != nil {
			t.Fatal(err)
		}
		var res fasthttp.Response
		for res.Reset(); res.StatusCode() == 100 || len(res.Body()) == 0; {
			if err := res.Read(answers); err != nil {
				t.Fatalf("%.60q: %v", step.send, err)
			}
		}
		if got := string(res.Body()); got != step.want {
			t.Fatalf("%.60q: %.80q, want %.80q", step.send, got, step.want)
		}
	}
}

func TestSentLength(t *testing.T) {
	for block, want := range map[string]int{
		"":                                      -1,
		"Host: x\r\n":                           -1,
		"Host: x\r\nContent-Length: 12\r\n\r\n": 12,
		"CONTENT-LENGTH:7\r\nA: b\r\n\r\n":      7,
		"X-Content-Length: 3\r\n\r\n":           -1,
		"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n":         -1,
		"transfer-encoding: identity\r\nContent-Length: 5\r\n\r\n":        -1,
		"Content-Length: -5\r\n\r\n":                                      -1,
		"Content-Length: 99999999999999999999\r\n\r\n":                    -1,
		"Referer: http://h/?a=Content-Length: 9\r\nContent-Length: 1\r\n": 1,
	} {
		if got := sentLength([]byte(block)); got != want {
			t.Errorf("%q: %d, want %d", block, got, want)
		}
	}
}
