package secret

import (
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"slices"
	"strings"
)

// Mask stands for a secret wherever it would be printed.
const Mask = "***"

// A Text is a secret: a password, a token, a key. It prints as *** in whatever way it is printed, logged or encoded;
// only Reveal gives it away. The empty Text prints as nothing, so that "not set" can be told from "set".
type Text string

// Reveal returns the secret itself.
func (t Text) Reveal() string { return string(t) }

// String returns the mask.
func (t Text) String() string {
	if t == "" {
		return ""
	}
	return Mask
}

// Format writes the mask for every verb, also those that would otherwise show the bytes.
func (t Text) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, t.String()) }

// LogValue makes log/slog print the mask.
func (t Text) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalText makes encoders print the mask.
func (t Text) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// A URL is a URL that may hold a password, in its user part or as a parameter. It prints with the password masked; only
// Reveal gives the whole.
type URL string

// Reveal returns the URL with its password.
func (u URL) Reveal() string { return string(u) }

// String returns the URL without its password. See Redact.
func (u URL) String() string { return Redact(string(u)) }

var (
	// secretParameter begins a parameter that holds a password or the like, of a URL or of a text that some drivers take in
	// the place of one: "host=h password=p", "h:6379,password=p". What follows it to the end is taken for its value: an
	// unescaped & may be part of that.
	secretParameter = regexp.MustCompile(`(?is)((?:^|[?&;#,\s])[a-z0-9_.\-]*(?:pass|pwd|secret|token|key|sig|auth|cred)[a-z0-9_.\-]*\s*)=.*`)
	// plainHosts are one or several hosts with or without ports, and nothing else.
	plainHosts = regexp.MustCompile(`^(?:\[[0-9A-Fa-f:.%]*\]|[^:@\[\]\s]*)(?::[0-9]{0,5})?$`)
	// bareLogin is a login in front of a host, where the scheme was forgotten.
	bareLogin = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]*:/?)?[^\s@]*:[^@]*@`)
)

// namedUsers are the schemes in which a user part without a password is a name. In others it may be a token.
var namedUsers = map[string]bool{"postgres": true, "postgresql": true, "mysql": true, "mysql2": true, "smtp": true, "smtps": true}

// Redact returns text for people to see: a URL in it loses the password of its user part and of its parameters, whether it
// is well-formed or not. What may be part of a password is masked, so that of a malformed URL little may be left. Text that
// has nothing of a URL stays as it is.
func Redact(text string) string {
	at := strings.Index(text, "://")
	if at < 0 {
		if bareLogin.MatchString(text) {
			last := strings.LastIndexByte(text, '@')
			if secretParameter.MatchString(text[:last]) {
				return Mask
			}
			text = Mask + text[last:]
		}
		return secretParameter.ReplaceAllString(text, "${1}="+Mask)
	}
	scheme, rest := text[:at], text[at+len("://"):]
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	// A password may hold a bare slash, question mark or @ by mistake: the last @ of all ends it.
	if last := strings.LastIndexByte(rest, '@'); last >= 0 {
		user, rest, login := rest[:last], rest[last:], Mask
		if secretParameter.MatchString(user) { // the @ may be in the parameter
			return scheme + "://" + Mask
		}
		if name, _, hasPassword := strings.Cut(user, ":"); hasPassword && !strings.ContainsAny(name, "/?#@,") {
			login = name + ":" + Mask
		} else if !hasPassword && namedUsers[scheme] && !strings.ContainsAny(user, "/?#@,") {
			login = user
		}
		return scheme + "://" + login + secretParameter.ReplaceAllString(rest, "${1}="+Mask)
	}
	for host := range strings.SplitSeq(rest[:end], ",") {
		if host = strings.TrimSpace(host); scheme != "sqlite" && !plainHosts.MatchString(host) { // the host was forgotten, and it is a login
			return scheme + "://" + Mask
		}
	}
	return scheme + "://" + secretParameter.ReplaceAllString(rest, "${1}="+Mask)
}

// logins are the parameters of a URL that say who logs in.
var logins = []string{"user", "password"}

// SameButLogin reports whether two URLs lead to the same place, whoever logs in there: they differ in the user, the password, and
// parameters for these at most.
func (u URL) SameButLogin(other URL) bool {
	return withoutLogin(string(u)) == withoutLogin(string(other))
}

func withoutLogin(text string) string {
	scheme, rest, _ := strings.Cut(text, "://")
	rest, query, _ := strings.Cut(rest, "?")
	rest = rest[strings.LastIndexByte(rest, '@')+1:]
	var kept []string
	for parameter := range strings.SplitSeq(query, "&") {
		if name, _, _ := strings.Cut(parameter, "="); !slices.Contains(logins, name) && parameter != "" {
			kept = append(kept, parameter)
		}
	}
	return scheme + "://" + rest + "?" + strings.Join(kept, "&")
}

// Format writes the masked URL for every verb.
func (u URL) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, u.String()) }

// LogValue makes log/slog print the masked URL.
func (u URL) LogValue() slog.Value { return slog.StringValue(u.String()) }

// MarshalText makes encoders print the masked URL.
func (u URL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }
