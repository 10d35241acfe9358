package main

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"barong/internal/test/testkit"
)

const (
	adminEmail    = "you@example.com" // as the files of values have it
	adminPassword = "Tecohvi0-Xuq"
)

// A cluster is what a Pod finds around it: Secrets, and the ConfigMaps of the chart and others.
type cluster struct {
	secrets, configMaps map[string]map[string]string
}

// A node runs the containers of one Pod, without a container: volumes are folders, and ports such as are free.
type node struct {
	cluster cluster
	pod     *core.PodSpec
	folder  string
	ports   map[string]string // where a port of the Pod is here
}

// volume makes the folder of a volume, once.
func (n *node) volume(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(n.folder, name)
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(n.pod.Volumes, func(v core.Volume) bool { return v.Name == name })
	if at < 0 {
		t.Fatalf("there is no volume %s", name)
	}
	put := func(files map[string]string, key, path string, mode int32) {
		text, ok := files[key]
		if !ok {
			t.Fatalf("volume %s: there is no key %s", name, key)
		}
		if err := os.WriteFile(filepath.Join(dir, path), []byte(n.here(text)), os.FileMode(mode)); err != nil {
			t.Fatal(err)
		}
	}
	switch v := n.pod.Volumes[at]; {
	case v.ConfigMap != nil:
		for key := range n.cluster.configMaps[v.ConfigMap.Name] {
			put(n.cluster.configMaps[v.ConfigMap.Name], key, key, 0o644)
		}
	case v.Secret != nil:
		for key := range n.cluster.secrets[v.Secret.SecretName] {
			put(n.cluster.secrets[v.Secret.SecretName], key, key, *v.Secret.DefaultMode)
		}
	case v.Projected != nil:
		for _, source := range v.Projected.Sources {
			for _, item := range source.Secret.Items {
				put(n.cluster.secrets[source.Secret.Name], item.Key, item.Path, *v.Projected.DefaultMode)
			}
		}
	}
	return dir
}

// here writes paths of the Pod as they are on this machine.
func (n *node) here(text string) string {
	for _, path := range []string{"/run/secrets/barong", "/etc/barong/keys", "/etc/barong/config", "/etc/barong/letters"} {
		text = strings.ReplaceAll(text, path, filepath.Join(n.folder, "mounts", path))
	}
	return text
}

// addr is where a port of the Pod is here.
func (n *node) addr(t *testing.T, port string) string {
	t.Helper()
	if n.ports[port] == "" {
		n.ports[port] = fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	}
	return n.ports[port]
}

// environment mounts a container's volumes and returns its variables.
func (n *node) environment(t *testing.T, c *core.Container) (env []string) {
	t.Helper()
	for _, m := range c.VolumeMounts {
		at := filepath.Join(n.folder, "mounts", m.MountPath)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		_ = os.Remove(at) // of the container before
		if err := os.Symlink(n.volume(t, m.Name), at); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range c.Env {
		value := n.here(e.Value)
		if e.ValueFrom != nil {
			value = n.cluster.secrets[e.ValueFrom.SecretKeyRef.Name][e.ValueFrom.SecretKeyRef.Key]
		}
		if strings.HasSuffix(e.Name, "_ADDR") && value != "" {
			_, port, err := net.SplitHostPort(value)
			if err != nil {
				t.Fatalf("%s=%s", e.Name, value)
			}
			value = n.addr(t, port)
		}
		if e.Name == "BARONG_TRUSTED_PROXIES" {
			value += ",loopback" // where gateways of a cluster are here
		}
		env = append(env, e.Name+"="+value)
	}
	return env
}

// run runs a container to its end, as a container of a Job or an init container.
func (n *node) run(t *testing.T, c *core.Container) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), testkit.Barong(t), c.Args...)
	cmd.Env = append(os.Environ(), n.environment(t, c)...)
	cmd.Dir = t.TempDir()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", c.Name, err, out)
	}
	for _, wrong := range []string{"is not a known setting", "has no effect"} {
		if bytes.Contains(out, []byte(wrong)) {
			t.Errorf("%s:\n%s", c.Name, out)
		}
	}
}

// start runs a container that goes on, and waits for its probes.
func (n *node) start(t *testing.T, c *core.Container) {
	t.Helper()
	env := append(n.environment(t, c), "BARONG_RATE_LIMITS=off")
	ask := func(p *core.Probe) func() error {
		for _, port := range c.Ports {
			if port.Name == p.HTTPGet.Port.String() {
				return testkit.Answers("http://" + n.addr(t, fmt.Sprint(port.ContainerPort)) + p.HTTPGet.Path)
			}
		}
		t.Fatalf("%s has no port %s", c.Name, p.HTTPGet.Port.String())
		return nil
	}
	started := ask(c.StartupProbe)
	process := testkit.Start(t, testkit.Barong(t), c.Args, env, func() error {
		if err := started(); err != nil {
			return err
		}
		return ask(c.ReadinessProbe)()
	})
	if err := ask(c.LivenessProbe)(); err != nil {
		t.Errorf("%s is not alive: %v", c.Name, err)
	}
	for line := range strings.Lines(process.Output()) {
		if strings.Contains(line, "is not a known setting") || strings.Contains(line, "has no effect") {
			t.Error(line)
		}
	}
}

// randomKey is what "openssl rand -base64 32" says.
func randomKey(t *testing.T) string {
	t.Helper()
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(key)
}

// keys makes the Secret of signing keys as the page says.
func keys(t *testing.T, algorithm string) map[string]string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keys")
	cmd := exec.CommandContext(t.Context(), testkit.Barong(t), "keys", "generate")
	cmd.Env = append(os.Environ(), "BARONG_JWT_PRIVATE_KEY_PATH="+dir+"/", "BARONG_JWT_ALGORITHM="+algorithm)
	cmd.Dir = t.TempDir()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("keys generate: %v\n%s", err, out)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(f.Name(), ".pem") {
			out[f.Name()] = string(text)
		}
	}
	return out
}

// A person is a browser of the tests, with its cookies.
type person struct{ client *http.Client }

func newPerson(t *testing.T) *person {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &person{&http.Client{Jar: jar, Timeout: time.Minute}}
}

func (p *person) send(t *testing.T, method, url, body string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := p.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

// signIn signs the first superadmin in, at the API below a prefix.
func (p *person) signIn(t *testing.T, prefix string) {
	t.Helper()
	resp, text := p.send(t, "POST", prefix+"/identity/sessions", `{"email":"`+adminEmail+`","password":"`+adminPassword+`"}`)
	if resp.StatusCode/100 != 2 {
		t.Fatalf("sign-in: %d %s", resp.StatusCode, text)
	}
}

// TestStart runs the containers of what is rendered: the real program with the arguments, variables and files that a Pod
// gives it, after the steps that come before, and the real Envoy beside it. The probes ask where Kubernetes would.
func TestStart(t *testing.T) {
	root := testkit.Root(t)
	c := load(t, folder)
	redis := testkit.Valkey(t)
	for _, file := range files(t) {
		name := strings.TrimSuffix(filepath.Base(file), "-values.yaml")
		t.Run(name, func(t *testing.T) {
			o := render(t, c, valuesOf(t, file))
			d := o.deployments[0]
			containers := slices.Concat(d.Spec.Template.Spec.InitContainers, d.Spec.Template.Spec.Containers)
			barong := containers[slices.IndexFunc(containers, func(c core.Container) bool { return c.Name == "barong" })]
			algorithm := ""
			for _, e := range barong.Env {
				if e.Name == "BARONG_JWT_ALGORITHM" {
					algorithm = e.Value
				}
			}
			around := cluster{
				configMaps: map[string]map[string]string{"letters": {}},
				secrets: map[string]map[string]string{
					"barong": {
						"secret-key": randomKey(t), "admin-password": adminPassword,
						"redis-url": redis, "google-client-secret": "s3cret-of-google",
					},
					"mail": {"password": "hunter2hunter2"}, "webhooks": {"crm": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
					"tracing": {"headers": "x-token=1"}, "barong-keys": keys(t, algorithm),
				},
			}
			if name != "embedded" {
				database := testkit.Postgres(t)
				around.secrets["barong"]["database-url"] = database
				around.secrets["postgres-app"] = map[string]string{"uri": database}
			}
			for _, m := range o.configMaps {
				around.configMaps[m.Name] = m.Data
			}

			for _, j := range o.jobs {
				n := &node{cluster: around, pod: &j.Spec.Template.Spec, folder: t.TempDir(), ports: map[string]string{}}
				for range 2 { // as the next upgrade does
					for _, step := range slices.Concat(j.Spec.Template.Spec.InitContainers, j.Spec.Template.Spec.Containers) {
						n.run(t, &step)
					}
				}
			}
			n := &node{cluster: around, pod: &d.Spec.Template.Spec, folder: t.TempDir(), ports: map[string]string{}}
			for _, c := range containers {
				switch c.Name {
				case "barong":
					n.start(t, &c)
				case "migrate", "seed":
					n.run(t, &c)
				case "gateway":
					n.gateway(t, &c)
				}
			}
			asks(t, n, o, &barong)
			if name == "ha" {
				measures(t, root, n, o, &barong)
			}
			if name == "everything" { // files of the ConfigMap, and of Secrets that they name, are read
				at := slices.IndexFunc(barong.Ports, func(p core.ContainerPort) bool { return p.Name == "http" })
				_, text := newPerson(t).send(t, "GET", "http://"+n.addr(t, fmt.Sprint(barong.Ports[at].ContainerPort))+"/api/v2/identity/providers", "")
				if !strings.Contains(text, `"google"`) {
					t.Errorf("the providers are %s", text)
				}
			}
		})
	}
}

// asks signs in, and has a check asked for as gateways do.
func asks(t *testing.T, n *node, o *objects, barong *core.Container) {
	t.Helper()
	p := newPerson(t)
	service := func(name string) string { // the address of a port of a Service
		for _, s := range o.services {
			for _, port := range s.Spec.Ports {
				if port.Name == name {
					return "http://" + n.addr(t, port.TargetPort.String())
				}
			}
		}
		t.Fatalf("no Service has a port %s", name)
		return ""
	}
	if o.deployments[0].Spec.Template.Spec.Containers[0].Name == "gateway" {
		public := service("gateway")
		if resp, _ := p.send(t, "GET", public+"/api/v2/admin/thing", ""); resp.StatusCode != 401 {
			t.Errorf("a stranger: %d", resp.StatusCode)
		}
		p.signIn(t, public+"/api/v2/barong")
		if resp, text := p.send(t, "GET", public+"/api/v2/admin/thing", ""); resp.StatusCode != 200 || !strings.HasPrefix(text, "Bearer ey") {
			t.Errorf("the service behind the gateway: %d %s", resp.StatusCode, text)
		}
		if resp, _ := p.send(t, "GET", public+"/accounts/signin", ""); resp.StatusCode != 200 {
			t.Errorf("the pages: %d", resp.StatusCode)
		}
		return
	}
	api, check := service("http"), service("check")
	if resp, _ := p.send(t, "GET", check+"/api/v2/auth/api/v2/admin/thing", ""); resp.StatusCode != 401 {
		t.Errorf("a stranger: %d", resp.StatusCode)
	}
	p.signIn(t, api+"/api/v2")
	if resp, _ := p.send(t, "GET", check+"/api/v2/auth/api/v2/admin/thing", ""); resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Authorization"), "Bearer ey") {
		t.Errorf("a check: %d %v", resp.StatusCode, resp.Header)
	}
	if resp, _ := p.send(t, "GET", api+"/api/v2/auth/api/v2/admin/thing", ""); resp.StatusCode == 200 {
		t.Error("the main listener answers checks as well")
	}
	for _, i := range o.ingresses { // what an Ingress publishes is there, below the paths that it has
		for _, path := range i.Spec.Rules[0].HTTP.Paths {
			ask := map[string]string{"/accounts": "/accounts/signin", "/console": "/console/", "/api/v2/barong": "/api/v2/barong/identity/ping"}[path.Path]
			if resp, text := p.send(t, "GET", api+ask, ""); resp.StatusCode != 200 {
				t.Errorf("GET %s: %d %s", ask, resp.StatusCode, text)
			}
		}
	}
	if got := slices.IndexFunc(barong.Env, func(e core.EnvVar) bool { return e.Name == "ADMIN_PASSWORD_FILE" }) >= 0; got != (len(o.claims) > 0 && len(o.jobs) == 0 && len(o.budgets) == 0) {
		t.Errorf("the Pod that serves is told the first superadmin's password: %v", got)
	}
}

// gateway runs the gateway's container: Envoy, with the configuration of its ConfigMap.
func (n *node) gateway(t *testing.T, c *core.Container) {
	t.Helper()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("Authorization"))
	}))
	t.Cleanup(app.Close)
	if len(c.Args) < 2 || c.Args[0] != "--config-path" || filepath.Dir(c.Args[1]) != c.VolumeMounts[0].MountPath {
		t.Fatalf("the gateway reads %v", c.Args)
	}
	text, err := os.ReadFile(filepath.Join(n.volume(t, c.VolumeMounts[0].Name), filepath.Base(c.Args[1])))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"xff_num_trusted_hops: 1", `exact: "https://shop.example.com"`, "address: app.shop, port_value: 8080"} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("the gateway's configuration has no %q", want)
		}
	}
	place := regexp.MustCompile(`address: ([a-z0-9.]+), port_value: (\d+)`)
	here := place.ReplaceAllStringFunc(string(text), func(found string) string {
		m := place.FindStringSubmatch(found)
		to := app.Listener.Addr().String()
		if m[1] != "app.shop" {
			to = n.addr(t, m[2])
		}
		host, port, _ := net.SplitHostPort(to)
		return fmt.Sprintf("address: %s, port_value: %s", host, port)
	})
	file := filepath.Join(t.TempDir(), "gateway.yaml")
	if err := os.WriteFile(file, []byte(here), 0o600); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"--config-path", file}, c.Args[2:]...)
	testkit.Start(t, "envoy", append(args, "--concurrency", "1", "--use-dynamic-base-id"), nil, func() error {
		conn, err := net.Dial("tcp", n.addr(t, fmt.Sprint(c.Ports[0].ContainerPort)))
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// measures holds what scales the Pods, the rule of the metrics adapter and the scraping to what a server exports.
func measures(t *testing.T, root string, n *node, o *objects, barong *core.Container) {
	t.Helper()
	var rules struct {
		Rules struct {
			Custom []struct {
				SeriesQuery string
				Resources   struct {
					Overrides map[string]struct{ Resource string }
				}
				Name         struct{ As string }
				MetricsQuery string
			}
		}
	}
	text, err := os.ReadFile(filepath.Join(root, "deploy/helm/examples/prometheus-adapter.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(text, &rules); err != nil || len(rules.Rules.Custom) != 1 {
		t.Fatal(err, rules)
	}
	rule := rules.Rules.Custom[0]
	pods := o.scalers[0].Spec.Metrics[0].Pods
	if pods == nil || pods.Metric.Name != rule.Name.As {
		t.Errorf("Pods are counted by %+v, the adapter has %s", pods, rule.Name.As)
	}
	query := regexp.MustCompile(`^([a-z_]+)\{namespace!="",pod!=""\}$`).FindStringSubmatch(rule.SeriesQuery)
	if query == nil || !maps.Equal(rule.Resources.Overrides, map[string]struct{ Resource string }{"namespace": {"namespace"}, "pod": {"pod"}}) ||
		!strings.Contains(rule.MetricsQuery, "rate(<<.Series>>{<<.LabelMatchers>>}") || !strings.Contains(rule.MetricsQuery, "by (<<.GroupBy>>)") {
		t.Fatalf("the adapter's rule: %+v", rule)
	}
	endpoint := o.monitors[0].Spec.Endpoints[0]
	at := slices.IndexFunc(barong.Ports, func(p core.ContainerPort) bool { return p.Name == endpoint.Port })
	_, metrics := newPerson(t).send(t, "GET", "http://"+n.addr(t, fmt.Sprint(barong.Ports[at].ContainerPort))+endpoint.Path, "")
	if !regexp.MustCompile(`(?m)^` + query[1] + `\{[^}]*\} [1-9]`).MatchString(metrics) {
		t.Errorf("%s is not exported, or counts nothing:\n%s", query[1], metrics)
	}
	alert, err := json.Marshal(o.rules[0].Spec)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range regexp.MustCompile(`\bbarong_[a-z_]+`).FindAllString(string(alert), -1) {
		if !strings.Contains(metrics, name) && !strings.HasPrefix(name, "barong_mailer_") {
			t.Errorf("the rules speak of %s, which is not exported", name)
		}
	}
}
