package mailer

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"barong/api/account"
	"barong/db"
	"barong/internal/crypto/jws"
	"barong/internal/crypto/jws/jwstest"
	"barong/internal/crypto/secret"
	"barong/internal/delivery/events"
	"barong/internal/delivery/events/amqptest"
	"barong/internal/delivery/mail"
	"barong/internal/test/apitest"
	"barong/internal/test/testkit"
)

const exchange = "peatio.events.model"

// seal signs claims as a service.
func seal(t testing.TB, s jws.Signer, keyID string, claims map[string]any) []byte {
	t.Helper()
	text, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	m := jws.New(text)
	if err := m.Sign(keyID, s); err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// deposit are the claims of a deposit that was accepted, as the original's exchange sends them.
func deposit(now time.Time, uid, id string) map[string]any {
	return map[string]any{
		"iss": "peatio", "jti": id, "iat": now.Unix(), "exp": now.Unix() + 60,
		"event": map[string]any{
			"name": "model.deposit.updated",
			"record": map[string]any{
				"tid": "TID9493F6CD41", "user": map[string]any{"uid": uid, "email": "somebody.else@a.test"}, "uid": uid, "currency": "btc",
				"amount": "0.0855", "state": "accepted", "blockchain_confirmations": 7, "completed_at": nil,
			},
			"changes": map[string]any{"state": "submitted"},
		},
	}
}

func beneficiary(now time.Time, uid, id string) map[string]any {
	return map[string]any{
		"iss": "peatio", "jti": id, "iat": now.Unix(), "exp": now.Unix() + 60,
		"event": map[string]any{
			"name": "model.beneficiary.created",
			"record": map[string]any{
				"user": map[string]any{"uid": uid, "email": ""}, "currency": "eth", "name": "Call +1 555 0100 http://evil.test", "pin": "483920", "state": "pending",
			},
		},
	}
}

// A stage is a mailer that listens at a broker, with the stores of an Env.
type stage struct {
	*apitest.Env
	broker   *amqptest.Broker
	peatio   *jwstest.Service
	log      *logged
	mu       sync.Mutex
	outcomes map[string]int
	mailer   *Mailer
}

// logged is a log that is read while it is written.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// each runs f on both engines, with a file of the kit.
func each(t *testing.T, f func(t *testing.T, s *stage)) {
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		s := &stage{Env: e, broker: new(amqptest.Broker), peatio: jwstest.New(t), log: new(logged), outcomes: map[string]int{}}
		s.mailer = s.open(t, Options{})
		s.broker.Start(t, "")
		s.listen(t, s.mailer.Handle)
		f(t, s)
	})
}

func (s *stage) open(t *testing.T, o Options) *Mailer {
	o.Config = parse(t, head(s.peatio)+kitEvents)
	o.Notify, o.Now, o.Log = s.Accounts.Notify, s.Clock.Now, slog.New(slog.NewTextHandler(s.log, nil))
	o.Observe = func(outcome string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.outcomes[outcome]++
	}
	return New(o)
}

// listen starts a consumer as a replica does. It ends with the test, or by the returned call.
func (s *stage) listen(t *testing.T, handle func(context.Context, events.Delivery) error) (stop func()) {
	t.Helper()
	c, err := events.NewConsumer(events.ConsumerOptions{
		URL: secret.URL(s.broker.URL()), Queue: Queue, Bindings: s.mailer.o.Config.Bindings(), Handle: handle, Dead: s.mailer.Dead,
		Answers: s.DB.TryWrite, Log: slog.New(slog.NewTextHandler(s.log, nil)), Backoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { c.Run(ctx) })
	stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
	t.Cleanup(stop)
	testkit.Eventually(t, time.Minute, func() bool { return len(s.broker.Bindings(Queue)) == len(s.mailer.o.Config.Bindings()) })
	return stop
}

// tell has the other service publish messages, and waits until they are dealt with.
func (s *stage) tell(t *testing.T, key string, bodies ...[]byte) {
	t.Helper()
	for _, body := range bodies {
		s.broker.Publish(exchange, key, body)
	}
	s.settle(t)
}

func (s *stage) settle(t *testing.T) {
	t.Helper()
	testkit.Eventually(t, time.Minute, func() bool {
		waiting, _ := s.broker.Queue(Queue)
		return len(waiting) == 0 && s.broker.InHand(Queue) == 0
	})
}

// counted returns the outcomes since the last call.
func (s *stage) counted() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.outcomes
	s.outcomes = map[string]int{}
	return out
}

func (s *stage) dead() int {
	waiting, _ := s.broker.Queue(Queue + ".dead")
	return len(waiting)
}

func TestMails(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		russian := `{"language":"RU"}`
		ann := s.NewUser(t, nil)
		ivan := s.NewUser(t, func(u *db.User) { u.Data = &russian })
		now := s.Clock.Now()
		s.tell(t, "deposit.updated", seal(t, s.peatio, "peatio", deposit(now, ann.UID, "1")), seal(t, s.peatio, "peatio", deposit(now, ivan.UID, "2")))
		s.tell(t, "beneficiary.created", seal(t, s.peatio, "peatio", beneficiary(now, ann.UID, "3")))
		mails := s.Mails(t)
		if len(mails) != 3 {
			t.Fatalf("%d mails: %+v", len(mails), mails)
		}
		for i, want := range []struct{ to, kind, subject, text string }{
			{ann.Email, "deposit.updated", "Deposit Accepted", "Amount: 0.0855 BTC\n\nTransaction: TID9493F6CD41"},
			{ivan.Email, "deposit.updated", "Депозит Зачислен", "Сумма: 0.0855 BTC"},
			{ann.Email, "beneficiary.created", "New Beneficiary", "enter this PIN where you added it: 483920"},
		} {
			m := mails[i]
			if m.To != want.to || m.Kind != want.kind || m.Subject != want.subject || !strings.Contains(m.Text, want.text) {
				t.Errorf("mail %d: %+v", i, m)
			}
			if strings.Contains(m.Text+m.HTML, "evil.test") || strings.Contains(m.Text+m.HTML, "555 0100") || strings.Contains(m.Text+m.HTML, "somebody.else") {
				t.Errorf("mail %d has what somebody typed: %s", i, m.Text)
			}
		}
		if got := s.counted(); !maps.Equal(got, map[string]int{account.Notified: 3}) {
			t.Errorf("outcomes %v", got)
		}
		if text := s.log.String(); strings.Contains(text, "483920") || strings.Contains(text, ann.Email) {
			t.Errorf("the log says too much: %s", text)
		}
	})
}

// TestOnlyWhatIsMeant: changes that the mail does not speak of send none, and neither do events of other kinds.
func TestOnlyWhatIsMeant(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		ann := s.NewUser(t, nil)
		now := s.Clock.Now()
		altered := func(id, key, state, before string) []byte {
			c := deposit(now, ann.UID, id)
			event := c["event"].(map[string]any)
			event["name"] = "model." + key
			event["record"].(map[string]any)["state"] = state
			event["changes"] = map[string]any{"state": before, "updated_at": "x"}
			if before == "" {
				event["changes"] = map[string]any{"updated_at": "x"}
			}
			return seal(t, s.peatio, "peatio", c)
		}
		s.tell(t, "deposit.updated", altered("1", "deposit.updated", "submitted", "x"), altered("2", "deposit.updated", "accepted", "skipped"))
		s.tell(t, "withdraw.updated", altered("3", "withdraw.updated", "processing", "accepted"), altered("4", "withdraw.updated", "succeed", ""))
		s.tell(t, "beneficiary.updated", altered("5", "beneficiary.updated", "active", "pending"))
		if mails := s.Mails(t); len(mails) != 0 {
			t.Errorf("mails %+v", mails)
		}
		s.tell(t, "withdraw.updated", altered("6", "withdraw.updated", "succeed", "processing"))
		s.tell(t, "beneficiary.updated", altered("7", "beneficiary.updated", "pending", "pending"))
		if got := s.MailKinds(t); !slices.Equal(got, []string{"withdraw.updated", "beneficiary.updated"}) {
			t.Errorf("mails %v", got)
		}
		if got := s.counted(); !maps.Equal(got, map[string]int{"ignored": 5, account.Notified: 2}) || s.dead() != 0 {
			t.Errorf("outcomes %v, %d dead", got, s.dead())
		}
	})
}

// TestOnce: however often a message comes, and whoever gets it, there is one mail.
func TestOnce(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		ann := s.NewUser(t, nil)
		now := s.Clock.Now()
		first := seal(t, s.peatio, "peatio", deposit(now, ann.UID, "one"))
		again := seal(t, s.peatio, "peatio", deposit(now.Add(time.Second), ann.UID, "one")) // signed anew, at another try
		nameless := deposit(now, ann.UID, "")
		delete(nameless, "jti")
		other := seal(t, s.peatio, "peatio", nameless)
		s.tell(t, "deposit.updated", first, first, again, other, other)
		if got := s.MailKinds(t); len(got) != 2 {
			t.Errorf("mails %v", got)
		}
		if got := s.counted(); !maps.Equal(got, map[string]int{account.Notified: 2, account.Repeated: 3}) {
			t.Errorf("outcomes %v", got)
		}
		s.Clock.Advance(events.Kept - time.Minute)
		if err := s.DB.PurgeHeard(t.Context(), s.Clock.Now(), 1000); err != nil {
			t.Fatal(err)
		}
		s.tell(t, "deposit.updated", first)
		s.Clock.Advance(2 * time.Minute) // and now it counts no longer
		s.tell(t, "deposit.updated", first)
		s.Clock.Advance(2 * time.Hour)
		if err := s.DB.PurgeHeard(t.Context(), s.Clock.Now(), 1000); err != nil {
			t.Fatal(err)
		}
		s.tell(t, "deposit.updated", first)
		if got := s.counted(); !maps.Equal(got, map[string]int{account.Repeated: 1, "dead": 2}) || len(s.Mails(t)) != 0 {
			t.Errorf("later: %v", got)
		}
	})
}

// TestLostAcknowledgement: the replica that has queued the mail dies before it can say so; another gets the message.
func TestLostAcknowledgement(t *testing.T) {
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		s := &stage{Env: e, broker: new(amqptest.Broker), peatio: jwstest.New(t), log: new(logged), outcomes: map[string]int{}}
		s.mailer = s.open(t, Options{})
		s.broker.Start(t, "")
		ann := s.NewUser(t, nil)
		queued := make(chan struct{})
		stop := s.listen(t, func(ctx context.Context, d events.Delivery) error {
			if err := s.mailer.Handle(ctx, d); err != nil {
				return err
			}
			close(queued)
			<-ctx.Done() // it is cut off before it acknowledges
			return ctx.Err()
		})
		s.broker.Publish(exchange, "deposit.updated", seal(t, s.peatio, "peatio", deposit(s.Clock.Now(), ann.UID, "one")))
		<-queued
		stop()
		if waiting, _ := s.broker.Queue(Queue); len(waiting) != 1 {
			t.Fatalf("%d messages wait", len(waiting))
		}
		s.listen(t, s.mailer.Handle)
		s.settle(t)
		if got := s.MailKinds(t); len(got) != 1 {
			t.Errorf("mails %v", got)
		}
		if got := s.counted(); !maps.Equal(got, map[string]int{account.Notified: 1, account.Repeated: 1}) {
			t.Errorf("outcomes %v", got)
		}
	})
}

// TestWhom: the user that the message names, at the address that they have here, if they have confirmed it.
func TestWhom(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		ann := s.NewUser(t, nil)
		pending := s.NewUser(t, func(u *db.User) { u.State = "pending" })
		now := s.Clock.Now()
		named := func(id string, user map[string]any, uid any) []byte {
			c := deposit(now, "", id)
			record := c["event"].(map[string]any)["record"].(map[string]any)
			record["user"], record["uid"] = user, uid
			return seal(t, s.peatio, "peatio", c)
		}
		s.tell(t, "deposit.updated",
			named("1", map[string]any{"email": strings.ToUpper(ann.Email)}, nil),
			named("2", nil, ann.UID),
			named("3", map[string]any{"uid": pending.UID}, nil),
			named("4", map[string]any{"uid": "IDNOBODY"}, nil),
			named("5", map[string]any{"uid": "IDNOBODY", "email": ann.Email}, nil), // the uid counts
			named("6", map[string]any{"email": "nobody@a.test"}, nil),
		)
		mails := s.Mails(t)
		if len(mails) != 2 || mails[0].To != ann.Email || mails[1].To != ann.Email {
			t.Errorf("mails %+v", mails)
		}
		want := map[string]int{account.Notified: 2, account.Unconfirmed: 1, account.Unknown: 3}
		if got := s.counted(); !maps.Equal(got, want) || s.dead() != 0 {
			t.Errorf("outcomes %v, %d dead", got, s.dead())
		}
		if !strings.Contains(s.log.String(), "somebody who has no account") || strings.Contains(s.log.String(), "nobody@a.test") {
			t.Errorf("log: %s", s.log)
		}
	})
}

// TestHostile: whatever is not what a service has signed for this purpose is set aside at once, and told.
func TestHostile(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		ann := s.NewUser(t, nil)
		now := s.Clock.Now()
		good := deposit(now, ann.UID, "good")
		with := func(change func(c map[string]any)) []byte {
			c := deposit(now, ann.UID, "x")
			change(c)
			return seal(t, s.peatio, "peatio", c)
		}
		record := func(c map[string]any) map[string]any { return c["event"].(map[string]any)["record"].(map[string]any) }
		forged := jws.New([]byte(`{}`))
		text, err := json.Marshal(good)
		if err != nil {
			t.Fatal(err)
		}
		*forged = *jws.New(text)
		protected := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256"}`)) // with the public key, which everybody knows
		mac := hmac.New(sha256.New, s.peatio.PEM)
		mac.Write([]byte(protected + "." + forged.Payload))
		forged.Signatures = []jws.Signature{{Protected: protected, Header: jws.Header{KeyID: "peatio"}, Value: base64.RawURLEncoding.EncodeToString(mac.Sum(nil))}}
		confused, err := json.Marshal(forged)
		if err != nil {
			t.Fatal(err)
		}
		unsigned, err := json.Marshal(jws.New(text))
		if err != nil {
			t.Fatal(err)
		}
		bodies := [][]byte{
			nil, []byte("{"), []byte("not json"), []byte(`{"payload":"e30","signatures":[]}`), confused, unsigned,
			seal(t, jwstest.New(t), "peatio", good), // another key
			seal(t, s.peatio, "barong", good),       // the same key, as another service
			[]byte(strings.Repeat("[", 200_000)),    // deep
			[]byte(strings.Repeat("x", 300_000)),    // large
			with(func(c map[string]any) { delete(c, "iat"); delete(c, "exp") }),
			with(func(c map[string]any) { c["iat"] = now.Unix() + 3600 }),
			with(func(c map[string]any) { c["iat"] = "now" }),
			with(func(c map[string]any) {
				c["iat"] = now.Add(-events.Kept - time.Minute).Unix()
				c["exp"] = now.Add(-events.Kept).Unix()
			}),
			with(func(c map[string]any) { c["exp"] = now.Add(365 * 24 * time.Hour).Unix() }),
			with(func(c map[string]any) { c["nbf"] = now.Unix() + 3600 }),
			with(func(c map[string]any) { c["jti"] = 7 }),
			with(func(c map[string]any) { c["jti"] = strings.Repeat("j", 300) }),
			with(func(c map[string]any) { c["event"] = "text" }),
			with(func(c map[string]any) { delete(c, "event") }),
			with(func(c map[string]any) { c["event"].(map[string]any)["record"] = []int{1} }),
			with(func(c map[string]any) { c["event"].(map[string]any)["name"] = "model.deposit.created" }), // sent on as another
			with(func(c map[string]any) { delete(record(c), "user"); delete(record(c), "uid") }),
			with(func(c map[string]any) { record(c)["user"] = "ID1"; record(c)["uid"] = 5 }),
			with(func(c map[string]any) { record(c)["user"] = map[string]any{"uid": strings.Repeat("u", 300)} }),
		}
		s.tell(t, "deposit.updated", bodies...)
		s.tell(t, "deposit.updated", seal(t, s.peatio, "peatio", good)) // which is none of them
		if got := s.counted(); !maps.Equal(got, map[string]int{"dead": len(bodies), account.Notified: 1}) {
			t.Errorf("outcomes %v of %d", got, len(bodies))
		}
		if s.dead() != len(bodies) || len(s.Mails(t)) != 1 {
			t.Errorf("%d set aside of %d", s.dead(), len(bodies))
		}
		log := s.log.String()
		if n := strings.Count(log, "a message of another service was set aside"); n != len(bodies) || strings.Contains(log, ann.UID) {
			t.Errorf("%d lines of the log tell of them: %s", n, log)
		}
		// A record with any value is no reason to give up: the mail goes without it.
		s.tell(t, "deposit.updated", with(func(c map[string]any) {
			record(c)["amount"] = map[string]any{"a": 1}
			record(c)["tid"] = "a\x00b\u2028c\r\nBcc: x@a.test" + strings.Repeat("d", 10_000)
			record(c)["currency"] = 5
		}))
		mails := s.Mails(t)
		if len(mails) != 1 || !strings.Contains(mails[0].Text, "a b c Bcc: x@a.test") || len(mails[0].Text) > 1000 || strings.Contains(mails[0].Text, "map[") {
			t.Errorf("mails %+v", mails)
		}
	})
}

// TestExpiry: a minute in the queue loses no mail, unless the original's ways are asked for.
func TestExpiry(t *testing.T) {
	e := apitest.New(t, "sqlite")
	s := &stage{Env: e, peatio: jwstest.New(t), log: new(logged), outcomes: map[string]int{}}
	ann := s.NewUser(t, nil)
	late := events.Delivery{Exchange: exchange, Key: "deposit.updated", Body: seal(t, s.peatio, "peatio", deposit(s.Clock.Now().Add(-time.Hour), ann.UID, "1"))}
	if err := s.open(t, Options{Strict: true}).Handle(t.Context(), late); err == nil || !strings.Contains(err.Error(), "too old") {
		t.Errorf("with the original's expiry: %v", err)
	}
	if err := s.open(t, Options{}).Handle(t.Context(), late); err != nil {
		t.Error(err)
	}
	if got := s.MailKinds(t); len(got) != 1 {
		t.Errorf("mails %v", got)
	}
}

// TestOutage: while the database takes no writes the message waits in hand, and its mail is sent afterwards, once.
func TestOutage(t *testing.T) {
	apitest.Each(t, func(t *testing.T, e *apitest.Env) {
		s := &stage{Env: e, broker: new(amqptest.Broker), peatio: jwstest.New(t), log: new(logged), outcomes: map[string]int{}}
		s.mailer = s.open(t, Options{})
		s.broker.Start(t, "")
		ann := s.NewUser(t, nil)
		var mu sync.Mutex
		tried, away := 0, true
		c, err := events.NewConsumer(events.ConsumerOptions{
			URL: secret.URL(s.broker.URL()), Queue: Queue, Bindings: s.mailer.o.Config.Bindings(), Dead: s.mailer.Dead,
			Answers: func(ctx context.Context) error {
				mu.Lock()
				defer mu.Unlock()
				if away {
					return errors.New("away")
				}
				return s.DB.TryWrite(ctx)
			},
			Handle: func(ctx context.Context, d events.Delivery) error {
				mu.Lock()
				defer mu.Unlock()
				if tried++; away {
					return fmt.Errorf("attempt %d", tried)
				}
				return s.mailer.Handle(ctx, d)
			},
			Log: slog.New(slog.DiscardHandler), Backoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { c.Run(ctx) })
		t.Cleanup(func() {
			cancel()
			wg.Wait()
		})
		testkit.Eventually(t, time.Minute, func() bool { return len(s.broker.Bindings(Queue)) > 0 })
		s.broker.Publish(exchange, "deposit.updated", seal(t, s.peatio, "peatio", deposit(s.Clock.Now(), ann.UID, "one")))
		testkit.Eventually(t, time.Minute, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return tried > 10
		})
		mu.Lock()
		away = false
		mu.Unlock()
		s.settle(t)
		if got := s.MailKinds(t); len(got) != 1 || s.dead() != 0 {
			t.Errorf("mails %v, %d dead", got, s.dead())
		}
	})
}

// TestOwnEvents: this program writes the mails on its own events itself; others about labels may be asked for.
func TestOwnEvents(t *testing.T) {
	label := func(scope, key, value string) map[string]any {
		return map[string]any{"record": map[string]any{"scope": scope, "key": key, "value": value}}
	}
	for _, c := range []struct {
		d     events.Delivery
		event map[string]any
		want  bool
	}{
		{events.Delivery{Exchange: "barong.events.model", Key: "label.created"}, label("private", "phone", "verified"), true},
		{events.Delivery{Exchange: "barong.events.model", Key: "label.updated"}, label("private", "document", "rejected"), true},
		{events.Delivery{Exchange: "barong.events.model", Key: "label.created"}, label("public", "vip", "yes"), true},
		{events.Delivery{Exchange: "barong.events.model", Key: "label.created"}, label("private", "vip", "yes"), false},
		{events.Delivery{Exchange: exchange, Key: "label.created"}, label("private", "phone", "verified"), false},
	} {
		if got := mailedAnyway(c.d, c.event); got != c.want {
			t.Errorf("%v: %v", c, got)
		}
	}
}

// FuzzRead: nothing that a stranger can send breaks the reading, and no error repeats what was sent.
func FuzzRead(f *testing.F) {
	s := jwstest.New(f)
	key, err := jws.NewKey("EdDSA", s.PEM)
	if err != nil {
		f.Fatal(err)
	}
	chain := jws.Keychain{"peatio": key}
	now := time.Unix(1_800_000_000, 0)
	payload, err := json.Marshal(deposit(now, "ID1", "one"))
	if err != nil {
		f.Fatal(err)
	}
	var words []*mail.EventMail
	for _, kind := range []string{mail.DepositUpdated, mail.BeneficiaryCreated} {
		e, err := letters(f).Event(kind, kind, nil)
		if err != nil {
			f.Fatal(err)
		}
		words = append(words, e)
	}
	f.Add(payload, []byte(nil))
	f.Add([]byte(`{"iat":1800000000,"event":{"record":{"uid":"a"}}}`), []byte(`{"payload":"","signatures":[{}]}`))
	f.Fuzz(func(t *testing.T, payload, raw []byte) {
		if m, err := read(raw, chain, "peatio", "deposit.updated", now, false); err == nil {
			t.Errorf("a message that nobody has signed: %+v", m)
		}
		// As if the service itself were hostile.
		m := jws.New(payload)
		if err := m.Sign("peatio", s); err != nil {
			t.Fatal(err)
		}
		body, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		got, err := read(body, chain, "peatio", "deposit.updated", now, false)
		if err != nil {
			return
		}
		if got.uid == "" && got.email == "" || !got.ends.After(now) || got.ends.After(now.Add(longest)) || got.id == "" {
			t.Errorf("%+v", got)
		}
		for _, e := range words {
			if letter, err := e.Render("en", mail.Data{Email: "a@a.test", Event: got.event}); err != nil || len(letter.Text) > 4000 {
				t.Errorf("%v, %d bytes", err, len(letter.Text))
			}
		}
	})
}

// Of several entries for one event the first decides that holds: a message is worth one mail.
func TestOneMailAMessage(t *testing.T) {
	s := jwstest.New(t)
	entry := func(subject, expression string) string {
		return "- { key: beneficiary.created, exchange: peatio, expression: '" + expression + "', templates: { en: { subject: " + subject + " } } }\n"
	}
	config := parse(t, head(s)+entry("Other", `record.currency == "btc"`)+entry("First", `record.currency == "eth"`)+entry("Second", ""))
	var subjects []string
	now := time.Now()
	m := New(Options{Config: config, Now: func() time.Time { return now }, Log: slog.New(slog.DiscardHandler), Notify: func(_ context.Context, n account.Notification) (string, error) {
		letter, err := n.Write("en", mail.Data{Email: "ann@example.com"})
		subjects = append(subjects, letter.Subject)
		return account.Notified, err
	}})
	err := m.Handle(t.Context(), events.Delivery{Exchange: exchange, Key: "beneficiary.created", Body: seal(t, s, "peatio", beneficiary(now, "IDA", "1"))})
	if err != nil || !slices.Equal(subjects, []string{"First"}) {
		t.Errorf("mailed %q, %v", subjects, err)
	}
}
