package jws_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"barong/internal/crypto/jws"
	"barong/internal/crypto/keys"
)

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// signer signs with any method and key, also where nobody should.
type signer struct {
	method  jwt.SigningMethod
	private any
}

func (s signer) Algorithm() string { return s.method.Alg() }
func (s signer) Signature(signed []byte) ([]byte, error) {
	return s.method.Sign(string(signed), s.private)
}

// raw makes a signature with a protected header that is given as it is.
func raw(t testing.TB, m *jws.Message, kid, protected string, s signer) {
	t.Helper()
	p := b64(protected)
	value, err := s.Signature([]byte(p + "." + m.Payload))
	if err != nil {
		t.Fatal(err)
	}
	m.Signatures = append(m.Signatures, jws.Signature{Protected: p, Header: jws.Header{KeyID: kid}, Value: b64(string(value))})
}

func publicPEM(t testing.TB, public crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func newKey(t testing.TB, algorithm string, public crypto.PublicKey) jws.Key {
	t.Helper()
	k, err := jws.NewKey(algorithm, publicPEM(t, public))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// The keys of the tests.
var (
	rsaKey = must(rsa.GenerateKey(rand.Reader, 2048))
	p256   = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	p384   = must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	p521   = must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))
	edKey  = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
)

var signers = map[string]signer{
	"RS256": {jwt.SigningMethodRS256, rsaKey},
	"RS384": {jwt.SigningMethodRS384, rsaKey},
	"RS512": {jwt.SigningMethodRS512, rsaKey},
	"ES256": {jwt.SigningMethodES256, p256},
	"ES384": {jwt.SigningMethodES384, p384},
	"ES512": {jwt.SigningMethodES512, p521},
	"EdDSA": {jwt.SigningMethodEdDSA, edKey},
}

func public(s signer) crypto.PublicKey { return s.private.(crypto.Signer).Public() }

// received sends a message and takes it in again.
func received(t *testing.T, m *jws.Message) *jws.Message {
	t.Helper()
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	got, err := jws.Parse(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return got
}

func TestSignAndVerify(t *testing.T) {
	const payload = `{"a":"<ü>"}`
	for algorithm, s := range signers {
		t.Run(algorithm, func(t *testing.T) {
			m := jws.New([]byte(payload))
			if err := m.Sign("one", s); err != nil {
				t.Fatal(err)
			}
			m = received(t, m)
			chain := jws.Keychain{"one": newKey(t, algorithm, public(s))}
			if got, err := m.Verify(chain, []string{"one"}); err != nil || !slices.Equal(got, []string{"one"}) {
				t.Errorf("signers %v, %v", got, err)
			}
			if got, err := m.Bytes(); err != nil || string(got) != payload {
				t.Errorf("payload %q, %v", got, err)
			}
			m.Payload = b64(`{"a":"<u>"}`)
			if got, err := m.Verify(chain, []string{"one"}); err == nil {
				t.Errorf("another payload is accepted: %v", got)
			}
		})
	}
}

func TestSignsWithTheServicesKeys(t *testing.T) {
	for _, algorithm := range []string{keys.RS256, keys.ES256, keys.EdDSA} {
		set, err := keys.New(algorithm)
		if err != nil {
			t.Fatal(err)
		}
		m := jws.New([]byte("{}"))
		if err := m.Sign("barong", set); err != nil {
			t.Fatal(err)
		}
		text := string(must(json.Marshal(m)))
		want := fmt.Sprintf(`{"payload":"e30","signatures":[{"protected":%q,"header":{"kid":"barong"},"signature":%q}]}`,
			b64(`{"alg":"`+algorithm+`"}`), m.Signatures[0].Value)
		if text != want {
			t.Errorf("got  %s\nwant %s", text, want)
		}
	}
}

func TestSignReplacesAnOlderSignature(t *testing.T) {
	m := jws.New([]byte("{}"))
	for _, kid := range []string{"a", "barong", "b"} {
		if err := m.Sign(kid, signers["EdDSA"]); err != nil {
			t.Fatal(err)
		}
	}
	before := slices.Clone(m.Signatures)
	if err := m.Sign("barong", signers["ES256"]); err != nil {
		t.Fatal(err)
	}
	if len(m.Signatures) != 3 || m.Signatures[0] != before[0] || m.Signatures[1] != before[2] {
		t.Fatalf("%+v", m.Signatures)
	}
	chain := jws.Keychain{"barong": newKey(t, "ES256", p256.Public())}
	if got, err := m.Verify(chain, []string{"barong"}); err != nil || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
	for i := len(m.Signatures); i < jws.MaxSignatures; i++ {
		if err := m.Sign(fmt.Sprint(i), signers["EdDSA"]); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Sign("one more", signers["EdDSA"]); err == nil {
		t.Error("more signatures than can be read")
	}
}

func TestVerifyWithSeveralSigners(t *testing.T) {
	m := jws.New([]byte("{}"))
	for kid, algorithm := range map[string]string{"good": "RS256", "other": "ES256", "wrong": "EdDSA"} {
		if err := m.Sign(kid, signers[algorithm]); err != nil {
			t.Fatal(err)
		}
	}
	stranger := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, ed25519.SeedSize))
	chain := jws.Keychain{
		"good": newKey(t, "RS256", rsaKey.Public()), "other": newKey(t, "ES256", p256.Public()),
		"wrong": newKey(t, "EdDSA", stranger.Public()),
	}
	for _, tc := range []struct {
		permitted string // parted by spaces
		want      string // sorted; "error"
	}{
		{"good", "good"},
		{"good other", "good other"},
		{"good nobody", "good"}, // permitted, but it has not signed
		{"", ""},
		{"wrong", "error"},
		{"good other wrong", "error"}, // one that is wrong fails the whole
	} {
		got, err := received(t, m).Verify(chain, strings.Fields(tc.permitted))
		slices.Sort(got)
		have := strings.Join(got, " ")
		if err != nil {
			have = "error"
			if got != nil {
				t.Errorf("%s: signers %v with an error", tc.permitted, got)
			}
		}
		if have != tc.want {
			t.Errorf("permitted %q: %q (%v)", tc.permitted, have, err)
		}
	}
	delete(chain, "good")
	if got, err := m.Verify(chain, []string{"good", "other"}); err == nil || !strings.Contains(err.Error(), `"good"`) {
		t.Errorf("without a key: %v, %v", got, err)
	}
}

func TestForgedSignaturesAreRefused(t *testing.T) {
	text := publicPEM(t, rsaKey.Public())
	rs := signers["RS256"]
	chain := jws.Keychain{
		"rs": newKey(t, "RS256", rsaKey.Public()), "es": newKey(t, "ES256", p256.Public()),
		"hs": {Algorithm: "HS256", Public: text}, "none": {Algorithm: "none", Public: jwt.UnsafeAllowNoneSignatureType},
		"bent": {Algorithm: "ES256", Public: rsaKey.Public()},
	}
	for _, tc := range []struct {
		name, kid, protected string
		signer               signer
	}{
		{"an HMAC with the public key", "rs", `{"alg":"HS256"}`, signer{jwt.SigningMethodHS256, text}},
		{"an HMAC that says it is none", "rs", `{"alg":"RS256"}`, signer{jwt.SigningMethodHS256, text}},
		{"no signature", "rs", `{"alg":"none"}`, signer{jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType}},
		{"no signature under the right name", "rs", `{"alg":"RS256"}`, signer{jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType}},
		{"another hash with the right key", "rs", `{"alg":"RS384"}`, signers["RS384"]},
		{"another padding with the right key", "rs", `{"alg":"PS256"}`, signer{jwt.SigningMethodPS256, rsaKey}},
		{"another key's algorithm", "rs", `{"alg":"ES256"}`, signers["ES256"]},
		{"another signer's key", "es", `{"alg":"RS256"}`, rs},
		{"algorithm in lower case", "rs", `{"alg":"rs256"}`, rs},
		{"member in upper case", "rs", `{"ALG":"RS256"}`, rs},
		{"no algorithm", "rs", `{}`, rs},
		{"algorithm twice", "rs", `{"alg":"RS256","alg":"RS256"}`, rs},
		{"algorithm in a list", "rs", `{"alg":["RS256"]}`, rs},
		{"a critical extension", "rs", `{"alg":"RS256","crit":["b64"],"b64":false}`, rs},
		{"no critical extension", "rs", `{"alg":"RS256","crit":null}`, rs},
		{"another key id signed", "rs", `{"alg":"RS256","kid":"es"}`, rs},
		{"a key id that is no string", "rs", `{"alg":"RS256","kid":null}`, rs},
		{"header that is no object", "rs", `"RS256"`, rs},
		{"header that is empty", "rs", ``, rs},
		{"header with a tail", "rs", `{"alg":"RS256"}{}`, rs},
		{"a keychain with a secret", "hs", `{"alg":"HS256"}`, signer{jwt.SigningMethodHS256, text}},
		{"a keychain with none", "none", `{"alg":"none"}`, signer{jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType}},
		{"a keychain with a key of another kind", "bent", `{"alg":"ES256"}`, signers["ES256"]},
	} {
		m := jws.New([]byte("{}"))
		raw(t, m, tc.kid, tc.protected, tc.signer)
		if got, err := m.Verify(chain, []string{"rs", "es", "hs", "none", "bent"}); err == nil {
			t.Errorf("%s: accepted as %v", tc.name, got)
		}
		if got, err := m.Verify(chain, nil); err != nil || got != nil {
			t.Errorf("%s, of nobody who is permitted: %v, %v", tc.name, got, err)
		}
	}
	// What is signed beside the algorithm does no harm.
	m := jws.New([]byte("{}"))
	raw(t, m, "rs", ` { "typ":"JWT", "kid":"rs", "alg":"RS256" } `, rs)
	if _, err := received(t, m).Verify(chain, []string{"rs"}); err != nil {
		t.Error(err)
	}
	m.Payload += "\n"
	if _, err := m.Verify(chain, []string{"rs"}); err == nil {
		t.Error("two spellings of a payload")
	}
	m = jws.New(nil)
	for range jws.MaxSignatures + 1 {
		raw(t, m, "rs", `{"alg":"RS256"}`, rs)
	}
	if _, err := m.Verify(chain, []string{"rs"}); err == nil {
		t.Error("too many signatures")
	}
}

// example has white space, an order and members that this program would not write.
const example = ` {"signatures":[{"signature":"AAEC","header":{"kid":"one","typ":"x"},"protected":"eyJhbGciOiJSUzI1NiJ9","more":1}],` +
	`"payload":"IHsgImEiIDogMSB9","extra":{"a":[]}}` + "\n"

func TestParse(t *testing.T) {
	m, err := jws.Parse([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	want := jws.Signature{Protected: "eyJhbGciOiJSUzI1NiJ9", Header: jws.Header{KeyID: "one"}, Value: "AAEC"}
	if len(m.Signatures) != 1 || m.Signatures[0] != want {
		t.Errorf("%+v", m.Signatures)
	}
	if got := must(m.Bytes()); string(got) != ` { "a" : 1 }` {
		t.Errorf("payload %q", got)
	}
	for _, text := range []string{
		`{"payload":"","signatures":[]}`,
		`{"payload":"AA","signatures":[{"protected":"","signature":""}]}`, // nobody's
		`{"payload":"AA","signatures":[` + strings.Repeat(`{"protected":"","signature":""},`, 7) + `{"protected":"","signature":""}]}`,
	} {
		if _, err := jws.Parse([]byte(text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	const fine = `{"protected":"e30","header":{"kid":"a"},"signature":"AA"}`
	with := func(signature string) string { return `{"payload":"AA","signatures":[` + signature + `]}` }
	var members []string
	for i := range 64 {
		members = append(members, fmt.Sprintf(`,"m%d":1`, i))
	}
	for text, want := range map[string]string{
		``:                                   "not a JSON object",
		`null`:                               "not a JSON object",
		`[]`:                                 "not a JSON object",
		`"a.b.c"`:                            "not a JSON object",
		`eyJ.e30.AA`:                         "not a JSON object",
		`{`:                                  "not a JSON object",
		`{"payload":"AA","signatures":[]`:    "not a JSON object",
		`{"payload":"AA","signatures":[],}`:  "not a JSON object",
		`{"payload":"AA","signatures":[]} x`: "not a JSON object",
		`{"payload":"AA","signatures":[]}{}`: "not a JSON object",
		`{"payload":"AA","payload":"AQ","signatures":[]}`:      "twice",
		`{"payload":"AA","pay\u006coad":"AQ","signatures":[]}`: "twice",
		`{}`:                                                                          "payload is missing",
		`{"Payload":"AA","signatures":[]}`:                                            "payload is missing",
		`{"payload":null,"signatures":[]}`:                                            "payload is not a string",
		`{"payload":{},"signatures":[]}`:                                              "payload is not a string",
		`{"payload":"AA==","signatures":[]}`:                                          "payload is not base64url",
		`{"payload":"A","signatures":[]}`:                                             "payload is not base64url",
		`{"payload":"AB","signatures":[]}`:                                            "payload is not base64url", // bits that mean nothing
		`{"payload":"+/+/","signatures":[]}`:                                          "payload is not base64url",
		`{"payload":"AA\n","signatures":[]}`:                                          "payload is not base64url",
		`{"payload":"AA"}`:                                                            "signatures is missing",
		`{"payload":"AA","signature":"AA","protected":"e30"}`:                         "signatures is missing", // the flattened form
		`{"payload":"AA","signatures":null}`:                                          "signatures is not an array",
		`{"payload":"AA","signatures":{}}`:                                            "signatures is not an array",
		with(`null`):                                                                  "signature 1: not a JSON object",
		with(fine + `,"x"`):                                                           "signature 2: not a JSON object",
		with(`{"header":{"kid":"a"},"signature":"AA"}`):                               "protected is missing",
		with(`{"protected":1,"signature":"AA"}`):                                      "protected is not a string",
		with(`{"protected":"e30","header":{"kid":"a"}}`):                              "signature is missing",
		with(`{"protected":"e30","signature":"A!"}`):                                  "signature is not base64url",
		with(`{"protected":"e30","header":[],"signature":"AA"}`):                      "header: not a JSON object",
		with(`{"protected":"e30","header":null,"signature":"AA"}`):                    "header: not a JSON object",
		with(`{"protected":"e30","header":{"kid":1},"signature":"AA"}`):               "kid is not a string",
		with(`{"protected":"e30","header":{"kid":null},"signature":"AA"}`):            "kid is not a string",
		with(`{"protected":"e30","header":{"crit":[]},"signature":"AA"}`):             "critical",
		with(`{"protected":"e30","header":{"kid":"a","kid":"b"},"signature":"AA"}`):   "twice",
		with(strings.Repeat(fine+",", 8) + fine):                                      "more than 8 signatures",
		with(strings.Repeat(fine+",", 8) + "1,2,x"):                                   "not a JSON object",
		with(`{"protected":"` + strings.Repeat("AAAA", 1025) + `","signature":"AA"}`): "longer than 4096",
		`{"a":1` + strings.Join(members, "") + "}":                                    "more than 64 members",
	} {
		if m, err := jws.Parse([]byte(text)); err == nil || m != nil {
			t.Errorf("%s: accepted as %+v", text, m)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestNewKey(t *testing.T) {
	private := func(kind string, der []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(p256)
	ec, ecErr := x509.MarshalECPrivateKey(p256)
	rsaPublic := publicPEM(t, rsaKey.Public())
	short := must(rsa.GenerateKey(rand.Reader, 1024))
	for _, tc := range []struct {
		name, algorithm string
		text            []byte
		want            string // part of the error; empty: accepted
	}{
		{"PKIX", "RS512", rsaPublic, ""},
		{"PKCS #1", "RS256", private("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&rsaKey.PublicKey), nil), ""},
		{"text around it", "RS256", append([]byte("my key\n"), append(rsaPublic, "\nthe end\n"...)...), ""},
		{"private PKCS #8", "ES256", private("PRIVATE KEY", pkcs8, err), "private key"},
		{"private PKCS #1", "RS256", private("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey), nil), "private key"},
		{"private EC", "ES256", private("EC PRIVATE KEY", ec, ecErr), "private key"},
		{"private, encrypted", "ES256", private("ENCRYPTED PRIVATE KEY", pkcs8, nil), "private key"},
		{"private under a wrong name", "ES256", private("PUBLIC KEY", pkcs8, nil), "public key"},
		{"a private key behind it", "RS256", slices.Concat(rsaPublic, private("PRIVATE KEY", pkcs8, nil)), "more than one"},
		{"a certificate", "RS256", private("CERTIFICATE", pkcs8, nil), "CERTIFICATE"},
		{"nothing", "RS256", nil, "not the PEM text"},
		{"a secret", "HS256", []byte("secret"), "not one of"},
		{"HMAC", "HS256", rsaPublic, "not one of"},
		{"none", "none", rsaPublic, "not one of"},
		{"no algorithm", "", rsaPublic, "not one of"},
		{"lower case", "rs256", rsaPublic, "not one of"},
		{"PS256", "PS256", rsaPublic, "not one of"},
		{"RSA for ES256", "ES256", rsaPublic, "does not fit"},
		{"RSA for EdDSA", "EdDSA", rsaPublic, "does not fit"},
		{"EC for RS256", "RS256", publicPEM(t, p256.Public()), "does not fit"},
		{"P-256 for ES384", "ES384", publicPEM(t, p256.Public()), "does not fit"},
		{"P-521 for ES256", "ES256", publicPEM(t, p521.Public()), "does not fit"},
		{"Ed25519 for ES256", "ES256", publicPEM(t, edKey.Public()), "does not fit"},
		{"Ed25519 for RS256", "RS256", publicPEM(t, edKey.Public()), "does not fit"},
		{"short", "RS256", publicPEM(t, short.Public()), "1024 bits"},
	} {
		k, err := jws.NewKey(tc.algorithm, tc.text)
		switch {
		case tc.want == "" && (err != nil || k.Algorithm != tc.algorithm || k.Public == nil):
			t.Errorf("%s: %+v, %v", tc.name, k, err)
		case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	good := jws.New([]byte(`{"data":{}}`))
	if err := good.Sign("one", signers["EdDSA"]); err != nil {
		f.Fatal(err)
	}
	text := must(json.Marshal(good))
	for _, seed := range []string{
		string(text), example, "", "{}", `{"payload":"","signatures":[]}`, `{"payload":"AA","payload":"AA","signatures":[]}`,
		strings.Replace(string(text), "one", "two", 1), strings.Replace(string(text), good.Signatures[0].Protected, b64(`{"alg":"none"}`), 1),
		strings.Replace(string(text), `}]`, `},{}]`, 1), string(text) + string(text), `{"payload":"AA","signatures":[{"header":null}]}`,
	} {
		f.Add([]byte(seed))
	}
	chain := jws.Keychain{"one": newKey(f, "EdDSA", edKey.Public())}
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := jws.Parse(text)
		if err != nil {
			if m != nil {
				t.Fatal("refused, and yet a message came out")
			}
			return
		}
		if !json.Valid(text) {
			t.Fatal("not JSON")
		}
		if _, err := m.Bytes(); err != nil {
			t.Fatal(err)
		}
		signers, err := m.Verify(chain, []string{"one"})
		if err != nil && signers != nil || len(signers) > 1 {
			t.Fatalf("signers %v, %v", signers, err)
		}
		if len(signers) == 1 && m.Payload != good.Payload {
			t.Fatalf("a forged payload is accepted: %s", text)
		}
		written, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		again, err := jws.Parse(written)
		if err != nil || again.Payload != m.Payload || !slices.Equal(again.Signatures, m.Signatures) {
			t.Fatalf("%+v became %+v, %v", m, again, err)
		}
	})
}
