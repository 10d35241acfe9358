package main

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// maxSkew is the largest difference between clocks that is not worth a word. Signed nonces live for seconds.
const maxSkew = 2 * time.Second

// aheadOf is how much this clock is ahead of another one that was read between before and after: below zero if it is
// behind, and zero if the two may agree.
func aheadOf(before, there, after time.Time) time.Duration {
	switch {
	case there.Before(before):
		return before.Sub(there)
	case there.After(after):
		return after.Sub(there)
	}
	return 0
}

// watchClock compares this clock with a store's twice a minute: a metric tells how far it is ahead, and the log when that
// becomes too much.
func (v *server) watchClock(store string, ask func(ctx context.Context) (time.Time, error)) {
	var ahead atomic.Int64
	v.metrics.Gauge("barong_clock_ahead_seconds", func() float64 { return time.Duration(ahead.Load()).Seconds() }, "store", store)
	look := func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, probeTimeout)
		defer cancel()
		before := time.Now().Round(0) // by the wall clock, which is what may be wrong
		there, err := ask(ctx)
		if err != nil {
			return // readiness tells of a store that does not answer
		}
		now := aheadOf(before, there, time.Now().Round(0))
		if was := time.Duration(ahead.Swap(int64(now))); now.Abs() > maxSkew && was.Abs() <= maxSkew {
			v.log.Warn("this clock differs from a store's; nonces and tokens want both to be right",
				slog.String("store", store), slog.Duration("ahead", now))
		}
	}
	v.background(look)
	v.every(30*time.Second, look)
}
