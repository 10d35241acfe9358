package sqlbus

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"barong/db"
	"barong/internal/bus"
)

const (
	// pollEvery is how often the table is looked at. A look that finds nothing reads one number from shared memory.
	pollEvery = 40 * time.Millisecond
	// keepFor is how long a notice stays in the table; a process that slept longer sees from the ids that it missed some.
	keepFor = 5 * time.Minute
)

// table is the transport through the table bus_notices: one row a notice, in the order of their ids, which have no holes
// but where old rows were removed.
type table struct{ db *db.DB }

func (t *table) Send(ctx context.Context, m bus.Message) error {
	return t.db.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
		now := time.Now()
		if _, err := tx.ExecContext(ctx, "DELETE FROM bus_notices WHERE created_at < ?", now.Add(-keepFor).UnixMilli()); err != nil {
			return err
		}
		for _, n := range m.Notices {
			_, err := tx.ExecContext(ctx, "INSERT INTO bus_notices (origin, kind, subject, created_at) VALUES (?, ?, ?, ?)",
				m.Origin, string(n.Kind), n.Subject, now.UnixMilli())
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (t *table) Listen(ctx context.Context, l bus.Listener) error {
	// One connection throughout: data_version tells it of the commits of all others.
	conn, err := t.db.Bun().DB.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	var seen int64
	if seen, err = lastID(ctx, conn); err != nil {
		return err
	}
	l.Up()
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	var version int64
	for {
		before := time.Now()
		var v int64
		if err := conn.QueryRowContext(ctx, "PRAGMA data_version").Scan(&v); err != nil {
			return err
		}
		if v != version {
			if seen, err = t.read(ctx, conn, seen, l); err != nil {
				return err
			}
			version = v
		}
		l.Alive(before)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// lastID is the highest id ever given, also when its row is gone.
func lastID(ctx context.Context, conn *sql.Conn) (int64, error) {
	var id int64
	err := conn.QueryRowContext(ctx, "SELECT seq FROM sqlite_sequence WHERE name = 'bus_notices'").Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return id, err
}

// read hands on the notices after the id seen, and returns the new one.
func (t *table) read(ctx context.Context, conn *sql.Conn, seen int64, l bus.Listener) (int64, error) {
	last, err := lastID(ctx, conn)
	if err != nil || last == seen {
		return seen, err
	}
	if last < seen {
		l.Gap("the table of notices began anew")
		return last, nil
	}
	rows, err := conn.QueryContext(ctx, `SELECT origin, kind, subject FROM bus_notices WHERE id > ? AND id <= ? ORDER BY id`,
		seen, last)
	if err != nil {
		return seen, err
	}
	defer rows.Close()
	var messages []bus.Message
	for rows.Next() {
		var m bus.Message
		var n bus.Notice
		if err := rows.Scan(&m.Origin, &n.Kind, &n.Subject); err != nil {
			return seen, err
		}
		m.Notices = []bus.Notice{n}
		messages = append(messages, m)
	}
	if err := rows.Err(); err != nil {
		return seen, err
	}
	rows.Close() // handlers may want to read
	if int64(len(messages)) < last-seen {
		l.Gap("notices were removed before they were read")
		return last, nil
	}
	for _, m := range messages {
		l.Hear(m)
	}
	return last, nil
}

func (t *table) MaxBytes() int { return 0 }
func (t *table) Polls() bool   { return true }
func (t *table) Close() error  { return nil }
