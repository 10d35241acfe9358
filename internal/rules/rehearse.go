package rules

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"barong/authz"
	"barong/db"
	"barong/policy"
)

// What a Change does.
const (
	Create = "create"
	Update = "update"
	Delete = "delete"
)

// A Change is a permission to be created, updated or deleted. It has the form in which the API takes it.
type Change struct {
	Op     string  `json:"op"`           // Create, Update or Delete
	ID     int64   `json:"id,omitempty"` // of the row that is updated or deleted
	Role   *string `json:"role,omitempty"`
	Verb   *string `json:"verb,omitempty"`
	Path   *string `json:"path,omitempty"`
	Action *string `json:"action,omitempty"`
	Topic  *string `json:"topic,omitempty"`
}

// A ChangeError says which change cannot be made. Err is db.ErrNotFound when it names no permission.
type ChangeError struct {
	Index int // of the change, from 0
	Err   error
}

func (e *ChangeError) Error() string { return fmt.Sprintf("change %d: %v", e.Index+1, e.Err) }

// Unwrap returns Err.
func (e *ChangeError) Unwrap() error { return e.Err }

// Apply returns the permissions as they would be after the changes, which are made one after the other; permissions
// itself is left as it is. The error is a *ChangeError.
func Apply(permissions []policy.Permission, changes []Change) ([]policy.Permission, error) {
	out := slices.Clone(permissions)
	last := int64(0)
	for i := range out {
		last = max(last, out[i].ID)
	}
	for i := range changes {
		c := &changes[i]
		at := -1
		switch c.Op {
		case Create:
			last++
			out = append(out, policy.Permission{ID: last})
			at = len(out) - 1
		case Update, Delete:
			at = slices.IndexFunc(out, func(p policy.Permission) bool { return p.ID == c.ID })
			if at < 0 {
				return nil, &ChangeError{i, db.ErrNotFound}
			}
			if c.Op == Delete {
				out = slices.Delete(out, at, at+1)
				continue
			}
		default:
			return nil, &ChangeError{i, fmt.Errorf("op %q is none of create, update, delete", c.Op)}
		}
		p := &out[at]
		for _, f := range [...]struct {
			to   *string
			from *string
		}{{&p.Role, c.Role}, {&p.Verb, c.Verb}, {&p.Path, c.Path}, {&p.Action, c.Action}, {&p.Topic, c.Topic}} {
			if f.from != nil {
				*f.to = *f.from
			}
		}
		p.Verb, p.Action = strings.ToUpper(p.Verb), strings.ToUpper(p.Action)
		if err := p.Validate(); err != nil {
			return nil, &ChangeError{i, err}
		}
	}
	return out, nil
}

// A Turn is a recent decision that would be another after the changes.
type Turn struct {
	Role       string    `json:"role"`
	Verb       string    `json:"verb"`
	Path       string    `json:"path"`
	Before     bool      `json:"before"` // allowed now
	After      bool      `json:"after"`  // allowed after the changes
	RuleBefore string    `json:"rule_before,omitempty"`
	RuleAfter  string    `json:"rule_after,omitempty"`
	Count      int64     `json:"count"` // how often it was asked, about
	Seen       time.Time `json:"seen"`  // when last
}

// Preview rehearses changes on the recent decisions of all replicas, and returns those that would turn, the most
// frequent first. Nothing is changed. The stored permissions count, which may be newer than the policy in force. The
// error is a *ChangeError when a change cannot be made.
func (r *Rules) Preview(ctx context.Context, changes []Change) ([]Turn, error) {
	if err := r.store(ctx); err != nil {
		return nil, fmt.Errorf("preview: %w", err)
	}
	samples, err := r.o.DB.Samples(ctx)
	if err != nil {
		return nil, fmt.Errorf("preview: %w", err)
	}
	rows, err := r.o.DB.AllPermissions(ctx)
	if err != nil {
		return nil, fmt.Errorf("preview: %w", err)
	}
	stored := Permissions(rows)
	changed, err := Apply(stored, changes)
	if err != nil {
		return nil, err
	}
	before, err := r.compile(stored)
	if err != nil {
		return nil, fmt.Errorf("preview: as it is: %w", err)
	}
	after, err := r.compile(changed)
	if err != nil {
		return nil, fmt.Errorf("preview: as it would be: %w", err)
	}
	turns := []Turn{}
	for _, s := range samples {
		b, a := before.Permit(s.Role, s.Verb, s.Path), after.Permit(s.Role, s.Verb, s.Path)
		if b.Allow == a.Allow {
			continue
		}
		t := Turn{Role: s.Role, Verb: s.Verb, Path: s.Path, Before: b.Allow, After: a.Allow, Count: s.Count, Seen: s.Seen}
		if b.Rule != nil {
			t.RuleBefore = b.Rule.String()
		}
		if a.Rule != nil {
			t.RuleAfter = a.Rule.String()
		}
		turns = append(turns, t)
	}
	slices.SortStableFunc(turns, func(a, b Turn) int { return cmp.Compare(b.Count, a.Count) })
	return turns, nil
}

// compile makes permissions a policy under the model in force, without restrictions and lists.
func (r *Rules) compile(permissions []policy.Permission) (*policy.Snapshot, error) {
	return policy.Compile(policy.Source{Permissions: permissions, Model: *r.model.Load(), Prefix: strings.Trim(r.o.Prefix, "/")})
}

// SuperadminCanAct reports whether these permissions, under the model in force, let the role superadmin manage
// permissions, restrictions and roles: see policy.Snapshot. An edit after which they do not is refused, unless it was so
// before.
func (r *Rules) SuperadminCanAct(permissions []policy.Permission) bool {
	s, err := r.compile(permissions)
	return err == nil && s.SuperadminCanAct()
}

// An Explanation says what would be answered to the request of a role, or of a user.
type Explanation struct {
	UID     string  `json:"uid,omitempty"`   // of the user
	State   string  `json:"state,omitempty"` // of the user: whose account is not open is refused
	Role    string  `json:"role"`
	Verb    string  `json:"verb"`
	Path    string  `json:"path"`            // canonical
	Allowed bool    `json:"allowed"`         // what a gateway would be told: the lists stand before the permissions
	Block   string  `json:"block,omitempty"` // entry of the block list that refuses whatever the permissions say
	Pass    string  `json:"pass,omitempty"`  // entry of the pass list that lets anybody through
	Permit  bool    `json:"permitted"`       // what the permissions say
	Audit   bool    `json:"audit"`           // an allowed request is recorded
	Topic   string  `json:"topic,omitempty"` // under which topic; empty for that of the path
	Matches []Match `json:"matches"`         // the permissions that match, in stored order
	Version int64   `json:"version"`         // of the rules
}

// A Match is a permission that matches, and what it does.
type Match struct {
	ID      int64  `json:"id"`
	Action  string `json:"action"`
	Role    string `json:"role"`
	Verb    string `json:"verb"`
	Path    string `json:"path"`
	Topic   string `json:"topic,omitempty"`
	Does    string `json:"does"`    // "grants", "refuses", "overruled" or "records"
	Decides bool   `json:"decides"` // this is the row that the answer comes from, or whose topic counts
}

// ErrPath says that a path is one that every check refuses, because two readers might see two paths in it.
var ErrPath = fmt.Errorf("rules: the path is ambiguous")

// Explain says what the policy in force answers to a request. path is what a client would ask for, with or without leading
// slash. Restrictions, which judge where a client comes from, are left out. The error is ErrPath.
func (r *Rules) Explain(role, verb, path string) (*Explanation, error) {
	return Explain(r.Snapshot(), role, verb, path)
}

// ExplainUser is Explain for a user: by their role, and by the state of their account, which a check looks at wherever it
// asks who is calling. The error is ErrPath, or db.ErrNotFound.
func (r *Rules) ExplainUser(ctx context.Context, uid, verb, path string) (*Explanation, error) {
	user, err := r.o.DB.UserByUID(ctx, uid)
	if err != nil {
		return nil, err
	}
	c, err := r.Explain(user.Role, verb, path)
	if err != nil {
		return nil, err
	}
	c.UID, c.State = user.UID, user.State
	c.Allowed = c.Allowed && (c.Pass != "" || user.Open())
	return c, nil
}

// Explain is Rules.Explain for any policy.
func Explain(s *policy.Snapshot, role, verb, path string) (*Explanation, error) {
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	canonical, ok := authz.Canonical(path)
	if !ok {
		return nil, ErrPath
	}
	c := &Explanation{Role: role, Verb: strings.ToUpper(verb), Path: canonical, Matches: []Match{}, Version: s.Version()}
	blocked, passed := false, false
	c.Block, blocked = s.Blocked(canonical)
	c.Pass, passed = s.Passed(c.Verb, canonical)
	v := s.Permit(role, c.Verb, canonical)
	c.Permit, c.Audit, c.Topic = v.Allow, v.Audit, v.Topic
	c.Allowed = policy.Method(c.Verb) && !blocked && (passed || v.Allow)
	for _, m := range s.Explain(role, c.Verb, canonical) {
		c.Matches = append(c.Matches, Match{
			ID: m.Rule.ID, Action: m.Rule.Action, Role: m.Rule.Role, Verb: m.Rule.Verb, Path: m.Rule.Path, Topic: m.Rule.Topic,
			Does: m.Deed.String(), Decides: m.Decides,
		})
	}
	return c, nil
}
