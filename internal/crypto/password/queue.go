package password

import (
	"context"
	"errors"
	"sync"
	"time"

	"barong/internal/fault"
)

// errBusy is the private cause of a refusal because too many wait already.
var errBusy = errors.New("password: too many hashes are waiting")

// An asker is who wants a hash: the queue gives the networks turns, and within each the accounts.
type asker struct{ network, account string }

type askerKey struct{}

// For says on whose behalf hashes are asked for with the context: the network of the client, and the account that it
// names, if it does. Work that nobody is named for shares one turn.
func For(ctx context.Context, network, account string) context.Context {
	return context.WithValue(ctx, askerKey{}, asker{network, account})
}

// A queue lets a bounded number of callers work at once and a bounded number wait. Those that wait get in by turns of their
// networks, and within a network by turns of the accounts: who asks a hundred times makes others wait for one turn. When
// too many wait, a caller of the network that has most waiting is refused. One account has at most an eighth of the places
// to wait from one network, so that it does not use up what its network may try.
type queue struct {
	mu      sync.Mutex
	free    int // places
	limit   int // callers that may wait
	waiting []*waiter
	turn    uint64 // of the network that got in last
	flows   map[string]*flow
}

// A flow is a network that has somebody waiting or working.
type flow struct {
	turns
	waiting, working int
	accounts         map[string]*turns
	turn             uint64 // of the account that got in last
}

// turns say when something is due: the one with the lowest number is next. Each turn puts it behind the others that wait.
// Who has been away is due as soon as those who waited all the time, and no sooner.
type turns struct {
	next    uint64
	waiting int
}

func (t *turns) due(now uint64) uint64 { return max(t.next, now) }

// take takes a turn, and returns its number.
func (t *turns) take(now uint64) uint64 {
	turn := t.due(now)
	t.next = turn + 1
	return turn
}

type waiter struct {
	asker
	since  time.Time
	called chan struct{} // closed once it got in, or was sent away
	away   bool
}

func newQueue(places, limit int) *queue {
	return &queue{free: places, limit: limit, flows: map[string]*flow{}}
}

// enter waits for a place, to be left by leave. The error is a fault: 429 with Retry-After when too many wait, 503 when
// the context ends first.
func (q *queue) enter(ctx context.Context) (leave func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, fault.New(fault.Unavailable).Because(err)
	}
	w := &waiter{since: time.Now(), called: make(chan struct{})}
	w.asker, _ = ctx.Value(askerKey{}).(asker)
	leave = func() { q.leave(w) }
	if !q.join(w) {
		return nil, fault.RateLimited(time.Second).Because(errBusy)
	}
	select {
	case <-w.called:
	case <-ctx.Done():
		q.giveUp(w)
		return nil, fault.New(fault.Unavailable).Because(ctx.Err())
	}
	if w.away {
		return nil, fault.RateLimited(time.Second).Because(errBusy)
	}
	return leave, nil
}

// length is how many wait, and for how long the first of them has.
func (q *queue) length() (waiting int, longest time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) > 0 {
		longest = time.Since(q.waiting[0].since)
	}
	return len(q.waiting), longest
}

// join lets a caller in at once, or has it wait, and reports false when too many wait already.
func (q *queue) join(w *waiter) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	f := q.flows[w.network]
	if f == nil {
		f = &flow{accounts: map[string]*turns{}}
		q.flows[w.network] = f
	}
	f.waiting++
	account := f.accounts[w.account]
	if account == nil {
		account = &turns{}
		f.accounts[w.account] = account
	}
	account.waiting++
	if q.free > 0 {
		q.free--
		q.admit(w)
		return true
	}
	greedy := w.asker != asker{} && account.waiting > max(1, q.limit/8)
	if greedy || len(q.waiting) >= q.limit && !q.sendAway(f.waiting) {
		q.forget(w)
		return false
	}
	q.waiting = append(q.waiting, w)
	return true
}

// sendAway refuses the last of the network of which most wait, if that is more than newcomers.
func (q *queue) sendAway(newcomers int) bool {
	at := -1
	for i, w := range q.waiting {
		if n := q.flows[w.network].waiting; n > newcomers || at >= 0 && n == newcomers {
			at, newcomers = i, n
		}
	}
	if at < 0 {
		return false
	}
	w := q.remove(at)
	w.away = true
	close(w.called)
	q.forget(w)
	return true
}

func (q *queue) remove(at int) *waiter {
	w := q.waiting[at]
	q.waiting = append(q.waiting[:at], q.waiting[at+1:]...)
	return w
}

// admit gives a caller a place, which is not free any more.
func (q *queue) admit(w *waiter) {
	f := q.flows[w.network]
	q.turn = f.take(q.turn)
	account := f.accounts[w.account]
	f.turn = account.take(f.turn)
	f.quit(w.account)
	f.working++
	close(w.called)
}

// forget takes back that somebody waits.
func (q *queue) forget(w *waiter) {
	f := q.flows[w.network]
	f.quit(w.account)
	q.settle(w.network, f)
}

// quit takes back that somebody waits for an account, and forgets an account that nobody waits for.
func (f *flow) quit(account string) {
	f.waiting--
	a := f.accounts[account]
	if a.waiting--; a.waiting == 0 {
		delete(f.accounts, account)
	}
}

// settle drops a flow that has nobody left.
func (q *queue) settle(network string, f *flow) {
	if f.waiting == 0 && f.working == 0 {
		delete(q.flows, network)
	}
}

func (q *queue) leave(w *waiter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	f := q.flows[w.network]
	f.working--
	q.settle(w.network, f)
	if len(q.waiting) == 0 {
		q.free++
		return
	}
	best := 0
	for i := range q.waiting {
		if q.before(q.waiting[i], q.waiting[best]) {
			best = i
		}
	}
	q.admit(q.remove(best))
}

// before reports whether a's turn comes before b's; of two with the same turn the one that came first is next.
func (q *queue) before(a, b *waiter) bool {
	f, g := q.flows[a.network], q.flows[b.network]
	if x, y := f.due(q.turn), g.due(q.turn); x != y {
		return x < y
	}
	return f == g && f.accounts[a.account].due(f.turn) < f.accounts[b.account].due(f.turn)
}

// giveUp takes back a wait, or the place if there was one by then.
func (q *queue) giveUp(w *waiter) {
	q.mu.Lock()
	for i := range q.waiting {
		if q.waiting[i] == w {
			q.remove(i)
			q.forget(w)
			q.mu.Unlock()
			return
		}
	}
	q.mu.Unlock()
	if !w.away {
		q.leave(w)
	}
}
