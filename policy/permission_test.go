package policy

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func compile(t testing.TB, src Source) *Snapshot {
	t.Helper()
	s, err := Compile(src)
	if err != nil {
		t.Fatalf("Compile: %v", err)
	}
	return s
}

// perms reads lines "role verb path action [topic]", numbered from 1.
func perms(lines ...string) []Permission {
	out := make([]Permission, 0, len(lines))
	for i, line := range lines {
		f := append(strings.Fields(line), "")
		out = append(out, Permission{ID: int64(i + 1), Role: f[0], Verb: f[1], Path: f[2], Action: f[3], Topic: f[4]})
	}
	return out
}

func TestPermit(t *testing.T) {
	for _, tc := range []struct {
		name             string
		rules            []string
		role, verb, path string
		allow            bool
		rule             int64 // id of Verdict.Rule, 0 for none
	}{
		{"no rules", nil, "member", "GET", "a", false, 0},
		{"accept", []string{"member GET a ACCEPT"}, "member", "GET", "a", true, 1},
		{"another role", []string{"member GET a ACCEPT"}, "admin", "GET", "a", false, 0},
		{"roles are compared exactly", []string{"member GET a ACCEPT"}, "Member", "GET", "a", false, 0},
		{"another verb", []string{"member GET a ACCEPT"}, "member", "POST", "a", false, 0},
		{"stored verb and action in lower case", []string{"member get a accept"}, "member", "GET", "a", true, 1},
		{"methods are case-sensitive", []string{"member ALL a ACCEPT"}, "member", "get", "a", false, 0},
		{"unknown method", []string{"member ALL a ACCEPT"}, "member", "CONNECT", "a", false, 0},
		{"below", []string{"member GET a/b ACCEPT"}, "member", "GET", "a/b/c", true, 1},
		{"format suffix", []string{"member GET a/b ACCEPT"}, "member", "GET", "a/b.json", true, 1},
		{"not within a segment", []string{"member GET a/b ACCEPT"}, "member", "GET", "a/bc", false, 0},
		{"entry with a slash grants what is below", []string{"member GET a/ ACCEPT"}, "member", "GET", "a/b", true, 1},
		{"and not the folder itself", []string{"member GET a/ ACCEPT"}, "member", "GET", "a", false, 0},
		{"paths are compared exactly", []string{"member GET a ACCEPT"}, "member", "GET", "A", false, 0},
		{"leading slash never matches", []string{"member GET /a ACCEPT"}, "member", "GET", "a", false, 0},
		{"HEAD needs its own", []string{"member GET a ACCEPT"}, "member", "HEAD", "a", false, 0},
		{"HEAD of its own", []string{"member HEAD a ACCEPT"}, "member", "HEAD", "a", true, 1},
		{"HEAD by ALL", []string{"member ALL a ACCEPT"}, "member", "HEAD", "a", true, 1},
		{"OPTIONS not by its own", []string{"member OPTIONS a ACCEPT"}, "member", "OPTIONS", "a", false, 0},
		{"OPTIONS by ALL", []string{"member ALL a ACCEPT"}, "member", "OPTIONS", "a", true, 1},
		{"TRACE not by its own", []string{"member TRACE a ACCEPT"}, "member", "TRACE", "a", false, 0},
		{"TRACE dropped by its own", []string{"member ALL a ACCEPT", "member TRACE a DROP"}, "member", "TRACE", "a", false, 2},
		{"PROPFIND by ALL", []string{"member ALL a ACCEPT"}, "member", "PROPFIND", "a", true, 1},
		{"MKCOL by ALL", []string{"member ALL a ACCEPT"}, "member", "MKCOL", "a", true, 1},
		{"VERSION-CONTROL by ALL", []string{"member ALL a ACCEPT"}, "member", "VERSION-CONTROL", "a", true, 1},
		{"PROPFIND not by its own", []string{"member PROPFIND a ACCEPT"}, "member", "PROPFIND", "a", false, 0},
		{"PROPFIND not by GET", []string{"member GET a ACCEPT", "member POST a ACCEPT"}, "member", "PROPFIND", "a", false, 0},
		{"PROPFIND dropped by ALL", []string{"member ALL a ACCEPT", "member ALL a DROP"}, "member", "PROPFIND", "a", false, 2},
		{"MKCOL dropped by its own", []string{"member ALL a ACCEPT", "member MKCOL a DROP"}, "member", "MKCOL", "a", false, 2},
		{"MKCOL not dropped by another's", []string{"member ALL a ACCEPT", "member LOCK a DROP"}, "member", "MKCOL", "a", true, 1},
		{"CONNECT by none", []string{"member ALL a ACCEPT"}, "member", "CONNECT", "a", false, 0},
		{"PRI by none", []string{"member ALL a ACCEPT"}, "member", "PRI", "a", false, 0},
		{"unregistered by none", []string{"member ALL a ACCEPT"}, "member", "PURGE", "a", false, 0},
		{"lower case by none", []string{"member ALL a ACCEPT"}, "member", "propfind", "a", false, 0},
		{"drop beats a longer accept", []string{"member GET a/b/c ACCEPT", "member ALL a DROP"}, "member", "GET", "a/b/c", false, 2},
		{"drop matches wide", []string{"member GET a ACCEPT", "member GET a/b DROP"}, "member", "GET", "a/bc", false, 2},
		{"drop with a slash covers the folder", []string{"member GET a ACCEPT", "member GET a/ DROP"}, "member", "GET", "a", false, 2},
		{"drop of another verb", []string{"member GET a ACCEPT", "member POST a DROP"}, "member", "GET", "a", true, 1},
		{"audit alone grants nothing", []string{"member GET a AUDIT"}, "member", "GET", "a", false, 0},
		{"first accept by id counts", []string{"member ALL a/b ACCEPT", "member GET a ACCEPT"}, "member", "GET", "a/b", true, 1},
		{"bytes, not characters", []string{"member GET é ACCEPT"}, "member", "GET", "é/ü", true, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := compile(t, Source{Permissions: perms(tc.rules...)})
			v := s.Permit(tc.role, tc.verb, tc.path)
			if v.Allow != tc.allow || v.Undecided {
				t.Errorf("got %+v, want allow %v", v, tc.allow)
			}
			var id int64
			if v.Rule != nil {
				id = v.Rule.ID
			}
			if id != tc.rule {
				t.Errorf("decided by %d, want %d", id, tc.rule)
			}
		})
	}
}

func TestAuditRow(t *testing.T) {
	s := compile(t, Source{Permissions: perms(
		"admin ALL api ACCEPT", "admin POST api/ AUDIT", "admin POST api/v2 AUDIT money", "admin PUT api AUDIT late",
	)})
	for _, tc := range []struct {
		verb, path, topic string
		audit             bool
	}{
		{"POST", "api/v2/x", "", true},
		{"POST", "api", "", true},
		{"PUT", "apiary", "late", true},
		{"GET", "api/v2/x", "", false},
	} {
		if v := s.Permit("admin", tc.verb, tc.path); v.Audit != tc.audit || v.Topic != tc.topic {
			t.Errorf("%s %s: got audit %v topic %q, want %v %q", tc.verb, tc.path, v.Audit, v.Topic, tc.audit, tc.topic)
		}
	}
}

func TestExplain(t *testing.T) {
	s := compile(t, Source{Permissions: perms(
		"m GET a ACCEPT", "m ALL a/b DROP", "m GET a AUDIT t", "m GET a/b AUDIT", "m POST a ACCEPT", "n GET a ACCEPT",
	)})
	show := func(matches []Match) string {
		var out []string
		for _, m := range matches {
			line := fmt.Sprintf("%d %s", m.Rule.ID, m.Deed)
			if m.Decides {
				line += " *"
			}
			out = append(out, line)
		}
		return strings.Join(out, ", ")
	}
	for path, want := range map[string]string{
		"a":   "1 grants *, 3 records *",
		"a/b": "1 overruled, 2 refuses *, 3 records *, 4 records",
		"b":   "",
	} {
		if got := show(s.Explain("m", "GET", path)); got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
}

func TestCompileRefusesPermissions(t *testing.T) {
	for _, tc := range []struct {
		rule Permission
		want string
	}{
		{Permission{ID: 7, Verb: "GET", Path: "a", Action: "ACCEPT"}, "permission 7 ( ACCEPT GET a): role is blank"},
		{Permission{ID: 7, Role: "m", Verb: "GET", Path: " ", Action: "ACCEPT"}, "path is blank"},
		{Permission{ID: 7, Role: "m", Verb: "FETCH", Path: "a", Action: "ACCEPT"}, `verb "FETCH" is unknown`},
		{Permission{ID: 7, Role: "m", Verb: "GET", Path: "a", Action: "ALL"}, `action "ALL" is unknown`},
		{Permission{ID: 7, Role: "m", Verb: "GET", Path: "a\x00", Action: "DROP"}, "path has a control character"},
		{Permission{ID: 7, Role: "m", Verb: "GET", Path: "a\xff", Action: "DROP"}, "path is not valid UTF-8"},
		{Permission{ID: 7, Role: "m", Verb: "GET", Path: strings.Repeat("a", 5000), Action: "DROP"}, "longer than 4096 bytes"},
		{Permission{ID: 7, Role: "m", Verb: "GET", Path: "a", Action: "AUDIT", Topic: "\n"}, "topic has a control character"},
	} {
		_, err := Compile(Source{Permissions: append(perms("m GET a ACCEPT"), tc.rule)})
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: got %v, want %q", tc.rule, err, tc.want)
		}
		if err := tc.rule.Validate(); err == nil {
			t.Errorf("%+v: Validate lets it through", tc.rule)
		}
	}
	if err := (Permission{Role: "m", Verb: "all", Path: "a", Action: "accept"}).Validate(); err != nil {
		t.Errorf("lower case: %v", err)
	}
}

func TestWarnings(t *testing.T) {
	s := compile(t, Source{
		Permissions: perms("m GET /a ACCEPT"),
		Locator:     places{},
		Restrictions: []Restriction{
			{ID: 1, Category: "blacklist", Scope: "country", Value: "UK", Enabled: true},
			{ID: 2, Category: "blacklist", Scope: "country", Value: "GB", Enabled: true},
			{ID: 3, Category: "blacklist", Scope: "country", Value: "gbr", Enabled: true},
			{ID: 4, Category: "blacklist", Scope: "country", Value: "Peru", Enabled: true},
			{ID: 5, Category: "blacklist", Scope: "continent", Value: "XX", Enabled: true},
			{ID: 6, Category: "blacklist", Scope: "ip", Value: "1.2.3.4", Code: 200, Enabled: true},
		},
	})
	var got []string
	for _, w := range s.Warnings() {
		got = append(got, strings.Join(strings.Fields(w)[:2], " "))
	}
	if want := []string{"permission 1", "restriction 1", "restriction 5", "restriction 6"}; !slices.Equal(got, want) {
		t.Errorf("got warnings on %q, want %q: %q", got, want, s.Warnings())
	}
	for _, rule := range []string{"m OPTIONS a ACCEPT", "m PROPFIND a ACCEPT", "m GET a//b DROP", "m GET a%2Fb DROP", "m GET a;b DROP"} {
		if w := compile(t, Source{Permissions: perms(rule)}).Warnings(); len(w) != 1 {
			t.Errorf("%s: got warnings %q, want one", rule, w)
		}
	}
}

// Rules that were written for another public path of the API are told of: a prefix was changed, and they were not.
func TestForgottenPrefix(t *testing.T) {
	src := Source{
		Permissions: perms("m GET api/v2/barong/resource ACCEPT", "m ALL api/v2/barong DROP", "m GET api/v2/barongs ACCEPT", "m GET auth ACCEPT"),
		Lists:       DefaultLists(),
	}
	for prefix, warned := range map[string]bool{
		"": false, DefaultPrefix: false, DefaultPrefix + "/v3": false, "auth": true, "api/v2": true, "api/v2/barong2": true,
	} {
		src.Prefix = prefix
		w := compile(t, src).Warnings()
		if len(w) > 0 != warned || warned && !strings.HasPrefix(w[0], "2 permissions and 2 entries of the path lists are about api/v2/barong,") {
			t.Errorf("prefix %q: got warnings %q, want one: %v", prefix, w, warned)
		}
	}
	src.Prefix, src.Permissions, src.Lists = "auth", perms("m GET auth/resource ACCEPT"), DefaultLists().At("auth")
	if w := compile(t, src).Warnings(); len(w) != 0 {
		t.Errorf("rules for the new prefix: %q", w)
	}
}

func TestRoles(t *testing.T) {
	s := compile(t, Source{Permissions: perms("b GET a ACCEPT", "a GET a DROP", "b GET b ACCEPT")})
	if got := s.Roles(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("got %q", got)
	}
	if !s.HasRole("a") || s.HasRole("A") || s.HasRole("") {
		t.Error("HasRole does not compare exactly")
	}
}

func TestNilSnapshotRefuses(t *testing.T) {
	var s *Snapshot
	if v := s.Permit("r", "GET", "a"); v.Allow || !v.Undecided {
		t.Errorf("Permit: got %+v", v)
	}
	if _, ok := s.Blocked("a"); !ok {
		t.Error("Blocked: got false")
	}
	if _, ok := s.Passed("GET", "a"); ok {
		t.Error("Passed: got true")
	}
	if o := s.Restrict(unknownClient, "a"); !o.Refused || o.Status != 503 || o.Code != "authz.unavailable" {
		t.Errorf("Restrict: got %+v", o)
	}
	if s.SuperadminCanAct() || s.HasRole("a") || s.OwnModel() || s.Version() != 0 || s.Explain("r", "GET", "a") != nil {
		t.Error("a nil snapshot knows something")
	}
}

// Random rules over few roles, verbs and segments, so that they meet often.
var (
	genRole    = rapid.SampledFrom([]string{"m", "n", "M"})
	genSegment = rapid.SampledFrom([]string{"a", "b", "ab", "a.b", "é", "A"})
	genVerb    = rapid.SampledFrom(append(methods[:], "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")) // these meet often
	genPath    = rapid.Map(rapid.SliceOfN(genSegment, 1, 4), func(s []string) string { return strings.Join(s, "/") })
	genPrefix  = rapid.Custom(func(t *rapid.T) string {
		p := genPath.Draw(t, "path")
		switch rapid.IntRange(0, 5).Draw(t, "form") {
		case 0:
			p += "/"
		case 1:
			p = "/" + p
		case 2:
			p = p[:rapid.IntRange(1, len(p)).Draw(t, "cut")]
			p = strings.ToValidUTF8(p, "x")
		case 3:
			p += "//"
		}
		return p
	})
	genPermission = rapid.Custom(func(t *rapid.T) Permission {
		return Permission{
			ID:   rapid.Int64Range(1, 30).Draw(t, "id"),
			Role: genRole.Draw(t, "role"),
			Verb: rapid.OneOf(genVerb, rapid.SampledFrom([]string{"ALL", "all", "get"})).Draw(t, "verb"),
			Path: genPrefix.Draw(t, "prefix"),
			// ACCEPT twice, so that not everything is refused.
			Action: rapid.SampledFrom([]string{"ACCEPT", "accept", "DROP", "AUDIT"}).Draw(t, "action"),
			Topic:  rapid.SampledFrom([]string{"", "t", "u"}).Draw(t, "topic"),
		}
	})
	genAnyVerb = rapid.OneOf(genVerb, rapid.SampledFrom([]string{"get", "CONNECT", "PRI", "BREW", "propfind", "ALL", "*", ""}))
	genAnyPath = rapid.OneOf(genPath, rapid.StringMatching(`[ab/.]{0,8}`))
)

// TestCompiledEqualsCasbin holds the trees to what Casbin makes of the shipped model, for the decision, and for each
// row by itself, for the explanation.
func TestCompiledEqualsCasbin(t *testing.T) {
	// The effect turned round: refused exactly if a row that refuses matches. A row that records matches as one that
	// refuses does.
	denyOnly := strings.Replace(shippedModel, "some(where (p.eft == allow)) && !some(where (p.eft == deny))",
		"!some(where (p.eft == deny))", 1)
	if denyOnly == shippedModel {
		t.Fatal("the shipped model's effect has another text")
	}
	rapid.Check(t, func(t *rapid.T) {
		rules := rapid.SliceOfN(genPermission, 0, 10).Draw(t, "rules")
		s, err := Compile(Source{Permissions: rules})
		if err != nil {
			t.Fatal(err)
		}
		var whole func(role, verb, path string) bool
		single := make([]func(role, verb, path string) bool, len(s.permissions))
		if len(rules) > 0 {
			e, err := newEnforcer(shippedModel, s.permissions)
			if err != nil {
				t.Fatal(err)
			}
			whole = func(role, verb, path string) bool {
				ok, err := e.Enforce(role, verb, path)
				if err != nil {
					t.Fatal(err)
				}
				return ok
			}
		}
		for i, p := range s.permissions {
			model, matched := shippedModel, true
			if p.Action != "ACCEPT" {
				p.Action, model, matched = "DROP", denyOnly, false
			}
			e, err := newEnforcer(model, []Permission{p})
			if err != nil {
				t.Fatal(err)
			}
			single[i] = func(role, verb, path string) bool {
				ok, err := e.Enforce(role, verb, path)
				if err != nil {
					t.Fatal(err)
				}
				return ok == matched
			}
		}
		for range 20 {
			role, verb, path := genRole.Draw(t, "role"), genAnyVerb.Draw(t, "verb"), genAnyPath.Draw(t, "path")
			v := s.Permit(role, verb, path)
			if want := whole != nil && whole(role, verb, path); v.Allow != want {
				t.Fatalf("%s %s %q: got %v, Casbin says %v", role, verb, path, v.Allow, want)
			}
			matches := s.Explain(role, verb, path)
			var got, want []*Permission
			for _, m := range matches {
				got = append(got, m.Rule)
				if m.Decides && m.Deed != Records && m.Rule != v.Rule {
					t.Fatalf("%s %s %q: explained by %v, decided by %v", role, verb, path, m.Rule, v.Rule)
				}
			}
			for i := range s.permissions {
				if single[i](role, verb, path) {
					want = append(want, &s.permissions[i])
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%s %s %q: got matches %v, Casbin says %v", role, verb, path, got, want)
			}
		}
	})
}

// TestCompileAfterEqualsCompile holds a Snapshot that takes over from the one before to what the whole compilation makes of
// the same rules, through a chain of edits.
func TestCompileAfterEqualsCompile(t *testing.T) {
	genRestriction := rapid.Custom(func(t *rapid.T) Restriction {
		return Restriction{
			ID: rapid.Int64Range(1, 6).Draw(t, "id"), Category: rapid.SampledFrom(categoryNames[:]).Draw(t, "category"), Scope: "ip",
			Value: rapid.SampledFrom([]string{"10.0.0.1", "10.0.0.2", "nonsense"}).Draw(t, "value"), Code: rapid.SampledFrom([]int{0, 401, 700}).Draw(t, "code"),
			Enabled: rapid.Bool().Draw(t, "enabled"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		var before *Snapshot
		src := Source{
			Permissions: rapid.SliceOfN(genPermission, 0, 10).Draw(t, "rules"), Restrictions: rapid.SliceOfN(genRestriction, 0, 3).Draw(t, "restrictions"),
		}
		for i := range src.Permissions {
			src.Permissions[i].ID = int64(i + 1)
		}
		for range 6 {
			whole, wantErr := Compile(src)
			s, err := CompileAfter(before, src)
			if fmt.Sprint(err) != fmt.Sprint(wantErr) {
				t.Fatalf("got %v, want %v", err, wantErr)
			}
			if err == nil {
				for range 10 {
					role, verb, path := genRole.Draw(t, "role"), genAnyVerb.Draw(t, "verb"), genAnyPath.Draw(t, "path")
					if got, want := fmt.Sprintf("%+v", verdict(s, role, verb, path)), fmt.Sprintf("%+v", verdict(whole, role, verb, path)); got != want {
						t.Fatalf("%s %s %q: got %s, want %s", role, verb, path, got, want)
					}
				}
				for _, client := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"} {
					addr := netip.MustParseAddr(client)
					got, want := s.Restrict(addr, "a"), whole.Restrict(addr, "a")
					if got.Refused != want.Refused || got.Code != want.Code || got.Status != want.Status {
						t.Fatalf("%s: got %+v, want %+v", client, got, want)
					}
				}
				if !slices.Equal(s.Warnings(), whole.Warnings()) || !slices.Equal(s.Roles(), whole.Roles()) ||
					!slices.Equal(s.Permissions(), whole.Permissions()) {
					t.Fatalf("warnings %v, want %v; roles %v, want %v", s.Warnings(), whole.Warnings(), s.Roles(), whole.Roles())
				}
				before = s
			}
			// One edit: a row comes, goes or changes, or a restriction does.
			src.Permissions, src.Restrictions = slices.Clone(src.Permissions), slices.Clone(src.Restrictions)
			switch n := len(src.Permissions); rapid.IntRange(0, 3).Draw(t, "edit") {
			case 0:
				p := genPermission.Draw(t, "new rule")
				p.ID = int64(rapid.IntRange(1, 40).Draw(t, "id"))
				src.Permissions = append(src.Permissions, p)
			case 1:
				if n > 0 {
					i := rapid.IntRange(0, n-1).Draw(t, "which")
					src.Permissions = slices.Delete(src.Permissions, i, i+1)
				}
			case 2:
				if n > 0 {
					i := rapid.IntRange(0, n-1).Draw(t, "which")
					id := src.Permissions[i].ID
					src.Permissions[i] = genPermission.Draw(t, "changed rule")
					src.Permissions[i].ID = id
				}
			default:
				src.Restrictions = append(src.Restrictions, genRestriction.Draw(t, "new restriction"))
			}
		}
	})
}

// verdict is everything that a Snapshot says to a request, without addresses.
func verdict(s *Snapshot, role, verb, path string) []any {
	v := s.Permit(role, verb, path)
	out := []any{v.Allow, v.Audit, v.Undecided, v.Topic}
	if v.Rule != nil {
		out = append(out, *v.Rule)
	}
	for _, m := range s.Explain(role, verb, path) {
		out = append(out, *m.Rule, m.Deed, m.Decides)
	}
	return out
}

// BenchmarkCompileAfter is an edit of one rule of 10,000, of which all are of one role, or of a hundred roles.
func BenchmarkCompileAfter(b *testing.B) {
	for _, roles := range []int{1, 100} {
		b.Run(fmt.Sprintf("roles=%d", roles), func(b *testing.B) {
			var rows []Permission
			for i := range 10_000 {
				rows = append(rows, Permission{
					ID: int64(i + 1), Role: fmt.Sprintf("role%d", i%roles), Verb: []string{"ALL", "GET", "POST"}[i%3],
					Path: fmt.Sprintf("api/v2/service%d/things/%d", i%97, i), Action: "ACCEPT",
				})
			}
			before, err := Compile(Source{Permissions: rows})
			if err != nil {
				b.Fatal(err)
			}
			for n := 0; b.Loop(); n++ {
				edited := slices.Clone(rows)
				edited[n%len(rows)].Path += "x"
				if _, err := CompileAfter(before, Source{Permissions: edited}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestOwnModelEqualsTree runs the same rules through the path of an operator's model.
func TestOwnModelEqualsTree(t *testing.T) {
	own := "# the operator's\n" + shippedModel
	rapid.Check(t, func(t *rapid.T) {
		rules := rapid.SliceOfN(genPermission, 0, 8).Draw(t, "rules")
		tree, err := Compile(Source{Permissions: rules})
		if err != nil {
			t.Fatal(err)
		}
		s, err := Compile(Source{Permissions: rules, Model: own})
		if err != nil {
			t.Fatal(err)
		}
		if !s.OwnModel() || tree.OwnModel() {
			t.Fatal("OwnModel is wrong")
		}
		for range 20 {
			role, verb, path := genRole.Draw(t, "role"), genAnyVerb.Draw(t, "verb"), genAnyPath.Draw(t, "path")
			for range 2 { // asked, then remembered
				got, want := s.Permit(role, verb, path), tree.Permit(role, verb, path)
				if got.Allow != want.Allow || got.Undecided || got.Audit != want.Audit || got.Topic != want.Topic {
					t.Fatalf("%s %s %q: got %+v, want %+v", role, verb, path, got, want)
				}
			}
		}
	})
}

// TestDropNeverAllows: a DROP added to any rules never turns a refusal into an allow.
func TestDropNeverAllows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules := rapid.SliceOfN(genPermission, 0, 10).Draw(t, "rules")
		drop := genPermission.Draw(t, "drop")
		drop.Action = "DROP"
		before, err1 := Compile(Source{Permissions: rules})
		after, err2 := Compile(Source{Permissions: append(slices.Clone(rules), drop)})
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		for range 20 {
			role, verb, path := genRole.Draw(t, "role"), genAnyVerb.Draw(t, "verb"), genAnyPath.Draw(t, "path")
			if after.Permit(role, verb, path).Allow && !before.Permit(role, verb, path).Allow {
				t.Fatalf("%s %s %q is allowed by adding %v", role, verb, path, drop)
			}
		}
	})
}

func TestOwnModel(t *testing.T) {
	// Grants to a role what is granted to its prefix: by other means than ours.
	own := strings.NewReplacer(
		"r.role == p.role", `(r.role == p.role || p.role == "*")`,
	).Replace(shippedModel)
	s := compile(t, Source{Permissions: perms("* GET a ACCEPT", "m GET a/b DROP"), Model: own})
	if v := s.Permit("anyone", "GET", "a"); !v.Allow || v.Rule == nil || v.Rule.ID != 1 {
		t.Errorf("got %+v", v)
	}
	if m := s.Explain("anyone", "GET", "a"); len(m) != 1 || m[0].Deed != Grants || !m[0].Decides {
		t.Errorf("explained as %+v", m)
	}
	if v := s.Permit("m", "GET", "a/b"); v.Allow {
		t.Errorf("got %+v", v)
	}
	for name, text := range map[string]string{
		"empty sections":  "[request_definition]\n",
		"nonsense":        "hello",
		"two values":      strings.Replace(shippedModel, "r = role, verb, path", "r = role, path", 1),
		"no effect value": strings.Replace(shippedModel, "p = role, verb, path, eft", "p = role, verb, path, x", 1),
		"unknown function": strings.Replace(shippedModel, "pathMatch(r.path, p.path, p.eft)",
			"pathLooks(r.path, p.path)", 1),
		"function with two values": strings.Replace(shippedModel, "pathMatch(r.path, p.path, p.eft)",
			"pathMatch(r.path, p.path)", 1),
		"bad matcher": strings.Replace(shippedModel, "r.role == p.role", "r.role == == p.role", 1),
	} {
		for _, rules := range [][]Permission{nil, perms("role GET path ACCEPT")} {
			if _, err := Compile(Source{Permissions: rules, Model: text}); err == nil {
				t.Errorf("%s with %d rules: compiled", name, len(rules))
			}
		}
	}
}

// TestOwnModelCacheIsBounded asks more questions than the cache may hold.
func TestOwnModelCacheIsBounded(t *testing.T) {
	s := compile(t, Source{Permissions: perms("m GET a ACCEPT"), Model: shippedModel + "\n# own"})
	for i := range 2*cacheEntries + 100 {
		s.Permit("m", "GET", fmt.Sprintf("a/%d", i))
	}
	if n := len(s.own.recent) + len(s.own.older); n > 2*cacheEntries {
		t.Errorf("remembers %d answers", n)
	}
	s.Permit("m", "GET", strings.Repeat("x", cacheKeySize+1))
	for q := range s.own.recent {
		if len(q.path) > cacheKeySize {
			t.Errorf("remembers a path of %d bytes", len(q.path))
		}
	}
}

func TestSuperadminCanAct(t *testing.T) {
	good := []string{"superadmin ALL api/v2 ACCEPT", "superadmin POST api/v2/ AUDIT"}
	for _, tc := range []struct {
		name   string
		rules  []string
		prefix string
		want   bool
	}{
		{"shipped", good, "", true},
		{"other prefix", good, "/api/v2/barong/", true},
		{"prefix that no rule covers", good, "auth/v1", false},
		{"none", nil, "", false},
		{"another role", []string{"admin ALL api/v2 ACCEPT"}, "", false},
		{"reading only", []string{"superadmin GET api/v2 ACCEPT"}, "", false},
		{"dropped from permissions", append(slices.Clone(good), "superadmin DELETE api/v2/barong/admin/permissions DROP"), "", false},
		{"dropped from roles", append(slices.Clone(good), "superadmin ALL api/v2/barong/admin/users/role DROP"), "", false},
		{"dropped by a wide rule", append(slices.Clone(good), "superadmin PUT api DROP"), "", false},
		{"dropped elsewhere", append(slices.Clone(good), "superadmin ALL api/v2/peatio DROP"), "", true},
		{"does not compile", append(slices.Clone(good), "superadmin SING api/v2/peatio DROP"), "", false},
	} {
		if got := SuperadminCanAct(perms(tc.rules...), tc.prefix); got != tc.want {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestPermissionsAreCopied(t *testing.T) {
	given := perms("m GET a ACCEPT")
	s := compile(t, Source{Permissions: given, Lists: Lists{Pass: []string{"p"}}})
	given[0].Action = "DROP"
	got := s.Permissions()
	got[0].Role = "x"
	if !s.Permit("m", "GET", "a").Allow || !reflect.DeepEqual(s.Permissions(), perms("m GET a ACCEPT")) {
		t.Error("a snapshot changed")
	}
}

func TestPermitAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Log("allocations are not counted under the race detector")
		return
	}
	s := compile(t, Source{Permissions: manyRules(10_000)})
	if n := testing.AllocsPerRun(100, func() { s.Permit("role7", "GET", "api/v2/service7/thing/123") }); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

// manyRules are n rules of eleven roles, as a large deployment has them.
func manyRules(n int) []Permission {
	actions := [...]string{"ACCEPT", "ACCEPT", "ACCEPT", "DROP", "AUDIT"}
	out := make([]Permission, 0, n)
	for i := range n {
		p := Permission{
			ID: int64(i + 1), Role: fmt.Sprintf("role%d", i%11), Verb: methods[i%named], Action: actions[i%5],
			Path: fmt.Sprintf("api/v2/service%d/thing%d", i%97, i/97),
		}
		if i < 22 {
			p.Verb, p.Action, p.Path = "ALL", "ACCEPT", fmt.Sprintf("api/v2/service%d", i%11)
		}
		out = append(out, p)
	}
	return out
}

func BenchmarkPermit(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		s := compile(b, Source{Permissions: manyRules(n)})
		for _, path := range []string{"api/v2/service7/thing/123", "nowhere"} {
			b.Run(fmt.Sprintf("rules=%d/%s", n, strings.ReplaceAll(path, "/", "_")), func(b *testing.B) {
				b.ReportAllocs()
				var allowed bool
				for b.Loop() {
					allowed = s.Permit("role7", "GET", path).Allow
				}
				sink = allowed
			})
		}
	}
}

var sink bool
