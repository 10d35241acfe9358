// Command demo shows the gateway at work on one machine: the program on its embedded default, a real Envoy in front of
// it with the reference configuration, and a service behind Envoy that shows what it was given. It prints what to paste
// into another terminal, and ends everything in order when it is interrupted.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"barong/internal/test/testkit"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Getenv, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// How long a program may take to start and to end.
const (
	startTime = 60 * time.Second
	stopTime  = 15 * time.Second
)

func run(ctx context.Context, args []string, getenv func(string) string, stdout io.Writer) (err error) {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	dir := flags.String("dir", "", "folder for data and logs; .run of the repository by default")
	program := flags.String("barong", "", "the program; bin/barong of the repository by default, built when it is missing")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	root, err := testkit.FindRoot()
	if err != nil {
		return err
	}
	if *dir == "" {
		*dir = filepath.Join(root, ".run")
	}
	if *dir, err = filepath.Abs(*dir); err != nil {
		return err
	}
	if err := os.MkdirAll(*dir, 0o700); err != nil {
		return err
	}
	if *program == "" {
		*program = filepath.Join(root, "bin", "barong")
	}
	if *program, err = filepath.Abs(*program); err != nil {
		return err
	}
	fmt.Fprintln(stdout, "Starting barong and Envoy ...")
	if err := prepare(ctx, root, *program); err != nil {
		return err
	}
	d := &demo{root: root, dir: *dir, program: *program, stdout: stdout}
	defer func() { err = errors.Join(err, d.stop()) }()
	if err := d.start(ctx, getenv); err != nil {
		return err
	}
	d.print()
	return d.wait(ctx)
}

// prepare installs Envoy, and builds the program when there is none.
func prepare(ctx context.Context, root, program string) error {
	commands := [][]string{{"sh", filepath.Join(root, ".ci", "tools")}}
	if _, err := os.Stat(program); errors.Is(err, fs.ErrNotExist) {
		commands = append(commands, []string{"go", "build", "-o", program, "./cmd/barong"})
	}
	for _, command := range commands {
		cmd := exec.CommandContext(ctx, command[0], command[1:]...)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(command, " "), err, out)
		}
	}
	return nil
}

// A demo is everything that runs.
type demo struct {
	root, dir, program string
	stdout             io.Writer

	gateway, api, checks, grpc, ops, service string // addresses

	email, password string // password is empty when an earlier start made and printed it
	children        []*child
	upstream        *http.Server // the service
}

func (d *demo) start(ctx context.Context, getenv func(string) string) error {
	for _, a := range []struct {
		addr               *string
		variable, standard string
	}{
		{&d.gateway, "", "127.0.0.1:8000"},
		{&d.service, "", "127.0.0.1:8090"},
		{&d.api, "BARONG_HTTP_ADDR", "127.0.0.1:8080"},
		{&d.checks, "BARONG_CHECK_ADDR", "127.0.0.1:8081"},
		{&d.grpc, "BARONG_GRPC_ADDR", "127.0.0.1:9191"},
		{&d.ops, "BARONG_OPS_ADDR", "127.0.0.1:9090"},
	} {
		addr, err := freeAddress(getenv(a.variable), a.standard)
		if err != nil {
			return err
		}
		*a.addr = addr
	}
	if err := d.credentials(getenv); err != nil {
		return err
	}
	if err := d.serveUpstream(); err != nil {
		return err
	}
	env := append(os.Environ(), "BARONG_HTTP_ADDR="+d.api, "BARONG_CHECK_ADDR="+d.checks, "BARONG_GRPC_ADDR="+d.grpc,
		"BARONG_OPS_ADDR="+d.ops, "ADMIN_EMAIL="+d.email)
	if d.password != "" {
		env = append(env, "ADMIN_PASSWORD="+d.password)
	}
	barong, err := d.run("barong", env, d.program, "serve")
	if err != nil {
		return err
	}
	if err := barong.await(ctx, "http://"+d.ops+"/readyz", http.StatusOK); err != nil {
		return err
	}
	config, err := d.envoyConfiguration()
	if err != nil {
		return err
	}
	gateway, err := d.run("envoy", os.Environ(), filepath.Join(d.root, ".tools", "servers", "envoy"),
		"-c", config, "--concurrency", "2", "--use-dynamic-base-id", "--log-level", "warn")
	if err != nil {
		return err
	}
	return gateway.await(ctx, "http://"+d.gateway+"/hello", http.StatusUnauthorized)
}

// freeAddress is the address asked for, or the standard one, or the same host with another port when that one is taken.
func freeAddress(asked, standard string) (string, error) {
	if asked == "" {
		asked = standard
	}
	host, _, err := net.SplitHostPort(asked)
	if err != nil {
		return "", err
	}
	l, err := net.Listen("tcp", asked)
	if err != nil {
		if l, err = net.Listen("tcp", net.JoinHostPort(host, "0")); err != nil {
			return "", err
		}
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// credentials makes a password for the first start; later ones know it only if they are told.
func (d *demo) credentials(getenv func(string) string) error {
	d.email, d.password = getenv("ADMIN_EMAIL"), getenv("ADMIN_PASSWORD")
	if d.email == "" {
		d.email = "admin@barong.io"
	}
	_, err := os.Stat(filepath.Join(d.dir, "data", "barong.db"))
	if d.password != "" || err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	b := make([]byte, 12)
	if _, err := rand.Read(b); err != nil {
		return err
	}
	d.password = base64.RawURLEncoding.EncodeToString(b) + "-aA1" // one of each kind that passwords must have
	return nil
}

// envoyConfiguration is the reference configuration, with other ports where the usual ones are taken.
func (d *demo) envoyConfiguration() (string, error) {
	b, err := os.ReadFile(filepath.Join(d.root, "envoy", "envoy.yaml"))
	if err != nil {
		return "", err
	}
	ports := map[string]string{"8000": d.gateway, "8080": d.api, "8081": d.checks, "8090": d.service}
	b = regexp.MustCompile(`\b(8000|8080|8081|8090)\b`).ReplaceAllFunc(b, func(port []byte) []byte {
		_, other, _ := net.SplitHostPort(ports[string(port)])
		return []byte(other)
	})
	b = bytes.Replace(b, []byte(everythingElse), []byte(front+everythingElse), 1)
	path := filepath.Join(d.dir, "envoy.yaml")
	return path, os.WriteFile(path, b, 0o600)
}

// front leads whoever opens the gateway's own address to a page of the service, which is checked as all others are. The
// root itself is a path that no rule can name.
const (
	everythingElse = "              # Everything else is the service's.\n"
	front          = `              - match: { path: / }
                redirect: { path_redirect: ` + page + ` }
                typed_per_filter_config:
                  envoy.filters.http.ext_authz:
                    "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute
                    disabled: true
`
	// page is one that the built-in rules open to staff.
	page = "/admin/"
)

// print says what runs and what to try.
func (d *demo) print() {
	out := &strings.Builder{}
	jar := quote(filepath.Join(d.dir, "cookies"))
	fmt.Fprintf(out, `
Envoy asks barong about every request to http://%s, and hands those that may pass to a small service behind it.
Logs and data are in %s; remove that folder to start afresh.

  superadmin  %s
`, d.gateway, d.dir, d.email)
	password := quote("password=" + d.password)
	if d.password == "" {
		password = `"password=$ADMIN_PASSWORD"`
		fmt.Fprint(out, "  password    printed by the first start; say ADMIN_PASSWORD='...' in the other terminal\n")
	} else {
		fmt.Fprintf(out, "  password    %s  (not printed again)\n", d.password)
	}
	fmt.Fprint(out, "\nPaste these into another terminal:\n")
	base := "http://" + d.gateway
	steps := []struct{ what, command string }{
		{"Nobody is signed in: 401.", "curl -i " + base + "/api/v2/peatio/account/balances"},
		{
			"Sign in. The session goes into a cookie jar, the CSRF token into a variable.",
			fmt.Sprintf(`CSRF=$(curl -s -c %s --data-urlencode %s --data-urlencode %s %s/api/v2/barong/identity/sessions | `+
				`sed 's/.*"csrf_token":"\([^"]*\)".*/\1/'); echo "$CSRF"`, jar, quote("email="+d.email), password, base),
		},
		{"The same request now passes: the service is given a signed token that says who asks.", fmt.Sprintf("curl -i -b %s %s/api/v2/peatio/account/balances", jar, base)},
		{"A call that changes something is refused without the CSRF token ...", fmt.Sprintf("curl -i -b %s -X POST %s/api/v2/peatio/market/orders", jar, base)},
		{"... and passes with it.", fmt.Sprintf(`curl -i -b %s -X POST -H "X-CSRF-Token: $CSRF" %s/api/v2/peatio/market/orders`, jar, base)},
		{"A public path asks nobody, and a forged token does not get through.", "curl -i -H 'Authorization: Bearer forged' " + base + "/api/v2/peatio/public/markets"},
		{"Sign out ...", fmt.Sprintf(`curl -i -b %s -X DELETE -H "X-CSRF-Token: $CSRF" %s/api/v2/barong/identity/sessions`, jar, base)},
		{"... and the cookie is worth nothing: 401.", fmt.Sprintf("curl -i -b %s %s/api/v2/peatio/account/balances", jar, base)},
		{"The keys with which services verify tokens.", "curl -i http://" + d.api + "/.well-known/jwks.json"},
	}
	for i, step := range steps {
		fmt.Fprintf(out, "\n%d. %s\n   %s\n", i+1, step.what, step.command)
	}
	fmt.Fprintf(out, "\nCtrl-C ends it. In a browser, a page behind the gateway asks to sign in:\n\n  open %s/\n", base)
	fmt.Fprint(d.stdout, out.String())
}

// quote makes one word of a shell of the text.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// wait returns when the demo is interrupted, or when one of its programs ends by itself.
func (d *demo) wait(ctx context.Context) error {
	ended := make(chan *child, len(d.children))
	for _, c := range d.children {
		go func() {
			<-c.done
			ended <- c
		}()
	}
	select {
	case <-ctx.Done():
		fmt.Fprintln(d.stdout, "\nEnding ...")
		return nil
	case c := <-ended:
		return c.failure("has ended")
	}
}

// stop ends the programs, the last started first: the gateway before what it asks, and the service last.
func (d *demo) stop() error {
	var errs []error
	for _, c := range slices.Backward(d.children) {
		errs = append(errs, c.stop())
	}
	if d.upstream != nil {
		errs = append(errs, d.upstream.Close())
	}
	return errors.Join(errs...)
}

// A child is a program that runs.
type child struct {
	name, log string
	cmd       *exec.Cmd
	done      chan struct{}
	err       error // of its end; read after done
}

// run starts a program whose output goes to a file beside its data.
func (d *demo) run(name string, env []string, path string, args ...string) (*child, error) {
	c := &child{name: name, log: filepath.Join(d.dir, name+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	c.cmd = exec.Command(path, args...)
	c.cmd.Dir, c.cmd.Env, c.cmd.Stdout, c.cmd.Stderr = d.dir, env, log, log
	// In a group of its own, an interrupt at the terminal does not reach it: it is ended in its turn.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		c.err = c.cmd.Wait()
		close(c.done)
	}()
	d.children = append(d.children, c)
	return c, nil
}

// await asks the address until it answers with the status.
func (c *child) await(ctx context.Context, address string, status int) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	client := &http.Client{Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
		if err != nil {
			return err
		}
		if res, err := client.Do(req); err == nil {
			res.Body.Close()
			if res.StatusCode == status {
				return nil
			}
		}
		select {
		case <-c.done:
			return c.failure("has ended")
		case <-ctx.Done():
			return c.failure("is not ready")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// failure says what became of the program, with the end of what it wrote.
func (c *child) failure(what string) error {
	b, err := os.ReadFile(c.log)
	if err != nil {
		return fmt.Errorf("%s %s: %w", c.name, what, err)
	}
	const most = 4 << 10
	return fmt.Errorf("%s %s (%s):\n%s", c.name, what, c.log, bytes.TrimSpace(b[max(len(b)-most, 0):]))
}

// stop asks the program to end, and ends it when that takes too long.
func (c *child) stop() error {
	select {
	case <-c.done:
		return nil
	default:
	}
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end %s: %w", c.name, err)
	}
	select {
	case <-c.done:
		return nil
	case <-time.After(stopTime):
	}
	_ = c.cmd.Process.Kill() // the error says that it has ended after all
	<-c.done
	return fmt.Errorf("%s did not end within %s and was killed", c.name, stopTime)
}

// serveUpstream runs the service behind the gateway.
func (d *demo) serveUpstream() error {
	l, err := net.Listen("tcp", d.service)
	if err != nil {
		return err
	}
	d.upstream = &http.Server{Handler: http.HandlerFunc(show), ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = d.upstream.Serve(l) }() // the error says that it was closed
	return nil
}

// show answers with the request as it arrived, and with what its token says: browsers with a page.
func show(w http.ResponseWriter, r *http.Request) {
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		showPage(w, r)
		return
	}
	out := &strings.Builder{}
	fmt.Fprintf(out, "The service was asked: %s %s\n", r.Method, r.RequestURI)
	for _, name := range []string{"Authorization", "User-Agent", "X-Forwarded-For", "X-Forwarded-Proto", "X-Request-Id"} {
		if value := r.Header.Get(name); value != "" {
			fmt.Fprintf(out, "  %s: %s\n", name, value)
		}
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if parts := strings.Split(token, "."); ok && len(parts) == 3 {
		if claims, err := base64.RawURLEncoding.DecodeString(parts[1]); err == nil {
			fmt.Fprintf(out, "The token says: %s\n", claims)
		}
	} else {
		fmt.Fprintln(out, "No token came with it.")
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, out.String())
}

var behind = template.Must(template.New("").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Behind the gateway</title><meta name="color-scheme" content="light dark">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"></head>
<body><main><h1>Behind the gateway</h1>
<p>This page is a service's own. It knows nothing about passwords and sessions: the gateway let your request pass, and told it
who you are.</p>
<dl><dt>Address</dt><dd>{{.Email}}</dd><dt>Role</dt><dd>{{.Role}}</dd><dt>Id</dt><dd>{{.UID}}</dd></dl>
<p><a href="/accounts/">Your account</a> · <a href="/console/">Console for staff</a> · <a href="/accounts/signout">Sign out</a></p>
</main></body></html>
`))

// showPage says who is signed in, as the token tells.
func showPage(w http.ResponseWriter, r *http.Request) {
	var claims struct{ Email, Role, UID string }
	if parts := strings.Split(r.Header.Get("Authorization"), "."); len(parts) == 3 {
		if text, err := base64.RawURLEncoding.DecodeString(parts[1]); err == nil {
			_ = json.Unmarshal(text, &claims) // a token that says nothing leaves the page empty
		}
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_ = behind.Execute(w, claims) // the browser has gone
}
