package session

import (
	"encoding/hex"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// sameID holds ParseID to what encoding/hex reads, of lower-case digits alone.
func sameID(t interface{ Fatalf(string, ...any) }, text string) {
	want, err := hex.DecodeString(text)
	wantOK := err == nil && len(text) == 64 && strings.ToLower(text) == text
	id, ok := ParseID([]byte(text))
	if ok != wantOK || ok && string(id[:]) != string(want) || !ok && id != (ID{}) {
		t.Fatalf("%q: got %x, %v, want %x, %v", text, id, ok, want, wantOK)
	}
	if ok && id.String() != text {
		t.Fatalf("%q is written as %q", text, id)
	}
}

func TestParseID(t *testing.T) {
	for i := range 20 {
		text := NewID().String()
		sameID(t, text)
		sameID(t, text[:i])
		sameID(t, text[:63])
		sameID(t, text+"0")
		sameID(t, strings.ToUpper(text))
	}
	text := []byte(NewID().String())
	for i := range text {
		digit := text[i]
		for c := range 256 {
			text[i] = byte(c)
			sameID(t, string(text))
		}
		text[i] = digit
	}
	rapid.Check(t, func(t *rapid.T) {
		sameID(t, rapid.StringMatching(`[0-9a-f]{60}[0-9a-gA-F\x00-\xff]{4}`).Draw(t, "text"))
	})
}

func TestMethods(t *testing.T) {
	for m, want := range map[Methods]string{
		0: "", Password: "pwd", Password | Code: "pwd otp", HardwareKey: "hwk", SoftwareKey: "swk", Federated: "fed",
		MailedToken | Password: "pwd email",
	} {
		if m.String() != want || ParseMethods(want) != m {
			t.Errorf("%08b: written as %q, %q read as %08b", m, m.String(), want, ParseMethods(want))
		}
	}
	if got := ParseMethods(" otp  a-later-one pwd"); got != Password|Code {
		t.Errorf("got %v", got)
	}
	if m := Password | Code; !m.Has(Password) || !m.Has(Password|Code) || m.Has(Federated) || m.Has(Code|HardwareKey) {
		t.Error("Has is wrong")
	}
}
