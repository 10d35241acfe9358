package main

import (
	"errors"
	"fmt"
	"text/tabwriter"
)

// A secretsCommand holds the commands about what is sealed.
type secretsCommand struct {
	Rotate secretsRotate `cmd:"" help:"Seal everything in the database under the newest key of BARONG_SECRET_KEY."`
}

type secretsRotate struct{}

// Help is shown below the command's usage.
func (secretsRotate) Help() string {
	return "To change the key while replicas serve: put a new one (openssl rand -base64 32) into BARONG_SECRET_KEY with \"next:\" " +
		"before it, separated from the old one by a comma, and restart every replica, so that each can open what others are going " +
		"to seal under it; take \"next:\" away, so that the new key stands first, and restart them again; run this command, beside " +
		"them; take the old key off the list and restart once more. One process alone needs no \"next:\". It may be interrupted and " +
		"run again."
}

// Run seals everything anew, in small transactions.
func (secretsRotate) Run(p *program) error {
	c, err := p.config()
	if err != nil {
		return err
	}
	d, box, err := p.openCurrent(c)
	if err != nil {
		return err
	}
	defer d.Close()
	done, err := d.Reseal(p.ctx)
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TABLE\tROWS\tSEALED\tINDEXED\tFAILED")
	failed := false
	for _, t := range done {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\n", t.Table, t.Rows, t.Sealed, t.Indexed, len(t.Failed))
	}
	if ferr := w.Flush(); ferr != nil {
		return errors.Join(err, ferr)
	}
	for _, t := range done {
		if len(t.Failed) > 0 {
			failed = true
			fmt.Fprintf(p.stderr, "barong: %s: %d rows were left as they are (%v): %v\n", t.Table, len(t.Failed), some(t.Failed), t.Err)
		}
	}
	if err != nil {
		return err
	}
	if failed {
		return errFailed
	}
	fmt.Fprintf(p.stdout, "everything is sealed under key %s\n", box.KeyIDs()[0])
	return nil
}

// some shortens a list for a message.
func some(keys []int64) string {
	const most = 10
	if len(keys) > most {
		return fmt.Sprintf("%v and %d more", keys[:most], len(keys)-most)
	}
	return fmt.Sprint(keys)
}
