package db

import (
	"context"
	"embed"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed migrations
var migrations embed.FS

// A Migration is one step of the schema and whether it has been applied.
type Migration struct {
	Version int64
	Name    string
	Applied bool
}

func (d *DB) goose() (*goose.Provider, error) {
	dialect, folder := goose.DialectPostgres, "migrations/postgres"
	opts := []goose.ProviderOption{goose.WithVerbose(false)}
	if d.sqlite {
		dialect, folder = goose.DialectSQLite3, "migrations/sqlite"
	} else {
		// Replicas may start together: one migrates, the others wait, asking each second for five minutes.
		locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300))
		if err != nil {
			return nil, fmt.Errorf("migrations: %w", err)
		}
		opts = append(opts, goose.WithSessionLocker(locker))
	}
	files, err := fs.Sub(migrations, folder)
	if err != nil {
		return nil, fmt.Errorf("migrations: %w", err)
	}
	p, err := goose.NewProvider(dialect, d.sql, files, opts...)
	if err != nil {
		return nil, fmt.Errorf("migrations: %w", err)
	}
	return p, nil
}

// MigrateUp applies every pending migration, each in a transaction, and returns those it applied.
func (d *DB) MigrateUp(ctx context.Context) ([]Migration, error) {
	p, err := d.goose()
	if err != nil {
		return nil, err
	}
	results, err := p.Up(ctx)
	if err != nil {
		return nil, fmt.Errorf("migrate up: %w", err)
	}
	return applied(results, true), nil
}

// MigrateDown takes back the latest migration and returns it; none is left when it returns an empty list.
func (d *DB) MigrateDown(ctx context.Context) ([]Migration, error) {
	p, err := d.goose()
	if err != nil {
		return nil, err
	}
	if v, err := p.GetDBVersion(ctx); err != nil || v == 0 {
		return nil, err
	}
	result, err := p.Down(ctx)
	if err != nil {
		return nil, fmt.Errorf("migrate down: %w", err)
	}
	return applied([]*goose.MigrationResult{result}, false), nil
}

func applied(results []*goose.MigrationResult, now bool) []Migration {
	out := make([]Migration, 0, len(results))
	for _, r := range results {
		out = append(out, Migration{Version: r.Source.Version, Name: r.Source.Path, Applied: now})
	}
	return out
}

// MigrationStatus lists every migration this program knows, oldest first.
func (d *DB) MigrationStatus(ctx context.Context) ([]Migration, error) {
	p, err := d.goose()
	if err != nil {
		return nil, err
	}
	all, err := p.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("migration status: %w", err)
	}
	out := make([]Migration, 0, len(all))
	for _, s := range all {
		out = append(out, Migration{Version: s.Source.Version, Name: s.Source.Path, Applied: s.State == goose.StateApplied})
	}
	return out, nil
}

// Fresh reports whether no migration was ever applied.
func (d *DB) Fresh(ctx context.Context) (bool, error) {
	all, err := d.MigrationStatus(ctx)
	for _, m := range all {
		if m.Applied {
			return false, err
		}
	}
	return err == nil, err
}

// Pending reports whether the schema is behind this program.
func (d *DB) Pending(ctx context.Context) (bool, error) {
	p, err := d.goose()
	if err != nil {
		return false, err
	}
	pending, err := p.HasPending(ctx)
	if err != nil {
		return false, fmt.Errorf("migration status: %w", err)
	}
	return pending, nil
}
