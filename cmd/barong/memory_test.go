package main

import (
	"runtime"
	"runtime/debug"
	"testing"
)

// Memory that is held in reserve is found once nothing is allocated any more, and not while much is.
func TestIdleMemoryIsFound(t *testing.T) {
	kept := make([][]byte, 0, 64)
	for range 64 {
		kept = append(kept, make([]byte, 1<<20))
	}
	runtime.GC()
	m := newMemory()
	m.idle()
	for range 40 {
		kept[0] = make([]byte, 1<<20) // garbage, below what starts a collection
	}
	if m.idle() {
		t.Error("idle while much is allocated")
	}
	if !m.idle() {
		t.Error("what was garbage is not found")
	}
	debug.FreeOSMemory()
	if m.idle() {
		t.Error("idle with nothing to give back")
	}
	runtime.KeepAlive(kept)
}
