// Bench measures what a check costs beside a server that answers the same bytes without deciding anything. Both run on
// one processor, the load on another, and they take turns: what is left of a noisy machine falls on both, so the ratios
// of one run can be trusted where its microseconds cannot.
//
//	go run ./bench                    everything, in some minutes
//	go run ./bench -quick             a smoke test of this program, in some seconds; its ratios mean little
//	go run ./bench -only cookie       the rows whose name has that in it
//	go run ./bench -free              nothing is bound to a processor; for "sign in", the row that is about more than one
//	go run ./bench -json FILE         keeps the report
//	go run ./bench compare OLD NEW    what changed between two reports
//	go run ./bench scale              how the parts grow; docs/scale.md is written from what it prints
//
// The load is made by fortio's periodic runner (closed loop: each connection sends its next request when it has its
// answer) and, where latency beside something else counts, by vegeta (constant rate). See docs/performance.md for how to
// read the output.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"barong/internal/test/testkit"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	quick := flags.Bool("quick", os.Getenv("BENCH_QUICK") != "", "a smoke test: few rounds, short ones, and not every row (BENCH_QUICK=1)")
	only := flags.String("only", "", "only the rows and facts whose name has this in it")
	file := flags.String("json", "", "also write the report to this file")
	program := flags.String("barong", "", "the program to measure; without it, it is built")
	rounds := flags.Int("rounds", 0, "turns of each server; 0 is 7, or 1 with -quick")
	turn := flags.Duration("turn", 0, "length of a turn; 0 is 1s, or 200ms with -quick")
	connections := flags.Int("connections", 64, "connections of the closed loop")
	free := flags.Bool("free", false, "bind nothing to a processor: servers and load share them all")
	plots := flags.String("plots", "", "scale: the folder for plots")
	most := flags.Int("most", 1_000_000, "scale: the most sessions and users")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	switch {
	case flags.Arg(0) == "child" && flags.NArg() == 2:
		return child(flags.Arg(1))
	case flags.Arg(0) == "compare" && flags.NArg() == 3:
		before, err := readReport(flags.Arg(1))
		if err != nil {
			return err
		}
		after, err := readReport(flags.Arg(2))
		if err != nil {
			return err
		}
		return compare(out, before, after)
	case flags.Arg(0) == "scale" && flags.NArg() == 1:
	case flags.NArg() != 0:
		return fmt.Errorf("unknown arguments %q", flags.Args())
	}
	root, err := testkit.FindRoot()
	if err != nil {
		return err
	}
	b := &bench{
		ctx: ctx, root: root, program: *program, only: *only, quick: *quick, connections: *connections, rounds: *rounds, turn: *turn,
		progress: os.Stderr, serverCore: -1, loadCore: -1,
	}
	if b.rounds <= 0 {
		b.rounds = 7
		if b.quick {
			b.rounds = 1
		}
	}
	if b.turn <= 0 {
		b.turn = time.Second
		if b.quick {
			b.turn = 200 * time.Millisecond
		}
	}
	b.report = report{
		Commit: output(root, "git", "describe", "--always", "--dirty"), Time: time.Now().UTC().Truncate(time.Second),
		Go: runtime.Version(), Processor: processorName(), Quick: b.quick,
	}
	if !*free {
		if err := b.place(); err != nil {
			return err
		}
	}
	if b.tmp, err = os.MkdirTemp("", "barong-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.tmp)
	defer b.stopAll()
	if flags.Arg(0) == "scale" {
		return b.scale(out, *plots, *most)
	}
	if b.program, err = b.build(); err != nil {
		return err
	}
	failed := b.everything()
	if *file != "" {
		if err := b.report.write(*file); err != nil {
			return err
		}
	}
	return errors.Join(failed, b.report.print(out))
}

// A bench is a run.
type bench struct {
	ctx         context.Context
	root        string // of the repository
	tmp         string
	program     string
	only        string
	quick       bool
	rounds      int
	turn        time.Duration
	connections int
	progress    io.Writer

	serverCore, loadCore int // -1: wherever the system likes
	otherCores           []int

	servers []*server // that run now
	report  report
}

// place gives the servers a processor of their own, and the load another.
func (b *bench) place() error {
	const bound = "BARONG_BENCH_CORES"
	if text := os.Getenv(bound); text != "" { // this is the program that was started anew
		var list []int
		for _, word := range strings.Fields(text) {
			n, err := strconv.Atoi(word)
			if err != nil {
				return fmt.Errorf("%s: %w", bound, err)
			}
			list = append(list, n)
		}
		if len(list) < 2 {
			return fmt.Errorf("%s names %d processors", bound, len(list))
		}
		b.serverCore, b.loadCore, b.otherCores = list[0], list[1], list[2:]
		b.report.Cores = list[:2]
		return nil
	}
	switch list := cores(); {
	case len(list) == 0:
		b.report.Notes = append(b.report.Notes, "Processes cannot be bound to a processor here: GOMAXPROCS=1 keeps the servers to one at a time.")
	case len(list) == 1:
		b.report.Notes = append(b.report.Notes, "There is one processor: load and servers share it, so rates say nothing; processor time does.")
	default:
		load := list[len(list)-1]
		text := fmt.Sprint(list[0], load)
		for _, other := range list[1 : len(list)-1] {
			text += fmt.Sprint(" ", other)
		}
		if err := os.Setenv(bound, text); err != nil {
			return err
		}
		return bindTo(load)
	}
	return nil
}

func (b *bench) build() (string, error) {
	if b.program != "" {
		return filepath.Abs(b.program)
	}
	b.say("building the program")
	path := filepath.Join(b.tmp, "barong")
	c := exec.CommandContext(b.ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "./cmd/barong")
	c.Dir, c.Env = b.root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the program: %w\n%s", err, out)
	}
	return path, nil
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.progress, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

func (b *bench) stopAll() {
	for _, s := range b.servers {
		s.stop()
	}
	b.servers = nil
}

// wanted reports whether the run includes what has that name.
func (b *bench) wanted(names ...string) bool {
	for _, name := range names {
		if strings.Contains(name, b.only) {
			return true
		}
	}
	return false
}

// output is what a command says, or "unknown".
func output(dir, name string, args ...string) string {
	c := exec.Command(name, args...)
	c.Dir = dir
	out, err := c.Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

func processorName() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
