package envoy_test

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"barong/internal/test/testkit"
)

// samples has the programs of docs/api-keys.md make calls through a gateway, as they stand there.
func (w *world) samples(t *testing.T, addr string) {
	const page = "docs/api-keys.md"
	dir := t.TempDir()
	for _, name := range []string{"call.sh", "call.py", "call.ts", "call.go"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(testkit.Sample(t, page, name)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	der, err := x509.MarshalPKCS8PrivateKey(w.own.private)
	if err != nil {
		t.Fatal(err)
	}
	private := filepath.Join(dir, "key.pem")
	if err := os.WriteFile(private, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(t *testing.T, env []string, line ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		c := exec.CommandContext(ctx, line[0], line[1:]...)
		c.Dir, c.Env = dir, append(os.Environ(), env...)
		out, err := c.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", strings.Join(line, " "), err, out)
		}
		return string(out)
	}
	run(t, nil, "go", "build", "-o", "call", "call.go")
	for language, program := range map[string][]string{
		"curl":       {"sh", "call.sh"},
		"Python":     {filepath.Join(testkit.Tools(t), "bin", "python"), "call.py"},
		"TypeScript": {testkit.Bin(t, "node"), "call.ts"},
		"Go":         {"./call"},
	} {
		t.Run(language, func(t *testing.T) {
			for _, scheme := range []struct {
				name, email string
				env         []string
			}{
				{"scheme 1", "bot@example.com", []string{"SCHEME=1", "KID=" + w.bot.KID, "SECRET=" + w.bot.Secret}},
				{"RFC 9421, HS256", "bot@example.com", []string{"KID=" + w.bot.KID, "SECRET=" + w.bot.Secret}},
				{"RFC 9421, Ed25519", "own@example.com", []string{"KID=" + w.own.KID, "KEY=" + private}},
			} {
				for _, call := range [][]string{
					{"GET", "http://" + addr + account + "?page=2&a=%20b"},
					{"POST", "http://" + addr + account, `{"amount":"1.5"}`},
					{"POST", "http://" + addr + account},
				} {
					if scheme.env[0] == "SCHEME=1" {
						time.Sleep(2 * time.Millisecond) // its nonce is the time
					}
					out := run(t, scheme.env, append(program, call...)...)
					seen := w.service.take()
					what := scheme.name + ", " + strings.Join(call, " ")
					if len(seen) != 1 || !strings.Contains(out, "200") {
						t.Errorf("%s: got %s, the service %+v", what, out, seen)
						continue
					}
					body := append(call, "")[2]
					if seen[0].Method != call[0] || seen[0].Body != body {
						t.Errorf("%s: the service got %+v", what, seen[0])
					}
					if digest := seen[0].Header["content-digest"]; scheme.env[0] != "SCHEME=1" && call[0] == "POST" && digest != digestOf(body) {
						t.Errorf("%s: the service got the digest %q", what, digest)
					}
					if email := w.claims(t, what, seen[0])["email"]; email != scheme.email {
						t.Errorf("%s: the service is told of %v", what, email)
					}
				}
				// What is signed for one call is good for no other: with another secret none is.
				if scheme.name == "RFC 9421, HS256" {
					out := run(t, []string{"KID=" + w.bot.KID, "SECRET=" + w.own.KID}, append(program, "GET", "http://"+addr+account)...)
					if !strings.Contains(out, "401") || !strings.Contains(out, "authz.invalid_signature") || len(w.service.take()) != 0 {
						t.Errorf("a wrong secret: got %s", out)
					}
				}
			}
		})
	}
}

func digestOf(body string) string {
	sum := sha256.Sum256([]byte(body))
	return "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
}
