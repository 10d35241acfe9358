package envoy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A Finding is a line of a gateway's configuration that takes the check away or makes it judge what a client may forge.
type Finding struct {
	Line    int
	Setting string // as it stands there
	Why     string
	// Open says that requests pass unchecked that should be checked.
	Open bool
}

func (f Finding) String() string { return fmt.Sprintf("line %d: %s: %s", f.Line, f.Setting, f.Why) }

// maxLint is the largest file that Lint reads, in bytes.
const maxLint = 8 << 20

// weak are the settings, of gateways and of what writes their configurations, that must not be on.
var weak = map[string]Finding{
	"failure_mode_allow": {Why: "every request passes as soon as barong cannot be asked", Open: true}, // Envoy
	"failureModeAllow":   {Why: "every request passes as soon as barong cannot be asked", Open: true},
	"failOpen":           {Why: "every request passes as soon as barong cannot be asked", Open: true}, // Istio, Envoy Gateway
	"fail_open":          {Why: "every request passes as soon as barong cannot be asked", Open: true},
	"trustForwardHeader": {Why: "clients may say which path they ask for"}, // Traefik
}

// Lint looks for settings of a gateway that defeat the check (security.md, row 8): in Envoy's, Istio's, Envoy Gateway's and
// Traefik's configurations as YAML or JSON, of one or several documents, and in what is neither, such as nginx.conf, line
// by line. None means that nothing of what it knows was found, not that the file is right: compare it with the reference
// beside this package.
func Lint(text []byte) ([]Finding, error) {
	if len(text) > maxLint {
		return nil, fmt.Errorf("larger than %d bytes", maxLint)
	}
	l := linter{seen: map[*yaml.Node]bool{}}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || !structured(&doc) { // no YAML, or a text that happens to be some
			return lintLines(string(text)), nil
		}
		l.walk("", &doc)
	}
	slices.SortStableFunc(l.found, func(a, b Finding) int { return a.Line - b.Line })
	return l.found, nil
}

// structured reports whether a document is more than a text.
func structured(doc *yaml.Node) bool {
	return len(doc.Content) == 1 && (doc.Content[0].Kind != yaml.ScalarNode || doc.Content[0].Tag == "!!null")
}

type linter struct {
	found []Finding
	seen  map[*yaml.Node]bool // an anchor is looked at once
}

// walk looks at a node that stands under a key.
func (l *linter) walk(key string, n *yaml.Node) {
	if n == nil || l.seen[n] {
		return
	}
	l.seen[n] = true
	l.walk(key, n.Alias)
	if n.Kind != yaml.MappingNode {
		for _, item := range n.Content {
			l.walk(key, item)
		}
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		f, ok := weak[name.Value]
		if name.Value == "disabled" && strings.Contains(key, "ext_authz") { // ExtAuthzPerRoute
			f, ok = Finding{Why: "what this route matches passes unchecked"}, true
		}
		if ok && on(value.Value) {
			f.Line, f.Setting = name.Line, name.Value+": "+value.Value
			l.found = append(l.found, f)
		}
		l.walk(name.Value, value)
	}
}

func on(value string) bool {
	return slices.Contains([]string{"true", "yes", "on"}, strings.ToLower(value))
}

// Settings of files that are neither YAML nor JSON.
var (
	assigned = regexp.MustCompile(`["']?\b([A-Za-z_]+)["']?\s*[:=]\s*["']?(?i:true|yes|on)\b`)
	// A check that failed is answered with success: nginx takes whatever its error page answers.
	failedIsFine = regexp.MustCompile(`\berror_page\s[^;]*\b5\d\d\b[^;]*=\s*2\d\d\b`)
)

func lintLines(text string) []Finding {
	var found []Finding
	n := 0
	for line := range strings.Lines(text) {
		n++
		line, _, _ = strings.Cut(line, "#")
		for _, m := range assigned.FindAllStringSubmatch(line, -1) {
			if f, ok := weak[m[1]]; ok {
				f.Line, f.Setting = n, m[0]
				found = append(found, f)
			}
		}
		if m := failedIsFine.FindString(line); m != "" {
			found = append(found, Finding{Line: n, Setting: m, Why: "a check that fails is answered with success", Open: true})
		}
	}
	return found
}
