package policy

import "strings"

// The calls that a superadmin must keep, below the published path: without one of them nobody could mend the rules, or
// make another superadmin, through the API.
var superadminCalls = [...]struct{ verb, path string }{
	{"GET", "/admin/permissions"},
	{"POST", "/admin/permissions"},
	{"PUT", "/admin/permissions"},
	{"DELETE", "/admin/permissions"},
	{"GET", "/admin/restrictions"},
	{"POST", "/admin/restrictions"},
	{"PUT", "/admin/restrictions"},
	{"DELETE", "/admin/restrictions"},
	{"GET", "/admin/users"},
	{"PUT", "/admin/users"},
	{"POST", "/admin/users/role"},
}

// Superadmin is the role that no edit may lock out.
const Superadmin = "superadmin"

// SuperadminCanAct reports whether the permissions let the role superadmin manage permissions, restrictions and roles
// through the published path. A nil Snapshot lets nobody do anything.
func (s *Snapshot) SuperadminCanAct() bool {
	if s == nil {
		return false
	}
	for _, call := range superadminCalls {
		if !s.Permit(Superadmin, call.verb, s.prefix+call.path).Allow {
			return false
		}
	}
	return true
}

// SuperadminCanAct is Snapshot.SuperadminCanAct of these permissions under the shipped model. prefix is the published
// path; empty is DefaultPrefix. It is false when the permissions do not compile.
func SuperadminCanAct(permissions []Permission, prefix string) bool {
	s, err := Compile(Source{Permissions: permissions, Prefix: strings.Trim(prefix, "/")})
	return err == nil && s.SuperadminCanAct()
}
