package db

import (
	"context"
	"encoding/json"
	"fmt"
	"math"

	"github.com/uptrace/bun"

	"barong/internal/bus"
	"barong/internal/reqid"
)

// AllPermissions are all rows by id.
func (q queries) AllPermissions(ctx context.Context) ([]Permission, error) {
	rows := []Permission{}
	err := q.idb.NewSelect().Model(&rows).Order("id").Scan(ctx)
	return rows, Translate(err)
}

// Permissions is one page of the rows by id, and how many there are in all.
func (q queries) Permissions(ctx context.Context, p Page) ([]Permission, int64, error) {
	rows := []Permission{}
	n, err := q.idb.NewSelect().Model(&rows).Order("id").Limit(p.limit()).Offset(p.offset()).ScanAndCount(ctx)
	return rows, int64(n), Translate(err)
}

// Permission finds a row, or ErrNotFound.
func (q queries) Permission(ctx context.Context, id int64) (*Permission, error) {
	r := new(Permission)
	if err := q.idb.NewSelect().Model(r).Where("id = ?", id).Scan(ctx); err != nil {
		return nil, Translate(err)
	}
	return r, nil
}

// RoleExists reports whether any permission names the role.
func (q queries) RoleExists(ctx context.Context, role string) (bool, error) {
	if !storable(role) {
		return false, nil
	}
	ok, err := q.idb.NewSelect().Model((*Permission)(nil)).Where("role = ?", role).Exists(ctx)
	return ok, Translate(err)
}

// AllRestrictions are all rows by id.
func (q queries) AllRestrictions(ctx context.Context) ([]Restriction, error) {
	rows := []Restriction{}
	err := q.idb.NewSelect().Model(&rows).Order("id").Scan(ctx)
	return rows, Translate(err)
}

// Restriction finds a row, or ErrNotFound.
func (q queries) Restriction(ctx context.Context, id int64) (*Restriction, error) {
	r := new(Restriction)
	if err := q.idb.NewSelect().Model(r).Where("id = ?", id).Scan(ctx); err != nil {
		return nil, Translate(err)
	}
	return r, nil
}

// PermissionsOf are all rows of a role by id.
func (q queries) PermissionsOf(ctx context.Context, role string) ([]Permission, error) {
	rows := []Permission{}
	err := q.idb.NewSelect().Model(&rows).Where("role = ?", role).Order("id").Scan(ctx)
	return rows, Translate(err)
}

// A RestrictionFilter narrows a list of restrictions. Every field that is set must fit.
type RestrictionFilter struct {
	Category, Scope *string
	Updated         bool   // From and To bound updated_at instead of created_at
	From, To        *int64 // Unix seconds, both inclusive
}

// Restrictions is one page of the rows that fit, by id, and how many fit in all.
func (q queries) Restrictions(ctx context.Context, f RestrictionFilter, p Page) ([]Restriction, int64, error) {
	rows := []Restriction{}
	s := q.idb.NewSelect().Model(&rows)
	if f.Category != nil {
		s = s.Where("category = ?", *f.Category)
	}
	if f.Scope != nil {
		s = s.Where("scope = ?", *f.Scope)
	}
	column := bun.Ident("created_at")
	if f.Updated {
		column = bun.Ident("updated_at")
	}
	if f.From != nil {
		s = s.Where("? >= ?", column, unixTime(*f.From))
	}
	if f.To != nil {
		s = s.Where("? <= ?", column, unixTime(*f.To))
	}
	n, err := s.Order("id").Limit(p.limit()).Offset(p.offset()).ScanAndCount(ctx)
	return rows, int64(n), Translate(err)
}

// LockRules keeps rule changes of other transactions waiting, so that a check of the whole set holds until the commit, and
// that the numbers of changes are in the order of their commits. Every change takes this lock by itself, before it writes.
func (tx *Tx) LockRules(ctx context.Context) error {
	if tx.db.sqlite || tx.rulesLocked {
		return nil // SQLite has one writer
	}
	_, err := tx.ExecContext(ctx, "LOCK TABLE permissions, restrictions IN SHARE ROW EXCLUSIVE MODE")
	tx.rulesLocked = err == nil
	return err
}

// Who is the author of a rule change; the zero Who is the program itself (seeding).
type Who struct {
	UserID int64
	UID    string
}

func (tx *Tx) recordChange(ctx context.Context, who Who, subject string, id int64, action string, before, after any) error {
	c := &PolicyChange{Subject: subject, SubjectID: id, Action: action, CreatedAt: tx.Now()}
	if who.UserID != 0 {
		c.UserID, c.UID = &who.UserID, &who.UID
	}
	for _, f := range []struct {
		to   **string
		from any
	}{{&c.Before, before}, {&c.After, after}} {
		if f.from == nil {
			continue
		}
		text, err := json.Marshal(f.from)
		if err != nil {
			return fmt.Errorf("record rule change: %w", err)
		}
		s := string(text)
		*f.to = &s
	}
	if _, err := tx.NewInsert().Model(c).Exec(ctx); err != nil {
		return fmt.Errorf("record rule change: %w", Translate(err))
	}
	tx.Notify(bus.PolicyChanged, "")
	return nil
}

// PolicyChanges is one page of the changes of rules, newest first, and how many there are in all. subject is permission or
// restriction, or empty for both.
func (q queries) PolicyChanges(ctx context.Context, subject string, p Page) ([]PolicyChange, int64, error) {
	rows := []PolicyChange{}
	s := q.idb.NewSelect().Model(&rows)
	if subject != "" {
		s = s.Where("subject = ?", subject)
	}
	n, err := s.Order("id DESC").Limit(p.limit()).Offset(p.offset()).ScanAndCount(ctx)
	return rows, int64(n), Translate(err)
}

// InsertPermission stores a new row and keeps who did it.
func (tx *Tx) InsertPermission(ctx context.Context, who Who, r *Permission) error {
	if err := tx.LockRules(ctx); err != nil {
		return Translate(err)
	}
	r.CreatedAt, r.UpdatedAt = tx.Now(), tx.Now()
	if _, err := tx.NewInsert().Model(r).Returning("id").Exec(ctx); err != nil {
		return fmt.Errorf("insert permission: %w", Translate(err))
	}
	return tx.recordChange(ctx, who, "permission", r.ID, "create", nil, r)
}

// UpdatePermission stores a row and keeps who did it and how it stood before.
func (tx *Tx) UpdatePermission(ctx context.Context, who Who, before, after *Permission) error {
	if err := tx.LockRules(ctx); err != nil {
		return Translate(err)
	}
	after.UpdatedAt = tx.Now()
	if _, err := tx.NewUpdate().Model(after).ExcludeColumn("id", "created_at").WherePK().Exec(ctx); err != nil {
		return fmt.Errorf("update permission: %w", Translate(err))
	}
	return tx.recordChange(ctx, who, "permission", after.ID, "update", before, after)
}

// DeletePermission removes a row and keeps who did it.
func (tx *Tx) DeletePermission(ctx context.Context, who Who, r *Permission) error {
	if err := tx.LockRules(ctx); err != nil {
		return Translate(err)
	}
	if _, err := tx.NewDelete().Model(r).WherePK().Exec(ctx); err != nil {
		return fmt.Errorf("delete permission: %w", Translate(err))
	}
	return tx.recordChange(ctx, who, "permission", r.ID, "delete", r, nil)
}

// InsertRestriction stores a new row and keeps who did it. The same scope, category and value is ErrTaken.
func (tx *Tx) InsertRestriction(ctx context.Context, who Who, r *Restriction) error {
	if err := tx.LockRules(ctx); err != nil {
		return Translate(err)
	}
	r.CreatedAt, r.UpdatedAt = tx.Now(), tx.Now()
	if _, err := tx.NewInsert().Model(r).Returning("id").Exec(ctx); err != nil {
		return fmt.Errorf("insert restriction: %w", Translate(err))
	}
	return tx.recordChange(ctx, who, "restriction", r.ID, "create", nil, r)
}

// UpdateRestriction stores a row and keeps who did it and how it stood before.
func (tx *Tx) UpdateRestriction(ctx context.Context, who Who, before, after *Restriction) error {
	if err := tx.LockRules(ctx); err != nil {
		return Translate(err)
	}
	after.UpdatedAt = tx.Now()
	if _, err := tx.NewUpdate().Model(after).ExcludeColumn("id", "created_at").WherePK().Exec(ctx); err != nil {
		return fmt.Errorf("update restriction: %w", Translate(err))
	}
	return tx.recordChange(ctx, who, "restriction", after.ID, "update", before, after)
}

// DeleteRestriction removes a row and keeps who did it.
func (tx *Tx) DeleteRestriction(ctx context.Context, who Who, r *Restriction) error {
	if err := tx.LockRules(ctx); err != nil {
		return Translate(err)
	}
	if _, err := tx.NewDelete().Model(r).WherePK().Exec(ctx); err != nil {
		return fmt.Errorf("delete restriction: %w", Translate(err))
	}
	return tx.recordChange(ctx, who, "restriction", r.ID, "delete", r, nil)
}

// insertActivities adds rows to the audit trail. Too long texts are cut, never refused: a row is not lost to its content.
func (q queries) insertActivities(ctx context.Context, rows []Activity) error {
	if len(rows) == 0 {
		return nil
	}
	for i := range rows {
		r := &rows[i]
		r.UserAgent, r.UserIP = cut(r.UserAgent, 255), cut(r.UserIP, 64)
		r.Topic, r.Action = cut(r.Topic, 255), cut(r.Action, 255)
		for _, f := range []struct {
			text **string
			max  int
		}{{&r.TargetUID, 255}, {&r.UserIPCountry, 255}, {&r.Data, math.MaxInt}} {
			if *f.text != nil {
				s := cut(**f.text, f.max)
				*f.text = &s
			}
		}
		if id := reqid.From(ctx); id != "" && r.RequestID == nil {
			r.RequestID = &id
		}
		if r.Count == 0 {
			r.Count = 1
		}
		if r.CreatedAt.IsZero() {
			r.CreatedAt = q.db.Now()
		}
	}
	_, err := q.idb.NewInsert().Model(&rows).Exec(ctx)
	if err != nil {
		return fmt.Errorf("insert activities: %w", Translate(err))
	}
	return nil
}

// InsertActivities adds rows to the audit trail within the transaction that causes them.
func (tx *Tx) InsertActivities(ctx context.Context, rows ...Activity) error {
	return tx.insertActivities(ctx, rows)
}

// cut shortens s to at most n bytes at a rune's edge, and takes out what Postgres refuses to store in text.
func cut(s string, n int) string {
	clean := func(s string) string {
		out := make([]rune, 0, len(s))
		for _, r := range s { // invalid UTF-8 reads as U+FFFD
			if r != 0 {
				out = append(out, r)
			}
		}
		return string(out)
	}
	s = clean(s)
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n]
}
