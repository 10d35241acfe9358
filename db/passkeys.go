package db

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"
)

// A Passkey is a public key with which its owner signs in.
type Passkey struct {
	bun.BaseModel `bun:"table:passkeys,alias:pk"`

	ID             int64 `bun:",pk,autoincrement"`
	UserID         int64
	CredentialID   string // base64url without padding, as the authenticator made it
	PublicKey      string // COSE_Key in base64url without padding
	SignCount      int64  // of the last sign-in; 0 where the authenticator does not count
	BackupEligible bool   // it may leave the authenticator it was made in
	BackedUp       bool   // it has
	Transports     string // how the authenticator is reached, separated by commas
	Name           string // its owner's
	LastUsedAt     *time.Time
	CreatedAt      time.Time
	UpdatedAt      time.Time
}

// Passkeys are a user's passkeys by id.
func (q queries) Passkeys(ctx context.Context, userID int64) ([]Passkey, error) {
	rows := []Passkey{}
	err := q.idb.NewSelect().Model(&rows).Where("user_id = ?", userID).Order("id").Scan(ctx)
	return rows, Translate(err)
}

// Passkey finds one of a user's passkeys, or ErrNotFound.
func (q queries) Passkey(ctx context.Context, userID, id int64) (*Passkey, error) {
	p := new(Passkey)
	if err := q.idb.NewSelect().Model(p).Where("user_id = ?", userID).Where("id = ?", id).Scan(ctx); err != nil {
		return nil, Translate(err)
	}
	return p, nil
}

// PasskeyByCredential finds a passkey by the id that its authenticator gave it, or ErrNotFound.
func (q queries) PasskeyByCredential(ctx context.Context, credentialID string) (*Passkey, error) {
	p := new(Passkey)
	if err := q.idb.NewSelect().Model(p).Where("credential_id = ?", credentialID).Scan(ctx); err != nil {
		return nil, Translate(err)
	}
	return p, nil
}

// InsertPasskey stores a new passkey; ErrTaken when somebody has one with that credential's id.
func (tx *Tx) InsertPasskey(ctx context.Context, p *Passkey) error {
	p.CreatedAt, p.UpdatedAt = tx.Now(), tx.Now()
	if _, err := tx.NewInsert().Model(p).Returning("id").Exec(ctx); err != nil {
		return fmt.Errorf("insert passkey: %w", Translate(err))
	}
	return nil
}

// RenamePasskey stores a passkey's name.
func (tx *Tx) RenamePasskey(ctx context.Context, p *Passkey) error {
	p.UpdatedAt = tx.Now()
	if _, err := tx.NewUpdate().Model(p).Column("name", "updated_at").WherePK().Exec(ctx); err != nil {
		return fmt.Errorf("rename passkey: %w", Translate(err))
	}
	return nil
}

// UsePasskey stores that a passkey was used, with the count of signatures and the state of its backup that came along. It
// reports false, and stores nothing, when the count has not risen since: of two parallel uses of one count only one wins.
// It is ErrNotFound when the passkey was removed meanwhile.
func (tx *Tx) UsePasskey(ctx context.Context, p *Passkey, count int64, backedUp bool) (bool, error) {
	now := tx.Now()
	done, err := tx.NewUpdate().Model(p).Set("sign_count = ?", count).Set("backed_up = ?", backedUp).
		Set("last_used_at = ?", now).Set("updated_at = ?", now).
		WherePK().Where("(sign_count < ? OR sign_count = 0 AND 0 = ?)", count, count).Exec(ctx)
	if err != nil {
		return false, fmt.Errorf("use passkey: %w", Translate(err))
	}
	if n, err := done.RowsAffected(); err != nil || n == 1 {
		return err == nil, err
	}
	_, err = tx.Passkey(ctx, p.UserID, p.ID)
	return false, err
}

// DeletePasskey removes a passkey.
func (tx *Tx) DeletePasskey(ctx context.Context, p *Passkey) error {
	if _, err := tx.NewDelete().Model(p).WherePK().Exec(ctx); err != nil {
		return fmt.Errorf("delete passkey: %w", Translate(err))
	}
	return nil
}
