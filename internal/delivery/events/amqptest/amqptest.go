// Package amqptest is a message broker for tests: so much of AMQP 0-9-1 as publishers and consumers of events say, on a port
// of this machine, with the failures that a test asks for. It has direct exchanges, keeps what is published to them, and
// hands it to the queues that are bound there: to each consumer as much as it takes, again when it goes away, and to the
// queue of dead letters when it is refused. Queues outlive a Stop, as durable ones do; nothing in them expires.
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
	"maps"
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
	queues      map[string]*queue
}

// A queue holds messages until a consumer has taken them.
type queue struct {
	arguments map[string]any
	bindings  map[[2]string]bool // exchange and routing key
	ready     []*item
	consumers []*consumer
	next      int // the consumer whose turn it is
}

// An item is a message in a queue.
type item struct {
	Message
	again bool // it was handed out before
}

// A consumer takes messages from a queue, so many at a time.
type consumer struct {
	tag     string
	s       *session
	channel *channel
	queue   string
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

// Publish publishes as another service does: to an exchange that is declared as the original's are, unless it is there.
func (b *Broker) Publish(exchange, key string, body []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.exchanges[exchange]; !ok {
		b.exchanges[exchange] = Exchange{Type: "direct"}
	}
	b.route(Message{Exchange: exchange, Key: key, Body: body})
}

// Bindings are the exchanges and routing keys that a queue is bound to, each as "exchange key", in order.
func (b *Broker) Bindings(name string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	if q := b.queues[name]; q != nil {
		for binding := range q.bindings {
			out = append(out, binding[0]+" "+binding[1])
		}
	}
	slices.Sort(out)
	return out
}

// Queue is what waits in a queue, what was handed out and not acknowledged left out, and how it was declared. The arguments
// are nil when there is no such queue.
func (b *Broker) Queue(name string) (waiting []Message, arguments map[string]any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	q := b.queues[name]
	if q == nil {
		return nil, nil
	}
	for _, i := range q.ready {
		waiting = append(waiting, i.Message)
	}
	return waiting, q.arguments
}

// InHand is how many messages of a queue consumers have and have not acknowledged.
func (b *Broker) InHand(name string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	seen := map[*channel]bool{}
	if q := b.queues[name]; q != nil {
		for _, c := range q.consumers {
			if !seen[c.channel] {
				n += len(c.channel.unacked)
				seen[c.channel] = true
			}
		}
	}
	return n
}

// Drop deletes a queue, as an operator may: its consumers are told.
func (b *Broker) Drop(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if q := b.queues[name]; q != nil {
		for _, c := range q.consumers {
			_ = c.s.send(c.channel.number, basicCancel, func(w *writer) {
				w.short(c.tag)
				w.raw(1)
			})
		}
		delete(b.queues, name)
	}
}

// Redeclare puts an empty queue of other arguments in the place of one, as somebody else may have declared it.
func (b *Broker) Redeclare(name string, arguments map[string]any) {
	b.Drop(name)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.queues[name] = &queue{arguments: arguments, bindings: map[[2]string]bool{}}
}

// route puts a message into the queues that are bound to it, and hands out what can be. The lock is held.
func (b *Broker) route(m Message) {
	for name, q := range b.queues {
		if q.bindings[[2]string{m.Exchange, m.Key}] || m.Exchange == "" && m.Key == name {
			q.ready = append(q.ready, &item{Message: m})
			b.handOut(q)
		}
	}
}

// handOut gives what is ready to consumers that take more, one after the other. The lock is held.
func (b *Broker) handOut(q *queue) {
	for len(q.ready) > 0 {
		var to *consumer
		for range q.consumers {
			q.next = (q.next + 1) % len(q.consumers)
			if c := q.consumers[q.next]; c.channel.prefetch == 0 || len(c.channel.unacked) < c.channel.prefetch {
				to = c
				break
			}
		}
		if to == nil {
			return
		}
		i := q.ready[0]
		q.ready = q.ready[1:]
		to.channel.delivered++
		to.channel.unacked[to.channel.delivered] = held{i, to.queue}
		if err := to.s.deliver(to, i, to.channel.delivered); err != nil {
			to.s.conn.Close() // whoever reads from it gives back what it holds
			return
		}
	}
}

// forget takes the consumers of a channel away, and gives what they held back to the queues.
func (b *Broker) forget(ch *channel) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, q := range b.queues {
		q.consumers = slices.DeleteFunc(q.consumers, func(c *consumer) bool { return c.channel == ch })
	}
	for _, tag := range slices.Backward(slices.Sorted(maps.Keys(ch.unacked))) {
		h := ch.unacked[tag]
		h.again = true
		if q := b.queues[h.queue]; q != nil {
			q.ready = slices.Insert(q.ready, 0, h.item)
		}
	}
	clear(ch.unacked)
	for _, q := range b.queues {
		b.handOut(q)
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
	queueDeclare      = 50<<16 | 10
	queueDeclareOk    = 50<<16 | 11
	queueBind         = 50<<16 | 20
	queueBindOk       = 50<<16 | 21
	basicQos          = 60<<16 | 10
	basicQosOk        = 60<<16 | 11
	basicConsume      = 60<<16 | 20
	basicConsumeOk    = 60<<16 | 21
	basicCancel       = 60<<16 | 30
	basicCancelOk     = 60<<16 | 31
	basicDeliver      = 60<<16 | 60
	basicReject       = 60<<16 | 90
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

// A session is one connection.
type session struct {
	b        *Broker
	conn     net.Conn
	in       *bufio.Reader
	channels map[uint16]*channel

	writing sync.Mutex // of whole frames
}

// A channel is one conversation within a session.
type channel struct {
	number     uint16
	confirming bool
	tag        uint64
	closing    bool // the channel is closed until the client has said that it knows

	// The broker's lock guards these.
	prefetch  int // 0: no bound
	delivered uint64
	unacked   map[uint64]held
}

// held is what a consumer has, and the queue that it came from.
type held struct {
	*item
	queue string
}

func (b *Broker) serve(conn net.Conn) {
	defer conn.Close()
	s := &session{b: b, conn: conn, in: bufio.NewReader(conn), channels: map[uint16]*channel{}}
	err := s.run()
	for _, ch := range s.channels {
		b.forget(ch)
	}
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

func (s *session) method(number uint16, method uint32, r *reader) error {
	ch := s.channels[number]
	if ch == nil {
		if method>>16 != 10 && method != channelOpen {
			return fmt.Errorf("method %d.%d on channel %d, which is not open", method>>16, method&0xffff, number)
		}
		ch = &channel{number: number, unacked: map[uint64]held{}}
	}
	if ch.closing && method>>16 != 10 {
		if method == channelCloseOk {
			delete(s.channels, number)
		}
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
		s.channels[number] = ch
		return s.send(number, channelOpenOk, func(w *writer) { w.long("") })
	case channelClose:
		s.b.forget(ch)
		delete(s.channels, number)
		return s.send(number, channelCloseOk, nil)
	case confirmSelect:
		ch.confirming = true
		return s.send(number, confirmSelectOk, nil)
	case exchangeDeclare:
		return s.declare(ch, r)
	case queueDeclare:
		return s.declareQueue(ch, r)
	case queueBind:
		return s.bind(ch, r)
	case basicQos:
		r.skip(4)
		s.b.mu.Lock()
		ch.prefetch = int(r.uint16())
		s.b.mu.Unlock()
		return s.send(number, basicQosOk, nil)
	case basicConsume:
		return s.consume(ch, r)
	case basicCancelOk:
		return nil
	case basicAck, basicReject:
		return s.settle(ch, method, r)
	case basicPublish:
		return s.publish(ch, r)
	}
	return fmt.Errorf("method %d.%d is unknown here", method>>16, method&0xffff)
}

// refuse closes the channel.
func (s *session) refuse(ch *channel, code int, text string, method uint32) error {
	ch.closing = true
	s.b.forget(ch)
	return s.send(ch.number, channelClose, func(w *writer) { w.refusal(code, text, method) })
}

// declareQueue makes a queue that outlives its connection.
func (s *session) declareQueue(ch *channel, r *reader) error {
	r.skip(2)
	name, bits := r.str(), r.byte()
	if bits != 2 {
		return fmt.Errorf("queue %s: not durable, or passive, exclusive, auto-deleted or without answer: %b", name, bits)
	}
	arguments := r.table()
	s.b.mu.Lock()
	if s.b.queues == nil {
		s.b.queues = map[string]*queue{}
	}
	q := s.b.queues[name]
	if q == nil {
		q = &queue{arguments: arguments, bindings: map[[2]string]bool{}}
		s.b.queues[name] = q
	}
	same := fmt.Sprint(q.arguments) == fmt.Sprint(arguments)
	waiting, consumers := len(q.ready), len(q.consumers)
	s.b.mu.Unlock()
	if !same {
		return s.refuse(ch, 406, "PRECONDITION_FAILED - inequivalent arg for queue '"+name+"' in vhost '/'", queueDeclare)
	}
	return s.send(ch.number, queueDeclareOk, func(w *writer) {
		w.short(name)
		w.uint32(uint32(waiting))
		w.uint32(uint32(consumers))
	})
}

func (s *session) bind(ch *channel, r *reader) error {
	r.skip(2)
	name, exchange, key := r.str(), r.str(), r.str()
	s.b.mu.Lock()
	q := s.b.queues[name]
	_, known := s.b.exchanges[exchange]
	if q != nil && known {
		q.bindings[[2]string{exchange, key}] = true
	}
	s.b.mu.Unlock()
	if q == nil || !known {
		return s.refuse(ch, 404, fmt.Sprintf("NOT_FOUND - no queue '%s' or exchange '%s' in vhost '/'", name, exchange), queueBind)
	}
	return s.send(ch.number, queueBindOk, nil)
}

func (s *session) consume(ch *channel, r *reader) error {
	r.skip(2)
	name, tag, bits := r.str(), r.str(), r.byte()
	if bits != 0 || tag == "" {
		return fmt.Errorf("consumer %q of %s: without acknowledgements, exclusive or without answer: %b", tag, name, bits)
	}
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	q := s.b.queues[name]
	if q == nil {
		return fmt.Errorf("consumer of %s, which is not declared", name)
	}
	if err := s.send(ch.number, basicConsumeOk, func(w *writer) { w.short(tag) }); err != nil {
		return err
	}
	q.consumers = append(q.consumers, &consumer{tag: tag, s: s, channel: ch, queue: name})
	s.b.handOut(q)
	return nil
}

// settle takes an acknowledgement or a refusal of what was handed out.
func (s *session) settle(ch *channel, method uint32, r *reader) error {
	tag, bit := r.uint64(), r.byte()
	if bit != 0 {
		return fmt.Errorf("message %d: several at once, or to be put back", tag)
	}
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	h, ok := ch.unacked[tag]
	if !ok {
		return fmt.Errorf("message %d is not in hand", tag)
	}
	delete(ch.unacked, tag)
	q := s.b.queues[h.queue]
	if q == nil {
		return nil
	}
	if dead, _ := q.arguments["x-dead-letter-routing-key"].(string); method == basicReject && dead != "" {
		exchange, _ := q.arguments["x-dead-letter-exchange"].(string)
		s.b.route(Message{Exchange: exchange, Key: dead, Body: h.Body})
	}
	s.b.handOut(q)
	return nil
}

// deliver hands a message to a consumer.
func (s *session) deliver(c *consumer, i *item, tag uint64) error {
	m := &writer{}
	m.uint32(basicDeliver)
	m.short(c.tag)
	m.uint64(tag)
	m.raw(0)
	if i.again {
		m.Bytes()[m.Len()-1] = 1
	}
	m.short(i.Exchange)
	m.short(i.Key)
	h := &writer{}
	h.uint16(60)
	h.uint16(0)
	h.uint64(uint64(len(i.Body)))
	h.uint16(0)
	f := &writer{}
	f.frame(methodFrame, c.channel.number, m.Bytes())
	f.frame(headerFrame, c.channel.number, h.Bytes())
	for part := range slices.Chunk(i.Body, maxFrame-8) {
		f.frame(bodyFrame, c.channel.number, part)
	}
	return s.write(f.Bytes())
}

func (s *session) declare(ch *channel, r *reader) error {
	r.skip(2)
	name, kind, bits := r.str(), r.str(), r.byte()
	if bits&^3 != 0 {
		return fmt.Errorf("exchange %s: auto-deleted, internal or without answer: %b", name, bits)
	}
	if bits&1 != 0 { // passive: only whether it is there
		if _, known := s.b.Exchanges()[name]; !known {
			return s.refuse(ch, 404, fmt.Sprintf("NOT_FOUND - no exchange '%s' in vhost '/'", name), exchangeDeclare)
		}
		return s.send(ch.number, exchangeDeclareOk, nil)
	}
	want := Exchange{Type: kind, Durable: bits&2 != 0}
	if s.b.Refuse != nil {
		if code, text := s.b.Refuse(name); code != 0 {
			return s.refuse(ch, code, text, exchangeDeclare)
		}
	}
	s.b.mu.Lock()
	have, known := s.b.exchanges[name]
	if !known {
		s.b.exchanges[name] = want
	}
	s.b.mu.Unlock()
	if known && have != want {
		return s.refuse(ch, 406, fmt.Sprintf("PRECONDITION_FAILED - inequivalent arg 'durable' for exchange '%s' in vhost '/': "+
			"received '%t' but current is '%t'", name, want.Durable, have.Durable), exchangeDeclare)
	}
	return s.send(ch.number, exchangeDeclareOk, nil)
}

func (s *session) publish(ch *channel, r *reader) error {
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
		s.b.route(m)
	}
	s.b.mu.Unlock()
	if !ch.confirming {
		return errors.New("a message without confirmation")
	}
	ch.tag++
	verdict := Forgotten
	if known {
		verdict = Ack
		if s.b.Judge != nil {
			verdict = s.b.Judge(m)
		}
	}
	switch verdict {
	case Nack:
		return s.send(ch.number, basicNack, func(w *writer) {
			w.uint64(ch.tag)
			w.raw(0)
		})
	case Hangup:
		return errEnd
	case Silence:
		return nil
	case TooLarge:
		return s.refuse(ch, 406, "PRECONDITION_FAILED - message size 9 is larger than configured max size 8", basicPublish)
	case Forgotten:
		return s.refuse(ch, 404, fmt.Sprintf("NOT_FOUND - no exchange '%s' in vhost '/'", m.Exchange), basicPublish)
	}
	return s.send(ch.number, basicAck, func(w *writer) {
		w.uint64(ch.tag)
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
	f.frame(methodFrame, channel, w.Bytes())
	return s.write(f.Bytes())
}

// write writes whole frames.
func (s *session) write(frames []byte) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	_, err := s.conn.Write(frames)
	return err
}

// A writer builds the arguments of a method.
type writer struct{ bytes.Buffer }

func (w *writer) raw(b ...byte)   { w.Write(b) }
func (w *writer) uint16(n uint16) { w.raw(binary.BigEndian.AppendUint16(nil, n)...) }
func (w *writer) uint32(n uint32) { w.raw(binary.BigEndian.AppendUint32(nil, n)...) }
func (w *writer) uint64(n uint64) { w.raw(binary.BigEndian.AppendUint64(nil, n)...) }

func (w *writer) frame(kind byte, channel uint16, payload []byte) {
	w.raw(kind)
	w.uint16(channel)
	w.uint32(uint32(len(payload)))
	w.raw(payload...)
	w.raw(frameEnd)
}

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

// table reads the arguments of a queue: texts, numbers and booleans.
func (r *reader) table() map[string]any {
	t := &reader{b: r.take(int(r.uint32()))}
	out := map[string]any{}
	for len(t.b) > 0 && !t.short {
		name := t.str()
		switch t.byte() {
		case 'S':
			out[name] = string(t.take(int(t.uint32())))
		case 'I':
			out[name] = int64(int32(t.uint32()))
		case 'l':
			out[name] = int64(t.uint64())
		case 't':
			out[name] = t.byte() != 0
		default:
			r.short = true
			return out
		}
	}
	r.short = r.short || t.short
	return out
}
