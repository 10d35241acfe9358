// Command bigdata makes a large database and measures the lists of the REST API on it: docs/lists.md is written from
// what it prints.
//
//	go run ./bigdata -dir /tmp/bigdata generate measure
//	go run ./bigdata -url postgres://user@host/empty_database -users 100000 -activities 1000000 generate
//
// The commands run in the order in which they are given:
//
//	migrate   bring the schema up to date
//	generate  migrate an empty database and fill it; a million users and ten million activities take minutes
//	measure   print a table of every list and filter with its total and its times, first, middle and last page
//	explain   print the statements behind one page of each list, with EXPLAIN (ANALYZE, BUFFERS)
//	writes    print how many sign-ups, changes of users and activities a second the database takes
//	wait      do nothing until interrupted, so that others may look at the database
//
// Alone, "dump" writes a dump of the original's database of that size to standard output, for "barong import": the
// figures in docs/moving.md are of such ones. It needs no database.
//
// Without -url a Postgres of .tools is started on a data directory below -dir, which stays there; the server is stopped
// at the end. The data is drawn with a fixed seed. Names are sealed with a key of its own, which protects nothing.
package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"

	"barong/db"
	"barong/internal/crypto/secret"
	"barong/internal/test/testkit"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bigdata:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("bigdata", flag.ContinueOnError)
	url := flags.String("url", "", "the database; a Postgres of .tools by default")
	dir := flags.String("dir", "", "folder of that Postgres")
	var s size
	flags.Int64Var(&s.users, "users", 1_000_000, "how many users to generate")
	flags.Int64Var(&s.activities, "activities", 10_000_000, "how many activities to generate")
	only := flags.String("only", "", "measure and explain only lists whose \"address: filter\" matches this regular expression")
	last := flags.String("end", "2026-06-30", "the day after the last one in the data, which covers a year")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	var err error
	if s.end, err = time.Parse(time.DateOnly, *last); err != nil {
		return fmt.Errorf("-end: %w", err)
	}
	pattern, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	if flags.NArg() == 0 {
		return errors.New("say what to do: migrate, generate, measure, explain, writes, wait, dump")
	}
	if flags.Arg(0) == "dump" && flags.NArg() == 1 {
		return dump(stdout, s)
	}
	if *url == "" {
		if *dir == "" {
			return errors.New("say where: -url or -dir")
		}
		started, stop, err := testkit.KeepPostgres(*dir, "shared_buffers=2GB", "max_wal_size=4GB")
		if err != nil {
			return err
		}
		defer stop()
		*url = started
		fmt.Fprintln(os.Stderr, "bigdata: the database is", *url)
	}
	d, err := open(ctx, *url)
	if err != nil {
		return err
	}
	defer d.Close()
	for _, command := range flags.Args() {
		switch command {
		case "migrate":
			_, err = d.MigrateUp(ctx)
		case "generate":
			if _, err = d.MigrateUp(ctx); err == nil {
				err = generate(ctx, d, s, os.Stderr)
			}
		case "measure":
			err = measure(ctx, d, s, pattern, stdout)
		case "explain":
			err = explain(ctx, d, s, pattern, stdout)
		case "writes":
			err = writes(ctx, d, stdout)
		case "wait":
			<-ctx.Done()
		default:
			err = fmt.Errorf("unknown command %q", command)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// open opens the database with the key of the data set.
func open(ctx context.Context, url string) (*db.DB, error) {
	key := base64.StdEncoding.EncodeToString(append(bytes.Repeat([]byte{1}, 16), bytes.Repeat([]byte{2}, 16)...))
	box, err := secret.New(secret.Text(key))
	if err != nil {
		return nil, err
	}
	return db.Open(ctx, db.Options{URL: url, Sealer: box})
}
