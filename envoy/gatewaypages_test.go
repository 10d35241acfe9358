package envoy_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"barong/internal/test/testkit"
)

// gatewayPages are the pages that go through a reference configuration.
var gatewayPages = []struct {
	gateway string // its name
	page    string
	try     string // the name of the block with what to type
}{
	{"envoy over HTTP", "docs/gateways/envoy.md", "try"},
	{"envoy over gRPC", "docs/gateways/envoy.md", "try-grpc"},
	{"traefik", "docs/gateways/traefik.md", "try"},
	{"caddy", "docs/gateways/caddy.md", "try"},
	{"nginx", "docs/gateways/nginx.md", "try"},
	{"haproxy", "docs/gateways/haproxy.md", "try"},
}

func gatewayNamed(t *testing.T, name string) gateway {
	t.Helper()
	i := slices.IndexFunc(gateways, func(g gateway) bool { return g.name == name })
	if i < 0 {
		t.Fatalf("there is no gateway %s", name)
	}
	return gateways[i]
}

// lineOf is a line, or what stands for none.
func lineOf(lines []string, i int) string {
	if i >= len(lines) {
		return "nothing more"
	}
	return lines[i]
}

// What a page shows piece by piece is the whole configuration that the tests run, in its order.
func TestGatewayPages(t *testing.T) {
	for _, g := range gateways {
		if !slices.ContainsFunc(gatewayPages, func(page struct{ gateway, page, try string }) bool { return page.gateway == g.name }) {
			t.Errorf("%s has no page", g.name)
		}
	}
	for _, page := range gatewayPages {
		for _, file := range gatewayNamed(t, page.gateway).files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			shown, want := strings.Split(testkit.Pieces(t, page.page, file), "\n"), strings.Split(string(text), "\n")
			for i := range max(len(shown), len(want)) {
				if a, b := lineOf(shown, i), lineOf(want, i); a != b {
					t.Errorf("%s and envoy/%s part in line %d: the page has %q, the file %q", page.page, file, i+1, a, b)
					break
				}
			}
		}
	}
}

// What a page says to type works: barong and the gateway start, and doctor finds nothing wrong with the file, nor with what
// it is told through the gateway.
func TestGatewayPagesAsTyped(t *testing.T) {
	u := newUpstream(t)
	p := ports{api: testkit.FreePort(t), checks: testkit.FreePort(t), grpc: testkit.FreePort(t), upstream: u.port}
	home := t.TempDir()
	if err := os.Symlink(testkit.Barong(t), filepath.Join(home, "barong")); err != nil {
		t.Fatal(err)
	}
	ops := local(testkit.FreePort(t))
	env := []string{
		"HOME=" + home, "PATH=" + home + ":" + filepath.Join(testkit.Tools(t), "servers") + ":" + os.Getenv("PATH"),
		"BARONG_HTTP_ADDR=" + local(p.api), "BARONG_GRPC_ADDR=" + local(p.grpc), "BARONG_OPS_ADDR=" + ops,
	}
	start := func(t *testing.T, dir, line string, ready func() error) {
		t.Helper()
		testkit.Start(t, "/bin/sh", []string{"-c", `cd "$0" && exec env ` + line, dir}, env, ready)
	}
	const serve = "BARONG_CHECK_ADDR=127.0.0.1:8081 barong serve"
	start(t, home, p.replace(serve), testkit.Answers("http://"+ops+"/readyz"))
	wrong := regexp.MustCompile(`(?m)^(gateway|through) .* (warning|FAILED) .*$`)
	for _, page := range gatewayPages {
		t.Run(page.gateway, func(t *testing.T) {
			t.Parallel()
			g, p := gatewayNamed(t, page.gateway), p
			p.gateway = testkit.FreePort(t)
			dir := filepath.Dir(copyConfiguration(t, g, p))
			for _, folder := range []string{dir, filepath.Dir(dir)} { // nginx's workers are nobody
				if err := os.Chmod(folder, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Symlink(filepath.Join(home, "data"), filepath.Join(dir, "data")); err != nil { // barong runs in one folder
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimSpace(testkit.Sample(t, page.page, page.try)), "\n")
			if len(lines) < 4 || lines[0] != serve {
				t.Fatalf("typed: %q", lines)
			}
			line := p.replace(lines[1])
			if g.program == "envoy" { // others may run on this machine
				line += " --use-dynamic-base-id --concurrency 1 --log-level warn"
			}
			start(t, dir, line, testkit.Answers("http://"+local(p.gateway)+"/api/v2/barong/identity/ping"))
			tried := 0
			for _, line := range lines[2:] {
				cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", p.replace(line))
				cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
				out, err := cmd.CombinedOutput()
				if found := wrong.FindAllString(string(out), -1); err != nil || len(found) > 0 {
					t.Errorf("%s: %v, found %q:\n%s", line, err, found, out)
				}
				tried += strings.Count(string(out), "through ")
				if strings.Contains(line, "--gateway-file") && !strings.Contains(string(out), "nothing found") {
					t.Errorf("%s: it was not read:\n%s", line, out)
				}
			}
			if tried < 15 {
				t.Errorf("only %d things were tried through the gateway", tried)
			}
		})
	}
}

// HAProxy goes on to the next rule when a script fails. What the script did not let pass is refused all the same, whatever
// failed; without the rule that does so it would be served.
func TestHAProxyFailsClosed(t *testing.T) {
	u := newUpstream(t)
	p := listen(t, says(allow))
	p.api, p.upstream = u.port, u.port
	g := gatewayNamed(t, "haproxy")
	for name, c := range map[string]struct {
		edit   func(text string) string
		status int
	}{
		"as it is": {func(text string) string { return text }, 200},
		"an error": {func(text string) string {
			return strings.Replace(text, "local answer = ask(txn)", `error("spoilt")`, 1)
		}, 503},
		"an error behind the check": {func(text string) string {
			return strings.Replace(text, `txn:set_var("txn.barong_allows", true)`, `txn:set_var("txn.barong_allows", true .. nil)`, 1)
		}, 503},
		"nobody to ask": {func(text string) string {
			return strings.Replace(text, "server barong 127.0.0.1:8081", "server barong 127.0.0.1:1", 1)
		}, 503},
		"no such socket": {func(text string) string {
			return strings.Replace(text, "bind abns@barong-checks-", "bind abns@other-", 1)
		}, 503},
		"an error, and no rule": {func(text string) string {
			text = strings.Replace(text, "local answer = ask(txn)", `error("spoilt")`, 1)
			return strings.Replace(text, "unless { var(txn.barong_allows) -m bool }", "if FALSE", 1)
		}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			p := p
			p.gateway = testkit.FreePort(t)
			spoilt := g
			spoilt.edit = c.edit
			config := copyConfiguration(t, spoilt, p)
			args := append([]string{"-c", `cd "$0" && exec "$@"`, filepath.Dir(config), testkit.Bin(t, g.program)}, g.args(config)...)
			testkit.Start(t, "/bin/sh", args, nil, func() error {
				c, err := net.Dial("tcp", local(p.gateway))
				if err == nil {
					err = c.Close()
				}
				return err
			})
			u.take()
			r := get(t, local(p.gateway), "/api/v2/orders", "Connection: close")
			served := len(u.take())
			if r.Status != c.status || served != map[int]int{200: 1, 503: 0}[c.status] {
				t.Errorf("got %+v, served %d", r, served)
			}
			if c.status == 503 && (r.Body != `{"errors":["authz.unavailable"]}` || r.Header.Get("Cache-Control") != "no-store" || r.Header.Get("X-Request-Id") == "") {
				t.Errorf("got %+v", r)
			}
		})
	}
}

// The pages say how to ask over a unix socket, where a gateway can: it works.
func TestGatewaysAskOverSockets(t *testing.T) {
	dir := t.TempDir()
	socket, grpc := filepath.Join(dir, "checks.sock"), filepath.Join(dir, "grpc.sock")
	u := newUpstream(t)
	p := ports{api: testkit.FreePort(t), upstream: u.port, checks: testkit.FreePort(t), grpc: testkit.FreePort(t)}
	startProgram(t, "BARONG_HTTP_ADDR="+local(p.api), "BARONG_CHECK_ADDR=unix:"+socket, "BARONG_GRPC_ADDR=unix:"+grpc)
	const shown = "/run/barong/checks.sock"
	pipe := func(port int) func(line string) func(text string) string {
		return func(line string) func(text string) string {
			return func(text string) string {
				return swap(text, fmt.Sprintf("address: { socket_address: { address: 127.0.0.1, port_value: %d } }", port), line)
			}
		}
	}
	for name, c := range map[string]struct {
		line string // of the page
		put  func(line string) func(text string) string
	}{
		"envoy over HTTP": {"address: { pipe: { path: /run/barong/checks.sock } }", pipe(8081)},
		"envoy over gRPC": {"address: { pipe: { path: /run/barong/checks.sock } }", pipe(9191)},
		"caddy": {"forward_auth unix//run/barong/checks.sock", func(line string) func(string) string {
			return func(text string) string { return swap(text, "forward_auth 127.0.0.1:8081", line) }
		}},
		"nginx": {"server unix:/run/barong/checks.sock;", func(line string) func(string) string {
			return func(text string) string { return swap(text, "server 127.0.0.1:8081;", line) }
		}},
		"haproxy": {"server barong unix@/run/barong/checks.sock", func(line string) func(string) string {
			return func(text string) string { return strings.Replace(text, "server barong 127.0.0.1:8081", line, 1) }
		}},
	} {
		t.Run(name, func(t *testing.T) {
			i := slices.IndexFunc(gatewayPages, func(page struct{ gateway, page, try string }) bool { return page.gateway == name })
			page, err := os.ReadFile(filepath.Join(testkit.Root(t), gatewayPages[i].page))
			if err != nil || !strings.Contains(strings.Join(strings.Fields(string(page)), " "), c.line) {
				t.Fatalf("the page does not say %s (%v)", c.line, err)
			}
			g, at := gatewayNamed(t, name), socket
			if name == "envoy over gRPC" {
				at = grpc
			}
			g.edit = c.put(strings.Replace(c.line, shown, at, 1))
			addr := g.start(t, p)
			u.take()
			if r := get(t, addr, public, "Connection: close"); r.Status != 200 || len(u.take()) != 1 {
				t.Errorf("a public path: got %+v", r)
			}
			refused(t, "a stranger", get(t, addr, account, "Connection: close"), 401, "authz.invalid_session")
		})
	}
}
