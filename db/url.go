package db

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"

	"barong/internal/crypto/secret"
)

// Forms of URL, for errors.
const (
	sqliteForms   = "sqlite:path, sqlite://path, or sqlite:///path for one that begins with a slash, percent-encoded where it must be"
	postgresForms = "postgres://user:password@host/database"
)

// ValidateURL says what is wrong with the URL of a database. It opens nothing, and the error has nothing of a password.
func ValidateURL(raw string) error {
	if strings.HasPrefix(raw, "sqlite:") {
		_, err := SQLitePath(raw)
		return err
	}
	_, err := postgresConfig(raw)
	return err
}

// SQLitePath is the file that a URL of SQLite names, or empty for a URL of another database. The error says what is wrong
// with the URL, and what is allowed.
func SQLitePath(raw string) (string, error) {
	path, ok := strings.CutPrefix(raw, "sqlite:")
	if !ok {
		return "", nil
	}
	path = strings.TrimPrefix(path, "//")
	if strings.Contains(path, "?") {
		return "", errors.New("a URL of SQLite takes no options after a question mark: the program sets them itself; a question mark in a name is written %3F; allowed is " + sqliteForms)
	}
	path, err := url.PathUnescape(path)
	if err != nil {
		return "", errors.New("a percent sign that begins no escape is written %25; allowed is " + sqliteForms)
	}
	switch {
	case filepath.Base(filepath.Clean(path)) == ":memory:":
		return "", errors.New(":memory: would forget everything at each stop, and its connections would not see each other's rows: name a file; allowed is " + sqliteForms)
	case strings.Trim(path, "/") == "" || strings.HasSuffix(path, "/"):
		return "", errors.New("it names no file; allowed is " + sqliteForms)
	case strings.ContainsRune(path, 0):
		return "", errors.New("a name of a file has no zero byte; allowed is " + sqliteForms)
	}
	path = filepath.Clean(path)
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return "", errors.New("it is a folder: name a file in it; allowed is " + sqliteForms)
	}
	return path, nil
}

// postgresConfig reads a URL of Postgres.
func postgresConfig(raw string) (*pgx.ConnConfig, error) {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok || scheme != "postgres" && scheme != "postgresql" {
		return nil, errors.New("the URL begins neither with sqlite: nor with postgres://")
	}
	// What readers of URLs do not agree on: where the password ends when it has one of these as it is.
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	malformed := errors.New("it cannot be read: percent-encode what is not a letter or digit in the user and the password (@ is " +
		"%40, / is %2F, ? is %3F, # is %23); allowed is " + postgresForms)
	if strings.Contains(rest[end:], "@") || strings.Contains(rest, "#") {
		return nil, malformed
	}
	if u, err := url.Parse(raw); err != nil || u.Path != "" && strings.Contains(u.Path[1:], "/") {
		return nil, malformed
	}
	cfg, err := pgx.ParseConfig(raw)
	if err != nil {
		// The cause is behind the driver's copy of the URL, which is not masked as well as it should be.
		_, cause, _ := strings.Cut(err.Error(), "`: ")
		return nil, fmt.Errorf("it cannot be used: %s", withoutPassword(errors.New(cause), raw))
	}
	return cfg, nil
}

// withoutPassword keeps a URL's password, escaped or not, out of a driver's message.
func withoutPassword(err error, raw string) error {
	text := strings.ReplaceAll(err.Error(), raw, secret.Redact(raw))
	if u, perr := url.Parse(raw); perr == nil {
		var words []string
		if u.User != nil {
			p, _ := u.User.Password()
			words = append(words, p, strings.TrimPrefix(u.User.String(), url.PathEscape(u.User.Username())+":"))
		}
		for name, values := range u.Query() {
			if strings.Contains(strings.ToLower(name), "pass") {
				words = append(words, values...)
			}
		}
		for _, word := range words {
			if word != "" {
				text = strings.ReplaceAll(text, word, secret.Mask)
			}
		}
	}
	if text == err.Error() {
		return err
	}
	return errors.New(text)
}
