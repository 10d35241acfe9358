package main

import (
	"errors"
	"fmt"
	"text/tabwriter"

	"barong/db"
	"barong/db/counts"
)

// A countsCommand holds the commands about the counts behind the lists.
type countsCommand struct {
	Compare countsCompare `cmd:"" help:"Compare the counts with the rows, and fail when they differ."`
	Repair  countsRepair  `cmd:"" help:"Make the counts anew from the rows, if they differ."`
}

type (
	countsCompare struct{}
	countsRepair  struct{}
)

// Help is shown below the command's usage.
func (countsRepair) Help() string {
	return "Lists take their totals from counts that the database keeps with each change. Rows that were restored with triggers " +
		"disabled, or that came by logical replication, are not counted. While Postgres makes the counts anew, users, " +
		"profiles, labels and activities can be read, and not written: two minutes for a million users and ten million " +
		"activities. It is one transaction; when it is interrupted, nothing has changed."
}

// Run compares.
func (countsCompare) Run(p *program) error {
	d, different, err := p.compareCounts()
	if err != nil {
		return err
	}
	defer d.Close()
	if len(different) > 0 {
		return errFailed
	}
	return nil
}

// Run repairs.
func (countsRepair) Run(p *program) error {
	d, different, err := p.compareCounts()
	if err != nil {
		return err
	}
	defer d.Close()
	if len(different) == 0 {
		return nil
	}
	if err := d.RebuildCounts(p.ctx); err != nil {
		return err
	}
	fmt.Fprintln(p.stdout, "the counts were made anew")
	return nil
}

// compareCounts opens the database, compares and prints what differs.
func (p *program) compareCounts() (*db.DB, []counts.Difference, error) {
	c, err := p.config()
	if err != nil {
		return nil, nil, err
	}
	d, err := p.openRows(c)
	if err != nil {
		return nil, nil, err
	}
	var different []counts.Difference
	if err = p.current(d); err == nil {
		different, err = d.CompareCounts(p.ctx)
	}
	if err != nil {
		return nil, nil, errors.Join(err, d.Close())
	}
	if len(different) == 0 {
		fmt.Fprintln(p.stdout, "the counts are those of the rows")
		return d, nil, nil
	}
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TABLE\tDIFFERENT")
	for _, t := range different {
		fmt.Fprintf(w, "%s\t%d\n", t.Table, t.Rows)
	}
	return d, different, w.Flush()
}
