package apitest

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"barong/api/rest"
)

// seen is what every server of the test binary answered: route to statuses and error codes.
var seen = struct {
	sync.Mutex
	statuses map[string]map[int]bool
	codes    map[string]map[string]bool
}{statuses: map[string]map[int]bool{}, codes: map[string]map[string]bool{}}

func key(r *rest.Route) string { return r.Method + " " + r.Path }

// match finds the route of a path below /api/v2; a literal route wins over one with parameters.
func match(routes []rest.Route, method, path string) *rest.Route {
	path = strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(path, rest.Base), "/"), ".json")
	var found *rest.Route
	for i := range routes {
		r := &routes[i]
		if r.Method != method {
			continue
		}
		if r.Path == path {
			return r
		}
		if slices.EqualFunc(strings.Split(r.Path, "/"), strings.Split(path, "/"), func(want, have string) bool {
			return strings.HasPrefix(want, "{") || want == have
		}) {
			found = r
		}
	}
	return found
}

// note remembers an answer, and returns the route that gave it, or nil.
func (s *Server) note(method, path string, a *Answer) *rest.Route {
	r := match(s.routes, method, path)
	if r == nil {
		return nil
	}
	seen.Lock()
	defer seen.Unlock()
	if seen.statuses[key(r)] == nil {
		seen.statuses[key(r)], seen.codes[key(r)] = map[int]bool{}, map[string]bool{}
	}
	seen.statuses[key(r)][a.Status] = true
	for _, code := range a.Codes() {
		seen.codes[key(r)][code] = true
	}
	return r
}

// Main is a package's TestMain: it runs the tests and fails when a route of the table was never seen to succeed, or
// one of the codes that the table says it can answer never came. unreached names codes that no test can bring about,
// as "POST /path: code", each with its reason in a comment beside it. With -run, -skip or -short nothing is demanded.
func Main(m *testing.M, routes []rest.Route, unreached ...string) {
	status := m.Run()
	for _, name := range []string{"test.run", "test.skip", "test.list", "test.fuzz"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != "" {
			os.Exit(status)
		}
	}
	if status == 0 && !testing.Short() {
		for _, gap := range gaps(routes, unreached) {
			fmt.Println("FAIL: no test shows", gap)
			status = 1
		}
	}
	os.Exit(status)
}

func gaps(routes []rest.Route, unreached []string) []string {
	seen.Lock()
	defer seen.Unlock()
	var out []string
	for i := range routes {
		r := &routes[i]
		if !seen.statuses[key(r)][r.Success] {
			out = append(out, fmt.Sprintf("%s: %d", key(r), r.Success))
		}
		if r.Legacy != 0 && !seen.statuses[key(r)][r.Legacy] {
			out = append(out, fmt.Sprintf("%s: %d (2.4.17)", key(r), r.Legacy))
		}
		for _, code := range append(r.ValidationCodes(), r.Errors...) {
			if gap := fmt.Sprintf("%s: %s", key(r), code); !seen.codes[key(r)][string(code)] && !slices.Contains(unreached, gap) {
				out = append(out, gap)
			}
		}
	}
	return out
}
