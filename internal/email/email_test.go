package email

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestNormal(t *testing.T) {
	for in, want := range map[string]string{
		"":                                     "",
		"x":                                    "x",
		" Ann@Example.COM\n":                   "ann@example.com",
		"u@bücher.example":                     "u@bücher.example",
		"u@BÜCHER.example":                     "u@bücher.example",
		"u@bu\u0308cher.example":               "u@bücher.example",
		"u@xn--bcher-kva.example":              "u@bücher.example",
		"U@XN--BCHER-KVA.Example":              "u@bücher.example",
		"u@ｂｕ\u0308cher。example":               "u@bücher.example",
		"u@xn--e1afmkfd.xn--p1ai":              "u@пример.рф",
		"u@faß.example":                        "u@faß.example",
		"u@xn--fa-hia.example":                 "u@faß.example",
		"u@xn--fuball-cta.example":             "u@fußball.example",
		"u@xn--p1b6ci4b4b3a.xn--11b5bs3a9aj6g": "u@उदाहरण.परीक्षा",
		"JOSÉ@example.com":                     "josé@example.com",
		"jose\u0301@example.com":               "josé@example.com",
		"\"a@b\"@xn--bcher-kva.example":        "\"a@b\"@bücher.example",
		"u@xn--0.example":                      "u@xn--0.example", // no A-label
		"u@exa_mple.com":                       "u@exa_mple.com",
		"u@bü_cher.example":                    "u@bü_cher.example",
		"u@":                                   "u@",
	} {
		if got := Normal(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestASCIIDomain(t *testing.T) {
	for in, want := range map[string]string{
		"u@bücher.example": "u@xn--bcher-kva.example", "josé@пример.рф": "josé@xn--e1afmkfd.xn--p1ai", "u@example.com": "u@example.com",
		"u@exa_mple.com": "u@exa_mple.com", "u@bü_cher.example": "", "x": "", "u@xn--0.example": "",
	} {
		if got, ok := ASCIIDomain(in); ok != (want != "") || ok && got != want {
			t.Errorf("%q: got %q %v, want %q", in, got, ok, want)
		}
	}
}

func TestSpellings(t *testing.T) {
	for in, want := range map[string][]string{
		"Ann@example.com ":        {"ann@example.com"},
		"u@bücher.example":        {"u@bücher.example", "u@xn--bcher-kva.example"},
		"u@xn--bcher-kva.example": {"u@xn--bcher-kva.example", "u@bücher.example"},
		"u@ｂücher.example":        {"u@ｂücher.example", "u@bücher.example", "u@xn--bcher-kva.example"},
		"jose\u0301@example.com":  {"jose\u0301@example.com", "josé@example.com"},
		"x":                       {"x"},
	} {
		if got := Spellings(in); !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// TestNormalIsStable: the normal form of a normal form is itself, and whatever it is delivered as has the same.
func TestNormalIsStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		local := rapid.StringN(1, 8, -1).Draw(t, "local")
		domain := rapid.OneOf(rapid.String(), rapid.StringOf(rapid.RuneFrom([]rune("aüß.-x1яא۱ﬁＡ。İ"))), rapid.StringMatching(`xn--[a-z0-9-]{1,12}\.example`)).Draw(t, "domain")
		normal := Normal(local + "@" + domain)
		if again := Normal(normal); again != normal {
			t.Fatalf("%q becomes %q", normal, again)
		}
		if ascii, ok := ASCIIDomain(normal); ok && Normal(ascii) != normal {
			t.Fatalf("%q is delivered as %q, which is %q", normal, ascii, Normal(ascii))
		}
		if !slices.Contains(Spellings(local+"@"+domain), normal) {
			t.Fatalf("%q is none of its spellings", normal)
		}
	})
}
