package db

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"strings"

	"barong/internal/fault"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// sqlState is the code (appendix A of its manual) of an error that a Postgres has answered; empty for others.
func sqlState(err error) string {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code
	}
	return ""
}

// retryable reports a lost race that a second run can win.
func retryable(err error) bool {
	code := sqlState(err)
	return code == "40001" || code == "40P01"
}

// locked reports that another process has an SQLite file.
func locked(err error) bool {
	var lite *sqlite.Error
	return errors.As(err, &lite) && lite.Code()&0xff == sqlite3.SQLITE_BUSY
}

// Translate turns a driver's error into one of this package's: ErrNotFound, *ErrTaken, the fault of an outage, or the same
// error. It may be applied twice.
func Translate(err error) error {
	if err == nil {
		return nil
	}
	if f := (*fault.Error)(nil); errors.As(err, &f) {
		return err
	}
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "23505" {
		return &ErrTaken{Index: pg.ConstraintName}
	}
	var lite *sqlite.Error
	if errors.As(err, &lite) && lite.Code()&0xff == sqlite3.SQLITE_CONSTRAINT && strings.Contains(lite.Error(), "UNIQUE constraint failed") {
		return &ErrTaken{Index: liteIndex(lite.Error())}
	}
	if out(err, pg, lite) {
		return fault.New(fault.Unavailable).Because(err)
	}
	return err
}

// Full reports an error of a disk without room, or of one that fails.
func Full(err error) bool {
	if lite, ok := errors.AsType[*sqlite.Error](err); ok {
		return lite.Code()&0xff == sqlite3.SQLITE_FULL || lite.Code()&0xff == sqlite3.SQLITE_IOERR
	}
	return sqlState(err) == "53100"
}

// Denied reports that the user of the database lacks a right.
func Denied(err error) bool { return sqlState(err) == "42501" }

// out reports an error that says something about the database, and nothing about the statement: the same statement may
// succeed later, or on another server.
func out(err error, pg *pgconn.PgError, lite *sqlite.Error) bool {
	if pg != nil {
		return pgOutages[pg.Code] || len(pg.Code) == 5 && pgOutages[pg.Code[:2]]
	}
	if lite != nil {
		return liteOutages[lite.Code()&0xff]
	}
	for _, outage := range []error{
		context.DeadlineExceeded, context.Canceled, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, driver.ErrBadConn, sql.ErrConnDone,
		sql.ErrTxDone, // its connection broke, or its time was over, between two statements
	} {
		if errors.Is(err, outage) {
			return true
		}
	}
	var network net.Error
	var connect *pgconn.ConnectError
	// A connection that is found closed before anything was sent has an error of its own, and no type.
	return errors.As(err, &network) || errors.As(err, &connect) || pgconn.SafeToRetry(err)
}

// pgOutages are the classes and codes of Postgres (appendix A of its manual) that out means.
var pgOutages = map[string]bool{
	"08":    true, // the connection
	"53":    true, // resources: disk, memory, connections
	"57":    true, // an operator: shutting down, starting up, cancelled by a time limit
	"58":    true, // the system: input and output, files
	"25006": true, // read-only: a standby, or a full disk
	"25P03": true, // idle in a transaction for too long
	"40001": true, // lost races that were run again in vain
	"40P01": true,
	"55P03": true, // a lock was not to be had in time
	"XX001": true, // damaged data
	"XX002": true,
}

// liteOutages are the primary result codes of SQLite that out means.
var liteOutages = map[int]bool{
	sqlite3.SQLITE_PERM: true, sqlite3.SQLITE_BUSY: true, sqlite3.SQLITE_LOCKED: true, sqlite3.SQLITE_NOMEM: true,
	sqlite3.SQLITE_READONLY: true, sqlite3.SQLITE_INTERRUPT: true, sqlite3.SQLITE_IOERR: true, sqlite3.SQLITE_CORRUPT: true,
	sqlite3.SQLITE_FULL: true, sqlite3.SQLITE_CANTOPEN: true, sqlite3.SQLITE_PROTOCOL: true, sqlite3.SQLITE_NOTADB: true,
}

// liteIndex finds the index behind SQLite's message, which names an index only when it is one of expressions and the
// columns otherwise: "UNIQUE constraint failed: index 'users_email'", "…: labels.user_id, labels.key, labels.scope".
func liteIndex(message string) string {
	_, rest, _ := strings.Cut(message, "UNIQUE constraint failed: ")
	rest, _, _ = strings.Cut(rest, " (")
	if name, ok := strings.CutPrefix(rest, "index '"); ok {
		return strings.TrimSuffix(name, "'")
	}
	if name, ok := liteIndexes[rest]; ok {
		return name
	}
	return rest
}

// liteIndexes maps the columns of SQLite's message to the index's name, as Postgres reports it.
var liteIndexes = map[string]string{
	"users.uid": "users_uid",
	"recovery_codes.user_id, recovery_codes.digest": "recovery_codes_user_id",
	"profiles.user_id":                         "profiles_open",
	"phones.user_id, phones.number_index":      "phones_user_id",
	"phones.number_index":                      "phones_verified",
	"labels.user_id, labels.key, labels.scope": "labels_user_id",
	"levels.key, levels.value":                 "levels_key",
	"apikeys.kid":                              "apikeys_kid",
	"restrictions.scope, restrictions.category, restrictions.value": "restrictions_value",
	"mail_tokens.jti":                       "mail_tokens_pkey",
	"whitelinks.digest":                     "whitelinks_pkey",
	"sessions.key":                          "sessions_pkey",
	"audit_blocks.seq":                      "audit_blocks_pkey",
	"identities.issuer, identities.subject": "identities_subject",
	"identities.user_id, identities.issuer": "identities_user_id",
}
