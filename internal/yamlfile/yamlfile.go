// Package yamlfile reads the YAML files that deployments of the original have: seeds, lists of paths, who may call the
// management API. The original expanded Ruby templates in them. Of these, the ones that read a variable are understood: the
// value becomes text of the one place where the template stands, and can never add anything else to the file. Any other is
// an error, unless it stands in a comment.
package yamlfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Getenv finds a variable.
type Getenv func(name string) (value string, set bool)

// allowed says which templates there may be.
const allowed = `the only templates are those that read a variable: <%= ENV["NAME"] %>, <%= ENV["NAME"] || "default" %>, ` +
	`<%= ENV.fetch("NAME") %> and <%= ENV.fetch("NAME", "default") %>`

// Parse reads a file of one document, and returns its value; nil for a file that has none. getenv may be nil where no
// variable is set. Errors name the line.
func Parse(data []byte, getenv Getenv) (*yaml.Node, error) {
	if getenv == nil {
		getenv = func(string) (string, bool) { return "", false }
	}
	text, values, err := expand(string(data), getenv)
	if err != nil {
		return nil, err
	}
	dec := yaml.NewDecoder(bytes.NewReader([]byte(text)))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	switch err := dec.Decode(new(yaml.Node)); {
	case err == nil:
		return nil, errors.New("more than one document")
	case !errors.Is(err, io.EOF): // what ends the first one is a mistake
		return nil, errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if len(doc.Content) != 1 || null(doc.Content[0]) {
		return nil, nil
	}
	top := doc.Content[0]
	return top, fill(top, values)
}

// Empty reports a value without anything in it. An empty mapping counts as an empty list, and the other way round: files in
// the field have either.
func Empty(n *yaml.Node) bool {
	return n == nil || null(n) || (n.Kind == yaml.MappingNode || n.Kind == yaml.SequenceNode) && len(n.Content) == 0
}

func null(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// Similar finds the known name that a name differs from in at most two letters, and returns the empty text without one.
func Similar(name string, known ...string) string {
	best, least := "", 3
	for _, k := range known {
		if d := distance(name, k, 3); k != "" && (d < least || d == least && best != "" && k < best) {
			best, least = k, d
		}
	}
	return best
}

// distance is the number of letters to add, drop or change between a and b, or at least most when it is not less.
func distance(a, b string, most int) int {
	x, y := []rune(a), []rune(b)
	if len(x)-len(y) >= most || len(y)-len(x) >= most {
		return most
	}
	row := make([]int, len(y)+1)
	for j := range row {
		row[j] = j
	}
	for i := range x {
		diagonal := row[0]
		row[0] = i + 1
		for j := range y {
			cost := diagonal
			if x[i] != y[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, diagonal+1, row[j]+1)
		}
	}
	return row[len(y)]
}

// Marks around the number of a value, in place of its template until the YAML is parsed. They are private characters
// of Unicode, which have no meaning to YAML.
const (
	markOpen  = "\ue000"
	markClose = "\ue001"
)

var mark = regexp.MustCompile(markOpen + `(\d+)` + markClose)

// expand puts marks in place of the templates, and returns their values.
func expand(text string, getenv Getenv) (string, []string, error) {
	if strings.ContainsAny(text, markOpen+markClose) {
		return "", nil, errors.New("it has private-use characters")
	}
	var (
		out    strings.Builder
		values []string
		line   = 1
	)
	for {
		before, rest, found := strings.Cut(text, "<%")
		out.WriteString(before)
		line += strings.Count(before, "\n")
		if !found {
			return out.String(), values, nil
		}
		body, after, closed := strings.Cut(rest, "%>")
		switch {
		case inComment(out.String()):
			// Left as it is, to the end of the line: whatever it says, it is not of the file. Where this is no comment
			// after all but text of several lines, fill finds it.
			out.WriteString("<%")
			text = rest
			continue
		case !closed:
			return "", nil, fmt.Errorf("line %d: a template without an end (%%>)", line)
		case strings.HasPrefix(body, "#"): // a comment of the template language
		case !strings.HasPrefix(body, "="):
			return "", nil, fmt.Errorf("line %d: %s", line, allowed)
		default:
			p := expression{text: strings.TrimSuffix(body[1:], "-"), getenv: getenv}
			value, err := p.whole()
			if err != nil {
				return "", nil, fmt.Errorf("line %d: %w", line, err)
			}
			fmt.Fprintf(&out, "%s%d%s", markOpen, len(values), markClose)
			values = append(values, value)
		}
		line += strings.Count(body, "\n")
		text = after
	}
}

// inComment reports whether what follows text stands in a comment of YAML: behind a number sign that begins the line or
// follows white space, and is in no quotes.
func inComment(text string) bool {
	line := text[strings.LastIndexByte(text, '\n')+1:]
	quote, before := byte(0), byte(' ')
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case quote == '"' && c == '\\':
			i++
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case (c == '"' || c == '\'') && strings.IndexByte(" \t,:[{-", before) >= 0:
			quote = c
		case c == '#' && (before == ' ' || before == '\t' || before == '\r'):
			return true
		}
		before = c
	}
	return false
}

// fill puts the values where their marks are. A place of which nothing is left is null.
func fill(n *yaml.Node, values []string) error {
	for _, child := range n.Content {
		if err := fill(child, values); err != nil {
			return err
		}
	}
	if n.Kind != yaml.ScalarNode {
		return nil
	}
	if strings.Contains(n.Value, "<%") {
		return fmt.Errorf("line %d: %s", n.Line, allowed)
	}
	marked := false
	text := mark.ReplaceAllStringFunc(n.Value, func(m string) string {
		i, err := strconv.Atoi(strings.Trim(m, markOpen+markClose))
		if err != nil || i >= len(values) { // written as an escape, not by expand
			return m
		}
		marked = true
		return values[i]
	})
	if !marked {
		return nil
	}
	plain := n.Style == 0
	n.Value, n.Tag = text, ""
	switch tag := n.ShortTag(); {
	case text == "":
		n.Tag = "!!null"
	case plain && (tag == "!!int" || tag == "!!bool" || tag == "!!float"):
		n.Tag = tag
	default:
		n.Tag = "!!str"
	}
	return nil
}

// An expression is what a template may hold: a small part of Ruby.
type expression struct {
	text   string
	getenv Getenv
}

var (
	errExpression = errors.New(allowed)
	stringToken   = regexp.MustCompile(`^(?:"([^"\\#\n]*)"|'([^'\\\n]*)')`)
	wordToken     = regexp.MustCompile(`^(?:nil|true|false|[0-9]+(?:\.[0-9]+)?)\b`)
)

// no is Ruby's false, which || passes over as it does nil.
var no = "false"

// whole reads all of it. Nothing, Ruby's nil, is the empty text.
func (e *expression) whole() (string, error) {
	value, err := e.alternatives()
	if err == nil && strings.TrimSpace(e.text) != "" {
		err = errExpression
	}
	if err != nil || value == nil {
		return "", err
	}
	return *value, nil
}

// alternatives reads terms with || between them, of which the first counts that is something.
func (e *expression) alternatives() (*string, error) {
	value, err := e.term()
	for err == nil && e.skip("||") {
		var other *string
		if other, err = e.term(); value == nil || value == &no {
			value = other
		}
	}
	return value, err
}

func (e *expression) term() (*string, error) {
	switch {
	case e.skip("ENV["):
		name, ok := e.string()
		if !ok || !e.skip("]") {
			return nil, errExpression
		}
		return e.variable(name), nil
	case e.skip("ENV.fetch("):
		name, ok := e.string()
		if !ok {
			return nil, errExpression
		}
		value := e.variable(name)
		found := value != nil
		if e.skip(",") {
			other, err := e.alternatives()
			if err != nil {
				return nil, err
			}
			if !found {
				value, found = other, true
			}
		}
		if !e.skip(")") {
			return nil, errExpression
		}
		if e.skip("{") {
			other, err := e.alternatives()
			if err != nil || !e.skip("}") {
				return nil, errors.Join(err, errExpression)
			}
			if !found {
				value, found = other, true
			}
		}
		if !found {
			return nil, fmt.Errorf("the variable %s is not set, and the template has no default for it", name)
		}
		return value, nil
	}
	if text, ok := e.string(); ok {
		return &text, nil
	}
	e.text = strings.TrimSpace(e.text)
	if word := wordToken.FindString(e.text); word != "" {
		e.text = e.text[len(word):]
		switch word {
		case "nil":
			return nil, nil
		case no:
			return &no, nil
		}
		return &word, nil
	}
	return nil, errExpression
}

func (e *expression) variable(name string) *string {
	if value, set := e.getenv(name); set {
		return &value
	}
	return nil
}

// string reads a text in quotes, in which nothing is escaped or inserted.
func (e *expression) string() (string, bool) {
	e.text = strings.TrimSpace(e.text)
	m := stringToken.FindStringSubmatch(e.text)
	if m == nil {
		return "", false
	}
	e.text = e.text[len(m[0]):]
	return m[1] + m[2], true
}

// skip reads a token if it is next. Spaces may stand before it.
func (e *expression) skip(token string) bool {
	rest, ok := strings.CutPrefix(strings.TrimSpace(e.text), token)
	if ok {
		e.text = rest
	}
	return ok
}
