// Package counts says what the counts and copies behind the lists of users and activities must hold, compares them with the
// rows, and makes them anew.
//
// The API promises an exact Total and any page of a list. Without counts, the last page of ten million activities by topic
// and action took 5,744 ms, and the first page of users by label a second, each time that somebody of staff opened it; with
// them 12 and 12 (docs/lists.md has all the figures). They cost a sign-up 0.2 ms of processor time. That is what earns the 58
// functions and triggers of Postgres, and as many of SQLite less what it does by itself. They are made by migrations 2, 3 and
// 4, which stay as they were applied, and kept in the transaction of each change, whoever makes it.
//
// Should an exact total no longer be promised, all of this can go: the triggers, this package, and the walk over parts in
// the lists of package db.
//
// Triggers do not fire for rows that are restored with them disabled or that arrive by logical replication. "barong counts
// repair" is for those.
package counts

import (
	"context"
	"fmt"
	"strings"

	"github.com/uptrace/bun"
)

// A Difference is how many rows of a table are not what the rows that it sums up or copies say: missing, wrong or too many.
type Difference struct {
	Table string
	Rows  int64
}

// A derived table, and the query that says what it must hold.
type derived struct {
	table   string
	columns string
	stored  string // what it holds: of counts those that are still to be added as well
	changes bool   // Postgres keeps what is still to be added in <kind>_count_changes
	rows    string // what it must hold
}

// owner is what the lists ask of a user, whatever else they filter by.
const owner = "u.role, u.state, u.level"

// tables are the derived tables of an engine.
func tables(sqlite bool) []derived {
	week := func(at string) string { return "week_of(" + at + ")" }
	day := "to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')"
	if sqlite {
		week = func(at string) string {
			return "printf('%04d', max(0, min(9999, coalesce(strftime('%s', substr(" + at + ", 1, 19)) / 604800, 0))))"
		}
		day = "substr(created_at, 1, 10)"
	}
	const countries = "(SELECT DISTINCT user_id, country FROM profiles WHERE country IS NOT NULL) AS p JOIN users AS u ON u.id = p.user_id"
	facet := func(name, value, from string) string {
		return "SELECT '" + name + "', " + value + ", " + owner + ", u.id >> 14, count(*) FROM " + from + " GROUP BY 1, 2, 3, 4, 5, 6"
	}
	users := strings.Join([]string{
		facet("", "''", "users AS u"),
		facet("created", week("u.created_at"), "users AS u"),
		facet("updated", week("u.updated_at"), "users AS u"),
		facet("country", "p.country", countries),
		facet("country created", "p.country || '/' || "+week("u.created_at"), countries),
		facet("country updated", "p.country || '/' || "+week("u.updated_at"), countries),
		"SELECT 'profiles', '', '', '', 0, id >> 14, count(*) FROM profiles GROUP BY 6",
	}, " UNION ALL ")
	labels := "SELECT key, value, scope, user_id >> 14, count(*) FROM labels GROUP BY 1, 2, 3, 4" +
		" UNION ALL SELECT key, value, '*', user_id >> 14, count(DISTINCT user_id) FROM labels GROUP BY 1, 2, 4"
	known := func(column string) string { return "CASE WHEN result <> 'denied' THEN " + column + " ELSE '' END" }
	activities := "SELECT category, " + known("topic") + ", " + known("action") + ", result, " + day +
		", count(*) FROM activities GROUP BY 1, 2, 3, 4, 5"
	const whose = "u.id, " + owner + ", u.created_at, u.updated_at"
	tallies := func(view, columns string) string {
		return "SELECT " + columns + ", CAST(sum(count) AS BIGINT) FROM " + view + " GROUP BY " + columns + " HAVING sum(count) <> 0"
	}
	const copied = "user_id, role, state, level, created_at, updated_at"
	return []derived{
		{
			table: "user_counts", columns: "facet, value, role, state, level, block, count", changes: true, rows: users,
			stored: tallies("user_tallies", "facet, value, role, state, level, block"),
		},
		{
			table: "label_counts", columns: "key, value, scope, block, count", changes: true, rows: labels,
			stored: tallies("label_tallies", "key, value, scope, block"),
		},
		{
			table: "activity_counts", columns: "category, topic, action, result, day, count", changes: true, rows: activities,
			stored: tallies("activity_tallies", "category, topic, action, result, day"),
		},
		{
			table: "profile_facts", columns: "profile_id, first_name_index, last_name_index, country, " + copied,
			stored: "SELECT profile_id, first_name_index, last_name_index, country, " + copied + " FROM profile_facts",
			rows: "SELECT p.id, p.first_name_index, p.last_name_index, p.country, " + whose +
				" FROM profiles AS p JOIN users AS u ON u.id = p.user_id",
		},
		{
			table: "document_queue", columns: "label_id, since, " + copied,
			stored: "SELECT label_id, since, " + copied + " FROM document_queue",
			rows: "SELECT l.id, l.updated_at, " + whose + " FROM labels AS l JOIN users AS u ON u.id = l.user_id" +
				" WHERE l.scope = 'private' AND l.key = 'document' AND l.value IN ('pending', 'replaced')",
		},
	}
}

// Compare returns the tables that differ from the rows, and by how many. It reads in a transaction that sees one state of the
// database, and may take minutes on a large one.
func Compare(ctx context.Context, in bun.IDB, sqlite bool) ([]Difference, error) {
	var out []Difference
	for _, d := range tables(sqlite) {
		stored, rows := "SELECT * FROM ("+d.stored+") AS s", "SELECT * FROM ("+d.rows+") AS r"
		var n int64
		err := in.NewRaw("SELECT count(*) FROM (SELECT * FROM ("+stored+" EXCEPT "+rows+") AS a"+
			" UNION ALL SELECT * FROM ("+rows+" EXCEPT "+stored+") AS b) AS d").Scan(ctx, &n)
		if err != nil {
			return nil, fmt.Errorf("compare %s: %w", d.table, err)
		}
		if n > 0 {
			out = append(out, Difference{Table: d.table, Rows: n})
		}
	}
	return out, nil
}

// Rebuild makes every count and copy anew from the rows, in a transaction that writes. On Postgres nobody else writes users,
// profiles, labels or activities until it ends.
func Rebuild(ctx context.Context, in bun.IDB, sqlite bool) error {
	statements := []string{}
	if !sqlite {
		statements = append(statements, "LOCK TABLE users, profiles, labels, activities IN SHARE ROW EXCLUSIVE MODE")
	}
	for _, d := range tables(sqlite) {
		if d.changes && !sqlite {
			statements = append(statements, "DELETE FROM "+strings.TrimSuffix(d.table, "s")+"_changes")
		}
		statements = append(statements, "DELETE FROM "+d.table, "INSERT INTO "+d.table+" ("+d.columns+") "+d.rows)
	}
	for _, statement := range statements {
		if _, err := in.NewRaw(statement).Exec(ctx); err != nil {
			return fmt.Errorf("rebuild: %.60s: %w", statement, err)
		}
	}
	return nil
}
