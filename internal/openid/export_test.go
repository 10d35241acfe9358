package openid

import "time"

// Hurry shortens how long what providers say about themselves holds, and the pause between two questions. Zero leaves the usual
// time.
func (p *Providers) Hurry(fresh, stale, retry time.Duration) {
	for _, one := range p.list() {
		one.mu.Lock()
		for _, t := range []struct {
			to    *time.Duration
			given time.Duration
		}{{&one.times.fresh, fresh}, {&one.times.stale, stale}, {&one.times.retry, retry}} {
			if t.given != 0 {
				*t.to = t.given
			}
		}
		one.mu.Unlock()
	}
}

// Parallel is how many ends of flows may wait for a provider.
const Parallel = parallel
