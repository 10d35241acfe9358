package importer

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/bits"
	"slices"
	"text/tabwriter"

	"barong/db"
)

// A Comparison tells how far a database holds what a source holds.
type Comparison struct {
	SchemaVersion string                      `json:"schema_version"`
	Tables        map[string]*TableComparison `json:"tables"`
	Same          bool                        `json:"equal"`
}

// A TableComparison compares a table, without the rows that were made, changed or deleted here. The digests are keyed for one
// comparison: they say that both sides are equal, and nothing else.
type TableComparison struct {
	Source       int64   `json:"source"`
	Target       int64   `json:"target"`
	SourceDigest string  `json:"source_digest"`
	TargetDigest string  `json:"target_digest"`
	Equal        bool    `json:"equal"`
	Missing      []int64 `json:"missing"`   // ids that the source alone has
	Extra        []int64 `json:"extra"`     // ids that the database alone has
	Different    []int64 `json:"different"` // ids whose rows are not the same
	ChangedHere  int64   `json:"changed_here"`
	MadeHere     int64   `json:"made_here"`
}

// Equal reports whether nothing differs.
func (c *Comparison) Equal() bool { return c.Same }

// WriteJSON writes the comparison as one JSON object.
func (c *Comparison) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(c)
}

// WriteText writes the comparison for people to read.
func (c *Comparison) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TABLE\tSOURCE\tHERE\tDIGEST\tCHANGED HERE\tMADE HERE")
	names := append(slices.Clone(tables), totpKeys)
	for _, name := range names {
		if n := c.Tables[name]; n != nil {
			digest := n.SourceDigest + " on both sides"
			if !n.Equal {
				digest = n.SourceDigest + " and " + n.TargetDigest
			}
			fmt.Fprintf(t, "%s\t%d\t%d\t%s\t%d\t%d\n", name, n.Source, n.Target, digest, n.ChangedHere, n.MadeHere)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, name := range names {
		n := c.Tables[name]
		if n == nil || n.Equal {
			continue
		}
		for _, ids := range []struct {
			what string
			list []int64
		}{{"missing here", n.Missing}, {"here alone", n.Extra}, {"different", n.Different}} {
			if len(ids.list) > 0 {
				shown := ids.list[:min(len(ids.list), 20)]
				fmt.Fprintf(w, "%s, %s: ids %s\n", name, ids.what, list(shown, int64(len(ids.list))))
			}
		}
	}
	if c.Same {
		_, err := fmt.Fprintln(w, "The database holds what the source holds.")
		return err
	}
	_, err := fmt.Fprintln(w, "The database differs from the source: run the import again. What still differs then was written by another program.")
	return err
}

// A sum is the sum of rows' digests and their number; the order of rows makes no difference.
type sum struct {
	n      int64
	hi, lo uint64
}

func (s *sum) add(digest [16]byte) {
	var carry uint64
	s.lo, carry = bits.Add64(s.lo, binary.BigEndian.Uint64(digest[8:]), 0)
	s.hi, _ = bits.Add64(s.hi, binary.BigEndian.Uint64(digest[:8]), carry)
	s.n++
}

// blockBits tells how many ids are summed up together: where two sums differ, that many rows are compared one by one.
const blockBits = 14

// maxBlocks and maxIDs bound what is compared one by one, and named.
const (
	maxBlocks = 64
	maxIDs    = 1000
)

type sums map[int64]*sum

func (b sums) add(id int64, digest [16]byte) {
	at := b[id>>blockBits]
	if at == nil {
		at = new(sum)
		b[id>>blockBits] = at
	}
	at.add(digest)
}

func (b sums) total() (n int64, digest string) {
	var all sum
	for _, s := range b {
		var carry uint64
		all.lo, carry = bits.Add64(all.lo, s.lo, 0)
		all.hi, _ = bits.Add64(all.hi, s.hi, carry)
		all.n += s.n
	}
	return all.n, fmt.Sprintf("%016x%016x", all.hi, all.lo)
}

// A comparer sums up what the rows of a source become, and what a database holds.
type comparer struct {
	d       *db.DB
	key     []byte
	through int64
	result  *Comparison

	table string
	aside map[string]map[int64]bool // ids that were changed or deleted here, by table
	here  sums
	there map[string]sums // of the source, by table
	blind map[int64]bool  // API keys whose secret the source does not tell
	known map[int64]bool  // users whose second factor the source tells

	only map[int64]bool                // in the second turn: blocks that are compared row by row
	rows map[string]map[int64][16]byte // of the source, by table
}

// ErrNothing says that a database was never imported into.
var ErrNothing = errors.New("nothing was imported into this database yet: import first, or see that BARONG_DATABASE_URL names the right one")

// Verify compares a database with the source: what an import would write with what is there.
func (s *Source) Verify(ctx context.Context, d *db.DB) (*Comparison, error) {
	c := &comparer{d: d, key: make([]byte, 32), result: &Comparison{SchemaVersion: s.report.SchemaVersion, Tables: map[string]*TableComparison{}, Same: true}}
	rand.Read(c.key)
	last, err := d.LastImport(ctx)
	switch {
	case err == nil:
		c.through = last.ActivitiesThrough
	case errors.Is(err, db.ErrNotFound):
		return nil, ErrNothing
	default:
		return nil, err
	}
	for _, table := range tables {
		c.only, c.rows = nil, nil
		if err := s.walkTable(ctx, table, c, true, map[string]int64{}); err != nil {
			return nil, fmt.Errorf("%s: %w", sourceName(s.o.Source), err)
		}
		names := []string{table}
		if table == users {
			names = append(names, totpKeys)
		}
		for _, name := range names {
			differing, err := c.compare(ctx, name)
			if err != nil {
				return nil, err
			}
			if len(differing) == 0 {
				continue
			}
			c.only, c.rows = differing, map[string]map[int64][16]byte{}
			if err := s.walkTable(ctx, table, c, true, map[string]int64{}); err != nil {
				return nil, fmt.Errorf("%s: %w", sourceName(s.o.Source), err)
			}
			if err := c.name(ctx, name); err != nil {
				return nil, err
			}
			c.only = nil
		}
	}
	return c.result, nil
}

func (c *comparer) begin(ctx context.Context, table string) (bool, error) {
	c.table = table
	if c.only != nil { // the second turn
		return false, nil
	}
	c.there, c.aside, c.blind, c.known = map[string]sums{}, map[string]map[int64]bool{}, map[int64]bool{}, map[int64]bool{}
	names := []string{table}
	if table == users {
		names = append(names, totpKeys)
	}
	for _, name := range names {
		c.there[name], c.aside[name] = sums{}, map[int64]bool{}
		if name == activities {
			continue
		}
		edited, err := c.d.EditedHere(ctx, name)
		if err != nil {
			return false, err
		}
		removed, err := c.d.RemovedHere(ctx, name)
		if err != nil {
			return false, err
		}
		for _, id := range append(edited, removed...) {
			c.aside[name][id] = true
		}
	}
	return false, nil
}

func (c *comparer) preview(db.Importable)        {}
func (c *comparer) settle(context.Context) error { return nil }
func (c *comparer) end(context.Context) error    { return nil }

func (c *comparer) put(_ context.Context, r db.Importable) error {
	name, id := db.ImportTable(r), r.ImportKey()
	if c.aside[name][id] {
		return nil
	}
	switch r := r.(type) {
	case *db.APIKey:
		if r.Secret == "" {
			c.blind[id] = true
			r.Secret, r.State = noSecret, noSecret
		}
	case *db.TOTPKey:
		c.known[id] = true
	}
	switch digest := db.ImportDigest(r, c.key); {
	case c.only == nil:
		c.there[name].add(id, digest)
	case c.only[id>>blockBits]:
		if c.rows[name] == nil {
			c.rows[name] = map[int64][16]byte{}
		}
		c.rows[name][id] = digest
	}
	return nil
}

// each calls f with the digest of each row of a table of the database that is to be compared.
func (c *comparer) each(ctx context.Context, name string, f func(id int64, digest [16]byte)) (made int64, err error) {
	mine := map[int64]bool{}
	if name != activities {
		ids, err := c.d.MadeHereIDs(ctx, name)
		if err != nil {
			return 0, err
		}
		for _, id := range ids {
			mine[id] = true
		}
	}
	err = c.d.EachImportable(ctx, name, func(r db.Importable) error {
		id := r.ImportKey()
		switch r := r.(type) {
		case *db.Activity:
			if id > c.through {
				made++
				return nil
			}
			r.Count = 1 // later refusals are folded into older ones
		case *db.APIKey:
			if c.blind[id] {
				r.Secret, r.State = noSecret, noSecret
			}
		case *db.TOTPKey:
			if !c.known[id] {
				return nil
			}
		}
		if mine[id] {
			made++
			return nil
		}
		if !c.aside[name][id] {
			f(id, db.ImportDigest(r, c.key))
		}
		return nil
	})
	return made, err
}

// compare compares the sums of a table and returns some of the blocks that differ.
func (c *comparer) compare(ctx context.Context, name string) (map[int64]bool, error) {
	c.here = sums{}
	made, err := c.each(ctx, name, c.here.add)
	if err != nil {
		return nil, err
	}
	t := &TableComparison{ChangedHere: int64(len(c.aside[name])), MadeHere: made, Missing: []int64{}, Extra: []int64{}, Different: []int64{}}
	t.Source, t.SourceDigest = c.there[name].total()
	t.Target, t.TargetDigest = c.here.total()
	c.result.Tables[name] = t
	differing := map[int64]bool{}
	for _, both := range []sums{c.there[name], c.here} {
		for block := range both {
			a, b := c.there[name][block], c.here[block]
			if (a == nil || b == nil || *a != *b) && len(differing) < maxBlocks {
				differing[block] = true
			}
		}
	}
	t.Equal = len(differing) == 0
	c.result.Same = c.result.Same && t.Equal
	return differing, nil
}

// name finds the rows that differ, in the blocks that do.
func (c *comparer) name(ctx context.Context, name string) error {
	t, source := c.result.Tables[name], c.rows[name]
	if source == nil {
		source = map[int64][16]byte{}
	}
	_, err := c.each(ctx, name, func(id int64, digest [16]byte) {
		if !c.only[id>>blockBits] {
			return
		}
		want, ok := source[id]
		delete(source, id)
		switch {
		case !ok && len(t.Extra) < maxIDs:
			t.Extra = append(t.Extra, id)
		case ok && want != digest && len(t.Different) < maxIDs:
			t.Different = append(t.Different, id)
		}
	})
	t.Missing = append(t.Missing, slices.Sorted(maps.Keys(source))...)
	t.Missing = t.Missing[:min(len(t.Missing), maxIDs)]
	return err
}
