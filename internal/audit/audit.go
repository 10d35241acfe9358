// Package audit writes the activity rows of the check: what was refused by permission, and what an AUDIT rule wants
// recorded. A row is never dropped, never holds a secret, and does not depend on odd input: what does not fit is cut,
// what cannot be read is said to be unreadable.
//
// Rows are committed in batches, and Audit returns when its batch is: a request that must be recorded is not let
// through before it is. Refusals that one user repeats on one method and path are folded into the first row's count, and
// those of ever other paths into one row of that user, so that asking for forbidden paths does not fill the table.
package audit

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"barong/authz"
	"barong/db"
	"barong/internal/reqid"
)

// Options are what New needs. DB must be set.
type Options struct {
	DB      *db.DB
	Country func(netip.Addr) string // ISO 3166-1 alpha-2 of an address, or empty; nil knows none
	Now     func() time.Time        // nil is time.Now
	Log     *slog.Logger            // nil logs nothing
}

// Bounds.
const (
	queueSize = 1024            // rows that wait for the writer; more callers wait for a place
	batchSize = 256             // rows of one transaction
	waitTime  = time.Second     // that Audit waits in all
	writeTime = 5 * time.Second // that one attempt to commit may take
	foldTime  = time.Minute     // after the first refusal, during which the same is folded into it
	foldsKept = 16_384          // refusals that can be folded into at a time
	// rowsPerUser is how many refusals of different paths get rows of their own within foldTime; further ones of the user
	// are folded into one row, which says so ("others").
	rowsPerUser = 100
	flushEvery  = 2 * time.Second       // how often the counts of folded refusals are stored
	refusals    = 3                     // attempts that fail while the database is well, before rows are tried one by one
	firstPause  = 20 * time.Millisecond // after an attempt that failed; doubled each time
	lastPause   = time.Second
)

var (
	errClosed = errors.New("audit: closed")
	errSlow   = errors.New("audit: the row was not stored in time")
)

// A Writer is an authz.Auditor. It is safe for concurrent use.
type Writer struct {
	o     Options
	seed  maphash.Seed // of fold keys
	queue chan *item

	mu      sync.Mutex
	closed  bool
	folds   map[foldKey]fold
	budgets map[int64]budget // by user
	repeats map[int64]int    // of folds that are gone: not yet added to the count of the row with this id

	storing atomic.Int64 // Unix nanoseconds: since when the writer has been at a batch; 0 when it is at none
	senders sync.WaitGroup
	give    context.CancelFunc // ends the writer's attempts
	done    chan struct{}
}

var _ authz.Auditor = (*Writer)(nil)

// An item is a row on its way; its id and err hold once it is settled and stored is closed.
type item struct {
	row     db.Activity
	others  bool // refusals of other paths are folded into it
	settled atomic.Bool
	stored  chan struct{}
	err     error
}

// settle tells whoever waits for the row that it is stored, or why not.
func (it *item) settle(err error) {
	it.err = err
	it.settled.Store(true)
	close(it.stored)
}

// A foldKey stands for a user, a method and a path. Paths may be long, and strangers choose them, who cannot know the seed
// of their hash.
type foldKey struct {
	user    int64
	request uint64
}

// A fold is a refusal that others like it are added to. Nothing has to be fetched from elsewhere to do so.
type fold struct {
	row   int64 // the id of the first one's row; 0 while it is on its way
	more  int   // not yet added to the row's count
	until int64 // Unix nanoseconds
	first *item // on its way; else nil
}

// A budget is how many refusals of a user got rows of their own lately.
type budget struct {
	rows  int
	until time.Time
}

// New starts a Writer. Close it.
func New(o Options) *Writer {
	if o.Country == nil {
		o.Country = func(netip.Addr) string { return "" }
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &Writer{
		o: o, queue: make(chan *item, queueSize), folds: make(map[foldKey]fold), budgets: make(map[int64]budget),
		repeats: make(map[int64]int), seed: maphash.MakeSeed(),
		give: cancel, done: make(chan struct{}),
	}
	go w.run(ctx)
	return w
}

// Audit implements authz.Auditor. It returns nil once the row is committed, or once its refusal is sure to be added to
// a committed row. It waits a second at most: a row that is in the queue by then is stored all the same as soon as the
// database answers.
func (w *Writer) Audit(ctx context.Context, e *authz.AuditEntry) error {
	now := e.At
	if now.IsZero() {
		now = w.o.Now()
	}
	it, first, err := w.admit(e, now)
	if it == nil || err != nil { // folded into a row that is stored, most often
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, waitTime, errSlow)
	defer cancel()
	for {
		if first {
			e.RequestID = reqid.From(ctx)
			if err := w.send(ctx, e, it, now); err != nil {
				return err
			}
		}
		select {
		case <-it.stored:
		case <-ctx.Done():
			return fmt.Errorf("audit: %w", context.Cause(ctx))
		}
		if first {
			return it.err
		}
		// The refusal that this one waited for is stored, or has failed: fold into it, or be the first.
		if it, first, err = w.admit(e, now); it == nil || err != nil {
			return err
		}
	}
}

// admit finds the row that e can be folded into, nil when that is done; or the row that must be stored first, with
// first set when it is e's own.
func (w *Writer) admit(e *authz.AuditEntry, now time.Time) (it *item, first bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, false, errClosed
	}
	if e.Allowed {
		w.senders.Add(1)
		return &item{stored: make(chan struct{})}, true, nil
	}
	key, others := w.keyOf(e.UserID, e.Method, e.Path), false
	if it, folded := w.fold(key, now); folded || it != nil {
		return it, false, nil
	}
	b := w.budgets[e.UserID]
	if !now.Before(b.until) {
		b = budget{until: now.Add(foldTime)}
	}
	if b.rows == rowsPerUser {
		key, others = w.keyOf(e.UserID, "", ""), true
		if it, folded := w.fold(key, now); folded || it != nil {
			return it, false, nil
		}
	} else {
		b.rows++
		w.budgets[e.UserID] = b
	}
	it = &item{stored: make(chan struct{}), others: others}
	if len(w.folds) < foldsKept {
		w.folds[key] = fold{first: it, until: now.Add(foldTime).UnixNano()}
	}
	w.senders.Add(1)
	return it, true, nil
}

// fold adds a refusal to the count of the row that others like it are folded into, or returns that row while it is on its
// way. The lock is held.
func (w *Writer) fold(key foldKey, now time.Time) (waits *item, folded bool) {
	f, ok := w.folds[key]
	if !ok {
		return nil, false
	}
	if it := f.first; it != nil {
		if !it.settled.Load() {
			return it, false
		}
		if it.err != nil {
			delete(w.folds, key)
			return nil, false
		}
		f.row, f.first = it.row.ID, nil
	}
	if now.UnixNano() >= f.until {
		w.collect(&f)
		delete(w.folds, key)
		return nil, false
	}
	f.more++
	w.folds[key] = f
	return nil, true
}

// collect moves the count of a fold to those that wait to be stored. The lock is held.
func (w *Writer) collect(f *fold) {
	if f.more > 0 {
		w.repeats[f.row] += f.more
		f.more = 0
	}
}

func (w *Writer) keyOf(user int64, method, path string) foldKey {
	return foldKey{user, maphash.Comparable(w.seed, [2]string{method, path})}
}

// send puts a row into the queue. If there is no place in time, whoever waits for the row hears of it too.
func (w *Writer) send(ctx context.Context, e *authz.AuditEntry, it *item, now time.Time) error {
	defer w.senders.Done()
	it.row = w.row(e.Clone(), now)
	if it.others {
		data := strings.TrimSuffix(*it.row.Data, "}") + `,"others":true}`
		it.row.Data = &data
	}
	select {
	case w.queue <- it:
		return nil
	case <-ctx.Done():
		it.settle(fmt.Errorf("audit: %w", context.Cause(ctx)))
		return it.err
	}
}

// Waiting is how many rows wait to be taken by the writer, and how long it has been at those that it took last, which is 0
// when it has stored them.
func (w *Writer) Waiting() (rows int, storing time.Duration) {
	if since := w.storing.Load(); since != 0 {
		storing = max(w.o.Now().Sub(time.Unix(0, since)), 0)
	}
	return len(w.queue), storing
}

// Close stores what is queued and the counts of folded refusals, and ends the writer. Audit fails from now on. The error
// says that ctx was done first; what was not stored by then is lost, and logged.
func (w *Writer) Close(ctx context.Context) error {
	w.mu.Lock()
	again := w.closed
	w.closed = true
	w.mu.Unlock()
	if !again {
		go func() {
			w.senders.Wait() // each waits a second at most
			close(w.queue)
		}()
	}
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
	}
	w.give()
	<-w.done
	return fmt.Errorf("close audit: %w", context.Cause(ctx))
}

// run stores rows and counts until the queue is closed and empty.
func (w *Writer) run(ctx context.Context) {
	defer close(w.done)
	defer w.give()
	ticker := time.NewTicker(flushEvery)
	defer ticker.Stop()
	batch := make([]*item, 0, batchSize)
	for open := true; open; {
		var it *item
		select {
		case it, open = <-w.queue:
		case <-ticker.C:
			if err := w.flush(ctx); err != nil {
				w.o.Log.WarnContext(ctx, "audit: counts of repeated refusals wait to be stored", "error", err)
			}
			continue
		}
		if !open {
			break
		}
		// What has gathered while the last batch was being committed is the next one.
		batch = append(batch[:0], it)
		for more := true; more && len(batch) < batchSize; {
			select {
			case it, open = <-w.queue:
				if more = open; more {
					batch = append(batch, it)
				}
			default:
				more = false
			}
		}
		w.storing.Store(w.o.Now().UnixNano())
		w.commit(ctx, batch)
		w.storing.Store(0)
	}
	var err error
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		if err = w.flush(ctx); err == nil || !sleep(ctx, pause) {
			break
		}
	}
	if err != nil {
		w.o.Log.ErrorContext(ctx, "audit: counts of repeated refusals are lost", "error", err)
	}
}

// commit stores a batch, trying until it is stored or the writer is told to give up.
func (w *Writer) commit(ctx context.Context, batch []*item) {
	refused := 0
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := w.insert(ctx, batch)
		switch {
		case err == nil:
			finish(batch, nil)
			return
		case ctx.Err() != nil:
			w.o.Log.ErrorContext(ctx, "audit: rows are lost", "rows", len(batch), "error", err)
			finish(batch, err)
			return
		case !errors.Is(err, context.DeadlineExceeded) && w.answers(ctx):
			refused++
		}
		if refused == refusals {
			// The database is well and does not want this: one row must not keep the others out.
			if len(batch) == 1 {
				w.bare(ctx, batch[0], err)
				return
			}
			for i := range batch {
				w.commit(ctx, batch[i:i+1])
			}
			return
		}
		if pause == firstPause {
			w.o.Log.ErrorContext(ctx, "audit: rows wait for the database", "rows", len(batch), "error", err)
		}
		sleep(ctx, pause)
	}
}

// bare stores a row without its texts when the database refuses it because of them.
func (w *Writer) bare(ctx context.Context, it *item, cause error) {
	w.o.Log.ErrorContext(ctx, "audit: a row was refused and is stored without its texts", "error", cause)
	data := `{"note":"The request could not be stored"}`
	it.row.Data, it.row.TargetUID, it.row.UserIPCountry, it.row.UserAgent = &data, nil, nil, ""
	err := w.insert(ctx, []*item{it})
	if err != nil {
		w.o.Log.ErrorContext(ctx, "audit: a row is lost", "user_id", it.row.UserID, "topic", it.row.Topic, "error", err)
	}
	finish([]*item{it}, err)
}

// answers reports whether the database is there, so that an error was about what it was given.
func (w *Writer) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, waitTime)
	defer cancel()
	return w.o.DB.Update(ctx, func(context.Context, *db.Tx) error { return nil }) == nil
}

func (w *Writer) insert(ctx context.Context, batch []*item) error {
	ctx, cancel := context.WithTimeout(ctx, writeTime)
	defer cancel()
	rows := make([]db.Activity, len(batch))
	err := w.o.DB.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		for i, it := range batch {
			rows[i] = it.row
		}
		return tx.InsertActivities(ctx, rows...)
	})
	if err != nil {
		return err
	}
	for i, it := range batch {
		it.row.ID = rows[i].ID
	}
	return nil
}

func finish(batch []*item, err error) {
	for _, it := range batch {
		it.settle(err)
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// flush adds the counts of repeated refusals to their rows, and forgets the folds that are over.
func (w *Writer) flush(ctx context.Context) error {
	now := w.o.Now()
	w.mu.Lock()
	for key, f := range w.folds {
		switch {
		case now.UnixNano() >= f.until:
			w.collect(&f)
			delete(w.folds, key)
		case f.more > 0:
			w.collect(&f)
			w.folds[key] = f
		}
	}
	for user, b := range w.budgets {
		if !now.Before(b.until) {
			delete(w.budgets, user)
		}
	}
	repeats := w.repeats
	w.repeats = make(map[int64]int)
	w.mu.Unlock()
	if len(repeats) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, writeTime)
	defer cancel()
	err := w.o.DB.Update(ctx, func(ctx context.Context, tx *db.Tx) error { return tx.AddToActivities(ctx, repeats) })
	if err == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, n := range repeats {
		w.repeats[id] += n
	}
	return err
}
