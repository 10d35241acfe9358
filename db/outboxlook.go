package db

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"
)

// An OutboxEntry is an item of the outbox as an operator sees it: without its payload.
type OutboxEntry struct {
	ID        int64
	Kind      string
	Topic     string
	Attempts  int
	Dead      bool
	Reason    string // of the last attempt that failed; empty without one
	NextAt    time.Time
	CreatedAt time.Time
}

// OutboxFilter picks items of the outbox. Zero fields pick all.
type OutboxFilter struct {
	IDs  []int64
	Kind string
	Dead bool // only those that were given up
}

func (f *OutboxFilter) where(q bun.QueryBuilder) bun.QueryBuilder {
	if len(f.IDs) > 0 {
		q = q.Where("id IN (?)", bun.List(f.IDs))
	}
	if f.Kind != "" {
		q = q.Where("kind = ?", f.Kind)
	}
	if f.Dead {
		q = q.Where("dead = ?", true)
	}
	return q
}

// Outbox lists items in the order in which they were queued, from those after an id on, at most limit.
func (q queries) Outbox(ctx context.Context, f OutboxFilter, after int64, limit int) ([]OutboxEntry, error) {
	var rows []outboxRow
	err := q.idb.NewSelect().Model(&rows).ExcludeColumn("payload").ApplyQueryBuilder(f.where).Where("id > ?", after).
		Order("id").Limit(int64(limit)).Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("list outbox: %w", Translate(err))
	}
	out := make([]OutboxEntry, len(rows))
	for i, r := range rows {
		out[i] = OutboxEntry{
			ID: r.ID, Kind: r.Kind, Topic: r.Topic, Attempts: r.Attempts, Dead: r.Dead, NextAt: time.UnixMilli(r.NextAt).UTC(),
			CreatedAt: r.CreatedAt.UTC(),
		}
		if r.LastError != nil {
			out[i].Reason = *r.LastError
		}
	}
	return out, nil
}

// ReplayOutbox has what f picks of the items that were given up tried again, as if it had just been queued, and reports how
// many there are.
func (d *DB) ReplayOutbox(ctx context.Context, f OutboxFilter) (n int64, err error) {
	f.Dead = true
	err = d.Update(ctx, func(ctx context.Context, tx *Tx) error {
		r, err := tx.NewUpdate().Model((*outboxRow)(nil)).Set("dead = ?", false).Set("attempts = 0").Set("leased_until = 0").
			Set("next_at = ?", tx.db.now().UnixMilli()).Set("created_at = ?", tx.Now()).ApplyQueryBuilder(f.where).Exec(ctx)
		if err == nil {
			n, err = r.RowsAffected()
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("replay outbox: %w", err)
	}
	return n, nil
}

// DropOutbox deletes what f picks of the items that were given up, and reports how many there were.
func (d *DB) DropOutbox(ctx context.Context, f OutboxFilter) (n int64, err error) {
	f.Dead = true
	err = d.Update(ctx, func(ctx context.Context, tx *Tx) error {
		r, err := tx.NewDelete().Model((*outboxRow)(nil)).ApplyQueryBuilder(f.where).Exec(ctx)
		if err == nil {
			n, err = r.RowsAffected()
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("drop outbox: %w", err)
	}
	return n, nil
}
