package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/uptrace/bun"
)

// An AuditBlock is a link of the chain that seals the audit trail; package trail gives its fields their meaning.
type AuditBlock struct {
	bun.BaseModel `bun:"table:audit_blocks"`

	Seq       int64  `bun:",pk"` // from 1
	Previous  []byte // hash of the block before
	SealedAt  time.Time
	RowCount  int64
	AfterID   int64 // it accounts for the ids above this one
	ThroughID int64 // and up to this one
	FirstID   int64 // of its entries
	LastID    int64
	FromAt    time.Time // first and last creation of its rows
	UntilAt   time.Time
	Salt      []byte
	Digest    []byte // of its entries
	Awaited   []byte // ids that may still appear
	Entries   []byte // nil when its rows were purged, or where they were not asked for
	Seal      string
	Purge     *string // sealed record of the purge
}

// auditSealContext and auditPurgeContext say where the sealed columns of a block live.
func auditSealContext(seq int64) string  { return "audit_block:" + strconv.FormatInt(seq, 10) }
func auditPurgeContext(seq int64) string { return "audit_purge:" + strconv.FormatInt(seq, 10) }

// SealBlock sets the seal of a block, which holds its hash.
func (q queries) SealBlock(b *AuditBlock, hash []byte) {
	b.Seal = q.db.sealer.Seal(hash, auditSealContext(b.Seq))
}

// OpenBlock is the hash that a block was sealed with. Its errors are those of the Sealer.
func (q queries) OpenBlock(b *AuditBlock) ([]byte, error) {
	return q.db.sealer.Open(b.Seal, auditSealContext(b.Seq))
}

// SealPurge sets the record of a block's purge.
func (q queries) SealPurge(b *AuditBlock, record []byte) {
	sealed := q.db.sealer.Seal(record, auditPurgeContext(b.Seq))
	b.Purge = &sealed
}

// OpenPurge is the record of a block's purge; the block has one. Its errors are those of the Sealer.
func (q queries) OpenPurge(b *AuditBlock) ([]byte, error) {
	return q.db.sealer.Open(*b.Purge, auditPurgeContext(b.Seq))
}

// NewestAuditBlock is the newest block without its entries, or nil where there is none.
func (q queries) NewestAuditBlock(ctx context.Context) (*AuditBlock, error) {
	b := new(AuditBlock)
	err := Translate(q.idb.NewSelect().Model(b).ExcludeColumn("entries").Order("seq DESC").Limit(1).Scan(ctx))
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return b, err
}

// AuditBlock is one block, or ErrNotFound.
func (q queries) AuditBlock(ctx context.Context, seq int64) (*AuditBlock, error) {
	b := &AuditBlock{Seq: seq}
	return b, Translate(q.idb.NewSelect().Model(b).WherePK().Scan(ctx))
}

// AuditBlocks are at most limit blocks after one, in their order.
func (q queries) AuditBlocks(ctx context.Context, after, limit int64) ([]AuditBlock, error) {
	var blocks []AuditBlock
	err := q.idb.NewSelect().Model(&blocks).Where("seq > ?", after).Order("seq").Limit(limit).Scan(ctx)
	return blocks, Translate(err)
}

// AuditBlocksOver are the blocks after one that may hold ids of a range, at most limit, in their order.
func (q queries) AuditBlocksOver(ctx context.Context, r IDRange, after, limit int64) ([]AuditBlock, error) {
	var blocks []AuditBlock
	err := q.idb.NewSelect().Model(&blocks).Where("last_id >= ?", r.First).Where("first_id <= ?", r.Last).Where("seq > ?", after).
		Where("purge IS NULL").Order("seq").Limit(limit).Scan(ctx)
	return blocks, Translate(err)
}

// OldAuditBlocks are the numbers of blocks all of whose rows are older than a time and that were not purged, at most limit.
func (q queries) OldAuditBlocks(ctx context.Context, before time.Time, limit int64) ([]int64, error) {
	var seqs []int64
	err := q.idb.NewSelect().Model((*AuditBlock)(nil)).Column("seq").Where("purge IS NULL").Where("until_at < ?", before.UTC()).
		Order("until_at", "seq").Limit(limit).Scan(ctx, &seqs)
	return seqs, Translate(err)
}

// FirstKeptAuditBlock is the number of the first block that was not purged, and 0 where there is none.
func (q queries) FirstKeptAuditBlock(ctx context.Context) (int64, error) {
	var seq sql.NullInt64
	err := q.idb.NewSelect().Model((*AuditBlock)(nil)).ColumnExpr("min(seq)").Where("purge IS NULL").Scan(ctx, &seq)
	return seq.Int64, Translate(err)
}

// AppendAuditBlock adds a block. The error is *ErrTaken when another process has added one of that number.
func (tx *Tx) AppendAuditBlock(ctx context.Context, b *AuditBlock) error {
	_, err := tx.NewInsert().Model(b).Exec(ctx)
	return Translate(err)
}

// KeepPurge stores that a block was purged, and takes its entries away.
func (tx *Tx) KeepPurge(ctx context.Context, b *AuditBlock) error {
	b.Entries = nil
	_, err := tx.NewUpdate().Model(b).Column("entries", "purge").WherePK().Exec(ctx)
	return Translate(err)
}

// DropAuditBlocks deletes the blocks before one.
func (tx *Tx) DropAuditBlocks(ctx context.Context, before int64) error {
	_, err := tx.NewDelete().Model((*AuditBlock)(nil)).Where("seq < ?", before).Exec(ctx)
	return Translate(err)
}

// LockAuditBlock reads a block, and keeps others from changing it until the transaction ends. The error is ErrNotFound when
// there is none.
func (tx *Tx) LockAuditBlock(ctx context.Context, seq int64) (*AuditBlock, error) {
	b := &AuditBlock{Seq: seq}
	s := tx.NewSelect().Model(b).WherePK()
	if !tx.db.sqlite {
		s = s.For("UPDATE")
	}
	return b, Translate(s.Scan(ctx))
}

// An IDRange is a range of ids, both ends inclusive.
type IDRange struct{ First, Last int64 }

// idChunk is how many ids or ranges one statement names.
const idChunk = 500

// ActivitiesAfter are at most limit activities above an id and up to another, by id.
func (q queries) ActivitiesAfter(ctx context.Context, after, through, limit int64) ([]Activity, error) {
	return q.activityRows(ctx, "id > ? AND id <= ? ORDER BY id LIMIT ?", after, through, limit)
}

// ActivitiesByID are those activities of the given ids that there are, in any order.
func (q queries) ActivitiesByID(ctx context.Context, ids []int64) ([]Activity, error) {
	var out []Activity
	for part := range slices.Chunk(ids, idChunk) {
		rows, err := q.activityRows(ctx, "id IN (?)", bun.List(part))
		if err != nil {
			return nil, err
		}
		out = append(out, rows...)
	}
	return out, nil
}

// AuditBlockWithRows is a block, or ErrNotFound, and those activities of the given ids that there are, at one moment.
func (d *DB) AuditBlockWithRows(ctx context.Context, seq int64, ids []int64) (b *AuditBlock, rows []Activity, err error) {
	err = d.snapshot(ctx, func(q queries) error {
		if b, err = q.AuditBlock(ctx, seq); err != nil {
			return err
		}
		rows, err = q.ActivitiesByID(ctx, ids)
		return err
	})
	return b, rows, Translate(err)
}

// ActivitiesIn are at most limit activities whose ids lie in ranges, in their order.
func (q queries) ActivitiesIn(ctx context.Context, ranges []IDRange, limit int64) ([]Activity, error) {
	var out []Activity
	for part := range slices.Chunk(ranges, idChunk) {
		s := new(listQuery)
		for i, r := range part {
			if i > 0 {
				s.add(" OR ")
			}
			s.add("id BETWEEN ? AND ?", r.First, r.Last)
		}
		s.add(" ORDER BY id LIMIT ?", limit-int64(len(out)))
		rows, err := q.activityRows(ctx, s.text.String(), s.args...)
		if err != nil {
			return nil, err
		}
		if out = append(out, rows...); int64(len(out)) == limit {
			break
		}
	}
	return out, nil
}

// activityRows reads activities by hand: reading a million through a model takes twice as long.
func (q queries) activityRows(ctx context.Context, condition string, args ...any) ([]Activity, error) {
	rows, err := q.idb.QueryContext(ctx, "SELECT id, user_id, target_uid, category, user_ip, user_ip_country, user_agent, topic, action, "+
		"result, data, count, created_at, request_id FROM activities WHERE "+condition, args...)
	if err != nil {
		return nil, fmt.Errorf("read activities: %w", Translate(err))
	}
	defer rows.Close()
	var out []Activity
	for rows.Next() {
		var a Activity
		if err := rows.Scan(&a.ID, &a.UserID, &a.TargetUID, &a.Category, &a.UserIP, &a.UserIPCountry, &a.UserAgent, &a.Topic, &a.Action,
			&a.Result, &a.Data, &a.Count, &a.CreatedAt, &a.RequestID); err != nil {
			return nil, fmt.Errorf("read activities: %w", Translate(err))
		}
		out = append(out, a)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read activities: %w", Translate(err))
	}
	return out, nil
}

// CountActivitiesAfter counts the activities above an id, and finds the first creation among them.
func (q queries) CountActivitiesAfter(ctx context.Context, after int64) (n int64, from time.Time, err error) {
	if n, err = q.countOver(ctx, after); err != nil || n == 0 {
		return n, from, err
	}
	first, err := q.ActivitiesAfter(ctx, after, maxID, 1)
	if err == nil && len(first) == 1 {
		from = first[0].CreatedAt.UTC()
	}
	return n, from, err
}

// maxID is above every id.
const maxID = 1<<63 - 1

func (q queries) countOver(ctx context.Context, after int64) (n int64, err error) {
	err = q.idb.NewSelect().Table("activities").ColumnExpr("count(*)").Where("id > ?", after).Scan(ctx, &n)
	return n, Translate(err)
}

// DeleteActivities deletes activities and reports how many there were.
func (tx *Tx) DeleteActivities(ctx context.Context, ids []int64) (total int64, err error) {
	for part := range slices.Chunk(ids, idChunk) {
		r, err := tx.NewDelete().Model((*Activity)(nil)).Where("id IN (?)", bun.List(part)).Exec(ctx)
		if err != nil {
			return total, Translate(err)
		}
		n, err := r.RowsAffected()
		if err != nil {
			return total, err
		}
		total += n
	}
	return total, nil
}

// A Horizon is which transactions of Postgres have ended: all with a number below Ended, and none at or above Begun has
// begun. Of SQLite, whose writers take turns, both are 0.
type Horizon struct{ Ended, Begun int64 }

// Horizon looks at the transactions of the moment.
func (q queries) Horizon(ctx context.Context) (h Horizon, err error) {
	if q.db.sqlite {
		return h, nil
	}
	err = q.idb.NewRaw("SELECT txid_snapshot_xmin(s), txid_snapshot_xmax(s) FROM (SELECT txid_current_snapshot() AS s) AS now").
		Scan(ctx, &h.Ended, &h.Begun)
	return h, Translate(err)
}

// A LateRange is a range of ids in which activities were written that may lie below those that are sealed already.
type LateRange struct {
	bun.BaseModel `bun:"table:audit_late"`

	ID      int64 `bun:",pk,autoincrement"`
	FirstID int64
	LastID  int64
}

// NextLateRange is the oldest of the ranges, or nil where there is none.
func (q queries) NextLateRange(ctx context.Context) (*LateRange, error) {
	r := new(LateRange)
	err := Translate(q.idb.NewSelect().Model(r).Order("id").Limit(1).Scan(ctx))
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return r, err
}

// LateRanges are the ranges of ids that are still to be looked at.
func (q queries) LateRanges(ctx context.Context) ([]LateRange, error) {
	var ranges []LateRange
	return ranges, Translate(q.idb.NewSelect().Model(&ranges).Order("id").Scan(ctx))
}

// NoteLateRange has a range of ids looked at, once the transaction has committed.
func (tx *Tx) NoteLateRange(ctx context.Context, r IDRange) error {
	_, err := tx.NewInsert().Model(&LateRange{FirstID: r.First, LastID: r.Last}).Exec(ctx)
	return Translate(err)
}

// AdvanceLateRange leaves of a range what begins at an id, or nothing.
func (tx *Tx) AdvanceLateRange(ctx context.Context, r *LateRange, from int64) error {
	if from > r.LastID {
		_, err := tx.NewDelete().Model(r).WherePK().Exec(ctx)
		return Translate(err)
	}
	_, err := tx.NewUpdate().Model(r).Set("first_id = ?", from).WherePK().Exec(ctx)
	return Translate(err)
}
