package mail

import (
	"bytes"
	"crypto/rand"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	htmltemplate "html/template"
	"io/fs"
	"maps"
	"net/netip"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"text/template"
	"time"
	"unicode"
	"unicode/utf8"

	"barong/internal/device"
)

//go:embed templates
var builtIn embed.FS

// Data is what a mail may speak of. Which fields a kind needs is said there; the others are ignored. Templates, also the
// operator's own, see nothing of it that a client may have typed: whoever asks for a mail to somebody else must not be its
// author.
type Data struct {
	Email     string // the reader's address; templates see the first character of its local part, and the domain
	Token     string // Confirmation, ResetToken: goes into the link
	IP        string // SessionCreated, PasskeyCopied; empty unless it is an address
	UserAgent string // SessionCreated, PasskeyCopied; templates see the device's name, or nothing
	Key       string // APIKeyCreated: the key's id; empty unless it is letters and digits
	Provider  string // ProviderLinked, ProviderUnlinked: its name, as the operator writes it

	// Event and User are those of a mail on an event of another service, see Renderer.Event: the event as JSON was decoded,
	// and what is known of the reader, by name. Templates see single values, cut to one short line.
	Event map[string]any
	User  map[string]string
}

// RendererOptions are what NewRenderer needs.
type RendererOptions struct {
	Brand  string // name of the application, shown in every mail
	Domain string // links lead there: "example.com", or with a scheme "http://localhost:3000"
	// DefaultLanguage is used for readers whose own has no templates; English where that lacks one too.
	DefaultLanguage string
	// Folder, when not empty, holds the operator's own <language>.tmpl and layout.html. A block that such a file defines
	// replaces the built-in one of that language, or makes up a new language. See templates/en.tmpl for the blocks.
	Folder string
	Now    func() time.Time // default time.Now
}

// A Renderer writes mails. It is immutable, a Replaceable one apart, and safe for concurrent use.
type Renderer struct {
	o         RendererOptions
	base      string // of links, without a slash at its end
	languages map[string]*template.Template
	layout    *htmltemplate.Template

	now *atomic.Pointer[Renderer] // of one that is replaced: what it is now
}

// Replaceable returns a renderer that Replace may make another of while it is in use.
func (r *Renderer) Replaceable() *Renderer {
	c := &Renderer{now: new(atomic.Pointer[Renderer])}
	c.now.Store(r)
	return c
}

// Replace makes another of a renderer that comes from Replaceable.
func (r *Renderer) Replace(other *Renderer) { r.now.Store(other) }

// current is the renderer itself, or what it was replaced by last.
func (r *Renderer) current() *Renderer {
	if r.now != nil {
		return r.now.Load()
	}
	return r
}

// NewRenderer reads all templates, so that a bad one stops the start and not a mail.
func NewRenderer(o RendererOptions) (*Renderer, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Brand = oneLine(o.Brand, 100)
	o.DefaultLanguage = normal(o.DefaultLanguage)
	r := &Renderer{o: o, languages: make(map[string]*template.Template)}
	var err error
	if r.base, err = baseURL(o.Domain); err != nil {
		return nil, err
	}
	own, err := fs.Sub(builtIn, "templates")
	if err != nil {
		return nil, err
	}
	sources := []fs.FS{own}
	if o.Folder != "" {
		if _, err := os.Stat(o.Folder); err != nil {
			return nil, fmt.Errorf("mail templates: %w", err)
		}
		sources = append(sources, os.DirFS(o.Folder))
	}
	for _, source := range sources {
		if err := r.read(source); err != nil {
			return nil, fmt.Errorf("mail templates: %w", err)
		}
	}
	// Every block runs once: a field that does not exist shows now.
	for _, language := range slices.Sorted(maps.Keys(r.languages)) {
		for _, kind := range eventKinds {
			if _, err := r.event(kind, language, Data{Email: "a@example.com"}); err != nil {
				return nil, fmt.Errorf("mail templates: %w", err)
			}
		}
		for _, kind := range kinds {
			if _, err := r.Render(kind, language, Data{Email: "a@example.com", Token: "t"}); err != nil {
				return nil, fmt.Errorf("mail templates: %w", err)
			}
		}
	}
	return r, nil
}

// Kinds are all kinds of mail.
func Kinds() []string { return slices.Clone(kinds) }

var kinds = []string{
	Confirmation, ResetToken, PasswordReset, PasswordChanged, AccountDeleted, SessionCreated, LabelCreated, LabelUpdated,
	DocumentVerified, DocumentRejected, ProfileVerified, ProfileRejected, OTPEnabled, OTPDisabled, APIKeyCreated,
	PasskeyCreated, PasskeyDeleted, PasskeyCopied, ProviderLinked, ProviderUnlinked,
}

// read adds the templates of one folder to what is there.
func (r *Renderer) read(source fs.FS) error {
	files, err := fs.Glob(source, "*.tmpl")
	if err != nil {
		return err
	}
	for _, file := range files {
		text, err := fs.ReadFile(source, file)
		if err != nil {
			return err
		}
		language := normal(strings.TrimSuffix(path.Base(file), ".tmpl"))
		t := r.languages[language]
		if t == nil {
			t = template.New(language).Option("missingkey=error").Funcs(functions)
		}
		if r.languages[language], err = t.Parse(string(text)); err != nil {
			return err
		}
	}
	layout, err := fs.ReadFile(source, "layout.html")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	r.layout, err = htmltemplate.New("layout.html").Parse(string(layout))
	return err
}

// paths are where the links of mails lead, and the name of the token there.
var paths = map[string][2]string{
	Confirmation: {"/accounts/confirmation", "confirmation_token"},
	ResetToken:   {"/accounts/password_reset", "reset_token"},
}

// view is what the templates see.
type view struct {
	Data
	Brand, Site string
	At          string // "2006-01-02 15:04 UTC"

	// For the layout alone.
	Language, Subject, Link, Action string
	Paragraphs                      []string

	event map[string]any
	user  map[string]string
}

// Render writes the mail of a kind in a language, "en" or "pt-BR", in any case. Without templates in that language it
// is the language before the hyphen, then the default, then English.
func (r *Renderer) Render(kind, language string, d Data) (Message, error) {
	r = r.current()
	t, language := r.pick(kind, language)
	if t == nil {
		return Message{}, fmt.Errorf("mail: no template of %q", kind)
	}
	v := r.view(language, d)
	if p, ok := paths[kind]; ok {
		if d.Token == "" {
			return Message{}, fmt.Errorf("mail: %s without a token", kind)
		}
		v.Link = r.base + p[0] + "?" + p[1] + "=" + url.QueryEscape(d.Token) + "&lang=" + url.QueryEscape(language)
	}
	return r.write(kind, d.Email, v, t.Lookup(kind+" subject"), t.Lookup(kind+" body"), t.Lookup(kind+" action"))
}

// view is what the templates see of data.
func (r *Renderer) view(language string, d Data) view {
	return view{
		Data: Data{
			Email: masked(d.Email), IP: address(d.IP), UserAgent: device.Name(d.UserAgent), Key: word(d.Key), Provider: oneLine(d.Provider, 256),
		},
		Brand: r.o.Brand, Site: r.base, At: r.o.Now().UTC().Format("2006-01-02 15:04 UTC"), Language: language,
		event: d.Event, user: d.User,
	}
}

// write runs the blocks of a mail, of which the subject may be there as v.Subject instead and the action may be missing.
func (r *Renderer) write(kind, to string, v view, subject, body, action *template.Template) (Message, error) {
	run := func(block *template.Template) (string, error) {
		if block == nil {
			return "", nil
		}
		var b strings.Builder
		if err := block.Execute(&b, v); err != nil {
			return "", fmt.Errorf("mail: %w", err)
		}
		return strings.TrimSpace(b.String()), nil
	}
	if subject != nil {
		text, err := run(subject)
		if err != nil {
			return Message{}, err
		}
		v.Subject = text
	}
	words, err := run(body)
	if err != nil {
		return Message{}, err
	}
	label, err := run(action)
	if err != nil {
		return Message{}, err
	}
	v.Subject, v.Action = oneLine(v.Subject, 200), oneLine(label, 100)
	for paragraph := range strings.SplitSeq(strings.ReplaceAll(words, "\r\n", "\n"), "\n\n") {
		if paragraph = strings.TrimSpace(paragraph); paragraph != "" {
			v.Paragraphs = append(v.Paragraphs, paragraph)
		}
	}

	text := strings.Join(v.Paragraphs, "\n\n") + "\n\n"
	if v.Link != "" {
		text += v.Link + "\n\n" // alone on its line, so that nothing is taken for a part of it
	}
	text += "-- \n" + v.Brand + "\n" + v.Site + "\n"
	var html bytes.Buffer
	if err := r.layout.Execute(&html, v); err != nil {
		return Message{}, fmt.Errorf("mail: %w", err)
	}
	id := make([]byte, 16)
	rand.Read(id)
	return Message{
		ID: hex.EncodeToString(id), Kind: kind, To: to, Subject: v.Subject, Text: text, HTML: html.String(), Date: r.o.Now().UTC(),
	}, nil
}

// pick finds the templates of a kind, and their language.
func (r *Renderer) pick(kind, language string) (*template.Template, string) {
	language = normal(language)
	short, _, _ := strings.Cut(language, "-")
	for _, l := range []string{language, short, r.o.DefaultLanguage, "en"} {
		if t := r.languages[l]; t != nil && t.Lookup(kind+" subject") != nil && t.Lookup(kind+" body") != nil {
			return t, l
		}
	}
	return nil, ""
}

// normal is the one spelling of a language: "pt-br".
func normal(language string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimSpace(language)), "_", "-")
}

// oneLine keeps text that others wrote from reaching beyond its place: no line breaks or other control characters, and
// no more than n bytes.
func oneLine(s string, n int) string {
	s = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "?"), func(r rune) bool {
		return unicode.IsControl(r) || unicode.IsSpace(r) || r == '\u2028' || r == '\u2029'
	}), " ")
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "") + "…"
	}
	return s
}

// ValidateDomain says why links cannot lead to a domain. The error has nothing of it.
func ValidateDomain(domain string) error {
	_, err := baseURL(domain)
	return err
}

// masked is an address with the first character of its local part alone: many servers deliver whatever else stands there.
func masked(email string) string {
	local, domain := cut(oneLine(email, 320))
	_, n := utf8.DecodeRuneInString(local)
	if domain == "" {
		return local[:n] + "…"
	}
	return local[:n] + "…@" + domain
}

// address is an address of a network, or empty.
func address(ip string) string {
	a, err := netip.ParseAddr(ip)
	if err != nil {
		return ""
	}
	return a.WithZone("").String()
}

// word is letters and digits, or empty.
func word(s string) string {
	if len(s) > 64 || strings.IndexFunc(s, func(r rune) bool { return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) }) >= 0 {
		return ""
	}
	return s
}

// baseURL makes the beginning of every link. It comes from the configuration alone, never from a request, so that nobody
// can have a token sent elsewhere.
func baseURL(domain string) (string, error) {
	base := domain
	if !strings.Contains(base, "://") {
		base = "https://" + base
	}
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") || u.User != nil || u.RawQuery != "" ||
		u.Fragment != "" {
		return "", errors.New("links cannot lead there: allowed is a host such as example.com, with https:// before it and a path " +
			"behind it or without, and no user, password or options")
	}
	return strings.TrimRight(u.String(), "/"), nil
}
