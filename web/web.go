// Package web owns the pages of the portal (/accounts/) and of the console (/console/): their sources in src, which are
// TypeScript with Preact, and the bundle in dist that "make web" builds from them and that is part of the program. It
// knows files and hands out bytes; who serves them, with which headers, is the caller's business. The pages use the
// public REST API and nothing else.
package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

//go:embed dist
var dist embed.FS

// Assets is the path below which the files are served that pages refer to.
const Assets = "/accounts/assets/"

// Options say what the pages show.
type Options struct {
	Name     string // of the service: in the header and in the browser's tab
	API      string // the published prefix of the REST API, without a slash at its end: "/api/v2/barong"
	Console  bool   // there is a console
	Passkeys bool   // there are passkeys
	Phones   bool   // there are phones

	Logo      string // a file in place of the name in the header: SVG, PNG, JPEG or WebP; empty: none
	CSS       string // a stylesheet to lay over the built-in one; empty: none
	Languages string // a folder of catalogues, TAG.json, to lay over the built-in ones or to add a language; empty: none
}

// Bounds of an operator's files, in bytes.
const (
	maxLogo      = 256 << 10
	maxCSS       = 256 << 10
	maxCatalogue = 1 << 20
)

// Pages are the pages of one configuration. They never change, and are safe for concurrent use.
type Pages struct {
	assets  map[string]*Asset
	styles  []string
	names   []string // of the portal's pages
	portal  []byte
	console []byte // nil when there is none
}

// An Asset is a file that pages refer to. Its name holds a hash of its content, so it can be kept for ever.
type Asset struct {
	Type         string // content type
	Plain        []byte
	Gzip, Brotli []byte // nil where compression is not worth it
}

// A manifest is dist/manifest.json: what the build made, by what it is for.
type manifest struct {
	Style     string     `json:"style"`
	Icon      string     `json:"icon"`
	Portal    entry      `json:"portal"`
	Console   entry      `json:"console"`
	Languages []language `json:"languages"`
}

// An entry is the program of an application, and what it will ask for at once.
type entry struct {
	Script  string   `json:"script"`
	Imports []string `json:"imports"`
}

// A language is one in which pages can be shown, with the catalogues that are laid over English.
type language struct {
	Tag       string   `json:"tag"`
	Name      string   `json:"name"`
	Direction string   `json:"direction"`
	Portal    []string `json:"portal"`
	Console   []string `json:"console"`
}

// New makes the pages. It reads the files that the options name; an error names the one that is to blame.
func New(o Options) (*Pages, error) {
	p := &Pages{assets: map[string]*Asset{}}
	m, err := p.readBundle()
	if err != nil {
		return nil, err
	}
	p.styles = []string{Assets + m.Style}
	p.names = slices.Clone(portalPages)
	if !o.Phones {
		p.names = slices.DeleteFunc(p.names, func(name string) bool { return name == "phones" })
	}
	logo := ""
	if o.Logo != "" {
		if logo, err = p.addLogo(o.Logo); err != nil {
			return nil, err
		}
	}
	if o.CSS != "" {
		data, err := readBounded(o.CSS, maxCSS)
		if err != nil {
			return nil, err
		}
		p.styles = append(p.styles, p.add("brand", ".css", data))
	}
	if o.Languages != "" {
		if m.Languages, err = p.addLanguages(o.Languages, m.Languages); err != nil {
			return nil, err
		}
	}
	config, err := json.Marshal(map[string]any{
		"name": o.Name, "api": o.API, "console": o.Console, "passkeys": o.Passkeys, "phones": o.Phones,
		"languages": m.Languages, "logo": logo,
	})
	if err != nil {
		return nil, err
	}
	p.portal = p.shell(o.Name, m, m.Portal, config)
	if o.Console && m.Console.Script != "" {
		p.console = p.shell(o.Name, m, m.Console, config)
	}
	return p, nil
}

// types are the content types of what is served, by extension.
var types = map[string]string{
	".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".json": "application/json",
	".svg": "image/svg+xml", ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp",
}

// readBundle takes in what the build made.
func (p *Pages) readBundle() (*manifest, error) {
	text, err := dist.ReadFile("dist/manifest.json")
	if err != nil {
		return nil, err
	}
	m := &manifest{}
	if err := json.Unmarshal(text, m); err != nil {
		return nil, fmt.Errorf("dist/manifest.json: %w", err)
	}
	files, err := dist.ReadDir("dist")
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		name := f.Name()
		kind, ok := types[filepath.Ext(name)]
		if !ok || name == "manifest.json" {
			continue // a compressed form, or what describes the others
		}
		a := &Asset{Type: kind}
		for ext, to := range map[string]*[]byte{"": &a.Plain, ".gz": &a.Gzip, ".br": &a.Brotli} {
			if *to, err = dist.ReadFile("dist/" + name + ext); err != nil && !(ext != "" && errors.Is(err, fs.ErrNotExist)) {
				return nil, err
			}
		}
		p.assets[name] = a
	}
	for i := range m.Languages {
		for _, list := range [][]string{m.Languages[i].Portal, m.Languages[i].Console} {
			for j, name := range list {
				list[j] = Assets + name
			}
		}
	}
	return m, nil
}

// add takes in a file of the operator's, and returns its address.
func (p *Pages) add(name, ext string, data []byte) string {
	sum := sha256.Sum256(data)
	name += "-" + base32.StdEncoding.EncodeToString(sum[:])[:8] + ext
	a := &Asset{Type: types[ext], Plain: data}
	if ext == ".css" || ext == ".json" || ext == ".svg" {
		var packed bytes.Buffer
		w, _ := gzip.NewWriterLevel(&packed, gzip.BestCompression) // the level is a good one
		_, werr := w.Write(data)
		if cerr := w.Close(); werr == nil && cerr == nil && packed.Len() < len(data) {
			a.Gzip = packed.Bytes()
		}
	}
	p.assets[name] = a
	return Assets + name
}

func (p *Pages) addLogo(path string) (string, error) {
	ext := strings.ToLower(filepath.Ext(path))
	if !strings.HasPrefix(types[ext], "image/") {
		return "", fmt.Errorf("%s: a logo is an .svg, .png, .jpg or .webp file", path)
	}
	data, err := readBounded(path, maxLogo)
	if err != nil {
		return "", err
	}
	return p.add("logo", ext, data), nil
}

// tag is how the file of a language is called: its BCP 47 tag.
var tag = regexp.MustCompile(`^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$`)

// addLanguages lays the catalogues of a folder over the languages that there are.
func (p *Pages) addLanguages(folder string, have []language) ([]language, error) {
	files, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		name, isCatalogue := strings.CutSuffix(f.Name(), ".json")
		if !isCatalogue || strings.HasPrefix(name, ".") {
			continue
		}
		path := filepath.Join(folder, f.Name())
		if !tag.MatchString(name) {
			return nil, fmt.Errorf("%s: a catalogue is called by the tag of its language, such as de.json or pt-BR.json", path)
		}
		data, err := readBounded(path, maxCatalogue)
		if err != nil {
			return nil, err
		}
		var words map[string]string
		if err := json.Unmarshal(data, &words); err != nil {
			return nil, fmt.Errorf("%s: a catalogue is a JSON object of texts: %w", path, err)
		}
		address := p.add(name, ".json", data)
		i := slices.IndexFunc(have, func(l language) bool { return strings.EqualFold(l.Tag, name) })
		if i < 0 {
			have = append(have, language{Tag: name, Name: name, Direction: "ltr"})
			i = len(have) - 1
		}
		l := &have[i]
		l.Portal = append(l.Portal, address) // of the console as well, which asks for both
		if given := words["language"]; given != "" {
			l.Name = given
		}
		if given := words["direction"]; given == "ltr" || given == "rtl" {
			l.Direction = given
		}
	}
	for i := range have { // the pages read lists
		have[i].Portal, have[i].Console = append([]string{}, have[i].Portal...), append([]string{}, have[i].Console...)
	}
	return have, nil
}

func readBounded(path string, limit int) ([]byte, error) {
	data, err := os.ReadFile(path)
	switch {
	case err != nil:
		return nil, err
	case len(data) > limit:
		return nil, fmt.Errorf("%s: larger than %d KiB", path, limit>>10)
	}
	return data, nil
}

// shell is the HTML of every page of an application: what it needs, and a place for it.
func (p *Pages) shell(name string, m *manifest, e entry, config []byte) []byte {
	var b strings.Builder
	line := func(format string, args ...string) {
		escaped := make([]any, len(args))
		for i, a := range args {
			escaped[i] = html.EscapeString(a)
		}
		fmt.Fprintf(&b, format+"\n", escaped...)
	}
	line(`<!doctype html>`)
	line(`<html lang="en">`)
	line(`<head>`)
	line(`<meta charset="utf-8">`)
	line(`<meta name="viewport" content="width=device-width, initial-scale=1">`)
	line(`<meta name="color-scheme" content="light dark">`)
	line(`<meta name="barong" content="%s">`, string(config))
	line(`<title>%s</title>`, name)
	line(`<link rel="icon" type="image/svg+xml" href="%s">`, Assets+m.Icon)
	for _, style := range p.styles {
		line(`<link rel="stylesheet" href="%s">`, style)
	}
	for _, file := range e.Imports {
		line(`<link rel="modulepreload" href="%s">`, Assets+file)
	}
	line(`<script type="module" src="%s"></script>`, Assets+e.Script)
	line(`</head>`)
	line(`<body>`)
	// What is below the name is seen where the program does not come, and is gone when it does.
	line(`<div id="app"><header class="top"><span class="brand">%s</span></header>`, name)
	line(`<main class="card late"><p>This takes longer than it should. Check your connection, and <a href="">load the page again</a>.</p>`)
	line(`<p lang="ru">Это длится дольше, чем должно. Проверьте соединение и <a href="">загрузите страницу снова</a>.</p></main></div>`)
	line(`<noscript><main class="card"><h1>%s</h1>`, name)
	line(`<p>This page needs JavaScript, which is switched off here. Allow it for this site and <a href="">load the page again</a>, or take another browser.</p>`)
	line(`<p lang="ru">Этой странице нужен JavaScript, а он здесь выключен. Разрешите его для этого сайта и <a href="">загрузите страницу снова</a> или возьмите другой браузер.</p></main></noscript>`)
	line(`</body>`)
	line(`</html>`)
	return []byte(b.String())
}

// Asset finds a file by its path below Assets.
func (p *Pages) Asset(path string) (*Asset, bool) {
	a, ok := p.assets[path]
	return a, ok
}

// portalPages are the pages of the portal, below /accounts/.
var portalPages = []string{
	"", "signin", "signup", "confirmation", "forgot", "password_reset", "profile", "phones", "documents", "security",
	"sessions", "keys", "activity", "delete", "signout",
}

// consolePages are those of the console, below /console/, beside one for each user.
var consolePages = []string{
	"", "users", "documents", "permissions", "restrictions", "activities", "levels", "keys", "metrics", "system",
}

// Page returns the HTML of a page, by its whole path: "/accounts/signin". It is nil where there is no such application;
// known tells whether there is such a page, for a status: the pages themselves say so to people.
func (p *Pages) Page(path string) (text []byte, known bool) {
	if name, ok := strings.CutPrefix(path, "/accounts/"); ok {
		return p.portal, slices.Contains(p.names, strings.TrimSuffix(name, "/"))
	}
	if name, ok := strings.CutPrefix(path, "/console/"); ok && p.console != nil {
		uid, isUser := strings.CutPrefix(name, "users/")
		return p.console, slices.Contains(consolePages, strings.TrimSuffix(name, "/")) || isUser && uid != "" && !strings.Contains(strings.TrimSuffix(uid, "/"), "/")
	}
	return nil, false
}

// Styles are the addresses of the stylesheets, in the order in which they are laid over each other.
func (p *Pages) Styles() []string { return slices.Clone(p.styles) }
