package management

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"
	"time"
)

// public is the public key of an Ed25519 pair whose private half nobody has.
const public = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n"

const private = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n"

func encoded(pem string) string { return base64.URLEncoding.EncodeToString([]byte(pem)) }

func TestParseConfig(t *testing.T) {
	chain := "keychain:\n  a: {algorithm: EdDSA, value: " + encoded(public) + "}\n"
	c, err := ParseConfig([]byte(chain+"jwt: {verify_iss: true, iss: x, aud: unused, leeway: 5}\n"+
		"scopes:\n  read_users: {permitted_signers: [a], mandatory_signers: [a]}\n  read_odd: {permitted_signers: [a], mandatory_signers: [a]}\n"+
		"  read_labels: {permitted_signers: [a, b], mandatory_signers: [a, b]}\n"), false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := c.Keychain["a"]; !ok || !slices.Equal(c.Scopes["read_users"].Mandatory, []string{"a"}) || !slices.Equal(c.Warnings, []string{
		"jwt.aud: it is not looked at without verify_aud",
		`scopes.read_labels: "b" has no key in the keychain, so its signatures do not count`,
		`scopes.read_labels: the signature of "b" is demanded and does not count, so nobody may call`,
		"scopes.read_odd: no call has this scope",
	}) ||
		!slices.Equal(c.Claims.Issuers, []string{"x"}) || c.Claims.Audience != nil || c.Claims.Leeway != 5*time.Second {
		t.Errorf("%+v", c)
	}
	for _, empty := range []string{
		"", "{}", "keychain: {}\njwt: {}\nscopes: {}\n", "# nothing\n", "keychain: []\njwt: []\nscopes: []\n", "# <%= no_template %>\n",
	} {
		if c, err := ParseConfig([]byte(empty), false, nil); err != nil || len(c.Scopes) > 0 {
			t.Errorf("%q: %+v %v", empty, c, err)
		}
	}
	// Templates that read a variable, and keys of other releases.
	file := "# value: <%= ENV.fetch('ABSENT') %>\nkeychain:\n  a: {algorithm: \"<%= ENV['ALGORITHM'] || 'EdDSA' %>\", value: <%= ENV.fetch('KEY') %>, note: x}\n" +
		"jwt: {verify_iat: <%= ENV.fetch('IAT', false) %>, leeway: <%= ENV['LEEWAY'] %>}\nextra: 1\n" +
		"scopes:\n  read_users: {permitted_signers: [<%= ENV['WHO'] || \"a\" %>], mandatory_signers: [a], required: [a]}\n"
	variables := map[string]string{"KEY": encoded(public), "LEEWAY": "7"}
	c, err = ParseConfig([]byte(file), false, func(name string) (string, bool) { v, ok := variables[name]; return v, ok })
	if err != nil || len(c.Keychain) != 1 || !slices.Equal(c.Scopes["read_users"].Permitted, []string{"a"}) || c.Claims.IssuedAt || c.Claims.Leeway != 7*time.Second {
		t.Errorf("%+v, %v", c, err)
	}
	if len(c.Warnings) != 3 || !strings.HasPrefix(c.Warnings[0], "extra: ") || !strings.HasPrefix(c.Warnings[1], "keychain.a.note: ") || !strings.HasPrefix(c.Warnings[2], "scopes.read_users.required: ") {
		t.Errorf("doubts %q", c.Warnings)
	}
	if _, err := ParseConfig([]byte("jwt: {verify_expiration: false, verify_not_before: false}"), true, nil); err != nil {
		t.Error(err)
	}
	for file, want := range map[string]string{
		"keychain: {a: {algorithm: EdDSA, value: " + encoded(public) + "}, b: {algorithm: EdDSA, value: " + encoded(public) + "}}": "keychain.b: it is the key of a",
		"scope: {}": "unknown key scope: scopes is meant", "jwt: {verify_aut: true}": "unknown key jwt.verify_aut: verify_aud is meant",
		"keychain: {a: {Value: x}}": "unknown key keychain.a.Value: value is meant", "keychain: [1]": "cannot unmarshal", ":\n\t": "line 2", "{}\n---\n{}": "more than one document",
		"keychain:\n  a: <%= ENV.fetch('X') %>":                                "line 2: the variable X is not set",
		"keychain: {a: {algorithm: EdDSA, value: '%'}}":                        "keychain.a: the value is not the URL-safe base64",
		"keychain: {a: {algorithm: EdDSA, value: " + encoded(private) + "}}":   "keychain.a: ",
		"keychain: {a: {algorithm: HS256, value: " + encoded(public) + "}}":    "keychain.a: ",
		"keychain: {a: {algorithm: RS256, value: " + encoded(public) + "}}":    "keychain.a: ",
		"keychain: {a: {value: " + encoded(public) + "}}":                      "keychain.a: ",
		chain + "scopes: {s: {permitted_signers: [a]}}":                        "scopes.s: mandatory_signers is empty",
		chain + "scopes: {s: {permitted_signers: [a], mandatory_signers: []}}": "scopes.s: mandatory_signers is empty",
		chain + "scopes: {s: {permitted_signers: [a], mandatory_signers: {}}}": "scopes.s: mandatory_signers is empty",
		chain + "scopes: {s: {permitted_signers: [a], mandatory_signer: [a]}}": "unknown key scopes.s.mandatory_signer: mandatory_signers is meant",
		"jwt: {verify_iss: true}":                                              "jwt.iss: needed",
		"jwt: {verify_aud: true}":                                              "jwt.aud: needed",
		"jwt: {verify_sub: true}":                                              "jwt.sub: needed",
		"jwt: {leeway: -1}":                                                    "jwt.leeway",
		"jwt: {leeway: 3601}":                                                  "jwt.leeway",
		"jwt: {verify_expiration: false}":                                      "BARONG_COMPAT=2.4.17",
		"jwt: {verify_not_before: false}":                                      "BARONG_COMPAT=2.4.17",
		strings.Repeat("#", maxFile+1):                                         "larger than",
	} {
		if _, err := ParseConfig([]byte(file), false, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80q: %v, want %q", file, err, want)
		}
	}
}

func FuzzReadClaims(f *testing.F) {
	for _, seed := range []string{
		`{"exp":1,"nbf":1.5,"iat":1e3,"jti":"x","iss":"a","sub":"b","aud":["c"],"method":"POST","path":"/x","data":{"a":1}}`,
		`{"aud":"c","data": {}}`, `{"exp":null,"data":null}`, `{"exp":-1}`, `{"exp":1e400}`, `{"data":[]}`, `{"jti":1}`, `[]`, `{"exp":1,"exp":2}`, `{"aud":1}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		c, err := readClaims(payload, &Claims{IssuedAt: true, ID: true, Issuers: []string{"a"}, Subject: "b", Audience: []string{"c"}})
		if err != nil {
			return
		}
		if c.Data != nil && (c.Data[0] != '{' || c.Data[len(c.Data)-1] != '}') {
			t.Errorf("data %q", c.Data)
		}
		for _, n := range []*number{c.Expires, c.NotBefore, c.IssuedAt} {
			if n != nil && (n.Unix() < 0 || n.Unix() > 1e11) {
				t.Errorf("time %v", n)
			}
		}
	})
}
