package trail

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"barong/db"
	"barong/internal/crypto/secret"
)

// A purged is the record of a purge, sealed beside the block whose rows it took. Where everything before that block was purged
// as well, its own record stands for all of them, and they are gone.
type purged struct {
	Hash    []byte    `json:"hash"`              // of the block
	All     bool      `json:"all,omitempty"`     // it stands for all blocks before, too
	Blocks  int64     `json:"blocks"`            // that it stands for
	Rows    int64     `json:"rows"`              // that they held
	Missing int64     `json:"missing,omitempty"` // of these were gone when they were purged
	Edited  int64     `json:"edited,omitempty"`  // were others than those that had been sealed
	From    time.Time `json:"from"`              // first and last creation
	Until   time.Time `json:"until"`
	At      time.Time `json:"at"` // when it was
}

// with is the record of two purges together.
func (p purged) with(o purged) purged {
	p.Blocks, p.Rows, p.Missing, p.Edited = p.Blocks+o.Blocks, p.Rows+o.Rows, p.Missing+o.Missing, p.Edited+o.Edited
	if o.From.Before(p.From) {
		p.From = o.From
	}
	if o.Until.After(p.Until) {
		p.Until = o.Until
	}
	return p
}

// forged reports an error of what was sealed by nobody who has the keys.
func forged(err error) bool {
	return errors.Is(err, secret.ErrForged) || errors.Is(err, secret.ErrMalformed)
}

// purgeOf opens the record of a block's purge; nil says that it was not purged.
func purgeOf(o opener, b *db.AuditBlock) (*purged, error) {
	if b.Purge == nil {
		return nil, nil
	}
	text, err := o.OpenPurge(b)
	if err != nil {
		return nil, err
	}
	p := new(purged)
	if err := json.Unmarshal(text, p); err != nil {
		return nil, errAltered
	}
	if hash := hashOf(b); !bytes.Equal(p.Hash, hash[:]) {
		return nil, errAltered
	}
	return p, nil
}

// purgePage is how many old blocks are looked up at a time, and how many that were purged are drawn together.
const purgePage = 200

// Purge deletes the activities that are older than before, by whole blocks: a row goes when the youngest one of its block is
// old enough. Rows that are not sealed yet stay until they are. Of a block stays what the chain needs, with a sealed record of
// the purge, until all blocks before it were purged as well. It stops when ctx is done; what was deleted by then is deleted. Any
// number of processes may purge at a time.
func Purge(ctx context.Context, d *db.DB, before, now time.Time, log *slog.Logger) (int64, error) {
	var total int64
	skipped := map[int64]bool{}
	for {
		seqs, err := d.OldAuditBlocks(ctx, before, int64(purgePage+len(skipped)))
		if err != nil {
			return total, fmt.Errorf("purge activities: %w", err)
		}
		progress := false
		for _, seq := range seqs {
			if skipped[seq] {
				continue
			}
			n, err := purgeBlock(ctx, d, seq, now)
			switch {
			case errors.Is(err, errAltered) || forged(err) || errors.Is(err, secret.ErrNoKey):
				skipped[seq] = true
				log.ErrorContext(ctx, "audit: a block of the trail is not as it was sealed, and its rows are not purged", "block", seq, "error", err)
				continue
			case err != nil:
				return total, fmt.Errorf("purge activities: %w", err)
			}
			progress = true
			total += n
		}
		if !progress {
			break
		}
	}
	for {
		more, err := compact(ctx, d)
		if errors.Is(err, errAltered) || forged(err) || errors.Is(err, secret.ErrNoKey) {
			log.ErrorContext(ctx, "audit: blocks that were purged are not as they were sealed, and stay", "error", err)
			return total, nil
		}
		if err != nil {
			return total, fmt.Errorf("purge activities: %w", err)
		}
		if !more {
			return total, nil
		}
	}
}

// purgeBlock deletes the rows of a block in one transaction, and reports how many there were.
func purgeBlock(ctx context.Context, d *db.DB, seq int64, now time.Time) (n int64, err error) {
	err = d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		n = 0
		b, err := tx.LockAuditBlock(ctx, seq)
		if errors.Is(err, db.ErrNotFound) || err == nil && b.Purge != nil {
			return nil // another process was here
		}
		if err != nil {
			return err
		}
		if err := proven(tx, b); err != nil {
			return err
		}
		entries, err := decodeEntries(b.Entries)
		if err != nil {
			return errAltered
		}
		p := purged{Blocks: 1, Rows: int64(len(entries)), From: b.FromAt.UTC(), Until: b.UntilAt.UTC(), At: now.UTC().Truncate(time.Second)}
		hash := hashOf(b)
		p.Hash = hash[:]
		all := make([]int64, len(entries))
		for i, e := range entries {
			all[i] = e.id
		}
		rows, err := tx.ActivitiesByID(ctx, all)
		if err != nil {
			return err
		}
		p.Missing = int64(len(entries) - len(rows))
		want := make(map[int64][hashSize]byte, len(entries))
		for _, e := range entries {
			want[e.id] = e.hash
		}
		h := rowHasher{salt: b.Salt}
		for i := range rows {
			if h.hash(&rows[i]) != want[rows[i].ID] {
				p.Edited++
			}
		}
		if n, err = tx.DeleteActivities(ctx, all); err != nil {
			return err
		}
		return keep(ctx, tx, b, p)
	})
	return n, err
}

func keep(ctx context.Context, tx *db.Tx, b *db.AuditBlock, p purged) error {
	record, err := json.Marshal(p)
	if err != nil {
		return err
	}
	tx.SealPurge(b, record)
	return tx.KeepPurge(ctx, b)
}

// compact draws purged blocks at the beginning of the chain together into the last of them, and reports whether there are more.
func compact(ctx context.Context, d *db.DB) (more bool, err error) {
	first, err := d.FirstKeptAuditBlock(ctx)
	if err != nil {
		return false, err
	}
	err = d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		more = false
		blocks, err := tx.AuditBlocks(ctx, 0, purgePage)
		if err != nil || len(blocks) < 2 {
			return err
		}
		var sum *purged
		var last *db.AuditBlock
		for i := range blocks {
			b := &blocks[i]
			if first != 0 && b.Seq >= first || b.Purge == nil {
				break
			}
			p, err := purgeOf(tx, b)
			if err == nil {
				err = proven(tx, b)
			}
			if err == nil && (last == nil && b.Seq != 1 && !p.All || last != nil && !follows(b, last)) {
				err = errAltered // blocks are gone without a record
			}
			if err != nil {
				return fmt.Errorf("block %d: %w", b.Seq, err)
			}
			if last != nil {
				*p = p.with(*sum)
			}
			sum, last = p, b
		}
		if last == nil || last.Seq == blocks[0].Seq {
			return nil
		}
		more = last.Seq == blocks[len(blocks)-1].Seq && len(blocks) == purgePage
		if last, err = tx.LockAuditBlock(ctx, last.Seq); err != nil {
			return err
		}
		sum.All = true
		if err := keep(ctx, tx, last, *sum); err != nil {
			return err
		}
		return tx.DropAuditBlocks(ctx, last.Seq)
	})
	if errors.Is(err, db.ErrNotFound) { // another process was faster
		return false, nil
	}
	return more, err
}

// follows reports whether a block is the next one after another.
func follows(b, last *db.AuditBlock) bool {
	hash := hashOf(last)
	return b.Seq == last.Seq+1 && bytes.Equal(b.Previous, hash[:])
}
