// Package importer brings the database of an original Barong in: from a dump of mysqldump or a running MySQL, through
// what each column means here, into this program's database. What one row becomes is said in mapping.go; what must be
// known of all rows first, such as which of two labels stays, is collected in survey.go.
//
// Dumps are read by a lexer of this package (lex.go), not by a parser of SQL. The kept parsers take a statement as a
// whole, in memory, and a dump of MySQL 5.7 is one statement a table, of any length; this one reads a value at a time
// and knows the few forms that mysqldump writes. A fuzz test holds it to its writing.
//
// Memory is bounded by the number of users, not by the length of the dump: some 24 bytes a user, and 4 a row of the largest table
// beside activities while it is looked at. Everything is written in one transaction, so that a source that turns out to be
// broken leaves no trace.
package importer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"barong/api/account"
	"barong/db"
)

// Options say what to import, and how.
type Options struct {
	Source        string // path of a dump, "-", or mysql://user:password@host/database
	Stdin         io.Reader
	MySQLPassword string         // for a URL without one
	Secrets       *Secrets       // of API keys and second factors; never nil
	SecretKeyBase string         // opens the sealed columns of 2.6
	MySQLZone     *time.Location // of the original's MySQL sessions, where that is not UTC
	Account       *account.Settings

	// FileExists reports whether the store holds the file of a document; nil does not look.
	FileExists func(ctx context.Context, key string) (bool, error)
	// Progress is told how far the work is, from time to time; nil for nobody.
	Progress func(Progress)
	Now      func() time.Time
}

// Progress is how far a step of the work is: Done of All, in rows or else in bytes. All is 0 when nobody knows.
type Progress struct {
	Step      string
	Done, All int64
	Rows      bool
}

// A Source is an original's database that was read once and can be imported. Close it.
type Source struct {
	*survey
	begun time.Time
	zone  *time.Location
}

// Open reads a source and finds out what must be known of all of it. The error says what is wrong with it.
func Open(ctx context.Context, o Options) (*Source, error) {
	if err := o.Secrets.check(ctx); err != nil {
		return nil, err
	}
	src, err := openSource(ctx, &o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", sourceName(o.Source), err)
	}
	s := &Source{begun: o.Now(), survey: &survey{
		o: &o, src: src, opener: &opener{base: o.SecretKeyBase}, report: newReport(), roles: map[string]bool{},
		drop: map[string]map[int64]bool{}, open: map[int64]bool{}, lost: map[int64]bool{},
	}}
	sch, r := src.schema(), s.report
	r.SchemaVersion, r.Environment, r.BegunAt = sch.version, sch.environment, s.begun.UTC().Truncate(time.Second)
	r.UnknownTables = append(r.UnknownTables, sch.unknown...)
	r.UnknownColumns = sch.unread()
	for _, table := range []string{schemaMigrations, metadata} {
		r.table(table).InDump = sch.counts[table]
	}
	if s.zone = o.MySQLZone; s.zone != nil && !sch.zoned {
		s.zone = nil
		r.Notes = append(r.Notes, "--mysql-time-zone was not used: the dump holds timestamps as they were written.")
	}
	o.progress(Progress{Step: "comparing"})
	if err := s.survey.run(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", sourceName(o.Source), err), src.close())
	}
	return s, nil
}

func openSource(ctx context.Context, o *Options) (source, error) {
	if strings.HasPrefix(o.Source, "mysql://") {
		return openMySQL(ctx, o.Source, o.MySQLPassword)
	}
	return openFile(ctx, o.Source, o.Stdin, func(done, all int64) { o.progress(Progress{Step: "reading", Done: done, All: all}) })
}

// Close lets go of the source.
func (s *Source) Close() error { return s.src.close() }

// sourceName names the source in messages, without its password.
func sourceName(source string) string {
	if rest, ok := strings.CutPrefix(source, "mysql://"); ok {
		return "mysql://" + rest[strings.LastIndexByte(rest, '@')+1:]
	}
	if source == "-" {
		return "standard input"
	}
	return source
}

func (o *Options) progress(p Progress) {
	if o.Progress != nil {
		o.Progress(p)
	}
}

// A writer takes the rows that a table becomes.
type writer interface {
	// begin prepares for a table, and asks whether its rows are to be previewed first.
	begin(ctx context.Context, table string) (preview bool, err error)
	// preview is told of a row that is to come, and settle that all were told.
	preview(r db.Importable)
	settle(ctx context.Context) error
	put(ctx context.Context, r db.Importable) error
	end(ctx context.Context) error
}

// walk maps every table and hands its rows to w. It returns the highest id of each table.
func (s *Source) walk(ctx context.Context, w writer, comparing bool) (highest map[string]int64, err error) {
	highest = map[string]int64{}
	for _, table := range tables {
		if err := s.walkTable(ctx, table, w, comparing, highest); err != nil {
			return nil, fmt.Errorf("%s: %w", sourceName(s.o.Source), err)
		}
	}
	return highest, nil
}

func (s *Source) walkTable(ctx context.Context, table string, w writer, comparing bool, highest map[string]int64) error {
	preview, err := w.begin(ctx, table)
	if err != nil {
		return err
	}
	if preview {
		silent := *s.survey
		silent.report = silence()
		m := &mapper{survey: &silent, ctx: ctx, highest: map[string]int64{}, zone: s.zone, comparing: comparing}
		m.emit = func(r db.Importable) error { w.preview(r); return nil }
		if err := m.table(table); err != nil {
			return err
		}
		if err := w.settle(ctx); err != nil {
			return err
		}
	}
	told := s.survey
	if comparing { // nothing new is found out
		silent := *s.survey
		silent.report, told = silence(), &silent
	}
	n, all := int64(0), s.src.schema().counts[table]
	m := &mapper{survey: told, ctx: ctx, highest: highest, zone: s.zone, comparing: comparing}
	m.emit = func(r db.Importable) error {
		if n++; n%1024 == 0 {
			s.o.progress(Progress{Step: table, Done: n, All: all, Rows: true})
		}
		return w.put(ctx, r)
	}
	if err := m.table(table); err != nil {
		return err
	}
	return w.end(ctx)
}

// finish ends the report.
func (s *Source) finish() *Report {
	s.report.Seconds = s.o.Now().Sub(s.begun).Seconds()
	return s.report
}

// DryRun tells what an import into an empty database would do.
func (s *Source) DryRun(ctx context.Context) (*Report, error) {
	s.report.DryRun = true
	if _, err := s.walk(ctx, &tally{report: s.report}, false); err != nil {
		return nil, err
	}
	return s.finish(), nil
}

// A tally counts what would be written.
type tally struct {
	report *Report
	uid    string // of the user who came last
}

func (c *tally) begin(context.Context, string) (bool, error) { return false, nil }
func (c *tally) preview(db.Importable)                       {}
func (c *tally) settle(context.Context) error                { return nil }
func (c *tally) end(context.Context) error                   { return nil }
func (c *tally) put(_ context.Context, r db.Importable) error {
	switch r := r.(type) {
	case *db.APIKey:
		if r.Secret == "" {
			keyless(c.report, r)
		}
	case *db.User:
		c.uid = r.UID
	case *db.TOTPKey:
		if r.Secret == "" {
			factorless(c.report, c.uid)
			return nil
		}
	}
	t := c.report.table(db.ImportTable(r))
	t.Imported++
	t.Written++
	return nil
}
