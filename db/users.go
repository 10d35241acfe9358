package db

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"barong/internal/bus"
	"barong/internal/email"
	"barong/session"

	"github.com/uptrace/bun"
)

// NormalEmail is the form in which addresses are stored, compared and shown; see email.Normal.
func NormalEmail(address string) string { return email.Normal(address) }

// storable reports whether texts can stand in a column: Postgres keeps valid UTF-8 alone, and neither engine gets a NUL
// from us. What cannot be stored is not there: a look-up for it finds nothing, it does not fail.
func storable(texts ...string) bool {
	for _, s := range texts {
		if !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
			return false
		}
	}
	return true
}

func (q queries) user(ctx context.Context, where string, args ...any) (*User, error) {
	for _, arg := range args {
		if s, ok := arg.(string); ok && !storable(s) {
			return nil, ErrNotFound
		}
	}
	u := new(User)
	if err := withSessions(q.idb.NewSelect().Model(u)).Where(where, args...).Limit(1).Scan(ctx); err != nil {
		return nil, Translate(err)
	}
	return u, nil
}

// UserByUID finds a user, or ErrNotFound.
func (q queries) UserByUID(ctx context.Context, uid string) (*User, error) {
	return q.user(ctx, "uid = ?", uid)
}

// UserByID finds a user, or ErrNotFound.
func (q queries) UserByID(ctx context.Context, id int64) (*User, error) {
	return q.user(ctx, "id = ?", id)
}

// UserByEmail finds a user by address, in any spelling of it, or ErrNotFound. Where an older release has let two people
// have two spellings, each is found by their own.
func (q queries) UserByEmail(ctx context.Context, address string) (*User, error) {
	spellings := email.Spellings(address)
	if len(spellings) == 1 || !storable(spellings...) {
		return q.user(ctx, "lower(email) = ?", spellings[0])
	}
	u := new(User)
	err := q.idb.NewSelect().Model(u).Where("lower(email) IN (?)", bun.List(spellings)).
		OrderExpr("lower(email) = ? DESC, lower(email) = ? DESC", spellings[0], spellings[1]).Limit(1).Scan(ctx)
	if err != nil {
		return nil, Translate(err)
	}
	return u, nil
}

// NormalizeEmails puts addresses that an older release has stored with the A-labels of their domains into the normal form,
// and returns how many. An address that is somebody else's by then is left: taken are the uids that have them.
func (d *DB) NormalizeEmails(ctx context.Context) (changed int, taken []string, err error) {
	var rows []User
	if err := d.idb.NewSelect().Model(&rows).Column("id", "uid", "email").Where("lower(email) LIKE '%xn--%'").Order("id").Scan(ctx); err != nil {
		return 0, nil, Translate(err)
	}
	for i := range rows {
		u := &rows[i]
		normal := NormalEmail(u.Email)
		if normal == u.Email {
			continue
		}
		err := d.Update(ctx, func(ctx context.Context, tx *Tx) error {
			_, err := tx.NewUpdate().Model((*User)(nil)).Set("email = ?", normal).Where("id = ? AND email = ?", u.ID, u.Email).Exec(ctx)
			if err != nil {
				return Translate(err)
			}
			tx.Notify(bus.UserChanged, u.UID)
			return nil
		})
		if _, other := errors.AsType[*ErrTaken](err); other {
			taken = append(taken, u.UID)
		} else if err != nil {
			return changed, taken, err
		} else {
			changed++
		}
	}
	return changed, taken, nil
}

// LockUser reads a user row and keeps it to this transaction, so that two writers of one account take turns.
func (tx *Tx) LockUser(ctx context.Context, id int64) (*User, error) {
	u := new(User)
	sel := withSessions(tx.NewSelect().Model(u)).Where("id = ?", id)
	if !tx.db.sqlite {
		sel = sel.For("UPDATE OF u")
	}
	if err := sel.Scan(ctx); err != nil {
		return nil, Translate(err)
	}
	return u, nil
}

// LockUsers keeps the rows of these users, and if a role is named those of all who have it, to this transaction. They are
// locked in the order of their ids, so that transactions which need several do not wait for each other in a circle.
func (tx *Tx) LockUsers(ctx context.Context, role string, ids ...int64) error {
	if tx.db.sqlite {
		return nil // the one writer
	}
	sel := tx.NewSelect().Model((*User)(nil)).Column("id").Where("id IN (?)", bun.List(ids))
	if role != "" {
		sel = sel.WhereOr("role = ?", role)
	}
	var locked []int64
	return Translate(sel.Order("id").For("NO KEY UPDATE").Scan(ctx, &locked))
}

// LockUserByUID is LockUser by uid.
func (tx *Tx) LockUserByUID(ctx context.Context, uid string) (*User, error) {
	u, err := tx.UserByUID(ctx, uid)
	if err != nil {
		return nil, err
	}
	return tx.LockUser(ctx, u.ID)
}

// InsertUser stores a new user with the times and ID set. An address or uid in use is ErrTaken.
func (tx *Tx) InsertUser(ctx context.Context, u *User) error {
	u.CreatedAt, u.UpdatedAt = tx.Now(), tx.Now()
	if _, err := tx.NewInsert().Model(u).Returning("id").Exec(ctx); err != nil {
		return fmt.Errorf("insert user: %w", Translate(err))
	}
	return nil
}

// RenewDigest stores another digest of the same password, unless the password was changed meanwhile.
func (tx *Tx) RenewDigest(ctx context.Context, userID int64, before, after string) error {
	_, err := tx.NewUpdate().Model((*User)(nil)).Set("password_digest = ?", after).
		Where("id = ?", userID).Where("password_digest = ?", before).Exec(ctx)
	return Translate(err)
}

// UpdateUser stores the named columns of u and the time, and tells the caches that the user changed.
func (tx *Tx) UpdateUser(ctx context.Context, u *User, columns ...string) error {
	u.UpdatedAt = tx.Now()
	if _, err := tx.NewUpdate().Model(u).Column(append(columns, "updated_at")...).WherePK().Exec(ctx); err != nil {
		return fmt.Errorf("update user: %w", Translate(err))
	}
	tx.Notify(bus.UserChanged, u.UID)
	return nil
}

// EndSessions raises the user's session epoch in u and its row: every session opened so far is dead, on every replica
// and in whatever store, once the transaction has committed.
func (tx *Tx) EndSessions(ctx context.Context, u *User) error {
	u.SessionEpoch++
	return tx.UpdateUser(ctx, u, "session_epoch")
}

// CountUsers counts all users.
func (q queries) CountUsers(ctx context.Context) (int64, error) {
	n, err := q.idb.NewSelect().Model((*User)(nil)).Count(ctx)
	return int64(n), Translate(err)
}

// RoleHeld reports whether anybody has a role.
func (q queries) RoleHeld(ctx context.Context, role string) (bool, error) {
	held, err := q.idb.NewSelect().Model((*User)(nil)).Where("role = ?", role).Exists(ctx)
	return held, Translate(err)
}

// OthersOpen counts the open accounts of a role besides one.
func (q queries) OthersOpen(ctx context.Context, role string, besides int64) (int64, error) {
	n, err := q.idb.NewSelect().Model((*User)(nil)).Where("role = ?", role).Where("state IN (?)", bun.List(session.OpenStates())).
		Where("id <> ?", besides).Count(ctx)
	return int64(n), Translate(err)
}

// NewUID draws a uid that nobody has: the prefix and ten upper-case hexadecimal digits.
func (q queries) NewUID(ctx context.Context, prefix string, random func([]byte)) (string, error) {
	for range 20 {
		var b [5]byte
		random(b[:])
		uid := strings.ToUpper(prefix) + strings.ToUpper(hex.EncodeToString(b[:]))
		taken, err := q.idb.NewSelect().Model((*User)(nil)).Where("uid = ?", uid).Exists(ctx)
		if err != nil {
			return "", Translate(err)
		}
		if !taken {
			return uid, nil
		}
	}
	return "", fmt.Errorf("new uid: twenty draws in a row were taken")
}

// ReferrerUIDs answers the uids of the users with these ids.
func (q queries) ReferrerUIDs(ctx context.Context, ids []int64) (map[int64]string, error) {
	out := make(map[int64]string, len(ids))
	if len(ids) == 0 {
		return out, nil
	}
	var rows []User
	if err := q.idb.NewSelect().Model(&rows).Column("id", "uid").Where("id IN (?)", bun.List(ids)).Scan(ctx); err != nil {
		return nil, Translate(err)
	}
	for i := range rows {
		out[rows[i].ID] = rows[i].UID
	}
	return out, nil
}

// Principal is the part of a user that a check needs; session.ErrNotFound when there is no such user.
func (q queries) Principal(ctx context.Context, uid string) (*session.Principal, error) {
	u, err := q.UserByUID(ctx, uid)
	if err == ErrNotFound {
		return nil, session.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("principal: %w", err)
	}
	return u.Principal(), nil
}

// PrincipalsOf are the parts of several users that a check needs, in the order of their uids, which are different ones; nil
// stands for a user who is not there.
func (q queries) PrincipalsOf(ctx context.Context, uids []string) ([]*session.Principal, error) {
	out := make([]*session.Principal, len(uids))
	at := make(map[string]int, len(uids))
	for i, uid := range uids {
		at[uid] = i
	}
	for chunk := range slices.Chunk(uids, manyAtOnce) {
		var rows []User
		if err := withSessions(q.idb.NewSelect().Model(&rows)).Where("uid IN (?)", bun.List(chunk)).Scan(ctx); err != nil {
			return nil, fmt.Errorf("principals: %w", Translate(err))
		}
		for i := range rows {
			out[at[rows[i].UID]] = rows[i].Principal()
		}
	}
	return out, nil
}

// manyAtOnce is how many rows one statement reads by their names.
const manyAtOnce = 512

// Principal is the part of the row that a check needs.
func (u *User) Principal() *session.Principal {
	p := &session.Principal{
		UserID: u.ID, UID: u.UID, Email: u.Email, Role: u.Role, State: u.State, Level: int32(u.Level), OTP: u.OTP,
		Epoch: u.Epoch(),
	}
	if u.Ended != nil {
		p.Ended = *u.Ended
	}
	if u.ReferralID != nil {
		p.ReferralID = *u.ReferralID
	}
	return p
}

// Sealing contexts: a sealed value opens only where it was sealed.
func sealedAt(table, column string, owner int64) string {
	return fmt.Sprintf("%s.%s:%d", table, column, owner)
}

// TOTPKey reads a user's second factor, or ErrNotFound.
func (q queries) TOTPKey(ctx context.Context, userID int64) (*TOTPKey, error) {
	k := new(TOTPKey)
	if err := q.idb.NewSelect().Model(k).Where("user_id = ?", userID).Scan(ctx); err != nil {
		return nil, Translate(err)
	}
	plain, err := q.db.sealer.Open(k.Sealed, sealedAt("totp_keys", "secret", userID))
	if err != nil {
		return nil, fmt.Errorf("second factor of user %d: %w", userID, err)
	}
	k.Secret = string(plain)
	return k, nil
}

// PutTOTPKey stores a user's second factor in place of any older one.
func (tx *Tx) PutTOTPKey(ctx context.Context, userID int64, secret string) error {
	k := &TOTPKey{UserID: userID, CreatedAt: tx.Now()}
	k.Sealed = tx.db.sealer.Seal([]byte(secret), sealedAt("totp_keys", "secret", userID))
	_, err := tx.NewInsert().Model(k).On("CONFLICT (user_id) DO UPDATE").
		Set("secret = EXCLUDED.secret").Set("last_step = 0").Set("created_at = EXCLUDED.created_at").Exec(ctx)
	return Translate(err)
}

// UseTOTPStep marks a time step as used and reports false when it, or a later one, already was: of two parallel uses of
// one code exactly one wins (RFC 6238, section 5.2).
func (tx *Tx) UseTOTPStep(ctx context.Context, userID, step int64) (bool, error) {
	r, err := tx.NewUpdate().Model((*TOTPKey)(nil)).Set("last_step = ?", step).
		Where("user_id = ?", userID).Where("last_step < ?", step).Exec(ctx)
	if err != nil {
		return false, Translate(err)
	}
	n, err := r.RowsAffected()
	return n == 1, err
}

// DeleteTOTPKey forgets a user's second factor and recovery codes.
func (tx *Tx) DeleteTOTPKey(ctx context.Context, userID int64) error {
	if _, err := tx.NewDelete().Model((*TOTPKey)(nil)).Where("user_id = ?", userID).Exec(ctx); err != nil {
		return Translate(err)
	}
	_, err := tx.NewDelete().Table("recovery_codes").Where("user_id = ?", userID).Exec(ctx)
	return Translate(err)
}

// PutRecoveryCodes replaces a user's recovery codes by these digests.
func (tx *Tx) PutRecoveryCodes(ctx context.Context, userID int64, digests []string) error {
	if _, err := tx.NewDelete().Table("recovery_codes").Where("user_id = ?", userID).Exec(ctx); err != nil {
		return Translate(err)
	}
	for _, digest := range digests {
		row := map[string]any{"user_id": userID, "digest": digest, "created_at": tx.Now()}
		if _, err := tx.NewInsert().Model(&row).Table("recovery_codes").Exec(ctx); err != nil {
			return Translate(err)
		}
	}
	return nil
}

// UseRecoveryCode spends an unused recovery code and reports whether there was one.
func (tx *Tx) UseRecoveryCode(ctx context.Context, userID int64, digest string) (bool, error) {
	r, err := tx.NewUpdate().Table("recovery_codes").Set("used_at = ?", tx.Now()).
		Where("user_id = ?", userID).Where("digest = ?", digest).Where("used_at IS NULL").Exec(ctx)
	if err != nil {
		return false, Translate(err)
	}
	n, err := r.RowsAffected()
	return n == 1, err
}
