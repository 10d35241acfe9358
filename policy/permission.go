package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Permission is one row of the permissions table.
type Permission struct {
	ID     int64
	Role   string // matched exactly
	Verb   string // upper case: a Method, or ALL
	Path   string // prefix without leading slash; one with a leading slash never matches
	Action string // upper case: ACCEPT grants, DROP refuses and beats any ACCEPT, AUDIT records and grants nothing
	Topic  string // audit topic of an AUDIT row; may be empty
}

// String names the permission in errors and explanations.
func (p Permission) String() string {
	return fmt.Sprintf("permission %d (%s %s %s %s)", p.ID, p.Role, p.Action, p.Verb, p.Path)
}

// A Verdict is what the permissions say to a request. Its zero value refuses.
type Verdict struct {
	Allow     bool
	Audit     bool        // an AUDIT row matched
	Undecided bool        // nothing could be decided: refuse as unavailable, not as forbidden
	Topic     string      // topic of the first AUDIT row that matched; empty when it has none
	Rule      *Permission // the row that decided, to be read only; nil when no row granted or refused
}

// A Deed is what a matching permission did to the request.
type Deed uint8

// The deeds.
const (
	Refuses   Deed = iota // a DROP row: the request is refused
	Grants                // an ACCEPT row that no DROP overrules
	Overruled             // an ACCEPT row beside a DROP row, or any row that an operator's own model decides against
	Records               // an AUDIT row: an audit row will be written if the request is allowed
)

// String is one word for tables.
func (d Deed) String() string { return [...]string{"refuses", "grants", "overruled", "records"}[d] }

// A Match is a permission that matched, and what it did.
type Match struct {
	Rule    *Permission // to be read only
	Deed    Deed
	Decides bool // this row is Verdict.Rule, or the AUDIT row whose topic counts
}

func actionKind(action string) (kind, bool) {
	switch action {
	case "ACCEPT":
		return accept, true
	case "DROP":
		return drop, true
	case "AUDIT":
		return audit, true
	}
	return 0, false
}

// verbTrees are the rows of one role, a tree per verb. Verbs without rows of their own share the tree of the ALL rows. The
// trees number the rows of their role from 0, so that they are good for any Snapshot in which the role has the same rows.
type verbTrees [len(methods)]*node

// A roleRules is the rules of one role in a Snapshot.
type roleRules struct {
	rows  []int32 // indexes into Snapshot.permissions, by the number that the trees have for a row
	trees *verbTrees
}

// Permit says whether role may call verb on path, and whether that is to be recorded. verb is the request's real
// method, path its canonical path. With the shipped model it allocates nothing and costs the same for 10 and 10,000
// rows.
func (s *Snapshot) Permit(role, verb, path string) Verdict { return s.judge(role, verb, path, nil) }

// Explain returns every permission that matches the request, in the order of the table, and what it did. It is the same
// walk as Permit's, so the two cannot disagree.
func (s *Snapshot) Explain(role, verb, path string) []Match {
	var trace []int32
	v := s.judge(role, verb, path, &trace)
	if s != nil && s.own != nil && v.Rule != nil { // an operator's model may match by other means than the prefix
		trace = append(trace, int32(slices.IndexFunc(s.permissions, func(p Permission) bool { return p == *v.Rule })))
	}
	slices.Sort(trace)
	var matches []Match
	audited := false
	for _, i := range slices.Compact(trace) {
		m := Match{Rule: &s.permissions[i]}
		switch k, _ := actionKind(m.Rule.Action); {
		case k == audit:
			m.Deed, m.Decides = Records, !audited
			audited = true
		case k == drop && !v.Allow:
			m.Deed, m.Decides = Refuses, m.Rule == v.Rule
		case k == accept && v.Allow:
			m.Deed, m.Decides = Grants, m.Rule == v.Rule
		default:
			m.Deed = Overruled
		}
		matches = append(matches, m)
	}
	return matches
}

func (s *Snapshot) judge(role, verb, path string, trace *[]int32) Verdict {
	if s == nil {
		return Verdict{Undecided: true}
	}
	verbNo := methodIndex(verb)
	if verbNo < 0 {
		return Verdict{}
	}
	var h hits
	rules, known := s.roles[role]
	if known {
		rules.trees[verbNo].walk(path, &h, trace)
		if trace != nil {
			for i, no := range *trace {
				(*trace)[i] = rules.rows[no]
			}
		}
	}
	var v Verdict
	if i, ok := h.get(audit); ok {
		v.Audit, v.Topic = true, s.permissions[rules.rows[i]].Topic
	}
	switch {
	case s.own != nil:
		answer := s.own.ask(role, verb, path)
		v.Allow, v.Undecided = answer.allow, answer.err != nil
		if answer.rule >= 0 {
			v.Rule = &s.permissions[answer.rule]
		}
	case h.first[drop] != 0:
		v.Rule = &s.permissions[rules.rows[h.first[drop]-1]]
	case h.first[accept] != 0:
		v.Allow, v.Rule = true, &s.permissions[rules.rows[h.first[accept]-1]]
	}
	return v
}

// compilePermissions checks the rows, puts them in the order of their ids and builds the trees. Rows that the Snapshot before
// has are good, and a role that has the same rows there has the same trees.
func (s *Snapshot) compilePermissions(rows []Permission, before *Snapshot) error {
	rows = slices.Clone(rows)
	slices.SortStableFunc(rows, func(a, b Permission) int { return cmp.Compare(a.ID, b.ID) })
	s.permissions = rows
	s.roles = make(map[string]*roleRules)
	var known []Permission // those before that may still come
	if before != nil {
		known = before.permissions
	}
	for i := range rows {
		p := &rows[i]
		p.Verb, p.Action = strings.ToUpper(p.Verb), strings.ToUpper(p.Action)
		for len(known) > 0 && known[0].ID < p.ID {
			known = known[1:]
		}
		if len(known) == 0 || known[0] != *p {
			if err := p.check(); err != nil {
				return fmt.Errorf("%s: %w", p, err)
			}
		}
		rules := s.roles[p.Role]
		if rules == nil {
			rules = new(roleRules)
			s.roles[p.Role] = rules
			s.roleNames = append(s.roleNames, p.Role)
		}
		switch {
		case unmatchable(p.Path) != "":
			s.warnings = append(s.warnings, fmt.Sprintf("%s: never matches, because its path %s", p, unmatchable(p.Path)))
		case p.Action == "ACCEPT" && onlyByAll(p.Verb):
			s.warnings = append(s.warnings, fmt.Sprintf("%s: grants nothing, because only ALL grants %s", p, p.Verb))
		}
		rules.rows = append(rules.rows, int32(i))
	}
	slices.Sort(s.roleNames)
	for role, rules := range s.roles {
		if before != nil {
			if old := before.roles[role]; old != nil && s.sameRules(rules, before, old) {
				rules.trees = old.trees
				continue
			}
		}
		s.plant(rules)
	}
	return nil
}

// sameRules reports whether two roles have the same trees.
func (s *Snapshot) sameRules(rules *roleRules, before *Snapshot, old *roleRules) bool {
	return slices.EqualFunc(rules.rows, old.rows, func(i, j int32) bool {
		a, b := &s.permissions[i], &before.permissions[j]
		return a.Path == b.Path && a.Verb == b.Verb && a.Action == b.Action
	})
}

// plant builds the trees of a role.
func (s *Snapshot) plant(rules *roleRules) {
	var all []int32
	var own [len(methods)][]int32
	for no, i := range rules.rows {
		switch p := &s.permissions[i]; {
		case p.Verb == "ALL":
			all = append(all, int32(no))
		case p.Action != "ACCEPT" || !onlyByAll(p.Verb):
			own[methodIndex(p.Verb)] = append(own[methodIndex(p.Verb)], int32(no))
		}
	}
	tree := func(numbers ...[]int32) *node {
		sorted := slices.Concat(numbers...)
		slices.Sort(sorted)
		root := new(node)
		for _, no := range sorted {
			p := &s.permissions[rules.rows[no]]
			k, _ := actionKind(p.Action)
			root.add(p.Path, k, no)
		}
		return root
	}
	shared := tree(all)
	rules.trees = new(verbTrees)
	for v := range rules.trees {
		rules.trees[v] = shared
		if len(own[v]) > 0 {
			rules.trees[v] = tree(all, own[v])
		}
	}
}

// unmatchable says why no canonical path begins with prefix, or nothing when one may.
func unmatchable(prefix string) string {
	switch {
	case strings.HasPrefix(prefix, "/"):
		return "begins with a slash"
	case strings.Contains(prefix, "//"):
		return "has an empty segment"
	case strings.ContainsAny(prefix, refusedBytes):
		return "has one of " + refusedBytes
	}
	return ""
}

// Validate checks a permission that is about to be stored, as Compile will. Verb and action may be in any case.
func (p Permission) Validate() error {
	p.Verb, p.Action = strings.ToUpper(p.Verb), strings.ToUpper(p.Action)
	return p.check()
}

func (p *Permission) check() error {
	for _, field := range [...]struct{ name, value string }{{"role", p.Role}, {"path", p.Path}} {
		if strings.TrimSpace(field.value) == "" {
			return fmt.Errorf("%s is blank", field.name)
		}
		if err := validateText(field.name, field.value); err != nil {
			return err
		}
	}
	if err := validateText("topic", p.Topic); err != nil {
		return err
	}
	if p.Verb != "ALL" && methodIndex(p.Verb) < 0 {
		return fmt.Errorf("verb %q is unknown", p.Verb)
	}
	if _, ok := actionKind(p.Action); !ok {
		return fmt.Errorf("action %q is unknown", p.Action)
	}
	return nil
}
