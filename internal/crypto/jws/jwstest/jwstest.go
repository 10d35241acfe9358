// Package jwstest has other services that sign messages, for tests.
package jwstest

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"testing"
)

// A Service signs with a key of its own. It is a jws.Signer.
type Service struct {
	private ed25519.PrivateKey
	PEM     []byte // of its public key
}

// New makes a service.
func New(t testing.TB) *Service {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return &Service{private, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})}
}

// Algorithm is that of its key.
func (*Service) Algorithm() string { return "EdDSA" }

// Signature signs.
func (s *Service) Signature(signed []byte) ([]byte, error) {
	return ed25519.Sign(s.private, signed), nil
}

// Entry is what the keychain of a management_api.yml says of the service, as YAML in one line.
func (s *Service) Entry() string {
	return fmt.Sprintf("{algorithm: EdDSA, value: %s}", base64.URLEncoding.EncodeToString(s.PEM))
}
