// Package secret keeps what must not stand in clear: Box seals values at rest and makes blind indexes of them, Text and
// URL are texts that do not print themselves. It depends on the standard library alone.
//
// # Keys
//
// A key list, BARONG_SECRET_KEY, is one or several keys of 32 bytes in base64, separated by commas or white space, the
// newest first. The first key seals; every key opens. To rotate: put a new key in front, restart every replica, run
// "barong secrets rotate", which seals everything anew.
//
// Blind indexes are made with the last key of the list, the oldest, so that putting a new key in front leaves them as
// they are. Taking the oldest key off the list changes every index: do it only when "barong secrets rotate" has sealed
// everything under a newer key, and run it once more right after the restart. Until then exact filters on sealed columns
// (names, phone and document numbers) find only what was written or indexed since.
//
// From each key two kinds are derived (HKDF-SHA-256, RFC 5869): one to seal with, and one for each purpose of an index.
package secret

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

const (
	keySize = 32
	idSize  = 8 // hexadecimal digits

	// format begins every sealed text: another scheme would begin otherwise.
	format = "s1"
)

// Errors of Open.
var (
	ErrMalformed = errors.New("secret: not a sealed text")
	ErrNoKey     = errors.New("secret: sealed under a key that is not in the list")
	ErrForged    = errors.New("secret: the sealed text was changed, or belongs elsewhere")
)

// A Box seals, opens and indexes. It is immutable and safe for concurrent use.
type Box struct {
	sealing []sealingKey // newest first
	oldest  [keySize]byte
	indexes sync.Map // purpose to the derived index key, []byte
}

type sealingKey struct {
	id   string
	aead cipher.AEAD
}

// New makes a box of a key list.
func New(list Text) (*Box, error) {
	keys, err := parse(list.Reveal())
	if err != nil {
		return nil, err
	}
	b := &Box{oldest: keys[len(keys)-1]}
	for _, k := range keys {
		s, err := newSealingKey(k)
		if err != nil {
			return nil, err
		}
		for _, other := range b.sealing {
			if other.id == s.id {
				return nil, errors.New("the same key stands in the list twice")
			}
		}
		b.sealing = append(b.sealing, s)
	}
	return b, nil
}

// Validate reports what is wrong with a key list, without showing it.
func Validate(list string) error {
	_, err := New(Text(list))
	return err
}

func parse(list string) ([][keySize]byte, error) {
	var keys [][keySize]byte
	for _, text := range strings.FieldsFunc(list, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) }) {
		raw, err := decode(text)
		if err != nil || len(raw) != keySize {
			return nil, fmt.Errorf("key %d is not %d bytes in base64", len(keys)+1, keySize)
		}
		key := [keySize]byte(raw)
		if trivial(key) {
			return nil, fmt.Errorf("key %d is no random key: make one with \"openssl rand -base64 32\"", len(keys)+1)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("there is no key")
	}
	return keys, nil
}

// decode reads base64 in either alphabet, padded or not.
func decode(text string) ([]byte, error) {
	text = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "="))
	return base64.RawStdEncoding.DecodeString(text)
}

// trivial reports a key that nobody drew: all zeros, or another byte 32 times.
func trivial(key [keySize]byte) bool {
	for _, b := range key {
		if b != key[0] {
			return false
		}
	}
	return true
}

func newSealingKey(key [keySize]byte) (sealingKey, error) {
	derived, err := hkdf.Key(sha256.New, key[:], nil, "barong seal "+format, keySize)
	if err != nil {
		return sealingKey{}, fmt.Errorf("derive sealing key: %w", err)
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		return sealingKey{}, fmt.Errorf("derive sealing key: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return sealingKey{}, fmt.Errorf("derive sealing key: %w", err)
	}
	id, err := hkdf.Key(sha256.New, key[:], nil, "barong key id "+format, idSize/2)
	if err != nil {
		return sealingKey{}, fmt.Errorf("derive key id: %w", err)
	}
	return sealingKey{id: hex.EncodeToString(id), aead: aead}, nil
}

// Seal encrypts plain with AES-256-GCM under the newest key and binds it to context, which says where the value lives: a
// sealed text moved to another row or column does not open. The result is ASCII: "s1.<key id>.<base64url of nonce and
// ciphertext>".
func (b *Box) Seal(plain []byte, context string) string {
	k := b.sealing[0]
	sealed := k.aead.Seal(nil, nil, plain, []byte(format+"."+k.id+"."+context))
	return format + "." + k.id + "." + base64.RawURLEncoding.EncodeToString(sealed)
}

// Open decrypts what Seal returned for the same context, under any key of the list. The error is ErrMalformed, ErrNoKey
// or ErrForged.
func (b *Box) Open(sealed, context string) ([]byte, error) {
	id, body, err := split(sealed)
	if err != nil {
		return nil, err
	}
	for _, k := range b.sealing {
		if k.id != id {
			continue
		}
		raw, err := base64.RawURLEncoding.Strict().DecodeString(body)
		if err != nil || strings.ContainsAny(body, "\r\n") { // line breaks, which the decoder skips
			return nil, ErrMalformed
		}
		plain, err := k.aead.Open(nil, nil, raw, []byte(format+"."+id+"."+context))
		if err != nil {
			return nil, ErrForged
		}
		return plain, nil
	}
	return nil, ErrNoKey
}

// Current reports whether sealed is sealed under the newest key.
func (b *Box) Current(sealed string) bool {
	id, _, err := split(sealed)
	return err == nil && id == b.sealing[0].id
}

// KeyIDs lists the ids of the keys, newest first, as sealed texts name them.
func (b *Box) KeyIDs() []string {
	ids := make([]string, len(b.sealing))
	for i, k := range b.sealing {
		ids[i] = k.id
	}
	return ids
}

func split(sealed string) (id, body string, err error) {
	version, rest, ok := strings.Cut(sealed, ".")
	id, body, ok2 := strings.Cut(rest, ".")
	if !ok || !ok2 || version != format || len(id) != idSize || strings.Contains(body, ".") {
		return "", "", ErrMalformed
	}
	return id, body, nil
}

// Index returns the keyed blind index of value for one purpose, a column's name: equal values of one purpose have equal
// indexes, and without the key nobody can tell from an index what the value is, or whether two columns hold the same.
// The caller normalises the value. The result is base64url of an HMAC-SHA-256.
func (b *Box) Index(value, purpose string) string {
	mac := hmac.New(sha256.New, b.indexKey(purpose))
	mac.Write([]byte(value))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// indexKey derives the key of a purpose, once. Purposes are constants of the program, never a stranger's words.
func (b *Box) indexKey(purpose string) []byte {
	if k, ok := b.indexes.Load(purpose); ok {
		return k.([]byte)
	}
	key, err := hkdf.Key(sha256.New, b.oldest[:], nil, "barong index "+format+" "+purpose, keySize)
	if err != nil { // only a length beyond 255 hashes is refused
		panic("secret: derive index key: " + err.Error())
	}
	b.indexes.Store(purpose, key)
	return key
}

// Derive returns a key of 32 bytes for another use of the service, such as signing links, from the oldest key of the
// list. Each use has a name of its own.
func (b *Box) Derive(use string) []byte {
	key, err := hkdf.Key(sha256.New, b.oldest[:], nil, "barong use "+format+" "+use, keySize)
	if err != nil {
		panic("secret: derive key: " + err.Error())
	}
	return key
}

// NewKey draws a key and returns it in base64, as a key list holds it.
func NewKey() Text {
	var key [keySize]byte
	rand.Read(key[:]) // never fails since Go 1.24
	return Text(base64.StdEncoding.EncodeToString(key[:]))
}

// LoadOrCreate reads the key list in the file at path, and makes the file with a fresh key if there is none, readable by
// its owner alone. Processes that start at once end up with the same key.
func LoadOrCreate(path string) (list Text, created bool, err error) {
	text, err := os.ReadFile(path)
	if err == nil {
		if err := Validate(string(text)); err != nil {
			return "", false, fmt.Errorf("secret key file %s: %w", path, err)
		}
		return Text(strings.TrimSpace(string(text))), false, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", false, fmt.Errorf("secret key file: %w", err)
	}
	list = NewKey()
	if err := create(path, list.Reveal()+"\n"); errors.Is(err, fs.ErrExist) {
		return LoadOrCreate(path) // another process was faster
	} else if err != nil {
		return "", false, fmt.Errorf("secret key file: %w", err)
	}
	return list, true, nil
}

// create puts text at path in one step, unless there is a file already (fs.ErrExist).
func create(path, text string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".secret-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Link(f.Name(), path) // unlike a rename, it never replaces
}
