package db

import (
	"context"
	"errors"
	"slices"
	"strings"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// foldedIndex begins the index of a name that is found without regard to case. An index without it is of the name as it
// was spelled: older programs wrote those, and IndexNames makes them anew.
const foldedIndex = "n1."

// notFolded selects profiles whose indexes an older program wrote. The index profiles_not_folded has the same words.
const notFolded = "substr(first_name_index, 1, 3) <> 'n1.' OR substr(last_name_index, 1, 3) <> 'n1.'"

// blindIndex is the index of a value, in the form in which it is written.
func blindIndex(s Sealer, value, purpose string) string {
	if purpose == purposeFirstName || purpose == purposeLastName {
		return foldedIndex + s.Index(foldName(value), purpose)
	}
	return s.Index(value, purpose)
}

// indexFits reports whether a stored index is one of the value, of this program or an older one.
func indexFits(s Sealer, stored, value, purpose string) bool {
	if purpose == purposeFirstName || purpose == purposeLastName {
		return slices.Contains(nameIndexes(s, value, purpose), stored)
	}
	return slices.Contains(s.Indexes(value, purpose), stored)
}

// nameIndexes are the indexes under which a profile of that name may be found.
func nameIndexes(s Sealer, name, purpose string) []string {
	var out []string
	for _, index := range s.Indexes(foldName(name), purpose) {
		out = append(out, foldedIndex+index)
	}
	return append(out, s.Indexes(name, purpose)...)
}

// NameIndexes are the blind indexes of a profile's names, for programs that write rows by themselves.
func NameIndexes(s Sealer, first, last string) (firstIndex, lastIndex string) {
	return blindIndex(s, first, purposeFirstName), blindIndex(s, last, purposeLastName)
}

// foldName is what all spellings of a name have in common that differ in case, in how their characters are composed, in
// apostrophes, joiners and runs of white space.
func foldName(name string) string {
	name = norm.NFKC.String(cases.Fold().String(norm.NFKC.String(name)))
	name = strings.NewReplacer("\u2018", "'", "\u2019", "'", "\u200c", "", "\u200d", "").Replace(name)
	return strings.Join(strings.Fields(name), " ")
}

// IndexNames makes the indexes of names anew that an older program has written, in small transactions beside running
// servers, and returns how many profiles it mended. It may be interrupted and run again; while there is nothing to do it
// costs next to nothing. A profile that cannot be opened is left as it is. The database's Sealer must be a Resealer.
func (d *DB) IndexNames(ctx context.Context) (int, error) {
	box, ok := d.sealer.(Resealer)
	if !ok {
		return 0, errors.New("index names: the sealer knows no newest key")
	}
	i := slices.IndexFunc(sealedTables, func(t sealedTable) bool { return t.name == "profiles" })
	t := sealedTables[i]
	t.only = notFolded
	done, err := d.resealTable(ctx, box, t)
	return done.Indexed, errors.Join(err, done.Err)
}

// spellings are the ways to write a country's code that differ in case alone; of a text that is no code, the common ones.
func spellings(country string) []string {
	out := []string{country, strings.ToUpper(country), strings.ToLower(country)}
	if n := len(country); n > 0 && n <= 3 {
		for bits := range 1 << n {
			b := []byte(strings.ToLower(country))
			for i := range min(n, len(b)) {
				if bits&(1<<i) != 0 && 'a' <= b[i] && b[i] <= 'z' {
					b[i] -= 'a' - 'A'
				}
			}
			out = append(out, string(b))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// countries are the spellings of a country that profiles have. Most often it is one, and the counts of it are exact; a
// user may have profiles of several.
func (q queries) countries(ctx context.Context, country string) ([]string, error) {
	s := new(listQuery).add("SELECT v FROM (WITH k (v) AS (VALUES ")
	var rows [][]any
	for _, v := range spellings(country) {
		rows = append(rows, []any{v})
	}
	s.values(rows).add(") SELECT v FROM k) AS k WHERE EXISTS (SELECT 1 FROM profile_facts AS pr WHERE pr.country = k.v)")
	found := []string{}
	err := q.idb.NewRaw(s.text.String(), s.args...).Scan(ctx, &found)
	return found, Translate(err)
}
