package systemtest

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"flag"
	"io"
	"maps"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"barong/internal/test/testkit"
)

var compilers = flag.Bool("compilers", false, "TestTokenSamples also runs the samples in Java and Rust: it needs a JDK, Maven and Cargo, and what these fetch")

// tokensPage has the samples that verify tokens.
const tokensPage = "docs/tokens.md"

// A verifier is a running sample.
type verifier struct {
	in  io.WriteCloser
	out *bufio.Scanner
}

// ask shows a value of Authorization, and returns what the sample says to it.
func (v *verifier) ask(t *testing.T, authorization string) string {
	t.Helper()
	if _, err := io.WriteString(v.in, authorization+"\n"); err != nil {
		t.Fatal(err)
	}
	if !v.out.Scan() {
		t.Fatalf("the sample ends at %q: %v", authorization, v.out.Err())
	}
	return v.out.Text()
}

// The samples of docs/tokens.md take the tokens of the real program, before and after a rotation of its keys and without it, and
// refuse all that is wrong.
func TestTokenSamples(t *testing.T) {
	t.Parallel()
	s := startServer(t, newVault(), "BARONG_JWT_ALGORITHM=RS256", "BARONG_JWT_EXPIRE_TIME=3600")
	c, _, _ := s.member()
	good := c.check(account).wants(t, "a check", 200).header.Get("Authorization")
	forge := newForger(t, s, good)
	want := forge.claims["uid"].(string) + " member"

	expired := forge.signed(map[string]any{"exp": time.Now().Add(-time.Minute).Unix()}, nil)
	cases := []struct {
		what          string
		authorization string
		accepted      bool
	}{
		{"the program's", good, true},
		{"a copy of it", forge.signed(nil, nil), true},
		{"one of several audiences", forge.signed(map[string]any{"aud": []string{"other", "peatio"}}, nil), true},
		{"expired", expired, false},
		{"without an end", forge.signed(map[string]any{"exp": nil}, nil), false},
		{"of another audience", forge.signed(map[string]any{"aud": []string{"other"}}, nil), false},
		{"without audience", forge.signed(map[string]any{"aud": nil}, nil), false},
		{"of another issuer", forge.signed(map[string]any{"iss": "other"}, nil), false},
		{"without issuer", forge.signed(map[string]any{"iss": nil}, nil), false},
		{"of a link in a mail", forge.signed(map[string]any{"sub": "confirmation"}, nil), false},
		{"without subject", forge.signed(map[string]any{"sub": nil}, nil), false},
		{"signed by another key", forge.by(jwt.SigningMethodRS256, forge.other, nil), false},
		{"of a key that there is not", forge.signed(nil, map[string]any{"kid": "nobody"}), false},
		{"without kid, by another key", forge.by(jwt.SigningMethodRS256, forge.other, map[string]any{"kid": nil}), false},
		{"with its own key", forge.by(jwt.SigningMethodRS256, forge.other, map[string]any{"jwk": forge.jwk}), false},
		{"unsigned", forge.by(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil), false},
		{"unsigned, spelled otherwise", forge.unsigned("nOnE"), false},
		{"HS256 with the public key", forge.by(jwt.SigningMethodHS256, forge.public, nil), false},
		{"another algorithm of the same key", forge.by(jwt.SigningMethodRS512, forge.own, nil), false},
		{"a bit of the head flipped", forge.flipped(0), false},
		{"a bit of the claims flipped", forge.flipped(1), false},
		{"a bit of the signature flipped", forge.flipped(2), false},
		{"without signature", good[:strings.LastIndexByte(good, '.')+1], false},
		{"of another scheme", "Basic " + strings.TrimPrefix(good, "Bearer "), false},
		{"without scheme", strings.TrimPrefix(good, "Bearer "), false},
		{"an empty one", "Bearer ", false},
		{"none at all", "", false},
	}
	samples := map[string]*verifier{}
	for language, line := range builtSamples(t) {
		samples[language] = startSample(t, append(line, "http://"+s.api+"/.well-known/jwks.json"))
	}
	try := func(what, authorization string, accepted bool) {
		t.Helper()
		for language, sample := range samples {
			got := sample.ask(t, authorization)
			if accepted && got != want || !accepted && !strings.HasPrefix(got, "refused: ") {
				t.Errorf("%s, %s: got %q", language, what, got)
			}
		}
	}
	for _, c := range cases {
		try(c.what, c.authorization, c.accepted)
	}
	for language, sample := range samples {
		if got := sample.ask(t, forge.signed(map[string]any{"exp": time.Now().Unix()}, nil)); got != want { // the leeway covers it
			t.Errorf("%s, one that has just expired: got %q", language, got)
		}
	}

	s.must("keys", "rotate")
	fresh := c.check(account).wants(t, "a check after the rotation", 200).header.Get("Authorization")
	if kid(t, fresh) == kid(t, good) {
		t.Fatal("the old key still signs")
	}
	for language, sample := range samples {
		// A sample that has just asked in vain for the key of a forged token may do so again in a second.
		testkit.Eventually(t, patience, func() bool { return sample.ask(t, fresh) == want })
		if got := sample.ask(t, good); got != want {
			t.Errorf("%s, a token of before the rotation: got %q", language, got)
		}
	}
	s.stop()
	try("the program's, which is gone", fresh, true)
	try("expired, and the program is gone", expired, false)
}

// startSample runs a program that reads lines and answers each.
func startSample(t *testing.T, line []string) *verifier {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), line[0], line[1:]...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	errs := &strings.Builder{}
	cmd.Stderr = errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil && t.Context().Err() == nil {
			t.Errorf("%s: %v", line[0], err)
		}
		if t.Failed() && errs.Len() > 0 {
			t.Logf("%s: %s", line[0], errs)
		}
	})
	return &verifier{in, bufio.NewScanner(out)}
}

// builtSamples makes the samples ready to run: the line that runs each, by language.
func builtSamples(t *testing.T) map[string][]string {
	t.Helper()
	tools := testkit.Tools(t)
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	run := func(folder string, line ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, line[0], line[1:]...)
		cmd.Dir = folder
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(line, " "), err, out)
		}
	}
	samples := map[string][]string{}

	// In the module of the service, which has the library.
	run(testkit.Root(t), "go", "build", "-o", filepath.Join(dir, "verify"), write("verify.go", testkit.Sample(t, tokensPage, "verify.go")))
	samples["Go"] = []string{filepath.Join(dir, "verify")}

	samples["Python"] = []string{filepath.Join(tools, "bin", "python"), write("verify.py", testkit.Sample(t, tokensPage, "verify.py"))}

	if err := os.Symlink(filepath.Join(tools, "npm", "node_modules"), filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	samples["TypeScript"] = []string{testkit.Bin(t, "node"), "--disable-warning=ExperimentalWarning", write("verify.mts", testkit.Sample(t, tokensPage, "verify.ts"))}

	java, rust := write("java/Verify.java", testkit.Sample(t, tokensPage, "Verify.java")), write("rust/src/main.rs", testkit.Sample(t, tokensPage, "verify.rs"))
	if !*compilers {
		// A parser of each language finds no fault in them; what they do is tried where there are compilers.
		run(dir, filepath.Join(tools, "bin", "python"), "-c", parse, java, rust)
		return samples
	}
	write("java/pom.xml", `<project><modelVersion>4.0.0</modelVersion><groupId>x</groupId><artifactId>x</artifactId><version>1</version>
<dependencies><dependency><groupId>com.nimbusds</groupId><artifactId>nimbus-jose-jwt</artifactId><version>10.5</version></dependency></dependencies></project>`)
	run(filepath.Dir(java), "mvn", "-q", "-B", "-DoutputDirectory=lib", "dependency:copy-dependencies")
	run(filepath.Dir(java), "javac", "-Xlint:all", "-Werror", "-cp", "lib/*", "-d", "classes", java)
	samples["Java"] = []string{"java", "-cp", filepath.Join(dir, "java", "lib", "*") + ":" + filepath.Join(dir, "java", "classes"), "Verify"}

	manifest := write("rust/Cargo.toml", `[package]
name = "verify"
version = "1.0.0"
edition = "2024"
[dependencies]
jsonwebtoken = { version = "=12.0.0", features = ["rust_crypto"] }
serde = { version = "1", features = ["derive"] }
ureq = { version = "3", default-features = false, features = ["json"] }
`)
	run(filepath.Dir(manifest), "cargo", "build", "--quiet", "--manifest-path", manifest)
	samples["Rust"] = []string{filepath.Join(cmp.Or(os.Getenv("CARGO_TARGET_DIR"), filepath.Join(dir, "rust", "target")), "debug", "verify")}
	return samples
}

// parse fails where a program in Java or Rust is none.
const parse = `
import sys, tree_sitter, tree_sitter_java, tree_sitter_rust
for path, grammar in zip(sys.argv[1:], (tree_sitter_java, tree_sitter_rust)):
    with open(path, "rb") as file:
        tree = tree_sitter.Parser(tree_sitter.Language(grammar.language())).parse(file.read())
    if tree.root_node.has_error or not tree.root_node.child_count:
        sys.exit(f"{path}: {tree.root_node}")
`

// kid is the key that a token names.
func kid(t *testing.T, authorization string) string {
	t.Helper()
	head, _, _ := strings.Cut(strings.TrimPrefix(authorization, "Bearer "), ".")
	text, err := base64.RawURLEncoding.DecodeString(head)
	if err != nil {
		t.Fatal(err)
	}
	var h struct{ Kid string }
	if err := json.Unmarshal(text, &h); err != nil {
		t.Fatal(err)
	}
	return h.Kid
}

// A forger makes tokens like one of the program's, by its own key or another.
type forger struct {
	t          *testing.T
	good, kid  string
	claims     jwt.MapClaims
	own, other *rsa.PrivateKey
	public     []byte         // PEM of the public key
	jwk        map[string]any // of the other key
}

func newForger(t *testing.T, s *server, good string) *forger {
	t.Helper()
	f := &forger{t: t, good: good, kid: kid(t, good), claims: jwt.MapClaims{}}
	if _, _, err := jwt.NewParser().ParseUnverified(strings.TrimPrefix(good, "Bearer "), f.claims); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(s.dir, "data", "jwt", "*.pem"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if f.own, err = jwt.ParseRSAPrivateKeyFromPEM(text); err != nil {
		t.Fatal(err)
	}
	if f.other, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&f.own.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	f.public = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	number := func(n *big.Int) string { return base64.RawURLEncoding.EncodeToString(n.Bytes()) }
	f.jwk = map[string]any{"kty": "RSA", "n": number(f.other.N), "e": number(big.NewInt(int64(f.other.E)))}
	return f
}

// make signs claims; a nil value takes a claim or a member of the header away.
func (f *forger) make(method jwt.SigningMethod, key any, claims, header map[string]any) string {
	f.t.Helper()
	token := jwt.NewWithClaims(method, maps.Clone(f.claims))
	token.Header["kid"] = f.kid
	for _, change := range []struct{ to, from map[string]any }{{token.Claims.(jwt.MapClaims), claims}, {token.Header, header}} {
		for name, value := range change.from {
			if change.to[name] = value; value == nil {
				delete(change.to, name)
			}
		}
	}
	text, err := token.SignedString(key)
	if err != nil {
		f.t.Fatal(err)
	}
	return "Bearer " + text
}

func (f *forger) signed(claims, header map[string]any) string {
	f.t.Helper()
	return f.make(jwt.SigningMethodRS256, f.own, claims, header)
}

func (f *forger) by(method jwt.SigningMethod, key any, header map[string]any) string {
	f.t.Helper()
	return f.make(method, key, nil, header)
}

// unsigned is a token with the name of an algorithm, and no signature.
func (f *forger) unsigned(algorithm string) string {
	parts := strings.Split(f.good, ".")
	head, err := json.Marshal(map[string]string{"alg": algorithm, "typ": "JWT", "kid": f.kid})
	if err != nil {
		f.t.Fatal(err)
	}
	return "Bearer " + base64.RawURLEncoding.EncodeToString(head) + "." + parts[1] + "."
}

// flipped is the token with another bit in one of its parts.
func (f *forger) flipped(part int) string {
	f.t.Helper()
	parts := strings.Split(strings.TrimPrefix(f.good, "Bearer "), ".")
	raw, err := base64.RawURLEncoding.DecodeString(parts[part])
	if err != nil {
		f.t.Fatal(err)
	}
	raw[len(raw)/2] ^= 1
	parts[part] = base64.RawURLEncoding.EncodeToString(raw)
	return "Bearer " + strings.Join(parts, ".")
}
