//go:build amd64 || arm64

package near

import "unsafe"

// prefetch asks the processor to fetch n bytes of memory from p on, n being above 0, and waits for nothing. It may be any
// memory, also what lies behind the end of an object: no fault comes of it.
//
//go:noescape
func prefetch(p unsafe.Pointer, n uintptr)
