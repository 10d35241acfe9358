package db_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"barong/db"
	"barong/internal/test/dbtest"

	"pgregory.net/rapid"
)

// bothEngines runs a test on a fresh, migrated database of each engine.
func bothEngines(t *testing.T, run func(t *testing.T, d *db.DB)) {
	t.Helper()
	dbtest.Each(t, run)
}

func update(t testing.TB, d *db.DB, f func(ctx context.Context, tx *db.Tx) error) {
	t.Helper()
	if err := d.Update(context.Background(), f); err != nil {
		t.Fatal(err)
	}
}

func insertActivities(t testing.TB, d *db.DB, rows ...db.Activity) {
	t.Helper()
	update(t, d, func(ctx context.Context, tx *db.Tx) error {
		for part := range slices.Chunk(rows, 500) {
			if err := tx.InsertActivities(ctx, part...); err != nil {
				return err
			}
		}
		return nil
	})
}

func insertUser(t testing.TB, d *db.DB, uid, email string) *db.User {
	t.Helper()
	u := &db.User{UID: uid, Email: email, PasswordDigest: "x", Role: "member", State: "active"}
	update(t, d, func(ctx context.Context, tx *db.Tx) error { return tx.InsertUser(ctx, u) })
	return u
}

func at(text string) time.Time {
	when, err := time.Parse("2006-01-02 15:04:05", text)
	if err != nil {
		panic(err)
	}
	return when
}

func ref[T any](v T) *T { return &v }

func idsOf(rows []db.Activity) []int64 {
	out := []int64{}
	for _, r := range rows {
		out = append(out, r.ID)
	}
	return out
}

func TestActivities(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		ann, bob := insertUser(t, d, "ID0000000001", "ann@example.com"), insertUser(t, d, "ID0000000002", "bob@example.com")
		row := func(u *db.User, category, topic, action, result, when, target string) db.Activity {
			a := db.Activity{
				UserID: u.ID, Category: category, Topic: topic, Action: action, Result: result, CreatedAt: at(when),
				UserIP: "1.2.3.4", UserAgent: "curl", Data: ref(`{"a":1}`),
			}
			if target != "" {
				a.TargetUID = &target
			}
			return a
		}
		insertActivities(t, d,
			row(ann, "user", "session", "login", "succeed", "2026-01-01 10:00:00", ""),
			row(ann, "user", "session", "login", "failed", "2026-01-01 23:59:59", ""),
			row(bob, "user", "session", "login::2fa", "succeed", "2026-01-02 00:00:00", ""),
			row(bob, "user", "password", "password change", "succeed", "2026-01-03 12:00:00", ""),
			row(bob, "admin", "users", "update", "succeed", "2026-01-03 12:00:01", ann.UID),
			row(ann, "admin", "users", "read", "denied", "2026-01-04 00:00:00", "nobody"),
			row(ann, "admin", "general", "read", "denied", "2026-01-04 00:00:01", ""),
		)
		for _, tc := range []struct {
			name string
			f    db.ActivityFilter
			want []int64
		}{
			{"user", db.ActivityFilter{Category: "user"}, []int64{4, 3, 2, 1}},
			{"admin", db.ActivityFilter{Category: "admin"}, []int64{7, 6, 5}},
			{"topic", db.ActivityFilter{Category: "user", Topic: ref("session")}, []int64{3, 2, 1}},
			{"topic of another category", db.ActivityFilter{Category: "user", Topic: ref("users")}, nil},
			{"topic of admin", db.ActivityFilter{Category: "admin", Topic: ref("users")}, []int64{6, 5}},
			{"empty topic", db.ActivityFilter{Category: "user", Topic: ref("")}, nil},
			{"action", db.ActivityFilter{Category: "user", Action: ref("login")}, []int64{2, 1}},
			{"action of admin", db.ActivityFilter{Category: "admin", Action: ref("read")}, []int64{7, 6}},
			{"result", db.ActivityFilter{Category: "user", Result: ref("failed")}, []int64{2}},
			{"result of admin", db.ActivityFilter{Category: "admin", Result: ref("denied")}, []int64{7, 6}},
			{"uid", db.ActivityFilter{Category: "user", UID: &ann.UID}, []int64{2, 1}},
			{"unknown uid", db.ActivityFilter{Category: "user", UID: ref("ID9999999999")}, nil},
			{"email", db.ActivityFilter{Category: "user", Email: ref("BOB@example.com")}, []int64{4, 3}},
			{"uid and email of two people", db.ActivityFilter{Category: "user", UID: &ann.UID, Email: &bob.Email}, nil},
			{"id and uid of two people", db.ActivityFilter{Category: "user", UserID: bob.ID, UID: &ann.UID}, nil},
			{"id", db.ActivityFilter{Category: "user", UserID: bob.ID}, []int64{4, 3}},
			{"target", db.ActivityFilter{Category: "admin", TargetUID: &ann.UID}, []int64{5}},
			{"target that nobody is", db.ActivityFilter{Category: "admin", TargetUID: ref("nobody")}, []int64{6}},
			{"from", db.ActivityFilter{Category: "user", From: ref(at("2026-01-02 00:00:00").Unix())}, []int64{4, 3}},
			{"to", db.ActivityFilter{Category: "user", To: ref(at("2026-01-01 23:59:59").Unix())}, []int64{2, 1}},
			{"from and to are inclusive", db.ActivityFilter{
				Category: "user", From: ref(at("2026-01-01 23:59:59").Unix()), To: ref(at("2026-01-02 00:00:00").Unix()),
			}, []int64{3, 2}},
			{"backwards", db.ActivityFilter{Category: "user", From: ref(int64(5)), To: ref(int64(4))}, nil},
			{"out of all time", db.ActivityFilter{Category: "user", From: ref(int64(-1 << 63)), To: ref(int64(1<<63 - 1))}, []int64{4, 3, 2, 1}},
			{"together", db.ActivityFilter{
				Category: "user", Topic: ref("session"), Action: ref("login"), Result: ref("succeed"), From: ref(int64(0)), To: ref(at("2026-02-01 00:00:00").Unix()),
			}, []int64{1}},
			{"user in time", db.ActivityFilter{Category: "user", UserID: ann.ID, Topic: ref("session"), From: ref(at("2026-01-01 12:00:00").Unix())}, []int64{2}},
		} {
			rows, total, err := d.Activities(t.Context(), tc.f, db.Page{Number: 1, Size: 100})
			if err != nil {
				t.Fatalf("%s: %v", tc.name, err)
			}
			if got := idsOf(rows); !slices.Equal(got, tc.want) || total != int64(len(tc.want)) {
				t.Errorf("%s: got %v of %d, want %v", tc.name, got, total, tc.want)
			}
		}
		rows, total, err := d.Activities(t.Context(), db.ActivityFilter{Category: "user"}, db.Page{Number: 2, Size: 3})
		if err != nil || !slices.Equal(idsOf(rows), []int64{1}) || total != 4 {
			t.Errorf("second page: got %v of %d, %v", idsOf(rows), total, err)
		}
		rows, total, err = d.Activities(t.Context(), db.ActivityFilter{Category: "user"}, db.Page{Number: 9, Size: 3})
		if err != nil || len(rows) != 0 || total != 4 {
			t.Errorf("past the end: got %v of %d, %v", idsOf(rows), total, err)
		}
	})
}

// TestActivityPagesAreExact: whatever is inserted, deleted and asked for, the total is how many rows there are, and a page
// is what stands at its place, newest first.
func TestActivityPagesAreExact(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		first := at("2026-03-01 00:00:00").Unix()
		genTime := rapid.Custom(func(t *rapid.T) int64 { // around midnights
			return first + 86400*rapid.Int64Range(0, 4).Draw(t, "day") + rapid.Int64Range(-2, 2).Draw(t, "second")
		})
		genRow := rapid.Custom(func(t *rapid.T) db.Activity {
			return db.Activity{
				UserID: 1, UserIP: "::1", UserAgent: "x", CreatedAt: time.Unix(genTime.Draw(t, "created"), 0).UTC(),
				Category: rapid.SampledFrom([]string{"user", "admin"}).Draw(t, "category"),
				Topic:    rapid.SampledFrom([]string{"session", "otp"}).Draw(t, "topic"),
				Action:   rapid.SampledFrom([]string{"login", "logout"}).Draw(t, "action"),
				Result:   rapid.SampledFrom([]string{"succeed", "failed", "denied"}).Draw(t, "result"),
			}
		})
		var kept []db.Activity
		rapid.Check(t, func(rt *rapid.T) {
			if rows := rapid.SliceOfN(genRow, 0, 5).Draw(rt, "rows"); len(rows) > 0 {
				insertActivities(t, d, rows...)
				kept = append(kept, rows...)
			}
			if rapid.IntRange(0, 9).Draw(rt, "delete") == 0 {
				result := rapid.SampledFrom([]string{"succeed", "denied"}).Draw(rt, "which")
				update(t, d, func(ctx context.Context, tx *db.Tx) error {
					_, err := tx.NewDelete().Table("activities").Where("result = ?", result).Exec(ctx)
					return err
				})
				kept = slices.DeleteFunc(kept, func(a db.Activity) bool { return a.Result == result })
			}
			f := db.ActivityFilter{Category: rapid.SampledFrom([]string{"user", "admin"}).Draw(rt, "category")}
			pick := func(name string, values ...string) *string {
				if i := rapid.IntRange(0, len(values)).Draw(rt, name); i > 0 {
					return &values[i-1]
				}
				return nil
			}
			f.Topic, f.Action, f.Result = pick("topic", "session", "otp"), pick("action", "login", "logout"), pick("result", "succeed", "failed", "denied")
			if rapid.Bool().Draw(rt, "from?") {
				f.From = ref(genTime.Draw(rt, "from"))
			}
			if rapid.Bool().Draw(rt, "to?") {
				f.To = ref(genTime.Draw(rt, "to"))
			}
			if rapid.IntRange(0, 4).Draw(rt, "every category") == 0 {
				f.Category = ""
			}
			var want []db.Activity
			for _, a := range kept {
				if (f.Category == "" || a.Category == f.Category) && (f.Topic == nil || a.Topic == *f.Topic) && (f.Action == nil || a.Action == *f.Action) &&
					(f.Result == nil || a.Result == *f.Result) && (f.From == nil || a.CreatedAt.Unix() >= *f.From) &&
					(f.To == nil || a.CreatedAt.Unix() <= *f.To) {
					want = append(want, a)
				}
			}
			slices.SortFunc(want, func(a, b db.Activity) int {
				return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.ID, a.ID))
			})
			page := db.Page{
				Number: rapid.IntRange(1, 5).Draw(rt, "page"), Size: rapid.SampledFrom([]int{1, 2, 3, 7, 20, 100_000}).Draw(rt, "size"),
			}
			wanted := want[min((page.Number-1)*page.Size, len(want)):min(page.Number*page.Size, len(want))]
			rows, total, err := d.Activities(context.Background(), f, page)
			if err != nil || total != int64(len(want)) || !slices.Equal(idsOf(rows), idsOf(wanted)) {
				rt.Fatalf("%+v: got %v of %d, %v, want %v of %d", page, idsOf(rows), total, err, idsOf(wanted), len(want))
			}
		})
	})
}

func TestMetrics(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		row := func(topic, action, result, when string) db.Activity {
			return db.Activity{UserID: 1, Category: "user", Topic: topic, Action: action, Result: result, CreatedAt: at(when), UserIP: "::1"}
		}
		u := insertUser(t, d, "ID0000000001", "ann@example.com")
		insertActivities(t, d,
			row("account", "signup", "succeed", "2026-01-01 10:00:00"),
			row("account", "signup", "failed", "2026-01-01 10:00:00"),
			row("session", "login", "succeed", "2026-01-01 00:00:00"),
			row("session", "login::2fa", "succeed", "2026-01-01 23:59:59"),
			row("session", "login::2fa", "succeed", "2026-01-03 00:00:00"),
			row("session", "login", "failed", "2026-01-03 00:00:00"),
			row("session", "logout", "succeed", "2026-01-03 00:00:00"),
			row("session", "login::2fa", "failed", "2026-01-03 23:00:00"),
			db.Activity{UserID: 1, Category: "admin", Topic: "session", Action: "login", Result: "succeed", CreatedAt: at("2026-01-05 00:00:00")},
		)
		update(t, d, func(ctx context.Context, tx *db.Tx) error {
			for _, scope := range []string{"private", "public"} {
				if err := tx.InsertLabel(ctx, &db.Label{UserID: u.ID, Key: "document", Value: "pending", Scope: scope}); err != nil {
					return err
				}
			}
			return nil
		})
		show := func(m map[string]int64) string {
			var out []string
			for _, day := range slices.Sorted(maps.Keys(m)) {
				out = append(out, fmt.Sprintf("%s %d", day, m[day]))
			}
			return strings.Join(out, ", ")
		}
		for _, tc := range []struct {
			name                    string
			from, to                *int64
			signups, logins, failed string
		}{
			{"ever", nil, nil, "2026-01-01 1", "2026-01-01 2, 2026-01-03 1", "2026-01-03 2"},
			{"part of a day", ref(at("2026-01-01 12:00:00").Unix()), ref(at("2026-01-03 12:00:00").Unix()), "", "2026-01-01 1, 2026-01-03 1", "2026-01-03 1"},
			{"one second", ref(at("2026-01-01 00:00:00").Unix()), ref(at("2026-01-01 00:00:00").Unix()), "", "2026-01-01 1", ""},
			{"nothing", ref(int64(9)), ref(int64(8)), "", "", ""},
		} {
			m, err := d.Metrics(t.Context(), tc.from, tc.to)
			if err != nil {
				t.Fatal(err)
			}
			if show(m.SignUps) != tc.signups || show(m.Logins) != tc.logins || show(m.FailedLogins) != tc.failed || m.Pending != 1 {
				t.Errorf("%s: got %+v", tc.name, m)
			}
		}
	})
}

func TestExportAndDelete(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		ann := insertUser(t, d, "ID0000000001", "ann@example.com")
		rows := make([]db.Activity, 0, 2600)
		for i := range 2600 {
			a := db.Activity{
				UserID: ann.ID, Category: "user", Topic: "session", Action: "login", Result: "succeed", UserIP: "::1", UserAgent: "a\n\"<b>",
				CreatedAt: at("2026-01-01 00:00:00").Add(time.Duration(i) * time.Minute),
			}
			switch {
			case i%100 == 0:
				a.Category, a.UserID, a.Data, a.TargetUID, a.UserIPCountry = "admin", 77, ref(`{"x":[1, 2]}`), ref("ID1"), ref("UA")
			case i%100 == 1:
				a.Data = ref("no JSON")
			}
			rows = append(rows, a)
		}
		insertActivities(t, d, rows...)
		var out bytes.Buffer
		n, err := d.ExportActivities(t.Context(), &out, db.ActivityFilter{})
		if err != nil || n != 2600 {
			t.Fatalf("exported %d, %v", n, err)
		}
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if len(lines) != 2600 {
			t.Fatalf("got %d lines", len(lines))
		}
		for i, want := range []string{
			`{"id":1,"created_at":"2026-01-01T00:00:00Z","category":"admin","user_id":77,"target_uid":"ID1","user_ip":"::1","user_ip_country":"UA","user_agent":"a\n\"<b>","topic":"session","action":"login","result":"succeed","count":1,"data":{"x":[1,2]}}`,
			`{"id":2,"created_at":"2026-01-01T00:01:00Z","category":"user","user_id":1,"uid":"ID0000000001","email":"ann@example.com","target_uid":null,"user_ip":"::1","user_ip_country":null,"user_agent":"a\n\"<b>","topic":"session","action":"login","result":"succeed","count":1,"data":"no JSON"}`,
		} {
			if lines[i] != want {
				t.Errorf("line %d:\n got %s\nwant %s", i+1, lines[i], want)
			}
		}
		for i, line := range lines {
			var e struct{ ID int64 }
			if err := json.Unmarshal([]byte(line), &e); err != nil || e.ID != int64(i+1) {
				t.Fatalf("line %d: %v, %s", i+1, err, line)
			}
		}
		out.Reset()
		n, err = d.ExportActivities(t.Context(), &out, db.ActivityFilter{
			Category: "admin", From: ref(at("2026-01-01 01:00:00").Unix()), To: ref(at("2026-01-01 05:00:00").Unix()),
		})
		if err != nil || n != 3 || strings.Count(out.String(), "\n") != 3 {
			t.Errorf("exported %d, %v", n, err)
		}
		old := make([]int64, 36*60)
		for i := range old {
			old[i] = int64(i + 1)
		}
		purge := func(want int64) {
			t.Helper()
			update(t, d, func(ctx context.Context, tx *db.Tx) error {
				n, err := tx.DeleteActivities(ctx, old)
				if n != want {
					t.Errorf("deleted %d", n)
				}
				return err
			})
		}
		purge(36 * 60)
		for category, want := range map[string]int64{"user": 2600 - 26 - (36*60 - 22), "admin": 26 - 22} {
			got, total, err := d.Activities(t.Context(), db.ActivityFilter{Category: category}, db.Page{Number: 1, Size: 5000})
			if err != nil || total != want || int64(len(got)) != want {
				t.Errorf("%s: %d rows, total %d, %v, want %d", category, len(got), total, err, want)
			}
		}
		var days int
		if err := d.Bun().NewSelect().Table("activity_tallies").ColumnExpr("coalesce(sum(count), 0)").Where("day < '2026-01-02'").Scan(t.Context(), &days); err != nil || days != 0 {
			t.Errorf("%d activities are counted on purged days, %v", days, err)
		}
		purge(0)
	})
}

// TestCountsOfRowsFromBefore: the migration counts what is there already.
func TestCountsOfRowsFromBefore(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		insertActivities(t, d, db.Activity{UserID: 1, Category: "user", Topic: "otp", Action: "x", Result: "failed", UserIP: "::1"})
		back, err := d.MigrateDown(t.Context())
		for err == nil && back[0].Version > 2 {
			back, err = d.MigrateDown(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		// As a program of that time writes it, without the columns of later ones.
		before := db.Activity{UserID: 1, Category: "user", Topic: "otp", Action: "x", Result: "failed", UserIP: "::1", CreatedAt: time.Now()}
		if _, err := d.Bun().NewInsert().Model(&before).ExcludeColumn("request_id").Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := d.MigrateUp(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, total, err := d.Activities(t.Context(), db.ActivityFilter{Category: "user", Topic: ref("otp")}, db.Page{Number: 1, Size: 1})
		if err != nil || total != 2 {
			t.Errorf("got %d, %v, want 2", total, err)
		}
	})
}
