package db

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"github.com/uptrace/bun"
)

// A Watcher is told of every statement, from many goroutines.
type Watcher interface {
	// Begin returns the context that a statement runs with. operation is one of Operations.
	Begin(ctx context.Context, operation string) context.Context
	// End is told how it ended. That there is no row is no error, nor that its caller gave up.
	End(ctx context.Context, operation string, begun time.Time, err error)
}

// Operations are what a Watcher is told of.
var Operations = []string{"select", "insert", "update", "delete", "begin", "commit", "rollback", "other"}

// operationOf is one of Operations.
func operationOf(verb string) string {
	verb = strings.ToLower(verb)
	switch verb {
	case "select", "insert", "update", "delete", "begin", "commit", "rollback":
		return verb
	case "with": // all of this package's read
		return "select"
	}
	return "other"
}

// watched takes a Watcher's questions from bun.
type watched struct{ Watcher }

// BeforeQuery implements bun.QueryHook.
func (w watched) BeforeQuery(ctx context.Context, e *bun.QueryEvent) context.Context {
	return w.Begin(ctx, operationOf(e.Operation()))
}

// AfterQuery implements bun.QueryHook.
func (w watched) AfterQuery(ctx context.Context, e *bun.QueryEvent) {
	err := e.Err
	if errors.Is(err, sql.ErrNoRows) || errors.Is(err, sql.ErrTxDone) || errors.Is(err, context.Canceled) {
		err = nil
	}
	w.End(ctx, operationOf(e.Operation()), e.StartTime, err)
}

// A Pool is how the connections of a store are used.
type Pool struct {
	Open, InUse, Idle, Limit int
	Waits                    int64         // for a connection, so far
	Waited                   time.Duration // in all
}

// Pool is how the database's connections are used.
func (d *DB) Pool() Pool {
	s := d.sql.Stats()
	return Pool{
		Open: s.OpenConnections, InUse: s.InUse, Idle: s.Idle, Limit: s.MaxOpenConnections, Waits: s.WaitCount, Waited: s.WaitDuration,
	}
}
