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
		sel = sel.Where("lower(email) = ?", NormalEmail(*f.Email))
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

// One condition of a filter: column, operator and value.
type condition struct {
	column, operator string
	value            any
}

func (f *ActivityFilter) conditions() []condition {
	var out []condition
	if f.UserID != 0 {
		out = append(out, condition{"user_id", "=", f.UserID})
	}
	if f.Category != "" {
		out = append(out, condition{"category", "=", f.Category})
	}
	for _, c := range [...]struct {
		column string
		value  *string
	}{{"target_uid", f.TargetUID}, {"topic", f.Topic}, {"action", f.Action}, {"result", f.Result}} {
		if c.value != nil {
			out = append(out, condition{c.column, "=", *c.value})
		}
	}
	from, to := f.bounds()
	if f.From != nil {
		out = append(out, condition{"created_at", ">=", from})
	}
	if f.To != nil {
		out = append(out, condition{"created_at", "<=", to})
	}
	return out
}

func (f *ActivityFilter) timed() bool { return f.From != nil || f.To != nil }

// index names the columns of the index that should answer. SQLite has no statistics by itself, and would take the index
// with the most columns in the filter: all the rows of a topic, say, for those of one day.
func (f *ActivityFilter) index() []string {
	switch {
	case f.UserID != 0:
		return []string{"user_id", "topic"}
	case f.TargetUID != nil:
		return []string{"target_uid"}
	case f.timed() && f.Topic != nil && f.Action != nil && f.Result != nil:
		return []string{"topic", "action", "result", "created_at"}
	case f.timed():
		return []string{"category", "created_at"}
	}
	return f.indexByID()
}

// indexByID is index for a walk in the order of ids.
func (f *ActivityFilter) indexByID() []string {
	switch {
	case f.UserID != 0:
		return []string{"user_id", "topic"}
	case f.TargetUID != nil:
		return []string{"target_uid"}
	case f.Result != nil && *f.Result == ResultDenied: // rare, or else bounded by the folding of repeated refusals
		return []string{"category", "result"}
	case f.Topic != nil:
		return []string{"category", "topic"}
	case f.Action != nil:
		return []string{"category", "action"}
	case f.Result != nil:
		return []string{"category", "result"}
	}
	return []string{"category"}
}

// where adds the filter's conditions; those outside of index are kept from choosing one.
func (f *ActivityFilter) where(q queries, s *bun.SelectQuery, index []string) *bun.SelectQuery {
	for _, c := range f.conditions() {
		column := "?"
		if q.db.sqlite && !slices.Contains(index, c.column) {
			column = "+?" // the engine's way to say "not by an index"
		}
		s = s.Where(column+" "+c.operator+" ?", bun.Ident(c.column), c.value)
	}
	return s
}

// newestFirst orders a list. With bounds in time it follows the creation, which has an index that answers at once where
// the newest ids would have to be walked past; the two orders differ only among rows of the same few seconds.
func (f *ActivityFilter) newestFirst(s *bun.SelectQuery) *bun.SelectQuery {
	if f.timed() && f.UserID == 0 && f.TargetUID == nil {
		return s.Order("created_at DESC", "id DESC")
	}
	return s.Order("id DESC")
}

// Activities is one page of the activities that f picks, newest first, and exactly how many it picks in all.
func (q queries) Activities(ctx context.Context, f ActivityFilter, p Page) ([]Activity, int64, error) {
	rows := []Activity{}
	if ok, err := f.resolve(ctx, q); err != nil || !ok {
		return rows, 0, err
	}
	total, err := q.countActivities(ctx, f)
	if err != nil || p.offset() >= total {
		return rows, total, err
	}
	// The inner query walks an index alone, so that a far page does not read the rows of all pages before it.
	ids := f.where(q, q.idb.NewSelect().Model((*Activity)(nil)).Column("id"), f.index())
	ids = f.newestFirst(ids).Limit(p.limit()).Offset(p.offset())
	err = f.newestFirst(q.idb.NewSelect().Model(&rows).Where("id IN (?)", ids)).Scan(ctx)
	return rows, total, Translate(err)
}

// countActivities counts what f picks: from the counts by day where they tell enough, from the rows where f narrows
// them to one user or target, or to a topic or action of what was denied.
func (q queries) countActivities(ctx context.Context, f ActivityFilter) (int64, error) {
	if f.UserID != 0 || f.TargetUID != nil {
		return q.countRows(ctx, f)
	}
	if f.Topic == nil && f.Action == nil || f.Result != nil && *f.Result != ResultDenied {
		return q.countByDay(ctx, f)
	}
	if f.Result != nil {
		return q.countRows(ctx, f)
	}
	var total int64
	for _, result := range [...]string{ResultSucceed, ResultFailed, ResultDenied} {
		f.Result = &result
		n, err := q.countActivities(ctx, f)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

func (q queries) countByDay(ctx context.Context, f ActivityFilter) (int64, error) {
	from, to := f.bounds()
	if to.Before(from) {
		return 0, nil
	}
	// Whole days are counted already; what the bounds cut off the first and the last is looked at.
	begin := from.Truncate(day)
	if begin.Before(from) {
		begin = begin.Add(day)
	}
	end := to.Add(time.Second).Truncate(day) // the first second after the last whole day
	if !begin.Before(end) {
		return q.countRows(ctx, f)
	}
	var total int64
	s := q.idb.NewSelect().Table("activity_counts").ColumnExpr("coalesce(sum(count), 0)")
	if err := f.whereDays(s, begin, end.Add(-day)).Scan(ctx, &total); err != nil {
		return 0, Translate(err)
	}
	for _, edge := range [...][2]time.Time{{from, begin.Add(-time.Second)}, {end, to}} {
		if edge[1].Before(edge[0]) {
			continue
		}
		n, err := q.countRows(ctx, f.between(edge[0], edge[1]))
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// day is the length of one: UTC has no others.
const day = 24 * time.Hour

func (q queries) countRows(ctx context.Context, f ActivityFilter) (int64, error) {
	n, err := f.where(q, q.idb.NewSelect().Model((*Activity)(nil)), f.index()).Count(ctx)
	return int64(n), Translate(err)
}

// whereDays picks the counts of the days from first to last.
func (f *ActivityFilter) whereDays(s *bun.SelectQuery, first, last time.Time) *bun.SelectQuery {
	s = s.Where("day >= ?", first.Format(time.DateOnly)).Where("day <= ?", last.Format(time.DateOnly))
	if f.Category != "" {
		s = s.Where("category = ?", f.Category)
	}
	for _, c := range [...]struct {
		column string
		value  *string
	}{{"topic", f.Topic}, {"action", f.Action}, {"result", f.Result}} {
		if c.value != nil {
			s = s.Where("? = ?", bun.Ident(c.column), *c.value)
		}
	}
	return s
}

// AddToActivities adds to the counts of rows, by id: refusals like them that were not given rows of their own.
func (tx *Tx) AddToActivities(ctx context.Context, more map[int64]int) error {
	for _, id := range slices.Sorted(maps.Keys(more)) { // in one order everywhere: two replicas never wait in a circle
		_, err := tx.NewUpdate().Model((*Activity)(nil)).Set("count = count + ?", more[id]).Where("id = ?", id).Exec(ctx)
		if err != nil {
			return fmt.Errorf("count activity %d: %w", id, Translate(err))
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
				return nil, fmt.Errorf("metrics: %w", err)
			}
		}
	}
	pending, err := q.idb.NewSelect().Model((*Label)(nil)).Where("key = 'document'").Where("value = 'pending'").
		Where("scope = 'private'").Count(ctx)
	m.Pending = int64(pending)
	return m, Translate(err)
}

// addDays adds what f picks to the days of into. The first and the last day may be cut by the bounds: they are counted
// from the rows.
func (q queries) addDays(ctx context.Context, f ActivityFilter, into map[string]int64) error {
	from, to := f.bounds()
	if to.Before(from) {
		return nil
	}
	var days []struct {
		Day   string
		Count int64
	}
	s := q.idb.NewSelect().Table("activity_counts").Column("day").ColumnExpr("sum(count) AS count").Group("day").
		Having("sum(count) > 0")
	if err := f.whereDays(s, from, to).Scan(ctx, &days); err != nil {
		return Translate(err)
	}
	for _, d := range days {
		begin, err := time.Parse(time.DateOnly, d.Day)
		if err != nil {
			return fmt.Errorf("day %q: %w", d.Day, err)
		}
		end := begin.Add(day - time.Second)
		if begin.Before(from) || end.After(to) {
			if begin.Before(from) {
				begin = from
			}
			if end.After(to) {
				end = to
			}
			if d.Count, err = q.countRows(ctx, f.between(begin, end)); err != nil {
				return err
			}
		}
		if d.Count > 0 {
			into[d.Day] += d.Count
		}
	}
	return nil
}

// purgeBatch is how many rows one transaction of a purge deletes, so that others may write between two.
const purgeBatch = 2000

// PurgeActivities deletes the activities that are older than before and reports how many. It stops when ctx is done;
// what it deleted until then is gone.
func (d *DB) PurgeActivities(ctx context.Context, before time.Time) (int64, error) {
	var total int64
	for _, category := range [...]string{CategoryAdmin, CategoryUser} { // each with its part of the index
		for {
			var n int64
			err := d.Update(ctx, func(ctx context.Context, tx *Tx) error {
				old := tx.NewSelect().Model((*Activity)(nil)).Column("id").Where("category = ?", category).
					Where("created_at < ?", before.UTC()).Order("created_at", "id").Limit(purgeBatch)
				r, err := tx.NewDelete().Model((*Activity)(nil)).Where("id IN (?)", old).Exec(ctx)
				if err != nil {
					return err
				}
				n, err = r.RowsAffected()
				return err
			})
			if err != nil {
				return total, fmt.Errorf("purge activities: %w", err)
			}
			total += n
			if n < purgeBatch {
				break
			}
		}
	}
	err := d.Update(ctx, func(ctx context.Context, tx *Tx) error {
		_, err := tx.NewDelete().Table("activity_counts").Where("day < ?", before.UTC().Format(time.DateOnly)).
			Where("NOT EXISTS (SELECT 1 FROM activities WHERE category IN ('admin', 'user') AND created_at < ?)",
				before.UTC().Truncate(day)).Exec(ctx)
		return err
	})
	if err != nil {
		return total, fmt.Errorf("purge activities: %w", err)
	}
	return total, nil
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
	Data      json.RawMessage `json:"data"`
}

// ExportActivities writes what f picks to w, oldest first, a JSON object a line, and reports how many. It reads in
// batches and holds no transaction, so it may take its time; rows that are added meanwhile are exported as well.
func (q queries) ExportActivities(ctx context.Context, w io.Writer, f ActivityFilter) (int64, error) {
	if ok, err := f.resolve(ctx, q); err != nil || !ok {
		return 0, err
	}
	out := bufio.NewWriterSize(w, 1<<16)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	var total, after int64
	for {
		var rows []Activity
		s := q.idb.NewSelect().Model(&rows).Where("id > ?", after).Order("id").Limit(exportBatch)
		if err := f.where(q, s, f.indexByID()).Scan(ctx); err != nil {
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
		Country: a.UserIPCountry, UserAgent: a.UserAgent, Topic: a.Topic, Action: a.Action, Result: a.Result, Count: a.Count,
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
