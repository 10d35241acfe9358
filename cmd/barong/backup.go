package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"barong/db"
)

// A backupCommand copies the rows of an embedded database.
type backupCommand struct {
	File string `arg:"" help:"The file to write, which must not be there yet."`
}

// Help is shown below the command's usage.
func (backupCommand) Help() string {
	return "The copy is of one moment, and was read through; its owner alone may read it. Keys and files are not in it: " +
		"docs/backup.md says what else there is to keep. A Postgres is copied by its own pg_dump."
}

// Run copies.
func (b backupCommand) Run(p *program) error {
	c, err := p.config()
	if err != nil {
		return err
	}
	d, err := p.openRows(c)
	if err != nil {
		return err
	}
	defer d.Close()
	if d.SQLite() {
		if empty, err := d.Fresh(p.ctx); err != nil {
			return err
		} else if empty {
			return fmt.Errorf("the database %s is empty: see that BARONG_DATABASE_URL names the server's", sqliteFile(c))
		}
	}
	switch err := d.Backup(p.ctx, b.File); {
	case errors.Is(err, db.ErrNotEmbedded):
		return errors.New("the database is a Postgres: pg_dump copies it, see docs/backup.md")
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%s is there already: name a new file", b.File)
	case err != nil:
		return err
	}
	info, err := os.Stat(b.File)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "copied to %s, %d bytes\n", b.File, info.Size())
	return err
}
