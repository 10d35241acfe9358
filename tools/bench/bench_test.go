package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"barong/internal/test/testkit"
)

// TestMain lets the test binary be the servers that the program starts of itself.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "child" {
		if err := run(context.Background(), os.Args[1:], os.Stdout); err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// The program runs from end to end. What it measures here means nothing, and is not looked at.
func TestQuickRun(t *testing.T) {
	t.Setenv("BARONG_BENCH_CORES", "-1 -1") // other tests run beside this one
	file := filepath.Join(t.TempDir(), "report.json")
	var out bytes.Buffer
	args := []string{"-quick", "-turn", "50ms", "-barong", testkit.Barong(t), "-json", file}
	if err := run(t.Context(), args, &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	r, err := readReport(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cookie", "pass list", "refused: no session", "refused: DROP", "forward-auth", "API key, replay local", "API key, RFC 9421, HMAC", "API key, RFC 9421, Ed25519", "gRPC"} {
		if row := rowOf(r, name); row == nil || row.Rate.Median <= 0 {
			t.Errorf("%s: %+v", name, row)
		}
	}
	if row := rowOf(r, "latency at half load"); row == nil || row.P99.Median <= 0 {
		t.Errorf("latency: %+v", row)
	}
	if len(r.Facts) == 0 || !strings.Contains(out.String(), "forward-auth") {
		t.Errorf("facts %v, printed:\n%s", r.Facts, out.String())
	}
	out.Reset()
	if err := run(t.Context(), []string{"compare", file, file}, &out); err != nil || !strings.Contains(out.String(), "within the spread") {
		t.Errorf("compare: %v\n%s", err, out.String())
	}
}

// What grows is measured from end to end, and printed and drawn.
func TestScale(t *testing.T) {
	t.Setenv("BARONG_BENCH_CORES", "-1 -1")
	plots := t.TempDir()
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-quick", "-turn", "50ms", "-barong", testkit.Barong(t), "-plots", plots, "-most", "1000", "scale"}, &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{"### sessions", "### rules", "### edits", "### replicas", "### users", "a sign-in, ms", "list of users", "\n| 10000 | ", "\n| 3 | "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	drawn, err := filepath.Glob(filepath.Join(plots, "*.svg"))
	if err != nil || len(drawn) != 12 {
		t.Errorf("%v, %v", drawn, err)
	}
}

func rowOf(r *report, name string) *row {
	for _, row := range r.Rows {
		if row.Name == name {
			return row
		}
	}
	return nil
}

func TestRatiosAreOfPairs(t *testing.T) {
	r := row{
		BaseRounds: []sample{{Rate: 100, Processor: 10}, {Rate: 50, Processor: 20}, {Rate: 100, Processor: 10}},
		Rounds:     []sample{{Rate: 80, Processor: 12.5}, {Rate: 45, Processor: 20}, {Rate: 50, Processor: 20}, {Rate: 1}},
	}
	r.settle()
	if want := (ratio{0.8, 0.5, 1}); r.Processor != want {
		t.Errorf("processor %v, want %v", r.Processor, want)
	}
	if want := (ratio{0.8, 0.5, 0.9}); r.Rate != want {
		t.Errorf("rate %v, want %v", r.Rate, want)
	}
	if r.P99 != (ratio{}) || r.P99.String() != "-" {
		t.Errorf("p99 %v, which nobody measured", r.P99)
	}
}

func TestCompare(t *testing.T) {
	before := &report{Commit: "a", Rows: []*row{
		{Name: "noise", Processor: ratio{.8, .7, .9}},
		{Name: "better", Processor: ratio{.7, .6, .75}},
		{Name: "worse", Processor: ratio{.9, .85, .95}},
		{Name: "slow", P99: ratio{1, .9, 1.1}},
		{Name: "old", Processor: ratio{.5, .5, .5}},
	}, Facts: []fact{{Name: "start", Value: 100, Unit: "ms"}}, Benchmarks: []benchmark{{Name: "Check", Allocations: 0}}}
	after := &report{Commit: "b", Rows: []*row{
		{Name: "noise", Processor: ratio{.85, .75, .95}},
		{Name: "better", Processor: ratio{.8, .77, .85}},
		{Name: "worse", Processor: ratio{.8, .77, .84}},
		{Name: "slow", P99: ratio{2, 1.9, 2.1}},
		{Name: "fresh", Processor: ratio{.5, .5, .5}},
	}, Facts: []fact{{Name: "start", Value: 50, Unit: "ms"}}, Benchmarks: []benchmark{{Name: "Check", Allocations: 1}}}
	var out bytes.Buffer
	if err := compare(&out, before, after); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"noise": "+6.2%, within the spread", "better": "+14.3%, better", "worse": "-11.1%, worse", "slow": "+100.0%, worse",
		"old": "gone", "fresh": "new", "start": "-50.0%", "Check": "allocations",
	} {
		found := false
		for line := range strings.Lines(out.String()) {
			found = found || strings.HasPrefix(line, name+" ") && strings.Contains(line, want)
		}
		if !found {
			t.Errorf("%s: want %q in\n%s", name, want, out.String())
		}
	}
}

func TestParseBenchmarks(t *testing.T) {
	got := parseBenchmarks(`goos: linux
BenchmarkCheck/allow-2   	 1000000	      1045 ns/op	      16 B/op	       1 allocs/op
BenchmarkEdge	 200	 7.5 ns/op	 3.5 extra	 0 B/op	 0 allocs/op
PASS`)
	want := []benchmark{{"Check/allow-2", 1045, 16, 1}, {"Edge", 7.5, 0, 0}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A signed request is one that the gateway's rules accept: a nonce of its own each time, of milliseconds.
func TestSignerFillsTheRequestIn(t *testing.T) {
	request, s := byNonce(3, "/x")
	before := string(request)
	s.sign(request)
	first := string(request)
	s.sign(request)
	if string(request) == first || len(first) != len(before) || strings.Contains(first, signaturePlace) || strings.Contains(first, "Nonce: "+noncePlace) {
		t.Errorf("%q, then %q", first, request)
	}
	if at := time.UnixMilli(s.last); time.Since(at).Abs() > time.Minute {
		t.Errorf("nonce of %v", at)
	}
}

func TestReportSurvivesItsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.json")
	r := &report{Commit: "c", Rows: []*row{{Name: "x", Rounds: []sample{{Rate: 1}}}}}
	if err := r.write(path); err != nil {
		t.Fatal(err)
	}
	again, err := readReport(path)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(r)
	if b, _ := json.Marshal(again); string(a) != string(b) {
		t.Errorf("%s, then %s", a, b)
	}
}
