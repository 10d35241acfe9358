package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"barong/db"
)

// writeTime is how long each kind of write is done.
const writeTime = 8 * time.Second

// writes prints how many units of work a second the database takes, by one and by eight writers at a time, and how much
// processor time one costs: what a sign-up writes, what a confirmed address changes, one activity, and a batch of
// activities as the audit of the check writes it. Hashing passwords, which takes far longer than all of this, is left
// out. What was written is deleted at the end.
func writes(ctx context.Context, d *db.DB, out io.Writer) error {
	var next atomic.Int64
	next.Store(time.Now().UnixNano())
	member := func(n int64) *db.User {
		return &db.User{
			UID: fmt.Sprintf("IX%016X", n), Email: fmt.Sprintf("writes%d@example.com", n), PasswordDigest: "x", Role: "member", State: "pending",
		}
	}
	activity := func(u int64) db.Activity {
		return db.Activity{
			UserID: u, Category: db.CategoryUser, Topic: "session", Action: "login", Result: "succeed", UserIP: "203.0.113.7",
			UserAgent: "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0",
		}
	}
	batch := make([]db.Activity, 100)
	for i := range batch {
		batch[i] = activity(int64(i + 1))
		batch[i].Category, batch[i].Topic, batch[i].Action = db.CategoryAdmin, "users", []string{"read", "update", "create"}[i%3]
	}
	signUp := func(ctx context.Context, tx *db.Tx) (*db.User, error) {
		u := member(next.Add(1))
		if err := tx.InsertUser(ctx, u); err != nil {
			return nil, err
		}
		a := activity(u.ID)
		a.Topic, a.Action = "account", "signup"
		return u, tx.InsertActivities(ctx, a)
	}
	var lastUser, lastActivity int64
	err := d.Bun().NewRaw("SELECT (SELECT coalesce(max(id), 0) FROM users), (SELECT coalesce(max(id), 0) FROM activities)").
		Scan(ctx, &lastUser, &lastActivity)
	if err != nil {
		return fmt.Errorf("writes: %w", err)
	}
	var withProfile []int64
	if err := d.Bun().NewRaw("SELECT DISTINCT user_id FROM profiles ORDER BY 1 LIMIT 5000").Scan(ctx, &withProfile); err != nil {
		return fmt.Errorf("writes: %w", err)
	}
	if len(withProfile) == 0 {
		return errors.New("writes: there is nobody with a profile; generate first")
	}
	fmt.Fprintf(out, "| Unit of work | 1 writer, a second | 8 writers, a second | processor, ms |\n| --- | ---: | ---: | ---: |\n")
	for _, w := range []struct {
		name string
		each int
		unit func(ctx context.Context, tx *db.Tx) error
	}{
		{"sign-up: a user, an activity", 1, func(ctx context.Context, tx *db.Tx) error {
			_, err := signUp(ctx, tx)
			return err
		}},
		{"the same, and the address confirmed: a label, level and state", 1, func(ctx context.Context, tx *db.Tx) error {
			u, err := signUp(ctx, tx)
			if err != nil {
				return err
			}
			if err := tx.InsertLabel(ctx, &db.Label{UserID: u.ID, Key: "email", Value: "verified", Scope: "private"}); err != nil {
				return err
			}
			u.Level, u.State = 1, "active"
			return tx.UpdateUser(ctx, u, "level", "state")
		}},
		{"sign-up, and a profile: a label", 1, func(ctx context.Context, tx *db.Tx) error {
			u, err := signUp(ctx, tx)
			if err != nil {
				return err
			}
			p := db.Profile{UserID: u.ID, FirstName: ref(firstName(0)), LastName: ref(lastName(0)), Country: ref("UA"), State: db.ProfileSubmitted}
			if err := tx.InsertProfile(ctx, &p); err != nil {
				return err
			}
			return tx.InsertLabel(ctx, &db.Label{UserID: u.ID, Key: "profile", Value: "submitted", Scope: "private"})
		}},
		{"state and level of a user with a profile changed", 1, func(ctx context.Context, tx *db.Tx) error {
			n := next.Add(1)
			u, err := tx.LockUser(ctx, withProfile[n%int64(len(withProfile))])
			if err != nil {
				return err
			}
			u.Level, u.State = int(n/int64(len(withProfile)))%4, []string{"active", "pending"}[n%2]
			return tx.UpdateUser(ctx, u, "level", "state")
		}},
		{"an activity", 1, func(ctx context.Context, tx *db.Tx) error {
			return tx.InsertActivities(ctx, activity(1+next.Add(1)%1000))
		}},
		{"activities, in batches of 100", len(batch), func(ctx context.Context, tx *db.Tx) error {
			rows := append([]db.Activity(nil), batch...)
			return tx.InsertActivities(ctx, rows...)
		}},
	} {
		if err := d.Update(ctx, w.unit); err != nil { // warm
			return fmt.Errorf("%s: %w", w.name, err)
		}
		m, err := newMeter(ctx, d)
		if err != nil {
			return err
		}
		if m != nil {
			m.postmaster = 0 // its children are not parallel workers here, but those that clean up
		}
		var rates []string
		var cpu time.Duration
		for _, writers := range []int{1, 8} {
			var done atomic.Int64
			var before time.Duration
			if m != nil {
				before = m.used()
			}
			until := time.Now().Add(writeTime)
			errs := make(chan error, writers)
			var wg sync.WaitGroup
			for range writers {
				wg.Go(func() {
					for time.Now().Before(until) {
						if err := d.Update(ctx, w.unit); err != nil {
							errs <- err
							return
						}
						done.Add(int64(w.each))
					}
				})
			}
			wg.Wait()
			select {
			case err := <-errs:
				return fmt.Errorf("%s: %w", w.name, err)
			default:
			}
			if m != nil && writers == 1 {
				cpu = (m.used() - before) / time.Duration(max(done.Load(), 1))
			}
			rates = append(rates, fmt.Sprintf("%.0f", float64(done.Load())/writeTime.Seconds()))
		}
		fmt.Fprintf(out, "| %s | %s | %s | %.2f |\n", w.name, rates[0], rates[1], float64(cpu.Microseconds())/1000)
	}
	for _, q := range []string{
		"DELETE FROM labels WHERE user_id > ?0", "DELETE FROM users WHERE id > ?0", "DELETE FROM activities WHERE id > ?1",
	} {
		if _, err := d.Bun().NewRaw(q, lastUser, lastActivity).Exec(ctx); err != nil {
			return fmt.Errorf("writes: %w", err)
		}
	}
	_, err = d.Bun().ExecContext(ctx, "VACUUM (ANALYZE) users, labels, activities")
	return err
}
