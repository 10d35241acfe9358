package openapi_test

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi2"
	"github.com/getkin/kin-openapi/openapi3"

	"barong/api/admin"
	"barong/api/identity"
	"barong/api/openapi"
	"barong/api/resource"
	"barong/api/rest"
	"barong/internal/fault"
)

// routes are those of all modules.
func routes() []rest.Route {
	return slices.Concat(identity.New(identity.Options{}).Routes(), resource.New(resource.Options{}).Routes(), admin.New(admin.Options{}).Routes())
}

func options(legacy bool) openapi.Options {
	return openapi.Options{Routes: routes(), Version: "2.4.0", Prefix: "api/v2/barong", Legacy: legacy}
}

// load reads the OpenAPI 3.1 document and holds it to the standard.
func load(t *testing.T, legacy bool) *openapi3.T {
	t.Helper()
	raw, err := openapi.Document(options(legacy))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := openapi3.NewLoader().LoadFromData(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return doc
}

func loadSwagger(t *testing.T, legacy bool) *openapi2.T {
	t.Helper()
	raw, err := openapi.Swagger(options(legacy))
	if err != nil {
		t.Fatal(err)
	}
	doc := new(openapi2.T)
	if err := json.Unmarshal(raw, doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// A reference is what the API reference of release 2.4.0 says: operations with their parameters ("name place type
// required") and statuses, and models with their members ("name type").
type reference struct {
	Operations map[string]struct {
		Params   []string
		Statuses []int
	}
	Models map[string][]string
}

func readReference(t *testing.T) reference {
	t.Helper()
	raw, err := os.ReadFile("testdata/reference-2.4.0.json")
	if err != nil {
		t.Fatal(err)
	}
	var r reference
	if err := json.Unmarshal(raw, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Operations) != 67 || len(r.Models) != 13 {
		t.Fatalf("%d operations, %d models", len(r.Operations), len(r.Models))
	}
	return r
}

// param is one line of a reference's parameters.
type param struct {
	name, in, kind string
	required       bool
}

func readParam(line string) param {
	f := strings.Fields(line)
	return param{f[0], f[1], f[2], len(f) == 4}
}

// kind is the type of a schema as the reference writes it.
func kind(schema *openapi3.Schema) string {
	for _, format := range []string{"date", "date-time"} {
		if schema.Format == format {
			return strings.ReplaceAll(format, "-", "")
		}
	}
	if schema.Type == nil {
		return ""
	}
	types := slices.DeleteFunc(slices.Clone(*schema.Type), func(one string) bool { return one == "null" })
	return strings.Join(types, "|")
}

// modelOf is the type of a model's member as the reference writes it: a model for a list of it.
func modelOf(ref *openapi3.SchemaRef) string {
	if ref.Value.Items != nil {
		ref = ref.Value.Items
	}
	for _, s := range ref.Value.AnyOf {
		if s.Ref != "" {
			ref = s
		}
	}
	if ref.Ref != "" {
		return ref.Ref[strings.LastIndexByte(ref.Ref, '/')+1:]
	}
	return kind(ref.Value)
}

// TestReference holds the OpenAPI document to everything that the API reference lists.
func TestReference(t *testing.T) {
	t.Parallel()
	doc, want := load(t, false), readReference(t)
	for name, o := range want.Operations {
		method, path, _ := strings.Cut(name, " ")
		item := doc.Paths.Find(path)
		if item == nil || item.GetOperation(method) == nil {
			t.Errorf("%s is missing", name)
			continue
		}
		op := item.GetOperation(method)
		for _, line := range o.Params {
			p := readParam(line)
			if p.in == "formData" {
				if op.RequestBody == nil {
					t.Errorf("%s takes no body for %s", name, line)
					continue
				}
				body := op.RequestBody.Value.Content.Get("multipart/form-data").Schema.Value
				schema := body.Properties[p.name]
				if schema == nil || slices.Contains(body.Required, p.name) != p.required || !strings.Contains(kind(schema.Value), p.kind) {
					t.Errorf("%s: %s is %+v", name, line, schema)
				}
				continue
			}
			got := op.Parameters.GetByInAndName(p.in, p.name)
			if got == nil || got.Required != p.required || kind(got.Schema.Value) != p.kind {
				t.Errorf("%s: %s is %+v", name, line, got)
			}
		}
		for _, status := range o.Statuses {
			if op.Responses.Status(status) == nil {
				t.Errorf("%s has no %d", name, status)
			}
		}
		for status := range op.Responses.Map() {
			if n, err := strconv.Atoi(status); err != nil || n < 300 && !slices.Contains(o.Statuses, n) {
				t.Errorf("%s answers %s", name, status)
			}
		}
	}
	for name, members := range want.Models {
		model := doc.Components.Schemas[name]
		if model == nil {
			t.Errorf("model %s is missing", name)
			continue
		}
		for _, line := range members {
			member, want, _ := strings.Cut(line, " ")
			switch name + "." + member {
			case "APIKey.scope": // a list of strings in both modes, as the last release sent it
				want = "string"
			case "Profile.metadata": // whatever JSON the client stored
				want = "array|boolean|number|object|string"
			}
			got := model.Value.Properties[member]
			if got == nil || modelOf(got) != want {
				t.Errorf("%s.%s is %+v", name, line, got)
			}
		}
	}
}

// TestSwaggerReference holds the Swagger document to the same.
func TestSwaggerReference(t *testing.T) {
	t.Parallel()
	doc, want := loadSwagger(t, false), readReference(t)
	if doc.Swagger != "2.0" || doc.Info.Title != "Barong" || doc.Info.Description != "RESTful API for barong OAuth server" ||
		doc.Info.Version != "2.4.0" || doc.BasePath != "/api/v2" {
		t.Errorf("head: %+v %s", doc.Info, doc.BasePath)
	}
	if s := doc.SecurityDefinitions["BearerToken"]; s == nil || s.Type != "apiKey" || s.Name != "Authorization" || s.In != "header" {
		t.Errorf("security: %+v", s)
	}
	for name, o := range want.Operations {
		method, path, _ := strings.Cut(name, " ")
		op := doc.Paths[path].GetOperation(method)
		if op == nil {
			t.Errorf("%s is missing", name)
			continue
		}
		for _, line := range o.Params {
			p := readParam(line)
			at := slices.IndexFunc(op.Parameters, func(q *openapi2.Parameter) bool { return q.Name == p.name })
			if at < 0 {
				t.Errorf("%s: %s is missing", name, line)
				continue
			}
			q := op.Parameters[at]
			if q.In != p.in || q.Required != p.required || kind(&openapi3.Schema{Type: q.Type, Format: q.Format}) != p.kind {
				t.Errorf("%s: %s is %+v", name, line, q)
			}
		}
		for _, status := range o.Statuses {
			if op.Responses.Value(strconv.Itoa(status)) == nil {
				t.Errorf("%s has no %d", name, status)
			}
		}
	}
	for name, members := range want.Models {
		model := doc.Definitions[name]
		if model == nil {
			t.Errorf("model %s is missing", name)
			continue
		}
		for _, line := range members {
			member, want, _ := strings.Cut(line, " ")
			got := model.Value.Properties[member]
			if got == nil {
				t.Errorf("%s.%s is missing", name, line)
				continue
			}
			if got.Value.Items != nil {
				have := got.Value.Items.Ref[strings.LastIndexByte(got.Value.Items.Ref, '/')+1:]
				if have != want && member != "scope" {
					t.Errorf("%s.%s is a list of %s", name, line, have)
				}
			} else if kind(&openapi3.Schema{Type: got.Value.Type, Format: got.Value.Format}) != want {
				t.Errorf("%s.%s is %+v", name, line, got.Value)
			}
		}
	}
	dangling(t, doc)
}

// dangling finds references of a document that lead nowhere.
func dangling(t *testing.T, doc *openapi2.T) {
	t.Helper()
	raw, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	var tree any
	if err := json.Unmarshal(raw, &tree); err != nil {
		t.Fatal(err)
	}
	n := 0
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, item := range v {
				walk(item)
			}
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				n++
				if name, ok := strings.CutPrefix(ref, "#/definitions/"); !ok || doc.Definitions[name] == nil {
					t.Errorf("%s leads nowhere", ref)
				}
			}
			for _, item := range v {
				walk(item)
			}
		}
	}
	walk(tree)
	if n == 0 {
		t.Error("no reference at all")
	}
}

// TestDocument holds what every operation of the document must have, in both modes.
func TestDocument(t *testing.T) {
	t.Parallel()
	for _, legacy := range []bool{false, true} {
		doc, old := load(t, legacy), loadSwagger(t, legacy)
		ids := map[string]bool{}
		for _, r := range routes() {
			name := r.Method + " " + r.Path
			op := doc.Paths.Find(r.Path).GetOperation(r.Method)
			if op == nil || old.Paths[r.Path].GetOperation(r.Method) == nil {
				t.Fatalf("%s is missing", name)
			}
			if op.OperationID == "" || ids[op.OperationID] {
				t.Errorf("%s has the id %q, which is none or taken", name, op.OperationID)
			}
			ids[op.OperationID] = true
			if op.Summary == "" || strings.HasSuffix(op.Summary, "..") || !slices.Equal(op.Tags, []string{strings.Split(r.Path, "/")[1]}) {
				t.Errorf("%s: summary %q, tags %q", name, op.Summary, op.Tags)
			}
			if secured := op.Security != nil && len(*op.Security) == 1; secured != (r.Access != rest.Public) {
				t.Errorf("%s: security %v", name, op.Security)
			}
			want := r.Success
			if legacy && r.Legacy != 0 {
				want = r.Legacy
			}
			if op.Responses.Status(want) == nil {
				t.Errorf("%s has no %d", name, want)
			}
			codes := described(t, op)
			for _, code := range slices.Concat(r.ValidationCodes(), r.Errors, []fault.Code{fault.InternalError, fault.Unavailable}) {
				if len(codes[string(code)]) == 0 {
					t.Errorf("%s does not tell of %s", name, code)
				}
			}
			for code, statuses := range codes {
				entry, ok := fault.Lookup(fault.Code(code))
				if !ok {
					t.Errorf("%s tells of %s, which is not in the catalogue", name, code)
					continue
				}
				bad := slices.Contains(statuses, 400) && r.BadRequest && !legacy
				if !slices.Contains(statuses, entry.Status) && !bad && code != "state.exists" {
					t.Errorf("%s tells of %s under %v, and it is %d", name, code, statuses, entry.Status)
				}
			}
			if r.Access != rest.Public && len(codes["jwt.decode_and_verify"]) == 0 {
				t.Errorf("%s does not tell of strangers", name)
			}
		}
	}
}

// described are the codes of an operation, with the statuses under which it lists them.
func described(t *testing.T, op *openapi3.Operation) map[string][]int {
	t.Helper()
	out := map[string][]int{}
	for status, response := range op.Responses.Map() {
		n, err := strconv.Atoi(status)
		if err != nil {
			t.Fatal(err)
		}
		list, _ := response.Value.Extensions["x-codes"].([]any)
		if n >= 400 && response.Value.Content.Get("application/json") == nil {
			t.Errorf("%s: %d has no body", op.OperationID, n)
		}
		for _, code := range list {
			text := fmt.Sprint(code)
			out[text] = append(out[text], n)
			if !strings.Contains(*response.Value.Description, "`"+text+"`") {
				t.Errorf("%s: the description of %d lacks %s", op.OperationID, n, text)
			}
		}
	}
	return out
}

func TestUnknownModel(t *testing.T) {
	t.Parallel()
	for _, model := range []rest.Model{"Nothing", "[Nothing]", "{a}", "{a:Nothing}", "[User|Nothing]", "Nothing?"} {
		o := openapi.Options{Routes: []rest.Route{{Method: "GET", Path: "/x", Success: 200, Output: model}}}
		if _, err := openapi.Document(o); err == nil {
			t.Errorf("%s is described in OpenAPI", model)
		}
		if _, err := openapi.Swagger(o); err == nil {
			t.Errorf("%s is described in Swagger", model)
		}
	}
}
