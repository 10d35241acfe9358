package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Lists are the path lists of an authz_rules.yml: whoever asks for a blocked path is refused, whatever the credentials;
// a passed path needs none. Entries have no leading slash.
type Lists struct {
	Pass  []string
	Block []string
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
	out := Lists{Pass: slices.Clone(l.Pass), Block: slices.Clone(l.Block)}
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

// ParseLists reads a rules file: YAML with the key rules, below it the optional lists pass and block. Errors name the
// line. A misspelt key, an entry that can never match a canonical path, and a template (the original expanded ERB) are
// errors, since each would quietly leave a path unblocked.
func ParseLists(data []byte) (Lists, error) {
	if len(data) > maxListsFile {
		return Lists{}, fmt.Errorf("rules file: larger than %d bytes", maxListsFile)
	}
	if at := bytes.Index(data, []byte("<%")); at >= 0 {
		return Lists{}, fmt.Errorf("rules file: line %d: templates (<%% %%>) are not expanded",
			1+bytes.Count(data[:at], []byte("\n")))
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return Lists{}, errors.New("rules file: line 1: no key rules")
		}
		return Lists{}, fmt.Errorf("rules file: %w", err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return Lists{}, errors.New("rules file: more than one document")
	}
	lists, err := readLists(&doc)
	if err != nil {
		return Lists{}, fmt.Errorf("rules file: %w", err)
	}
	return lists, nil
}

func readLists(doc *yaml.Node) (Lists, error) {
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return Lists{}, errors.New("line 1: no key rules")
	}
	top, err := mapping(doc.Content[0], "rules")
	if err != nil {
		return Lists{}, err
	}
	rules, ok := top["rules"]
	if !ok {
		return Lists{}, fmt.Errorf("line %d: no key rules", doc.Content[0].Line)
	}
	if absent(rules) {
		return Lists{}, nil
	}
	keys, err := mapping(rules, "pass", "block")
	if err != nil {
		return Lists{}, err
	}
	var lists Lists
	if lists.Pass, err = entries(keys["pass"], "pass"); err != nil {
		return Lists{}, err
	}
	if lists.Block, err = entries(keys["block"], "block"); err != nil {
		return Lists{}, err
	}
	return lists, nil
}

func absent(n *yaml.Node) bool { return n == nil || n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// mapping reads a YAML mapping that may have the given keys and no others.
func mapping(n *yaml.Node, known ...string) (map[string]*yaml.Node, error) {
	if n.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: want a mapping with %s", n.Line, strings.Join(known, ", "))
	}
	m := make(map[string]*yaml.Node, len(known))
next:
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		for _, k := range known {
			if key.Kind != yaml.ScalarNode || key.Value != k {
				continue
			}
			if m[k] != nil {
				return nil, fmt.Errorf("line %d: key %s is there twice", key.Line, k)
			}
			m[k] = n.Content[i+1]
			continue next
		}
		return nil, fmt.Errorf("line %d: unknown key %q, want %s", key.Line, key.Value, strings.Join(known, ", "))
	}
	return m, nil
}

func entries(n *yaml.Node, list string) ([]string, error) {
	if absent(n) {
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
		if err := checkEntry(e.Value); err != nil {
			return nil, fmt.Errorf("line %d: %s entry %q: %w", e.Line, list, e.Value, err)
		}
		out = append(out, e.Value)
	}
	return out, nil
}

// refusedBytes never occur in a canonical path: it is decoded, and a path that decodes to one of these is ambiguous.
const refusedBytes = `\;#%`

// checkEntry refuses what could never match a canonical path, and the empty entry, which would match every one.
func checkEntry(entry string) error {
	if err := checkText("it", entry); err != nil {
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
