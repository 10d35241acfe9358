package config_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"barong/internal/config"
	"barong/internal/crypto/secret"

	"pgregory.net/rapid"
)

// load loads with variables alone, in an empty folder.
func load(t testing.TB, env ...string) (*config.Config, error) {
	t.Helper()
	return config.Load(nil, env)
}

func mustLoad(t testing.TB, env ...string) *config.Config {
	t.Helper()
	c, err := load(t, env...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func inEmptyFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Chdir(dir)
	return dir
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestNothingConfigured(t *testing.T) {
	inEmptyFolder(t)
	c := mustLoad(t)
	for _, v := range c.Values() {
		if v.Source != "default" {
			t.Errorf("%s comes from %s, want default", v.Name, v.Source)
		}
	}
	if len(c.Warnings()) > 0 {
		t.Errorf("warnings: %q", c.Warnings())
	}
	if err := c.Validate(); err != nil {
		t.Errorf("the defaults are refused: %v", err)
	}
	for _, f := range []struct {
		name      string
		got, want any
	}{
		{"HTTPAddr", c.HTTPAddr, "127.0.0.1:8080"},
		{"DatabaseURL", c.DatabaseURL.Reveal(), "sqlite://data/barong.db"},
		{"RedisURL", c.RedisURL.Reveal(), ""},
		{"JWTExpireTime", c.JWTExpireTime, 300 * time.Second},
		{"MailTokenExpireTime", c.MailTokenExpireTime, time.Hour},
		{"JWTReuse", c.JWTReuse, 0.5},
		{"JWTAudience", c.JWTAudience, []string{"peatio", "barong"}},
		{"SessionExpireTime", c.SessionExpireTime, 30 * time.Minute},
		{"SessionMaxAge", c.SessionMaxAge, 24 * time.Hour},
		{"SessionBind", c.SessionBind, []string{"user_agent", "ip"}},
		{"SessionCacheTTL", c.SessionCacheTTL, 5 * time.Second},
		{"JWTIssuedAtLeeway", c.JWTIssuedAtLeeway, 90 * time.Second},
		{"JWTNotBeforeLeeway", c.JWTNotBeforeLeeway, 90 * time.Second},
		{"JWTExpirationLeeway", c.JWTExpirationLeeway, time.Duration(0)},
		{"CSRFProtection", c.CSRFProtection, true},
		{"APIKeyNonceLifetime", c.APIKeyNonceLifetime, 5 * time.Second},
		{"APIKeyReplay", c.APIKeyReplay, "local"},
		{"TrustedProxies", c.TrustedProxies.String(), "127.0.0.0/8,::1/128"},
		{"UploadURLExpiration", c.UploadURLExpiration, time.Minute},
		{"UploadExtensions", c.UploadExtensions, []string{"jpg", "jpeg", "png", "pdf"}},
		{"SMTPHost", c.SMTPHost, ""},
		{"SeedsFile", c.SeedsFile, ""},
		{"AuthzRulesFile", c.AuthzRulesFile, ""},
		{"ConfigFile", c.ConfigFile, ""},
		{"BrokerURL", c.BrokerURL().Reveal(), ""},
		{"LongestToken", c.LongestToken(), time.Hour},
		{"ActivationRequirements", c.ActivationRequirements, map[string]string{"email": "verified"}},
		{"StateTriggers", c.StateTriggers, []config.StateTrigger{
			{State: "banned", Keys: []string{"ban", "fraud"}},
			{State: "deleted", Keys: []string{"delete"}},
			{State: "locked", Keys: []string{"suspicious", "lock"}},
		}},
		{"DocumentTypes", c.DocumentTypes, []string{"Passport", "Identity card", "Driver license", "Utility Bill", "Residental", "Institutional"}},
		{"UserStorageTitles", c.UserStorageTitles, []string{}},
		{"CaptchaProtectedEndpoints", c.CaptchaProtectedEndpoints, []string{"user_create", "password_reset", "email_confirmation"}},
	} {
		if !reflect.DeepEqual(f.got, f.want) {
			t.Errorf("%s = %v, want %v", f.name, f.got, f.want)
		}
	}
	if want := `^(?=.*[[:lower:]])(?=.*[[:upper:]])(?=.*[[:digit:]])(?=.*[[:graph:]]).{8,80}$`; c.PasswordRegexp != want {
		t.Errorf("PasswordRegexp = %s", c.PasswordRegexp)
	}
}

func TestPrecedence(t *testing.T) {
	inEmptyFolder(t)
	write(t, "mine.yml", "app_name: from file\ndomain: file.test\nuid_prefix: fi\n")
	c, err := config.Load(map[string]string{"config": "mine.yml", "app-name": "from flag"},
		[]string{"BARONG_APP_NAME=from env", "BARONG_DOMAIN=env.test"})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []struct{ got, want, name, source string }{
		{c.AppName, "from flag", "BARONG_APP_NAME", "flag"},
		{c.Domain, "env.test", "BARONG_DOMAIN", "env"},
		{c.UIDPrefix, "FI", "BARONG_UID_PREFIX", "file"},
		{c.SenderName, "Barong", "BARONG_SENDER_NAME", "default"},
	} {
		if w.got != w.want || c.Source(w.name) != w.source {
			t.Errorf("%s = %q from %s, want %q from %s", w.name, w.got, c.Source(w.name), w.want, w.source)
		}
	}
}

func TestAliases(t *testing.T) {
	inEmptyFolder(t)
	c := mustLoad(t, "JWT_ISSUER=theirs", "JWT_AUDIENCE=a, b", "JWT_ALGORITHM=ES256", "JWT_PRIVATE_KEY_PATH=/k.pem", "LOG_LEVEL=WARN",
		"JWT_DEFAULT_LEEWAY=5", "JWT_EXPIRATION_LEEWAY=7", "EVENT_API_RABBITMQ_URL=amqp://u:p@h/v")
	if c.JWTIssuer != "theirs" || !slices.Equal(c.JWTAudience, []string{"a", "b"}) || c.JWTAlgorithm != "ES256" ||
		c.JWTPrivateKeyPath != "/k.pem" || c.LogLevel != "warn" || c.BrokerURL() != "amqp://u:p@h/v" {
		t.Errorf("aliases are not read: %+v", c)
	}
	if c.JWTIssuedAtLeeway != 5*time.Second || c.JWTNotBeforeLeeway != 5*time.Second || c.JWTExpirationLeeway != 7*time.Second {
		t.Errorf("leeways %s %s %s, want 5s 5s 7s", c.JWTIssuedAtLeeway, c.JWTNotBeforeLeeway, c.JWTExpirationLeeway)
	}
	if c.GeneratedKeys() {
		t.Error("a named signing key counts as generated")
	}
	if c = mustLoad(t, "JWT_ISSUER=theirs", "BARONG_JWT_ISSUER=ours"); c.JWTIssuer != "ours" {
		t.Errorf("issuer %q, want the BARONG_ name's", c.JWTIssuer)
	}
	if c = mustLoad(t, "LOG_LEVEL=fatal"); c.LogLevel != "error" {
		t.Errorf("log level %q, want error", c.LogLevel)
	}
}

func TestPortChangesThePortAlone(t *testing.T) {
	inEmptyFolder(t)
	for _, c := range []struct {
		flags map[string]string
		env   []string
		want  string
	}{
		{nil, []string{"PORT=3000"}, "127.0.0.1:3000"},
		{nil, []string{"PORT=3000", "BARONG_HTTP_ADDR=0.0.0.0:8080"}, "0.0.0.0:3000"},
		{nil, []string{"PORT=3000", "BARONG_HTTP_ADDR=[::1]:8080"}, "[::1]:3000"},
		{nil, []string{"PORT=3000", "BARONG_HTTP_ADDR=unix:/run/b.sock"}, "unix:/run/b.sock"},
		{nil, []string{"PORT=", "BARONG_HTTP_ADDR=0.0.0.0:8080"}, "0.0.0.0:8080"},
		{map[string]string{"http-addr": "1.2.3.4:5"}, []string{"PORT=3000"}, "1.2.3.4:5"},
	} {
		got, err := config.Load(c.flags, c.env)
		if err != nil || got.HTTPAddr != c.want {
			t.Errorf("%v %v: %v, %v, want %s", c.flags, c.env, got.HTTPAddr, err, c.want)
		}
	}
}

// TestValues says for every kind of value what is taken and what is refused.
func TestValues(t *testing.T) {
	dir := inEmptyFolder(t)
	file := write(t, filepath.Join(dir, "f"), "x")
	key := secret.NewKey().Reveal()
	for name, c := range map[string]struct{ good, bad []string }{
		"BARONG_CSRF_PROTECTION":            {[]string{"true", "false"}, []string{"", "TRUE", "1", "yes", " true"}},
		"BARONG_DOC_NUM_LIMIT":              {[]string{"0", "10", "007"}, []string{"", "-1", "+1", "1.5", "ten", "99999999999999999999", " 1"}},
		"BARONG_JWT_EXPIRE_TIME":            {[]string{"1", "3600"}, []string{"", "0", "-5", "5s", "1e3", "9999999999"}},
		"BARONG_APIKEY_NONCE_LIFETIME":      {[]string{"1", "5000"}, []string{"0", "5s", "x"}},
		"BARONG_SESSION_CACHE_TTL":          {[]string{"0", "5", "5s", "500ms", "1m"}, []string{"", "-1s", "+1s", "5x", "2h", "s"}},
		"BARONG_AUDIT_KEEP":                 {[]string{"0", "90d", "720h", "3600"}, []string{"", "-1d", "d", "1.5d", "99999999999d", "1y"}},
		"BARONG_JWT_REUSE":                  {[]string{"0", "0.5", ".25", "0.95"}, []string{"", "-0.1", "1.5", "NaN", "Inf", "0x1p-2", "1e-1", "half"}},
		"BARONG_ENV":                        {[]string{"development", "production"}, []string{"", "staging", "Production"}},
		"BARONG_COMPAT":                     {[]string{"reference", "2.4.17"}, []string{"", "2.4", "2.5.0"}},
		"BARONG_COOKIE_SECURE":              {[]string{"auto", "true", "false"}, []string{"", "on"}},
		"BARONG_COOKIE_SAMESITE":            {[]string{"lax", "Lax", "STRICT", "none"}, []string{"", "off"}},
		"BARONG_COOKIE_DOMAIN":              {[]string{"", "example.test", ".example.test", "192.0.2.1"}, []string{"example.test:8080", "https://example.test", "a b"}},
		"BARONG_SMTP_HOST":                  {[]string{"", "mail", "mail.example.test", "::1", "[2001:db8::1]"}, []string{"mail:587", "[::1", "[mail]", "::1]", "1:2", "[::1]:25"}},
		"DATABASE_HOST":                     {[]string{"db", "2001:db8::1", "/run/postgresql"}, []string{"", "db:5432", "/run:x"}},
		"BARONG_STORAGE_PROVIDER":           {[]string{"local", "Google", "AWS", "AliCloud", "azure"}, []string{"", "ftp"}},
		"BARONG_HTTP_ADDR":                  {[]string{":8080", "127.0.0.1:0", "[::1]:80", "localhost:80", "unix:/run/x"}, []string{"", "8080", "h", "h:99999", "h:x", "unix:x", "http://h:1"}},
		"BARONG_OPS_ADDR":                   {[]string{"", "127.0.0.1:9090"}, []string{"off"}},
		"BARONG_DATABASE_URL":               {[]string{"sqlite://x.db", "sqlite:x.db", "sqlite://my data/a b.db", "postgres://h/d", "postgresql://u:p@h/d?sslmode=disable"}, []string{"", "mysql://h/d", "x.db", "postgres://", "sqlite:", "sqlite://", "postgres://u:p@h/a b"}},
		"BARONG_REDIS_URL":                  {[]string{"", "redis://h:1/2", "rediss://h", "redis+cluster://a:1,b:2", "redis+sentinel://a:1,b:2/m"}, []string{"h:6379", "memcache://h", "redis://"}},
		"BARONG_SECRET_KEY":                 {[]string{"", key, key + "," + secret.NewKey().Reveal()}, []string{"short", base64.StdEncoding.EncodeToString(make([]byte, 32)), key + "," + key}},
		"BARONG_TRUSTED_PROXIES":            {[]string{"", "loopback", "private, cloudflare", "10.0.0.0/8,::1", "192.0.2.7"}, []string{"10.0.0.0/33", "everyone", "10.0.0", "fe80::1%eth0"}},
		"BARONG_API_CORS_ORIGINS":           {[]string{"", "*", "https://a.test, http://b.test:8080", "https://a.test/", "https://[::1]:3000", "http://my_app.test"}, []string{"a.test", "https://", "https://a.test/path", "https://*.test", "null", "https://[::1", "https://[x]"}},
		"BARONG_UPLOAD_EXTENSION_WHITELIST": {[]string{"jpg", "JPG, .png"}, []string{"../x", "a b"}},
		"BARONG_SESSION_BIND":               {[]string{"", "ip", "user_agent", "ip,user_agent", "ip:log", "user_agent:log, ip"}, []string{"mac", "ip;user_agent", "ip:warn", "log"}},
		"BARONG_SESSION_NAME":               {[]string{"_barong_session", "__Host-s"}, []string{"", "a b", "a;b", "a=b"}},
		"BARONG_UID_PREFIX":                 {[]string{"ID", "abcdef"}, []string{"", "I", "ABCDEFG", "I1"}},
		"BARONG_API_PREFIX":                 {[]string{"api/v2/barong", "/api/"}, []string{"", "/", "a//b", "a/../b", "a b", "a%2f"}},
		"BARONG_LOGIN_URL":                  {[]string{"", "https://a.test/signin?x=1", "/signin"}, []string{"signin", "//a.test", "/\\a.test", "javascript:alert(1)", "ftp://a"}},
		"BARONG_PORTAL":                     {[]string{"on", "off"}, []string{"", "true", "yes"}},
		"BARONG_CONSOLE":                    {[]string{"on", "off"}, []string{"", "true"}},
		"BARONG_PORTAL_LOGO":                {[]string{"", file}, []string{"absent.svg", dir}},
		"BARONG_PORTAL_CSS":                 {[]string{"", file}, []string{"absent.css", dir}},
		"BARONG_PORTAL_LANGUAGES":           {[]string{"", dir}, []string{"absent", file}},
		"BARONG_PORTAL_REDIRECTS":           {[]string{"", "app.example", "App.example:8443, [::1]:80, 10.0.0.1"}, []string{"https://app.example", "app.example/", "a b", "*.example", "app.example:0", "app.example:70000", "-a", "a..b", "a@b", "//a"}},
		"BARONG_DEFAULT_LANGUAGE":           {[]string{"en", "RU"}, []string{"", "eng", "e1"}},
		"BARONG_SENDER_EMAIL":               {[]string{"a@b.test"}, []string{"", "a", "A <a@b.test>"}},
		"BARONG_SMS_CONTENT_TEMPLATE":       {[]string{"{{code}}", "x {{code}} y"}, []string{"", "no code"}},
		"BARONG_SEEDS_FILE":                 {[]string{"", file}, []string{"absent.yml", dir}},
		"BARONG_MAIL_TEMPLATES":             {[]string{"", dir}, []string{"absent", file}},
		"BARONG_TWILIO_API_URL":             {[]string{"", "http://127.0.0.1:1"}, []string{"127.0.0.1:1", "ftp://x"}},
		"BARONG_EVENT_API_RABBITMQ_URL":     {[]string{"", "amqp://h", "amqps://u:p@h/v"}, []string{"http://h", "h"}},
		"BARONG_SMTP_PORT":                  {[]string{"25", "0"}, []string{"", "smtp", "70000", "-1"}},
		"BARONG_LOG_FORMAT":                 {[]string{"auto", "json", "text"}, []string{"", "xml"}},
		"BARONG_JWT_AUDIENCE":               {[]string{"a", "a,b"}, []string{"", ","}},
		"DATABASE_ADAPTER":                  {[]string{"", "postgresql", "PostgreSQL", "postgres", `"postgresql"`, `'pg'`}, []string{"oracle", "sqlite3", `"`}},
		"BARONG_SMTP_TLS":                   {[]string{"auto", "STARTTLS", "implicit", "off"}, []string{"", "on", "ssl"}},
		"PORT":                              {[]string{"", "80"}, []string{"http", "65536"}},
		"BARONG_PHONE_VERIFICATION":         {[]string{"none", "mock", "twilio_sms", "twilio_verify"}, []string{"", "sms"}},
		"BARONG_CAPTCHA":                    {[]string{"none", "recaptcha", "geetest", "hcaptcha", "turnstile"}, []string{"", "yes"}},
	} {
		// What is judged only where it is used, is used.
		load := func(t testing.TB, env string) (*config.Config, error) {
			needs := map[string]string{"BARONG_SMTP_PORT": "BARONG_SMTP_HOST=h", "BARONG_SMTP_TLS": "BARONG_SMTP_HOST=h", "BARONG_TWILIO_API_URL": "BARONG_PHONE_VERIFICATION=twilio_sms"}
			return load(t, env, needs[name])
		}
		for _, v := range c.good {
			if _, err := load(t, name+"="+v); err != nil {
				t.Errorf("%s=%q: %v", name, v, err)
			}
		}
		for _, v := range c.bad {
			_, err := load(t, name+"="+v)
			var bad *config.Error
			if !errors.As(err, &bad) || len(bad.Problems) != 1 {
				t.Errorf("%s=%q: %v, want one problem", name, v, err)
				continue
			}
			line := bad.Problems[0]
			if !strings.HasPrefix(line, name+"=") || strings.ContainsAny(line, "\n\r") || !strings.Contains(line, "not allowed: ") {
				t.Errorf("%s=%q: the line does not name the variable and what is allowed: %q", name, v, line)
			}
		}
	}
}

func TestBadValuesAreToldTogetherAndSecretsMasked(t *testing.T) {
	inEmptyFolder(t)
	_, err := load(t, "BARONG_SECRET_KEY=hunter2", "BARONG_REDIS_URL=what://u:hunter2@h", "BARONG_ENV=x\ny", "BARONG_DOC_NUM_LIMIT="+strings.Repeat("9x", 500))
	var bad *config.Error
	if !errors.As(err, &bad) || len(bad.Problems) != 4 {
		t.Fatalf("%v, want four problems", err)
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a secret shows: %v", err)
	}
	for _, line := range bad.Problems {
		if strings.Contains(line, "\n") || len(line) > 400 {
			t.Errorf("no single line: %q", line)
		}
	}
	if err := config.Bad("BARONG_PASSWORD_REGEXP", "(", "a regular expression"); err.Error() != `BARONG_PASSWORD_REGEXP="(" is not allowed: a regular expression` {
		t.Errorf("Bad: %v", err)
	}
}

func TestFile(t *testing.T) {
	inEmptyFolder(t)
	write(t, "config/barong.yml", `
# as the original's, with settings beside
activation_requirements:
  email: verified
  phone: 'verified'
state_triggers:
  locked: [lock]
  banned: ban, fraud
  deleted:
    - delete
document_types: [Passport, Other]
user_storage_titles: personal
captcha_protected_endpoints:
session_expire_time: 60
csrf_protection: false
session_bind: []
trusted_proxies: [10.0.0.0/8, 192.0.2.1]
jwt_audience:
  - one
  - two
redis_url: redis://:hunter2@h
`)
	c := mustLoad(t)
	if c.ConfigFile != "config/barong.yml" {
		t.Errorf("file %q", c.ConfigFile)
	}
	for _, f := range []struct {
		name      string
		got, want any
	}{
		{"activation_requirements", c.ActivationRequirements, map[string]string{"email": "verified", "phone": "verified"}},
		{"state_triggers in their order", c.StateTriggers, []config.StateTrigger{
			{State: "locked", Keys: []string{"lock"}}, {State: "banned", Keys: []string{"ban", "fraud"}}, {State: "deleted", Keys: []string{"delete"}},
		}},
		{"document_types", c.DocumentTypes, []string{"Passport", "Other"}},
		{"user_storage_titles", c.UserStorageTitles, []string{"personal"}},
		{"captcha_protected_endpoints", c.CaptchaProtectedEndpoints, []string{}},
		{"session_expire_time", c.SessionExpireTime, time.Minute},
		{"csrf_protection", c.CSRFProtection, false},
		{"session_bind", c.SessionBind, []string{}},
		{"trusted_proxies", c.TrustedProxies.String(), "10.0.0.0/8,192.0.2.1/32"},
		{"jwt_audience", c.JWTAudience, []string{"one", "two"}},
	} {
		if !reflect.DeepEqual(f.got, f.want) {
			t.Errorf("%s = %v, want %v", f.name, f.got, f.want)
		}
	}
	for _, v := range c.Values() {
		if strings.Contains(v.Text, "hunter2") {
			t.Errorf("a secret shows: %+v", v)
		}
		if v.Name == "BARONG_SESSION_EXPIRE_TIME" && (v.Source != "file" || v.Origin != "config/barong.yml" || v.Text != "60") {
			t.Errorf("%+v", v)
		}
	}
	if c = mustLoad(t, "BARONG_CONFIG="); c.ConfigFile != "" || len(c.DocumentTypes) != 6 {
		t.Error("an empty BARONG_CONFIG does not mean no file")
	}
}

func TestBadFiles(t *testing.T) {
	dir := inEmptyFolder(t)
	for name, c := range map[string]struct{ text, want string }{
		"bad value":       {"doc_num_limit: many", `BARONG_DOC_NUM_LIMIT="many" is not allowed: a whole number from 0 to 100000 (`},
		"mapping":         {"doc_num_limit: {a: 1}", "doc_num_limit in"},
		"twice":           {"domain: a\ndomain: b", "twice"},
		"twice within":    {"state_triggers: {a: x, a: y}", "twice"},
		"list":            {"- a\n- b", "not a mapping"},
		"no YAML":         {"a: b: c: [", "BARONG_CONFIG"},
		"unknown captcha": {"captcha_protected_endpoints: [everything]", "allowed is a list of user_create"},
		"nested list":     {"document_types: [[a]]", "no plain value"},
		"text":            {"activation_requirements: yes", "a mapping is needed"},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, filepath.Join(dir, strings.ReplaceAll(name, " ", "-")), c.text)
			_, err := load(t, "BARONG_CONFIG="+path)
			var bad *config.Error
			if !errors.As(err, &bad) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	if _, err := load(t, "BARONG_CONFIG=absent.yml"); err == nil {
		t.Error("a file that was asked for may be missing")
	}
	if c := mustLoad(t, "BARONG_CONFIG="+write(t, "empty.yml", "# nothing\n")); len(c.Warnings()) > 0 {
		t.Errorf("warnings for an empty file: %q", c.Warnings())
	}
}

func TestUnknownNamesAreWarnings(t *testing.T) {
	inEmptyFolder(t)
	// The s of the key is a Cyrillic letter, as in a deployment file that is in wide use.
	write(t, "config/barong.yml", "captcha_protected_endpoint\u0455: []\nvault_token: x\nnonsense: 1\n")
	c := mustLoad(t, "BARONG_HTTP_ADRR=x", "BARONG_VAULT_ADDRESS=http://v", "BARONG_ZZZ=1", "OTHER_THING=1")
	got := strings.Join(c.Warnings(), "\n")
	for _, want := range []string{
		"BARONG_HTTP_ADRR is not a known setting: did you mean BARONG_HTTP_ADDR?", "BARONG_VAULT_ADDRESS has no effect: ",
		"BARONG_ZZZ is not a known setting", `"captcha_protected_endpoint\u0455"`, "did you mean captcha_protected_endpoints?",
		"vault_token in config/barong.yml has no effect", `"nonsense"`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no warning %q in\n%s", want, got)
		}
	}
	if len(c.Warnings()) != 7 || strings.Contains(got, "OTHER_THING") {
		t.Errorf("%d warnings, want 7:\n%s", len(c.Warnings()), got)
	}
	if len(c.CaptchaProtectedEndpoints) != 3 {
		t.Error("a misspelt key switched captcha off")
	}
}

func TestDatabaseOfTheOriginal(t *testing.T) {
	inEmptyFolder(t)
	for _, c := range []struct {
		name string
		env  []string
		want string // URL, or what the problem says
		ok   bool
	}{
		{"none of them", nil, "sqlite://data/barong.db", true},
		{"postgresql", []string{"DATABASE_ADAPTER=postgresql", "DATABASE_HOST=db", "DATABASE_PORT=5433", "DATABASE_USER=u", "DATABASE_PASS=p/@:", "DATABASE_NAME=n"}, "postgres://u:p%2F%40%3A@db:5433/n", true},
		{"defaults", []string{"DATABASE_ADAPTER=postgresql"}, "postgres://postgres@127.0.0.1:5432/barong_production", true},
		{"no adapter", []string{"DATABASE_HOST=db"}, "postgres://postgres@db:5432/barong_production", true},
		{"mysql2", []string{"DATABASE_ADAPTER=mysql2", "DATABASE_HOST=db"}, `DATABASE_ADAPTER="mysql2" is not allowed: this program runs on Postgres`, false},
		{"MySQL's port", []string{"DATABASE_HOST=db", "DATABASE_PORT=3306"}, `DATABASE_PORT="3306" is not allowed`, false},
		{"both", []string{"DATABASE_ADAPTER=mysql2", "BARONG_DATABASE_URL=sqlite://x"}, "sqlite://x", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := load(t, c.env...)
			if c.ok && (err != nil || got.DatabaseURL.Reveal() != c.want) {
				t.Errorf("%v, %v, want %s", got, err, c.want)
			}
			if !c.ok && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
	c := mustLoad(t, "DATABASE_HOST=db", "DATABASE_PASS=hunter2")
	if c.Source("BARONG_DATABASE_URL") != "env" || strings.Contains(fmt.Sprint(c.Values(), c.DatabaseURL), "hunter2") {
		t.Errorf("source %s, values %v", c.Source("BARONG_DATABASE_URL"), c.Values())
	}
}

func TestLookup(t *testing.T) {
	inEmptyFolder(t)
	write(t, "f.yml", "admin_email: file@a.test\n")
	c, err := config.Load(map[string]string{"admin-password": "from flag"}, []string{"BARONG_CONFIG=f.yml", "ADMIN_PASSWORD=x", "OTHER=o", "EMPTY="})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"ADMIN_EMAIL": "file@a.test", "ADMIN_PASSWORD": "from flag", "OTHER": "o", "EMPTY": ""} {
		if got, ok := c.Lookup(name); !ok || got != want {
			t.Errorf("%s = %q, %v, want %q", name, got, ok, want)
		}
	}
	if _, ok := c.Lookup("ABSENT"); ok {
		t.Error("a variable that is not set was found")
	}
	if _, ok := mustLoad(t).Lookup("ADMIN_EMAIL"); ok {
		t.Error("a default counts as set")
	}
}

func TestBroker(t *testing.T) {
	inEmptyFolder(t)
	for env, want := range map[string]string{
		"":                                  "",
		"BARONG_EVENT_API_RABBITMQ_HOST=mq": "amqp://guest:guest@mq:5672/",
		"BARONG_EVENT_API_RABBITMQ_PASSWORD=p@ss": "amqp://guest:p%40ss@localhost:5672/",
		"EVENT_API_RABBITMQ_URL=amqps://x/y":      "amqps://x/y",
		"BARONG_EVENT_API_DURABLE=true":           "",
	} {
		if got := mustLoad(t, env).BrokerURL().Reveal(); got != want {
			t.Errorf("%s: %q, want %q", env, got, want)
		}
	}
}

func TestCompatibilityChangesDefaults(t *testing.T) {
	inEmptyFolder(t)
	c := mustLoad(t, "BARONG_COMPAT=2.4.17")
	if !c.Original() || c.APIKeyReplay != "off" || !c.TrustedProxies.Trusted(netip.MustParseAddr("10.1.2.3")) ||
		!c.TrustedProxies.Trusted(netip.MustParseAddr("104.16.0.1")) || !c.TrustedProxies.Trusted(netip.MustParseAddr("127.0.0.1")) {
		t.Errorf("replay %s, proxies %s", c.APIKeyReplay, c.TrustedProxies)
	}
	c = mustLoad(t, "BARONG_COMPAT=2.4.17", "BARONG_APIKEY_REPLAY=local", "BARONG_TRUSTED_PROXIES=")
	if c.APIKeyReplay != "local" || len(c.TrustedProxies.Networks()) != 0 {
		t.Errorf("what was given does not win: replay %s, proxies %s", c.APIKeyReplay, c.TrustedProxies)
	}
	if c = mustLoad(t, "BARONG_ENV=production"); c.SMTPHost != "localhost" {
		t.Errorf("SMTP host %q in production, want localhost", c.SMTPHost)
	}
}

func TestNetworks(t *testing.T) {
	inEmptyFolder(t)
	n := mustLoad(t, "BARONG_TRUSTED_PROXIES=10.0.0.0/8, ::ffff:192.0.2.0/120, 2001:db8::1").TrustedProxies
	for addr, want := range map[string]bool{
		"10.255.0.1": true, "11.0.0.1": false, "::ffff:10.0.0.1": true, "192.0.2.200": true, "192.0.3.1": false,
		"2001:db8::1": true, "2001:db8::2": false, "2001:db8::1%eth0": true,
	} {
		if got := n.Trusted(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v, want %v", addr, got, want)
		}
	}
	if n.Trusted(netip.Addr{}) {
		t.Error("the zero address is trusted")
	}
}

// production is a configuration that production takes.
func production() map[string]string {
	return map[string]string{
		"BARONG_ENV": "production", "BARONG_SECRET_KEY": secret.NewKey().Reveal(), "BARONG_JWT_PRIVATE_KEY_PATH": "/keys",
		"BARONG_PHONE_VERIFICATION": "twilio_verify", "BARONG_TWILIO_ACCOUNT_SID": "AC1", "BARONG_TWILIO_AUTH_TOKEN": "t",
		"ADMIN_PASSWORD": "not a well-known one", "BARONG_DOMAIN": "exchange.test", "BARONG_SENDER_EMAIL": "noreply@exchange.test",
	}
}

func TestProductionRefusesWhatIsForDevelopment(t *testing.T) {
	inEmptyFolder(t)
	check := func(changes map[string]string) error {
		env := production()
		maps.Copy(env, changes)
		var list []string
		for k, v := range env {
			if v != "unset" {
				list = append(list, k+"="+v)
			}
		}
		return mustLoad(t, list...).Validate()
	}
	if err := check(nil); err != nil {
		t.Fatalf("a good configuration is refused: %v", err)
	}
	for name, c := range map[string]struct {
		env  map[string]string
		want string
	}{
		"generated signing key": {map[string]string{"BARONG_JWT_PRIVATE_KEY_PATH": "unset"}, "BARONG_JWT_PRIVATE_KEY_PATH"},
		"generated secret key":  {map[string]string{"BARONG_SECRET_KEY": "unset"}, "BARONG_SECRET_KEY"},
		"mock phones":           {map[string]string{"BARONG_PHONE_VERIFICATION": "mock"}, "BARONG_PHONE_VERIFICATION"},
		"cookies in clear":      {map[string]string{"BARONG_COOKIE_SECURE": "false"}, "BARONG_COOKIE_SECURE"},
		"well-known password":   {map[string]string{"ADMIN_PASSWORD": "changeme"}, "ADMIN_PASSWORD"},
		"broker's password":     {map[string]string{"BARONG_EVENT_API_RABBITMQ_HOST": "mq"}, "BARONG_EVENT_API_RABBITMQ_PASSWORD"},
		"somebody else's links": {map[string]string{"BARONG_DOMAIN": "unset"}, "BARONG_DOMAIN=openware.com"},
		"theirs by a URL":       {map[string]string{"BARONG_DOMAIN": "https://www.Openware.com:443/x"}, "BARONG_DOMAIN="},
		"somebody else's mail":  {map[string]string{"BARONG_SENDER_EMAIL": "unset"}, "BARONG_SENDER_EMAIL=noreply@barong.io"},
		"captcha without keys":  {map[string]string{"BARONG_CAPTCHA": "turnstile"}, "BARONG_CAPTCHA"},
	} {
		err := check(c.env)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want one line about %s", name, err, c.want)
		}
	}
	for name, changes := range map[string]map[string]string{
		"no phones, and no Twilio":       {"BARONG_PHONE_VERIFICATION": "none", "BARONG_TWILIO_ACCOUNT_SID": "unset", "BARONG_TWILIO_AUTH_TOKEN": "unset"},
		"a domain that begins like one":  {"BARONG_DOMAIN": "openware.com.example.test"},
		"production as Rails has it":     {"BARONG_ENV": "unset", "RAILS_ENV": "production"},
		"a domain below one of theirs":   {"BARONG_DOMAIN": "demo.openware.com"},
		"a domain with a scheme and all": {"BARONG_DOMAIN": "https://exchange.test:8443/app"},
	} {
		if err := check(changes); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	all := mustLoad(t, "BARONG_ENV=production", "BARONG_COOKIE_SECURE=false").Validate()
	var bad *config.Error
	if !errors.As(all, &bad) || len(bad.Problems) != 6 {
		t.Errorf("%v, want six problems together", all)
	}
}

func TestUnsafeCombinationsAreRefusedEverywhere(t *testing.T) {
	inEmptyFolder(t)
	for want, env := range map[string][]string{
		"BARONG_API_CORS_ALLOW_CREDENTIALS": {"BARONG_API_CORS_ALLOW_CREDENTIALS=true"},
		"BARONG_TWILIO_AUTH_TOKEN":          {"BARONG_PHONE_VERIFICATION=twilio_sms", "BARONG_TWILIO_ACCOUNT_SID=AC1"},
		"BARONG_TWILIO_ACCOUNT_SID":         {"BARONG_PHONE_VERIFICATION=twilio_verify", "BARONG_TWILIO_AUTH_TOKEN=x"},
		"BARONG_TWILIO_PHONE_NUMBER": {
			"BARONG_PHONE_VERIFICATION=twilio_sms", "BARONG_TWILIO_ACCOUNT_SID=AC1", "BARONG_TWILIO_AUTH_TOKEN=x", "BARONG_TWILIO_PHONE_NUMBER=",
		},
		"BARONG_COOKIE_SAMESITE=none needs BARONG_COOKIE_SECURE=true":                {"BARONG_COOKIE_SAMESITE=none"},
		"BARONG_SESSION_NAME=__Secure-s needs BARONG_COOKIE_SECURE=true":             {"BARONG_SESSION_NAME=__Secure-s", "BARONG_COOKIE_SECURE=false"},
		"BARONG_SESSION_NAME=__Host-s needs BARONG_COOKIE_SECURE=true":               {"BARONG_SESSION_NAME=__Host-s"},
		"BARONG_SESSION_NAME=__Host-s needs an empty BARONG_COOKIE_DOMAIN: browsers": {"BARONG_SESSION_NAME=__Host-s", "BARONG_COOKIE_SECURE=true", "BARONG_COOKIE_DOMAIN=a.test"},
		"BARONG_STORAGE_PROVIDER=aws needs BARONG_STORAGE_BUCKET_NAME": {
			"BARONG_STORAGE_PROVIDER=aws", "BARONG_STORAGE_ACCESS_KEY=k", "BARONG_STORAGE_SECRET_KEY=s", "BARONG_STORAGE_BUCKET_NAME=",
		},
		"BARONG_APIKEY_REPLAY=shared":                   {"BARONG_APIKEY_REPLAY=shared"},
		"BARONG_STORAGE_PROVIDER=aws":                   {"BARONG_STORAGE_PROVIDER=AWS"},
		"BARONG_HTTP_ADDR and BARONG_OPS_ADDR are both": {"BARONG_HTTP_ADDR=127.0.0.1:9090"},
	} {
		if err := mustLoad(t, env...).Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %s", env, err, want)
		}
	}
	for _, env := range [][]string{
		{"BARONG_API_CORS_ALLOW_CREDENTIALS=true", "BARONG_API_CORS_ORIGINS=https://a.test"},
		{"BARONG_HTTP_ADDR=127.0.0.1:0", "BARONG_OPS_ADDR=127.0.0.1:0"},
		{"BARONG_APIKEY_REPLAY=shared", "BARONG_REDIS_URL=redis://h"},
		{"BARONG_CHECK_ADDR=", "BARONG_GRPC_ADDR=", "BARONG_OPS_ADDR="},
		{"BARONG_COOKIE_SAMESITE=none", "BARONG_COOKIE_SECURE=true"},
		{"BARONG_SESSION_NAME=__Host-s", "BARONG_COOKIE_SECURE=true"},
		// What an environment file of the original leaves empty because nothing uses it.
		{"BARONG_TWILIO_PHONE_NUMBER=", "BARONG_STORAGE_BUCKET_NAME="},
	} {
		if err := mustLoad(t, env...).Validate(); err != nil {
			t.Errorf("%v: %v", env, err)
		}
	}
}

func TestEveryNameIsUniqueAndExplained(t *testing.T) {
	names, keys, flags := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, s := range config.Settings() {
		for _, n := range append(s.Aliases, s.Name) {
			if n != "" && names[n] {
				t.Errorf("%s is read twice", n)
			}
			names[n] = true
		}
		if s.Key != "" && keys[s.Key] || s.Flag != "" && flags[s.Flag] {
			t.Errorf("key %s or flag %s is there twice", s.Key, s.Flag)
		}
		keys[s.Key], flags[s.Flag] = true, true
		if len(s.Help) < 10 || s.Allowed == "" || s.Group == "" {
			t.Errorf("%s%s is not explained: %+v", s.Name, s.Key, s)
		}
		for _, secretive := range []string{"PASSWORD", "SECRET", "TOKEN", "_PASS"} {
			plain := []string{"BARONG_MAIL_TOKEN_EXPIRE_TIME", "BARONG_PASSWORD_REGEXP", "BARONG_PASSWORD_MIN_ENTROPY", "BARONG_PASSWORD_USE_DICTIONARY"}
			if strings.Contains(s.Name, secretive) && !s.Secret && !slices.Contains(plain, s.Name) {
				t.Errorf("%s would be printed", s.Name)
			}
		}
	}
}

func TestReferencePageIsCurrent(t *testing.T) {
	page, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(page) != config.Reference() {
		t.Error("docs/configuration.md is stale: run \"make docs\"")
	}
}

// TestAnyValueLoadsOrIsRefusedByName throws arbitrary text at every setting, by variable and by file.
func TestAnyValueLoadsOrIsRefusedByName(t *testing.T) {
	dir := inEmptyFolder(t)
	settings := config.Settings()
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.SampledFrom(settings).Draw(t, "setting")
		value := rapid.OneOf(rapid.String(), rapid.StringMatching(`[0-9a-z:/.,@%+-]{0,24}`)).Draw(t, "value")
		var err error
		name := s.Name
		if s.Name != "" && rapid.Bool().Draw(t, "env") {
			if strings.ContainsRune(value, 0) {
				return // no environment holds one
			}
			_, err = config.Load(nil, []string{s.Name + "=" + value})
		} else {
			path := filepath.Join(dir, "f.yml")
			if werr := os.WriteFile(path, []byte(s.Key+": "+value+"\n"), 0o600); werr != nil {
				t.Fatal(werr)
			}
			_, err = config.Load(nil, []string{"BARONG_CONFIG=" + path})
			name = ""
		}
		var bad *config.Error
		if err == nil {
			return
		}
		if !errors.As(err, &bad) {
			t.Fatalf("%T: %v", err, err)
		}
		for _, line := range bad.Problems {
			if strings.ContainsAny(line, "\n\r") || name != "" && !strings.Contains(line, name) && !strings.HasPrefix(name, "DATABASE_") {
				t.Fatalf("the line %q does not name %s", line, name)
			}
		}
	})
}

// The portal's page for signing in is where browsers are sent, unless somebody says otherwise.
func TestPortal(t *testing.T) {
	inEmptyFolder(t)
	for _, test := range []struct {
		env             []string
		login, source   string
		own             bool
		portal, console bool
	}{
		{nil, "/accounts/signin", "default", true, true, true},
		{[]string{"BARONG_CONSOLE=off"}, "/accounts/signin", "default", true, true, false},
		{[]string{"BARONG_PORTAL=off"}, "", "default", false, false, false},
		{[]string{"BARONG_PORTAL=off", "BARONG_CONSOLE=on"}, "", "default", false, false, false},
		{[]string{"BARONG_LOGIN_URL="}, "", "env", false, true, true},
		{[]string{"BARONG_LOGIN_URL=https://a.test/in"}, "https://a.test/in", "env", false, true, true},
		{[]string{"BARONG_PORTAL=off", "BARONG_LOGIN_URL=/in"}, "/in", "env", false, false, false},
		{[]string{"BARONG_API_PREFIX=accounts"}, "", "default", false, false, false},
		{[]string{"BARONG_API_PREFIX=console/v2"}, "", "default", false, false, false},
		{[]string{"BARONG_API_PREFIX=accountsX/v2"}, "/accounts/signin", "default", true, true, true},
	} {
		c := mustLoad(t, test.env...)
		shown := ""
		for _, v := range c.Values() {
			if v.Name == "BARONG_LOGIN_URL" {
				shown = v.Text
			}
		}
		if c.LoginURL != test.login || shown != test.login || c.Source("BARONG_LOGIN_URL") != test.source || c.OwnLogin() != test.own ||
			c.HasPortal() != test.portal || c.HasConsole() != test.console {
			t.Errorf("%v: %q, shown %q of %s, own %v, portal %v, console %v", test.env, c.LoginURL, shown, c.Source("BARONG_LOGIN_URL"),
				c.OwnLogin(), c.HasPortal(), c.HasConsole())
		}
	}
	if c := mustLoad(t, "BARONG_PORTAL=off", "BARONG_PORTAL_CSS=absent.css"); !warned(c, "BARONG_PORTAL_CSS", "no effect") {
		t.Errorf("no warning in %q", c.Warnings())
	}
	if _, err := load(t, "BARONG_API_PREFIX=accounts", "BARONG_PORTAL=on"); err == nil || !strings.Contains(err.Error(), "BARONG_PORTAL=") {
		t.Errorf("pages where the API is: %v", err)
	}
	if c := mustLoad(t, "BARONG_PORTAL_REDIRECTS=App.Example:8443, b.test"); !slices.Equal(c.PortalRedirects, []string{"app.example:8443", "b.test"}) {
		t.Errorf("read %q", c.PortalRedirects)
	}
}
