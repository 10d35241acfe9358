package config_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"barong/internal/config"
	"barong/internal/crypto/secret"
)

// warned reports whether one of the warnings has all of the words.
func warned(c *config.Config, words ...string) bool {
	return slices.ContainsFunc(c.Warnings(), func(w string) bool {
		return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(w, word) })
	})
}

func TestSecretsFromFiles(t *testing.T) {
	inEmptyFolder(t)
	key := secret.NewKey().Reveal()
	write(t, "key", key+"\r\n")
	write(t, "password", "two words \n\n")
	write(t, "postgres", "postgres://u:p4ss@h/d\n")
	write(t, "redis", "redis://:p4ss@h\n")
	write(t, "broker", "amqp://u:p4ss@h\n")
	write(t, "long", strings.Repeat("x", 70_000))
	write(t, "bad", "what://u:p4ss@h")
	write(t, "empty", "\n")

	c := mustLoad(t, "BARONG_SECRET_KEY_FILE=key", "ADMIN_PASSWORD_FILE=password", "BARONG_DATABASE_URL_FILE=postgres",
		"BARONG_REDIS_URL_FILE=redis", "EVENT_API_RABBITMQ_URL_FILE=broker")
	if c.SecretKey.Reveal() != key || c.AdminPassword.Reveal() != "two words" || c.DatabaseURL.Reveal() != "postgres://u:p4ss@h/d" ||
		c.RedisURL.Reveal() != "redis://:p4ss@h" || c.BrokerURL().Reveal() != "amqp://u:p4ss@h" {
		t.Errorf("read %q %q %q %q %q", c.SecretKey.Reveal(), c.AdminPassword.Reveal(), c.DatabaseURL.Reveal(), c.RedisURL.Reveal(), c.BrokerURL().Reveal())
	}
	for _, w := range c.Warnings() {
		if strings.Contains(w, "white space") || strings.Contains(w, "not a known setting") {
			t.Errorf("a file is warned of: %s", w)
		}
	}
	if v, ok := c.Lookup("ADMIN_PASSWORD"); !ok || v != "two words" {
		t.Errorf("a seeds file finds the password %q, %v", v, ok)
	}
	if c.SecretFile("BARONG_SECRET_KEY") != "key" || c.SecretFile("BARONG_SMTP_PASSWORD") != "" {
		t.Error("the file of a secret is not known")
	}
	for _, v := range c.Values() {
		if v.Name == "ADMIN_PASSWORD" && (v.Source != "env" || v.Origin != "ADMIN_PASSWORD_FILE" || v.Text != secret.Mask) {
			t.Errorf("%+v", v)
		}
	}
	// Every setting that is a secret, or holds one, has the variable.
	for _, s := range config.Settings() {
		if !s.FromFile {
			continue
		}
		for _, name := range append(s.Aliases, s.Name) {
			servers := "BARONG_EVENT_API_NATS_URL=nats://h"
			if name == "BARONG_EVENT_API_NATS_URL" {
				servers = "BARONG_SMTP_USER=u" // the file alone
			}
			if _, err := load(t, name+"_FILE=absent", servers, "BARONG_SMTP_HOST=h", "BARONG_TOTP_VAULT_URL=https://h", "BARONG_PHONE_VERIFICATION=twilio_sms", "BARONG_STORAGE_PROVIDER=aws",
				"BARONG_CAPTCHA="+map[bool]string{true: strings.ToLower(strings.SplitN(name, "_", 3)[1]), false: "none"}[strings.Contains(s.Group, "Captcha")]); err == nil ||
				!strings.Contains(err.Error(), name+`_FILE="absent" is not allowed: `) {
				t.Errorf("%s_FILE is not read: %v", name, err)
			}
		}
	}
	write(t, "config/barong.yml", "admin_password_file: password\n")
	if c := mustLoad(t); c.AdminPassword.Reveal() != "two words" || c.Source("ADMIN_PASSWORD") != "file" || len(c.Warnings()) > 0 {
		t.Errorf("from the YAML file: %q, %v", c.AdminPassword.Reveal(), c.Warnings())
	}
	if c := mustLoad(t, "ADMIN_PASSWORD=from the environment"); c.AdminPassword.Reveal() != "from the environment" {
		t.Error("the file's file wins over the environment")
	}
	// An empty variable is none, on either side.
	if c := mustLoad(t, "ADMIN_PASSWORD=", "ADMIN_PASSWORD_FILE=password"); c.AdminPassword.Reveal() != "two words" {
		t.Error("an empty variable hides the file")
	}
	if c := mustLoad(t, "ADMIN_PASSWORD=x", "ADMIN_PASSWORD_FILE="); c.AdminPassword.Reveal() != "x" {
		t.Error("an empty name of a file counts")
	}
	if c := mustLoad(t, "ADMIN_PASSWORD_FILE=empty"); c.AdminPassword != "" {
		t.Error("an empty file is no empty password")
	}
	for name, env := range map[string][]string{
		"both":               {"ADMIN_PASSWORD=p4ss", "ADMIN_PASSWORD_FILE=password"},
		"too long":           {"ADMIN_PASSWORD_FILE=long"},
		"a folder":           {"ADMIN_PASSWORD_FILE=config"},
		"a bad value inside": {"BARONG_REDIS_URL_FILE=bad"},
	} {
		_, err := load(t, env...)
		var bad *config.Error
		if !errors.As(err, &bad) || len(bad.Problems) != 1 || !strings.Contains(err.Error(), strings.SplitN(env[0], "=", 2)[0][:12]) ||
			strings.Contains(err.Error(), "p4ss") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if c := mustLoad(t, "BARONG_DOMAIN_FILE=absent"); !warned(c, "BARONG_DOMAIN_FILE is not a known setting") {
		t.Error("a variable that holds no secret is read from a file")
	}
}

func TestWhiteSpaceAtTheEndIsDropped(t *testing.T) {
	inEmptyFolder(t)
	for _, end := range []string{" ", "\n", "\r\n", "\t \n", "\u00a0"} {
		c := mustLoad(t, "ADMIN_PASSWORD=secret"+end, "BARONG_CSRF_PROTECTION=false"+end, "BARONG_REDIS_URL=redis://h"+end, "SEED="+"x"+end)
		if c.AdminPassword.Reveal() != "secret" || c.CSRFProtection || c.RedisURL.Reveal() != "redis://h" {
			t.Errorf("%q: %q %v %q", end, c.AdminPassword.Reveal(), c.CSRFProtection, c.RedisURL.Reveal())
		}
		if !warned(c, "ADMIN_PASSWORD", "white space") || !warned(c, "BARONG_CSRF_PROTECTION", "white space") {
			t.Errorf("%q: no warning in %q", end, c.Warnings())
		}
		if v, _ := c.Lookup("SEED"); v != "x" {
			t.Errorf("a seeds file finds %q", v)
		}
	}
	if c := mustLoad(t, "ADMIN_PASSWORD= a b"); c.AdminPassword.Reveal() != " a b" || len(c.Warnings()) > 0 {
		t.Errorf("white space elsewhere: %q, %q", c.AdminPassword.Reveal(), c.Warnings())
	}
}

func TestWhatIsNotUsedIsNotJudged(t *testing.T) {
	inEmptyFolder(t)
	const sqlite, postgres = "sqlite://data/barong.db", "postgres://u@h/d"
	kubernetes := []string{
		"DATABASE_PORT=tcp://10.96.0.7:5432", "DATABASE_SERVICE_HOST=10.96.0.7", "DATABASE_SERVICE_PORT=5432",
		"DATABASE_PORT_5432_TCP=tcp://10.96.0.7:5432", "BARONG_PORT=tcp://10.96.0.8:8080", "BARONG_SERVICE_HOST=10.96.0.8",
		"BARONG_SERVICE_PORT=8080", "BARONG_SERVICE_PORT_HTTP=8080", "BARONG_PORT_8080_TCP=tcp://10.96.0.8:8080",
		"BARONG_PORT_8080_TCP_PROTO=tcp", "BARONG_PORT_8080_TCP_PORT=8080", "BARONG_PORT_8080_TCP_ADDR=10.96.0.8",
		"BARONG_SMTP_PORT=tcp://10.96.0.9:25", "BARONG_SMTP_HOST=smtp",
	}
	for _, url := range []string{sqlite, postgres} {
		env := kubernetes
		if url != sqlite {
			env = append(slices.Clone(env), "BARONG_DATABASE_URL="+url)
		}
		c := mustLoad(t, env...)
		if c.DatabaseURL.Reveal() != url || c.SMTPPort != "1025" || !warned(c, "DATABASE_PORT=tcp://10.96.0.7:5432", "Kubernetes", "ignored") {
			t.Errorf("%s, port %s: %q", c.DatabaseURL, c.SMTPPort, c.Warnings())
		}
		for _, w := range c.Warnings() {
			if strings.Contains(w, "BARONG_PORT") || strings.Contains(w, "BARONG_SERVICE") {
				t.Errorf("a variable of Kubernetes is warned of: %s", w)
			}
		}
	}
	if c := mustLoad(t, `DATABASE_PORT="tcp://10.96.0.7:5432"`, "DATABASE_HOST=db"); c.DatabaseURL.Reveal() != "postgres://postgres@db:5432/barong_production" {
		t.Errorf("in quotes: %s", c.DatabaseURL)
	}
	if c := mustLoad(t, "DATABASE_PORT=tcp://10.96.0.7:5432", "DATABASE_HOST=db"); c.DatabaseURL.Reveal() != "postgres://postgres@db:5432/barong_production" {
		t.Errorf("beside a host: %s", c.DatabaseURL.Reveal())
	}
	if c := mustLoad(t, "BARONG_STMP_PORT=25"); !warned(c, "BARONG_STMP_PORT is not a known setting") {
		t.Error("a misspelt port passes for one of Kubernetes")
	}
	for name, c := range map[string]struct {
		env  []string
		idle string // named in a warning
	}{
		"MySQL beside the URL":      {[]string{"BARONG_DATABASE_URL=" + postgres, "DATABASE_ADAPTER=oracle", "DATABASE_PORT=x"}, "DATABASE_ADAPTER, DATABASE_PORT have no effect beside BARONG_DATABASE_URL"},
		"an absent password's file": {[]string{"BARONG_DATABASE_URL=" + postgres, "DATABASE_PASS_FILE=absent"}, "DATABASE_PASS"},
		"Twilio without it":         {[]string{"BARONG_TWILIO_API_URL=ftp://x"}, "BARONG_TWILIO_API_URL has no effect with BARONG_PHONE_VERIFICATION=mock"},
		"no mail server":            {[]string{"BARONG_SMTP_PORT=smtp", "BARONG_SMTP_TLS=ssl"}, "BARONG_SMTP_PORT, BARONG_SMTP_TLS have no effect without BARONG_SMTP_HOST"},
		"no captcha":                {[]string{"BARONG_CAPTCHA_VERIFY_URL=x"}, "BARONG_CAPTCHA_VERIFY_URL has no effect"},
		"no cloud":                  {[]string{"BARONG_STORAGE_PATHSTYLE=yes"}, "BARONG_STORAGE_PATHSTYLE has no effect with BARONG_STORAGE_PROVIDER=local"},
		"a broker by its URL":       {[]string{"EVENT_API_RABBITMQ_URL=amqp://h", "BARONG_EVENT_API_RABBITMQ_PORT=x"}, "BARONG_EVENT_API_RABBITMQ_PORT"},
	} {
		got, err := load(t, c.env...)
		if err != nil || !warned(got, c.idle, "no effect") {
			t.Errorf("%s: %v, %q", name, err, got.Warnings())
		}
	}
	// The opposite: what is used is judged.
	for _, env := range [][]string{
		{"DATABASE_ADAPTER=oracle"},
		{"DATABASE_PORT=x"},
		{"DATABASE_HOST=db", "DATABASE_PASS_FILE=absent"},
		{"BARONG_PHONE_VERIFICATION=twilio_sms", "BARONG_TWILIO_API_URL=ftp://x"},
		{"BARONG_SMTP_HOST=h", "BARONG_SMTP_PORT=smtp"},
		{"BARONG_STORAGE_PROVIDER=aws", "BARONG_STORAGE_PATHSTYLE=yes"},
		{"PORT=x"},
	} {
		if _, err := load(t, env...); err == nil {
			t.Errorf("%q is accepted", env)
		}
	}
}

// TestNothingOfAPasswordShows: whatever is wrong with a URL, no line has a part of the password in it.
func TestNothingOfAPasswordShows(t *testing.T) {
	inEmptyFolder(t)
	for _, url := range []string{
		"postgres://u:hunter/hunter@h/d", "what://u:hunter@h", "u:hunter@h:5432/d", "redis:u:hunter@h", "redis://:hunter",
		"amqp://hunter@h", "smtp://u:hunter@h:25", "https://u:hunter@h/x?sig=hunter", "https://h/c?sig=hunter&hunter",
	} {
		for _, s := range config.Settings() {
			if s.Name == "" || s.Secret {
				continue
			}
			c, err := load(t, s.Name+"="+url, "BARONG_STORAGE_PROVIDER=aws", "BARONG_SMTP_HOST=h", "BARONG_PHONE_VERIFICATION=twilio_sms", "BARONG_CAPTCHA=recaptcha")
			shown := strings.Join(c.Warnings(), "\n")
			for _, v := range c.Values() {
				shown += "\n" + v.Text
			}
			if err != nil {
				shown += "\n" + err.Error()
			}
			if err := c.Validate(); err != nil {
				shown += "\n" + err.Error()
			}
			if strings.Contains(shown, "hunter") {
				t.Errorf("%s=%s shows:\n%s", s.Name, url, shown)
			}
		}
	}
	err := config.Bad("BARONG_X", "redis://:hunter@h", "another")
	if strings.Contains(err.Error(), "hunter") {
		t.Error(err)
	}
}

// TestEverythingIsToldAtOnce: bad values, and what production lacks beside them, and nothing that follows from a bad value.
func TestEverythingIsToldAtOnce(t *testing.T) {
	inEmptyFolder(t)
	c, err := config.Load(nil, []string{
		"RAILS_ENV=production", "BARONG_SECRET_KEY=short", "BARONG_DOC_NUM_LIMIT=x", "BARONG_REDIS_URL=redis://h?nonsense",
		"DATABASE_ADAPTER=mysql2", "BARONG_COOKIE_SECURE=false",
	}, config.Judge{Name: "BARONG_REDIS_URL", Judge: func(string) error { return errors.New("no\nsuch option") }})
	var bad, refused *config.Error
	if !errors.As(err, &bad) || !errors.As(c.Validate(), &refused) {
		t.Fatalf("%v, %v", err, c.Validate())
	}
	got := strings.Join(slices.Concat(bad.Problems, refused.Problems), "\n")
	for _, want := range []string{
		`BARONG_SECRET_KEY="***" is not allowed`, `BARONG_DOC_NUM_LIMIT="x" is not allowed`, `BARONG_REDIS_URL="redis://h?nonsense" is not allowed: no such option`,
		`DATABASE_ADAPTER="mysql2" is not allowed`, "BARONG_COOKIE_SECURE=false", "set BARONG_JWT_PRIVATE_KEY_PATH", "BARONG_PHONE_VERIFICATION=mock",
		"BARONG_DOMAIN=", "BARONG_SENDER_EMAIL=",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("nothing says %q in\n%s", want, got)
		}
	}
	if lines := strings.Split(got, "\n"); len(lines) != 9 {
		t.Errorf("%d lines, want 9:\n%s", len(lines), got)
	}
}

func TestRailsEnv(t *testing.T) {
	inEmptyFolder(t)
	for want, cases := range map[bool][][]string{
		true:  {{"RAILS_ENV=production"}, {`RAILS_ENV="production"`}, {"RAILS_ENV=production\n"}, {"RAILS_ENV=test", "BARONG_ENV=production"}},
		false: {nil, {"RAILS_ENV=development"}, {"RAILS_ENV=staging"}, {"RAILS_ENV="}, {"RAILS_ENV=production", "BARONG_ENV=development"}},
	} {
		for _, env := range cases {
			if c := mustLoad(t, env...); c.Production() != want {
				t.Errorf("%q: production %v, want %v", env, c.Production(), want)
			}
		}
	}
}

func TestMySQLIsToBeImported(t *testing.T) {
	inEmptyFolder(t)
	for _, env := range [][]string{
		{"DATABASE_ADAPTER=mysql2"},
		{`DATABASE_ADAPTER="mysql2"`},
		{"DATABASE_ADAPTER='mysql'"},
		{"DATABASE_ADAPTER=MySQL", "DATABASE_HOST=db"},
		{"DATABASE_ADAPTER=mariadb"},
		{"DATABASE_ADAPTER=trilogy"},
		{"DATABASE_HOST=db", "DATABASE_PORT=3306"},
		{"BARONG_DATABASE_URL=mysql://u:p4ss@h/d"},
		{"BARONG_DATABASE_URL=mysql2://h/d"},
		{"BARONG_DATABASE_URL=jdbc:mysql://h/d"},
		{"BARONG_DATABASE_URL=MariaDB://h/d"},
	} {
		_, err := load(t, env...)
		var bad *config.Error
		if !errors.As(err, &bad) || len(bad.Problems) != 1 || !strings.Contains(err.Error(), `"barong import"`) || strings.Contains(err.Error(), "p4ss") {
			t.Errorf("%q: %v", env, err)
		}
	}
	for _, url := range []string{"postgres://u@h/d", "sqlite:mysql.db"} {
		if _, err := load(t, "DATABASE_ADAPTER=mysql2", "DATABASE_PORT=3306", "BARONG_DATABASE_URL="+url); err != nil {
			t.Errorf("beside %s: %v", url, err)
		}
	}
}

// openDAX is an environment as OpenDAX writes it.
var openDAX = []string{
	"PORT=8001", "LOG_LEVEL=warn", "DISABLE_SPRING=true", "SECRET_KEY_BASE=64", `DATABASE_COLLATION=""`, `DATABASE_ADAPTER="mysql2"`,
	"DATABASE_HOST=db", "DATABASE_PORT=3306", "DATABASE_USER=root", "DATABASE_PASS=changeme", "BARONG_KYC_PROVIDER=local",
	"BARONG_STORAGE_PROVIDER=Google", "BARONG_STORAGE_BUCKET_NAME=docs", "BARONG_STORAGE_ACCESS_KEY=k", "BARONG_STORAGE_SECRET_KEY=s",
	"BARONG_STORAGE_ENDPOINT=https://fra1.example.test", "BARONG_STORAGE_SIGNATURE_VERSION=2", "BARONG_STORAGE_REGION=fra1",
	"BARONG_CAPTCHA=none", "JWT_PUBLIC_KEY=LS0tLS1CRUdJTg==", "JWT_PRIVATE_KEY_PATH=/secrets/barong.key", "BARONG_VAULT_TOKEN=changeme",
	"BARONG_VAULT_ADDRESS=http://vault:8200", "BARONG_VAULT_APP_NAME=opendax", "REDIS_URL=redis://redis:6379", "BARONG_REDIS_URL=redis://redis:6379",
	"BARONG_EVENT_API_JWT_PRIVATE_KEY=LS0tLS1CRUdJTg==", "BARONG_EVENT_API_JWT_ALGORITHM=RS256", "BARONG_EVENT_API_RABBITMQ_HOST=rabbitmq",
	"BARONG_EVENT_API_RABBITMQ_PORT=5672", "BARONG_EVENT_API_RABBITMQ_USERNAME=guest", "BARONG_EVENT_API_RABBITMQ_PASSWORD=guest",
	"BARONG_SMTP_HOST=smtp.example.test", "BARONG_SMTP_PORT=25", "BARONG_SMTP_USER=apikey", "BARONG_SMTP_PASSWORD=changeme",
	"BARONG_SMTP_LOGO_LINK=https://example.test/logo.png", "BARONG_DEFAULT_LANGUAGE=en", "BARONG_SENDER_NAME=Barong",
	"BARONG_SENDER_EMAIL=noreply@example.test", "BARONG_KYCAID_AUTHORIZATION_TOKEN=changeme", "BARONG_KYCAID_SANDBOX_MODE=true",
	"BARONG_KYCAID_API_ENDPOINT=https://api.example.test", "BARONG_PASSWORD_MIN_ENTROPY=14", "BARONG_PASSWORD_USE_DICTIONARY=false",
	"BARONG_CSRF_PROTECTION=true", "BARONG_APP_NAME=OpenDAX", "BARONG_DOMAIN=http://www.app.test",
}

func TestEnvironmentOfOpenDAX(t *testing.T) {
	inEmptyFolder(t)
	_, err := load(t, openDAX...)
	var bad *config.Error
	if !errors.As(err, &bad) || len(bad.Problems) != 1 || !strings.HasPrefix(err.Error(), `DATABASE_ADAPTER="mysql2" is not allowed: `) {
		t.Errorf("on MySQL: %v", err)
	}
	c := mustLoad(t, append(slices.Clone(openDAX), "BARONG_DATABASE_URL=postgres://u@db/barong")...)
	if err := c.Validate(); err != nil {
		t.Errorf("on Postgres: %v", err)
	}
	if c.StorageEndpoint != "" || c.HTTPAddr != "127.0.0.1:8001" {
		t.Errorf("endpoint %q, listener %s", c.StorageEndpoint, c.HTTPAddr)
	}
	for _, words := range [][]string{
		{"BARONG_STORAGE_ENDPOINT has no effect with BARONG_STORAGE_PROVIDER=google"},
		{"the original's", "BARONG_VAULT_ADDRESS", "DATABASE_ADAPTER", "BARONG_EVENT_API_RABBITMQ_HOST", "BARONG_COMPAT=2.4.17", "400"},
		{"DATABASE_ADAPTER, DATABASE_HOST, DATABASE_PORT, DATABASE_USER, DATABASE_PASS have no effect beside BARONG_DATABASE_URL"},
		{"JWT_PUBLIC_KEY has no effect"},
		{"SECRET_KEY_BASE has no effect"},
		{"BARONG_VAULT_TOKEN has no effect"},
		{"BARONG_KYC_PROVIDER has no effect"},
		{"REDIS_URL has no effect"},
		{"DISABLE_SPRING has no effect"},
	} {
		if !warned(c, words...) {
			t.Errorf("no warning has %q:\n%s", words, strings.Join(c.Warnings(), "\n"))
		}
	}
	for _, mode := range []string{"reference", "2.4.17"} {
		if c := mustLoad(t, "BARONG_VAULT_TOKEN=x", "BARONG_COMPAT="+mode); warned(c, "the original's") {
			t.Errorf("BARONG_COMPAT=%s is warned of: %q", mode, c.Warnings())
		}
	}
	for _, sign := range []string{"VAULT_ADDR=x", "DATABASE_ADAPTER=postgresql", "EVENT_API_RABBITMQ_URL=amqp://h", "BARONG_EVENT_API_RABBITMQ_HOST=h"} {
		if c := mustLoad(t, sign); !warned(c, "the original's", "BARONG_COMPAT") {
			t.Errorf("%s is not seen as the original's: %q", sign, c.Warnings())
		}
	}
	if c := mustLoad(t, "WEB_CONCURRENCY=2", "REDIS_URL=redis://h", "BARONG_EVENT_API_RABBITMQ_URL=amqp://h"); len(c.Warnings()) > 0 {
		t.Errorf("other people's variables are warned of: %q", c.Warnings())
	}
}

func TestCaptchaKeyWithACyrillicLetter(t *testing.T) {
	inEmptyFolder(t)
	write(t, "config/barong.yml", "сaptcha_protected_endpoints: [user_create]\n") // the first letter is U+0441
	for mode, want := range map[string][]string{
		"reference": {"user_create", "password_reset", "email_confirmation"}, "2.4.17": {},
	} {
		c := mustLoad(t, "BARONG_COMPAT="+mode, "BARONG_CAPTCHA=turnstile", "BARONG_TURNSTILE_SECRET_KEY=x")
		if !slices.Equal(c.CaptchaProtectedEndpoints, want) {
			t.Errorf("%s protects %q, want %q", mode, c.CaptchaProtectedEndpoints, want)
		}
		if !warned(c, `"\u0441aptcha_protected_endpoints"`, "did you mean captcha_protected_endpoints", "letter 1", "U+0441", "Cyrillic") ||
			!warned(c, "captcha_protected_endpoints is not set", "U+0441") {
			t.Errorf("%s: %q", mode, c.Warnings())
		}
	}
	write(t, "config/barong.yml", "captcha_protected_endpoints: [session_create]\n")
	c := mustLoad(t, "BARONG_COMPAT=2.4.17", "BARONG_CAPTCHA=turnstile", "BARONG_TURNSTILE_SECRET_KEY=x")
	if !slices.Equal(c.CaptchaProtectedEndpoints, []string{"session_create"}) || len(c.Warnings()) > 0 {
		t.Errorf("%q, %q", c.CaptchaProtectedEndpoints, c.Warnings())
	}
}

func TestQuotes(t *testing.T) {
	inEmptyFolder(t)
	c := mustLoad(t, `BARONG_APP_NAME="My Exchange"`, "BARONG_REDIS_URL='redis://h'", `BARONG_CSRF_PROTECTION="false"`, `ADMIN_PASSWORD="x"`, `BARONG_SENDER_NAME=a "b"`)
	if c.AppName != "My Exchange" || c.RedisURL.Reveal() != "redis://h" || c.CSRFProtection || c.SenderName != `a "b"` {
		t.Errorf("%q %q %v %q", c.AppName, c.RedisURL.Reveal(), c.CSRFProtection, c.SenderName)
	}
	if c.AdminPassword.Reveal() != `"x"` || !warned(c, "ADMIN_PASSWORD", "quotes") || !warned(c, "BARONG_APP_NAME", "quotes") {
		t.Errorf("a secret loses its quotes: %q, %q", c.AdminPassword.Reveal(), c.Warnings())
	}
}

// TestConfigFolder: in the image, files written as config/… are those of the original's image.
func TestConfigFolder(t *testing.T) {
	inEmptyFolder(t)
	folder := t.TempDir()
	write(t, folder+"/barong.yml", "app_name: theirs\n")
	write(t, folder+"/seeds.yml", "users: []\n")
	write(t, folder+"/keys/a.pem", "")
	write(t, folder+"/authz_rules.yml", "")
	write(t, "config/authz_rules.yml", "")
	c := mustLoad(t, "BARONG_CONFIG_FOLDER="+folder, "BARONG_SEEDS_FILE=config/seeds.yml", "JWT_PRIVATE_KEY_PATH=config/keys")
	if c.AppName != "theirs" || c.SeedsFile != folder+"/seeds.yml" || c.JWTPrivateKeyPath != folder+"/keys" || c.AuthzRulesFile != "config/authz_rules.yml" || c.ManagementFile != "" {
		t.Errorf("%q %q %q %q %q", c.AppName, c.SeedsFile, c.JWTPrivateKeyPath, c.AuthzRulesFile, c.ManagementFile)
	}
	if c := mustLoad(t); c.AppName != "Barong" || c.SeedsFile != "" {
		t.Error("without the setting the folder is read")
	}
	env := map[string]string{"BARONG_SEEDS_FILE": "seeds.yml", "BARONG_AUTHZ_RULES_FILE": "config/absent.yml"}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if _, err := load(t, "BARONG_CONFIG_FOLDER="+folder, name+"="+env[name]); err == nil {
			t.Errorf("%s=%s is found", name, env[name])
		}
	}
}
