package db

import (
	"path/filepath"
	"testing"
	"time"
)

// A database beats for as long as one answer is worth, and no longer when it has gone.
func TestPulse(t *testing.T) {
	const life = time.Hour // so that nothing here depends on how long it takes
	p, err := OpenPulse(t.Context(), Options{URL: "sqlite://" + filepath.Join(t.TempDir(), "barong.db")}, life)
	if err != nil {
		t.Fatal(err)
	}
	if !p.Beats(p.start.Add(life)) || p.Beats(p.start.Add(life+1)) {
		t.Error("opening it is not worth one answer")
	}
	p.ask(t.Context())
	asked := p.start.Add(time.Duration(p.last.Load()))
	if !asked.After(p.start) || !p.Beats(asked.Add(life)) || p.Beats(asked.Add(life+1)) {
		t.Errorf("asked %s after the start; that answer is not worth %s", asked.Sub(p.start), life)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p.ask(t.Context())
	if p.Beats(asked.Add(life + 1)) {
		t.Error("what has gone still beats")
	}
	if n := testing.AllocsPerRun(100, func() { p.Beats(asked) }); n != 0 {
		t.Errorf("Beats allocates %v times", n)
	}
}

// An answer is worth at least three questions, however short a life is asked for.
func TestShortPulse(t *testing.T) {
	t.Parallel()
	p, err := OpenPulse(t.Context(), Options{URL: "sqlite://" + filepath.Join(t.TempDir(), "barong.db")}, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if p.pause != 100*time.Millisecond || p.life != 3*p.pause {
		t.Errorf("asks every %s, for answers worth %s", p.pause, p.life)
	}
}
