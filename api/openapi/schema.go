package openapi

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"barong/api/rest"
	"barong/api/view"
)

// models are the objects of the API by the name that the reference gives them.
var models = map[string]reflect.Type{
	"APIKey":           reflect.TypeFor[view.APIKey](),
	"Activity":         reflect.TypeFor[view.Activity](),
	"ActivityWithUser": reflect.TypeFor[view.ActivityWithUser](),
	"AdminActivity":    reflect.TypeFor[view.AdminActivity](),
	"AdminLabelView":   reflect.TypeFor[view.AdminLabelView](),
	"DataStorage":      reflect.TypeFor[view.DataStorage](),
	"Document":         reflect.TypeFor[view.Document](),
	"Label":            reflect.TypeFor[view.Label](),
	"LegacyActivity":   reflect.TypeFor[view.LegacyActivity](),
	"LegacyDocument":   reflect.TypeFor[view.LegacyDocument](),
	"Level":            reflect.TypeFor[view.Level](),
	"OwnedAPIKey":      reflect.TypeFor[view.OwnedAPIKey](),
	"Passkey":          reflect.TypeFor[view.Passkey](),
	"Permission":       reflect.TypeFor[view.Permission](),
	"Phone":            reflect.TypeFor[view.Phone](),
	"Provider":         reflect.TypeFor[view.Provider](),
	"Profile":          reflect.TypeFor[view.Profile](),
	"Restriction":      reflect.TypeFor[view.Restriction](),
	"RuleChange":       reflect.TypeFor[view.RuleChange](),
	"Session":          reflect.TypeFor[view.Session](),
	"System":           reflect.TypeFor[view.System](),
	"User":             reflect.TypeFor[view.User](),
	"UserWithFullInfo": reflect.TypeFor[view.UserWithFullInfo](),
	"UserWithKYC":      reflect.TypeFor[view.UserWithKYC](),
	"UserWithProfile":  reflect.TypeFor[view.UserWithProfile](),
}

// schemas makes the schemas that routes name, and collects them.
type schemas struct {
	legacy bool
	ref    string // where schemas are kept: "#/components/schemas/"
	plain  bool   // Swagger 2.0: one type, nulls are not told
	out    object
}

// model is the schema of a rest.Model.
func (s *schemas) model(text string) (object, error) {
	switch {
	case text == "":
		return nil, nil
	case strings.HasPrefix(text, "{") && strings.HasSuffix(text, "}"):
		props, required := object{}, []string{}
		for member := range strings.SplitSeq(text[1:len(text)-1], ",") {
			name, kind, ok := strings.Cut(strings.TrimSpace(member), ":")
			if !ok {
				return nil, fmt.Errorf("model %q: member %q has no type", text, member)
			}
			schema, err := s.model(strings.TrimSpace(kind))
			if err != nil {
				return nil, err
			}
			if optional, ok := strings.CutSuffix(name, "?"); ok {
				name = optional
			} else {
				required = append(required, name)
			}
			props[name] = schema
		}
		return object{"type": "object", "properties": props, "required": required}, nil
	case strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]"):
		items, err := s.model(text[1 : len(text)-1])
		if err != nil {
			return nil, err
		}
		return object{"type": "array", "items": items}, nil
	case strings.Contains(text, "|"):
		return s.either(strings.Split(text, "|")...)
	case strings.HasSuffix(text, "?"):
		schema, err := s.model(strings.TrimSuffix(text, "?"))
		if err != nil || s.plain {
			return schema, err
		}
		return nullable(schema), nil
	}
	switch text {
	case "code":
		return object{"type": []string{"integer", "null"}, "description": "carries no information"}, nil
	case "string", "integer", "number", "boolean", "object":
		return object{"type": text}, nil
	case "any":
		return anything(), nil
	case "file":
		return object{"type": "string", "format": "binary"}, nil
	}
	t, ok := models[text]
	if !ok {
		return nil, fmt.Errorf("model %q is unknown", text)
	}
	s.collect(text, t)
	return object{"$ref": s.ref + text}, nil
}

// either is the schema of one of several models. Swagger 2.0 cannot say that: there the first is named, and all are
// described.
func (s *schemas) either(names ...string) (object, error) {
	any := make([]object, len(names))
	for i, name := range names {
		schema, err := s.model(name)
		if err != nil {
			return nil, err
		}
		any[i] = schema
	}
	if s.plain {
		return any[0], nil
	}
	return object{"anyOf": any}, nil
}

// anything is any JSON value. An empty schema says the same, but not to every program.
func anything() object {
	return object{"type": []string{"array", "boolean", "null", "number", "object", "string"}}
}

func nullable(schema object) object {
	if kind, ok := schema["type"].(string); ok {
		schema["type"] = []string{kind, "null"}
		return schema
	}
	return object{"anyOf": []object{schema, {"type": "null"}}}
}

// collect describes a named model once.
func (s *schemas) collect(name string, t reflect.Type) {
	if s.out[name] != nil {
		return
	}
	props, required := object{}, []string{}
	s.out[name] = object{} // it may name itself
	for i := range t.NumField() {
		f := t.Field(i)
		member, rest, _ := strings.Cut(f.Tag.Get("json"), ",")
		if member == "" || member == "-" {
			continue
		}
		if rest == "" {
			required = append(required, member)
		}
		props[member] = s.member(member, f.Type)
	}
	schema := object{"type": "object", "properties": props}
	if !s.plain {
		schema["required"] = required
	}
	s.out[name] = schema
}

var rawJSON = reflect.TypeFor[json.RawMessage]()

// member describes the type of a member of a model.
func (s *schemas) member(name string, t reflect.Type) object {
	if t == rawJSON {
		return s.raw(name)
	}
	switch t.Kind() {
	case reflect.Pointer:
		schema := s.member(name, t.Elem())
		if s.plain {
			return schema
		}
		return nullable(schema)
	case reflect.Slice:
		return object{"type": "array", "items": s.member(name, t.Elem())}
	case reflect.Struct:
		for model, known := range models {
			if known == t {
				s.collect(model, t)
				return object{"$ref": s.ref + model}
			}
		}
		return object{"type": "object"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int, reflect.Int64:
		return object{"type": "integer"}
	case reflect.Float64:
		return object{"type": "number"}
	default:
	}
	switch name {
	case "dob":
		return object{"type": "string", "format": "date"}
	case "validated_at":
		return object{"type": "string", "format": "date-time"}
	}
	return object{"type": "string"}
}

// raw describes the members whose shape depends on the mode, or on what a client stored.
func (s *schemas) raw(name string) object {
	switch {
	case s.plain && (name == "metadata" || name == "before" || name == "after"):
		return object{"type": "object"}
	case name == "before" || name == "after":
		return object{"type": []string{"object", "null"}}
	case name == "metadata" && !s.legacy:
		return anything()
	case name == "metadata":
		return object{"type": []string{"string", "null"}}
	case s.plain:
		return object{"type": "string"}
	case s.legacy:
		return object{"type": "object"}
	case name == "secret":
		return object{"type": "string"}
	}
	return object{"type": []string{"string", "null"}} // upload
}

// The types of parameters in a Swagger 2.0 document.
func swaggerType(p *rest.Param) object {
	switch p.Type {
	case rest.Integer:
		return object{"type": "integer", "format": "int32"}
	case rest.Boolean:
		return object{"type": "boolean"}
	case rest.Date:
		return object{"type": "string", "format": "date"}
	case rest.Files:
		return object{"type": "string", "format": "binary"} // "file", said as the reference says it
	case rest.String, rest.Code, rest.JSONText, rest.Any, rest.JSON, rest.Object:
	}
	return object{"type": "string"}
}
