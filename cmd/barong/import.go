package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"barong/api/account"
	"barong/db"
	"barong/internal/blob"
	"barong/internal/bus"
	"barong/internal/config"
	"barong/internal/fault"
	"barong/internal/importer"

	"github.com/mattn/go-isatty"
)

// An importCommand brings the database of an original Barong in.
type importCommand struct {
	Source        string `arg:"" help:"A file of mysqldump, also compressed by gzip, zstd or bzip2; - for standard input; or mysql://user:password@host/database."`
	Vault         string `help:"An export of the original's Vault (a JSON file), or the address of that Vault." placeholder:"FILE|URL"`
	VaultURL      string `name:"vault-url" help:"The address of the original's Vault. The token comes from BARONG_VAULT_TOKEN." placeholder:"URL"`
	VaultApp      string `name:"vault-app" help:"The name under which 2.6 keeps secrets in Vault. Without it, the original's variable BARONG_VAULT_APP_NAME, or barong." placeholder:"NAME"`
	TOTP          string `name:"totp" help:"A file of second factors, lines \"uid,otpauth URL\"." placeholder:"FILE"`
	SecretKeyBase string `name:"secret-key-base" help:"The original's SECRET_KEY_BASE, which seals columns of 2.6. Without it, the variable SECRET_KEY_BASE." placeholder:"KEY"`
	MySQLTimeZone string `name:"mysql-time-zone" help:"The time zone of the original's MySQL server, where that was not UTC: Europe/Kyiv, +03:00." placeholder:"TZ"`
	DryRun        bool   `name:"dry-run" help:"Read everything and print the report, but write nothing."`
	Verify        bool   `help:"Compare the database with the source, and write nothing."`
	Report        string `help:"A file for the report in JSON." placeholder:"FILE"`
	CheckFiles    bool   `name:"check-files" help:"Look for the file of every document in the store, also where that is a bucket."`
}

// Help is shown below the command's usage.
func (importCommand) Help() string {
	return "Keeps ids, uids, passwords, labels, states, keys and rules as they are. May be run again: what has changed at the source " +
		"since is brought in, what was changed here is left alone. After an error nothing has changed. The password of a MySQL URL may " +
		"come from BARONG_MYSQL_PASSWORD. Ends with status 3 when the report holds something to look at. docs/moving.md tells how to move."
}

// Run imports.
func (i importCommand) Run(p *program) error {
	if i.DryRun && i.Verify {
		return &usageError{errors.New("--dry-run and --verify exclude each other")}
	}
	// What is kept holds no pointers, so that it is collected quickly; what rows leave behind need not pile up to its size.
	defer debug.SetGCPercent(debug.SetGCPercent(30))
	zone, err := timeZone(i.MySQLTimeZone)
	if err != nil {
		return &usageError{fmt.Errorf("--mysql-time-zone: %w", err)}
	}
	c, err := p.config("BARONG_VAULT_TOKEN", "BARONG_VAULT_APP_NAME", "SECRET_KEY_BASE", "BARONG_MYSQL_PASSWORD")
	if err != nil {
		return err
	}
	export, address := i.Vault, i.VaultURL
	if strings.HasPrefix(export, "http://") || strings.HasPrefix(export, "https://") {
		export, address = "", cmp.Or(address, export)
	}
	token, err := lookupSecret(c, "BARONG_VAULT_TOKEN")
	if err != nil {
		return err
	}
	app, _ := c.Lookup("BARONG_VAULT_APP_NAME")
	secrets, err := importer.NewSecrets(export, i.TOTP, address, token, cmp.Or(i.VaultApp, strings.TrimSpace(app), "barong"))
	if err != nil {
		return err
	}
	base := i.SecretKeyBase
	if base == "" {
		if base, err = lookupSecret(c, "SECRET_KEY_BASE"); err != nil {
			return err
		}
	}
	password, err := lookupSecret(c, "BARONG_MYSQL_PASSWORD")
	if err != nil {
		return err
	}
	rules := account.Settings{ActivationRequirements: c.ActivationRequirements, StateTriggers: triggers(c)}
	o := importer.Options{
		Source: i.Source, Stdin: p.stdin, MySQLPassword: password, Secrets: secrets, SecretKeyBase: base, MySQLZone: zone, Account: &rules,
		Progress: p.progress(), Now: time.Now,
	}
	if i.Verify {
		return i.verify(p, c, o)
	}
	if i.Report != "" { // before hours of work
		created, err := touch(i.Report)
		if err != nil {
			return fmt.Errorf("--report: %w", err)
		}
		if created {
			defer removeEmpty(i.Report)
		}
	}
	files, closeFiles, err := i.files(p, c)
	if err != nil {
		return err
	}
	defer closeFiles()
	o.FileExists = files
	report, err := i.run(p, c, o)
	if o.Progress != nil {
		fmt.Fprint(p.stderr, "\r\x1b[K")
	}
	if err != nil {
		return i.explained(p, err)
	}
	// The one is told also where the other cannot be written: what was imported is imported.
	if err := errors.Join(report.WriteText(p.stdout), i.write(report)); err != nil {
		return err
	}
	if !report.Clean() {
		return errReports
	}
	return nil
}

// explained says of an error what it has left behind, which is nothing, and what to do where the error does not.
func (i importCommand) explained(p *program, err error) error {
	next := ""
	var taken *db.ErrTaken
	switch {
	case p.ctx.Err() != nil:
		err, next = errors.New("interrupted"), "the same command begins anew"
	case db.Full(err):
		next = "make room for twice the database's size, and import again"
	case errors.As(err, &taken):
		next = "rows of the source contradict each other, or what an import of another source has left here: import into a new database"
	case db.Denied(err):
		next = "the user of BARONG_DATABASE_URL must be the owner of the database, or may create tables in it"
	case errors.Is(err, fault.New(fault.Unavailable)):
		next = "see that the database is there and may be written to, and import again"
	}
	if next != "" {
		next = ": " + next
	}
	return fmt.Errorf("%w: nothing was written%s", err, next)
}

// touch reports an error unless a file can be written. Created says that there was none.
func touch(path string) (created bool, err error) {
	_, err = os.Stat(path)
	created = errors.Is(err, fs.ErrNotExist)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return false, err
	}
	return created, f.Close()
}

// removeEmpty removes a file in which there is nothing.
func removeEmpty(path string) {
	if info, err := os.Stat(path); err == nil && info.Size() == 0 {
		_ = os.Remove(path) // an empty file more does no harm
	}
}

// lookupSecret reads a variable, or the file that the variable of the same name and _FILE names.
func lookupSecret(c *config.Config, name string) (string, error) {
	if v, _ := c.Lookup(name); v != "" {
		return strings.TrimSpace(v), nil
	}
	path, _ := c.Lookup(name + "_FILE")
	if path == "" {
		return "", nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", config.Bad(name+"_FILE", path, "a file that can be read: "+oneLine(err))
	}
	return strings.TrimSpace(string(text)), nil
}

// run imports, or pretends to.
func (i importCommand) run(p *program, c *config.Config, o importer.Options) (*importer.Report, error) {
	// A source that cannot be read must not leave as much as an empty database behind.
	source, err := importer.Open(p.ctx, o)
	if err != nil {
		return nil, err
	}
	defer source.Close()
	if i.DryRun {
		return source.DryRun(p.ctx)
	}
	d, err := p.importTarget(c)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	report, err := source.Import(p.ctx, d)
	if err == nil {
		p.tell(c, d, bus.Notice{Kind: bus.PolicyChanged}, bus.Notice{Kind: bus.Everything})
	}
	return report, err
}

// importTarget opens the database that is imported into, and brings its schema up to date: a new one is empty.
func (p *program) importTarget(c *config.Config) (*db.DB, error) {
	d, _, err := p.openDB(c)
	if err != nil {
		return nil, err
	}
	fresh, err := d.Fresh(p.ctx)
	if err == nil && (fresh || d.SQLite()) {
		_, err = d.MigrateUp(p.ctx)
	}
	if err == nil {
		err = p.current(d)
	}
	if err != nil {
		return nil, errors.Join(db.Translate(err), d.Close())
	}
	return d, nil
}

// imported opens the database, unless nothing can have been imported into it.
func (p *program) imported(c *config.Config) (*db.DB, error) {
	if path, err := db.SQLitePath(c.DatabaseURL.Reveal()); err == nil && path != "" {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) { // opening it would make it
			return nil, importer.ErrNothing
		}
	}
	d, _, err := p.openDB(c)
	if err != nil {
		return nil, err
	}
	fresh, err := d.Fresh(p.ctx)
	switch {
	case err == nil && fresh:
		err = importer.ErrNothing
	case err == nil:
		err = p.current(d)
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// verify compares.
func (i importCommand) verify(p *program, c *config.Config, o importer.Options) error {
	d, err := p.imported(c)
	if err != nil {
		return err
	}
	defer d.Close()
	source, err := importer.Open(p.ctx, o)
	if err != nil {
		return err
	}
	defer source.Close()
	comparison, err := source.Verify(p.ctx, d)
	if err != nil {
		return err
	}
	if err := i.write(comparison); err != nil {
		return err
	}
	if err := comparison.WriteText(p.stdout); err != nil {
		return err
	}
	if !comparison.Equal() {
		return errReports
	}
	return nil
}

// write writes a report to the file that --report names.
func (i importCommand) write(report interface{ WriteJSON(io.Writer) error }) error {
	if i.Report == "" {
		return nil
	}
	f, err := os.OpenFile(i.Report, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(report.WriteJSON(f), f.Close())
}

// files returns how to look for files, or nil where nobody asked and there are none: those of the original are copied to the
// folder later, or lie in the bucket where they always lay.
func (i importCommand) files(p *program, c *config.Config) (exists func(context.Context, string) (bool, error), done func(), err error) {
	done = func() {}
	folder := filepath.Join(config.DataFolder, "files")
	if !i.CheckFiles {
		if _, err := os.Stat(filepath.Join(folder, "uploads", "document", "upload")); err != nil || !strings.EqualFold(c.StorageProvider, blob.Local) {
			return nil, done, nil
		}
	}
	box, _, err := openBox(c)
	if err != nil {
		return nil, done, err
	}
	store, err := openStore(c, box, nil)
	if err != nil {
		return nil, done, err
	}
	return store.Exists, func() { _ = store.Close() }, nil
}

// timeZone reads the name of a time zone, or an offset; nil for UTC.
func timeZone(name string) (*time.Location, error) {
	if name == "" || strings.EqualFold(name, "UTC") || name == "+00:00" {
		return nil, nil
	}
	if name[0] == '+' || name[0] == '-' {
		t, err := time.Parse("-07:00", name)
		if err != nil {
			return nil, fmt.Errorf("%q is no offset such as +03:00", name)
		}
		return t.Location(), nil
	}
	zone, err := time.LoadLocation(name)
	if err != nil || zone == time.Local {
		return nil, fmt.Errorf("%q is no time zone such as Europe/Kyiv or +03:00", name)
	}
	return zone, nil
}

// progress shows how far an import is, on one line of a terminal; nil where standard error is none.
func (p *program) progress() func(importer.Progress) {
	f, ok := p.stderr.(*os.File)
	if !ok || !isatty.IsTerminal(f.Fd()) {
		return nil
	}
	line := progressLine{now: time.Now}
	return func(now importer.Progress) { fmt.Fprint(f, line.text(now)) }
}

// A progressLine writes the line of the progress.
type progressLine struct {
	now   func() time.Time
	step  string
	begun time.Time
	shown time.Time
}

// text is what is written to a terminal now, often nothing: a line ten times a second at most, that replaces the one before.
func (l *progressLine) text(p importer.Progress) string {
	now := l.now()
	if p.Step != l.step {
		l.step, l.begun, l.shown = p.Step, now, time.Time{}
	}
	if now.Sub(l.shown) < 100*time.Millisecond {
		return ""
	}
	l.shown = now
	text, passed := p.Step, now.Sub(l.begun).Seconds()
	if p.Done > 0 {
		rate := float64(p.Done) / max(passed, 0.001)
		if p.Rows {
			text += fmt.Sprintf(": %d rows", p.Done)
		} else {
			text += fmt.Sprintf(": %.0f MB", float64(p.Done)/1e6)
		}
		if p.All > 0 {
			text += fmt.Sprintf(" (%.0f %%)", 100*min(float64(p.Done)/float64(p.All), 1))
		}
		if passed > 1 {
			if p.Rows {
				text += fmt.Sprintf(", %.0f a second", rate)
			}
			if p.All > p.Done {
				text += fmt.Sprintf(", %s left", (time.Duration(float64(p.All-p.Done)/rate) * time.Second).String())
			}
		}
	}
	return "\r\x1b[K" + text
}
