// Package config owns the configuration: Config declares every setting once, Load lays flags, environment, file and
// defaults over each other and remembers where each value came from, Validate refuses combinations that are unsafe, and
// Reference writes docs/configuration.md.
//
// It depends on the standard library, a YAML parser, and packages secret and yamlfile. It opens no connection and starts nothing.
package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"barong/internal/crypto/secret"
)

// DataFolder is where the program keeps what it writes by itself: the embedded database, generated keys, the outbox of
// mails and messages, uploaded files. It is below the working folder.
const DataFolder = "data"

// SecretKeyFile is where a generated secret key is kept in development.
const SecretKeyFile = DataFolder + "/secret.key"

// An Error lists everything that is wrong with a configuration: one line each, which names the variable, the value
// (masked if it is a secret) and what is allowed.
type Error struct{ Problems []string }

func (e *Error) Error() string { return strings.Join(e.Problems, "\n") }

// Join makes one error of several that are nil or an *Error, with each line once. It is nil when all are.
func Join(errs ...error) error {
	all := new(Error)
	for _, err := range errs {
		if bad, ok := errors.AsType[*Error](err); ok {
			for _, line := range bad.Problems {
				if !slices.Contains(all.Problems, line) {
					all.Problems = append(all.Problems, line)
				}
			}
		}
	}
	if all.Problems == nil {
		return nil
	}
	return all
}

// Bad returns the error of one setting whose value only its user can judge, such as a regular expression. name is the
// variable.
func Bad(name string, value any, allowed string) error {
	return &Error{Problems: []string{problem(name, fmt.Sprint(value), allowed)}}
}

func problem(name, shown, allowed string) string {
	shown = secret.Redact(shown)
	const most = 120
	if len(shown) > most {
		shown = strings.ToValidUTF8(shown[:most], "") + "…"
	}
	return fmt.Sprintf("%s=%q is not allowed: %s", name, shown, allowed)
}

// A Value is one setting as it holds.
type Value struct {
	Name   string // the variable, or the key of the file for what has none
	Text   string // secrets are masked
	Source string // "default", "file", "env" or "flag"
	Origin string // what was read: the variable or alias, the file's path, the flag; empty for a default
}

// Values lists every setting in the order of the reference page.
func (c *Config) Values() []Value { return slices.Clone(c.values) }

// Warnings are one line each: names that nobody knows, settings without effect, and combinations that are allowed but
// hardly meant.
func (c *Config) Warnings() []string { return slices.Clone(c.warnings) }

// Source returns where the value of a variable came from: "default", "file", "env" or "flag".
func (c *Config) Source(name string) string {
	for i := range c.values {
		if c.values[i].Name == name {
			return c.values[i].Source
		}
	}
	return ""
}

// Lookup reads a variable for a template, such as those of a seeds file: the address and password of the first admin
// wherever they were set, any other from the environment that Load was given.
func (c *Config) Lookup(name string) (value string, ok bool) {
	switch name {
	case "ADMIN_EMAIL":
		return c.AdminEmail, c.given(name)
	case "ADMIN_PASSWORD":
		return c.AdminPassword.Reveal(), c.given(name)
	}
	value, ok = c.env[name]
	return value, ok
}

// Refused reports that what was given for a setting is refused: its field then has the zero value.
func (c *Config) Refused(name string) bool { return c.bad[name] }

// SecretFile is the file that a secret setting was read from, or empty. name is the variable without _FILE.
func (c *Config) SecretFile(name string) string { return c.files[name] }

func (c *Config) given(name string) bool { return c.Source(name) != fromDefault }

// Production reports BARONG_ENV=production.
func (c *Config) Production() bool { return c.Env == "production" }

// Original reports BARONG_COMPAT=2.4.17: statuses and bodies as the original's last release sent them.
func (c *Config) Original() bool { return c.Compat == "2.4.17" }

// SignIn is the portal's page for signing in.
const SignIn = "/accounts/signin"

// HasPortal reports that the pages for people are served.
func (c *Config) HasPortal() bool { return c.Portal == "on" }

// HasConsole reports that the pages for staff are served.
func (c *Config) HasConsole() bool { return c.HasPortal() && c.Console == "on" }

// InPlaceOfPages reports that the API is published where the pages for people would be: then there are none.
func (c *Config) InPlaceOfPages() bool {
	first, _, _ := strings.Cut(c.APIPrefix, "/")
	return first == "accounts" || first == "console"
}

// OwnLogin reports that browsers are sent to the portal's page because nobody has said where to.
func (c *Config) OwnLogin() bool { return c.HasPortal() && !c.given("BARONG_LOGIN_URL") }

// GeneratedKeys reports that no signing key was named, so that one is generated at JWTPrivateKeyPath.
func (c *Config) GeneratedKeys() bool { return !c.given("BARONG_JWT_PRIVATE_KEY_PATH") }

// LongestToken is how long after its issue the longest-lived token may still be accepted.
func (c *Config) LongestToken() time.Duration {
	return max(c.JWTExpireTime, c.MailTokenExpireTime) + c.JWTExpirationLeeway
}

// BrokerURL is the message broker for events, or empty when none is set.
func (c *Config) BrokerURL() secret.URL {
	if c.EventURL != "" {
		return c.EventURL
	}
	set := false
	for _, part := range []string{"HOST", "PORT", "USERNAME", "PASSWORD"} {
		set = set || c.given("BARONG_EVENT_API_RABBITMQ_"+part)
	}
	if !set {
		return ""
	}
	u := url.URL{
		Scheme: "amqp", User: url.UserPassword(c.EventUsername, c.EventPassword.Reveal()),
		Host: net.JoinHostPort(c.EventHost, c.EventPort), Path: "/",
	}
	return secret.URL(u.String())
}
