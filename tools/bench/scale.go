package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"barong/db"
	"barong/internal/crypto/keys"
	"barong/internal/crypto/secret"
	"barong/internal/rules"
	"barong/policy"
)

// A scaleStep is one size at which growth is measured, and what was measured there.
type scaleStep struct {
	N      int
	Values map[string]float64
}

// A dimension is something that grows.
type dimension struct {
	name   string
	unit   string   // of N
	values []string // in the order of the table
	units  map[string]string
	steps  []scaleStep
}

// scale measures how the parts grow with sessions, rules, replicas and users, and writes tables to out and a plot of each value
// into folder, if one is named.
func (b *bench) scale(out io.Writer, folder string, most int) error {
	var sizes []int
	for n := 1_000; n <= most; n *= 10 {
		sizes = append(sizes, n)
	}
	var all []*dimension
	few := []int{10, 100, 1_000, 10_000}
	for _, measure := range []struct {
		name string
		of   func([]int) (*dimension, error)
		over []int
	}{
		{"sessions", b.scaleSessions, sizes},
		{"rules", b.scaleRules, few},
		{"edits", b.scaleEdits, few},
		{"replicas", b.scaleReplicas, []int{1, 2, 3}},
		{"users", b.scaleUsers, sizes},
	} {
		if !b.wanted(measure.name) {
			continue
		}
		if b.program == "" || !filepath.IsAbs(b.program) {
			var err error
			if b.program, err = b.build(); err != nil {
				return err
			}
		}
		d, err := measure.of(measure.over)
		b.stopAll()
		if err != nil {
			return err
		}
		all = append(all, d)
	}
	for _, d := range all {
		if err := d.print(out); err != nil {
			return err
		}
		if folder == "" {
			continue
		}
		for _, v := range d.values {
			name := plotted[v]
			if name == "" {
				continue
			}
			if err := os.WriteFile(filepath.Join(folder, d.name+"-"+name+".svg"), []byte(d.plot(v)), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// A loaded is servers that are asked at the same time, with who asks them: open makes that when the turns begin, since a
// server does not wait for long for what a connection is for.
type loaded struct {
	servers []*server
	open    func() ([]caller, error)
	callers []caller
}

// loaded is one server that is asked for 200.
func (b *bench) loaded(s *server, checks [][]byte) loaded {
	return loaded{servers: []*server{s}, open: func() ([]caller, error) { return b.callers(s.addr, 200, checks) }}
}

// measure is one turn of all of them together.
func (l loaded) measure(turn time.Duration) (sample, error) {
	used := func() (sum time.Duration, err error) {
		for _, s := range l.servers {
			t, e := processorTime(s.pid())
			sum, err = sum+t, errors.Join(err, e)
		}
		return sum, err
	}
	before, err := used()
	if err != nil {
		return sample{}, err
	}
	done, err := loop(l.callers, turn)
	if err != nil {
		return sample{}, err
	}
	after, err := used()
	if err == nil && done.requests == 0 {
		err = fmt.Errorf("no answer within %v", turn)
	}
	if err != nil {
		return sample{}, err
	}
	return sample{
		Rate: float64(done.requests) / done.took.Seconds(), P99: micros(done.p99), Processor: micros(after-before) / float64(done.requests),
	}, nil
}

// inTurns measures what is loaded in turns, so that whatever else the machine does falls on all of it, and closes its
// callers. It returns the medians over the rounds, and the median of what the rates of a round are beside the first one's.
func (b *bench) inTurns(all ...loaded) (medians []sample, beside []float64, err error) {
	defer func() {
		for _, l := range all {
			closeAll(l.callers)
		}
	}()
	for k := range all {
		if all[k].callers, err = all[k].open(); err != nil {
			return nil, nil, err
		}
	}
	rounds := make([][]sample, len(all))
	for i := range b.rounds + 1 {
		turn := b.turn
		if i == 0 { // to warm up
			turn = max(b.turn/4, 50*time.Millisecond)
		}
		for k, l := range all {
			v, err := l.measure(turn)
			if err != nil {
				return nil, nil, err
			}
			if i > 0 {
				rounds[k] = append(rounds[k], v)
			}
		}
		if err := b.ctx.Err(); err != nil {
			return nil, nil, err
		}
	}
	of := func(k int, f func(round int, v sample) float64) float64 {
		var values []float64
		for i, v := range rounds[k] {
			values = append(values, f(i, v))
		}
		return median(values)
	}
	for k := range all {
		medians = append(medians, sample{
			Rate:      of(k, func(_ int, v sample) float64 { return v.Rate }),
			Processor: of(k, func(_ int, v sample) float64 { return v.Processor }),
			P99:       of(k, func(_ int, v sample) float64 { return v.P99 }),
		})
		beside = append(beside, of(k, func(i int, v sample) float64 { return v.Rate / rounds[0][i].Rate }))
	}
	return medians, beside, nil
}

// plotted are the values of which there are plots, with what their files are called after the dimension.
var plotted = map[string]string{
	processorValue: "processor", residentValue: "resident", editValue: "edit", togetherValue: "rate", memoryValue: "memory", startValue: "start",
	signInValue: "sign-in", middleValue: "list",
}

const (
	rateValue      = "checks a second on one processor"
	processorValue = "processor time of a check"
	p99Value       = "99th percentile at saturation"
	residentValue  = "resident memory of a session with its token"
	liveValue      = "memory of a session and its user"
)

func (b *bench) scaleSessions(sizes []int) (*dimension, error) {
	d := &dimension{
		name: "sessions", unit: "live sessions, each with a token of RS256's size", values: []string{rateValue, processorValue, p99Value, residentValue, liveValue},
		units: map[string]string{rateValue: "", processorValue: "µs", p99Value: "µs", residentValue: "bytes", liveValue: "bytes"},
	}
	var all []loaded
	for _, n := range sizes {
		b.say("%d sessions", n)
		s, err := b.startChild(childStack, &childSpec{Sessions: n, Permissions: 10, Algorithm: sized, Tokens: true})
		if err != nil {
			return nil, err
		}
		var note stackNote
		if err := json.Unmarshal([]byte(s.note), &note); err != nil {
			return nil, err
		}
		const asked = 1_000
		all = append(all, b.loaded(s, requests(asked, func(i int) []byte { return cookieCheck(i * (n / asked)) })))
		d.steps = append(d.steps, scaleStep{n, map[string]float64{residentValue: note.ResidentPerSession, liveValue: note.BytesPerSession}})
	}
	return d, b.checksOf(d, all)
}

// checksOf measures the checks of all steps of a dimension in turns.
func (b *bench) checksOf(d *dimension, all []loaded) error {
	b.say("%s: all in turns", d.name)
	medians, _, err := b.inTurns(all...)
	for i, v := range medians {
		step := d.steps[i].Values
		step[rateValue], step[processorValue], step[p99Value] = v.Rate, v.Processor, v.P99
	}
	return err
}

func (b *bench) scaleRules(sizes []int) (*dimension, error) {
	d := &dimension{
		name: "rules", unit: "permissions of the role that asks", values: []string{rateValue, processorValue, p99Value},
		units: map[string]string{rateValue: "", processorValue: "µs", p99Value: "µs"},
	}
	var all []loaded
	for _, n := range sizes {
		b.say("%d rules", n)
		s, err := b.startChild(childStack, &childSpec{Sessions: 1_000, Permissions: n, Algorithm: keys.EdDSA})
		if err != nil {
			return nil, err
		}
		all = append(all, b.loaded(s, requests(1_000, cookieCheck)))
		d.steps = append(d.steps, scaleStep{n, map[string]float64{}})
	}
	return d, b.checksOf(d, all)
}

const (
	editValue   = "an edit: stored and in force"
	wholeValue  = "all rules read and compiled"
	againValue  = "one role compiled again"
	startsValue = "a start: rules compiled"
)

// scaleEdits measures edits of a rule among many, all of one role, in an embedded database.
func (b *bench) scaleEdits(sizes []int) (*dimension, error) {
	d := &dimension{
		name: "edits", unit: "permissions of one role", values: []string{editValue, againValue, wholeValue, startsValue},
		units: map[string]string{editValue: "ms", againValue: "ms", wholeValue: "ms", startsValue: "ms"},
	}
	for _, n := range sizes {
		b.say("edits among %d rules", n)
		values, err := b.editAmong(n)
		if err != nil {
			return nil, err
		}
		d.steps = append(d.steps, scaleStep{n, values})
	}
	return d, nil
}

func (b *bench) editAmong(n int) (map[string]float64, error) {
	dir, err := b.folder("edits-" + strconv.Itoa(n))
	if err != nil {
		return nil, err
	}
	box, err := secret.New(secret.NewKey())
	if err != nil {
		return nil, err
	}
	store, err := db.Open(b.ctx, db.Options{URL: "sqlite://" + filepath.Join(dir, "rules.sqlite"), Sealer: box})
	if err != nil {
		return nil, err
	}
	defer store.Close()
	if _, err := store.MigrateUp(b.ctx); err != nil {
		return nil, err
	}
	rows := permissions(n)
	err = store.Update(b.ctx, func(ctx context.Context, tx *db.Tx) error {
		for i := range rows {
			p := &db.Permission{Role: rows[i].Role, Verb: rows[i].Verb, Path: rows[i].Path, Action: rows[i].Action}
			if err := tx.InsertPermission(ctx, db.Who{}, p); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	r, err := rules.New(rules.Options{DB: store})
	if err != nil {
		return nil, err
	}
	if err := r.Reload(b.ctx); err != nil {
		return nil, err
	}
	middle := func(f func() error) (float64, error) {
		var all []float64
		for range max(9, b.rounds) {
			begun := time.Now()
			if err := f(); err != nil {
				return 0, err
			}
			all = append(all, float64(time.Since(begun))/float64(time.Millisecond))
		}
		return median(all), nil
	}
	edits := 0
	edit := func() error {
		edits++
		err := store.Update(b.ctx, func(ctx context.Context, tx *db.Tx) error {
			return tx.InsertPermission(ctx, db.Who{}, &db.Permission{Role: "member", Verb: "ALL", Path: fmt.Sprintf("edit/%d", edits), Action: "ACCEPT"})
		})
		if err != nil {
			return err
		}
		return r.Refresh(b.ctx)
	}
	source := policy.Source{Permissions: rows}
	before, err := policy.Compile(source)
	if err != nil {
		return nil, err
	}
	changed := policy.Source{Permissions: append(slices.Clone(rows), policy.Permission{ID: int64(n) + 1, Role: "member", Verb: "ALL", Path: "edit", Action: "ACCEPT"})}
	out := map[string]float64{}
	for name, f := range map[string]func() error{
		editValue: edit, wholeValue: func() error { return r.Reload(b.ctx) },
		againValue:  func() error { _, err := policy.CompileAfter(before, changed); return err },
		startsValue: func() error { _, err := policy.Compile(source); return err },
	} {
		if out[name], err = middle(f); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// digits is a number in as many digits as say something.
func digits(v float64) string {
	switch {
	case v >= 100:
		return strconv.FormatFloat(math.Round(v), 'f', 0, 64)
	case v >= 1:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 3, 64)
}

func (d *dimension) print(out io.Writer) error {
	head, line := "| "+d.unit, "| ---"
	for _, v := range d.values {
		head += " | " + v
		if u := d.units[v]; u != "" {
			head += ", " + u
		}
		line += " | ---"
	}
	_, err := fmt.Fprintf(out, "\n### %s\n\n%s |\n%s |\n", d.name, head, line)
	for _, s := range d.steps {
		row := "| " + strconv.Itoa(s.N)
		for _, v := range d.values {
			row += " | " + digits(s.Values[v])
		}
		_, e := fmt.Fprintf(out, "%s |\n", row)
		err = errors.Join(err, e)
	}
	return err
}

// plot draws one value over the sizes, which are far apart and so stand in powers.
func (d *dimension) plot(value string) string {
	const width, height, left, bottom = 640, 320, 70, 40
	most := 0.0
	for _, s := range d.steps {
		most = max(most, s.Values[value])
	}
	if most == 0 {
		most = 1
	}
	first, last := math.Log10(float64(d.steps[0].N)), math.Log10(float64(d.steps[len(d.steps)-1].N))
	x := func(n int) float64 {
		if last == first {
			return left
		}
		return left + (math.Log10(float64(n))-first)/(last-first)*(width-left-40)
	}
	y := func(v float64) float64 { return height - bottom - v/most*(height-bottom-40) }
	var b strings.Builder
	title := value
	if u := d.units[value]; u != "" {
		title += ", " + u
	}
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12" role="img" aria-label="%s by %s">`+"\n", width, height, title, d.unit)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/><text x="%d" y="20" font-size="14">%s</text><text x="%d" y="%d" text-anchor="middle">%s</text>`+"\n",
		width, height, left, title, width/2, height-4, d.unit)
	for _, part := range []float64{0, 0.5, 1} {
		v := most * part
		fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n",
			left, width-20, y(v), y(v), left-6, y(v)+4, digits(v))
	}
	var points []string
	for _, s := range d.steps {
		points = append(points, fmt.Sprintf("%.1f,%.1f", x(s.N), y(s.Values[value])))
	}
	fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="#1769aa" stroke-width="2"/>`+"\n", strings.Join(points, " "))
	for _, s := range d.steps {
		fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="4" fill="#1769aa"/><text x="%.1f" y="%d" text-anchor="middle">%d</text><text x="%.1f" y="%.1f" text-anchor="middle">%s</text>`+"\n",
			x(s.N), y(s.Values[value]), x(s.N), height-bottom+18, s.N, x(s.N), y(s.Values[value])-9, digits(s.Values[value]))
	}
	return b.String() + "</svg>\n"
}
