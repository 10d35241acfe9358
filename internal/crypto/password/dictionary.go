package password

import (
	"bytes"
	"cmp"
	"compress/flate"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/ccojocar/zxcvbn-go/data"
)

// A dictionary finds the first common password in a text. It is immutable.
type dictionary struct {
	// words holds the common passwords by their first four bytes, longest first. Shorter words are left out.
	words map[[minWord]byte][]string
}

// minWord is the shortest length, in characters, of a word that counts.
const minWord = 4

// first returns where the first common password in text begins and ends, the longest of those that begin there; -1 when
// there is none.
func (d *dictionary) first(text string) (int, int) {
	for i := 0; i+minWord <= len(text); i++ {
		for _, word := range d.words[[minWord]byte([]byte(text[i:i+minWord]))] {
			if strings.HasPrefix(text[i:], word) {
				return i, i + len(word)
			}
		}
	}
	return -1, -1
}

// commonPasswords is the dictionary of the 10,000 most common passwords, read at first use.
//
// The module it comes from ships them as a list that lacks every word which ranks higher in one of its lists of English
// words, given names or surnames, as zxcvbn wants it. The missing ones are taken from those lists: alsoCommon has one
// bit for each of their words that no earlier list has claimed. Two words are on none of the lists.
var commonPasswords = sync.OnceValues(func() (*dictionary, error) {
	known := make(map[string]bool, 10_000)
	add := func(name string, want func() bool) error {
		raw, err := data.Asset("data/" + name + ".json")
		if err != nil {
			return err
		}
		var list struct{ List []string }
		if err := json.Unmarshal(raw, &list); err != nil {
			return err
		}
		for _, word := range list.List {
			if len(word) >= minWord && isASCII(word) && !known[word] && want() {
				known[word] = true
			}
		}
		return nil
	}
	always := func() bool { return true }
	bits, err := io.ReadAll(flate.NewReader(base64.NewDecoder(base64.StdEncoding, strings.NewReader(alsoCommon))))
	if err != nil {
		return nil, fmt.Errorf("list of common passwords: %w", err)
	}
	next := 0
	picked := func() bool {
		at := next
		next++
		return at/8 < len(bits) && bits[at/8]>>(at%8)&1 == 1
	}
	for _, l := range []struct {
		name string
		want func() bool
	}{{"Passwords", always}, {"English", picked}, {"FemaleNames", picked}, {"MaleNames", picked}, {"Surnames", picked}} {
		if err := add(l.name, l.want); err != nil {
			return nil, fmt.Errorf("list of common passwords: %s: %w", l.name, err)
		}
	}
	known["harvey"], known["please"] = true, true
	delete(known, "pic's") // a slip of the list

	d := &dictionary{words: make(map[[minWord]byte][]string, len(known))}
	sorted := make([]string, 0, len(known))
	for word := range known {
		sorted = append(sorted, word)
		key := [minWord]byte([]byte(word))
		d.words[key] = append(d.words[key], word)
	}
	for _, words := range d.words {
		slices.SortFunc(words, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	}
	slices.Sort(sorted)
	sum := fnv.New64a()
	for _, word := range sorted {
		sum.Write([]byte(word))
		sum.Write([]byte{'\n'})
	}
	if sum.Sum64() != commonSum {
		return nil, fmt.Errorf("list of common passwords: its source has changed (%d words, sum %#x)", len(sorted), sum.Sum64())
	}
	return d, nil
})

func isASCII(s string) bool {
	return !bytes.ContainsFunc([]byte(s), func(r rune) bool { return r >= 0x80 })
}

// commonSum is the FNV-1a sum of the sorted words, each with a line feed: another version of the module must not change
// unnoticed what passes.
const commonSum = 0xcfa118ee23bae8c1

// alsoCommon is a bit set, deflated and in base64; see commonPasswords.
const alsoCommon = "" +
	"7ZhbbFRFGMf/M52us+22ni0LbkiE6bJgC2i2FEjRGKZrNUstZMUmxGhCCzWhYhqjoDECnd1usDQa2+IFMEiFQqhPqIAPJtKGNlziA4YHIg+0Gg" +
	"gKYk1EUCo9zjl7abtAo8+eX9ruOTPf7cw3Z5v/bI1eeYlUeN8J/HC859Hz33q7pq5oXLR788xFD0WbxMbr9+33fLJp7guF5TuafXO+2tPvnd5T" +
	"n+jYW3Z23ZRaEblacbnw9xa42s982ltX61tzaWdOw8L6jkCnixi5Jadq8jZO2beKi200v1zt3brrtNr84gOVK+R8QwXD6BhYN9h+dsHbdAfa8l" +
	"0d8Y4fAz/7g9Hqsye9dbsJKO0+2JTvenL7EMOrpMHjq9tXWIpEHWrOBKPxV1qJUfL8YRBCenjxsg73hja43V2HmfK1lvYFuQEw4QstIDEykMjL" +
	"OcTnh0qNeMOziWLlWdJG415VSmpjUIvnKsZVW+ggBgRIKIB4ZSivhgN16IRiMhdQCqGdhymqEcxZyxSReKYIlb3QGRKEeD2Uc6VtICMMEAV4wj" +
	"cVtPzzi+HKCLqKDYVc0RKv0+Z5EPFIwACLQ8W1twfhbh6OxSgYQwli0blE1y0KGQWimKI9CLhCgEFHVwFicAb9XPqXwzsU0QH1ZB88AaCdwMYt" +
	"IULJS6qjSP0jrEIV4vDaw0I7gXqVCClI/Zw6gcJTOpFOoe2tCmAwKqyUepb4iGFfaWQR7OxWDWC6Umvco6Rhe1MqZKqK2TH4YVjBbXttJqT4Dk" +
	"GrKmb5QnqpHcSuCCly7L92Lmk5UhCMoTABt+WpUiHG5vgEIxm3i6XjxwyJbKiYeD/ulmeHzMK4y9ikDg4ODg4ODg4ODg4ODimGzAwXRpubvzZv" +
	"jt68Nmyafw3uuX3r2BuLd20YNlcvMU/t/2N5f2vNNyf6Bo5en/fWzIGeKzPefR2NW8qPipeH3rtVfaDFd9FoqQoUnAZbvkAdqlrWBWj9FlKeOR" +
	"KRqiKx0lKFVbNUQPhlWQFxCVtXghUrFPEqHGznPAr0gsQxx5aQWrjCw2UJuISPWdJMC0/urkjqII6Ilnk8La6kFpy27mJJOZVWcv6MGBPaxdJt" +
	"uda8NS2SMwlb/GmZZoBy8JW2xjIwTrUlOMtkyRJ3KT2YVGAkI+Ckoopyg9+pzui9NBthlipP0zVB2/HM46i7xCIsU8ef5gSazRHrY+TGqGkOmu" +
	"btayPmavPhYzc7619bOtzfdHJv2fe/9v3iun1j9OnlTR99kH9he17Z0vOLgwcKZp2YGp0/u1auz5nmDnOjNhzokOr9LsMvjx9BKI80RphAmHvC" +
	"VkV/m8eGzVFzsHl4ZKa5Zfe5tY8Nj7z5sXnpyK71Vy8/t+rIoukjn836sPzxNRU91deDhuhP/LYpyKe5utWyxqpt8xZCRIjs5ucYinOL6ZcCD0" +
	"67H/iivu+n3liMdFLySLDY3cC8M5juWZBIiQpL4ldTGdKNonqjiCKpt1NvcoFcSjeyVS9IUYInKKxtFLRbZzVcJdczCFWFVoMYhCI/Zi2i1uR6" +
	"kRWFaIXwadFukOSahutqWVRpc8BDrHZEhWSwJ7WRIag1pnLBdEp7l9q7RPLkoUHU7gyf2G8+Ucn7tX/akaRa6rcM/LatwbObn2vfJVJNBxepWZ" +
	"HcFQKStqYzMJrZpyHUsHEbN3XIYqWkljGxj3DG7fT00YQstoKJ8QcQImXDx16v5GDXWJkMYtLDCpI9lDbPvG5s7ICEpVbA/pTR7NOZtG0qhCCT" +
	"fun5kk+icGeY8W9k1oVIvnHk7kaThsqsKgP711/N9L+Z3TuwdP7NOTg4ODg4ODg4ODg4ODj8v/kH"
