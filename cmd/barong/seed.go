package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"text/tabwriter"

	"barong/api/account"
	"barong/db"
	"barong/internal/bus"
	"barong/internal/config"
	"barong/internal/crypto/password"
	"barong/internal/obs"
	"barong/internal/seed"
)

// A seedCommand puts users, levels, permissions and restrictions into the database.
type seedCommand struct {
	File string `help:"A seeds file in YAML. Without it BARONG_SEEDS_FILE, and without that the built-in seeds." placeholder:"FILE"`
}

// Help is shown below the command's usage.
func (seedCommand) Help() string {
	return "Prints what was created, what was changed and what was left alone. What is there already stays as admins have made " +
		"it, so that it may be run again, and beside a running server. The password of a new user who has none is made up and " +
		"printed, this once; where standard output is no terminal, it goes into a file below data/ that only its owner may read. The built-in seeds make the first superadmin from ADMIN_EMAIL and ADMIN_PASSWORD."
}

// Run seeds.
func (s seedCommand) Run(p *program) error {
	c, err := p.config()
	if err != nil {
		return err
	}
	d, _, err := p.openCurrent(c)
	if err != nil {
		return err
	}
	defer d.Close()
	var notices []bus.Notice
	d.PublishTo(func(_ context.Context, n ...bus.Notice) error {
		notices = append(notices, n...)
		return nil
	})
	report, file, err := p.runSeeds(d, c, s.File, func(warning string) { fmt.Fprintln(p.stderr, "warning:", warning) })
	if err != nil {
		return err
	}
	if len(notices) > 0 {
		p.tell(c, d, notices...)
	}
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	for _, item := range report.Items {
		note := item.Note
		if item.Password != "" {
			password := item.Password.Reveal()
			if file != "" {
				password = "in " + file
			}
			note = strings.TrimSpace("password: " + password + " " + note)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", item.Outcome, item.Kind, item.Name, note)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "%d created, %d changed, %d left alone\n",
		report.Count("", seed.Created), report.Count("", seed.Changed), report.Count("", seed.LeftAlone))
	return err
}

// seed seeds a new database, and says on the terminal, or through a file that the log names, whom it made with a password of
// its own making.
func (p *program) seed(d *db.DB, c *config.Config, log *slog.Logger) error {
	report, file, err := p.runSeeds(d, c, "", func(warning string) { log.Warn("seeds", "warning", warning) })
	if err != nil {
		return err
	}
	for _, item := range report.Items {
		switch {
		case item.Password == "":
		case file != "":
			log.Warn("an account was made, and a password for it; take it from the file, and delete that", "account", item.Name, "file", file)
		default:
			fmt.Fprintf(p.stdout, "created %s %s with the password %s (it is not shown again)\n", item.Kind, item.Name, item.Password.Reveal())
		}
	}
	return nil
}

// runSeeds puts the seeds of file, or of BARONG_SEEDS_FILE, or else the built-in ones into the database. Where standard
// output is no terminal, so that others may keep and read it, passwords that are made up go into the file whose name is
// returned.
func (p *program) runSeeds(
	d *db.DB, c *config.Config, file string, warn func(warning string),
) (report *seed.Report, passwords string, err error) {
	seeds, err := readSeeds(c, file)
	if err != nil {
		return nil, "", err
	}
	for _, warning := range seeds.Warnings() {
		warn(cmp.Or(file, c.SeedsFile) + ": " + warning)
	}
	ctx := p.ctx
	rules := account.Settings{ActivationRequirements: c.ActivationRequirements, StateTriggers: triggers(c)}
	hasher := password.NewHasher(password.HasherOptions{})
	o := seed.Options{
		UIDPrefix: c.UIDPrefix, State: rules.StateOf,
		Hash: func(text string) (string, error) { return hasher.Hash(ctx, text) },
	}
	if !obs.Terminal(p.stdout) {
		o.Deliver = func(r *seed.Report) (err error) {
			passwords, err = writePasswords(r, passwords)
			return err
		}
	}
	report, err = seed.Run(ctx, d, seeds, o)
	if err != nil && passwords != "" {
		err = errors.Join(err, os.Remove(passwords)) // of accounts that came to nothing
	}
	if _, wrong := errors.AsType[*seed.Error](err); wrong {
		err = seedError(c, file, err)
	}
	return report, passwords, err
}

// writePasswords writes the passwords that were made up into a new file that only its owner may read, in place of the one of
// an attempt before. It returns the file's name, or none when there are no passwords.
func writePasswords(report *seed.Report, before string) (name string, err error) {
	if before != "" {
		if err := os.Remove(before); err != nil {
			return before, err
		}
	}
	var text strings.Builder
	for _, item := range report.Items {
		if item.Password != "" {
			fmt.Fprintf(&text, "%s %s\n", item.Name, item.Password.Reveal())
		}
	}
	if text.Len() == 0 {
		return "", nil
	}
	if err := os.MkdirAll(config.DataFolder, 0o700); err != nil {
		return "", fmt.Errorf("passwords of new accounts: %w", err)
	}
	f, err := os.CreateTemp(config.DataFolder, "passwords-*.txt") // of mode 0600
	if err != nil {
		return "", fmt.Errorf("passwords of new accounts: %w", err)
	}
	_, err = f.WriteString(text.String())
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return f.Name(), fmt.Errorf("passwords of new accounts: %w", err)
	}
	return f.Name(), nil
}

func readSeeds(c *config.Config, file string) (*seed.Seeds, error) {
	source := cmp.Or(file, c.SeedsFile)
	if source == "" {
		seeds, err := seed.Default(c.Lookup)
		if err != nil {
			return nil, err
		}
		return seeds.At(c.APIPrefix), nil
	}
	text, err := os.ReadFile(source)
	if err != nil {
		return nil, err
	}
	seeds, err := seed.Parse(text, c.Lookup)
	if err != nil {
		return nil, seedError(c, file, err)
	}
	return seeds, nil
}

// seedError adds to what is wrong with seeds where they stand: the line, and the file that the command line names, or that
// of the setting, which is a bad one then.
func seedError(c *config.Config, file string, err error) error {
	if wrong, ok := errors.AsType[*seed.Error](err); ok && wrong.Line > 0 {
		err = fmt.Errorf("line %d: %w", wrong.Line, err)
	}
	switch {
	case file != "":
		return fmt.Errorf("%s: %w", file, err)
	case c.SeedsFile != "":
		return config.Bad("BARONG_SEEDS_FILE", c.SeedsFile, "a file with seeds: "+oneLine(err))
	}
	return err
}

// triggers are the state triggers as package account takes them.
func triggers(c *config.Config) []account.Trigger {
	out := make([]account.Trigger, len(c.StateTriggers))
	for i, t := range c.StateTriggers {
		out[i] = account.Trigger{State: t.State, Keys: t.Keys}
	}
	return out
}

// current reports that the schema is behind, and what to do about it.
func (p *program) current(d *db.DB) error {
	pending, err := d.Pending(p.ctx)
	if err == nil && pending {
		return errors.New("the schema is behind; run \"barong migrate up\" first")
	}
	return err
}
