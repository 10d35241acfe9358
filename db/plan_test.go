package db_test

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"testing"

	"barong/db"

	"github.com/uptrace/bun"
)

// recorder keeps the statements that are run.
type recorder struct{ statements []string }

func (r *recorder) BeforeQuery(ctx context.Context, _ *bun.QueryEvent) context.Context { return ctx }

func (r *recorder) AfterQuery(_ context.Context, e *bun.QueryEvent) {
	r.statements = append(r.statements, e.Query)
}

// TestActivityPlans: every list and count of the API walks the index that is meant for it, in order, on the engine that
// chooses without statistics.
func TestActivityPlans(t *testing.T) {
	bothEngines(t, func(t *testing.T, d *db.DB) {
		if !d.SQLite() {
			return // Postgres chooses by what is in the table: there is no plan to hold it to
		}
		u := insertUser(t, d, "ID0000000001", "ann@example.com")
		insertActivities(t, d,
			db.Activity{UserID: u.ID, Category: "admin", Topic: "t", Action: "a", Result: "denied"},
			db.Activity{UserID: u.ID, Category: "user", Topic: "t", Action: "a", Result: "failed", TargetUID: ref("x")},
			db.Activity{UserID: u.ID, Category: "admin", Topic: "t", Action: "a", Result: "failed", TargetUID: ref("x"), CreatedAt: at("2026-01-01 12:00:00")})
		var log recorder
		//lint:ignore SA1019 the handle under test makes the statements; a copy of it with a hook would see none
		d.Bun().AddQueryHook(&log)
		from, to := at("2026-01-01 10:00:00").Unix(), at("2026-01-01 20:00:00").Unix()
		for _, tc := range []struct {
			f    db.ActivityFilter
			want []string // the indexes of the rows
		}{
			{db.ActivityFilter{Category: "user"}, []string{"activities_created_at"}},
			{db.ActivityFilter{Category: "user", Topic: ref("t")}, []string{"activities_kind", "activities_denied"}},
			{db.ActivityFilter{Category: "admin", Topic: ref("t"), Action: ref("a"), Result: ref("failed")}, []string{"activities_kind"}},
			{db.ActivityFilter{Category: "user", Action: ref("a"), Result: ref("failed")}, []string{"activities_kind"}},
			{db.ActivityFilter{Category: "admin", Result: ref("denied")}, []string{"activities_denied"}},
			{db.ActivityFilter{Category: "admin", Topic: ref("t"), Result: ref("denied")}, []string{"activities_denied"}},
			{db.ActivityFilter{Category: "admin", TargetUID: ref("x")}, []string{"activities_target_uid"}},
			{db.ActivityFilter{Category: "admin", TargetUID: ref("x"), Topic: ref("t"), From: &from, To: &to}, []string{"activities_target_uid"}},
			{db.ActivityFilter{Category: "user", UserID: u.ID}, []string{"activities_user_id"}},
			{db.ActivityFilter{Category: "user", UserID: u.ID, Topic: ref("t")}, []string{"activities_user_id"}},
			{db.ActivityFilter{Category: "user", UserID: u.ID, Result: ref("failed")}, []string{"activities_user_id"}},
			{db.ActivityFilter{UserID: u.ID, Topic: ref("t"), Action: ref("a"), Result: ref("failed"), Category: "user"}, []string{"activities_user_id"}},
			{db.ActivityFilter{Category: "admin", From: &from, To: &to}, []string{"activities_created_at", "activities_kind", "activities_denied"}},
			{db.ActivityFilter{Category: "admin", From: &from, To: &to, Topic: ref("t"), Action: ref("a"), Result: ref("failed")}, []string{"activities_kind"}},
		} {
			log.statements = nil
			if _, total, err := d.Activities(t.Context(), tc.f, db.Page{Number: 1, Size: 10}); err != nil || total == 0 {
				t.Fatalf("%+v: %d, %v", tc.f, total, err)
			}
			indexes := regexp.MustCompile(`(?:SCAN|SEARCH) activities(?: USING (?:COVERING )?INDEX (\w+))?`)
			seen := map[string]bool{}
			for _, statement := range log.statements {
				if !strings.Contains(statement, "activities") || strings.HasPrefix(statement, "SELECT \"a\"") {
					continue // no rows; or those of the page, by their ids
				}
				var plan []struct {
					ID      int    `bun:"id"`
					Parent  int    `bun:"parent"`
					Notused int    `bun:"notused"`
					Detail  string `bun:"detail"`
				}
				if err := d.Bun().NewRaw("EXPLAIN QUERY PLAN "+statement).Scan(t.Context(), &plan); err != nil {
					t.Fatalf("%s: %v", statement, err)
				}
				var all strings.Builder
				for _, step := range plan {
					all.WriteString(step.Detail + "; ")
					if m := indexes.FindStringSubmatch(step.Detail); m != nil {
						seen[m[1]] = true
						if !slices.Contains(tc.want, m[1]) {
							t.Errorf("%s:\n%s\nwant %v", statement, step.Detail, tc.want)
						}
					}
				}
				if strings.Contains(all.String(), "TEMP B-TREE") && !strings.Contains(statement, "MATERIALIZED") && !strings.Contains(statement, "GROUP BY") {
					t.Errorf("%s:\n%s\nthe index does not give the order", statement, all.String())
				}
			}
			if len(seen) != len(tc.want) {
				t.Errorf("%+v: walks %v, want %v", tc.f, seen, tc.want)
			}
		}
	})
}
