//go:build !race

package authz

import (
	"context"
	"encoding/binary"
	"testing"
	"time"

	"barong/internal/header"
)

// TestWarmChecksAllocateNothing is built without the race detector, which allocates on its own.
func TestWarmChecksAllocateNothing(t *testing.T) {
	w := newWorld(t, testRules(100), nil)
	id := w.addMember(0, testKID)
	w.addPublicKey()
	w.engine.signatureNonces = forgetful{}
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
		"signed, HMAC":              {Allow, func(r *Request) { signedRequest{method: "POST", body: "{}"}.fill(r, w) }},
		"signed, Ed25519": {Allow, func(r *Request) {
			signedRequest{kid: testPublicKID, components: `"@method" "@target-uri" "@authority"`, parameters: `;alg="ed25519"`}.fill(r, w)
		}},
		"signed wrongly":      {Deny, func(r *Request) { signedRequest{secret: "x"}.fill(r, w) }},
		"malformed signature": {Deny, func(r *Request) { signedRequest{signature: "x"}.fill(r, w) }},
		"old nonce":           {Deny, func(r *Request) { bot(r, w, testKID, "GET", ownPath, -DefaultNonceLifetime) }},
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

// A nonce is remembered in a table that grows with their number alone.
func TestRememberingANonceAllocatesNothing(t *testing.T) {
	n := NewLocalNonces(0, time.Now)
	now := time.Now()
	var nonce [40]byte
	i := 0
	if got := testing.AllocsPerRun(100_000, func() {
		i++
		binary.LittleEndian.PutUint64(nonce[:], uint64(i))
		if first, err := n.FirstUse(context.Background(), testKID, header.View(nonce[:]), now.Add(time.Minute)); err != nil || !first {
			t.Fatal(first, err)
		}
	}); got != 0 {
		t.Errorf("%v allocations", got)
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
