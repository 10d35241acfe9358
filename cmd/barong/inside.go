package main

import (
	"slices"
	"strings"

	"barong/internal/config"
)

// secretVariable reports whether a variable holds, or may hold, a secret: a setting that is one, and whatever has a name as
// such things have, for an original's variables that are not used.
func secretVariable(name string) bool {
	for _, s := range config.Settings() {
		if s.FromFile && (s.Name == name || slices.Contains(s.Aliases, name)) {
			return true
		}
	}
	for _, end := range []string{"PASSWORD", "PASS", "SECRET", "TOKEN", "_KEY", "_URL", "_HEADERS"} {
		if strings.HasSuffix(strings.ToUpper(name), end) {
			return true
		}
	}
	return false
}

// secretFlag is secretVariable for a flag, without its dashes.
func secretFlag(name string) bool {
	return slices.ContainsFunc(config.Settings(), func(s config.Setting) bool { return s.FromFile && s.Flag == name })
}
