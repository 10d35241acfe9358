package db

import (
	"context"
	"math"
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

// apply adds the filter's conditions to a query of users with the alias u.
func (f *UserFilter) apply(q queries, s *bun.SelectQuery) *bun.SelectQuery {
	for _, c := range []struct {
		column string
		value  *string
	}{{"u.uid", f.UID}, {"u.role", f.Role}, {"u.state", f.State}} {
		if c.value != nil {
			s = s.Where("? = ?", bun.Ident(c.column), *c.value)
		}
	}
	if f.Email != nil {
		s = s.Where("lower(u.email) = ?", NormalEmail(*f.Email))
	}
	if f.Level != nil {
		s = s.Where("u.level = ?", *f.Level)
	}
	column := bun.Ident("u.created_at")
	if f.Updated {
		column = bun.Ident("u.updated_at")
	}
	if f.From != nil {
		s = s.Where("? >= ?", column, unixTime(*f.From))
	}
	if f.To != nil {
		s = s.Where("? <= ?", column, unixTime(*f.To))
	}
	if f.FirstName != nil || f.LastName != nil || f.Country != nil {
		profiles := q.idb.NewSelect().Model((*sealedProfile)(nil)).Column("user_id")
		if f.FirstName != nil {
			profiles = profiles.Where("first_name_index = ?", q.db.sealer.Index(*f.FirstName, purposeFirstName))
		}
		if f.LastName != nil {
			profiles = profiles.Where("last_name_index = ?", q.db.sealer.Index(*f.LastName, purposeLastName))
		}
		if f.Country != nil {
			profiles = profiles.Where("country = ?", *f.Country)
		}
		s = s.Where("u.id IN (?)", profiles)
	}
	return s
}

// unixTime is a time bound as both engines can compare it: seconds outside the years 1 to 9999 are cut to these.
func unixTime(seconds int64) time.Time {
	const first, last = -62135596800, 253402300799
	return time.Unix(min(max(seconds, first), last), 0).UTC()
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
	return q.userPage(ctx, p, "u.id", func(s *bun.SelectQuery) *bun.SelectQuery { return f.apply(q, s) })
}

// FindPendingUsers is one page of the users that fit and whose documents wait for staff: the private label "document" is
// pending or replaced. Who waits longest, by the label's last change, comes first.
func (q queries) FindPendingUsers(ctx context.Context, f UserFilter, p Page) ([]User, int64, error) {
	return q.userPage(ctx, p, "l.updated_at, u.id", func(s *bun.SelectQuery) *bun.SelectQuery {
		s = s.Join("JOIN labels AS l ON l.user_id = u.id AND l.scope = 'private' AND l.key = 'document'").
			Where("l.value IN ('pending', 'replaced')")
		return f.apply(q, s)
	})
}

// FindUsersByLabel is one page of the users who have such a label, in any scope unless one is given, by id, and how
// many there are in all.
func (q queries) FindUsersByLabel(ctx context.Context, key, value string, scope *string, p Page) ([]User, int64, error) {
	return q.userPage(ctx, p, "u.id", func(s *bun.SelectQuery) *bun.SelectQuery {
		owners := q.idb.NewSelect().Model((*Label)(nil)).Column("user_id").Where("key = ?", key).Where("value = ?", value)
		if scope != nil {
			owners = owners.Where("scope = ?", *scope)
		}
		return s.Where("u.id IN (?)", owners)
	})
}

// userPage reads one page of users. The ids of the page are found first, from indexes alone where the filter allows, so
// that a deep page does not read the rows of all pages before it.
func (q queries) userPage(
	ctx context.Context, p Page, order string, narrow func(*bun.SelectQuery) *bun.SelectQuery,
) ([]User, int64, error) {
	rows := []User{}
	total, err := narrow(q.idb.NewSelect().Model((*User)(nil))).Count(ctx)
	if err != nil {
		return nil, 0, Translate(err)
	}
	if p.Number < 1 || p.Size < 1 || int64(p.Number-1) > math.MaxInt64/int64(p.Size) || p.offset() >= int64(total) {
		return rows, int64(total), nil
	}
	var ids []int64
	err = narrow(q.idb.NewSelect().Model((*User)(nil)).ColumnExpr("u.id")).OrderExpr(order).
		Limit(p.limit()).Offset(p.offset()).Scan(ctx, &ids)
	if err != nil {
		return nil, 0, Translate(err)
	}
	found, err := q.UsersByID(ctx, ids...)
	if err != nil {
		return nil, 0, err
	}
	byID := make(map[int64]*User, len(found))
	for i := range found {
		byID[found[i].ID] = &found[i]
	}
	for _, id := range ids {
		if u := byID[id]; u != nil {
			rows = append(rows, *u)
		}
	}
	return rows, int64(total), nil
}

// A LabelCount says how many users have a private label.
type LabelCount struct {
	Key, Value string
	Count      int64
}

// LabelCounts counts the private labels by key and value, in the order of these.
func (q queries) LabelCounts(ctx context.Context) ([]LabelCount, error) {
	rows := []LabelCount{}
	err := q.idb.NewSelect().Model((*Label)(nil)).Column("key", "value").ColumnExpr("count(*) AS count").
		Where("scope = 'private'").Group("key", "value").Order("key", "value").Scan(ctx, &rows)
	return rows, Translate(err)
}
