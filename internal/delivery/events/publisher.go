package events

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"barong/internal/crypto/jws"
	"barong/internal/crypto/secret"
	"barong/internal/delivery/outbox"
)

const (
	heartbeat = 10 * time.Second
	closeTime = 2 * time.Second // of a connection, in order
)

// Options are what New needs.
type Options struct {
	// URL is the broker's: amqp://user:password@host:port/vhost, or amqps://.
	URL secret.URL
	// Durable declares the exchanges durable: they outlive a restart of the broker.
	Durable bool
	// Expiry is the time from the signing of an event until it expires. Zero, as it should be: never. The original gave a
	// minute, so that what waited longer in a queue was lost; its receivers look at the time only where there is one, so
	// they accept events without. Expiry itself is for receivers that insist. Every attempt at a delivery signs anew, so
	// that an outage of the broker expires nothing.
	Expiry time.Duration
	// Signer returns the key to sign with now.
	Signer func() jws.Signer

	Log *slog.Logger     // default slog.Default()
	Now func() time.Time // default time.Now
}

// A Publisher publishes events over one connection, which it opens at the first of them, and anew after a failure. It is
// safe for concurrent use. Close it, after the outbox.
type Publisher struct {
	o Options

	url  atomic.Pointer[secret.URL]
	mu   sync.Mutex // one event at a time; guards the following
	link *link      // nil without a connection
}

// ValidateURL says what is wrong with the URL of a broker. It connects to nothing, and the error has nothing of the URL.
func ValidateURL(raw string) error {
	u, err := url.Parse(raw)
	if _, uerr := amqp.ParseURI(raw); err != nil || uerr != nil || strings.Contains(u.EscapedPath()+"?"+u.RawQuery+u.Fragment, "@") {
		// Not the error itself: it may quote a piece of the password.
		return errors.New("it cannot be read: percent-encode what is not a letter or digit in the user and the password; " +
			"allowed is amqp://user:password@host:port/vhost")
	}
	return nil
}

// New makes a publisher, and connects to nothing yet. The error, which does not repeat the URL, is about the URL.
func New(o Options) (*Publisher, error) {
	if err := ValidateURL(o.URL.Reveal()); err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	p := &Publisher{o: o}
	p.url.Store(&o.URL)
	return p, nil
}

// Replace has the next connection made to another URL, which was validated. One that is there stays.
func (p *Publisher) Replace(broker secret.URL) { p.url.Store(&broker) }

// Handle publishes one queued event: it is the outbox's handler, and succeeds when the broker has confirmed.
func (p *Publisher) Handle(ctx context.Context, _ string, payload []byte) error {
	e, err := envelope(payload, p.o.Expiry, p.o.Signer(), p.o.Now())
	if err != nil {
		return err
	}
	exchange, key, err := split(e.name)
	if err != nil {
		return outbox.Permanent(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link != nil && p.link.channel.IsClosed() {
		p.drop()
	}
	if p.link == nil {
		l, err := dial(ctx, *p.url.Load())
		if err != nil {
			return err
		}
		if err := l.confirm(ctx); err != nil {
			return err
		}
		p.link = l
		p.o.Log.Info("connected to the message broker", "broker", *p.url.Load(), "server", l.server())
	}
	err = p.link.publish(ctx, exchange, key, p.o.Durable, e.message)
	p.o.Log.Debug("event", "exchange", exchange, "key", key, "error", err)
	if p.link.channel.IsClosed() || ctx.Err() != nil {
		p.drop()
	}
	return err
}

// Close ends the connection.
func (p *Publisher) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop()
	return nil
}

func (p *Publisher) drop() {
	if p.link != nil {
		p.link.close()
		p.link = nil
	}
}

// Probe connects to a broker and returns its product and version. It declares nothing.
func Probe(ctx context.Context, broker secret.URL) (string, error) {
	if _, err := New(Options{URL: broker}); err != nil {
		return "", err
	}
	l, err := dial(ctx, broker)
	if err != nil {
		return "", err
	}
	defer l.close()
	return l.server(), nil
}

// A link is a connection with its one channel. A failure of either is the end of both.
type link struct {
	socket   net.Conn
	conn     *amqp.Connection
	channel  *amqp.Channel
	failed   chan *amqp.Error // why the broker closed the channel or the connection
	declared map[string]bool  // exchanges
}

// dial connects, and opens the channel.
func dial(ctx context.Context, broker secret.URL) (*link, error) {
	l := &link{declared: map[string]bool{}}
	var watch func() bool // ends the watch over ctx
	properties := amqp.NewConnectionProperties()
	properties.SetClientConnectionName("barong")
	conn, err := amqp.DialConfig(broker.Reveal(), amqp.Config{
		Heartbeat: heartbeat, Properties: properties,
		Dial: func(network, addr string) (net.Conn, error) {
			socket, err := new(net.Dialer).DialContext(ctx, network, addr)
			if err == nil {
				l.socket, watch = socket, closeWith(ctx, socket)
			}
			return socket, err
		},
	})
	if watch != nil {
		defer watch()
	}
	if err != nil {
		if l.socket != nil {
			l.socket.Close()
		}
		return nil, broken("connect", cause(ctx, err))
	}
	l.conn = conn
	if err := l.open(ctx); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// open opens a channel, in place of one that the broker has closed.
func (l *link) open(ctx context.Context) (err error) {
	if l.channel, err = l.conn.Channel(); err != nil {
		return broken("open a channel", cause(ctx, err))
	}
	l.failed = l.channel.NotifyClose(make(chan *amqp.Error, 1))
	return nil
}

// confirm makes the channel confirm what it is given. A link on which that fails is closed.
func (l *link) confirm(ctx context.Context) error {
	defer closeWith(ctx, l.socket)()
	if err := l.channel.Confirm(false); err != nil {
		l.close()
		return broken("open a channel", cause(ctx, err))
	}
	return nil
}

// closeWith closes the socket when ctx ends, since nothing else ends a call that waits for the broker. What it returns
// ends the watch.
func closeWith(ctx context.Context, socket net.Conn) func() bool {
	return context.AfterFunc(ctx, func() { socket.Close() })
}

// publish declares the exchange, unless that was done, sends a message and waits until the broker has it.
func (l *link) publish(ctx context.Context, exchange, key string, durable bool, message []byte) error {
	defer closeWith(ctx, l.socket)()
	if !l.declared[exchange] {
		if err := l.channel.ExchangeDeclare(exchange, amqp.ExchangeDirect, durable, false, false, false, nil); err != nil {
			return undeclared(exchange, durable, cause(ctx, err))
		}
		l.declared[exchange] = true
	}
	// Not mandatory: an event that nobody has bound a queue for is nobody's.
	sent, err := l.channel.PublishWithDeferredConfirmWithContext(ctx, exchange, key, false, false, amqp.Publishing{
		ContentType: "application/octet-stream", DeliveryMode: amqp.Persistent, Body: message,
	})
	if err != nil {
		return broken("publish", cause(ctx, err))
	}
	acked, err := sent.WaitContext(ctx)
	switch {
	case err != nil:
		return broken("wait for the broker to confirm", err)
	case acked:
		return nil
	case !l.channel.IsClosed():
		return errors.New("the broker could not take the event") // basic.nack
	}
	if err := l.reason(); err.Code == amqp.PreconditionFailed {
		// Nothing but the message itself can be it, for example its size: it must not hold back the others.
		return outbox.Permanent(broken("publish", err))
	} else if err.Code != 0 {
		return broken("publish", err)
	}
	return broken("wait for the broker to confirm", cause(ctx, amqp.ErrClosed))
}

// reason is why the broker has closed the channel; its code is zero if it has not said so.
func (l *link) reason() *amqp.Error {
	select {
	case err := <-l.failed:
		if err != nil && err.Server {
			return err
		}
	default:
	}
	return &amqp.Error{}
}

// server is the broker's product and version.
func (l *link) server() string {
	product, _ := l.conn.Properties["product"].(string)
	version, _ := l.conn.Properties["version"].(string)
	return strings.TrimSpace(product + " " + version)
}

// close ends the connection, in order if the broker answers soon.
func (l *link) close() {
	late := time.AfterFunc(closeTime, func() { l.socket.Close() })
	defer late.Stop()
	// An error means that it is closed already, or cut off: all the same here.
	_ = l.conn.Close()
	l.socket.Close()
}

// cause is err, or that ctx ended, which closes the socket and then looks like any failure.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func broken(what string, err error) error { return fmt.Errorf("message broker: %s: %w", what, err) }

// undeclared tells what to do about an exchange that cannot be declared.
func undeclared(exchange string, durable bool, err error) error {
	var refusal *amqp.Error
	advice := ""
	if errors.As(err, &refusal) {
		switch refusal.Code {
		case amqp.PreconditionFailed:
			advice = fmt.Sprintf(" (it is there, declared in another way: set BARONG_EVENT_API_DURABLE=%t if that is what "+
				"differs, or else delete it once its receivers are stopped)", !durable)
		case amqp.AccessRefused:
			advice = " (the broker's user needs the permission to configure and to write it)"
		}
	}
	return broken("declare exchange "+exchange+advice, err)
}
