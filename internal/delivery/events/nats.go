package events

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"barong/internal/crypto/jws"
	"barong/internal/crypto/secret"
	"barong/internal/delivery/outbox"
)

// NATSKind is the kind of events in the outbox that leave over NATS.
const NATSKind = "nats"

// What a stream is made with where there is none.
const (
	streamAge = 7 * 24 * time.Hour // of a message, which is then gone whether anybody has read it or not
	// repeated is how long the stream knows the ids of messages, and takes one that comes again for the same. It is longer
	// than a lease of the outbox, after which another replica sends what one that died may have sent.
	repeated = 10 * time.Minute
)

// Codes of JetStream's errors.
const (
	streamNotFound  = 10059
	streamNameTaken = 10058
	messageTooLarge = 10054
	otherStream     = 10060 // the subject is another stream's
	subjectsOverlap = 10065
)

// NATSOptions are what NewNATS needs.
type NATSOptions struct {
	// URL is that of the servers: nats://user:password@host:port,host:port, or tls://. See ValidateNATS.
	URL secret.URL
	// Credentials is the text of a file of credentials, as "nsc generate creds" makes it; empty for none.
	Credentials secret.Text
	// Subject is what the name of an event follows, after a dot.
	Subject string
	// Stream is the one that takes these subjects. It is made when there is none, and otherwise left as it is.
	Stream string
	// Expiry and Signer are those of Options.
	Expiry time.Duration
	Signer func() jws.Signer

	Log *slog.Logger     // default slog.Default()
	Now func() time.Time // default time.Now
}

// A NATSPublisher publishes events to a stream of NATS JetStream, over one connection, which it opens at the first of them and
// anew after a failure. It is safe for concurrent use. Close it, after the outbox.
type NATSPublisher struct {
	o NATSOptions

	mu   sync.Mutex // one event at a time; guards the following
	link *natsLink  // nil without a connection
}

const allowedNATS = "allowed is nats://user:password@host:port,host:port or tls://…, with ?cacertfile=, certfile= and keyfile= behind it; " +
	"percent-encode what is not a letter or digit in the user and the password"

// ValidateNATS says what is wrong with the URL of NATS servers. It connects to nothing, and the error has nothing of the URL.
func ValidateNATS(raw string) error {
	if _, _, err := natsOptions(raw); err != nil {
		return fmt.Errorf("%w; %s", err, allowedNATS)
	}
	return nil
}

// NewNATS makes a publisher, and connects to nothing yet. The error, which repeats no secret, is about the URL or the
// credentials.
func NewNATS(o NATSOptions) (*NATSPublisher, error) {
	if err := ValidateNATS(o.URL.Reveal()); err != nil {
		return nil, err
	}
	if o.Credentials != "" && !credentials.MatchString(o.Credentials.Reveal()) {
		return nil, errors.New("the credentials are not a file as \"nsc generate creds\" makes it")
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &NATSPublisher{o: o}, nil
}

// credentials find the two parts of a file of credentials.
var credentials = regexp.MustCompile(`(?s)-----BEGIN NATS USER JWT-----.*-----BEGIN USER NKEY SEED-----`)

var natsHost = regexp.MustCompile(`^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$`)

// natsOptions are what the client is told of a URL. secure, to be laid over them, reads files.
func natsOptions(raw string) (o *nats.Options, secure []nats.Option, err error) {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok || scheme != "nats" && scheme != "tls" {
		return nil, nil, errors.New("unknown scheme") // not named: it may be a mistyped password
	}
	// A password may hold a bare slash or question mark by mistake: credentials end at the last @.
	login := ""
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		login, rest = rest[:i], rest[i+1:]
	}
	hosts, query, _ := strings.Cut(rest, "?")
	defaults := nats.GetDefaultOptions()
	o = &defaults
	for host := range strings.SplitSeq(strings.TrimSuffix(hosts, "/"), ",") {
		if !natsHost.MatchString(host) {
			return nil, nil, errors.New("malformed host")
		}
		o.Servers = append(o.Servers, scheme+"://"+host)
	}
	user, password, hasPassword := strings.Cut(login, ":")
	user, err = url.PathUnescape(user)
	if err == nil {
		password, err = url.PathUnescape(password)
	}
	if err != nil || strings.ContainsAny(login, "/?#@") {
		return nil, nil, errors.New("malformed user or password")
	}
	if hasPassword {
		o.User, o.Password = user, password
	} else {
		o.Token = user
	}
	options, err := url.ParseQuery(query)
	if err != nil {
		return nil, nil, errors.New("malformed options")
	}
	for name, values := range options {
		if name != "cacertfile" && name != "certfile" && name != "keyfile" || len(values) != 1 || scheme != "tls" {
			return nil, nil, errors.New("unknown option") // not named: an unescaped question mark in a password makes one
		}
	}
	if scheme == "tls" {
		secure = append(secure, nats.Secure(&tls.Config{MinVersion: tls.VersionTLS12}))
		if file := options.Get("cacertfile"); file != "" {
			secure = append(secure, nats.RootCAs(file))
		}
		if cert, key := options.Get("certfile"), options.Get("keyfile"); cert != "" || key != "" {
			secure = append(secure, nats.ClientCert(cert, key))
		}
	}
	return o, secure, nil
}

// Handle publishes one queued event: it is the outbox's handler, and succeeds when the stream has acknowledged.
func (p *NATSPublisher) Handle(ctx context.Context, _ string, payload []byte) error {
	e, err := envelope(payload, p.o.Expiry, p.o.Signer(), p.o.Now())
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link != nil && !p.link.conn.IsConnected() {
		p.drop()
	}
	if p.link == nil {
		l, err := p.o.connect(ctx)
		if err != nil {
			return err
		}
		p.link = l
		p.o.Log.Info("connected to NATS", "servers", p.o.URL, "server", l.server())
	}
	m := &nats.Msg{
		Subject: p.o.Subject + "." + e.name, Data: e.message,
		// The stream drops what it has already, so that an event is in it once.
		Header: nats.Header{"Nats-Msg-Id": {e.id}, "Nats-Expected-Stream": {p.o.Stream}},
	}
	first, cancel := context.WithTimeout(ctx, answerTime)
	err = p.link.publish(first, m)
	cancel()
	missing := errors.Is(err, nats.ErrNoResponders) // nobody takes the subject
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		// Somebody who only listens takes it too, and never answers.
		if missing = p.link.untaken(ctx, m.Subject); !missing {
			err = p.link.publish(ctx, m) // the stream is slow, and has it once
		}
	}
	if missing {
		if err = p.link.create(ctx, p.o.Stream, p.o.Subject+".>"); err == nil {
			p.o.Log.Info("a stream was made", "stream", p.o.Stream, "subjects", p.o.Subject+".>")
			err = p.link.publish(ctx, m)
		}
	}
	p.o.Log.Debug("event", "subject", m.Subject, "stream", p.o.Stream, "error", err)
	if !p.link.conn.IsConnected() || ctx.Err() != nil {
		p.drop()
	}
	return err
}

// Close ends the connection.
func (p *NATSPublisher) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop()
	return nil
}

func (p *NATSPublisher) drop() {
	if p.link != nil {
		p.link.conn.Close()
		p.link = nil
	}
}

// ProbeNATS connects, and returns the server's version and what is there of the stream. It makes nothing.
func ProbeNATS(ctx context.Context, o NATSOptions) (string, error) {
	p, err := NewNATS(o)
	if err != nil {
		return "", err
	}
	l, err := p.o.connect(ctx)
	if err != nil {
		return "", err
	}
	defer l.conn.Close()
	err = l.ask(ctx, &nats.Msg{Subject: "$JS.API.STREAM.INFO." + o.Stream}, nil)
	var refusal *streamError
	switch {
	case err == nil:
		return l.server() + ", stream " + o.Stream, nil
	case errors.As(err, &refusal) && refusal.Code == streamNotFound:
		return l.server() + ", which will have the stream " + o.Stream + " with the first event", nil
	case errors.Is(err, nats.ErrNoResponders):
		return "", natsError("look for the stream", errors.New("JetStream not enabled"))
	}
	return "", natsError("look for the stream", err)
}

// A natsLink is a connection. It does not mend itself: after a failure there is another.
type natsLink struct {
	conn    *nats.Conn
	refused chan error // what the server says of what it was sent, the last
}

// connect connects to one of the servers.
func (o *NATSOptions) connect(ctx context.Context) (*natsLink, error) {
	c, secure, err := natsOptions(o.URL.Reveal())
	if err != nil {
		return nil, natsError("connect", err)
	}
	for _, set := range secure {
		if err := set(c); err != nil {
			return nil, natsError("read the certificates", err)
		}
	}
	d := &natsDialer{ctx: ctx}
	l := &natsLink{refused: make(chan error, 1)}
	c.Name, c.AllowReconnect, c.IgnoreDiscoveredServers, c.CustomDialer = "barong", false, true, d
	c.Timeout, c.PingInterval = dialTime, heartbeat
	c.AsyncErrorCB = func(_ *nats.Conn, _ *nats.Subscription, err error) {
		select {
		case l.refused <- err:
		default:
		}
	}
	if text := o.Credentials.Reveal(); text != "" {
		if err := nats.UserCredentialBytes([]byte(text))(c); err != nil {
			return nil, natsError("read the credentials", errors.New("they are malformed"))
		}
	}
	l.conn, err = c.Connect()
	d.release()
	if err != nil {
		return nil, natsError("connect", cause(ctx, err))
	}
	return l, nil
}

// answerTime is how long a stream that is there may take to acknowledge before it is looked for.
const answerTime = 3 * time.Second

// dialTime is how long one server is waited for when a connection is made.
const dialTime = 4 * time.Second

// A natsDialer dials until its context ends, which closes what is not connected by then.
type natsDialer struct {
	ctx context.Context

	mu      sync.Mutex
	watches []func() bool
}

// Dial connects to one server.
func (d *natsDialer) Dial(network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(d.ctx, dialTime)
	defer cancel()
	socket, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err == nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.watches = append(d.watches, closeWith(d.ctx, socket))
	}
	return socket, err
}

// release ends the watch over the context.
func (d *natsDialer) release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, end := range d.watches {
		end()
	}
}

// server is the server's name for people.
func (l *natsLink) server() string { return "nats-server " + l.conn.ConnectedServerVersion() }

// A streamError is an error that JetStream answers with.
type streamError struct {
	Status      int    `json:"code"`
	Code        int    `json:"err_code"`
	Description string `json:"description"`
}

func (e *streamError) Error() string {
	return e.Description + " (" + strconv.Itoa(e.Code) + ")"
}

// ask sends a message and waits for JetStream's answer, which it reads into out unless that is nil. What the server says of
// the message apart from it, as when it must not be sent, ends the wait.
func (l *natsLink) ask(ctx context.Context, m *nats.Msg, out any) error {
	select {
	case <-l.refused: // of an earlier one
	default:
	}
	within, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case err := <-l.refused:
			cancel(err)
		case <-done:
		}
	}()
	answer, err := l.conn.RequestMsgWithContext(within, m)
	if err != nil {
		if within.Err() != nil && ctx.Err() == nil {
			return context.Cause(within)
		}
		return cause(ctx, err)
	}
	var refusal struct {
		Error *streamError `json:"error"`
	}
	if err := json.Unmarshal(answer.Data, &refusal); err != nil {
		return errors.New("the answer is not JetStream's")
	}
	if refusal.Error != nil {
		return refusal.Error
	}
	if out != nil {
		return json.Unmarshal(answer.Data, out)
	}
	return nil
}

// publish sends a message and waits until the stream has it.
func (l *natsLink) publish(ctx context.Context, m *nats.Msg) error {
	var ack struct {
		Stream   string `json:"stream"`
		Sequence uint64 `json:"seq"`
	}
	err := l.ask(ctx, m, &ack)
	var refusal *streamError
	switch {
	case err == nil && (ack.Stream == "" || ack.Sequence == 0):
		return natsError("publish", errors.New("somebody answers who is no stream"))
	case err == nil:
		return nil
	case errors.Is(err, nats.ErrMaxPayload), errors.As(err, &refusal) && refusal.Code == messageTooLarge:
		return outbox.Permanent(natsError("publish", err)) // it must not hold back the others
	case errors.As(err, &refusal) && refusal.Code == otherStream:
		return natsError("publish (the subject is another stream's: name that one in BARONG_EVENT_API_NATS_STREAM)", err)
	}
	return natsError("publish", err)
}

// untaken reports that no stream takes a subject. It does not where that cannot be told: a user may have no right to ask.
func (l *natsLink) untaken(ctx context.Context, subject string) bool {
	text, err := json.Marshal(map[string]string{"subject": subject})
	if err != nil {
		return false
	}
	within, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	var found struct {
		Streams []string `json:"streams"`
	}
	err = l.ask(within, &nats.Msg{Subject: "$JS.API.STREAM.NAMES", Data: text}, &found)
	return err == nil && len(found.Streams) == 0
}

// create makes a stream. That another replica has just made it is no error.
func (l *natsLink) create(ctx context.Context, stream, subjects string) error {
	text, err := json.Marshal(map[string]any{
		"name": stream, "subjects": []string{subjects}, "retention": "limits", "storage": "file", "discard": "old", "num_replicas": 1,
		"max_consumers": -1, "max_msgs": -1, "max_bytes": -1, "max_msg_size": -1, "max_msgs_per_subject": -1,
		"max_age": streamAge.Nanoseconds(), "duplicate_window": repeated.Nanoseconds(),
	})
	if err != nil {
		return err
	}
	err = l.ask(ctx, &nats.Msg{Subject: "$JS.API.STREAM.CREATE." + stream, Data: text}, nil)
	var refusal *streamError
	switch {
	case errors.As(err, &refusal) && refusal.Code == streamNameTaken:
		return natsError("make the stream (one of that name takes other subjects: have it take "+subjects+" too)", err)
	case errors.As(err, &refusal) && refusal.Code == subjectsOverlap:
		return natsError("make the stream (another one takes its subjects: name that one in BARONG_EVENT_API_NATS_STREAM)", err)
	case errors.Is(err, nats.ErrNoResponders):
		return natsError("make the stream", errors.New("JetStream not enabled"))
	case err != nil:
		return natsError("make the stream", err)
	}
	return nil
}

func natsError(what string, err error) error { return fmt.Errorf("NATS: %s: %w", what, err) }
