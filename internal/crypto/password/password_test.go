package password

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"barong/internal/fault"

	"pgregory.net/rapid"
)

const defaultRegexp = `^(?=.*[[:lower:]])(?=.*[[:upper:]])(?=.*[[:digit:]])(?=.*[[:graph:]]).{8,80}$`

func mustPolicy(t testing.TB, o Options) *Policy {
	t.Helper()
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The original's answers, with the dictionary and without.
func TestEntropyOfReferencePasswords(t *testing.T) {
	with, without := mustPolicy(t, Options{UseDictionary: true}), mustPolicy(t, Options{})
	for _, c := range []struct {
		password      string
		with, without float64
	}{
		{"password", 2, 15.5},
		{"Password1", 2, 17},
		{"Password1123", 6, 21.125},
		{"Qq123123", 5.5, 12.5},
		{"QqQq123123", 10.5, 15.21875},
		{"Tecohvi0", 15.5, 16},
		{"ZahSh8ei", 15.5, 15.5},
		{"eeC2BiCucxWEQ", 21.1875, 21.1875},
		{"Xwqe213PZCXwe", 21.21875, 22.375},
		{"Tr0ub4dor&3", 19.625, 20.125},
		{"P@ssw0rd!", 4, 17},
		{"Qwerty123!", 4, 7.5},
		{"1234567890", 2, 3.5},
		{"aaaaaaaa", 2, 7.1990966796875},
		{"", -2, -2},
		{"Tecohvi0Xz", 18.5, 0},
	} {
		if got := with.Entropy(c.password); got != c.with {
			t.Errorf("%q with the dictionary: got %v, want %v", c.password, got, c.with)
		}
		if got := without.Entropy(c.password); c.without != 0 && got != c.without {
			t.Errorf("%q without: got %v, want %v", c.password, got, c.without)
		}
	}
}

func TestScore(t *testing.T) {
	for text, want := range map[string]float64{
		"":                             -2,
		"a":                            2,
		"ab":                           4,
		"aa":                           3.5, // 4 + 2*0.75 - 2
		"abcdefgh":                     16,
		"abcdefghi":                    17.5,
		"12":                           -2, // only digits
		"1-":                           2,  // digits and others
		"aB1-":                         14, // everything
		"aB-":                          11, // no digit
		"a b":                          8,
		"a b c d":                      15.625, // four words; the second space weighs 0.75, the third 0.5625
		" a b c":                       13.625, // white space in front counts as one
		strings.Repeat("ab ", 2):       12.5,
		"ä":                            2,
		"abcdefghijklmnopqrstuvwxyz":   40, // 4 + 14 + 18 + 6 - 2
		"abcdefghijklmnopqrstuvwxyz12": 42,
	} {
		if got := score(text); got != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
}

func TestMaskRuns(t *testing.T) {
	for text, want := range map[string]string{
		"":               "",
		"qw":             "qw",
		"qwe":            "*",
		"Qwerty":         "Q*",
		"qwertyu":        "*u", // six at most, and one is no run
		"qwertyuio":      "**",
		"1234567890":     "**",
		"567890-":        "*-", // a hyphen ends a run
		"xxabcdyy":       "xx*yy",
		"1qaz2wsx":       "*sx",
		"qazwsx":         "**", // the slanting walk with the digits comes first, and knows "qaz" alone
		"plokm":          "*",
		"4567":           "*",
		"0147258":        "*8",
		"9*+":            "*",
		"äqweä":          "ä*ä",
		"\xffqwe\xfe":    "\xff*\xfe",
		"nothing-at-all": "nothing-at-all",
	} {
		if got := maskRuns(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestDictionary(t *testing.T) {
	d, err := commonPasswords()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for key, words := range d.words {
		n += len(words)
		if !slices.IsSortedFunc(words, func(a, b string) int { return len(b) - len(a) }) {
			t.Errorf("%s: not the longest first: %v", key, words)
		}
	}
	if n != 9_999 {
		t.Errorf("%d words", n)
	}
	for text, want := range map[string]string{
		"xxpassword1123": "password1", "michael": "michael", "harvey": "harvey", "qqqq123123": "qqqq",
		"tecohvi0": "", "abc": "", "ädragonä": "dragon",
	} {
		from, to := d.first(text)
		if got := text[max(from, 0):max(to, 0)]; got != want {
			t.Errorf("%q: found %q, want %q", text, got, want)
		}
	}
}

func TestCodes(t *testing.T) {
	p := mustPolicy(t, Options{Regexp: defaultRegexp, MinEntropy: 14, UseDictionary: true})
	for _, c := range []struct {
		password string
		want     []fault.Code
	}{
		{"Tecohvi0", nil},
		{"Wm3#kdPq81zRo", nil},
		{"Tecohvi0-Xuq", nil},
		{"Password1", []fault.Code{Weak}},
		{"simple", []fault.Code{Requirements}},
		{"", []fault.Code{Requirements}},
		{strings.Repeat("aB3$", 19), []fault.Code{TooLong}},
		{strings.Repeat("aB3$", 18), nil},
		{strings.Repeat("aB3$", 25), []fault.Code{TooLong, Requirements}},
		{strings.Repeat("é", 56) + "ZahSh8eiTecohvi0", nil}, // 72 characters, 128 bytes
		{"ÄÖÜäöü٣٣x", nil},                                  // classes are Unicode
		{"Tecohvi0\nx", []fault.Code{Requirements}},         // the whole text, not one line of it
		{"x\nTecohvi0", []fault.Code{Requirements}},
		{"Tecohvi0\n", []fault.Code{Requirements}},
		{"Tecohvi0\xff", []fault.Code{Requirements}},
		{strings.Repeat("a", 1<<20), []fault.Code{TooLong, Requirements}},
	} {
		got := p.Codes(c.password)
		if !slices.Equal(got, c.want) {
			t.Errorf("%.40q: got %v, want %v", c.password, got, c.want)
		}
	}
}

func TestOwnPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, password string
		want              bool
	}{
		{"", "", true},
		{`[[:punct:]]`, "abc!", true}, // not anchored: found anywhere, as before
		{`[[:punct:]]`, "abc", false},
		{`^[^[:space:]]{4,}$`, "abcd", true},
		{`^[^[:space:]]{4,}$`, "ab cd", false},
		{`^[[:^digit:]]+$`, "abc", true},
		{`^[[:^digit:]]+$`, "abc1", false},
		{`^[$^a]+$`, "$^a", true}, // signs of their own inside a class
		{`^\$\^$`, "$^", true},
		{`\A(?!.*(.)\1\1)[\[\]a-z]{3,}\z`, "aab", true},
		{`\A(?!.*(.)\1\1)[\[\]a-z]{3,}\z`, "aaab", false},
		{`^[[:alnum:][:blank:][:xdigit:]_-]+$`, "a b-1_é", true},
		{`(?i)^hunter[[:digit:]]$`, "HUNTER2", true},
	} {
		p := mustPolicy(t, Options{Regexp: c.pattern})
		if got := !slices.Contains(p.Codes(c.password), Requirements); got != c.want {
			t.Errorf("%s on %q: got %v", c.pattern, c.password, got)
		}
	}
	for _, pattern := range []string{"(", "[[:shiny:]]", "[[:^graph:]]", "[[:lower", "a{3,1}"} {
		if _, err := New(Options{Regexp: pattern}); err == nil || !strings.Contains(err.Error(), "password pattern") {
			t.Errorf("%s: %v", pattern, err)
		}
	}
}

func TestRunawayPatternDoesNotMatch(t *testing.T) {
	p := mustPolicy(t, Options{Regexp: `^(a+)+(a+)+(a+)+$`})
	start := time.Now()
	codes := p.Codes(strings.Repeat("a", 60) + "!")
	if !slices.Contains(codes, Requirements) {
		t.Errorf("got %v", codes)
	}
	if took := time.Since(start); took > 20*matchTimeout {
		t.Errorf("took %v", took)
	}
}

func TestEntropyProperties(t *testing.T) {
	with, without := mustPolicy(t, Options{UseDictionary: true}), mustPolicy(t, Options{})
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(rapid.String(), rapid.StringMatching(`[a-zA-Z0-9!@$ ]{0,40}`)).Draw(t, "password")
		e := with.Entropy(s)
		if plain := without.Entropy(s); e > plain {
			t.Fatalf("the dictionary raises %v to %v", plain, e)
		}
		if e > score(s) || e > score(strings.ToLower(s)) {
			t.Fatalf("%v is above the plain score", e)
		}
		if r := without.Entropy(reverse(reverse(s))); utf8.ValidString(s) && r != without.Entropy(s) {
			t.Fatalf("reversing twice changes it: %v", r)
		}
	})
}

func FuzzEntropy(f *testing.F) {
	for _, s := range []string{"", "password", "Qwerty123!", "\xff\xfe", "ǅ İ ſ", "1-2-3-", strings.Repeat("\U0010ffff", 1001)} {
		f.Add(s)
	}
	p := mustPolicy(f, Options{Regexp: defaultRegexp, MinEntropy: 14, UseDictionary: true})
	f.Fuzz(func(t *testing.T, s string) {
		e := p.Entropy(s)
		if e < -10 || e > 2*maxScored {
			t.Errorf("entropy %v", e)
		}
		if codes := p.Codes(s); slices.Contains(codes, Weak) && (e >= 14 || slices.Contains(codes, Requirements)) {
			t.Errorf("%v with entropy %v", codes, e)
		}
	})
}

func FuzzTranslate(f *testing.F) {
	for _, s := range []string{defaultRegexp, "[[:lower:", "[^]a]", `\`, "[[:^digit:]^$]^$", "[a[:word:]]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, pattern string) {
		if len(pattern) > 200 {
			return
		}
		if p, err := New(Options{Regexp: pattern}); err == nil {
			p.Codes("Tecohvi0")
		}
	})
}

func BenchmarkEntropy(b *testing.B) {
	p := mustPolicy(b, Options{UseDictionary: true})
	for name, s := range map[string]string{
		"typical": "Tecohvi0-Xuq", "long": strings.Repeat("aQ3 ", 250), "longest": strings.Repeat("ü0", 100_000),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.Entropy(s)
			}
		})
	}
}
