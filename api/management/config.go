package management

import (
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"barong/internal/crypto/jws"
	"barong/internal/yamlfile"
)

// A Config says who may sign for what. The zero value lets nobody sign for anything.
type Config struct {
	Keychain jws.Keychain
	Claims   Claims
	Scopes   map[string]Scope
	// Warnings say what in the file lets nobody more in, and still is not what its author meant.
	Warnings []string
}

// A Scope lists whose signatures count, and whose must be there.
type Scope struct {
	Permitted []string
	Mandatory []string // never empty
}

// Claims are the rules about the claims of a message beside those that always hold.
type Claims struct {
	IgnoreExpiration, IgnoreNotBefore bool // honoured in release 2.4.17's mode alone
	IssuedAt, ID                      bool // iat not in the future; jti there
	Issuers, Audience                 []string
	Subject                           string
	Leeway                            time.Duration
}

// Bounds of the file.
const (
	maxFile    = 1 << 20 // bytes
	maxSigners = 1_000
)

// The file as it is written.
type (
	configFile struct {
		Keychain map[string]fileKey   `yaml:"keychain"`
		JWT      fileClaims           `yaml:"jwt"`
		Scopes   map[string]fileScope `yaml:"scopes"`
	}
	fileKey struct {
		Algorithm string `yaml:"algorithm"`
		Value     string `yaml:"value"` // base64url of the PEM of a public key
	}
	fileScope struct {
		Permitted []string `yaml:"permitted_signers"`
		Mandatory []string `yaml:"mandatory_signers"`
	}
	fileClaims struct {
		Expiration *bool  `yaml:"verify_expiration"`
		NotBefore  *bool  `yaml:"verify_not_before"`
		IssuedAt   bool   `yaml:"verify_iat"`
		ID         bool   `yaml:"verify_jti"`
		Issuer     bool   `yaml:"verify_iss"`
		Issuers    texts  `yaml:"iss"`
		Audience   bool   `yaml:"verify_aud"`
		Audiences  texts  `yaml:"aud"`
		Subject    bool   `yaml:"verify_sub"`
		Sub        string `yaml:"sub"`
		Leeway     int    `yaml:"leeway"` // seconds
	}
	// texts are one text or several.
	texts []string
)

func (t *texts) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		*t = texts{n.Value}
		return nil
	}
	return n.Decode((*[]string)(t))
}

// scopes are those that endpoints have. Others may stand in the file: other releases have more.
var scopes = []string{"otp_sign", "read_labels", "read_users", "tools", "write_documents", "write_labels", "write_users"}

// fileKeys are the keys of each level of the file.
var fileKeys = struct{ top, key, claims, scope []string }{
	[]string{"keychain", "jwt", "scopes"},
	[]string{"algorithm", "value"},
	[]string{
		"verify_expiration", "verify_not_before", "verify_iat", "verify_jti", "verify_iss", "iss", "verify_aud", "aud", "verify_sub", "sub",
		"leeway",
	},
	[]string{"permitted_signers", "mandatory_signers"},
}

// ParseConfig reads a management_api.yml, with templates that read variables (see package yamlfile). What would quietly let
// more through than its author meant is an error: a misspelt key, a private key, one key of two signers, a scope that demands
// nobody. legacy allows the switches that the safer rules about claims leave no room for. getenv may be nil.
func ParseConfig(data []byte, legacy bool, getenv func(string) (string, bool)) (Config, error) {
	none := Config{}
	if len(data) > maxFile {
		return none, fmt.Errorf("larger than %d bytes", maxFile)
	}
	top, err := yamlfile.Parse(data, getenv)
	if err != nil {
		return none, err
	}
	c := Config{Keychain: jws.Keychain{}, Scopes: map[string]Scope{}}
	var f configFile
	if top != nil {
		if err := c.validateKeys(top); err != nil {
			return none, err
		}
		empty(top)
		if err := top.Decode(&f); err != nil {
			return none, errors.New(goTypes.ReplaceAllString(err.Error(), ""))
		}
	}
	if len(f.Keychain) > maxSigners || len(f.Scopes) > maxSigners {
		return none, fmt.Errorf("more than %d signers or scopes", maxSigners)
	}
	for _, id := range slices.Sorted(maps.Keys(f.Keychain)) {
		pem, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(strings.Join(strings.Fields(f.Keychain[id].Value), ""), "="))
		if err != nil {
			return none, fmt.Errorf("keychain.%s: the value is not the URL-safe base64 of a PEM file", id)
		}
		key, err := jws.NewKey(f.Keychain[id].Algorithm, pem)
		if err != nil {
			return none, fmt.Errorf("keychain.%s: %w", id, err)
		}
		for other, have := range c.Keychain {
			if public, ok := key.Public.(interface{ Equal(crypto.PublicKey) bool }); ok && public.Equal(have.Public) {
				return none, fmt.Errorf("keychain.%s: it is the key of %s: who has it could sign for both", id, other)
			}
		}
		c.Keychain[id] = key
	}
	for _, name := range slices.Sorted(maps.Keys(f.Scopes)) {
		s := Scope{Permitted: f.Scopes[name].Permitted, Mandatory: f.Scopes[name].Mandatory}
		if len(s.Mandatory) == 0 {
			return none, fmt.Errorf("scopes.%s: mandatory_signers is empty", name)
		}
		s.Permitted = slices.DeleteFunc(s.Permitted, func(id string) bool {
			_, ok := c.Keychain[id]
			if !ok {
				c.warn("scopes.%s: %q has no key in the keychain, so its signatures do not count", name, id)
			}
			return !ok
		})
		for _, id := range s.Mandatory {
			if !slices.Contains(s.Permitted, id) {
				c.warn("scopes.%s: the signature of %q is demanded and does not count, so nobody may call", name, id)
			}
		}
		if !slices.Contains(scopes, name) {
			c.warn("scopes.%s: no call has this scope", name)
		}
		c.Scopes[name] = s
	}
	if err := c.setClaims(&f.JWT, legacy); err != nil {
		return none, err
	}
	slices.Sort(c.Warnings)
	return c, nil
}

// validateKeys refuses keys that look like known ones, and warns of others.
func (c *Config) validateKeys(top *yaml.Node) error {
	return each(top, func(key string, value *yaml.Node) error {
		var below []string
		switch key {
		case "keychain":
			below = fileKeys.key
		case "scopes":
			below = fileKeys.scope
		case "jwt":
			return c.validateNames(value, "jwt.", fileKeys.claims)
		default:
			return c.validateName(key, "", fileKeys.top)
		}
		return each(value, func(id string, entry *yaml.Node) error { return c.validateNames(entry, key+"."+id+".", below) })
	})
}

func (c *Config) validateNames(n *yaml.Node, where string, known []string) error {
	return each(n, func(key string, _ *yaml.Node) error { return c.validateName(key, where, known) })
}

func (c *Config) validateName(key, where string, known []string) error {
	if slices.Contains(known, key) {
		return nil
	}
	if meant := yamlfile.Similar(strings.ToLower(key), known...); meant != "" {
		return fmt.Errorf("unknown key %s%s: %s is meant", where, key, meant)
	}
	c.warn("%s%s: it has no effect, known are %s", where, key, strings.Join(known, ", "))
	return nil
}

// each walks a mapping. What is none is left to the decoder to complain of.
func each(n *yaml.Node, f func(key string, value *yaml.Node) error) error {
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if err := f(n.Content[i].Value, n.Content[i+1]); err != nil {
			return err
		}
	}
	return nil
}

// empty makes nothing of empty lists and mappings, so that either may stand for the other.
func empty(n *yaml.Node) {
	for _, child := range n.Content {
		empty(child)
	}
	if n.Kind != yaml.ScalarNode && yamlfile.Empty(n) {
		*n = yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Line: n.Line, Column: n.Column}
	}
}

func (c *Config) setClaims(f *fileClaims, legacy bool) error {
	claims := &c.Claims
	claims.IgnoreExpiration = f.Expiration != nil && !*f.Expiration
	claims.IgnoreNotBefore = f.NotBefore != nil && !*f.NotBefore
	if (claims.IgnoreExpiration || claims.IgnoreNotBefore) && !legacy {
		return errors.New("jwt: verify_expiration and verify_not_before can be switched off with BARONG_COMPAT=2.4.17 alone")
	}
	claims.IssuedAt, claims.ID = f.IssuedAt, f.ID
	if f.Leeway < 0 || f.Leeway > 3600 {
		return errors.New("jwt.leeway: 0 to 3600 seconds")
	}
	claims.Leeway = time.Duration(f.Leeway) * time.Second
	for _, need := range []struct {
		name  string
		asked bool
		have  bool
	}{
		{"iss", f.Issuer, len(f.Issuers) > 0}, {"aud", f.Audience, len(f.Audiences) > 0}, {"sub", f.Subject, f.Sub != ""},
	} {
		switch {
		case need.asked && !need.have:
			return fmt.Errorf("jwt.%s: needed with verify_%[1]s", need.name)
		case need.have && !need.asked:
			c.warn("jwt.%s: it is not looked at without verify_%[1]s", need.name)
		}
	}
	if f.Issuer {
		claims.Issuers = f.Issuers
	}
	if f.Audience {
		claims.Audience = f.Audiences
	}
	if f.Subject {
		claims.Subject = f.Sub
	}
	return nil
}

func (c *Config) warn(format string, args ...any) {
	c.Warnings = append(c.Warnings, fmt.Sprintf(format, args...))
}

// goTypes are what the YAML library says of this program's own types.
var goTypes = regexp.MustCompile(` (in type|into) management\.\w+`)
