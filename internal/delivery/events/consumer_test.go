package events_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"barong/internal/crypto/secret"
	"barong/internal/delivery/events"
	"barong/internal/delivery/events/amqptest"
	"barong/internal/delivery/outbox"
	"barong/internal/test/testkit"
)

// A listener is a consumer of a test, and what it has heard.
type listener struct {
	mu       sync.Mutex
	heard    []string // bodies, each time
	dead     []string // bodies
	failures map[string][]error

	away      atomic.Bool // the stores do not answer
	connected atomic.Bool
}

func (l *listener) handle(_ context.Context, d events.Delivery) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	body := string(d.Body)
	l.heard = append(l.heard, body)
	if body == "broken" {
		panic("broken")
	}
	if l.away.Load() {
		return errors.New("the stores are away")
	}
	if left := l.failures[body]; len(left) > 0 {
		l.failures[body] = left[1:]
		return left[0]
	}
	return nil
}

func (l *listener) got() (heard, dead []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.heard), slices.Clone(l.dead)
}

// times is how often a body was handed to the handler.
func (l *listener) times(body string) int {
	heard, _ := l.got()
	n := 0
	for _, h := range heard {
		if h == body {
			n++
		}
	}
	return n
}

const peatio = "peatio.events.model"

// listen starts a consumer. It ends with the test, or by the returned call.
func listen(t *testing.T, b *amqptest.Broker, l *listener, keys ...string) (stop func()) {
	t.Helper()
	o := events.ConsumerOptions{
		URL: secret.URL(b.URL()), Queue: "test", Handle: l.handle, Log: slog.New(slog.DiscardHandler),
		Answers: func(context.Context) error {
			if l.away.Load() {
				return errors.New("away")
			}
			return nil
		},
		Dead: func(d events.Delivery, err error) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.dead = append(l.dead, string(d.Body))
			if strings.Contains(err.Error(), string(d.Body)) {
				t.Errorf("the error repeats the message: %v", err)
			}
		},
		Connected: l.connected.Store, Backoff: time.Millisecond, MaxBackoff: 20 * time.Millisecond,
	}
	for _, key := range keys {
		o.Bindings = append(o.Bindings, events.Binding{Exchange: peatio, Key: key})
	}
	c, err := events.NewConsumer(o)
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
	testkit.Eventually(t, time.Minute, l.connected.Load)
	return stop
}

// settled waits until nothing of the queue waits or is in hand.
func settled(t *testing.T, b *amqptest.Broker) {
	t.Helper()
	testkit.Eventually(t, time.Minute, func() bool {
		waiting, _ := b.Queue("test")
		return len(waiting) == 0 && b.InHand("test") == 0
	})
}

func bodies(messages []amqptest.Message) (out []string) {
	for _, m := range messages {
		out = append(out, string(m.Body))
	}
	return out
}

func TestConsumerDeclares(t *testing.T) {
	var b amqptest.Broker
	b.Start(t, "")
	b.Declare("barong.events.model", &amqptest.Exchange{Type: "direct", Durable: true})
	var l listener
	stop := listen(t, &b, &l, "deposit.updated", "beneficiary.created")
	if got := b.Bindings("test"); !slices.Equal(got, []string{peatio + " beneficiary.created", peatio + " deposit.updated"}) {
		t.Errorf("bound to %v", got)
	}
	// As the other service will declare it.
	if got := b.Exchanges()[peatio]; got != (amqptest.Exchange{Type: "direct"}) {
		t.Errorf("the exchange is %+v", got)
	}
	_, arguments := b.Queue("test")
	want := map[string]any{
		"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "test.dead", "x-message-ttl": events.Kept.Milliseconds(),
		"x-max-length": int64(1_000_000), "x-expires": 7 * events.Kept.Milliseconds(),
	}
	if fmt.Sprint(arguments) != fmt.Sprint(want) {
		t.Errorf("the queue is %v", arguments)
	}
	if _, arguments := b.Queue("test.dead"); arguments["x-max-length"] != int64(10_000) || arguments["x-message-ttl"] == nil {
		t.Errorf("the queue of dead letters is %v", arguments)
	}
	b.Publish(peatio, "deposit.updated", []byte("one"))
	b.Publish(peatio, "deposit.created", []byte("of no interest"))
	b.Publish(peatio, "beneficiary.created", []byte(strings.Repeat("x", 10_000))) // several frames
	testkit.Eventually(t, time.Minute, func() bool { heard, _ := l.got(); return len(heard) == 2 })
	settled(t, &b)
	stop()
	if made, orderly := b.Connections(); made != 1 || orderly != 1 {
		t.Errorf("%d connections, %d closed in order", made, orderly)
	}
}

// TestExchangeOfAnotherForm: an exchange that is there is used as it is.
func TestExchangeOfAnotherForm(t *testing.T) {
	var b amqptest.Broker
	b.Start(t, "")
	b.Declare(peatio, &amqptest.Exchange{Type: "direct", Durable: true})
	var l listener
	listen(t, &b, &l, "deposit.updated")
	b.Publish(peatio, "deposit.updated", []byte("one"))
	testkit.Eventually(t, time.Minute, func() bool { return l.times("one") == 1 })
	settled(t, &b)
}

func TestConsumerGivesUp(t *testing.T) {
	var b amqptest.Broker
	b.Start(t, "")
	passing := errors.New("a reason")
	l := listener{failures: map[string][]error{
		"hostile":   {outbox.Permanent(errors.New("not signed"))},
		"sometimes": {passing, passing},
		"poison":    slices.Repeat([]error{passing}, 1000),
	}}
	listen(t, &b, &l, "deposit.updated")
	large := strings.Repeat("x", events.MaxMessage+1)
	all := []string{"hostile", "sometimes", "poison", "broken", large, "fine"}
	for _, body := range all {
		b.Publish(peatio, "deposit.updated", []byte(body))
	}
	testkit.Eventually(t, time.Minute, func() bool { return l.times("fine") == 1 })
	settled(t, &b)
	_, dead := l.got()
	if want := []string{"hostile", "poison", "broken", large}; !slices.Equal(dead, want) {
		t.Errorf("given up are %.100q", dead)
	}
	kept, _ := b.Queue("test.dead")
	if got := bodies(kept); !slices.Equal(got, dead) {
		t.Errorf("set aside are %.100q", got)
	}
	for body, want := range map[string]int{"hostile": 1, "sometimes": 3, "poison": 5, "broken": 5, large: 0} {
		if got := l.times(body); got != want {
			t.Errorf("%.20q was tried %d times, not %d", body, got, want)
		}
	}
}

// TestStoresAway: no message is given up for an outage, however long it lasts, and none is put back meanwhile.
func TestStoresAway(t *testing.T) {
	var b amqptest.Broker
	b.Start(t, "")
	var l listener
	l.away.Store(true)
	listen(t, &b, &l, "deposit.updated")
	b.Publish(peatio, "deposit.updated", []byte("one"))
	testkit.Eventually(t, time.Minute, func() bool { return l.times("one") > 20 }) // many more than would give it up
	if n := b.InHand("test"); n != 1 {
		t.Errorf("%d in hand", n)
	}
	l.away.Store(false)
	settled(t, &b)
	if _, dead := l.got(); len(dead) > 0 {
		t.Errorf("given up are %q", dead)
	}
}

// TestBrokerGoesAndComesBack: what was in hand comes again, and the consumer finds its way back by itself.
func TestBrokerGoesAndComesBack(t *testing.T) {
	var b amqptest.Broker
	b.Start(t, "")
	var l listener
	l.away.Store(true)
	listen(t, &b, &l, "deposit.updated")
	b.Publish(peatio, "deposit.updated", []byte("one"))
	testkit.Eventually(t, time.Minute, func() bool { return l.times("one") > 0 })
	addr := b.Addr()
	b.Stop()
	b.Declare(peatio, nil) // it was not durable
	testkit.Eventually(t, time.Minute, func() bool { return !l.connected.Load() })
	l.away.Store(false)
	before := l.times("one")
	b.Start(t, addr)
	testkit.Eventually(t, time.Minute, func() bool { return l.times("one") > before })
	settled(t, &b)
	b.Publish(peatio, "deposit.updated", []byte("two"))
	testkit.Eventually(t, time.Minute, func() bool { return l.times("two") == 1 })

	b.Drop("test")
	testkit.Eventually(t, time.Minute, func() bool { return len(b.Bindings("test")) == 1 && l.connected.Load() })
	b.Publish(peatio, "deposit.updated", []byte("three"))
	testkit.Eventually(t, time.Minute, func() bool { return l.times("three") == 1 })
	if _, dead := l.got(); len(dead) > 0 {
		t.Errorf("given up are %q", dead)
	}
}

// TestReplicasShare: each message goes to one of the consumers, and what one of them leaves behind to the other.
func TestReplicasShare(t *testing.T) {
	var b amqptest.Broker
	b.Start(t, "")
	var one, other listener
	one.away.Store(true)
	stop := listen(t, &b, &one, "deposit.updated")
	listen(t, &b, &other, "deposit.updated")
	const n = 20
	for i := range n {
		b.Publish(peatio, "deposit.updated", fmt.Appendf(nil, "message %d", i))
	}
	testkit.Eventually(t, time.Minute, func() bool { heard, _ := other.got(); return len(heard) >= n-4 }) // one holds as many as it takes
	stop()
	testkit.Eventually(t, time.Minute, func() bool { heard, _ := other.got(); return len(heard) == n })
	settled(t, &b)
	for i := range n {
		if got := other.times(fmt.Sprintf("message %d", i)); got != 1 {
			t.Errorf("message %d was dealt with %d times", i, got)
		}
	}
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

func TestQueueOfAnotherForm(t *testing.T) {
	var b amqptest.Broker
	b.Start(t, "")
	var l listener
	stop := listen(t, &b, &l, "deposit.updated")
	stop()
	b.Redeclare("test", map[string]any{"x-max-length": int64(1)})
	var log logged
	c, err := events.NewConsumer(events.ConsumerOptions{
		URL: secret.URL(b.URL()), Queue: "test", Bindings: []events.Binding{{Exchange: peatio, Key: "deposit.updated"}}, Handle: l.handle,
		Log: slog.New(slog.NewTextHandler(&log, nil)), Backoff: time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Run(ctx)
	}()
	testkit.Eventually(t, time.Minute, func() bool { return strings.Contains(log.String(), "delete it once nothing waits in it") })
	cancel()
	<-done
	if _, err := events.NewConsumer(events.ConsumerOptions{URL: "amqp://u:hunter2/x@h"}); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Error(err)
	}
}
