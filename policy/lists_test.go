package policy

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestParseLists(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       Lists
		err        string // part of it; empty for none
	}{
		{"as shipped", "rules:\n  pass:\n    - api/v2/barong/identity\n    - api/v2/peatio/public\n  block:\n    - api/v2/barong/management\n    - api/v2/peatio/management\n", DefaultLists(), ""},
		{"pass alone", "rules: {pass: [a]}", Lists{Pass: []string{"a"}}, ""},
		{"nothing below", "rules:", Lists{}, ""},
		{"empty lists", "rules:\n  pass:\n  block: []\n", Lists{}, ""},
		{"quoted", "rules:\n  block: ['a/b', \"c d\"]\n", Lists{Block: []string{"a/b", "c d"}}, ""},
		{"empty file", "", Lists{}, "line 1: no key rules"},
		{"comment only", "# nothing\n", Lists{}, "no key rules"},
		{"other key", "rule:\n  pass: [a]\n", Lists{}, `line 1: unknown key "rule"`},
		{"misspelt list", "rules:\n  pass: [a]\n  blok: [b]\n", Lists{}, `line 3: unknown key "blok"`},
		{"twice", "rules:\n  pass: [a]\n  pass: [b]\n", Lists{}, "line 3"},
		{"no list", "rules:\n  block: a\n", Lists{}, "line 2: block is no list"},
		{"number", "rules:\n  block:\n    - a\n    - 12\n", Lists{}, "line 4: an entry of block is no text"},
		{"null entry", "rules:\n  block:\n    -\n", Lists{}, "line 3: an entry of block is no text"},
		{"alias", "rules:\n  pass: &x [a]\n  block: *x\n", Lists{}, "line 3: block is no list"},
		{"empty entry", "rules: {pass: ['']}", Lists{}, "it is empty"},
		{"leading slash", "rules: {block: [/a]}", Lists{}, "begins with a slash"},
		{"white space", "rules: {block: [' a']}", Lists{}, "white space"},
		{"encoded", "rules: {block: [a%2Fb]}", Lists{}, "is refused before the lists"},
		{"query", "rules: {block: ['a?b']}", Lists{}, "query"},
		{"empty segment", "rules: {block: [a//b]}", Lists{}, "empty segment"},
		{"dot segment", "rules: {block: [a/../b]}", Lists{}, "dot segment"},
		{"empty mappings", "rules:\n  pass: {}\n  block: {}\n", Lists{}, ""},
		{"an empty list below", "rules: []", Lists{}, ""},
		{"template", "rules:\n  pass:\n    - <%= ENV['X'] %>\n    - <%= ENV['Y'] || 'b' %>/c\n", Lists{Pass: []string{"a/b", "b/c"}}, ""},
		{"template in comments", "# <% if x %>\nrules:\n  pass: [a] # <%= y %>\n", Lists{Pass: []string{"a"}}, ""},
		{"template of nothing", "rules:\n  block:\n    - <%= ENV['Y'] %>\n", Lists{}, "line 3: an entry of block is no text"},
		{"template of an absent variable", "rules:\n  block:\n    - <%= ENV.fetch('Y') %>\n", Lists{}, "line 3: the variable Y is not set"},
		{"template that computes", "rules:\n  block:\n    - <%= `id` %>\n", Lists{}, "line 3: the only templates"},
		{"code", "rules:\n<% 3.times do %>\n  block: [a]\n<% end %>\n", Lists{}, "line 2: the only templates"},
		{"misspelt with another case", "rules:\n  Block: [b]\n", Lists{}, `line 2: unknown key "Block": block is meant`},
		{"keys of others", "rules:\n  pass: [a]\n  comments: [b]\nversion: 1\n", Lists{Pass: []string{"a"}, Warnings: []string{
			`rules file: line 4: "version" has no effect, known are rules`, `rules file: line 3: "comments" has no effect, known are pass, block`,
		}}, ""},
		{"two documents", "rules: {}\n---\nrules: {}\n", Lists{}, "more than one document"},
		{"no YAML", "rules: [", Lists{}, "rules file: "},
		{"too large", "rules: {}\n#" + strings.Repeat("x", 1<<20), Lists{}, "larger than"},
		{"too many", "rules:\n  pass:\n" + strings.Repeat("    - a\n", 10_001), Lists{}, "more than 10000 entries"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := ParseLists([]byte(tc.text), func(name string) (string, bool) { return "a/b", name == "X" })
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("got %v, %v, want an error with %q", got, err, tc.err)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %+v, %v, want %+v", got, err, tc.want)
			}
		})
	}
}

func TestLists(t *testing.T) {
	s := compile(t, Source{Lists: Lists{
		Pass:  []string{"api/v2/barong/identity", "pub/", "a"},
		Block: []string{"api/v2/barong/management", "private/", "a/b"},
	}})
	for _, tc := range []struct {
		path        string
		pass, block string
	}{
		{"api/v2/barong/identity", "api/v2/barong/identity", ""},
		{"api/v2/barong/identity/ping", "api/v2/barong/identity", ""},
		{"api/v2/barong/identity.json", "api/v2/barong/identity", ""},
		{"api/v2/barong/identityX", "", ""},
		{"api/v2/barong/Identity", "", ""},
		{"api/v2/barong", "", ""},
		{"pub/x", "pub/", ""},
		{"pub", "", ""},
		{"api/v2/barong/management", "", "api/v2/barong/management"},
		{"api/v2/barong/managementX", "", "api/v2/barong/management"},
		{"private", "", "private/"},
		{"private/x", "", "private/"},
		{"privately", "", ""},
		{"a/bc", "a", "a/b"},
		{"", "", ""},
	} {
		pass, passed := s.Passed("POST", tc.path)
		block, blocked := s.Blocked(tc.path)
		if pass != tc.pass || passed != (tc.pass != "") || block != tc.block || blocked != (tc.block != "") {
			t.Errorf("%q: got pass %q, block %q, want %q, %q", tc.path, pass, block, tc.pass, tc.block)
		}
	}
	pages := compile(t, Source{Lists: Lists{Block: []string{"accounts/keys"}}, Pages: []string{"accounts", "console"}})
	for _, tc := range []struct {
		method, path, rule string
		blocked            bool
	}{
		{"GET", "accounts", "accounts", false},
		{"GET", "accounts/signin", "accounts", false},
		{"HEAD", "accounts/assets/portal-X.js", "accounts", false},
		{"GET", "accounts/keys", "accounts", true}, // the block list is asked first
		{"GET", "console/users/ID1", "console", false},
		{"GET", "accountsX", "", false},
		{"GET", "accounts.json", "", false},
		{"GET", "Accounts/signin", "", false},
		{"GET", "x/accounts", "", false},
		{"GET", "", "", false},
		{"POST", "accounts/signin", "", false},
		{"DELETE", "console/users", "", false},
		{"OPTIONS", "accounts", "", false},
	} {
		rule, passed := pages.Passed(tc.method, tc.path)
		if _, blocked := pages.Blocked(tc.path); rule != tc.rule || passed != (tc.rule != "") || blocked != tc.blocked {
			t.Errorf("%s %s: passed by %q, %v, blocked %v", tc.method, tc.path, rule, passed, blocked)
		}
	}
	files := compile(t, Source{Lists: Lists{Block: []string{"api/v2/kyc/files/7"}}, Prefix: "api/v2/kyc"})
	for _, tc := range []struct {
		method, path    string
		passed, blocked bool
	}{
		{"GET", "api/v2/kyc/files/8/a.png", true, false},
		{"HEAD", "api/v2/kyc/files/8/a.png", true, false},
		{"GET", "api/v2/kyc/files/7/a.png", true, true}, // the block list is asked first
		{"GET", "api/v2/kyc/files", false, false},
		{"GET", "api/v2/kyc/files.json", false, false},
		{"GET", "api/v2/kyc/filesX/8/a.png", false, false},
		{"GET", "api/v2/barong/files/8/a.png", false, false},
		{"GET", "x/api/v2/kyc/files/8/a.png", false, false},
		{"POST", "api/v2/kyc/files/8/a.png", false, false},
		{"DELETE", "api/v2/kyc/files/8/a.png", false, false},
		{"OPTIONS", "api/v2/kyc/files/8/a.png", false, false},
	} {
		rule, passed := files.Passed(tc.method, tc.path)
		if _, blocked := files.Blocked(tc.path); passed != tc.passed || blocked != tc.blocked || passed && rule != "api/v2/kyc/files/" {
			t.Errorf("%s %s: passed %v by %q, blocked %v", tc.method, tc.path, passed, rule, blocked)
		}
	}
	for _, src := range []Source{{Lists: Lists{Pass: []string{""}}}, {Lists: Lists{Block: []string{"/x"}}}, {Prefix: "/api"}} {
		if _, err := Compile(src); err == nil {
			t.Errorf("%+v compiled", src)
		}
	}
}

// FuzzParseLists: what parses can be written and read again, compiles, and each entry matches itself.
func FuzzParseLists(f *testing.F) {
	for _, seed := range []string{
		"rules:\n  pass:\n    - api/v2/barong/identity\n  block:\n    - api/v2/barong/management\n", "rules: {pass: [a/, 'b c']}",
		"rules:", "", "rules: {block: [a%2f]}", "rules: &a {pass: *a}", "rules:\n  pass: [<%= x %>]", "--- {}\n--- {}", "\xff", "rules: {block: [é, \"\\u0000\"]}",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		lists, err := ParseLists([]byte(text), nil)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "rules file: ") {
				t.Fatalf("got error %q", err)
			}
			return
		}
		s, err := Compile(Source{Lists: lists})
		if err != nil {
			t.Fatalf("parsed, and does not compile: %v", err)
		}
		var again strings.Builder
		again.WriteString("rules:\n  pass:\n")
		for _, e := range lists.Pass {
			fmt.Fprintf(&again, "    - %q\n", e)
			if _, ok := s.Passed("POST", e); !ok {
				t.Fatalf("pass entry %q does not match itself", e)
			}
		}
		again.WriteString("  block:\n")
		for _, e := range lists.Block {
			fmt.Fprintf(&again, "    - %q\n", e)
			if _, ok := s.Blocked(e); !ok {
				t.Fatalf("block entry %q does not match itself", e)
			}
		}
		back, err := ParseLists([]byte(again.String()), nil)
		if err != nil || !slices.Equal(back.Pass, lists.Pass) || !slices.Equal(back.Block, lists.Block) {
			t.Fatalf("got %+v, %v back, want %+v", back, err, lists)
		}
	})
}

func TestListsAt(t *testing.T) {
	for prefix, want := range map[string]Lists{
		"":              DefaultLists(),
		DefaultPrefix:   DefaultLists(),
		"api/v2/people": {Pass: []string{"api/v2/people/identity", "api/v2/peatio/public"}, Block: []string{"api/v2/people/management", "api/v2/peatio/management"}},
	} {
		if got := DefaultLists().At(prefix); !reflect.DeepEqual(got, want) {
			t.Errorf("at %q: %+v, want %+v", prefix, got, want)
		}
	}
	for path, want := range map[string]string{"api/v2/barong": "p", "api/v2/barong/x": "p/x", "api/v2/barongx": "api/v2/barongx", "api/v2": "api/v2"} {
		if got := PathAt("p", path); got != want {
			t.Errorf("PathAt(%q) = %q, want %q", path, got, want)
		}
	}
}
