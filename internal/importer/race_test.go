//go:build race

package importer

// raceEnabled: the race detector allocates, so what is allocated says nothing under it.
const raceEnabled = true
