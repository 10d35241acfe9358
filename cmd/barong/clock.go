package main

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"barong/internal/obs"
)

// watchClock compares this clock with a store's twice a minute: a metric tells how far it is ahead, and the log when that
// becomes too much.
func (v *server) watchClock(store string, ask func(ctx context.Context) (time.Time, error)) {
	var ahead atomic.Int64
	v.metrics.Gauge("barong_clock_ahead_seconds", func() float64 { return time.Duration(ahead.Load()).Seconds() }, "store", store)
	look := func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, probeTimeout)
		defer cancel()
		now, err := obs.ClockAhead(ctx, ask)
		if err != nil {
			return // readiness tells of a store that does not answer
		}
		if was := time.Duration(ahead.Swap(int64(now))); now.Abs() > obs.MaxSkew && was.Abs() <= obs.MaxSkew {
			v.log.Warn("this clock differs from a store's; nonces and tokens want both to be right",
				slog.String("store", store), slog.Duration("ahead", now))
		}
	}
	v.background(look)
	v.every(30*time.Second, look)
}
