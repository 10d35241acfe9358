package near

import "sync/atomic"

const (
	fewestSlots = 8 // a power of two
	victims     = 8 // nodes looked at to find one that is worth evicting
)

// nodes are the nodes of one part, found by their key: a hash table with linear probing, at most half full. It is read
// without a lock, beside one writer at a time, who holds the part's lock. A reader who misses a node that is just moved
// takes the slow way, which looks again under the lock; one that it finds may have been removed since, which the node
// itself says.
//
// Go's own map, behind a lock for readers and writers, costs twice as many lines of memory to be fetched.
type nodes[K comparable, V any] struct {
	slots atomic.Pointer[[]slot[K, V]]
	live  atomic.Int64
	taken int // slots that are not free: those of nodes, and of removed ones
}

// A slot is a place in the table. The tag is there so that no node is fetched in vain; it is written last.
type slot[K comparable, V any] struct {
	tag  atomic.Uint64
	node atomic.Pointer[node[K, V]]
}

// Tags. Those of nodes are their hashes, kept off these two.
const (
	free    = 0
	removed = 1
)

func tagOf(hash uint64) uint64 { return hash | 2 }

// first is the slot at which the search for a hash begins: the lowest byte has chosen the part already.
func first(hash uint64) uint64 { return hash >> 8 }

func (t *nodes[K, V]) len() int { return int(t.live.Load()) }

// find returns the node of k, or nil.
func (t *nodes[K, V]) find(hash uint64, k K) *node[K, V] {
	slots := *t.slots.Load()
	mask := uint64(len(slots) - 1)
	tag := tagOf(hash)
	for i := first(hash); ; i++ {
		s := &slots[i&mask]
		switch s.tag.Load() {
		case tag:
			if n := s.node.Load(); n != nil && n.key == k {
				return n
			}
		case free:
			return nil
		}
	}
}

// add puts in a node whose key is not there. rehash is the hash of any node's key.
func (t *nodes[K, V]) add(hash uint64, n *node[K, V], rehash func(K) uint64) {
	slots := *t.slots.Load()
	if 2*(t.taken+1) > len(slots) {
		slots = t.grown(rehash)
	}
	if put(slots, hash, n) {
		t.taken++
	}
	t.slots.Store(&slots)
	t.live.Add(1)
}

// put writes a node into the first slot that it can have, and reports whether that one was free.
func put[K comparable, V any](slots []slot[K, V], hash uint64, n *node[K, V]) (wasFree bool) {
	mask := uint64(len(slots) - 1)
	for i := first(hash); ; i++ {
		s := &slots[i&mask]
		if tag := s.tag.Load(); tag == free || tag == removed {
			s.node.Store(n)
			s.tag.Store(tagOf(hash))
			return tag == free
		}
	}
}

// grown makes a table with room for as many nodes again, without what was removed.
func (t *nodes[K, V]) grown(rehash func(K) uint64) []slot[K, V] {
	size := fewestSlots
	for size < 4*t.len() {
		size *= 2
	}
	slots := make([]slot[K, V], size)
	for n := range t.all {
		put(slots, rehash(n.key), n)
	}
	t.taken = t.len()
	return slots
}

// remove forgets the node of k, for those too who still hold it.
func (t *nodes[K, V]) remove(hash uint64, k K) {
	slots := *t.slots.Load()
	mask := uint64(len(slots) - 1)
	for i := first(hash); ; i++ {
		s := &slots[i&mask]
		switch s.tag.Load() {
		case tagOf(hash):
			if n := s.node.Load(); n.key == k {
				t.drop(s, n)
				return
			}
		case free:
			return
		}
	}
}

func (t *nodes[K, V]) drop(s *slot[K, V], n *node[K, V]) {
	s.tag.Store(removed)
	s.node.Store(nil)
	n.forget()
	t.live.Add(-1)
}

// evict makes room by forgetting the least recently used of a few nodes. hash chooses which are looked at.
func (t *nodes[K, V]) evict(hash uint64) {
	slots := *t.slots.Load()
	mask := uint64(len(slots) - 1)
	var victim *slot[K, V]
	var oldest stamp
	seen := 0
	for i := range uint64(len(slots)) {
		s := &slots[(first(hash)+i)&mask]
		n := s.node.Load()
		if n == nil {
			continue
		}
		at := stamp(gone)
		if st := n.state.Load(); st != nil {
			at = st.used.Load()
		}
		if victim == nil || at < oldest {
			victim, oldest = s, at
		}
		if seen++; seen == victims {
			break
		}
	}
	if victim != nil {
		t.drop(victim, victim.node.Load())
	}
}

// all yields every node. Without the part's lock it may miss those that come and go meanwhile.
func (t *nodes[K, V]) all(yield func(*node[K, V]) bool) {
	slots := *t.slots.Load()
	for i := range slots {
		if n := slots[i].node.Load(); n != nil && !yield(n) {
			return
		}
	}
}

// clear drops all nodes, and says so to none of them.
func (t *nodes[K, V]) clear() {
	slots := make([]slot[K, V], fewestSlots)
	t.slots.Store(&slots)
	t.live.Store(0)
	t.taken = 0
}

// forget tells whoever holds the node that it is gone.
func (n *node[K, V]) forget() {
	n.know(nil)
	n.token.Store(nil)
}
