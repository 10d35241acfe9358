package trail

import (
	"bytes"
	"slices"
	"testing"

	"barong/db"
)

// FuzzDecode: what is decoded is what was encoded, and nothing else is decoded.
func FuzzDecode(f *testing.F) {
	f.Add([]byte{})
	f.Add(encodeEntries([]entry{{id: 1}, {id: 2}, {id: 1 << 40}}))
	f.Add(encodeAwaits([]await{{db.IDRange{First: 3, Last: 9}, 700, 1_800_000_000}, {db.IDRange{First: 11, Last: 11}, 0, 0}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if entries, err := decodeEntries(b); err == nil {
			if !slices.IsSortedFunc(entries, func(x, y entry) int { return int(x.id - y.id) }) || len(entries) > len(b) {
				t.Fatalf("%v", entries)
			}
			again, err := decodeEntries(encodeEntries(entries))
			if err != nil || !slices.Equal(again, entries) {
				t.Fatalf("%v, %v, want %v", again, err, entries)
			}
		}
		if list, err := decodeAwaits(b); err == nil {
			again, err := decodeAwaits(encodeAwaits(list))
			if err != nil || !slices.Equal(again, list) {
				t.Fatalf("%v, %v, want %v", again, err, list)
			}
		}
	})
}

func TestWithout(t *testing.T) {
	t.Parallel()
	in := []await{{db.IDRange{First: 1, Last: 5}, 1, 1}, {db.IDRange{First: 8, Last: 8}, 2, 2}, {db.IDRange{First: 10, Last: 12}, 3, 3}}
	got := without(in, []int64{2, 5, 8, 9, 11})
	want := []await{
		{db.IDRange{First: 1, Last: 1}, 1, 1},
		{db.IDRange{First: 3, Last: 4}, 1, 1},
		{db.IDRange{First: 10, Last: 10}, 3, 3},
		{db.IDRange{First: 12, Last: 12}, 3, 3},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := without(in, nil); !slices.Equal(got, in) {
		t.Errorf("without nothing: %v", got)
	}
}

func TestStrays(t *testing.T) {
	t.Parallel()
	var s strays
	for id := range int64(20) {
		if id != 10 {
			s.add(id)
		}
	}
	for _, id := range []int64{0, 5, 10, 19, 30, 11, 18} {
		s.remove(id)
	}
	if want := []db.IDRange{{First: 1, Last: 4}, {First: 6, Last: 9}, {First: 12, Last: 17}}; !slices.Equal(s.list, want) {
		t.Errorf("got %v, want %v", s.list, want)
	}
}

func TestParseHead(t *testing.T) {
	t.Parallel()
	h := Head{Seq: 12}
	copy(h.Hash[:], bytes.Repeat([]byte{0xab}, 32))
	for text, want := range map[string]Head{h.String(): h, " " + h.String() + "\n": h, "0": {}} {
		if got, err := ParseHead(text); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "x", "12", "12:", "-1:" + h.String()[3:], h.String() + "00", h.String()[:20]} {
		if got, err := ParseHead(text); err == nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
}
