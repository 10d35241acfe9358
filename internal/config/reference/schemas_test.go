package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dlclark/regexp2"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"barong/api/management"
	"barong/db"
	"barong/internal/config"
	"barong/internal/crypto/jws/jwstest"
	"barong/internal/delivery/mail"
	"barong/internal/delivery/mailer"
	"barong/internal/delivery/webhooks"
	"barong/internal/openid"
	"barong/internal/seed"
	"barong/internal/test/dbtest"
	"barong/internal/test/testkit"
	"barong/policy"
)

// TestGenerated holds that what is generated of the documentation is what the declarations say now.
func TestGenerated(t *testing.T) {
	files, err := pages()
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(testkit.Root(t), "docs")
	for name, want := range files {
		if text, err := os.ReadFile(filepath.Join(folder, name)); err != nil || !bytes.Equal(text, want) {
			t.Errorf("docs/%s is stale: run \"make docs\" (%v)", name, err)
		}
	}
	there, err := filepath.Glob(filepath.Join(folder, "schemas", "*.json"))
	if err != nil || len(there) != len(files)-1 {
		t.Errorf("docs/schemas has %v", there)
	}
}

// The patterns of schemas are those of JavaScript.
type pattern struct{ *regexp2.Regexp }

func (p pattern) MatchString(s string) bool {
	ok, err := p.Regexp.MatchString(s)
	return ok && err == nil
}

// compiled are the schemas as a library of JSON schemas understands them.
func compiled(t *testing.T) map[string]*jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.UseRegexpEngine(func(text string) (jsonschema.Regexp, error) {
		re, err := regexp2.Compile(text, regexp2.ECMAScript)
		return pattern{re}, err
	})
	files, err := pages()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*jsonschema.Schema{}
	for name := range schemas() {
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(files["schemas/"+name+".json"]))
		if err == nil {
			err = c.AddResource("file:///"+name+".json", doc)
		}
		if err == nil {
			out[name], err = c.Compile("file:///" + name + ".json") // by the schema of schemas, too
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return out
}

// valid says what a schema finds wrong in a YAML file.
func valid(s *jsonschema.Schema, text string) error {
	var value any
	if err := yaml.Unmarshal([]byte(text), &value); err != nil {
		return err
	}
	asJSON, err := json.Marshal(value)
	if err != nil {
		return err
	}
	if value, err = jsonschema.UnmarshalJSON(bytes.NewReader(asJSON)); err != nil {
		return err
	}
	return s.Validate(value)
}

// indented is the part of a page that begins with a line, as it is indented there.
func indented(t *testing.T, page, begin string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(testkit.Root(t), page))
	if err != nil {
		t.Fatal(err)
	}
	_, part, found := strings.Cut(string(text), "\n    "+begin+"\n")
	if !found {
		t.Fatalf("%s shows no %q", page, begin)
	}
	part, _, _ = strings.Cut(part, "\n\n")
	return begin + "\n" + strings.ReplaceAll(strings.TrimPrefix(part, "    "), "\n    ", "\n") + "\n"
}

// TestSchemas holds the schemas to the program: what a page shows or a file of the repository says passes both, and what is
// broken passes neither.
func TestSchemas(t *testing.T) {
	all := compiled(t)
	folder := t.TempDir()
	getenv := func(string) (string, bool) { return "whsec_MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3A=", true }
	letters, err := mail.NewRenderer(mail.RendererOptions{Brand: "Exchange", Domain: "exchange.test", DefaultLanguage: "en"})
	if err != nil {
		t.Fatal(err)
	}
	signer := jwstest.New(t)
	keyed := func(text string) string {
		return strings.ReplaceAll(text, "{algorithm: RS256, value: <URL-safe base64 of the PEM of a public key>}", signer.Entry())
	}
	programs := map[string]func(text string) error{
		"barong": func(text string) error {
			path := filepath.Join(folder, "barong.yml")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				return err
			}
			c, err := config.Load(nil, []string{"BARONG_CONFIG=" + path})
			for _, warning := range c.Warnings() {
				if strings.Contains(warning, "is not a known setting") {
					return errors.New(warning)
				}
			}
			return err
		},
		"authz_rules": func(text string) error {
			_, err := policy.ParseLists([]byte(text), getenv)
			return err
		},
		"seeds": func(text string) error {
			s, err := seed.Parse([]byte(text), func(string) (string, bool) { return "admin@example.com", true })
			if err != nil {
				return err
			}
			if len(s.Warnings()) > 0 {
				return errors.New(strings.Join(s.Warnings(), ", "))
			}
			d := dbtest.Open(t, "sqlite", db.Options{})
			_, err = seed.Run(t.Context(), d, s, seed.Options{Hash: func(string) (string, error) { return "*", nil }})
			return errors.Join(err, d.Close())
		},
		"providers": func(text string) error {
			_, warnings, err := openid.ParseConfig([]byte(text), getenv, func(string) ([]byte, error) { return []byte("secret"), nil })
			if err == nil && len(warnings) > 0 {
				err = errors.New(strings.Join(warnings, ", "))
			}
			return err
		},
		"webhooks": func(text string) error {
			_, err := webhooks.ParseConfig([]byte(text), getenv)
			return err
		},
		"mailer": func(text string) error {
			c, err := mailer.ParseConfig([]byte(text), letters, nil, getenv)
			if err == nil && len(c.Warnings) > 0 {
				err = errors.New(strings.Join(c.Warnings, ", "))
			}
			return err
		},
		"management_api": func(text string) error {
			c, err := management.ParseConfig([]byte(text), false, getenv)
			if err == nil && len(c.Warnings) > 0 {
				err = errors.New(strings.Join(c.Warnings, ", "))
			}
			return err
		},
	}
	builtin, err := os.ReadFile(filepath.Join(testkit.Root(t), "internal", "seed", "default.yml"))
	if err != nil {
		t.Fatal(err)
	}
	settings := testkit.Sample(t, "docs/schemas/README.md", "barong.yml")
	rules := testkit.Sample(t, "docs/rules.md", "exchange/authz_rules.yml")
	seeds := testkit.Sample(t, "docs/rules.md", "company/seeds.yml")
	providers := testkit.Blocks(t, "docs/providers.md")[0].Code
	hooks := indented(t, "docs/operations.md", "networks: [10.0.0.0/8]           # where receivers may be that have no public address; default: none")
	mails := strings.Replace(keyed(indented(t, "docs/operations.md", "keychain:")), "deposit_accepted.en.tmpl", "deposit_accepted.en.html.erb", 1)
	manage := keyed("keychain:\n" + indented(t, "docs/operations.md", "  applogic: {algorithm: RS256, value: <URL-safe base64 of the PEM of a public key>}"))
	for _, c := range []struct {
		name, text string
		edits      []string // what is replaced by what, which breaks the file
	}{
		{"barong", settings, []string{
			"strict", "stricter", "3600", "an hour", "domain: example.com", "domian: example.com", "10.0.0.0/8", "ten", "[ban, fraud]", "{ban: fraud}",
		}},
		{"barong", "", nil},
		{"barong", "activation_requirements: {email: verified, phone: verified}\ndocument_types: [Passport]\ncaptcha_protected_endpoints: []\nsecret_key_file: " +
			filepath.Join(folder, "k") + "\n", []string{"verified, phone", "[verified], phone", "captcha_protected_endpoints: []", "captcha_protected_endpoints: [everything]"}},
		{"authz_rules", rules, []string{"rules:", "rule:", "- accounts", "- /accounts", "- console", "- con//sole", "block:", "blocks:", "- accounts ", "- ../accounts ", "- accounts ", "- acc%41ounts "}},
		{"authz_rules", "rules:\n  pass: []\n", []string{"pass: []", "pass: all"}},
		{"seeds", string(builtin), []string{"verb: all", "verb: any", "action: accept", "action: allow", "users:", "user:", "level: 1", "level: one"}},
		{"seeds", seeds, []string{"ip_subnet", "network", "code: 403", "code: 200", "state: enabled", "state: on", "role: finance, ", "", "category: blacklist", "category: greylist", "topic: payroll", "tropic: payroll"}},
		{"providers", providers, []string{"id: google  ", "id: Google", "https://accounts", "ftp://accounts", "sign_up: true", "sign_up: maybe", "trust_email", "trust_emails", "client_id: barong", "client_di: barong", "client_secret_file: /run/secrets/sso", "client_secret_file: /run/secrets/sso\n  client_secret: both"}},
		{"webhooks", hooks, []string{"- name: crm", "- name: C R M", "https://crm", "amqp://crm", "events:", "event:", "model.user.*", "anything", "10.0.0.0/8", "here", "secret:", "secrets:"}},
		{"mailer", mails, []string{"exchanges:", "exchange:", "EdDSA", "HS256", "signer: peatio", "singer: peatio", "key: deposit.updated", "kye: deposit.updated"}},
		{"management_api", manage, []string{"EdDSA", "none", "scopes:", "scope:", "mandatory_signers: [applogic]", "mandatory_signers: []"}},
	} {
		if c.name == "barong" {
			if err := os.WriteFile(filepath.Join(folder, "k"), []byte("MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3BxcnN0dXY="), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := programs[c.name](c.text); err != nil {
			t.Errorf("%s: the program refuses\n%s\n%v", c.name, c.text, err)
		}
		if err := valid(all[c.name], c.text); err != nil {
			t.Errorf("%s: the schema refuses\n%s\n%v", c.name, c.text, err)
		}
		for i := 0; i < len(c.edits); i += 2 {
			broken := strings.Replace(c.text, c.edits[i], c.edits[i+1], 1)
			if broken == c.text {
				t.Errorf("%s: there is no %q", c.name, c.edits[i])
				continue
			}
			if programs[c.name](broken) == nil {
				t.Errorf("%s: the program takes %q for %q", c.name, c.edits[i+1], c.edits[i])
			}
			if valid(all[c.name], broken) == nil {
				t.Errorf("%s: the schema takes %q for %q", c.name, c.edits[i+1], c.edits[i])
			}
		}
	}
}

// values are what somebody may write behind a key.
var values = []string{
	"", "''", "true", "maybe", "0", "5", "-1", "1.5", "99999999999", "'5'", "30s", "90d", "1h30m", "abc", "Abc", "a b", "a/b", "'*'", "https://example.com", "HTTPS://example.com",
	"/signin", "//evil.example", "host:8080", "unix:/run/x", "unix:x", "127.0.0.1:99999", "redis://h:1", "amqp://x", "postgres://u@h/d", "sqlite://x", "mysql://x", "x@example.com",
	"x@", "ru", "10.0.0.0/8", "10.0.0.0/33", "loopback, private", "Cloudflare", "user_agent:log, ip", "'on'", "off", "DEBUG", "RS256", "2.4.17", "production", "jpg, .PNG",
	"app.example.com:8443", "MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3BxcnN0dXY=", "'{{code}}'", "[]", "[a, b]", "[user_agent, nose]", "['https://example.com']", "[v1]", "[[a]]",
	"{a: b}", "{a: [b]}", "{a: {b: c}}", "[everything]", "postgresql",
}

// TestSchemaOfSettings asks the program and the schema about many values of every kind of setting. The schema refuses nothing that
// the program takes, but lists for what is none, which the program reads as their items with commas between; and of what the
// program refuses it refuses nearly all.
func TestSchemaOfSettings(t *testing.T) {
	schema := compiled(t)["barong"]
	path := filepath.Join(t.TempDir(), "barong.yml")
	load := func(text string) error {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := config.Load(nil, []string{"BARONG_CONFIG=" + path})
		return err
	}
	kinds := map[string]bool{}
	missed, refused := 0, 0
	for _, s := range config.Settings() {
		if kinds[s.Allowed] || s.Key == "" || load(s.Key+": [[a]]\n") == nil { // what the others leave unused is not judged
			continue
		}
		kinds[s.Allowed] = true
		of := 0
		for _, value := range values {
			text := fmt.Sprintf("%s: %s\n", s.Key, value)
			err, found := load(text), valid(schema, text)
			switch {
			case err == nil && found != nil && (value[:min(1, len(value))] != "[" || strings.Contains(s.Allowed, "list")):
				t.Errorf("the program takes %q, and the schema does not: %v", text, found)
			case err != nil && found == nil && !strings.Contains(s.Allowed, "that exists"):
				missed++
				t.Logf("the program refuses %q, and the schema does not", text)
			case err != nil && found != nil:
				of++
			}
		}
		refused += of
		if of == 0 {
			t.Errorf("%s: the schema refuses nothing", s.Key)
		}
	}
	if len(kinds) < 35 || refused < 20*missed {
		t.Errorf("of %d kinds the schema refuses %d values as the program does, and takes %d that it refuses", len(kinds), refused, missed)
	}
}
