package mail

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	netmail "net/mail"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"

	"barong/internal/delivery/outbox"
	"barong/internal/email"
	"barong/internal/trusted"

	gomail "github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"
)

// SenderOptions are what NewSender needs.
type SenderOptions struct {
	FromName, FromEmail string

	// Host and Port are the SMTP server's. With a User the client authenticates, by a mechanism that shows the password only
	// over TLS, to this machine, or where Security is Off.
	Host           string
	Port           int
	User, Password string
	Security       Security      // default Auto
	TLS            *tls.Config   // default: the host's certificate is verified against the system's authorities
	Timeout        time.Duration // of connecting, and of each mail; default 15 s

	// Folder is where mails go as .eml files when Host is empty.
	Folder string
	Log    *slog.Logger // default slog.Default()
}

// Security is how the way to the server is encrypted.
type Security string

// The ways.
const (
	Auto     Security = "auto"     // from the beginning on port 465, else by STARTTLS when it is offered
	STARTTLS Security = "starttls" // by STARTTLS, or nothing is sent
	Implicit Security = "implicit" // from the beginning
	Off      Security = "off"      // never, also when STARTTLS is offered
)

// FromTheStart reports whether the way is encrypted from the beginning at a port.
func (s Security) FromTheStart(port int) bool {
	return s == Implicit || (s == Auto || s == "") && port == 465
}

// policy is what is done about STARTTLS.
func (s Security) policy() gomail.TLSPolicy {
	switch s {
	case STARTTLS:
		return gomail.TLSMandatory
	case Off, Implicit:
		return gomail.NoTLS
	}
	return gomail.TLSOpportunistic
}

// NewSender returns a Sender over SMTP, or into a folder when no host is set. It does not connect yet.
func NewSender(o SenderOptions) (Sender, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Timeout <= 0 {
		o.Timeout = 15 * time.Second
	}
	if _, err := o.compose(Message{To: "a@example.com", ID: "0"}); err != nil {
		return nil, fmt.Errorf("mail sender: %w", err)
	}
	if o.Host == "" {
		if err := os.MkdirAll(o.Folder, 0o700); err != nil {
			return nil, fmt.Errorf("mail folder: %w", err)
		}
		return &folder{o}, nil
	}
	if _, _, err := (&server{o: o}).client(); err != nil {
		return nil, fmt.Errorf("mail server: %w", err)
	}
	return &server{o: o}, nil
}

// compose builds the MIME message.
func (o *SenderOptions) compose(m Message) (*gomail.Msg, error) {
	msg := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	from, _ := email.ASCIIDomain(o.FromEmail)
	if err := msg.FromFormat(oneLine(o.FromName, 200), from); err != nil {
		return nil, err
	}
	if oneLine(m.To, 320) != m.To {
		return nil, outbox.Permanent(errors.New("the recipient's address has line breaks or is too long"))
	}
	to, ok := email.ASCIIDomain(m.To) // mail servers know domains by their A-labels
	if !ok {
		return nil, outbox.Permanent(errors.New("the domain of the recipient's address is none"))
	}
	// Address.String quotes a local part where mail needs it and an account's address does not.
	if err := msg.To((&netmail.Address{Address: to}).String()); err != nil {
		return nil, outbox.Permanent(errors.New("the recipient's address is not one"))
	}
	_, domain, _ := strings.Cut(from, "@")
	msg.SetMessageIDWithValue(m.ID + "@" + domain)
	msg.SetDateWithValue(m.Date)
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: no holiday replies, please
	msg.Subject(oneLine(m.Subject, 200))
	msg.SetBodyString(gomail.TypeTextPlain, m.Text)
	msg.AddAlternativeString(gomail.TypeTextHTML, m.HTML)
	return msg, nil
}

// server sends over SMTP, and keeps connections for a moment: mails often come in groups.
type server struct {
	o SenderOptions

	mu     sync.Mutex
	idle   []*connection
	closed bool
}

// A connection is one dialogue with the server.
type connection struct {
	client *gomail.Client
	smtp   *smtp.Client
	hangUp func()
	expire *time.Timer // closes it when nobody has taken it
}

const (
	maxIdle  = 4
	idleTime = 20 * time.Second // servers hang up after minutes, proxies sooner
)

// client configures a connection. The function hangs up whatever it has dialled.
func (s *server) client() (*gomail.Client, func(), error) {
	var mu sync.Mutex
	var conn net.Conn
	hangUp := func() {
		mu.Lock()
		defer mu.Unlock()
		if conn != nil {
			conn.Close()
		}
	}
	opts := []gomail.Option{
		gomail.WithPort(s.o.Port), gomail.WithTimeout(s.o.Timeout), gomail.WithTLSPolicy(s.o.Security.policy()),
	}
	if s.o.TLS != nil {
		opts = append(opts, gomail.WithTLSConfig(s.o.TLS))
	}
	dial := new(net.Dialer).DialContext
	fromTheStart := s.o.Security.FromTheStart(s.o.Port)
	if fromTheStart {
		opts = append(opts, gomail.WithSSL())
		dial = (&tls.Dialer{Config: s.o.TLS}).DialContext
	}
	opts = append(opts, gomail.WithDialContextFunc(func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		mu.Lock()
		defer mu.Unlock()
		conn = c
		return c, nil
	}))
	if s.o.User != "" {
		opts = append(opts, gomail.WithUsername(s.o.User), gomail.WithPassword(s.o.Password))
		switch {
		case trusted.Loopback(s.o.Host) || s.o.Security == Off:
			opts = append(opts, gomail.WithOpportunisticSMTPAuth(gomail.SMTPAuthSCRAMSHA256, gomail.SMTPAuthSCRAMSHA1,
				gomail.SMTPAuthCramMD5, gomail.SMTPAuthPlainNoEnc, gomail.SMTPAuthLoginNoEnc))
		case fromTheStart: // the library does not see that a connection which it has not dialled is encrypted
			opts = append(opts, gomail.WithOpportunisticSMTPAuth(gomail.SMTPAuthSCRAMSHA256, gomail.SMTPAuthSCRAMSHA1,
				gomail.SMTPAuthCramMD5, gomail.SMTPAuthPlain, gomail.SMTPAuthLogin))
		default:
			opts = append(opts, gomail.WithSMTPAuth(gomail.SMTPAuthAutoDiscover))
		}
	}
	c, err := gomail.NewClient(s.o.Host, opts...)
	return c, hangUp, err
}

func (s *server) Send(ctx context.Context, m Message) error {
	msg, err := s.o.compose(m)
	if err != nil {
		return fmt.Errorf("mail %s: %w", m.Kind, err)
	}
	local, _ := cut(m.To)
	c, reused := s.take()
	for {
		if c == nil {
			if c, err = s.dial(ctx); err != nil {
				return fmt.Errorf("mail server: %w", err)
			}
		}
		if offered, _ := c.smtp.Extension("SMTPUTF8"); !offered && !ascii(local) {
			s.keep(c)
			return outbox.Permanent(fmt.Errorf("mail %s: the recipient's address is not ASCII before its \"@\", and the mail server does not offer SMTPUTF8", m.Kind))
		}
		stop := context.AfterFunc(ctx, c.hangUp)
		err = c.client.SendWithSMTPClient(c.smtp, msg)
		stop()
		var failed *gomail.SendError
		errors.As(err, &failed)
		switch {
		case err == nil:
			s.keep(c)
			return nil
		case msg.IsDelivered(): // what failed came after the server had accepted it
			c.hangUp()
			return nil
		case reused && failed != nil && failed.Reason == gomail.ErrConnCheck:
			c.hangUp() // the server had hung up meanwhile
			c, reused = nil, false
			continue
		}
		c.hangUp()
		err = fmt.Errorf("mail %s: %w", m.Kind, err)
		// A refusal of the recipient or of the content is final; one of the sender or the login is for the operator to mend.
		if failed != nil && !failed.IsTemp() && failed.ErrorCode() >= 500 &&
			(failed.Reason == gomail.ErrSMTPRcptTo || failed.Reason == gomail.ErrSMTPDataClose) {
			return outbox.Permanent(err)
		}
		return err
	}
}

func ascii(text string) bool {
	return strings.IndexFunc(text, func(r rune) bool { return r > unicode.MaxASCII }) < 0
}

func (s *server) dial(ctx context.Context) (*connection, error) {
	client, hangUp, err := s.client()
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, hangUp)
	defer stop()
	conn, err := client.DialToSMTPClientWithContext(ctx)
	if err != nil {
		hangUp()
		return nil, err
	}
	return &connection{client: client, smtp: conn, hangUp: hangUp}, nil
}

// take returns a kept connection, or nil.
func (s *server) take() (c *connection, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.idle) > 0 {
		c, s.idle = s.idle[len(s.idle)-1], s.idle[:len(s.idle)-1]
		if c.expire.Stop() {
			return c, true
		}
	}
	return nil, false
}

func (s *server) keep(c *connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.idle) >= maxIdle {
		go c.quit()
		return
	}
	c.expire = time.AfterFunc(idleTime, func() {
		s.mu.Lock()
		for i, other := range s.idle {
			if other == c {
				s.idle = append(s.idle[:i], s.idle[i+1:]...)
				break
			}
		}
		s.mu.Unlock()
		c.quit()
	})
	s.idle = append(s.idle, c)
}

func (c *connection) quit() {
	_ = c.client.CloseWithSMTPClient(c.smtp) // good manners; it is closed all the same
	c.hangUp()
}

// Close says goodbye on the kept connections.
func (s *server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, c := range s.idle {
		if c.expire.Stop() {
			c.quit()
		}
	}
	s.idle = nil
	return nil
}

// folder writes mails as files that any mail program opens.
type folder struct{ o SenderOptions }

func (f *folder) Send(_ context.Context, m Message) error {
	msg, err := f.o.compose(m)
	if err != nil {
		return fmt.Errorf("mail %s: %w", m.Kind, err)
	}
	var b strings.Builder
	if _, err := msg.WriteTo(&b); err != nil {
		return fmt.Errorf("mail %s: %w", m.Kind, err)
	}
	path, err := outbox.WriteFile(f.o.Folder, ".eml", b.String())
	if err != nil {
		return fmt.Errorf("mail %s: %w", m.Kind, err)
	}
	f.o.Log.Info("mail written to a file, for no SMTP server is set", "kind", m.Kind, "file", path)
	return nil
}

func (f *folder) Close() error { return nil }
