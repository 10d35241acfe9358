// Package amqptest is a message broker for tests: so much of AMQP 0-9-1 as a publisher of events says, on a port of this
// machine, with the failures that a test asks for. It has exchanges, and keeps what is published to them; it has no queues.
//
// Only tests import it. Brokers end with their test.
package amqptest

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
)

// An Exchange is how one was declared.
type Exchange struct {
	Type    string
	Durable bool
}

// A Message is what was published.
type Message struct {
	Exchange, Key string
	ContentType   string
	DeliveryMode  int // 0: not given
	Priority      int // 0: not given, too
	Body          []byte
}

// A Verdict is what the broker does with a message that it has kept.
type Verdict int

// The verdicts.
const (
	Ack       Verdict = iota // confirms it
	Nack                     // says that it could not take it
	Hangup                   // cuts the connection off
	Silence                  // says nothing
	TooLarge                 // closes the channel, as for a message that is too large
	Forgotten                // closes the channel, as for an exchange that is gone
)

// A Broker is a running broker. Its fields are set before it is started.
type Broker struct {
	User, Password string      // that it lets in; default guest, guest
	TLS            *tls.Config // with a certificate: the broker speaks TLS
	// Judge decides about each message. Default: Ack.
	Judge func(m Message) Verdict
	// Refuse, if it returns an AMQP code, refuses to declare an exchange with it.
	Refuse func(exchange string) (code int, text string)

	ln net.Listener
	wg sync.WaitGroup

	mu          sync.Mutex
	exchanges   map[string]Exchange
	messages    []Message
	connections int
	orderly     int // connections that were closed in order
	faults      []string
	open        []net.Conn
}

// Start listens on addr, or on any port of the loopback when addr is empty. What a client does against the protocol fails
// the test.
func (b *Broker) Start(t testing.TB, addr string) {
	t.Helper()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if b.TLS != nil {
		ln = tls.NewListener(ln, b.TLS)
	}
	b.ln = ln
	if b.exchanges == nil {
		b.exchanges = map[string]Exchange{}
	}
	b.wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			b.mu.Lock()
			b.connections++
			b.open = append(b.open, conn)
			b.mu.Unlock()
			b.wg.Go(func() { b.serve(conn) })
		}
	})
	t.Cleanup(func() {
		b.Stop()
		for _, fault := range b.faults {
			t.Error("message broker: " + fault)
		}
	})
}

// Stop cuts every connection off and listens no more.
func (b *Broker) Stop() {
	b.ln.Close()
	b.mu.Lock()
	for _, conn := range b.open {
		conn.Close()
	}
	b.open = nil
	b.mu.Unlock()
	b.wg.Wait()
}

// Addr is host and port.
func (b *Broker) Addr() string { return b.ln.Addr().String() }

// URL is where the broker is, for the user guest.
func (b *Broker) URL() string { return "amqp://guest:guest@" + b.Addr() + "/" }

// Messages are those that were published so far, whatever became of them, in order.
func (b *Broker) Messages() []Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.messages)
}

// Keys are the routing keys of Messages.
func (b *Broker) Keys() []string {
	messages := b.Messages()
	out := make([]string, len(messages))
	for i, m := range messages {
		out[i] = m.Key
	}
	return out
}

// Exchanges are those that are declared, by their names.
func (b *Broker) Exchanges() map[string]Exchange {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make(map[string]Exchange, len(b.exchanges))
	for name, e := range b.exchanges {
		out[name] = e
	}
	return out
}

// Declare has an exchange declared by somebody else, or with nil takes it away.
func (b *Broker) Declare(name string, e *Exchange) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.exchanges == nil {
		b.exchanges = map[string]Exchange{}
	}
	delete(b.exchanges, name)
	if e != nil {
		b.exchanges[name] = *e
	}
}

// Connections are how many connections were made, and how many of them were closed in order.
func (b *Broker) Connections() (made, orderly int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.connections, b.orderly
}

// The methods, by class and number (AMQP 0-9-1, section 1.2 of the XML).
const (
	connectionStart   = 10<<16 | 10
	connectionStartOk = 10<<16 | 11
	connectionTune    = 10<<16 | 30
	connectionTuneOk  = 10<<16 | 31
	connectionOpen    = 10<<16 | 40
	connectionOpenOk  = 10<<16 | 41
	connectionClose   = 10<<16 | 50
	connectionCloseOk = 10<<16 | 51
	channelOpen       = 20<<16 | 10
	channelOpenOk     = 20<<16 | 11
	channelClose      = 20<<16 | 40
	channelCloseOk    = 20<<16 | 41
	exchangeDeclare   = 40<<16 | 10
	exchangeDeclareOk = 40<<16 | 11
	basicPublish      = 60<<16 | 40
	basicAck          = 60<<16 | 80
	basicNack         = 60<<16 | 120
	confirmSelect     = 85<<16 | 10
	confirmSelectOk   = 85<<16 | 11
)

// The types of frames.
const (
	methodFrame    = 1
	headerFrame    = 2
	bodyFrame      = 3
	heartbeatFrame = 8
	frameEnd       = 0xce
)

const maxFrame = 4096 // small, so that messages come in several

// errEnd ends a connection without a fault of the client.
var errEnd = errors.New("end")

// A session is one connection. It has the one channel that clients of this kind use.
type session struct {
	b          *Broker
	conn       net.Conn
	in         *bufio.Reader
	confirming bool
	tag        uint64
	closing    bool // the channel is closed until the client has said that it knows
}

func (b *Broker) serve(conn net.Conn) {
	defer conn.Close()
	s := &session{b: b, conn: conn, in: bufio.NewReader(conn)}
	err := s.run()
	var op *net.OpError
	if !errors.Is(err, errEnd) && !errors.Is(err, io.EOF) && !errors.As(err, &op) {
		b.mu.Lock()
		b.faults = append(b.faults, err.Error())
		b.mu.Unlock()
	}
}

func (s *session) run() error {
	var header [8]byte
	if _, err := io.ReadFull(s.in, header[:]); err != nil {
		return err
	}
	if string(header[:]) != "AMQP\x00\x00\x09\x01" {
		return fmt.Errorf("protocol header %q", header)
	}
	if err := s.send(0, connectionStart, func(w *writer) {
		w.raw(0, 9)
		w.table("product", "a broker for tests", "version", "1")
		w.long("PLAIN")
		w.long("en_US")
	}); err != nil {
		return err
	}
	for {
		kind, channel, payload, err := s.frame()
		if err != nil {
			return err
		}
		if kind == heartbeatFrame {
			continue
		}
		if kind != methodFrame || len(payload) < 4 {
			return fmt.Errorf("frame of type %d out of turn", kind)
		}
		r := &reader{b: payload[4:]}
		method := binary.BigEndian.Uint32(payload)
		if err := s.method(channel, method, r); err != nil {
			return err
		}
		if r.short {
			return fmt.Errorf("method %d.%d is too short", method>>16, method&0xffff)
		}
	}
}

func (s *session) method(channel uint16, method uint32, r *reader) error {
	if s.closing && method>>16 != 10 {
		s.closing = method != channelCloseOk
		return nil // it crossed the close
	}
	switch method {
	case connectionStartOk:
		r.skip(int(r.uint32()))
		mechanism, response := r.str(), string(r.take(int(r.uint32())))
		user, password := s.b.User, s.b.Password
		if user == "" {
			user, password = "guest", "guest"
		}
		if mechanism != "PLAIN" || response != "\x00"+user+"\x00"+password {
			return errors.Join(s.send(0, connectionClose, func(w *writer) { w.refusal(403, "ACCESS_REFUSED - Login was refused", method) }), errEnd)
		}
		return s.send(0, connectionTune, func(w *writer) {
			w.uint16(2047)
			w.uint32(maxFrame)
			w.uint16(60)
		})
	case connectionTuneOk:
		return nil
	case connectionOpen:
		return s.send(0, connectionOpenOk, func(w *writer) { w.short("") })
	case connectionClose:
		s.b.mu.Lock()
		s.b.orderly++
		s.b.mu.Unlock()
		return errors.Join(s.send(0, connectionCloseOk, nil), errEnd)
	case channelOpen:
		return s.send(channel, channelOpenOk, func(w *writer) { w.long("") })
	case channelClose:
		return s.send(channel, channelCloseOk, nil)
	case confirmSelect:
		s.confirming = true
		return s.send(channel, confirmSelectOk, nil)
	case exchangeDeclare:
		return s.declare(channel, r)
	case basicPublish:
		return s.publish(channel, r)
	}
	return fmt.Errorf("method %d.%d is unknown here", method>>16, method&0xffff)
}

// refuse closes the channel.
func (s *session) refuse(channel uint16, code int, text string, method uint32) error {
	s.closing = true
	return s.send(channel, channelClose, func(w *writer) { w.refusal(code, text, method) })
}

func (s *session) declare(channel uint16, r *reader) error {
	r.skip(2)
	name, kind, bits := r.str(), r.str(), r.byte()
	if bits&^2 != 0 {
		return fmt.Errorf("exchange %s: passive, auto-deleted, internal or without answer: %b", name, bits)
	}
	want := Exchange{Type: kind, Durable: bits&2 != 0}
	if s.b.Refuse != nil {
		if code, text := s.b.Refuse(name); code != 0 {
			return s.refuse(channel, code, text, exchangeDeclare)
		}
	}
	s.b.mu.Lock()
	have, known := s.b.exchanges[name]
	if !known {
		s.b.exchanges[name] = want
	}
	s.b.mu.Unlock()
	if known && have != want {
		return s.refuse(channel, 406, fmt.Sprintf("PRECONDITION_FAILED - inequivalent arg 'durable' for exchange '%s' in vhost '/': "+
			"received '%t' but current is '%t'", name, want.Durable, have.Durable), exchangeDeclare)
	}
	return s.send(channel, exchangeDeclareOk, nil)
}

func (s *session) publish(channel uint16, r *reader) error {
	r.skip(2)
	m := Message{Exchange: r.str(), Key: r.str()}
	kind, _, payload, err := s.frame()
	if err != nil {
		return err
	}
	if kind != headerFrame {
		return fmt.Errorf("frame of type %d instead of a header", kind)
	}
	h := &reader{b: payload}
	h.skip(4)
	size, flags := h.uint64(), h.uint16()
	if flags&0x8000 != 0 {
		m.ContentType = h.str()
	}
	if flags&0x1000 != 0 {
		m.DeliveryMode = int(h.byte())
	}
	if flags&0x0800 != 0 {
		m.Priority = int(h.byte())
	}
	if flags&^0x9800 != 0 || h.short || len(h.b) > 0 {
		return fmt.Errorf("properties %x: others than content type, delivery mode and priority", flags)
	}
	for uint64(len(m.Body)) < size {
		kind, _, payload, err := s.frame()
		if err != nil {
			return err
		}
		if kind != bodyFrame {
			return fmt.Errorf("frame of type %d instead of a body", kind)
		}
		m.Body = append(m.Body, payload...)
	}
	s.b.mu.Lock()
	_, known := s.b.exchanges[m.Exchange]
	if known {
		s.b.messages = append(s.b.messages, m)
	}
	s.b.mu.Unlock()
	if !s.confirming {
		return errors.New("a message without confirmation")
	}
	s.tag++
	verdict := Forgotten
	if known {
		verdict = Ack
		if s.b.Judge != nil {
			verdict = s.b.Judge(m)
		}
	}
	switch verdict {
	case Nack:
		return s.send(channel, basicNack, func(w *writer) {
			w.uint64(s.tag)
			w.raw(0)
		})
	case Hangup:
		return errEnd
	case Silence:
		return nil
	case TooLarge:
		return s.refuse(channel, 406, "PRECONDITION_FAILED - message size 9 is larger than configured max size 8", basicPublish)
	case Forgotten:
		return s.refuse(channel, 404, fmt.Sprintf("NOT_FOUND - no exchange '%s' in vhost '/'", m.Exchange), basicPublish)
	}
	return s.send(channel, basicAck, func(w *writer) {
		w.uint64(s.tag)
		w.raw(0)
	})
}

// frame reads one frame.
func (s *session) frame() (kind byte, channel uint16, payload []byte, err error) {
	var head [7]byte
	if _, err := io.ReadFull(s.in, head[:]); err != nil {
		return 0, 0, nil, err
	}
	size := binary.BigEndian.Uint32(head[3:])
	if size > maxFrame {
		return 0, 0, nil, fmt.Errorf("frame of %d bytes", size)
	}
	payload = make([]byte, size+1)
	if _, err := io.ReadFull(s.in, payload); err != nil {
		return 0, 0, nil, err
	}
	if payload[size] != frameEnd {
		return 0, 0, nil, errors.New("frame without an end")
	}
	return head[0], binary.BigEndian.Uint16(head[1:]), payload[:size], nil
}

// send writes one method; arguments may be nil.
func (s *session) send(channel uint16, method uint32, arguments func(w *writer)) error {
	w := &writer{}
	w.uint32(method)
	if arguments != nil {
		arguments(w)
	}
	f := &writer{}
	f.raw(methodFrame)
	f.uint16(channel)
	f.uint32(uint32(w.Len()))
	f.raw(w.Bytes()...)
	f.raw(frameEnd)
	_, err := s.conn.Write(f.Bytes())
	return err
}

// A writer builds the arguments of a method.
type writer struct{ bytes.Buffer }

func (w *writer) raw(b ...byte)   { w.Write(b) }
func (w *writer) uint16(n uint16) { w.raw(binary.BigEndian.AppendUint16(nil, n)...) }
func (w *writer) uint32(n uint32) { w.raw(binary.BigEndian.AppendUint32(nil, n)...) }
func (w *writer) uint64(n uint64) { w.raw(binary.BigEndian.AppendUint64(nil, n)...) }

func (w *writer) short(s string) {
	w.raw(byte(len(s)))
	w.WriteString(s)
}

func (w *writer) long(s string) {
	w.uint32(uint32(len(s)))
	w.WriteString(s)
}

func (w *writer) table(pairs ...string) {
	t := &writer{}
	for i := 0; i < len(pairs); i += 2 {
		t.short(pairs[i])
		t.raw('S')
		t.long(pairs[i+1])
	}
	w.long(t.String())
}

func (w *writer) refusal(code int, text string, method uint32) {
	w.uint16(uint16(code))
	w.short(strings.ToValidUTF8(text[:min(len(text), 255)], ""))
	w.uint32(method)
}

// A reader takes the arguments of a method apart.
type reader struct {
	b     []byte
	short bool // more was asked for than is there
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.short = true
		return make([]byte, max(0, min(n, 8)))
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) skip(n int)     { r.take(n) }
func (r *reader) byte() byte     { return r.take(1)[0] }
func (r *reader) uint16() uint16 { return binary.BigEndian.Uint16(r.take(2)) }
func (r *reader) uint32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }
func (r *reader) uint64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }
func (r *reader) str() string    { return string(r.take(int(r.byte()))) }
