package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/uptrace/bun"
)

// A Resealer is a Sealer that knows several keys and says which values are sealed under the newest of them.
type Resealer interface {
	Sealer
	Current(sealed string) bool
}

// resealBatch is how many rows one transaction seals anew: few enough that a server beside it does not wait long.
const resealBatch = 100

// A sealedTable is a table with sealed columns.
type sealedTable struct {
	name    string
	key     string // primary key, an integer
	owner   string // column of the owner's id, or empty
	label   string // a text column that the sealing context holds, or empty
	only    string // a condition that leaves rows out, or empty
	columns []sealedTableColumn
	context func(r *sealedRow, column string) string // as where the column is sealed
	proof   bool                                     // only proves other rows: a server works without
}

type sealedTableColumn struct{ name, index, purpose string }

// sealedTables lists every sealed column.
var sealedTables = []sealedTable{
	{
		name: "totp_keys", key: "user_id", owner: "user_id", columns: []sealedTableColumn{{name: "secret"}},
		context: func(r *sealedRow, column string) string { return sealedAt("totp_keys", column, r.owner) },
	},
	{
		name: "apikeys", key: "id", owner: "user_id", label: "kid", columns: []sealedTableColumn{{name: "secret"}},
		context: func(r *sealedRow, column string) string { return sealedAt("apikeys", column+":"+r.label, r.owner) },
	},
	{
		name: "profiles", key: "id", owner: "user_id", columns: []sealedTableColumn{
			{"first_name", "first_name_index", purposeFirstName},
			{"last_name", "last_name_index", purposeLastName},
			{name: "dob"},
			{name: "address"},
			{name: "postcode"},
			{name: "city"},
		},
		context: func(r *sealedRow, column string) string { return sealedAt("profiles", column, r.owner) },
	},
	{
		name: "phones", key: "id", owner: "user_id", columns: []sealedTableColumn{{"number", "number_index", purposePhone}},
		context: func(r *sealedRow, column string) string { return sealedAt("phones", column, r.owner) },
	},
	{
		name: "documents", key: "id", owner: "user_id",
		columns: []sealedTableColumn{{"doc_number", "doc_number_index", purposeDocNumber}},
		context: func(r *sealedRow, column string) string { return sealedAt("documents", column, r.owner) },
	},
	{
		name: "outbox", key: "id", label: "kind", columns: []sealedTableColumn{{name: "payload"}},
		context: func(r *sealedRow, _ string) string { return outboxContext(r.label) },
	},
	{
		name: "audit_blocks", key: "seq", proof: true, columns: []sealedTableColumn{{name: "seal"}, {name: "purge"}},
		context: func(r *sealedRow, column string) string {
			if column == "purge" {
				return auditPurgeContext(r.key)
			}
			return auditSealContext(r.key)
		},
	},
}

// Resealed says what Reseal did to one table.
type Resealed struct {
	Table   string
	Rows    int     // looked at
	Sealed  int     // rows of which a value was sealed anew
	Indexed int     // rows of which an index was made anew
	Failed  []int64 // keys of the rows that could not be opened, or whose index is another row's
	Err     error   // the first reason for those
}

// Reseal seals every sealed column anew that is not sealed under the newest key, and makes every blind index anew that
// is not of that key, in small transactions beside running servers. It may be interrupted and run again.
// A row that cannot be opened is left as it is, and reported. The database's Sealer must be a Resealer.
func (d *DB) Reseal(ctx context.Context) ([]Resealed, error) {
	box, ok := d.sealer.(Resealer)
	if !ok {
		return nil, errors.New("reseal: the sealer knows no newest key")
	}
	out := make([]Resealed, 0, len(sealedTables))
	for _, t := range sealedTables {
		r, err := d.resealTable(ctx, box, t)
		out = append(out, r)
		if err != nil {
			return out, fmt.Errorf("reseal %s: %w", t.name, err)
		}
	}
	return out, nil
}

func (d *DB) resealTable(ctx context.Context, box Resealer, t sealedTable) (Resealed, error) {
	total := Resealed{Table: t.name}
	single := 0 // rows still to be done one by one
	for after := int64(-1 << 62); ; {
		limit := resealBatch
		if single > 0 {
			limit = 1
		}
		var part Resealed
		var last int64
		err := d.Update(ctx, func(ctx context.Context, tx *Tx) error {
			part, last = Resealed{}, after // a lost race runs this again
			rows, err := tx.sealedRows(ctx, t, after, int64(limit), true)
			for i := range rows {
				last = rows[i].key
				if err := tx.resealRow(ctx, box, t, &rows[i], &part); err != nil {
					return err
				}
			}
			return err
		})
		if _, taken := errors.AsType[*ErrTaken](err); taken {
			// Two rows hold the same value, written under two index keys. Find them, and go on with the others.
			if limit > 1 {
				single = limit
				continue
			}
			part = Resealed{Rows: 1, Failed: []int64{last}, Err: err}
		} else if err != nil {
			return total, err
		}
		single = max(0, single-1)
		total.Rows, total.Sealed, total.Indexed = total.Rows+part.Rows, total.Sealed+part.Sealed, total.Indexed+part.Indexed
		total.Failed = append(total.Failed, part.Failed...)
		if total.Err == nil {
			total.Err = part.Err
		}
		if last == after {
			return total, nil
		}
		after = last
	}
}

// A sealedRow is one row's sealed values and indexes, in the order of the table's columns.
type sealedRow struct {
	key, owner int64
	label      string
	values     []sql.NullString
	indexes    []sql.NullString // as many; not valid where the column has no index
}

// sealedRows reads the rows whose key comes after the one given, by key. To be changed, they are locked.
func (q queries) sealedRows(ctx context.Context, t sealedTable, after, limit int64, lock bool) ([]sealedRow, error) {
	s := q.idb.NewSelect().Table(t.name).Column(t.key).Where("? > ?", bun.Ident(t.key), after).Order(t.key).Limit(limit)
	if t.only != "" {
		s = s.Where(t.only)
	}
	if lock && !q.db.sqlite {
		s = s.For("UPDATE")
	}
	return scanSealed(ctx, t, s)
}

func scanSealed(ctx context.Context, t sealedTable, s *bun.SelectQuery) ([]sealedRow, error) {
	for _, extra := range []string{t.owner, t.label} {
		if extra == "" {
			s = s.ColumnExpr("NULL")
		} else {
			s = s.Column(extra)
		}
	}
	for _, c := range t.columns {
		s = s.Column(c.name)
		if c.index == "" {
			s = s.ColumnExpr("NULL")
		} else {
			s = s.Column(c.index)
		}
	}
	rows, err := s.Rows(ctx)
	if err != nil {
		return nil, Translate(err)
	}
	defer rows.Close()
	var out []sealedRow
	for rows.Next() {
		r := sealedRow{values: make([]sql.NullString, len(t.columns)), indexes: make([]sql.NullString, len(t.columns))}
		var owner sql.NullInt64
		var label sql.NullString
		to := []any{&r.key, &owner, &label}
		for i := range t.columns {
			to = append(to, &r.values[i], &r.indexes[i])
		}
		if err := rows.Scan(to...); err != nil {
			return nil, err
		}
		r.owner, r.label = owner.Int64, label.String
		out = append(out, r)
	}
	return out, Translate(rows.Err())
}

func (tx *Tx) resealRow(ctx context.Context, box Resealer, t sealedTable, r *sealedRow, counts *Resealed) error {
	counts.Rows++
	up := tx.NewUpdate().Table(t.name).Where("? = ?", bun.Ident(t.key), r.key)
	sealed, indexed := false, false
	for i, c := range t.columns {
		if !r.values[i].Valid {
			continue
		}
		at := t.context(r, c.name)
		plain, err := box.Open(r.values[i].String, at)
		if err != nil {
			counts.Failed = append(counts.Failed, r.key)
			if counts.Err == nil {
				counts.Err = fmt.Errorf("%s: %w", c.name, err)
			}
			return nil // all of the row or nothing
		}
		if !box.Current(r.values[i].String) {
			up, sealed = up.Set("? = ?", bun.Ident(c.name), box.Seal(plain, at)), true
		}
		if c.index != "" {
			if index := blindIndex(box, string(plain), c.purpose); index != r.indexes[i].String {
				up, indexed = up.Set("? = ?", bun.Ident(c.index), index), true
			}
		}
	}
	if !sealed && !indexed {
		return nil
	}
	if _, err := up.Exec(ctx); err != nil {
		return Translate(err)
	}
	if sealed {
		counts.Sealed++
	}
	if indexed {
		counts.Indexed++
	}
	return nil
}

// VerifySeals opens the newest row of every table with sealed columns and compares its indexes. The error says that the
// Sealer lacks a key, or that an index is of a key that it lacks, so that Reseal must run before anything is looked up. The
// audit trail's seals are left to its own verification: every database has them, also one of which nothing else is sealed,
// whose key may have been lost with a container and mattered to nobody.
func (d *DB) VerifySeals(ctx context.Context) error {
	var errs []error
	for _, t := range sealedTables {
		if t.proof {
			continue
		}
		q := d.idb.NewSelect().Table(t.name).Column(t.key).OrderExpr("? DESC", bun.Ident(t.key)).Limit(1)
		rows, err := scanSealed(ctx, t, q)
		if err != nil {
			return fmt.Errorf("check sealed columns: %s: %w", t.name, err)
		}
		for i := range rows {
			errs = append(errs, d.verifyRow(t, &rows[i]))
		}
	}
	return errors.Join(errs...)
}

func (d *DB) verifyRow(t sealedTable, r *sealedRow) error {
	for i, c := range t.columns {
		if !r.values[i].Valid {
			continue
		}
		plain, err := d.sealer.Open(r.values[i].String, t.context(r, c.name))
		if err != nil {
			return fmt.Errorf("%s.%s cannot be opened: %w", t.name, c.name, err)
		}
		if c.index != "" && !indexFits(d.sealer, r.indexes[i].String, string(plain), c.purpose) {
			return fmt.Errorf("%s.%s was made with another index key; run \"barong secrets rotate\"", t.name, c.index)
		}
	}
	return nil
}

// SealedColumns lists what is sealed, as "table.column".
func SealedColumns() []string {
	var out []string
	for _, t := range sealedTables {
		for _, c := range t.columns {
			out = append(out, t.name+"."+c.name)
		}
	}
	slices.Sort(out)
	return out
}
