// Package obs is what operators look at: the log, the metrics, the listener that serves both with the probes, and what
// this build is. It decides nothing, and knows neither the database nor Redis: whoever has a part to watch registers it.
package obs

import (
	"context"
	"io"
	"log/slog"
	"os"
	"strings"

	"barong/internal/reqid"

	"github.com/mattn/go-isatty"
)

// NewLog returns a logger on w. level is "debug", "info", "warn" or "error"; format is "json", "text" or "auto", which is
// text on a terminal and JSON elsewhere. Attributes that are named like a secret print as ***, whatever their value.
func NewLog(w io.Writer, level, format string) *slog.Logger {
	return NewLogAt(w, Level(level), format)
}

// NewLogAt is NewLog at a level that may change, such as a *slog.LevelVar.
func NewLogAt(w io.Writer, level slog.Leveler, format string) *slog.Logger {
	o := &slog.HandlerOptions{Level: level, ReplaceAttr: redact}
	if format == "text" || format == "auto" && terminal(w) {
		return slog.New(named{slog.NewTextHandler(w, o)})
	}
	return slog.New(named{slog.NewJSONHandler(w, o)})
}

// named says in each line which request and trace its context belongs to, if it belongs to one.
type named struct{ slog.Handler }

// Handle implements slog.Handler.
func (h named) Handle(ctx context.Context, r slog.Record) error {
	if id := reqid.From(ctx); id != "" {
		r.AddAttrs(slog.String("request_id", id))
	}
	if id := reqid.Trace(ctx); id != "" {
		r.AddAttrs(slog.String("trace_id", id))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h named) WithAttrs(attrs []slog.Attr) slog.Handler { return named{h.Handler.WithAttrs(attrs)} }

// WithGroup implements slog.Handler.
func (h named) WithGroup(name string) slog.Handler { return named{h.Handler.WithGroup(name)} }

// Level is the level of a word.
func Level(word string) slog.Level {
	switch word {
	case "debug":
		return slog.LevelDebug
	case "warn":
		return slog.LevelWarn
	case "error":
		return slog.LevelError
	}
	return slog.LevelInfo
}

// Terminal reports whether w is a terminal, before which somebody may sit.
func Terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// terminal reports whether w is a terminal, or at least a device that is no file.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// secretNames are the names of attributes that hold what nobody may read in a log, in lower case without "_" and "-".
var secretNames = map[string]bool{
	"authorization": true, "proxyauthorization": true, "cookie": true, "setcookie": true, "password": true,
	"passworddigest": true, "newpassword": true, "oldpassword": true, "confirmpassword": true, "token": true, "jwt": true,
	"secret": true, "secretkey": true, "privatekey": true, "signature": true, "csrf": true, "xcsrftoken": true, "otp": true,
	"otpcode": true, "verificationcode": true, "nonce": true, "xauthsignature": true, "captcharesponse": true, "session": true,
	"sessionid": true, "sid": true, "query": true,
}

// redact masks by name. A name that ends in _token, _password, _secret or _key is a secret too.
func redact(_ []string, a slog.Attr) slog.Attr {
	name := strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(a.Key))
	if !secretNames[name] {
		secret := false
		for _, end := range []string{"token", "password", "secret", "secretkey", "privatekey", "cookie"} {
			secret = secret || strings.HasSuffix(name, end)
		}
		if !secret {
			return a
		}
	}
	if v := a.Value.Resolve(); v.Kind() == slog.KindString && v.String() == "" {
		return a
	}
	return slog.String(a.Key, "***")
}
