package webhooks

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"barong/internal/crypto/secret"
	"barong/internal/trusted"
	"barong/internal/yamlfile"
)

// A Config says who is told what. The zero value tells nobody.
type Config struct {
	Receivers []Receiver
	Networks  trusted.Proxies // where receivers may be that have no public address
	Files     []string        // of secrets, that the file of receivers names
}

// A Receiver is told of events.
type Receiver struct {
	Name    string
	Secrets []secret.Text // the first is the receiver's; further ones are for the time of a change
	Events  []string      // names, or their beginnings before a *; all when empty

	url *url.URL
}

// wants reports whether the receiver is told of an event.
func (r *Receiver) wants(name string) bool {
	return len(r.Events) == 0 || slices.ContainsFunc(r.Events, func(pattern string) bool {
		prefix, open := strings.CutSuffix(pattern, "*")
		return name == pattern || open && strings.HasPrefix(name, prefix)
	})
}

// Bounds of the file.
const (
	maxFile      = 1 << 20 // bytes
	maxReceivers = 20      // each costs a row for each event
	maxSecrets   = 4
)

// The file as it is written.
type (
	configFile struct {
		Webhooks []fileReceiver `yaml:"webhooks"`
		Networks []string       `yaml:"networks"`
	}
	fileReceiver struct {
		Name       string   `yaml:"name"`
		URL        string   `yaml:"url"`
		Secret     string   `yaml:"secret"`
		SecretFile string   `yaml:"secret_file"`
		Events     []string `yaml:"events"`
	}
)

var (
	receiverName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,39}$`)
	eventPattern = regexp.MustCompile(`^(\*|(model|system)\.[a-z_.]*\*?)$`)
)

// ParseConfig reads a file of receivers, with templates that read variables (see package yamlfile). Errors hold no secret. getenv
// may be nil.
func ParseConfig(text []byte, getenv func(string) (string, bool)) (*Config, error) {
	c := &Config{}
	if len(text) > maxFile {
		return nil, fmt.Errorf("larger than %d bytes", maxFile)
	}
	top, err := yamlfile.Parse(text, getenv)
	if err != nil || top == nil {
		return c, err
	}
	var f configFile
	var plain bytes.Buffer // written anew, since only a decoder of text knows of unknown keys
	if err := yaml.NewEncoder(&plain).Encode(top); err != nil {
		return nil, err
	}
	dec := yaml.NewDecoder(&plain)
	dec.KnownFields(true)
	if err := dec.Decode(&f); err != nil {
		return nil, errors.New(strings.Join(strings.Fields(strings.TrimPrefix(err.Error(), "yaml: ")), " "))
	}
	if c.Networks, err = trusted.Parse(strings.Join(f.Networks, ",")); err != nil {
		return nil, fmt.Errorf("networks: %s", strings.ReplaceAll(err.Error(), "trusted proxy ", ""))
	}
	if len(f.Webhooks) > maxReceivers {
		return nil, fmt.Errorf("more than %d receivers", maxReceivers)
	}
	for i := range f.Webhooks {
		r, err := f.Webhooks[i].receiver()
		if err != nil {
			return nil, fmt.Errorf("receiver %d (%s): %w", i+1, f.Webhooks[i].Name, err)
		}
		for _, other := range c.Receivers {
			if other.Name == r.Name {
				return nil, fmt.Errorf("two receivers are named %s", r.Name)
			}
		}
		c.Receivers = append(c.Receivers, r)
		if file := f.Webhooks[i].SecretFile; file != "" {
			c.Files = append(c.Files, file)
		}
	}
	return c, nil
}

func (f *fileReceiver) receiver() (Receiver, error) {
	r := Receiver{Name: f.Name, Events: f.Events}
	if !receiverName.MatchString(f.Name) {
		f.Name = "without a name" // it may be a mistyped secret
		return r, errors.New("its name is 1 to 40 small letters, digits, - and _")
	}
	var err error
	if r.url, err = url.Parse(f.URL); err != nil || r.url.Scheme != "https" && r.url.Scheme != "http" || r.url.Host == "" || r.url.User != nil {
		return r, errors.New("its url is https://host/path, without a user")
	}
	text := f.Secret
	if f.SecretFile != "" {
		if text != "" {
			return r, errors.New("secret and secret_file are both there: keep one of them")
		}
		file, err := os.ReadFile(f.SecretFile)
		if err != nil {
			return r, fmt.Errorf("secret_file: %w", err)
		}
		text = string(file)
	}
	for _, one := range strings.FieldsFunc(text, func(c rune) bool { return c == ',' || c == ' ' || c == '\n' || c == '\r' || c == '\t' }) {
		if _, err := key(secret.Text(one)); err != nil {
			return r, err
		}
		r.Secrets = append(r.Secrets, secret.Text(one))
	}
	if len(r.Secrets) == 0 || len(r.Secrets) > maxSecrets {
		return r, fmt.Errorf("it needs one to %d secrets, separated by commas", maxSecrets)
	}
	for _, pattern := range f.Events {
		if !eventPattern.MatchString(pattern) {
			return r, fmt.Errorf("no event is named like %.60q: names are such as model.user.updated, or the beginning of some before a *", pattern)
		}
	}
	return r, nil
}
