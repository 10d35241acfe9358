package openid

import "time"

// Hurry shortens how long providers are waited for, and how long what they say about themselves holds. Zero leaves the usual
// time.
func (p *Providers) Hurry(call, fresh, stale, retry time.Duration) {
	for _, one := range p.list {
		for _, t := range []struct {
			to    *time.Duration
			given time.Duration
		}{{&one.times.call, call}, {&one.times.fresh, fresh}, {&one.times.stale, stale}, {&one.times.retry, retry}} {
			if t.given != 0 {
				*t.to = t.given
			}
		}
		one.http.Timeout = one.times.call
	}
}

// Parallel is how many ends of flows may wait for a provider.
const Parallel = parallel
