package db

import (
	"context"
	"fmt"

	"github.com/uptrace/bun"
)

// Labels are all of a user's labels, by id.
func (q queries) Labels(ctx context.Context, userIDs ...int64) ([]Label, error) {
	rows := []Label{}
	if len(userIDs) == 0 {
		return rows, nil
	}
	err := q.idb.NewSelect().Model(&rows).Where("user_id IN (?)", bun.List(userIDs)).Order("id").Scan(ctx)
	return rows, Translate(err)
}

// Label finds one of a user's labels, or ErrNotFound.
func (q queries) Label(ctx context.Context, userID int64, key, scope string) (*Label, error) {
	if !storable(key, scope) {
		return nil, ErrNotFound
	}
	l := new(Label)
	err := q.idb.NewSelect().Model(l).Where("user_id = ?", userID).Where("key = ?", key).Where("scope = ?", scope).Scan(ctx)
	if err != nil {
		return nil, Translate(err)
	}
	return l, nil
}

// CountLabels counts a user's labels of a scope.
func (q queries) CountLabels(ctx context.Context, userID int64, scope string) (int, error) {
	n, err := q.idb.NewSelect().Model((*Label)(nil)).Where("user_id = ?", userID).Where("scope = ?", scope).Count(ctx)
	return int(n), Translate(err)
}

// InsertLabel stores a new label. One of that key and scope is ErrTaken.
func (tx *Tx) InsertLabel(ctx context.Context, l *Label) error {
	l.CreatedAt, l.UpdatedAt = tx.Now(), tx.Now()
	if _, err := tx.NewInsert().Model(l).Returning("id").Exec(ctx); err != nil {
		return fmt.Errorf("insert label: %w", Translate(err))
	}
	return nil
}

// UpdateLabel stores a label's value, scope and description.
func (tx *Tx) UpdateLabel(ctx context.Context, l *Label) error {
	l.UpdatedAt = tx.Now()
	if _, err := tx.NewUpdate().Model(l).Column("value", "scope", "description", "updated_at").WherePK().Exec(ctx); err != nil {
		return fmt.Errorf("update label: %w", Translate(err))
	}
	return nil
}

// DeleteLabel removes a label.
func (tx *Tx) DeleteLabel(ctx context.Context, l *Label) error {
	if _, err := tx.NewDelete().Model(l).WherePK().Exec(ctx); err != nil {
		return fmt.Errorf("delete label: %w", Translate(err))
	}
	return nil
}

// Levels are all levels by number.
func (q queries) Levels(ctx context.Context) ([]Level, error) {
	rows := []Level{}
	err := q.idb.NewSelect().Model(&rows).Order("id").Scan(ctx)
	return rows, Translate(err)
}

// DataStorages are the data storages of these users, by id.
func (q queries) DataStorages(ctx context.Context, userIDs ...int64) ([]DataStorage, error) {
	rows := []DataStorage{}
	if len(userIDs) == 0 {
		return rows, nil
	}
	err := q.idb.NewSelect().Model(&rows).Where("user_id IN (?)", bun.List(userIDs)).Order("id").Scan(ctx)
	return rows, Translate(err)
}

// DataStorage finds one of a user's data storages by title without regard to case, or ErrNotFound.
func (q queries) DataStorage(ctx context.Context, userID int64, title string) (*DataStorage, error) {
	if !storable(title) {
		return nil, ErrNotFound
	}
	d := new(DataStorage)
	err := q.idb.NewSelect().Model(d).Where("user_id = ?", userID).Where("lower(title) = lower(?)", title).Scan(ctx)
	if err != nil {
		return nil, Translate(err)
	}
	return d, nil
}

// InsertDataStorage stores a new data storage. A title in use is ErrTaken.
func (tx *Tx) InsertDataStorage(ctx context.Context, d *DataStorage) error {
	d.CreatedAt, d.UpdatedAt = tx.Now(), tx.Now()
	if _, err := tx.NewInsert().Model(d).Returning("id").Exec(ctx); err != nil {
		return fmt.Errorf("insert data storage: %w", Translate(err))
	}
	return nil
}

// DeleteDataStorage removes a data storage.
func (tx *Tx) DeleteDataStorage(ctx context.Context, d *DataStorage) error {
	if _, err := tx.NewDelete().Model(d).WherePK().Exec(ctx); err != nil {
		return fmt.Errorf("delete data storage: %w", Translate(err))
	}
	return nil
}

// InsertLevel stores a level with the ID that it has and the times set. FollowLevels must follow it.
func (tx *Tx) InsertLevel(ctx context.Context, l *Level) error {
	l.CreatedAt, l.UpdatedAt = tx.Now(), tx.Now()
	_, err := tx.NewInsert().Model(l).Exec(ctx)
	return Translate(err)
}

// FollowLevels makes the IDs of further levels go on behind those that are there: on Postgres, rows with IDs of their own
// do not move the counter of IDs.
func (tx *Tx) FollowLevels(ctx context.Context) error {
	if tx.db.sqlite {
		return nil
	}
	_, err := tx.ExecContext(ctx, "SELECT setval(pg_get_serial_sequence('levels', 'id'), (SELECT max(id) FROM levels))")
	return Translate(err)
}

// DescribeLevel stores the description of a level.
func (tx *Tx) DescribeLevel(ctx context.Context, l *Level) error {
	l.UpdatedAt = tx.Now()
	_, err := tx.NewUpdate().Model(l).Column("description", "updated_at").WherePK().Exec(ctx)
	return Translate(err)
}
