package systemtest

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"barong/internal/test/testkit"
)

// TestCompose runs the services of deploy/compose without Docker: the program with the arguments and variables that stand
// there, in the order in which they depend on each other, twice as a second "up" does, and the real Envoy, Postgres and
// Valkey in the place of the images.
func TestCompose(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(testkit.Root(t), "deploy", "compose")
	text, err := os.ReadFile(filepath.Join(folder, "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	type service struct {
		Image       string
		Command     []string
		Environment map[string]string
		DependsOn   yaml.Node `yaml:"depends_on"`
		Volumes     []string
		Ports       []string
	}
	var file struct {
		Services map[string]service
		Volumes  map[string]any
	}
	given := map[string]string{"BARONG_SECRET_KEY": secretKey, "POSTGRES_PASSWORD": "pass", "ADMIN_EMAIL": adminEmail, "ADMIN_PASSWORD": adminPassword}
	expanded := os.Expand(string(text[bytes.Index(text, []byte("\nname:")):]), func(name string) string {
		name, fallback, _ := strings.Cut(name, ":")
		if value, ok := given[name]; ok {
			return value
		}
		return strings.TrimPrefix(fallback, "-")
	})
	if err := yaml.Unmarshal([]byte(expanded), &file); err != nil {
		t.Fatal(err)
	}
	for name, s := range file.Services {
		for _, v := range s.Volumes {
			source, _, _ := strings.Cut(v, ":")
			_, known := file.Volumes[source]
			if _, err := os.Stat(filepath.Join(folder, source)); !known && err != nil {
				t.Errorf("%s: volume %s is neither declared nor a file", name, v)
			}
		}
	}

	// Where the containers' neighbours and ports are here.
	data := t.TempDir()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("Authorization"))
	}))
	t.Cleanup(app.Close)
	places := map[string]string{"app:8090": app.Listener.Addr().String(), "0.0.0.0:8000": addr(t)}
	database, valkey := testkit.Postgres(t), testkit.Valkey(t)
	environment := func(name string) []string {
		env := []string{"BARONG_LOG_LEVEL=debug", "BARONG_RATE_LIMITS=off"}
		for key, value := range file.Services[name].Environment {
			switch key {
			case "BARONG_DATABASE_URL":
				value = database
			case "BARONG_REDIS_URL":
				value = valkey
			case "BARONG_TRUSTED_PROXIES":
				value += ",loopback"
			case "BARONG_HTTP_ADDR", "BARONG_CHECK_ADDR", "BARONG_OPS_ADDR":
				_, port, _ := net.SplitHostPort(value)
				place := name + ":" + port
				if places[place] == "" {
					places[place] = addr(t)
				}
				value = places[place]
			}
			env = append(env, key+"="+strings.ReplaceAll(value, "/data", data))
		}
		return env
	}

	once := []string{"keys", "migrate", "seed"}
	for range 2 {
		for _, name := range once {
			cmd := exec.CommandContext(t.Context(), testkit.Barong(t), file.Services[name].Command...)
			cmd.Dir, cmd.Env = data, environment(name)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", name, err, out)
			}
		}
	}
	for _, name := range []string{"barong-1", "barong-2"} {
		env := environment(name)
		testkit.Start(t, testkit.Barong(t), file.Services[name].Command, env, func() error {
			res, err := probes.Get("http://" + places[name+":9090"] + "/readyz")
			if err != nil {
				return err
			}
			defer res.Body.Close()
			if res.StatusCode != http.StatusOK {
				return fmt.Errorf("readyz: %d", res.StatusCode)
			}
			return nil
		})
	}

	gateway := file.Services["envoy"]
	config := composedEnvoy(t, folder, places)
	if !slices.Contains(gateway.Command, "/etc/envoy/barong.yaml") || !slices.Contains(gateway.Ports, "127.0.0.1:8000:8000") {
		t.Errorf("the gateway: %v, %v", gateway.Command, gateway.Ports)
	}
	public := "http://" + places["0.0.0.0:8000"]
	testkit.Start(t, "envoy", []string{"-c", config, "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "warn"}, nil, func() error {
		res, err := probes.Get(public + "/private")
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusUnauthorized {
			return fmt.Errorf("got %d", res.StatusCode)
		}
		return nil
	})

	// The superadmin of .env signs in through the gateway, and the service behind it gets the token.
	c := newClient(strings.TrimPrefix(public, "http://"), newVault())
	c.ip = ""
	c.signIn(adminEmail, adminPassword).wants(t, "sign-in through the gateway", 201)
	for range 4 { // both replicas take their turn
		if r := c.send("GET", "/api/v2/admin/thing", nil).wants(t, "call of the app", 200); !strings.HasPrefix(r.body, "Bearer ey") {
			t.Errorf("the app got %q", r.body)
		}
	}
}

// composedEnvoy writes the configuration of Envoy with the services where they are here. It is the reference but for names.
func composedEnvoy(t *testing.T, folder string, places map[string]string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, "envoy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	reference, err := os.ReadFile(filepath.Join(folder, "..", "..", "envoy", "envoy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	plain := string(text)
	for _, port := range []string{"8080", "8081"} {
		const line = "        - endpoint: { address: { socket_address: { address: %s, port_value: %s } } }\n"
		plain = strings.Replace(plain, fmt.Sprintf(line, "barong-2", port), "", 1)
		plain = strings.Replace(plain, fmt.Sprintf(line, "barong-1", port), fmt.Sprintf(line, "127.0.0.1", port), 1)
	}
	plain = strings.NewReplacer("STRICT_DNS", "STATIC", "address: 0.0.0.0,", "address: 127.0.0.1,", "address: app,", "address: 127.0.0.1,").Replace(plain)
	_, plain, _ = strings.Cut(plain, "static_resources:")
	if _, want, _ := strings.Cut(string(reference), "static_resources:"); plain != want {
		t.Error("deploy/compose/envoy.yaml is no longer envoy/envoy.yaml with other names")
	}
	var replaced []string
	for place, here := range places {
		host, port, _ := net.SplitHostPort(place)
		hostHere, portHere, _ := net.SplitHostPort(here)
		replaced = append(replaced, fmt.Sprintf("address: %s, port_value: %s }", host, port), fmt.Sprintf("address: %s, port_value: %s }", hostHere, portHere))
	}
	out := filepath.Join(t.TempDir(), "barong.yaml")
	f, err := os.Create(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(f, strings.NewReader(strings.NewReplacer(replaced...).Replace(string(text)))); err != nil {
		t.Fatal(err)
	}
	return out
}
