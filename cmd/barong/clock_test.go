package main

import (
	"strings"
	"testing"
	"time"
)

func TestAheadOf(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for there, want := range map[time.Duration]time.Duration{
		-time.Minute: time.Minute, 0: 0, time.Second: 0, time.Minute: -59 * time.Second,
	} {
		if got := aheadOf(now, now.Add(there), now.Add(time.Second)); got != want {
			t.Errorf("a clock at %s: ahead by %s, want %s", there, got, want)
		}
	}
	if _, err := compareClocks(now, now.Add(-time.Minute), now.Add(time.Second)); err == nil || !strings.Contains(err.Error(), "differ by 1m0s") {
		t.Errorf("a clock that is a minute ahead: %v", err)
	}
	if _, err := compareClocks(now, now.Add(time.Second), now.Add(time.Second)); err != nil {
		t.Errorf("a clock that is right: %v", err)
	}
}
