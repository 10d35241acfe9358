package db_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/stdlib"

	"barong/db"
	"barong/internal/fault"
)

// An outage of the database is one error, whichever engine and however it fails; a defect of a statement is none.
func TestOutagesAreOneError(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		run := func(statements ...string) error {
			return d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
				if d.SQLite() { // the connection is used again
					defer tx.ExecContext(ctx, "PRAGMA query_only = 0; PRAGMA max_page_count = 1073741823")
				}
				for _, s := range statements {
					if _, err := tx.ExecContext(ctx, s); err != nil {
						return fmt.Errorf("some work: %w", err)
					}
				}
				return nil
			})
		}
		const write = "INSERT INTO rate_counters (key, window_start, count, expires_at) VALUES ('k', 0, 0, 0)"
		outages := map[string][]string{}
		if d.SQLite() {
			outages["read-only"] = []string{"PRAGMA query_only = 1", write}
			outages["full"] = []string{"PRAGMA max_page_count = 1", "CREATE TABLE much AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9999) SELECT i, hex(randomblob(200)) FROM n"}
		} else {
			outages["read-only"] = []string{"SET TRANSACTION READ ONLY", write}
			outages["lock"] = []string{"SET LOCAL statement_timeout = 1", "SELECT pg_sleep(5)"}
			outages["ended"] = []string{"SELECT pg_terminate_backend(pg_backend_pid())", write}
			for _, code := range []string{"53100", "53200", "53300", "57P03", "58030", "08006", "55P03", "40001"} {
				outages[code] = []string{"DO $$ BEGIN RAISE SQLSTATE '" + code + "'; END $$"}
			}
		}
		if !d.SQLite() {
			// The connection is closed before a statement is sent, as when something on the way has cut it.
			conn, err := d.Bun().DB.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.Raw(func(raw any) error {
				c := raw.(*stdlib.Conn).Conn()
				_ = c.Close(t.Context())
				_, err = c.Exec(t.Context(), "SELECT 1")
				return driver.ErrBadConn // the pool is to forget it
			})
			err = db.Translate(err)
			if f := fault.As(err); f == nil || f.Status != 503 {
				t.Errorf("a closed connection: %v", err)
			}
		}
		for what, statements := range outages {
			err := run(statements...)
			if f := fault.As(err); f == nil || f.Status != 503 || !f.Has(fault.Unavailable) {
				t.Errorf("%s: got %v", what, err)
			}
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := d.UserByUID(gone, "ID1"); !errors.Is(err, fault.New(fault.Unavailable)) || !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: got %v", err)
		}
		for _, defect := range []string{"SELECT nothing", "INSERT INTO rate_counters (key) VALUES (NULL)"} {
			if err := run(defect); err == nil || errors.Is(err, fault.New(fault.Unavailable)) {
				t.Errorf("%s: got %v", defect, err)
			}
		}
	})
}
