package db

import (
	"context"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"barong/internal/email"

	"github.com/uptrace/bun"
)

// A UserFilter narrows a list of users. Every field that is set must fit; the profile fields must fit in one and the
// same profile. The zero filter fits everybody.
type UserFilter struct {
	UID, Email, Role, State *string // exact, but for the address, which is compared in its normal form
	Level                   *int64
	FirstName, LastName     *string // without regard to case, by blind index
	Country                 *string // without regard to case
	Updated                 bool    // From and To bound updated_at instead of created_at
	From, To                *int64  // Unix seconds, both inclusive

	countries []string // the spellings of Country that there are, when it is several
}

// storable reports whether the filter can be asked for at all; see storable.
func (f *UserFilter) storable() bool {
	for _, s := range []*string{f.UID, f.Email, f.Role, f.State, f.FirstName, f.LastName, f.Country} {
		if s != nil && !storable(*s) {
			return false
		}
	}
	return true
}

// timed reports bounds in time.
func (f *UserFilter) timed() bool { return f.From != nil || f.To != nil }

// profiled reports conditions on a profile.
func (f *UserFilter) profiled() bool {
	return f.FirstName != nil || f.LastName != nil || f.Country != nil
}

// kind adds conditions on role, state and level, in the columns of table.
func (f *UserFilter) kind(s *listQuery, table string) {
	if f.Role != nil {
		s.add(" AND "+table+".role = ?", *f.Role)
	}
	if f.State != nil {
		s.add(" AND "+table+".state = ?", *f.State)
	}
	if f.Level != nil {
		s.add(" AND "+table+".level = ?", *f.Level)
	}
}

// named reports that one user at most is meant.
func (f *UserFilter) named() bool { return f.UID != nil || f.Email != nil }

// name adds the conditions that name one user, u.
func (f *UserFilter) name(s *listQuery) {
	if f.UID != nil {
		s.add(" AND u.uid = ?", *f.UID)
	}
	if f.Email != nil {
		s.add(" AND lower(u.email) IN (?)", bun.List(email.Spellings(*f.Email)))
	}
}

// facts adds the conditions on what is known of a user beside their name: role, state, level and times, in the columns
// of table, which is that of users or a copy of them.
func (f *UserFilter) facts(s *listQuery, table string) {
	f.kind(s, table)
	if f.From != nil {
		s.add(" AND "+table+"."+f.time()+" >= ?", unixTime(*f.From))
	}
	if f.To != nil {
		s.add(" AND "+table+"."+f.time()+" <= ?", unixTime(*f.To))
	}
}

// time is the column that From and To bound.
func (f *UserFilter) time() string {
	if f.Updated {
		return "updated_at"
	}
	return "created_at"
}

// profile adds the conditions on a profile, pr.
func (f *UserFilter) profile(q queries, s *listQuery) {
	if f.FirstName != nil {
		s.add(" AND pr.first_name_index IN (?)", bun.List(nameIndexes(q.db.sealer, *f.FirstName, purposeFirstName)))
	}
	if f.LastName != nil {
		s.add(" AND pr.last_name_index IN (?)", bun.List(nameIndexes(q.db.sealer, *f.LastName, purposeLastName)))
	}
	switch {
	case f.countries != nil:
		s.add(" AND pr.country IN (?)", bun.List(f.countries))
	case f.Country != nil:
		s.add(" AND pr.country = ?", *f.Country)
	}
}

// owners selects the owners of the profiles that fit.
func (f *UserFilter) owners(q queries, s *listQuery) {
	f.profile(q, s.add("SELECT pr.user_id FROM profile_facts AS pr WHERE TRUE"))
}

// counted reports that the counts of blocks know how many users fit: they know role, state and level, and besides the
// country and the time. Of a country with several spellings they would count some users twice.
func (f *UserFilter) counted() bool {
	return !f.named() && f.FirstName == nil && f.LastName == nil && f.countries == nil
}

// spell puts the country in the spelling that profiles have.
func (f *UserFilter) spell(ctx context.Context, q queries) error {
	if f.Country == nil {
		return nil
	}
	found, err := q.countries(ctx, *f.Country)
	switch {
	case err != nil:
		return err
	case len(found) == 1:
		f.Country = &found[0]
	case len(found) > 1:
		f.countries = found
	}
	return nil
}

// unixTime is a time bound as both engines can compare it: seconds outside the years 1 to 9999 are cut to these.
func unixTime(seconds int64) time.Time {
	return time.Unix(min(max(seconds, firstSecond.Unix()), lastSecond.Unix()), 0).UTC()
}

// UsersByID are the users with these ids, by id.
func (q queries) UsersByID(ctx context.Context, ids ...int64) ([]User, error) {
	rows := []User{}
	if len(ids) == 0 {
		return rows, nil
	}
	err := q.idb.NewSelect().Model(&rows).Where("u.id IN (?)", bun.List(ids)).Order("u.id").Scan(ctx)
	return rows, Translate(err)
}

// UsersByUID are the users with these uids, by id.
func (q queries) UsersByUID(ctx context.Context, uids ...string) ([]User, error) {
	rows := []User{}
	if len(uids) == 0 {
		return rows, nil
	}
	err := q.idb.NewSelect().Model(&rows).Where("u.uid IN (?)", bun.List(uids)).Order("u.id").Scan(ctx)
	return rows, Translate(err)
}

// FindUsers is one page of the users that fit, by id, and how many fit in all.
func (q queries) FindUsers(ctx context.Context, f UserFilter, p Page) ([]User, int64, error) {
	return q.userPage(ctx, func(q queries) ([]int64, int64, error) {
		if !f.storable() {
			return nil, 0, nil
		}
		if err := f.spell(ctx, q); err != nil {
			return nil, 0, err
		}
		if f.counted() {
			return q.countedUsers(ctx, f, p)
		}
		s := new(listQuery)
		if f.named() {
			s.add("SELECT u.id FROM users AS u WHERE TRUE")
			f.name(s)
			f.facts(s, "u")
			if f.profiled() {
				f.owners(q, s.add(" AND u.id IN ("))
				s.add(")")
			}
		} else {
			s.add("SELECT DISTINCT pr.user_id AS id FROM profile_facts AS pr WHERE TRUE")
			f.profile(q, s)
			f.facts(s, "pr")
		}
		return q.sortedAndCounted(ctx, s, byID, p)
	})
}

var byID = ordering{columns: []string{"id"}}

// blockBits says how many ids a block of the counts has, as a power of two; the migrations know the same number.
const blockBits = 14

// countedUsers finds a page and the total by the counts of blocks.
func (q queries) countedUsers(ctx context.Context, f UserFilter, p Page) ([]int64, int64, error) {
	blocks, err := q.userBlocks(ctx, &f)
	if err != nil {
		return nil, 0, err
	}
	total := sum(blocks)
	if p.beyond(total) {
		return nil, total, nil
	}
	first, last, skip, rows := window(blocks, p)
	begin, end := first.Place<<blockBits, (last.Place+1)<<blockBits
	s := new(listQuery)
	byKind := f.Role != nil || f.State != nil || f.Level != nil
	switch {
	case f.Country != nil:
		s.add("SELECT DISTINCT pr.user_id AS id FROM profile_facts AS pr WHERE pr.country = ? AND pr.user_id >= ? AND pr.user_id < ?",
			*f.Country, begin, end)
		f.facts(s, "pr")
	case f.timed():
		s.add("SELECT u.id FROM users AS u WHERE u.id >= ? AND u.id < ?", begin, end)
		f.facts(s, "u")
	case f.Role != nil && f.State != nil && f.Level != nil || !byKind:
		s.add("SELECT u.id FROM users AS u WHERE u.id >= ? AND u.id < ?", begin, end)
		f.kind(s, "u")
		ids, err := q.walk(ctx, s, byID, p, skip, rows)
		return ids, total, err
	default:
		kinds, err := q.userKinds(ctx, &f, first.Place, last.Place)
		if err != nil || len(kinds) == 0 {
			return nil, total, err
		}
		s.add("SELECT u.id FROM (WITH kinds (role, state, level) AS (VALUES ").values(kinds).add(") SELECT * FROM kinds) AS k" +
			" CROSS JOIN users AS u WHERE u.role = k.role AND u.state = k.state AND u.level = k.level")
		s.add(" AND u.id >= ? AND u.id < ?", begin, end)
	}
	ids, err := q.sorted(ctx, s, byID, p, skip)
	return ids, total, err
}

// userKinds are the roles, states and levels that the users that fit have in some blocks.
func (q queries) userKinds(ctx context.Context, f *UserFilter, first, last int64) ([][]any, error) {
	s := new(listQuery)
	s.add("SELECT t.role, t.state, t.level FROM user_tallies AS t WHERE t.facet = '' AND t.value = '' AND t.block >= ? AND t.block <= ?",
		first, last)
	f.kind(s, "t")
	s.add(" GROUP BY 1, 2, 3 HAVING sum(t.count) <> 0")
	var kinds []struct {
		Role, State string
		Level       int64
	}
	if err := q.idb.NewRaw(s.text.String(), s.args...).Scan(ctx, &kinds); err != nil {
		return nil, Translate(err)
	}
	rows := make([][]any, len(kinds))
	for i, k := range kinds {
		rows[i] = []any{k.Role, k.State, k.Level}
	}
	return rows, nil
}

// userBlocks are the blocks that have users that fit, in order.
func (q queries) userBlocks(ctx context.Context, f *UserFilter) ([]part, error) {
	s := new(listQuery).add("SELECT t.block AS place, sum(t.count) AS count FROM user_tallies AS t WHERE")
	var edges []edge
	facet, prefix := "created", ""
	if f.Updated {
		facet = "updated"
	}
	switch {
	case f.timed():
		if f.Country != nil {
			facet, prefix = "country "+facet, *f.Country+"/"
		}
		var first, last int64
		first, last, edges = weeks(f.From, f.To)
		s.add(" t.facet = ? AND t.value >= ? AND t.value <= ?", facet, prefix+weekText(first), prefix+weekText(last))
		if f.Country != nil { // and none that begins with it
			s.add(" AND length(t.value) = ?", utf8.RuneCountInString(prefix)+len(weekText(first)))
		}
	case f.Country != nil:
		s.add(" t.facet = 'country' AND t.value = ?", *f.Country)
	default:
		s.add(" t.facet = '' AND t.value = ''")
	}
	f.kind(s, "t")
	s.add(" GROUP BY 1 HAVING sum(t.count) <> 0 ORDER BY 1")
	var blocks []part
	if err := q.idb.NewRaw(s.text.String(), s.args...).Scan(ctx, &blocks); err != nil {
		return nil, Translate(err)
	}
	for _, e := range edges {
		cut := *f
		cut.From, cut.To = e.from, e.to
		s := new(listQuery)
		if f.Country != nil {
			s.add("SELECT pr.user_id >> ? AS place, count(DISTINCT pr.user_id) AS count FROM profile_facts AS pr WHERE pr.country = ?",
				blockBits, *f.Country)
			cut.facts(s, "pr")
		} else {
			s.add("SELECT u.id >> ? AS place, count(*) AS count FROM users AS u WHERE TRUE", blockBits)
			cut.facts(s, "u")
		}
		var more []part
		if err := q.idb.NewRaw(s.add(" GROUP BY 1").text.String(), s.args...).Scan(ctx, &more); err != nil {
			return nil, Translate(err)
		}
		if e.over {
			for i := range more {
				more[i].Count = -more[i].Count
			}
		}
		blocks = merge(blocks, inOrder(more))
	}
	return blocks, nil
}

// merge adds parts to parts, both in order of their places.
func merge(a, b []part) []part {
	if len(b) == 0 {
		return a
	}
	out := make([]part, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0].Place < b[0].Place:
			out, a = append(out, a[0]), a[1:]
		case a[0].Place > b[0].Place:
			out, b = append(out, b[0]), b[1:]
		default:
			if n := a[0].Count + b[0].Count; n != 0 {
				out = append(out, part{a[0].Place, n})
			}
			a, b = a[1:], b[1:]
		}
	}
	return append(append(out, a...), b...)
}

// The weeks by which users are counted, since 1970. The first and the last number hold all before and after, too.
const (
	weekSeconds = 7 * 24 * 60 * 60
	lastWeek    = 9999
)

func weekText(n int64) string {
	text := strconv.FormatInt(n, 10)
	return "0000"[min(len(text), 4):] + text
}

// An edge is a span of time that is counted from the rows, and by which the whole weeks fall short, or go over. Nil is
// no bound.
type edge struct {
	from, to *int64
	over     bool
}

// weeks are the whole weeks, from first to last, that come closest to two bounds, of which nil is none, and by what they
// miss them: at each end half a week at most. There are none when the first is greater than the last.
func weeks(from, to *int64) (first, last int64, edges []edge) {
	// nearest is the number of the week that begins nearest to a second, but not of the first, which has no beginning.
	nearest := func(at int64) int64 {
		at = min(max(at, 0), lastSecond.Unix())
		return min(max((at+weekSeconds/2)/weekSeconds, 1), lastWeek)
	}
	first, last = 0, lastWeek
	if from != nil {
		first = nearest(*from)
	}
	if to != nil {
		last = nearest(min(*to, lastSecond.Unix())+1) - 1
	}
	if first > last {
		return 1, 0, []edge{{from: from, to: to}}
	}
	if from != nil {
		begin := first * weekSeconds
		if before := begin - 1; *from <= before {
			edges = append(edges, edge{from: from, to: &before})
		} else if before := *from - 1; begin <= before {
			edges = append(edges, edge{from: &begin, to: &before, over: true})
		}
	}
	if to != nil {
		end := (last+1)*weekSeconds - 1
		if after := end + 1; after <= *to {
			edges = append(edges, edge{from: &after, to: to})
		} else if *to < end {
			after := *to + 1
			edges = append(edges, edge{from: &after, to: &end, over: true})
		}
	}
	return first, last, edges
}

// FindPendingUsers is one page of the users that fit and whose documents wait for staff: the private label "document" is
// pending or replaced. Who waits longest, by the label's last change, comes first.
func (q queries) FindPendingUsers(ctx context.Context, f UserFilter, p Page) ([]User, int64, error) {
	return q.userPage(ctx, func(q queries) ([]int64, int64, error) {
		if !f.storable() {
			return nil, 0, nil
		}
		if err := f.spell(ctx, q); err != nil {
			return nil, 0, err
		}
		if !f.named() && !f.profiled() {
			s := new(listQuery).add(" FROM document_queue AS q WHERE TRUE")
			f.facts(s, "q")
			var total int64
			if err := q.idb.NewRaw("SELECT count(*)"+s.text.String(), s.args...).Scan(ctx, &total); err != nil || p.beyond(total) {
				return nil, total, Translate(err)
			}
			from := new(listQuery).add("SELECT q.user_id"+s.text.String(), s.args...)
			ids, err := q.walk(ctx, from, ordering{columns: []string{"q.since", "q.user_id"}}, p, p.offset(), total)
			return ids, total, err
		}
		s := new(listQuery).add("SELECT q.user_id AS id, q.since FROM document_queue AS q WHERE TRUE")
		f.facts(s, "q")
		if f.named() {
			f.name(s.add(" AND q.user_id IN (SELECT u.id FROM users AS u WHERE TRUE"))
			s.add(")")
		}
		if f.profiled() {
			f.owners(q, s.add(" AND q.user_id IN ("))
			s.add(")")
		}
		return q.sortedAndCounted(ctx, s, ordering{columns: []string{"since", "id"}}, p)
	})
}

// FindUsersByLabel is one page of the users who have such a label, in any scope unless one is given, by id, and how
// many there are in all.
func (q queries) FindUsersByLabel(ctx context.Context, key, value string, scope *string, p Page) ([]User, int64, error) {
	return q.userPage(ctx, func(q queries) ([]int64, int64, error) {
		counted, scopes := "*", []string{"private", "public"} // who has it in both is one user
		if scope != nil {
			counted, scopes = *scope, []string{*scope}
		}
		if !storable(key, value, counted) || scope != nil && counted == "*" {
			return nil, 0, nil
		}
		var blocks []part
		err := q.idb.NewRaw("SELECT block AS place, sum(count) AS count FROM label_tallies WHERE key = ? AND value = ?"+
			" AND scope = ? GROUP BY 1 HAVING sum(count) <> 0 ORDER BY 1", key, value, counted).Scan(ctx, &blocks)
		if err != nil {
			return nil, 0, Translate(err)
		}
		total := sum(blocks)
		if p.beyond(total) {
			return nil, total, nil
		}
		first, last, skip, _ := window(blocks, p)
		s := new(listQuery).add("SELECT DISTINCT l.user_id AS id FROM labels AS l WHERE l.key = ? AND l.value = ? AND l.scope IN (?)"+
			" AND l.user_id >= ? AND l.user_id < ?", key, value, bun.List(scopes), first.Place<<blockBits, (last.Place+1)<<blockBits)
		ids, err := q.sorted(ctx, s, byID, p, skip)
		return ids, total, err
	})
}

// A LabelFilter names labels. Fields that are nil do not narrow it.
type LabelFilter struct {
	Key          string
	Value, Scope *string
	Updated      bool   // From and To bound the last change, else the creation
	From, To     *int64 // Unix seconds, both inclusive
}

// FindUsersOfLabels is one page of the users of the labels that fit, by id and once for each of their labels, and how many
// labels there are in all.
func (q queries) FindUsersOfLabels(ctx context.Context, f LabelFilter, p Page) ([]User, int64, error) {
	return q.userPage(ctx, func(q queries) ([]int64, int64, error) {
		s := new(listQuery).add("SELECT l.user_id AS id, l.id AS label FROM labels AS l WHERE l.key = ?", f.Key)
		texts := []string{f.Key}
		for _, c := range []struct {
			column string
			text   *string
		}{{"value", f.Value}, {"scope", f.Scope}} {
			if c.text != nil {
				s.add(" AND l."+c.column+" = ?", *c.text)
				texts = append(texts, *c.text)
			}
		}
		if !storable(texts...) {
			return nil, 0, nil
		}
		times := UserFilter{Updated: f.Updated, From: f.From, To: f.To}
		times.facts(s, "l")
		return q.sortedAndCounted(ctx, s, ordering{columns: []string{"id", "label"}}, p)
	})
}

// userPage reads the users whose ids find returns, in its order, and passes its total on.
func (q queries) userPage(ctx context.Context, find func(queries) ([]int64, int64, error)) ([]User, int64, error) {
	rows := []User{}
	var total int64
	err := q.snapshot(ctx, func(q queries) error {
		ids, n, err := find(q)
		if err != nil {
			return err
		}
		total = n
		found, err := q.UsersByID(ctx, ids...)
		if err != nil {
			return err
		}
		for _, id := range ids {
			i, ok := slices.BinarySearchFunc(found, id, func(u User, id int64) int { return int(u.ID - id) })
			if ok {
				rows = append(rows, found[i])
			}
		}
		return nil
	})
	return rows, total, err
}

// A LabelCount says how many users have a private label.
type LabelCount struct {
	Key, Value string
	Count      int64
}

// LabelCounts counts the private labels by key and value, in the order of these.
func (q queries) LabelCounts(ctx context.Context) ([]LabelCount, error) {
	rows := []LabelCount{}
	err := q.idb.NewRaw("SELECT key, value, sum(count) AS count FROM label_tallies WHERE scope = 'private'"+
		" GROUP BY key, value HAVING sum(count) <> 0 ORDER BY key, value").Scan(ctx, &rows)
	return rows, Translate(err)
}
