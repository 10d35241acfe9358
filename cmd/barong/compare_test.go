package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"barong/internal/test/testkit"
)

// secretNames are names of values that a stranger must not be able to guess piece by piece from the time of a comparison.
var secretNames = regexp.MustCompile(`(?i)^(csrf|mac|hmac|digest|signature|secret|password|pin|otp|otpcode|recovery|nonce|bearer|sessionid|cookievalue|apisecret)s?$`)

// comparedOtherwise are comparisons that secretNames finds and that tell a stranger nothing, with the reason.
var comparedOtherwise = map[string]string{
	"api/account/state.go OTP":                "whether the second factor is on",
	"api/identity/users.go Password":          "two passwords that the caller has sent",
	"internal/importer/verify.go digest":      "rows that this program copied, for the operator",
	"session/near/renew.go Secret":            "two readings of one row",
	"session/sessiontest/sessiontest.go CSRF": "a test of stores",
}

// TestSecretsAreComparedInConstantTime holds that no value with the name of a secret is compared by == or bytes.Equal, but
// with the empty value.
func TestSecretsAreComparedInConstantTime(t *testing.T) {
	root := testkit.Root(t)
	used := map[string]bool{}
	files := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, path)
		switch {
		case err != nil:
			return err
		case d.IsDir() && (strings.HasPrefix(d.Name(), ".") && rel != "." || rel == "tools" || strings.HasPrefix(rel, "internal/test")):
			return fs.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, 0)
		if err != nil {
			return err
		}
		files++
		ast.Inspect(file, func(n ast.Node) bool {
			var a, b ast.Expr
			switch e := n.(type) {
			case *ast.BinaryExpr:
				if e.Op == token.EQL || e.Op == token.NEQ {
					a, b = e.X, e.Y
				}
			case *ast.CallExpr:
				if f, ok := e.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "Equal" && len(e.Args) == 2 {
					if pkg, ok := f.X.(*ast.Ident); ok && (pkg.Name == "bytes" || pkg.Name == "slices") {
						a, b = e.Args[0], e.Args[1]
					}
				}
			}
			if a == nil || plain(a) || plain(b) {
				return true
			}
			for _, side := range []ast.Expr{a, b} {
				if name := nameOf(side); secretNames.MatchString(name) {
					where := rel + " " + name
					used[where] = true
					if comparedOtherwise[where] == "" {
						t.Errorf("%s: %s is compared in a time that depends on it: use hmac.Equal or crypto/subtle, or say why not in this test",
							set.Position(n.Pos()), name)
					}
				}
			}
			return true
		})
		return nil
	})
	if err != nil || files < 100 {
		t.Fatalf("%d files, %v", files, err)
	}
	for where := range comparedOtherwise {
		if !used[where] {
			t.Errorf("%s is compared no more", where)
		}
	}
}

// plain reports whether an expression is a constant as it stands: nil, a text, a number, or a name of a constant in capitals.
func plain(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.BasicLit:
		return true
	case *ast.Ident:
		return e.Name == "nil" || e.Name == "true" || e.Name == "false"
	}
	return false
}

// nameOf is the last name of an expression.
func nameOf(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	case *ast.StarExpr:
		return nameOf(e.X)
	case *ast.ParenExpr:
		return nameOf(e.X)
	case *ast.CallExpr:
		return nameOf(e.Fun)
	case *ast.IndexExpr:
		return nameOf(e.X)
	case *ast.SliceExpr:
		return nameOf(e.X)
	}
	return ""
}
