package db

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"barong/internal/email"

	"github.com/uptrace/bun"
)

// Categories of activities: what people do with their own accounts, and what passes, or is refused by, the check.
const (
	CategoryUser  = "user"
	CategoryAdmin = "admin"
)

// Results of activities.
const (
	ResultSucceed = "succeed"
	ResultFailed  = "failed"
	ResultDenied  = "denied"
)

// An ActivityFilter picks activities. Nil and zero fields pick all; the others must hold together. Texts are compared
// exactly, but for the address, which is compared in its normal form.
type ActivityFilter struct {
	Category   string // CategoryUser or CategoryAdmin; empty for both
	UserID     int64  // of who acted
	UID, Email *string
	TargetUID  *string
	Topic      *string
	Action     *string
	Result     *string
	From, To   *int64 // Unix seconds of the creation, both inclusive
}

// The widest bounds in time: texts of years with four digits are what SQLite can compare.
var (
	firstSecond = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)
	lastSecond  = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

// bounds are the first and last second of the filter.
func (f *ActivityFilter) bounds() (from, to time.Time) {
	from, to = firstSecond, lastSecond
	if f.From != nil {
		from = time.Unix(min(max(*f.From, from.Unix()), to.Unix()), 0).UTC()
	}
	if f.To != nil {
		to = time.Unix(min(max(*f.To, firstSecond.Unix()), to.Unix()), 0).UTC()
	}
	return from, to
}

// between is the filter with other bounds.
func (f ActivityFilter) between(from, to time.Time) ActivityFilter {
	first, last := from.Unix(), to.Unix()
	f.From, f.To = &first, &last
	return f
}

// resolve turns the actor's uid and address into an id, and reports false when there is no such user.
func (f *ActivityFilter) resolve(ctx context.Context, q queries) (bool, error) {
	if f.UID == nil && f.Email == nil {
		return true, nil
	}
	sel := q.idb.NewSelect().Model((*User)(nil)).Column("id").Limit(1)
	if f.UID != nil {
		sel = sel.Where("uid = ?", *f.UID)
	}
	if f.Email != nil {
		sel = sel.Where("lower(email) IN (?)", bun.List(email.Spellings(*f.Email)))
	}
	if f.UserID != 0 {
		sel = sel.Where("id = ?", f.UserID)
	}
	err := Translate(sel.Scan(ctx, &f.UserID))
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	f.UID, f.Email = nil, nil
	return err == nil, err
}

// storable reports whether the filter can be asked for at all; see storable.
func (f *ActivityFilter) storable() bool {
	for _, s := range []*string{f.UID, f.Email, f.TargetUID, f.Topic, f.Action, f.Result} {
		if s != nil && !storable(*s) {
			return false
		}
	}
	return storable(f.Category)
}

// Indexes of activities, by the columns that find rows; each ends with the time and the id, which order every list.
var (
	byUser   = []string{"user_id", "created_at"}
	byTarget = []string{"target_uid", "created_at"}
	byDenial = []string{"result", "category", "created_at"}
	byKind   = []string{"category", "topic", "action", "result", "created_at"}
	byTime   = []string{"category", "created_at"}
	newest   = ordering{columns: []string{"created_at", "id"}, descending: true}
)

// index names the columns of the index that delivers the rows in order. SQLite has no statistics by itself, and would
// take the index with the most columns in the filter: all the rows of a topic, say, for those of one user.
func (f *ActivityFilter) index() []string {
	switch {
	case f.UserID != 0:
		return byUser
	case f.TargetUID != nil:
		return byTarget
	case f.Category != "" && f.Topic != nil && f.Action != nil && f.Result != nil:
		return byKind
	case f.Result != nil && *f.Result == ResultDenied:
		return byDenial
	}
	return byTime
}

// where adds the filter's conditions; columns outside of index are kept from choosing another.
func (f *ActivityFilter) where(q queries, s *listQuery, index []string) *listQuery {
	s.add(" WHERE TRUE")
	condition := func(column, operator string, value any) {
		hint := ""
		if q.db.sqlite && !slices.Contains(index, column) {
			hint = "+" // the engine's way to say "not by an index"
		}
		s.add(" AND "+hint+column+" "+operator+" ?", value)
	}
	if f.UserID != 0 {
		condition("user_id", "=", f.UserID)
	}
	if f.Category != "" {
		condition("category", "=", f.Category)
	}
	for _, c := range [...]struct {
		column string
		value  *string
	}{{"target_uid", f.TargetUID}, {"topic", f.Topic}, {"action", f.Action}, {"result", f.Result}} {
		if c.value != nil {
			condition(c.column, "=", *c.value)
		}
	}
	from, to := f.bounds()
	if f.From != nil {
		condition("created_at", ">=", from)
	}
	if f.To != nil {
		condition("created_at", "<=", to)
	}
	return s
}

// Activities is one page of the activities that f picks, newest first, and exactly how many it picks in all.
func (q queries) Activities(ctx context.Context, f ActivityFilter, p Page) ([]Activity, int64, error) {
	rows := []Activity{}
	var total int64
	err := q.snapshot(ctx, func(q queries) error {
		if !f.storable() {
			return nil
		}
		if ok, err := f.resolve(ctx, q); err != nil || !ok {
			return err
		}
		var ids []int64
		var err error
		if f.UserID != 0 || f.TargetUID != nil {
			ids, total, err = q.activitiesOf(ctx, f, p)
		} else {
			ids, total, err = q.countedActivities(ctx, f, p)
		}
		if err != nil || len(ids) == 0 {
			return err
		}
		// Rows of their own query, so that a far page does not read the rows of all pages before it.
		return Translate(q.idb.NewSelect().Model(&rows).Where("id IN (?)", bun.List(ids)).Order("created_at DESC", "id DESC").Scan(ctx))
	})
	return rows, total, err
}

// activitiesOf finds a page of what one user did, or of what was done to one.
func (q queries) activitiesOf(ctx context.Context, f ActivityFilter, p Page) ([]int64, int64, error) {
	total, err := q.countRows(ctx, f)
	if err != nil || p.beyond(total) {
		return nil, total, err
	}
	s := new(listQuery).add("SELECT id FROM activities")
	ids, err := q.walk(ctx, f.where(q, s, f.index()), newest, p, p.offset(), total)
	return ids, total, err
}

// countedActivities finds a page and the total by the counts of days.
func (q queries) countedActivities(ctx context.Context, f ActivityFilter, p Page) ([]int64, int64, error) {
	days, err := q.activityDays(ctx, f)
	if err != nil {
		return nil, 0, err
	}
	total := sum(days)
	if p.beyond(total) {
		return nil, total, nil
	}
	slices.Reverse(days)
	first, last, skip, rows := window(days, p)
	from, to := f.bounds()
	begin, end := time.Unix(last.Place*daySeconds, 0), time.Unix((first.Place+1)*daySeconds-1, 0)
	if begin.After(from) {
		from = begin
	}
	if end.Before(to) {
		to = end
	}
	within := f.between(from.UTC(), to.UTC())
	if ordered := f.Topic == nil && f.Action == nil && (f.Result == nil || *f.Result == ResultDenied) ||
		f.Topic != nil && f.Action != nil && f.Result != nil; ordered && f.Category != "" {
		s := new(listQuery).add("SELECT id FROM activities")
		ids, err := q.walk(ctx, within.where(q, s, within.index()), newest, p, skip, rows)
		return ids, total, err
	}
	s, err := q.ofKinds(ctx, within, "id, created_at")
	if err != nil {
		return nil, total, err
	}
	ids, err := q.sorted(ctx, s, newest, p, skip)
	return ids, total, err
}

// ofKinds selects columns of the activities that f picks, which has bounds in time, by the index of kinds: the counts say
// which of them there are. What was denied has an index of its own, for it has more kinds than the counts tell apart.
func (q queries) ofKinds(ctx context.Context, f ActivityFilter, columns string) (*listQuery, error) {
	from, to := f.bounds()
	var kinds []struct{ Category, Topic, Action, Result string }
	if f.Result == nil || *f.Result != ResultDenied {
		k := new(listQuery).add("SELECT category, topic, action, result FROM activity_tallies WHERE result <> 'denied'")
		f.whereDays(k, from, to)
		k.add(" GROUP BY 1, 2, 3, 4 HAVING sum(count) <> 0")
		if err := q.idb.NewRaw(k.text.String(), k.args...).Scan(ctx, &kinds); err != nil {
			return nil, Translate(err)
		}
	}
	s := new(listQuery)
	if len(kinds) > 0 {
		rows := make([][]any, len(kinds))
		for i, k := range kinds {
			rows[i] = []any{k.Category, k.Topic, k.Action, k.Result}
		}
		s.add("SELECT "+columns+" FROM (WITH kinds (k1, k2, k3, k4) AS (VALUES ").values(rows).
			add(") SELECT * FROM kinds) AS k CROSS JOIN activities WHERE category = k1 AND topic = k2 AND action = k3 AND result = k4"+
				" AND created_at >= ? AND created_at <= ?", from, to)
	}
	if f.Result == nil || *f.Result == ResultDenied {
		if len(kinds) > 0 {
			s.add(" UNION ALL ")
		}
		result := ResultDenied
		f.Result = &result
		return f.where(q, s.add("SELECT "+columns+" FROM activities"), byDenial), nil
	}
	if len(kinds) == 0 {
		return s.add("SELECT " + columns + " FROM activities WHERE FALSE"), nil
	}
	return s, nil
}

// day is the length of one: UTC has no others.
const (
	day        = 24 * time.Hour
	daySeconds = 24 * 60 * 60
)

// activityDays counts what f picks by days since 1970, in their order; days without any are absent. Most comes from the
// counts by day. What a bound cuts off a day, and a topic or action of what was denied, is counted from the rows.
func (q queries) activityDays(ctx context.Context, f ActivityFilter) ([]part, error) {
	from, to := f.bounds()
	if to.Before(from) {
		return nil, nil
	}
	first, last := from.Truncate(day), to.Add(time.Second).Truncate(day).Add(-day) // the whole days
	if first.Before(from) {
		first = first.Add(day)
	}
	var days []part
	if last.Before(first) {
		return q.countRowsByDay(ctx, f)
	}
	s := new(listQuery).add("SELECT day, sum(count) AS count FROM activity_tallies WHERE TRUE")
	f.whereDays(s, first, last)
	fine := f.Topic != nil || f.Action != nil // finer than the counts of what was denied
	if fine {
		s.add(" AND result <> 'denied'")
	}
	var counts []struct {
		Day   string
		Count int64
	}
	s.add(" GROUP BY day HAVING sum(count) <> 0 ORDER BY day")
	if err := q.idb.NewRaw(s.text.String(), s.args...).Scan(ctx, &counts); err != nil {
		return nil, Translate(err)
	}
	for _, c := range counts {
		at, err := time.Parse(time.DateOnly, c.Day)
		if err != nil {
			return nil, fmt.Errorf("day %q: %w", c.Day, err)
		}
		days = append(days, part{at.Unix() / daySeconds, c.Count})
	}
	if fine && (f.Result == nil || *f.Result == ResultDenied) {
		denied, result := f.between(first, last.Add(day-time.Second)), ResultDenied
		denied.Result = &result
		more, err := q.countRowsByDay(ctx, denied)
		if err != nil {
			return nil, err
		}
		days = merge(days, more)
	}
	for _, edge := range [...][2]time.Time{{from, first.Add(-time.Second)}, {last.Add(day), to}} {
		if edge[1].Before(edge[0]) {
			continue
		}
		more, err := q.countRowsByDay(ctx, f.between(edge[0], edge[1]))
		if err != nil {
			return nil, err
		}
		days = merge(days, more)
	}
	return days, nil
}

// countRowsByDay is activityDays from the rows alone, for filters that pick few.
func (q queries) countRowsByDay(ctx context.Context, f ActivityFilter) ([]part, error) {
	s, err := q.ofKinds(ctx, f, "created_at")
	if err != nil {
		return nil, err
	}
	place := "(created_at AT TIME ZONE 'UTC')::date - DATE '1970-01-01'"
	if q.db.sqlite { // a Julian day begins at noon
		place = "CAST(julianday(substr(created_at, 1, 10)) - 2440587.5 AS INTEGER)"
	}
	var days []part
	err = q.idb.NewRaw("SELECT "+place+" AS place, count(*) AS count FROM ("+s.text.String()+") AS a GROUP BY 1", s.args...).Scan(ctx, &days)
	return inOrder(days), Translate(err)
}

func (q queries) countRows(ctx context.Context, f ActivityFilter) (int64, error) {
	var n int64
	s := f.where(q, new(listQuery).add("SELECT count(*) FROM activities"), f.index())
	err := q.idb.NewRaw(s.text.String(), s.args...).Scan(ctx, &n)
	return n, Translate(err)
}

// whereDays picks the counts of the days from first to last. A topic or action is not known of what was denied.
func (f *ActivityFilter) whereDays(s *listQuery, first, last time.Time) {
	for _, c := range [...]struct {
		column string
		value  *string
	}{{"topic", f.Topic}, {"action", f.Action}, {"result", f.Result}} {
		if c.value != nil {
			s.add(" AND "+c.column+" = ?", *c.value)
		}
	}
	if f.Category != "" {
		s.add(" AND category = ?", f.Category)
	}
	if f.From != nil {
		s.add(" AND day >= ?", first.Format(time.DateOnly))
	}
	if f.To != nil {
		s.add(" AND day <= ?", last.Format(time.DateOnly))
	}
}

// LatestActivities are a user's activities since a time, newest first, at most limit.
func (q queries) LatestActivities(ctx context.Context, userID int64, since time.Time, limit int64) ([]Activity, error) {
	var rows []Activity
	err := q.idb.NewSelect().Model(&rows).Where("user_id = ?", userID).Where("created_at > ?", since.UTC()).
		Order("created_at DESC", "id DESC").Limit(limit).Scan(ctx)
	return rows, Translate(err)
}

// AddToActivities adds to the counts of rows, by id: refusals like them that were not given rows of their own.
func (tx *Tx) AddToActivities(ctx context.Context, more map[int64]int) error {
	const most = 500 // rows of one statement; each replica counts at rows that it wrote itself, so that none waits for another
	for ids := range slices.Chunk(slices.Sorted(maps.Keys(more)), most) {
		query := strings.Repeat(", (CAST(? AS bigint), CAST(? AS bigint))", len(ids))[2:]
		args := make([]any, 0, 2*len(ids))
		for _, id := range ids {
			args = append(args, id, more[id])
		}
		_, err := tx.NewRaw("UPDATE activities SET count = count + v.column2 FROM (VALUES "+query+") AS v WHERE activities.id = v.column1",
			args...).Exec(ctx)
		if err != nil {
			return fmt.Errorf("count activities: %w", Translate(err))
		}
	}
	return nil
}

// Metrics are the figures of GET /admin/metrics. The maps go from a UTC day, "2006-01-02", to how many there were;
// days without any are absent.
type Metrics struct {
	SignUps, Logins, FailedLogins map[string]int64
	Pending                       int64 // private labels document=pending, at any time
}

// Metrics counts sign-ups and log-ins, those with a second factor too, between two Unix seconds, both inclusive; nil is
// no bound.
func (q queries) Metrics(ctx context.Context, from, to *int64) (*Metrics, error) {
	m := &Metrics{SignUps: map[string]int64{}, Logins: map[string]int64{}, FailedLogins: map[string]int64{}}
	return m, q.snapshot(ctx, func(q queries) error { return q.metrics(ctx, m, from, to) })
}

func (q queries) metrics(ctx context.Context, m *Metrics, from, to *int64) error {
	for _, figure := range [...]struct {
		into          map[string]int64
		topic, result string
		actions       []string
	}{
		{m.SignUps, "account", ResultSucceed, []string{"signup"}},
		{m.Logins, "session", ResultSucceed, []string{"login", "login::2fa"}},
		{m.FailedLogins, "session", ResultFailed, []string{"login", "login::2fa"}},
	} {
		for _, action := range figure.actions {
			f := ActivityFilter{
				Category: CategoryUser, Topic: &figure.topic, Action: &action, Result: &figure.result, From: from, To: to,
			}
			if err := q.addDays(ctx, f, figure.into); err != nil {
				return fmt.Errorf("metrics: %w", err)
			}
		}
	}
	return Translate(q.idb.NewRaw("SELECT coalesce(sum(count), 0) FROM label_tallies"+
		" WHERE scope = 'private' AND key = 'document' AND value = 'pending'").Scan(ctx, &m.Pending))
}

// addDays adds what f picks to the days of into.
func (q queries) addDays(ctx context.Context, f ActivityFilter, into map[string]int64) error {
	days, err := q.activityDays(ctx, f)
	for _, d := range days {
		into[time.Unix(d.Place*daySeconds, 0).UTC().Format(time.DateOnly)] += d.Count
	}
	return err
}

// exportBatch is how many rows an export reads at a time.
const exportBatch = 1000

// exported is an activity as a line of an export.
type exported struct {
	ID        int64           `json:"id"`
	CreatedAt time.Time       `json:"created_at"`
	Category  string          `json:"category"`
	UserID    int64           `json:"user_id"`
	UID       string          `json:"uid,omitempty"`
	Email     string          `json:"email,omitempty"`
	TargetUID *string         `json:"target_uid"`
	IP        string          `json:"user_ip"`
	Country   *string         `json:"user_ip_country"`
	UserAgent string          `json:"user_agent"`
	Topic     string          `json:"topic"`
	Action    string          `json:"action"`
	Result    string          `json:"result"`
	Count     int             `json:"count"`
	RequestID *string         `json:"request_id,omitempty"`
	Data      json.RawMessage `json:"data"`
}

// ExportActivities writes what f picks to w, oldest first, a JSON object a line, and reports how many. It reads in
// batches and holds no transaction, so it may take its time; rows that are added meanwhile are exported as well.
func (q queries) ExportActivities(ctx context.Context, w io.Writer, f ActivityFilter) (int64, error) {
	if ok, err := f.resolve(ctx, q); err != nil || !ok {
		return 0, err
	}
	// By id, along the table itself, unless f picks few.
	var index []string
	if f.UserID != 0 || f.TargetUID != nil {
		index = f.index()
	}
	out := bufio.NewWriterSize(w, 1<<16)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	var total, after int64
	for {
		var rows []Activity
		s := f.where(q, new(listQuery).add("SELECT * FROM activities"), index)
		s.add(" AND id > ? ORDER BY id LIMIT ?", after, exportBatch)
		if err := q.idb.NewRaw(s.text.String(), s.args...).Scan(ctx, &rows); err != nil {
			return total, fmt.Errorf("export activities: %w", Translate(err))
		}
		if len(rows) == 0 {
			break
		}
		ids := make([]int64, 0, len(rows))
		for i := range rows {
			ids = append(ids, rows[i].UserID)
		}
		users, err := q.UsersByID(ctx, ids...)
		if err != nil {
			return total, fmt.Errorf("export activities: %w", err)
		}
		who := make(map[int64]*User, len(users))
		for i := range users {
			who[users[i].ID] = &users[i]
		}
		for i := range rows {
			if err := enc.Encode(export(&rows[i], who[rows[i].UserID])); err != nil {
				return total, fmt.Errorf("export activities: %w", err)
			}
			total++
		}
		after = rows[len(rows)-1].ID
	}
	if err := out.Flush(); err != nil {
		return total, fmt.Errorf("export activities: %w", err)
	}
	return total, nil
}

func export(a *Activity, u *User) *exported {
	e := &exported{
		ID: a.ID, CreatedAt: a.CreatedAt.UTC(), Category: a.Category, UserID: a.UserID, TargetUID: a.TargetUID, IP: a.UserIP,
		Country: a.UserIPCountry, UserAgent: a.UserAgent, Topic: a.Topic, Action: a.Action, Result: a.Result, Count: a.Count, RequestID: a.RequestID,
	}
	if u != nil {
		e.UID, e.Email = u.UID, u.Email
	}
	if a.Data != nil {
		if text := strings.TrimSpace(*a.Data); json.Valid([]byte(text)) {
			e.Data = json.RawMessage(text)
		} else {
			e.Data, _ = json.Marshal(*a.Data) // a string always has a JSON form
		}
	}
	return e
}
