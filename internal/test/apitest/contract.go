package apitest

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"barong/api/openapi"
	"barong/api/rest"
)

// A contract is the API document of a server's routes, to which every answer is held: each status, code and body that a
// test sees must be one that the document tells of.
type contract struct {
	doc     *openapi3.T
	schemas *jsonschema.Compiler // of the same document

	mu       sync.Mutex
	compiled map[string]*jsonschema.Schema // by where they stand in the document
}

func newContract(t testing.TB, o *rest.Options) *contract {
	t.Helper()
	raw, err := openapi.Document(openapi.Options{Routes: o.Routes, Prefix: o.Prefix, Legacy: o.Legacy, Version: "0.0.0"})
	if err != nil {
		t.Fatal(err)
	}
	if read, ok := contracts.Load(string(raw)); ok {
		return read.(*contract)
	}
	doc, err := openapi3.NewLoader().LoadFromData(raw)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	c := &contract{doc: doc, schemas: jsonschema.NewCompiler(), compiled: make(map[string]*jsonschema.Schema)}
	c.schemas.DefaultDraft(jsonschema.Draft2020)
	c.schemas.AssertFormat()
	if err := c.schemas.AddResource(documentURL, plain); err != nil {
		t.Fatal(err)
	}
	contracts.Store(string(raw), c)
	return c
}

// contracts are those that were made, by the text of their documents: most servers of a test binary have the same routes, to
// read their document takes a quarter of a second, and to compile a schema for every answer took a third of the tests' time.
var contracts sync.Map

const documentURL = "barong://openapi.json"

// schema is the schema of an answer's JSON.
func (c *contract) schema(path, method string, status int, mediaType string) (*jsonschema.Schema, error) {
	at := documentURL + "#"
	for _, name := range []string{
		"paths", path, strings.ToLower(method), "responses", strconv.Itoa(status), "content", mediaType, "schema",
	} {
		at += "/" + url.PathEscape(pointer.Replace(name))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.compiled[at]; s != nil {
		return s, nil
	}
	s, err := c.schemas.Compile(at)
	c.compiled[at] = s
	return s, err
}

// pointer escapes the names within a JSON Pointer (RFC 6901).
var pointer = strings.NewReplacer("~", "~0", "/", "~1")

// check reports an answer of a route of which the document does not tell.
func (c *contract) check(t testing.TB, r *rest.Route, method string, a *Answer) {
	t.Helper()
	response := c.doc.Paths.Value(r.Path).GetOperation(r.Method).Responses.Status(a.Status)
	if response == nil {
		t.Errorf("%s: the API document does not tell of %d %s", a.asked, a.Status, a.Body)
		return
	}
	listed, _ := response.Value.Extensions["x-codes"].([]any)
	for _, code := range a.Codes() {
		if !slices.ContainsFunc(listed, func(one any) bool {
			pattern, _, family := strings.Cut(fmt.Sprint(one), "<")
			return code == pattern || family && strings.HasPrefix(code, pattern)
		}) {
			t.Errorf("%s: the API document does not tell of %s under %d", a.asked, code, a.Status)
		}
	}
	mediaType := a.Header.Get("Content-Type")
	content := response.Value.Content.Get(mediaType)
	switch {
	case method == http.MethodHead:
	case content == nil || content.Schema == nil:
		if a.Body != "" {
			t.Errorf("%s: the API document tells of no body under %d: %s", a.asked, a.Status, a.Body)
		}
	case strings.HasPrefix(mediaType, "application/json"):
		schema, err := c.schema(r.Path, r.Method, a.Status, "application/json")
		if err != nil {
			t.Fatalf("%s: the API document: %v", a.asked, err)
		}
		if body, err := jsonschema.UnmarshalJSON(strings.NewReader(a.Body)); err != nil {
			t.Errorf("%s: %v in %s", a.asked, err, a.Body)
		} else if err := schema.Validate(body); err != nil {
			t.Errorf("%s: the API document tells of something else than %s: %v", a.asked, a.Body, err)
		}
	}
}
