package envoy_test

import (
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
