package envoy

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// references are the configurations that this package hands out.
var references = []string{"envoy.yaml", "envoy-grpc.yaml", "traefik.yml", "traefik-dynamic.yml", "Caddyfile", "nginx.conf"}

func TestLintReferences(t *testing.T) {
	for _, name := range references {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		found, err := Lint(text)
		if err != nil || len(found) > 0 {
			t.Errorf("%s: %v %v", name, found, err)
		}
	}
	// The same files, spoiled in one place.
	for _, c := range []struct{ name, good, bad string }{
		{"envoy.yaml", "failure_mode_allow: false", "failure_mode_allow: true"},
		{"envoy-grpc.yaml", "failure_mode_allow: false", "failure_mode_allow: true"},
		{"traefik-dynamic.yml", "trustForwardHeader: false", "trustForwardHeader: true"},
		{"nginx.conf", "error_page 401 403 500 = @refused;", "error_page 401 403 500 =200 @refused;"},
	} {
		text, err := os.ReadFile(c.name)
		if err != nil {
			t.Fatal(err)
		}
		before, after, ok := strings.Cut(string(text), c.good)
		if !ok {
			t.Fatalf("%s has no %s", c.name, c.good)
		}
		line := strings.Count(before, "\n") + 1
		found, err := Lint([]byte(before + c.bad + after))
		if err != nil || len(found) != 1 || found[0].Line != line || !strings.Contains(c.bad, found[0].Setting) {
			t.Errorf("%s in line %d: %v %v", c.bad, line, found, err)
		}
	}
}

func TestLint(t *testing.T) {
	for text, want := range map[string][]string{
		"":     nil,
		"a: 1": nil,
		"# failure_mode_allow: true\na: failure_mode_allow":                                nil,
		"failure_mode_allow: True":                                                         {"1 open"},
		"failure_mode_allow: \"yes\"":                                                      {"1 open"},
		`{"a": [{"failure_mode_allow": true}, {"failOpen": false}]}`:                       {"1 open"},
		"a: 1\n---\nb:\n- failureModeAllow: on\n":                                          {"4 open"},
		"spec:\n  extAuth:\n    failOpen: true\n":                                          {"3 open"},
		"typed_per_filter_config:\n  envoy.filters.http.ext_authz:\n    disabled: true\n":  {"3"},
		"typed_per_filter_config:\n  envoy.filters.http.ext_authz:\n    disabled: false\n": nil,
		"other:\n  disabled: true\n":                                                       nil,
		"a: &x {failOpen: true}\nb: *x\nc: {<<: *x}\n":                                     {"1 open"},
		"a: &a\n  b: *a\n  fail_open: true\n":                                              {"3 open"}, // contains itself
		"http.middlewares.check.forwardAuth\ntrustForwardHeader = true\n":                  {"2"},
		"{{ if .x }}\nfailure_mode_allow: true # why\n{{ end }}\n":                         {"2 open"}, // a template
		"error_page 404 =200 /x;\nerror_page 500 502 =204 /y;\nerror_page 500 = @z;\n":     {"2 open"},
	} {
		found, err := Lint([]byte(text))
		if err != nil {
			t.Errorf("%q: %v", text, err)
		}
		var got []string
		for _, f := range found {
			s := fmt.Sprint(f.Line)
			if f.Open {
				s += " open"
			}
			got = append(got, s)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", text, found, want)
		}
	}
	if _, err := Lint(make([]byte, maxLint+1)); err == nil {
		t.Error("a file without bounds is read")
	}
}

func FuzzLint(f *testing.F) {
	f.Add([]byte("a: &a\n  b: *a\n  fail_open: true\n"))
	f.Add([]byte("{{ x }}\nfailOpen: true"))
	f.Add([]byte(`[{"failure_mode_allow": true}]`))
	f.Add([]byte("error_page 500 =200 /x;\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		found, err := Lint(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			if f.Line < 1 || f.Line > strings.Count(string(text), "\n")+strings.Count(string(text), "\r")+1 || f.Setting == "" || f.Why == "" {
				t.Errorf("%+v in %q", f, text)
			}
		}
	})
}
