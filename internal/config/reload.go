package config

import (
	"path/filepath"
	"reflect"
	"slices"
)

// Changed are the settings whose values differ in another configuration: those that a running server takes up, and those
// that need a restart.
func (c *Config) Changed(other *Config) (taken, restart []string) {
	a, b := reflect.ValueOf(c).Elem(), reflect.ValueOf(other).Elem()
	for _, s := range declared() {
		if reflect.DeepEqual(a.Field(s.index).Interface(), b.Field(s.index).Interface()) {
			continue
		}
		if s.tag.Get("reload") == "true" {
			taken = append(taken, s.title())
		} else {
			restart = append(restart, s.title())
		}
	}
	return taken, restart
}

// Files are the files that values came from, and folders of templates: what to look at for changes.
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
	slices.Sort(out)
	return out
}
