package mailer

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"barong/internal/crypto/jws"
	"barong/internal/delivery/events"
	"barong/internal/delivery/mail"
	"barong/internal/yamlfile"
)

// A Config says which events of which services are worth which mails. The zero value hears nobody.
type Config struct {
	events   []event
	keychain jws.Keychain
	// Warnings say what in the file has no effect, or hardly the one that is meant.
	Warnings []string
}

// An event is one entry of the file.
type event struct {
	exchange, key, signer string
	holds                 expression // nil: always
	mail                  *mail.EventMail
}

// Bindings are what has to be heard, each once.
func (c *Config) Bindings() []events.Binding {
	var out []events.Binding
	for _, e := range c.events {
		if b := (events.Binding{Exchange: e.exchange, Key: e.key}); !slices.Contains(out, b) {
			out = append(out, b)
		}
	}
	return out
}

// Bounds of the file.
const (
	maxFile   = 1 << 20 // bytes
	maxEvents = 1_000   // also of signers, of exchanges, and of languages of an event
	maxWords  = 64 << 10
)

// The file as it is written.
type (
	configFile struct {
		Keychain  map[string]fileKey      `yaml:"keychain"`
		Exchanges map[string]fileExchange `yaml:"exchanges"`
		Events    []fileEvent             `yaml:"events"`
	}
	fileKey struct {
		Algorithm string `yaml:"algorithm"`
		Value     string `yaml:"value"` // base64url of the PEM of a public key
	}
	fileExchange struct {
		Name   string `yaml:"name"`
		Signer string `yaml:"signer"`
	}
	fileEvent struct {
		Name       string               `yaml:"name"`
		Key        string               `yaml:"key"`
		Exchange   string               `yaml:"exchange"`
		Expression yaml.Node            `yaml:"expression"`
		Templates  map[string]fileWords `yaml:"templates"`
	}
	fileWords struct {
		Subject string `yaml:"subject"`
		Path    string `yaml:"template_path"`
	}
)

// fileKeys are the keys of each level of the file.
var fileKeys = struct{ top, key, exchange, event, words []string }{
	[]string{"keychain", "exchanges", "events"},
	[]string{"algorithm", "value"},
	[]string{"name", "signer"},
	[]string{"name", "key", "exchange", "expression", "templates"},
	[]string{"subject", "template_path"},
}

// kit are the blocks that stand in for the templates that come with the original.
var kit = map[string]string{
	"deposit_accepted": mail.DepositUpdated, "withdraw_succeed": mail.WithdrawUpdated, "new_beneficiary": mail.BeneficiaryCreated,
}

// ours are the exchanges at which this program publishes, with the keys of events that it writes the mails about itself.
var ours = map[string][]string{
	"barong.events.system": {
		mail.Confirmation, mail.ResetToken, mail.PasswordReset, mail.PasswordChanged, mail.AccountDeleted, mail.SessionCreated,
		mail.DocumentVerified, mail.DocumentRejected,
	},
	"barong.events.model": {mail.LabelCreated, mail.LabelUpdated},
}

// placeholder is what the file that comes with the original has in the place of keys.
const placeholder = "changeme"

// ParseConfig reads a mailer.yml, with templates that read variables (see package yamlfile). folders are where the files of
// words are looked for. Of a template in Ruby the built-in words of the same mail take the place, or those of a file
// beside it that ends in .tmpl instead. getenv may be nil.
func ParseConfig(data []byte, letters *mail.Renderer, folders []string, getenv func(string) (string, bool)) (*Config, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("larger than %d bytes", maxFile)
	}
	top, err := yamlfile.Parse(data, getenv)
	if err != nil {
		return nil, err
	}
	c := &Config{keychain: jws.Keychain{}}
	if top == nil {
		return c, nil
	}
	if err := c.checkKeys(top); err != nil {
		return nil, err
	}
	var f configFile
	if err := top.Decode(&f); err != nil {
		return nil, errors.New(goTypes.ReplaceAllString(err.Error(), ""))
	}
	if len(f.Keychain) > maxEvents || len(f.Exchanges) > maxEvents || len(f.Events) > maxEvents {
		return nil, fmt.Errorf("more than %d signers, exchanges or events", maxEvents)
	}
	var all []error
	for i := range f.Events {
		if err := c.add(&f, i, letters, folders); err != nil {
			all = append(all, fmt.Errorf("events[%d] (%.100s): %w", i, f.Events[i].Key, err))
		}
	}
	if all != nil {
		return nil, errors.Join(all...)
	}
	return c, nil
}

// goTypes are what the YAML library says of this program's own types.
var goTypes = regexp.MustCompile(` (in type|into) (\[\])?mailer\.\w+`)

func (c *Config) warn(format string, args ...any) {
	c.Warnings = append(c.Warnings, fmt.Sprintf(format, args...))
}

// delays are keys by which an entry may ask for its mail later.
var delays = []string{"wait_until", "wait", "delay"}

// checkKeys refuses keys that look like known ones, since a misspelt expression would have mails sent that nobody wants, and
// those that ask for a mail later, which would be sent at once. It warns of others, which the original ignored, too.
func (c *Config) checkKeys(top *yaml.Node) error {
	check := func(n *yaml.Node, where string, known []string) error {
		for name := range members(n) {
			if slices.Contains(known, name) {
				continue
			}
			if meant := yamlfile.Similar(strings.ToLower(name), known...); meant != "" {
				return fmt.Errorf("unknown key %s%s: %s is meant", where, name, meant)
			}
			c.warn("%s%s: it has no effect, known are %s", where, name, strings.Join(known, ", "))
		}
		return nil
	}
	if err := check(top, "", fileKeys.top); err != nil {
		return err
	}
	for name, n := range members(top) {
		switch name {
		case "keychain", "exchanges":
			known := fileKeys.key
			if name == "exchanges" {
				known = fileKeys.exchange
			}
			for id, entry := range members(n) {
				if err := check(entry, name+"."+id+".", known); err != nil {
					return err
				}
			}
		case "events":
			for i, entry := range n.Content {
				where := fmt.Sprintf("events[%d].", i)
				for name := range members(entry) {
					if slices.Contains(delays, strings.ToLower(name)) {
						return fmt.Errorf("%s%s: mails are sent when the event comes, and never later: take the key out, and let the service publish the event when the mail is due", where, name)
					}
				}
				if err := check(entry, where, fileKeys.event); err != nil {
					return err
				}
				for language, words := range members(member(entry, "templates")) {
					if err := check(words, where+"templates."+language+".", fileKeys.words); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

// members walks a mapping. What is none is left to the decoder to complain of.
func members(n *yaml.Node) func(func(string, *yaml.Node) bool) {
	return func(yield func(string, *yaml.Node) bool) {
		if n == nil || n.Kind != yaml.MappingNode {
			return
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if !yield(n.Content[i].Value, n.Content[i+1]) {
				return
			}
		}
	}
}

func member(n *yaml.Node, name string) *yaml.Node {
	for key, value := range members(n) {
		if key == name {
			return value
		}
	}
	return nil
}

// add takes one entry of the file into the configuration.
func (c *Config) add(f *configFile, i int, letters *mail.Renderer, folders []string) error {
	e := &f.Events[i]
	at, ok := f.Exchanges[e.Exchange]
	switch {
	case e.Key == "" || len(e.Key) > 255: // a short string of the protocol
		return errors.New("key is needed")
	case !ok:
		return fmt.Errorf("exchange %.100q is not listed under exchanges", e.Exchange)
	case at.Name == "" || len(at.Name) > 255:
		return fmt.Errorf("exchanges.%.100s: name is needed", e.Exchange)
	case len(e.Templates) > maxEvents:
		return fmt.Errorf("more than %d languages", maxEvents)
	}
	words, own, err := c.words(e, i, folders)
	if err != nil {
		return err
	}
	if slices.Contains(ours[at.Name], e.Key) && !(own && strings.HasPrefix(e.Key, "label.")) {
		return nil // the mail is written by this program anyway
	}
	switch ready, err := c.signer(f, at.Signer); {
	case err != nil:
		return err
	case !ready:
		c.warn("events[%d] (%s): nobody can have signed it: keychain.%s has no key yet", i, e.Key, at.Signer)
		return nil
	}
	holds, err := readExpression(&e.Expression, func(what string) { c.warn("events[%d] (%s): expression: %s", i, e.Key, what) })
	if err != nil {
		return fmt.Errorf("expression: %w", err)
	}
	if holds == nil {
		holds = decided[e.Key]
	}
	m, err := letters.Event(e.Key, c.kind(e), words)
	if err != nil {
		return fmt.Errorf("templates: %w", err)
	}
	for _, other := range c.events {
		if other.exchange == at.Name && other.signer != at.Signer {
			return fmt.Errorf("exchanges.%s: %s signs what comes from %s, and %s cannot as well", e.Exchange, other.signer, at.Name, at.Signer)
		}
	}
	c.events = append(c.events, event{exchange: at.Name, key: e.Key, signer: at.Signer, holds: holds, mail: m})
	return nil
}

// decided are the expressions of entries without one: a mail that speaks of an accepted deposit goes out when it becomes
// accepted, and not with each of its changes.
var decided = map[string]expression{
	mail.DepositUpdated:  becomes("accepted"),
	mail.WithdrawUpdated: becomes("succeed"),
}

func becomes(state string) expression {
	return func(event map[string]any) bool {
		if mail.At(event, "record.state") != state {
			return false
		}
		changes, known := event["changes"].(map[string]any)
		_, changed := changes["state"]
		return !known || changed
	}
}

// kind is the kind whose blocks stand in for the templates of an entry.
func (c *Config) kind(e *fileEvent) string {
	for _, w := range e.Templates {
		if k := kit[stem(w.Path)]; k != "" {
			return k
		}
	}
	return e.Key
}

// stem is the name of a template without its language and its endings.
func stem(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".")
	return name
}

// words reads the words of an entry; own says that some are the operator's.
func (c *Config) words(e *fileEvent, i int, folders []string) (words map[string]mail.Words, own bool, err error) {
	words = map[string]mail.Words{}
	for _, language := range slices.Sorted(maps.Keys(e.Templates)) {
		w := e.Templates[language]
		body, file, err := findWords(w.Path, folders)
		if err != nil {
			return nil, false, fmt.Errorf("templates.%s: %w", language, err)
		}
		if body == "" && w.Path != "" && !ruby(w.Path) {
			return nil, false, fmt.Errorf("templates.%s: there is no file %q in %s", language, w.Path, strings.Join(folders, ", "))
		}
		if strings.Contains(body, "<%") {
			return nil, false, fmt.Errorf("templates.%s: %s is a template in Ruby: it cannot be run here", language, file)
		}
		words[language] = mail.Words{Subject: w.Subject, Body: body}
		own = own || body != ""
	}
	return words, own, nil
}

// ruby reports whether a template is one of the original's, in Ruby.
func ruby(path string) bool { return strings.HasSuffix(path, ".erb") }

// findWords reads a file of words: the one that path names, or the one beside a template in Ruby that ends in .tmpl in the
// place of .html.erb. It returns the empty text when there is none.
func findWords(path string, folders []string) (body, file string, err error) {
	if ruby(path) {
		path = strings.TrimSuffix(strings.TrimSuffix(path, ".erb"), ".html") + ".tmpl"
	}
	if path == "" {
		return "", "", nil
	}
	if !filepath.IsLocal(path) {
		return "", "", fmt.Errorf("template_path %.200q leads out of its folder", path)
	}
	for _, folder := range folders {
		file = filepath.Join(folder, path)
		text, err := os.ReadFile(file)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return "", "", err
		case len(text) > maxWords:
			return "", "", fmt.Errorf("%s is larger than %d bytes", file, maxWords)
		case strings.TrimSpace(string(text)) == "":
			return "", "", fmt.Errorf("%s is empty", file)
		}
		return string(text), file, nil
	}
	return "", "", nil
}

// signer reads the key of a signer into the keychain. ready is false for one that has a placeholder.
func (c *Config) signer(f *configFile, id string) (ready bool, err error) {
	entry, ok := f.Keychain[id]
	if !ok {
		return false, fmt.Errorf("the signer %.100q is not in the keychain", id)
	}
	if _, done := c.keychain[id]; done {
		return true, nil
	}
	value := strings.Join(strings.Fields(entry.Value), "")
	if value == placeholder || value == "" {
		return false, nil
	}
	pem, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(value, "="))
	if err != nil {
		return false, fmt.Errorf("keychain.%s: the value is not the URL-safe base64 of a PEM file", id)
	}
	key, err := jws.NewKey(entry.Algorithm, pem)
	if err != nil {
		return false, fmt.Errorf("keychain.%s: %w", id, err)
	}
	c.keychain[id] = key
	return true, nil
}
