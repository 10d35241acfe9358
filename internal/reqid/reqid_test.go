package reqid_test

import (
	"context"
	"strings"
	"testing"

	"barong/internal/reqid"
)

func TestOf(t *testing.T) {
	for _, good := range []string{
		"a", "0c3a3f4e-1d0f-4ee1-8a44-4f3f4d1f6f3b", "Root=1-67891233-abcdef012345678912345678", "req/1:2@host~3+4._",
		strings.Repeat("x", reqid.MaxLen),
	} {
		if got := reqid.Of([]byte(good)); got != good {
			t.Errorf("%q became %q", good, got)
		}
	}
	seen := map[string]bool{}
	for _, bad := range []string{
		"", " ", "a b", "a\nb", "a\x00", `a"b`, "a{b}", "é", "a\xff", "a,b", "a;b", "a?b", "a%0a", "<a>", strings.Repeat("x", reqid.MaxLen+1),
	} {
		got := reqid.Of([]byte(bad))
		if got == bad || len(got) != reqid.MadeLen || !reqid.Valid([]byte(got)) || seen[got] {
			t.Errorf("%q became %q", bad, got)
		}
		seen[got] = true
	}
}

func TestContext(t *testing.T) {
	ctx := reqid.WithTrace(reqid.With(t.Context(), "one"), "two")
	if reqid.From(ctx) != "one" || reqid.Trace(ctx) != "two" {
		t.Errorf("got %q and %q", reqid.From(ctx), reqid.Trace(ctx))
	}
	if reqid.From(context.Background()) != "" || reqid.Trace(context.Background()) != "" {
		t.Error("found something in nothing")
	}
}

func FuzzOf(f *testing.F) {
	f.Add([]byte("0c3a3f4e-1d0f"))
	f.Add([]byte("a\r\nSet-Cookie: x"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		id := reqid.Of(sent)
		if len(id) == 0 || len(id) > reqid.MaxLen || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }) {
			t.Errorf("%q became %q", sent, id)
		}
		if reqid.Of([]byte(id)) != id {
			t.Errorf("%q does not stay", id)
		}
	})
}
