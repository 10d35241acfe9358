package header_test

import (
	"bytes"
	"testing"
	"unicode/utf8"

	"barong/internal/header"
)

func TestUTF8(t *testing.T) {
	for value, want := range map[string]string{
		"": "", "curl/8": "curl/8", "café": "café", "caf\xe9": "caf!", "\xff\xfe": "!!", "\xe2\x82": "!!", "€\xe2": "€!",
		"\xc0\xaf": "!!", "\xed\xa0\x80": "!!!", "\uFFFD": "\uFFFD", "\xf4\x90\x80\x80": "!!!!", "a\xe9b\xf6c": "a!b!c",
	} {
		sent := []byte(value)
		got := header.UTF8(sent)
		if string(got) != want || string(sent) != value {
			t.Errorf("%q: got %q, want %q, and %q is left", value, got, want, sent)
		}
	}
}

func FuzzUTF8(f *testing.F) {
	for _, value := range []string{"", "café", "caf\xe9", "\xe2\x82", "\xed\xa0\x80"} {
		f.Add([]byte(value))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		got := header.UTF8(value)
		if !utf8.Valid(got) || len(got) != len(value) || utf8.Valid(value) && !bytes.Equal(got, value) || !bytes.Equal(header.UTF8(got), got) {
			t.Errorf("%q: got %q", value, got)
		}
	})
}
