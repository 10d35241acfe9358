package jws

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// A Key is a signer's public key with the one algorithm that it may be used with. [NewKey] makes one.
type Key struct {
	Algorithm string
	Public    crypto.PublicKey
}

// A Keychain has the keys of signers by their key ids.
type Keychain map[string]Key

// methods are the algorithms that a key may be for (RFC 7518, RFC 8037). Never one with a shared secret: a keychain holds
// what everybody may know.
var methods = map[string]jwt.SigningMethod{
	"RS256": jwt.SigningMethodRS256, "RS384": jwt.SigningMethodRS384, "RS512": jwt.SigningMethodRS512,
	"ES256": jwt.SigningMethodES256, "ES384": jwt.SigningMethodES384, "ES512": jwt.SigningMethodES512,
	"EdDSA": jwt.SigningMethodEdDSA,
}

const algorithms = "RS256, RS384, RS512, ES256, ES384, ES512, EdDSA"

// ValidateRSA refuses RSA keys that are too short to be safe, or so long that one verification may cost too much.
func ValidateRSA(k *rsa.PublicKey) error {
	const least, most = 2048, 8192
	if bits := k.N.BitLen(); bits < least || bits > most {
		return fmt.Errorf("RSA key of %d bits: %d to %d are needed", bits, least, most)
	}
	return nil
}

// NewKey reads the PEM text of one public key, which must fit the algorithm. A private key is an error: whoever has it
// could sign in its owner's name.
func NewKey(algorithm string, text []byte) (Key, error) {
	if methods[algorithm] == nil {
		return Key{}, fmt.Errorf("algorithm %q is not one of %s", algorithm, algorithms)
	}
	block, rest := pem.Decode(text)
	switch {
	case block == nil:
		return Key{}, errors.New("not the PEM text of a public key")
	case strings.HasSuffix(block.Type, "PRIVATE KEY"):
		return Key{}, errors.New("a private key: give its public half, and keep the private one with its owner")
	case bytes.Contains(rest, []byte("-----BEGIN")):
		return Key{}, errors.New("more than one PEM block: one public key is needed")
	}
	k := Key{Algorithm: algorithm}
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		k.Public, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		k.Public, err = x509.ParsePKCS1PublicKey(block.Bytes)
	default:
		return Key{}, fmt.Errorf("a PEM block of type %q: a public key is needed", block.Type)
	}
	if err != nil {
		return Key{}, fmt.Errorf("public key: %w", err)
	}
	if err := k.check(); err != nil {
		return Key{}, err
	}
	return k, nil
}

// check refuses a key that is not made for its algorithm.
func (k Key) check() error {
	fits := false
	switch p := k.Public.(type) {
	case *rsa.PublicKey:
		if err := ValidateRSA(p); err != nil {
			return err
		}
		fits = strings.HasPrefix(k.Algorithm, "RS")
	case *ecdsa.PublicKey:
		curves := map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()}
		fits = p.Curve == curves[k.Algorithm]
	case ed25519.PublicKey:
		fits = k.Algorithm == "EdDSA"
	}
	if !fits {
		return fmt.Errorf("algorithm %s does not fit the key", k.Algorithm)
	}
	return nil
}

// verify checks a signature over signed.
func (k Key) verify(signed, signature []byte) error {
	method := methods[k.Algorithm]
	if method == nil {
		return fmt.Errorf("algorithm %q is not one of %s", k.Algorithm, algorithms)
	}
	if err := k.check(); err != nil { // whoever made it without NewKey
		return err
	}
	return method.Verify(string(signed), signature, k.Public)
}
