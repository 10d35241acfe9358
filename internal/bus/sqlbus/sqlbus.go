// Package sqlbus carries the notices of package bus through the database: by LISTEN and NOTIFY on Postgres, by a table
// that is polled on SQLite, where a command may run beside a server.
package sqlbus

import (
	"context"

	"barong/db"
	"barong/internal/bus"
)

// Open joins the processes that use the same, migrated database. The caller keeps and closes the handle, after the bus.
// A pooler between here and Postgres must give each client a connection of its own. See bus.Join.
func Open(ctx context.Context, d *db.DB, o bus.Options) (*bus.Shared, error) {
	if d.SQLite() {
		return bus.Join(ctx, &table{db: d}, o)
	}
	t, err := newNotify(d.URL)
	if err != nil {
		return nil, err
	}
	return bus.Join(ctx, t, o)
}
