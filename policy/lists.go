package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"barong/internal/yamlfile"
)

// Lists are the path lists of an authz_rules.yml: whoever asks for a blocked path is refused, whatever the credentials;
// a passed path needs none. Entries have no leading slash.
type Lists struct {
	Pass  []string
	Block []string

	Warnings []string // what in the file has no effect, one line each
}

// Bounds of a rules file.
const (
	maxListsFile   = 1 << 20 // bytes
	maxListEntries = 10_000  // of each list
)

// DefaultLists are the lists that Barong 2.4 ships with.
func DefaultLists() Lists {
	return Lists{
		Pass:  []string{"api/v2/barong/identity", "api/v2/peatio/public"},
		Block: []string{"api/v2/barong/management", "api/v2/peatio/management"},
	}
}

// At returns the lists for an API that is published at prefix and not at DefaultPrefix: entries that name the API follow it
// there. An empty prefix is DefaultPrefix.
func (l Lists) At(prefix string) Lists {
	out := Lists{Pass: slices.Clone(l.Pass), Block: slices.Clone(l.Block), Warnings: slices.Clone(l.Warnings)}
	for _, entries := range [][]string{out.Pass, out.Block} {
		for i, entry := range entries {
			entries[i] = PathAt(prefix, entry)
		}
	}
	return out
}

// PathAt returns the path of a rule about an API that is published at prefix and not at DefaultPrefix. An empty prefix is
// DefaultPrefix.
func PathAt(prefix, path string) string {
	rest, ok := strings.CutPrefix(path, DefaultPrefix)
	if !ok || prefix == "" || rest != "" && rest[0] != '/' {
		return path
	}
	return prefix + rest
}

// ParseLists reads a rules file: YAML with the key rules, below it the optional lists pass and block, and templates that read
// variables (see package yamlfile), for which getenv may be nil. Errors name the line. A misspelt key and an entry that can
// never match a canonical path are errors, since each would quietly leave a path unblocked; what is no list of ours is told by
// the warnings.
func ParseLists(data []byte, getenv func(string) (string, bool)) (Lists, error) {
	if len(data) > maxListsFile {
		return Lists{}, fmt.Errorf("rules file: larger than %d bytes", maxListsFile)
	}
	top, err := yamlfile.Parse(data, getenv)
	if err == nil && top == nil {
		err = errors.New("line 1: no key rules")
	}
	var lists Lists
	if err == nil {
		err = lists.read(top)
	}
	if err != nil {
		return Lists{}, fmt.Errorf("rules file: %w", err)
	}
	return lists, nil
}

func (l *Lists) read(top *yaml.Node) error {
	keys, err := l.mapping(top, "rules")
	if err != nil {
		return err
	}
	rules, ok := keys["rules"]
	if !ok {
		return fmt.Errorf("line %d: no key rules", top.Line)
	}
	if yamlfile.Empty(rules) {
		return nil
	}
	if keys, err = l.mapping(rules, "pass", "block"); err != nil {
		return err
	}
	if l.Pass, err = entries(keys["pass"], "pass"); err != nil {
		return err
	}
	l.Block, err = entries(keys["block"], "block")
	return err
}

// mapping reads a YAML mapping that may have the given keys. Others are warnings, unless they look like one of those.
func (l *Lists) mapping(n *yaml.Node, known ...string) (map[string]*yaml.Node, error) {
	if n.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: want a mapping with %s", n.Line, strings.Join(known, ", "))
	}
	m := make(map[string]*yaml.Node, len(known))
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind != yaml.ScalarNode {
			return nil, fmt.Errorf("line %d: a key is no text, want %s", key.Line, strings.Join(known, ", "))
		}
		if m[key.Value] != nil {
			return nil, fmt.Errorf("line %d: key %s is there twice", key.Line, key.Value)
		}
		m[key.Value] = n.Content[i+1]
		if slices.Contains(known, key.Value) {
			continue
		}
		if meant := yamlfile.Similar(strings.ToLower(key.Value), known...); meant != "" {
			return nil, fmt.Errorf("line %d: unknown key %q: %s is meant", key.Line, key.Value, meant)
		}
		l.Warnings = append(l.Warnings, fmt.Sprintf("rules file: line %d: %q has no effect, known are %s", key.Line, key.Value,
			strings.Join(known, ", ")))
	}
	return m, nil
}

func entries(n *yaml.Node, list string) ([]string, error) {
	if yamlfile.Empty(n) {
		return nil, nil
	}
	if n.Kind != yaml.SequenceNode {
		return nil, fmt.Errorf("line %d: %s is no list", n.Line, list)
	}
	if len(n.Content) > maxListEntries {
		return nil, fmt.Errorf("line %d: %s has more than %d entries", n.Line, list, maxListEntries)
	}
	out := make([]string, 0, len(n.Content))
	for _, e := range n.Content {
		if e.Kind != yaml.ScalarNode || e.Tag != "!!str" {
			return nil, fmt.Errorf("line %d: an entry of %s is no text", e.Line, list)
		}
		if err := validateEntry(e.Value); err != nil {
			return nil, fmt.Errorf("line %d: %s entry %q: %w", e.Line, list, e.Value, err)
		}
		out = append(out, e.Value)
	}
	return out, nil
}

// refusedBytes never occur in a canonical path: it is decoded, and a path that decodes to one of these is ambiguous.
const refusedBytes = `\;#%`

// validateEntry refuses what could never match a canonical path, and the empty entry, which would match every one.
func validateEntry(entry string) error {
	if err := validateText("it", entry); err != nil {
		return err
	}
	switch {
	case entry == "":
		return errors.New("it is empty, which would match every path")
	case strings.HasPrefix(entry, "/"):
		return errors.New("it begins with a slash; paths are written without")
	case strings.TrimSpace(entry) != entry:
		return errors.New("it begins or ends with white space")
	case strings.ContainsAny(entry, refusedBytes):
		return errors.New("it has one of " + refusedBytes + ", and a path with one is refused before the lists are asked")
	case strings.Contains(entry, "?"):
		return errors.New("it has a query; paths are compared without")
	case strings.Contains(entry, "//"):
		return errors.New("it has an empty segment")
	}
	for segment := range strings.SplitSeq(entry, "/") {
		if segment == "." || segment == ".." {
			return errors.New("it has a dot segment")
		}
	}
	return nil
}
