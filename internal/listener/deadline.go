package listener

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// deadlineGrain is how late a deadline may strike. A deadline that is nearer than twice that is set on the connection
// itself.
const deadlineGrain = 250 * time.Millisecond

// timeouts are how long a client may take. Zero is for ever.
type timeouts struct {
	read  time.Duration // for a request, from its first bytes, or for the first one from the connection's start
	idle  time.Duration // until the next request
	write time.Duration // to take an answer
}

// A timedListener limits the time that clients may take. fasthttp does so by moving three deadlines for every request,
// each by the clock's time and the runtime's timers, though nearly none of them ever strikes. Here moving one is a store,
// the time is a few ticks old, and whoever has overstayed is looked for four times a second.
type timedListener struct {
	net.Listener
	timeouts
	start time.Time
	now   atomic.Int64 // time since start, as of the last look

	closing atomic.Bool // see stopAccepting
	taken   bool        // takeQueue was called
	queue   []net.Conn  // what it found and Accept has not returned yet
	last    atomic.Bool // Accept has returned all that there is
	places  places

	mu      sync.Mutex
	open    map[*timedConn]struct{}
	looking bool // there is a goroutine that looks for overdue connections: as long as there are any
}

func newTimedListener(ln net.Listener, t timeouts, p places) *timedListener {
	return &timedListener{Listener: ln, timeouts: t, places: p, start: time.Now(), open: make(map[*timedConn]struct{})}
}

// Accept waits for the next connection.
func (l *timedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.next()
		if err != nil {
			return nil, err
		}
		c := &timedConn{Conn: conn, l: l, peer: Addr(conn.RemoteAddr())}
		c.read.own, c.write.own = conn.SetReadDeadline, conn.SetWriteDeadline
		if !l.add(c) {
			l.places.refuse(conn)
			continue
		}
		if c.read.limit(l, l.read) == nil {
			return c, nil
		}
		_ = c.Close() // its client has gone already, which is no error of the listener's
	}
}

// next is the next connection, or io.EOF when the listener was to close and has.
func (l *timedListener) next() (net.Conn, error) {
	if !l.taken {
		conn, err := l.Listener.Accept()
		if err == nil || !l.closing.Load() {
			return conn, err
		}
		l.taken, l.queue = true, takeQueue(l.Listener)
		_ = l.Listener.Close()
	}
	if len(l.queue) == 0 {
		l.last.Store(true)
		return nil, io.EOF
	}
	conn := l.queue[0]
	l.queue = l.queue[1:]
	return conn, nil
}

// acceptGrain is how long a listener that closes takes what waits to be accepted. Closing it at once would reset that.
const acceptGrain = 50 * time.Millisecond

// stopAccepting has Accept take what waits, close the listener, and be io.EOF.
func (l *timedListener) stopAccepting() {
	l.closing.Store(true)
	limited, ok := l.Listener.(interface{ SetDeadline(time.Time) error })
	if !ok || limited.SetDeadline(time.Now().Add(acceptGrain)) != nil {
		_ = l.Listener.Close()
	}
}

// awaitEmpty waits until none will be accepted any more and no connection is left, or ctx is done.
func (l *timedListener) awaitEmpty(ctx context.Context) {
	t := time.NewTicker(acceptGrain / 5)
	defer t.Stop()
	for {
		last := l.last.Load() // what was accepted before is among those that are open, or was
		l.mu.Lock()
		n := len(l.open)
		l.mu.Unlock()
		if n == 0 && last {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// add has a connection looked after, unless there is no place for it.
func (l *timedListener) add(c *timedConn) bool {
	c.trusted = l.places.trusts(c.peer)
	c.wait(l)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.open) >= l.places.of(c) && !l.giveWay(c.trusted) {
		return false
	}
	l.open[c] = struct{}{}
	if !l.looking {
		l.looking = true
		l.now.Store(int64(time.Since(l.start)))
		go l.look()
	}
	return true
}

func (l *timedListener) look() {
	t := time.NewTicker(deadlineGrain)
	defer t.Stop()
	for range t.C {
		if !l.strike() {
			return
		}
	}
}

// strike ends what is overdue. It reports false when there is no connection left.
func (l *timedListener) strike() bool {
	now := int64(time.Since(l.start))
	l.now.Store(now)
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.open {
		c.read.strike(now)
		c.write.strike(now)
	}
	l.looking = len(l.open) > 0
	return l.looking
}

// A timedConn is a connection of a timedListener. It is read from and written to by one goroutine at a time.
type timedConn struct {
	net.Conn
	l           *timedListener
	peer        netip.Addr // the zero Addr when it is no IP address
	phase       phase
	own         bool // the handler has set how long the answer may take
	linger      bool // the last answer was given before its request was read
	trusted     bool
	waiting     atomic.Int64 // time since the listener's start at which a wait for a request began; 0 while there is one
	read, write deadline
}

// A phase is what a connection is doing.
type phase uint8

const (
	receiving phase = iota // a request
	answering
	awaiting // the next request
	begun    // to receive it; the time for that is not limited as long as nobody waits for more
)

// continues is the one answer that no request ends with.
const continues = "HTTP/1.1 100 Continue\r\n\r\n"

// Read implements net.Conn.
func (c *timedConn) Read(p []byte) (int, error) {
	switch c.phase {
	case answering:
		c.phase = awaiting
		c.wait(c.l)
		if err := c.read.limit(c.l, c.l.idle); err != nil {
			return 0, err
		}
	case begun:
		c.phase = receiving
		if err := c.read.limit(c.l, c.l.timeouts.read); err != nil {
			return 0, err
		}
	}
	n, err := c.Conn.Read(p)
	if n > 0 && c.waiting.Load() != 0 {
		c.waiting.Store(0)
	}
	if n > 0 && c.phase == awaiting {
		c.phase = begun
	}
	return n, err
}

// Write implements net.Conn.
func (c *timedConn) Write(p []byte) (int, error) {
	if c.phase != answering {
		if string(p) != continues {
			c.phase = answering
		}
		if !c.own {
			if err := c.write.limit(c.l, c.l.timeouts.write); err != nil {
				return 0, err
			}
		}
	}
	return c.Conn.Write(p)
}

// Close closes the connection. One whose client may still be sending is first closed for writing, and what comes is taken
// off it: a connection that is closed with something unread in it is reset, and its client would lose the answer.
func (c *timedConn) Close() error {
	c.l.mu.Lock()
	delete(c.l.open, c)
	c.l.mu.Unlock()
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok && c.linger && half.CloseWrite() == nil {
		end := time.Now().Add(DefaultUploadTimeout)
		_, _ = io.CopyN(io.Discard, lingerer{c.Conn, end}, MaxUnread) // whatever ends it, the answer was given
	}
	return c.Conn.Close()
}

// MaxUnread is how many bytes that no handler has read are taken off a connection, so that its client gets the answer.
const MaxUnread = 100 << 20

// lingerTime is how long a client that has its answer may send nothing before its connection is cut.
const lingerTime = 5 * time.Second

// A lingerer is a connection that ends when nothing comes, and at the end.
type lingerer struct {
	conn net.Conn
	end  time.Time
}

// Read implements io.Reader.
func (l lingerer) Read(p []byte) (int, error) {
	deadline := time.Now().Add(lingerTime)
	if l.end.Before(deadline) {
		deadline = l.end
	}
	if err := l.conn.SetReadDeadline(deadline); err != nil {
		return 0, err
	}
	return l.conn.Read(p)
}

// SetReadDeadline implements net.Conn. It holds until the next request is waited for.
func (c *timedConn) SetReadDeadline(t time.Time) error {
	if c.phase == begun {
		c.phase = receiving
	}
	return c.read.set(c.l, t)
}

// SetWriteDeadline implements net.Conn. It holds until it is lifted, which fasthttp does when an answer is sent whose
// handler set it.
func (c *timedConn) SetWriteDeadline(t time.Time) error {
	c.own = !t.IsZero()
	return c.write.set(c.l, t)
}

// SetDeadline implements net.Conn.
func (c *timedConn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// A deadline is one of the two of a connection: the time since the listener's start, 0 for none, or onConn.
type deadline struct {
	at  atomic.Int64
	mu  sync.Mutex // held while the connection's own is changed
	own func(time.Time) error
}

// onConn says that the connection's own deadline is set.
const onConn = -1

// limit sets a deadline to the time after which the client has had so long.
func (d *deadline) limit(l *timedListener, timeout time.Duration) error {
	switch {
	case timeout <= 0:
		return d.move(0)
	case timeout < 2*deadlineGrain:
		return d.set(l, time.Now().Add(timeout))
	}
	return d.move(l.now.Load() + int64(timeout+deadlineGrain)) // the last look may be that long ago
}

func (d *deadline) set(l *timedListener, t time.Time) error {
	if t.IsZero() {
		return d.move(0)
	}
	at := int64(t.Sub(l.start))
	if at >= l.now.Load()+2*int64(deadlineGrain) {
		return d.move(at)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at.Store(onConn)
	return d.own(t)
}

// move sets a deadline that is not near, or none. Until the next look at the time it most often is where it was already.
func (d *deadline) move(at int64) error {
	if d.at.Load() == at || d.at.Swap(at) != onConn {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.own(time.Time{})
}

// strike lets the deadline strike on the connection if it is over and was not moved meanwhile.
func (d *deadline) strike(now int64) {
	at := d.at.Load()
	if at <= 0 || at > now {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.at.CompareAndSwap(at, onConn) {
		_ = d.own(time.Unix(1, 0)) // fails on a closed connection, which is over anyway
	}
}
