package db_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"barong/db"
	"barong/internal/crypto/secret"
	"barong/internal/test/dbtest"

	"pgregory.net/rapid"
)

// directory is a database of people that a plain model knows as well.
type directory struct {
	db       *db.DB
	users    []db.User
	profiles []db.Profile
	labels   []db.Label
}

// people are drawn from few values, so that filters meet somebody.
func newDirectory(t *testing.T, engine string) *directory {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	box, err := secret.New(secret.NewKey())
	check(err)
	clock := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	d := dbtest.Open(t, engine, db.Options{Sealer: box, Now: func() time.Time { return clock }})
	dir := &directory{db: d}
	pick := func(i int, words ...string) string { return words[i%len(words)] }
	for i := range 60 {
		clock = clock.Add(time.Duration(i%3) * time.Second)
		if i%10 == 9 {
			clock = clock.AddDate(0, 0, 4).Truncate(24 * time.Hour) // a week begins with a Thursday: 2026-03-05, 2026-03-12
		}
		check(d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
			u := db.User{
				ID:  int64(i)*3001 + 1, // some blocks of counts, each with a few
				UID: fmt.Sprintf("ID%04d", i), Email: fmt.Sprintf("user%d@example.com", i), PasswordDigest: "x",
				Role: pick(i, "member", "member", "admin"), State: pick(i/2, "active", "pending", "banned"), Level: i % 4,
			}
			if err := tx.InsertUser(ctx, &u); err != nil {
				return err
			}
			for n := range i % 3 { // several profiles of one user; only closed ones may be many
				first, last, country := pick(i+n, "Anna", "Otto"), pick(i*n, "Smith", "jones", ""), pick(i+2*n, "UA", "DE", "ua")
				p := db.Profile{UserID: u.ID, FirstName: &first, LastName: &last, Country: &country, State: db.ProfileRejected}
				if err := tx.InsertProfile(ctx, &p); err != nil {
					return err
				}
				dir.profiles = append(dir.profiles, p)
			}
			for n, scope := range []string{"private", "public"} {
				if i%(n+2) != 0 {
					continue
				}
				l := db.Label{UserID: u.ID, Key: "document", Value: pick(i/2, "pending", "verified", "replaced"), Scope: scope}
				if err := tx.InsertLabel(ctx, &l); err != nil {
					return err
				}
				dir.labels = append(dir.labels, l)
			}
			dir.users = append(dir.users, u)
			return nil
		}))
	}
	clock = clock.Add(time.Hour)
	// Those who wait longest are not those who came first.
	for i := range dir.labels {
		if i%3 != 0 {
			continue
		}
		clock = clock.Add(-time.Minute)
		check(d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error { return tx.UpdateLabel(ctx, &dir.labels[i]) }))
	}
	return dir
}

func (d *directory) fits(f *db.UserFilter, u *db.User) bool {
	is := func(want *string, got string) bool { return want == nil || *want == got }
	alike := func(want *string, got string) bool { return want == nil || strings.EqualFold(*want, got) }
	at := u.CreatedAt.Unix()
	if f.Updated {
		at = u.UpdatedAt.Unix()
	}
	if !is(f.UID, u.UID) || !is(f.Role, u.Role) || !is(f.State, u.State) ||
		f.Email != nil && db.NormalEmail(*f.Email) != u.Email || f.Level != nil && *f.Level != int64(u.Level) ||
		f.From != nil && at < *f.From || f.To != nil && at > *f.To {
		return false
	}
	if f.FirstName == nil && f.LastName == nil && f.Country == nil {
		return true
	}
	return slices.ContainsFunc(d.profiles, func(p db.Profile) bool {
		return p.UserID == u.ID && alike(f.FirstName, *p.FirstName) && alike(f.LastName, *p.LastName) && alike(f.Country, *p.Country)
	})
}

// pageOf is a page of rows as the model cuts it.
func pageOf(users []db.User, p db.Page) []int64 {
	ids := []int64{}
	for i := (p.Number - 1) * p.Size; i >= 0 && i < min(len(users), p.Number*p.Size); i++ {
		ids = append(ids, users[i].ID)
	}
	return ids
}

func ids(users []db.User) []int64 {
	out := []int64{}
	for i := range users {
		out = append(out, users[i].ID)
	}
	return out
}

func drawFilter(r *rapid.T, d *directory) db.UserFilter {
	var f db.UserFilter
	word := func(name string, words ...string) *string {
		if rapid.IntRange(0, 3).Draw(r, name+" given") > 0 {
			return nil
		}
		w := rapid.SampledFrom(words).Draw(r, name)
		return &w
	}
	second := func(name string) *int64 {
		if rapid.IntRange(0, 3).Draw(r, name+" given") > 0 {
			return nil
		}
		base := rapid.SampledFrom(d.users).Draw(r, name+" about").CreatedAt.Unix()
		const week = 7 * 24 * 60 * 60
		n := rapid.OneOf(
			rapid.Int64Range(base-2, base+5),
			rapid.Custom(func(r *rapid.T) int64 { // about the ends of weeks
				return (base/week+rapid.Int64Range(-1, 1).Draw(r, "week"))*week + rapid.Int64Range(-1, 1).Draw(r, "second")
			}),
			rapid.Int64Range(-2, 2), rapid.Int64(),
		).Draw(r, name)
		return &n
	}
	f.UID = word("uid", "ID0001", "ID0002", "", "' OR 1=1 --", `\`)
	f.Email = word("email", "user1@example.com", " USER3@example.com", "nobody")
	f.Role = word("role", "member", "admin", "MEMBER")
	f.State = word("state", "active", "pending", "banned", "")
	f.FirstName = word("first name", "Anna", "OTTO", "anna?")
	f.LastName = word("last name", "Smith", "Jones", "")
	f.Country = word("country", "UA", "de", "Ua", "XX")
	f.From, f.To = second("from"), second("to")
	f.Updated = rapid.Bool().Draw(r, "updated")
	if rapid.Bool().Draw(r, "level given") {
		n := rapid.SampledFrom([]int64{0, 1, 3, -1, 1 << 62}).Draw(r, "level")
		f.Level = &n
	}
	return f
}

func directories(t *testing.T, test func(t *testing.T, d *directory)) {
	t.Helper()
	for _, engine := range dbtest.Engines {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			test(t, newDirectory(t, engine))
		})
	}
}

// TestFindUsers holds the lists for staff to a walk over all rows.
func TestFindUsers(t *testing.T) {
	directories(t, func(t *testing.T, d *directory) {
		rapid.Check(t, func(r *rapid.T) {
			f := drawFilter(r, d)
			page := db.Page{Number: rapid.SampledFrom([]int{1, 1, 2, 5, 1 << 40}).Draw(r, "page"), Size: rapid.OneOf(rapid.IntRange(1, 9), rapid.IntRange(1, 100)).Draw(r, "size")}
			var all []db.User
			for i := range d.users {
				if d.fits(&f, &d.users[i]) {
					all = append(all, d.users[i])
				}
			}
			got, total, err := d.db.FindUsers(t.Context(), f, page)
			if err != nil {
				r.Fatal(err)
			}
			if want := pageOf(all, page); int(total) != len(all) || !slices.Equal(ids(got), want) {
				r.Fatalf("got %v of %d, want %v of %d", ids(got), total, want, len(all))
			}

			// Those who wait, by the change of the label.
			type waiting struct {
				user  db.User
				since time.Time
			}
			var queue []waiting
			for _, l := range d.labels {
				if l.Scope != "private" || l.Value == "verified" {
					continue
				}
				i := slices.IndexFunc(all, func(u db.User) bool { return u.ID == l.UserID })
				if i >= 0 {
					queue = append(queue, waiting{all[i], l.UpdatedAt})
				}
			}
			slices.SortFunc(queue, func(a, b waiting) int {
				return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.user.ID, b.user.ID))
			})
			all = nil
			for _, w := range queue {
				all = append(all, w.user)
			}
			got, total, err = d.db.FindPendingUsers(t.Context(), f, page)
			if err != nil {
				r.Fatal(err)
			}
			if want := pageOf(all, page); int(total) != len(all) || !slices.Equal(ids(got), want) {
				r.Fatalf("waiting: got %v of %d, want %v of %d", ids(got), total, want, len(all))
			}
		})
	})
}

func TestFindUsersByLabel(t *testing.T) {
	directories(t, func(t *testing.T, d *directory) {
		private, public := "private", "public"
		for _, scope := range []*string{nil, &private, &public} {
			for _, value := range []string{"pending", "verified", "nothing"} {
				var all []db.User
				for _, u := range d.users {
					if slices.ContainsFunc(d.labels, func(l db.Label) bool {
						return l.UserID == u.ID && l.Value == value && (scope == nil || l.Scope == *scope)
					}) {
						all = append(all, u)
					}
				}
				for _, page := range []db.Page{{Number: 1, Size: 100}, {Number: 2, Size: 3}, {Number: 99, Size: 3}} {
					got, total, err := d.db.FindUsersByLabel(t.Context(), "document", value, scope, page)
					if err != nil {
						t.Fatal(err)
					}
					if want := pageOf(all, page); int(total) != len(all) || !slices.Equal(ids(got), want) {
						t.Errorf("%s %v: got %v of %d, want %v of %d", value, page, ids(got), total, want, len(all))
					}
				}
			}
		}
	})
}

func TestLabelCounts(t *testing.T) {
	directories(t, func(t *testing.T, d *directory) {
		want := map[string]int64{}
		for _, l := range d.labels {
			if l.Scope == "private" {
				want[l.Value]++
			}
		}
		got, err := d.db.LabelCounts(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want) || !slices.IsSortedFunc(got, func(a, b db.LabelCount) int { return cmp.Compare(a.Value, b.Value) }) {
			t.Errorf("got %v, want %v", got, want)
		}
		for _, c := range got {
			if c.Key != "document" || c.Count != want[c.Value] {
				t.Errorf("%s:%s: got %d, want %d", c.Key, c.Value, c.Count, want[c.Value])
			}
		}
	})
}
