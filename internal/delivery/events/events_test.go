package events_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"barong/api/account"
	"barong/db"
	"barong/internal/crypto/jws"
	"barong/internal/crypto/keys"
	"barong/internal/crypto/secret"
	"barong/internal/delivery/events"
	"barong/internal/delivery/events/amqptest"
	"barong/internal/delivery/outbox"
	"barong/internal/test/apitest"
	"barong/internal/test/testkit"
)

// noon is when the tests' events are sent.
var noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

// signing are the keys of the tests: RSA, as the original's receivers know them.
var signing = sync.OnceValue(func() *keys.Set {
	set, err := keys.New(keys.RS256)
	if err != nil {
		panic(err)
	}
	return set
})

func options(url string) events.Options {
	return events.Options{
		URL: secret.URL(url), Signer: func() jws.Signer { return signing() }, Log: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return noon },
	}
}

func publisher(t *testing.T, o events.Options) *events.Publisher {
	t.Helper()
	p, err := events.New(o)
	return opened(t, p, err)
}

// opened is a publisher that the test closes, unless err says that there is none.
func opened[P io.Closer](t *testing.T, p P, err error) P {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// deliver runs the outbox of a database. Failed attempts are soon tried again.
func deliver(t *testing.T, d *db.DB, kind outbox.Kind, observe func(outcome string)) *outbox.Outbox {
	t.Helper()
	b, err := outbox.New(outbox.Options{
		Store: d, Kinds: map[string]outbox.Kind{events.OutboxKind: kind}, Log: slog.New(slog.DiscardHandler),
		Poll: 10 * time.Millisecond, Backoff: 5 * time.Millisecond, MaxBackoff: 20 * time.Millisecond,
		Observe: func(_, outcome string) {
			if observe != nil {
				observe(outcome)
			}
		},
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

// event is a small one.
func event(name string) events.Event {
	return events.Event{Name: name, Record: json.RawMessage(`{"a":1}`)}
}

func enqueue(t *testing.T, d *db.DB, all ...events.Event) {
	t.Helper()
	if err := d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
		for _, e := range all {
			if err := events.Enqueue(ctx, tx, e, events.OutboxKind); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// queued returns the payloads in the outbox.
func queued(t *testing.T, d *db.DB) []db.OutboxItem {
	t.Helper()
	items, err := d.LeaseOutbox(t.Context(), events.OutboxKind, 100, time.Minute, true)
	if err != nil {
		t.Fatal(err)
	}
	return items
}

// payload verifies a message as a receiver does, and returns what it says.
func payload(t *testing.T, m amqptest.Message) string {
	t.Helper()
	parsed, err := jws.Parse(m.Body)
	if err != nil {
		t.Fatalf("%s: %v", m.Body, err)
	}
	signers, err := parsed.Verify(chain(t, signing()), []string{"barong"})
	if err != nil || !slices.Equal(signers, []string{"barong"}) {
		t.Fatalf("signers %v, %v", signers, err)
	}
	text, err := parsed.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// chain makes the keychain of a receiver from the published key.
func chain(t *testing.T, set *keys.Set) jws.Keychain {
	t.Helper()
	var published struct {
		Keys []struct{ Alg, N, E string }
	}
	if err := json.Unmarshal(set.JWKS(noon), &published); err != nil {
		t.Fatal(err)
	}
	number := func(s string) *big.Int {
		b, err := base64.RawURLEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return new(big.Int).SetBytes(b)
	}
	k := published.Keys[0]
	der, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: number(k.N), E: int(number(k.E).Int64())})
	if err != nil {
		t.Fatal(err)
	}
	key, err := jws.NewKey(k.Alg, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	if err != nil {
		t.Fatal(err)
	}
	return jws.Keychain{"barong": key}
}

// envelope is what a receiver makes of a message.
type envelope struct {
	ID    string `json:"jti"`
	Event struct {
		Name   string          `json:"name"`
		Record json.RawMessage `json:"record"`
	} `json:"event"`
}

func read(t *testing.T, m amqptest.Message) envelope {
	t.Helper()
	var e envelope
	if err := json.Unmarshal([]byte(payload(t, m)), &e); err != nil {
		t.Fatal(err)
	}
	return e
}

const uuid = `[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`

func TestMessage(t *testing.T) {
	e := apitest.New(t, "sqlite")
	long := strings.Repeat("x", 9000) // several frames
	enqueue(
		t, e.DB,
		events.Event{
			Name: "model.user.updated", Record: json.RawMessage(` { "uid" : "ID1", "a":"<b>&\u2028ü` + "\u2029" + `" } `),
			Changes: json.RawMessage(`{"level": 1}`),
		},
		events.Event{Name: "model.user.updated", Record: json.RawMessage(`{}`), Changes: json.RawMessage(`{}`)},
		events.Event{Name: "system.session.create", Record: json.RawMessage(`{"user_agent":"` + long + `"}`)},
	)
	items := queued(t, e.DB)
	for _, tc := range []struct {
		expiry time.Duration
		exp    string
	}{{0, ""}, {events.Expiry, fmt.Sprintf(`"exp":%d,`, noon.Unix()+60)}} {
		var b amqptest.Broker
		b.Start(t, "")
		o := options(b.URL())
		o.Expiry = tc.expiry
		p := publisher(t, o)
		for i, item := range items {
			if want := []string{"model.user.updated", "model.user.updated", "system.session.create"}[i]; item.Topic != want {
				t.Errorf("topic %q", item.Topic)
			}
			if err := p.Handle(t.Context(), item.Topic, item.Payload); err != nil {
				t.Fatal(err)
			}
		}
		got := b.Messages()
		if len(got) != 3 {
			t.Fatalf("%d messages", len(got))
		}
		for i, want := range []struct{ exchange, key, event string }{
			{"barong.events.model", "user.updated", `{"record":{"uid":"ID1","a":"\u003cb\u003e\u0026\u2028ü\u2029"},"changes":{"level":1},"name":"model.user.updated"}`},
			{"barong.events.model", "user.updated", `{"record":{},"changes":{},"name":"model.user.updated"}`},
			{"barong.events.system", "session.create", `{"record":{"user_agent":"` + long + `"},"name":"system.session.create"}`},
		} {
			m := got[i]
			if m.Exchange != want.exchange || m.Key != want.key || m.ContentType != "application/octet-stream" || m.DeliveryMode != 2 || m.Priority != 0 {
				t.Errorf("message %d: %+v", i, m)
			}
			text := payload(t, m)
			form := regexp.MustCompile(`^\{"iss":"barong","jti":"` + uuid + `","iat":\d{10},` + tc.exp + `"event":`)
			if head := form.FindString(text); head == "" || text != head+want.event+"}" {
				t.Errorf("message %d: %.300s", i, text)
			}
			// The receivers of the original compare the header whole, and parse and write the rest anew.
			outer := regexp.MustCompile(`^\{"payload":"[\w-]+","signatures":\[\{"protected":"eyJhbGciOiJSUzI1NiJ9","header":\{"kid":"barong"\},"signature":"[\w-]+"\}\]\}$`)
			if !outer.Match(m.Body) {
				t.Errorf("message %d: %.300s", i, m.Body)
			}
		}
		want := map[string]amqptest.Exchange{"barong.events.model": {Type: "direct"}, "barong.events.system": {Type: "direct"}}
		if have := b.Exchanges(); fmt.Sprint(have) != fmt.Sprint(want) {
			t.Errorf("exchanges %v", have)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if made, orderly := b.Connections(); made != 1 || orderly != 1 {
			t.Errorf("%d connections, %d closed in order", made, orderly)
		}
	}
}

func TestEnqueueRefusesOtherNames(t *testing.T) {
	e := apitest.New(t, "sqlite")
	for _, name := range []string{"", "model", "model.", "other.user.created", "user.model.created", "model." + strings.Repeat("x", 256)} {
		err := e.DB.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
			return events.Enqueue(ctx, tx, event(name), events.OutboxKind)
		})
		if err == nil {
			t.Errorf("%q is accepted", name)
		}
	}
	err := e.DB.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
		return events.Enqueue(ctx, tx, events.Event{Name: "model.user.created", Record: json.RawMessage(`{`)}, events.OutboxKind)
	})
	if err == nil || len(queued(t, e.DB)) != 0 {
		t.Errorf("a record that is no JSON: %v", err)
	}
}

// each runs f on both engines, with accounts that queue their events.
func each(t *testing.T, f func(t *testing.T, e *apitest.Env)) {
	for _, engine := range []string{"sqlite", "postgres"} {
		t.Run(engine, func(t *testing.T) {
			f(t, apitest.New(t, engine, func(o *account.Options) {
				o.Publish = func(ctx context.Context, tx *db.Tx, e account.Event) error {
					return events.Enqueue(ctx, tx, events.Event(e), events.OutboxKind)
				}
			}))
		})
	}
}

func signUp(t *testing.T, e *apitest.Env, email string) {
	t.Helper()
	if _, _, _, err := e.Accounts.SignUp(t.Context(), account.Client{}, nil, account.SignUp{Email: email, Password: apitest.Password}); err != nil {
		t.Fatal(err)
	}
}

func TestSignUpIsToldInOrder(t *testing.T) {
	each(t, func(t *testing.T, e *apitest.Env) {
		var b amqptest.Broker
		b.Start(t, "")
		p := publisher(t, options(b.URL()))
		deliver(t, e.DB, events.Kind(p.Handle), nil)
		signUp(t, e, "a@barong.test")
		testkit.Eventually(t, time.Minute, func() bool { return len(b.Messages()) == 2 })
		got := b.Messages()
		first, second := read(t, got[0]), read(t, got[1])
		if first.Event.Name != "model.user.created" || second.Event.Name != "system.user.email.confirmation.token" || first.ID == second.ID {
			t.Errorf("got %+v, %+v", first, second)
		}
		if got[0].Exchange != "barong.events.model" || got[0].Key != "user.created" ||
			got[1].Exchange != "barong.events.system" || got[1].Key != "user.email.confirmation.token" {
			t.Errorf("routes %s %s, %s %s", got[0].Exchange, got[0].Key, got[1].Exchange, got[1].Key)
		}
		var record struct{ Token, Domain, Language string }
		if err := json.Unmarshal(second.Event.Record, &record); err != nil || record.Domain != "barong.test" || record.Language != "EN" || record.Token == "" {
			t.Errorf("record %s, %v", second.Event.Record, err)
		}
	})
}

func TestNothingLeavesWithoutItsCommit(t *testing.T) {
	each(t, func(t *testing.T, e *apitest.Env) {
		var b amqptest.Broker
		b.Start(t, "")
		p := publisher(t, options(b.URL()))
		deliver(t, e.DB, events.Kind(p.Handle), nil)
		rolledBack := errors.New("rolled back")
		u := e.NewUser(t, nil)
		if err := e.Accounts.Update(t.Context(), func(ctx context.Context, unit *account.Unit) error {
			if err := unit.SetState(ctx, u, "banned"); err != nil {
				return err
			}
			return rolledBack
		}); !errors.Is(err, rolledBack) {
			t.Fatal(err)
		}
		enqueue(t, e.DB, event("system.after"))
		testkit.Eventually(t, time.Minute, func() bool { return len(b.Messages()) > 0 })
		if got := b.Keys(); !slices.Equal(got, []string{"after"}) {
			t.Errorf("got %v", got)
		}
	})
}

func TestBrokerThatIsAwayIsWaitedFor(t *testing.T) {
	each(t, func(t *testing.T, e *apitest.Env) {
		addr := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
		p := publisher(t, options("amqp://"+addr))
		var failed, delivered atomic.Int64
		deliver(t, e.DB, events.Kind(p.Handle), func(outcome string) {
			if outcome == "failed" {
				failed.Add(1)
			} else {
				delivered.Add(1)
			}
		})
		signUp(t, e, "a@barong.test")
		signUp(t, e, "b@barong.test")
		testkit.Eventually(t, time.Minute, func() bool { return failed.Load() >= 3 })
		want := []string{"user.created", "user.email.confirmation.token", "user.created", "user.email.confirmation.token"}
		var first amqptest.Broker
		first.Start(t, addr)
		testkit.Eventually(t, time.Minute, func() bool { return delivered.Load() == 4 })
		if got := first.Keys(); !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
		// It goes, and comes back without its exchanges, as the original's do not outlive it.
		first.Stop()
		before := failed.Load()
		signUp(t, e, "c@barong.test")
		testkit.Eventually(t, time.Minute, func() bool { return failed.Load() > before })
		var second amqptest.Broker
		second.Start(t, addr)
		testkit.Eventually(t, time.Minute, func() bool { return delivered.Load() == 6 })
		if got := second.Keys(); !slices.Equal(got, want[:2]) {
			t.Errorf("got %v", got)
		}
	})
}

func TestWhatIsNotConfirmedComesAgain(t *testing.T) {
	each(t, func(t *testing.T, e *apitest.Env) {
		verdicts := []amqptest.Verdict{amqptest.Hangup, amqptest.Nack, amqptest.Forgotten}
		var judged atomic.Int64
		b := amqptest.Broker{Judge: func(amqptest.Message) amqptest.Verdict {
			if n := int(judged.Add(1)); n <= len(verdicts) {
				return verdicts[n-1]
			}
			return amqptest.Ack
		}}
		b.Start(t, "")
		p := publisher(t, options(b.URL()))
		deliver(t, e.DB, events.Kind(p.Handle), nil)
		enqueue(t, e.DB, event("model.one"), event("model.two"))
		testkit.Eventually(t, time.Minute, func() bool { return len(b.Messages()) >= len(verdicts)+2 })
		if got := b.Keys(); !slices.Equal(got, []string{"one", "one", "one", "one", "two"}) {
			t.Fatalf("got %v", got)
		}
		all := b.Messages()
		id := read(t, all[0]).ID
		for _, m := range all[1:4] {
			if again := read(t, m).ID; again != id {
				t.Errorf("came again as %s instead of %s", again, id)
			}
			if payload(t, m) != payload(t, all[0]) {
				t.Error("came again in other words")
			}
		}
		if read(t, all[4]).ID == id {
			t.Error("two events have one id")
		}
		// One connection at the start, and one after each failure that ended it.
		if made, _ := b.Connections(); made != 3 {
			t.Errorf("%d connections", made)
		}
	})
}

func TestABrokenEventHoldsBackNoOther(t *testing.T) {
	each(t, func(t *testing.T, e *apitest.Env) {
		b := amqptest.Broker{Judge: func(m amqptest.Message) amqptest.Verdict {
			if m.Key == "large" {
				return amqptest.TooLarge
			}
			return amqptest.Ack
		}}
		b.Start(t, "")
		p := publisher(t, options(b.URL()))
		box := deliver(t, e.DB, events.Kind(p.Handle), nil)
		e.Update(t, func(ctx context.Context, tx *db.Tx) error {
			for _, text := range []string{
				`no JSON`, `null`, `{"jti":"1","iat":1,"event":{"record":{},"name":"other.x"}}`, `{"jti":1}`, `{"iat":1,"event":{"record":{},"name":"model.x"}}`,
			} {
				if err := tx.Enqueue(ctx, events.OutboxKind, "model.x", []byte(text)); err != nil {
					return err
				}
			}
			return events.Enqueue(ctx, tx, event("model.large"), events.OutboxKind)
		})
		enqueue(t, e.DB, event("model.after"))
		testkit.Eventually(t, time.Minute, func() bool {
			waiting, dead := box.Depth(events.OutboxKind)
			return len(b.Messages()) == 2 && waiting == 0 && dead == 6
		})
		if got := b.Keys(); !slices.Equal(got, []string{"large", "after"}) {
			t.Errorf("got %v", got)
		}
	})
}

func TestExchangesThatCannotBeDeclared(t *testing.T) {
	e := apitest.New(t, "sqlite")
	enqueue(t, e.DB, event("model.one"), event("system.two"))
	items := queued(t, e.DB)
	var denied atomic.Bool
	b := amqptest.Broker{Refuse: func(exchange string) (int, string) {
		if denied.Load() {
			return 403, "ACCESS_REFUSED - access to exchange '" + exchange + "' refused for user 'guest'"
		}
		return 0, ""
	}}
	b.Declare("barong.events.model", &amqptest.Exchange{Type: "direct", Durable: true})
	b.Start(t, "")
	p := publisher(t, options(b.URL()))
	handle := func(i int, want ...string) {
		t.Helper()
		err := p.Handle(t.Context(), items[i].Topic, items[i].Payload)
		if len(want) == 0 && err != nil || len(want) > 0 && err == nil {
			t.Fatalf("got %v", err)
		}
		for _, part := range want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%v: lacks %q", err, part)
			}
		}
		if err != nil && outbox.IsPermanent(err) {
			t.Errorf("given up: %v", err)
		}
	}
	handle(0, "barong.events.model", "set BARONG_EVENT_API_DURABLE=true", "received 'false' but current is 'true'")
	handle(1) // the other is in order
	b.Declare("barong.events.model", nil)
	handle(0)
	denied.Store(true)
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	handle(0, "barong.events.model", "permission", "ACCESS_REFUSED")
	denied.Store(false)

	o := options(b.URL())
	o.Durable = true
	p = publisher(t, o)
	handle(0, "set BARONG_EVENT_API_DURABLE=false")
	b.Declare("barong.events.model", nil)
	handle(0)
	if have := b.Exchanges()["barong.events.model"]; have != (amqptest.Exchange{Type: "direct", Durable: true}) {
		t.Errorf("declared as %+v", have)
	}
	// One that is deleted meanwhile is declared anew.
	b.Declare("barong.events.model", nil)
	handle(0, "NOT_FOUND")
	handle(0)
}

func TestKeepsNoConnectionThatDied(t *testing.T) {
	e := apitest.New(t, "sqlite")
	enqueue(t, e.DB, event("model.one"))
	item := queued(t, e.DB)[0]
	var first, second amqptest.Broker
	first.Start(t, "")
	p := publisher(t, options(first.URL()))
	if err := p.Handle(t.Context(), item.Topic, item.Payload); err != nil {
		t.Fatal(err)
	}
	first.Stop()
	second.Start(t, first.Addr())
	// The first attempts may still find the old one.
	testkit.Eventually(t, time.Minute, func() bool { return p.Handle(t.Context(), item.Topic, item.Payload) == nil })
	if len(second.Messages()) != 1 {
		t.Errorf("%d messages", len(second.Messages()))
	}
}

// TestReplace: a broker whose URL changes is asked when the connection that is there has ended.
func TestReplace(t *testing.T) {
	e := apitest.New(t, "sqlite")
	enqueue(t, e.DB, event("model.one"))
	item := queued(t, e.DB)[0]
	first, second := amqptest.Broker{User: "one", Password: "x"}, amqptest.Broker{User: "two", Password: "y"}
	first.Start(t, "")
	p := publisher(t, options("amqp://one:x@"+first.Addr()+"/"))
	handle := func() error { return p.Handle(t.Context(), item.Topic, item.Payload) }
	if err := handle(); err != nil {
		t.Fatal(err)
	}
	p.Replace(secret.URL("amqp://two:y@" + first.Addr() + "/"))
	if err := handle(); err != nil || len(first.Messages()) != 2 {
		t.Errorf("over the connection that is there: %v, %d messages", err, len(first.Messages()))
	}
	first.Stop()
	second.Start(t, first.Addr())
	testkit.Eventually(t, time.Minute, func() bool { return handle() == nil })
	if len(second.Messages()) != 1 {
		t.Errorf("%d messages", len(second.Messages()))
	}
}

func TestAttemptsEnd(t *testing.T) {
	e := apitest.New(t, "sqlite")
	enqueue(t, e.DB, event("model.one"))
	item := queued(t, e.DB)[0]
	mute, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	for _, scheme := range []string{"amqp", "amqps"} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		p := publisher(t, options(scheme+"://"+mute.Addr().String()))
		if err := p.Handle(ctx, item.Topic, item.Payload); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", scheme, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	silent := amqptest.Broker{Judge: func(amqptest.Message) amqptest.Verdict {
		cancel()
		return amqptest.Silence
	}}
	silent.Start(t, "")
	if err := publisher(t, options(silent.URL())).Handle(ctx, item.Topic, item.Payload); !errors.Is(err, context.Canceled) {
		t.Errorf("without a confirmation: %v", err)
	}
}

func TestProbe(t *testing.T) {
	b := amqptest.Broker{User: "barong", Password: "p@ss/w"}
	b.Start(t, "")
	at := func(user string) secret.URL { return secret.URL("amqp://" + user + "@" + b.Addr() + "/") }
	if server, err := events.Probe(t.Context(), at("barong:p%40ss%2Fw")); err != nil || server != "a broker for tests 1" {
		t.Errorf("%q, %v", server, err)
	}
	if len(b.Exchanges()) != 0 {
		t.Error("looking has declared an exchange")
	}
	if _, err := events.Probe(t.Context(), at("barong:hunter2")); err == nil || !strings.Contains(err.Error(), "403") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a wrong password: %v", err)
	}
	for _, url := range []secret.URL{"amqp://u:hunter2/x@h", "amqp://u:%hunter2@h", "amqp://u:hunter2 @h", "http://u:hunter2@h", "amqp://u:hunter2@h?heartbeat=hunter2"} {
		_, err := events.Probe(t.Context(), url)
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", url, err)
		}
		if _, err := events.New(events.Options{URL: url}); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestTLS(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	b := amqptest.Broker{TLS: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}}}}
	b.Start(t, "")
	url := secret.URL("amqps://guest:guest@" + b.Addr())
	var unknown x509.UnknownAuthorityError
	if _, err := events.Probe(t.Context(), url); !errors.As(err, &unknown) {
		t.Errorf("a certificate that nobody knows: %v", err)
	}
	if _, err := events.Probe(t.Context(), url+"?cacertfile="+secret.URL(file)); err != nil {
		t.Error(err)
	}
}
