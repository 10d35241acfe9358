package db_test

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"time"

	"barong/db"
)

// The rule set is what the tables hold, field for field.
func TestRuleSet(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		if got, err := d.Rules(ctx); err != nil || got.Version != 0 || len(got.Permissions)+len(got.Restrictions) != 0 {
			t.Errorf("of empty tables: %+v, %v", got, err)
		}
		permissions := []*db.Permission{
			{Role: "member", Verb: "GET", Path: "api/v2", Action: "ACCEPT", Topic: ref("general")},
			{Role: "it's ?0", Verb: "ALL", Path: "", Action: "AUDIT", Topic: ref("")},
			{Role: "member", Verb: "GET", Path: "api/v2", Action: "DROP"},
		}
		restrictions := []*db.Restriction{
			{Category: "blacklist", Scope: "ip", Value: "1.2.3.4", Code: ref(423), State: "enabled"},
			{Category: "whitelist", Scope: "all", Value: "all", Code: ref(0), State: "disabled"},
			{Category: "maintenance", Scope: "country", Value: "fr", State: "enabled"},
		}
		update(t, d, func(ctx context.Context, tx *db.Tx) (err error) {
			for i := range permissions {
				err = errors.Join(err, tx.InsertPermission(ctx, db.Who{}, permissions[i]),
					tx.InsertRestriction(ctx, db.Who{}, restrictions[i]))
			}
			return err
		})
		want := &db.RuleSet{}
		for i := range permissions {
			p, r := *permissions[i], *restrictions[i]
			p.CreatedAt, p.UpdatedAt, r.CreatedAt, r.UpdatedAt = time.Time{}, time.Time{}, time.Time{}, time.Time{}
			want.Permissions, want.Restrictions = append(want.Permissions, p), append(want.Restrictions, r)
		}
		var err error
		if want.Version, err = d.PolicyVersion(ctx); err != nil || want.Version == 0 {
			t.Fatalf("version %d, %v", want.Version, err)
		}
		if got, err := d.Rules(ctx); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	})
}
