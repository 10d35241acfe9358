package gateways

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/ext"
)

// rules finds which of a schema's rules (x-kubernetes-validations) an object breaks. They are written in CEL, which a cluster runs
// after it has filled in defaults; those about changes (oldSelf) are of no use here.
func (s *schema) rules(doc []byte) (broken []string, ran int, err error) {
	var object any
	if err := json.Unmarshal(doc, &object); err != nil {
		return nil, 0, err
	}
	return follow("", s.openAPI, withDefaults(s.openAPI, object))
}

// withDefaults fills in what a schema says is there when nothing is said.
func withDefaults(schema map[string]any, value any) any {
	switch v := value.(type) {
	case map[string]any:
		properties, _ := schema["properties"].(map[string]any)
		for name, p := range properties {
			p := p.(map[string]any)
			if _, ok := v[name]; !ok && p["default"] != nil {
				v[name] = p["default"]
			}
			if inner, ok := v[name]; ok {
				v[name] = withDefaults(p, inner)
			}
		}
	case []any:
		if items, ok := schema["items"].(map[string]any); ok {
			for i := range v {
				v[i] = withDefaults(items, v[i])
			}
		}
	}
	return value
}

// follow looks at a value and at what is in it.
func follow(path string, schema map[string]any, value any) (broken []string, ran int, err error) {
	list, _ := schema["x-kubernetes-validations"].([]any)
	for _, item := range list {
		rule := item.(map[string]any)["rule"].(string)
		if strings.Contains(rule, "oldSelf") {
			continue
		}
		ok, err := holds(rule, value)
		if err != nil {
			return broken, ran, fmt.Errorf("%s: %s: %w", path, rule, err)
		}
		ran++
		if !ok {
			broken = append(broken, fmt.Sprintf("%s: %s", path, rule))
		}
	}
	into := func(name string, schema map[string]any, value any) error {
		b, n, err := follow(path+name, schema, value)
		broken, ran = append(broken, b...), ran+n
		return err
	}
	switch v := value.(type) {
	case map[string]any:
		properties, _ := schema["properties"].(map[string]any)
		for name, inner := range v {
			if p, ok := properties[name].(map[string]any); ok {
				if err := into("."+name, p, inner); err != nil {
					return broken, ran, err
				}
			}
		}
	case []any:
		if items, ok := schema["items"].(map[string]any); ok {
			for i, inner := range v {
				if err := into(fmt.Sprintf("[%d]", i), items, inner); err != nil {
					return broken, ran, err
				}
			}
		}
	}
	return broken, ran, nil
}

// language is CEL with what Kubernetes adds to it, as far as the rules here use that.
var language = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(cel.Variable("self", cel.DynType), ext.Strings(),
		cel.Function("isURL", cel.Overload("is_url", []*cel.Type{cel.DynType}, cel.BoolType, cel.UnaryBinding(func(v ref.Val) ref.Val {
			u, err := url.ParseRequestURI(fmt.Sprint(v.Value()))
			return types.Bool(err == nil && u.Scheme != "")
		}))),
		cel.Function("url", cel.Overload("url", []*cel.Type{cel.DynType}, cel.DynType, cel.UnaryBinding(func(v ref.Val) ref.Val { return v }))),
		cel.Function("getScheme", cel.MemberOverload("url_scheme", []*cel.Type{cel.DynType}, cel.StringType, cel.UnaryBinding(func(v ref.Val) ref.Val {
			scheme, _, _ := strings.Cut(fmt.Sprint(v.Value()), ":")
			return types.String(scheme)
		}))))
})

// programs are the rules that ran already.
var programs = map[string]cel.Program{}

// holds runs one rule.
func holds(rule string, value any) (bool, error) {
	program, ok := programs[rule]
	if !ok {
		env, err := language()
		if err != nil {
			return false, err
		}
		ast, issues := env.Compile(rule)
		if issues.Err() != nil {
			return false, issues.Err()
		}
		if program, err = env.Program(ast); err != nil {
			return false, err
		}
		programs[rule] = program
	}
	out, _, err := program.Eval(map[string]any{"self": spelt(value)})
	if err != nil {
		return false, err
	}
	held, ok := out.Value().(bool)
	if !ok {
		return false, fmt.Errorf("it is %v", out)
	}
	return held, nil
}

// reserved are words that CEL keeps for itself: rules write them between underscores.
var reserved = []string{"true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "package", "namespace", "return", "void", "while"}

// spelt is a value as rules name what is in it, with whole numbers as integers.
func spelt(value any) any {
	switch v := value.(type) {
	case map[string]any:
		out := map[string]any{}
		for name, inner := range v {
			if slices.Contains(reserved, name) {
				name = "__" + name + "__"
			}
			out[strings.NewReplacer("-", "__dash__", ".", "__dot__", "/", "__slash__").Replace(name)] = spelt(inner)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = spelt(v[i])
		}
		return out
	case float64:
		if v == float64(int64(v)) {
			return int64(v)
		}
	}
	return value
}
