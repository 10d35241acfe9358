package main

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/alecthomas/kong"

	"barong/internal/config"
	"barong/internal/test/testkit"
)

// A document is a page in Markdown.
type document struct {
	name  string // path from the root
	prose string // without fenced code
	spans []string
	lines []string // of code that a shell reads, fenced or indented
}

var span = regexp.MustCompile("`([^`\n]+)`")

// documents are the pages of the repository.
func documents(t *testing.T) []document {
	t.Helper()
	root := testkit.Root(t)
	var out []document
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && file != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "node_modules" || d.Name() == "dist"):
			return fs.SkipDir
		case !strings.HasSuffix(file, ".md"):
			return nil
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, file)
		out = append(out, parseDocument(filepath.ToSlash(name), string(text)))
		return err
	})
	if err != nil || len(out) < 20 {
		t.Fatalf("%d pages, %v", len(out), err)
	}
	return out
}

func parseDocument(name, text string) document {
	d := document{name: name}
	var prose strings.Builder
	fence := ""
	for line := range strings.Lines(text) {
		bare := strings.TrimSpace(line)
		switch {
		case fence != "" && bare == "```":
			fence = ""
		case fence != "":
			if fence == "```sh" || strings.HasPrefix(fence, "```sh ") {
				d.lines = append(d.lines, bare)
			}
		case strings.HasPrefix(bare, "```"):
			fence = bare
		default:
			if strings.HasPrefix(line, "    ") && !strings.HasPrefix(bare, "*") {
				d.lines = append(d.lines, bare)
			}
			prose.WriteString(line)
		}
	}
	d.prose = prose.String()
	for _, m := range span.FindAllStringSubmatch(d.prose, -1) {
		d.spans = append(d.spans, m[1])
	}
	return d
}

// sources are texts of the repository whose names match one of the patterns.
func sourcesOf(t *testing.T, patterns ...string) string {
	t.Helper()
	root := testkit.Root(t)
	var all strings.Builder
	for _, folder := range []string{"api", "authz", "cmd", "db", "deploy", "envoy", "internal", "policy", "session", "tools"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(file string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.HasSuffix(file, "_test.go") {
				return err
			}
			if !slices.ContainsFunc(patterns, func(p string) bool { ok, _ := path.Match(p, d.Name()); return ok }) {
				return nil
			}
			text, err := os.ReadFile(file)
			all.Write(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all.String()
}

// TestDocuments holds what the pages name to what there is: links, commands with their flags, settings, metrics, calls.
func TestDocuments(t *testing.T) {
	t.Parallel()
	pages := documents(t)
	history := func(d document) bool { return d.name == "CHANGELOG.md" } // it tells of what was, too

	t.Run("links", func(t *testing.T) {
		anchors := map[string]map[string]bool{}
		for _, d := range pages {
			anchors[d.name] = map[string]bool{}
			for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(d.prose, -1) {
				anchors[d.name][slug(m[1])] = true
			}
		}
		n := 0
		for _, d := range pages {
			for _, m := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(span.ReplaceAllString(d.prose, ""), -1) {
				if regexp.MustCompile(`^(https?|mailto):`).MatchString(m[1]) {
					continue
				}
				n++
				file, anchor, _ := strings.Cut(m[1], "#")
				target := d.name
				if file != "" {
					target = path.Join(path.Dir(d.name), file)
				}
				if _, err := os.Stat(filepath.Join(testkit.Root(t), target)); err != nil {
					t.Errorf("%s: %s leads nowhere", d.name, m[1])
				} else if anchor != "" && !anchors[target][anchor] {
					t.Errorf("%s: %s has no heading %s", d.name, target, anchor)
				}
			}
		}
		if n < 60 {
			t.Errorf("%d links", n)
		}
	})

	// An Envoy does not start with a field that it does not know.
	t.Run("images of Envoy", func(t *testing.T) {
		text, err := os.ReadFile(filepath.Join(testkit.Root(t), "envoy", "envoy.yaml"))
		since := regexp.MustCompile(`Written for Envoy 1\.(\d+) and later`).FindSubmatch(text)
		if err != nil || since == nil {
			t.Fatalf("envoy.yaml does not say from which Envoy on it works: %v", err)
		}
		oldest, err := strconv.Atoi(string(since[1]))
		if err != nil {
			t.Fatal(err)
		}
		images := regexp.MustCompile(`envoyproxy/envoy:(?:distroless-)?v1\.(\d+)`).FindAllStringSubmatch(sourcesOf(t, "*.yaml"), -1)
		for _, image := range images {
			if got, err := strconv.Atoi(image[1]); err != nil || got < oldest {
				t.Errorf("%s is named, and envoy.yaml is for 1.%d and later", image[0], oldest)
			}
		}
		if len(images) < 3 {
			t.Errorf("%d images", len(images))
		}
	})

	t.Run("commands", func(t *testing.T) {
		var c cli
		c.settings()
		parser, err := kong.New(&c, kong.Bind(&program{}))
		if err != nil {
			t.Fatal(err)
		}
		called := regexp.MustCompile(`^(?:[A-Z_]+=\S* )*(?:\S*/)?barong ([a-z-].*)$`)
		n := 0
		for _, d := range pages {
			if history(d) {
				continue
			}
			for _, text := range slices.Concat(d.spans, d.lines) {
				if m := called.FindStringSubmatch(text); m != nil && m[1] != hashArgument { // that is started by the server alone
					n++
					if wrong := misspelt(parser.Model.Node, strings.Fields(m[1])); wrong != "" {
						t.Errorf("%s: %s: %s", d.name, text, wrong)
					}
				}
			}
		}
		if n < 60 {
			t.Errorf("%d commands", n)
		}
	})

	t.Run("settings", func(t *testing.T) {
		known := map[string]bool{}
		for _, s := range config.Settings() {
			for _, name := range append(slices.Clone(s.Aliases), s.Name) {
				known[name], known[name+"_FILE"] = true, s.FromFile
				known[name] = true
			}
		}
		// Of commands, of compose files, and those of the original.
		for _, name := range regexp.MustCompile(`\bBARONG_[A-Z0-9_]*[A-Z0-9]\b`).FindAllString(sourcesOf(t, "*.go", "*.yaml", "*.env", "Makefile"), -1) {
			known[name] = true
		}
		n := 0
		for _, d := range pages {
			text := d.prose + strings.Join(d.lines, "\n")
			for _, m := range regexp.MustCompile(`\b(BARONG_[A-Z0-9_]*[A-Z0-9])(\b|_|\*|…)`).FindAllStringSubmatch(text, -1) {
				n++
				if m[2] == "" && !known[m[1]] && !history(d) {
					t.Errorf("%s: there is no setting %s", d.name, m[1])
				}
			}
		}
		if n < 200 {
			t.Errorf("%d settings", n)
		}
	})

	t.Run("metrics", func(t *testing.T) {
		known := map[string]bool{}
		metric := regexp.MustCompile(`\bbarong_[a-z_]*[a-z]\b`)
		for _, name := range metric.FindAllString(sourcesOf(t, "*.go", "*.yaml", "*.yml", "*.json"), -1) {
			known[name] = true
		}
		n := 0
		for _, d := range pages {
			if !strings.HasPrefix(d.name, "docs/") {
				continue // names of other things begin so, too
			}
			for _, text := range slices.Concat(d.spans, d.lines) {
				for _, name := range metric.FindAllString(text, -1) {
					n++
					if bare := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, ""); !known[name] && !known[bare] {
						t.Errorf("%s: there is no metric %s", d.name, name)
					}
				}
			}
		}
		if n < 50 {
			t.Errorf("%d metrics", n)
		}
	})

	t.Run("calls", func(t *testing.T) {
		var routes [][2]string
		for _, m := range regexp.MustCompile(`Method:\s*"([A-Z]+)",\s*Path:\s*"([^"]+)"`).FindAllStringSubmatch(sourcesOf(t, "*.go"), -1) {
			routes = append(routes, [2]string{m[1], m[2]})
		}
		if len(routes) < 100 {
			t.Fatalf("%d routes", len(routes))
		}
		call := regexp.MustCompile(`^(?:(GET|POST|PUT|PATCH|DELETE|HEAD) )?(/[^\s?#]+)`)
		section := regexp.MustCompile(`^/(identity|resource|admin|management)/`)
		routes = append(routes, [2]string{"GET", "/management/management.json"}) // made beside the table
		n := 0
		for _, d := range pages {
			for _, text := range d.spans {
				m := call.FindStringSubmatch(text)
				if m == nil || history(d) {
					continue
				}
				where := strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(m[2], "/api/v2"), "/barong"), "/api/v2")
				if !section.MatchString(where) {
					continue
				}
				n++
				if !slices.ContainsFunc(routes, func(r [2]string) bool { return (m[1] == "" || m[1] == r[0]) && fitsRoute(r[1], where) }) {
					t.Errorf("%s: there is no call %s", d.name, text)
				}
			}
		}
		if n < 40 {
			t.Errorf("%d calls", n)
		}
	})
}

// misspelt says what is wrong with the words of a command line, as far as names go.
func misspelt(node *kong.Node, words []string) string {
	flags := slices.Clone(node.Flags)
	value := false // the next word is that of a flag
	for _, word := range words {
		word = strings.TrimRight(word, ",.:)")
		switch {
		case value:
			value = false
		case strings.ContainsAny(word[:min(1, len(word))], "#<>|&;2(") || word == "":
			return ""
		case strings.HasPrefix(word, "--"):
			name, _, given := strings.Cut(word[2:], "=")
			at := slices.IndexFunc(flags, func(f *kong.Flag) bool { return f.Name == name })
			if at < 0 && name != "help" {
				return "there is no flag --" + name
			}
			value = at >= 0 && !given && !flags[at].IsBool()
		case strings.HasPrefix(word, "-"):
		case len(node.Children) > 0:
			var next *kong.Node
			for name := range strings.SplitSeq(word, "|") {
				at := slices.IndexFunc(node.Children, func(n *kong.Node) bool { return n.Name == name })
				if at < 0 && name != "…" {
					return "there is no command " + name
				} else if at >= 0 {
					next = node.Children[at]
				}
			}
			if next == nil {
				return ""
			}
			node = next
			flags = append(flags, node.Flags...)
		case len(node.Positional) == 0 && word != "…":
			return node.Name + " takes no " + word
		}
	}
	return ""
}

// fitsRoute reports whether a path may be a route, or what routes begin with.
func fitsRoute(route, where string) bool {
	open := strings.HasSuffix(where, "/…") || strings.HasSuffix(where, "/*") || strings.HasSuffix(where, "/")
	where = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(where, "/…"), "/*"), "/")
	have, want := strings.Split(route, "/"), strings.Split(where, "/")
	if len(want) > len(have) || len(want) < len(have) && !open {
		return false
	}
	for i, segment := range want {
		if segment != have[i] && !strings.HasPrefix(have[i], "{") && !strings.HasPrefix(have[i], ":") {
			return false
		}
	}
	return true
}

// slug is the anchor of a heading.
func slug(heading string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(strings.TrimSpace(heading)) {
		switch {
		case r == ' ':
			b.WriteByte('-')
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			b.WriteRune(r)
		}
	}
	return b.String()
}
