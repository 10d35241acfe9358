package policy

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestEngineKeepsTheLastGood(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	e := NewEngine(func() time.Time { return now })
	if e.Snapshot() != nil || e.Status().Ready() {
		t.Fatal("a new engine has rules")
	}
	e.Confirm()
	if e.Status().Ready() {
		t.Fatal("confirmed without rules")
	}
	bad := Source{Permissions: perms("m SING a ACCEPT"), Version: 9}
	if err := e.Load(bad); err == nil || e.Snapshot() != nil || e.Status().Error != err.Error() {
		t.Fatalf("bad rules first: %v, %+v", err, e.Status())
	}
	if err := e.Load(Source{Permissions: perms("m GET a ACCEPT"), Version: 3}); err != nil {
		t.Fatal(err)
	}
	good := e.Snapshot()
	if got, want := e.Status(), (Status{Version: 3, Loaded: now}); got != want {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	failed := now.Add(time.Minute)
	now = failed
	if err := e.Load(bad); err == nil {
		t.Fatal("bad rules loaded")
	}
	now = now.Add(time.Minute)
	_ = e.Load(bad)
	got := e.Status()
	if e.Snapshot() != good || got.Version != 3 || !got.Ready() || !got.Since.Equal(failed) || !strings.Contains(got.Error, "SING") {
		t.Fatalf("after two failures: %+v", got)
	}
	e.Fail(errors.New("database is down"))
	if got := e.Status(); got.Error != "database is down" || !got.Since.Equal(now) {
		t.Fatalf("after another failure: %+v", got)
	}
	e.Confirm()
	if got, want := e.Status(), (Status{Version: 3, Loaded: now}); got != want {
		t.Fatalf("confirmed: got %+v, want %+v", got, want)
	}
}

// TestEngineNeverShowsHalf: the two rules of a Source are both there or both not, while it is replaced.
func TestEngineNeverShowsHalf(t *testing.T) {
	e := NewEngine(nil)
	sources := []Source{{Permissions: perms("m GET a ACCEPT", "m GET b ACCEPT")}, {Permissions: perms("m GET c ACCEPT")}}
	if err := e.Load(sources[0]); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				s := e.Snapshot()
				if a, b := s.Permit("m", "GET", "a").Allow, s.Permit("m", "GET", "b").Allow; a != b {
					t.Errorf("a %v, b %v", a, b)
				}
			}
		})
	}
	for i := range 200 {
		if err := e.Load(sources[i%2]); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
}

func TestCountries(t *testing.T) {
	if len(countries) != 250 {
		t.Errorf("got %d countries, want 249 and Kosovo", len(countries))
	}
	for alpha3, want := range map[string]string{"USA": "US", "ukr": "UA", "GBR": "GB", "XKX": "XK", "ZWE": "ZW", "SXM": "SX"} {
		if got, ok := alpha2Of(alpha3); !ok || got != want {
			t.Errorf("%s: got %q, want %q", alpha3, got, want)
		}
	}
	for _, value := range []string{"", "US", "UK", "XXX", "USAA", "Peru"} {
		if got, ok := alpha2Of(value); ok {
			t.Errorf("%q: got %q", value, got)
		}
	}
	if !knownAlpha2("ua") || knownAlpha2("UK") || knownAlpha2("") {
		t.Error("knownAlpha2 is wrong")
	}
}
