package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
)

// A part that does not stop is left to itself, and those that it stands on are stopped all the same.
func TestCloseWithAPartThatHangs(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	v := &server{log: slog.New(slog.NewTextHandler(&log, nil))}
	var stopped []string
	v.onClose("below", func() { stopped = append(stopped, "below") })
	v.onClose("hangs", func() { select {} })
	v.flushing("above", func(ctx context.Context) error {
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("it may write for ever")
		}
		stopped = append(stopped, "above")
		return errors.New("one row is lost")
	})
	v.close()
	if want := []string{"above", "below"}; !slices.Equal(stopped, want) {
		t.Errorf("stopped %q, want %q", stopped, want)
	}
	if got := log.String(); !strings.Contains(got, "part=above error=\"one row is lost\"") || !strings.Contains(got, "part=hangs") {
		t.Errorf("the log says\n%s", got)
	}
}
