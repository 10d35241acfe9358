package main_test

import (
	"context"
	"testing"

	"barong/db"
	"barong/internal/crypto/secret"
)

// TestPolicyOfUser holds that a check can be asked for by a user, whose state counts.
func TestPolicyOfUser(t *testing.T) {
	t.Parallel()
	everyEngine(t, func(t *testing.T, env []string) {
		dir := t.TempDir()
		play(t, dir, step{call: "migrate up", env: env, out: "."})
		d := open(t, dir, env, secret.NewKey())
		err := d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
			for _, u := range []*db.User{
				{UID: "ID0000000001", Email: "a@example.com", Role: "member", State: "active"},
				{UID: "ID0000000002", Email: "b@example.com", Role: "member", State: "banned"},
			} {
				if err := tx.InsertUser(ctx, u); err != nil {
					return err
				}
			}
			return tx.InsertPermission(ctx, db.Who{}, &db.Permission{Role: "member", Verb: "GET", Path: "api/v2/trade", Action: "ACCEPT"})
		})
		if err != nil {
			t.Fatal(err)
		}
		play(t, dir,
			step{call: "policy check --uid ID0000000001 --method GET api/v2/trade", env: env, out: `grants, decides$.*^user ID0000000001: role member, state active\nALLOWED\n\z`},
			step{call: "policy check --uid ID0000000002 --method GET api/v2/trade", env: env, status: 1, out: `grants, decides$.*^user ID0000000002: role member, state banned\nDENIED\n\z`},
			step{call: "policy check --uid ID0000000003 --method GET api/v2/trade", env: env, status: 1, errs: "there is no user ID0000000003"},
			step{call: "policy check --uid ID0000000001 --role member --method GET api/v2/trade", env: env, status: 2, errs: "--uid"},
			step{call: "policy check --method GET api/v2/trade", env: env, status: 2, errs: "--role"})
	})
}
