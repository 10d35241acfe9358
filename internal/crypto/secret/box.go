// Package secret keeps what must not stand in clear: Box seals values at rest and makes blind indexes of them, Text and
// URL are texts that do not print themselves. It depends on the standard library alone.
//
// # Keys
//
// A key list, BARONG_SECRET_KEY, is one or several keys of 32 bytes in base64, separated by commas or white space, the
// newest first. The first key seals and makes blind indexes; every key opens, and values are looked for under the indexes of
// every key. A key with "next:" before it opens alone, wherever it stands.
//
// To rotate, so that no replica ever meets what another has sealed and it cannot open: put the new key into the list with
// "next:" before it and have every replica take it up (Box.Extend, or a restart); take "next:" away, and have them take that up;
// run "barong secrets rotate", which seals and indexes everything anew; take the old key off the list and restart every replica.
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
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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

// A Box seals, opens and indexes. It is safe for concurrent use. It changes by Extend alone.
type Box struct{ now atomic.Pointer[ring] }

// A ring is a key list.
type ring struct {
	keys    [][keySize]byte // the one that seals first, those that open alone last
	oldest  int             // the last that does not open alone
	sealing []sealingKey    // of each
	indexes sync.Map        // purpose to the derived index keys, [][]byte
}

// later begins a key that opens and does not seal yet.
const later = "next:"

type sealingKey struct {
	id   string
	aead cipher.AEAD
}

// New makes a box of a key list.
func New(list Text) (*Box, error) {
	keys, opening, err := parse(list.Reveal())
	if err != nil {
		return nil, err
	}
	r := &ring{keys: append(keys, opening...), oldest: len(keys) - 1}
	for _, k := range r.keys {
		s, err := newSealingKey(k)
		if err != nil {
			return nil, err
		}
		if r.has(s.id) {
			return nil, errors.New("the same key stands in the list twice")
		}
		r.sealing = append(r.sealing, s)
	}
	b := new(Box)
	b.now.Store(r)
	return b, nil
}

func (r *ring) has(id string) bool {
	return slices.ContainsFunc(r.sealing, func(k sealingKey) bool { return k.id == id })
}

// extends reports whether a ring has all the keys of another one, and its counters.
func (r *ring) extends(other *ring) bool {
	for _, k := range other.sealing {
		if !r.has(k.id) {
			return false
		}
	}
	return r.keys[r.oldest] == other.keys[other.oldest]
}

// Extends reports whether a key list leaves all within reach that is sealed, indexed, signed or counted under another one: it has
// all of its keys, and the same oldest one that seals. Lists that are none extend nothing.
func Extends(list, other Text) bool {
	longer, err := New(list)
	if err != nil {
		return false
	}
	b, err := New(other)
	return err == nil && longer.now.Load().extends(b.now.Load())
}

// Extend takes up a key list that extends that of the box; see Extends.
func (b *Box) Extend(list Text) error {
	longer, err := New(list)
	if err != nil {
		return err
	}
	r := longer.now.Load()
	if !r.extends(b.now.Load()) {
		return errors.New("the list lacks a key that is in use, or another one is the oldest that seals")
	}
	b.now.Store(r)
	return nil
}

// Validate reports what is wrong with a key list, without showing it.
func Validate(list string) error {
	_, err := New(Text(list))
	return err
}

// parse returns the keys of a list, and those that open alone.
func parse(list string) (keys, opening [][keySize]byte, err error) {
	for _, text := range strings.FieldsFunc(list, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) }) {
		n := len(keys) + len(opening) + 1
		text, next := strings.CutPrefix(text, later)
		raw, err := decode(text)
		if err != nil || len(raw) != keySize {
			return nil, nil, fmt.Errorf("key %d is not %d bytes in base64", n, keySize)
		}
		key := [keySize]byte(raw)
		switch {
		case trivial(key):
			return nil, nil, fmt.Errorf("key %d is no random key: make one with \"openssl rand -base64 32\"", n)
		case next:
			opening = append(opening, key)
		default:
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil, nil, errors.New("there is no key that seals")
	}
	return keys, opening, nil
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

// Seal encrypts plain with AES-256-GCM under the first key and binds it to context, which says where the value lives: a
// sealed text moved to another row or column does not open. The result is ASCII: "s1.<key id>.<base64url of nonce and
// ciphertext>".
func (b *Box) Seal(plain []byte, context string) string {
	k := b.now.Load().sealing[0]
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
	for _, k := range b.now.Load().sealing {
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

// Current reports whether sealed is sealed under the key that seals now.
func (b *Box) Current(sealed string) bool {
	id, _, err := split(sealed)
	return err == nil && id == b.now.Load().sealing[0].id
}

// KeyIDs lists the ids of the keys, the one that seals first, as sealed texts name them.
func (b *Box) KeyIDs() []string {
	sealing := b.now.Load().sealing
	ids := make([]string, len(sealing))
	for i, k := range sealing {
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
// The caller normalises the value. The result is base64url of an HMAC-SHA-256 under the key that seals.
func (b *Box) Index(value, purpose string) string {
	return index(b.now.Load().indexKeys(purpose)[0], value)
}

// Indexes returns the indexes of a value under every key of the list, that of Index first: those under which it may stand
// while keys are rotated.
func (b *Box) Indexes(value, purpose string) []string {
	keys := b.now.Load().indexKeys(purpose)
	out := make([]string, len(keys))
	for i, k := range keys {
		out[i] = index(k, value)
	}
	return out
}

// Lasting is Index under the oldest key that seals: for what replicas remember together and cannot look for under several
// keys, such as counters. A new key changes nothing of it; without the oldest, what is remembered is forgotten.
func (b *Box) Lasting(value, purpose string) string {
	r := b.now.Load()
	return index(r.indexKeys(purpose)[r.oldest], value)
}

func index(key []byte, value string) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(value))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// indexKeys derives the keys of a purpose, once. Purposes are constants of the program, never a stranger's words.
func (r *ring) indexKeys(purpose string) [][]byte {
	if k, ok := r.indexes.Load(purpose); ok {
		return k.([][]byte)
	}
	keys := r.derive("barong index " + format + " " + purpose)
	r.indexes.Store(purpose, keys)
	return keys
}

// Derive returns keys of 32 bytes for another use of the service, such as signing links, one of each key of the list: the
// first is to sign with, and what any of them has signed is good. Each use has a name of its own.
func (b *Box) Derive(use string) [][]byte {
	return b.now.Load().derive("barong use " + format + " " + use)
}

func (r *ring) derive(info string) [][]byte {
	out := make([][]byte, len(r.keys))
	for i := range r.keys {
		key, err := hkdf.Key(sha256.New, r.keys[i][:], nil, info, keySize)
		if err != nil { // only a length beyond 255 hashes is refused
			panic("secret: derive key: " + err.Error())
		}
		out[i] = key
	}
	return out
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
