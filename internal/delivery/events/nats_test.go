package events_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"barong/api/account"
	"barong/db"
	"barong/internal/crypto/jws"
	"barong/internal/crypto/secret"
	"barong/internal/delivery/events"
	"barong/internal/delivery/events/amqptest"
	"barong/internal/delivery/outbox"
	"barong/internal/test/apitest"
	"barong/internal/test/testkit"
)

func natsOptions(url string) events.NATSOptions {
	return events.NATSOptions{
		URL: secret.URL(url), Subject: "barong.events", Stream: "barong", Signer: func() jws.Signer { return signing() },
		Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return noon },
	}
}

func natsPublisher(t *testing.T, o events.NATSOptions) *events.NATSPublisher {
	t.Helper()
	p, err := events.NewNATS(o)
	return opened(t, p, err)
}

// js speaks to the JetStream of a server.
func js(t *testing.T, url string, options ...nats.Option) jetstream.JetStream {
	t.Helper()
	conn, err := nats.Connect(url, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	out, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// stored are the messages of the stream.
func stored(t *testing.T, j jetstream.JetStream) (out []*jetstream.RawStreamMsg) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream, err := j.Stream(ctx, "barong")
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	info := stream.CachedInfo()
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq && info.State.Msgs > 0; seq++ {
		m, err := stream.GetMsg(ctx, seq)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, m)
	}
	return out
}

func subjects(all []*jetstream.RawStreamMsg) (out []string) {
	for _, m := range all {
		out = append(out, strings.TrimPrefix(m.Subject, "barong.events."))
	}
	return out
}

// deliverNATS is deliver, over NATS.
func deliverNATS(t *testing.T, d *db.DB, p *events.NATSPublisher, observe func(outcome string)) *outbox.Outbox {
	t.Helper()
	b, err := outbox.New(outbox.Options{
		Store: d, Kinds: map[string]outbox.Kind{events.NATSKind: events.Kind(p.Handle)}, Log: slog.New(slog.DiscardHandler),
		Poll: 10 * time.Millisecond, Backoff: 5 * time.Millisecond, MaxBackoff: 20 * time.Millisecond,
		Observe: func(_, outcome string) { observe(outcome) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return b
}

// natsItems are queued events of these names, as the outbox hands them to Handle.
func natsItems(t *testing.T, names ...string) (out [][]byte) {
	t.Helper()
	e := apitest.New(t, "sqlite")
	e.Update(t, func(ctx context.Context, tx *db.Tx) error {
		for _, name := range names {
			if err := events.Enqueue(ctx, tx, event(name), events.NATSKind); err != nil {
				return err
			}
		}
		return nil
	})
	items, err := e.DB.LeaseOutbox(t.Context(), events.NATSKind, 100, time.Minute, true)
	if err != nil || len(items) != len(names) {
		t.Fatal(items, err)
	}
	for _, item := range items {
		out = append(out, item.Payload)
	}
	return out
}

// TestNATS: events wait for a server that is not there, and leave in order when it is; a server that is killed or hangs loses
// none and gets none twice; one that cannot be read holds back no other.
func TestNATS(t *testing.T) {
	s := testkit.NATS(t, "")
	for _, engine := range []string{"sqlite", "postgres"} {
		t.Run(engine, func(t *testing.T) {
			both := []string{events.OutboxKind, events.NATSKind}
			e := apitest.New(t, engine, func(o *account.Options) {
				o.Publish = func(ctx context.Context, tx *db.Tx, e account.Event) error {
					return events.Enqueue(ctx, tx, events.Event(e), both...)
				}
			})
			s.Stop()
			p := natsPublisher(t, natsOptions(s.URL))
			var failed, delivered, dead atomic.Int64
			deliverNATS(t, e.DB, p, func(outcome string) {
				map[string]*atomic.Int64{"failed": &failed, "delivered": &delivered, "dead": &dead}[outcome].Add(1)
			})
			signUp(t, e, "a@barong.test")
			testkit.Eventually(t, time.Minute, func() bool { return failed.Load() >= 3 })
			s.Start(t)
			testkit.Eventually(t, time.Minute, func() bool { return delivered.Load() == 2 })
			j := js(t, s.URL)
			all := stored(t, j)
			want := []string{"model.user.created", "system.user.email.confirmation.token"}
			if !slices.Equal(subjects(all), want) {
				t.Fatalf("got %v", subjects(all))
			}
			// The message is the one that leaves over AMQP, with the same id.
			over := queued(t, e.DB)
			for i, m := range all {
				got := read(t, amqptest.Message{Body: m.Data})
				var sent struct {
					ID string `json:"jti"`
				}
				if err := json.Unmarshal(over[i].Payload, &sent); err != nil {
					t.Fatal(err)
				}
				if got.Event.Name != want[i] || m.Header.Get("Nats-Msg-Id") != got.ID || got.ID != sent.ID {
					t.Errorf("%s: %+v, header %v, over AMQP %s", m.Subject, got, m.Header, sent.ID)
				}
			}
			stream, err := j.Stream(t.Context(), "barong")
			if err != nil {
				t.Fatal(err)
			}
			if c := stream.CachedInfo().Config; c.Storage != jetstream.FileStorage || !slices.Equal(c.Subjects, []string{"barong.events.>"}) ||
				c.MaxAge != 7*24*time.Hour || c.Duplicates != 10*time.Minute {
				t.Errorf("the stream is %+v", c)
			}

			// Killed, with what it has on disk.
			s.Kill()
			before := failed.Load()
			enqueueNATS(t, e.DB, "model.one", "model.two")
			testkit.Eventually(t, time.Minute, func() bool { return failed.Load() > before })
			s.Start(t)
			testkit.Eventually(t, time.Minute, func() bool { return delivered.Load() == 4 })
			// What cannot be read is given up.
			e.Update(t, func(ctx context.Context, tx *db.Tx) error {
				return tx.Enqueue(ctx, events.NATSKind, "model.x", []byte("no JSON"))
			})
			enqueueNATS(t, e.DB, "model.three")
			testkit.Eventually(t, time.Minute, func() bool { return delivered.Load() == 5 && dead.Load() == 1 })
			if got := subjects(stored(t, js(t, s.URL))); !slices.Equal(got, append(want, "model.one", "model.two", "model.three")) {
				t.Errorf("got %v", got)
			}
			if err := js(t, s.URL).DeleteStream(t.Context(), "barong"); err != nil { // the next engine begins anew
				t.Fatal(err)
			}
		})
	}
}

func enqueueNATS(t *testing.T, d *db.DB, names ...string) {
	t.Helper()
	if err := d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
		for _, name := range names {
			if err := events.Enqueue(ctx, tx, event(name), events.NATSKind); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// TestNATSTwice: what comes again is in the stream once, also when nobody knows whether the server had it.
func TestNATSTwice(t *testing.T) {
	s := testkit.NATS(t, "")
	items := natsItems(t, "model.one", "model.two")
	p := natsPublisher(t, natsOptions(s.URL))
	for range 3 {
		if err := p.Handle(t.Context(), "model.one", items[0]); err != nil {
			t.Fatal(err)
		}
	}
	// A server that hangs: the attempt ends with its time, and the next one does not wait behind it.
	s.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := p.Handle(ctx, "model.two", items[1]); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a server that hangs: %v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := p.Handle(ctx, "model.two", items[1]); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a connection to a server that hangs: %v", err)
	}
	s.Resume()
	if err := p.Handle(t.Context(), "model.two", items[1]); err != nil {
		t.Fatal(err)
	}
	if got := subjects(stored(t, js(t, s.URL))); !slices.Equal(got, []string{"model.one", "model.two"}) {
		t.Errorf("got %v", got)
	}
}

// TestNATSListened: who listens without a stream is no stream: there is one after the first event.
func TestNATSListened(t *testing.T) {
	s := testkit.NATS(t, "")
	j := js(t, s.URL)
	if _, err := j.Conn().Subscribe("barong.events.>", func(*nats.Msg) {}); err != nil {
		t.Fatal(err)
	}
	if err := j.Conn().Flush(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := natsPublisher(t, natsOptions(s.URL)).Handle(ctx, "", natsItems(t, "model.one")[0]); err != nil {
		t.Fatal(err)
	}
	if got := subjects(stored(t, j)); !slices.Equal(got, []string{"model.one"}) {
		t.Errorf("got %v", got)
	}
}

// TestNATSRefuses: what stands in the way is named, without secrets, and is no reason to give an event up unless it is the event.
func TestNATSRefuses(t *testing.T) {
	items := natsItems(t, "model.one")
	large := natsItems(t, "model."+strings.Repeat("x", 200)) // its message is above what one stream takes
	s := testkit.NATS(t, `
accounts {
  events { jetstream: enabled, users: [
    { user: barong, password: "p@ss/word" }
    { user: deaf, password: secret9, permissions: { publish: { deny: "barong.>" } } }
    { user: small, password: secret9, permissions: { publish: { deny: "$JS.API.STREAM.CREATE.>" } } }
  ] }
  plain { users: [ { user: plain, password: secret9 } ] }
}
jetstream: { store_dir: data }
max_payload: 4096
`)
	refused := func(what string, o events.NATSOptions, payload []byte, permanent bool, want string) {
		t.Helper()
		p := natsPublisher(t, o)
		began := time.Now()
		err := p.Handle(t.Context(), "model.one", payload)
		if err == nil || !strings.Contains(err.Error(), want) || outbox.IsPermanent(err) != permanent {
			t.Errorf("%s: %v, want %q, permanent %v", what, err, want, permanent)
		}
		if err != nil && (strings.Contains(err.Error(), "secret9") || strings.Contains(err.Error(), "word")) {
			t.Errorf("%s: %v", what, err)
		}
		if time.Since(began) > 30*time.Second {
			t.Errorf("%s: it took %v to be told", what, time.Since(began))
		}
	}
	as := func(login string) events.NATSOptions { return natsOptions("nats://" + login + "@" + s.Addr) }
	refused("nobody there", natsOptions(fmt.Sprintf("nats://u:secret9@127.0.0.1:%d", testkit.FreePort(t))), items[0], false, "NATS: connect: ")
	refused("a wrong password", as("barong:secret9x"), items[0], false, "Authorization Violation")
	refused("no user", natsOptions(s.URL), items[0], false, "Authorization Violation")
	refused("no right to publish", as("deaf:secret9"), items[0], false, "ermissions Violation")
	refused("no right to make the stream", as("small:secret9"), items[0], false, "make the stream: ")
	refused("no JetStream", as("plain:secret9"), items[0], false, "JetStream not enabled")
	j := js(t, s.URL, nats.UserInfo("barong", "p@ss/word"))
	have := func(c jetstream.StreamConfig) {
		t.Helper()
		if _, err := j.CreateOrUpdateStream(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	right := as("barong:p%40ss%2Fword")
	have(jetstream.StreamConfig{Name: "barong", Subjects: []string{"other.>"}})
	refused("a stream of other subjects", right, items[0], false, "have it take barong.events.> too")
	have(jetstream.StreamConfig{Name: "theirs", Subjects: []string{"barong.events.model.>"}})
	refused("another stream", right, items[0], false, "BARONG_EVENT_API_NATS_STREAM")
	theirs := right
	theirs.Stream = "theirs"
	have(jetstream.StreamConfig{Name: "theirs", Subjects: []string{"barong.events.model.>"}, MaxMsgSize: 300})
	refused("a message too large for the stream", theirs, items[0], true, "message size exceeds maximum")
	have(jetstream.StreamConfig{Name: "theirs", Subjects: []string{"barong.events.model.>"}, MaxMsgSize: -1, MaxMsgs: 1, Discard: jetstream.DiscardNew})
	if err := natsPublisher(t, theirs).Handle(t.Context(), "", items[0]); err != nil {
		t.Fatal(err)
	}
	refused("a stream that is full", theirs, large[0], false, "maximum messages exceeded")
	// A stream of the operator's is left as it is.
	stream, err := j.Stream(t.Context(), "theirs")
	if err != nil {
		t.Fatal(err)
	}
	if c := stream.CachedInfo().Config; c.MaxMsgs != 1 || c.Discard != jetstream.DiscardNew {
		t.Errorf("the stream became %+v", c)
	}
	// Whoever answers in the place of a stream takes nothing off the queue.
	conn := j.Conn()
	for subject, answer := range map[string]string{"odd.events.>": "{}", "rude.events.>": "+OK"} {
		sub, err := conn.Subscribe(subject, func(m *nats.Msg) { _ = m.Respond([]byte(answer)) })
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = sub.Unsubscribe() }()
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	odd, rude := right, right
	odd.Subject, rude.Subject = "odd.events", "rude.events"
	refused("somebody else", odd, items[0], false, "who is no stream")
	refused("somebody rude", rude, items[0], false, "not JetStream's")
	for o, want := range map[*events.NATSOptions]string{
		&theirs: "nats-server 2.", {URL: secret.URL("nats://plain:secret9@" + s.Addr), Stream: "barong", Subject: "a"}: "JetStream not enabled",
		{URL: right.URL, Stream: "nowhere", Subject: "a"}: "which will have the stream nowhere",
	} {
		got, err := events.ProbeNATS(t.Context(), *o)
		if said := got + fmt.Sprint(err); !strings.Contains(said, want) || strings.Contains(said, "secret9") {
			t.Errorf("a look at it: %s", said)
		}
	}
}

func TestValidateNATS(t *testing.T) {
	for _, url := range []string{
		"nats://localhost", "nats://localhost:4222", "nats://u:p%40ss@h1:4222,h2:4222", "nats://token@h", "tls://u:p@[::1]:4222/",
		"tls://h?cacertfile=/a.pem&certfile=/b.pem&keyfile=/c.pem",
	} {
		if err := events.ValidateNATS(url); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
	for _, url := range []string{
		"", "nats://", "http://h", "hunter2://h", "nats://u:hunter2/x@h", "nats://u:hunter2?x@h", "nats://u:hunter2@h@i", "nats://h:hunter2", "nats://u:p@h?hunter2=1",
		"nats://u:%hunter2@h", "nats://h/hunter2", "nats://h?cacertfile=/a", "tls://h?cacertfile=a&cacertfile=b", "nats://a,,b", "tls://h?a=%hunter2",
	} {
		err := events.ValidateNATS(url)
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", url, err)
		}
	}
	o := natsOptions("nats://h")
	o.Credentials = "hunter2"
	if _, err := events.NewNATS(o); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("credentials: %v", err)
	}
}

// TestNATSWithTLSAndCredentials: the server has a certificate, and knows accounts by their operator's word (nsc).
func TestNATSWithTLSAndCredentials(t *testing.T) {
	dir := t.TempDir()
	certificate, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	selfSigned(t, certificate, key)
	operator, account, system, user := nkey(t, nkeys.CreateOperator), nkey(t, nkeys.CreateAccount), nkey(t, nkeys.CreateAccount), nkey(t, nkeys.CreateUser)
	unlimited := map[string]any{
		"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
		"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
	}
	s := testkit.NATS(t, fmt.Sprintf(`
operator: %s
system_account: %s
resolver: MEMORY
resolver_preload: { %s: %s, %s: %s }
tls { cert_file: %q, key_file: %q }
`, token(t, operator, operator, map[string]any{"type": "operator", "version": 2, "system_account": public(t, system)}), public(t, system),
		public(t, system), token(t, operator, system, map[string]any{"type": "account", "version": 2, "limits": map[string]any{"subs": -1, "conn": -1, "exports": -1, "imports": -1, "data": -1, "payload": -1, "leaf": -1, "wildcards": true}}),
		public(t, account), token(t, operator, account, map[string]any{"type": "account", "version": 2, "limits": unlimited}),
		certificate, key))
	seed, err := user.Seed()
	if err != nil {
		t.Fatal(err)
	}
	creds := "-----BEGIN NATS USER JWT-----\n" + token(t, account, user, map[string]any{"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1}) +
		"\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n" + string(seed) + "\n------END USER NKEY SEED------\n"
	items := natsItems(t, "model.one")
	o := natsOptions("tls://" + s.Addr + "?cacertfile=" + certificate)
	o.Credentials = secret.Text(creds)
	p := natsPublisher(t, o)
	if err := p.Handle(t.Context(), "", items[0]); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "barong.creds")
	if err := os.WriteFile(file, []byte(creds), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := subjects(stored(t, js(t, "tls://"+s.Addr, nats.RootCAs(certificate), nats.UserCredentials(file)))); !slices.Equal(got, []string{"model.one"}) {
		t.Errorf("got %v", got)
	}
	for what, url := range map[string]string{"an authority that is not known": "tls://" + s.Addr, "no TLS": "nats://" + s.Addr} {
		o.URL = secret.URL(url)
		if err := natsPublisher(t, o).Handle(t.Context(), "", items[0]); err == nil {
			t.Errorf("%s: it was sent", what)
		}
	}
	o.URL, o.Credentials = secret.URL("tls://"+s.Addr+"?cacertfile="+certificate), ""
	if err := natsPublisher(t, o).Handle(t.Context(), "", items[0]); err == nil {
		t.Error("nobody was let in")
	}
	// A server without TLS gets nothing of what was meant for one with it.
	clear := testkit.NATS(t, "")
	if err := natsPublisher(t, natsOptions("tls://"+clear.Addr)).Handle(t.Context(), "", items[0]); err == nil || !strings.Contains(err.Error(), "secure connection not available") {
		t.Errorf("a server without TLS: %v", err)
	}
}

func nkey(t *testing.T, create func() (nkeys.KeyPair, error)) nkeys.KeyPair {
	t.Helper()
	k, err := create()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func public(t *testing.T, k nkeys.KeyPair) string {
	t.Helper()
	p, err := k.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// token is what one key says of another, as nsc writes it.
func token(t *testing.T, issuer, subject nkeys.KeyPair, says map[string]any) string {
	t.Helper()
	claims := map[string]any{"iss": public(t, issuer), "sub": public(t, subject), "iat": time.Now().Unix(), "name": "barong", "nats": says}
	text, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	claims["jti"] = fmt.Sprintf("%X", sha256.Sum256(text))
	if text, err = json.Marshal(claims); err != nil {
		t.Fatal(err)
	}
	unsigned := base64.RawURLEncoding.EncodeToString([]byte(`{"typ":"JWT","alg":"ed25519-nkey"}`)) + "." + base64.RawURLEncoding.EncodeToString(text)
	signature, err := issuer.Sign([]byte(unsigned))
	if err != nil {
		t.Fatal(err)
	}
	return unsigned + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// selfSigned writes a certificate of this machine, and its key.
func selfSigned(t *testing.T, certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secretKey, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{certificate: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secretKey}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
