package redisstore

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"barong/internal/test/testkit"
)

// saying is a server that answers everything with one line, or with nothing, and its address.
func saying(t *testing.T, line string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for r := bufio.NewReader(c); ; {
					text, err := r.ReadString('\n')
					if err != nil || !strings.HasPrefix(text, "*") { // a command is an array
						if err != nil {
							return
						}
						continue
					}
					if _, err := io.WriteString(c, line); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// TestAwait: a Redis that is not there is waited for, one that does not let anybody in is not, and the error says what to do.
func TestAwait(t *testing.T) {
	for _, c := range []struct {
		url, want string
		waits     bool
	}{
		{"redis://" + saying(t, "-NOAUTH Authentication required.\r\n"), "The URL has no password", false},
		{"redis://:x@" + saying(t, "-WRONGPASS invalid username-password pair or user is disabled.\r\n"), "percent-encoded", false},
		{"rediss://" + saying(t, "-ERR unknown\r\n"), "wants redis://", true},
		{"redis://127.0.0.1:1", "refused", true},
	} {
		client, err := ConnectWithin(c.url, 100*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		within := time.Minute
		if c.waits {
			within = 400 * time.Millisecond
		}
		ctx, cancel := context.WithTimeout(t.Context(), within)
		err = Await(ctx, client)
		ended := ctx.Err() != nil
		cancel()
		if err == nil || !strings.Contains(err.Error(), c.want) || ended != c.waits {
			t.Errorf("%s: %v, waited to the end: %v", c.url, err, ended)
		}
	}

	client, err := Connect(testkit.Valkey(t))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := Await(t.Context(), client); err != nil {
		t.Errorf("one that is there: %v", err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Await(over, client); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody waits any more: %v", err)
	}
}
