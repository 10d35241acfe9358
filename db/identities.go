package db

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"
)

// An Identity says that a user is somebody at an identity provider, and signs in there.
type Identity struct {
	bun.BaseModel `bun:"table:identities,alias:ident"`

	ID         int64 `bun:",pk,autoincrement"`
	UserID     int64
	Provider   string // its id in the configuration when the row was made
	Issuer     string
	Subject    string
	Email      string // as the provider said it last; empty when it said none
	LastUsedAt *time.Time
	CreatedAt  time.Time
	UpdatedAt  time.Time
}

// Identities are a user's identities by id.
func (q queries) Identities(ctx context.Context, userID int64) ([]Identity, error) {
	rows := []Identity{}
	err := q.idb.NewSelect().Model(&rows).Where("user_id = ?", userID).Order("id").Scan(ctx)
	return rows, Translate(err)
}

// IdentityOf finds whose an issuer's subject is, or ErrNotFound.
func (q queries) IdentityOf(ctx context.Context, issuer, subject string) (*Identity, error) {
	if !storable(issuer, subject) {
		return nil, ErrNotFound
	}
	row := new(Identity)
	if err := q.idb.NewSelect().Model(row).Where("issuer = ?", issuer).Where("subject = ?", subject).Scan(ctx); err != nil {
		return nil, Translate(err)
	}
	return row, nil
}

// InsertIdentity stores a new identity. ErrTaken names the index identities_subject when somebody has it already, and
// identities_user_id when the user has another one of the issuer.
func (tx *Tx) InsertIdentity(ctx context.Context, row *Identity) error {
	row.CreatedAt, row.UpdatedAt = tx.Now(), tx.Now()
	if _, err := tx.NewInsert().Model(row).Returning("id").Exec(ctx); err != nil {
		return fmt.Errorf("insert identity: %w", Translate(err))
	}
	return nil
}

// UseIdentity stores that its owner has signed in with an identity, and the address that came along.
func (tx *Tx) UseIdentity(ctx context.Context, row *Identity, address string) error {
	now := tx.Now()
	row.Email, row.LastUsedAt, row.UpdatedAt = address, &now, now
	if _, err := tx.NewUpdate().Model(row).Column("email", "last_used_at", "updated_at").WherePK().Exec(ctx); err != nil {
		return fmt.Errorf("use identity: %w", Translate(err))
	}
	return nil
}

// DeleteIdentity removes an identity.
func (tx *Tx) DeleteIdentity(ctx context.Context, row *Identity) error {
	if _, err := tx.NewDelete().Model(row).WherePK().Exec(ctx); err != nil {
		return fmt.Errorf("delete identity: %w", Translate(err))
	}
	return nil
}
