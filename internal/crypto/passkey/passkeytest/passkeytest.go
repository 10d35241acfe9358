// Package passkeytest is an authenticator and a browser in software, for tests: it makes passkeys of two kinds and signs
// with them, as the options of a ceremony ask, or with whatever a test has spoiled.
package passkeytest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"testing"

	"github.com/fxamacker/cbor/v2"
)

// The kinds of keys.
const (
	ES256   = -7
	Ed25519 = -8
)

// Flags of an authenticator's data.
const (
	Present        = 1 << 0
	Verified       = 1 << 2
	BackupEligible = 1 << 3
	BackedUp       = 1 << 4
	attested       = 1 << 6
)

// Origin is the page that asks, unless a test says otherwise.
const Origin = "https://barong.test"

// A Key is a passkey.
type Key struct {
	ID     []byte
	Handle []byte // of its user
	Count  uint32 // of its signatures
	Flags  byte

	algorithm int
	private   crypto.Signer
}

// New makes a key that does not count its signatures and leaves its device never. Make and Get change it.
func New(t testing.TB, algorithm int) *Key {
	t.Helper()
	k := &Key{ID: make([]byte, 32), Flags: Present | Verified, algorithm: algorithm}
	rand.Read(k.ID)
	var err error
	switch algorithm {
	case ES256:
		k.private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case Ed25519:
		_, k.private, err = ed25519.GenerateKey(rand.Reader)
	default:
		t.Fatalf("there is no algorithm %d here", algorithm)
	}
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// A Ceremony is what the authenticator is about to sign and the browser to send, for a test to spoil.
type Ceremony struct {
	Type, Challenge, Origin, RPID string
	CrossOrigin                   bool
	Flags                         byte
	Count                         uint32
	ID, Handle                    []byte
	PublicKey                     []byte // COSE; of a new passkey
	Transports                    []string
	Format                        string // of the attestation
	Trailing                      []byte // behind the authenticator's data
	Extensions                    map[string]any
	Forge                         func(signature []byte) []byte
}

type options struct {
	Challenge string `json:"challenge"`
	RPID      string `json:"rpId"`
	RP        struct {
		ID string `json:"id"`
	} `json:"rp"`
	User struct {
		ID string `json:"id"`
	} `json:"user"`
}

func (k *Key) begin(t testing.TB, kind string, raw json.RawMessage) *Ceremony {
	t.Helper()
	var o options
	if err := json.Unmarshal(raw, &o); err != nil {
		t.Fatal(err)
	}
	c := &Ceremony{
		Type: kind, Challenge: o.Challenge, Origin: Origin, RPID: o.RPID + o.RP.ID, Flags: k.Flags, ID: k.ID,
		Format: "none", Transports: []string{"internal", "hybrid"}, Extensions: map[string]any{},
	}
	if o.User.ID != "" {
		handle, err := base64.RawURLEncoding.DecodeString(o.User.ID)
		if err != nil {
			t.Fatal(err)
		}
		k.Handle = handle
	}
	c.Handle, c.Count = k.Handle, k.Count
	return c
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func (c *Ceremony) clientData(t testing.TB) []byte {
	t.Helper()
	return encode(t, json.Marshal, map[string]any{
		"type": c.Type, "challenge": c.Challenge, "origin": c.Origin, "crossOrigin": c.CrossOrigin,
	})
}

func encode(t testing.TB, with func(any) ([]byte, error), v any) []byte {
	t.Helper()
	b, err := with(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// data is the authenticator's data (WebAuthn, section 6.1) with what follows the count of signatures.
func (c *Ceremony) data(rest []byte) []byte {
	id := sha256.Sum256([]byte(c.RPID))
	out := append(id[:], c.Flags)
	out = binary.BigEndian.AppendUint32(out, c.Count)
	return append(append(out, rest...), c.Trailing...)
}

// send is the JSON form of the answer of navigator.credentials.
func (c *Ceremony) send(t testing.TB, response map[string]any) string {
	t.Helper()
	return string(encode(t, json.Marshal, map[string]any{
		"id": b64(c.ID), "rawId": b64(c.ID), "type": "public-key", "authenticatorAttachment": "platform",
		"clientExtensionResults": c.Extensions, "response": response,
	}))
}

// Make answers the options of a new passkey. spoil may be nil.
func (k *Key) Make(t testing.TB, raw json.RawMessage, spoil func(*Ceremony)) string {
	t.Helper()
	c := k.begin(t, "webauthn.create", raw)
	c.Flags |= attested
	switch key := k.private.Public().(type) {
	case *ecdsa.PublicKey:
		point, err := key.Bytes() // 4, x, y
		if err != nil {
			t.Fatal(err)
		}
		c.PublicKey = encode(t, cbor.Marshal, map[int]any{1: 2, 3: ES256, -1: 1, -2: point[1:33], -3: point[33:]})
	case ed25519.PublicKey:
		c.PublicKey = encode(t, cbor.Marshal, map[int]any{1: 1, 3: Ed25519, -1: 6, -2: []byte(key)})
	}
	if spoil != nil {
		spoil(c)
	}
	rest := binary.BigEndian.AppendUint16(make([]byte, 16), uint16(len(c.ID))) // no AAGUID
	rest = append(append(rest, c.ID...), c.PublicKey...)
	object := encode(t, cbor.Marshal, map[string]any{"fmt": c.Format, "attStmt": map[string]any{}, "authData": c.data(rest)})
	return c.send(t, map[string]any{
		"clientDataJSON": b64(c.clientData(t)), "attestationObject": b64(object), "transports": c.Transports,
	})
}

// Get answers the options of a sign-in. spoil may be nil.
func (k *Key) Get(t testing.TB, raw json.RawMessage, spoil func(*Ceremony)) string {
	t.Helper()
	if k.Count > 0 {
		k.Count++
	}
	c := k.begin(t, "webauthn.get", raw)
	if spoil != nil {
		spoil(c)
	}
	client, data := c.clientData(t), c.data(nil)
	hash := sha256.Sum256(client)
	message := append(append([]byte{}, data...), hash[:]...)
	var signature []byte
	var err error
	if k.algorithm == ES256 {
		digest := sha256.Sum256(message)
		signature, err = k.private.Sign(rand.Reader, digest[:], crypto.SHA256)
	} else {
		signature, err = k.private.Sign(nil, message, crypto.Hash(0))
	}
	if err != nil {
		t.Fatal(err)
	}
	if c.Forge != nil {
		signature = c.Forge(signature)
	}
	return c.send(t, map[string]any{
		"clientDataJSON": b64(client), "authenticatorData": b64(data), "signature": b64(signature), "userHandle": b64(c.Handle),
	})
}
