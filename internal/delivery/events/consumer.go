package events

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"barong/internal/crypto/secret"
	"barong/internal/delivery/outbox"
)

// Bounds of what is consumed.
const (
	// MaxMessage is the largest message that is looked at, in bytes.
	MaxMessage = 256 << 10
	// Kept is how long messages wait in the queue of a consumer for somebody to take them.
	Kept = 3 * 24 * time.Hour

	prefetch     = 4         // messages in hand
	attempts     = 5         // of one message, while the stores answer
	queueLife    = 7 * Kept  // of a queue that nobody consumes from
	maxWaiting   = 1_000_000 // messages in the queue
	deadLife     = 14 * 24 * time.Hour
	maxDead      = 10_000 // messages in the queue of dead letters
	settlingTime = time.Minute
)

// A Binding is what a consumer hears: the messages of a routing key at an exchange. One that is not there is declared as
// the services of the original declare theirs, direct and not durable, so that they find it as they expect it.
type Binding struct{ Exchange, Key string }

// A Delivery is a message as it came. Nothing about it is verified.
type Delivery struct {
	Exchange, Key string
	Body          []byte
}

// ConsumerOptions are what NewConsumer needs.
type ConsumerOptions struct {
	// URL is the broker's, as that of a Publisher.
	URL secret.URL
	// Queue is the name of the queue: replicas with the same share the messages. It is durable; so is the one beside it, with
	// .dead behind its name, that takes what Handle gives up.
	Queue    string
	Bindings []Binding
	// Handle deals with a message, one at a time. An error that outbox.Permanent has marked gives the message up. Any
	// other has it tried again here, in place: while the stores do not answer as long as it takes, else a few times. It may
	// come again after it was dealt with.
	Handle func(ctx context.Context, d Delivery) error
	// Answers reports whether the stores that Handle needs can do their part.
	Answers func(ctx context.Context) error
	// Dead is told of each message that is given up.
	Dead func(d Delivery, err error)
	// Connected is told when the consumer begins and ends to hear.
	Connected func(bool)

	Log *slog.Logger // default slog.Default()
	// Backoff is the pause after the first failure, and MaxBackoff the longest: it doubles in between. Defaults 1 s, 30 s.
	Backoff, MaxBackoff time.Duration
}

// A Consumer hears what other services tell. Run it.
type Consumer struct {
	o   ConsumerOptions
	url atomic.Pointer[secret.URL]
}

// NewConsumer makes a consumer, and connects to nothing yet. The error, which does not repeat the URL, is about the URL.
func NewConsumer(o ConsumerOptions) (*Consumer, error) {
	if err := ValidateURL(o.URL.Reveal()); err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Backoff <= 0 {
		o.Backoff = time.Second
	}
	if o.MaxBackoff <= 0 {
		o.MaxBackoff = 30 * time.Second
	}
	if o.Dead == nil {
		o.Dead = func(Delivery, error) {}
	}
	if o.Connected == nil {
		o.Connected = func(bool) {}
	}
	c := &Consumer{o: o}
	c.url.Store(&o.URL)
	return c, nil
}

// Replace has the next connection made to another URL, which was validated. One that is there stays.
func (c *Consumer) Replace(broker secret.URL) { c.url.Store(&broker) }

// Run consumes until ctx ends, and connects again whenever the connection is lost. What is in hand then, and not dealt
// with, goes back to the queue.
func (c *Consumer) Run(ctx context.Context) {
	pause := c.o.Backoff
	for ctx.Err() == nil {
		began := time.Now()
		err := c.session(ctx)
		c.o.Connected(false)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > time.Minute {
			pause = c.o.Backoff
		}
		c.o.Log.Warn("messages of other services are not heard", "broker", *c.url.Load(), "queue", c.o.Queue, "again_in", pause.String(), "error", err)
		wait(ctx, pause)
		pause = min(2*pause, c.o.MaxBackoff)
	}
}

// wait waits, or until ctx ends.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// session connects, declares and consumes until something fails.
func (c *Consumer) session(ctx context.Context) error {
	l, err := dial(ctx, *c.url.Load())
	if err != nil {
		return err
	}
	defer l.close()
	messages, err := c.listen(ctx, l)
	if err != nil {
		return err
	}
	c.o.Log.Info("messages of other services are heard", "broker", *c.url.Load(), "server", l.server(), "queue", c.o.Queue)
	c.o.Connected(true)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case m, ok := <-messages:
			if !ok {
				return broken("consume from "+c.o.Queue, ended(l))
			}
			if err := c.take(ctx, l, &m); err != nil {
				return err
			}
		}
	}
}

// ended is why no more messages come.
func ended(l *link) error {
	if err := l.reason(); err.Code != 0 {
		return err
	}
	if l.channel.IsClosed() {
		return amqp.ErrClosed
	}
	return errors.New("the queue was deleted")
}

// listen declares exchanges and queues and begins to consume.
func (c *Consumer) listen(ctx context.Context, l *link) (<-chan amqp.Delivery, error) {
	defer closeWith(ctx, l.socket)()
	seen := map[string]bool{}
	for _, b := range c.o.Bindings {
		if seen[b.Exchange] {
			continue
		}
		seen[b.Exchange] = true
		if err := l.find(ctx, b.Exchange); err != nil {
			return nil, err
		}
	}
	dead := c.o.Queue + ".dead"
	for _, q := range []struct {
		name      string
		arguments amqp.Table
	}{
		{dead, amqp.Table{"x-message-ttl": deadLife.Milliseconds(), "x-max-length": int64(maxDead)}},
		{c.o.Queue, amqp.Table{
			"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead,
			"x-message-ttl": Kept.Milliseconds(), "x-max-length": int64(maxWaiting), "x-expires": queueLife.Milliseconds(),
		}},
	} {
		if _, err := l.channel.QueueDeclare(q.name, true, false, false, false, q.arguments); err != nil {
			var refusal *amqp.Error
			advice := ""
			if errors.As(err, &refusal) && refusal.Code == amqp.PreconditionFailed {
				advice = " (it is there, declared in another way: delete it once nothing waits in it)"
			}
			return nil, broken("declare queue "+q.name+advice, cause(ctx, err))
		}
	}
	for _, b := range c.o.Bindings {
		if err := l.channel.QueueBind(c.o.Queue, b.Key, b.Exchange, false, nil); err != nil {
			return nil, broken(fmt.Sprintf("bind %s to %s of exchange %s", c.o.Queue, b.Key, b.Exchange), cause(ctx, err))
		}
	}
	if err := l.channel.Qos(prefetch, 0, false); err != nil {
		return nil, broken("bound what is in hand", cause(ctx, err))
	}
	messages, err := l.channel.Consume(c.o.Queue, "barong", false, false, false, false, nil)
	if err != nil {
		return nil, broken("consume from "+c.o.Queue, cause(ctx, err))
	}
	return messages, nil
}

// find looks whether an exchange is there, however it was declared, and declares it otherwise.
func (l *link) find(ctx context.Context, exchange string) error {
	err := l.channel.ExchangeDeclarePassive(exchange, amqp.ExchangeDirect, false, false, false, false, nil)
	var refusal *amqp.Error
	if err == nil || !errors.As(err, &refusal) || refusal.Code != amqp.NotFound {
		if err != nil {
			return broken("look for exchange "+exchange, cause(ctx, err))
		}
		return nil
	}
	if err := l.open(ctx); err != nil { // the refusal has closed the other
		return err
	}
	if err := l.channel.ExchangeDeclare(exchange, amqp.ExchangeDirect, false, false, false, false, nil); err != nil {
		return undeclared(exchange, false, cause(ctx, err))
	}
	return nil
}

// take deals with one message, and settles it. An error ends the session, which gives the message back.
func (c *Consumer) take(ctx context.Context, l *link, m *amqp.Delivery) error {
	d := Delivery{Exchange: m.Exchange, Key: m.RoutingKey, Body: m.Body}
	err := c.handle(ctx, l, d)
	switch {
	case err == nil:
		err = m.Ack(false)
	case ctx.Err() != nil || l.channel.IsClosed():
		return broken("deal with a message", cause(ctx, err))
	default:
		c.o.Dead(d, err)
		err = m.Reject(false)
	}
	if err != nil {
		return broken("settle a message", cause(ctx, err))
	}
	return nil
}

// handle tries until the message is dealt with. An error says that it is given up, unless ctx or the channel has ended.
func (c *Consumer) handle(ctx context.Context, l *link, d Delivery) error {
	if len(d.Body) > MaxMessage {
		return fmt.Errorf("larger than %d bytes", MaxMessage)
	}
	pause := c.o.Backoff
	for failed := 0; ; {
		err := c.call(ctx, d)
		if err == nil || outbox.IsPermanent(err) || ctx.Err() != nil || l.channel.IsClosed() {
			return err
		}
		if c.answers(ctx) {
			if failed++; failed == attempts {
				return err
			}
		}
		c.o.Log.Warn("a message of another service is tried again", "exchange", d.Exchange, "key", d.Key, "in", pause.String(), "error", err)
		wait(ctx, pause)
		pause = min(2*pause, c.o.MaxBackoff)
	}
}

func (c *Consumer) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, settlingTime)
	defer cancel()
	return c.o.Answers == nil || c.o.Answers(ctx) == nil
}

// call runs the handler. A panic is a failed attempt.
func (c *Consumer) call(ctx context.Context, d Delivery) (err error) {
	ctx, cancel := context.WithTimeout(ctx, settlingTime)
	defer cancel()
	defer func() {
		if r := recover(); r != nil {
			c.o.Log.Error("a message of another service broke its handler", "panic", r, "stack", string(debug.Stack()))
			err = errors.New("its handler broke down")
		}
	}()
	return c.o.Handle(ctx, d)
}
