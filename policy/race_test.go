//go:build race

package policy

// raceEnabled: the race detector allocates, so allocation counts mean nothing under it.
const raceEnabled = true
