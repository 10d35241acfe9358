package db

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"time"
)

// Hear notes that a message of another service is dealt with in this transaction, and reports false when that was done
// before. It is remembered until ends, after which nobody may accept the message any more. The id may have any length.
func (tx *Tx) Hear(ctx context.Context, id string, ends time.Time) (bool, error) {
	sum := sha256.Sum256([]byte(id))
	row := map[string]any{"id": hex.EncodeToString(sum[:]), "ends_at": ends.UnixMilli()}
	r, err := tx.NewInsert().Model(&row).Table("heard_messages").On("CONFLICT (id) DO NOTHING").Exec(ctx)
	if err != nil {
		return false, Translate(err)
	}
	n, err := r.RowsAffected()
	return n == 1, err
}

// PurgeHeard forgets at most limit messages that nobody would accept any more.
func (d *DB) PurgeHeard(ctx context.Context, now time.Time, limit int) error {
	_, err := d.writeRaw(ctx, `DELETE FROM heard_messages WHERE id IN
		(SELECT id FROM heard_messages WHERE ends_at <= ? ORDER BY ends_at LIMIT ?)`, now.Add(-lateClock).UnixMilli(), limit)
	return err
}
