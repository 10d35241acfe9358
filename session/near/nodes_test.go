package near

import (
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"
)

// Whatever comes and goes, the table holds what a map would, also when hashes collide.
func TestNodesAreAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		spread := rapid.SampledFrom([]uint64{1, 1 << 8, 1 << 60}).Draw(t, "spread")
		collide := rapid.Uint64Range(1, 50).Draw(t, "collide")
		hash := func(k int) uint64 { return uint64(k) % collide * spread }
		var table nodes[int, int]
		table.clear()
		model := map[int]*node[int, int]{}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				k := rapid.IntRange(0, 200).Draw(t, "key")
				if model[k] == nil {
					n := &node[int, int]{key: k}
					n.state.Store(&known[int]{})
					model[k] = n
					table.add(hash(k), n, hash)
				}
			},
			"remove": func(t *rapid.T) {
				k := rapid.IntRange(0, 200).Draw(t, "key")
				table.remove(hash(k), k)
				if n := model[k]; n != nil && n.state.Load() != nil {
					t.Fatal("a removed node does not say so")
				}
				delete(model, k)
			},
			"evict": func(t *rapid.T) {
				before := table.len()
				table.evict(rapid.Uint64().Draw(t, "hash"))
				for k, n := range model {
					if n.state.Load() == nil {
						delete(model, k)
					}
				}
				if table.len() != max(0, before-1) {
					t.Fatalf("%d nodes after one of %d was evicted", table.len(), before)
				}
			},
			"clear": func(*rapid.T) {
				table.clear()
				clear(model)
			},
			"": func(t *rapid.T) {
				for k := range 201 {
					if table.find(hash(k), k) != model[k] {
						t.Fatalf("key %d: another node than the map's", k)
					}
				}
				seen := 0
				for n := range table.all {
					if model[n.key] != n {
						t.Fatal("a node that is not in the map")
					}
					seen++
				}
				if seen != len(model) || table.len() != len(model) {
					t.Fatalf("%d nodes, %d counted, want %d", seen, table.len(), len(model))
				}
				if slots := *table.slots.Load(); table.taken > len(slots)/2 {
					t.Fatalf("%d of %d slots taken", table.taken, len(slots))
				}
			},
		})
	})
}

// A node that stays is found at any time, whatever a writer does to the others; and nobody finds a node of another key.
func TestNodesAreReadWithoutALock(t *testing.T) {
	hash := func(k int) uint64 { return uint64(k%7) << 8 } // every search passes by others
	var table nodes[int, int]
	table.clear()
	table.add(hash(0), &node[int, int]{key: 0}, hash)
	var stop atomic.Bool
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() {
			for k := 0; !stop.Load(); k = (k + 1) % 40 {
				if n := table.find(hash(k), k); n == nil && k == 0 || n != nil && n.key != k {
					t.Errorf("key %d: found %v", k, n)
					return
				}
			}
		})
	}
	for range 200 {
		for k := 1; k < 40; k++ {
			table.add(hash(k), &node[int, int]{key: k}, hash)
		}
		for k := 1; k < 40; k++ {
			table.remove(hash(k), k)
		}
	}
	stop.Store(true)
	group.Wait()
}
