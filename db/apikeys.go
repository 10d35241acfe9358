package db

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"

	"barong/internal/bus"
	"barong/session"

	"github.com/uptrace/bun"
)

func (q queries) openKey(k *APIKey) error {
	plain, err := q.db.sealer.Open(k.Sealed, sealedAt("apikeys", "secret:"+k.KID, k.UserID))
	if err != nil {
		return fmt.Errorf("API key %s: %w", k.KID, err)
	}
	k.Secret = string(plain)
	return k.read()
}

// read fills in what the row holds as text: the public key and the scopes.
func (k *APIKey) read() error {
	if k.PublicText != nil {
		var err error
		if k.PublicKey, err = base64.StdEncoding.DecodeString(*k.PublicText); err != nil || len(k.PublicKey) != ed25519.PublicKeySize {
			return fmt.Errorf("API key %s: its public key is none", k.KID)
		}
	}
	k.Scope = []string{}
	if k.ScopeJSON == nil {
		return nil
	}
	if err := json.Unmarshal([]byte(*k.ScopeJSON), &k.Scope); err != nil {
		return fmt.Errorf("API key %s: scope: %w", k.KID, err)
	}
	return nil
}

func (k *APIKey) writeScope() error {
	k.ScopeJSON = nil
	if len(k.Scope) == 0 {
		return nil
	}
	text, err := json.Marshal(k.Scope)
	if err != nil {
		return fmt.Errorf("API key %s: scope: %w", k.KID, err)
	}
	s := string(text)
	k.ScopeJSON = &s
	return nil
}

// APIKey is a key as a check needs it; session.ErrNotFound when there is none of that id.
func (q queries) APIKey(ctx context.Context, kid string) (*session.APIKey, error) {
	if !storable(kid) {
		return nil, session.ErrNotFound
	}
	var row checkedKey
	err := q.checkedKeys(&row).Where("k.kid = ?", kid).Limit(1).Scan(ctx)
	if err = Translate(err); err == ErrNotFound {
		return nil, session.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("API key: %w", err)
	}
	return q.openChecked(&row)
}

// A checkedKey is a key with the uid of its owner.
type checkedKey struct {
	APIKey `bun:",extend"`
	UID    string `bun:"uid,scanonly"`
}

// checkedKeys selects keys with their owners into model.
func (q queries) checkedKeys(model any) *bun.SelectQuery {
	return q.idb.NewSelect().Model(model).ColumnExpr("k.*").ColumnExpr("u.uid").Join("JOIN users AS u ON u.id = k.user_id")
}

func (q queries) openChecked(row *checkedKey) (*session.APIKey, error) {
	if err := q.openKey(&row.APIKey); err != nil {
		return nil, err
	}
	k := &session.APIKey{KID: row.KID, UID: row.UID, Active: row.State == "active"}
	if row.PublicKey != nil {
		k.PublicKey = row.PublicKey
	} else {
		k.Secret = []byte(row.Secret)
	}
	return k, nil
}

// APIKeysOf are several keys as a check needs them, in the order of their ids, which are different ones; nil stands for a
// key that is not there, or cannot be opened: APIKey tells which.
func (q queries) APIKeysOf(ctx context.Context, kids []string) ([]*session.APIKey, error) {
	out := make([]*session.APIKey, len(kids))
	at := make(map[string]int, len(kids))
	for i, kid := range kids {
		at[kid] = i
	}
	for chunk := range slices.Chunk(kids, manyAtOnce) {
		var rows []checkedKey
		err := q.checkedKeys(&rows).Where("k.kid IN (?)", bun.List(chunk)).Scan(ctx)
		if err != nil {
			return nil, fmt.Errorf("API keys: %w", Translate(err))
		}
		for i := range rows {
			if k, err := q.openChecked(&rows[i]); err == nil {
				out[at[k.KID]] = k
			}
		}
	}
	return out, nil
}

// UserAPIKeys is one page of a user's keys by id, without secrets, and how many there are in all.
func (q queries) UserAPIKeys(ctx context.Context, userID int64, p Page) ([]APIKey, int64, error) {
	var rows []APIKey
	n, err := q.idb.NewSelect().Model(&rows).Where("user_id = ?", userID).Order("id").
		Limit(p.limit()).Offset(p.offset()).ScanAndCount(ctx)
	if err != nil {
		return nil, 0, Translate(err)
	}
	for i := range rows {
		if err := rows[i].read(); err != nil {
			return nil, 0, err
		}
	}
	return rows, int64(n), nil
}

// An OwnedAPIKey is a key with its owner.
type OwnedAPIKey struct {
	APIKey `bun:",extend"`
	UID    string `bun:"uid,scanonly"`
	Email  string `bun:"email,scanonly"`
}

// An APIKeyFilter narrows a list of keys. Every field that is set must fit; the state inactive is that of every key which
// is not active, however it is stored.
type APIKeyFilter struct{ UID, KID, State *string }

// AllAPIKeys is one page of everybody's keys that fit, by id, without secrets, and how many fit in all.
func (q queries) AllAPIKeys(ctx context.Context, f APIKeyFilter, p Page) ([]OwnedAPIKey, int64, error) {
	var rows []OwnedAPIKey
	s := q.idb.NewSelect().Model(&rows).ColumnExpr("k.*").ColumnExpr("u.uid").ColumnExpr("u.email").
		Join("JOIN users AS u ON u.id = k.user_id")
	for column, value := range map[string]*string{"u.uid": f.UID, "k.kid": f.KID} {
		if value == nil {
			continue
		}
		if !storable(*value) {
			return nil, 0, nil
		}
		s = s.Where("? = ?", bun.Ident(column), *value)
	}
	switch {
	case f.State == nil:
	case *f.State == "active":
		s = s.Where("k.state = ?", "active")
	default:
		s = s.Where("k.state <> ?", "active")
	}
	n, err := s.Order("k.id").Limit(p.limit()).Offset(p.offset()).ScanAndCount(ctx)
	if err != nil {
		return nil, 0, fmt.Errorf("API keys: %w", Translate(err))
	}
	for i := range rows {
		if err := rows[i].read(); err != nil {
			return nil, 0, err
		}
	}
	return rows, int64(n), nil
}

// UserAPIKey finds one of a user's keys, or ErrNotFound.
func (q queries) UserAPIKey(ctx context.Context, userID int64, kid string) (*APIKey, error) {
	if !storable(kid) {
		return nil, ErrNotFound
	}
	k := new(APIKey)
	if err := q.idb.NewSelect().Model(k).Where("user_id = ?", userID).Where("kid = ?", kid).Scan(ctx); err != nil {
		return nil, Translate(err)
	}
	return k, k.read()
}

// InsertAPIKey stores a new key with its secret sealed, or its public key.
func (tx *Tx) InsertAPIKey(ctx context.Context, k *APIKey) error {
	k.CreatedAt, k.UpdatedAt = tx.Now(), tx.Now()
	if k.PublicKey != nil {
		text := base64.StdEncoding.EncodeToString(k.PublicKey)
		k.PublicText = &text
	}
	k.Sealed = tx.db.sealer.Seal([]byte(k.Secret), sealedAt("apikeys", "secret:"+k.KID, k.UserID))
	if err := k.writeScope(); err != nil {
		return err
	}
	if _, err := tx.NewInsert().Model(k).Returning("id").Exec(ctx); err != nil {
		return fmt.Errorf("insert API key: %w", Translate(err))
	}
	tx.Notify(bus.KeyChanged, k.KID)
	return nil
}

// UpdateAPIKey stores a key's scope and state.
func (tx *Tx) UpdateAPIKey(ctx context.Context, k *APIKey) error {
	k.UpdatedAt = tx.Now()
	if err := k.writeScope(); err != nil {
		return err
	}
	if _, err := tx.NewUpdate().Model(k).Column("scope", "state", "updated_at").WherePK().Exec(ctx); err != nil {
		return fmt.Errorf("update API key: %w", Translate(err))
	}
	tx.Notify(bus.KeyChanged, k.KID)
	return nil
}

// DeleteAPIKey removes a key and its secret.
func (tx *Tx) DeleteAPIKey(ctx context.Context, k *APIKey) error {
	if _, err := tx.NewDelete().Model(k).WherePK().Exec(ctx); err != nil {
		return fmt.Errorf("delete API key: %w", Translate(err))
	}
	tx.Notify(bus.KeyChanged, k.KID)
	return nil
}

// DeactivateAPIKeys makes all of a user's active keys inactive.
func (tx *Tx) DeactivateAPIKeys(ctx context.Context, userID int64) error {
	var kids []string
	err := tx.NewSelect().Model((*APIKey)(nil)).Column("kid").Where("user_id = ?", userID).Where("state = 'active'").
		Scan(ctx, &kids)
	if err != nil {
		return Translate(err)
	}
	if len(kids) == 0 {
		return nil
	}
	_, err = tx.NewUpdate().Model((*APIKey)(nil)).Set("state = 'inactive'").Set("updated_at = ?", tx.Now()).
		Where("user_id = ?", userID).Where("state = 'active'").Exec(ctx)
	if err != nil {
		return Translate(err)
	}
	for _, kid := range kids {
		tx.Notify(bus.KeyChanged, kid)
	}
	return nil
}

// A Page is a slice of a list: Number counts from 1, Size rows each.
type Page struct{ Number, Size int }

func (p Page) limit() int64  { return int64(p.Size) }
func (p Page) offset() int64 { return int64(p.Number-1) * int64(p.Size) }
