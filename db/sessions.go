package db

import (
	"context"
	"time"

	"barong/internal/bus"
	"barong/session"

	"github.com/uptrace/bun"
)

// withSessions selects users together with what the database knows about the end of their sessions.
func withSessions(sel *bun.SelectQuery) *bun.SelectQuery {
	return sel.ColumnExpr("u.*").ColumnExpr("(SELECT era FROM session_era) AS session_era").
		ColumnExpr("(SELECT string_agg(substr(e.key, 1, ?), '') FROM ended_sessions AS e WHERE e.uid = u.uid) AS ended", session.TagLen)
}

// Epoch is the epoch that a session of the user must have. It rises whenever all sessions of the user end, alone or with
// those of everybody.
func (u *User) Epoch() int64 { return u.SessionEpoch + u.SessionEra }

// EndSession records the end of one session, which holds from the commit on, on every replica and whatever the session
// store does. It is ErrNotFound when that was recorded before. What the store keeps of it is left to the caller.
func (tx *Tx) EndSession(ctx context.Context, s *session.Session) error {
	done, err := tx.NewRaw("INSERT INTO ended_sessions (uid, key, ends_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
		s.UID, s.Key.String(), s.EndsAt.UnixMilli()).Exec(ctx)
	if err != nil {
		return Translate(err)
	}
	if n, err := done.RowsAffected(); err != nil || n == 0 {
		return ErrNotFound
	}
	tx.Notify(bus.UserChanged, s.UID)
	tx.Notify(bus.SessionGone, s.Key.String())
	return nil
}

// DropEndedSessions drops the record of a user's sessions that ended one by one, in a transaction that has raised the
// user's epoch: they are all of an older one.
func (tx *Tx) DropEndedSessions(ctx context.Context, uid string) error {
	_, err := tx.NewRaw("DELETE FROM ended_sessions WHERE uid = ?", uid).Exec(ctx)
	return Translate(err)
}

// EndEverybody ends every session of everybody.
func (tx *Tx) EndEverybody(ctx context.Context) error {
	if _, err := tx.NewRaw("UPDATE session_era SET era = era + 1").Exec(ctx); err != nil {
		return Translate(err)
	}
	tx.Notify(bus.SessionsGone, "")
	return nil
}

// SessionEra is how often the sessions of everybody were ended.
func (q queries) SessionEra(ctx context.Context) (era int64, err error) {
	err = q.idb.NewRaw("SELECT era FROM session_era").Scan(ctx, &era)
	return era, Translate(err)
}

// lateClock is how long a recorded end outlives its session: other clocks may be late.
const lateClock = time.Hour

// PurgeEndedSessions drops at most limit records of sessions that could not live any longer.
func (d *DB) PurgeEndedSessions(ctx context.Context, now time.Time, limit int) error {
	return d.Update(ctx, func(ctx context.Context, tx *Tx) error {
		_, err := tx.NewRaw(`DELETE FROM ended_sessions WHERE (uid, key) IN
			(SELECT uid, key FROM ended_sessions WHERE ends_at <= ? ORDER BY ends_at LIMIT ?)`,
			now.Add(-lateClock).UnixMilli(), limit).Exec(ctx)
		return err
	})
}
