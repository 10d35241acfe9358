package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"barong/db"
	"barong/envoy"
	"barong/internal/config"
	"barong/internal/crypto/keys"
	"barong/internal/delivery/events"
	"barong/internal/delivery/mail"
	"barong/internal/obs"
	"barong/internal/openid"
	"barong/session/redisstore"
)

// A doctorCommand checks everything that the configuration names.
type doctorCommand struct {
	GatewayFile []string `placeholder:"FILE" help:"Look into a configuration of the gateway too (Envoy, Istio, Traefik, Caddy, nginx) for what lets requests pass unchecked; may be given several times."`
	Through     string   `placeholder:"URL" help:"Send what strangers and careless clients send through the gateway at this address, and say what leaks or breaks."`
	Path        string   `placeholder:"PATH" help:"With --through: a path behind it that needs a credential; default: one of this program's own API."`
	Public      string   `placeholder:"PATH" help:"With --through: a path behind it that everybody may have; default: one of this program's own API."`
	Echo        string   `placeholder:"PATH" help:"With --through: a public path of a service that answers with the headers it was given, to see what reaches services."`
	Origin      string   `placeholder:"ORIGIN" help:"With --through: the origin of a front end, such as https://app.example.com, to try what its browsers send first."`
	Kind        string   `placeholder:"envoy|traefik|caddy|nginx|haproxy" enum:",envoy,traefik,caddy,nginx,haproxy" default:"" help:"With --through: which gateway that is, to name its lines; else it is asked."`
}

// Help is shown below the command's usage.
func (doctorCommand) Help() string {
	return "Prints a line for each thing it looks at: what, ok, warning or FAILED, and why. The exit status is 1 when something " +
		"failed. With --through it asks a gateway as strangers do: odd paths, forged headers, preflights, large bodies and cookies. It changes nothing, works beside a running server, and makes none of what the first start would make."
}

// probeTimeout bounds each look at another server.
const probeTimeout = 5 * time.Second

// A warning is a finding that does not fail.
type warning string

func (w warning) Error() string { return string(w) }

// Run looks at everything.
func (d doctorCommand) Run(p *program) error {
	c, err := p.load()
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	failed := false
	line := func(what, detail string, err error) {
		state := "ok"
		var found warning
		switch {
		case errors.As(err, &found):
			state, detail = "warning", err.Error()
		case err != nil:
			state, detail = "FAILED", strings.ReplaceAll(err.Error(), "\n", "; ")
			failed = true
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", what, state, detail)
	}
	look := func(what string, f func(ctx context.Context) (string, error)) {
		ctx, cancel := context.WithTimeout(p.ctx, probeTimeout)
		defer cancel()
		detail, err := f(ctx)
		line(what, detail, err)
	}

	for _, text := range c.Warnings() {
		line("configuration", "", warning(text))
	}
	if err := c.Validate(); err != nil {
		for _, problem := range err.(*config.Error).Problems {
			line("configuration", "", errors.New(problem))
		}
	} else {
		line("configuration", "BARONG_ENV="+c.Env, nil)
	}
	for _, folder := range folders(c) {
		line("folder "+folder, "writable", writable(folder))
	}
	if c.ManagementFile != "" {
		look("management API", func(context.Context) (string, error) {
			services, err := openServices(c)
			if err == nil && len(services.Warnings) > 0 {
				err = warning(strings.Join(services.Warnings, "; "))
			}
			return fmt.Sprintf("%s: %d signers, %d scopes", c.ManagementFile, len(services.Keychain), len(services.Scopes)), err
		})
	}
	if c.MailerFile != "" && c.Mailer == "on" && c.BrokerURL() != "" {
		look("mailer", func(context.Context) (string, error) {
			letters, err := newLetters(c)
			if err != nil {
				return "", err
			}
			file, err := openMailerFile(c, letters)
			if err != nil {
				return "", err
			}
			if len(file.Warnings) > 0 {
				err = warning(strings.Join(file.Warnings, "; "))
			}
			return fmt.Sprintf("%s: %d events of other services", c.MailerFile, len(file.Bindings())), err
		})
	}
	lookAtProviders(c, look)
	look("trusted proxies", func(ctx context.Context) (string, error) { return lookAtProxies(ctx, c) })
	look("secret key", func(context.Context) (string, error) { return lookAtSecretKey(c) })
	look("signing keys", func(context.Context) (string, error) { return lookAtKeys(c) })
	p.lookAtDatabase(c, look)
	if c.RedisURL != "" {
		look("redis", func(ctx context.Context) (string, error) { return lookAtRedis(ctx, c) })
	}
	if c.SMTPHost != "" {
		look("smtp", func(ctx context.Context) (string, error) {
			return greeting(ctx, c)
		})
	}
	if broker := c.BrokerURL(); broker != "" {
		look("message broker", func(ctx context.Context) (string, error) {
			server, err := events.Probe(ctx, broker)
			if err != nil {
				return "", fmt.Errorf("%s: %w", broker, err)
			}
			return broker.String() + ", " + server, nil
		})
	}
	if c.NATSURL != "" {
		look("nats", func(ctx context.Context) (string, error) {
			server, err := events.ProbeNATS(ctx, natsOptions(c))
			if err != nil {
				return "", fmt.Errorf("%s: %w", c.NATSURL, err)
			}
			return c.NATSURL.String() + ", " + server, nil
		})
	}
	if d.Through != "" {
		if err := d.through(p.ctx, c, line); err != nil {
			return err
		}
	}
	for _, name := range d.GatewayFile {
		detail, err := lookAtGateway(p.ctx, name, slices.Contains(c.APIKeySchemes, "rfc9421"))
		line("gateway "+name, detail, err)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if failed {
		return errFailed
	}
	return nil
}

// lookAtGateway reads a configuration of a gateway. What opens it fails, what else is found is a warning. signed says that
// requests may be signed whole.
func lookAtGateway(ctx context.Context, name string, signed bool) (string, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	read, err := envoy.Lint(text)
	if err != nil {
		return "", err
	}
	if read.Gateway == "" && len(read.Found) == 0 {
		return "", errors.New("not recognised: no configuration of Envoy, Istio, Contour, Traefik, Caddy, nginx or HAProxy that can be read")
	}
	var whole envoy.Linted
	var refused error
	if !json.Valid(text) { // which would be Caddy's own form, without includes
		whole, refused = asGateway(ctx, read.Gateway, name)
	}
	var all []string
	open := false
	for _, f := range read.Found {
		if f.Signed && !signed {
			continue
		}
		all = append(all, f.String())
		open = open || f.Open
	}
	if read.Unasked != nil && !whole.Asks {
		all = append(all, read.Unasked.String())
		open = true
	}
	if refused != nil {
		all = append(all, refused.Error())
	}
	switch problem := strings.Join(all, "; "); {
	case open:
		return "", errors.New(problem)
	case problem != "":
		return "", warning(problem)
	case !read.Asks && !whole.Asks:
		return read.Gateway + ", nothing found that opens it; no check is asked here, so look at its other files too", nil
	}
	return read.Gateway + ", nothing found that opens it", nil
}

// lookAtProviders asks each provider what it says about itself.
func lookAtProviders(c *config.Config, look func(string, func(context.Context) (string, error))) {
	list, _, warnings, err := openProviders(c)
	if err != nil || len(warnings) > 0 {
		look("providers", func(context.Context) (string, error) {
			if err != nil {
				return "", err
			}
			return "", warning(strings.Join(warnings, "; "))
		})
	}
	all := openid.New(openid.Options{Providers: list})
	for _, one := range list {
		look("provider "+one.ID, func(ctx context.Context) (string, error) { return one.Issuer, all.Probe(ctx, one.ID) })
	}
}

// lookAtProxies asks a running server for peers that forward and are not trusted to.
func lookAtProxies(ctx context.Context, c *config.Config) (string, error) {
	detail := "none"
	if networks := c.TrustedProxies.String(); networks != "" {
		detail = networks
	}
	status, metrics, err := askServer(ctx, c, "/metrics")
	if err != nil || status != http.StatusOK {
		return detail + "; no running server says whether others send X-Forwarded-For", nil
	}
	for line := range strings.Lines(string(metrics)) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), forwarders+" "); ok && n != "0" {
			return "", warning(fmt.Sprintf("%s; X-Forwarded-For of other peers was ignored in %s calls: everybody behind such a peer counts as "+
				"one client, with one address for restrictions and one counter of sign-in attempts; the log names the peers, "+
				"and if one is a gateway of yours, add it to BARONG_TRUSTED_PROXIES", detail, n))
		}
	}
	return detail + "; no other peer has sent X-Forwarded-For", nil
}

// asGateway has the gateway's own program, if it is here, read a configuration with what it includes. The error says that
// it does not take it.
func asGateway(ctx context.Context, gateway, name string) (envoy.Linted, error) {
	path, err := filepath.Abs(name)
	if err != nil {
		return envoy.Linted{}, nil
	}
	var line []string
	switch gateway {
	case "Caddy":
		line = []string{"caddy", "adapt", "--adapter", "caddyfile", "--config", path}
	case "nginx":
		line = []string{"nginx", "-T", "-q", "-p", filepath.Dir(path), "-c", path}
	case "HAProxy":
		line = []string{"haproxy", "-c", "-q", "-f", path}
	default:
		return envoy.Linted{}, nil
	}
	program, err := exec.LookPath(line[0])
	if err != nil {
		return envoy.Linted{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, gatewayTime)
	defer cancel()
	var errs strings.Builder
	cmd := exec.CommandContext(ctx, program, line[1:]...)
	cmd.Dir, cmd.Stderr, cmd.WaitDelay = filepath.Dir(path), &errs, time.Second
	out, err := cmd.Output()
	if err != nil {
		said := strings.TrimSpace(errs.String())
		if first, _, ok := strings.Cut(said, "\n"); ok && gateway == "HAProxy" { // which ends with how many there are
			said = first
		} else if i := strings.LastIndexByte(said, '\n'); i >= 0 {
			said = said[i+1:]
		}
		var entry struct{ Msg string } // as Caddy says it
		if json.Unmarshal([]byte(said), &entry) == nil {
			said = entry.Msg
		}
		return envoy.Linted{}, fmt.Errorf("%s does not take it: %s", line[0], cmp.Or(said, err.Error()))
	}
	whole, err := envoy.Lint(out)
	if err != nil {
		return envoy.Linted{}, nil
	}
	return whole, nil
}

// gatewayTime is how long a gateway's program may take to read its configuration.
const gatewayTime = 10 * time.Second

// folders are those that the server writes to.
func folders(c *config.Config) []string {
	var out []string
	if c.SecretKey == "" || c.GeneratedKeys() || c.SMTPHost == "" || c.PhoneVerification == "mock" || c.StorageProvider == "local" {
		out = append(out, config.DataFolder)
	}
	if file := sqliteFile(c); file != "" && filepath.Dir(file) != config.DataFolder {
		out = append(out, filepath.Dir(file))
	}
	return out
}

// writable reports why no file could be made in folder, or in the nearest folder above it that exists.
func writable(folder string) error {
	for {
		_, err := os.Stat(folder)
		if err == nil {
			break
		}
		if parent := filepath.Dir(folder); errors.Is(err, os.ErrNotExist) && parent != folder {
			folder = parent
			continue
		}
		return err
	}
	f, err := os.CreateTemp(folder, ".doctor-*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// noSecretKey reports that the first start has still to make the secret key.
func noSecretKey(c *config.Config) bool {
	if c.SecretKey != "" || c.Production() {
		return false
	}
	_, err := os.Stat(config.SecretKeyFile)
	return errors.Is(err, os.ErrNotExist)
}

func lookAtSecretKey(c *config.Config) (string, error) {
	if noSecretKey(c) {
		return "the first start makes " + config.SecretKeyFile, nil
	}
	box, _, err := openBox(c)
	if err != nil {
		return "", err
	}
	return "seals with " + box.KeyIDs()[0] + ", opens " + strings.Join(box.KeyIDs(), " "), nil
}

func lookAtKeys(c *config.Config) (string, error) {
	now := time.Now()
	set, err := keys.Load(c.JWTPrivateKeyPath, c.JWTAlgorithm, now)
	if errors.Is(err, os.ErrNotExist) && c.GeneratedKeys() && !c.Production() {
		return "the first start makes one in " + c.JWTPrivateKeyPath, nil
	}
	if err != nil {
		return "", err
	}
	detail := set.Algorithm() + " " + set.KeyID()
	if next, from := set.Next(now); next != "" {
		detail += ", from " + from.UTC().Format(time.RFC3339) + " on " + next
	}
	return detail, nil
}

func (p *program) lookAtDatabase(c *config.Config, look func(string, func(context.Context) (string, error))) {
	if file := sqliteFile(c); file != "" {
		if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
			look("database", func(context.Context) (string, error) { return "the first start makes " + file, nil })
			return
		}
	}
	var d *db.DB
	look("database", func(context.Context) (detail string, err error) {
		if noSecretKey(c) {
			d, err = p.openRows(c)
		} else {
			d, _, err = p.openDB(c)
		}
		return c.DatabaseURL.String(), err
	})
	if d == nil {
		return
	}
	defer d.Close()
	current := false
	look("schema", func(ctx context.Context) (string, error) {
		all, err := d.MigrationStatus(ctx)
		if err != nil {
			return "", err
		}
		pending := 0
		for _, m := range all {
			if !m.Applied {
				pending++
			}
		}
		if pending > 0 {
			return "", fmt.Errorf("%d migrations are missing; run \"barong migrate up\"", pending)
		}
		current = true
		return fmt.Sprintf("version %d", all[len(all)-1].Version), nil
	})
	if current && !noSecretKey(c) {
		look("sealed columns", func(ctx context.Context) (string, error) {
			return "the newest rows open, and their indexes fit", d.VerifySeals(ctx)
		})
	}
	if current {
		look("rules", func(ctx context.Context) (string, error) {
			r, err := loadRules(ctx, c, d)
			if err != nil {
				return "", err
			}
			s := r.Snapshot()
			if warnings := s.Warnings(); len(warnings) > 0 {
				return "", warning(strings.Join(warnings, "; "))
			}
			return fmt.Sprintf("version %d, %d permissions", s.Version(), len(s.Permissions())), nil
		})
	}
	if !d.SQLite() {
		look("clock", func(ctx context.Context) (string, error) {
			return clockAgrees, obs.CompareClock(ctx, d.ServerTime)
		})
	}
}

// lookAtRedis asks Redis for an answer and for its time.
func lookAtRedis(ctx context.Context, c *config.Config) (string, error) {
	client, err := redisstore.ConnectWithin(c.RedisURL.Reveal(), c.RedisTimeout)
	if err != nil {
		return "", err
	}
	defer client.Close()
	if err := client.Ping(ctx).Err(); err != nil {
		return "", fmt.Errorf("%s: %w", c.RedisURL, err)
	}
	if err := obs.CompareClock(ctx, func(ctx context.Context) (time.Time, error) { return client.Time(ctx).Result() }); err != nil {
		return "", fmt.Errorf("%s: %w", c.RedisURL, err)
	}
	if drops, err := redisstore.Evicts(ctx, client); err == nil && drops != "" { // an account may be denied the question
		return "", evictionWarning(drops)
	}
	return c.RedisURL.String() + ", clock " + clockAgrees, nil
}

// evictionWarning tells what a Redis does that drops keys, by its policy for a full memory.
func evictionWarning(drops string) warning {
	return warning("Redis has maxmemory-policy " + drops + ": when its memory is full it drops sessions, used nonces and counted " +
		"attempts; set noeviction")
}

// clockAgrees says that a clock is right.
var clockAgrees = "within " + obs.MaxSkew.String() + " of the server's"

// greeting connects to the mail server and reads its first line.
func greeting(ctx context.Context, c *config.Config) (string, error) {
	addr := net.JoinHostPort(c.SMTPHost, c.SMTPPort)
	port, err := strconv.Atoi(c.SMTPPort)
	if err != nil {
		return "", err
	}
	dial := new(net.Dialer).DialContext
	if mail.Security(c.SMTPTLS).FromTheStart(port) {
		dial = new(tls.Dialer).DialContext
	}
	conn, err := dial(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return "", err
		}
	}
	buf := make([]byte, 512)
	n, err := conn.Read(buf)
	if err != nil {
		return "", fmt.Errorf("%s: no greeting: %w", addr, err)
	}
	first, _, _ := strings.Cut(string(buf[:n]), "\r\n")
	if !strings.HasPrefix(first, "220") {
		return "", fmt.Errorf("%s does not greet like a mail server: %q", addr, first)
	}
	return fmt.Sprintf("%s: %q", addr, first), nil
}
