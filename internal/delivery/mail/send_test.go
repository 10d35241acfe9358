package mail

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	netmail "net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"barong/db"
	"barong/internal/crypto/secret"
	"barong/internal/delivery/outbox"
	"barong/internal/limit"
	"barong/internal/test/dbtest"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// mailServer is a real SMTP server on loopback.
type mailServer struct {
	host string
	port int

	sessions atomic.Int64
	refuse   func(to string) error

	mu    sync.Mutex
	mails []received
}

type received struct {
	from, to, login string
	tls             bool
	data            []byte
}

type dialogue struct {
	s               *mailServer
	c               *smtp.Conn
	from, to, login string
}

func (d *dialogue) Reset()                                      { d.from, d.to = "", "" }
func (d *dialogue) Logout() error                               { return nil }
func (d *dialogue) Mail(from string, _ *smtp.MailOptions) error { d.from = from; return nil }

func (d *dialogue) Rcpt(to string, _ *smtp.RcptOptions) error {
	d.to = to
	if d.s.refuse != nil {
		return d.s.refuse(to)
	}
	return nil
}

func (d *dialogue) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	_, secure := d.c.TLSConnectionState()
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	d.s.mails = append(d.s.mails, received{d.from, d.to, d.login, secure, raw})
	return nil
}

func (d *dialogue) AuthMechanisms() []string { return []string{sasl.Plain} }

func (d *dialogue) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != "barong" || password != "Tecohvi0" {
			return smtp.ErrAuthFailed
		}
		d.login = user
		return nil
	}), nil
}

func (s *mailServer) got() []received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]received(nil), s.mails...)
}

// serve starts a server; with a certificate it offers STARTTLS.
func serve(t *testing.T, certificate *tls.Config, change ...func(*smtp.Server)) *mailServer {
	return serveOver(t, certificate, false, change...)
}

// serveOver starts a server that speaks TLS from the start, or like serve.
func serveOver(t *testing.T, certificate *tls.Config, fromTheStart bool, change ...func(*smtp.Server)) *mailServer {
	t.Helper()
	s := &mailServer{host: "127.0.0.1"}
	server := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		s.sessions.Add(1)
		return &dialogue{s: s, c: c}, nil
	}))
	server.Domain, server.AllowInsecureAuth, server.TLSConfig, server.EnableSMTPUTF8 = "mail.test", certificate == nil, certificate, true
	for _, f := range change {
		f(server)
	}
	server.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.port = l.Addr().(*net.TCPAddr).Port
	if fromTheStart {
		l = tls.NewListener(l, certificate)
	}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return s
}

// certificate makes a key pair for 127.0.0.1, for the server and for a client that trusts it.
func certificate(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mail.test"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		&tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}
}

func sender(t *testing.T, o SenderOptions) Sender {
	t.Helper()
	if o.FromEmail == "" {
		o.FromName, o.FromEmail = "Barong", "noreply@barong.io"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s, err := NewSender(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func message(t *testing.T, kind, language, to string) Message {
	t.Helper()
	m, err := renderer(t, RendererOptions{}).Render(kind, language, Data{Email: to, Token: token})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// parts reads a mail back: its header and the decoded parts by type.
func parts(t *testing.T, raw []byte) (netmail.Header, map[string]string) {
	t.Helper()
	m, err := netmail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatalf("%v\n%s", err, raw)
	}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/alternative" {
		t.Fatalf("content type %q, %v", kind, err)
	}
	out := map[string]string{}
	r := multipart.NewReader(m.Body, params["boundary"])
	for {
		p, err := r.NextRawPart()
		if err == io.EOF {
			return m.Header, out
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(quotedprintable.NewReader(p))
		if err != nil {
			t.Fatal(err)
		}
		kind, _, _ := mime.ParseMediaType(p.Header.Get("Content-Type"))
		out[kind] = strings.ReplaceAll(string(body), "\r\n", "\n")
	}
}

func checkMail(t *testing.T, raw []byte, m Message) {
	t.Helper()
	header, body := parts(t, raw)
	subject, err := new(mime.WordDecoder).DecodeHeader(header.Get("Subject"))
	if err != nil || subject != m.Subject {
		t.Errorf("subject %q, %v", subject, err)
	}
	if from, err := netmail.ParseAddress(header.Get("From")); err != nil || from.Name != "Barong" || from.Address != "noreply@barong.io" {
		t.Errorf("from %v, %v", from, err)
	}
	if to, err := netmail.ParseAddress(header.Get("To")); err != nil || to.Address != m.To {
		t.Errorf("to %v, %v", to, err)
	}
	if id := header.Get("Message-Id"); id != "<"+m.ID+"@barong.io>" {
		t.Errorf("id %s", id)
	}
	if at, err := header.Date(); err != nil || at.Unix() != m.Date.Unix() {
		t.Errorf("date %v, %v", at, err)
	}
	if body["text/plain"] != m.Text {
		t.Errorf("text %q\nwant %q", body["text/plain"], m.Text)
	}
	if strings.TrimSpace(body["text/html"]) != strings.TrimSpace(m.HTML) {
		t.Errorf("HTML %q", body["text/html"])
	}
	if found := inLink.FindStringSubmatch(body["text/plain"]); m.Kind == Confirmation && (found == nil || found[1] != token) {
		t.Errorf("the token is not found: %v", found)
	}
}

func TestSendOverPlainSMTP(t *testing.T) {
	s := serve(t, nil)
	c := sender(t, SenderOptions{Host: s.host, Port: s.port})
	for _, to := range []string{"ann@example.com", "ünï@example.com", "o'brien+tag@localhost", "{x}|y@example.com"} {
		m := message(t, Confirmation, "ru", to)
		if err := c.Send(t.Context(), m); err != nil {
			t.Fatalf("%s: %v", to, err)
		}
		mails := s.got()
		last := mails[len(mails)-1]
		if last.to != to || last.from != "noreply@barong.io" || last.tls {
			t.Errorf("envelope %+v", last)
		}
		checkMail(t, last.data, m)
	}
	if n := s.sessions.Load(); n != 1 {
		t.Errorf("%d connections for mails in a row", n)
	}
}

func TestSendWithSTARTTLSAndLogin(t *testing.T) {
	server, client := certificate(t)
	s := serve(t, server)
	c := sender(t, SenderOptions{Host: s.host, Port: s.port, User: "barong", Password: "Tecohvi0", TLS: client})
	m := message(t, SessionCreated, "en", "ann@example.com")
	if err := c.Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	got := s.got()[0]
	if !got.tls || got.login != "barong" {
		t.Errorf("%+v", got)
	}
	checkMail(t, got.data, m)

	wrong := sender(t, SenderOptions{Host: s.host, Port: s.port, User: "barong", Password: "wrong", TLS: client})
	if err := wrong.Send(t.Context(), m); err == nil || outbox.IsPermanent(err) {
		t.Errorf("wrong password: %v", err)
	}
	untrusting := sender(t, SenderOptions{Host: s.host, Port: s.port})
	if err := untrusting.Send(t.Context(), m); err == nil || outbox.IsPermanent(err) {
		t.Errorf("unknown certificate: %v", err)
	}
	if n := len(s.got()); n != 1 {
		t.Errorf("%d mails", n)
	}
}

// TestSecurity tries every way on every kind of server.
func TestSecurity(t *testing.T) {
	server, client := certificate(t)
	plain, starttls, implicit := serve(t, nil), serve(t, server), serveOver(t, server, true)
	for _, c := range []struct {
		name  string
		s     *mailServer
		mode  Security
		user  string
		sent  bool
		inTLS bool
	}{
		{"plain", plain, Auto, "", true, false},
		{"plain", plain, STARTTLS, "", false, false},
		{"plain", plain, Implicit, "", false, false},
		{"plain", plain, Off, "", true, false},
		{"plain", plain, Off, "barong", true, false},
		{"STARTTLS", starttls, "", "barong", true, true},
		{"STARTTLS", starttls, Auto, "barong", true, true},
		{"STARTTLS", starttls, STARTTLS, "barong", true, true},
		{"STARTTLS", starttls, Implicit, "", false, false},
		{"STARTTLS", starttls, Off, "", true, false},
		{"STARTTLS", starttls, Off, "barong", false, false}, // this server wants TLS before a login
		{"TLS", implicit, Auto, "", false, false},
		{"TLS", implicit, STARTTLS, "", false, false},
		{"TLS", implicit, Implicit, "barong", true, true},
		{"TLS", implicit, Off, "", false, false},
	} {
		o := SenderOptions{Host: c.s.host, Port: c.s.port, Security: c.mode, User: c.user, TLS: client}
		if c.user != "" {
			o.Password = "Tecohvi0"
		}
		if !c.sent {
			o.Timeout = 300 * time.Millisecond // who waits for the other's first word waits in vain
		}
		before := len(c.s.got())
		err := sender(t, o).Send(t.Context(), message(t, SessionCreated, "en", "ann@example.com"))
		got := c.s.got()[before:]
		if !c.sent {
			if err == nil || outbox.IsPermanent(err) || len(got) > 0 {
				t.Errorf("%s server, %q, user %q: %v, %d mails", c.name, c.mode, c.user, err, len(got))
			}
			continue
		}
		if err != nil || len(got) != 1 || got[0].tls != c.inTLS || got[0].login != c.user {
			t.Errorf("%s server, %q, user %q: %v, %+v", c.name, c.mode, c.user, err, got)
		}
	}
	// Verified as well.
	o := SenderOptions{Host: implicit.host, Port: implicit.port, Security: Implicit}
	if err := sender(t, o).Send(t.Context(), message(t, SessionCreated, "en", "ann@example.com")); err == nil {
		t.Error("an unknown certificate is trusted")
	}
	for _, c := range []struct {
		mode Security
		port int
		want bool
	}{{Auto, 465, true}, {"", 465, true}, {Auto, 587, false}, {Implicit, 25, true}, {STARTTLS, 465, false}, {Off, 465, false}} {
		if got := c.mode.FromTheStart(c.port); got != c.want {
			t.Errorf("%q at %d: from the start %v", c.mode, c.port, got)
		}
	}
}

func TestSendWithLoginToThisMachineWithoutTLS(t *testing.T) {
	s := serve(t, nil)
	c := sender(t, SenderOptions{Host: s.host, Port: s.port, User: "barong", Password: "Tecohvi0"})
	if err := c.Send(t.Context(), message(t, SessionCreated, "en", "ann@example.com")); err != nil {
		t.Fatal(err)
	}
	if got := s.got()[0]; got.login != "barong" {
		t.Errorf("%+v", got)
	}
}

func TestRefusalsAreFinalOnlyForTheRecipient(t *testing.T) {
	s := serve(t, nil)
	s.refuse = func(to string) error {
		switch to {
		case "gone@example.com":
			return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
		case "full@example.com":
			return &smtp.SMTPError{Code: 452, EnhancedCode: smtp.EnhancedCode{4, 2, 2}, Message: "mailbox full"}
		}
		return nil
	}
	c := sender(t, SenderOptions{Host: s.host, Port: s.port})
	for to, permanent := range map[string]bool{"gone@example.com": true, "full@example.com": false} {
		if err := c.Send(t.Context(), message(t, SessionCreated, "en", to)); err == nil || outbox.IsPermanent(err) != permanent {
			t.Errorf("%s: %v", to, err)
		}
	}
	m := message(t, SessionCreated, "en", "ann@example.com")
	if err := c.Send(t.Context(), m); err != nil {
		t.Errorf("after refusals: %v", err)
	}
	for _, to := range []string{"a@b.io\r\nBcc: x@y.io", "", "no address", strings.Repeat("a", 400) + "@b.io"} {
		m.To = to
		if err := c.Send(t.Context(), m); err == nil || !outbox.IsPermanent(err) {
			t.Errorf("%q: %v", to, err)
		}
	}
	if n := len(s.got()); n != 1 {
		t.Errorf("%d mails", n)
	}
}

func TestHeadersCannotBeInjected(t *testing.T) {
	s := serve(t, nil)
	c := sender(t, SenderOptions{Host: s.host, Port: s.port, FromName: "Ann\r\nBcc: x@y.io", FromEmail: "noreply@barong.io"})
	m := message(t, SessionCreated, "en", "ann@example.com")
	m.Subject = "Hello\r\nBcc: x@y.io\r\n\r\nbody"
	if err := c.Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	header, _ := parts(t, s.got()[0].data)
	if header.Get("Bcc") != "" || header.Get("Subject") != "Hello Bcc: x@y.io body" {
		t.Errorf("%v", header)
	}
	for _, o := range []SenderOptions{{FromEmail: "a@b.io\r\nBcc: x@y.io", Host: s.host, Port: s.port}, {FromEmail: "nobody"}, {FromEmail: ""}} {
		if _, err := NewSender(o); err == nil {
			t.Errorf("sender %q is accepted", o.FromEmail)
		}
	}
}

func TestAServerThatHangsUpMeanwhile(t *testing.T) {
	s := serve(t, nil)
	c := sender(t, SenderOptions{Host: s.host, Port: s.port})
	m := message(t, SessionCreated, "en", "ann@example.com")
	for range 3 {
		if err := c.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		for _, kept := range c.(*server).idle {
			kept.hangUp()
		}
	}
	if n := len(s.got()); n != 3 {
		t.Errorf("%d mails", n)
	}
}

func TestNoServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // accepts, and never says a word
	silent := l.Addr().(*net.TCPAddr).Port
	c := sender(t, SenderOptions{Host: "127.0.0.1", Port: silent})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.Send(ctx, message(t, SessionCreated, "en", "ann@example.com")); err == nil || outbox.IsPermanent(err) {
		t.Errorf("silent server: %v", err)
	}
	l.Close()
	if err := c.Send(t.Context(), message(t, SessionCreated, "en", "ann@example.com")); err == nil || outbox.IsPermanent(err) {
		t.Errorf("no server: %v", err)
	}
}

func TestFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "outbox")
	var log bytes.Buffer
	c := sender(t, SenderOptions{Folder: dir, Log: slog.New(slog.NewTextHandler(&log, nil))})
	m := message(t, Confirmation, "en", "ann@example.com")
	for range 2 {
		if err := c.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 2 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil || info.Mode().Perm() != 0o600 || filepath.Ext(f.Name()) != ".eml" {
			t.Errorf("%s %v %v", f.Name(), info.Mode(), err)
		}
		raw, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		checkMail(t, raw, m)
	}
	if lines := strings.Count(log.String(), "\n"); lines != 2 || strings.Contains(log.String(), token) || !strings.Contains(log.String(), Confirmation) {
		t.Errorf("log: %s", log.String())
	}
}

func TestThroughTheOutbox(t *testing.T) {
	s := serve(t, nil)
	box, err := secret.New("b3V0Ym94IHRlc3RzIHNlYWwgd2l0aCB0aGlzIGtleSE=")
	if err != nil {
		t.Fatal(err)
	}
	d := dbtest.Open(t, "sqlite", db.Options{Sealer: box})
	b, err := outbox.New(outbox.Options{
		Store: d, Kinds: map[string]outbox.Kind{OutboxKind: {Handler: Handler(sender(t, SenderOptions{Host: s.host, Port: s.port}), limit.Off, nil)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	m := message(t, Confirmation, "en", "ann@example.com")
	if err := d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error { return Enqueue(ctx, tx, m) }); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); len(s.got()) == 0 && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := s.got()
	if len(got) != 1 {
		t.Fatalf("%d mails", len(got))
	}
	checkMail(t, got[0].data, m)
	if err := Handler(nil, limit.Off, nil)(t.Context(), "", []byte("{")); err == nil || !outbox.IsPermanent(err) {
		t.Errorf("unreadable: %v", err)
	}
}

// A post counts what is sent, and fails while it is told to.
type post struct {
	sent []string
	fail error
}

func (p *post) Send(_ context.Context, m Message) error {
	if p.fail == nil {
		p.sent = append(p.sent, m.To)
	}
	return p.fail
}

func (p *post) Close() error { return nil }

// TestTenMailsInTenMinutes holds that one mailbox gets so many, whatever their kinds and its spelling, and others get theirs.
func TestTenMailsInTenMinutes(t *testing.T) {
	d := dbtest.Open(t, "sqlite", db.Options{})
	now := time.Now()
	counters := limit.SQL(d, limit.Options{Hash: func(value, _ string) string { return value }, Now: func() time.Time { return now }})
	p := &post{}
	var dropped []string
	handle := Handler(p, counters, func(kind string) { dropped = append(dropped, kind) })
	send := func(kind, to string) error {
		t.Helper()
		payload, err := json.Marshal(Message{Kind: kind, To: to})
		if err != nil {
			t.Fatal(err)
		}
		return handle(t.Context(), kind, payload)
	}
	p.fail = errors.New("no server")
	for range 20 { // what was not sent does not count
		if err := send(Confirmation, "ann.lee@example.com"); !errors.Is(err, p.fail) {
			t.Fatal(err)
		}
	}
	p.fail = nil
	for i := range 12 {
		to := []string{"ann.lee@example.com", "Ann.Lee@Example.com", "annlee+a@example.com", "ann.lee+b.c@example.com"}[i%4]
		if err := send(kinds[i], to); err != nil {
			t.Fatal(err)
		}
	}
	for _, to := range []string{"bob@example.com", "ann.lee@other.example"} {
		if err := send(Confirmation, to); err != nil {
			t.Fatal(err)
		}
	}
	if len(p.sent) != 12 || !slices.Equal(dropped, kinds[10:12]) {
		t.Errorf("sent %v, dropped %v", p.sent, dropped)
	}
	now = now.Add(10 * time.Minute)
	if err := send(Confirmation, "ann.lee@example.com"); err != nil || len(p.sent) != 13 {
		t.Errorf("ten minutes later: %v, %d sent", err, len(p.sent))
	}
	d.Close()
	if err := send(Confirmation, "ann.lee@example.com"); err == nil || len(p.sent) != 13 {
		t.Errorf("without its counters: %v, %d sent", err, len(p.sent))
	}
}

// TestInternationalAddresses: a domain goes to the server by its A-labels; what stands before the "@" goes as it is, to
// servers that take it, and nowhere else.
func TestInternationalAddresses(t *testing.T) {
	modern := serve(t, nil)
	old := serve(t, nil, func(s *smtp.Server) { s.EnableSMTPUTF8 = false })
	for _, c := range []struct {
		server     *mailServer
		to, rcpt   string
		impossible bool
	}{
		{modern, "u@bücher.example", "u@xn--bcher-kva.example", false},
		{old, "u@bücher.example", "u@xn--bcher-kva.example", false},
		{old, "u@пример.рф", "u@xn--e1afmkfd.xn--p1ai", false},
		{modern, "josé@bücher.example", "josé@xn--bcher-kva.example", false},
		{old, "josé@bücher.example", "", true},
		{old, "josé@example.com", "", true},
		{old, "u@bü_cher.example", "", true},
		{old, "jose@example.com", "jose@example.com", false},
	} {
		s := sender(t, SenderOptions{Host: c.server.host, Port: c.server.port, FromName: "Barong", FromEmail: "noreply@bücher.example"})
		before := len(c.server.got())
		err := s.Send(t.Context(), message(t, OTPEnabled, "en", c.to))
		got := c.server.got()[before:]
		if c.impossible {
			if !outbox.IsPermanent(err) || len(got) != 0 {
				t.Errorf("%s: %v, %d mails", c.to, err, len(got))
			}
			if err := s.Send(t.Context(), message(t, OTPEnabled, "en", "next@example.com")); err != nil {
				t.Errorf("the mail after it: %v", err)
			}
			continue
		}
		if err != nil || len(got) != 1 || got[0].to != c.rcpt || got[0].from != "noreply@xn--bcher-kva.example" {
			t.Errorf("%s: %+v, %v", c.to, got, err)
		}
	}
}
