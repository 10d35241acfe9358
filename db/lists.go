package db

import (
	"cmp"
	"context"
	"database/sql"
	"math"
	"slices"
	"strings"

	"github.com/uptrace/bun"
)

// What the lists of users and activities have in common. A total comes from counts that triggers keep by part of a list
// (a block of ids, a day), and so does the part in which a page begins: only the rows of the parts that a page touches
// are walked, however deep it is. docs/lists.md tells more, and what it costs.

// snapshot runs f with reads that see one state of the database, so that a total and its page belong together. Inside of
// a transaction they see what it sees.
func (q queries) snapshot(ctx context.Context, f func(q queries) error) error {
	b, ok := q.idb.(*bun.DB)
	if !ok {
		return f(q)
	}
	o := &sql.TxOptions{ReadOnly: true}
	if !q.db.sqlite { // SQLite knows no other level
		o.Isolation = sql.LevelRepeatableRead
	}
	return b.RunInTx(ctx, o, func(_ context.Context, tx bun.Tx) error { return f(queries{idb: tx, db: q.db}) })
}

// beyond reports that a page of a list of total rows has none.
func (p Page) beyond(total int64) bool {
	return p.Number < 1 || p.Size < 1 || int64(p.Number-1) > math.MaxInt64/int64(p.Size) || p.offset() >= total
}

// A part of a list: its place in the list's order, and how many rows of the list it has.
type part struct{ Place, Count int64 }

func sum(parts []part) int64 {
	var n int64
	for i := range parts {
		n += parts[i].Count
	}
	return n
}

// inOrder sorts parts by their places.
func inOrder(parts []part) []part {
	slices.SortFunc(parts, func(a, b part) int { return cmp.Compare(a.Place, b.Place) })
	return parts
}

// window finds a page, which must not be beyond the end, among the parts in the order of the list: it lies in those from
// first to last, after skip of their rows.
func window(parts []part, p Page) (first, last part, skip, rows int64) {
	skip = p.offset()
	i := 0
	for skip >= parts[i].Count {
		skip -= parts[i].Count
		i++
	}
	first = parts[i]
	rows = parts[i].Count
	for i+1 < len(parts) && rows < skip+p.limit() {
		i++
		rows += parts[i].Count
	}
	return first, parts[i], skip, rows
}

// A listQuery is a part of a SELECT with its arguments.
type listQuery struct {
	text strings.Builder
	args []any
}

func (l *listQuery) add(text string, args ...any) *listQuery {
	l.text.WriteString(text)
	l.args = append(l.args, args...)
	return l
}

// An ordering names the columns that order a list.
type ordering struct {
	columns    []string
	descending bool
}

func (o ordering) sql(backwards bool) string {
	direction := " ASC"
	if o.descending != backwards {
		direction = " DESC"
	}
	return strings.Join(o.columns, direction+", ") + direction
}

// walk reads the ids at an offset of from, which an index can deliver in order. total is how many rows there are: an
// offset in the second half is reached from the end.
func (q queries) walk(ctx context.Context, from *listQuery, o ordering, p Page, offset, total int64) ([]int64, error) {
	limit := min(p.limit(), total-offset)
	backwards := offset > total/2
	if backwards {
		offset = total - offset - limit
	}
	ids := make([]int64, 0, max(limit, 0))
	query := from.text.String() + " ORDER BY " + o.sql(backwards) + " LIMIT ? OFFSET ?"
	if err := q.idb.NewRaw(query, append(slices.Clip(from.args), limit, offset)...).Scan(ctx, &ids); err != nil {
		return nil, Translate(err)
	}
	if backwards {
		slices.Reverse(ids)
	}
	return ids, nil
}

// sorted reads the ids at an offset of from, which selects id and the columns of the order, and is small: all of it is
// read, by the way that is best for that, and sorted. A plan for the first rows alone could walk all of the table for
// them.
func (q queries) sorted(ctx context.Context, from *listQuery, o ordering, p Page, offset int64) ([]int64, error) {
	ids := []int64{}
	query := "WITH found AS MATERIALIZED (" + from.text.String() + ") SELECT id FROM found ORDER BY " + o.sql(false) + " LIMIT ? OFFSET ?"
	err := q.idb.NewRaw(query, append(slices.Clip(from.args), p.limit(), offset)...).Scan(ctx, &ids)
	return ids, Translate(err)
}

// sortedAndCounted is sorted with the total, in one reading.
func (q queries) sortedAndCounted(ctx context.Context, from *listQuery, o ordering, p Page) ([]int64, int64, error) {
	count := func() (int64, error) {
		var n int64
		err := q.idb.NewRaw("SELECT count(*) FROM ("+from.text.String()+") AS found", from.args...).Scan(ctx, &n)
		return n, Translate(err)
	}
	if p.beyond(math.MaxInt64) {
		n, err := count()
		return []int64{}, n, err
	}
	var rows []struct{ ID, Total int64 }
	query := "WITH found AS MATERIALIZED (" + from.text.String() + ") SELECT id, (SELECT count(*) FROM found) AS total FROM found ORDER BY " +
		o.sql(false) + " LIMIT ? OFFSET ?"
	if err := q.idb.NewRaw(query, append(slices.Clip(from.args), p.limit(), p.offset())...).Scan(ctx, &rows); err != nil {
		return nil, 0, Translate(err)
	}
	ids := make([]int64, len(rows))
	for i := range rows {
		ids[i] = rows[i].ID
	}
	switch {
	case len(rows) > 0:
		return ids, rows[0].Total, nil
	case p.Number == 1:
		return ids, 0, nil
	}
	n, err := count()
	return ids, n, err
}

// values writes rows as the texts of VALUES.
func (l *listQuery) values(rows [][]any) *listQuery {
	for i, row := range rows {
		if i > 0 {
			l.add(", ")
		}
		l.add("("+strings.TrimSuffix(strings.Repeat("?, ", len(row)), ", ")+")", row...)
	}
	return l
}
