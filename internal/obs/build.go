package obs

import (
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

// What the linker is told: -X barong/internal/obs.tag=v1.2.3, and so on. Without it the module's own build information
// is asked.
var (
	tag    string // git tag
	commit string // git commit
	date   string // RFC 3339
)

// A Build says what this program is.
type Build struct {
	Version string // the tag without its leading v, or "0.0.0"
	Tag     string // git tag, or "0.0.0"
	Commit  string // git commit, or "unknown"
	Date    string // RFC 3339: of the commit, or else the start of this process
	Go      string // version of Go
}

// Built returns what this program is.
var Built = sync.OnceValue(func() Build {
	b := Build{Tag: tag, Commit: commit, Date: date, Go: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		if v := info.Main.Version; b.Tag == "" && v != "" && v != "(devel)" {
			b.Tag = v
		}
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision" && b.Commit == "":
				b.Commit = s.Value
			case s.Key == "vcs.time" && b.Date == "":
				b.Date = s.Value
			}
		}
	}
	if b.Tag == "" {
		b.Tag = "0.0.0"
	}
	if b.Commit == "" {
		b.Commit = "unknown"
	}
	if b.Date == "" {
		b.Date = started.UTC().Format(time.RFC3339)
	}
	b.Version = b.Tag
	if len(b.Version) > 1 && b.Version[0] == 'v' {
		b.Version = b.Version[1:]
	}
	return b
})

// started is when this process began.
var started = time.Now()
