// Package outbox delivers what a transaction has queued: mails, events. The queue is a table, so a change and what must
// be told about it are one commit, and neither a crash nor an unreachable server loses anything.
//
// Every replica runs an Outbox. Each leases what it is about to deliver, so that no other delivers it too; should it die
// meanwhile, the lease runs out and another takes over. An item is therefore delivered at least once, and twice only when
// a worker dies, or loses the database, between delivering and saying so.
package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"barong/db"
)

// A Handler delivers one payload. Topic says what it is about. An error means that it was not delivered and is tried
// again later, unless Permanent made it. A handler ends when ctx does; a payload may come again after it was delivered.
type Handler func(ctx context.Context, topic string, payload []byte) error

// A Kind says how the items of one kind are delivered. Zero values choose defaults.
type Kind struct {
	Handler Handler
	// Ordered delivers one after the other in the order they were queued, over all replicas: an item that fails holds
	// back the rest. Otherwise up to Concurrency (4) are delivered at once, in any order.
	Ordered     bool
	Concurrency int
	Timeout     time.Duration // of one delivery; default 30 s
	MaxAge      time.Duration // an item that fails when it is older is given up; default 24 h
	MaxBackoff  time.Duration // the longest pause between attempts; default that of the Outbox
}

// Permanent marks an error that no later attempt can mend: the item is given up at once.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanent{err}
}

type permanent struct{ err error }

func (p *permanent) Error() string { return p.err.Error() }
func (p *permanent) Unwrap() error { return p.err }

// IsPermanent reports whether Permanent has marked an error in err's chain.
func IsPermanent(err error) bool {
	var p *permanent
	return errors.As(err, &p)
}

// Store is the queue: a *db.DB.
type Store interface {
	OnEnqueue(f func(kind string))
	LeaseOutbox(ctx context.Context, kind string, limit int, lease time.Duration, ordered bool) ([]db.OutboxItem, error)
	DeleteOutbox(ctx context.Context, item db.OutboxItem) error
	RetryOutbox(ctx context.Context, item db.OutboxItem, next time.Time, reason string) error
	ReleaseOutbox(ctx context.Context, item db.OutboxItem) error
	BuryOutbox(ctx context.Context, item db.OutboxItem, reason string) error
	OutboxDepths(ctx context.Context) ([]db.OutboxDepth, error)
}

// Options are what New needs.
type Options struct {
	Store Store
	Kinds map[string]Kind
	Log   *slog.Logger // default slog.Default()

	// Poll is how often the queue is looked at for what other replicas left behind and for what is to be tried again;
	// what this process queues is delivered at once. Default 1 s.
	Poll time.Duration
	// Backoff is the pause after the first failed attempt, and MaxBackoff the longest: it doubles in between and is
	// spread by half either way. Defaults 1 s, 10 min.
	Backoff, MaxBackoff time.Duration

	// Observe, when set, is told how each attempt ended: "delivered", "failed" or "dead".
	Observe func(kind, outcome string)
	Now     func() time.Time // default time.Now
}

// An Outbox is a running delivery. Close it.
type Outbox struct {
	o     Options
	mu    sync.RWMutex
	kinds map[string]*queue

	stop   chan struct{}
	ctx    context.Context // of the handlers
	cancel context.CancelFunc
	once   sync.Once
	wg     sync.WaitGroup // everything that was started
}

type queue struct {
	Kind
	name          string
	stop          chan struct{} // closed when nothing more is taken of this kind
	wake          chan struct{}
	waiting, dead atomic.Int64
	oldest        atomic.Int64 // Unix nanoseconds of the creation of the oldest that waits; 0 when none does
}

// margin is what a lease outlasts the longest delivery by: time enough to say how it ended.
const margin = 30 * time.Second

// batch is how many ordered items one lease takes.
const batch = 16

// New starts delivering.
func New(o Options) (*Outbox, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Observe == nil {
		o.Observe = func(string, string) {}
	}
	o.Poll = withDefault(o.Poll, time.Second)
	o.Backoff = withDefault(o.Backoff, time.Second)
	o.MaxBackoff = withDefault(o.MaxBackoff, 10*time.Minute)
	b := &Outbox{o: o, kinds: make(map[string]*queue), stop: make(chan struct{})}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	for name, k := range o.Kinds {
		if k.Handler == nil {
			return nil, fmt.Errorf("outbox: no handler for %s", name)
		}
	}
	o.Store.OnEnqueue(b.wake)
	b.Change(o.Kinds, nil)
	b.wg.Go(b.count)
	return b, nil
}

// Change begins to deliver kinds, in the place of those of the same names, and ends others. Deliveries of those under way go on
// to their ends; what waits for one that has ended stays where it is. It does nothing after Close.
func (b *Outbox) Change(kinds map[string]Kind, without []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopping() {
		return
	}
	end := func(name string) {
		if q := b.kinds[name]; q != nil {
			close(q.stop)
			delete(b.kinds, name)
		}
	}
	for _, name := range without {
		end(name)
	}
	for name, k := range kinds {
		if k.Concurrency <= 0 {
			k.Concurrency = 4
		}
		k.Timeout = withDefault(k.Timeout, 30*time.Second)
		k.MaxAge = withDefault(k.MaxAge, 24*time.Hour)
		k.MaxBackoff = withDefault(k.MaxBackoff, b.o.MaxBackoff)
		end(name)
		q := &queue{Kind: k, name: name, stop: make(chan struct{}), wake: make(chan struct{}, 1)}
		b.kinds[name] = q
		b.wg.Go(func() { b.run(q) })
	}
}

func (b *Outbox) queue(kind string) *queue {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.kinds[kind]
}

func withDefault(d, otherwise time.Duration) time.Duration {
	if d <= 0 {
		return otherwise
	}
	return d
}

func (b *Outbox) wake(kind string) {
	if q := b.queue(kind); q != nil {
		select {
		case q.wake <- struct{}{}:
		default: // it is about to look anyway
		}
	}
}

// Depth is how many items of a kind waited when last counted, and how many have been given up, over all replicas.
func (b *Outbox) Depth(kind string) (waiting, dead int64) {
	if q := b.queue(kind); q != nil {
		return q.waiting.Load(), q.dead.Load()
	}
	return 0, 0
}

// Age is how long the oldest item of a kind had waited when last counted, over all replicas; 0 when none waits.
func (b *Outbox) Age(kind string) time.Duration {
	if q := b.queue(kind); q != nil {
		if oldest := q.oldest.Load(); oldest != 0 {
			return max(b.o.Now().Sub(time.Unix(0, oldest)), 0)
		}
	}
	return 0
}

// Close takes nothing new, and waits until what is in hand has been delivered or has failed. When ctx ends first the
// handlers' contexts end too, and what they had in hand is tried again later, here or elsewhere.
func (b *Outbox) Close(ctx context.Context) error {
	b.once.Do(func() {
		b.mu.Lock() // nothing begins from here on
		defer b.mu.Unlock()
		close(b.stop)
	})
	done := make(chan struct{})
	go func() {
		b.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		b.cancel()
		return nil
	case <-ctx.Done():
		b.cancel()
		<-done
		return fmt.Errorf("outbox: deliveries were cut short: %w", ctx.Err())
	}
}

// run leases and delivers the items of one kind until Close.
func (b *Outbox) run(q *queue) {
	slots := make(chan struct{}, q.Concurrency)
	poll := time.NewTicker(b.o.Poll)
	defer poll.Stop()
	down := false
	for {
		// Lease no more than can be delivered at once: a lease must not run out on a shelf.
		limit := batch
		if !q.Ordered {
			limit = b.reserve(q, slots)
		}
		if b.stopping() || q.stopped() {
			return
		}
		lease := q.Timeout + margin
		if q.Ordered {
			lease += q.Timeout // and no more: should this process die, nobody else delivers before it ends
		}
		items, err := b.o.Store.LeaseOutbox(b.ctx, q.name, limit, lease, q.Ordered)
		if err != nil && !down && b.ctx.Err() == nil {
			b.o.Log.Warn("outbox cannot be read", "kind", q.name, "error", err)
		}
		down = err != nil
		if q.Ordered {
			b.inOrder(q, items, lease)
		} else {
			for range limit - len(items) {
				<-slots
			}
			for _, item := range items {
				b.wg.Go(func() {
					defer func() { <-slots }()
					b.deliver(q, item)
				})
			}
		}
		if len(items) == limit {
			continue // there may be more
		}
		select {
		case <-q.wake:
		case <-poll.C:
		case <-b.stop:
			return
		case <-q.stop:
			return
		}
	}
}

func (q *queue) stopped() bool {
	select {
	case <-q.stop:
		return true
	default:
		return false
	}
}

// reserve takes every free slot, at least one, and tells how many; none when the Outbox is closed, or the kind ended, meanwhile.
func (b *Outbox) reserve(q *queue, slots chan struct{}) int {
	n := 0
	select {
	case slots <- struct{}{}:
		n++
	case <-b.stop:
		return 0
	case <-q.stop:
		return 0
	}
	for n < cap(slots) {
		select {
		case slots <- struct{}{}:
			n++
		default:
			return n
		}
	}
	return n
}

func (b *Outbox) stopping() bool {
	select {
	case <-b.stop:
		return true
	default:
		return false
	}
}

// inOrder delivers ordered items until one fails, the Outbox is closed or the lease nears its end, and gives the rest
// back.
func (b *Outbox) inOrder(q *queue, items []db.OutboxItem, lease time.Duration) {
	began := time.Now()
	for i, item := range items {
		undone := items[i:]
		if !b.stopping() && time.Since(began)+q.Timeout+margin/2 < lease {
			if b.deliver(q, item) {
				continue
			}
			undone = items[i+1:]
		}
		for _, rest := range undone {
			b.settle(q, rest, func(ctx context.Context) error { return b.o.Store.ReleaseOutbox(ctx, rest) })
		}
		return
	}
}

// deliver makes one attempt and records how it ended. It reports whether the item is done with.
func (b *Outbox) deliver(q *queue, item db.OutboxItem) bool {
	err := item.Unreadable
	if err != nil {
		err = Permanent(fmt.Errorf("unseal: %w", err))
	} else {
		err = b.call(q, item)
	}
	log := b.o.Log.With("kind", q.name, "topic", item.Topic, "id", item.ID, "attempt", item.Attempts)
	if err == nil {
		b.settle(q, item, func(ctx context.Context) error { return b.o.Store.DeleteOutbox(ctx, item) })
		b.o.Observe(q.name, "delivered")
		return true
	}
	if b.ctx.Err() != nil { // cut short by Close: it says nothing about the item
		b.settle(q, item, func(ctx context.Context) error { return b.o.Store.ReleaseOutbox(ctx, item) })
		return false
	}
	now := b.o.Now()
	next := now.Add(b.pause(q, item.Attempts))
	if IsPermanent(err) || next.Sub(item.CreatedAt) > q.MaxAge {
		log.Error("outbox gave an item up", "age", now.Sub(item.CreatedAt).Round(time.Second).String(), "error", err)
		b.settle(q, item, func(ctx context.Context) error { return b.o.Store.BuryOutbox(ctx, item, err.Error()) })
		b.o.Observe(q.name, "dead")
		return true
	}
	log.Warn("outbox delivery failed", "next", next.UTC().Format(time.RFC3339), "error", err)
	b.settle(q, item, func(ctx context.Context) error { return b.o.Store.RetryOutbox(ctx, item, next, err.Error()) })
	b.o.Observe(q.name, "failed")
	return false
}

// call runs the handler. A panic is a failed attempt: one bad payload must not take the others along.
func (b *Outbox) call(q *queue, item db.OutboxItem) (err error) {
	ctx, cancel := context.WithTimeout(b.ctx, q.Timeout)
	defer cancel()
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return q.Handler(ctx, item.Topic, item.Payload)
}

// pause is the time before the attempt after this one.
func (b *Outbox) pause(q *queue, attempt int) time.Duration {
	d := b.o.Backoff
	for i := 1; i < attempt && d < q.MaxBackoff; i++ {
		d *= 2
	}
	d = min(d, q.MaxBackoff)
	return d/2 + rand.N(d)
}

// settle records the end of an attempt, also while the Outbox is being closed. If that fails the lease runs out and the
// item comes again.
func (b *Outbox) settle(q *queue, item db.OutboxItem, f func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(b.ctx), margin/2)
	defer cancel()
	if err := f(ctx); err != nil {
		b.o.Log.Error("outbox cannot be updated", "kind", q.name, "topic", item.Topic, "id", item.ID, "error", err)
	}
}

// count keeps Depth current.
func (b *Outbox) count() {
	t := time.NewTicker(5 * b.o.Poll)
	defer t.Stop()
	for {
		if depths, err := b.o.Store.OutboxDepths(b.ctx); err == nil { // run tells when the database is away
			seen := make(map[string]db.OutboxDepth, len(depths))
			for _, d := range depths {
				seen[d.Kind] = d
			}
			b.mu.RLock()
			for name, q := range b.kinds {
				q.waiting.Store(seen[name].Waiting)
				q.dead.Store(seen[name].Dead)
				oldest := int64(0)
				if at := seen[name].Oldest; !at.IsZero() {
					oldest = at.UnixNano()
				}
				q.oldest.Store(oldest)
			}
			b.mu.RUnlock()
		}
		select {
		case <-t.C:
		case <-b.stop:
			return
		}
	}
}
