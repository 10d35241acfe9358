package systemtest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"barong/internal/test/browsertest"
	"barong/internal/test/testkit"
)

// The samples of docs/passkeys.md do what they say: the page's in a real browser, the programs as they stand there.
func TestPasskeySamples(t *testing.T) {
	t.Parallel()
	const page = "docs/passkeys.md"
	s := newSite(t, newVault(), "envoy")
	owner := s.holder(t)
	c := s.visit(t, browsertest.Options{})
	c.NewAuthenticator()
	c.opens(bare)
	script := strings.ReplaceAll(stripped(t, testkit.Sample(t, page, "passkeys.ts")), "export async function", "async function")
	run := func(call string) string { return "(async () => {\n" + script + "\nreturn " + call + ";\n})()" }

	dir := t.TempDir()
	for _, name := range []string{"passkeys.sh", "passkeys.py", "passkeys.go"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(testkit.Sample(t, page, name)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program := func(t *testing.T, line ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		c := exec.CommandContext(ctx, line[0], line[1:]...)
		c.Dir, c.Env = dir, append(os.Environ(), "EMAIL="+owner.email, "PASSWORD="+owner.password)
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(line, " "), err, out)
		}
		return string(out)
	}
	program(t, "go", "build", "-o", "passkeys", "passkeys.go")

	for language, line := range map[string][]string{
		"curl":   {"sh", "passkeys.sh"},
		"Python": {filepath.Join(testkit.Tools(t), "bin", "python"), "passkeys.py"},
		"Go":     {"./passkeys"},
	} {
		t.Run(language, func(t *testing.T) {
			c.at(t)
			c.call("POST", "/identity/sessions", params{"email": owner.email, "password": owner.password}).wants(t, "sign-in", 201)
			name := "Made for " + language
			made := browsertest.Eval[struct {
				ID   int64
				Name string
			}](c.Page, run(fmt.Sprintf("addPasskey(%s, {password: %s}, %s)", browsertest.JSON(name), browsertest.JSON(owner.password), browsertest.JSON(c.csrf))))
			if made.ID == 0 || made.Name != name {
				t.Errorf("addPasskey made %+v", made)
			}
			c.call("DELETE", "/identity/sessions", nil).wants(t, "sign-out", 204)
			if user := browsertest.Eval[struct{ UID string }](c.Page, run("signIn()")); user.UID == "" {
				t.Errorf("signIn returned %+v", user)
			}
			c.opens(account)
			if got := c.Text("#email"); got != owner.email {
				t.Errorf("the service was told of %q", got)
			}
			c.opens(bare)

			api := strings.Replace(s.origin, "localhost", "127.0.0.1", 1) + "/api/v2/barong"
			if out := program(t, append(line, api)...); !strings.Contains(out, name) {
				t.Errorf("the list is %s", out)
			}
			if out := program(t, append(line, api, fmt.Sprint(made.ID))...); strings.Contains(out, name) {
				t.Errorf("what is left is %s", out)
			}
			if r := c.call("GET", "/resource/passkeys", nil); r.body != "[]" {
				t.Errorf("what is left is %s", r)
			}
		})
	}
}

// stripped is TypeScript without its types, as Node runs it.
func stripped(t *testing.T, source string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := exec.CommandContext(ctx, testkit.Bin(t, "node"), "--no-warnings", "-e",
		`process.stdout.write(require("node:module").stripTypeScriptTypes(require("node:fs").readFileSync(0, "utf8")))`)
	c.Stdin = strings.NewReader(source)
	var errs bytes.Buffer
	c.Stderr, c.WaitDelay = &errs, time.Second
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	return string(out)
}
