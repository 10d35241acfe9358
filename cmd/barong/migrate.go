package main

import (
	"context"
	"fmt"
	"text/tabwriter"

	"barong/db"
)

// A migrateCommand holds the commands about the schema.
type migrateCommand struct {
	Up     migrateUp     `cmd:"" help:"Apply every migration that is still missing."`
	Down   migrateDown   `cmd:"" help:"Take back the latest migration, and the data in it."`
	Status migrateStatus `cmd:"" help:"List every migration, and whether it has been applied."`
}

type (
	migrateUp     struct{}
	migrateDown   struct{}
	migrateStatus struct{}
)

// Run applies what is missing.
func (migrateUp) Run(p *program) error {
	return p.migrate((*db.DB).MigrateUp, "applied", "the schema is up to date")
}

// Run takes back one step.
func (migrateDown) Run(p *program) error {
	return p.migrate((*db.DB).MigrateDown, "taken back", "there is no migration to take back")
}

func (p *program) migrate(move func(*db.DB, context.Context) ([]db.Migration, error), done, nothing string) error {
	d, err := p.schema()
	if err != nil {
		return err
	}
	defer d.Close()
	moved, err := move(d, p.ctx)
	for _, m := range moved {
		fmt.Fprintf(p.stdout, "%s %s\n", done, m.Name)
	}
	if err == nil && len(moved) == 0 {
		fmt.Fprintln(p.stdout, nothing)
	}
	return err
}

// Run lists the migrations.
func (migrateStatus) Run(p *program) error {
	d, err := p.schema()
	if err != nil {
		return err
	}
	defer d.Close()
	all, err := d.MigrationStatus(p.ctx)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	for _, m := range all {
		state := "pending"
		if m.Applied {
			state = "applied"
		}
		fmt.Fprintf(w, "%d\t%s\t%s\n", m.Version, state, m.Name)
	}
	return w.Flush()
}

// schema opens the database for work on its schema; an embedded one is made when it is not there.
func (p *program) schema() (*db.DB, error) {
	c, err := p.config()
	if err != nil {
		return nil, err
	}
	return openDatabase(p.ctx, c, nil)
}
