package trail

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"barong/db"
	"barong/internal/crypto/secret"
)

// Options are what NewSealer needs. DB must be set, with the Sealer that it was opened with.
type Options struct {
	DB    *db.DB
	Every time.Duration    // between two turns; 0 is five seconds
	Now   func() time.Time // nil is time.Now
	Log   *slog.Logger     // nil logs nothing
}

// A Sealer appends blocks to the chain. Any number of them may run at a time, in any number of processes: a block has a number
// that only one of them can give, so no lock is held, and who comes second leaves it at that.
//
// An id that is missing between others belongs to a transaction that has not committed yet, or that never will. It is awaited
// until all transactions that had begun by then have ended and a minute has passed: a transaction takes its number
// a moment after its first id.
type Sealer struct {
	o Options

	mu   sync.Mutex
	head Head // newest that this process knows of
	last db.AuditBlock

	keyless bool // a block that cannot be opened was told of
	told    Head // what the log knows
	toldAt  time.Time
	whole   atomic.Int64 // Unix nanoseconds: when everything was sealed, as far as this process knows
	seq     atomic.Int64
	breaks  atomic.Int64

	stop context.CancelFunc
	done chan struct{}
}

// How often the head is logged while it moves, and the pause after a block while there is more, which leaves room for others.
const (
	tellEvery = 10 * time.Minute
	restTime  = 5 * time.Millisecond
)

// NewSealer returns a sealer that has not begun.
func NewSealer(o Options) *Sealer {
	if o.Every == 0 {
		o.Every = 5 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Sealer{o: o, done: make(chan struct{})}
	s.whole.Store(o.Now().UnixNano())
	return s
}

// Start seals in the background until Close.
func (s *Sealer) Start() {
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	go func() {
		defer close(s.done)
		t := time.NewTicker(s.o.Every)
		defer t.Stop()
		for {
			if !s.elsewhere(ctx) {
				s.turn(ctx)
			}
			s.tell(false)
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
		}
	}()
}

// Close ends what Start began, seals what is there, and logs the head. The error says that ctx was done first.
func (s *Sealer) Close(ctx context.Context) error {
	s.stop()
	<-s.done
	err := s.turn(ctx)
	s.tell(true)
	return err
}

// Seq is the number of the newest block that this process knows of.
func (s *Sealer) Seq() int64 { return s.seq.Load() }

// Age is how long ago everything was sealed, as far as this process knows.
func (s *Sealer) Age() time.Duration { return max(s.o.Now().Sub(time.Unix(0, s.whole.Load())), 0) }

// Breaks counts how often the newest blocks were found gone or altered.
func (s *Sealer) Breaks() int64 { return s.breaks.Load() }

// elsewhere reports whether another process has sealed a moment ago, and leaves the work to it.
func (s *Sealer) elsewhere(ctx context.Context) bool {
	b, err := s.o.DB.NewestAuditBlock(ctx)
	if err != nil || b == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	age := s.o.Now().Sub(b.SealedAt)
	if b.Seq <= s.head.Seq || age < 0 || age >= s.o.Every || s.know(b) != nil {
		return false
	}
	s.whole.Store(s.o.Now().UnixNano())
	return true
}

// turn seals until nothing is left.
func (s *Sealer) turn(ctx context.Context) error {
	for {
		more, err := s.Seal(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			s.o.Log.WarnContext(ctx, "audit: rows wait to be sealed", "error", err)
			return err
		case !more:
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(restTime):
		}
	}
}

// tell logs the head, for whoever keeps logs where the database's administrators do not reach.
func (s *Sealer) tell(end bool) {
	s.mu.Lock()
	head := s.head
	s.mu.Unlock()
	if now := s.o.Now(); head != s.told && (end || now.Sub(s.toldAt) >= tellEvery) {
		s.told, s.toldAt = head, now
		s.o.Log.Info("audit: the trail is sealed", "head", head.String())
	}
}

// Seal appends at most one block, and reports whether there is more to seal.
func (s *Sealer) Seal(ctx context.Context) (more bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.o.DB
	newest, err := d.NewestAuditBlock(ctx)
	if err != nil {
		return false, err
	}
	if err := s.know(newest); err != nil {
		return false, err
	}
	ended, err := d.Horizon(ctx)
	if err != nil {
		return false, err
	}
	late, err := d.NextLateRange(ctx)
	if err != nil {
		return false, err
	}
	now := s.o.Now().UTC().Truncate(time.Second)
	awaits, err := decodeAwaits(s.last.Awaited)
	if err != nil { // it is sealed, or was told of above
		awaits = nil
	}
	var rows []db.Activity
	var advance func(context.Context, *db.Tx) error
	if late != nil {
		if rows, advance, more, err = s.below(ctx, late); err != nil {
			return false, err
		}
	}
	b := &db.AuditBlock{
		Seq: s.head.Seq + 1, Previous: s.head.Hash[:], SealedAt: now, AfterID: s.last.ThroughID, ThroughID: s.last.ThroughID,
	}
	if late == nil && len(awaits) > 0 {
		if rows, err = d.ActivitiesIn(ctx, ranges(awaits), blockRows); err != nil {
			return false, err
		}
		more = len(rows) == blockRows
	}
	awaits = without(awaits, ids(rows))
	if late == nil {
		awaits = slices.DeleteFunc(awaits, func(a await) bool {
			age := now.Sub(time.Unix(a.at, 0))
			return !more && (a.begun <= ended.Ended && age >= graceTime || age >= awaitTime)
		})
		if room := blockRows - len(rows); room > 0 {
			next, err := d.ActivitiesAfter(ctx, b.AfterID, maxID, int64(room))
			if err != nil {
				return false, err
			}
			begun, err := d.Horizon(ctx)
			if err != nil {
				return false, err
			}
			more = more || len(next) == room
			for i := range next {
				if gap := (db.IDRange{First: b.ThroughID + 1, Last: next[i].ID - 1}); gap.First <= gap.Last && !d.SQLite() {
					awaits = append(awaits, await{gap, begun.Begun, now.Unix()})
				}
				b.ThroughID = next[i].ID
			}
			rows = append(rows, next...)
		}
		awaits = awaits[max(0, len(awaits)-awaitMost):]
	}
	if len(rows) == 0 {
		if advance != nil {
			return true, d.Update(ctx, advance)
		}
		s.whole.Store(now.UnixNano())
		return false, nil
	}
	b.Awaited = encodeAwaits(awaits)
	fill(b, rows)
	hash := hashOf(b)
	d.SealBlock(b, hash[:])
	err = d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		if advance != nil {
			if err := advance(ctx, tx); err != nil {
				return err
			}
		}
		return tx.AppendAuditBlock(ctx, b)
	})
	if _, taken := errors.AsType[*db.ErrTaken](err); taken {
		return false, nil // another process has sealed meanwhile, and goes on
	}
	if err != nil {
		return false, fmt.Errorf("seal activities: %w", err)
	}
	s.keep(b)
	if !more {
		s.whole.Store(now.UnixNano())
	}
	return more, nil
}

// know compares the newest block with what this process has seen. Blocks that it has seen and that are gone stay part of the
// chain: what is sealed next follows them, so that their absence shows.
func (s *Sealer) know(b *db.AuditBlock) error {
	if b == nil {
		b = new(db.AuditBlock)
	}
	head := Head{}
	if b.Seq > 0 {
		head = headOf(b)
	}
	switch {
	case head == s.head:
		return nil
	case head.Seq > s.head.Seq:
		if err := proven(s.o.DB, b); err != nil {
			switch {
			case errors.Is(err, errAltered) || forged(err):
				s.broke("the newest block of the audit trail is not as it was sealed", b.Seq)
			case !errors.Is(err, secret.ErrNoKey):
				return fmt.Errorf("the newest block of the audit trail, %d, cannot be opened: %w", b.Seq, err)
			case !s.keyless: // what follows can be proven all the same
				s.keyless = true
				s.broke("the newest block of the audit trail is sealed under a key that is not in BARONG_SECRET_KEY", b.Seq)
			}
		}
		s.keep(b)
	default:
		s.broke("the newest blocks of the audit trail are gone, or others than they were; \"barong audit verify\" tells which", head.Seq)
	}
	return nil
}

func (s *Sealer) broke(message string, block int64) {
	s.breaks.Add(1)
	s.o.Log.Error("audit: "+message, "block", block, "known", s.head.String())
}

func (s *Sealer) keep(b *db.AuditBlock) {
	s.head, s.last = headOf(b), *b
	s.last.Entries = nil
	s.seq.Store(b.Seq)
}

// maxID is above every id.
const maxID = 1<<63 - 1

// below finds rows that an import has written below what is sealed, some at a time, and what notes how far that has come.
func (s *Sealer) below(ctx context.Context, late *db.LateRange) (
	rows []db.Activity, advance func(context.Context, *db.Tx) error, more bool, err error,
) {
	through := min(late.LastID, s.last.ThroughID) // what lies above is sealed in its turn
	next := late.LastID + 1
	if late.FirstID <= through {
		all, err := s.o.DB.ActivitiesAfter(ctx, late.FirstID-1, through, blockRows)
		if err != nil {
			return nil, nil, false, err
		}
		if len(all) == blockRows {
			through = all[len(all)-1].ID
			next = through + 1
		}
		if len(all) > 0 {
			held, err := s.held(ctx, db.IDRange{First: all[0].ID, Last: through})
			if err != nil {
				return nil, nil, false, err
			}
			for i := range all {
				if !held[all[i].ID] {
					rows = append(rows, all[i])
				}
			}
		}
	}
	return rows, func(ctx context.Context, tx *db.Tx) error { return tx.AdvanceLateRange(ctx, late, next) }, true, nil
}

// held are the ids of a range that blocks hold.
func (s *Sealer) held(ctx context.Context, r db.IDRange) (map[int64]bool, error) {
	held := map[int64]bool{}
	const page = 64
	for after := int64(0); ; {
		blocks, err := s.o.DB.AuditBlocksOver(ctx, r, after, page)
		if err != nil {
			return nil, err
		}
		for i := range blocks {
			after = blocks[i].Seq
			if proven(s.o.DB, &blocks[i]) != nil {
				continue
			}
			entries, err := decodeEntries(blocks[i].Entries)
			if err != nil {
				continue
			}
			for _, e := range entries {
				if e.id >= r.First && e.id <= r.Last {
					held[e.id] = true
				}
			}
		}
		if len(blocks) < page {
			return held, nil
		}
	}
}

// fill makes rows the entries of a block.
func fill(b *db.AuditBlock, rows []db.Activity) {
	b.Salt = make([]byte, saltSize)
	rand.Read(b.Salt) // never fails since Go 1.24
	slices.SortFunc(rows, func(x, y db.Activity) int { return int(min(max(x.ID-y.ID, -1), 1)) })
	h := rowHasher{salt: b.Salt}
	entries := make([]entry, len(rows))
	b.FromAt, b.UntilAt = rows[0].CreatedAt.UTC(), rows[0].CreatedAt.UTC()
	for i := range rows {
		entries[i] = entry{rows[i].ID, h.hash(&rows[i])}
		if at := rows[i].CreatedAt.UTC(); at.Before(b.FromAt) {
			b.FromAt = at
		} else if at.After(b.UntilAt) {
			b.UntilAt = at
		}
	}
	b.FromAt, b.UntilAt = b.FromAt.Truncate(time.Second), b.UntilAt.Truncate(time.Second)
	b.Entries = encodeEntries(entries)
	digest := sha256.Sum256(b.Entries)
	b.Digest, b.RowCount, b.FirstID, b.LastID = digest[:], int64(len(rows)), rows[0].ID, rows[len(rows)-1].ID
}

func ids(rows []db.Activity) []int64 {
	out := make([]int64, len(rows))
	for i := range rows {
		out[i] = rows[i].ID
	}
	return out
}

func ranges(list []await) []db.IDRange {
	out := make([]db.IDRange, len(list))
	for i, a := range list {
		out[i] = a.IDRange
	}
	return out
}
