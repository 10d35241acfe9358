package envoy

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// deadlineGrain is how late a deadline may strike, and twice that is how near one is set on the connection itself.
const deadlineGrain = 250 * time.Millisecond

// CoarseDeadlines returns a listener whose connections keep their own deadlines. fasthttp moves three for every request,
// each of which the runtime's timers have to take in, though nearly none of them ever strikes; here moving one is a
// store, and whoever has overstayed is looked for four times a second. Deadlines that are near are as exact as ever.
func CoarseDeadlines(ln net.Listener) net.Listener {
	l := &coarseListener{Listener: ln, start: time.Now(), open: make(map[*coarseConn]struct{})}
	return l
}

type coarseListener struct {
	net.Listener
	start time.Time
	now   atomic.Int64 // time since start, as of the last look

	mu      sync.Mutex
	open    map[*coarseConn]struct{}
	looking bool // there is a goroutine that looks for overdue connections: as long as there are any
}

// Accept waits for the next connection.
func (l *coarseListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &coarseConn{Conn: conn, l: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[c] = struct{}{}
	if !l.looking {
		l.looking = true
		l.now.Store(int64(time.Since(l.start)))
		go l.look()
	}
	return c, nil
}

func (l *coarseListener) look() {
	t := time.NewTicker(deadlineGrain)
	defer t.Stop()
	for range t.C {
		if !l.strike() {
			return
		}
	}
}

// strike ends what is overdue. It reports false when there is no connection left.
func (l *coarseListener) strike() bool {
	now := int64(time.Since(l.start))
	l.now.Store(now)
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.open {
		c.read.strike(now, c.Conn.SetReadDeadline)
		c.write.strike(now, c.Conn.SetWriteDeadline)
	}
	l.looking = len(l.open) > 0
	return l.looking
}

type coarseConn struct {
	net.Conn
	l           *coarseListener
	read, write deadline
}

// Close closes the connection.
func (c *coarseConn) Close() error {
	c.l.mu.Lock()
	delete(c.l.open, c)
	c.l.mu.Unlock()
	return c.Conn.Close()
}

// SetReadDeadline implements net.Conn.
func (c *coarseConn) SetReadDeadline(t time.Time) error {
	return c.read.set(c.l, t, c.Conn.SetReadDeadline)
}

// SetWriteDeadline implements net.Conn.
func (c *coarseConn) SetWriteDeadline(t time.Time) error {
	return c.write.set(c.l, t, c.Conn.SetWriteDeadline)
}

// SetDeadline implements net.Conn.
func (c *coarseConn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// A deadline is one of the two of a connection: the time since the listener's start, 0 for none, or onConn.
type deadline struct {
	at atomic.Int64
	mu sync.Mutex // held while the connection's own is changed
}

// onConn says that the connection's own deadline is set.
const onConn = -1

func (d *deadline) set(l *coarseListener, t time.Time, own func(time.Time) error) error {
	at := int64(0)
	if !t.IsZero() {
		at = int64(t.Sub(l.start))
		if at < l.now.Load()+2*int64(deadlineGrain) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.at.Store(onConn)
			return own(t)
		}
	}
	if d.at.Swap(at) != onConn {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return own(time.Time{})
}

// strike lets the deadline strike on the connection if it is over and was not moved meanwhile.
func (d *deadline) strike(now int64, own func(time.Time) error) {
	at := d.at.Load()
	if at <= 0 || at > now {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.at.CompareAndSwap(at, onConn) {
		_ = own(time.Unix(1, 0)) // fails on a closed connection, which is over anyway
	}
}
