package trail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"barong/db"
	"barong/internal/crypto/secret"
)

// Kinds of findings.
const (
	Edited   = "edited"   // a row is not as it was sealed
	Deleted  = "deleted"  // a row that was sealed is gone
	Inserted = "inserted" // a row stands among those that were sealed, and no block holds it
	Unproven = "unproven" // a row stands where a block is gone or altered: whether it was changed cannot be told
	Gap      = "gap"      // blocks are gone
	Altered  = "altered"  // a block is not as it was sealed, or does not follow the one before
	NoKey    = "no_key"   // a block is sealed under a key that is not in the list
	Purged   = "purged"   // rows were gone or others already when they were purged
	Cut      = "cut"      // the chain does not hold the head that was kept
)

// A Finding is something that is not as it was.
type Finding struct {
	Kind    string    `json:"kind"`
	Block   int64     `json:"block,omitempty"`    // its number; of a gap the first
	Through int64     `json:"through,omitempty"`  // last block of a gap
	FirstID int64     `json:"first_id,omitempty"` // of the rows in question
	LastID  int64     `json:"last_id,omitempty"`
	Rows    int64     `json:"rows,omitempty"`
	From    time.Time `json:"from,omitzero"` // between these the rows were made: as they are now or, if they are gone, as their block was
	Until   time.Time `json:"until,omitzero"`
	Note    string    `json:"note,omitempty"`
}

// A Summary is what Verify looked at.
type Summary struct {
	Whole    bool      `json:"whole"`
	Blocks   int64     `json:"blocks"`
	Rows     int64     `json:"rows"` // that are there and that blocks hold
	From     time.Time `json:"from,omitzero"`
	Until    time.Time `json:"until,omitzero"`
	Late     int64     `json:"late"`            // of the rows were more than an hour old when they were sealed: from before the chain, or imported
	Purged   int64     `json:"purged"`          // rows that were purged in order
	Waiting  int64     `json:"waiting"`         // rows that are not sealed yet
	Since    time.Time `json:"since,omitzero"`  // creation of the first of them
	Findings int64     `json:"findings"`        // lines
	Wrong    int64     `json:"wrong,omitempty"` // rows that findings are about
	Head     string    `json:"head"`
}

// VerifyOptions say what to verify.
type VerifyOptions struct {
	From  *Head               // verify what follows this block alone; nil is everything
	Head  *Head               // a head that was kept, which must be part of the chain
	Found func(Finding) error // hears each finding as it is made; an error ends it
}

// String is a line for people.
func (f Finding) String() string {
	var b strings.Builder
	b.WriteString(f.Kind)
	switch {
	case f.Through > f.Block:
		fmt.Fprintf(&b, " blocks %d to %d", f.Block, f.Through)
	case f.Block > 0 && f.FirstID == 0:
		fmt.Fprintf(&b, " block %d", f.Block)
	}
	if f.FirstID > 0 {
		fmt.Fprintf(&b, " id %d", f.FirstID)
		if f.LastID > f.FirstID {
			fmt.Fprintf(&b, " to %d (%d rows)", f.LastID, f.Rows)
		}
		if f.Block > 0 {
			fmt.Fprintf(&b, " in block %d", f.Block)
		}
	} else if f.Rows > 0 {
		fmt.Fprintf(&b, " %d rows", f.Rows)
	}
	if !f.From.IsZero() {
		fmt.Fprintf(&b, ", %s", span(f.From, f.Until))
	}
	if f.Note != "" {
		fmt.Fprintf(&b, ": %s", f.Note)
	}
	return b.String()
}

func span(from, until time.Time) string {
	if from.Equal(until) {
		return from.Format(time.RFC3339)
	}
	return from.Format(time.RFC3339) + " to " + until.Format(time.RFC3339)
}

// String is a few lines for people.
func (s *Summary) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d rows in %d blocks", s.Rows, s.Blocks)
	if !s.From.IsZero() {
		fmt.Fprintf(&b, ", %s", span(s.From, s.Until))
	}
	b.WriteByte('\n')
	if s.Late > 0 {
		fmt.Fprintf(&b, "%d of them were more than an hour old when they were sealed: from before the chain, or imported\n", s.Late)
	}
	if s.Purged > 0 {
		fmt.Fprintf(&b, "%d rows were purged in order\n", s.Purged)
	}
	if s.Waiting > 0 {
		fmt.Fprintf(&b, "%d rows since %s are not sealed yet\n", s.Waiting, s.Since.Format(time.RFC3339))
	}
	if s.Whole {
		b.WriteString("the trail is whole\n")
	} else {
		fmt.Fprintf(&b, "the trail is NOT whole: %d findings about %d rows\n", s.Findings, s.Wrong)
	}
	fmt.Fprintf(&b, "head %s", s.Head)
	return b.String()
}

const (
	verifyPage = 64      // blocks that are read at a time
	verifyRows = 500     // rows that are read at a time
	strayMost  = 1 << 20 // ranges of rows that no block held so far
	lateAge    = time.Hour
)

// Verify walks along the chain and the rows, beside running servers. The memory that it takes does not depend on how many there
// are, and the time is linear in them. What is wrong is no error: see Summary.Whole.
func Verify(ctx context.Context, d *db.DB, o VerifyOptions) (*Summary, error) {
	v := &verifier{ctx: ctx, d: d, o: o, strays: strays{}, doubts: strays{}}
	v.sum.Head = Head{}.String()
	if err := v.run(); err != nil {
		return nil, fmt.Errorf("verify the audit trail: %w", err)
	}
	v.sum.Whole = v.sum.Findings == 0
	return &v.sum, nil
}

type verifier struct {
	ctx context.Context
	d   *db.DB
	o   VerifyOptions
	sum Summary

	head    Head  // of the block before
	through int64 // rows up to this id were walked along
	hole    bool  // between the last proven block and the next one blocks are gone or altered
	buffer  []db.Activity
	read    int64 // id up to which rows were read into the buffer

	strays, doubts strays // rows that no block held so far; and those where blocks are gone
	lost           int64  // of them beyond what is remembered
	kept           bool   // the head that was kept was met
	nokey          Finding
}

func (v *verifier) found(f Finding) error {
	v.sum.Findings++
	v.sum.Wrong += f.Rows
	return v.o.Found(f)
}

func (v *verifier) run() error {
	if from := v.o.From; from != nil && from.Seq > 0 {
		if err := v.begin(*from); err != nil {
			return err
		}
	}
	var newest *db.AuditBlock
	for {
		blocks, err := v.d.AuditBlocks(v.ctx, v.head.Seq, verifyPage)
		if err != nil {
			return err
		}
		for i := range blocks {
			if err := v.block(&blocks[i]); err != nil {
				return err
			}
		}
		if len(blocks) == verifyPage {
			continue
		}
		if newest, err = v.d.NewestAuditBlock(v.ctx); err != nil {
			return err
		}
		if newest == nil || newest.Seq <= v.head.Seq {
			break
		}
	}
	v.sum.Head = v.head.String()
	if err := v.unopened(); err != nil {
		return err
	}
	if kept := v.o.Head; kept != nil && kept.Seq > 0 && !v.kept {
		f := Finding{Kind: Cut, Block: kept.Seq, Note: "the chain ends before the head that was kept: what followed was cut off"}
		if kept.Seq <= v.head.Seq {
			f.Note = "the chain does not begin with, or before, the head that was kept: it cannot be compared"
		}
		if err := v.found(f); err != nil {
			return err
		}
	}
	return v.rest(newest)
}

// begin begins after a block.
func (v *verifier) begin(from Head) error {
	b, err := v.d.AuditBlock(v.ctx, from.Seq)
	if err != nil && !errors.Is(err, db.ErrNotFound) {
		return err
	}
	if err == nil && headOf(b) == from && proven(v.d, b) == nil {
		v.head, v.through, v.read = from, b.ThroughID, b.ThroughID
		v.kept = v.o.Head != nil && *v.o.Head == from
		return nil
	}
	if err := v.found(Finding{Kind: Cut, Block: from.Seq, Note: "the block to begin after is not part of the chain: everything is verified"}); err != nil {
		return err
	}
	return nil
}

// block verifies one block, and the rows up to where it ends.
func (v *verifier) block(b *db.AuditBlock) error {
	v.sum.Blocks++
	record, perr := purgeOf(v.d, b)
	if first := v.head.Seq + 1; b.Seq != first && (record == nil || !record.All) {
		if err := v.found(Finding{Kind: Gap, Block: first, Through: b.Seq - 1, Note: "blocks are gone"}); err != nil {
			return err
		}
		v.hole = true
	} else if b.Seq == first && !bytes.Equal(b.Previous, v.head.Hash[:]) {
		if err := v.found(Finding{Kind: Altered, Block: b.Seq, Note: "it does not follow the block before: that one is another than it was"}); err != nil {
			return err
		}
	}
	err := proven(v.d, b)
	if err == nil {
		err = perr
	}
	v.head = headOf(b)
	if sealed, oerr := v.d.OpenBlock(b); oerr == nil && len(sealed) == len(v.head.Hash) {
		copy(v.head.Hash[:], sealed) // what the next block follows, whatever this one says by now
	}
	if v.o.Head != nil && v.o.Head.Seq == b.Seq {
		v.kept = true
		if v.head != *v.o.Head {
			if err := v.found(Finding{Kind: Cut, Block: b.Seq, Note: "it is another block than the head that was kept"}); err != nil {
				return err
			}
		}
	}
	switch {
	case errors.Is(err, secret.ErrNoKey):
		if v.nokey.Kind == "" {
			v.nokey = Finding{Kind: NoKey, Block: b.Seq, Note: "sealed under a key that is not in BARONG_SECRET_KEY"}
		}
		v.nokey.Through = b.Seq
		v.hole = true
		return nil
	case errors.Is(err, errAltered) || forged(err):
		v.hole = true
		return v.found(Finding{Kind: Altered, Block: b.Seq, Note: "it is not as it was sealed"})
	case err != nil:
		return err
	}
	if b.Entries == nil && record == nil {
		v.hole = true
		return v.found(Finding{Kind: Altered, Block: b.Seq, Note: "its entries are gone, and nothing says that they were purged"})
	}
	// Where blocks are gone, rows up to this one's are in doubt.
	if v.hole {
		if err := v.walk(b.AfterID, nil, &v.doubts, nil); err != nil {
			return err
		}
		v.hole = false
	}
	if record != nil {
		return v.purged(b, record)
	}
	return v.rows(b)
}

// unopened tells of the blocks whose key is not there, together.
func (v *verifier) unopened() error {
	if v.nokey.Kind == "" {
		return nil
	}
	return v.found(v.nokey)
}

// purged goes along a block whose rows were purged.
func (v *verifier) purged(b *db.AuditBlock, p *purged) error {
	v.sum.Purged += p.Rows - p.Missing
	if p.Missing+p.Edited > 0 {
		note := fmt.Sprintf("when they were purged, %d of %d rows were gone already and %d were not as they had been sealed", p.Missing, p.Rows, p.Edited)
		if err := v.found(Finding{Kind: Purged, Block: b.Seq, Rows: p.Missing + p.Edited, From: p.From, Until: p.Until, Note: note}); err != nil {
			return err
		}
	}
	return v.walk(b.ThroughID, nil, &v.strays, nil)
}

// A state is what became of an entry.
type state int

const (
	well state = iota
	edited
	deleted
)

// rows verifies the rows of a block.
func (v *verifier) rows(b *db.AuditBlock) error {
	entries, err := decodeEntries(b.Entries)
	if err != nil || int64(len(entries)) != b.RowCount {
		return v.found(Finding{Kind: Altered, Block: b.Seq, Note: "its entries are not in their form"})
	}
	h := &rowHasher{salt: b.Salt}
	states, times := make([]state, len(entries)), make([]time.Time, len(entries))
	for i := range states {
		states[i] = deleted
	}
	judge := func(i int, a *db.Activity) {
		states[i], times[i] = well, a.CreatedAt.UTC()
		if h.hash(a) != entries[i].hash {
			states[i] = edited
		}
	}
	// First the entries of rows that came late, which lie below what was walked along.
	main, _ := slices.BinarySearchFunc(entries, max(b.AfterID, v.through)+1, func(e entry, id int64) int { return int(min(max(e.id-id, -1), 1)) })
	if err := v.byID(entries[:main], states[:main], judge); err != nil {
		return err
	}
	for _, e := range entries[:main] {
		v.strays.remove(e.id)
		v.doubts.remove(e.id)
	}
	if err := v.walk(b.ThroughID, entries[main:], &v.strays, func(i int, a *db.Activity) { judge(main+i, a) }); err != nil {
		return err
	}
	if slices.Contains(states, deleted) {
		// Rows are read ahead of what was committed and sealed since, and a purge may have come between the reading of the block
		// and that of its rows. So both are read again, as they stand at one moment.
		at, missing := lacking(entries, states)
		again, rows, err := v.d.AuditBlockWithRows(v.ctx, b.Seq, missing)
		if errors.Is(err, db.ErrNotFound) {
			return v.gone(b)
		}
		if err != nil {
			return err
		}
		record, err := purgeOf(v.d, again)
		if err != nil {
			return v.found(Finding{Kind: Altered, Block: b.Seq, Note: "the record of its purge cannot be read: " + err.Error()})
		}
		if record != nil && headOf(again) == headOf(b) {
			v.sum.Purged += record.Rows - record.Missing
			return nil
		}
		for i := range rows {
			judge(at[rows[i].ID], &rows[i])
		}
	}
	v.times(b.FromAt, b.UntilAt)
	for i := range states {
		if states[i] == well || states[i] == edited {
			v.sum.Rows++
		}
		if states[i] == well && b.SealedAt.Sub(times[i]) > lateAge {
			v.sum.Late++
		}
	}
	return v.tell(b, entries, states, times)
}

// byID reads the rows that were not found so far, by their ids.
func (v *verifier) byID(entries []entry, states []state, judge func(int, *db.Activity)) error {
	at, missing := lacking(entries, states)
	for part := range slices.Chunk(missing, verifyRows) {
		rows, err := v.d.ActivitiesByID(v.ctx, part)
		if err != nil {
			return err
		}
		for i := range rows {
			judge(at[rows[i].ID], &rows[i])
		}
	}
	return nil
}

// lacking are the ids of the entries whose rows were not found so far, and which entry each is.
func lacking(entries []entry, states []state) (at map[int64]int, ids []int64) {
	at = map[int64]int{}
	for i := range entries {
		if states[i] == deleted {
			at[entries[i].id] = i
			ids = append(ids, entries[i].id)
		}
	}
	return at, ids
}

// gone settles a block that was there a moment ago: a purge has drawn it together with others, or somebody has taken it away.
func (v *verifier) gone(b *db.AuditBlock) error {
	first, err := v.d.AuditBlocks(v.ctx, 0, 1)
	if err != nil {
		return err
	}
	if len(first) == 1 && first[0].Seq > b.Seq {
		if record, err := purgeOf(v.d, &first[0]); err == nil && record != nil && record.All {
			v.sum.Purged += b.RowCount
			return nil
		}
	}
	return v.found(Finding{Kind: Gap, Block: b.Seq, Through: b.Seq, Note: "it was taken away a moment ago"})
}

// times widens the time that was looked at.
func (v *verifier) times(from, until time.Time) {
	if v.sum.From.IsZero() || from.Before(v.sum.From) {
		v.sum.From = from.UTC()
	}
	if until.After(v.sum.Until) {
		v.sum.Until = until.UTC()
	}
}

// tell tells of the entries that are not well, those of one kind in a row together.
func (v *verifier) tell(b *db.AuditBlock, entries []entry, states []state, times []time.Time) error {
	for i := 0; i < len(states); {
		if states[i] == well {
			i++
			continue
		}
		f := Finding{Kind: Edited, Block: b.Seq, FirstID: entries[i].id, From: times[i], Until: times[i]}
		if states[i] == deleted {
			f.Kind, f.From, f.Until = Deleted, b.FromAt.UTC(), b.UntilAt.UTC()
		}
		for first := i; i < len(states) && states[i] == states[first]; i++ {
			f.LastID = entries[i].id
			f.Rows++
			if states[i] == edited {
				if times[i].Before(f.From) {
					f.From = times[i]
				} else if times[i].After(f.Until) {
					f.Until = times[i]
				}
			}
		}
		if err := v.found(f); err != nil {
			return err
		}
	}
	return nil
}

// walk goes along the rows up to an id, beside entries. match hears of each entry whose row is there; other rows are strays.
func (v *verifier) walk(through int64, entries []entry, other *strays, match func(i int, a *db.Activity)) error {
	i := 0
	for {
		a, err := v.next(through)
		if err != nil {
			return err
		}
		if a == nil {
			break
		}
		for i < len(entries) && entries[i].id < a.ID {
			i++
		}
		if i < len(entries) && entries[i].id == a.ID {
			match(i, a)
			i++
		} else if !other.add(a.ID) {
			v.lost++
		}
	}
	v.through = max(v.through, through)
	return nil
}

// next is the next row up to an id, or nil.
func (v *verifier) next(through int64) (*db.Activity, error) {
	if len(v.buffer) == 0 && v.read < through {
		rows, err := v.d.ActivitiesAfter(v.ctx, v.read, maxID, verifyRows)
		if err != nil {
			return nil, err
		}
		if v.read = through; len(rows) > 0 {
			v.read = rows[len(rows)-1].ID
		}
		v.buffer = rows
	}
	if len(v.buffer) == 0 || v.buffer[0].ID > through {
		return nil, nil
	}
	a := &v.buffer[0]
	v.buffer = v.buffer[1:]
	return a, nil
}

// rest tells of the rows that no block holds.
func (v *verifier) rest(newest *db.AuditBlock) error {
	var open []db.IDRange // where rows may stand that are not sealed yet
	if newest != nil {
		if v.hole {
			if err := v.walk(newest.ThroughID, nil, &v.doubts, nil); err != nil {
				return err
			}
		}
		if proven(v.d, newest) == nil {
			awaits, err := decodeAwaits(newest.Awaited)
			if err != nil {
				return err
			}
			open = ranges(awaits)
		}
	}
	late, err := v.d.LateRanges(v.ctx)
	if err != nil {
		return err
	}
	for _, r := range late {
		open = append(open, db.IDRange{First: r.FirstID, Last: r.LastID})
	}
	if v.sum.Waiting, v.sum.Since, err = v.d.CountActivitiesAfter(v.ctx, v.through); err != nil {
		return err
	}
	for _, kind := range []struct {
		name, note string
		rows       strays
	}{{Inserted, "", v.strays}, {Unproven, "the blocks that held it are gone or altered", v.doubts}} {
		if err := v.tellStrays(kind.name, kind.note, kind.rows.list, open); err != nil {
			return err
		}
	}
	if v.lost > 0 {
		return v.found(Finding{Kind: Inserted, Rows: v.lost, Note: "too many to be told one by one"})
	}
	return nil
}

// tellStrays tells of rows in ranges of ids, those next to each other together, but for those that are not sealed yet.
func (v *verifier) tellStrays(kind, note string, list, open []db.IDRange) error {
	var f Finding
	end := func() error {
		if f.Rows == 0 {
			return nil
		}
		told := f
		f = Finding{}
		return v.found(told)
	}
	for len(list) > 0 {
		rows, err := v.d.ActivitiesIn(v.ctx, list, verifyRows)
		if err != nil {
			return err
		}
		for i := range rows {
			a, at := &rows[i], rows[i].CreatedAt.UTC()
			if slices.ContainsFunc(open, func(r db.IDRange) bool { return r.First <= a.ID && a.ID <= r.Last }) {
				if v.sum.Waiting++; v.sum.Since.IsZero() || at.Before(v.sum.Since) {
					v.sum.Since = at
				}
				continue
			}
			if f.Rows > 0 && a.ID != f.LastID+1 {
				if err := end(); err != nil {
					return err
				}
			}
			if f.Rows == 0 {
				f = Finding{Kind: kind, FirstID: a.ID, From: at, Until: at, Note: note}
			}
			f.LastID = a.ID
			f.Rows++
			if at.Before(f.From) {
				f.From = at
			} else if at.After(f.Until) {
				f.Until = at
			}
		}
		if len(rows) < verifyRows {
			break
		}
		last := rows[len(rows)-1].ID
		list = slices.Clone(list[slices.IndexFunc(list, func(r db.IDRange) bool { return r.Last >= last }):])
		if list[0].First = last + 1; list[0].First > list[0].Last {
			list = list[1:]
		}
	}
	return end()
}

// strays are ids, kept as ranges: rows that an import has written lie close together.
type strays struct{ list []db.IDRange }

// add adds an id above all that were added, and reports whether it will be remembered.
func (s *strays) add(id int64) bool {
	if n := len(s.list); n > 0 && s.list[n-1].Last == id-1 {
		s.list[n-1].Last = id
		return true
	}
	if len(s.list) == strayMost {
		return false
	}
	s.list = append(s.list, db.IDRange{First: id, Last: id})
	return true
}

// remove takes an id away, if it is there.
func (s *strays) remove(id int64) {
	i, _ := slices.BinarySearchFunc(s.list, id, func(r db.IDRange, id int64) int { return int(min(max(r.Last-id, -1), 1)) })
	if i == len(s.list) || s.list[i].First > id {
		return
	}
	r := s.list[i]
	switch {
	case r.First == r.Last:
		s.list = slices.Delete(s.list, i, i+1)
	case r.First == id:
		s.list[i].First++
	case r.Last == id:
		s.list[i].Last--
	default:
		s.list = slices.Insert(s.list, i+1, db.IDRange{First: id + 1, Last: r.Last})
		s.list[i].Last = id - 1
	}
}
