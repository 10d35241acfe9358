package db

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"barong/session"

	"github.com/uptrace/bun"
)

// A SessionStore keeps sessions in the table sessions: the session.Store of an installation without Redis. It holds no state
// of its own, and expires nothing by itself: Purge removes what Get no longer finds.
type SessionStore struct{ db *DB }

var _ session.Store = (*SessionStore)(nil)

// Sessions is the store of sessions in a migrated database.
func (d *DB) Sessions() *SessionStore { return &SessionStore{db: d} }

// A sessionRow is a session as the table holds it; times are Unix milliseconds.
type sessionRow struct {
	bun.BaseModel `bun:"table:sessions"`

	Key       string `bun:",pk"`
	UID       string `bun:"uid"`
	Epoch     int64
	CSRF      string `bun:"csrf"`
	IP        string `bun:"ip"`
	UserAgent string
	Country   string
	Methods   string // session.Methods.String
	AuthTime  int64  // 0: when it was created
	CreatedAt int64
	SeenAt    int64
	ExpiresAt int64
	EndsAt    int64
}

// sessionBatch is how many sessions one statement reads.
const sessionBatch = 512

// escaped marks a text that the column could not hold as it is.
const escaped = "base64:"

// escape makes any bytes a text that both engines store: Postgres refuses NUL and what is not UTF-8.
func escape(s string) string {
	if utf8.ValidString(s) && !strings.ContainsRune(s, 0) && !strings.HasPrefix(s, escaped) {
		return s
	}
	return escaped + base64.StdEncoding.EncodeToString([]byte(s))
}

func unescape(s string) (string, error) {
	text, ok := strings.CutPrefix(s, escaped)
	if !ok {
		return s, nil
	}
	b, err := base64.StdEncoding.DecodeString(text)
	return string(b), err
}

func (r *sessionRow) session() (*session.Session, error) {
	key, ok := session.ParseKey(r.Key)
	if !ok {
		return nil, fmt.Errorf("session row: key of %d characters", len(r.Key))
	}
	s := &session.Session{
		Key: key, Epoch: r.Epoch, CSRF: r.CSRF, Country: r.Country,
		Methods: session.ParseMethods(r.Methods), AuthTime: time.UnixMilli(cmp.Or(r.AuthTime, r.CreatedAt)).UTC(),
		CreatedAt: time.UnixMilli(r.CreatedAt).UTC(), SeenAt: time.UnixMilli(r.SeenAt).UTC(),
		ExpiresAt: time.UnixMilli(r.ExpiresAt).UTC(), EndsAt: time.UnixMilli(r.EndsAt).UTC(),
	}
	var err1, err2, err3 error
	s.UID, err1 = unescape(r.UID)
	s.UserAgent, err2 = unescape(r.UserAgent)
	if r.IP != "" {
		s.IP, err3 = netip.ParseAddr(r.IP)
	}
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, fmt.Errorf("session row: %w", err)
	}
	return s, nil
}

// write runs one statement and returns how many rows it changed. On SQLite it takes its turn in the queue of writers;
// on Postgres a statement of its own needs no transaction, and is one round trip.
func (s *SessionStore) write(ctx context.Context, query string, args ...any) (int64, error) {
	run := func(ctx context.Context, idb bun.IDB) (int64, error) {
		r, err := idb.NewRaw(query, args...).Exec(ctx)
		if err != nil {
			return 0, err
		}
		return r.RowsAffected()
	}
	if !s.db.SQLite() {
		n, err := run(ctx, s.db.Bun())
		return n, Translate(err)
	}
	var n int64
	err := s.db.Update(ctx, func(ctx context.Context, tx *Tx) (err error) {
		n, err = run(ctx, tx.Tx)
		return err
	})
	return n, err
}

// writeOne is write for a statement on one session, which is not found when no row was changed.
func (s *SessionStore) writeOne(ctx context.Context, what, query string, args ...any) error {
	n, err := s.write(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("%s session: %w", what, err)
	}
	if n == 0 {
		return session.ErrNotFound
	}
	return nil
}

// Create implements session.Store. A taken key is *ErrTaken.
func (s *SessionStore) Create(ctx context.Context, v *session.Session) error {
	agent := v.UserAgent[:min(len(v.UserAgent), session.MaxUserAgent)]
	ip := ""
	if v.IP.IsValid() {
		ip = v.IP.String()
	}
	authTime := int64(0)
	if !v.AuthTime.IsZero() {
		authTime = v.AuthTime.UnixMilli()
	}
	ends := v.EndsAt.UnixMilli()
	_, err := s.write(ctx, `INSERT INTO sessions
		(key, uid, epoch, csrf, ip, user_agent, country, methods, auth_time, created_at, seen_at, expires_at, ends_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		v.Key.String(), escape(v.UID), v.Epoch, v.CSRF, ip, escape(agent), v.Country, v.Methods.String(), authTime,
		v.CreatedAt.UnixMilli(), v.SeenAt.UnixMilli(), min(v.ExpiresAt.UnixMilli(), ends), ends)
	if err != nil {
		return fmt.Errorf("create session: %w", err)
	}
	return nil
}

// Get implements session.Store.
func (s *SessionStore) Get(ctx context.Context, key session.Key, now time.Time) (*session.Session, error) {
	var r sessionRow
	err := s.db.Bun().NewSelect().Model(&r).Where("key = ?", key.String()).Scan(ctx)
	if err = Translate(err); errors.Is(err, ErrNotFound) {
		return nil, session.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("get session: %w", err)
	}
	v, err := r.session()
	if err != nil {
		return nil, err
	}
	if !v.Live(now) {
		return nil, session.ErrNotFound
	}
	return v, nil
}

// GetMany implements session.Store.
func (s *SessionStore) GetMany(ctx context.Context, keys []session.Key, now time.Time) ([]*session.Session, error) {
	texts := make([]string, len(keys))
	at := make(map[string]int, len(keys))
	for i, key := range keys {
		texts[i] = key.String()
		at[texts[i]] = i
	}
	out := make([]*session.Session, len(keys))
	for chunk := range slices.Chunk(texts, sessionBatch) {
		var rows []sessionRow
		if err := s.db.Bun().NewSelect().Model(&rows).Where("key IN (?)", bun.List(chunk)).Scan(ctx); err != nil {
			return nil, fmt.Errorf("get sessions: %w", Translate(err))
		}
		for i := range rows {
			if v, err := rows[i].session(); err == nil && v.Live(now) {
				out[at[rows[i].Key]] = v
			}
		}
	}
	return out, nil
}

// Touch implements session.Store. A session that had expired at seenAt is gone.
func (s *SessionStore) Touch(ctx context.Context, key session.Key, seenAt, expiresAt time.Time) error {
	least := "LEAST"
	if s.db.SQLite() {
		least = "min"
	}
	seen := seenAt.UnixMilli()
	return s.writeOne(ctx, "touch", `UPDATE sessions SET seen_at = ?, expires_at = `+least+`(?, ends_at)
		WHERE key = ? AND expires_at > ?`, seen, expiresAt.UnixMilli(), key.String(), seen)
}

// Rebase implements session.Store.
func (s *SessionStore) Rebase(ctx context.Context, key session.Key, epoch int64) error {
	return s.writeOne(ctx, "rebase", `UPDATE sessions SET epoch = ? WHERE key = ?`, epoch, key.String())
}

// Delete implements session.Store.
func (s *SessionStore) Delete(ctx context.Context, key session.Key) error {
	return s.writeOne(ctx, "delete", `DELETE FROM sessions WHERE key = ?`, key.String())
}

// List implements session.Store.
func (s *SessionStore) List(ctx context.Context, uid string, now time.Time) ([]*session.Session, error) {
	var rows []sessionRow
	err := s.db.Bun().NewSelect().Model(&rows).Where("uid = ?", escape(uid)).Where("expires_at > ?", now.UnixMilli()).
		Order("created_at DESC", "key").Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", Translate(err))
	}
	out := make([]*session.Session, 0, len(rows))
	for i := range rows {
		v, err := rows[i].session()
		if err != nil {
			return nil, err
		}
		if v.Live(now) {
			out = append(out, v)
		}
	}
	return out, nil
}

// DeleteUser implements session.Store.
func (s *SessionStore) DeleteUser(ctx context.Context, uid string, keep *session.Key) ([]session.Key, error) {
	kept := ""
	if keep != nil {
		kept = keep.String()
	}
	return s.deleteKeys(ctx, "delete sessions of a user", `DELETE FROM sessions WHERE uid = ? AND key <> ? RETURNING key`,
		escape(uid), kept)
}

// trimBatch is how many sessions one Trim ends.
const trimBatch = 1000

// Trim implements session.Store.
func (s *SessionStore) Trim(ctx context.Context, uid string, epoch int64, keep int, now time.Time) ([]session.Key, error) {
	var count int
	err := s.db.Bun().NewRaw(`SELECT count(*) FROM sessions WHERE uid = ?`, escape(uid)).Scan(ctx, &count)
	if err != nil {
		return nil, fmt.Errorf("trim sessions: %w", Translate(err))
	}
	if count <= keep { // most often: a read does not queue for the one writer of SQLite
		return nil, nil
	}
	return s.deleteKeys(ctx, "trim sessions", `DELETE FROM sessions WHERE key IN
		(SELECT key FROM sessions WHERE uid = ? AND epoch = ? AND expires_at > ? ORDER BY created_at DESC, key LIMIT ? OFFSET ?)
		RETURNING key`, escape(uid), epoch, now.UnixMilli(), trimBatch, keep)
}

// deleteKeys runs a statement that deletes sessions and returns their keys.
func (s *SessionStore) deleteKeys(ctx context.Context, what, query string, args ...any) ([]session.Key, error) {
	var texts []string
	err := s.db.Update(ctx, func(ctx context.Context, tx *Tx) error {
		texts = texts[:0] // a second run starts anew
		return tx.NewRaw(query, args...).Scan(ctx, &texts)
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	keys := make([]session.Key, 0, len(texts))
	for _, text := range texts {
		if key, ok := session.ParseKey(text); ok {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// DeleteAll implements session.Store.
func (s *SessionStore) DeleteAll(ctx context.Context) (int64, error) {
	return s.deleteMany(ctx, "delete all sessions", `DELETE FROM sessions`)
}

// Purge implements session.Store.
func (s *SessionStore) Purge(ctx context.Context, now time.Time, limit int) (int64, error) {
	if limit <= 0 {
		return 0, nil
	}
	return s.deleteMany(ctx, "purge sessions", `DELETE FROM sessions WHERE key IN
		(SELECT key FROM sessions WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)`, now.UnixMilli(), limit)
}

// deleteMany deletes in a transaction that is run again when two deletes of many rows lock each other out.
func (s *SessionStore) deleteMany(ctx context.Context, what, query string, args ...any) (n int64, err error) {
	err = s.db.Update(ctx, func(ctx context.Context, tx *Tx) error {
		r, err := tx.NewRaw(query, args...).Exec(ctx)
		if err != nil {
			return err
		}
		n, err = r.RowsAffected()
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("%s: %w", what, err)
	}
	return n, nil
}

// Ping implements session.Store.
func (s *SessionStore) Ping(ctx context.Context) error { return s.db.Ping(ctx) }
