package db

import (
	"context"

	"github.com/uptrace/bun"
)

// Counters of attempts (table rate_counters). Times are Unix milliseconds of the caller's clock.

// CountAttempt counts one attempt of a key, and reports whether it did: not when most of them were counted in the window
// that began with the first. A window that begins ends at end. One statement, so that parallel attempts take turns at the
// row; an attempt that is not counted writes nothing.
func (d *DB) CountAttempt(ctx context.Context, key string, most int, now, end int64) (bool, error) {
	var counted []int64
	err := d.write(ctx, func(ctx context.Context, idb bun.IDB) error {
		counted = counted[:0]
		return idb.NewRaw(`INSERT INTO rate_counters AS c (key, window_start, count, expires_at) VALUES (?0, ?1, 1, ?2)
			ON CONFLICT (key) DO UPDATE SET
				count = CASE WHEN c.expires_at <= ?1 THEN 1 ELSE c.count + 1 END,
				window_start = CASE WHEN c.expires_at <= ?1 THEN ?1 ELSE c.window_start END,
				expires_at = CASE WHEN c.expires_at <= ?1 THEN ?2 ELSE c.expires_at END
			WHERE c.expires_at <= ?1 OR c.count < ?3
			RETURNING expires_at`, key, now, end, most).Scan(ctx, &counted)
	})
	return len(counted) > 0, err
}

// WindowEnd is when the window of a key ends in which most attempts were counted; 0 when there is none.
func (d *DB) WindowEnd(ctx context.Context, key string, most int, now int64) (int64, error) {
	var end []int64
	err := d.Bun().NewRaw("SELECT expires_at FROM rate_counters WHERE key = ? AND expires_at > ? AND count >= ?",
		key, now, most).Scan(ctx, &end)
	if err != nil || len(end) == 0 {
		return 0, Translate(err)
	}
	return end[0], nil
}

// RefundAttempt takes one attempt of a key back, if any is counted.
func (d *DB) RefundAttempt(ctx context.Context, key string) error {
	_, err := d.writeRaw(ctx, "UPDATE rate_counters SET count = count - 1 WHERE key = ? AND count > 0", key)
	return err
}

// ResetAttempts forgets the attempts of a key.
func (d *DB) ResetAttempts(ctx context.Context, key string) error {
	_, err := d.writeRaw(ctx, "DELETE FROM rate_counters WHERE key = ?", key)
	return err
}

// PurgeAttempts drops at most limit counters whose window is over, and returns how many.
func (d *DB) PurgeAttempts(ctx context.Context, now int64, limit int) (int64, error) {
	return d.writeRaw(ctx, `DELETE FROM rate_counters WHERE expires_at <= ? AND key IN
		(SELECT key FROM rate_counters WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)`, now, now, limit)
}

// write runs one statement that writes: on SQLite in the queue of writers, on Postgres without a transaction, which would
// be further round trips.
func (d *DB) write(ctx context.Context, f func(ctx context.Context, idb bun.IDB) error) error {
	if !d.sqlite {
		return Translate(f(ctx, d.Bun()))
	}
	return d.Update(ctx, func(ctx context.Context, tx *Tx) error { return f(ctx, tx.Tx) })
}

// writeRaw is write for a statement that returns no rows, and returns how many it changed.
func (d *DB) writeRaw(ctx context.Context, query string, args ...any) (n int64, err error) {
	err = d.write(ctx, func(ctx context.Context, idb bun.IDB) error {
		r, err := idb.NewRaw(query, args...).Exec(ctx)
		if err != nil {
			return err
		}
		n, err = r.RowsAffected()
		return err
	})
	return n, err
}
