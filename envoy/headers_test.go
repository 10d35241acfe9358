package envoy

import (
	"testing"

	"pgregory.net/rapid"
)

// Looking at eight bytes together finds what looking at each finds.
func TestControls(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.SliceOfN(rapid.OneOf(rapid.ByteRange(0x20, 0x7e), rapid.ByteRange(0x80, 0xff), rapid.Just[byte]('\t'),
			rapid.Byte()), 0, 40).Draw(t, "value")
		if got, want := controls(value), control(value); got != want {
			t.Fatalf("%q: got %v, want %v", value, got, want)
		}
	})
	for position := range 20 {
		for c := range 256 {
			value := []byte("twenty bytes of text")
			value[position] = byte(c)
			if got, want := controls(value), (c < ' ' && c != '\t') || c == 0x7f; got != want {
				t.Fatalf("%q: got %v, want %v", value, got, want)
			}
		}
	}
}
