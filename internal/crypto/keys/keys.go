// Package keys owns the signing keys of the service: it reads them from PEM files, signs JSON Web Tokens with the active
// one, verifies tokens with all that are still live, publishes the public halves as a JWK set, and rotates them on disk.
//
// It knows nothing of HTTP, of sessions or of what the claims mean to the callers; it depends on golang-jwt, package jws and the
// standard library alone. Time is always passed in.
//
// # Files
//
// A key path is one PEM file or a folder of *.pem files, read in the order of their names. The first private key signs.
// Every other key, private or public, only verifies. A block with the header "Retire-After: <RFC 3339 time>" leaves the
// set, and the published JWK set, at that time; [Rotate] writes such blocks. A private key with the header "Sign-After:
// <RFC 3339 time>" is published, and signs from that time on in the place of those before it, which leave the set at the
// time in its header "Retire-Others-After". [Schedule] writes such blocks; whoever removes one before its time undoes that.
package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"barong/internal/crypto/jws"
)

// The signature algorithms (RFC 7518, RFC 8037) that keys may be made for.
const (
	RS256 = "RS256"
	ES256 = "ES256"
	EdDSA = "EdDSA"
)

// AlgorithmVariable names the setting that chooses the algorithm; errors about a key that does not fit it say so.
const AlgorithmVariable = "BARONG_JWT_ALGORITHM"

// An AlgorithmError is about a signing key that is made for another algorithm than the one that is asked for.
type AlgorithmError struct {
	Want, Have string
	File       string
}

func (e *AlgorithmError) Error() string {
	return fmt.Sprintf("%s=%s does not fit the %s key that signs in %s: set it to %s or rotate to a new key",
		AlgorithmVariable, e.Want, e.Have, e.File, e.Have)
}

const newRSABits = 2048

// A key is one signing or verifying key. It does not change after it was read.
type key struct {
	id        string
	algorithm string
	method    jwt.SigningMethod
	private   crypto.Signer // nil when only the public half is known
	public    crypto.PublicKey
	retire    time.Time // zero: no end
	start     time.Time // when a private key begins to sign; zero: it may at once
	others    time.Time // when the private keys retire in whose place it signs; zero: never
	jwk       jwk
	file      string
	block     *pem.Block
}

func (k *key) live(now time.Time) bool { return k.retire.IsZero() || now.Before(k.retire) }

// coming reports that the key is published and does not sign yet.
func (k *key) coming(now time.Time) bool { return k.private != nil && now.Before(k.start) }

// signerOf finds among all keys, in the order in which they were read, the one that signs at now: of the private keys without
// an end the one that began last, else the first. It gives those before it the end that it has for them. Nil: none can sign.
func signerOf(all []*key, now time.Time) *key {
	var signer *key
	var may []*key
	for _, k := range all {
		if k.private == nil || !k.retire.IsZero() || k.coming(now) {
			continue
		}
		may = append(may, k)
		if signer == nil || k.start.After(signer.start) {
			signer = k
		}
	}
	for _, k := range may {
		for _, next := range may {
			if next.start.After(k.start) && !next.others.IsZero() && (k.retire.IsZero() || next.others.Before(k.retire)) {
				k.retire = next.others
			}
		}
	}
	return signer
}

// A jwk is the public half in the form of RFC 7517; the members of RFC 7638 are a subset of it.
type jwk struct {
	Kty string `json:"kty"`
	Use string `json:"use"`
	Alg string `json:"alg"`
	Kid string `json:"kid"`
	Crv string `json:"crv,omitempty"`
	N   string `json:"n,omitempty"`
	E   string `json:"e,omitempty"`
	X   string `json:"x,omitempty"`
	Y   string `json:"y,omitempty"`
}

// A Set is an immutable group of keys of which one signs. It is safe for concurrent use.
type Set struct {
	signer *key
	keys   []*key // the signer first
	header string // encoded protected header of what the signer signs, with the dot behind it

	jwks   []byte    // as of loading
	change time.Time // when the next key begins to sign or retires, and the set stops being right; zero: never
}

// Load reads the keys below path and takes the first private key as signer, which must fit algorithm. Keys that have
// retired before now are left out. The error names the file, the key and, where the algorithm does not fit, the variable.
func Load(path, algorithm string, now time.Time) (*Set, error) {
	files, err := readFiles(path)
	if err != nil {
		return nil, err
	}
	return parseSet(path, files, algorithm, now)
}

// New makes a set of one fresh key that exists in memory only.
func New(algorithm string) (*Set, error) {
	private, err := generate(algorithm)
	if err != nil {
		return nil, err
	}
	k, err := newKey(private, private.Public())
	if err != nil {
		return nil, err
	}
	return newSet(k, []*key{k}, time.Time{})
}

func parseSet(path string, files []file, algorithm string, now time.Time) (*Set, error) {
	if !known(algorithm) {
		return nil, unknownAlgorithm(algorithm)
	}
	_, all, err := parseFiles(files)
	if err != nil {
		return nil, err
	}
	signer := signerOf(all, now)
	if signer == nil {
		return nil, fmt.Errorf("signing keys %s: no private key", path)
	}
	for _, k := range all { // a key that is to sign later is judged now, while somebody looks
		if (k == signer || k.coming(now)) && k.algorithm != algorithm {
			return nil, &AlgorithmError{Want: algorithm, Have: k.algorithm, File: k.file}
		}
	}
	live := []*key{signer}
	for _, k := range all {
		if k.live(now) && !slices.ContainsFunc(live, func(o *key) bool { return o.id == k.id }) {
			live = append(live, k)
		}
	}
	return newSet(signer, live, now)
}

func newSet(signer *key, keys []*key, now time.Time) (*Set, error) {
	// The header has no "typ", as the original's had none: consumers exist that compare it whole.
	header, err := json.Marshal(struct {
		Alg string `json:"alg"`
		Kid string `json:"kid"`
	}{signer.algorithm, signer.id})
	if err != nil {
		return nil, fmt.Errorf("encode token header: %w", err)
	}
	s := &Set{signer: signer, keys: keys, header: base64.RawURLEncoding.EncodeToString(header) + "."}
	for _, k := range keys {
		next := k.retire
		if k.coming(now) {
			next = k.start
		}
		if !next.IsZero() && (s.change.IsZero() || next.Before(s.change)) {
			s.change = next
		}
	}
	s.jwks = s.encodeJWKS(now)
	return s, nil
}

// Algorithm returns the name of the signature algorithm that the set signs with, for example "RS256".
func (s *Set) Algorithm() string { return s.signer.algorithm }

// KeyID returns the key id (RFC 7638 thumbprint) that the set signs with.
func (s *Set) KeyID() string { return s.signer.id }

// Next returns the id of the key that will sign in the place of the one that does, and from when; none: empty and zero.
func (s *Set) Next(now time.Time) (id string, from time.Time) {
	for _, k := range s.keys {
		if k.coming(now) && (id == "" || k.start.Before(from)) {
			id, from = k.id, k.start
		}
	}
	return id, from
}

// JWKS returns the public keys that are live at now as a JWK set (RFC 7517). The caller must not change the bytes.
func (s *Set) JWKS(now time.Time) []byte {
	if s.change.IsZero() || now.Before(s.change) {
		return s.jwks
	}
	return s.encodeJWKS(now)
}

func (s *Set) encodeJWKS(now time.Time) []byte {
	doc := struct {
		Keys []jwk `json:"keys"`
	}{Keys: make([]jwk, 0, len(s.keys))}
	for _, k := range s.keys {
		if k.live(now) {
			doc.Keys = append(doc.Keys, k.jwk)
		}
	}
	b, err := json.Marshal(doc)
	if err != nil { // strings only: cannot fail
		panic("keys: encode JWK set: " + err.Error())
	}
	return b
}

// Sign encodes claims as JSON and returns them as a signed compact token (RFC 7515).
func (s *Set) Sign(claims any) (string, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("encode claims: %w", err)
	}
	token, err := s.SignPayload(payload)
	return string(token), err
}

// SignPayload signs payload, which is the JSON of the claims, and returns the compact token. It does not look into payload.
func (s *Set) SignPayload(payload []byte) ([]byte, error) {
	const signature = 700 // room for the signature of a 4096 bit key
	out := make([]byte, 0, len(s.header)+base64.RawURLEncoding.EncodedLen(len(payload))+signature)
	out = append(out, s.header...)
	out = base64.RawURLEncoding.AppendEncode(out, payload)
	sig, err := s.Signature(out)
	if err != nil {
		return nil, err
	}
	out = append(out, '.')
	return base64.RawURLEncoding.AppendEncode(out, sig), nil
}

// Signature signs bytes in the form that JSON Web Signatures have (RFC 7518, RFC 8037).
func (s *Set) Signature(signed []byte) ([]byte, error) {
	sig, err := s.signer.method.Sign(string(signed), s.signer.private)
	if err != nil {
		return nil, fmt.Errorf("sign with %s key %s: %w", s.signer.algorithm, s.signer.id, err)
	}
	return sig, nil
}

func known(algorithm string) bool {
	return algorithm == RS256 || algorithm == ES256 || algorithm == EdDSA
}

func unknownAlgorithm(algorithm string) error {
	return fmt.Errorf("%s=%q is not one of %s", AlgorithmVariable, algorithm, strings.Join([]string{RS256, ES256, EdDSA}, ", "))
}

func generate(algorithm string) (crypto.Signer, error) {
	var (
		signer crypto.Signer
		err    error
	)
	switch algorithm {
	case RS256:
		signer, err = rsa.GenerateKey(rand.Reader, newRSABits)
	case ES256:
		signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case EdDSA:
		_, signer, err = ed25519.GenerateKey(rand.Reader)
	default:
		return nil, unknownAlgorithm(algorithm)
	}
	if err != nil {
		return nil, fmt.Errorf("generate %s key: %w", algorithm, err)
	}
	return signer, nil
}

// newKey judges a key and fills in what follows from it. private may be nil.
func newKey(private crypto.Signer, public crypto.PublicKey) (*key, error) {
	k := &key{private: private, public: public}
	b64 := base64.RawURLEncoding.EncodeToString
	var thumbprint string // the required members in lexical order, without white space: RFC 7638, section 3.2
	switch p := public.(type) {
	case *rsa.PublicKey:
		if err := jws.ValidateRSA(p); err != nil {
			return nil, err
		}
		k.algorithm, k.method = RS256, jwt.SigningMethodRS256
		k.jwk = jwk{Kty: "RSA", N: b64(p.N.Bytes()), E: b64(big.NewInt(int64(p.E)).Bytes())}
		thumbprint = fmt.Sprintf(`{"e":"%s","kty":"RSA","n":"%s"}`, k.jwk.E, k.jwk.N)
	case *ecdsa.PublicKey:
		if p.Curve != elliptic.P256() {
			return nil, fmt.Errorf("EC key on %s: only P-256 (ES256) is supported", p.Params().Name)
		}
		point, err := p.ECDH()
		if err != nil {
			return nil, fmt.Errorf("EC key: %w", err)
		}
		xy := point.Bytes()[1:] // behind the mark of an uncompressed point
		k.algorithm, k.method = ES256, jwt.SigningMethodES256
		k.jwk = jwk{Kty: "EC", Crv: "P-256", X: b64(xy[:32]), Y: b64(xy[32:])}
		thumbprint = fmt.Sprintf(`{"crv":"P-256","kty":"EC","x":"%s","y":"%s"}`, k.jwk.X, k.jwk.Y)
	case ed25519.PublicKey:
		if len(p) != ed25519.PublicKeySize {
			return nil, errors.New("Ed25519 key of a wrong length")
		}
		k.algorithm, k.method = EdDSA, jwt.SigningMethodEdDSA
		k.jwk = jwk{Kty: "OKP", Crv: "Ed25519", X: b64(p)}
		thumbprint = fmt.Sprintf(`{"crv":"Ed25519","kty":"OKP","x":"%s"}`, k.jwk.X)
	default:
		return nil, fmt.Errorf("key of type %T: RSA, EC P-256 and Ed25519 are supported", public)
	}
	sum := sha256.Sum256([]byte(thumbprint))
	k.id = b64(sum[:])
	k.jwk.Use, k.jwk.Alg, k.jwk.Kid = "sig", k.algorithm, k.id
	return k, nil
}
