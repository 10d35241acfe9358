package bus

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// A Transport carries messages between replicas. The packages below this one implement it.
type Transport interface {
	// Send gives a message to every replica that listens, this one included. It is called from one goroutine.
	Send(ctx context.Context, m Message) error
	// Listen calls l until ctx ends or the connection breaks, and returns why. It is called from one goroutine, again
	// after each return.
	Listen(ctx context.Context, l Listener) error
	// MaxBytes is how long a message may be as JSON; 0 is without limit.
	MaxBytes() int
	// Polls reports that Listen asks rather than waits: it proves with Listener.Alive that it hears, so that nobody
	// needs to send heartbeats.
	Polls() bool
	// Close gives back what the transport holds, after the last call of the others.
	Close() error
}

// A Listener is told what a transport hears.
type Listener interface {
	// Up says, once in each Listen, that whatever is sent from now on will be heard, or Listen will return.
	Up()
	// Hear takes a message, of other replicas or of this one, in the order in which its origin sent them.
	Hear(m Message)
	// Alive says that everything sent before that time has been heard.
	Alive(before time.Time)
	// Gap says that something may have been missed.
	Gap(why string)
}

// A Message is what one replica tells all. Without notices it is a heartbeat.
type Message struct {
	Origin  string   `json:"o"`           // who sent it: a random word for each Shared
	Number  uint64   `json:"n"`           // counts the origin's messages from 1; a jump is a lost message
	At      int64    `json:"t"`           // when it was sent, nanoseconds since the origin's start
	Leaving bool     `json:"l,omitempty"` // the origin's last message
	Notices []Notice `json:"x,omitempty"`
}

// Options of a Shared. The zero Options are the usual ones.
type Options struct {
	Heartbeat time.Duration // how often each replica is heard of; default one second
	// SourceAnswers reports whether the database that memory is filled from has answered lately. Where it is gone while the
	// transport lives, who is known would otherwise pass for as long as it stays away. It must take no lock and must not
	// allocate; nil is for transports that are that database.
	SourceAnswers func(now time.Time) bool
	Log           *slog.Logger // gaps and broken connections; nil logs nothing
}

const (
	// missed is how many heartbeats are missed before the connection, or a message of another replica, counts as lost.
	missed = 3
	// connectBeats is how many heartbeats, and connectTime how long at least, a connection has to be up: one that is
	// accepted and then silent is given up, so that the next one may be heard.
	connectBeats = 2
	connectTime  = time.Second
	// forget is how long a lost replica may come back. Until then it may be alive, cut off from the bus and changing the
	// database with a token that it has issued or accepted; so memory is trusted for the cache TTL only. It is twice the
	// life of a token.
	forget = 10 * time.Minute
	// sendTimeout bounds one Send.
	sendTimeout = time.Second
	// backoff bounds, with some randomness, the pauses between attempts to connect.
	minBackoff, maxBackoff = 20 * time.Millisecond, time.Second
)

var errClosed = errors.New("bus: closed")

// A Shared is a bus between replicas over a Transport.
//
// Every replica numbers its messages and sends at least a heartbeat in each interval, which comes back to itself as
// well. So a replica knows until when it has heard everything: from its own heartbeats, that its connection works, and
// from the others', that theirs do. A missing number and a broken connection are gaps: the handlers are told to forget
// Everything, and what was loaded before is not trusted any more. A replica that falls silent is none: memory is then
// trusted for the TTL, until it is heard again without a number missing, or given up.
type Shared struct {
	handlers  handlers
	transport Transport
	origin    string
	beat      time.Duration
	source    func(now time.Time) bool // nil always answers
	log       *slog.Logger

	// Times are kept as nanoseconds since start, so that a step of the wall clock moves none of them.
	start time.Time
	since atomic.Int64 // no gap is known since then
	proof atomic.Int64 // everything sent before then has been heard

	mu     sync.Mutex
	up     bool
	began  time.Time         // the present Listen
	echo   time.Time         // of the last Up or own message that came back: when it was sent
	heard  time.Time         // last own message that came back
	fault  error             // why the connection broke last, or a message could not be sent
	told   map[string]string // what the log was told since something was heard: of each kind of fault the last
	peers  map[string]*peer
	cut    context.CancelCauseFunc // ends the present Listen
	queue  []*parcel
	closed bool

	wake  chan struct{} // there is something in queue
	first chan struct{} // closed at the first Up
	stop  chan struct{} // closed by Close
	group sync.WaitGroup
}

// A peer is another replica as this one hears it.
type peer struct {
	number uint64    // of its last message
	heard  time.Time // when that was
	silent bool      // for so long that the log tells it
}

// A parcel is the notices of one Publish on their way out.
type parcel struct {
	notices []Notice
	sent    chan error // takes one answer without waiting
}

var _ Bus = (*Shared)(nil)

// Join connects to the other replicas and returns once nothing they say will be missed any more, or with an error when
// ctx ends before that. The bus closes the transport.
func Join(ctx context.Context, t Transport, o Options) (*Shared, error) {
	var word [8]byte
	rand.Read(word[:])
	s := &Shared{
		transport: t, origin: hex.EncodeToString(word[:]), beat: o.Heartbeat, source: o.SourceAnswers, log: o.Log, peers: map[string]*peer{},
		told:  map[string]string{},
		start: time.Now(),
		wake:  make(chan struct{}, 1), first: make(chan struct{}), stop: make(chan struct{}),
	}
	if s.beat <= 0 {
		s.beat = time.Second
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.since.Store(math.MaxInt64)
	listening, end := context.WithCancel(context.Background())
	sent := make(chan struct{})
	s.group.Go(func() { s.listen(listening) })
	s.group.Go(func() { s.watch() })
	s.group.Go(func() { defer close(sent); s.send() })
	s.group.Go(func() { <-s.stop; <-sent; end() }) // the last message leaves before the connection ends
	select {
	case <-s.first:
		return s, nil
	case <-ctx.Done():
		s.mu.Lock()
		fault := s.fault
		s.mu.Unlock()
		s.Close()
		return nil, fmt.Errorf("bus: connect: %w", errors.Join(ctx.Err(), fault))
	}
}

// Publish implements Bus. Notices that are too long for the transport go out in several messages. Within a handler it
// returns before the handlers have seen the notices; they do before the Publish that called the handler returns.
func (s *Shared) Publish(ctx context.Context, notices ...Notice) error {
	if len(notices) == 0 {
		return nil
	}
	p := &parcel{notices: notices, sent: make(chan error, 1)}
	s.mu.Lock()
	closed := s.closed
	if !closed {
		s.queue = append(s.queue, p)
	}
	s.mu.Unlock()
	if !closed {
		select {
		case s.wake <- struct{}{}:
		default: // the sender has yet to look
		}
	}
	s.handlers.deliver(notices) // while they are on their way: what handlers set going would hold them up
	if closed {
		return errClosed
	}
	select {
	case err := <-p.sent:
		if err != nil {
			return fmt.Errorf("bus: the other replicas may not have heard: %w", err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("bus: the other replicas may not have heard: %w", ctx.Err())
	}
}

// Subscribe implements Bus.
func (s *Shared) Subscribe(h Handler) { s.handlers.add(h) }

// Fresh implements Bus. It takes no lock and allocates nothing.
func (s *Shared) Fresh(loaded, now time.Time, ttl time.Duration) bool {
	limit := int64(now.Sub(s.start) - ttl)
	at := int64(loaded.Sub(s.start))
	return at >= limit || at >= s.since.Load() && s.proof.Load() >= limit && (s.source == nil || s.source(now))
}

// at is a time as since and proof keep it.
func (s *Shared) at(t time.Time) int64 { return int64(t.Sub(s.start)) }

// Healthy implements Bus.
func (s *Shared) Healthy(now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch silent := now.Sub(s.heard); {
	case s.closed:
		return errClosed
	case s.up && silent <= missed*s.beat:
		return nil
	case s.fault != nil:
		return fmt.Errorf("bus: not heard for %s: %w", silent.Round(time.Millisecond), s.fault)
	default:
		return fmt.Errorf("bus: not heard for %s", silent.Round(time.Millisecond))
	}
}

// Close implements Bus. The other replicas are told, so that they do not miss this one.
func (s *Shared) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	close(s.stop)
	s.group.Wait()
	return s.transport.Close()
}

// send is the one goroutine that sends, so that numbers arrive in order. What is published while a message is on its way
// leaves together in the next.
func (s *Shared) send() {
	ticker := time.NewTicker(s.beat)
	defer ticker.Stop()
	var number uint64
	var leaving bool
	for !leaving {
		beat := false
		select {
		case <-s.wake:
		case <-ticker.C:
			beat = !s.transport.Polls()
		case <-s.stop:
			leaving = true
		}
		s.mu.Lock()
		parcels := s.queue
		s.queue = nil
		s.mu.Unlock()
		var notices []Notice
		for _, p := range parcels {
			notices = append(notices, p.notices...)
		}
		batches := split(notices, s.transport.MaxBytes())
		if len(batches) == 0 && (beat || leaving && !s.transport.Polls()) {
			batches = [][]Notice{nil}
		}
		var failed error
		for i, batch := range batches {
			// The number is used up whether or not the message arrives: the others see the jump.
			number++
			m := Message{
				Origin: s.origin, Number: number, At: s.at(time.Now()), Notices: batch,
				Leaving: leaving && i == len(batches)-1,
			}
			ctx, cancel := context.WithTimeout(context.Background(), sendTimeout)
			err := s.transport.Send(ctx, m)
			cancel()
			if err != nil {
				failed = err
			}
		}
		if failed != nil {
			s.note("a message could not be sent", failed)
		}
		for _, p := range parcels {
			p.sent <- failed
		}
	}
}

// split cuts notices into batches whose messages are at most limit bytes of JSON.
func split(notices []Notice, limit int) [][]Notice {
	if len(notices) == 0 {
		return nil
	}
	if limit <= 0 {
		return [][]Notice{notices}
	}
	const envelope = 160 // of a message without notices
	var out [][]Notice
	size, start := envelope, 0
	notices = append([]Notice(nil), notices...)
	for i, n := range notices {
		length := encodedLen(n)
		if envelope+length > limit {
			notices[i] = Notice{Kind: Everything} // includes it, and is short
			length = encodedLen(notices[i])
		}
		if size+length > limit {
			out = append(out, notices[start:i])
			size, start = envelope, i
		}
		size += length
	}
	return append(out, notices[start:])
}

// encodedLen is the length of a notice in a message, with its comma.
func encodedLen(n Notice) int {
	text, err := json.Marshal(n)
	if err != nil {
		return math.MaxInt32 // strings always encode
	}
	return len(text) + 1
}

// listen is the one goroutine that listens, and connects again when the connection breaks.
func (s *Shared) listen(ctx context.Context) {
	pause := minBackoff
	for ctx.Err() == nil {
		current, cut := context.WithCancelCause(ctx)
		began := time.Now()
		s.mu.Lock()
		s.cut, s.began = cut, began
		s.mu.Unlock()
		err := s.transport.Listen(current, ear{s})
		if cause := context.Cause(current); cause != nil {
			err = cause
		}
		cut(nil)
		s.mu.Lock()
		wasUp := s.up
		s.up = false
		s.mu.Unlock()
		if ctx.Err() != nil {
			return
		}
		if wasUp {
			s.note("the connection broke", err)
		} else {
			s.note("no connection", err)
		}
		if time.Since(began) > maxBackoff {
			pause = minBackoff
		}
		select {
		case <-time.After(pause/2 + mathrand.N(pause)):
		case <-ctx.Done():
		}
		pause = min(2*pause, maxBackoff)
	}
}

// note keeps a fault for Healthy and logs it when it is news.
func (s *Shared) note(what string, err error) {
	s.mu.Lock()
	text := fmt.Sprint(err)
	news := s.told[what] != text
	s.fault, s.told[what] = err, text
	s.mu.Unlock()
	if news {
		s.log.Warn("bus: "+what, "error", err)
	}
}

// watch is the goroutine that notices silence.
func (s *Shared) watch() {
	ticker := time.NewTicker(max(s.beat/2, time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-ticker.C:
		}
		now := time.Now()
		why := ""
		var silent []string
		s.mu.Lock()
		switch {
		case s.up && now.Sub(s.echo) > missed*s.beat:
			// The connection is open, but nothing comes through.
			s.cut(fmt.Errorf("no heartbeat for %s", now.Sub(s.echo).Round(time.Millisecond)))
		case s.up:
			for origin, p := range s.peers {
				switch quiet := now.Sub(p.heard); {
				case quiet > forget:
					delete(s.peers, origin)
					why = "replica " + origin + " is gone"
				case quiet > missed*s.beat && !p.silent:
					p.silent = true
					silent = append(silent, origin)
				}
			}
			s.prove()
		case s.cut != nil && now.Sub(s.began) > max(connectBeats*s.beat, connectTime):
			s.cut(fmt.Errorf("no answer for %s", now.Sub(s.began).Round(time.Millisecond)))
		}
		s.mu.Unlock()
		for _, origin := range silent {
			s.log.Info("bus: a replica is silent; what is remembered counts for the cache's lifetime alone", "replica", origin)
		}
		if why != "" {
			s.gap(why)
		}
	}
}

// prove works out until when everything was heard. Called with mu held.
func (s *Shared) prove() {
	proof := s.echo
	for _, p := range s.peers {
		if p.heard.Before(proof) {
			proof = p.heard
		}
	}
	s.proof.Store(s.at(proof))
}

// gap makes this process forget everything. Trust begins anew before the handlers run: what they read again counts.
func (s *Shared) gap(why string) {
	s.since.Store(s.at(time.Now()))
	s.log.Info("bus: forgetting everything", "reason", why)
	s.handlers.deliver([]Notice{{Kind: Everything}})
}

// ear is the Listener of a Shared.
type ear struct{ s *Shared }

// Up begins anew: what was said before is not known.
func (e ear) Up() {
	s, now := e.s, time.Now()
	s.mu.Lock()
	s.up, s.echo = true, now
	for _, p := range s.peers {
		p.heard = now // their numbers tell what was missed; those that are gone are missed from now
	}
	s.prove()
	first := s.heard.IsZero()
	if first {
		s.heard = now
	}
	s.mu.Unlock()
	if !first {
		s.gap("connected again")
		return
	}
	s.since.Store(s.at(now))
	close(s.first)
}

// Hear keeps account of the origin and hands the notices on. One's own are known already.
func (e ear) Hear(m Message) {
	s, now := e.s, time.Now()
	if m.Origin == s.origin {
		e.Alive(s.start.Add(time.Duration(m.At)))
		return
	}
	why := ""
	s.mu.Lock()
	if m.Number > 0 { // not numbered: a transport that finds gaps by itself
		p := s.peers[m.Origin]
		if p == nil {
			p = &peer{}
			s.peers[m.Origin] = p
		}
		if m.Number > p.number+1 {
			why = "a message of replica " + m.Origin + " is missing"
		}
		// A message may come twice, when its sender did not see that it had gone out.
		p.number, p.heard, p.silent = max(p.number, m.Number), now, false
		if m.Leaving {
			delete(s.peers, m.Origin)
		}
		s.prove()
	}
	s.mu.Unlock()
	if why != "" {
		s.gap(why) // includes the notices
		return
	}
	s.handlers.deliver(m.Notices)
}

// Alive moves the proof forward.
func (e ear) Alive(before time.Time) {
	s := e.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if before.After(s.echo) {
		s.echo = before
	}
	s.heard, s.fault = time.Now(), nil
	clear(s.told)
	s.prove()
}

// Gap is a gap that the transport has found.
func (e ear) Gap(why string) { e.s.gap(why) }
