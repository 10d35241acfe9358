package password

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"math/bits"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"barong/internal/patience"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// ErrDigest says that a stored digest cannot be read: an unknown scheme, or costs beyond what this program will spend.
var ErrDigest = errors.New("password: digest cannot be read")

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
	maxMemoryKiB = 256 * 1024
	maxPasses    = 16
	maxLanes     = 16
)

// MaxBcryptCost is the dearest digest of bcrypt that is looked at: some ten seconds.
const MaxBcryptCost = 17

// HasherOptions size a Hasher. Zero values choose defaults.
type HasherOptions struct {
	Workers int // hashes at once; default one less than the processors, at least one
	Waiting int // callers that may wait for a worker; default 64 a worker

	// Processes do the work; nil does it in this process.
	Processes *Processes

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
// A password that does not fit takes the same work whatever it was compared with: a digest of any kind, one that cannot be
// read, or none. It is that of the slowest digests in store, so that the time of an answer does not tell which accounts
// there are, nor how old they are. See SetSlowest.
//
// All methods return a fault 429 with Retry-After when too many callers wait, and one of 503 when the context ends first.
// Who waits is served by turns; see For.
type Hasher struct {
	queue   *queue
	cost    cost
	slowest struct {
		argon2 atomic.Uint64 // as effort has it
		bcrypt atomic.Uint64
	}
	do   func(*task) outcome
	done func(effort) // told of all work that was done for a password; for tests
}

// A cost is what a digest takes to make.
type cost struct{ memoryKiB, passes uint32 }

// An effort is work: of argon2id the memory in KiB times the passes, of bcrypt the rounds, which are two to the power of
// its cost.
type effort struct{ argon2, bcrypt uint64 }

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
	h := &Hasher{queue: newQueue(o.Workers, o.Waiting), cost: c, do: (*task).do, done: func(effort) {}}
	if o.Processes != nil {
		h.do = o.Processes.do
	}
	h.slowest.argon2.Store(uint64(c.memoryKiB) * uint64(c.passes))
	return h
}

// SetSlowest says what the highest cost of the bcrypt digests in store is, 0 when there are none. Until it is called
// again, a digest that is dearer counts as soon as it is met.
func (h *Hasher) SetSlowest(bcryptCost int) {
	var rounds uint64
	if bcryptCost >= bcrypt.MinCost && bcryptCost <= MaxBcryptCost {
		rounds = 1 << bcryptCost
	}
	h.slowest.bcrypt.Store(rounds)
}

// met raises what the slowest digest takes.
func (h *Hasher) met(e effort) {
	for _, c := range [...]struct {
		most *atomic.Uint64
		have uint64
	}{{&h.slowest.argon2, e.argon2}, {&h.slowest.bcrypt, e.bcrypt}} {
		for most := c.most.Load(); c.have > most && !c.most.CompareAndSwap(most, c.have); most = c.most.Load() {
		}
	}
}

// Hash returns a new digest.
func (h *Hasher) Hash(ctx context.Context, password string) (string, error) {
	var phc string
	err := h.work(ctx, func() error {
		salt := random(saltSize)
		c := h.cost
		phc = encode(digest{c.memoryKiB, c.passes, lanes, salt, h.derive(password, salt, c, lanes, keySize)})
		return nil
	})
	return phc, err
}

// Verify reports whether password is the one of digest, and if so whether it should be hashed anew because the digest
// is of an older kind. ErrDigest says that the digest is unreadable.
func (h *Hasher) Verify(ctx context.Context, digest, password string) (ok, rehash bool, err error) {
	err = h.work(ctx, func() error {
		var spent effort
		var err error
		ok, rehash, spent, err = h.verify(digest, password)
		if !ok {
			h.met(spent)
			spent = h.fill(spent, password)
		}
		h.done(spent)
		return err
	})
	return ok, rehash, err
}

// VerifyNothing takes the work of a password that does not fit, for names that nobody has.
func (h *Hasher) VerifyNothing(ctx context.Context, password string) error {
	return h.work(ctx, func() error {
		h.done(h.fill(effort{}, password))
		return nil
	})
}

// fill does what is missing to the work of the slowest digests, and returns how much was done in all.
func (h *Hasher) fill(spent effort, password string) effort {
	if want := h.slowest.argon2.Load(); want > spent.argon2 {
		missing := want - spent.argon2
		passes := max(uint64(h.cost.passes), (missing+maxMemoryKiB-1)/maxMemoryKiB)
		h.derive(password, make([]byte, saltSize), cost{passes: uint32(passes), memoryKiB: uint32(missing / passes)}, lanes, keySize)
		spent.argon2 += missing
	}
	// 2^12 - 2^10 rounds are one digest of cost 10 and one of cost 11.
	if want := h.slowest.bcrypt.Load(); want > spent.bcrypt {
		for missing := want - spent.bcrypt; missing != 0; missing &= missing - 1 {
			h.compare(standIn(bits.TrailingZeros64(missing)), password)
		}
		spent.bcrypt = want
	}
	return spent
}

// standIn is a bcrypt digest of a cost that no password fits.
func standIn(cost int) []byte { return fmt.Appendf(nil, "$2a$%02d$%s", cost, strings.Repeat(".", 53)) }

// Waiting is how many wait for their turn, and for how long the first of them has.
func (h *Hasher) Waiting() (n int, longest time.Duration) { return h.queue.length() }

// work runs f when it is the caller's turn.
func (h *Hasher) work(ctx context.Context, f func() error) error {
	defer patience.Outside(ctx)()
	leave, err := h.queue.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	return f()
}

// None is the digest of an account that has no password: none fits.
const None = "*"

// verify compares, and tells how much work that was.
func (h *Hasher) verify(stored, password string) (ok, rehash bool, spent effort, err error) {
	switch {
	case stored == None:
		return false, false, effort{}, nil
	case strings.HasPrefix(stored, "$argon2id$"):
		d, err := parse(stored)
		if err != nil {
			return false, false, effort{}, err
		}
		spent.argon2 = uint64(d.memoryKiB) * uint64(d.passes)
		key := h.derive(password, d.salt, cost{passes: d.passes, memoryKiB: d.memoryKiB}, d.lanes, uint32(len(d.key)))
		ok = subtle.ConstantTimeCompare(key, d.key) == 1
		current := d.memoryKiB == h.cost.memoryKiB && d.passes == h.cost.passes && d.lanes == lanes &&
			len(d.salt) == saltSize && len(d.key) == keySize
		return ok, ok && !current, spent, nil
	case strings.HasPrefix(stored, "$2a$"), strings.HasPrefix(stored, "$2b$"), strings.HasPrefix(stored, "$2y$"):
		cost, err := bcrypt.Cost([]byte(stored))
		if err != nil || cost > MaxBcryptCost {
			return false, false, effort{}, ErrDigest
		}
		spent.bcrypt = 1 << cost
		switch h.compare([]byte(stored), password) {
		case fits:
			return true, true, spent, nil
		case differs:
			return false, false, spent, nil
		default:
			return false, false, effort{}, ErrDigest
		}
	}
	return false, false, effort{}, ErrDigest
}

// A digest is what a PHC string of argon2id says.
type digest struct {
	memoryKiB, passes uint32
	lanes             uint8
	salt, key         []byte
}

// derive makes a key of argon2id.
func (h *Hasher) derive(password string, salt []byte, c cost, lanes uint8, size uint32) []byte {
	return h.do(&task{password: []byte(password), salt: salt, cost: c, lanes: lanes, size: size}).key
}

// compare says whether a digest of bcrypt is one of the password.
func (h *Hasher) compare(digest []byte, password string) verdict {
	return h.do(&task{password: []byte(password), digest: digest}).verdict
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
