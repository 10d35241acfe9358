// Package header knows the bytes of header fields. A check looks at every name of its request, most of which mean nothing
// to it, so it compares eight bytes at a time.
package header

import "encoding/binary"

// A Name is a field name that others are compared with, whatever the case of their letters. So are other tokens, such as
// the scheme https.
type Name struct {
	size int
	part [3]word
}

// A word is up to eight bytes of a name: the first, the last, or those in between. They overlap in most names.
type word struct {
	bytes uint64
	fold  uint64 // the bit that makes a letter of the name lower case
}

// Lengths of the names that can be a Name.
const (
	minName = 4 // two words of four bytes, or of eight, cover a name from both ends
	maxName = 24
)

// NewName returns a name of 4 to 24 bytes, which must be in lower case. Any other is a defect, and panics.
func NewName(lower string) Name {
	if len(lower) < minName || len(lower) > maxName {
		panic("header: the name " + lower + " is too short or too long")
	}
	var folds [maxName]byte
	for i, c := range []byte(lower) {
		switch {
		case c-'A' <= 'Z'-'A':
			panic("header: the name " + lower + " is not in lower case")
		case c-'a' <= 'z'-'a':
			folds[i] = 0x20
		}
	}
	n := Name{size: len(lower)}
	bytes, fold := words([]byte(lower)), words(folds[:len(lower)])
	for i := range n.part {
		n.part[i] = word{bytes[i], fold[i]}
	}
	return n
}

// words are the parts of a name, of which shorter ones have no third.
func words(name []byte) (w [3]uint64) {
	end := len(name)
	if end < 8 {
		return [3]uint64{uint64(binary.LittleEndian.Uint32(name)), uint64(binary.LittleEndian.Uint32(name[end-4:]))}
	}
	w[0], w[1] = binary.LittleEndian.Uint64(name), binary.LittleEndian.Uint64(name[end-8:])
	if end > 16 {
		w[2] = binary.LittleEndian.Uint64(name[8:])
	}
	return w
}

// Is reports whether name is n.
func (n *Name) Is(name []byte) bool { return len(name) == n.size && n.same(name) }

// same is Is for a name that is as long. Most are not, and are told without a call.
func (n *Name) same(name []byte) bool {
	end := n.size
	if end < 8 {
		return n.part[0].is(uint64(binary.LittleEndian.Uint32(name)))|
			n.part[1].is(uint64(binary.LittleEndian.Uint32(name[end-4:]))) == 0
	}
	differs := n.part[0].is(binary.LittleEndian.Uint64(name)) | n.part[1].is(binary.LittleEndian.Uint64(name[end-8:]))
	if end > 16 {
		differs |= n.part[2].is(binary.LittleEndian.Uint64(name[8:]))
	}
	return differs == 0
}

// is is 0 when the bytes are those of the word.
func (w *word) is(bytes uint64) uint64 { return (bytes ^ w.bytes) &^ w.fold }

// TrimSpace takes the white space around a field's value off (RFC 9110 section 5.6.3).
func TrimSpace(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}
