package db_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"barong/db"
	"barong/internal/bus"
	"barong/internal/test/testkit"
	"barong/session"
)

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"", "mysql://u:hunter2@h/db", "hunter2", "postgres://u:hunter2@127.0.0.1:1/db?connect_timeout=1",
		"postgres://u:hunter2@h:port/db", "postgres://u:hunter2%zz@h/db", "postgres://u:hunter2@h/db?sslmode=never",
		"postgres://u:p%2Fhunter2@127.0.0.1:1/db?connect_timeout=1",
	} {
		d, err := db.Open(t.Context(), db.Options{URL: url})
		if err == nil {
			d.Close()
			t.Errorf("%q is opened", url)
			continue
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: the error shows the password: %v", url, err)
		}
	}
}

// The folder of a SQLite database is made, and nobody else may read it. Odd names are names.
func TestOpenSQLite(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "a b", "ü?&#%20")
	d, err := db.Open(t.Context(), db.Options{URL: "sqlite://" + (&url.URL{Path: folder + "/barong 1.db"}).EscapedPath()})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := d.MigrateUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(folder)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder: %v, %v, want mode 0700", info, err)
	}
	for _, file := range []string{"", "-wal", "-shm"} { // the folder may be an older one, and open to others
		info, err := os.Stat(filepath.Join(folder, "barong 1.db"+file))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("file %s: %v, %v, want mode 0600", file, info, err)
		}
	}
	for pragma, want := range map[string]string{
		"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "secure_delete": "1", "busy_timeout": "2000",
	} {
		for range 3 { // of whatever connection
			var got string
			if err := d.Bun().DB.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
				t.Errorf("%s = %q, %v, want %q", pragma, got, err, want)
			}
		}
	}
}

// tables lists the tables of the schema but those of the migrations themselves and of the engine.
func tables(t *testing.T, d *db.DB) []string {
	t.Helper()
	query := "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
	if !d.SQLite() {
		query = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1"
	}
	var names []string
	if err := d.Bun().NewRaw(query).Scan(t.Context(), &names); err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(names, func(n string) bool { return n == "goose_db_version" })
}

func TestMigrateUpDownUp(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		all := tables(t, d)
		if len(all) < 20 || !slices.Contains(all, "users") {
			t.Fatalf("tables %v", all)
		}
		status, err := d.MigrationStatus(ctx)
		if err != nil || len(status) == 0 {
			t.Fatalf("status %v, %v", status, err)
		}
		for _, m := range status {
			if !m.Applied || m.Version == 0 || m.Name == "" {
				t.Errorf("migration %+v after up", m)
			}
		}
		if again, err := d.MigrateUp(ctx); err != nil || len(again) != 0 {
			t.Errorf("second up applies %v, %v", again, err)
		}
		if pending, err := d.Pending(ctx); err != nil || pending {
			t.Errorf("pending %v, %v after up", pending, err)
		}
		for i := range status {
			down, err := d.MigrateDown(ctx)
			if want := status[len(status)-1-i].Version; err != nil || len(down) != 1 || down[0].Version != want || down[0].Applied {
				t.Fatalf("down takes back %v, %v, want version %d", down, err, want)
			}
		}
		if down, err := d.MigrateDown(ctx); err != nil || len(down) != 0 {
			t.Errorf("one down more takes back %v, %v", down, err)
		}
		if left := tables(t, d); len(left) != 0 {
			t.Errorf("tables %v are left behind", left)
		}
		if pending, err := d.Pending(ctx); err != nil || !pending {
			t.Errorf("pending %v, %v after down", pending, err)
		}
		if up, err := d.MigrateUp(ctx); err != nil || len(up) != len(status) {
			t.Errorf("up after down applies %v, %v", up, err)
		}
		if got := tables(t, d); !slices.Equal(got, all) {
			t.Errorf("tables %v, want %v", got, all)
		}
		insertUser(t, d, "ID0000000001", "ann@example.com")
	})
}

// Replicas that start together migrate once.
func TestMigrateInParallel(t *testing.T) {
	t.Parallel()
	url := testkit.Postgres(t)
	var total atomic.Int64
	var group sync.WaitGroup
	var want int
	for i := range 3 {
		d, err := db.Open(t.Context(), db.Options{URL: url})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		if i == 0 {
			status, err := d.MigrationStatus(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			want = len(status)
		}
		group.Go(func() {
			up, err := d.MigrateUp(t.Context())
			if err != nil {
				t.Errorf("MigrateUp: %v", err)
			}
			total.Add(int64(len(up)))
		})
	}
	group.Wait()
	if got := total.Load(); got != int64(want) {
		t.Errorf("%d migrations were applied, want %d", got, want)
	}
}

func notFound(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, db.ErrNotFound) {
		t.Errorf("%s: error %v, want ErrNotFound", what, err)
	}
}

func TestUsers(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		referrer := insertUser(t, d, "ID0000000001", "ref@example.com")
		u := &db.User{
			UID: "ID0000000002", Email: "ann@example.com", PasswordDigest: "digest", Role: "admin", Data: ref(`{"language":"de"}`),
			Level: 2, OTP: true, State: "active", StateManual: true, ReferralID: &referrer.ID, SessionEpoch: 7,
		}
		update(t, d, func(ctx context.Context, tx *db.Tx) error { return tx.InsertUser(ctx, u) })
		if u.ID == 0 || u.CreatedAt.IsZero() || u.CreatedAt.Nanosecond() != 0 || u.CreatedAt.Location() != time.UTC {
			t.Errorf("id %d, created at %s", u.ID, u.CreatedAt)
		}
		same := func(what string, got *db.User, err error) {
			t.Helper()
			if err != nil {
				t.Errorf("%s: %v", what, err)
				return
			}
			if *got.Data != *u.Data || *got.ReferralID != *u.ReferralID || !got.CreatedAt.Equal(u.CreatedAt) ||
				!got.UpdatedAt.Equal(u.UpdatedAt) {
				t.Errorf("%s: got %+v, want %+v", what, got, u)
			}
			g, w := *got, *u
			g.Data, g.ReferralID, g.CreatedAt, g.UpdatedAt = w.Data, w.ReferralID, w.CreatedAt, w.UpdatedAt
			if g != w {
				t.Errorf("%s: got %+v, want %+v", what, g, w)
			}
		}
		got, err := d.UserByUID(ctx, u.UID)
		same("by uid", got, err)
		got, err = d.UserByID(ctx, u.ID)
		same("by id", got, err)
		for _, email := range []string{"ann@example.com", "ANN@example.COM", "  Ann@Example.com\n"} {
			got, err = d.UserByEmail(ctx, email)
			same("by e-mail "+email, got, err)
		}
		_, err = d.UserByUID(ctx, "id0000000002")
		notFound(t, "uid in another case", err)
		_, err = d.UserByEmail(ctx, "ann@example.co")
		notFound(t, "another e-mail", err)
		_, err = d.UserByID(ctx, 999)
		notFound(t, "another id", err)

		p, err := d.Principal(ctx, u.UID)
		want := session.Principal{
			UserID: u.ID, UID: u.UID, Email: u.Email, Role: "admin", State: "active", Level: 2, ReferralID: referrer.ID, OTP: true, Epoch: 7,
		}
		if err != nil || *p != want {
			t.Errorf("principal %+v, %v, want %+v", p, err, want)
		}
		if _, err := d.Principal(ctx, "nobody"); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("principal of nobody: %v", err)
		}
		ended := &session.Session{Key: session.NewID().Key(), UID: u.UID, EndsAt: time.Now().Add(time.Hour)}
		update(t, d, func(ctx context.Context, tx *db.Tx) error { return tx.EndSession(ctx, ended) })
		want.Ended = ended.Key.String()[:session.TagLen]
		others := make([]string, 600) // more than one statement asks for
		for i := range others {
			others[i] = fmt.Sprint("nobody", i)
		}
		others[0], others[599] = u.UID, referrer.UID
		many, err := d.PrincipalsOf(ctx, others)
		if err != nil || len(many) != len(others) || many[0] == nil || *many[0] != want || many[599] == nil ||
			many[599].UID != referrer.UID || slices.ContainsFunc(many[1:599], func(p *session.Principal) bool { return p != nil }) {
			t.Errorf("principals %v, %v", many, err)
		}
		if n, err := d.CountUsers(ctx); err != nil || n != 2 {
			t.Errorf("%d users, %v", n, err)
		}
		uids, err := d.ReferrerUIDs(ctx, []int64{referrer.ID, 999})
		if err != nil || len(uids) != 1 || uids[referrer.ID] != referrer.UID {
			t.Errorf("referrers %v, %v", uids, err)
		}

		// An update stores the columns it names, and no other.
		changed := *u
		changed.Role, changed.Level, changed.Email = "member", 3, "other@example.com"
		update(t, d, func(ctx context.Context, tx *db.Tx) error { return tx.UpdateUser(ctx, &changed, "role", "level") })
		got, err = d.UserByUID(ctx, u.UID)
		if err != nil || got.Role != "member" || got.Level != 3 || got.Email != u.Email {
			t.Errorf("after the update: %+v, %v", got, err)
		}
		update(t, d, func(ctx context.Context, tx *db.Tx) error { return tx.EndSessions(ctx, got) })
		if p, err := d.Principal(ctx, u.UID); err != nil || p.Epoch != 8 || got.SessionEpoch != 8 {
			t.Errorf("epoch after the end of sessions: %+v, %v, %d", p, err, got.SessionEpoch)
		}
	})
}

func TestOthersOpen(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		var ids []int64
		update(t, d, func(ctx context.Context, tx *db.Tx) error {
			for i, c := range []struct{ role, state string }{
				{"superadmin", "active"}, {"superadmin", "pending"}, {"superadmin", "banned"}, {"admin", "active"},
			} {
				u := &db.User{UID: fmt.Sprintf("ID%010d", i), Email: fmt.Sprintf("%d@example.com", i), Role: c.role, State: c.state}
				if err := tx.InsertUser(ctx, u); err != nil {
					return err
				}
				ids = append(ids, u.ID)
			}
			return nil
		})
		for i, want := range []int64{1, 1, 2, 2} {
			if n, err := d.OthersOpen(t.Context(), "superadmin", ids[i]); err != nil || n != want {
				t.Errorf("besides %d: %d, %v, want %d", i, n, err, want)
			}
		}
	})
}

func TestNewUID(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		insertUser(t, d, "ID0000000000", "zero@example.com")
		draws := 0
		uid, err := d.NewUID(t.Context(), "id", func(b []byte) {
			for i := range b {
				b[i] = byte(0xab * draws)
			}
			draws++
		})
		if err != nil || uid != "IDABABABABAB" || draws != 2 {
			t.Errorf("uid %q, %v after %d draws", uid, err, draws)
		}
		if _, err := d.NewUID(t.Context(), "id", func([]byte) {}); err == nil {
			t.Error("a source that draws a taken uid for ever gives one")
		}
	})
}

// Every unique index refuses under the name by which callers know it, the same on both engines.
func TestTaken(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		ann, bob := insertUser(t, d, "ID0000000001", "ann@example.com"), insertUser(t, d, "ID0000000002", "bob@example.com")
		phone := func(u *db.User) *db.Phone { return &db.Phone{UserID: u.ID, Country: "DE", Number: "491701234567"} }
		now := d.Now()
		for _, c := range []struct {
			index string
			once  func(ctx context.Context, tx *db.Tx) error
			again func(ctx context.Context, tx *db.Tx) error // nil: once more
		}{
			{"users_uid", nil, func(ctx context.Context, tx *db.Tx) error {
				return tx.InsertUser(ctx, &db.User{UID: ann.UID, Email: "new@example.com", State: "active"})
			}},
			{"users_email", nil, func(ctx context.Context, tx *db.Tx) error {
				return tx.InsertUser(ctx, &db.User{UID: "ID0000000003", Email: "ANN@example.com", State: "active"})
			}},
			{"users_email", nil, func(ctx context.Context, tx *db.Tx) error {
				u := *bob
				u.Email = "Ann@Example.Com"
				return tx.UpdateUser(ctx, &u, "email")
			}},
			{"profiles_open", func(ctx context.Context, tx *db.Tx) error {
				return tx.InsertProfile(ctx, &db.Profile{UserID: ann.ID, State: db.ProfileSubmitted})
			}, func(ctx context.Context, tx *db.Tx) error {
				return tx.InsertProfile(ctx, &db.Profile{UserID: ann.ID, State: db.ProfileDrafted})
			}},
			{"phones_user_id", func(ctx context.Context, tx *db.Tx) error { return tx.InsertPhone(ctx, phone(ann)) }, nil},
			{"phones_verified", func(ctx context.Context, tx *db.Tx) error {
				p := phone(bob)
				p.ValidatedAt = &now
				return tx.InsertPhone(ctx, p)
			}, func(ctx context.Context, tx *db.Tx) error {
				p, err := tx.Phone(ctx, ann.ID, phone(ann).Number)
				if err != nil {
					return err
				}
				p.ValidatedAt = &now
				return tx.UpdatePhone(ctx, p)
			}},
			{"labels_user_id", func(ctx context.Context, tx *db.Tx) error {
				return tx.InsertLabel(ctx, &db.Label{UserID: ann.ID, Key: "email", Value: "verified", Scope: "private"})
			}, nil},
			{"data_storages_title", func(ctx context.Context, tx *db.Tx) error {
				return tx.InsertDataStorage(ctx, &db.DataStorage{UserID: ann.ID, Title: "personal", Data: "{}"})
			}, func(ctx context.Context, tx *db.Tx) error {
				return tx.InsertDataStorage(ctx, &db.DataStorage{UserID: ann.ID, Title: "PERSONAL", Data: "{}"})
			}},
			{"apikeys_kid", func(ctx context.Context, tx *db.Tx) error {
				return tx.InsertAPIKey(ctx, &db.APIKey{UserID: ann.ID, KID: "kid", Algorithm: "HS256", State: "active", Secret: "s"})
			}, nil},
			{"restrictions_value", func(ctx context.Context, tx *db.Tx) error {
				return tx.InsertRestriction(ctx, db.Who{}, &db.Restriction{Category: "blacklist", Scope: "ip", Value: "1.2.3.4", State: "enabled"})
			}, nil},
			{"recovery_codes_user_id", nil, func(ctx context.Context, tx *db.Tx) error {
				return tx.PutRecoveryCodes(ctx, ann.ID, []string{"same", "same"})
			}},
			{"mail_tokens_pkey", func(ctx context.Context, tx *db.Tx) error {
				return tx.InsertMailToken(ctx, "jti", ann.ID, "reset", "token", now.Add(time.Hour))
			}, func(ctx context.Context, tx *db.Tx) error {
				return tx.InsertMailToken(ctx, "jti", bob.ID, "reset", "token", now.Add(time.Hour))
			}},
		} {
			if c.again == nil {
				c.again = c.once
			}
			if c.once != nil {
				update(t, d, c.once)
			}
			var taken *db.ErrTaken
			if err := d.Update(t.Context(), c.again); !errors.As(err, &taken) || taken.Index != c.index {
				t.Errorf("error %v, want ErrTaken of %s", err, c.index)
			}
		}
		// What the indexes leave free: another user's, another scope's, a decided profile's.
		update(t, d, func(ctx context.Context, tx *db.Tx) error {
			return errors.Join(
				tx.InsertProfile(ctx, &db.Profile{UserID: bob.ID}),
				tx.InsertProfile(ctx, &db.Profile{UserID: ann.ID, State: db.ProfileRejected}),
				tx.InsertProfile(ctx, &db.Profile{UserID: ann.ID, State: db.ProfileRejected}),
				tx.InsertLabel(ctx, &db.Label{UserID: ann.ID, Key: "email", Value: "verified", Scope: "public"}),
				tx.InsertLabel(ctx, &db.Label{UserID: bob.ID, Key: "email", Value: "verified", Scope: "private"}),
				tx.InsertDataStorage(ctx, &db.DataStorage{UserID: bob.ID, Title: "personal", Data: "{}"}),
			)
		})
	})
}

func count(t *testing.T, d *db.DB) int64 {
	t.Helper()
	n, err := d.CountUsers(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A unit of work happens as a whole or not at all, and what it notes happens only if it does.
func TestUpdate(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		var heard []bus.Notice
		var after []string
		d.PublishTo(func(ctx context.Context, notices ...bus.Notice) error {
			if ctx.Err() != nil {
				t.Errorf("notices are told with a context that is over: %v", ctx.Err())
			}
			for _, n := range notices {
				// Whoever hears it reads the truth: the commit is over.
				if u, err := d.UserByUID(ctx, n.Subject); n.Kind == bus.UserChanged && (err != nil || u.Role != "admin") {
					t.Errorf("a handler of the notice reads %+v, %v", u, err)
				}
			}
			heard = append(heard, notices...)
			return errors.New("the bus is down") // no error of the change itself
		})
		u := insertUser(t, d, "ID0000000001", "ann@example.com")
		change := func(ctx context.Context, tx *db.Tx) error {
			changed := *u
			changed.Role = "admin"
			tx.Notify(bus.PolicyChanged, "")
			tx.AfterCommit(func(context.Context) { after = append(after, "done") })
			return errors.Join(
				tx.UpdateUser(ctx, &changed, "role"), tx.UpdateUser(ctx, &changed, "role"),
				tx.InsertUser(ctx, &db.User{UID: "ID0000000002", Email: "bob@example.com", State: "active"}),
			)
		}
		wrong := errors.New("wrong")
		err := d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
			if err := change(ctx, tx); err != nil {
				return err
			}
			return wrong
		})
		if !errors.Is(err, wrong) || count(t, d) != 1 || len(heard) != 0 || len(after) != 0 {
			t.Errorf("a refused unit: %v, %d users, notices %v, after %v", err, count(t, d), heard, after)
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			_ = d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
				if err := change(ctx, tx); err != nil {
					return err
				}
				panic("handler")
			})
		}()
		if count(t, d) != 1 || len(heard) != 0 || len(after) != 0 {
			t.Errorf("a panicking unit: %d users, notices %v, after %v", count(t, d), heard, after)
		}
		ctx, cancel := context.WithCancel(t.Context())
		err = d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
			defer cancel()
			return change(ctx, tx)
		})
		if err == nil || count(t, d) != 1 || len(heard) != 0 || len(after) != 0 {
			t.Errorf("a cancelled unit: %v, %d users, notices %v, after %v", err, count(t, d), heard, after)
		}
		// The caller that is gone right after the commit changes nothing about the notices.
		ctx, cancel = context.WithCancel(t.Context())
		err = d.Update(ctx, func(ctx context.Context, tx *db.Tx) error {
			tx.AfterCommit(func(context.Context) { cancel() })
			return change(ctx, tx)
		})
		want := []bus.Notice{{Kind: bus.PolicyChanged}, {Kind: bus.UserChanged, Subject: u.UID}} // each once
		if err != nil || count(t, d) != 2 || !slices.Equal(heard, want) || !slices.Equal(after, []string{"done"}) {
			t.Errorf("the unit: %v, %d users, notices %v, after %v", err, count(t, d), heard, after)
		}
	})
}

// A unit reads what it wrote, and others do not before it commits.
func TestUpdateIsolation(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		update(t, d, func(ctx context.Context, tx *db.Tx) error {
			if err := tx.InsertUser(ctx, &db.User{UID: "ID0000000001", Email: "ann@example.com", State: "active"}); err != nil {
				return err
			}
			if n, err := tx.CountUsers(ctx); err != nil || n != 1 {
				t.Errorf("inside: %d users, %v", n, err)
			}
			if n := count(t, d); n != 0 {
				t.Errorf("outside, before the commit: %d users", n)
			}
			return nil
		})
		if n := count(t, d); n != 1 {
			t.Errorf("after the commit: %d users", n)
		}
	})
}

// Writers of one account take turns, and those that lock each other out run again.
func TestUpdateInParallel(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		ann, bob := insertUser(t, d, "ID0000000001", "ann@example.com"), insertUser(t, d, "ID0000000002", "bob@example.com")
		var group sync.WaitGroup
		for i := range 16 {
			group.Go(func() {
				update(t, d, func(ctx context.Context, tx *db.Tx) error {
					u, err := tx.LockUserByUID(ctx, ann.UID)
					if err != nil {
						return err
					}
					u.Level++
					return tx.UpdateUser(ctx, u, "level")
				})
				_ = i
			})
		}
		group.Wait()
		if u, err := d.UserByUID(t.Context(), ann.UID); err != nil || u.Level != 16 {
			t.Errorf("level %d, %v after 16 steps", u.Level, err)
		}
		var both sync.WaitGroup // until each has locked one, where two can
		var met atomic.Int32
		both.Add(2)
		for _, order := range [][]int64{{ann.ID, bob.ID}, {bob.ID, ann.ID}} {
			group.Go(func() {
				first := true
				update(t, d, func(ctx context.Context, tx *db.Tx) error {
					if _, err := tx.LockUser(ctx, order[0]); err != nil {
						return err
					}
					if first && !d.SQLite() {
						first = false
						both.Done()
						both.Wait()
						met.Add(1)
					}
					u, err := tx.LockUser(ctx, order[1])
					if err != nil {
						return err
					}
					u.Level += 100
					return tx.UpdateUser(ctx, u, "level")
				})
			})
		}
		group.Wait()
		if !d.SQLite() && met.Load() != 2 {
			t.Error("the two never locked each other out")
		}
		for uid, want := range map[string]int{ann.UID: 116, bob.UID: 100} {
			if u, err := d.UserByUID(t.Context(), uid); err != nil || u.Level != want {
				t.Errorf("level of %s is %d, %v, want %d", uid, u.Level, err, want)
			}
		}
		_, err := d.UserByUID(t.Context(), "x")
		notFound(t, "nobody", err)
		update(t, d, func(ctx context.Context, tx *db.Tx) error {
			_, err := tx.LockUser(ctx, 999)
			notFound(t, "LockUser", err)
			_, err = tx.LockUserByUID(ctx, "nobody")
			notFound(t, "LockUserByUID", err)
			return nil
		})
	})
}

// A writer that waits for its turn on SQLite gives up with its context.
func TestUpdateQueueHonoursContext(t *testing.T) {
	t.Parallel()
	d, err := db.Open(t.Context(), db.Options{URL: "sqlite://" + t.TempDir() + "/barong.db"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	err = d.Update(t.Context(), func(context.Context, *db.Tx) error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		return d.Update(ctx, func(context.Context, *db.Tx) error { return nil })
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want that of the context", err)
	}
}

// parallelWins runs use at the same time in several units of work, and counts those that report true.
func parallelWins(t *testing.T, d *db.DB, use func(ctx context.Context, tx *db.Tx) (bool, error)) int32 {
	t.Helper()
	var wins atomic.Int32
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			won := false
			err := d.Update(context.Background(), func(ctx context.Context, tx *db.Tx) (err error) {
				won, err = use(ctx, tx)
				return err
			})
			if err != nil {
				t.Error(err)
			}
			if won {
				wins.Add(1)
			}
		})
	}
	group.Wait()
	return wins.Load()
}

func TestTOTP(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		u := insertUser(t, d, "ID0000000001", "ann@example.com")
		_, err := d.TOTPKey(ctx, u.ID)
		notFound(t, "no key yet", err)
		step := func(n int64) bool {
			t.Helper()
			var ok bool
			update(t, d, func(ctx context.Context, tx *db.Tx) (err error) { ok, err = tx.UseTOTPStep(ctx, u.ID, n); return err })
			return ok
		}
		if step(1) {
			t.Error("a step of no key is used")
		}
		update(t, d, func(ctx context.Context, tx *db.Tx) error { return tx.PutTOTPKey(ctx, u.ID, "JBSWY3DPEHPK3PXP") })
		if k, err := d.TOTPKey(ctx, u.ID); err != nil || k.Secret != "JBSWY3DPEHPK3PXP" || k.LastStep != 0 || k.CreatedAt.IsZero() {
			t.Errorf("key %+v, %v", k, err)
		}
		if n := parallelWins(t, d, func(ctx context.Context, tx *db.Tx) (bool, error) { return tx.UseTOTPStep(ctx, u.ID, 100) }); n != 1 {
			t.Errorf("%d of 8 parallel uses of one step succeed, want 1", n)
		}
		for _, c := range []struct {
			step int64
			want bool
		}{{100, false}, {99, false}, {101, true}, {100, false}, {103, true}, {102, false}} {
			if got := step(c.step); got != c.want {
				t.Errorf("step %d: %v, want %v", c.step, got, c.want)
			}
		}
		// A new key begins anew.
		update(t, d, func(ctx context.Context, tx *db.Tx) error { return tx.PutTOTPKey(ctx, u.ID, "SECOND") })
		if k, err := d.TOTPKey(ctx, u.ID); err != nil || k.Secret != "SECOND" || k.LastStep != 0 {
			t.Errorf("second key %+v, %v", k, err)
		}
		update(t, d, func(ctx context.Context, tx *db.Tx) error {
			return errors.Join(tx.PutRecoveryCodes(ctx, u.ID, []string{"old"}), tx.PutRecoveryCodes(ctx, u.ID, []string{"a", "b"}))
		})
		use := func(digest string) func(ctx context.Context, tx *db.Tx) (bool, error) {
			return func(ctx context.Context, tx *db.Tx) (bool, error) { return tx.UseRecoveryCode(ctx, u.ID, digest) }
		}
		for _, c := range []struct {
			digest string
			want   int32
		}{{"old", 0}, {"a", 1}, {"a", 0}, {"c", 0}, {"b", 1}} {
			if got := parallelWins(t, d, use(c.digest)); got != c.want {
				t.Errorf("recovery code %s: %d uses, want %d", c.digest, got, c.want)
			}
		}
		update(t, d, func(ctx context.Context, tx *db.Tx) error {
			return errors.Join(tx.PutRecoveryCodes(ctx, u.ID, []string{"d"}), tx.DeleteTOTPKey(ctx, u.ID))
		})
		_, err = d.TOTPKey(ctx, u.ID)
		notFound(t, "after the delete", err)
		if got := parallelWins(t, d, use("d")); got != 0 {
			t.Error("a recovery code outlives its key")
		}
	})
}

func TestMailTokens(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		ann, bob := insertUser(t, d, "ID0000000001", "ann@example.com"), insertUser(t, d, "ID0000000002", "bob@example.com")
		expires := time.Now().Add(time.Hour)
		put := func(jti string, u *db.User, kind string) {
			t.Helper()
			update(t, d, func(ctx context.Context, tx *db.Tx) error {
				return tx.InsertMailToken(ctx, jti, u.ID, kind, "text of "+jti, expires)
			})
		}
		use := func(jti string, u *db.User, kind string, want int32) {
			t.Helper()
			usable, err := d.MailTokenUsable(t.Context(), jti, u.ID, kind)
			if err != nil || usable != (want == 1) {
				t.Errorf("%s of %s is usable: %v, %v, want %v", jti, u.UID, usable, err, want == 1)
			}
			got := parallelWins(t, d, func(ctx context.Context, tx *db.Tx) (bool, error) { return tx.UseMailToken(ctx, jti, u.ID, kind) })
			if got != want {
				t.Errorf("%d of 8 parallel uses of %s succeed, want %d", got, jti, want)
			}
		}
		put("first", ann, "reset")
		put("other kind", ann, "confirmation")
		put("other user", bob, "reset")
		put("second", ann, "reset")
		live := func(u *db.User, kind string, until time.Time, want string) {
			t.Helper()
			token, err := d.LiveMailToken(t.Context(), u.ID, kind, until)
			if token != want || (err != nil) != (want == "") || err != nil && !errors.Is(err, db.ErrNotFound) {
				t.Errorf("the live %s token of %s is %q, %v, want %q", kind, u.UID, token, err, want)
			}
		}
		expires = expires.Add(time.Minute)
		put("third", ann, "reset")
		live(ann, "reset", time.Now(), "text of third")
		live(ann, "reset", expires, "")
		live(bob, "reset", time.Now(), "text of other user")
		live(bob, "confirmation", time.Now(), "")
		if all := texts(t, d); strings.Contains(all, "text of") {
			t.Error("a token is stored in clear")
		}
		use("second", bob, "reset", 0)
		use("second", ann, "confirmation", 0)
		use("second", ann, "reset", 1)
		for _, jti := range []string{"first", "second", "third"} { // one spends all of its kind
			use(jti, ann, "reset", 0)
		}
		live(ann, "reset", time.Now(), "")
		use("other kind", ann, "confirmation", 1)
		use("other user", bob, "reset", 1)
		use("never", ann, "reset", 0)

		// What is spent or has expired goes when the next one comes.
		expires = time.Now().Add(-time.Minute)
		put("expired", ann, "reset")
		expires = time.Now().Add(time.Hour)
		put("fresh", ann, "reset")
		var left []string
		if err := d.Bun().NewSelect().Table("mail_tokens").Column("jti").Where("user_id = ?", ann.ID).Where("kind = 'reset'").Scan(t.Context(), &left); err != nil || !slices.Equal(left, []string{"fresh"}) {
			t.Errorf("tokens %v are left, %v", left, err)
		}
	})
}

func TestNetworks(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		ann := insertUser(t, d, "ID0000000001", "ann@example.com")
		insertUser(t, d, "ID0000000002", "bob@example.com")
		remember := func(network string) {
			t.Helper()
			update(t, d, func(ctx context.Context, tx *db.Tx) error { return tx.RememberNetwork(ctx, ann.ID, network) })
		}
		known := func(email, network string, want bool) {
			t.Helper()
			if got, err := d.KnownNetwork(t.Context(), email, network); err != nil || got != want {
				t.Errorf("%s in %s is known: %v, %v, want %v", email, network, got, err, want)
			}
		}
		known("ann@example.com", "192.0.2.0/24", false)
		remember("192.0.2.0/24")
		remember("192.0.2.0/24")
		known(" ANN@example.com", "192.0.2.0/24", true)
		known("ann@example.com", "198.51.100.0/24", false)
		known("bob@example.com", "192.0.2.0/24", false)
		for _, nobody := range []string{"", "nobody@example.com", "nul\x00", "\xff"} {
			known(nobody, "192.0.2.0/24", false)
		}
		// The memory is bounded, and keeps those of late.
		if _, err := d.Bun().DB.ExecContext(t.Context(), "UPDATE user_networks SET seen_at = 1"); err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			remember(fmt.Sprintf("10.0.%d.0/24", i))
		}
		known("ann@example.com", "192.0.2.0/24", false)
		known("ann@example.com", "10.0.0.0/24", true)
		known("ann@example.com", "10.0.19.0/24", true)
	})
}

func TestDearestBcrypt(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		dearest := func(want int) {
			t.Helper()
			if got, err := d.DearestBcrypt(t.Context(), 17); err != nil || got != want {
				t.Errorf("the dearest costs %d, %v, want %d", got, err, want)
			}
		}
		set := func(email, digest string) {
			t.Helper()
			u := insertUser(t, d, "ID"+email[:1], email)
			update(t, d, func(ctx context.Context, tx *db.Tx) error {
				u.PasswordDigest = digest
				return tx.UpdateUser(ctx, u, "password_digest")
			})
		}
		dearest(0)
		set("a@example.com", "$argon2id$v=19$m=32768,t=3,p=1$c2FsdA$a2V5")
		set("b@example.com", "x")
		dearest(0)
		set("c@example.com", "$2y$09$"+strings.Repeat("a", 53))
		dearest(9)
		set("d@example.com", "$2a$12$"+strings.Repeat("a", 53))
		set("e@example.com", "$2b$10$"+strings.Repeat("a", 53))
		set("f@example.com", "$2a$31$"+strings.Repeat("a", 53)) // more than will be spent
		dearest(12)
	})
}

// texts are all values of all tables, as text.
func texts(t *testing.T, d *db.DB) string {
	t.Helper()
	var all strings.Builder
	for _, table := range tables(t, d) {
		rows, err := d.Bun().DB.QueryContext(t.Context(), "SELECT * FROM "+table)
		if err != nil {
			t.Fatal(err)
		}
		columns, err := rows.Columns()
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			values := make([]any, len(columns))
			for i := range values {
				values[i] = new(sql.RawBytes)
			}
			if err := rows.Scan(values...); err != nil {
				t.Fatal(err)
			}
			for _, v := range values {
				all.Write(*v.(*sql.RawBytes))
				all.WriteByte('\n')
			}
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return all.String()
}

func equalText(t *testing.T, what string, got, want *string) {
	t.Helper()
	if (got == nil) != (want == nil) || got != nil && *got != *want {
		t.Errorf("%s = %v, want %v", what, got, want)
	}
}

// What is personal or secret stands in clear nowhere: in no table, and on SQLite in no byte of the files, not even of
// rows that were changed or deleted.
func TestSealed(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		u := insertUser(t, d, "ID0000000001", "ann@example.com")
		p := &db.Profile{
			UserID: u.ID, FirstName: ref("Firstclear"), LastName: ref("Lästclear"), DOB: ref("1987-06-05"),
			Address: ref("Addressclear 1"), Postcode: ref("Postclear"), City: ref("Cityclear"), Country: ref("DE"),
			State: db.ProfileDrafted, Metadata: ref(`{"a":1}`),
		}
		clear := []string{
			"Firstclear", "stclear", "1987-06-05", "Addressclear", "Postclear", "Cityclear", "491700000042", "PASS0042clear",
			"TOTPSECRETCLEAR", "apikeysecretclear", "Changedclear",
		}
		update(t, d, func(ctx context.Context, tx *db.Tx) error {
			return errors.Join(
				tx.InsertProfile(ctx, p),
				tx.InsertPhone(ctx, &db.Phone{UserID: u.ID, Country: "DE", Number: "491700000042"}),
				tx.InsertDocument(ctx, &db.Document{UserID: u.ID, DocType: ref("Passport"), DocNumber: ref("PASS0042clear"), DocExpire: ref("2030-01-02")}),
				tx.InsertDocument(ctx, &db.Document{UserID: u.ID, DocType: ref("Utility Bill")}),
				tx.PutTOTPKey(ctx, u.ID, "TOTPSECRETCLEAR"),
				tx.InsertAPIKey(ctx, &db.APIKey{UserID: u.ID, KID: "kid", Algorithm: "HS256", State: "active", Secret: "apikeysecretclear"}),
			)
		})
		same := func(got *db.Profile) {
			t.Helper()
			for _, f := range []struct {
				name      string
				got, want *string
			}{
				{"first name", got.FirstName, p.FirstName},
				{"last name", got.LastName, p.LastName},
				{"date of birth", got.DOB, p.DOB},
				{"address", got.Address, p.Address},
				{"postcode", got.Postcode, p.Postcode},
				{"city", got.City, p.City},
				{"country", got.Country, p.Country},
				{"metadata", got.Metadata, p.Metadata},
			} {
				equalText(t, f.name, f.got, f.want)
			}
			if got.ID != p.ID || got.State != p.State || !got.CreatedAt.Equal(p.CreatedAt) {
				t.Errorf("profile %+v, want %+v", got, p)
			}
		}
		rows, err := d.Profiles(ctx, u.ID)
		if err != nil || len(rows) != 1 {
			t.Fatalf("profiles %v, %v", rows, err)
		}
		same(&rows[0])
		p.City, p.Address, p.State = ref("Changedclear"), nil, db.ProfileVerified
		update(t, d, func(ctx context.Context, tx *db.Tx) error { return tx.UpdateProfile(ctx, p) })
		got, err := d.ProfileIn(ctx, u.ID, db.ProfileSubmitted, db.ProfileVerified)
		if err != nil {
			t.Fatal(err)
		}
		same(got)
		_, err = d.ProfileIn(ctx, u.ID, db.ProfileDrafted)
		notFound(t, "a drafted profile", err)

		documents, err := d.Documents(ctx, u.ID)
		if err != nil || len(documents) != 2 {
			t.Fatalf("documents %v, %v", documents, err)
		}
		equalText(t, "document number", documents[0].DocNumber, ref("PASS0042clear"))
		equalText(t, "no document number", documents[1].DocNumber, nil)
		equalText(t, "document expiry", documents[0].DocExpire, ref("2030-01-02"))

		all := texts(t, d)
		for _, s := range clear {
			if strings.Contains(all, s) {
				t.Errorf("a table holds %q", s)
			}
		}
		if !strings.Contains(all, "ann@example.com") {
			t.Error("the dump of the tables holds nothing")
		}
		// A sealed value that is moved to another row does not open there.
		other := insertUser(t, d, "ID0000000002", "bob@example.com")
		update(t, d, func(ctx context.Context, tx *db.Tx) error {
			_, err := tx.ExecContext(ctx, fmt.Sprintf("UPDATE profiles SET user_id = %d WHERE user_id = %d", other.ID, u.ID))
			return err
		})
		if _, err := d.Profiles(ctx, other.ID); err == nil {
			t.Error("a sealed value opens in another user's row")
		}
		update(t, d, func(ctx context.Context, tx *db.Tx) error {
			_, err := tx.ExecContext(ctx, "DELETE FROM profiles")
			return err
		})
		if !d.SQLite() {
			return
		}
		files, err := filepath.Glob(strings.TrimPrefix(d.URL(), "sqlite://") + "*")
		if err != nil || len(files) < 2 {
			t.Fatalf("files %v, %v, want the database and its log", files, err)
		}
		for _, file := range files {
			bytes, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range clear {
				if strings.Contains(string(bytes), s) {
					t.Errorf("%s holds %q", filepath.Base(file), s)
				}
			}
		}
	})
}

func TestPhones(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		ann, bob := insertUser(t, d, "ID0000000001", "ann@example.com"), insertUser(t, d, "ID0000000002", "bob@example.com")
		const number = "491701234567"
		update(t, d, func(ctx context.Context, tx *db.Tx) error {
			return errors.Join(
				tx.InsertPhone(ctx, &db.Phone{UserID: ann.ID, Country: "DE", Number: number}),
				tx.InsertPhone(ctx, &db.Phone{UserID: bob.ID, Country: "DE", Number: number}),
				tx.InsertPhone(ctx, &db.Phone{UserID: ann.ID, Country: "GB", Number: "447418000000"}),
			)
		})
		_, err := d.Phone(ctx, ann.ID, "1")
		notFound(t, "another number", err)
		p, err := d.Phone(ctx, ann.ID, number)
		if err != nil || p.Number != number || p.Country != "DE" || p.ValidatedAt != nil || p.CodeAttempts != 0 {
			t.Fatalf("phone %+v, %v", p, err)
		}
		verified := func(want bool) {
			t.Helper()
			if got, err := d.PhoneVerified(ctx, number); err != nil || got != want {
				t.Errorf("verified %v, %v, want %v", got, err, want)
			}
		}
		verified(false)
		now, later := d.Now(), d.Now().Add(time.Minute)
		p.CodeDigest, p.CodeExpiresAt, p.CodeAttempts = ref("digest"), &later, 2
		update(t, d, func(ctx context.Context, tx *db.Tx) error { return tx.UpdatePhone(ctx, p) })
		if got, err := d.Phone(ctx, ann.ID, number); err != nil || *got.CodeDigest != "digest" || !got.CodeExpiresAt.Equal(later) || got.CodeAttempts != 2 {
			t.Errorf("phone %+v, %v", got, err)
		}
		p.CodeDigest, p.CodeExpiresAt, p.ValidatedAt = nil, nil, &now
		update(t, d, func(ctx context.Context, tx *db.Tx) error { return tx.UpdatePhone(ctx, p) })
		verified(true)
		if got, err := d.Phone(ctx, ann.ID, number); err != nil || got.CodeDigest != nil || !got.ValidatedAt.Equal(now) {
			t.Errorf("phone %+v, %v", got, err)
		}
		list, err := d.Phones(ctx, ann.ID, bob.ID)
		if err != nil || len(list) != 3 || list[0].Number != number || list[2].Number != "447418000000" {
			t.Errorf("phones %+v, %v", list, err)
		}
		if list, err := d.Phones(ctx); err != nil || list == nil || len(list) != 0 {
			t.Errorf("phones of nobody %v, %v", list, err)
		}
	})
}

func TestDocuments(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		u := insertUser(t, d, "ID0000000001", "ann@example.com")
		drawn := map[int64]bool{}
		for range 2 {
			ids, err := d.NewDocumentIDs(ctx, 3)
			if err != nil || len(ids) != 3 {
				t.Fatalf("ids %v, %v", ids, err)
			}
			for _, id := range ids {
				if id <= 0 || drawn[id] {
					t.Errorf("id %d twice, or none", id)
				}
				drawn[id] = true
			}
		}
		other := &db.Document{UserID: insertUser(t, d, "ID0000000002", "bob@example.com").ID}
		update(t, d, func(ctx context.Context, tx *db.Tx) error { return tx.InsertDocument(ctx, other) })
		if drawn[other.ID] {
			t.Errorf("a document took the id %d that was drawn", other.ID)
		}
		ids, err := d.NewDocumentIDs(ctx, 1)
		if err != nil || drawn[ids[0]] || ids[0] == other.ID {
			t.Errorf("ids %v, %v", ids, err)
		}
		doc := &db.Document{ID: ids[0], UserID: u.ID, UploadName: ref("päss.png"), ContentType: ref("image/png"), DocType: ref("Passport"), Metadata: ref("{}")}
		doc.Upload = ref(fmt.Sprintf("%d/x.png", doc.ID))
		update(t, d, func(ctx context.Context, tx *db.Tx) error { return tx.InsertDocument(ctx, doc) })
		if doc.ID != ids[0] {
			t.Errorf("id %d, want %d", doc.ID, ids[0])
		}
		got, err := d.DocumentByUpload(ctx, fmt.Sprintf("%d/x.png", doc.ID))
		if err != nil || got.ID != doc.ID || *got.UploadName != "päss.png" || *got.ContentType != "image/png" {
			t.Errorf("document %+v, %v", got, err)
		}
		_, err = d.DocumentByUpload(ctx, "1/y.png")
		notFound(t, "another upload", err)
		if n, err := d.CountDocuments(ctx, u.ID); err != nil || n != 1 {
			t.Errorf("%d documents, %v", n, err)
		}
		if n, err := d.CountDocuments(ctx, u.ID+100); err != nil || n != 0 {
			t.Errorf("%d documents of nobody, %v", n, err)
		}
	})
}

func TestLabelsAndStorages(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		ann, bob := insertUser(t, d, "ID0000000001", "ann@example.com"), insertUser(t, d, "ID0000000002", "bob@example.com")
		l := &db.Label{UserID: ann.ID, Key: "email", Value: "pending", Scope: "private", Description: ref("why")}
		s := &db.DataStorage{UserID: ann.ID, Title: "Personal", Data: `{"a":1}`}
		update(t, d, func(ctx context.Context, tx *db.Tx) error {
			return errors.Join(tx.InsertLabel(ctx, l), tx.InsertDataStorage(ctx, s),
				tx.InsertLabel(ctx, &db.Label{UserID: bob.ID, Key: "email", Value: "verified", Scope: "public"}))
		})
		got, err := d.Label(ctx, ann.ID, "email", "private")
		if err != nil || got.Value != "pending" || *got.Description != "why" {
			t.Errorf("label %+v, %v", got, err)
		}
		for _, c := range []struct {
			user       int64
			key, scope string
		}{{ann.ID, "email", "public"}, {bob.ID, "email", "private"}, {ann.ID, "Email", "private"}} {
			_, err := d.Label(ctx, c.user, c.key, c.scope)
			notFound(t, "label "+c.key+" "+c.scope, err)
		}
		l.Value, l.Description = "verified", nil
		update(t, d, func(ctx context.Context, tx *db.Tx) error { return tx.UpdateLabel(ctx, l) })
		list, err := d.Labels(ctx, ann.ID, bob.ID)
		if err != nil || len(list) != 2 || list[0].Value != "verified" || list[0].Description != nil || list[1].UserID != bob.ID {
			t.Errorf("labels %+v, %v", list, err)
		}
		if list, err := d.Labels(ctx); err != nil || list == nil || len(list) != 0 {
			t.Errorf("labels of nobody %v, %v", list, err)
		}
		if got, err := d.DataStorage(ctx, ann.ID, "pERSONAL"); err != nil || got.Data != `{"a":1}` || got.Title != "Personal" {
			t.Errorf("data storage %+v, %v", got, err)
		}
		_, err = d.DataStorage(ctx, bob.ID, "personal")
		notFound(t, "another user's data storage", err)
		update(t, d, func(ctx context.Context, tx *db.Tx) error {
			return errors.Join(tx.DeleteLabel(ctx, l), tx.DeleteDataStorage(ctx, s))
		})
		_, err = d.Label(ctx, ann.ID, "email", "private")
		notFound(t, "a deleted label", err)
		if list, err := d.DataStorages(ctx, ann.ID); err != nil || list == nil || len(list) != 0 {
			t.Errorf("data storages %v, %v", list, err)
		}
	})
}

func TestAPIKeys(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		ann, bob := insertUser(t, d, "ID0000000001", "ann@example.com"), insertUser(t, d, "ID0000000002", "bob@example.com")
		key := func(u *db.User, kid string, scope ...string) *db.APIKey {
			return &db.APIKey{UserID: u.ID, KID: kid, Algorithm: "HS256", State: "active", Secret: "secret of " + kid, Scope: scope}
		}
		var heard []bus.Notice
		d.PublishTo(func(_ context.Context, notices ...bus.Notice) error { heard = append(heard, notices...); return nil })
		told := func(kids ...string) {
			t.Helper()
			var got []string
			for _, n := range heard {
				if n.Kind == bus.KeyChanged {
					got = append(got, n.Subject)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, kids) {
				t.Errorf("caches are told of %v, want %v", got, kids)
			}
			heard = nil
		}
		mine := key(ann, "k1", "trade", "withdraw")
		update(t, d, func(ctx context.Context, tx *db.Tx) error {
			return errors.Join(tx.InsertAPIKey(ctx, mine), tx.InsertAPIKey(ctx, key(ann, "k2")), tx.InsertAPIKey(ctx, key(ann, "k3")),
				tx.InsertAPIKey(ctx, key(bob, "k4")))
		})
		told("k1", "k2", "k3", "k4")
		k, err := d.APIKey(ctx, "k1")
		if err != nil || k.KID != "k1" || k.UID != ann.UID || string(k.Secret) != "secret of k1" || !k.Active {
			t.Errorf("key %+v, %v", k, err)
		}
		for _, kid := range []string{"K1", "k9", ""} {
			if _, err := d.APIKey(ctx, kid); !errors.Is(err, session.ErrNotFound) {
				t.Errorf("key %q: %v, want session.ErrNotFound", kid, err)
			}
		}
		k4, err := d.APIKey(ctx, "k4")
		if err != nil {
			t.Fatal(err)
		}
		many, err := d.APIKeysOf(ctx, []string{"k4", "K1", "k9", "k1"})
		if want := []*session.APIKey{k4, nil, nil, k}; err != nil || !reflect.DeepEqual(many, want) {
			t.Errorf("keys %+v, %v, want %+v", many, err, want)
		}
		row, err := d.UserAPIKey(ctx, ann.ID, "k1")
		if err != nil || !slices.Equal(row.Scope, []string{"trade", "withdraw"}) || row.Secret != "" {
			t.Errorf("row %+v, %v", row, err)
		}
		_, err = d.UserAPIKey(ctx, bob.ID, "k1")
		notFound(t, "another user's key", err)
		mine.State, mine.Scope = "inactive", nil
		update(t, d, func(ctx context.Context, tx *db.Tx) error { return tx.UpdateAPIKey(ctx, mine) })
		told("k1")
		if k, err := d.APIKey(ctx, "k1"); err != nil || k.Active || string(k.Secret) != "secret of k1" {
			t.Errorf("key %+v, %v", k, err)
		}
		page, total, err := d.UserAPIKeys(ctx, ann.ID, db.Page{Number: 2, Size: 2})
		if err != nil || total != 3 || len(page) != 1 || page[0].KID != "k3" || page[0].Scope == nil {
			t.Errorf("page %+v, %d, %v", page, total, err)
		}
		update(t, d, func(ctx context.Context, tx *db.Tx) error { return tx.DeactivateAPIKeys(ctx, ann.ID) })
		told("k2", "k3") // k1 was not active
		for kid, want := range map[string]bool{"k1": false, "k2": false, "k3": false, "k4": true} {
			if k, err := d.APIKey(ctx, kid); err != nil || k.Active != want {
				t.Errorf("key %s: %+v, %v, want active %v", kid, k, err, want)
			}
		}
		update(t, d, func(ctx context.Context, tx *db.Tx) error { return tx.DeactivateAPIKeys(ctx, ann.ID) })
		told()
		update(t, d, func(ctx context.Context, tx *db.Tx) error { return tx.DeleteAPIKey(ctx, mine) })
		told("k1")
		if _, err := d.APIKey(ctx, "k1"); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("a deleted key: %v", err)
		}
	})
}

func TestRules(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		u := insertUser(t, d, "ID0000000001", "ann@example.com")
		who := db.Who{UserID: u.ID, UID: u.UID}
		notices := 0
		d.PublishTo(func(_ context.Context, all ...bus.Notice) error {
			for _, n := range all {
				if n.Kind == bus.PolicyChanged {
					notices++
				}
			}
			return nil
		})
		p := &db.Permission{Role: "member", Verb: "GET", Path: "api/v2", Action: "ACCEPT", Topic: ref("general")}
		r := &db.Restriction{Category: "blacklist", Scope: "ip", Value: "1.2.3.4", Code: ref(423), State: "enabled"}
		update(t, d, func(ctx context.Context, tx *db.Tx) error {
			return errors.Join(tx.LockRules(ctx), tx.InsertPermission(ctx, who, p), tx.InsertRestriction(ctx, db.Who{}, r))
		})
		beforeP, beforeR := *p, *r
		p.Action, p.Topic, r.State, r.Code = "DROP", nil, "disabled", nil
		update(t, d, func(ctx context.Context, tx *db.Tx) error {
			return errors.Join(tx.UpdatePermission(ctx, who, &beforeP, p), tx.UpdateRestriction(ctx, who, &beforeR, r))
		})
		gotP, err := d.Permission(ctx, p.ID)
		if err != nil || gotP.Action != "DROP" || gotP.Topic != nil || gotP.Role != "member" || !gotP.CreatedAt.Equal(p.CreatedAt) {
			t.Errorf("permission %+v, %v", gotP, err)
		}
		gotR, err := d.Restriction(ctx, r.ID)
		if err != nil || gotR.State != "disabled" || gotR.Code != nil || gotR.Value != "1.2.3.4" {
			t.Errorf("restriction %+v, %v", gotR, err)
		}
		for role, want := range map[string]bool{"member": true, "Member": false, "admin": false} {
			if ok, err := d.RoleExists(ctx, role); err != nil || ok != want {
				t.Errorf("role %s exists: %v, %v, want %v", role, ok, err, want)
			}
		}
		update(t, d, func(ctx context.Context, tx *db.Tx) error {
			return errors.Join(tx.DeletePermission(ctx, who, p), tx.DeleteRestriction(ctx, who, r))
		})
		_, err = d.Permission(ctx, p.ID)
		notFound(t, "a deleted permission", err)
		_, err = d.Restriction(ctx, r.ID)
		notFound(t, "a deleted restriction", err)
		if notices != 3 { // one a unit of work
			t.Errorf("%d notices of the policy, want 3", notices)
		}

		var changes []db.PolicyChange
		if err := d.Bun().NewSelect().Model(&changes).Order("id").Scan(ctx); err != nil {
			t.Fatal(err)
		}
		want := []struct{ subject, action, before, after string }{
			{"permission", "create", "", `"action":"ACCEPT","topic":"general"`},
			{"restriction", "create", "", `"code":423,"state":"enabled"`},
			{"permission", "update", `"action":"ACCEPT","topic":"general"`, `"action":"DROP","topic":null`},
			{"restriction", "update", `"code":423,"state":"enabled"`, `"code":null,"state":"disabled"`},
			{"permission", "delete", `"action":"DROP","topic":null`, ""},
			{"restriction", "delete", `"code":null,"state":"disabled"`, ""},
		}
		if len(changes) != len(want) {
			t.Fatalf("%d recorded changes, want %d", len(changes), len(want))
		}
		for i, w := range want {
			c := changes[i]
			holds := func(got *string, part string) bool {
				return (got == nil) == (part == "") && (got == nil || strings.Contains(*got, part))
			}
			if c.Subject != w.subject || c.Action != w.action || !holds(c.Before, w.before) || !holds(c.After, w.after) || c.SubjectID == 0 {
				t.Errorf("change %d: %+v, want %+v", i, c, w)
			}
			if byProgram := i == 1; byProgram != (c.UID == nil) || !byProgram && (*c.UID != u.UID || *c.UserID != u.ID) {
				t.Errorf("change %d is by %v", i, c.UID)
			}
		}
	})
}

// Pages follow each other without a gap or a repetition, and the one after the last is empty.
func TestPages(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		const n = 7
		update(t, d, func(ctx context.Context, tx *db.Tx) error {
			for i := range n {
				u := &db.User{UID: fmt.Sprintf("ID%010d", i), Email: fmt.Sprintf("%d@example.com", i), State: "active"}
				if err := tx.InsertUser(ctx, u); err != nil {
					return err
				}
				err := errors.Join(
					tx.InsertProfile(ctx, &db.Profile{ID: int64(i)*9001 + 1, UserID: u.ID, FirstName: ref(u.UID)}), // in several blocks
					tx.InsertPermission(ctx, db.Who{}, &db.Permission{Role: "member", Verb: "GET", Path: u.UID, Action: "ACCEPT"}),
				)
				if err != nil {
					return err
				}
			}
			return nil
		})
		for name, list := range map[string]func(p db.Page) ([]int64, int64, error){
			"profiles": func(p db.Page) (ids []int64, total int64, err error) {
				rows, total, err := d.AllProfiles(t.Context(), p)
				for _, r := range rows {
					ids = append(ids, r.ID)
				}
				return ids, total, err
			},
			"permissions": func(p db.Page) (ids []int64, total int64, err error) {
				rows, total, err := d.Permissions(t.Context(), p)
				for _, r := range rows {
					ids = append(ids, r.ID)
				}
				return ids, total, err
			},
		} {
			var all []int64
			for page := 1; page <= 4; page++ {
				ids, total, err := list(db.Page{Number: page, Size: 3})
				if err != nil || total != n || len(ids) != []int{3, 3, 1, 0}[page-1] {
					t.Errorf("%s, page %d: %v of %d, %v", name, page, ids, total, err)
				}
				all = append(all, ids...)
			}
			if len(all) != n || !slices.IsSorted(all) || len(slices.Compact(all)) != n {
				t.Errorf("%s: pages hold %v", name, all)
			}
			if ids, total, err := list(db.Page{Number: 1 << 40, Size: 100}); err != nil || total != n || len(ids) != 0 {
				t.Errorf("%s, a page far out: %v of %d, %v", name, ids, total, err)
			}
		}
	})
}

// A row of the audit trail is cut and cleaned, never refused: it is not lost to what a stranger sent.
func TestActivitiesAreCut(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		u := insertUser(t, d, "ID0000000001", "ann@example.com")
		long, odd := strings.Repeat("ü", 1000), "a\x00b\xffc'\"\\"
		rows := []db.Activity{
			{
				UserID: u.ID, Category: "user", UserIP: long, UserAgent: long, Topic: long, Action: long, Result: "succeed",
				TargetUID: ref(long), UserIPCountry: ref("DE"), Data: ref(strings.Repeat("x", 100_000)),
			},
			{
				UserID: u.ID, Category: "user", UserIP: odd, UserAgent: odd, Topic: odd, Action: odd, Result: "failed",
				TargetUID: ref(odd), UserIPCountry: ref(odd), Data: ref(odd),
			},
			{Category: "admin", Result: "denied", Count: 5, CreatedAt: at("2020-01-02 03:04:05")},
		}
		insertActivities(t, d, rows...)
		var got []db.Activity
		if err := d.Bun().NewSelect().Model(&got).Order("id").Scan(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(got) != 3 {
			t.Fatalf("%d rows, want 3", len(got))
		}
		for _, text := range []string{got[0].UserAgent, got[0].Topic, got[0].Action, *got[0].TargetUID} {
			if text != strings.Repeat("ü", 127) {
				t.Errorf("a long text is kept as %d bytes, want 254", len(text))
			}
		}
		if got[0].UserIP != strings.Repeat("ü", 32) || len(*got[0].Data) != 100_000 || got[0].Count != 1 || got[0].CreatedAt.IsZero() {
			t.Errorf("the long row is kept as %d bytes of address, %d of data, count %d, at %s", len(got[0].UserIP),
				len(*got[0].Data), got[0].Count, got[0].CreatedAt)
		}
		for _, text := range []string{
			got[1].UserIP, got[1].UserAgent, got[1].Topic, got[1].Action, *got[1].TargetUID, *got[1].UserIPCountry, *got[1].Data,
		} {
			if text != "ab\ufffdc'\"\\" {
				t.Errorf("an odd text is kept as %q", text)
			}
		}
		if got[2].Count != 5 || !got[2].CreatedAt.Equal(at("2020-01-02 03:04:05")) {
			t.Errorf("a row with count and time of its own is kept as %+v", got[2])
		}
	})
}

// What no column can hold is looked for in vain, and is no failure.
func TestImpossibleTexts(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		u := insertUser(t, d, "ID0000000001", "ann@example.com")
		for _, odd := range []string{"nul\x00", "\x00", "\xff", "ann@example.com\x00", "'; DROP TABLE users; --", `\`, "%"} {
			_, err := d.UserByUID(ctx, odd)
			notFound(t, "UserByUID", err)
			_, err = d.UserByEmail(ctx, odd)
			notFound(t, "UserByEmail", err)
			if _, err := d.Principal(ctx, odd); !errors.Is(err, session.ErrNotFound) {
				t.Errorf("Principal: %v", err)
			}
			if _, err := d.APIKey(ctx, odd); !errors.Is(err, session.ErrNotFound) {
				t.Errorf("APIKey: %v", err)
			}
			_, err = d.UserAPIKey(ctx, u.ID, odd)
			notFound(t, "UserAPIKey", err)
			_, err = d.Label(ctx, u.ID, odd, "private")
			notFound(t, "Label", err)
			_, err = d.DataStorage(ctx, u.ID, odd)
			notFound(t, "DataStorage", err)
			_, err = d.DocumentByUpload(ctx, odd)
			notFound(t, "DocumentByUpload", err)
			_, err = d.Phone(ctx, u.ID, odd)
			notFound(t, "Phone", err)
			if ok, err := d.RoleExists(ctx, odd); err != nil || ok {
				t.Errorf("RoleExists: %v, %v", ok, err)
			}
		}
	})
}
