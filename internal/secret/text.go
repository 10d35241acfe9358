package secret

import (
	"fmt"
	"io"
	"log/slog"
	"regexp"
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

var passwordParameter = regexp.MustCompile(`(?i)([?&](?:[a-z_]*(?:password|secret|token|key)))=[^&#]*`)

// String returns the URL without its password. It does not parse the URL: several hosts, as Redis Cluster has them, are
// not one to net/url.
func (u URL) String() string {
	s := string(u)
	if scheme, rest, ok := strings.Cut(s, "://"); ok {
		end := strings.IndexAny(rest, "/?#")
		if end < 0 {
			end = len(rest)
		}
		at := strings.LastIndexByte(rest[:end], '@')
		// A password may hold a bare slash or question mark by mistake: then the last @ of all ends it.
		if last := strings.LastIndexByte(rest, '@'); at < 0 && last >= 0 && strings.ContainsRune(rest[:end], ':') {
			at = last
		}
		if at >= 0 {
			user, _, hasPassword := strings.Cut(rest[:at], ":")
			if hasPassword {
				user += ":" + Mask
			}
			s = scheme + "://" + user + rest[at:]
		}
	}
	return passwordParameter.ReplaceAllString(s, "${1}="+Mask)
}

// Format writes the masked URL for every verb.
func (u URL) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, u.String()) }

// LogValue makes log/slog print the masked URL.
func (u URL) LogValue() slog.Value { return slog.StringValue(u.String()) }

// MarshalText makes encoders print the masked URL.
func (u URL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }
