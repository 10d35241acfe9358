package db_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"barong/db"
	"barong/internal/crypto/secret"
	"barong/internal/test/dbtest"
)

// reopen opens the database of that URL with a key list.
func reopen(t *testing.T, url string, keys ...secret.Text) *db.DB {
	t.Helper()
	var list []string
	for _, k := range keys {
		list = append(list, k.Reveal())
	}
	box, err := secret.New(secret.Text(strings.Join(list, ",")))
	if err != nil {
		t.Fatal(err)
	}
	d, err := db.Open(t.Context(), db.Options{URL: url, Sealer: box})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// fill stores something in every sealed column, of more users than one batch holds, and returns the first user's id.
func fill(t *testing.T, d *db.DB, users int) int64 {
	t.Helper()
	text := func(s string) *string { return &s }
	var first int64
	err := d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
		for i := range users {
			n := string(rune('a'+i/26)) + string(rune('a'+i%26))
			u := &db.User{UID: "ID" + n, Email: n + "@a.test", PasswordDigest: "x", Role: "member", State: "active"}
			if err := tx.InsertUser(ctx, u); err != nil {
				return err
			}
			if first == 0 {
				first = u.ID
			}
			if err := tx.PutTOTPKey(ctx, u.ID, "SECRET"+n); err != nil {
				return err
			}
			if err := tx.InsertAPIKey(ctx, &db.APIKey{UserID: u.ID, KID: "kid" + n, Algorithm: "HS256", State: "active", Secret: "key" + n}); err != nil {
				return err
			}
			if err := tx.InsertProfile(ctx, &db.Profile{UserID: u.ID, FirstName: text("Ann" + n), LastName: text("Lee"), DOB: text("1990-01-02"), City: text("")}); err != nil {
				return err
			}
			if err := tx.InsertPhone(ctx, &db.Phone{UserID: u.ID, Country: "DE", Number: "49" + n}); err != nil {
				return err
			}
			if err := tx.InsertDocument(ctx, &db.Document{UserID: u.ID, DocNumber: text("D" + n)}); err != nil {
				return err
			}
			if err := tx.InsertDocument(ctx, &db.Document{UserID: u.ID}); err != nil { // nothing sealed in it
				return err
			}
			if err := tx.Enqueue(ctx, "mail", "user.created", []byte("payload"+n)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return first
}

// readable checks that everything of the first user opens, and is found by its indexes.
func readable(t *testing.T, d *db.DB, user int64) {
	t.Helper()
	ctx := t.Context()
	totp, err := d.TOTPKey(ctx, user)
	if err != nil || totp.Secret != "SECRETaa" {
		t.Errorf("second factor: %+v, %v", totp, err)
	}
	key, err := d.APIKey(ctx, "kidaa")
	if err != nil || string(key.Secret) != "keyaa" {
		t.Errorf("API key: %+v, %v", key, err)
	}
	profiles, err := d.Profiles(ctx, user)
	if err != nil || len(profiles) != 1 || *profiles[0].FirstName != "Annaa" || *profiles[0].City != "" || profiles[0].Postcode != nil {
		t.Errorf("profile: %+v, %v", profiles, err)
	}
	if p, err := d.Phone(ctx, user, "49aa"); err != nil || p.Number != "49aa" {
		t.Errorf("phone by its index: %+v, %v", p, err)
	}
	docs, err := d.Documents(ctx, user)
	if err != nil || len(docs) != 2 || *docs[0].DocNumber != "Daa" || docs[1].DocNumber != nil {
		t.Errorf("documents: %+v, %v", docs, err)
	}
	if err := d.VerifySeals(ctx); err != nil {
		t.Errorf("VerifySeals: %v", err)
	}
}

func sums(done []db.Resealed) (rows, sealed, indexed, failed int) {
	for _, r := range done {
		rows, sealed, indexed, failed = rows+r.Rows, sealed+r.Sealed, indexed+r.Indexed, failed+len(r.Failed)
	}
	return rows, sealed, indexed, failed
}

func TestReseal(t *testing.T) {
	for _, engine := range dbtest.Engines {
		t.Run(engine, func(t *testing.T) {
			url := dbtest.URL(t, engine)
			old, fresh := secret.NewKey(), secret.NewKey()
			before := reopen(t, url, old)
			const users = 130 // more than one batch
			user := fill(t, before, users)

			both := reopen(t, url, fresh, old)
			done, err := both.Reseal(t.Context())
			rows, sealed, indexed, failed := sums(done)
			if err != nil || rows != 7*users || sealed != 6*users || indexed != 3*users || failed != 0 {
				t.Fatalf("%+v, %v; want %d rows, %d of them sealed anew, %d indexed", done, err, 7*users, 6*users, 3*users)
			}
			readable(t, both, user)
			if done, err = both.Reseal(t.Context()); err != nil || func() bool { _, s, i, f := sums(done); return s+i+f != 0 }() {
				t.Fatalf("a second run finds something to do: %+v, %v", done, err)
			}

			// Without the old key everything still opens and is found; but for what a program indexed that did so by the oldest key.
			alone := reopen(t, url, fresh)
			readable(t, alone, user)
			if _, err := before.Bun().ExecContext(t.Context(), "UPDATE phones SET number_index = 'of another key' WHERE id = (SELECT max(id) FROM phones)"); err != nil {
				t.Fatal(err)
			}
			if err := alone.VerifySeals(t.Context()); err == nil || !strings.Contains(err.Error(), "secrets rotate") {
				t.Errorf("VerifySeals with another index key: %v", err)
			}
			done, err = alone.Reseal(t.Context())
			if _, sealed, indexed, failed = sums(done); err != nil || sealed != 0 || indexed != 1 || failed != 0 {
				t.Fatalf("%+v, %v; want one index made anew", done, err)
			}
			readable(t, alone, user)
			items, err := alone.LeaseOutbox(t.Context(), "mail", users, time.Minute, false)
			if err != nil || len(items) != users || string(items[0].Payload) != "payloadaa" {
				t.Errorf("outbox: %d items, %v", len(items), err)
			}
		})
	}
}

func TestResealLeavesWhatItCannotOpen(t *testing.T) {
	url := dbtest.URL(t, "sqlite")
	lost, known := secret.NewKey(), secret.NewKey()
	d := reopen(t, url, lost)
	user := fill(t, d, 2)
	other := reopen(t, url, known)
	if err := other.VerifySeals(t.Context()); err == nil {
		t.Error("VerifySeals is content without the key")
	}
	done, err := other.Reseal(t.Context())
	rows, sealed, indexed, failed := sums(done)
	if err != nil || rows != 14 || sealed != 0 || indexed != 0 || failed != 12 {
		t.Fatalf("%+v, %v; want 12 failed rows of 14", done, err)
	}
	readable(t, d, user) // nothing was spoiled
}

// TestResealGoesOnPastTwins has one phone number twice, verified twice, under two index keys: the second cannot be
// indexed anew, all others can.
func TestResealGoesOnPastTwins(t *testing.T) {
	for _, engine := range dbtest.Engines {
		t.Run(engine, func(t *testing.T) {
			url := dbtest.URL(t, engine)
			old, fresh := secret.NewKey(), secret.NewKey()
			d := reopen(t, url, old)
			user := fill(t, d, 5)
			again := func(d *db.DB) error {
				return d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
					return tx.InsertPhone(ctx, &db.Phone{UserID: user, Country: "DE", Number: "49aa"})
				})
			}
			both := reopen(t, url, fresh, old)
			if _, taken := errors.AsType[*db.ErrTaken](again(both)); !taken {
				t.Error("one number of a user is taken twice, under two keys")
			}
			if err := again(reopen(t, url, fresh)); err != nil { // which knows nothing of the old key
				t.Fatal(err)
			}
			done, err := both.Reseal(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(done, func(r db.Resealed) bool { return r.Table == "phones" })
			if p := done[i]; p.Rows != 6 || p.Indexed != 4 || len(p.Failed) != 1 || p.Err == nil {
				t.Errorf("phones: %+v, want 6 rows, 4 indexed, 1 failed", p)
			}
		})
	}
}
