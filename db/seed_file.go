package db

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Bounds of a seeds file.
const (
	maxSeedsFile   = 4 << 20 // bytes
	maxSeedEntries = 20_000  // of each list
)

// seedLists are the lists of a seeds file and the fields that their entries may have.
var seedLists = map[string][]string{
	"users":        {"email", "password", "password_digest", "role", "state", "level", "uid", "data", "otp", "referral_id"},
	"levels":       {"key", "value", "description"},
	"permissions":  {"role", "verb", "path", "action", "topic"},
	"restrictions": {"category", "scope", "value", "state", "code"},
}

// A seedEntry is an entry of a list. Fields that are absent, null or the empty text of a variable are not in it.
type seedEntry struct {
	line   int
	fields map[string]*string
}

func (e *seedEntry) text(field string) string {
	if v := e.fields[field]; v != nil {
		return *v
	}
	return ""
}

func (e *seedEntry) errorf(format string, args ...any) error {
	return &SeedError{Line: e.line, Message: fmt.Sprintf(format, args...)}
}

// ParseSeeds reads a seeds file: YAML with the lists users, levels, permissions and restrictions. The two templates
// <%= ENV["NAME"] %> and <%= ENV.fetch("NAME", "default") %> stand for variables, which getenv reads; a value becomes
// text of the one field where the template stands, and can never add anything else to the file. Any other template is
// an error. Errors name the line.
func ParseSeeds(data []byte, getenv func(string) (string, bool)) (*Seeds, error) {
	if len(data) > maxSeedsFile {
		return nil, fmt.Errorf("seeds file: larger than %d bytes", maxSeedsFile)
	}
	text, values, err := replaceTemplates(string(data), getenv)
	if err != nil {
		return nil, fmt.Errorf("seeds file: %w", err)
	}
	dec := yaml.NewDecoder(bytes.NewReader([]byte(text)))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return &Seeds{}, nil
	} else if err != nil {
		return nil, fmt.Errorf("seeds file: %w", err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("seeds file: more than one document")
	}
	s, err := readSeeds(&doc, values)
	if err != nil {
		return nil, fmt.Errorf("seeds file: %w", err)
	}
	return s, nil
}

var seedTemplates = []*regexp.Regexp{
	regexp.MustCompile(`^<%=\s*ENV\[\s*(?:"(\w+)"|'(\w+)')\s*\]\s*%>`),
	regexp.MustCompile(`^<%=\s*ENV\.fetch\(\s*(?:"(\w+)"|'(\w+)')\s*,\s*(?:"([^"\\\n]*)"|'([^'\\\n]*)')\s*\)\s*%>`),
}

// Marks around the number of a value, in place of its template until the YAML is parsed. They are private characters
// of Unicode, which have no meaning to YAML.
const (
	markOpen  = "\ue000"
	markClose = "\ue001"
)

var seedMark = regexp.MustCompile(markOpen + `(\d+)` + markClose)

func replaceTemplates(text string, getenv func(string) (string, bool)) (string, []string, error) {
	if strings.ContainsAny(text, markOpen+markClose) {
		return "", nil, errors.New("it has private-use characters")
	}
	var (
		out    strings.Builder
		values []string
		line   = 1
	)
next:
	for {
		before, _, found := strings.Cut(text, "<%")
		out.WriteString(before)
		if !found {
			return out.String(), values, nil
		}
		line += strings.Count(before, "\n")
		text = text[len(before):]
		for _, template := range seedTemplates {
			m := template.FindStringSubmatch(text)
			if m == nil {
				continue
			}
			value, set := getenv(m[1] + m[2])
			if !set && len(m) > 3 {
				value = m[3] + m[4]
			}
			fmt.Fprintf(&out, "%s%d%s", markOpen, len(values), markClose)
			values = append(values, value)
			text = text[len(m[0]):]
			continue next
		}
		return "", nil, fmt.Errorf(
			`line %d: the only templates are <%%= ENV["NAME"] %%> and <%%= ENV.fetch("NAME", "default") %%>`, line)
	}
}

func readSeeds(doc *yaml.Node, values []string) (*Seeds, error) {
	s := new(Seeds)
	if len(doc.Content) != 1 || isNull(doc.Content[0]) {
		return s, nil
	}
	top := doc.Content[0]
	if top.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: want users, levels, permissions or restrictions", top.Line)
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(top.Content); i += 2 {
		key, list := top.Content[i], top.Content[i+1]
		fields, ok := seedLists[key.Value]
		switch {
		case !ok:
			return nil, fmt.Errorf("line %d: unknown key %q, want users, levels, permissions or restrictions", key.Line, key.Value)
		case seen[key.Value]:
			return nil, fmt.Errorf("line %d: key %s is there twice", key.Line, key.Value)
		}
		seen[key.Value] = true
		entries, err := readEntries(list, key.Value, fields, values)
		if err != nil {
			return nil, err
		}
		switch key.Value {
		case "users":
			s.users = entries
		case "levels":
			s.levels = entries
		case "permissions":
			s.permissions = entries
		case "restrictions":
			s.restrictions = entries
		}
	}
	return s, nil
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func readEntries(list *yaml.Node, name string, known []string, values []string) ([]seedEntry, error) {
	if isNull(list) {
		return nil, nil
	}
	if list.Kind != yaml.SequenceNode {
		return nil, fmt.Errorf("line %d: %s is no list", list.Line, name)
	}
	if len(list.Content) > maxSeedEntries {
		return nil, fmt.Errorf("line %d: %s has more than %d entries", list.Line, name, maxSeedEntries)
	}
	out := make([]seedEntry, 0, len(list.Content))
	for _, n := range list.Content {
		if n.Kind != yaml.MappingNode {
			return nil, fmt.Errorf("line %d: an entry of %s is no mapping", n.Line, name)
		}
		e := seedEntry{line: n.Line, fields: make(map[string]*string, len(n.Content)/2)}
		seen := map[string]bool{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			switch {
			case key.Kind != yaml.ScalarNode || !slices.Contains(known, key.Value):
				return nil, fmt.Errorf("line %d: unknown key %q in %s, want %s", key.Line, key.Value, name, strings.Join(known, ", "))
			case seen[key.Value]:
				return nil, fmt.Errorf("line %d: key %s is there twice", key.Line, key.Value)
			case value.Kind != yaml.ScalarNode:
				return nil, fmt.Errorf("line %d: %s is no text", value.Line, key.Value)
			}
			seen[key.Value] = true
			if text, set := readScalar(value, values); set {
				e.fields[key.Value] = &text
			}
		}
		out = append(out, e)
	}
	return out, nil
}

// readScalar is the text of a value with the variables in it, and whether there is one.
func readScalar(n *yaml.Node, values []string) (string, bool) {
	if isNull(n) {
		return "", false
	}
	marked := false
	text := seedMark.ReplaceAllStringFunc(n.Value, func(mark string) string {
		i, err := strconv.Atoi(strings.Trim(mark, markOpen+markClose))
		if err != nil || i >= len(values) { // written as an escape, not by replaceTemplates
			return mark
		}
		marked = true
		return values[i]
	})
	return text, text != "" || !marked
}
