package testkit

import (
	"bytes"
	"net"
	"sync"
	"testing"
	"time"
)

// A Relay stands between clients and a server, and loses answers on demand: what was asked has been done, and whoever
// asked does not know.
type Relay struct {
	Addr   string // where clients connect
	source net.IP
	target string

	mu        sync.Mutex
	word      []byte
	left      int
	lost      int
	swallowed []byte
	delay     time.Duration
	refusing  bool
	conns     map[net.Conn]bool
}

// NewRelay starts a relay to a server's address, host:port. It ends with the test.
func NewRelay(t testing.TB, target string) *Relay {
	t.Helper()
	return NewRelayFrom(t, "127.0.0.1", target)
}

// NewRelayFrom starts a relay that the server sees come from another address of this machine, such as 127.0.0.2.
func NewRelayFrom(t testing.TB, source, target string) *Relay {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &Relay{Addr: listener.Addr().String(), source: net.ParseIP(source), target: target, conns: map[net.Conn]bool{}}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			group.Go(func() { r.serve(client) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		r.mu.Lock()
		for c := range r.conns {
			c.Close()
		}
		r.conns = nil
		r.mu.Unlock()
		group.Wait()
	})
	return r
}

// LoseAnswers makes the relay swallow the answers to the next n requests in which the word stands, and cut the
// connection instead. A request is what a client writes at once.
func (r *Relay) LoseAnswers(n int, word string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.word, r.left = []byte(word), n
}

// Swallow makes the relay keep from the server what clients write with the word in it, and all that comes after it on the
// same connection, which stays open and silent. An empty word ends that for what is written from then on.
func (r *Relay) Swallow(word string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.swallowed = []byte(word)
}

func (r *Relay) swallows(request []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.swallowed) > 0 && bytes.Contains(request, r.swallowed)
}

// Delay makes each answer arrive so much later.
func (r *Relay) Delay(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.delay = d
}

// Cut breaks every connection that stands. Clients may connect again at once.
func (r *Relay) Cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		c.Close()
	}
}

// Refuse breaks every connection, and those to come as well until it is called with false.
func (r *Relay) Refuse(refuse bool) {
	r.mu.Lock()
	r.refusing = refuse
	r.mu.Unlock()
	if refuse {
		r.Cut()
	}
}

// Lost tells how many answers were lost so far.
func (r *Relay) Lost() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lost
}

// keep remembers a connection for the end of the test, unless that has come.
func (r *Relay) keep(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conns == nil || r.refusing {
		return false
	}
	r.conns[c] = true
	return true
}

func (r *Relay) drop(c net.Conn) {
	r.mu.Lock()
	delete(r.conns, c)
	r.mu.Unlock()
	c.Close()
}

func (r *Relay) serve(client net.Conn) {
	defer r.drop(client)
	server, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: r.source}}).Dial("tcp", r.target)
	if err != nil {
		return
	}
	defer r.drop(server)
	if !r.keep(client) || !r.keep(server) {
		return
	}
	condemned := make(chan struct{}) // closed before the request whose answer is to be lost is handed on
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() {
		defer server.Close()
		buffer := make([]byte, 64<<10)
		for doomed, silent := false, false; ; {
			n, err := client.Read(buffer)
			if err != nil {
				return
			}
			if silent = silent || r.swallows(buffer[:n]); silent {
				continue
			}
			if !doomed && r.loses(buffer[:n]) {
				doomed = true
				close(condemned)
			}
			if _, err := server.Write(buffer[:n]); err != nil {
				return
			}
		}
	})
	defer client.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := server.Read(buffer)
		if err != nil {
			return
		}
		select {
		case <-condemned:
			r.mu.Lock()
			r.lost++
			r.mu.Unlock()
			return
		default:
		}
		r.mu.Lock()
		delay := r.delay
		r.mu.Unlock()
		time.Sleep(delay)
		if _, err := client.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func (r *Relay) loses(request []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.left == 0 || !bytes.Contains(request, r.word) {
		return false
	}
	r.left--
	return true
}
