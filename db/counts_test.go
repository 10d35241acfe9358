package db_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"barong/db"
	"barong/db/counts"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/uptrace/bun"
)

// A tally is a row of the counts behind the lists: what is counted, and how often.
func tallies(t *testing.T, d *db.DB) map[string]int64 {
	t.Helper()
	out := map[string]int64{}
	for _, query := range []string{
		"SELECT 'user ' || facet || ' ' || value || ' ' || role || ' ' || state || ' ' || level || ' ' || block AS name, sum(count) AS count FROM user_tallies GROUP BY 1",
		"SELECT 'label ' || key || ' ' || value || ' ' || scope || ' ' || block AS name, sum(count) AS count FROM label_tallies GROUP BY 1",
		"SELECT 'activity ' || category || ' ' || topic || ' ' || action || ' ' || result || ' ' || day AS name, sum(count) AS count FROM activity_tallies GROUP BY 1",
	} {
		var rows []struct {
			Name  string
			Count int64
		}
		if err := d.Bun().NewRaw(query).Scan(t.Context(), &rows); err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			if r.Count != 0 {
				out[r.Name] = r.Count
			}
		}
	}
	return out
}

// recount counts the rows themselves.
func recount(t *testing.T, d *db.DB) map[string]int64 {
	t.Helper()
	read := func(rows any) {
		t.Helper()
		if err := d.Bun().NewSelect().Model(rows).Scan(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	var (
		users      []db.User
		labels     []db.Label
		activities []db.Activity
		profiles   []struct {
			bun.BaseModel `bun:"table:profiles"`
			ID, UserID    int64
			Country       *string
		}
	)
	read(&users)
	read(&labels)
	read(&activities)
	read(&profiles)
	countries := map[int64]map[string]bool{}
	for _, p := range profiles {
		if p.Country != nil {
			if countries[p.UserID] == nil {
				countries[p.UserID] = map[string]bool{}
			}
			countries[p.UserID][*p.Country] = true
		}
	}
	out := map[string]int64{}
	for _, u := range users {
		count := func(facet, value string) {
			out[fmt.Sprintf("user %s %s %s %s %d %d", facet, value, u.Role, u.State, u.Level, u.ID/16384)]++
		}
		week := func(t time.Time) string { return fmt.Sprintf("%04d", t.Unix()/(7*24*60*60)) }
		count("", "")
		count("created", week(u.CreatedAt))
		count("updated", week(u.UpdatedAt))
		for c := range countries[u.ID] {
			count("country", c)
			count("country created", c+"/"+week(u.CreatedAt))
			count("country updated", c+"/"+week(u.UpdatedAt))
		}
	}
	for _, p := range profiles {
		out[fmt.Sprintf("user profiles    0 %d", p.ID/16384)]++
	}
	anyScope := map[string]bool{}
	for _, l := range labels {
		if who := fmt.Sprint(l.UserID, l.Key, l.Value); !anyScope[who] {
			anyScope[who] = true
			out[fmt.Sprintf("label %s %s * %d", l.Key, l.Value, l.UserID/16384)]++
		}
		out[fmt.Sprintf("label %s %s %s %d", l.Key, l.Value, l.Scope, l.UserID/16384)]++
	}
	for _, a := range activities {
		if a.Result == "denied" {
			a.Topic, a.Action = "", ""
		}
		out[fmt.Sprintf("activity %s %s %s %s %s", a.Category, a.Topic, a.Action, a.Result, a.CreatedAt.UTC().Format(time.DateOnly))]++
	}
	return out
}

func compareCounts(t *testing.T, d *db.DB, when string) {
	t.Helper()
	got, want := tallies(t, d), recount(t, d)
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			t.Errorf("%s: %s: counted %d, want %d", when, name, got[name], want[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if want[name] == 0 {
			t.Errorf("%s: %s: counted %d, want none", when, name, got[name])
		}
	}
	// What is copied for the filters is what it is copied from.
	const owner = "u.id, u.role, u.state, u.level, u.created_at, u.updated_at"
	for copied, from := range map[string]string{
		"SELECT profile_id, first_name_index, last_name_index, country, user_id, role, state, level, created_at, updated_at FROM profile_facts": "SELECT p.id, p.first_name_index, p.last_name_index, p.country, " + owner + " FROM profiles AS p JOIN users AS u ON u.id = p.user_id",
		"SELECT label_id, since, user_id, role, state, level, created_at, updated_at FROM document_queue": "SELECT l.id, l.updated_at, " + owner + " FROM labels AS l JOIN users AS u ON u.id = l.user_id" +
			" WHERE l.scope = 'private' AND l.key = 'document' AND l.value IN ('pending', 'replaced')",
	} {
		for _, query := range []string{copied + " EXCEPT " + from, from + " EXCEPT " + copied} {
			var n int64
			if err := d.Bun().NewRaw("SELECT count(*) FROM ("+query+") AS wrong").Scan(t.Context(), &n); err != nil || n > 0 {
				t.Errorf("%s: %d rows of %s, %v", when, n, query, err)
			}
		}
	}
}

// randomChange changes one or several rows of what is counted, in one statement.
func randomChange(ctx context.Context, tx *db.Tx, r *rand.Rand) error {
	pick := func(words ...string) string { return words[r.IntN(len(words))] }
	exec := func(query string, args ...any) error { _, err := tx.NewRaw(query, args...).Exec(ctx); return err }
	when := func() time.Time {
		return time.Date(2026, 1, 1+r.IntN(40), r.IntN(24), 0, r.IntN(60), 0, time.UTC)
	}
	some := func() int { return r.IntN(40) } // a share of the ids
	country := func() *string {
		if r.IntN(4) == 0 {
			return nil
		}
		return ref(pick("UA", "DE", ""))
	}
	switch r.IntN(13) {
	case 0, 1:
		var users []db.User
		for range 1 + r.IntN(3) {
			n := r.Int64N(1 << 40)
			users = append(users, db.User{
				ID: 1 + n%50_000, UID: fmt.Sprint("ID", n), Email: fmt.Sprint(n, "@example.com"), Role: pick("member", "admin"),
				State: pick("active", "pending"), Level: r.IntN(3), CreatedAt: when(), UpdatedAt: when(),
			})
		}
		_, err := tx.NewInsert().Model(&users).On("CONFLICT DO NOTHING").Exec(ctx)
		return err
	case 2:
		return exec("UPDATE users SET state = ?, level = ? WHERE id % 40 = ?", pick("active", "pending", "banned"), r.IntN(3), some())
	case 3:
		return exec("UPDATE users SET updated_at = ?, role = ? WHERE id % 40 < ?", when(), pick("member", "admin"), r.IntN(3))
	case 4:
		return exec("UPDATE users SET data = '{}' WHERE id % 40 = ?", some()) // nothing that is counted
	case 5:
		if r.IntN(4) > 0 {
			return nil
		}
		return exec("DELETE FROM users WHERE id % 40 = ?", some()) // and what belongs to them
	case 6, 7: // one or two profiles of some users
		return exec("INSERT INTO profiles (user_id, first_name_index, country, state, created_at, updated_at)"+
			" SELECT id, 'a', CASE WHEN c = 1 THEN ? ELSE ? END, 4, ?, ? FROM users, (SELECT 1 AS c UNION ALL SELECT 2) AS n WHERE id % 40 = ? AND c <= ?",
			country(), country(), when(), when(), some(), 1+r.IntN(2))
	case 8:
		if r.IntN(2) == 0 {
			return exec("UPDATE profiles SET last_name_index = ?, first_name_index = ? WHERE (user_id + id) % 40 = ?", country(), country(), some())
		}
		return exec("UPDATE profiles SET country = ? WHERE (user_id + id) % 40 = ?", country(), some())
	case 9:
		return exec("DELETE FROM profiles WHERE (user_id + id) % 40 = ?", some())
	case 10:
		return exec("INSERT INTO labels (user_id, key, value, scope, created_at, updated_at)"+
			" SELECT id, ?, ?, ?, ?, ? FROM users WHERE id % 40 = ? ON CONFLICT DO NOTHING",
			pick("email", "document"), pick("verified", "pending"), pick("private", "public"), when(), when(), some())
	case 11:
		if r.IntN(2) == 0 {
			return exec("DELETE FROM labels WHERE id % 40 = ?", some())
		}
		return exec("UPDATE labels SET value = ?, updated_at = ? WHERE id % 40 = ?", pick("verified", "pending", "replaced"), when(), some())
	}
	if r.IntN(4) == 0 {
		return exec("DELETE FROM activities WHERE id % 40 = ?", some())
	}
	var rows []db.Activity
	for range 1 + r.IntN(3) {
		rows = append(rows, db.Activity{
			UserID: 1, Category: pick("user", "admin"), Topic: pick("session", "otp"), Action: pick("login", "logout"),
			Result: pick("succeed", "failed", "denied"), CreatedAt: when(),
		})
	}
	return tx.InsertActivities(ctx, rows...)
}

// repairs holds that what differs from the rows is told, and mended.
func repairs(t *testing.T, d *db.DB) {
	t.Helper()
	compare := func(when string, want ...counts.Difference) {
		t.Helper()
		if got, err := d.CompareCounts(t.Context()); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %+v, %v, want %+v", when, got, err, want)
		}
	}
	compare("after changes")
	past := []string{ // the triggers
		"DELETE FROM user_counts WHERE facet = ''",
		"INSERT INTO label_counts (key, value, scope, block, count) VALUES ('x', 'y', 'private', 0, 2)",
		"INSERT INTO activity_counts (category, topic, action, result, day, count) VALUES ('user', 'x', 'y', 'failed', '2026-01-01', 2)",
		"UPDATE profile_facts SET role = 'nobody'",
		"DELETE FROM document_queue",
	}
	if !d.SQLite() {
		past = append(past, "SET LOCAL session_replication_role = replica",
			"INSERT INTO users (id, uid, email, password_digest, role, state, level, created_at, updated_at)"+
				" VALUES (60001, 'IDPAST', 'past@example.com', 'x', 'member', 'active', 1, '2026-01-01', '2026-01-01')")
	}
	update(t, d, func(ctx context.Context, tx *db.Tx) error {
		for _, query := range past {
			if _, err := tx.ExecContext(ctx, query); err != nil {
				return err
			}
		}
		return nil
	})
	found, err := d.CompareCounts(t.Context())
	var tables []string
	for _, f := range found {
		tables = append(tables, f.Table)
		if f.Rows <= 0 {
			t.Errorf("%+v", f)
		}
	}
	if want := []string{"user_counts", "label_counts", "activity_counts", "profile_facts", "document_queue"}; err != nil || !slices.Equal(tables, want) {
		t.Errorf("past the triggers: %+v, %v, want %q", found, err, want)
	}
	if err := d.RebuildCounts(t.Context()); err != nil {
		t.Fatal(err)
	}
	compare("after the repair")
	compareCounts(t, d, "after the repair")
}

// TestCountsFollowEveryChange: whatever is done to the rows, by whom and in how many transactions at once, the counts are
// those of the rows that are there.
func TestCountsFollowEveryChange(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		const writers, steps = 4, 80
		failed := make(chan error, writers)
		for w := range writers {
			go func() {
				r := rand.New(rand.NewPCG(7, uint64(w)))
				var err error
				for range steps {
					err = d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
						for range 1 + r.IntN(4) {
							if err := randomChange(ctx, tx, r); err != nil {
								return err
							}
						}
						if r.IntN(20) == 0 {
							return errAbandoned
						}
						return nil
					})
					// Somebody else deleted the user, or won again and again: then nothing has happened, which is fine.
					var pg *pgconn.PgError
					if err != nil && err != errAbandoned && (!errors.As(err, &pg) || pg.Code != "23503" && pg.Code != "40P01") {
						break
					}
					err = nil
				}
				failed <- err
			}()
		}
		for range writers {
			if err := <-failed; err != nil {
				t.Fatal(err)
			}
		}
		compareCounts(t, d, "after changes")
		if !d.SQLite() {
			// Changes do not pile up, and what counts zero is gone.
			for table, most := range map[string]int64{"user_count_changes": 5000, "user_counts WHERE count <= 0": 0} {
				var n int64
				if err := d.Bun().NewRaw("SELECT count(*) FROM "+table).Scan(t.Context(), &n); err != nil || n > most {
					t.Errorf("%s: %d rows, %v, want at most %d", table, n, err, most)
				}
			}
		}

		repairs(t, d)

		// The migration counts what is there.
		for {
			back, err := d.MigrateDown(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if back[0].Version == 3 { // which counts were first made in
				break
			}
		}
		if _, err := d.MigrateUp(t.Context()); err != nil {
			t.Fatal(err)
		}
		compareCounts(t, d, "after the migration")
		if !d.SQLite() {
			if _, err := d.Bun().ExecContext(t.Context(), "TRUNCATE users, activities CASCADE"); err != nil {
				t.Fatal(err)
			}
			compareCounts(t, d, "after TRUNCATE")
		}
	})
}

var errAbandoned = errors.New("abandoned")
