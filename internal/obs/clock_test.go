package obs_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"barong/internal/obs"
)

func TestClocks(t *testing.T) {
	clock := func(off time.Duration) func(context.Context) (time.Time, error) {
		return func(context.Context) (time.Time, error) { return time.Now().Add(off), nil }
	}
	const noise = time.Minute // that a busy machine may take to ask
	for off, want := range map[time.Duration]time.Duration{-time.Hour: time.Hour, 0: 0, time.Hour: -time.Hour} {
		got, err := obs.ClockAhead(t.Context(), clock(off))
		if err != nil || (got-want).Abs() > noise || want == 0 && got != 0 {
			t.Errorf("a clock that is %s off: ahead by %s, %v, want %s", off, got, err, want)
		}
		err = obs.CompareClock(t.Context(), clock(off))
		if off == 0 && err != nil || off != 0 && (err == nil || !strings.Contains(err.Error(), "differ by ")) {
			t.Errorf("a clock that is %s off: %v", off, err)
		}
	}
	silent := errors.New("no answer")
	ask := func(context.Context) (time.Time, error) { return time.Time{}, silent }
	if _, err := obs.ClockAhead(t.Context(), ask); !errors.Is(err, silent) {
		t.Errorf("a clock that does not answer: %v", err)
	}
	if err := obs.CompareClock(t.Context(), ask); !errors.Is(err, silent) {
		t.Errorf("a clock that does not answer: %v", err)
	}
}
