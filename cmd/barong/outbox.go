package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"barong/db"
)

// An outboxCommand holds the commands about what waits to leave: mails, events, webhooks.
type outboxCommand struct {
	List   outboxList   `cmd:"" help:"List what waits to leave, and what was given up, with the reason."`
	Replay outboxReplay `cmd:"" help:"Have what was given up tried again."`
	Drop   outboxDrop   `cmd:"" help:"Delete what was given up."`
}

type outboxList struct {
	Kind string `help:"Only this kind: mail, event, nats, or webhook: and the receiver's name." placeholder:"KIND"`
	Dead bool   `help:"Only what was given up."`
}

// Help is shown below the command's usage.
func (outboxList) Help() string {
	return "What an item says is sealed and not shown. The first column is its number, for replay and drop."
}

// Run lists.
func (o outboxList) Run(p *program) error {
	d, err := p.openOutboxRows()
	if err != nil {
		return err
	}
	defer d.Close()
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tKIND\tTOPIC\tQUEUED\tATTEMPTS\tSTATE\tREASON")
	const batch = 500
	for after := int64(0); ; {
		items, err := d.Outbox(p.ctx, db.OutboxFilter{Kind: o.Kind, Dead: o.Dead}, after, batch)
		if err != nil {
			return err
		}
		for _, item := range items {
			state := "waits"
			switch {
			case item.Dead:
				state = "given up"
			case item.Attempts > 0:
				state = "again at " + item.NextAt.Format(time.RFC3339)
			}
			fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%d\t%s\t%s\n", item.ID, item.Kind, item.Topic, item.CreatedAt.Format(time.RFC3339), item.Attempts,
				state, cmp.Or(strings.TrimSpace(item.Reason), "-"))
			after = item.ID
		}
		if len(items) < batch {
			return w.Flush()
		}
	}
}

// outboxChoice says which of the items that were given up are meant.
type outboxChoice struct {
	IDs  []int64 `arg:"" optional:"" name:"id" help:"Numbers of items, as list shows them."`
	Kind string  `help:"All of this kind." placeholder:"KIND"`
	All  bool    `help:"All there are."`
}

func (c outboxChoice) filter() (db.OutboxFilter, error) {
	ways := 0
	for _, given := range []bool{len(c.IDs) > 0, c.Kind != "", c.All} {
		if given {
			ways++
		}
	}
	if ways != 1 {
		return db.OutboxFilter{}, &usageError{fmt.Errorf("name the items by their numbers, or give --kind, or --all")}
	}
	return db.OutboxFilter{IDs: c.IDs, Kind: c.Kind}, nil
}

type outboxReplay struct{ outboxChoice }

// Help is shown below the command's usage.
func (outboxReplay) Help() string {
	return "Receivers get it with the id that it always had. Running servers try within a second."
}

// Run has items tried again.
func (o outboxReplay) Run(p *program) error {
	return o.change(p, (*db.DB).ReplayOutbox, "tried again")
}

type outboxDrop struct{ outboxChoice }

// Run deletes items.
func (o outboxDrop) Run(p *program) error {
	return o.change(p, (*db.DB).DropOutbox, "deleted")
}

// change does something to the items that were chosen, and tells how many there were. Fewer than were named is a failure: the
// others were not given up, or are not there.
func (c outboxChoice) change(p *program, do func(*db.DB, context.Context, db.OutboxFilter) (int64, error), done string) error {
	f, err := c.filter()
	if err != nil {
		return err
	}
	d, err := p.openOutboxRows()
	if err != nil {
		return err
	}
	defer d.Close()
	n, err := do(d, p.ctx, f)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, "%d %s\n", n, done)
	if named := int64(len(f.IDs)); n < named {
		fmt.Fprintf(p.stderr, "barong: %d of the numbers are not those of items that were given up\n", named-n)
		return errFailed
	}
	return nil
}

// openOutboxRows opens the database for a look at the outbox.
func (p *program) openOutboxRows() (*db.DB, error) {
	c, err := p.config()
	if err != nil {
		return nil, err
	}
	d, err := p.openRows(c)
	if err != nil {
		return nil, err
	}
	if err := p.current(d); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}
