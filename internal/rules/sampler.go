package rules

import (
	"context"
	"hash/maphash"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"barong/db"
)

// Bounds of the samples.
const (
	samplerSlots = 4096 // questions that are recognised without a lock; a power of two
	samplerKept  = 4096 // distinct questions between two flushes, of each answer; more are not sampled
	samplerText  = 512  // bytes of the longest question that is sampled
	samplerExact = 64   // up to which questions are counted one by one, and then in steps of samplerShare
	samplerShare = 16
	samplesKept  = 5000 // rows kept of each answer
)

// A Sampler remembers what the permissions are asked, and how often, until it is flushed. It is made for the hot path: a
// question that it has seen costs a hash and a comparison, no lock and no allocation. Its memory is bounded; when many
// callers bring new questions at once, some are not sampled.
type Sampler struct {
	seed  maphash.Seed
	slots [samplerSlots]atomic.Pointer[sample]

	mu    sync.Mutex
	known map[sampleKey]*sample
	kinds [2]int // how many of known were refused, allowed
}

type sampleKey struct{ role, verb, path string }

type sample struct {
	sampleKey
	allowed bool
	count   atomic.Int64
}

// NewSampler makes an empty Sampler.
func NewSampler() *Sampler {
	return &Sampler{seed: maphash.MakeSeed(), known: make(map[sampleKey]*sample)}
}

// Sample notes that role asked for verb on path and whether it was allowed. The texts may be views: they are copied if
// they are kept.
func (s *Sampler) Sample(role, verb, path string, allowed bool) {
	if len(role)+len(verb)+len(path) > samplerText {
		return
	}
	h := maphash.String(s.seed, path) ^ 31*maphash.String(s.seed, role)
	if len(verb) > 0 {
		h += uint64(verb[0]) + uint64(len(verb))<<8
	}
	slot := &s.slots[(h^h>>32)%samplerSlots]
	have := slot.Load()
	if have != nil && have.path == path && have.role == role && have.verb == verb && have.allowed == allowed {
		// A frequent question is counted by chance: cores that all add to one number wait for each other.
		if have.count.Load() < samplerExact {
			have.count.Add(1)
		} else if rand.Uint32()%samplerShare == 0 {
			have.count.Add(samplerShare)
		}
		return
	}
	if !s.mu.TryLock() {
		return // a sample, not a count
	}
	defer s.mu.Unlock()
	have = s.known[sampleKey{role, verb, path}]
	if have == nil || have.allowed != allowed { // the rules may have changed since: the latest answer counts
		kind := 0
		if allowed {
			kind = 1
		}
		if s.kinds[kind] >= samplerKept {
			return
		}
		s.kinds[kind]++
		key := sampleKey{strings.Clone(role), strings.Clone(verb), strings.Clone(path)}
		have = &sample{sampleKey: key, allowed: allowed}
		s.known[key] = have
	}
	have.count.Add(1)
	slot.Store(have)
}

// take empties the Sampler and returns what was in it.
func (s *Sampler) take(now time.Time) []db.DecisionSample {
	s.mu.Lock()
	known := s.known
	s.known, s.kinds = make(map[sampleKey]*sample), [2]int{}
	for i := range s.slots {
		s.slots[i].Store(nil)
	}
	s.mu.Unlock()
	out := make([]db.DecisionSample, 0, len(known))
	for key, have := range known {
		out = append(out, db.DecisionSample{
			Role: key.role, Verb: key.verb, Path: key.path,
			Allowed: have.allowed, Count: have.count.Load(), SeenAt: now.UnixMilli(),
		})
	}
	return out
}

// store moves what was sampled since into the database.
func (r *Rules) store(ctx context.Context) error {
	return r.o.DB.AddSamples(ctx, r.sampler.take(r.o.Now()), samplesKept)
}
