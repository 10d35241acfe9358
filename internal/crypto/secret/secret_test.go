package secret_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"barong/internal/crypto/secret"

	"pgregory.net/rapid"
)

func newBox(t testing.TB, keys ...secret.Text) *secret.Box {
	t.Helper()
	var list []string
	for _, k := range keys {
		list = append(list, k.Reveal())
	}
	b, err := secret.New(secret.Text(strings.Join(list, ",")))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWhatIsSealedOpensOnlyWhereItWasSealed(t *testing.T) {
	b := newBox(t, secret.NewKey())
	rapid.Check(t, func(t *rapid.T) {
		plain := rapid.SliceOf(rapid.Byte()).Draw(t, "plain")
		context := rapid.String().Draw(t, "context")
		other := rapid.String().Filter(func(s string) bool { return s != context }).Draw(t, "other")
		sealed := b.Seal(plain, context)
		got, err := b.Open(sealed, context)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("Open = %q, %v, want %q", got, err, plain)
		}
		if _, err := b.Open(sealed, other); !errors.Is(err, secret.ErrForged) {
			t.Fatalf("opened elsewhere: %v", err)
		}
		if again := b.Seal(plain, context); again == sealed {
			t.Fatal("sealing twice gives the same text")
		}
	})
}

func TestSealedTextRevealsNothingAndIsASCII(t *testing.T) {
	b := newBox(t, secret.NewKey())
	sealed := b.Seal([]byte("correct horse"), "profiles.city:1")
	if strings.Contains(sealed, "horse") || strings.Contains(sealed, "profiles") {
		t.Errorf("sealed text shows its content: %s", sealed)
	}
	if !strings.HasPrefix(sealed, "s1."+b.KeyIDs()[0]+".") {
		t.Errorf("sealed text %q does not name its key %s", sealed, b.KeyIDs()[0])
	}
}

func TestOpenRefusesEveryChange(t *testing.T) {
	b := newBox(t, secret.NewKey())
	sealed := b.Seal([]byte("secret"), "c")
	for i := range sealed {
		changed := []byte(sealed)
		changed[i] ^= 1
		if got, err := b.Open(string(changed), "c"); err == nil {
			t.Errorf("byte %d changed, opened as %q", i, got)
		}
	}
	for _, s := range []string{"", "s1", "s1.", "s1..", "s2" + sealed[2:], sealed + ".", sealed + "A", sealed + "\n", sealed[:len(sealed)-1], "s1.00000000.", sealed[:20]} {
		if got, err := b.Open(s, "c"); err == nil {
			t.Errorf("Open(%q) = %q", s, got)
		}
	}
}

func TestRotation(t *testing.T) {
	oldest, old, newest := secret.NewKey(), secret.NewKey(), secret.NewKey()
	before := newBox(t, oldest)
	sealed := before.Seal([]byte("v"), "c")
	index := before.Index("v", "p")
	for _, c := range []struct {
		name    string
		keys    []secret.Text
		opens   error
		current bool
		index   bool // as before
		found   bool // under one of the indexes
	}{
		{"same key", []secret.Text{oldest}, nil, true, true, true},
		{"one to come", []secret.Text{"next:" + old, oldest}, nil, true, true, true},
		{"one to come, behind", []secret.Text{oldest, "next:" + old}, nil, true, true, true},
		{"one in front", []secret.Text{old, oldest}, nil, false, false, true},
		{"two in front", []secret.Text{newest, old, oldest}, nil, false, false, true},
		{"old key behind", []secret.Text{oldest, newest}, nil, true, true, true},
		{"key gone", []secret.Text{newest, old}, secret.ErrNoKey, false, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBox(t, c.keys...)
			if got, err := b.Open(sealed, "c"); !errors.Is(err, c.opens) || err == nil && string(got) != "v" {
				t.Errorf("Open = %q, %v, want error %v", got, err, c.opens)
			}
			if b.Current(sealed) != c.current {
				t.Errorf("Current = %v, want %v", !c.current, c.current)
			}
			if (b.Index("v", "p") == index) != c.index {
				t.Errorf("index kept = %v, want %v", !c.index, c.index)
			}
			if lasting := b.Lasting("v", "p") == index; lasting != (c.keys[len(c.keys)-1] == oldest || c.name == "one to come, behind") {
				t.Errorf("what is remembered is found: %v", lasting)
			}
			if all := b.Indexes("v", "p"); slices.Contains(all, index) != c.found || all[0] != b.Index("v", "p") || len(all) != len(c.keys) {
				t.Errorf("indexes %q, of which that before is one: want %v", all, c.found)
			}
			if signed := slices.ContainsFunc(b.Derive("links"), func(k []byte) bool { return bytes.Equal(k, before.Derive("links")[0]) }); signed != c.found {
				t.Errorf("what was signed before is good: %v, want %v", signed, c.found)
			}
			if again := b.Seal([]byte("v"), "c"); !b.Current(again) {
				t.Error("what was sealed now is not current")
			}
		})
	}
}

// TestExtend: a running box takes up further keys, and nothing that would lose one.
func TestExtend(t *testing.T) {
	a, b, c := secret.NewKey().Reveal(), secret.NewKey().Reveal(), secret.NewKey().Reveal()
	list := func(keys ...string) secret.Text { return secret.Text(strings.Join(keys, ",")) }
	box, other := newBox(t, list(b, a)), newBox(t, list(c, b, a))
	before, counter := box.Seal([]byte("x"), "c"), box.Lasting("v", "p")
	for _, bad := range []secret.Text{list(a, b), list(c, a), list(c, b), list(b), list(c, b, c, a), list(b, a, c), list(b, "next:"+a), "", "c"} {
		if secret.Extends(bad, list(b, a)) || box.Extend(bad) == nil {
			t.Errorf("a list that lacks a key, or has another oldest one, is taken up")
		}
	}
	if !secret.Extends(list(c, b, a), list(b, a)) || !secret.Extends(list(b, a), list(b, a)) || !secret.Extends(list(b, c, a), list("next:"+b, a)) {
		t.Error("further keys do not extend a list")
	}
	opens := func() {
		t.Helper()
		for _, sealed := range []string{before, other.Seal([]byte("x"), "c")} {
			if got, err := box.Open(sealed, "c"); err != nil || string(got) != "x" {
				t.Errorf("Open = %q, %v", got, err)
			}
		}
		if box.Lasting("v", "p") != counter || len(box.Indexes("v", "p")) != 3 || len(box.Derive("use")) != 3 {
			t.Error("counters are others, or a key is not looked for")
		}
	}
	if err := box.Extend(list("next:"+c, b, a)); err != nil {
		t.Fatal(err)
	}
	opens()
	if !box.Current(before) || box.Index("v", "p") == other.Index("v", "p") {
		t.Error("a key that is next seals")
	}
	if err := box.Extend(list(c, b, a)); err != nil {
		t.Fatal(err)
	}
	opens()
	if box.Current(before) || !other.Current(box.Seal([]byte("x"), "c")) || box.Index("v", "p") != other.Index("v", "p") {
		t.Error("the newest key does not seal")
	}
}

func TestSameButLogin(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"postgres://u:p@h:1/d?sslmode=disable", "postgres://v:q%40@h:1/d?sslmode=disable", true},
		{"postgres://u:p@h:1/d", "postgres://h:1/d?user=u&password=p", true},
		{"redis+cluster://:p@h:1,i:2", "redis+cluster://u:q@h:1,i:2", true},
		{"redis://h:1", "redis://u:q/w@h:1", true},
		{"postgres://u:p@h:1/d", "postgres://u:p@i:1/d", false},
		{"postgres://u:p@h:1/d", "postgres://u:p@h:1/e", false},
		{"postgres://u:p@h:1/d", "postgres://u:p@h:1/d?sslmode=disable", false},
		{"redis://u:p@h:1", "rediss://u:p@h:1", false},
		{"redis+sentinel://h/m?sentinel_password=a", "redis+sentinel://h/m?sentinel_password=b", false},
		{"", "amqp://u:p@h", false},
	} {
		if got := secret.URL(c.a).SameButLogin(secret.URL(c.b)); got != c.same {
			t.Errorf("%s and %s: %t", c.a, c.b, got)
		}
	}
}

func TestIndexSeparatesPurposesAndKeys(t *testing.T) {
	key := secret.NewKey()
	a, b := newBox(t, key), newBox(t, key)
	if a.Index("x", "p") != b.Index("x", "p") {
		t.Error("two boxes of one key disagree")
	}
	seen := map[string]string{}
	for _, c := range [][2]string{{"x", "p"}, {"y", "p"}, {"x", "q"}, {"", "p"}, {"p", "x"}} {
		i := a.Index(c[0], c[1])
		if other, taken := seen[i]; taken {
			t.Errorf("%v has the index of %s", c, other)
		}
		seen[i] = fmt.Sprint(c)
	}
	if a.Index("x", "p") == newBox(t, secret.NewKey()).Index("x", "p") {
		t.Error("another key gives the same index")
	}
	if links := a.Derive("links"); len(links) != 1 || bytes.Equal(links[0], a.Derive("codes")[0]) || len(links[0]) != 32 {
		t.Error("derived keys are not separate keys of 32 bytes")
	}
}

func TestKeyLists(t *testing.T) {
	good := secret.NewKey().Reveal()
	other := secret.NewKey().Reveal()
	raw, _ := base64.StdEncoding.DecodeString(good)
	for _, c := range []struct {
		name, list string
		ok         bool
	}{
		{"one", good, true},
		{"two", good + "," + other, true},
		{"white space and a comma at the end", " " + good + " ,\n" + other + ",\n", true},
		{"URL alphabet without padding", base64.RawURLEncoding.EncodeToString(raw), true},
		{"empty", "", false},
		{"commas alone", ",,", false},
		{"no base64", "not a key!", false},
		{"31 bytes", base64.StdEncoding.EncodeToString(raw[:31]), false},
		{"33 bytes", base64.StdEncoding.EncodeToString(append(raw, 1)), false},
		{"second is bad", good + ",abc", false},
		{"twice the same", good + "," + good, false},
		{"one to come", good + ",next:" + other, true},
		{"one to come in front", "next:" + good + "," + other, true},
		{"none but one to come", "next:" + good, false},
		{"twice the same, once to come", good + ",next:" + good, false},
		{"one to come that is none", good + ",next:", false},
		{"zeros", base64.StdEncoding.EncodeToString(make([]byte, 32)), false},
		{"hexadecimal", strings.Repeat("ab", 32), false},
	} {
		err := secret.Validate(c.list)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v, want ok %v", c.name, err, c.ok)
		}
		if err != nil && strings.Contains(err.Error(), good[:10]) {
			t.Errorf("%s: the error shows the key: %v", c.name, err)
		}
	}
}

func TestLoadOrCreateMakesOneKeyForAll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data", "secret.key")
	var wg sync.WaitGroup
	lists, made := make([]secret.Text, 16), make([]bool, 16)
	for i := range lists {
		wg.Go(func() {
			var err error
			if lists[i], made[i], err = secret.LoadOrCreate(path); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	creators := 0
	for i := range lists {
		if made[i] {
			creators++
		}
		if lists[i] != lists[0] {
			t.Error("two processes have two keys")
		}
	}
	if creators != 1 {
		t.Errorf("%d made the key, want 1", creators)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", info.Mode(), err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("%d files are left, want the key alone (%v)", len(entries), err)
	}
	if err := os.WriteFile(path, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := secret.LoadOrCreate(path); err == nil {
		t.Error("a damaged key file was taken or replaced")
	}
}

func TestTextNeverPrintsItself(t *testing.T) {
	type wrap struct {
		Password secret.Text
		Nested   []secret.Text
	}
	const hidden = "hunter2"
	w := wrap{hidden, []secret.Text{hidden}}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "password", w.Password, "wrap", w)
	encoded, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	outputs := []string{log.String(), string(encoded)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		outputs = append(outputs, fmt.Sprintf(verb, w.Password), fmt.Sprintf(verb, w), fmt.Sprintf(verb, &w))
	}
	for _, out := range outputs {
		if strings.Contains(out, hidden) || strings.Contains(strings.ToLower(out), "68756e74657232") {
			t.Errorf("the secret shows in %s", out)
		}
	}
	if got := fmt.Sprint(secret.Text("")); got != "" {
		t.Errorf("the empty secret prints as %q", got)
	}
	if w.Password.Reveal() != hidden {
		t.Error("Reveal does not reveal")
	}
}

func TestURLPrintsWithoutPassword(t *testing.T) {
	for in, want := range map[string]string{
		"":                                    "",
		"sqlite://data/barong.db":             "sqlite://data/barong.db",
		"postgres://u:p4ss@h:5432/d?x=1":      "postgres://u:***@h:5432/d?x=1",
		"postgres://u@h/d":                    "postgres://u@h/d",
		"postgres://h/d?user=u&password=p4ss": "postgres://h/d?user=u&password=***",
		"redis://:p4ss@h:6379/1":              "redis://:***@h:6379/1",
		"redis+cluster://u:p4ss@h1:1,h2:2":    "redis+cluster://u:***@h1:1,h2:2",
		"redis://:p4/s?s@h:6379/1":            "redis://:***@h:6379/1",
		"redis+sentinel://h1:1,h2:2/m?sentinel_password=p4ss": "redis+sentinel://h1:1,h2:2/m?sentinel_password=***",
		"amqp://guest:p@4ss@h":                                "amqp://guest:***@h",
		// Not well-formed: the password has what would have to be escaped.
		"postgres://u:p@4ss/p4ss@h/d":            "postgres://u:***@h/d",
		"postgres://u:p?4ss=p4ss@h/d":            "postgres://u:***@h/d",
		"postgres://u:12345?p4ss@h/d":            "postgres://u:***@h/d",
		"postgres://u:p4ss#p4ss@h/d?sslmode=off": "postgres://u:***@h/d?sslmode=off",
		"postgres://p4/ss:p4ss@h/d":              "postgres://***@h/d",
		"postgres://h/d?password=p4&ss=p4ss":     "postgres://h/d?password=***",
		"postgres://h/d?password=p4@ss":          "postgres://***",
		"postgres://h/d?sslpassword=p4ss&x=1":    "postgres://h/d?sslpassword=***",
		"postgres://u:p4ss@h/d?passfile=p4ss":    "postgres://u:***@h/d?passfile=***",
		// The host, or the scheme, was forgotten.
		"redis://:p4ss":                   "redis://***",
		"redis://u:p4ss/0":                "redis://***",
		"u:p4ss@h/d":                      "***@h/d",
		"redis:u:p4ss@h":                  "***@h",
		"postgres:/u:p4ss@h":              "***@h",
		"postgres//u:p4ss@h:5432/d":       "***@h:5432/d",
		"redis://[::1]:6379/0":            "redis://[::1]:6379/0",
		"redis://p4ss@h":                  "redis://***@h",
		"https://p4ss@h/1":                "https://***@h/1",
		"https://u:p4ss@h, https://h":     "https://u:***@h, https://h",
		"https://a.test,https://u:p4ss@h": "https://***@h",
		"https://h/c?sv=1&sig=p4ss":       "https://h/c?sv=1&sig=***",
		"https://h/#access_token=p4":      "https://h/#access_token=***",
		"https://h:443/signin?x=1":        "https://h:443/signin?x=1",
		// What drivers of other languages take.
		"host=h user=u password=p4ss":        "host=h user=u password=***",
		"password='p4 ss' host=h":            "password=***",
		"Host=h;Username=u;Password = p4ss":  "Host=h;Username=u;Password =***",
		"h:6379,password=p4@ss,ssl=True":     "***",
		"redis://h:6379,password=p4ss":       "redis://h:6379,password=***",
		"postgres://u:p4ss@h dbname=d pwd=p": "postgres://u:***@h dbname=d pwd=***",
		"sqlite://:memory:":                  "sqlite://:memory:",
		"h:6379":                             "h:6379",
		"a@b.test":                           "a@b.test",
		"Barong: your code {{code}}":         "Barong: your code {{code}}",
	} {
		if got := fmt.Sprintf("%v", secret.URL(in)); got != want {
			t.Errorf("URL(%q) prints as %q, want %q", in, got, want)
		}
		if secret.URL(in).Reveal() != in {
			t.Errorf("URL(%q) does not reveal itself", in)
		}
	}
}

func FuzzOpen(f *testing.F) {
	b := newBox(f, secret.NewKey(), secret.NewKey())
	good := b.Seal([]byte("plain"), "context")
	f.Add(good, "context")
	f.Add("", "")
	f.Add("s1.", "context")
	f.Add("s1."+b.KeyIDs()[1]+".", "context")
	f.Add("s1."+b.KeyIDs()[0]+".AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "context")
	f.Add(good+"\n", "context")
	f.Fuzz(func(t *testing.T, sealed, context string) {
		plain, err := b.Open(sealed, context)
		if err == nil && (sealed != good || context != "context") {
			t.Fatalf("forged: %q opens at %q as %q", sealed, context, plain)
		}
		if b.Current(sealed) && !strings.HasPrefix(sealed, "s1."+b.KeyIDs()[0]+".") {
			t.Fatalf("%q counts as sealed under the newest key", sealed)
		}
	})
}

// FuzzRedact: whatever a password holds, none of it shows.
func FuzzRedact(f *testing.F) {
	for _, password := range []string{"p@ss/word", "a?b=c&d", "#", "://x", "%2F", "a b\nc", "[::1]:6379", "p&password=q"} {
		f.Add("postgres", password)
	}
	f.Fuzz(func(t *testing.T, scheme, password string) {
		if len(password) < 4 || strings.ContainsAny(scheme, ":/@?#, ") {
			return
		}
		for _, url := range []string{scheme + "://user:" + password + "@host/db", scheme + "://host/db?password=" + password} {
			rest := strings.ReplaceAll(secret.Redact(url), secret.Mask, "\x00")
			frame := scheme + "://user:\x00@host/db?password=\x00"
			// The scheme, the host and the like may be part of the password, too.
			if strings.Contains(rest, password) && !strings.Contains(frame, password) {
				t.Fatalf("%q shows %q", url, rest)
			}
		}
		got := secret.Redact(scheme + "://user:" + password + "@host/db")
		if got != scheme+"://"+secret.Mask && !strings.HasSuffix(got, "@host/db") { // the host, unless it may be part of a parameter
			t.Fatalf("%q shows as %q", password, got)
		}
	})
}
