// Command barong is the whole program: the gateway check, the REST API, and the commands that look after them. This
// package parses the command line, opens what a command needs, and runs it; it holds no logic of the service.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"barong/internal/config"
	"barong/internal/fault"

	"github.com/alecthomas/kong"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == hashArgument {
		os.Exit(hash())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// Copies: what stands where the system shows it is blanked (keepInside), and os.Args points there.
	args := slices.Clone(os.Args[1:])
	for i := range args {
		args[i] = strings.Clone(args[i])
	}
	status := run(ctx, args, os.Environ(), os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// Exit statuses.
const (
	statusOK      = 0
	statusFailed  = 1
	statusInvalid = 2 // bad configuration or command line
	statusReports = 3 // the work is done, and there is something to tell about it
)

// errFailed ends a command with status 1 that has said already what is wrong.
var errFailed = errors.New("failed")

// errReports ends a command with status 3 that has said what there is to tell.
var errReports = errors.New("there is something to look at")

// A usageError is a mistake on the command line.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }

// run runs one command to its end and returns the exit status. environ is as os.Environ returns it.
func run(ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) (status int) {
	redis.SetLogger(&logging.VoidLogger{}) // it writes lines of its own to standard error; every error also comes back
	p := &program{ctx: ctx, environ: environ, stdin: stdin, stdout: stdout, stderr: stderr}
	var c cli
	c.settings()
	exited := -1
	parser, err := kong.New(&c,
		kong.Name("barong"), kong.Description("An auth sidecar for gateways, with the REST API of Barong 2.4."),
		kong.Writers(stdout, stderr), kong.Exit(func(code int) { exited = code; panic(exit{}) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true, WrapUpperBound: 120}), kong.Help(c.printHelp), kong.Bind(p),
	)
	if err != nil {
		fmt.Fprintln(stderr, "barong:", err)
		return statusFailed
	}
	defer func() {
		// kong prints help and then exits; here it comes back instead.
		if r := recover(); r != nil {
			if _, ok := r.(exit); !ok {
				panic(r)
			}
			status = exited
		}
	}()
	parsed, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(stderr, "barong: %v (barong --help lists what there is)\n", err)
		return statusInvalid
	}
	p.flags = c.given()
	return p.report(parsed.Run(p))
}

type exit struct{}

// A program is what a command finds around it.
type program struct {
	ctx            context.Context // ends with SIGINT and SIGTERM
	flags          map[string]string
	environ        []string
	stdin          io.Reader
	stdout, stderr io.Writer
}

// load loads the configuration. Beside an error, it returns what could be read.
func (p *program) load() (*config.Config, error) { return config.Load(p.flags, p.environ, judges...) }

// config loads the configuration, and says on standard error what it warns of. Beside an error, it returns what
// could be read. read are variables of the original's that this command uses, and others do not.
func (p *program) config(read ...string) (*config.Config, error) {
	c, err := p.load()
	if err != nil {
		return c, err
	}
	for _, w := range c.Warnings() {
		if !slices.ContainsFunc(read, func(name string) bool {
			rest, is := strings.CutPrefix(w, name)
			rest = strings.TrimPrefix(rest, "_FILE")
			return is && (strings.HasPrefix(rest, " has no effect") || strings.HasPrefix(rest, " is not a known setting"))
		}) {
			fmt.Fprintln(p.stderr, "warning:", w)
		}
	}
	return c, nil
}

// report says on standard error what ended a command, and returns the exit status.
func (p *program) report(err error) int {
	var bad *config.Error
	switch {
	case err == nil:
		return statusOK
	case errors.As(err, &bad):
		for _, line := range bad.Problems {
			fmt.Fprintln(p.stderr, "barong:", line)
		}
		return statusInvalid
	case errors.Is(err, errFailed):
		return statusFailed
	case errors.Is(err, errReports):
		return statusReports
	}
	// The code is one of answers to clients; what is behind it is told.
	fmt.Fprintln(p.stderr, "barong:", strings.ReplaceAll(oneLine(err), string(fault.Unavailable)+": ", ""))
	if _, usage := errors.AsType[*usageError](err); usage {
		return statusInvalid
	}
	return statusFailed
}

// oneLine is an error's text on one line: drivers break theirs, and logs of services are read line by line.
func oneLine(err error) string {
	var lines []string
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimSuffix(strings.TrimSpace(line), ":"); line != "" && !slices.Contains(lines, line) {
			lines = append(lines, line) // a driver that tries twice says the same twice
		}
	}
	return strings.Join(lines, ": ")
}
