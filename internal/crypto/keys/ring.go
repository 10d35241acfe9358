package keys

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// reloadPause is the shortest time between two readings of the files that strangers can cause with unknown key ids.
const reloadPause = 250 * time.Millisecond

// A Ring holds the current [Set] of a path and replaces it when the files change. It is safe for concurrent use.
type Ring struct {
	path      string
	algorithm string
	now       func() time.Time

	set atomic.Pointer[Set]

	mu   sync.Mutex // serialises reloads; guards the following
	sum  [sha256.Size]byte
	last time.Time // of the last reading
}

// Open loads the keys at path, as [Load] does. now is the clock, usually time.Now.
func Open(path, algorithm string, now func() time.Time) (*Ring, error) {
	r := &Ring{path: path, algorithm: algorithm, now: now}
	if _, err := r.Reload(); err != nil {
		return nil, err
	}
	return r, nil
}

// Fixed returns a ring that holds set and never changes.
func Fixed(set *Set, now func() time.Time) *Ring {
	r := &Ring{now: now}
	r.set.Store(set)
	return r
}

// Current returns the current set.
func (r *Ring) Current() *Set { return r.set.Load() }

// Reload reads the files again and reports whether the set changed. On an error the last good set stays.
func (r *Ring) Reload() (changed bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reload()
}

func (r *Ring) reload() (bool, error) {
	if r.path == "" {
		return false, nil
	}
	r.last = r.now()
	files, err := readFiles(r.path)
	if err != nil {
		return false, err
	}
	h := sha256.New()
	for _, f := range files {
		fmt.Fprintf(h, "%q %d\n", f.name, len(f.text))
		h.Write(f.text)
	}
	sum := [sha256.Size]byte(h.Sum(nil))
	old := r.set.Load()
	if old != nil && sum == r.sum && (old.change.IsZero() || r.last.Before(old.change)) {
		return false, nil
	}
	set, err := parseSet(r.path, files, r.algorithm, r.last)
	if err != nil {
		return false, err
	}
	r.sum = sum
	r.set.Store(set)
	return true, nil
}

// Watch reloads every so often until ctx ends, and tells report, which may be nil, of every change, and of every error that
// is not the one of the reading before.
func (r *Ring) Watch(ctx context.Context, every time.Duration, report func(changed bool, err error)) {
	t := time.NewTicker(every)
	defer t.Stop()
	last := "" // error
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		changed, err := r.Reload()
		text := ""
		if err != nil {
			text = err.Error()
		}
		if report != nil && (changed || text != "" && text != last) {
			report(changed, err)
		}
		last = text
	}
}

// SignPayload signs with the current set; see [Set.SignPayload].
func (r *Ring) SignPayload(payload []byte) ([]byte, error) { return r.Current().SignPayload(payload) }

// Sign signs with the current set; see [Set.Sign].
func (r *Ring) Sign(claims any) (string, error) { return r.Current().Sign(claims) }

// JWKS returns the public keys of the current set; see [Set.JWKS].
func (r *Ring) JWKS() []byte { return r.Current().JWKS(r.now()) }

// Verify verifies with the current set; see [Set.Verify]. A token with an unknown key id may come from another process
// that rotated a moment ago, so that the files are read again, at most four times a second, before it is refused.
func (r *Ring) Verify(token string, want Expect) (Claims, error) {
	set := r.Current()
	claims, err := set.Verify(token, want, r.now())
	if err == nil || !errors.Is(err, errUnknownKey) {
		return claims, err
	}
	if fresh := r.refresh(); fresh != set {
		return fresh.Verify(token, want, r.now())
	}
	return claims, err
}

// refresh returns the current set after reading the files again, unless that was done a moment ago.
func (r *Ring) refresh() *Set {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now().Sub(r.last) >= reloadPause {
		// An error is the business of Watch; here it only means that the token stays unknown.
		_, _ = r.reload()
	}
	return r.set.Load()
}
