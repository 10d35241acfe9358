package audit

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"unicode"
)

// Redacted stands for a secret in what is recorded.
const Redacted = "[REDACTED]"

// A name that holds one of these is a secret's: reset_password_token, captcha_response, client_secret.
var secretParts = []string{
	"password", "passwd", "passphrase", "passcode", "secret", "token", "captcha", "credential", "private_key", "privatekey",
	"signature", "otp_code", "otpcode", "totp", "verification_code", "confirmation_code", "recovery_code", "backup_code",
	"auth_code", "sms_code", "access_key", "accesskey", "api_key_value", "authorization", "cookie", "mnemonic",
}

// A name, or the last word of one as in user[code], that is one of these is a secret's.
var secretWords = []string{
	"code", "codes", "pwd", "pass", "pin", "cvv", "cvc", "otp", "jwt", "seed",
	"challenge", "validate", "seccode",
}

// Secret reports whether a parameter of this name holds what must not be recorded: a password, code, token or key. It
// sees through letter case, brackets and percent escapes in the name.
func Secret(name string) bool {
	for range 3 { // a service behind may decode again
		plain, err := url.QueryUnescape(name)
		if err != nil || plain == name {
			break
		}
		name = plain
	}
	name = strings.NewReplacer("-", "_", " ", "_", ".", "_", "+", "_").Replace(strings.ToLower(name))
	for _, part := range secretParts {
		if strings.Contains(name, part) || strings.Contains(strings.ReplaceAll(name, "_", ""), part) {
			return true
		}
	}
	words := strings.FieldsFunc(name, func(r rune) bool { return r == '[' || r == ']' || r == ':' || r == '/' })
	return len(words) > 0 && slices.Contains(secretWords, words[len(words)-1])
}

// redact takes the secrets out of a parameter, those within a JSON value too.
func redact(name string, value any) any {
	if Secret(name) {
		if flag(name, value) {
			return value
		}
		return Redacted
	}
	switch v := value.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, inner := range v {
			out[k] = redact(k, inner)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, inner := range v {
			out[i] = redact("", inner)
		}
		return out
	}
	return value
}

// flag tells the switch otp of the admin API, whose change is what the record is about, from a code.
func flag(name string, value any) bool {
	if name != "otp" {
		return false
	}
	switch v := value.(type) {
	case bool:
		return true
	case string:
		return v == "true" || v == "false"
	}
	return false
}

// RedactText takes the secrets out of the text of a JSON value, those in texts that hold JSON themselves too, and leaves all
// the rest as it stands. A text that is no JSON, but has a secret's name in it, is not kept: nobody can tell where the secret
// ends. It reports what it did.
func RedactText(text string) (out string, redacted, unreadable bool) {
	out, redacted, ok := redactText(text, 0)
	if ok {
		return out, redacted, false
	}
	word := func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '_' && r != '-' }
	for name := range strings.FieldsFuncSeq(text, word) {
		if Secret(name) {
			return fmt.Sprintf("[unreadable: %d bytes]", len(text)), false, true
		}
	}
	return text, false, false
}

// maxNesting is how deep a recorded value is looked into.
const maxNesting = 64

func redactText(text string, depth int) (out string, redacted, ok bool) {
	if depth > maxNesting {
		return "", false, false
	}
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	first, err := dec.Token()
	if err != nil {
		return "", false, false
	}
	var b strings.Builder
	kept := 0
	replace := func(from, to int, by string) {
		b.WriteString(text[kept:from])
		b.WriteString(by)
		kept, redacted = to, true
	}
	switch first := first.(type) {
	case string:
		to := int(dec.InputOffset())
		from := strings.IndexByte(text, '"')
		if inner := strings.TrimSpace(first); strings.HasPrefix(inner, "{") || strings.HasPrefix(inner, "[") {
			if plain, changed, isJSON := redactText(first, depth+1); isJSON && changed {
				replace(from, to, string(encode(plain)))
			}
		}
	case json.Delim:
		for dec.More() {
			name := ""
			if first == '{' {
				key, err := dec.Token()
				if err != nil {
					return "", false, false
				}
				name, _ = key.(string)
			}
			var raw json.RawMessage
			if err := dec.Decode(&raw); err != nil {
				return "", false, false
			}
			to := int(dec.InputOffset())
			from := to - len(raw)
			if Secret(name) {
				var v any
				if json.Unmarshal(raw, &v) != nil || !flag(name, v) {
					replace(from, to, `"`+Redacted+`"`)
				}
				continue
			}
			inner, changed, isJSON := redactText(string(raw), depth+1)
			if !isJSON {
				return "", false, false
			}
			if changed {
				replace(from, to, inner)
			}
		}
		if _, err := dec.Token(); err != nil {
			return "", false, false
		}
	}
	if _, err := dec.Token(); err != io.EOF {
		return "", false, false
	}
	b.WriteString(text[kept:])
	return b.String(), redacted, true
}
