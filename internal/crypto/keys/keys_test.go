package keys_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"barong/internal/crypto/keys"
)

var algorithms = []string{keys.RS256, keys.ES256, keys.EdDSA}

// noon is the time at which the tests happen.
var noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

// path makes a first key and returns where it is: a file, or a folder.
func path(t testing.TB, algorithm string, folder bool) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "sub", "keys")
	if folder {
		p += "/"
	}
	if _, err := keys.Generate(p, algorithm); err != nil {
		t.Fatal(err)
	}
	return p
}

func load(t testing.TB, path, algorithm string, now time.Time) *keys.Set {
	t.Helper()
	s, err := keys.Load(path, algorithm, now)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// claims are those of a good session token, with changes; a nil removes a claim.
func claims(changes map[string]any) map[string]any {
	c := map[string]any{
		"iat": noon.Unix(), "exp": noon.Unix() + 300, "sub": "session", "iss": "barong", "aud": []string{"peatio", "barong"},
		"jti": "5f1e", "uid": "ID1", "email": "a@b.test", "role": "member", "state": "active", "level": 3, "referral_id": nil,
	}
	for k, v := range changes {
		if v == nil {
			delete(c, k)
		} else {
			c[k] = v
		}
	}
	return c
}

var want = keys.Expect{Subject: keys.SubjectSession, Issuer: "barong", Audience: []string{"barong"}}

func cause(err error) keys.Cause {
	var e *keys.Error
	if errors.As(err, &e) {
		return e.Cause
	}
	if err != nil {
		return keys.Cause("no *Error: " + err.Error())
	}
	return ""
}

func TestEveryAlgorithmSignsAndVerifies(t *testing.T) {
	for _, algorithm := range algorithms {
		for _, folder := range []bool{false, true} {
			t.Run(algorithm, func(t *testing.T) {
				p := path(t, algorithm, folder)
				s := load(t, p, algorithm, noon)
				token, err := s.Sign(claims(map[string]any{"referral_id": 7}))
				if err != nil {
					t.Fatal(err)
				}
				got, err := s.Verify(token, want, noon)
				if err != nil {
					t.Fatal(err)
				}
				if got.UID != "ID1" || got.Email != "a@b.test" || got.Role != "member" || got.State != "active" || got.Level != 3 ||
					got.ReferralID == nil || *got.ReferralID != 7 || got.ID != "5f1e" || !got.ExpiresAt.Equal(noon.Add(300*time.Second)) {
					t.Errorf("claims %+v", got)
				}
				header, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[0])
				if err != nil || string(header) != `{"alg":"`+algorithm+`","kid":"`+s.KeyID()+`"}` {
					t.Errorf("header %s, %v", header, err)
				}
				if s.Algorithm() != algorithm {
					t.Errorf("algorithm %s, want %s", s.Algorithm(), algorithm)
				}
			})
		}
	}
}

// TestJWKSVerifiesTokens checks signatures with what the published set says, and nothing of the package.
func TestJWKSVerifiesTokens(t *testing.T) {
	for _, algorithm := range algorithms {
		s, err := keys.New(algorithm)
		if err != nil {
			t.Fatal(err)
		}
		var doc struct{ Keys []map[string]string }
		if err := json.Unmarshal(s.JWKS(noon), &doc); err != nil || len(doc.Keys) != 1 {
			t.Fatalf("%s: %s, %v", algorithm, s.JWKS(noon), err)
		}
		k := doc.Keys[0]
		if k["kid"] != s.KeyID() || k["alg"] != algorithm || k["use"] != "sig" {
			t.Errorf("%s: %v", algorithm, k)
		}
		for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "k"} {
			if _, ok := k[private]; ok {
				t.Errorf("%s: the private member %q is published", algorithm, private)
			}
		}
		raw := func(name string) []byte {
			b, err := base64.RawURLEncoding.DecodeString(k[name])
			if err != nil {
				t.Fatalf("%s: member %s: %v", algorithm, name, err)
			}
			return b
		}
		var thumbprint string // RFC 7638
		token, err := s.Sign(claims(nil))
		if err != nil {
			t.Fatal(err)
		}
		i := strings.LastIndexByte(token, '.')
		signature, err := base64.RawURLEncoding.DecodeString(token[i+1:])
		if err != nil {
			t.Fatal(err)
		}
		digest := sha256.Sum256([]byte(token[:i]))
		good := false
		switch algorithm {
		case keys.RS256:
			thumbprint = `{"e":"` + k["e"] + `","kty":"RSA","n":"` + k["n"] + `"}`
			public := &rsa.PublicKey{N: new(big.Int).SetBytes(raw("n")), E: int(new(big.Int).SetBytes(raw("e")).Int64())}
			good = rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature) == nil
		case keys.ES256:
			thumbprint = `{"crv":"P-256","kty":"EC","x":"` + k["x"] + `","y":"` + k["y"] + `"}`
			public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, raw("x"), raw("y")))
			if err != nil {
				t.Fatal(err)
			}
			good = ecdsa.Verify(public, digest[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:]))
		case keys.EdDSA:
			thumbprint = `{"crv":"Ed25519","kty":"OKP","x":"` + k["x"] + `"}`
			good = edVerify(raw("x"), []byte(token[:i]), signature)
		}
		if !good {
			t.Errorf("%s: the published key does not verify", algorithm)
		}
		sum := sha256.Sum256([]byte(thumbprint))
		if base64.RawURLEncoding.EncodeToString(sum[:]) != s.KeyID() {
			t.Errorf("%s: the key id is not the thumbprint", algorithm)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	good := path(t, keys.RS256, false)
	rsaKey, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(kind string, der []byte, headers map[string]string) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der, Headers: headers}))
	}
	pkcs8 := func(key any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&small.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	rsaPublic := func() []byte {
		block, _ := pem.Decode(rsaKey)
		k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(&k.(*rsa.PrivateKey).PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}()
	for name, c := range map[string]struct{ text, algorithm, want string }{
		"algorithm of another key": {string(rsaKey), keys.ES256, "BARONG_JWT_ALGORITHM=ES256 does not fit the RS256 key"},
		"unknown algorithm":        {string(rsaKey), "HS256", "is not one of"},
		"no algorithm":             {string(rsaKey), "none", "is not one of"},
		"empty":                    {"", keys.RS256, "no PEM block"},
		"garbage":                  {"garbage", keys.RS256, "no PEM block"},
		"damaged second block":     {string(rsaKey) + strings.Replace(string(rsaKey), "-----END", "----END", 1), keys.RS256, "damaged"},
		"no key inside":            {encode("PRIVATE KEY", []byte("x"), nil), keys.RS256, "block 1"},
		"a certificate":            {encode("CERTIFICATE", []byte("x"), nil), keys.RS256, "not a private or public key"},
		"encrypted":                {encode("ENCRYPTED PRIVATE KEY", []byte("x"), nil), keys.RS256, "encrypted"},
		"encrypted, old form":      {encode("RSA PRIVATE KEY", []byte("x"), map[string]string{"DEK-Info": "AES-128-CBC,00"}), keys.RS256, "encrypted"},
		"weak RSA":                 {encode("PRIVATE KEY", pkcs8(small), nil), keys.RS256, "1024 bits"},
		"weak public RSA":          {string(rsaKey) + encode("PUBLIC KEY", public, nil), keys.RS256, "1024 bits"},
		"P-384":                    {encode("PRIVATE KEY", pkcs8(p384), nil), keys.ES256, "P-256"},
		"public alone":             {encode("PUBLIC KEY", rsaPublic, nil), keys.RS256, "no private key"},
		"bad time of a start":      {encode("PRIVATE KEY", pkcs8(edKey), map[string]string{"Sign-After": "soon"}), keys.RS256, "RFC 3339"},
		"public that is to sign":   {encode("PUBLIC KEY", rsaPublic, map[string]string{"Sign-After": "2026-05-04T12:00:00Z"}), keys.RS256, "does not sign"},
		"coming of another kind": {
			string(rsaKey) + encode("PRIVATE KEY", pkcs8(edKey), map[string]string{"Sign-After": "2026-05-04T13:00:00Z"}), keys.RS256, "does not fit the EdDSA key",
		},
		"bad time":  {encode("PUBLIC KEY", rsaPublic, map[string]string{"Retire-After": "soon"}), keys.RS256, "RFC 3339"},
		"too large": {strings.Repeat("x", 1<<20+1), keys.RS256, "larger than"},
	} {
		t.Run(name, func(t *testing.T) {
			p := filepath.Join(t.TempDir(), "k.pem")
			if err := os.WriteFile(p, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := keys.Load(p, c.algorithm, noon)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	if _, err := keys.Load(filepath.Join(t.TempDir(), "absent"), keys.RS256, noon); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
	if _, err := keys.Load(t.TempDir(), keys.RS256, noon); err == nil {
		t.Error("an empty folder has keys")
	}
}

func TestLoadReadsTheFormsOfOpenSSL(t *testing.T) {
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	e, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(e)
	if err != nil {
		t.Fatal(err)
	}
	parameters := pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 8, 42, 134, 72, 206, 61, 3, 1, 7}})
	for name, c := range map[string]struct {
		text      []byte
		algorithm string
	}{
		"PKCS #1":               {pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(r)}), keys.RS256},
		"SEC 1 after its curve": {append(parameters, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1})...), keys.ES256},
	} {
		p := filepath.Join(t.TempDir(), "k.pem")
		if err := os.WriteFile(p, c.text, 0o600); err != nil {
			t.Fatal(err)
		}
		s := load(t, p, c.algorithm, noon)
		token, err := s.Sign(claims(nil))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Verify(token, want, noon); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGenerateNeverReplaces(t *testing.T) {
	for _, folder := range []bool{false, true} {
		p := path(t, keys.EdDSA, folder)
		before := load(t, p, keys.EdDSA, noon).KeyID()
		if _, err := keys.Generate(p, keys.EdDSA); !errors.Is(err, fs.ErrExist) {
			t.Errorf("folder %v: %v, want fs.ErrExist", folder, err)
		}
		if after := load(t, p, keys.EdDSA, noon).KeyID(); after != before {
			t.Errorf("folder %v: the key changed", folder)
		}
		files, err := filepath.Glob(filepath.Join(filepath.Dir(filepath.Clean(p)), "*"))
		if err != nil {
			t.Fatal(err)
		}
		if folder {
			files, err = filepath.Glob(p + "*.pem")
			if err != nil {
				t.Fatal(err)
			}
		}
		for _, f := range files {
			if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: mode %v, %v, want 0600", f, info.Mode(), err)
			}
		}
	}
	if _, err := keys.Generate(filepath.Join(t.TempDir(), "k"), "HS256"); err == nil {
		t.Error("a symmetric key was made")
	}
}

func states(t *testing.T, path string, now time.Time) (out []keys.State) {
	t.Helper()
	all, err := keys.List(path, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		out = append(out, i.State)
	}
	return out
}

func count(states []keys.State, s keys.State) (n int) {
	for _, have := range states {
		if have == s {
			n++
		}
	}
	return n
}

func TestRotation(t *testing.T) {
	for _, folder := range []bool{false, true} {
		for _, to := range algorithms {
			t.Run(to, func(t *testing.T) {
				p := path(t, keys.EdDSA, folder)
				old := load(t, p, keys.EdDSA, noon)
				token, err := old.Sign(claims(map[string]any{"exp": noon.Unix() + 1e6}))
				if err != nil {
					t.Fatal(err)
				}
				until := noon.Add(time.Hour)
				id, err := keys.Rotate(p, to, until, noon)
				if err != nil {
					t.Fatal(err)
				}
				now := load(t, p, to, noon)
				if now.KeyID() != id || id == old.KeyID() {
					t.Errorf("signs with %s, want the new key %s", now.KeyID(), id)
				}
				if got := states(t, p, noon); count(got, keys.StateActive) != 1 || count(got, keys.StateRetired) != 1 || len(got) != 2 {
					t.Errorf("states %v", got)
				}
				all, err := keys.List(p, noon)
				if err != nil {
					t.Fatal(err)
				}
				if text := all[0].String() + all[1].String(); !strings.Contains(text, "retired until 2026-05-04T13:00:00Z") {
					t.Errorf("states in words: %s", text)
				}
				// The old token holds until the end of its key, in a set loaded before as in one loaded after.
				for _, c := range []struct {
					at time.Time
					ok bool
				}{{noon, true}, {until.Add(-time.Second), true}, {until, false}, {until.Add(time.Hour), false}} {
					_, err := now.Verify(token, want, c.at)
					if (err == nil) != c.ok {
						t.Errorf("at %s: %v, want ok %v", c.at, err, c.ok)
					}
					_, err = load(t, p, to, c.at).Verify(token, want, c.at)
					if (err == nil) != c.ok {
						t.Errorf("loaded at %s: %v, want ok %v", c.at, err, c.ok)
					}
					if published := bytes.Contains(now.JWKS(c.at), []byte(old.KeyID())); published != c.ok {
						t.Errorf("at %s: published %v, want %v", c.at, published, c.ok)
					}
				}
				// The private half is gone from the disk.
				if text := readAll(t, p); bytes.Count(text, []byte("PRIVATE KEY-----")) != 2 { // one begin, one end
					t.Errorf("the old private key is still there:\n%s", text)
				}
				// The next rotation drops what has expired.
				if _, err := keys.Rotate(p, to, until.Add(2*time.Hour), until.Add(time.Hour)); err != nil {
					t.Fatal(err)
				}
				if got := states(t, p, until.Add(time.Hour)); len(got) != 2 || bytes.Contains(readAll(t, p), []byte("13:00:00Z")) {
					t.Errorf("states after the second rotation: %v", got)
				}
			})
		}
	}
}

func readAll(t *testing.T, path string) []byte {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	files := []string{path}
	if info.IsDir() {
		if files, err = filepath.Glob(filepath.Join(path, "*.pem")); err != nil {
			t.Fatal(err)
		}
	}
	var out []byte
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b...)
	}
	return out
}

func TestRotationFollowsLinksAndKeepsOtherVerifiers(t *testing.T) {
	p := path(t, keys.ES256, false)
	other, err := keys.New(keys.EdDSA)
	if err != nil {
		t.Fatal(err)
	}
	// A public key without an end, of a service that signs elsewhere.
	var doc struct{ Keys []struct{ X string } }
	if err := json.Unmarshal(other.JWKS(noon), &doc); err != nil {
		t.Fatal(err)
	}
	x, err := base64.RawURLEncoding.DecodeString(doc.Keys[0].X)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(edPublic(x))
	if err != nil {
		t.Fatal(err)
	}
	text := append(readAll(t, p), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})...)
	if err := os.WriteFile(p, text, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link.pem")
	if err := os.Symlink(p, link); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Rotate(link, keys.ES256, noon.Add(time.Hour), noon); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v, %v", info, err)
	}
	token, err := other.Sign(claims(nil))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := load(t, link, keys.ES256, noon).Verify(token, want, noon.Add(time.Minute)); err != nil {
		t.Errorf("the other service's key was lost: %v", err)
	}
	if got := states(t, p, noon); count(got, keys.StateVerify) != 1 {
		t.Errorf("states %v", got)
	}
}

// TestSchedule follows a key that is published at noon and signs an hour later, and what undoes and what follows it.
func TestSchedule(t *testing.T) {
	for _, folder := range []bool{false, true} {
		p := path(t, keys.EdDSA, folder)
		before := readAll(t, p)
		first := load(t, p, keys.EdDSA, noon).KeyID()
		start, until := noon.Add(time.Hour), noon.Add(2*time.Hour)
		next, err := keys.Schedule(p, keys.EdDSA, start, until, noon)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(readAll(t, p), before) {
			t.Errorf("folder %v: the key that signs was written anew", folder)
		}
		if got := inState(t, p, noon, keys.StateComing); got.ID != next || got.String() != "coming, signs from 2026-05-04T13:00:00Z" {
			t.Errorf("folder %v: coming is %v", folder, got)
		}
		if got := inState(t, p, noon, keys.StateActive); got.ID != first {
			t.Errorf("folder %v: active is %v", folder, got)
		}
		clock := noon
		ring, err := keys.Open(p, keys.EdDSA, func() time.Time { return clock })
		if err != nil {
			t.Fatal(err)
		}
		if id, from := ring.Current().Next(clock); id != next || !from.Equal(start) {
			t.Errorf("next %s at %s, want %s", id, from, next)
		}
		// What the set says at each time, when it was read before and when it is read then.
		for _, c := range []struct {
			at        time.Time
			signs     string
			published []string
			not       string
		}{
			{noon, first, []string{first, next}, "-"},
			{start.Add(-time.Second), first, []string{first, next}, "-"},
			{start, next, []string{first, next}, "-"},
			{until.Add(-time.Second), next, []string{first, next}, "-"},
			{until, next, []string{next}, first},
		} {
			clock = c.at
			if _, err := ring.Reload(); err != nil {
				t.Fatal(err)
			}
			for what, set := range map[string]*keys.Set{"watched": ring.Current(), "read then": load(t, p, keys.EdDSA, c.at)} {
				doc := string(set.JWKS(c.at))
				for _, id := range c.published {
					if !strings.Contains(doc, id) {
						t.Errorf("%s at %s: %s is not published", what, c.at, id)
					}
				}
				if set.KeyID() != c.signs || strings.Contains(doc, c.not) && c.not != "-" {
					t.Errorf("%s at %s: %s signs, published %s", what, c.at, set.KeyID(), doc)
				}
			}
		}
		if got := states(t, p, start); count(got, keys.StateActive) != 1 || count(got, keys.StateRetired) != 1 {
			t.Errorf("states after the change: %v", got)
		}
		if got := states(t, p, until); count(got, keys.StateActive) != 1 || count(got, keys.StateExpired) != 1 {
			t.Errorf("states at the end: %v", got)
		}
		// A token of the coming key, by a replica whose clock is ahead, is good already.
		token, err := load(t, p, keys.EdDSA, start).Sign(claims(nil))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := load(t, p, keys.EdDSA, noon).Verify(token, want, noon); err != nil {
			t.Errorf("a token by a clock that is ahead: %v", err)
		}

		if _, err := keys.Schedule(p, keys.EdDSA, start, until, noon); !errors.Is(err, keys.ErrComing) {
			t.Errorf("a second coming key: %v", err)
		}
		var misfit *keys.AlgorithmError
		if _, err := keys.Schedule(p, keys.ES256, start.Add(2*time.Hour), until.Add(2*time.Hour), start); !errors.As(err, &misfit) {
			t.Errorf("of another algorithm: %v", err)
		}
		// The next one leaves no private half of the first, and takes its place in turn.
		third, err := keys.Schedule(p, keys.EdDSA, start.Add(2*time.Hour), until.Add(2*time.Hour), start)
		if err != nil {
			t.Fatal(err)
		}
		if text := readAll(t, p); bytes.Count(text, []byte("PRIVATE KEY-----")) != 4 || bytes.Count(text, []byte("PUBLIC KEY-----")) != 2 {
			t.Errorf("folder %v: on the disk\n%s", folder, text)
		}
		if got := load(t, p, keys.EdDSA, start.Add(2*time.Hour)); got.KeyID() != third {
			t.Errorf("%s signs, want the third key %s", got.KeyID(), third)
		}
		// A rotation at once does not wait for what is coming, and removes it.
		fourth, err := keys.Rotate(p, keys.EdDSA, until, start)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []time.Time{start, start.Add(3 * time.Hour)} {
			set := load(t, p, keys.EdDSA, at)
			if set.KeyID() != fourth || strings.Contains(string(set.JWKS(at)), third) {
				t.Errorf("at %s: %s signs, published %s", at, set.KeyID(), set.JWKS(at))
			}
		}
		if text := readAll(t, p); bytes.Count(text, []byte("PRIVATE KEY-----")) != 2 {
			t.Errorf("folder %v: after the rotation at once\n%s", folder, text)
		}
	}
}

// inState is the one key in a state.
func inState(t *testing.T, path string, now time.Time, state keys.State) keys.Info {
	t.Helper()
	all, err := keys.List(path, now)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(k keys.Info) bool { return k.State == state })
	if i < 0 {
		t.Fatalf("no key is %s: %v", state, all)
	}
	return all[i]
}

// TestScheduleIsUndone removes the file of a coming key: all is as it was.
func TestScheduleIsUndone(t *testing.T) {
	p := path(t, keys.ES256, true)
	first := load(t, p, keys.ES256, noon).KeyID()
	if _, err := keys.Schedule(p, keys.ES256, noon.Add(time.Hour), noon.Add(2*time.Hour), noon); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(inState(t, p, noon, keys.StateComing).File); err != nil {
		t.Fatal(err)
	}
	set := load(t, p, keys.ES256, noon.Add(3*time.Hour))
	if got := states(t, p, noon.Add(3*time.Hour)); set.KeyID() != first || len(got) != 1 || got[0] != keys.StateActive {
		t.Errorf("%s signs, states %v", set.KeyID(), got)
	}
}
