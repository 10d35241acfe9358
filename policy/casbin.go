package policy

import (
	_ "embed" // the shipped model
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/casbin/casbin/v2"
	"github.com/casbin/casbin/v2/model"
)

//go:embed model.conf
var shippedModel string

// ShippedModel is the text of the Casbin model that is used when the operator has none: a starting point for one.
func ShippedModel() string { return shippedModel }

// effects are the names that the Casbin model knows the kinds by.
var effects = [kinds]string{accept: "allow", drop: "deny", audit: "audit"}

// A permissionAdapter hands a slice of permissions to Casbin, which only ever reads from it.
type permissionAdapter []Permission

var errReadOnly = errors.New("permissions are written by their table, not through casbin")

// LoadPolicy adds each distinct permission once, as role, verb, path and effect.
func (a permissionAdapter) LoadPolicy(m model.Model) error {
	seen := make(map[[4]string]bool, len(a))
	for _, p := range a {
		row := policyRow(&p)
		if seen[row] {
			continue
		}
		seen[row] = true
		if err := m.AddPolicy("p", "p", row[:]); err != nil {
			return err
		}
	}
	return nil
}

func (permissionAdapter) SavePolicy(model.Model) error { return errReadOnly }

func (permissionAdapter) AddPolicy(string, string, []string) error { return errReadOnly }

func (permissionAdapter) RemovePolicy(string, string, []string) error { return errReadOnly }

func (permissionAdapter) RemoveFilteredPolicy(string, string, int, ...string) error {
	return errReadOnly
}

func policyRow(p *Permission) [4]string {
	k, _ := actionKind(p.Action)
	return [4]string{p.Role, p.Verb, p.Path, effects[k]}
}

// newEnforcer makes a Casbin enforcer for checked permissions. The model's request must be three values (role, verb,
// path) and its policy four, the last of them the effect, named eft; pathMatch(path, prefix, effect) and method(verb) are
// registered beside Casbin's own functions.
func newEnforcer(text string, permissions []Permission) (e *casbin.Enforcer, err error) {
	defer func() { // casbin's model parser indexes into what it expects to find
		if r := recover(); r != nil {
			e, err = nil, fmt.Errorf("casbin model: %v", r)
		}
	}()
	m, err := model.NewModelFromString(text)
	if err != nil {
		return nil, fmt.Errorf("casbin model: %w", err)
	}
	for _, want := range [...]struct {
		section string
		values  int
	}{{"r", 3}, {"p", 4}, {"e", 0}, {"m", 0}} {
		a, err := m.GetAssertion(want.section, want.section)
		if err != nil {
			return nil, fmt.Errorf("casbin model: %w", err)
		}
		if len(a.Tokens) != want.values {
			return nil, fmt.Errorf("casbin model: %s has %d values, want %d (role, verb, path; a policy also eft)",
				want.section, len(a.Tokens), want.values)
		}
	}
	if last := m["p"]["p"].Tokens[3]; last != "p_eft" {
		return nil, fmt.Errorf("casbin model: the last value of p is %q, want eft", strings.TrimPrefix(last, "p_"))
	}
	e, err = casbin.NewEnforcer(m, permissionAdapter(permissions))
	if err != nil {
		return nil, fmt.Errorf("casbin model: %w", err)
	}
	e.EnableAutoSave(false)
	e.AddFunction("pathMatch", pathMatch)
	e.AddFunction("method", method)
	return e, nil
}

// method is Method for Casbin's matchers.
func method(args ...any) (any, error) {
	if len(args) != 1 {
		return false, fmt.Errorf("method takes a verb, got %d values", len(args))
	}
	verb, ok := args[0].(string)
	if !ok {
		return false, errors.New("method: the verb is no text")
	}
	return Method(verb), nil
}

// pathMatch is pathMatches for Casbin's matchers.
func pathMatch(args ...any) (any, error) {
	if len(args) != 3 {
		return false, fmt.Errorf("pathMatch takes a path, a prefix and an effect, got %d values", len(args))
	}
	var text [3]string
	for i, arg := range args {
		s, ok := arg.(string)
		if !ok {
			return false, fmt.Errorf("pathMatch: value %d is no text", i+1)
		}
		text[i] = s
	}
	k := drop
	if text[2] == effects[accept] {
		k = accept
	}
	return pathMatches(text[0], text[1], k), nil
}

// Bounds of the cache before an operator's own model. Paths are the caller's choice, so neither the number of entries
// nor the size of one may depend on them: at most 2 generations x 8,192 entries x about 600 bytes.
const (
	cacheEntries = 8192
	cacheKeySize = 512
)

// An ownModel lets Casbin decide by an operator's model.
type ownModel struct {
	enforcer *casbin.Enforcer    // never written to after it is made, so enforcing in parallel is safe
	rules    map[[4]string]int32 // first permission of a policy row
	empty    bool                // no permissions: casbin would then match against empty values, so it is not asked

	mu     sync.RWMutex
	recent map[question]answer // answers go here; when it is full it becomes older, and what was older is forgotten
	older  map[question]answer
}

type question struct{ role, verb, path string }

type answer struct {
	allow bool
	rule  int32 // the permission that Casbin names, or -1
	err   error
}

func newOwnModel(text string, permissions []Permission) (*ownModel, error) {
	e, err := newEnforcer(text, permissions)
	if err != nil {
		return nil, err
	}
	m := &ownModel{
		enforcer: e,
		rules:    make(map[[4]string]int32, len(permissions)),
		empty:    len(permissions) == 0,
		recent:   make(map[question]answer),
	}
	for i := range permissions {
		row := policyRow(&permissions[i])
		if _, ok := m.rules[row]; !ok {
			m.rules[row] = int32(i)
		}
	}
	// Casbin reads matcher and effect only when it enforces, and then row by row. One trial finds what is wrong now.
	trial := e
	if m.empty {
		if trial, err = newEnforcer(text, []Permission{{Role: "role", Verb: "GET", Path: "path", Action: "ACCEPT"}}); err != nil {
			return nil, err
		}
	}
	if _, err := trial.Enforce("role", "GET", "path"); err != nil {
		return nil, fmt.Errorf("casbin model: %w", err)
	}
	return m, nil
}

func (m *ownModel) ask(role, verb, path string) answer {
	if m.empty {
		return answer{rule: -1}
	}
	q := question{role, verb, path}
	if len(role)+len(path) > cacheKeySize {
		return m.enforce(q)
	}
	m.mu.RLock()
	a, ok := m.recent[q]
	if !ok {
		a, ok = m.older[q]
		if ok {
			m.mu.RUnlock()
			m.keep(q, a)
			return a
		}
	}
	m.mu.RUnlock()
	if ok {
		return a
	}
	if a = m.enforce(q); a.err == nil {
		m.keep(q, a)
	}
	return a
}

func (m *ownModel) keep(q question, a answer) {
	// The caller's strings may be views of a buffer that is used again.
	q = question{strings.Clone(q.role), strings.Clone(q.verb), strings.Clone(q.path)}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.recent) >= cacheEntries {
		m.older, m.recent = m.recent, make(map[question]answer)
	}
	m.recent[q] = a
}

func (m *ownModel) enforce(q question) answer {
	allow, row, err := m.enforcer.EnforceEx(q.role, q.verb, q.path)
	if err != nil {
		return answer{rule: -1, err: err}
	}
	a := answer{allow: allow, rule: -1}
	if len(row) == 4 {
		if i, ok := m.rules[[4]string(row)]; ok {
			a.rule = i
		}
	}
	return a
}
