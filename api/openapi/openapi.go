// Package openapi describes the REST API to programs: as an OpenAPI 3.1 document, and as the Swagger 2.0 document that
// clients of the original read. Both are made from the route table that serves the API and from the Go types that it
// answers with, so a description cannot differ from what happens. The package depends on rest and view, and knows no
// handler.
package openapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"barong/api/rest"
	"barong/internal/fault"
)

// Options say what is described.
type Options struct {
	Routes  []rest.Route
	Version string // of the program
	Prefix  string // path under which the API gates itself: "api/v2/barong"
	Legacy  bool   // statuses and bodies of release 2.4.17
}

const description = "RESTful API for barong OAuth server"

// object is a JSON object of a document. Its members are encoded in the order of their names.
type object = map[string]any

// Document is the OpenAPI 3.1 document, as JSON.
func Document(o Options) ([]byte, error) {
	s := &schemas{legacy: o.Legacy, ref: "#/components/schemas/", out: object{}}
	paths := object{}
	for i := range o.Routes {
		op, err := s.operation(&o, &o.Routes[i])
		if err != nil {
			return nil, err
		}
		path(paths, &o.Routes[i])[strings.ToLower(o.Routes[i].Method)] = op
	}
	s.out["Errors"] = object{
		"type": "object", "required": []string{"errors"}, "additionalProperties": false,
		"properties": object{"errors": object{"type": "array", "items": object{"type": "string"}, "minItems": 1}},
	}
	s.out["Error"] = object{
		"type": "object", "required": []string{"error"}, "additionalProperties": false,
		"properties": object{"error": object{"type": "string"}},
	}
	return encode(object{
		"openapi": "3.1.0",
		"info":    object{"title": "Barong", "description": description, "version": o.Version},
		"servers": []object{
			{"url": rest.Base, "description": "behind a gateway that checks and injects the token"},
			{"url": "/" + o.Prefix, "description": "gated by itself, for a cookie session or an API key: what the check refuses (authz.…) comes before the answers of a route"},
		},
		"paths": paths,
		"components": object{
			"schemas": s.out,
			"securitySchemes": object{
				"BearerToken": object{"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
			},
		},
	})
}

func path(paths object, r *rest.Route) object {
	item, ok := paths[r.Path].(object)
	if !ok {
		item = object{}
		paths[r.Path] = item
	}
	return item
}

// encode is the document without HTML escapes, which would only make it harder to read.
func encode(doc object) ([]byte, error) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(doc); err != nil {
		return nil, fmt.Errorf("encode API document: %w", err)
	}
	return []byte(strings.TrimSuffix(b.String(), "\n")), nil
}

func (s *schemas) operation(o *Options, r *rest.Route) (object, error) {
	op := object{
		"operationId": operationID(r), "summary": r.Summary, "tags": []string{tag(r)},
	}
	var params []object
	form, required := object{}, []string{}
	files := false
	for i := range r.Params {
		p := &r.Params[i]
		schema := parameterSchema(p)
		switch p.In {
		case rest.Form:
			form[p.Name] = describe(schema, p.Doc)
			if p.Required {
				required = append(required, p.Name)
			}
			files = files || p.Type == rest.Files
		case rest.Query, rest.Path:
			in := "query"
			if p.In == rest.Path {
				in = "path"
			}
			param := object{"name": p.Name, "in": in, "schema": schema}
			if p.Required || p.In == rest.Path {
				param["required"] = true
			}
			params = append(params, describe(param, p.Doc))
		}
	}
	if len(params) > 0 {
		op["parameters"] = params
	}
	if len(form) > 0 {
		body := object{"type": "object", "properties": form}
		if len(required) > 0 {
			body["required"] = required
		}
		content := object{"multipart/form-data": object{"schema": body}}
		if !files {
			content["application/x-www-form-urlencoded"] = object{"schema": body}
			content["application/json"] = object{"schema": body}
		}
		op["requestBody"] = object{"content": content, "required": len(required) > 0}
	}
	success, schema, err := s.success(o, r)
	if err != nil {
		return nil, err
	}
	responses := object{}
	answer := object{"description": r.Summary}
	if schema != nil && success != http.StatusNoContent {
		answer["content"] = object{contentType(r): object{"schema": schema}}
	}
	if success == http.StatusFound {
		answer["headers"] = object{"Location": object{"description": "where the browser is to go", "schema": object{"type": "string"}}}
	}
	if paged(r) {
		answer["headers"] = object{
			"Total": integerHeader("rows in all"), "Page": integerHeader("number of this page"),
			"Per-Page": integerHeader("rows a page"),
			"Link":     object{"description": "first, prev, last and next page (RFC 8288), each the query of its address", "schema": object{"type": "string"}},
		}
	}
	responses[strconv.Itoa(success)] = answer
	for status, codes := range failures(o, r) {
		responses[strconv.Itoa(status)] = refusal(status, codes)
	}
	op["responses"] = responses
	if r.Access.Bearer() {
		op["security"] = []object{{"BearerToken": []string{}}}
	}
	return op, nil
}

func integerHeader(text string) object {
	return object{"description": text, "schema": object{"type": "integer"}}
}

func contentType(r *rest.Route) string {
	if r.Output == "file" {
		return "*/*"
	}
	return "application/json"
}

func paged(r *rest.Route) bool {
	return slices.ContainsFunc(r.Params, func(p rest.Param) bool { return p.Name == "limit" })
}

func describe(o object, text string) object {
	if text != "" {
		o["description"] = text
	}
	return o
}

// operationID is a name from method and path: "postResourceLabels", "getAdminUsersByUid".
func operationID(r *rest.Route) string {
	var b strings.Builder
	b.WriteString(strings.ToLower(r.Method))
	for word := range strings.FieldsFuncSeq(r.Path, func(c rune) bool { return c == '/' || c == '_' || c == '.' || c == '-' }) {
		if name, ok := strings.CutPrefix(word, "{"); ok {
			b.WriteString("By")
			word = strings.TrimSuffix(name, "}")
		}
		b.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return b.String()
}

// tag is the module: the first segment of the path.
func tag(r *rest.Route) string {
	module, _, _ := strings.Cut(strings.TrimPrefix(r.Path, "/"), "/")
	return module
}

func parameterSchema(p *rest.Param) object {
	s := object{}
	switch p.Type {
	case rest.String, rest.Code:
		s["type"] = "string"
	case rest.JSONText:
		s["type"] = []string{"string", "object"}
	case rest.Integer:
		s["type"] = "integer"
		if p.Min != 0 || p.Max != 0 {
			s["minimum"], s["maximum"] = p.Min, p.Max
		}
	case rest.Boolean:
		s["type"] = "boolean"
	case rest.Date:
		s["type"], s["format"] = "string", "date"
		s["description"] = "YYYY-MM-DD. YYYY/MM/DD and, day first, DD/MM/YYYY, DD-MM-YYYY and DD.MM.YYYY are read as well."
	case rest.Files:
		one := object{"type": "string", "format": "binary"}
		s["type"], s["format"], s["items"] = []string{"array", "string"}, "binary", one
	case rest.Any:
		s["type"] = []string{"string", "object"}
	case rest.Object:
		s["type"] = "object"
	case rest.JSON: // any value
	}
	if slices.Contains([]rest.Type{rest.String, rest.Code, rest.JSONText}, p.Type) && p.NotBlank && len(p.Values) == 0 {
		s["pattern"] = `\S`
	}
	if len(p.Values) > 0 {
		s["enum"] = p.Values
	}
	if p.Default != "" {
		s["default"] = literal(p)
	}
	return s
}

// literal is a parameter's default in its own type.
func literal(p *rest.Param) any {
	switch p.Type {
	case rest.Integer:
		if n, err := strconv.ParseInt(p.Default, 10, 64); err == nil {
			return n
		}
	case rest.Boolean:
		return p.Default == "true"
	case rest.String, rest.Date, rest.Code, rest.JSONText, rest.Files, rest.Any, rest.JSON, rest.Object:
	}
	return p.Default
}

// failures lists what a route may answer instead of a success: the codes by status. A status without codes answers
// {"error":text}.
func failures(o *Options, r *rest.Route) map[int][]fault.Code {
	out := map[int][]fault.Code{}
	add := func(status int, codes ...fault.Code) {
		for _, c := range codes {
			if !slices.Contains(out[status], c) {
				out[status] = append(out[status], c)
			}
		}
		if len(codes) == 0 && out[status] == nil {
			out[status] = []fault.Code{}
		}
	}
	byStatus := func(codes ...fault.Code) {
		for _, c := range codes {
			e, ok := fault.Lookup(c)
			if !ok {
				continue
			}
			if e.Status != http.StatusConflict {
				add(e.Status, c)
				continue
			}
			// What exists already is told among other mistakes as well, and release 2.4.17 knew no 409.
			add(http.StatusUnprocessableEntity, c)
			if !o.Legacy {
				add(e.Status, c)
			}
		}
	}
	byStatus(fault.MalformedBody, "authz.ambiguous_path", "authz.malformed_request", fault.InternalError, fault.Unavailable)
	if r.Access.Bearer() {
		byStatus(fault.BadToken, fault.NotFound, "authz.user_not_active")
	}
	if r.Access == rest.Staff {
		byStatus("authz.invalid_permission")
	}
	if r.Access == rest.Signed {
		add(http.StatusUnauthorized)
	}
	if r.Method != http.MethodGet {
		byStatus(fault.TooLarge)
	}
	if r.Method != http.MethodGet && r.Access != rest.Signed {
		add(http.StatusUnsupportedMediaType)
	}
	if codes := r.ValidationCodes(); len(codes) > 0 {
		add(http.StatusUnprocessableEntity, codes...)
		if r.BadRequest && !o.Legacy {
			add(http.StatusBadRequest, codes...)
		}
	}
	byStatus(r.Errors...)
	for _, status := range r.Listed {
		add(status)
	}
	return out
}

// refusal describes one status of failures.
func refusal(status int, codes []fault.Code) object {
	lines := make([]string, 0, len(codes))
	for _, c := range codes {
		meaning := ""
		if e, ok := fault.Lookup(c); ok {
			meaning = ": " + e.Meaning
		}
		lines = append(lines, "`"+string(c)+"`"+meaning)
	}
	text := strings.Join(lines, "\n\n")
	if text == "" {
		text = http.StatusText(status)
	}
	schema := object{"anyOf": []object{{"$ref": "#/components/schemas/Errors"}, {"$ref": "#/components/schemas/Error"}}}
	return object{
		"description": text, "content": object{"application/json": object{"schema": schema}},
		"x-codes": codes,
	}
}

// success is the status and the schema of a route's success; a nil schema is no body.
func (s *schemas) success(o *Options, r *rest.Route) (int, object, error) {
	status, output := r.Success, r.Output
	if o.Legacy && r.Legacy != 0 {
		status = r.Legacy
	}
	if o.Legacy && r.LegacyOutput != "" {
		output = r.LegacyOutput
	}
	schema, err := s.model(string(output))
	if err != nil {
		return 0, nil, fmt.Errorf("%s %s: %w", r.Method, r.Path, err)
	}
	return status, schema, nil
}
