package view

import (
	"context"

	"barong/db"
)

// A Builder makes the objects that need more than their own row. It reads what belongs to a page of rows in a fixed
// number of queries, however long the page is. Legacy asks for the bodies of release 2.4.17.
type Builder struct {
	DB      Reader
	Legacy  bool
	FileURL func(key string) string // an address that serves the stored file for a while
}

// A Reader reads rows: a *db.DB, or a *db.Tx inside a unit of work.
type Reader interface {
	UsersByID(ctx context.Context, ids ...int64) ([]db.User, error)
	UsersByUID(ctx context.Context, uids ...string) ([]db.User, error)
	ReferrerUIDs(ctx context.Context, ids []int64) (map[int64]string, error)
	Labels(ctx context.Context, userIDs ...int64) ([]db.Label, error)
	Phones(ctx context.Context, userIDs ...int64) ([]db.Phone, error)
	Profiles(ctx context.Context, userIDs ...int64) ([]db.Profile, error)
	Documents(ctx context.Context, userIDs ...int64) ([]db.Document, error)
	DataStorages(ctx context.Context, userIDs ...int64) ([]db.DataStorage, error)
}

// FullInfo shows a user to themselves. csrf is empty except in the answers that open a session.
func (b *Builder) FullInfo(ctx context.Context, u *db.User, csrf string) (*UserWithFullInfo, error) {
	referrers, err := b.referrers(ctx, []db.User{*u})
	if err != nil {
		return nil, err
	}
	labels, err := b.DB.Labels(ctx, u.ID)
	if err != nil {
		return nil, err
	}
	phones, err := b.DB.Phones(ctx, u.ID)
	if err != nil {
		return nil, err
	}
	profiles, err := b.DB.Profiles(ctx, u.ID)
	if err != nil {
		return nil, err
	}
	storages, err := b.DB.DataStorages(ctx, u.ID)
	if err != nil {
		return nil, err
	}
	return &UserWithFullInfo{
		Email: u.Email, UID: u.UID, Role: u.Role, Level: u.Level, OTP: u.OTP, State: u.State,
		ReferralUID: referrers.of(u), CSRFToken: csrf, Data: u.Data, CreatedAt: Sec(u.CreatedAt), UpdatedAt: Sec(u.UpdatedAt),
		Labels: Labels(labels), Phones: Phones(phones), Profiles: b.Profiles(profiles),
		DataStorages: each(storages, NewDataStorage),
	}, nil
}

// Users shows a page of users.
func (b *Builder) Users(ctx context.Context, rows []db.User) ([]User, error) {
	referrers, err := b.referrers(ctx, rows)
	if err != nil {
		return nil, err
	}
	return each(rows, func(u *db.User) User { return newUser(u, referrers) }), nil
}

func newUser(u *db.User, r referrers) User {
	return User{
		Email: u.Email, UID: u.UID, Role: u.Role, Level: u.Level, OTP: u.OTP, State: u.State,
		ReferralUID: r.of(u), Data: u.Data,
	}
}

// UsersWithProfile shows a page of users with their profiles.
func (b *Builder) UsersWithProfile(ctx context.Context, rows []db.User) ([]UserWithProfile, error) {
	referrers, err := b.referrers(ctx, rows)
	if err != nil {
		return nil, err
	}
	profiles, err := b.DB.Profiles(ctx, userIDs(rows)...)
	if err != nil {
		return nil, err
	}
	profilesOf := grouped(profiles, func(p *db.Profile) int64 { return p.UserID })
	return each(rows, func(u *db.User) UserWithProfile {
		return UserWithProfile{
			Email: u.Email, UID: u.UID, Role: u.Role, Level: u.Level, OTP: u.OTP, State: u.State, Data: u.Data,
			Profiles: b.Profiles(profilesOf[u.ID]), ReferralUID: referrers.of(u),
			CreatedAt: Sec(u.CreatedAt), UpdatedAt: Sec(u.UpdatedAt),
		}
	}), nil
}

// UsersWithKYC shows a page of users with all that belongs to them.
func (b *Builder) UsersWithKYC(ctx context.Context, rows []db.User) ([]UserWithKYC, error) {
	ids := userIDs(rows)
	referrers, err := b.referrers(ctx, rows)
	if err != nil {
		return nil, err
	}
	profiles, err := b.DB.Profiles(ctx, ids...)
	if err != nil {
		return nil, err
	}
	labels, err := b.DB.Labels(ctx, ids...)
	if err != nil {
		return nil, err
	}
	phones, err := b.DB.Phones(ctx, ids...)
	if err != nil {
		return nil, err
	}
	documents, err := b.DB.Documents(ctx, ids...)
	if err != nil {
		return nil, err
	}
	storages, err := b.DB.DataStorages(ctx, ids...)
	if err != nil {
		return nil, err
	}
	profilesOf := grouped(profiles, func(p *db.Profile) int64 { return p.UserID })
	labelsOf := grouped(labels, func(l *db.Label) int64 { return l.UserID })
	phonesOf := grouped(phones, func(p *db.Phone) int64 { return p.UserID })
	documentsOf := grouped(documents, func(d *db.Document) int64 { return d.UserID })
	storagesOf := grouped(storages, func(d *db.DataStorage) int64 { return d.UserID })
	return each(rows, func(u *db.User) UserWithKYC {
		return UserWithKYC{
			Email: u.Email, UID: u.UID, Role: u.Role, Level: u.Level, OTP: u.OTP, State: u.State, Data: u.Data,
			Profiles: b.Profiles(profilesOf[u.ID]), Labels: AdminLabels(labelsOf[u.ID]),
			Phones: Phones(phonesOf[u.ID]), Documents: each(documentsOf[u.ID], b.NewDocument),
			DataStorages: each(storagesOf[u.ID], NewDataStorage), ReferralUID: referrers.of(u),
			CreatedAt: Sec(u.CreatedAt), UpdatedAt: Sec(u.UpdatedAt),
		}
	}), nil
}

// UserWithKYC shows one user with all that belongs to them.
func (b *Builder) UserWithKYC(ctx context.Context, u *db.User) (*UserWithKYC, error) {
	views, err := b.UsersWithKYC(ctx, []db.User{*u})
	if err != nil {
		return nil, err
	}
	return &views[0], nil
}

// referrers are the uids of referring users by id.
type referrers map[int64]string

func (r referrers) of(u *db.User) *string {
	if u.ReferralID == nil {
		return nil
	}
	uid, ok := r[*u.ReferralID]
	if !ok {
		return nil
	}
	return &uid
}

func (b *Builder) referrers(ctx context.Context, rows []db.User) (referrers, error) {
	var ids []int64
	for i := range rows {
		if id := rows[i].ReferralID; id != nil {
			ids = append(ids, *id)
		}
	}
	return b.DB.ReferrerUIDs(ctx, ids)
}

func userIDs(rows []db.User) []int64 {
	ids := make([]int64, len(rows))
	for i := range rows {
		ids[i] = rows[i].ID
	}
	return ids
}

// grouped sorts rows by their owner and keeps their order.
func grouped[Row any](rows []Row, owner func(*Row) int64) map[int64][]Row {
	out := make(map[int64][]Row)
	for i := range rows {
		id := owner(&rows[i])
		out[id] = append(out[id], rows[i])
	}
	return out
}
