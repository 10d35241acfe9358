package yamlfile_test

import (
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"barong/internal/yamlfile"
)

func getenv(name string) (string, bool) {
	value, ok := map[string]string{"X": "of x", "EMPTY": "", "N": "7", "NULL": "null", "NASTY": "y: {z: 1}\n- \"'#"}[name]
	return value, ok
}

// TestTemplates reads one template, and says what stands in its place: "-" for nothing.
func TestTemplates(t *testing.T) {
	for template, want := range map[string]string{
		`<%= ENV["X"] %>`:                          "of x",
		`<%=ENV['X']%>`:                            "of x",
		`<%= ENV["X"] -%>`:                         "of x",
		`<%= ENV[ 'Y' ] %>`:                        "-",
		`<%= ENV['EMPTY'] %>`:                      "-",
		`<%= ENV['Y'] || 'y' %>`:                   "y",
		`<%= ENV['EMPTY'] || 'y' %>`:               "-", // what is empty is something to Ruby
		`<%= ENV['X'] || "y" %>`:                   "of x",
		`<%= ENV['Y'] || ENV['Z'] || "z" %>`:       "z",
		`<%= ENV['Y'] || nil %>`:                   "-",
		`<%= ENV.fetch('X') %>`:                    "of x",
		`<%= ENV.fetch('X', 'y') %>`:               "of x",
		`<%= ENV.fetch("Y", "y") %>`:               "y",
		`<%= ENV.fetch( 'Y' , nil ) %>`:            "-",
		`<%= ENV.fetch('Y', nil) || 'z' %>`:        "z",
		`<%= ENV.fetch('Y', false) %>`:             "false",
		`<%= ENV.fetch('Y', 12) %>`:                "12",
		`<%= ENV.fetch('Y', ENV['X']) %>`:          "of x",
		`<%= ENV.fetch('Y') { 'y' } %>`:            "y",
		`<%= ENV.fetch('X') { 'y' } %>`:            "of x",
		`<%= 'text' %>`:                            "text",
		`a <%= ENV['X'] %> b`:                      "a of x b",
		`"<%= ENV['X'] %>"`:                        "of x",
		`'<%= ENV['X'] %>'`:                        "of x",
		`<%= ENV['NASTY'] %>`:                      "y: {z: 1}\n- \"'#",
		`<%= ENV['NULL'] %>`:                       "null",
		`x<%# a remark %>y`:                        "xy",
		`plain # <%= ENV.fetch('ABSENT') %>`:       "plain",
		`plain # <% if anything goes`:              "plain",
		`"a # <%= ENV['X'] %>"`:                    "a # of x",
		`a#<%= ENV['X'] %>`:                        "a#of x",
		`it's <%= ENV['X'] %> # and <%= that's %>`: "it's of x",
		"a\n# <%= whatever %>":                     "a",
	} {
		n, err := yamlfile.Parse([]byte("top: 1\nkey: "+template+"\n"), getenv)
		if err != nil {
			t.Errorf("%s: %v", template, err)
			continue
		}
		got := n.Content[3].Value
		if n.Content[3].Tag == "!!null" {
			got = "-"
		}
		if got != want || len(n.Content) != 4 {
			t.Errorf("%s: %q, want %q", template, got, want)
		}
	}
	for template, want := range map[string]string{
		`<%= ENV.fetch('Y') %>`:          "line 2: the variable Y is not set",
		`<%= ENV.fetch('Y') || 'x' %>`:   "line 2: the variable Y is not set",
		`<%= ENV['X'`:                    "line 2: a template without an end",
		"<%= `id` %>":                    "line 2: the only templates",
		`<%= File.read('/etc/passwd')%>`: "line 2: the only templates",
		`<%= ENV['X'] + 'y' %>`:          "line 2: the only templates",
		`<%= ENV['X'].to_s %>`:           "line 2: the only templates",
		`<%= "#{ENV['X']}" %>`:           "line 2: the only templates",
		`<%= ENV[X] %>`:                  "line 2: the only templates",
		`<%= %>`:                         "line 2: the only templates",
		`<% if ENV['X'] %>`:              "line 2: the only templates",
		"|\n  # <%= ENV['X'] %>":         "line 2: the only templates", // text, not a comment
		"\"a\n  # <%= ENV['X'] %>\"":     "line 2: the only templates",
		"\ue0000\ue001":                  "private-use",
	} {
		if _, err := yamlfile.Parse([]byte("top: 1\nkey: "+template+"\n"), getenv); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", template, err, want)
		}
	}
	if _, err := yamlfile.Parse([]byte("key: <%= ENV['X'] %>"), nil); err != nil {
		t.Errorf("without variables: %v", err)
	}
}

// A value keeps the kind that it would have had if it had been written there.
func TestKindsOfValues(t *testing.T) {
	var into struct {
		N      int
		Quoted string
		Flag   bool
		Null   string
	}
	n, err := yamlfile.Parse([]byte("n: <%= ENV['N'] %>\nquoted: \"<%= ENV['N'] %>\"\nflag: <%= ENV.fetch('F', true) %>\nnull: <%= ENV['NULL'] %>\n"), getenv)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Decode(&into); err != nil || into.N != 7 || into.Quoted != "7" || !into.Flag || n.Content[7].Tag != "!!str" {
		t.Errorf("%+v, %v", into, err)
	}
}

func TestDocuments(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "~", "---\n"} {
		if n, err := yamlfile.Parse([]byte(text), nil); err != nil || n != nil {
			t.Errorf("%q: %v, %v", text, n, err)
		}
	}
	for text, want := range map[string]string{"a: 1\n---\na: 1\n": "more than one", "a: [": "line 1", "a: 1\n b: 2": "line 2", "  - a: 1\nb:\n": "<document start>"} {
		if _, err := yamlfile.Parse([]byte(text), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	for text, want := range map[string]bool{"{}": true, "[]": true, "''": false, "{a: 1}": false, "[a]": false} {
		n, err := yamlfile.Parse([]byte(text), nil)
		if err != nil || yamlfile.Empty(n) != want {
			t.Errorf("%s: empty %v, %v", text, yamlfile.Empty(n), err)
		}
	}
	if !yamlfile.Empty(nil) {
		t.Error("nothing is not empty")
	}
}

func TestSimilar(t *testing.T) {
	for name, want := range map[string]string{"blok": "block", "bl\u043eck": "block", "Block": "block", "pas": "pass", "comments": "", "": ""} {
		if got := yamlfile.Similar(name, "pass", "block"); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

// FuzzParse: whatever the file, a variable's value changes no more than the text of scalars.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"users:\n  - {email: <%= ENV['V'] %>, level: 1}\n", "a: '<%= ENV.fetch(\"Y\", \"b\") %>' # <% x", "<%", "a: &a [*a]", "a: |\n  # <%= ENV['V'] %>\n",
	} {
		f.Add(seed, "a: b\n- c")
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		with := func(v string) (*yaml.Node, error) {
			return yamlfile.Parse([]byte(text), func(name string) (string, bool) { return v, name == "V" })
		}
		one, err := with(value)
		other, otherErr := with("x")
		if (err == nil) != (otherErr == nil) || err == nil && shape(one) != shape(other) {
			t.Fatalf("with the value %v, with another %v", err, otherErr)
		}
	})
}

func shape(n *yaml.Node) string {
	if n == nil {
		return ""
	}
	var b strings.Builder
	b.WriteByte('0' + byte(n.Kind))
	for _, child := range n.Content {
		b.WriteString(shape(child))
	}
	return b.String() + "."
}
