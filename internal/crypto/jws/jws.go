// Package jws reads, signs and verifies JSON Web Signatures in the general JSON form, which carries any number of
// signatures over one payload (RFC 7515, section 7.2.1). Events and the messages of the management API have this form.
//
// It knows nothing of what a payload says: whoever verifies a message judges its claims. It depends on golang-jwt, for the
// algorithms, and the standard library.
package jws

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// MaxSignatures is how many signatures a message may carry: a bound on what one verification may cost.
const MaxSignatures = 8

// Bounds of what is read before a signature is verified.
const (
	maxMembers   = 64      // of an object
	maxProtected = 4 << 10 // bytes
)

// A Header is the part of a signature's header that is not signed.
type Header struct {
	KeyID string `json:"kid"` // names the signer; may be empty
}

// A Signature is one signer's. Protected and Value are base64url without padding.
type Signature struct {
	Protected string `json:"protected"` // a JSON object with the algorithm
	Header    Header `json:"header"`
	Value     string `json:"signature"`
}

// A Message is a payload with its signatures. As JSON it is the general form, its members in the order that the
// original's receivers expect.
type Message struct {
	Payload    string      `json:"payload"` // base64url without padding
	Signatures []Signature `json:"signatures"`
}

// A Signer signs with one key: a *keys.Set.
type Signer interface {
	// Algorithm is the name of the signature algorithm, for example "RS256".
	Algorithm() string
	// Signature signs bytes in the form that JSON Web Signatures have.
	Signature(signed []byte) ([]byte, error)
}

// New makes a message without signatures.
func New(payload []byte) *Message {
	return &Message{Payload: base64.RawURLEncoding.EncodeToString(payload), Signatures: []Signature{}}
}

// Parse reads the general JSON form. It verifies nothing. Members that it does not know are left out, and one that occurs
// twice in an object is refused: two readers could take a different one. The caller bounds the length of text. Errors
// repeat nothing of what the text says.
func Parse(text []byte) (*Message, error) {
	members, err := Object(text)
	if err != nil {
		return nil, fmt.Errorf("message: %w", err)
	}
	m := &Message{Signatures: []Signature{}}
	if m.Payload, err = base64Member(members, "payload"); err != nil {
		return nil, err
	}
	list, ok := members["signatures"]
	if !ok {
		return nil, errors.New("signatures is missing")
	}
	d := json.NewDecoder(bytes.NewReader(list))
	if first, err := d.Token(); err != nil || first != json.Delim('[') {
		return nil, errors.New("signatures is not an array")
	}
	for i := 1; d.More(); i++ { // one by one: an array of millions would take many times its length
		if i > MaxSignatures {
			return nil, fmt.Errorf("more than %d signatures", MaxSignatures)
		}
		var text json.RawMessage
		if err := d.Decode(&text); err != nil {
			return nil, fmt.Errorf("signature %d: %w", i, errNoObject)
		}
		s, err := parseSignature(text)
		if err != nil {
			return nil, fmt.Errorf("signature %d: %w", i, err)
		}
		m.Signatures = append(m.Signatures, s)
	}
	return m, nil
}

func parseSignature(text []byte) (Signature, error) {
	var s Signature
	members, err := Object(text)
	if err != nil {
		return s, err
	}
	if s.Protected, err = base64Member(members, "protected"); err != nil {
		return s, err
	}
	if len(s.Protected) > maxProtected {
		return s, fmt.Errorf("protected is longer than %d bytes", maxProtected)
	}
	if s.Value, err = base64Member(members, "signature"); err != nil {
		return s, err
	}
	text, ok := members["header"]
	if !ok {
		return s, nil
	}
	header, err := Object(text)
	if err != nil {
		return s, fmt.Errorf("header: %w", err)
	}
	if _, ok := header["crit"]; ok { // it must be signed: RFC 7515, section 4.1.11
		return s, errCritical
	}
	if kid, ok := header["kid"]; ok {
		if s.Header.KeyID, err = str(kid); err != nil {
			return s, errors.New("kid is not a string")
		}
	}
	return s, nil
}

// Bytes returns the payload, byte by byte as it was signed.
func (m *Message) Bytes() ([]byte, error) { return decode(m.Payload) }

// Sign adds the signature of a signer, and takes away older ones with the same key id.
func (m *Message) Sign(keyID string, s Signer) error {
	kept := slices.DeleteFunc(slices.Clone(m.Signatures), func(old Signature) bool { return old.Header.KeyID == keyID })
	if len(kept) >= MaxSignatures {
		return fmt.Errorf("more than %d signatures", MaxSignatures)
	}
	// Nothing but the algorithm, as in the original: its receivers compare the header whole.
	protected, err := json.Marshal(struct {
		Alg string `json:"alg"`
	}{s.Algorithm()})
	if err != nil {
		return fmt.Errorf("encode header: %w", err)
	}
	added := Signature{Protected: base64.RawURLEncoding.EncodeToString(protected), Header: Header{KeyID: keyID}}
	value, err := s.Signature(m.signed(added.Protected))
	if err != nil {
		return err
	}
	added.Value = base64.RawURLEncoding.EncodeToString(value)
	m.Signatures = append(kept, added)
	return nil
}

// signed is what a signature with that protected header is made over.
func (m *Message) signed(protected string) []byte {
	b := make([]byte, 0, len(protected)+1+len(m.Payload))
	return append(append(append(b, protected...), '.'), m.Payload...)
}

// Verify checks the signatures whose key ids are permitted, each with the key and the algorithm that chain has for it, and
// returns those ids, each once, in the order of the message. A single wrong one fails the message. Signatures of others are
// ignored: with none left the result is empty and no error, so the caller looks for the signers that it needs.
func (m *Message) Verify(chain Keychain, permitted []string) (signers []string, err error) {
	if len(m.Signatures) > MaxSignatures {
		return nil, fmt.Errorf("more than %d signatures", MaxSignatures)
	}
	if _, err := m.Bytes(); err != nil {
		return nil, fmt.Errorf("payload: %w", err)
	}
	for _, s := range m.Signatures {
		id := s.Header.KeyID
		if !slices.Contains(permitted, id) {
			continue
		}
		key, ok := chain[id]
		if !ok {
			return nil, fmt.Errorf("no key is known for the permitted signer %q", id)
		}
		if err := m.verify(s, key); err != nil {
			return nil, fmt.Errorf("signature of %q: %w", id, err)
		}
		if !slices.Contains(signers, id) {
			signers = append(signers, id)
		}
	}
	return signers, nil
}

var errCritical = errors.New("critical header extensions are not supported")

func (m *Message) verify(s Signature, key Key) error {
	text, err := decode(s.Protected)
	if err != nil {
		return fmt.Errorf("protected: %w", err)
	}
	header, err := Object(text)
	if err != nil {
		return fmt.Errorf("protected: %w", err)
	}
	if _, ok := header["crit"]; ok {
		return errCritical
	}
	// The algorithm is the key's, never the message's choice: a public key is no secret that an HMAC could be made with.
	if algorithm, err := str(header["alg"]); err != nil || algorithm != key.Algorithm {
		return fmt.Errorf("not made with %s, which the key is for", key.Algorithm)
	}
	if kid, ok := header["kid"]; ok { // the unsigned name that the key was chosen by must be the signed one
		if id, err := str(kid); err != nil || id != s.Header.KeyID {
			return errors.New("signed with another key id")
		}
	}
	value, err := decode(s.Value)
	if err != nil {
		return err
	}
	return key.verify(m.signed(s.Protected), value)
}

// Object reads a JSON object of at most 64 members with nothing after it, and refuses a member that occurs twice. A map, not a struct:
// encoding/json would take "ALG" for "alg".
func Object(text []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	first, err := d.Token()
	if err != nil || first != json.Delim('{') {
		return nil, errNoObject
	}
	members := map[string]json.RawMessage{}
	for d.More() {
		token, err := d.Token()
		name, ok := token.(string)
		if err != nil || !ok {
			return nil, errNoObject
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, errNoObject
		}
		if _, ok := members[name]; ok {
			return nil, errors.New("a member occurs twice")
		}
		if len(members) == maxMembers {
			return nil, fmt.Errorf("more than %d members", maxMembers)
		}
		members[name] = value
	}
	if _, err := d.Token(); err != nil { // the brace
		return nil, errNoObject
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errNoObject
	}
	return members, nil
}

var errNoObject = errors.New("not a JSON object")

// base64Member returns a member that must be there, as it is written, when it is base64url.
func base64Member(members map[string]json.RawMessage, name string) (string, error) {
	text, ok := members[name]
	if !ok {
		return "", errors.New(name + " is missing")
	}
	s, err := str(text)
	if err != nil {
		return "", errors.New(name + " is not a string")
	}
	if _, err := decode(s); err != nil {
		return "", errors.New(name + " is not base64url without padding")
	}
	return s, nil
}

// str reads a JSON string. null, which Unmarshal would take for "", is none.
func str(text json.RawMessage) (string, error) {
	var s *string
	if err := json.Unmarshal(text, &s); err != nil || s == nil {
		return "", errors.New("not a string")
	}
	return *s, nil
}

// decode reads base64url without padding. Strict, and without the line breaks that the decoder would skip: one text has one
// spelling.
func decode(s string) ([]byte, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("not base64url without padding")
	}
	return b, nil
}
