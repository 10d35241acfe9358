package rest_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"barong/api/rest"
	"barong/internal/test/apitest"
)

// send writes the beginning of a request on a connection of its own, and leaves it open.
func send(t *testing.T, s *apitest.Server, text string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	return c
}

// answer reads what comes back; the status is 0 when nothing does.
func answer(c net.Conn) (status int, body string) {
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, string(b)
}

// TestHeadersAreJudgedFirst holds that who is refused by the headers is told so while the body has yet to come.
func TestHeadersAreJudgedFirst(t *testing.T) {
	_, s := start(t)
	for call, want := range map[string]string{
		"POST /api/v2/nothing":              `404 {"error":"Route is not found"}`,
		"PATCH /api/v2/resource/things/1":   `401 {"errors":["jwt.decode_and_verify"]}`,
		"POST /api/v2/identity/echo":        `413 {"errors":["request.too_large"]}`,
		"POST /api/v2/barong/identity/echo": `413 {"errors":["request.too_large"]}`,
	} {
		c := send(t, s, call+" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 254000\r\n\r\n")
		if status, body := answer(c); fmt.Sprintf("%d %s", status, body) != want {
			t.Errorf("%s: %d %s, want %s", call, status, body, want)
		}
	}
}

// TestStalledBodies holds that bodies which do not arrive take no more memory than one may, that their sender is told, and
// that others are served meanwhile.
func TestStalledBodies(t *testing.T) {
	e, s := start(t)
	u, other := e.NewUser(t, nil), e.NewUser(t, nil)
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	token := e.Token(t, u)
	body := `{"a":"` + strings.Repeat("x", rest.DefaultMaxBody-100)
	head := fmt.Sprintf("PATCH /api/v2/resource/things/1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"+
		"Content-Length: %d\r\n\r\n", token, len(body)+2)
	before := heap()
	refused := make(chan string)
	var stalled []net.Conn
	for range 100 {
		c := send(t, s, head+body[:1000])
		stalled = append(stalled, c)
		go func() { // two bytes are never sent
			_, _ = io.WriteString(c, body[1000:])
			status, body := answer(c)
			refused <- fmt.Sprintf("%d %s", status, body)
		}()
	}
	for range 90 {
		if got := <-refused; got != `429 {"errors":["request.rate_limited"]}` {
			t.Fatal(got)
		}
	}
	if grown := heap() - before; grown > 24<<20 {
		t.Errorf("%d bodies that do not arrive take %d MB", len(stalled), grown>>20)
	}
	s.Do(t, "PATCH", "/resource/things/1", apitest.As(other), apitest.JSON(map[string]any{"a": "x"})).Want(t, 200)
	for _, c := range stalled {
		c.Close()
	}
	for range 10 {
		<-refused
	}
	s.Do(t, "PATCH", "/resource/things/1", apitest.As(u), apitest.JSON(map[string]any{"a": strings.Repeat("x", 200<<10)})).Want(t, 200)
}
