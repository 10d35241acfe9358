package near

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"barong/session"
)

// Bounds of a table.
const (
	parts       = 32          // locks per table; where each one's slots are must stay in the processor's cache
	maxReads    = 4           // readings of a key that is invalidated again and again while it is read
	absences    = 16          // remembered keys, per part, that the store does not have
	absenceLife = time.Second // how long such a key is not asked for again
)

// errRestless says that a key was invalidated each time it had just been read.
var errRestless = errors.New("session: kept changing while it was read")

// A stamp is a moment on the cache's own clock: nanoseconds since the cache was made, by the monotonic clock where there
// is one, so that a step of the wall clock never makes old memory young.
type stamp = int64

// A known is one thing read from a store. It never changes, but for when it was read and used.
type known[V any] struct {
	loaded atomic.Int64 // stamp: when the reading began that has found it last
	used   atomic.Int64 // stamp: when it was last used, coarsely; or gone
	value  V
}

// gone marks what has been replaced or forgotten.
const gone = math.MinInt64

func knownSince[V any](loaded, used stamp, value V) *known[V] {
	k := &known[V]{value: value}
	k.loaded.Store(loaded)
	k.used.Store(used)
	return k
}

// use notes that it was used at now, unless it is gone, which it reports by false. It writes rarely, since a line of
// memory that every check writes to is one that the processors fight for.
func (k *known[V]) use(now stamp, every time.Duration) bool {
	used := k.used.Load()
	if used == gone {
		return false
	}
	if now-used > int64(every) {
		k.used.CompareAndSwap(used, now)
	}
	return true
}

// A node is the place of one key. What it knows is replaced as a whole; nil means that the node was forgotten, and
// whoever still holds it must look again. A session's fills one line of memory.
type node[K comparable, V any] struct {
	key       K
	state     atomic.Pointer[known[V]]
	user      atomic.Pointer[known[session.Principal]] // of a session or API key: what was last known; as good as new unless it is gone
	nextTouch atomic.Int64                             // stamp: when the sliding expiry is due to be written back; sessions only
	token     TokenSlot                                // sessions and API keys only
}

// know replaces what the node knows, and says so to who has kept the old. nil forgets the node.
func (n *node[K, V]) know(st *known[V]) {
	if old := n.state.Swap(st); old != nil {
		old.used.Store(gone)
	}
}

// keepUser keeps what is known of the user beside the node.
func (n *node[K, V]) keepUser(p *known[session.Principal]) {
	if n.user.Load() != p {
		n.user.Store(p)
	}
}

// What lies far apart in memory is fetched at the same time, rather than each when it is needed.
const (
	line       = 64
	tokenAhead = 8 * line // of a token, whose text lies behind it (authz.emptyToken); the processor guesses the rest
)

// fetchToken begins to fetch the token, which a check needs last.
func (n *node[K, V]) fetchToken() {
	if t := n.token.Load(); t != nil {
		prefetch(unsafe.Pointer(t), tokenAhead)
	}
}

// A table remembers what one store holds under keys of type K. Reading it takes no lock.
type table[K comparable, V any] struct {
	cache *Cache
	what  string         // of one value, for errors
	hash  func(K) uint64 // the lowest byte chooses the part
	read  func(ctx context.Context, k K, now time.Time) (V, error)
	again func(ctx context.Context, keys []K, old []*V, now time.Time) ([]*V, error) // see table.renew
	kept  func(*node[K, V], *known[V])                                               // called when a state was read, before anybody sees it; may be nil
	named func(K, *known[V]) K                                                       // the key as a new node keeps it, which pins no other memory; nil: as it was asked for
	limit int                                                                        // nodes per part

	parts   [parts]part[K, V]
	forgets atomic.Uint64 // invalidations so far
	hurried chan struct{} // holds one when all should be renewed at once
}

type part[K comparable, V any] struct {
	nodes   nodes[K, V] // changed under the lock
	mu      sync.RWMutex
	flights map[K]*flight[K, V]
	absent  [absences]absence[K] // a ring
	oldest  int                  // of absent
	forgot  atomic.Uint64        // table.forgets at the last invalidation in this part
	_       [64]byte             // keeps the locks of neighbours on lines of their own
}

type absence[K comparable] struct {
	key   K
	until stamp
}

// A flight is one reading under way, for everybody who wants that key.
type flight[K comparable, V any] struct {
	done  chan struct{}
	node  *node[K, V]
	known *known[V]
	value V // what came with an error
	err   error
	stale bool // an invalidation came meanwhile; guarded by the part's lock until done
}

func newTable[K comparable, V any](c *Cache, what string, limit int, hash func(K) uint64,
	read func(context.Context, K, time.Time) (V, error),
	again func(context.Context, []K, []*V, time.Time) ([]*V, error),
) *table[K, V] {
	t := &table[K, V]{cache: c, what: what, hash: hash, read: read, again: again, limit: max(1, (limit+parts-1)/parts)}
	t.hurried = make(chan struct{}, 1)
	for i := range t.parts {
		t.parts[i].flights = make(map[K]*flight[K, V])
		t.parts[i].nodes.clear()
	}
	return t
}

// hashOfText spreads texts that strangers may choose.
func hashOfText() func(string) uint64 {
	seed := maphash.MakeSeed()
	return func(s string) uint64 { return maphash.String(seed, s) }
}

// hashOfKey is a part of the key, which is a hash already.
func hashOfKey(k session.Key) uint64 { return binary.LittleEndian.Uint64(k[:]) }

// part is where a hash belongs.
func (t *table[K, V]) part(hash uint64) *part[K, V] { return &t.parts[hash%parts] }

// get returns the node of k, or nil.
func (t *table[K, V]) get(k K) *node[K, V] {
	h := t.hash(k)
	return t.part(h).nodes.find(h, k)
}

// expect begins to fetch the slot where get will look first.
func (t *table[K, V]) expect(k K) {
	h := t.hash(k)
	slots := *t.part(h).nodes.slots.Load()
	prefetch(unsafe.Pointer(&slots[first(h)&uint64(len(slots)-1)]), line)
}

// expectSoon begins to fetch the node that get will most likely find.
func (t *table[K, V]) expectSoon(k K) {
	h := t.hash(k)
	slots := *t.part(h).nodes.slots.Load()
	s := &slots[first(h)&uint64(len(slots)-1)]
	if n := s.node.Load(); n != nil && s.tag.Load() == tagOf(h) {
		prefetch(unsafe.Pointer(n), line)
	}
}

// current returns what is known of k and may be trusted at now, reading it if need be. n is what get returned. That the
// store does not answer makes no state trustworthy: Fresh alone says for how long one goes on.
func (t *table[K, V]) current(ctx context.Context, k K, n *node[K, V], now time.Time) (*node[K, V], *known[V], V, error) {
	var (
		none V
		st   *known[V]
		at   = t.cache.stamp(now)
	)
	if n != nil {
		st = n.state.Load()
	}
	if st == nil {
		if t.isAbsent(k, at) {
			return nil, nil, none, session.ErrNotFound
		}
		return t.fetch(ctx, k, now)
	}
	if t.cache.trusts(st.loaded.Load(), at, now) {
		st.use(at, t.cache.useEvery)
		return n, st, none, nil
	}
	return t.fetch(ctx, k, now)
}

// answers reports whether the error is the store's own word about the key, and no failure to get one.
func answers(err error) bool { return errors.Is(err, session.ErrNotFound) || errors.Is(err, errOrphan) }

// fetch reads k from the store and keeps what it read. Those who want the same key at the same time share one reading.
// A value that was invalidated while it was read is neither kept nor handed out.
func (t *table[K, V]) fetch(ctx context.Context, k K, now time.Time) (*node[K, V], *known[V], V, error) {
	var none V
	h := t.hash(k)
	p := t.part(h)
	for range maxReads {
		p.mu.Lock()
		f, joined := p.flights[k]
		if !joined {
			f = &flight[K, V]{done: make(chan struct{})}
			p.flights[k] = f
		}
		p.mu.Unlock()
		if joined {
			select {
			case <-f.done:
			case <-ctx.Done():
				return nil, nil, none, ctx.Err()
			}
			if gaveUp(f.err) && ctx.Err() == nil {
				continue // the reader's time was up, not ours
			}
		} else {
			t.lead(ctx, k, now, f)
		}
		if !f.stale {
			return f.node, f.known, f.value, f.err
		}
	}
	return nil, nil, none, errRestless
}

func gaveUp(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// lead makes the reading of a flight and ends the flight, even when the store panics.
func (t *table[K, V]) lead(ctx context.Context, k K, now time.Time, f *flight[K, V]) {
	h := t.hash(k)
	p := t.part(h)
	loaded := t.cache.begin()
	f.err = errors.New("session: the store panicked")
	defer func() {
		p.mu.Lock()
		if p.flights[k] == f {
			delete(p.flights, k)
		}
		switch {
		case f.stale:
		case f.err == nil:
			f.node, f.known = t.keep(p, h, k, knownSince(loaded, loaded, f.value))
		case errors.Is(f.err, session.ErrNotFound):
			p.nodes.remove(h, k)
			p.absent[p.oldest] = absence[K]{k, loaded + int64(absenceLife)}
			p.oldest = (p.oldest + 1) % absences
		}
		p.mu.Unlock()
		close(f.done)
	}()
	t.cache.reads(t.what, 1, false)
	value, err := t.read(ctx, k, now)
	if err != nil && !answers(err) {
		err = fmt.Errorf("read %s: %w", t.what, err)
	}
	f.value, f.err = value, err
}

// keep puts a state in its place. The part is locked.
func (t *table[K, V]) keep(p *part[K, V], h uint64, k K, st *known[V]) (*node[K, V], *known[V]) {
	n := p.nodes.find(h, k)
	known := n != nil
	if !known {
		if t.named != nil {
			k = t.named(k, st)
		}
		n = &node[K, V]{key: k}
	}
	if t.kept != nil {
		t.kept(n, st)
	}
	n.know(st)
	if !known {
		if p.nodes.len() >= t.limit {
			p.nodes.evict(h)
		}
		p.nodes.add(h, n, t.hash)
	}
	return n, st
}

func (t *table[K, V]) isAbsent(k K, at stamp) bool {
	h := t.hash(k)
	p := t.part(h)
	p.mu.RLock()
	defer p.mu.RUnlock()
	for i := range p.absent {
		if p.absent[i].key == k && at < p.absent[i].until {
			return true
		}
	}
	return false
}

// forget drops k and makes a reading of it that is under way worthless.
func (t *table[K, V]) forget(k K) {
	h := t.hash(k)
	p := t.part(h)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forgot.Store(t.forgets.Add(1))
	if f := p.flights[k]; f != nil {
		f.stale = true
		delete(p.flights, k)
	}
	p.nodes.remove(h, k)
	for i := range p.absent {
		if p.absent[i].key == k {
			p.absent[i].until = 0
		}
	}
}

// forgetAll drops everything.
func (t *table[K, V]) forgetAll() {
	for i := range t.parts {
		p := &t.parts[i]
		p.mu.Lock()
		t.defeatReadings(p)
		for n := range p.nodes.all {
			n.forget()
		}
		p.nodes.clear()
		p.mu.Unlock()
	}
}

// distrust drops nothing, and makes readings that are under way worthless: Cache.distrusted is later than what they and
// all before them have found.
func (t *table[K, V]) distrust() {
	for i := range t.parts {
		p := &t.parts[i]
		p.mu.Lock()
		t.defeatReadings(p)
		p.mu.Unlock()
	}
	t.hurry()
}

// defeatReadings makes worthless what is being read in a part, and what was found not to be there. The part is locked.
func (t *table[K, V]) defeatReadings(p *part[K, V]) {
	p.forgot.Store(t.forgets.Add(1))
	for _, f := range p.flights {
		f.stale = true
	}
	clear(p.flights)
	p.absent = [absences]absence[K]{}
}

// forgotSince reports whether k may have been invalidated after the table had counted so many invalidations.
func (t *table[K, V]) forgotSince(k K, forgets uint64) bool {
	return t.part(t.hash(k)).forgot.Load() > forgets
}

// sweep drops the nodes that are of no more use, and tokens that will not be handed out again.
func (t *table[K, V]) sweep(now time.Time, useless func(*node[K, V], *known[V]) bool) {
	for i := range t.parts {
		p := &t.parts[i]
		var drop []K
		for n := range p.nodes.all {
			if token := n.token.Load(); token != nil && now.UnixNano() >= token.Expires {
				n.token.CompareAndSwap(token, nil)
			}
			if st := n.state.Load(); st != nil && useless(n, st) {
				drop = append(drop, n.key)
			}
		}
		if len(drop) == 0 {
			continue
		}
		p.mu.Lock()
		for _, k := range drop {
			h := t.hash(k)
			if n := p.nodes.find(h, k); n != nil && useless(n, n.state.Load()) { // it may have been used since
				p.nodes.remove(h, k)
			}
		}
		p.mu.Unlock()
	}
}

// len counts the nodes.
func (t *table[K, V]) len() int {
	sum := 0
	for i := range t.parts {
		p := &t.parts[i]
		p.mu.RLock()
		sum += p.nodes.len()
		p.mu.RUnlock()
	}
	return sum
}
