package api

import (
	"slices"
	"testing"

	"barong/api/admin"
	"barong/policy"
)

// What pages offer is what the rules let a role call, at the published path.
func TestAbilities(t *testing.T) {
	rules, err := policy.Compile(policy.Source{Permissions: []policy.Permission{
		{ID: 1, Role: "support", Verb: "GET", Path: "api/x/admin/users", Action: "ACCEPT"},
		{ID: 2, Role: "support", Verb: "POST", Path: "api/x/admin/users/labels", Action: "ACCEPT"},
		{ID: 3, Role: "support", Verb: "ALL", Path: "api/x/admin/users/documents", Action: "DROP"},
		{ID: 4, Role: "support", Verb: "DELETE", Path: "api/v2/barong/admin", Action: "ACCEPT"},
		{ID: 5, Role: "root", Verb: "ALL", Path: "api", Action: "ACCEPT"},
	}, Prefix: "api/x"})
	if err != nil {
		t.Fatal(err)
	}
	routes := admin.New(admin.Options{}).Routes()
	want := []string{
		"GET /admin/users", "GET /admin/users/{uid}", "GET /admin/users/{uid}/sessions", "GET /admin/users/labels",
		"GET /admin/users/labels/list", "POST /admin/users/labels", "POST /admin/users/labels/update",
	}
	if got := abilities(routes, rules, "api/x", "support"); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if got := abilities(routes, rules, "api/x", "root"); len(got) != len(routes) {
		t.Errorf("got %q", got)
	}
	if got := abilities(routes, rules, "api/x", "member"); got == nil || len(got) != 0 {
		t.Errorf("got %q", got)
	}
	if got := abilities(routes, nil, "api/x", "root"); len(got) != 0 {
		t.Errorf("without rules: got %q", got)
	}
}
