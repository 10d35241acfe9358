package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"barong/db"
	"barong/internal/trail"
)

// An auditCommand holds the commands about the audit trail.
type auditCommand struct {
	Export auditExport `cmd:"" help:"Write the audit trail, oldest first, a JSON object a line."`
	Verify auditVerify `cmd:"" help:"Tell whether rows of the audit trail were changed, removed or added since they were sealed."`
}

// An auditExport writes activities.
type auditExport struct {
	From     string `help:"First moment: 2026-01-31, 2026-01-31T12:00:00Z or Unix seconds." placeholder:"TIME"`
	To       string `help:"Last moment, in the same forms; a date means the end of its day." placeholder:"TIME"`
	Category string `help:"What passed the check, or what people did with their own accounts." enum:"admin,user," default:"" placeholder:"admin|user"`
	UID      string `name:"uid" help:"Only what this user did." placeholder:"UID"`
	Email    string `help:"Only what the user of this address did." placeholder:"EMAIL"`
	Target   string `help:"Only what was done to this user." placeholder:"UID"`
	Topic    string `help:"Only this topic." placeholder:"TOPIC"`
	Action   string `help:"Only this action." placeholder:"ACTION"`
	Result   string `help:"Only this result." enum:"succeed,failed,denied," default:"" placeholder:"succeed|failed|denied"`
	Output   string `short:"o" help:"The file to write, which must not be there yet; standard output without it." placeholder:"FILE"`
}

// Help is shown below the command's usage.
func (auditExport) Help() string {
	return "Times are UTC. Reads in batches, so that it may be run beside a busy server. Says on standard error how many " +
		"activities it wrote."
}

// Run exports.
func (a auditExport) Run(p *program) (err error) {
	filter := db.ActivityFilter{Category: a.Category}
	if filter.From, err = moment(a.From, false); err != nil {
		return &usageError{fmt.Errorf("--from: %w", err)}
	}
	if filter.To, err = moment(a.To, true); err != nil {
		return &usageError{fmt.Errorf("--to: %w", err)}
	}
	for _, f := range []struct {
		to   **string
		text string
	}{
		{&filter.UID, a.UID},
		{&filter.Email, a.Email},
		{&filter.TargetUID, a.Target},
		{&filter.Topic, a.Topic},
		{&filter.Action, a.Action},
		{&filter.Result, a.Result},
	} {
		if f.text != "" {
			*f.to = &f.text
		}
	}
	c, err := p.config()
	if err != nil {
		return err
	}
	d, err := p.openRows(c)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := p.current(d); err != nil {
		return err
	}
	out := p.stdout
	if a.Output != "" {
		f, ferr := os.OpenFile(a.Output, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if ferr != nil {
			return ferr
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		out = f
	}
	n, err := d.ExportActivities(p.ctx, io.Writer(out), filter)
	fmt.Fprintf(p.stderr, "%d activities\n", n)
	return err
}

// An auditVerify verifies the chain of the audit trail.
type auditVerify struct {
	Head string `help:"A head that was kept outside of the database (an earlier run or the log has it): it must be part of the chain." placeholder:"HEAD"`
	From string `help:"Verify only what follows this head." placeholder:"HEAD"`
	JSON bool   `name:"json" help:"Write findings as JSON objects, a line each, and the summary last."`
}

// Help is shown below the command's usage.
func (auditVerify) Help() string {
	return "Needs BARONG_SECRET_KEY, and may be run beside busy servers. The last line has the head, which stands for everything before it: " +
		"keep it where whoever can write to the database cannot, and give it as --head the next time. Ends with status 3 when something " +
		"is not as it was sealed, and with 1 when that could not be found out."
}

// Run verifies.
func (a auditVerify) Run(p *program) error {
	var o trail.VerifyOptions
	for _, f := range []struct {
		name, text string
		to         **trail.Head
	}{{"--head", a.Head, &o.Head}, {"--from", a.From, &o.From}} {
		if f.text == "" {
			continue
		}
		head, err := trail.ParseHead(f.text)
		if err != nil {
			return &usageError{fmt.Errorf("%s: %w", f.name, err)}
		}
		*f.to = &head
	}
	c, err := p.config()
	if err != nil {
		return err
	}
	d, _, err := p.openCurrent(c)
	if err != nil {
		return err
	}
	defer d.Close()
	out := bufio.NewWriter(p.stdout)
	lines := json.NewEncoder(out)
	o.Found = func(f trail.Finding) error {
		if a.JSON {
			return lines.Encode(f)
		}
		_, err := fmt.Fprintln(out, f)
		return err
	}
	sum, err := trail.Verify(p.ctx, d, o)
	if err != nil {
		return errors.Join(err, out.Flush())
	}
	if a.JSON {
		err = lines.Encode(sum)
	} else {
		_, err = fmt.Fprintln(out, sum)
	}
	if err := errors.Join(err, out.Flush()); err != nil {
		return err
	}
	if !sum.Whole {
		return errReports
	}
	return nil
}

// moment reads a time as Unix seconds; nothing is nil. A date alone is its first second, or its last.
func moment(text string, end bool) (*int64, error) {
	if text == "" {
		return nil, nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return &n, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		if t, err = time.Parse(time.DateOnly, text); err != nil {
			return nil, fmt.Errorf("%q is no time: allowed are 2026-01-31, 2026-01-31T12:00:00Z and Unix seconds", text)
		}
		if end {
			t = t.AddDate(0, 0, 1).Add(-time.Second)
		}
	}
	n := t.Unix()
	return &n, nil
}
