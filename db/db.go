// Package db keeps the rows: bun models, migrations, and one file of queries a table group, for Postgres and SQLite
// alike. It owns the unit of work (Tx): a state change, the activity rows and the queued mails it causes, and the
// notices other replicas need, are one transaction. It knows no HTTP and decides nothing about who may do what.
//
// Times are UTC in whole seconds, as the original stored them, so that the filters by second of the API compare alike
// on both engines. Secrets and personal data are sealed before they reach a statement; see Sealer.
package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"time"

	"barong/internal/bus"
	"barong/internal/crypto/secret"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	"github.com/uptrace/bun/dialect/sqlitedialect"
	_ "modernc.org/sqlite" // the driver
)

// ErrNotFound says that no row answers the question.
var ErrNotFound = errors.New("db: not found")

// ErrTaken says that a unique index refused a row. Index names it: "users_email", "labels_user_id".
type ErrTaken struct{ Index string }

func (e *ErrTaken) Error() string { return "db: taken: " + e.Index }

// A Sealer encrypts what must not stand in clear at rest, and makes keyed blind indexes for exact look-ups of it.
type Sealer interface {
	Seal(plain []byte, context string) string
	Open(sealed, context string) ([]byte, error)
	Index(value, purpose string) string
	Indexes(value, purpose string) []string // under which it may stand, that of Index first
}

// Options are what Open needs. Now defaults to time.Now.
type Options struct {
	URL     string // see ValidateURL
	Sealer  Sealer
	Watcher Watcher // nil watches nothing
	Now     func() time.Time
}

// A DB is an open database. It is safe for concurrent use.
type DB struct {
	queries
	sql     *sql.DB
	sqlite  bool
	url     atomic.Pointer[string] // its user and password are those of new connections
	writing chan struct{}          // SQLite has one writer: queueing here is fair, and spares SQLITE_BUSY
	publish func(context.Context, ...bus.Notice) error
	now     func() time.Time
	sealer  Sealer

	enqueued atomic.Pointer[func(kind string)] // see OnEnqueue
}

// queries are the reads that a DB and a Tx have in common.
type queries struct {
	idb bun.IDB
	db  *DB
}

// Open connects. It neither migrates nor seeds. A missing SQLite folder or file is created, readable by its owner alone.
func Open(ctx context.Context, o Options) (*DB, error) {
	d := &DB{now: o.Now, sealer: o.Sealer}
	d.url.Store(&o.URL)
	if d.now == nil {
		d.now = time.Now
	}
	d.publish = func(context.Context, ...bus.Notice) error { return nil }
	var b *bun.DB
	switch path, err := SQLitePath(o.URL); {
	case err != nil:
		return nil, fmt.Errorf("open sqlite: %w", err)
	case path != "":
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, fmt.Errorf("open sqlite %s: %w", path, err)
		}
		// SQLite would make a file that all may read; those beside it get the mode of this one. One that is there already
		// is not opened: to close it would let go of this process's locks on it.
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil {
			err = file.Close()
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("open sqlite %s: %w", path, err)
		}
		pool, err := sql.Open("sqlite", sqliteDSN(path))
		if err != nil {
			return nil, fmt.Errorf("open sqlite %s: %w", path, err)
		}
		pool.SetMaxOpenConns(4 + 2*runtime.GOMAXPROCS(0))
		pool.SetMaxIdleConns(4 + 2*runtime.GOMAXPROCS(0))
		d.sql, d.sqlite, d.writing = pool, true, make(chan struct{}, 1)
		b = bun.NewDB(pool, sqlitedialect.New(), bun.WithDiscardUnknownColumns())
	default:
		cfg, err := postgresConfig(o.URL)
		if err != nil {
			return nil, fmt.Errorf("open database: %w", err)
		}
		// bun writes values into the statement, so preparing each text would only fill caches; the extended protocol
		// still takes a single statement at a time.
		cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
		cfg.RuntimeParams["timezone"] = "UTC"
		if cfg.ConnectTimeout == 0 {
			cfg.ConnectTimeout = 5 * time.Second
		}
		d.sql = stdlib.OpenDB(*cfg, stdlib.OptionBeforeConnect(d.logIn))
		d.sql.SetMaxOpenConns(16 + 4*runtime.GOMAXPROCS(0))
		d.sql.SetMaxIdleConns(8)
		d.sql.SetConnMaxIdleTime(5 * time.Minute)
		b = bun.NewDB(d.sql, pgdialect.New(), bun.WithDiscardUnknownColumns())
	}
	if o.Watcher != nil {
		b = b.WithQueryHook(watched{o.Watcher})
	}
	d.queries = queries{idb: b, db: d}
	if err := d.sql.PingContext(ctx); err != nil {
		d.sql.Close()
		return nil, fmt.Errorf("open database: %w", advised(withoutPassword(err, o.URL)))
	}
	return d, nil
}

// sqliteDSN is the driver's name of the file with the settings every connection gets: a write-ahead log so that readers
// and the writer do not wait for each other, full sync so that an answered write outlives a power cut, and write
// transactions that lock when they begin instead of failing half-way.
func sqliteDSN(path string) string {
	q := url.Values{"_txlock": {"immediate"}, "_time_format": {"sqlite"}, "_pragma": {
		"busy_timeout(2000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)", "temp_store(MEMORY)",
		"secure_delete(1)", "journal_size_limit(67108864)",
	}}
	return sqliteName(path) + "?" + q.Encode()
}

// sqliteName is the driver's name of a file.
func sqliteName(path string) string { return "file:" + (&url.URL{Path: path}).EscapedPath() }

// Close closes every connection.
func (d *DB) Close() error { return d.sql.Close() }

// Bun is the handle for reads. Writes go through Update.
func (d *DB) Bun() *bun.DB { return d.idb.(*bun.DB) }

// SQLite reports whether the engine is SQLite.
func (d *DB) SQLite() bool { return d.sqlite }

// URL is what Open, or LogInAs, was given. It may hold a password.
func (d *DB) URL() string { return *d.url.Load() }

// LogInAs has connections to Postgres that are made from now on log in as another URL says, which differs from that of Open in
// the user and the password alone. Connections that are there stay.
func (d *DB) LogInAs(raw string) error {
	if !secret.URL(raw).SameButLogin(secret.URL(d.URL())) {
		return errors.New("it leads to another database")
	}
	if err := ValidateURL(raw); err != nil {
		return err
	}
	d.url.Store(&raw)
	return nil
}

// logIn gives a connection that is about to be made the login of the moment.
func (d *DB) logIn(_ context.Context, c *pgx.ConnConfig) error {
	now, err := postgresConfig(d.URL())
	if err == nil {
		c.User, c.Password = now.User, now.Password
	}
	return err
}

// Now is the clock in the precision that rows keep: UTC, whole seconds.
func (d *DB) Now() time.Time { return d.now().UTC().Truncate(time.Second) }

// Sealer is what Open was given.
func (d *DB) Sealer() Sealer { return d.sealer }

// Ping reports whether the database answers.
func (d *DB) Ping(ctx context.Context) error { return d.sql.PingContext(ctx) }

// TryWrite reports whether the database takes writes, by one: a server that only answers may be read-only or full.
func (d *DB) TryWrite(ctx context.Context) error {
	err := d.Update(ctx, func(ctx context.Context, tx *Tx) error {
		_, err := tx.NewRaw(`INSERT INTO probes (name, tried_at) VALUES ('write', ?)
			ON CONFLICT (name) DO UPDATE SET tried_at = EXCLUDED.tried_at`, time.Now().UnixMilli()).Exec(ctx)
		return err
	})
	if err == nil && !d.sqlite {
		err = d.tryRoom(ctx)
	}
	if err != nil {
		return fmt.Errorf("the database takes no writes: %w", err)
	}
	return nil
}

// tryRoom reports whether the disk of a Postgres has room. A row that is written again and again has its place there, and says
// nothing; a list that is larger than the memory it may have does, since it becomes a file, which leaves nothing behind.
func (d *DB) tryRoom(ctx context.Context) error {
	tx, err := d.sql.BeginTx(ctx, nil)
	if err != nil {
		return Translate(err)
	}
	defer func() { _ = tx.Rollback() }() // it has changed nothing
	if _, err = tx.ExecContext(ctx, "SET LOCAL work_mem = '64kB'"); err != nil {
		return Translate(err)
	}
	_, err = tx.ExecContext(ctx, "SELECT count(*) FROM generate_series(1, 10000)")
	if sqlState(err) == "53400" {
		return nil // whoever runs it allows no such files at all
	}
	return Translate(err)
}

// ServerTime is what the clock of a Postgres says. SQLite has none of its own: it is an error to ask it.
func (d *DB) ServerTime(ctx context.Context) (now time.Time, err error) {
	if d.sqlite {
		return now, errors.New("db: SQLite has no clock")
	}
	err = d.idb.NewRaw("SELECT clock_timestamp()").Scan(ctx, &now)
	return now, Translate(err)
}

// PublishTo names who hears a committed transaction's notices. Call it before the first Update.
func (d *DB) PublishTo(publish func(context.Context, ...bus.Notice) error) { d.publish = publish }

// A Tx is one unit of work. What it notes with Notify and AfterCommit happens only if it commits.
type Tx struct {
	queries
	bun.Tx
	notices []bus.Notice
	after   []func(context.Context)

	rulesLocked bool // see LockRules
}

// Notify tells this process's caches, and then the other replicas, what to forget, once the transaction has committed.
func (tx *Tx) Notify(kind bus.Kind, subject string) {
	n := bus.Notice{Kind: kind, Subject: subject}
	for _, have := range tx.notices {
		if have == n {
			return
		}
	}
	tx.notices = append(tx.notices, n)
}

// AfterCommit runs f after the commit and before Update returns.
func (tx *Tx) AfterCommit(f func(context.Context)) { tx.after = append(tx.after, f) }

// Now is DB.Now.
func (tx *Tx) Now() time.Time { return tx.db.Now() }

// SQLite is DB.SQLite.
func (tx *Tx) SQLite() bool { return tx.db.sqlite }

// Update runs f in one write transaction and commits it unless f returns an error or panics. On Postgres, a transaction
// that loses against a concurrent one is run again, so f must not keep anything it did outside the transaction. The
// notices are delivered to this process before Update returns; that other replicas could not be told is no error of the
// change itself, they find out within the session cache's lifetime.
func (d *DB) Update(ctx context.Context, f func(ctx context.Context, tx *Tx) error) error {
	var err error
	for attempt := 0; attempt < 4; attempt++ {
		var tx *Tx
		tx, err = d.once(ctx, f)
		if err == nil {
			// The caller may be gone by now; what is committed must still be told.
			told, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			for _, after := range tx.after {
				after(told)
			}
			if len(tx.notices) > 0 {
				_ = d.publish(told, tx.notices...) // the bus reports its own trouble; see above
			}
			return nil
		}
		if !retryable(err) {
			break
		}
	}
	return Translate(err)
}

// lockPatience is how long a transaction waits for another process to let go of an SQLite file, unless its context ends
// before. The engine itself waits shorter, since nothing interrupts it meanwhile.
const lockPatience = 10 * time.Second

// A beginner begins a transaction: a pool, or one of its connections.
type beginner interface {
	BeginTx(ctx context.Context, o *sql.TxOptions) (bun.Tx, error)
}

func begin(ctx context.Context, on beginner) (bun.Tx, error) {
	for begun := time.Now(); ; {
		tx, err := on.BeginTx(ctx, nil)
		if err == nil || !locked(err) || ctx.Err() != nil || time.Since(begun) > lockPatience {
			return tx, err
		}
	}
}

func (d *DB) once(ctx context.Context, f func(ctx context.Context, tx *Tx) error) (*Tx, error) {
	return d.within(ctx, d.Bun(), f)
}

// within runs f in a transaction on a pool or a connection, as the one writer if the engine has but one.
func (d *DB) within(ctx context.Context, on beginner, f func(ctx context.Context, tx *Tx) error) (*Tx, error) {
	if d.writing != nil {
		select {
		case d.writing <- struct{}{}:
			defer func() { <-d.writing }()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	inner, err := begin(ctx, on)
	if err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	tx := &Tx{Tx: inner}
	tx.queries = queries{idb: inner, db: d}
	done := false
	defer func() {
		if !done {
			_ = inner.Rollback() // the error that brought us here is the one to tell
		}
	}()
	if err := f(ctx, tx); err != nil {
		return nil, err
	}
	if err := inner.Commit(); err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	done = true
	return tx, nil
}
