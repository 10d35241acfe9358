package openid

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"barong/internal/crypto/secret"
	"barong/internal/email"
	"barong/internal/yamlfile"
)

// A Config is one provider, as the operator describes it.
type Config struct {
	ID           string // in addresses of ours: "google"
	Name         string // for people
	Issuer       string // as its tokens say it, letter by letter
	ClientID     string
	ClientSecret secret.Text // empty for a public client
	Scopes       []string    // openid among them
	SignUp       bool        // who has no account gets one
	Domains      []string    // of the addresses that may come this way, in lower case and A-labels; empty for all
	TrustEmail   bool        // an address that it calls verified proves to own the account of that address
}

// Bounds of the file.
const (
	maxFile      = 1 << 20 // bytes
	maxProviders = 50
	maxName      = 64 // characters
)

// entry is a provider as it is written.
type entry struct {
	ID               string `yaml:"id"`
	Name             string `yaml:"name"`
	Issuer           string `yaml:"issuer"`
	ClientID         string `yaml:"client_id"`
	ClientSecret     string `yaml:"client_secret"`
	ClientSecretFile string `yaml:"client_secret_file"`
	Scopes           words  `yaml:"scopes"`
	SignUp           bool   `yaml:"sign_up"`
	Domains          words  `yaml:"domains"`
	TrustEmail       bool   `yaml:"trust_email"`
}

var entryKeys = []string{
	"id", "name", "issuer", "client_id", "client_secret", "client_secret_file", "scopes", "sign_up", "domains", "trust_email",
}

// words are a list of texts, or one text with spaces or commas between.
type words []string

func (w *words) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		*w = strings.FieldsFunc(n.Value, func(r rune) bool { return r == ',' || unicode.IsSpace(r) })
		return nil
	}
	return n.Decode((*[]string)(w))
}

// ParseConfig reads a providers.yml: a list, with templates that read variables (see package yamlfile). read reads the file
// that a client_secret_file names. getenv may be nil. What would let more people in than its author meant, such as a misspelt
// key, is an error; what has no effect is told by the warnings.
func ParseConfig(
	data []byte, getenv yamlfile.Getenv, read func(name string) ([]byte, error),
) (list []Config, warnings []string, err error) {
	if len(data) > maxFile {
		return nil, nil, fmt.Errorf("larger than %d bytes", maxFile)
	}
	top, err := yamlfile.Parse(data, getenv)
	if err != nil || yamlfile.Empty(top) {
		return nil, nil, err
	}
	if top.Kind != yaml.SequenceNode {
		return nil, nil, fmt.Errorf("line %d: want a list of providers", top.Line)
	}
	if len(top.Content) > maxProviders {
		return nil, nil, fmt.Errorf("more than %d providers", maxProviders)
	}
	for _, node := range top.Content {
		c, warned, err := parseEntry(node, read)
		if err != nil {
			return nil, nil, fmt.Errorf("line %d: %w", node.Line, err)
		}
		for _, other := range list {
			switch {
			case other.ID == c.ID:
				return nil, nil, fmt.Errorf("line %d: two providers have the id %s", node.Line, c.ID)
			case other.Issuer == c.Issuer: // whose subjects would be told apart by nothing
				return nil, nil, fmt.Errorf("line %d: %s and %s have the same issuer", node.Line, other.ID, c.ID)
			}
		}
		list, warnings = append(list, c), append(warnings, warned...)
	}
	return list, warnings, nil
}

func parseEntry(n *yaml.Node, read func(name string) ([]byte, error)) (c Config, warnings []string, err error) {
	if n.Kind != yaml.MappingNode {
		return c, nil, errors.New("want a mapping with id, issuer and client_id")
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i].Value
		if slices.Contains(entryKeys, key) {
			continue
		}
		if meant := yamlfile.Similar(strings.ToLower(key), entryKeys...); meant != "" {
			return c, nil, fmt.Errorf("unknown key %s: %s is meant", key, meant)
		}
		warnings = append(warnings, fmt.Sprintf("line %d: %s has no effect, known are %s", n.Content[i].Line, key, strings.Join(entryKeys, ", ")))
	}
	var e entry
	if err := n.Decode(&e); err != nil {
		return c, nil, errors.New(goTypes.ReplaceAllString(strings.TrimPrefix(err.Error(), "yaml: "), ""))
	}
	c = Config{
		ID: e.ID, Name: strings.TrimSpace(e.Name), Issuer: strings.TrimSpace(e.Issuer), ClientID: strings.TrimSpace(e.ClientID),
		ClientSecret: secret.Text(strings.TrimSpace(e.ClientSecret)), SignUp: e.SignUp, TrustEmail: e.TrustEmail,
	}
	if !plainID.MatchString(c.ID) {
		return c, nil, errors.New("id: want up to 32 lower-case letters, digits, dashes and underscores, as it stands in addresses")
	}
	if err := c.complete(&e, read); err != nil {
		return c, nil, fmt.Errorf("%s: %w", c.ID, err)
	}
	if !slices.Contains(c.Scopes, "email") {
		warnings = append(warnings, c.ID+": scopes without email: it may tell no address, and so make and find no account")
	}
	return c, warnings, nil
}

var (
	plainID = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,31}$`)
	// goTypes are what the YAML library says of this program's own types.
	goTypes = regexp.MustCompile(` (in type|into) openid\.\w+`)
)

// complete checks what was read, and fills in what was not said.
func (c *Config) complete(e *entry, read func(name string) ([]byte, error)) error {
	if c.Name == "" {
		c.Name = c.ID
	}
	if utf8.RuneCountInString(c.Name) > maxName || strings.ContainsFunc(c.Name, unicode.IsControl) {
		return fmt.Errorf("name: more than %d characters, or some that do not show", maxName)
	}
	if err := checkIssuer(c.Issuer); err != nil {
		return err
	}
	if c.ClientID == "" {
		return errors.New("client_id: missing")
	}
	switch {
	case e.ClientSecretFile != "" && c.ClientSecret != "":
		return errors.New("client_secret and client_secret_file: one of them is too much")
	case e.ClientSecretFile != "":
		text, err := read(e.ClientSecretFile)
		if err != nil {
			return fmt.Errorf("client_secret_file: %w", err)
		}
		if c.ClientSecret = secret.Text(strings.TrimSpace(string(text))); c.ClientSecret == "" {
			return errors.New("client_secret_file: there is nothing in it")
		}
	}
	c.Scopes = e.Scopes
	if len(c.Scopes) == 0 {
		c.Scopes = []string{"openid", "email", "profile"}
	}
	if !slices.Contains(c.Scopes, "openid") { // without it no identity is told
		c.Scopes = append([]string{"openid"}, c.Scopes...)
	}
	for _, domain := range e.Domains {
		ascii, ok := email.ASCIIDomain(email.Normal("x@" + strings.TrimPrefix(domain, "@")))
		domain, _ := strings.CutPrefix(ascii, "x@")
		if !ok || !strings.Contains(domain, ".") || strings.ContainsAny(domain, "@*/ ") {
			return fmt.Errorf("domains: %q is no domain of addresses", domain)
		}
		c.Domains = append(c.Domains, domain)
	}
	return nil
}

// checkIssuer wants an address over https, or of this very machine: keys that others could put in its place would let anybody
// be anybody.
func checkIssuer(issuer string) error {
	u, err := url.Parse(issuer)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" {
		return errors.New("issuer: want an https address without query")
	}
	if !safe(u) {
		return errors.New("issuer: want https, which alone tells that it is the provider who answers")
	}
	return nil
}

// safe reports an address whose answers nobody else can give.
func safe(u *url.URL) bool {
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback())
}
