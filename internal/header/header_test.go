package header_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"barong/internal/header"
)

var lowerNames = []string{
	"host", "accept", "x-auth8", "x-auth-8", "user-agent", "x-auth-nonce", "x_auth_nonce", "x-forwarded-for", "x-auth-signature",
	"x-forwarded-proto", "x-http-method-override",
}

// plainIs is what Is means.
func plainIs(lower string, name []byte) bool {
	if len(lower) != len(name) {
		return false
	}
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// Every byte at every place decides as it should.
func TestEveryByte(t *testing.T) {
	for _, lower := range append(lowerNames, strings.Repeat("z-", 12)) {
		n := header.NewName(lower)
		if !n.Is([]byte(lower)) || !n.Is([]byte(strings.ToUpper(lower))) {
			t.Errorf("%q is not itself", lower)
		}
		if n.Is([]byte(lower[1:])) || n.Is([]byte(lower+"x")) || n.Is(nil) {
			t.Errorf("%q is what is shorter or longer", lower)
		}
		for i := range lower {
			for c := range 256 {
				name := []byte(lower)
				name[i] = byte(c)
				if got, want := n.Is(name), plainIs(lower, name); got != want {
					t.Fatalf("%q, %q: got %v, want %v", lower, name, got, want)
				}
			}
		}
	}
}

func TestNames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lower := rapid.StringMatching(`[a-z0-9_-]{4,24}`).Draw(t, "lower")
		name := []byte(lower)
		for i := range name {
			switch rapid.IntRange(0, 9).Draw(t, "change") {
			case 0, 1, 2:
				name[i] = strings.ToUpper(lower)[i]
			case 3:
				name[i] ^= 0x20
			}
		}
		n := header.NewName(lower)
		if got, want := n.Is(name), plainIs(lower, name); got != want {
			t.Fatalf("%q, %q: got %v, want %v", lower, name, got, want)
		}
	})
}

func TestNoName(t *testing.T) {
	for _, lower := range []string{"", "te:", "Host", strings.Repeat("x", 25)} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%q is taken for a name", lower)
				}
			}()
			header.NewName(lower)
		}()
	}
}

func TestTrimSpace(t *testing.T) {
	for text, want := range map[string]string{
		"": "", " ": "", "\t \t": "", "a": "a", " a": "a", "a\t": "a", " \ta b\t ": "a b", "\na ": "\na", "a\u00a0": "a\u00a0",
	} {
		if got := string(header.TrimSpace([]byte(text))); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}
