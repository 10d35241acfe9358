package db

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/uptrace/bun"
)

// A RuleSet is all permissions and restrictions at one moment, by id and without their times, and the number of the latest
// change to them.
type RuleSet struct {
	Permissions  []Permission
	Restrictions []Restriction
	Version      int64
}

// Rules reads the whole rule set as of one moment: no change is seen half. It is a single statement, which each engine
// answers from one snapshot; a transaction of several took five turns with the server, and on a busy machine that was most
// of the time until another replica felt an edit.
func (d *DB) Rules(ctx context.Context) (*RuleSet, error) {
	const version, permission, restriction = 0, 1, 2
	var rows []struct {
		Kind       int
		ID         int64
		A, B, C, D string
		Topic      *string
		Code       *int
	}
	err := d.idb.NewRaw(`
		SELECT ?0 AS kind, coalesce(max(id), 0) AS id, '' AS a, '' AS b, '' AS c, '' AS d,
			CAST(NULL AS TEXT) AS topic, CAST(NULL AS BIGINT) AS code FROM policy_changes
		UNION ALL SELECT ?1, id, role, verb, path, action, topic, NULL FROM permissions
		UNION ALL SELECT ?2, id, category, scope, value, state, NULL, code FROM restrictions
		ORDER BY 1, 2`, version, permission, restriction).Scan(ctx, &rows)
	if err != nil {
		return nil, fmt.Errorf("read rules: %w", Translate(err))
	}
	s := &RuleSet{Permissions: []Permission{}, Restrictions: []Restriction{}}
	for i := range rows {
		switch r := &rows[i]; r.Kind {
		case version:
			s.Version = r.ID
		case permission:
			s.Permissions = append(s.Permissions,
				Permission{ID: r.ID, Role: r.A, Verb: r.B, Path: r.C, Action: r.D, Topic: r.Topic})
		case restriction:
			s.Restrictions = append(s.Restrictions,
				Restriction{ID: r.ID, Category: r.A, Scope: r.B, Value: r.C, State: r.D, Code: r.Code})
		}
	}
	return s, nil
}

// A RuleDelta is the rules that changed after a version, as they are at one moment. What is gone is there by its id alone.
type RuleDelta struct {
	Permissions                       []Permission
	Restrictions                      []Restriction
	GonePermissions, GoneRestrictions []int64
	Version                           int64
}

// RulesSince reads what has changed after a version of the rules: much less than all of them, where there are many. Edits
// that went past this program, by hand, are not among it. Changes are numbered in the order of their commits; see LockRules.
func (d *DB) RulesSince(ctx context.Context, version int64) (*RuleDelta, error) {
	const latest, permission, restriction = 0, 1, 2
	var rows []struct {
		Kind       int
		ID         int64
		A, B, C, D *string
		Topic      *string
		Code       *int
	}
	err := d.idb.NewRaw(`
		WITH changed AS (SELECT DISTINCT subject, subject_id FROM policy_changes WHERE id > ?3)
		SELECT ?0 AS kind, coalesce(max(id), 0) AS id, '' AS a, '' AS b, '' AS c, '' AS d,
			CAST(NULL AS TEXT) AS topic, CAST(NULL AS BIGINT) AS code FROM policy_changes
		UNION ALL SELECT ?1, h.subject_id, p.role, p.verb, p.path, p.action, p.topic, NULL
			FROM changed h LEFT JOIN permissions p ON p.id = h.subject_id WHERE h.subject = 'permission'
		UNION ALL SELECT ?2, h.subject_id, r.category, r.scope, r.value, r.state, NULL, r.code
			FROM changed h LEFT JOIN restrictions r ON r.id = h.subject_id WHERE h.subject = 'restriction'
		ORDER BY 1, 2`, latest, permission, restriction, version).Scan(ctx, &rows)
	if err != nil {
		return nil, fmt.Errorf("read changed rules: %w", Translate(err))
	}
	delta := new(RuleDelta)
	for i := range rows {
		switch r := &rows[i]; {
		case r.Kind == latest:
			delta.Version = r.ID
		case r.Kind == permission && r.A == nil:
			delta.GonePermissions = append(delta.GonePermissions, r.ID)
		case r.Kind == permission:
			delta.Permissions = append(delta.Permissions, Permission{ID: r.ID, Role: *r.A, Verb: *r.B, Path: *r.C, Action: *r.D, Topic: r.Topic})
		case r.A == nil:
			delta.GoneRestrictions = append(delta.GoneRestrictions, r.ID)
		default:
			delta.Restrictions = append(delta.Restrictions, Restriction{ID: r.ID, Category: *r.A, Scope: *r.B, Value: *r.C, State: *r.D, Code: r.Code})
		}
	}
	return delta, nil
}

// PolicyVersion is the number of the latest rule change, or 0.
func (q queries) PolicyVersion(ctx context.Context) (int64, error) {
	var version int64
	err := q.idb.NewSelect().Model((*PolicyChange)(nil)).ColumnExpr("coalesce(max(id), 0)").Scan(ctx, &version)
	if err != nil {
		return 0, fmt.Errorf("read policy version: %w", Translate(err))
	}
	return version, nil
}

// A DecisionSample is a question that the permissions were asked lately, and the answer.
type DecisionSample struct {
	bun.BaseModel `bun:"table:decision_samples,alias:s"`

	Role, Verb, Path string
	Allowed          bool
	Count            int64     // how often, about
	SeenAt           int64     // Unix milliseconds
	Seen             time.Time `bun:"-"`
}

// AddSamples adds to what was asked lately and keeps the newest of it: keep of what was allowed and as many of what was
// refused, so that somebody who tries paths at random pushes out nothing but refusals.
func (d *DB) AddSamples(ctx context.Context, samples []DecisionSample, keep int) error {
	if len(samples) == 0 {
		return nil
	}
	// In one order everywhere, so that two replicas do not wait for each other in a circle.
	samples = slices.Clone(samples)
	slices.SortFunc(samples, func(a, b DecisionSample) int {
		return cmp.Or(cmp.Compare(a.Role, b.Role), cmp.Compare(a.Verb, b.Verb), cmp.Compare(a.Path, b.Path))
	})
	return d.Update(ctx, func(ctx context.Context, tx *Tx) error {
		for part := range slices.Chunk(samples, 500) {
			_, err := tx.NewInsert().Model(&part).On("CONFLICT (role, verb, path) DO UPDATE").
				Set("allowed = EXCLUDED.allowed").Set("seen_at = EXCLUDED.seen_at").
				Set("count = s.count + EXCLUDED.count").Exec(ctx)
			if err != nil {
				return fmt.Errorf("add decision samples: %w", err)
			}
		}
		for _, allowed := range [...]bool{false, true} {
			_, err := tx.ExecContext(ctx, "DELETE FROM decision_samples WHERE allowed = ? AND seen_at < coalesce("+
				"(SELECT seen_at FROM decision_samples WHERE allowed = ? ORDER BY seen_at DESC LIMIT 1 OFFSET ?), 0)",
				allowed, allowed, keep-1)
			if err != nil {
				return fmt.Errorf("drop old decision samples: %w", err)
			}
		}
		return nil
	})
}

// Samples are the questions asked lately, newest first.
func (q queries) Samples(ctx context.Context) ([]DecisionSample, error) {
	rows := []DecisionSample{}
	if err := q.idb.NewSelect().Model(&rows).Order("seen_at DESC", "role", "verb", "path").Scan(ctx); err != nil {
		return nil, fmt.Errorf("read decision samples: %w", Translate(err))
	}
	for i := range rows {
		rows[i].Seen = time.UnixMilli(rows[i].SeenAt).UTC()
	}
	return rows, nil
}
