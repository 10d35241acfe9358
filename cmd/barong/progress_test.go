package main

import (
	"strings"
	"testing"
	"time"

	"barong/internal/importer"
)

func TestProgressLine(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	line := progressLine{now: func() time.Time { return now }}
	for _, c := range []struct {
		after time.Duration
		p     importer.Progress
		want  string
	}{
		{0, importer.Progress{Step: "reading", Done: 5e6, All: 10e6}, "reading: 5 MB (50 %)"},
		{time.Millisecond, importer.Progress{Step: "reading", Done: 6e6, All: 10e6}, ""},
		{time.Second, importer.Progress{Step: "activities", Done: 1, All: 1000, Rows: true}, "activities: 1 rows (0 %)"},
		{10 * time.Second, importer.Progress{Step: "activities", Done: 250, All: 1000, Rows: true}, "activities: 250 rows (25 %), 25 a second, 30s left"},
		{time.Second, importer.Progress{Step: "finishing"}, "finishing"},
	} {
		now = now.Add(c.after)
		if got := strings.TrimPrefix(line.text(c.p), "\r\x1b[K"); got != c.want {
			t.Errorf("%+v: %q, want %q", c.p, got, c.want)
		}
	}
}
