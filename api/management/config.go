package management

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"barong/internal/jws"
)

// A Config says who may sign for what. The zero value lets nobody sign for anything.
type Config struct {
	Keychain jws.Keychain
	Claims   Claims
	Scopes   map[string]Scope
	// Doubts say what in the file lets nobody more in, and still is not what its author meant.
	Doubts []string
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

// ParseConfig reads a management_api.yml (gateway.md 17.3, management.md 1.1). What would quietly let more through than its
// author meant is an error: a misspelt key, a template (the original expanded ERB), a private key, one key of two signers, a
// scope that demands nobody. legacy allows the switches that the safer rules about claims leave no room for.
func ParseConfig(data []byte, legacy bool) (Config, error) {
	none := Config{}
	if len(data) > maxFile {
		return none, fmt.Errorf("larger than %d bytes", maxFile)
	}
	if at := bytes.Index(data, []byte("<%")); at >= 0 {
		return none, fmt.Errorf("line %d: templates (<%% %%>) are not expanded", 1+bytes.Count(data[:at], []byte("\n")))
	}
	var f configFile
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&f); err != nil && !errors.Is(err, io.EOF) {
		return none, errors.New(goTypes.ReplaceAllString(err.Error(), ""))
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return none, errors.New("more than one document")
	}
	if len(f.Keychain) > maxSigners || len(f.Scopes) > maxSigners {
		return none, fmt.Errorf("more than %d signers or scopes", maxSigners)
	}
	c := Config{Keychain: jws.Keychain{}, Scopes: map[string]Scope{}}
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
				c.doubt("scopes.%s: %q has no key in the keychain, so its signatures do not count", name, id)
			}
			return !ok
		})
		for _, id := range s.Mandatory {
			if !slices.Contains(s.Permitted, id) {
				c.doubt("scopes.%s: the signature of %q is demanded and does not count, so nobody may call", name, id)
			}
		}
		if !slices.Contains(scopes, name) {
			c.doubt("scopes.%s: no call has this scope", name)
		}
		c.Scopes[name] = s
	}
	if err := c.setClaims(&f.JWT, legacy); err != nil {
		return none, err
	}
	slices.Sort(c.Doubts)
	return c, nil
}

func (config *Config) setClaims(f *fileClaims, legacy bool) error {
	c := &config.Claims
	c.IgnoreExpiration = f.Expiration != nil && !*f.Expiration
	c.IgnoreNotBefore = f.NotBefore != nil && !*f.NotBefore
	if (c.IgnoreExpiration || c.IgnoreNotBefore) && !legacy {
		return errors.New("jwt: verify_expiration and verify_not_before can be switched off with BARONG_COMPAT=2.4.17 alone")
	}
	c.IssuedAt, c.ID = f.IssuedAt, f.ID
	if f.Leeway < 0 || f.Leeway > 3600 {
		return errors.New("jwt.leeway: 0 to 3600 seconds")
	}
	c.Leeway = time.Duration(f.Leeway) * time.Second
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
			config.doubt("jwt.%s: it is not looked at without verify_%[1]s", need.name)
		}
	}
	if f.Issuer {
		c.Issuers = f.Issuers
	}
	if f.Audience {
		c.Audience = f.Audiences
	}
	if f.Subject {
		c.Subject = f.Sub
	}
	return nil
}

func (c *Config) doubt(format string, args ...any) {
	c.Doubts = append(c.Doubts, fmt.Sprintf(format, args...))
}

// goTypes are what the YAML library says of this program's own types.
var goTypes = regexp.MustCompile(` (in type|into) management\.\w+`)
