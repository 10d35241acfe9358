package authz

import (
	"context"
	"testing"

	"barong/session"
)

// Who is signed in is told of a request that was refused before anybody was asked, to whom the session fits, and of no other.
// Nothing that was decided changes.
func TestIdentify(t *testing.T) {
	w := newWorld(t, testRules(10), nil)
	ann, bob := w.addMember(0, ""), w.addMember(1, "")
	closed := Decision{Status: 471, Code: "authz.restrict.maintenance"}
	for _, c := range []struct {
		name    string
		before  Decision
		cookies []string
		change  func(r *Request)
		known   bool
	}{
		{"a session", closed, []string{ann.String()}, nil, true},
		{"an ambiguous path", closed, []string{ann.String()}, func(r *Request) { r.Target = "/a/../b" }, true},
		{"an unknown session beside it", closed, []string{session.NewID().String(), ann.String()}, nil, true},
		{"no session", closed, nil, nil, false},
		{"an unknown session", closed, []string{session.NewID().String()}, nil, false},
		{"no id", closed, []string{"x"}, nil, false},
		{"two users", closed, []string{ann.String(), bob.String()}, nil, false},
		{"too many", closed, []string{ann.String(), "a", "b", "c", "d"}, nil, false},
		{"an API key", closed, []string{ann.String()}, func(r *Request) { r.AddHeader([]byte("X-Auth-Apikey"), []byte("k")) }, false},
		{"a request that cannot be read", closed, []string{ann.String()}, func(r *Request) { r.AddHeader([]byte("User-Agent"), []byte("another")) }, false},
		{"one that was allowed", Decision{Effect: Allow, Status: 200, Authorization: []byte("Bearer x")}, []string{ann.String()}, nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var r Request
			browser(&r, "GET", ownPath, session.NewID())
			r.Reset()
			r.Method, r.Target = "GET", ownPath
			var sample Request
			browser(&sample, "GET", ownPath, ann)
			r.Peer = sample.Peer
			r.AddHeader([]byte("User-Agent"), sample.headers.single[userAgent])
			for _, line := range sample.headers.forwarded.list() {
				r.AddHeader([]byte("X-Forwarded-For"), line)
			}
			for _, cookie := range c.cookies {
				r.AddHeader([]byte("Cookie"), []byte("_barong_session="+cookie))
			}
			if c.change != nil {
				c.change(&r)
			}
			d := c.before
			w.engine.Identify(context.Background(), &r, &d)
			if (d.Principal != nil) != c.known || c.known && d.Principal.UID != w.sessions[ann.Key()].UID || d.Status != c.before.Status || d.Code != c.before.Code || d.Effect != c.before.Effect {
				t.Errorf("got %+v", d)
			}
		})
	}
	thief := closed
	var r Request
	browser(&r, "GET", ownPath, ann)
	r.headers.single[userAgent] = []byte("thief")
	if w.engine.Identify(context.Background(), &r, &thief); thief.Principal != nil {
		t.Error("a session is told to whom it does not fit")
	}
	if w.decide("GET", ownPath, ann).Effect != Allow {
		t.Error("being asked ended the session")
	}
}
