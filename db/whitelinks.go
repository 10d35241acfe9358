package db

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"time"
)

// A Whitelink is a token, given out by staff, that lets whoever shows it past the restrictions from their address.
type Whitelink struct {
	UserID    int64 // who made it; 0 when unknown
	ExpiresAt time.Time
	Used      bool
}

// whitelinkDigest needs no slow hash: the token is random. A leaked table opens nothing.
func whitelinkDigest(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// InsertWhitelink keeps a token made by a user until it expires, and drops those that have expired.
func (tx *Tx) InsertWhitelink(ctx context.Context, token string, userID int64, expires time.Time) error {
	_, err := tx.NewDelete().Table("whitelinks").Where("expires_at <= ?", tx.db.now().UnixMilli()).Exec(ctx)
	if err != nil {
		return Translate(err)
	}
	row := map[string]any{"digest": whitelinkDigest(token), "user_id": userID, "expires_at": expires.UnixMilli()}
	_, err = tx.NewInsert().Model(&row).Table("whitelinks").Exec(ctx)
	return Translate(err)
}

// Whitelink finds a token that has not expired, used or not, or ErrNotFound.
func (q queries) Whitelink(ctx context.Context, token string) (*Whitelink, error) {
	var row struct {
		UserID    *int64
		ExpiresAt int64
		UsedAt    *int64
	}
	err := q.idb.NewSelect().Table("whitelinks").Column("user_id", "expires_at", "used_at").
		Where("digest = ?", whitelinkDigest(token)).Where("expires_at > ?", q.db.now().UnixMilli()).Scan(ctx, &row)
	if err != nil {
		return nil, Translate(err)
	}
	w := &Whitelink{ExpiresAt: time.UnixMilli(row.ExpiresAt).UTC(), Used: row.UsedAt != nil}
	if row.UserID != nil {
		w.UserID = *row.UserID
	}
	return w, nil
}

// UseWhitelink spends a token and reports false when it expired or was spent: of two parallel uses exactly one wins.
func (tx *Tx) UseWhitelink(ctx context.Context, token string) (bool, error) {
	now := tx.db.now().UnixMilli()
	r, err := tx.NewUpdate().Table("whitelinks").Set("used_at = ?", now).Where("digest = ?", whitelinkDigest(token)).
		Where("expires_at > ?", now).Where("used_at IS NULL").Exec(ctx)
	if err != nil {
		return false, Translate(err)
	}
	n, err := r.RowsAffected()
	return n == 1, err
}
