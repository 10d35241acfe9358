package db

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/uptrace/bun"
)

// A UserFilter narrows a list of users. Every field that is set must fit; the profile fields must fit in one and the
// same profile. The zero filter fits everybody.
type UserFilter struct {
	UID, Email, Role, State *string // exact, but for the address, which is compared in its normal form
	Level                   *int64
	FirstName, LastName     *string // exact as stored, by blind index
	Country                 *string // exact as stored
	Updated                 bool    // From and To bound updated_at instead of created_at
	From, To                *int64  // Unix seconds, both inclusive
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

// user adds the conditions on the row of users, u.
func (f *UserFilter) user(s *listQuery) {
	if f.UID != nil {
		s.add(" AND u.uid = ?", *f.UID)
	}
	if f.Email != nil {
		s.add(" AND lower(u.email) = ?", NormalEmail(*f.Email))
	}
	f.kind(s, "u")
	f.during(s)
}

// during adds the bounds in time of users, u.
func (f *UserFilter) during(s *listQuery) {
	if f.From != nil {
		s.add(" AND u."+f.time()+" >= ?", unixTime(*f.From))
	}
	if f.To != nil {
		s.add(" AND u."+f.time()+" <= ?", unixTime(*f.To))
	}
}

// time is the column that From and To bound.
func (f *UserFilter) time() string {
	if f.Updated {
		return "updated_at"
	}
	return "created_at"
}

// among selects the ids of the users that fit among some thousands. Postgres walks the index of ids for them once, in
// order; left to itself it thinks that reading everybody is cheaper, and OFFSET keeps it from that.
func (f *UserFilter) among(q queries, s, ids *listQuery) {
	if q.db.sqlite || f.UID != nil || f.Email != nil {
		s.add("SELECT u.id FROM users AS u WHERE u.id IN ("+ids.text.String()+")", ids.args...)
	} else {
		s.add("SELECT u.id FROM (SELECT id, role, state, level, created_at, updated_at FROM users WHERE id = ANY (ARRAY("+
			ids.text.String()+")) OFFSET 0) AS u WHERE TRUE", ids.args...)
	}
	f.user(s)
}

// profile adds the conditions on a profile, pr.
func (f *UserFilter) profile(q queries, s *listQuery) {
	if f.FirstName != nil {
		s.add(" AND pr.first_name_index = ?", q.db.sealer.Index(*f.FirstName, purposeFirstName))
	}
	if f.LastName != nil {
		s.add(" AND pr.last_name_index = ?", q.db.sealer.Index(*f.LastName, purposeLastName))
	}
	if f.Country != nil {
		s.add(" AND pr.country = ?", *f.Country)
	}
}

// ofUser reports conditions on the row of users.
func (f *UserFilter) ofUser() bool {
	return f.UID != nil || f.Email != nil || f.Role != nil || f.State != nil || f.Level != nil || f.timed()
}

// counted reports that the counts of blocks know how many users fit: they know role, state and level, and besides either
// the country or the time.
func (f *UserFilter) counted() bool {
	return f.UID == nil && f.Email == nil && f.FirstName == nil && f.LastName == nil && (f.Country == nil || !f.timed())
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
		if f.counted() {
			return q.countedUsers(ctx, f, p)
		}
		s := new(listQuery)
		switch {
		case !f.profiled():
			s.add("SELECT u.id FROM users AS u WHERE TRUE")
			f.user(s)
		case !f.ofUser():
			s.add("SELECT DISTINCT pr.user_id AS id FROM profiles AS pr WHERE TRUE")
			f.profile(q, s)
		case f.FirstName == nil && f.LastName == nil: // many on both sides
			s.add("SELECT u.id FROM users AS u WHERE u.id IN (SELECT pr.user_id FROM profiles AS pr WHERE TRUE")
			f.profile(q, s)
			f.user(s.add(")"))
		default:
			of := new(listQuery).add("SELECT pr.user_id FROM profiles AS pr WHERE TRUE")
			f.profile(q, of)
			f.among(q, s, of)
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
		s.add("SELECT DISTINCT pr.user_id AS id FROM profiles AS pr")
		if byKind {
			s.add(" JOIN users AS u ON u.id = pr.user_id")
		}
		s.add(" WHERE pr.country = ? AND pr.user_id >= ? AND pr.user_id < ?", *f.Country, begin, end)
		f.kind(s, "u")
	case f.timed():
		s.add("SELECT u.id FROM users AS u WHERE u.id >= ? AND u.id < ?", begin, end)
		f.user(s)
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
	s := new(listQuery)
	s.add("SELECT t.block AS place, sum(t.count) AS count FROM user_tallies AS t WHERE")
	var edges [][2]*int64
	switch {
	case f.Country != nil:
		s.add(" t.facet = 'country' AND t.value = ?", *f.Country)
	case f.timed():
		facet := "created"
		if f.Updated {
			facet = "updated"
		}
		var first, last int64
		first, last, edges = weeks(f.From, f.To)
		s.add(" t.facet = ? AND t.value >= ? AND t.value <= ?", facet, weekText(first), weekText(last))
	default:
		s.add(" t.facet = '' AND t.value = ''")
	}
	f.kind(s, "t")
	s.add(" GROUP BY 1 HAVING sum(t.count) <> 0 ORDER BY 1")
	var blocks []part
	if err := q.idb.NewRaw(s.text.String(), s.args...).Scan(ctx, &blocks); err != nil {
		return nil, Translate(err)
	}
	for _, edge := range edges {
		cut := *f
		cut.From, cut.To = edge[0], edge[1]
		s := new(listQuery)
		s.add("SELECT u.id >> ? AS place, count(*) AS count FROM users AS u WHERE TRUE", blockBits)
		cut.user(s)
		var more []part
		if err := q.idb.NewRaw(s.add(" GROUP BY 1").text.String(), s.args...).Scan(ctx, &more); err != nil {
			return nil, Translate(err)
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

// weeks are the first and the last week that lie wholly between two bounds, of which nil is none, and what the bounds
// have besides. There is no whole week when the first is greater than the last.
func weeks(from, to *int64) (first, last int64, edges [][2]*int64) {
	first, last = 0, lastWeek
	if from != nil {
		at := min(max(*from, 0), lastSecond.Unix())
		first = min(max((at+weekSeconds-1)/weekSeconds, 1), lastWeek)
	}
	if to != nil {
		at := min(max(*to, -1), lastSecond.Unix())
		last = min((at+1)/weekSeconds, lastWeek) - 1
	}
	if first > last || first == lastWeek {
		return 1, 0, [][2]*int64{{from, to}}
	}
	if begin := first*weekSeconds - 1; from != nil && *from <= begin {
		edges = append(edges, [2]*int64{from, &begin})
	}
	if end := (last + 1) * weekSeconds; to != nil && *to >= end {
		edges = append(edges, [2]*int64{&end, to})
	}
	return first, last, edges
}

// FindPendingUsers is one page of the users that fit and whose documents wait for staff: the private label "document" is
// pending or replaced. Who waits longest, by the label's last change, comes first.
func (q queries) FindPendingUsers(ctx context.Context, f UserFilter, p Page) ([]User, int64, error) {
	// The same words as in the index labels_waiting, which holds no other label.
	const waiting = " l.scope = 'private' AND l.key = 'document' AND l.value IN ('pending', 'replaced')"
	return q.userPage(ctx, func(q queries) ([]int64, int64, error) {
		if !f.storable() {
			return nil, 0, nil
		}
		s := new(listQuery)
		if !f.ofUser() && !f.profiled() {
			var total int64
			if err := q.idb.NewRaw("SELECT count(*) FROM labels AS l WHERE"+waiting).Scan(ctx, &total); err != nil || p.beyond(total) {
				return nil, total, Translate(err)
			}
			s.add("SELECT l.user_id FROM labels AS l WHERE" + waiting)
			ids, err := q.walk(ctx, s, ordering{columns: []string{"l.updated_at", "l.user_id"}}, p, p.offset(), total)
			return ids, total, err
		}
		s.add("SELECT l.user_id AS id, l.updated_at FROM labels AS l WHERE" + waiting)
		if f.ofUser() {
			of := new(listQuery).add("SELECT l.user_id FROM labels AS l WHERE" + waiting)
			// With "IS TRUE" Postgres puts those who fit into a hash table, and does not look each label up by its user.
			f.among(q, s.add(" AND (l.user_id IN ("), of)
			s.add(")) IS TRUE")
		}
		if f.profiled() {
			s.add(" AND l.user_id IN (SELECT pr.user_id FROM profiles AS pr WHERE TRUE")
			f.profile(q, s)
			s.add(")")
		}
		return q.sortedAndCounted(ctx, s, ordering{columns: []string{"updated_at", "id"}}, p)
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
