package audit

import (
	"net/url"
	"slices"
	"strings"
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
