package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// ErrNotEmbedded says that the database is a server's, which has means of its own to be copied.
var ErrNotEmbedded = errors.New("db: the database is not an embedded one")

// Backup copies an embedded database, as it is at one moment, into a new file that its owner alone may read. Reading and writing
// go on meanwhile. The copy is read through before Backup returns, and is removed when anything is wrong with it. The error of
// a Postgres is ErrNotEmbedded, that of a file which is there already is fs.ErrExist.
func (d *DB) Backup(ctx context.Context, path string) (err error) {
	if !d.sqlite {
		return ErrNotEmbedded
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600) // SQLite fills an empty file
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	if err := file.Close(); err != nil {
		return err
	}
	if _, err := d.sql.ExecContext(ctx, "VACUUM INTO ?", path); err != nil {
		return fmt.Errorf("copy the database: %w", err)
	}
	if err := sound(ctx, path); err != nil {
		return fmt.Errorf("read the copy: %w", err)
	}
	return persist(path)
}

// sound reads a file of SQLite through, and leaves nothing beside it.
func sound(ctx context.Context, path string) error {
	copied, err := sql.Open("sqlite", sqliteName(path)+"?mode=ro&immutable=1")
	if err != nil {
		return err
	}
	defer copied.Close()
	var says string
	if err := copied.QueryRowContext(ctx, "PRAGMA integrity_check").Scan(&says); err != nil {
		return err
	}
	if says != "ok" {
		return errors.New(says)
	}
	return nil
}

// persist has a new file and its name on the disk, whatever happens next.
func persist(path string) error {
	for _, name := range []string{path, filepath.Dir(path)} {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}
