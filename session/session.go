// Package session owns the server-side state that ties a browser's cookie to a principal: its identity, its binding,
// its CSRF token and its two expiries. It declares the Store that keeps sessions, and imports no driver; the stores
// stand in db and session/redisstore, and every one of them passes session/sessiontest.
package session

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/netip"
	"time"
)

// ErrNotFound says that the store holds no live session under that key: never opened, ended, or expired.
var ErrNotFound = errors.New("session: not found")

// An ID is the secret in the cookie: 32 random bytes. It never reaches a store, a log or a cache key.
type ID [32]byte

// NewID draws an ID from the operating system's random source.
func NewID() ID {
	var id ID
	rand.Read(id[:]) // never fails since Go 1.24: a broken source ends the process
	return id
}

// String is the cookie's value: 64 lower-case hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Key is the name under which stores and caches keep the session: the SHA-256 of the ID, so that a leaked dump of
// either opens no session.
func (id ID) Key() Key { return Key(sha256.Sum256(id[:])) }

// ParseID reads a cookie's value. Anything but exactly 64 lower-case hexadecimal digits is no ID.
func ParseID(value []byte) (ID, bool) {
	var id ID
	if len(value) != 2*len(id) {
		return id, false
	}
	var bad uint64
	for i := 0; i < len(id); i += 4 {
		four, odd := fourBytes(binary.LittleEndian.Uint64(value[2*i:]))
		binary.LittleEndian.PutUint32(id[i:], four)
		bad |= odd
	}
	if bad != 0 {
		return ID{}, false
	}
	return id, true
}

// fourBytes are the bytes that eight lower-case hexadecimal digits stand for, the first in the lowest byte of digits. bad
// is not 0 when one of them is none. The digits of an ID are random: to branch on them is to guess wrong half of the time,
// which made this the dearest part of a check.
func fourBytes(digits uint64) (four uint32, bad uint64) {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	x := digits &^ high
	atLeast := func(c byte) uint64 { return x + (0x80-uint64(c))*ones } // sets the high bit of each byte that is c or more
	numbers := atLeast('0') &^ atLeast('9'+1)
	letters := atLeast('a') &^ atLeast('f'+1)
	bad = high &^ ((numbers | letters) &^ digits)
	x = digits&(0x0f*ones) + 9*((letters&high)>>7) // the value of each digit
	x = x<<4 | x>>8                                // the low byte of each two is what both stand for
	x &= 0x00ff00ff00ff00ff
	x = (x | x>>8) & 0x0000ffff0000ffff
	return uint32(x | x>>16), bad
}

// A Key is the SHA-256 of a session's ID.
type Key [32]byte

// String is the key in lower-case hexadecimal.
func (k Key) String() string { return hex.EncodeToString(k[:]) }

// TagLen is the length of a tag: the first digits of a key, enough to tell the sessions of one user apart.
const TagLen = 16

// ParseKey reads what Key.String printed.
func ParseKey(s string) (Key, bool) {
	id, ok := ParseID([]byte(s))
	return Key(id), ok
}

// A Session is one signed-in browser. Times are UTC with millisecond precision.
type Session struct {
	// What every check looks at comes first, so that it lies together in memory.

	// Epoch is the user's session epoch at sign-in. The user row carries the current one; raising it there, in the
	// transaction of a password change or a ban, ends every session of an older epoch whatever the store can do.
	Epoch     int64
	UserAgent string     // User-Agent at sign-in, as header.UTF8 makes it, at most MaxUserAgent bytes
	IP        netip.Addr // client address at sign-in; the zero Addr when it was unknown

	Key     Key
	UID     string
	CSRF    string // 20 hexadecimal digits, fixed for the session's life
	Country string // ISO 3166-1 alpha-2 of IP at sign-in, or empty

	Methods  Methods   // how the user has proved who they are; none for a session of a version that did not keep it
	AuthTime time.Time // when they did so last; a store that has no time for it gives CreatedAt

	CreatedAt time.Time
	SeenAt    time.Time // last time the sliding expiry was written back
	ExpiresAt time.Time // sliding: a check at or after it is refused
	EndsAt    time.Time // absolute: ExpiresAt never passes it
}

// MaxUserAgent is the longest User-Agent kept, in bytes. A longer one is cut, here and when it is compared.
const MaxUserAgent = 512

// Live reports whether the session is alive at now: strictly before both of its ends.
func (s *Session) Live(now time.Time) bool { return now.Before(s.ExpiresAt) && now.Before(s.EndsAt) }

// A Store keeps sessions. Every method is safe for concurrent use, honours its context, and returns an error other
// than ErrNotFound only when the answer could not be had: callers refuse then, they never guess.
type Store interface {
	// Create adds a session. A key that is already there is an error.
	Create(ctx context.Context, s *Session) error
	// Get returns the live session of that key at now, or ErrNotFound. A session that is expired exactly at now is
	// not found.
	Get(ctx context.Context, key Key, now time.Time) (*Session, error)
	// GetMany returns what Get would of each of the keys, which are different ones, in their order; nil stands for one
	// that is not found, or whose record is malformed.
	GetMany(ctx context.Context, keys []Key, now time.Time) ([]*Session, error)
	// Touch moves the sliding expiry of an existing session and returns ErrNotFound if it is gone: a touch never
	// brings an ended session back, however it races with Delete. expiresAt is cut to the session's EndsAt.
	Touch(ctx context.Context, key Key, seenAt, expiresAt time.Time) error
	// Rebase gives an existing session another epoch (ErrNotFound if it is gone): how the one session that a
	// password change keeps follows its user.
	Rebase(ctx context.Context, key Key, epoch int64) error
	// Delete ends one session and reports ErrNotFound if there was none.
	Delete(ctx context.Context, key Key) error
	// List returns the user's live sessions, newest first (by CreatedAt, then Key), without scanning other users'.
	List(ctx context.Context, uid string, now time.Time) ([]*Session, error)
	// DeleteUser ends all of a user's sessions but the one named by keep (nil: all), and returns the keys it ended.
	DeleteUser(ctx context.Context, uid string, keep *Key) ([]Key, error)
	// Trim ends the oldest of a user's live sessions of that epoch beyond the newest keep (in the order of List), a bounded
	// number at a time, and returns the keys it ended. Sessions of other epochs count for nothing, and stay.
	Trim(ctx context.Context, uid string, epoch int64, keep int, now time.Time) ([]Key, error)
	// DeleteAll ends every session of everybody, and returns how many.
	DeleteAll(ctx context.Context) (int64, error)
	// Purge drops what has expired at now, at most limit sessions, and returns how many; a store whose engine expires
	// by itself returns 0.
	Purge(ctx context.Context, now time.Time, limit int) (int64, error)
	// Ping reports whether the store answers.
	Ping(ctx context.Context) error
}
