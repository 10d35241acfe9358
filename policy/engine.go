package policy

import (
	"sync"
	"sync/atomic"
	"time"
)

// An Engine holds the Snapshot in force. Readers take it with one atomic load; a new one replaces it in one step, so no
// request sees half a reload. When a Source does not compile, the last good Snapshot stays and Status says so. Before
// the first good one, Snapshot is nil, which refuses everything. It is safe for concurrent use.
type Engine struct {
	current atomic.Pointer[Snapshot]

	mu     sync.Mutex // orders writers and guards status
	now    func() time.Time
	status Status
}

// A Status says how fresh the rules in force are. Its zero value is an Engine that never loaded any.
type Status struct {
	Version int64     // Source.Version of the Snapshot in force
	Loaded  time.Time // when that Snapshot, or the last one with the same rules, was put in force; zero when there is none
	Error   string    // why the latest attempt to load failed; empty when it succeeded
	Since   time.Time // when attempts began to fail with this very Error; zero without one
}

// Ready reports whether there are rules to decide by. They may be old: see Error.
func (s Status) Ready() bool { return !s.Loaded.IsZero() }

// NewEngine makes an Engine without rules. now defaults to time.Now.
func NewEngine(now func() time.Time) *Engine {
	if now == nil {
		now = time.Now
	}
	return &Engine{now: now}
}

// Snapshot is the one in force, or nil before the first. A request takes it once and decides by it alone.
func (e *Engine) Snapshot() *Snapshot { return e.current.Load() }

// Load compiles src and puts it in force. On error nothing changes but the Status.
func (e *Engine) Load(src Source) error {
	snapshot, err := CompileAfter(e.current.Load(), src)
	if err != nil {
		e.Fail(err)
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.current.Store(snapshot)
	e.status = Status{Version: snapshot.Version(), Loaded: e.now()}
	return nil
}

// Confirm says that the rules were read again and are still those in force.
func (e *Engine) Confirm() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.current.Load() != nil {
		e.status.Loaded, e.status.Error, e.status.Since = e.now(), "", time.Time{}
	}
}

// Fail says that the rules could not be read; those in force stay.
func (e *Engine) Fail(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if text := err.Error(); e.status.Error != text {
		e.status.Error, e.status.Since = text, e.now()
	}
}

// Status says how fresh the rules in force are.
func (e *Engine) Status() Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.status
}
