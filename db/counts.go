package db

import (
	"context"

	"barong/db/counts"
)

// CompareCounts returns where the counts and copies behind the lists differ from the rows: nothing, unless rows came in past
// the triggers.
func (d *DB) CompareCounts(ctx context.Context) (out []counts.Difference, err error) {
	err = d.snapshot(ctx, func(q queries) (err error) {
		out, err = counts.Compare(ctx, q.idb, d.sqlite)
		return err
	})
	return out, Translate(err)
}

// RebuildCounts makes them anew from the rows. Until it ends, nobody else writes what is counted.
func (d *DB) RebuildCounts(ctx context.Context) error {
	return d.Update(ctx, func(ctx context.Context, tx *Tx) error { return counts.Rebuild(ctx, tx, d.sqlite) })
}
