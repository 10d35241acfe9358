package near

import (
	"bytes"
	"testing"
)

func TestNewToken(t *testing.T) {
	head := &TokenHead{Text: "Bearer a.b", KeyID: "k"}
	for _, n := range []int{0, 1, 392, 393, 456, 457, 512, 576, 640, 641, 704, 705, 832, 833, 960, 961, 5000} {
		tail := bytes.Repeat([]byte("x"), n)
		token := NewToken(head, tail)
		want := "Bearer a.b" + string(tail)
		clear(tail)
		if got := string(token.AppendTo(nil)); got != want {
			t.Errorf("%d bytes: %q, want %q", n, got, want)
		}
	}
}

// A token with RS256 takes 704 bytes, where the e-mail address has a usual length.
func TestTokenMemory(t *testing.T) {
	head, tail := &TokenHead{Text: "Bearer a.b", KeyID: "k"}, bytes.Repeat([]byte("x"), 640)
	var kept *Token
	used := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			kept = NewToken(head, tail)
		}
	}).AllocedBytesPerOp()
	if used > 704 || len(kept.Tail) != 640 {
		t.Errorf("a token takes %d bytes", used)
	}
}
