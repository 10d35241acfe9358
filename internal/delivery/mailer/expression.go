package mailer

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"barong/internal/delivery/mail"
)

// An expression says which events of a kind are worth a mail. Values are compared as in JSON, numbers by what they amount
// to; what is not there is null.
type expression func(event map[string]any) bool

// Bounds of an expression's text.
const (
	maxExpression = 4 << 10 // bytes
	maxDepth      = 50
)

// readExpression reads either form that the files of the original have:
//
//	{and: {record.state: accepted, record.currency: btc}}     also or, and not: unless all of them hold
//	record.state == "accepted" && changes.state in ["a", "b"] also !=, not in, || or or, && or and, ! or not, parentheses
//
// Paths begin below the event. warn is told of what the original did not look at.
func readExpression(n *yaml.Node, warn func(string)) (expression, error) {
	switch n.Kind {
	case 0: // there is none
		return nil, nil
	case yaml.ScalarNode:
		if n.Tag == "!!null" || n.Value == "" {
			return nil, nil
		}
		return parseExpression(n.Value)
	case yaml.MappingNode:
		if len(n.Content) == 0 {
			return nil, nil
		}
	default:
		return nil, errors.New("neither a text nor a mapping")
	}
	operator, values := strings.ToLower(n.Content[0].Value), n.Content[1]
	if len(n.Content) > 2 {
		warn(fmt.Sprintf("only its first operator, %s, has an effect", operator))
	}
	if values.Kind != yaml.MappingNode || len(values.Content) == 0 {
		return nil, fmt.Errorf("%.20q: values by their paths are needed", operator)
	}
	var tests []expression
	for i := 0; i+1 < len(values.Content); i += 2 {
		path := values.Content[i].Value
		var want any
		if err := values.Content[i+1].Decode(&want); err != nil {
			return nil, fmt.Errorf("%.100q: %w", path, err)
		}
		text, err := json.Marshal(want)
		if err != nil {
			return nil, fmt.Errorf("%.100q: a text, a number, true, false or null is needed", path)
		}
		tests = append(tests, func(event map[string]any) bool { return same(mail.At(event, path), decodeJSON(text)) })
	}
	every := func(event map[string]any) bool {
		for _, t := range tests {
			if !t(event) {
				return false
			}
		}
		return true
	}
	switch operator {
	case "and":
		return every, nil
	case "not":
		return func(event map[string]any) bool { return !every(event) }, nil
	case "or":
		return func(event map[string]any) bool {
			for _, t := range tests {
				if t(event) {
					return true
				}
			}
			return false
		}, nil
	}
	return nil, fmt.Errorf("operator %.20q is not one of and, or, not", operator)
}

// decodeJSON decodes with numbers as they are written. The text is JSON.
func decodeJSON(text []byte) (v any) {
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.UseNumber()
	_ = d.Decode(&v) // an error leaves null, which equals nothing but null
	return v
}

// same compares two values of JSON. Objects and arrays equal nothing.
func same(a, b any) bool {
	x, first := a.(json.Number)
	y, second := b.(json.Number)
	if first && second {
		return x == y || sameNumber(x, y)
	}
	switch a.(type) {
	case nil, bool, string:
		return a == b
	}
	return false
}

// sameNumber compares by value. Numbers that are very long are compared as they are written.
func sameNumber(a, b json.Number) bool {
	if len(a) > 40 || len(b) > 40 || strings.ContainsAny(a.String()+b.String(), "eE") {
		return a == b
	}
	x, ok := new(big.Rat).SetString(a.String())
	y, also := new(big.Rat).SetString(b.String())
	return ok && also && x.Cmp(y) == 0
}

// A term is a value, given an event.
type term func(event map[string]any) any

// parseExpression reads the written form.
func parseExpression(text string) (expression, error) {
	if len(text) > maxExpression {
		return nil, fmt.Errorf("longer than %d bytes", maxExpression)
	}
	p := &parser{text: text}
	e, err := p.either(0)
	if err == nil && p.peek() != "" {
		err = fmt.Errorf("%.20q is not understood", p.peek())
	}
	if err != nil {
		return nil, err
	}
	return e, nil
}

type parser struct {
	text string // what is left
}

// peek is the next token: a word, a text in its quotes, a number, an operator; empty at the end.
func (p *parser) peek() string {
	p.text = strings.TrimLeftFunc(p.text, unicode.IsSpace)
	if p.text == "" {
		return ""
	}
	for _, operator := range []string{"==", "!=", "&&", "||"} {
		if strings.HasPrefix(p.text, operator) {
			return operator
		}
	}
	first, size := utf8.DecodeRuneInString(p.text)
	if first == '"' || first == '\'' {
		for i := 1; i < len(p.text); i++ {
			switch p.text[i] {
			case '\\':
				i++
			case p.text[0]:
				return p.text[:i+1]
			}
		}
		return p.text // without an end
	}
	end := strings.IndexFunc(p.text, func(r rune) bool {
		return r != '.' && r != '_' && r != '-' && r != '?' && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	})
	switch {
	case end < 0:
		return p.text
	case end == 0:
		return p.text[:size]
	}
	return p.text[:end]
}

// skip takes the next token if it is one of these.
func (p *parser) skip(tokens ...string) bool {
	next := p.peek()
	for _, t := range tokens {
		if next == t {
			p.text = p.text[len(next):]
			return true
		}
	}
	return false
}

func (p *parser) either(depth int) (expression, error) {
	e, err := p.all(depth)
	for err == nil && p.skip("||", "or") {
		var other expression
		one := e
		if other, err = p.all(depth); err == nil {
			e = func(event map[string]any) bool { return one(event) || other(event) }
		}
	}
	return e, err
}

func (p *parser) all(depth int) (expression, error) {
	e, err := p.single(depth)
	for err == nil && p.skip("&&", "and") {
		var other expression
		one := e
		if other, err = p.single(depth); err == nil {
			e = func(event map[string]any) bool { return one(event) && other(event) }
		}
	}
	return e, err
}

func (p *parser) single(depth int) (expression, error) {
	switch {
	case depth > maxDepth:
		return nil, errors.New("nested too deeply")
	case p.skip("!", "not"):
		e, err := p.single(depth + 1)
		if err != nil {
			return nil, err
		}
		return func(event map[string]any) bool { return !e(event) }, nil
	case p.skip("("):
		e, err := p.either(depth + 1)
		if err == nil && !p.skip(")") {
			err = errors.New("a parenthesis is not closed")
		}
		return e, err
	}
	left, err := p.term()
	if err != nil {
		return nil, err
	}
	switch {
	case p.skip("=="):
		right, err := p.term()
		return func(event map[string]any) bool { return same(left(event), right(event)) }, err
	case p.skip("!="):
		right, err := p.term()
		return func(event map[string]any) bool { return !same(left(event), right(event)) }, err
	case p.skip("in"):
		return p.among(left)
	case p.skip("not"):
		if !p.skip("in") {
			return nil, errors.New("not is followed by in, or stands in front")
		}
		e, err := p.among(left)
		return func(event map[string]any) bool { return !e(event) }, err
	}
	return func(event map[string]any) bool { return left(event) == true }, nil
}

func (p *parser) among(left term) (expression, error) {
	if !p.skip("[") {
		return nil, errors.New("in is followed by a list")
	}
	var list []term
	for !p.skip("]") {
		if len(list) > 0 && !p.skip(",") {
			return nil, errors.New("a list is not closed")
		}
		t, err := p.term()
		if err != nil {
			return nil, err
		}
		list = append(list, t)
	}
	return func(event map[string]any) bool {
		for _, t := range list {
			if same(left(event), t(event)) {
				return true
			}
		}
		return false
	}, nil
}

func (p *parser) term() (term, error) {
	next := p.peek()
	p.text = p.text[len(next):]
	constant := func(v any) (term, error) { return func(map[string]any) any { return v }, nil }
	first, _ := utf8.DecodeRuneInString(next)
	switch {
	case next == "":
		return nil, errors.New("it ends too early")
	case next == "true" || next == "false":
		return constant(next == "true")
	case next == "nil" || next == "null":
		return constant(nil)
	case first == '"' || first == '\'':
		text, err := unquote(next)
		if err != nil {
			return nil, err
		}
		return constant(text)
	case unicode.IsDigit(first) || first == '-':
		if !json.Valid([]byte(next)) {
			return nil, fmt.Errorf("%.20q is no number", next)
		}
		return constant(json.Number(next))
	case unicode.IsLetter(first) || first == '_':
		path := strings.ReplaceAll(next, "?.", ".")
		if strings.ContainsAny(path, "?") || strings.Contains(path, "..") || strings.HasSuffix(path, ".") {
			return nil, fmt.Errorf("%.100q is no path", next)
		}
		return func(event map[string]any) any { return mail.At(event, path) }, nil
	}
	return nil, fmt.Errorf("%.20q is not understood", next)
}

// unquote takes a text out of its quotes.
func unquote(s string) (string, error) {
	quote := s[0]
	if len(s) < 2 || s[len(s)-1] != quote {
		return "", errors.New("a text has no end")
	}
	var b strings.Builder
	for i := 1; i < len(s)-1; i++ {
		if s[i] == '\\' {
			if i++; i == len(s)-1 || s[i] != '\\' && s[i] != quote {
				return "", errors.New("in a text, only its quote and the backslash are escaped")
			}
		}
		b.WriteByte(s[i])
	}
	return b.String(), nil
}
