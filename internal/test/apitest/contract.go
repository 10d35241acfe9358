package apitest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"barong/api/openapi"
	"barong/api/rest"
)

// A contract is the API document of a server's routes, to which every answer is held: each status, code and body that a
// test sees must be one that the document tells of.
type contract struct{ doc *openapi3.T }

func newContract(t testing.TB, o *rest.Options) *contract {
	t.Helper()
	raw, err := openapi.Document(openapi.Options{Routes: o.Routes, Prefix: o.Prefix, Legacy: o.Legacy, Version: "0.0.0"})
	if err != nil {
		t.Fatal(err)
	}
	if read, ok := documents.Load(string(raw)); ok {
		return &contract{read.(*openapi3.T)}
	}
	doc, err := openapi3.NewLoader().LoadFromData(raw)
	if err != nil {
		t.Fatal(err)
	}
	documents.Store(string(raw), doc)
	return &contract{doc}
}

// documents are those that were read, by their text: most servers of a test binary have the same routes, and to read their
// document takes a quarter of a second.
var documents sync.Map

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
	content := response.Value.Content.Get(a.Header.Get("Content-Type"))
	switch {
	case method == http.MethodHead:
	case content == nil || content.Schema == nil:
		if a.Body != "" {
			t.Errorf("%s: the API document tells of no body under %d: %s", a.asked, a.Status, a.Body)
		}
	case strings.HasPrefix(a.Header.Get("Content-Type"), "application/json"):
		dec := json.NewDecoder(bytes.NewReader([]byte(a.Body)))
		dec.UseNumber()
		var body any
		if err := dec.Decode(&body); err != nil {
			t.Errorf("%s: %v in %s", a.asked, err, a.Body)
		} else if err := content.Schema.Value.VisitJSON(body, openapi3.EnableJSONSchema2020()); err != nil {
			t.Errorf("%s: the API document tells of something else than %s: %v", a.asked, a.Body, err)
		}
	}
}
