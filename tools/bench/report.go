package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A report is what one run measured. Only ratios within it mean anything: the servers of a row took turns on the same
// processor within seconds.
type report struct {
	Commit     string
	Time       time.Time
	Go         string
	Processor  string
	Cores      []int // the servers', the load's
	Quick      bool
	Notes      []string
	Rows       []*row
	Facts      []fact
	Benchmarks []benchmark
}

// A row compares two servers that took turns.
type row struct {
	Name   string
	Base   string // what it is compared with
	Target string // as the project promises it; empty for none

	Processor ratio // by processor time a request
	Rate      ratio // by requests a second in a closed loop
	P99       ratio // by the 99th percentile of latency: at saturation, or in rows without a rate at a constant one

	BaseRounds, Rounds []sample
}

// A sample is one turn of one server.
type sample struct {
	Rate      float64 // requests a second
	Processor float64 // microseconds of processor time a request; 0 when unknown
	Busy      float64 // share of its processor that the server used
	P50, P99  float64 // microseconds

	Instructions float64 // a request, outside the kernel; 0 where the machine does not count them
}

// A ratio is the median over the rounds, and the lowest and highest; all 0 when it was not measured.
type ratio struct{ Median, Low, High float64 }

func (r ratio) String() string {
	if r.Median == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f (%.2f..%.2f)", r.Median, r.Low, r.High)
}

func ratioOf(values []float64) ratio {
	if len(values) == 0 {
		return ratio{}
	}
	return ratio{median(values), slices.Min(values), slices.Max(values)}
}

func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// settle makes the ratios of a row from its rounds. Each is made of two turns that followed each other: what the machine
// did besides falls on both.
func (r *row) settle() {
	var processor, rate, p99 []float64
	for i := range min(len(r.Rounds), len(r.BaseRounds)) {
		a, b := r.BaseRounds[i], r.Rounds[i]
		if a.Processor > 0 && b.Processor > 0 {
			processor = append(processor, a.Processor/b.Processor)
		}
		if a.Rate > 0 && b.Rate > 0 {
			rate = append(rate, b.Rate/a.Rate)
		}
		if a.P99 > 0 && b.P99 > 0 {
			p99 = append(p99, b.P99/a.P99)
		}
	}
	r.Processor, r.Rate, r.P99 = ratioOf(processor), ratioOf(rate), ratioOf(p99)
}

func medianOf(samples []sample, f func(*sample) float64) float64 {
	var values []float64
	for i := range samples {
		values = append(values, f(&samples[i]))
	}
	if len(values) == 0 {
		return 0
	}
	return median(values)
}

// A fact is a single number, with the target that the project has for it.
type fact struct {
	Name   string
	Value  float64
	Unit   string
	Target string
}

// A benchmark is one line of "go test -bench".
type benchmark struct {
	Name        string
	Nanoseconds float64 // per operation
	Bytes       float64 // allocated per operation
	Allocations float64 // per operation
}

func (r *report) print(w io.Writer) error {
	fmt.Fprintf(w, "commit %s, %s, %s\n", r.Commit, r.Go, r.Processor)
	for _, n := range r.Notes {
		fmt.Fprintln(w, n)
	}
	fmt.Fprintf(w, "\nThe gateway beside a bare server: median of the rounds, lowest and highest in brackets. 1.00 is as cheap.\n\n")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "check\tbeside\tby processor time\tby rate\tprocessor µs\tof base µs\tinstructions\tof base\tp99 at saturation\ttarget")
	for _, row := range r.Rows {
		if row.Processor.Median == 0 && row.Rate.Median == 0 {
			continue
		}
		micros := func(s *sample) float64 { return s.Processor }
		instructions := func(samples []sample) string {
			if n := medianOf(samples, func(s *sample) float64 { return s.Instructions }); n > 0 {
				return fmt.Sprintf("%.0f", n)
			}
			return "-" // this machine does not count them
		}
		fmt.Fprintf(t, "%s\t%s\t%v\t%v\t%.1f\t%.1f\t%s\t%s\t%v\t%s\n", row.Name, row.Base, row.Processor, row.Rate,
			medianOf(row.Rounds, micros), medianOf(row.BaseRounds, micros), instructions(row.Rounds), instructions(row.BaseRounds), row.P99, row.Target)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if slices.ContainsFunc(r.Rows, func(r *row) bool { return r.latency() }) {
		fmt.Fprintf(w, "\nLatency at a constant rate: 99th percentile, times that of the base.\n\n")
		fmt.Fprintln(t, "check\tbeside\tp99\tp99 µs\tof base µs\ttarget")
		for _, row := range r.Rows {
			if row.latency() {
				micros := func(s *sample) float64 { return s.P99 }
				fmt.Fprintf(t, "%s\t%s\t%v\t%.0f\t%.0f\t%s\n", row.Name, row.Base, row.P99,
					medianOf(row.Rounds, micros), medianOf(row.BaseRounds, micros), row.Target)
			}
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	if len(r.Facts) > 0 {
		fmt.Fprintln(w)
		for _, f := range r.Facts {
			fmt.Fprintf(t, "%s\t%.4g %s\t%s\n", f.Name, f.Value, f.Unit, f.Target)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	if len(r.Benchmarks) > 0 {
		fmt.Fprintf(w, "\nGo benchmarks, per operation.\n\n")
		for _, b := range r.Benchmarks {
			fmt.Fprintf(t, "%s\t%.0f ns\t%.0f B\t%.0f allocations\n", b.Name, b.Nanoseconds, b.Bytes, b.Allocations)
		}
	}
	return t.Flush()
}

// latency reports whether the row is about latency: it has no rates.
func (r *row) latency() bool { return r.Rate.Median == 0 && r.P99.Median > 0 }

func (r *report) write(path string) error {
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

func readReport(path string) (*report, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := new(report)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// compare prints what changed between two reports. A change is one only when the ratios of all rounds of one report lie
// beside those of the other: what the rounds of a report differ by is noise.
func compare(w io.Writer, before, after *report) error {
	fmt.Fprintf(w, "before: %s\nafter:  %s\n\n", before.Commit, after.Commit)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "check\tmeasure\tbefore\tafter\t")
	for _, a := range after.Rows {
		i := slices.IndexFunc(before.Rows, func(b *row) bool { return b.Name == a.Name })
		if i < 0 {
			fmt.Fprintf(t, "%s\t\t-\t%v\tnew\n", a.Name, a.Processor)
			continue
		}
		b := before.Rows[i]
		for _, m := range []struct {
			name           string
			before, after  ratio
			moreIsBetter   bool
			onlyForLatency bool
		}{
			{"processor", b.Processor, a.Processor, true, false},
			{"rate", b.Rate, a.Rate, true, false},
			{"p99", b.P99, a.P99, false, true},
		} {
			if m.before.Median == 0 || m.after.Median == 0 || m.onlyForLatency && !a.latency() {
				continue
			}
			fmt.Fprintf(t, "%s\t%s\t%v\t%v\t%s\n", a.Name, m.name, m.before, m.after, change(m.before, m.after, m.moreIsBetter))
		}
	}
	for _, b := range before.Rows {
		if !slices.ContainsFunc(after.Rows, func(a *row) bool { return b.Name == a.Name }) {
			fmt.Fprintf(t, "%s\t\t%v\t-\tgone\n", b.Name, b.Processor)
		}
	}
	for _, a := range after.Facts {
		for _, b := range before.Facts {
			if a.Name == b.Name {
				fmt.Fprintf(t, "%s\t%s\t%.4g\t%.4g\t%+.1f%%\n", a.Name, a.Unit, b.Value, a.Value, 100*(a.Value/b.Value-1))
			}
		}
	}
	for _, a := range after.Benchmarks {
		for _, b := range before.Benchmarks {
			if a.Name == b.Name && a.Allocations != b.Allocations {
				fmt.Fprintf(t, "%s\tallocations\t%.0f\t%.0f\t\n", a.Name, b.Allocations, a.Allocations)
			}
		}
	}
	return t.Flush()
}

// change says in words how a ratio moved.
func change(before, after ratio, moreIsBetter bool) string {
	percent := fmt.Sprintf("%+.1f%%", 100*(after.Median/before.Median-1))
	switch {
	case after.Low <= before.High && before.Low <= after.High:
		return percent + ", within the spread"
	case (after.Median > before.Median) == moreIsBetter:
		return percent + ", better"
	default:
		return percent + ", worse"
	}
}

// parseBenchmarks reads what "go test -bench -benchmem" printed.
func parseBenchmarks(text string) []benchmark {
	var list []benchmark
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		b := benchmark{Name: strings.TrimPrefix(fields[0], "Benchmark")}
		for i := 2; i+1 < len(fields); i += 2 {
			var value float64
			if _, err := fmt.Sscanf(fields[i], "%g", &value); err != nil {
				continue
			}
			switch fields[i+1] {
			case "ns/op":
				b.Nanoseconds = value
			case "B/op":
				b.Bytes = value
			case "allocs/op":
				b.Allocations = value
			}
		}
		list = append(list, b)
	}
	return list
}
