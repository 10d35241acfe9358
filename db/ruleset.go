package db

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"github.com/uptrace/bun"
)

// A RuleSet is all permissions and restrictions at one moment, by id, and the number of the latest change to them.
type RuleSet struct {
	Permissions  []Permission
	Restrictions []Restriction
	Version      int64
}

// Rules reads the whole rule set as of one moment: no change is seen half.
func (d *DB) Rules(ctx context.Context) (*RuleSet, error) {
	o := &sql.TxOptions{ReadOnly: true}
	if !d.sqlite { // SQLite reads as of one moment in any transaction
		o.Isolation = sql.LevelRepeatableRead
	}
	tx, err := d.Bun().BeginTx(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("read rules: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // nothing was written
	q := queries{idb: tx, db: d}
	s := new(RuleSet)
	if s.Version, err = q.PolicyVersion(ctx); err != nil {
		return nil, err
	}
	if s.Permissions, err = q.AllPermissions(ctx); err != nil {
		return nil, fmt.Errorf("read permissions: %w", err)
	}
	if s.Restrictions, err = q.AllRestrictions(ctx); err != nil {
		return nil, fmt.Errorf("read restrictions: %w", err)
	}
	return s, nil
}

// PolicyVersion is the number of the latest rule change, or 0.
func (q queries) PolicyVersion(ctx context.Context) (int64, error) {
	var version int64
	err := q.idb.NewSelect().Model((*PolicyChange)(nil)).ColumnExpr("coalesce(max(id), 0)").Scan(ctx, &version)
	if err != nil {
		return 0, fmt.Errorf("read policy version: %w", Translate(err))
	}
	return version, nil
}

// A DecisionSample is a question that the permissions were asked lately, and the answer.
type DecisionSample struct {
	bun.BaseModel `bun:"table:decision_samples,alias:s"`

	Role, Verb, Path string
	Allowed          bool
	Count            int64     // how often, about
	SeenAt           int64     // Unix milliseconds
	Seen             time.Time `bun:"-"`
}

// AddSamples adds to what was asked lately and keeps the newest of it: keep of what was allowed and as many of what was
// refused, so that somebody who tries paths at random pushes out nothing but refusals.
func (d *DB) AddSamples(ctx context.Context, samples []DecisionSample, keep int) error {
	if len(samples) == 0 {
		return nil
	}
	// In one order everywhere, so that two replicas do not wait for each other in a circle.
	samples = slices.Clone(samples)
	slices.SortFunc(samples, func(a, b DecisionSample) int {
		return cmp.Or(cmp.Compare(a.Role, b.Role), cmp.Compare(a.Verb, b.Verb), cmp.Compare(a.Path, b.Path))
	})
	return d.Update(ctx, func(ctx context.Context, tx *Tx) error {
		for part := range slices.Chunk(samples, 500) {
			_, err := tx.NewInsert().Model(&part).On("CONFLICT (role, verb, path) DO UPDATE").
				Set("allowed = EXCLUDED.allowed").Set("seen_at = EXCLUDED.seen_at").
				Set("count = s.count + EXCLUDED.count").Exec(ctx)
			if err != nil {
				return fmt.Errorf("add decision samples: %w", err)
			}
		}
		for _, allowed := range [...]bool{false, true} {
			_, err := tx.ExecContext(ctx, "DELETE FROM decision_samples WHERE allowed = ? AND seen_at < coalesce("+
				"(SELECT seen_at FROM decision_samples WHERE allowed = ? ORDER BY seen_at DESC LIMIT 1 OFFSET ?), 0)",
				allowed, allowed, keep-1)
			if err != nil {
				return fmt.Errorf("drop old decision samples: %w", err)
			}
		}
		return nil
	})
}

// Samples are the questions asked lately, newest first.
func (q queries) Samples(ctx context.Context) ([]DecisionSample, error) {
	rows := []DecisionSample{}
	if err := q.idb.NewSelect().Model(&rows).Order("seen_at DESC", "role", "verb", "path").Scan(ctx); err != nil {
		return nil, fmt.Errorf("read decision samples: %w", Translate(err))
	}
	for i := range rows {
		rows[i].Seen = time.UnixMilli(rows[i].SeenAt).UTC()
	}
	return rows, nil
}
