package authz

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash/maphash"
	"sync"
	"time"

	"barong/internal/header"
)

// Nonces remember which nonces of an API key were used. Implementations are safe for concurrent use.
type Nonces interface {
	// FirstUse notes that the key used this nonce, and reports whether it is the first use, exactly once however many
	// ask at the same time. The nonce is remembered until until. The error says that this cannot be told or remembered
	// now. kid may be kept, and nonce may not: it is a view.
	FirstUse(ctx context.Context, kid, nonce string, until time.Time) (bool, error)
}

// errNoncesFull says that the memory of nonces has no room: forgetting one would let it be used again.
var errNoncesFull = errors.New("authz: the memory of nonces is full")

// DefaultMaxNonces is how many nonces a LocalNonces remembers when it is not told otherwise. A nonce takes its place for up
// to four lifetimes: with the default one, there is room for 50,000 requests a second.
const DefaultMaxNonces = 1 << 20

const nonceShards = 64

// LocalNonces remember nonces in this process's memory. When the memory is full they refuse.
type LocalNonces struct {
	now    func() time.Time
	seed   maphash.Seed
	limit  int // per shard
	shards [nonceShards]nonceShard
}

// A nonceShard keeps nonces in two generations. The older is dropped as a whole once all of its nonces have expired,
// so nothing is ever searched for what is over.
type nonceShard struct {
	mu         sync.Mutex
	young, old nonceGeneration
	_          [64]byte // keeps the locks of neighbours on lines of their own
}

type nonceGeneration struct {
	used  map[usedNonce]int64 // Unix milliseconds until which it is remembered
	until int64               // the latest of used
}

type usedNonce struct {
	kid   string
	nonce nonceDigest
}

// A nonceDigest stands for a nonce: the nonce itself, if it is shorter, or else a part of its SHA-256.
type nonceDigest [16]byte

func digestOf(nonce string) (d nonceDigest) {
	if len(nonce) < len(d) {
		copy(d[:], nonce)
		return d
	}
	sum := sha256.Sum256(header.BytesOf(nonce))
	copy(d[:], sum[:])
	return d
}

// NewLocalNonces returns an empty memory of at most limit nonces; 0 is DefaultMaxNonces. now is the clock, usually
// time.Now.
func NewLocalNonces(limit int, now func() time.Time) *LocalNonces {
	if limit <= 0 {
		limit = DefaultMaxNonces
	}
	n := &LocalNonces{now: now, seed: maphash.MakeSeed(), limit: max(1, (limit+nonceShards-1)/nonceShards)}
	for i := range n.shards {
		n.shards[i].young.used = make(map[usedNonce]int64)
		n.shards[i].old.used = make(map[usedNonce]int64)
	}
	return n
}

// FirstUse implements Nonces. It keeps kid.
func (n *LocalNonces) FirstUse(_ context.Context, kid, nonce string, until time.Time) (bool, error) {
	u := usedNonce{kid, digestOf(nonce)}
	s := &n.shards[maphash.Comparable(n.seed, u)%nonceShards]
	now, end := n.now().UnixMilli(), until.UnixMilli()
	s.mu.Lock()
	defer s.mu.Unlock()
	if now >= s.old.until { // the older generation is over: the younger takes its place
		clear(s.old.used)
		s.old.until = 0
		s.old, s.young = s.young, s.old
	}
	if now < s.young.used[u] || now < s.old.used[u] {
		return false, nil
	}
	if len(s.young.used)+len(s.old.used) >= n.limit {
		return false, errNoncesFull
	}
	s.young.used[u] = end
	s.young.until = max(s.young.until, end)
	return true, nil
}
