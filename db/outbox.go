package db

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/uptrace/bun"
)

// An OutboxItem is something that must leave the process: a mail, an event. It was queued in the transaction that caused
// it, and is in the hands of whoever leased it until the lease ends.
type OutboxItem struct {
	ID        int64
	Kind      string // what delivers it
	Topic     string // what it is about, e.g. an event's name: kept in clear, so no personal data
	Payload   []byte
	Attempts  int // this one included
	CreatedAt time.Time

	// Unreadable is set, and Payload is nil, when the payload cannot be unsealed: its key has left the key list.
	Unreadable error

	lease int64 // leased_until, which tells this lease from a later one
}

// OutboxDepth counts the items of a kind.
type OutboxDepth struct {
	Kind    string
	Waiting int64     // leased ones included
	Dead    int64     // given up and kept
	Oldest  time.Time // creation of the oldest that waits; zero when none does
}

// outboxRow is the row behind an OutboxItem. Times are Unix milliseconds.
type outboxRow struct {
	bun.BaseModel `bun:"table:outbox"`

	ID          int64 `bun:",pk,autoincrement"`
	Kind        string
	Topic       string
	Payload     string
	Attempts    int
	NextAt      int64
	LeasedUntil int64
	LastError   *string
	Dead        bool
	CreatedAt   time.Time
}

func outboxContext(kind string) string { return "outbox:" + kind }

// Enqueue queues a payload for the handler of its kind. It is sealed in the row, leaves only if the transaction commits,
// and the workers of this process are woken right then.
func (tx *Tx) Enqueue(ctx context.Context, kind, topic string, payload []byte) error {
	row := &outboxRow{
		Kind: kind, Topic: topic, Payload: tx.db.sealer.Seal(payload, outboxContext(kind)),
		NextAt: tx.db.now().UnixMilli(), CreatedAt: tx.Now(),
	}
	if _, err := tx.NewInsert().Model(row).Exec(ctx); err != nil {
		return fmt.Errorf("enqueue %s: %w", kind, Translate(err))
	}
	tx.AfterCommit(func(context.Context) {
		if f := tx.db.enqueued.Load(); f != nil {
			(*f)(kind)
		}
	})
	return nil
}

// OnEnqueue names who is told the kind of what this process has queued, after the commit. f must not block.
func (d *DB) OnEnqueue(f func(kind string)) { d.enqueued.Store(&f) }

// LeaseOutbox takes up to limit due items of a kind out of the reach of other workers, oldest first, for the duration of
// the lease. Ordered items are leased only from the head of the queue, and only while nobody else holds any of that
// kind: what waits for another attempt holds back what was queued after it.
func (d *DB) LeaseOutbox(
	ctx context.Context, kind string, limit int, lease time.Duration, ordered bool,
) ([]OutboxItem, error) {
	now := d.now().UnixMilli()
	// Most calls find nothing; a read tells without queueing for the one writer of SQLite.
	due, err := d.idb.NewSelect().Model((*outboxRow)(nil)).
		Where("kind = ? AND dead = ? AND next_at <= ? AND leased_until <= ?", kind, false, now, now).Exists(ctx)
	if err != nil || !due {
		return nil, Translate(err)
	}
	var rows []outboxRow
	err = d.Update(ctx, func(ctx context.Context, tx *Tx) error {
		rows = nil
		ids, err := tx.dueOutbox(ctx, kind, limit, ordered)
		if err != nil || len(ids) == 0 {
			return err
		}
		// Drawn anew here: the transaction may have waited for its turn.
		until := tx.db.now().Add(lease).UnixMilli()
		return tx.NewUpdate().Model(&rows).Set("leased_until = ?", until).Set("attempts = attempts + 1").
			Where("id IN (?)", bun.List(ids)).Returning("*").Scan(ctx)
	})
	if err != nil {
		return nil, fmt.Errorf("lease outbox %s: %w", kind, err)
	}
	slices.SortFunc(rows, func(a, b outboxRow) int { return int(a.ID - b.ID) })
	items := make([]OutboxItem, len(rows))
	for i, r := range rows {
		items[i] = OutboxItem{
			ID: r.ID, Kind: r.Kind, Topic: r.Topic, Attempts: r.Attempts, CreatedAt: r.CreatedAt, lease: r.LeasedUntil,
		}
		items[i].Payload, items[i].Unreadable = d.sealer.Open(r.Payload, outboxContext(kind))
	}
	return items, nil
}

// dueOutbox finds the ids that may be leased now, and locks them.
func (tx *Tx) dueOutbox(ctx context.Context, kind string, limit int, ordered bool) ([]int64, error) {
	now := tx.db.now().UnixMilli()
	if !ordered {
		var ids []int64
		q := tx.NewSelect().Model((*outboxRow)(nil)).Column("id").
			Where("kind = ? AND dead = ? AND next_at <= ? AND leased_until <= ?", kind, false, now, now).
			Order("next_at", "id").Limit(int64(limit))
		if !tx.db.sqlite {
			q = q.For("UPDATE SKIP LOCKED")
		}
		return ids, Translate(q.Scan(ctx, &ids))
	}
	if !tx.db.sqlite {
		// One at a time: two that look at the same head must not both lease from it.
		if _, err := tx.NewRaw("SELECT pg_advisory_xact_lock(hashtext(?))", outboxContext(kind)).Exec(ctx); err != nil {
			return nil, err
		}
	}
	held, err := tx.NewSelect().Model((*outboxRow)(nil)).
		Where("kind = ? AND dead = ? AND leased_until > ?", kind, false, now).Exists(ctx)
	if err != nil || held {
		return nil, Translate(err)
	}
	var head []outboxRow
	if err := tx.NewSelect().Model(&head).Column("id", "next_at").Where("kind = ? AND dead = ?", kind, false).
		Order("id").Limit(int64(limit)).Scan(ctx); err != nil {
		return nil, Translate(err)
	}
	var ids []int64
	for _, r := range head {
		if r.NextAt > now {
			break
		}
		ids = append(ids, r.ID)
	}
	return ids, nil
}

// DeleteOutbox forgets a delivered item. Nothing happens if its lease has passed to somebody else.
func (d *DB) DeleteOutbox(ctx context.Context, item OutboxItem) error {
	return d.Update(ctx, func(ctx context.Context, tx *Tx) error {
		_, err := tx.NewDelete().Model((*outboxRow)(nil)).Where("id = ? AND leased_until = ?", item.ID, item.lease).Exec(ctx)
		return err
	})
}

// RetryOutbox ends a lease and lets the item be leased again from next on. reason is for the operator.
func (d *DB) RetryOutbox(ctx context.Context, item OutboxItem, next time.Time, reason string) error {
	return d.settleOutbox(ctx, item, func(q *bun.UpdateQuery) *bun.UpdateQuery {
		return q.Set("leased_until = 0").Set("next_at = ?", next.UnixMilli()).Set("last_error = ?", cleanReason(reason))
	})
}

// ReleaseOutbox ends a lease as if it had never been.
func (d *DB) ReleaseOutbox(ctx context.Context, item OutboxItem) error {
	return d.settleOutbox(ctx, item, func(q *bun.UpdateQuery) *bun.UpdateQuery {
		return q.Set("leased_until = 0").Set("attempts = attempts - 1")
	})
}

// BuryOutbox gives an item up. It stays, sealed, for the operator to look at.
func (d *DB) BuryOutbox(ctx context.Context, item OutboxItem, reason string) error {
	return d.settleOutbox(ctx, item, func(q *bun.UpdateQuery) *bun.UpdateQuery {
		return q.Set("leased_until = 0").Set("dead = ?", true).Set("last_error = ?", cleanReason(reason))
	})
}

func (d *DB) settleOutbox(ctx context.Context, item OutboxItem, set func(*bun.UpdateQuery) *bun.UpdateQuery) error {
	return d.Update(ctx, func(ctx context.Context, tx *Tx) error {
		_, err := set(tx.NewUpdate().Model((*outboxRow)(nil))).
			Where("id = ? AND leased_until = ?", item.ID, item.lease).Exec(ctx)
		return err
	})
}

// cleanReason bounds an error's text, and keeps out what neither engine stores or a terminal would act on.
func cleanReason(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > 500 {
		s = strings.ToValidUTF8(s[:500], "")
	}
	return s
}

// OutboxDepths counts what waits and what was given up, by kind. Kinds without items are left out.
func (d *DB) OutboxDepths(ctx context.Context) ([]OutboxDepth, error) {
	var rows []struct {
		Kind string
		Dead bool
		N    int64
		At   time.Time
	}
	err := d.idb.NewSelect().Model((*outboxRow)(nil)).Column("kind", "dead").ColumnExpr("count(*) AS n, min(created_at) AS at").
		Group("kind", "dead").Order("kind", "dead").Scan(ctx, &rows)
	if err != nil {
		return nil, fmt.Errorf("outbox depths: %w", Translate(err))
	}
	var out []OutboxDepth
	for _, r := range rows {
		if len(out) == 0 || out[len(out)-1].Kind != r.Kind {
			out = append(out, OutboxDepth{Kind: r.Kind})
		}
		k := &out[len(out)-1]
		if r.Dead {
			k.Dead = r.N
		} else {
			k.Waiting, k.Oldest = r.N, r.At
		}
	}
	return out, nil
}
