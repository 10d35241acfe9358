package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"barong/db"
	"barong/internal/config"
	passwords "barong/internal/crypto/password"
	"barong/internal/crypto/secret"
	"barong/internal/test/testkit"

	"github.com/redis/go-redis/v9"
)

// These tests wait for the programs that they start.
func TestMain(m *testing.M) { testkit.Main(m, 3) }

// A step is one call of the real program and what it must do. out and errs are regular expressions; an empty one means
// that nothing may be written there, "." that anything may.
type step struct {
	call   string // arguments, separated by spaces
	env    []string
	status int
	out    string
	errs   string
	not    string // what may stand in neither
}

// play runs steps one after the other in an empty folder with nothing in the environment, and returns the folder.
func play(t *testing.T, dir string, steps ...step) {
	t.Helper()
	for _, s := range steps {
		out, errs, status := call(t, dir, s.env, strings.Fields(s.call)...)
		ok := status == s.status && fits(s.out, out) && fits(s.errs, errs)
		if s.not != "" && regexp.MustCompile("(?s)"+s.not).MatchString(out+errs) {
			ok = false
		}
		if !ok {
			t.Errorf("%v barong %s\nstatus %d, want %d\nstdout, want %q:\n%s\nstderr, want %q:\n%s\nmust not hold %q",
				s.env, s.call, status, s.status, s.out, out, s.errs, errs, s.not)
		}
	}
}

func fits(want, got string) bool {
	if want == "" {
		return got == ""
	}
	return want == "." || regexp.MustCompile("(?ms)"+want).MatchString(got)
}

func call(t *testing.T, dir string, env []string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, testkit.Barong(t), args...)
	// The race detector, when it is built in, would sleep for a second before each exit.
	cmd.Dir, cmd.Env = dir, append([]string{"HOME=" + dir, "PATH=/nowhere", "GORACE=atexit_sleep_ms=0"}, env...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func TestUsage(t *testing.T) {
	t.Parallel()
	play(t, t.TempDir(),
		step{call: "--help", out: "serve.*migrate.*seed.*keys.*policy.*audit.*counts.*secrets.*config.*healthcheck.*doctor.*version", not: "--http-addr"},
		step{call: "keys --help", out: "generate.*list.*rotate", not: "--http-addr"},
		step{call: "secrets rotate --help", out: "BARONG_SECRET_KEY", not: "--http-addr"},
		step{call: "", status: 2, errs: "expected one of"},
		step{call: "serv", status: 2, errs: `unexpected argument serv`},
		step{call: "config --no-such-flag", status: 2, errs: "unknown flag"},
		step{call: "config --http-addr", status: 2, errs: "."},
		step{call: "migrate sideways", status: 2, errs: "."},
		step{call: "version", out: `\Abarong \S+\ncommit \S+\nbuilt \d{4}-\d\d-\d\dT\S+\ngo1\.\S+\n\z`},
	)
}

// TestServeHelpListsEverySetting: the flags come from the same declaration as the variables.
func TestServeHelpListsEverySetting(t *testing.T) {
	t.Parallel()
	out, _, status := call(t, t.TempDir(), nil, "serve", "--help")
	if status != 0 {
		t.Fatalf("status %d", status)
	}
	for _, s := range config.Settings() {
		if s.Flag != "" && !strings.Contains(out, "--"+s.Flag+"=") {
			t.Errorf("--%s is missing", s.Flag)
		}
		if !strings.Contains(out, "\n"+s.Group+"\n") && s.Group != "File" {
			t.Errorf("group %s is missing", s.Group)
		}
	}
	if !strings.Contains(out, "--migrate") {
		t.Error("--migrate is missing")
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "b.yml"), []byte("domain: file.test\nodd_key: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	key := secret.NewKey().Reveal()
	play(t, dir,
		step{call: "config", out: `^BARONG_HTTP_ADDR +127\.0\.0\.1:8080 +default$.*^BARONG_REDIS_URL +- +default$.*^state_triggers +banned: ban fraud, `},
		step{
			call: "--config b.yml config --app-name=Mine", env: []string{
				"BARONG_HTTP_ADDR=127.0.0.1:1", "BARONG_SECRET_KEY=" + key, "BARONG_REDIS_URL=redis://:hunter2@h", "ADMIN_PASSWORD=hunter2",
				"JWT_ISSUER=other", "BARONG_UNKNOWN=1",
			},
			out: `^BARONG_APP_NAME +Mine +flag \(--app-name\)$.*^BARONG_DOMAIN +file\.test +file \(b\.yml\)$.*^BARONG_HTTP_ADDR +127\.0\.0\.1:1 +env$.*` +
				`^BARONG_REDIS_URL +redis://:\*\*\*@h +env$.*^BARONG_SECRET_KEY +\*\*\* +env$.*^BARONG_JWT_ISSUER +other +env \(JWT_ISSUER\)$`,
			errs: `warning: BARONG_UNKNOWN.*warning: "odd_key"`,
			not:  "hunter2|" + regexp.QuoteMeta(key),
		},
		step{
			call: "config", env: []string{"BARONG_ENV=production"}, out: "^BARONG_ENV +production +env$",
			errs: "refused by serve: .*BARONG_JWT_PRIVATE_KEY_PATH.*BARONG_SECRET_KEY.*BARONG_PHONE_VERIFICATION",
		},
		step{
			call: "config", env: []string{"BARONG_JWT_EXPIRE_TIME=soon"}, status: 2,
			errs: `\Abarong: BARONG_JWT_EXPIRE_TIME="soon" is not allowed: a whole number of seconds of at least 1\n\z`,
		},
		step{
			call: "config --jwt-reuse=2", env: []string{"BARONG_SECRET_KEY=hunter2"}, status: 2,
			errs: `\Abarong: BARONG_SECRET_KEY="\*\*\*" is not allowed: [^\n]*\nbarong: BARONG_JWT_REUSE="2" is not allowed: [^\n]*\n\z`, not: "hunter2",
		},
		step{call: "config", env: []string{"BARONG_CONFIG=absent.yml"}, status: 2, errs: `BARONG_CONFIG="absent.yml"`},
	)
	// Looking changes nothing.
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("the folder holds %v, %v", entries, err)
	}
}

// everyEngine runs f with the variables for each database engine.
func everyEngine(t *testing.T, f func(t *testing.T, env []string)) {
	t.Run("sqlite", func(t *testing.T) { f(t, nil) })
	t.Run("postgres", func(t *testing.T) { f(t, []string{"BARONG_DATABASE_URL=" + testkit.Postgres(t)}) })
}

func TestCounts(t *testing.T) {
	t.Parallel()
	everyEngine(t, func(t *testing.T, env []string) {
		dir := t.TempDir()
		play(t, dir,
			step{call: "migrate up", env: env, out: "."},
			step{call: "counts compare", env: env, out: `\Athe counts are those of the rows\n\z`},
			step{call: "counts repair", env: env, out: `\Athe counts are those of the rows\n\z`},
		)
		_, err := open(t, dir, env, secret.NewKey()).Bun().ExecContext(t.Context(),
			"INSERT INTO label_counts (key, value, scope, block, count) VALUES ('email', 'verified', 'private', 0, 3), ('email', 'verified', '*', 0, 3)")
		if err != nil {
			t.Fatal(err)
		}
		play(t, dir,
			step{call: "counts compare", env: env, status: 1, out: `\ATABLE +DIFFERENT\nlabel_counts +2\n\z`},
			step{call: "counts repair", env: env, out: `^label_counts +2$.*^the counts were made anew$`},
			step{call: "counts compare", env: env, out: `\Athe counts are those of the rows\n\z`},
		)
	})
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	everyEngine(t, func(t *testing.T, env []string) {
		dir := t.TempDir()
		play(t, dir,
			step{call: "migrate status", env: env, out: `^1 +pending +00001_initial\.sql$`, not: "applied"},
			step{call: "seed", env: env, status: 1, errs: "barong migrate up"},
			step{call: "audit export", env: env, status: 1, errs: "barong migrate up"},
			step{call: "secrets rotate", env: env, status: 1, errs: "barong migrate up"},
			step{call: "counts compare", env: env, status: 1, errs: "barong migrate up"},
			step{call: "doctor", env: env, status: 1, out: `schema +FAILED +\d+ migrations are missing`},
			step{call: "migrate up", env: env, out: `\Aapplied 00001_initial\.sql\n`},
			step{call: "migrate up", env: env, out: `\Athe schema is up to date\n\z`},
			step{call: "migrate status", env: env, out: `^1 +applied +`, not: "pending"},
			step{call: "migrate down", env: env, out: `\Ataken back \d+_\S+\.sql\n\z`},
			step{call: "migrate status", env: env, out: `pending`},
			step{call: "migrate up", env: env, out: `\Aapplied `},
		)
	})
	play(t, t.TempDir(), step{
		call: "migrate up", env: []string{"BARONG_DATABASE_URL=postgres://u:hunter2@127.0.0.1:1/d"}, status: 1,
		errs: `BARONG_DATABASE_URL=postgres://u:\*\*\*@127\.0\.0\.1:1/d: `, not: "hunter2",
	})
}

// TestNoDatabase: a command that runs in another folder than the server's, from cron say, tells so. It makes no database there,
// in which nothing would be wrong, and no copy of one.
func TestNoDatabase(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, call := range []string{
		"backup copy.db", "counts compare", "audit export", "audit verify", "outbox list", "secrets rotate", "seed",
		"users ban m@example.com", "policy check --role member --method GET /x",
	} {
		play(t, dir, step{call: call, status: 1, errs: `\Abarong: BARONG_DATABASE_URL=sqlite://data/barong\.db: there is no database at data/barong\.db: `})
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("a command that found no database left %v, %v", left, err)
	}
	play(t, dir,
		step{call: "migrate status", out: "pending"},
		step{call: "backup copy.db", status: 1, errs: "is empty"},
	)
	if _, err := os.Stat(filepath.Join(dir, "copy.db")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty database was copied: %v", err)
	}
}

func TestSeedAndAudit(t *testing.T) {
	t.Parallel()
	everyEngine(t, func(t *testing.T, env []string) {
		dir := t.TempDir()
		file := filepath.Join(dir, "seeds.yml")
		text := "users:\n  - {email: 'a@b.test', password: 'Tr0ub4dor&3xyz', role: member, state: active, level: 0}\n" +
			"  - {email: '<%= ENV.fetch(\"SECOND\", \"x\") %>', role: member, state: active, level: 0}\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		bad := filepath.Join(dir, "bad.yml")
		if err := os.WriteFile(bad, []byte("users:\n  - {level: 1}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		// As deployments of the original have them.
		field := "# <% unless wizard %>\nusers:\n- {email: \"<%= ENV['WHO'] || 'e@f.test' %>\", password: \"<%= ENV.fetch('SECOND', nil) %>Tr0ub4dor\", level: 0, id: 7}\n" +
			"restrictions: {}\n# - { category: whitelist, value: <%= ENV.fetch('ABSENT') %> }\nwallets: []\n"
		if err := os.WriteFile(filepath.Join(dir, "field.yml"), []byte(field), 0o600); err != nil {
			t.Fatal(err)
		}
		admin := append([]string{"ADMIN_EMAIL=root@b.test", "ADMIN_PASSWORD=Tr0ub4dor&3xyz"}, env...)
		second := append([]string{"SECOND=c@d.test"}, env...)
		play(t, dir,
			step{call: "migrate up", env: env, out: "."},
			step{call: "seed", env: admin, out: `^created +level .*^created +permission .*^created +user +root@b\.test.*^\d+ created, 0 changed, 0 left alone$`, not: "Tr0ub4dor"},
			step{call: "seed", env: admin, out: `^0 created, 0 changed, \d+ left alone$`, not: `^created`},
			step{call: "seed --file seeds.yml", env: second, out: `created +user +a@b\.test +member$.*created +user +c@d\.test +password: in data/passwords-\d+\.txt member$`, not: "Tr0ub4dor"},
			step{call: "seed --seeds-file seeds.yml", env: second, out: `^0 created, 0 changed, 2 left alone$`},
			step{
				call: "seed --file field.yml", env: env, out: `created +user +e@f\.test +member$.*^1 created, 0 changed, 0 left alone$`,
				errs: `\Awarning: field\.yml: "id" of users has no effect[^\n]*\nwarning: field\.yml: line 6: "wallets" has no effect[^\n]*\n\z`,
			},
			step{call: "seed --file bad.yml", env: env, status: 1, errs: `\Abarong: bad\.yml: line 2: .*Email missing in users seed`},
			step{call: "seed --seeds-file bad.yml", env: env, status: 2, errs: `\Abarong: BARONG_SEEDS_FILE="bad\.yml" is not allowed: .*line 2: .*Email missing in users seed`},
			step{call: "seed --file absent.yml", env: env, status: 1, errs: "absent.yml"},
			step{call: "audit export", env: env, errs: `\A0 activities\n\z`},
			step{call: "audit export --from yesterday", env: env, status: 2, errs: `--from: "yesterday" is no time`},
			step{call: "audit export --category both", env: env, status: 2, errs: "."},
			step{call: "audit verify", env: env, out: `\A0 rows in 0 blocks\nthe trail is whole\nhead 0\n\z`},
			step{call: "audit verify --head 12:ab", env: env, status: 2, errs: `--head: "12:ab" is no head`},
		)
		record(t, dir, env)
		play(t, dir,
			step{call: "audit export", env: env, out: `\A\{"id":.*"topic":"session".*\n\{.*"topic":"otp".*\n\z`, errs: "2 activities"},
			step{call: "audit export --topic otp", env: env, out: `"topic":"otp"`, errs: "1 activities", not: `"session"`},
			step{call: "audit export --from 2026-01-02 --to 2026-01-02", env: env, out: `"topic":"otp"`, errs: "1 activities", not: `"session"`},
			step{call: "audit export --email a@b.test --result succeed --target none", env: env, errs: "0 activities"},
			step{call: "audit export -o out.jsonl", env: env, errs: "2 activities"},
			step{call: "audit export -o out.jsonl", env: env, status: 1, errs: "out.jsonl"},
			step{call: "audit verify", env: env, out: `\A0 rows in 0 blocks\n2 rows since \S+ are not sealed yet\nthe trail is whole\nhead 0\n\z`},
			step{call: "audit verify --json", env: env, out: `\A\{"whole":true,"blocks":0,"rows":0,.*"waiting":2,.*"head":"0"\}\n\z`},
			step{call: "audit verify --head 1:" + strings.Repeat("0", 64), env: env, status: 3, out: `\Acut block 1: the chain ends before .*the trail is NOT whole`},
		)
		lines, err := os.ReadFile(filepath.Join(dir, "out.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(lines)) {
			if !json.Valid([]byte(line)) {
				t.Errorf("no JSON: %s", line)
			}
		}
	})
}

// TestPasswordsThatWereMadeUp: without a terminal they are in a file that only its owner may read, and nowhere else.
func TestPasswordsThatWereMadeUp(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := t.TempDir()
	env := []string{"BARONG_HTTP_ADDR=" + taken.Addr().String(), "BARONG_OPS_ADDR=", "BARONG_GRPC_ADDR=", "BARONG_JWT_ALGORITHM=EdDSA"}
	out, errs, status := call(t, dir, env, "serve") // it seeds before it listens
	found := regexp.MustCompile(`"account":"admin@barong\.io","file":"(data/passwords-\d+\.txt)"`).FindStringSubmatch(errs)
	if status != 1 || out != "" || found == nil {
		t.Fatalf("status %d, stdout %q, stderr:\n%s", status, out, errs)
	}
	path := filepath.Join(dir, found[1])
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	password := regexp.MustCompile(`\Aadmin@barong\.io (\S{20,})\n\z`).FindStringSubmatch(string(text))
	info, err := os.Stat(path)
	if password == nil || err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%q, mode %v, %v", text, info.Mode(), err)
	}
	if strings.Contains(errs, password[1]) {
		t.Error("the log holds the password")
	}
	d := open(t, dir, nil)
	u, err := d.UserByEmail(t.Context(), "admin@barong.io")
	if err != nil {
		t.Fatal(err)
	}
	if ok, _, err := passwords.NewHasher(passwords.HasherOptions{}).Verify(t.Context(), u.PasswordDigest, password[1]); !ok || err != nil {
		t.Errorf("it is not the account's: %v, %v", ok, err)
	}
	// No file is made where no password was.
	play(t, dir, step{call: "seed", env: env, out: `0 created`})
	if files, _ := filepath.Glob(filepath.Join(dir, "data", "passwords-*")); len(files) != 1 {
		t.Errorf("files: %v", files)
	}
	// What cannot be handed over is undone.
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "data"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	env = []string{"BARONG_DATABASE_URL=sqlite:rows.db", "BARONG_SECRET_KEY=" + secret.NewKey().Reveal()}
	play(t, dir,
		step{call: "migrate up", env: env, out: "."},
		step{call: "seed", env: env, status: 1, errs: "passwords of new accounts: .*data"},
		step{call: "seed", env: append(env, "ADMIN_PASSWORD=Tr0ub4dor&3xyz"), out: `created +user +admin@barong\.io`},
	)
}

// TestStartsThatAreRefused: with everything that is wrong in one go, a line each, status 2, and no password in it.
func TestStartsThatAreRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	key := secret.NewKey().Reveal()
	write("key", key+"\n", 0o600)
	write("broken.yml", "rules: [", 0o600)
	play(t, dir,
		step{call: "keys generate", env: []string{"JWT_PRIVATE_KEY_PATH=signing.pem"}, out: "."},
		step{call: "keys generate", env: []string{"JWT_PRIVATE_KEY_PATH=folder/"}, out: "."},
	)
	production := []string{
		"RAILS_ENV=production", "BARONG_SECRET_KEY_FILE=key", "BARONG_PHONE_VERIFICATION=none", "BARONG_DOMAIN=exchange.test",
		"BARONG_SENDER_EMAIL=noreply@exchange.test", "BARONG_HTTP_ADDR=unix:" + filepath.Join(dir, "http.sock"),
		"BARONG_OPS_ADDR=", "BARONG_GRPC_ADDR=",
		// It gets as far as the database, which is not there.
		"BARONG_DATABASE_URL=postgres://u:hunter@127.0.0.1:1/d",
	}
	with := func(env ...string) []string { return append(append([]string(nil), production...), env...) }
	play(t, dir,
		step{
			call: "serve", env: with("JWT_PRIVATE_KEY_PATH=signing.pem"), status: 1,
			errs: `barong: BARONG_DATABASE_URL=postgres://u:\*\*\*@127\.0\.0\.1:1/d: `, not: "hunter",
		},
		step{call: "serve", env: with("JWT_PRIVATE_KEY_PATH=folder/"), status: 1, errs: "barong: BARONG_DATABASE_URL="},
	)
	if err := os.Chmod(filepath.Join(dir, "signing.pem"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "key"), 0o604); err != nil {
		t.Fatal(err)
	}
	pems, err := filepath.Glob(filepath.Join(dir, "folder", "*.pem"))
	if err != nil || len(pems) != 1 || os.Chmod(pems[0], 0o444) != nil {
		t.Fatal(pems, err)
	}
	play(t, dir,
		step{
			call: "serve", env: with("JWT_PRIVATE_KEY_PATH=signing.pem"), status: 2,
			errs: `\Abarong: BARONG_ENV=production: BARONG_JWT_PRIVATE_KEY_PATH: others may read signing\.pem; chmod o= takes that away\n` +
				`barong: BARONG_ENV=production: BARONG_SECRET_KEY_FILE: others may read key; chmod o= takes that away\n\z`,
		},
		step{call: "serve", env: with("JWT_PRIVATE_KEY_PATH=folder/"), status: 2, errs: `others may read folder/\S+\.pem`},
		step{
			call: "serve", env: with("RAILS_ENV=development", "JWT_PRIVATE_KEY_PATH=signing.pem"), status: 1, errs: "BARONG_DATABASE_URL=",
		},
	)
	if err := os.Chmod(pems[0], 0o640); err != nil { // a group is not everybody
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "key"), 0o440); err != nil {
		t.Fatal(err)
	}
	play(t, dir, step{call: "serve", env: with("JWT_PRIVATE_KEY_PATH=folder/"), status: 1, errs: "BARONG_DATABASE_URL="})

	several := []string{
		"RAILS_ENV=production", "BARONG_DOC_NUM_LIMIT=many", "BARONG_REDIS_URL=redis://:hunter@h/x", "BARONG_AUTHZ_RULES_FILE=broken.yml",
		"BARONG_CASBIN_MODEL=broken.yml", "BARONG_MANAGEMENT_API_FILE=broken.yml", "JWT_PRIVATE_KEY_PATH=absent.pem",
		"BARONG_PASSWORD_REGEXP=(", "BARONG_DATABASE_URL=postgres://u:hun/ter@h/d", "BARONG_STORAGE_PROVIDER=aws",
		"BARONG_STORAGE_ENDPOINT=https://hunter@h", "BARONG_DOMAIN=https://u:hunter@h",
	}
	_, errs, status := call(t, dir, several, "serve")
	for _, want := range []string{
		"BARONG_DOC_NUM_LIMIT=", "BARONG_REDIS_URL=", "BARONG_AUTHZ_RULES_FILE=", "BARONG_CASBIN_MODEL=", "BARONG_MANAGEMENT_API_FILE=",
		"BARONG_JWT_PRIVATE_KEY_PATH=", "BARONG_PASSWORD_REGEXP=", "BARONG_DATABASE_URL=", "BARONG_STORAGE_ENDPOINT=", "BARONG_DOMAIN=",
		"BARONG_STORAGE_PROVIDER=aws needs", "BARONG_ENV=production: set BARONG_SECRET_KEY", "BARONG_ENV=production: BARONG_PHONE_VERIFICATION",
		"BARONG_ENV=production: BARONG_SENDER_EMAIL",
	} {
		if n := strings.Count(errs, "barong: "+want); n != 1 {
			t.Errorf("%d lines begin with %s", n, want)
		}
	}
	if n := strings.Count(errs, "\n"); status != 2 || n != 14 || strings.Contains(errs, "hun") {
		t.Errorf("status %d, %d lines, want 2 and 14:\n%s", status, n, errs)
	}
	for _, c := range []struct{ env, want string }{
		{"BARONG_REDIS_URL=redis://h?nonsense=1", `BARONG_REDIS_URL="redis://h\?nonsense=1" is not allowed: unknown or malformed option; allowed are redis://`},
		{"BARONG_REDIS_URL=hunter:hunter@h:6379", `BARONG_REDIS_URL="\*\*\*@h:6379" is not allowed`},
		{"EVENT_API_RABBITMQ_URL=amqp://u:hunter/hunter@h", `EVENT_API_RABBITMQ_URL="amqp://u:\*\*\*@h" is not allowed: it cannot be read`},
		{"BARONG_DATABASE_URL=sqlite://q.db?_busy_timeout=100", `BARONG_DATABASE_URL="sqlite://q\.db\?_busy_timeout=100" is not allowed: .*question mark`},
		{"BARONG_DATABASE_URL=sqlite://:memory:", `BARONG_DATABASE_URL="sqlite://:memory:" is not allowed: :memory: `},
		{"BARONG_DATABASE_URL=postgres://u:hunter/hunter@h/d", `BARONG_DATABASE_URL="postgres://u:\*\*\*@h/d" is not allowed: it cannot be read: percent-encode`},
		{`DATABASE_ADAPTER="mysql2"`, `DATABASE_ADAPTER="mysql2" is not allowed: .*"barong import"`},
	} {
		play(t, dir,
			step{call: "serve", env: []string{c.env}, status: 2, errs: `\Abarong: ` + c.want + `[^\n]*\n\z`, not: "hunter"},
			step{call: "migrate up", env: []string{c.env}, status: 2, errs: `\Abarong: ` + c.want + `[^\n]*\n\z`, not: "hunter"},
		)
	}
}

func TestPolicy(t *testing.T) {
	t.Parallel()
	everyEngine(t, func(t *testing.T, env []string) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "lists.yml"), []byte("rules:\n  pass: [api/v2/open]\n  block: [api/v2/shut]\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		changes := `[{"op":"create","role":"member","verb":"get","path":"api/v2/trade","action":"drop"}]`
		if err := os.WriteFile(filepath.Join(dir, "changes.json"), []byte(changes), 0o600); err != nil {
			t.Fatal(err)
		}
		lists := append([]string{"BARONG_AUTHZ_RULES_FILE=lists.yml"}, env...)
		play(t, dir, step{call: "policy check --role r --method GET a", env: env, status: 1, errs: "barong migrate up"},
			step{call: "migrate up", env: env, out: "."})
		d := open(t, dir, env, secret.NewKey())
		var ids []int64
		err := d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
			ids = nil
			for _, r := range []*db.Permission{
				{Role: "member", Verb: "GET", Path: "api/v2/trade", Action: "ACCEPT"},
				{Role: "member", Verb: "ALL", Path: "api/v2/trade/secret", Action: "DROP"},
			} {
				if err := tx.InsertPermission(ctx, db.Who{}, r); err != nil {
					return err
				}
				ids = append(ids, r.ID)
			}
			// The commands load what servers load: a rule about places needs a source of them.
			return tx.InsertRestriction(ctx, db.Who{}, &db.Restriction{Category: "blacklist", Scope: "country", Value: "JP", State: "enabled"})
		})
		if err != nil {
			t.Fatal(err)
		}
		samples := []db.DecisionSample{{Role: "member", Verb: "GET", Path: "api/v2/trade/x", Allowed: true, Count: 7, SeenAt: time.Now().UnixMilli()}}
		if err := d.AddSamples(t.Context(), samples, 100); err != nil {
			t.Fatal(err)
		}
		play(t, dir,
			step{call: "policy check --role member --method get api/v2/trade/x", env: lists, out: `\ARULE +ROLE.*^` + fmt.Sprint(ids[0]) + ` +member +GET +api/v2/trade +ACCEPT +grants, decides$.*^ALLOWED\n\z`},
			step{call: "policy check --role member --method GET /api/v2/trade/secret/y", env: lists, status: 1, out: `ACCEPT +overruled$.*DROP +refuses, decides$.*^DENIED\n\z`},
			step{call: "policy check --role member --method POST api/v2/trade", env: lists, status: 1, out: `no rule matches\nDENIED\n\z`},
			step{call: "policy check --role nobody --method GET api/v2/open/x", env: lists, out: `pass list: api/v2/open .*^ALLOWED\n\z`},
			step{call: "policy check --role member --method GET api/v2/shut", env: lists, status: 1, out: `block list: api/v2/shut .*^DENIED\n\z`},
			step{call: "policy check --role member --method GET api/v2/../trade", env: lists, status: 1, out: `authz\.ambiguous_path\nDENIED\n\z`},
			step{call: "policy check --role member --method GET a --authz-rules-file changes.json", env: env, status: 2, errs: `\Abarong: BARONG_AUTHZ_RULES_FILE="changes\.json" is not allowed: `},
			step{call: "policy check --role member api/v2/trade", env: lists, status: 2, errs: "--method"},
			step{call: "policy preview", env: env, status: 2, errs: "nothing to rehearse"},
			step{call: "policy preview --file changes.json", env: env, out: `^member +GET +api/v2/trade/x +allowed +refused +.* +7 +.*^0 newly allowed, 1 newly refused\n\z`},
			step{call: fmt.Sprintf("policy preview --delete %d", ids[0]), env: env, out: `no rule.*^0 newly allowed, 1 newly refused\n\z`},
			step{call: "policy preview --create member:GET:api/v2/other:ACCEPT", env: env, out: `^0 newly allowed, 0 newly refused\n\z`},
			step{call: "policy preview --create member:GET", env: env, status: 2, errs: "role:verb:path:action"},
			step{call: "policy preview --delete 999", env: env, status: 1, errs: "change 1: there is no rule 999"},
			step{call: "policy preview --create member:GET:x:MAYBE", env: env, status: 1, errs: "change 1: "},
		)
	})
}

// open opens the database that the commands used in dir, with the key that they generated unless one is given.
func open(t *testing.T, dir string, env []string, keys ...secret.Text) *db.DB {
	t.Helper()
	url := "sqlite://" + filepath.Join(dir, "data", "barong.db")
	for _, kv := range env {
		if u, ok := strings.CutPrefix(kv, "BARONG_DATABASE_URL="); ok {
			url = u
		}
	}
	if len(keys) == 0 {
		list, created, err := secret.LoadOrCreate(filepath.Join(dir, config.SecretKeyFile))
		if err != nil || created {
			t.Fatalf("the commands left no key: created %v, %v", created, err)
		}
		keys = append(keys, list)
	}
	box, err := secret.New(keys[0])
	if err != nil {
		t.Fatal(err)
	}
	d, err := db.Open(t.Context(), db.Options{URL: url, Sealer: box})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// record writes two activities of the seeded a@b.test.
func record(t *testing.T, dir string, env []string) {
	t.Helper()
	d := open(t, dir, env)
	err := d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
		u, err := tx.UserByEmail(ctx, "a@b.test")
		if err != nil {
			return err
		}
		return tx.InsertActivities(ctx,
			db.Activity{UserID: u.ID, Category: "user", UserIP: "192.0.2.1", UserAgent: "x", Topic: "session", Action: "login", Result: "succeed", CreatedAt: time.Date(2026, 1, 1, 23, 59, 59, 0, time.UTC)},
			db.Activity{UserID: u.ID, Category: "user", UserIP: "192.0.2.1", UserAgent: "x", Topic: "otp", Action: "enable", Result: "succeed", CreatedAt: time.Date(2026, 1, 2, 23, 59, 59, 0, time.UTC)},
		)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	kid := `[A-Za-z0-9_-]{43}`
	for _, named := range [][]string{nil, {"JWT_PRIVATE_KEY_PATH=signing.pem"}, {"BARONG_JWT_PRIVATE_KEY_PATH=keys/"}} {
		dir := t.TempDir()
		env := append([]string{"BARONG_JWT_ALGORITHM=ES256"}, named...)
		eddsa := append([]string{"BARONG_JWT_ALGORITHM=EdDSA", "BARONG_MAIL_TOKEN_EXPIRE_TIME=7200"}, named...)
		play(t, dir,
			step{call: "keys list", env: env, status: 1, errs: "barong keys generate"},
			step{call: "keys rotate", env: env, status: 1, errs: "barong keys generate"},
			step{call: "keys generate", env: env, out: `\Agenerated ` + kid + ` ES256 in `},
			step{call: "keys generate", env: env, status: 1, errs: "barong keys rotate"},
			step{call: "keys list", env: env, out: `\AKID +ALGORITHM +STATE +FILE\n` + kid + ` +ES256 +active +\S+\n\z`},
			step{call: "keys rotate", env: eddsa, out: `\Arotated: .*^` + kid + ` +EdDSA +active`},
			step{call: "keys list", env: eddsa, out: `^` + kid + ` +ES256 +retired until \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ +`},
			step{call: "doctor", env: eddsa, out: `signing keys +ok +EdDSA `},
			step{call: "doctor", env: env, status: 1, out: `signing keys +FAILED .*BARONG_JWT_ALGORITHM=ES256 does not fit`},
		)
		if named == nil {
			play(t, dir,
				step{call: "keys rotate --in 90m", env: env, status: 1, errs: `without --in the new one is for ES256, with BARONG_JWT_ALGORITHM=EdDSA it can wait`},
				step{call: "keys rotate --in=-1m", env: eddsa, status: 2, errs: `--in.*a time from now on`},
				step{call: "keys rotate --in 90m", env: eddsa, out: `\Apublished: .*^` + kid + ` +EdDSA +coming, signs from \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ +`},
				step{call: "keys rotate --in 90m", env: eddsa, status: 1, errs: `a new key is coming already: .*without --in a newer one signs at once`},
				step{call: "doctor", env: eddsa, out: `signing keys +ok +EdDSA ` + kid + `, from \d{4}-\S+Z on ` + kid},
				step{call: "keys rotate", env: eddsa, out: `\Arotated: `, not: "coming"},
				step{call: "keys rotate --in 5s", env: eddsa, out: "signs from", errs: `\Awarning: caches keep the published keys for a minute`},
			)
		}
		// The old key outlives the longest token that it can have signed: here that of a mail, two hours.
		out, _, _ := call(t, dir, eddsa, "keys", "list")
		until, err := time.Parse(time.RFC3339, regexp.MustCompile(`until (\S+)`).FindStringSubmatch(out)[1])
		if left := time.Until(until); err != nil || left < 2*time.Hour-time.Minute || left > 2*time.Hour+time.Minute {
			t.Errorf("the old key retires in %s, %v, want two hours", left, err)
		}
	}
}

func TestHealthcheck(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var status atomic.Int64
	status.Store(http.StatusOK)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			t.Errorf("asked for %s", r.URL.Path)
		}
		w.WriteHeader(int(status.Load()))
		fmt.Fprint(w, `{"status":"not ready"}`)
	})
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "ops.sock")
	unix, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	for _, ln := range []net.Listener{tcp, unix} {
		srv := &http.Server{Handler: handler}
		go func() { _ = srv.Serve(ln) }()
		t.Cleanup(func() { srv.Close() })
	}
	_, port, err := net.SplitHostPort(tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	addrs := []string{"127.0.0.1:" + port, "0.0.0.0:" + port, ":" + port, "localhost:" + port, "unix:" + socket}
	for _, addr := range addrs {
		play(t, dir, step{call: "healthcheck --ops-addr " + addr, out: `\Aready\n\z`})
	}
	status.Store(http.StatusServiceUnavailable)
	play(t, dir,
		step{call: "healthcheck --ops-addr " + addrs[0], status: 1, errs: `status 503: \{"status":"not ready"\}`},
		step{call: "healthcheck", env: []string{"BARONG_OPS_ADDR="}, status: 1, errs: "is off"},
		step{call: fmt.Sprintf("healthcheck --ops-addr 127.0.0.1:%d", testkit.FreePort(t)), status: 1, errs: "no server at BARONG_OPS_ADDR="},
	)
}

func TestSecretsRotate(t *testing.T) {
	t.Parallel()
	everyEngine(t, func(t *testing.T, env []string) {
		dir := t.TempDir()
		old, fresh := secret.NewKey(), secret.NewKey()
		with := func(list string) []string { return append([]string{"BARONG_SECRET_KEY=" + list}, env...) }
		play(t, dir, step{call: "migrate up", env: env, out: "."})
		d := open(t, dir, env, old)
		err := d.Update(t.Context(), func(ctx context.Context, tx *db.Tx) error {
			u := &db.User{UID: "ID1", Email: "a@b.test", PasswordDigest: "x", Role: "member", State: "active"}
			if err := tx.InsertUser(ctx, u); err != nil {
				return err
			}
			return tx.InsertPhone(ctx, &db.Phone{UserID: u.ID, Country: "DE", Number: "49151"})
		})
		if err != nil {
			t.Fatal(err)
		}
		play(t, dir,
			step{call: "secrets rotate", env: with(fresh.Reveal()), status: 1, out: `^phones +1 +0 +0 +1$`, errs: "phones: 1 rows were left as they are"},
			step{call: "doctor", env: with(fresh.Reveal()), status: 1, out: "sealed columns +FAILED"},
			step{call: "secrets rotate", env: with(fresh.Reveal() + "," + old.Reveal()), out: `^phones +1 +1 +1 +0$.*^everything is sealed under key [0-9a-f]{8}$`},
			step{call: "secrets rotate", env: with(fresh.Reveal() + "," + old.Reveal()), out: `^phones +1 +0 +0 +0$`},
			step{call: "doctor", env: with(fresh.Reveal()), out: `sealed columns +ok`},
		)
	})
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	play(t, dir, step{call: "doctor", out: `configuration +ok.*folder data +ok.*secret key +ok +the first start.*signing keys +ok +the first start.*database +ok +the first start`, not: "FAILED"})
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("looking left %v behind, %v", entries, err)
	}

	if err := os.WriteFile(filepath.Join(dir, "lists.yml"), []byte("rules:\n  pas: [api/v2/open]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	smtp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer smtp.Close()
	go func() {
		for {
			conn, err := smtp.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(conn, "220 mail.test ESMTP\r\n")
			conn.Close()
		}
	}()
	_, port, err := net.SplitHostPort(smtp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	dead := testkit.FreePort(t)
	valkey, postgres := testkit.Valkey(t), testkit.Postgres(t)
	forgetful := testkit.ValkeyServer(t)
	options, err := redis.ParseURL(forgetful.URL)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	t.Cleanup(func() { client.Close() })
	for _, setting := range []string{"maxmemory 100mb", "maxmemory-policy allkeys-lru"} {
		name, value, _ := strings.Cut(setting, " ")
		if err := client.ConfigSet(t.Context(), name, value).Err(); err != nil {
			t.Fatal(err)
		}
	}
	play(t, dir,
		step{call: "migrate up", env: []string{"BARONG_DATABASE_URL=" + postgres}, out: "."},
		step{
			call: "doctor", env: []string{"BARONG_DATABASE_URL=" + postgres, "BARONG_REDIS_URL=" + valkey, "BARONG_SMTP_HOST=127.0.0.1", "BARONG_SMTP_PORT=" + port},
			out: `database +ok .*schema +ok +version \d+.*rules +ok +version \d+, 0 permissions.*clock +ok.*redis +ok.*smtp +ok +127\.0\.0\.1:\d+: "220 mail\.test ESMTP"`, not: "FAILED",
		},
		step{
			call: "doctor", status: 1, env: []string{
				fmt.Sprintf("BARONG_DATABASE_URL=postgres://u:hunter2@127.0.0.1:%d/d", dead), fmt.Sprintf("BARONG_REDIS_URL=redis://:hunter2@127.0.0.1:%d", dead),
				"BARONG_SMTP_HOST=127.0.0.1", fmt.Sprintf("BARONG_SMTP_PORT=%d", dead), "BARONG_API_CORS_ALLOW_CREDENTIALS=true", "BARONG_ODD=1",
			},
			out: `configuration +warning +BARONG_ODD.*configuration +FAILED +BARONG_API_CORS.*database +FAILED.*redis +FAILED.*smtp +FAILED`, not: "hunter2",
		},
		step{
			call: "doctor", env: []string{"BARONG_DATABASE_URL=" + postgres, "BARONG_REDIS_URL=" + forgetful.URL},
			out: `redis +warning +Redis has maxmemory-policy allkeys-lru: `, not: "FAILED",
		},
		step{
			call: "doctor", status: 1, env: []string{"BARONG_DATABASE_URL=" + postgres, "BARONG_AUTHZ_RULES_FILE=lists.yml"},
			out: `rules +FAILED +.*line 2: `,
		},
		step{
			call: "doctor", status: 1, env: []string{"BARONG_DATABASE_URL=" + postgres, "BARONG_MAXMINDDB_PATH=lists.yml"},
			out: `rules +FAILED +BARONG_MAXMINDDB_PATH="lists\.yml"`,
		},
		step{call: "doctor", env: []string{"BARONG_DOC_NUM_LIMIT=x"}, status: 2, errs: "BARONG_DOC_NUM_LIMIT"},
		step{call: "doctor", env: []string{"BARONG_DATABASE_URL=sqlite:///proc/nowhere/x.db"}, status: 1, out: `folder /proc/nowhere +FAILED`},
	)
}

func TestDoctorLooksAtOtherFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const included = "worker_processes 1;\nerror_log stderr;\npid %s/nginx.pid;\nevents {}\nhttp {\naccess_log off;\nserver {\nlisten 127.0.0.1:1;\n" +
		"include %s/checks.conf;\nlocation / {\nproxy_pass http://127.0.0.1:2;\n}\n}\n}\n"
	for name, text := range map[string]string{
		"open.yaml": "http_filters:\n- failure_mode_allow: true\n", "doubtful.toml": "trustForwardHeader = true\n", "good.json": "{}",
		"open.caddy": ":8000 {\n\t# forward_auth 127.0.0.1:8081\n\treverse_proxy 127.0.0.1:8090\n}\n",
		"bad.caddy":  ":8000 {\n\tforward_auth 127.0.0.1:8081 {\n\t\turi /x\n\t\tno_such_thing\n\t}\n\treverse_proxy 127.0.0.1:8090\n}\n",
		"open.conf":  "server {\n  location / {\n    proxy_pass http://x;\n  }\n}\n", "checks.conf": "auth_request /.check;\n",
		"split.conf":   fmt.Sprintf(included, dir, dir),
		"split.caddy":  ":8000 {\n\timport checks.caddy\n\treverse_proxy 127.0.0.1:8090\n}\n",
		"checks.caddy": "forward_auth 127.0.0.1:8081 {\n\turi /api/v2/forward-auth?\n}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	unsigned, err := os.ReadFile(filepath.Join("..", "..", "envoy", "envoy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	unsigned = bytes.Replace(unsigned, []byte("exact: signature-input\n"), []byte("exact: x-other\n"), 1)
	if err := os.WriteFile(filepath.Join(dir, "unsigned.yaml"), unsigned, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"envoy.yaml", "traefik.yml", "Caddyfile"} {
		text, err := os.ReadFile(filepath.Join("..", "..", "envoy", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// What the pages of gateways of Kubernetes have.
	for name, blocks := range map[string][]string{
		"envoy-gateway": {"objects"}, "istio": {"mesh", "objects"}, "contour": {"objects"}, "ingress-nginx": {"objects"}, "haproxy": {"haproxy.cfg"},
	} {
		var parts []string
		for _, block := range blocks {
			parts = append(parts, testkit.Pieces(t, "docs/gateways/"+name+".md", block))
		}
		if err := os.WriteFile(filepath.Join(dir, name+".yaml"), []byte(strings.Join(parts, "---\n")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	gateways := []string{"PATH=" + filepath.Dir(testkit.Bin(t, "caddy")) + ":" + filepath.Dir(testkit.Bin(t, "nginx"))}
	play(t, dir,
		step{call: "doctor --gateway-file envoy.yaml", out: `gateway envoy\.yaml +ok +Envoy, nothing found`, not: "FAILED"},
		step{call: "doctor --gateway-file unsigned.yaml", out: `gateway unsigned\.yaml +warning +line \d+: allowed_headers: .*signature-input`},
		step{
			call: "doctor --gateway-file unsigned.yaml", env: []string{"BARONG_APIKEY_SCHEMES=v1"}, out: `gateway unsigned\.yaml +ok`,
			not: "signature-input",
		},
		step{call: "doctor --gateway-file traefik.yml", out: `gateway traefik\.yml +ok +Traefik, nothing found .*no check is asked here`, not: "FAILED"},
		step{call: "doctor --gateway-file Caddyfile", env: gateways, out: `gateway Caddyfile +ok +Caddy, nothing found`, not: "FAILED|no check"},
		step{call: "doctor --gateway-file envoy-gateway.yaml", out: `gateway envoy-gateway\.yaml +ok +Envoy Gateway, nothing found`, not: "FAILED|no check"},
		step{call: "doctor --gateway-file istio.yaml", out: `gateway istio\.yaml +ok +Istio, nothing found`, not: "FAILED|no check"},
		step{call: "doctor --gateway-file contour.yaml", out: `gateway contour\.yaml +ok +Contour, nothing found`, not: "FAILED|no check"},
		step{call: "doctor --gateway-file ingress-nginx.yaml", out: `gateway ingress-nginx\.yaml +ok +ingress-nginx, nothing found`, not: "FAILED|no check"},
		step{call: "doctor --gateway-file haproxy.yaml", out: `gateway haproxy\.yaml +ok +HAProxy, nothing found`, not: "FAILED|no check"},
		step{call: "doctor --gateway-file good.json", status: 1, out: `gateway good\.json +FAILED +not recognised`},
		step{call: "doctor --gateway-file open.caddy", status: 1, out: `gateway open\.caddy +FAILED +line 3: reverse_proxy .*no forward_auth`},
		step{call: "doctor --gateway-file bad.caddy", env: gateways, out: `gateway bad\.caddy +warning +.*caddy does not take it: [^{]*no_such_thing`},
		step{call: "doctor --gateway-file open.conf", status: 1, out: `gateway open\.conf +FAILED +line 3: proxy_pass http://x: .*no auth_request`},
		step{call: "doctor --gateway-file split.conf", status: 1, out: `gateway split\.conf +FAILED +line 11: proxy_pass`},
		step{call: "doctor --gateway-file split.conf", env: gateways, out: `gateway split\.conf +ok +nginx, nothing found`, not: "FAILED|no check"},
		step{call: "doctor --gateway-file split.caddy", env: gateways, out: `gateway split\.caddy +ok +Caddy, nothing found`, not: "FAILED|no check"},
		step{call: "doctor --gateway-file doubtful.toml", out: `gateway doubtful\.toml +warning +line 1: trustForwardHeader`, not: "FAILED"},
		step{
			call: "doctor --gateway-file envoy.yaml --gateway-file open.yaml", status: 1,
			out: `gateway envoy\.yaml +ok .*^gateway open\.yaml +FAILED +line 2: failure_mode_allow: true: every request passes`,
		},
		step{call: "doctor", env: []string{"BARONG_MANAGEMENT_API_FILE=good.json"}, out: `management API +ok +good\.json: 0 signers, 0 scopes`},
		step{
			call: "doctor", env: []string{"BARONG_MANAGEMENT_API_FILE=open.yaml"},
			out: `management API +warning +http_filters: it has no effect`, not: "FAILED",
		},
		step{
			call: "serve", env: []string{"BARONG_MANAGEMENT_API_FILE=missing.yml"}, status: 2,
			errs: `BARONG_MANAGEMENT_API_FILE="missing\.yml" is not allowed: the path of a file that exists`,
		},
		step{call: "doctor --gateway-file missing.yaml", status: 1, out: `gateway missing\.yaml +FAILED +open missing\.yaml: no such file`},
	)
}
