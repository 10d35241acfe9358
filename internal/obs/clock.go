package obs

import (
	"context"
	"fmt"
	"time"
)

// MaxSkew is the largest difference between clocks that is not worth a word. Signed nonces live for seconds.
const MaxSkew = 2 * time.Second

// ClockAhead asks another clock, and tells how much that of this machine is ahead of it: below zero if it is behind, and zero
// if the two may agree.
func ClockAhead(ctx context.Context, ask func(context.Context) (time.Time, error)) (time.Duration, error) {
	before := time.Now().Round(0) // by the wall clock, which is what may be wrong
	there, err := ask(ctx)
	if err != nil {
		return 0, err
	}
	return ahead(before, there, time.Now().Round(0)), nil
}

// ahead is ClockAhead for a clock that was read between before and after.
func ahead(before, there, after time.Time) time.Duration {
	switch {
	case there.Before(before):
		return before.Sub(there)
	case there.After(after):
		return after.Sub(there)
	}
	return 0
}

// CompareClock is an error when another clock and that of this machine differ by more than MaxSkew.
func CompareClock(ctx context.Context, ask func(context.Context) (time.Time, error)) error {
	ahead, err := ClockAhead(ctx, ask)
	if err == nil && ahead.Abs() > MaxSkew {
		err = fmt.Errorf("this clock and the server's differ by %s; nonces and tokens want both to be right", ahead.Abs().Round(time.Millisecond))
	}
	return err
}
