package web_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"html"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"barong/internal/fault"
	"barong/web"
)

func pages(t *testing.T, o web.Options) *web.Pages {
	t.Helper()
	o.Name, o.API = "Acme & <Sons>", "/api/v2/barong"
	p, err := web.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// config is what a page tells its scripts.
type config struct {
	Name, API, Logo string
	Console         bool
	Languages       []struct {
		Tag, Name, Direction string
		Portal, Console      []string
	}
}

var (
	reference = regexp.MustCompile(`(?:href|src)="([^"]*)"`)
	meta      = regexp.MustCompile(`<meta name="barong" content="([^"]*)">`)
)

func configOf(t *testing.T, page []byte) (c config) {
	t.Helper()
	found := meta.FindSubmatch(page)
	if found == nil {
		t.Fatalf("no configuration in %s", page)
	}
	if err := json.Unmarshal([]byte(html.UnescapeString(string(found[1]))), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestPagesReferToWhatThereIs holds that every file that a page or a script asks for is served, and nothing else is asked
// for: no other origin, no inline script or style.
func TestPagesReferToWhatThereIs(t *testing.T) {
	p := pages(t, web.Options{Console: true, Passkeys: true})
	page, known := p.Page("/accounts/signin")
	if !known {
		t.Fatal("no sign-in page")
	}
	if again, known := p.Page("/accounts/nothing"); known || !bytes.Equal(again, page) {
		t.Error("an address without a page is to be told by a status alone")
	}
	if strings.Contains(string(page), "<Sons>") || !strings.Contains(string(page), "<title>Acme &amp; &lt;Sons&gt;</title>") {
		t.Errorf("the name is not escaped: %s", page)
	}
	for _, inline := range []string{"<style", "style=", " on", "javascript:", "<script>"} {
		if strings.Contains(string(meta.ReplaceAll(page, nil)), inline) && inline != " on" {
			t.Errorf("%q in %s", inline, page)
		}
	}
	if n := strings.Count(string(page), "<script"); n != 1 {
		t.Errorf("%d scripts", n)
	}
	if c := configOf(t, page); c.Name != "Acme & <Sons>" || c.API != "/api/v2/barong" || !c.Console || len(c.Languages) != 2 {
		t.Errorf("configuration %+v", c)
	}
	asked := []string{}
	for _, m := range reference.FindAllSubmatch(page, -1) {
		asked = append(asked, string(m[1]))
	}
	for _, l := range configOf(t, page).Languages {
		asked = append(asked, append(l.Portal, l.Console...)...)
	}
	imported := regexp.MustCompile(`"\./([\w.-]+\.js)"`)
	seen := map[string]bool{}
	for len(asked) > 0 {
		href := asked[0]
		asked = asked[1:]
		if seen[href] || href == "" { // the page itself, again
			continue
		}
		seen[href] = true
		name, ok := strings.CutPrefix(href, web.Assets)
		a, there := p.Asset(name)
		if !ok || !there || a.Type == "" || len(a.Plain) == 0 {
			t.Errorf("%s is asked for and not there", href)
			continue
		}
		if !regexp.MustCompile(`-[A-Z0-9]{8}\.\w+$`).MatchString(name) {
			t.Errorf("the name of %s holds no hash", name)
		}
		if z, err := gzip.NewReader(bytes.NewReader(a.Gzip)); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if plain, err := io.ReadAll(z); err != nil || !bytes.Equal(plain, a.Plain) {
			t.Errorf("%s: compressed form differs: %v", name, err)
		}
		if len(a.Brotli) == 0 || len(a.Brotli) > len(a.Gzip) {
			t.Errorf("%s: %d bytes by brotli, %d by gzip", name, len(a.Brotli), len(a.Gzip))
		}
		for _, m := range imported.FindAllSubmatch(a.Plain, -1) {
			asked = append(asked, web.Assets+string(m[1]))
		}
	}
	if len(seen) < 10 {
		t.Errorf("only %d files were found: %v", len(seen), slices.Sorted(maps.Keys(seen)))
	}
	if _, there := p.Asset("../web.go"); there {
		t.Error("a file outside of the bundle is served")
	}
	if page, _ := pages(t, web.Options{}).Page("/console/"); page != nil {
		t.Error("a console that is switched off is served")
	}
}

// TestRoutes holds the list of pages here to that of the sources.
func TestRoutes(t *testing.T) {
	text, err := os.ReadFile("src/portal.tsx")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`path: "([^"]+)"`).FindAllSubmatch(text, -1)
	if len(found) < 15 {
		t.Fatalf("%d routes", len(found))
	}
	p := pages(t, web.Options{Phones: true, Console: true})
	if _, known := pages(t, web.Options{}).Page("/accounts/phones"); known {
		t.Error("without phones there is a page for them")
	}
	staff, err := os.ReadFile("src/console.tsx")
	if err != nil {
		t.Fatal(err)
	}
	sections := regexp.MustCompile(`path: "([^"]+)"`).FindAllSubmatch(bytes.ReplaceAll(staff, []byte("{uid}"), []byte("ID0123456789")), -1)
	if len(sections) < 11 {
		t.Fatalf("%d sections of the console", len(sections))
	}
	for _, path := range []string{"/console/nothing", "/console/users/a/b", "/console/levels/a"} {
		if _, known := p.Page(path); known {
			t.Errorf("%s is no page, and known to be one", path)
		}
	}
	for _, m := range append(found, sections...) {
		if _, known := p.Page(string(m[1])); !known {
			t.Errorf("%s is a page, and not known to be one", m[1])
		}
	}
}

// TestSizes holds what is sent for the sign-in page to 60 KB, and all to 200 KB, compressed.
func TestSizes(t *testing.T) {
	files, err := filepath.Glob("dist/*.br")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	all := 0
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		all += int(info.Size())
	}
	p := pages(t, web.Options{Console: true})
	page, _ := p.Page("/accounts/signin")
	signIn := len(page)
	files = files[:0]
	for _, m := range reference.FindAllSubmatch(page, -1) {
		files = append(files, string(m[1]))
	}
	for _, l := range configOf(t, page).Languages {
		files = append(files, l.Portal...)
	}
	for _, f := range files {
		if a, ok := p.Asset(strings.TrimPrefix(f, web.Assets)); ok {
			signIn += len(a.Brotli)
		}
	}
	t.Logf("sign-in page %d bytes, all %d", signIn, all)
	if signIn > 60_000 || all > 200_000 {
		t.Errorf("sign-in page %d bytes, all %d", signIn, all)
	}
}

// TestOperatorsFiles holds what an operator lays over the pages.
func TestOperatorsFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("lang/ru.json", `{"signin.title":"Здравствуйте"}`)
	write("lang/ar.json", `{"language":"العربية","direction":"rtl","signin.title":"x"}`)
	write("lang/README.md", "not a catalogue")
	o := web.Options{
		Logo: write("Logo.SVG", `<svg xmlns="http://www.w3.org/2000/svg"/>`), CSS: write("own.css", ":root{--accent:#900}"), Languages: filepath.Join(dir, "lang"),
	}
	p := pages(t, o)
	if s := p.Styles(); len(s) != 2 || !strings.HasPrefix(s[1], web.Assets+"brand-") {
		t.Errorf("styles %q", s)
	}
	page, _ := p.Page("/accounts/")
	c := configOf(t, page)
	get := func(href string) string {
		a, ok := p.Asset(strings.TrimPrefix(href, web.Assets))
		if !ok {
			t.Fatalf("%s is not there", href)
		}
		return string(a.Plain)
	}
	if get(c.Logo) == "" || !strings.Contains(get(p.Styles()[1]), "#900") {
		t.Error("logo or style")
	}
	if len(c.Languages) != 3 || c.Languages[1].Tag != "ru" || len(c.Languages[1].Portal) != 2 || !strings.Contains(get(c.Languages[1].Portal[1]), "Здравствуйте") {
		t.Errorf("languages %+v", c.Languages)
	}
	if ar := c.Languages[2]; ar.Tag != "ar" || ar.Name != "العربية" || ar.Direction != "rtl" || len(ar.Portal) != 1 || ar.Console == nil {
		t.Errorf("language %+v", ar)
	}

	for name, bad := range map[string]web.Options{
		"own.gif":      {Logo: write("own.gif", "GIF89a")},
		"missing.png":  {Logo: filepath.Join(dir, "missing.png")},
		"big.css":      {CSS: write("big.css", strings.Repeat("a", 300<<10))},
		"english.json": {Languages: filepath.Dir(write("bad1/english.json", "{}"))},
		"de.json":      {Languages: filepath.Dir(write("bad2/de.json", `{"a":{"b":"c"}}`))},
		"nowhere":      {Languages: filepath.Join(dir, "nowhere")},
	} {
		if _, err := web.New(bad); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func catalogue(t *testing.T, name string) map[string]string {
	t.Helper()
	text, err := os.ReadFile("src/lang/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	words := map[string]string{}
	dec := json.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(&words); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if n := len(regexp.MustCompile(`(?m)^\s+"[^"]+":`).FindAll(text, -1)); n != len(words) {
		t.Errorf("%s: %d lines for %d keys: one is there twice", name, n, len(words))
	}
	return words
}

// TestCatalogues holds the languages alike: the same keys, with the same values to fill in, and no empty text.
func TestCatalogues(t *testing.T) {
	value := regexp.MustCompile(`\{\w+\}`)
	for _, prefix := range []string{"", "console."} {
		en, ru := catalogue(t, prefix+"en"), catalogue(t, prefix+"ru")
		for key, text := range en {
			other, ok := ru[key]
			plural := regexp.MustCompile(`\.(one|two|few|many|other)$`).MatchString(key)
			if strings.TrimSpace(text) == "" || strings.TrimSpace(other) == "" && (ok || !plural) {
				t.Errorf("%s%s: %q, %q", prefix, key, text, other)
			}
			have, want := value.FindAllString(other, -1), value.FindAllString(text, -1)
			slices.Sort(have)
			slices.Sort(want)
			if ok && !slices.Equal(have, want) {
				t.Errorf("%s%s: values %q, in Russian %q", prefix, key, want, have)
			}
		}
		for key := range ru {
			if _, ok := en[key]; !ok && !regexp.MustCompile(`\.(few|many)$`).MatchString(key) {
				t.Errorf("%s%s: in Russian only", prefix, key)
			}
		}
	}
}

// TestEveryCodeHasWords holds that there is a text for every code of the catalogue of faults: staff's may stand with the
// console.
func TestEveryCodeHasWords(t *testing.T) {
	words := catalogue(t, "en")
	maps.Copy(words, catalogue(t, "console.en"))
	for _, e := range fault.Catalogue() {
		if _, ok := words["code."+string(e.Code)]; !ok {
			t.Errorf("%s has no words: %s", e.Code, e.Meaning)
		}
	}
}
