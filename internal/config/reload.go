package config

import (
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"barong/internal/crypto/secret"
)

// What a running server takes up of a setting, as the tag "reload" says: "true" is all of it.
const (
	reloadLogin = "login" // of a URL, the user and the password
	reloadKeys  = "keys"  // of a list of keys, further ones
	reloadNo    = "no"    // of a file, nothing: it is read at the start alone
)

// reloads is what the reference says of that.
var reloads = map[string]string{"true": " ↻", reloadLogin: " ↻ (user and password)", reloadKeys: " ↻ (further keys)"}

// Changed are the settings whose values differ in another configuration: those that a running server takes up, and those
// that need a restart.
func (c *Config) Changed(other *Config) (taken, restart []string) {
	a, b := reflect.ValueOf(c).Elem(), reflect.ValueOf(other).Elem()
	for _, s := range declared() {
		before, after := a.Field(s.index).Interface(), b.Field(s.index).Interface()
		if reflect.DeepEqual(before, after) {
			continue
		}
		ok := false
		switch s.tag.Get("reload") {
		case "true":
			ok = true
		case reloadLogin:
			ok = before.(secret.URL).SameButLogin(after.(secret.URL))
		case reloadKeys:
			ok = secret.Extends(after.(secret.Text), before.(secret.Text))
		}
		if ok {
			taken = append(taken, s.title())
		} else {
			restart = append(restart, s.title())
		}
	}
	return taken, restart
}

// Keep puts the values of settings in another configuration in the place of those here.
func (c *Config) Keep(other *Config, names []string) {
	a, b := reflect.ValueOf(c).Elem(), reflect.ValueOf(other).Elem()
	for _, s := range declared() {
		if slices.Contains(names, s.title()) {
			a.Field(s.index).Set(b.Field(s.index))
		}
	}
}

// Files are the files that values came from or that settings name, and folders of templates: what to look at for changes.
// Some may not be there: a default path is only an offer.
func (c *Config) Files() []string {
	var out []string
	if c.ConfigFile != "" {
		out = append(out, c.ConfigFile)
	}
	for _, path := range c.files {
		out = append(out, path)
	}
	if c.MailTemplates != "" {
		out = append(out, c.MailTemplates)
		inside, _ := filepath.Glob(filepath.Join(c.MailTemplates, "*")) // the pattern is a path
		out = append(out, inside...)
	}
	for i := range declared() {
		if s := &declared()[i]; s.tag.Get("reload") == "true" && strings.HasPrefix(s.tag.Get("kind"), "file") {
			out = append(out, c.places(s)...)
		}
	}
	for _, paths := range c.ReadAtStart() {
		out = append(out, paths...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// ReadAtStart are the files that are read at the start alone, by the settings that name them: where each is, or may be later.
func (c *Config) ReadAtStart() map[string][]string {
	out := map[string][]string{}
	for i := range declared() {
		if s := &declared()[i]; s.tag.Get("reload") == reloadNo {
			if places := c.places(s); len(places) > 0 {
				out[s.title()] = places
			}
		}
	}
	return out
}

// places are where the file of a setting is, or would be looked for: a default path is only an offer, and nothing may be there.
func (c *Config) places(s *Setting) []string {
	if path := reflect.ValueOf(c).Elem().Field(s.index).String(); path != "" {
		return []string{path}
	}
	if c.given(s.Name) || s.Default == "" {
		return nil
	}
	places := []string{s.Default}
	if rest, ok := strings.CutPrefix(s.Default, "config/"); ok && c.ConfigFolder != "" {
		places = append(places, filepath.Join(c.ConfigFolder, rest))
	}
	return places
}
