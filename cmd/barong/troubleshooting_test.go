package main_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"barong/internal/fault"
)

// TestTroubleshooting holds docs/troubleshooting.md to the code: every refusal of the check and every line of a start that
// is refused has its row, with a reason and a remedy.
func TestTroubleshooting(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	checks, starts, found := strings.Cut(string(text), "\n## A start that is refused\n")
	if !found {
		t.Fatal("the page has lost its second part")
	}
	codes := map[string]bool{}
	for _, e := range fault.Catalogue() {
		if strings.HasPrefix(string(e.Code), "authz.") {
			codes[string(e.Code)] = true
		}
	}
	code := regexp.MustCompile(`"(authz\.[a-z_.]*[a-z])"`)
	for _, folder := range []string{"authz", "envoy", "internal/listener", "policy"} {
		for _, name := range sources(t, "../../"+folder) {
			source, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range code.FindAllStringSubmatch(string(source), -1) {
				codes[m[1]] = true
			}
		}
	}
	if len(codes) < 20 {
		t.Fatalf("found the codes %v alone", codes)
	}
	for c := range codes {
		row := regexp.MustCompile("(?m)^\\| `" + regexp.QuoteMeta(c) + "` \\| [^|]+ \\| [^|]{10,} \\| [^|]{5,} \\|$")
		if n := len(row.FindAllString(checks, -1)); n != 1 {
			t.Errorf("%d rows for %s, want one with a status, a reason and a remedy", n, c)
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `(authz\\.[^`]+)`").FindAllStringSubmatch(checks, -1) {
		if !codes[m[1]] {
			t.Errorf("there is no code %s", m[1])
		}
	}

	rows := strings.Split(starts, "\n")
	lines := 0
	for _, want := range refusedStarts(t) {
		lines++
		if !slices.ContainsFunc(rows, func(row string) bool { return strings.HasPrefix(row, "| ") && holds(row, want) }) {
			t.Errorf("no row has %q", want)
		}
	}
	if lines < 60 {
		t.Errorf("only %d lines of refused starts were found in the code", lines)
	}
}

func sources(t *testing.T, folder string) []string {
	t.Helper()
	names, err := filepath.Glob(folder + "/*.go")
	if err != nil || len(names) == 0 {
		t.Fatal(folder, err)
	}
	return slices.DeleteFunc(names, func(name string) bool { return strings.HasSuffix(name, "_test.go") })
}

// holds reports whether the fixed parts of a format stand in a row, in order. Of a long one the beginning is enough, to the
// first semicolon or 40 characters: the rest is said in the row's own words.
func holds(row, format string) bool {
	for _, part := range regexp.MustCompile(`%[0-9\[\]+#-]*[a-z]`).Split(format, -1) {
		part, _, _ = strings.Cut(part, ";")
		part = strings.TrimRight(strings.TrimSpace(part[:min(len(part), 40)]), " :(")
		at := strings.Index(row, part)
		if at < 0 {
			return false
		}
		row = row[at+len(part):]
	}
	return true
}

// refusedStarts finds what a start can be refused with: the formats of its lines and, where a setting is refused by
// config.Bad, its name.
func refusedStarts(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, look := range []struct {
		file  string
		calls map[string]int // by function: which argument
		only  []string       // functions to look at; nil: all
		not   []string       // texts that no start is refused with
	}{
		{"../../internal/config/validate.go", map[string]int{"refuse": 1}, nil, nil},
		{"../../internal/config/load.go", map[string]int{"problem": 1}, nil, []string{"%s"}},
		{"../../db/url.go", map[string]int{"New": 0, "Errorf": 0}, []string{"ValidateURL", "SQLitePath", "postgresConfig"}, nil},
		{"open.go", map[string]int{"New": 0, "Errorf": 0, "Sprintf": 0, "Bad": 0}, nil, nil},
		{"policy.go", map[string]int{"Bad": 0}, []string{"validateRuleFiles", "openPlaces"}, nil},
		{"seed.go", map[string]int{"Bad": 0, "Errorf": 0}, []string{"writePasswords", "seedError"}, []string{"%s: %w", "line %d: %w"}},
		{"stores.go", map[string]int{"New": 0, "Errorf": 0, "Bad": 0}, nil, nil},
		{"gateway.go", map[string]int{"New": 0, "Errorf": 0, "Bad": 0}, nil, nil},
		{"api.go", map[string]int{"New": 0, "Errorf": 0, "Bad": 0}, nil, []string{
			"date of the build: %w", // of a broken build
		}},
		{"pages.go", map[string]int{"Errorf": 0}, nil, nil},
		{"../../internal/listener/socket.go", map[string]int{"Errorf": 0}, nil, nil},
	} {
		file, err := parser.ParseFile(token.NewFileSet(), look.file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		before := len(out)
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || look.only != nil && !slices.Contains(look.only, f.Name.Name) {
				continue
			}
			ast.Inspect(f, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				name := ""
				switch f := call.Fun.(type) {
				case *ast.Ident:
					name = f.Name
				case *ast.SelectorExpr:
					name = f.Sel.Name
				}
				if at, ok := look.calls[name]; ok && at < len(call.Args) {
					if text := literal(call.Args[at]); text != "" && !slices.Contains(look.not, text) {
						out = append(out, text)
					}
				}
				return true
			})
		}
		if len(out) == before {
			t.Errorf("nothing was found in %s", look.file)
		}
	}
	return out
}

// literal is the text of an expression as far as it stands there.
func literal(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind == token.STRING {
			if text, err := strconv.Unquote(e.Value); err == nil {
				return text
			}
		}
	case *ast.BinaryExpr:
		return literal(e.X) + literal(e.Y)
	}
	return ""
}
