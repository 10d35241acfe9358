package password

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"barong/internal/fault"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// ErrDigest says that a stored digest cannot be read: an unknown scheme, or costs beyond what this program will spend.
var ErrDigest = errors.New("password: digest cannot be read")

// errBusy is the private cause of a refusal because too many wait already.
var errBusy = errors.New("password: too many hashes are waiting")

// Costs of new digests: argon2id with 32 MiB and three passes in one lane, above the minimum that OWASP recommends
// (19 MiB, two passes), about 50 ms on one core of a small server.
const (
	defaultMemoryKiB = 32 * 1024
	defaultPasses    = 3
	lanes            = 1
	saltSize         = 16
	keySize          = 32
)

// Bounds of what a stored digest may ask for: whoever can write one must not be able to stop the process with it.
const (
	maxMemoryKiB  = 256 * 1024
	maxPasses     = 16
	maxLanes      = 16
	maxBcryptCost = 17 // some ten seconds
)

// HasherOptions size a Hasher. Zero values choose defaults.
type HasherOptions struct {
	Workers int // hashes at once; default one less than the processors, at least one
	Waiting int // callers that may wait for a worker; default 64 a worker

	// MemoryKiB and Passes are what a new digest costs; by default 32 MiB and three passes. Digests of other costs are made
	// anew at the next sign-in. Less than the default is for tests.
	MemoryKiB, Passes uint32
}

// A Hasher makes and checks digests, a bounded number at a time: a storm of sign-ins queues here instead of taking the
// processors from the checks. Safe for concurrent use.
//
// New digests are argon2id in PHC string format and cover the whole password. bcrypt ($2a$, $2b$, $2y$) is accepted as
// it always was: it knows the first 72 bytes of a password alone, so two long passwords that begin alike open the same
// account until the first sign-in replaces the digest. New passwords have at most 72 characters; see MaxLength.
//
// All methods return a fault 429 with Retry-After when too many callers wait, and one of 503 when the context ends first.
type Hasher struct {
	workers chan struct{}
	waiting atomic.Int64
	limit   int64
	cost    cost
	nothing string // a digest of the current kind that no password fits
}

// A cost is what a digest takes to make.
type cost struct{ memoryKiB, passes uint32 }

// NewHasher returns a Hasher.
func NewHasher(o HasherOptions) *Hasher {
	if o.Workers <= 0 {
		o.Workers = max(1, runtime.GOMAXPROCS(0)-1)
	}
	if o.Waiting <= 0 {
		o.Waiting = 64 * o.Workers
	}
	c := cost{o.MemoryKiB, o.Passes}
	if c.memoryKiB == 0 {
		c.memoryKiB = defaultMemoryKiB
	}
	if c.passes == 0 {
		c.passes = defaultPasses
	}
	salt, key := random(saltSize), random(keySize)
	return &Hasher{
		workers: make(chan struct{}, o.Workers),
		limit:   int64(o.Waiting + o.Workers),
		cost:    c,
		nothing: encode(digest{c.memoryKiB, c.passes, lanes, salt, key}),
	}
}

// Hash returns a new digest.
func (h *Hasher) Hash(ctx context.Context, password string) (string, error) {
	var phc string
	err := h.work(ctx, func() error {
		salt := random(saltSize)
		c := h.cost
		phc = encode(digest{c.memoryKiB, c.passes, lanes, salt, derive(password, salt, c.passes, c.memoryKiB, lanes, keySize)})
		return nil
	})
	return phc, err
}

// Verify reports whether password is the one of digest, and if so whether it should be hashed anew because the digest
// is of an older kind. ErrDigest says that the digest is unreadable: that too takes the time of a check.
func (h *Hasher) Verify(ctx context.Context, digest, password string) (ok, rehash bool, err error) {
	err = h.work(ctx, func() (err error) {
		ok, rehash, err = h.verify(digest, password)
		if err != nil {
			_, _, _ = h.verify(h.nothing, password) // no faster than others
		}
		return err
	})
	return ok, rehash, err
}

// VerifyNothing takes the time of a check against a digest of the current kind, for names that nobody has.
func (h *Hasher) VerifyNothing(ctx context.Context, password string) error {
	_, _, err := h.Verify(ctx, h.nothing, password)
	return err
}

// work runs f when a worker is free.
func (h *Hasher) work(ctx context.Context, f func() error) error {
	if h.waiting.Add(1) > h.limit {
		h.waiting.Add(-1)
		return fault.RateLimited(time.Second).Because(errBusy)
	}
	defer h.waiting.Add(-1)
	if err := ctx.Err(); err != nil { // select picks at random when both are ready
		return fault.New(fault.Unavailable).Because(err)
	}
	select {
	case h.workers <- struct{}{}:
		defer func() { <-h.workers }()
		return f()
	case <-ctx.Done():
		return fault.New(fault.Unavailable).Because(ctx.Err())
	}
}

func (h *Hasher) verify(stored, password string) (ok, rehash bool, err error) {
	switch {
	case strings.HasPrefix(stored, "$argon2id$"):
		d, err := parse(stored)
		if err != nil {
			return false, false, err
		}
		key := derive(password, d.salt, d.passes, d.memoryKiB, d.lanes, uint32(len(d.key)))
		ok = subtle.ConstantTimeCompare(key, d.key) == 1
		current := d.memoryKiB == h.cost.memoryKiB && d.passes == h.cost.passes && d.lanes == lanes &&
			len(d.salt) == saltSize && len(d.key) == keySize
		return ok, ok && !current, nil
	case strings.HasPrefix(stored, "$2a$"), strings.HasPrefix(stored, "$2b$"), strings.HasPrefix(stored, "$2y$"):
		cost, err := bcrypt.Cost([]byte(stored))
		if err != nil || cost > maxBcryptCost {
			return false, false, ErrDigest
		}
		switch err := bcrypt.CompareHashAndPassword([]byte(stored), []byte(password)); {
		case err == nil:
			return true, true, nil
		case errors.Is(err, bcrypt.ErrMismatchedHashAndPassword):
			return false, false, nil
		default:
			return false, false, ErrDigest
		}
	}
	return false, false, ErrDigest
}

// A digest is what a PHC string of argon2id says.
type digest struct {
	memoryKiB, passes uint32
	lanes             uint8
	salt, key         []byte
}

func derive(password string, salt []byte, passes, memoryKiB uint32, lanes uint8, size uint32) []byte {
	return argon2.IDKey([]byte(password), salt, passes, memoryKiB, lanes, size)
}

var phcBase64 = base64.RawStdEncoding.Strict()

func encode(d digest) string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, d.memoryKiB, d.passes, d.lanes,
		phcBase64.EncodeToString(d.salt), phcBase64.EncodeToString(d.key))
}

// parse reads a PHC string of argon2id whose costs are within the bounds.
func parse(phc string) (digest, error) {
	if len(phc) > 512 {
		return digest{}, ErrDigest
	}
	parts := strings.Split(phc, "$") // "", "argon2id", version, costs, salt, key
	if len(parts) != 6 || parts[1] != "argon2id" || parts[2] != "v="+strconv.Itoa(argon2.Version) {
		return digest{}, ErrDigest
	}
	costs := strings.Split(parts[3], ",")
	if len(costs) != 3 {
		return digest{}, ErrDigest
	}
	var n [3]uint64
	for i, bound := range [3]struct {
		name string
		most uint64
	}{{"m=", maxMemoryKiB}, {"t=", maxPasses}, {"p=", maxLanes}} {
		text, ok := strings.CutPrefix(costs[i], bound.name)
		v, err := strconv.ParseUint(text, 10, 32)
		if !ok || err != nil || v == 0 || v > bound.most {
			return digest{}, ErrDigest
		}
		n[i] = v
	}
	d := digest{memoryKiB: uint32(n[0]), passes: uint32(n[1]), lanes: uint8(n[2])}
	var err1, err2 error
	d.salt, err1 = phcBase64.DecodeString(parts[4])
	d.key, err2 = phcBase64.DecodeString(parts[5])
	if err1 != nil || err2 != nil || len(d.salt) < 8 || len(d.salt) > 64 || len(d.key) < 16 || len(d.key) > 64 ||
		d.memoryKiB < 8*uint32(d.lanes) {
		return digest{}, ErrDigest
	}
	return d, nil
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return b
}
