package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// quietTime is how often idle memory is looked for.
const quietTime = time.Minute

// giveBack returns memory to the system again and again, until the context ends. Go keeps as much in reserve as is in use,
// for the next collection: where sessions came in a storm and checks then allocate nothing, that stays for good, and is as
// much as all sessions take.
func giveBack(ctx context.Context) {
	ticker := time.NewTicker(quietTime)
	defer ticker.Stop()
	m := newMemory()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if m.idle() {
				debug.FreeOSMemory()
			}
		}
	}
}

// A memory is what Go's runtime says of its heap.
type memory struct {
	samples   []metrics.Sample
	allocated uint64 // in all, at the last look
}

func newMemory() *memory {
	m := &memory{}
	for _, name := range []string{"/gc/heap/live:bytes", "/memory/classes/heap/objects:bytes", "/memory/classes/heap/free:bytes", "/gc/heap/allocs:bytes"} {
		m.samples = append(m.samples, metrics.Sample{Name: name})
	}
	return m
}

// idle reports whether much is held in reserve that will not be needed soon: what was allocated since the last look is little
// beside what lives.
func (m *memory) idle() bool {
	metrics.Read(m.samples)
	live, objects, free, allocated := m.samples[0].Value.Uint64(), m.samples[1].Value.Uint64(), m.samples[2].Value.Uint64(), m.samples[3].Value.Uint64()
	since := allocated - m.allocated
	m.allocated = allocated
	const some = 8 << 20
	return objects+free > live+live/8+some && since < live/2
}
