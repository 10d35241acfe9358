package phone

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParse(t *testing.T) {
	for _, c := range []struct{ text, number, country string }{
		{"+44 07418084106", "447418084106", "GB"},
		{"00447418084106", "447418084106", "GB"},
		{"447418084106", "447418084106", "GB"},
		{"+44 (0) 7418 / 084-106", "447418084106", "GB"},
		{"+1 (415) 555-2671", "14155552671", "US"},
		{"+1 604 555 0123", "16045550123", "CA"},
		{"+1 242 365 1234", "12423651234", "BS"},
		{"+7 912 345 67 89", "79123456789", "RU"},
		{"+7 701 234 56 78", "77012345678", "KZ"},
		{"+380501234567", "380501234567", "UA"},
		{"+39 06 1234 5678", "390612345678", "IT"}, // Italy keeps its zero
		{"+39 06 69812345", "390669812345", "VA"},  // a range of its own
		{"+33 6 12 34 56 78", "33612345678", "FR"},
		{"tel:+49-151-23456789", "4915123456789", "DE"},
		{"", "", ""},
		{"+", "", ""},
		{"abc", "", ""},
		{"07418084106", "", ""},      // no country code
		{"+44 7418 08410", "", ""},   // too short
		{"+44 7418 0841066", "", ""}, // too long
		{"+1 415 155 2671", "", ""},  // no such exchange
		{"+999 123456789", "", ""},   // no such country
		{"+870 773111632", "", ""},   // a satellite's
		{"112", "", ""},
		{"0000000000", "", ""},
		{"٤٤٧٤١٨٠٨٤١٠٦", "", ""}, // digits of ours alone
		{strings.Repeat("4", 1000), "", ""},
		{"+44 7418084106" + strings.Repeat(" ", 1000), "", ""},
	} {
		number, country, ok := Parse(c.text)
		if number != c.number || country != c.country || ok != (c.number != "") {
			t.Errorf("%.40q: %q %q %v", c.text, number, country, ok)
		}
	}
}

func TestParseIsStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		number, country, ok := Parse(rapid.StringMatching(`\+?(1|7|44|49|380|33|39)[ 0-9()-]{6,14}`).Draw(t, "text"))
		if !ok {
			return
		}
		again, country2, ok := Parse("+" + number)
		if !ok || again != number || country2 != country {
			t.Fatalf("%s %s reads as %s %s", number, country, again, country2)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"+44 07418084106", "00447418084106", "+1 (415) 555-2671;ext=5", "\xff1", "+", "00", "001415555267112345678901234567890"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		number, country, ok := Parse(text)
		if !ok {
			if number != "" || country != "" {
				t.Errorf("%q: refused, yet %q %q", text, number, country)
			}
			return
		}
		if strings.Trim(number, "0123456789") != "" || len(number) > 17 || len(country) != 2 {
			t.Errorf("%q: %q %q", text, number, country)
		}
	})
}
