package testkit

import (
	"testing"
	"time"
	"unsafe"
)

// WallStepped is what the running clock says at t, a time of it, when meanwhile the wall clock was moved by seconds: the
// two readings that a time.Time holds then differ, which no call of package time brings about.
func WallStepped(t testing.TB, at time.Time, seconds int64) time.Time {
	t.Helper()
	// In a time with a reading of the monotonic clock the first word holds a bit that says so, 33 bits of seconds, and 30 of
	// nanoseconds.
	stepped := at
	*(*uint64)(unsafe.Pointer(&stepped)) += uint64(seconds) << 30
	if stepped.Sub(at) != 0 || stepped.Unix()-at.Unix() != seconds {
		t.Fatalf("package time keeps times in another way: %v stepped by %d seconds is %v", at, seconds, stepped)
	}
	return stepped
}
