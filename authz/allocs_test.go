//go:build !race

package authz

import (
	"context"
	"testing"
)

// TestWarmChecksAllocateNothing is built without the race detector, which allocates on its own.
func TestWarmChecksAllocateNothing(t *testing.T) {
	w := newWorld(t, testRules(100), nil)
	id := w.addMember(0, testKID)
	w.engine.auditor = nil // a row to be recorded costs memory, whatever the decision
	requests := map[string]struct {
		want Effect
		fill func(*Request)
	}{
		"cookie allow": {Allow, func(r *Request) { browser(r, "GET", ownPath, id) }},
		"cookie allow of a POST": {Allow, func(r *Request) {
			browser(r, "POST", ownPath, id)
			r.AddHeader([]byte("X-CSRF-Token"), []byte(testCSRF))
		}},
		"cookie deny by CSRF":       {Deny, func(r *Request) { browser(r, "POST", ownPath, id) }},
		"cookie deny by permission": {Deny, func(r *Request) { browser(r, "GET", "/api/v2/other", id) }},
		"no session":                {Deny, func(r *Request) { r.Method, r.Target = "GET", ownPath }},
		"pass":                      {Pass, func(r *Request) { browser(r, "GET", "/api/v2/peatio/public/markets", id) }},
		"block":                     {Deny, func(r *Request) { browser(r, "GET", "/api/v2/peatio/management", id) }},
		"ambiguous path":            {Deny, func(r *Request) { browser(r, "GET", "/api/../x", id) }},
		"API key allow":             {Allow, func(r *Request) { bot(r, w, testKID, "GET", ownPath, 0) }},
		"API key deny":              {Deny, func(r *Request) { bot(r, w, testKID, "GET", "/api/v2/other", 0) }},
		"old nonce":                 {Deny, func(r *Request) { bot(r, w, testKID, "GET", ownPath, -DefaultNonceLifetime) }},
	}
	for name, tc := range requests {
		var r Request
		var d Decision
		tc.fill(&r)
		w.engine.Check(context.Background(), &r, &d)
		if n := testing.AllocsPerRun(200, func() { w.engine.Check(context.Background(), &r, &d) }); n != 0 || d.Effect != tc.want {
			t.Errorf("%s: %v allocations, effect %v, code %q", name, n, d.Effect, d.Code)
		}
	}
}

func TestFillingARequestAllocatesNothing(t *testing.T) {
	names, values := [][]byte{[]byte("Cookie"), []byte("X-Forwarded-For"), []byte("User-Agent"), []byte("Accept")}, []byte("a=b")
	var r Request
	if n := testing.AllocsPerRun(200, func() {
		r.Reset()
		for _, name := range names {
			r.AddHeader(name, values)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
