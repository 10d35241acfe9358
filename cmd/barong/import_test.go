package main_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"barong/internal/importer"
)

// a small dump of the original's, as mysqldump --compact writes it.
const smallDump = "CREATE TABLE `schema_migrations` (`version` varchar(255));\n" +
	"INSERT INTO `schema_migrations` VALUES ('20200429082843');\n" +
	"CREATE TABLE `apikeys` (`id` int, `user_id` int, `kid` text, `algorithm` text, `scope` text, `state` text, `created_at` datetime, `updated_at` datetime);\n" +
	"CREATE TABLE `permissions` (`id` int, `action` text, `role` text, `verb` text, `path` text, `topic` text, `created_at` datetime, `updated_at` datetime);\n" +
	"INSERT INTO `permissions` VALUES (1,'ACCEPT','member','ALL','api',NULL,'2019-01-02 03:04:05','2019-01-02 03:04:05');\n" +
	"CREATE TABLE `users` (`id` int, `uid` text, `email` text, `password_digest` text, `role` text, `data` text, `level` int, `otp` int, `state` text, `referral_id` int, `created_at` datetime, `updated_at` datetime);\n" +
	"INSERT INTO `users` VALUES (7,'ID7','seven@example.com','$2a$04$xdwqVRKrKzulHCYuDoEqBuBWy13RJByEnqNYun0nAtj5MWmP75Cfq','member',NULL,0,0,'pending',NULL,'2019-01-02 03:04:05','2019-01-02 03:04:05');\n"

func TestImport(t *testing.T) {
	t.Parallel()
	everyEngine(t, func(t *testing.T, env []string) {
		dir := t.TempDir()
		dump := func(name, text string) string {
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		}
		clean := dump("clean.sql", smallDump)
		odd := dump("odd.sql", strings.ReplaceAll(smallDump, "'member',NULL,0,0,'pending'", "'vip',NULL,0,1,'banned'"))
		cut := dump("cut.sql", smallDump[:len(smallDump)-20])
		for _, c := range []struct {
			args   []string
			status int
			out    string // of either output
		}{
			{[]string{"import"}, 2, "source"},
			{[]string{"import", clean, "--dry-run", "--verify"}, 2, "exclude each other"},
			{[]string{"import", clean, "--mysql-time-zone", "Nowhere/Land"}, 2, "no time zone"},
			{[]string{"import", filepath.Join(dir, "none.sql")}, 1, "no such file"},
			{[]string{"import", cut}, 1, "cut short"},
			{[]string{"import", clean, "--vault", cut}, 1, "not a JSON object"},
			{[]string{"import", clean, "--vault-url", "http://127.0.0.1:1"}, 1, "BARONG_VAULT_TOKEN"},
			{[]string{"import", clean, "--dry-run"}, 0, "nothing was written"},
			{[]string{"import", clean, "--verify"}, 1, "nothing was imported into this database yet"},
			{[]string{"import", clean, "--report", filepath.Join(dir, "none", "report.json")}, 1, "--report: open"},
			{[]string{"import", cut, "--report", filepath.Join(dir, "report.json")}, 1, "nothing was written"},
			{[]string{"import", odd, "--dry-run"}, 3, "role_without_permissions: 1"},
			{[]string{"import", clean, "--report", filepath.Join(dir, "report.json")}, 0, "There is nothing to tell"},
			{[]string{"import", clean, "--verify"}, 0, "holds what the source holds"},
			{[]string{"import", odd, "--verify", "--report", filepath.Join(dir, "verify.json")}, 3, "users, different: ids 7"},
			{[]string{"import", clean}, 0, "There is nothing to tell"},
			{[]string{"seed"}, 0, "admin@barong.io"},
			{[]string{"import", clean}, 1, "1 users that are not from an import"},
		} {
			stdout, stderr, status := call(t, dir, env, c.args...)
			if status != c.status || !strings.Contains(stdout+stderr, c.out) {
				t.Errorf("%v: status %d, want %d and %q\n%s%s", c.args, status, c.status, c.out, stdout, stderr)
			}
		}
		var report importer.Report
		text, err := os.ReadFile(filepath.Join(dir, "report.json"))
		if err == nil {
			err = json.Unmarshal(text, &report)
		}
		if err != nil || report.SchemaVersion != "20200429082843" || report.Rows["users"].Imported != 1 {
			t.Errorf("report: %+v, %v", report, err)
		}
	})
}

// No variable that the import reads is called an unknown one.
func TestImportKnowsItsVariables(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{"clean.sql": smallDump, "token": "t"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, env := range []string{
		"BARONG_MYSQL_PASSWORD=p", "BARONG_MYSQL_PASSWORD_FILE=token", "BARONG_VAULT_TOKEN=t", "BARONG_VAULT_TOKEN_FILE=token",
		"SECRET_KEY_BASE=k", "SECRET_KEY_BASE_FILE=token",
	} {
		play(t, dir, step{call: "import clean.sql --dry-run", env: []string{env, "BARONG_COMPAT=reference"}, out: "nothing was written"})
	}
	play(t, dir, step{call: "import clean.sql --dry-run", env: []string{"BARONG_MYSQL_PASSWORT=p"}, out: ".", errs: "BARONG_MYSQL_PASSWORT is not a known setting"})
}
