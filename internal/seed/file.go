package seed

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"barong/internal/yamlfile"
)

// Bounds of a seeds file.
const (
	maxFile    = 4 << 20 // bytes
	maxEntries = 20_000  // of each list
)

// lists are the lists of a seeds file and the fields that their entries may have.
var lists = map[string][]string{
	"users":        {"email", "password", "password_digest", "role", "state", "level", "uid", "data", "otp", "referral_id"},
	"levels":       {"key", "value", "description"},
	"permissions":  {"role", "verb", "path", "action", "topic"},
	"restrictions": {"category", "scope", "value", "state", "code"},
}

// A entry is an entry of a list. Fields that are absent, null or the empty text of a variable are not in it.
type entry struct {
	line   int
	fields map[string]*string
}

func (e *entry) text(field string) string {
	if v := e.fields[field]; v != nil {
		return *v
	}
	return ""
}

func (e *entry) errorf(format string, args ...any) error {
	return &Error{Line: e.line, Message: fmt.Sprintf(format, args...)}
}

// Parse reads a seeds file: YAML with the lists users, levels, permissions and restrictions, and templates that read
// variables (see package yamlfile). Unknown keys of entries are told by Warnings. Errors name the line.
func Parse(data []byte, getenv func(string) (string, bool)) (*Seeds, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("seeds file: larger than %d bytes", maxFile)
	}
	top, err := yamlfile.Parse(data, getenv)
	if err != nil {
		return nil, fmt.Errorf("seeds file: %w", err)
	}
	s, err := readSeeds(top)
	if err != nil {
		return nil, fmt.Errorf("seeds file: %w", err)
	}
	return s, nil
}

// Warnings are one line each: what in the file has no effect.
func (s *Seeds) Warnings() []string { return slices.Clone(s.warnings) }

func (s *Seeds) warn(format string, args ...any) {
	if line := fmt.Sprintf(format, args...); !slices.Contains(s.warnings, line) {
		s.warnings = append(s.warnings, line)
	}
}

func readSeeds(top *yaml.Node) (*Seeds, error) {
	s := new(Seeds)
	if top == nil {
		return s, nil
	}
	if top.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: want users, levels, permissions or restrictions", top.Line)
	}
	seen := map[string]bool{}
	names := slices.Sorted(maps.Keys(lists))
	for i := 0; i+1 < len(top.Content); i += 2 {
		key, list := top.Content[i], top.Content[i+1]
		if seen[key.Value] {
			return nil, fmt.Errorf("line %d: key %s is there twice", key.Line, key.Value)
		}
		seen[key.Value] = true
		fields, ok := lists[key.Value]
		if !ok {
			if meant := yamlfile.Similar(key.Value, names...); meant != "" {
				return nil, fmt.Errorf("line %d: unknown key %q: %s is meant", key.Line, key.Value, meant)
			}
			s.warn("line %d: %q has no effect: the lists are %s", key.Line, key.Value, strings.Join(names, ", "))
			continue
		}
		entries, err := s.readEntries(list, key.Value, fields)
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

func (s *Seeds) readEntries(list *yaml.Node, name string, known []string) ([]entry, error) {
	if yamlfile.Empty(list) {
		return nil, nil
	}
	if list.Kind != yaml.SequenceNode {
		return nil, fmt.Errorf("line %d: %s is no list", list.Line, name)
	}
	if len(list.Content) > maxEntries {
		return nil, fmt.Errorf("line %d: %s has more than %d entries", list.Line, name, maxEntries)
	}
	out := make([]entry, 0, len(list.Content))
	for _, n := range list.Content {
		if n.Kind != yaml.MappingNode {
			return nil, fmt.Errorf("line %d: an entry of %s is no mapping", n.Line, name)
		}
		e := entry{line: n.Line, fields: make(map[string]*string, len(n.Content)/2)}
		seen := map[string]bool{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			if key.Kind != yaml.ScalarNode {
				return nil, fmt.Errorf("line %d: a key of %s is no text", key.Line, name)
			}
			if seen[key.Value] {
				return nil, fmt.Errorf("line %d: key %s is there twice", key.Line, key.Value)
			}
			seen[key.Value] = true
			switch {
			case !slices.Contains(known, key.Value):
				s.warn("%q of %s has no effect: known are %s", key.Value, name, strings.Join(known, ", "))
			case value.Kind != yaml.ScalarNode:
				return nil, fmt.Errorf("line %d: %s is no text", value.Line, key.Value)
			case !isNull(value):
				e.fields[key.Value] = &value.Value
			}
		}
		out = append(out, e)
	}
	return out, nil
}
