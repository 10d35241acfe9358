package listener

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"barong/internal/fault"
)

// places are how many connections a listener takes. An eighth of them is for peers that are trusted, the gateways: strangers
// who open connections do not keep them out. Where all are taken, those that have waited longest for a request give way.
type places struct {
	limit    int
	trusted  func(netip.Addr) bool // nil trusts nobody
	refusals *atomic.Int64         // that are being told
}

// maxRefusals bounds those who are told at the same time that there is no place; others are cut off.
const maxRefusals = 256

func (p places) trusts(peer netip.Addr) bool { return p.trusted != nil && p.trusted(peer) }

// of is how many connections there may be for this one to come in.
func (p places) of(c *timedConn) int {
	if c.trusted || p.trusted == nil {
		return p.limit
	}
	return p.limit - p.limit/8
}

// wait notes that a request is waited for.
func (c *timedConn) wait(l *timedListener) { c.waiting.Store(max(l.now.Load(), 1)) }

// giveWay closes the connection that has waited longest for a request, a stranger's before a gateway's, and a gateway's for
// another one alone. It reports false when there is none. The lock is held.
func (l *timedListener) giveWay(trusted bool) bool {
	var longest *timedConn
	var since int64
	for c := range l.open {
		at := c.waiting.Load()
		if at == 0 || c.trusted && !trusted {
			continue
		}
		if longest == nil || longest.trusted && !c.trusted || longest.trusted == c.trusted && at < since {
			longest, since = c, at
		}
	}
	if longest == nil {
		return false
	}
	delete(l.open, longest)
	_ = longest.Conn.Close()
	return true
}

// noPlace is the answer to a connection that there is no place for, whichever dialect it would have spoken.
var noPlace = func() []byte {
	const body = `{"errors":["` + string(fault.Unavailable) + `"]}`
	return fmt.Appendf(nil, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n"+
		"X-Auth-Status: 503\r\nX-Auth-Code: %s\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", fault.Unavailable, len(body), body)
}()

// refuse tells a client that there is no place for it, and closes the connection.
func (p places) refuse(conn net.Conn) {
	if p.refusals.Add(1) > maxRefusals {
		p.refusals.Add(-1)
		_ = conn.Close()
		return
	}
	go func() {
		defer p.refusals.Add(-1)
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(time.Second))
		if _, err := conn.Write(noPlace); err != nil {
			return
		}
		// What was sent has to be read, or the system cuts the connection before the answer has arrived.
		if half, ok := conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
			_, _ = io.CopyN(io.Discard, conn, DefaultMaxHeader)
		}
	}()
}
