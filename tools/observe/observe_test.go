package observe

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"go.yaml.in/yaml/v3"

	"barong/internal/test/testkit"
)

// series are the labels of each metric, "le" of histograms apart.
type series map[string]map[string]bool

func (s series) add(name string, labels ...string) {
	if s[name] == nil {
		s[name] = map[string]bool{}
	}
	for _, label := range labels {
		s[name][label] = true
	}
}

var (
	sample    = regexp.MustCompile(`^([a-z_]+)(\{(.*)\})? [-+0-9.eINaf]+$`)
	signInBy  = regexp.MustCompile(`^barong_sign_ins_total\{by="([a-z]+)"`)
	labelName = regexp.MustCompile(`([a-z_]+)="(?:[^"\\]|\\.)*"`)
)

// scrape is what a server on Postgres and Valkey exports after a little of everything was asked of it: names as they stand on
// the wire, and as the page names them, without what histograms add; and the ways in which people sign in.
func scrape(t *testing.T) (onWire, named series, ways []string) {
	t.Helper()
	api, ops := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t)), fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	testkit.Start(t, testkit.Barong(t), []string{"serve", "--migrate"}, []string{
		"BARONG_HTTP_ADDR=" + api, "BARONG_OPS_ADDR=" + ops, "BARONG_GRPC_ADDR=", "BARONG_JWT_ALGORITHM=EdDSA",
		"BARONG_DATABASE_URL=" + testkit.Postgres(t), "BARONG_REDIS_URL=" + testkit.Valkey(t), "BARONG_SESSION_BIND=user_agent:log,ip:log",
	}, testkit.Answers("http://"+ops+"/readyz"))
	do := func(method, path, body string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+api+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode >= 500 {
			t.Fatalf("%s %s: %d", method, path, resp.StatusCode)
		}
	}
	do("GET", "/api/v2/auth/api/v2/orders", "")
	do("POST", "/api/v2/identity/sessions", `{"email":"m@b.test","password":"Tr0ub4dor&3xyz"}`)
	onWire, named = series{}, series{}
	resp, err := http.Get("http://" + ops + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	histograms := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if kind, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, what, _ := strings.Cut(kind, " ")
			histograms[name] = what == "histogram"
			continue
		}
		m := sample.FindStringSubmatch(line)
		if m == nil {
			if line != "" && !strings.HasPrefix(line, "#") {
				t.Errorf("a line that is no sample: %s", line)
			}
			continue
		}
		var labels []string
		for _, l := range labelName.FindAllStringSubmatch(m[3], -1) {
			labels = append(labels, l[1])
		}
		if way := signInBy.FindStringSubmatch(line); way != nil && !slices.Contains(ways, way[1]) {
			ways = append(ways, way[1])
		}
		onWire.add(m[1], labels...)
		base := m[1]
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if b := strings.TrimSuffix(m[1], suffix); b != m[1] && histograms[b] {
				base = b
			}
		}
		named.add(base, slices.DeleteFunc(labels, func(l string) bool { return l == "le" && base != m[1] })...)
	}
	if want := []string{"passkey", "password", "provider"}; !slices.Equal(slices.Sorted(slices.Values(ways)), want) {
		t.Errorf("sign-ins are counted by %v, want %v", ways, want)
	}
	return onWire, named, ways
}

func TestWhatOperatorsLookAtIsThere(t *testing.T) {
	root := testkit.Root(t)
	onWire, named, ways := scrape(t)

	t.Run("page", func(t *testing.T) {
		page := series{}
		for line := range strings.Lines(read(t, root, "docs/metrics.md")) {
			cells := strings.Split(line, "|")
			if len(cells) < 5 || !strings.HasPrefix(strings.TrimSpace(cells[1]), "`barong_") {
				continue
			}
			name := strings.Trim(strings.TrimSpace(cells[1]), "`")
			if page.add(name); name == "barong_sign_ins_total" {
				for _, way := range ways {
					if !strings.Contains(cells[4], "`"+way+"`") {
						t.Errorf("the page does not say that %s counts sign-ins by %s", name, way)
					}
				}
			}
			for label := range strings.SplitSeq(cells[3], ",") {
				if label = strings.Trim(strings.TrimSpace(label), "`"); label != "" {
					page.add(name, label)
				}
			}
		}
		if len(page) < 20 {
			t.Fatalf("the page has %d metrics", len(page))
		}
		for name, labels := range page {
			if !maps.Equal(labels, named[name]) {
				t.Errorf("%s: the page has labels %v, the server %v", name, slices.Sorted(maps.Keys(labels)), slices.Sorted(maps.Keys(named[name])))
			}
		}
		for name := range named {
			if strings.HasPrefix(name, "barong_") && page[name] == nil {
				t.Errorf("%s is not on the page", name)
			}
		}
	})

	t.Run("dashboard", func(t *testing.T) {
		var d struct {
			Panels []struct {
				Title, Type string
				Targets     []struct{ Expr string }
			}
			Templating struct {
				List []struct{ Name, Query string }
			}
		}
		if err := json.Unmarshal([]byte(read(t, root, "deploy/grafana/barong.json")), &d); err != nil {
			t.Fatal(err)
		}
		shown := map[string]bool{}
		for _, panel := range d.Panels {
			if panel.Type != "row" && len(panel.Targets) == 0 {
				t.Errorf("panel %q asks nothing", panel.Title)
			}
			for _, target := range panel.Targets {
				expr := strings.NewReplacer("$__rate_interval", "5m", `"$instance"`, `".*"`).Replace(target.Expr)
				for name := range check(t, "panel "+panel.Title, expr, onWire) {
					shown[name] = true
				}
			}
		}
		for name := range named { // what is measured is worth a look
			if strings.HasPrefix(name, "barong_") && !shown[name] && !shown[name+"_bucket"] && !shown[name+"_count"] {
				t.Errorf("%s is on no panel", name)
			}
		}
	})

	t.Run("alerts", func(t *testing.T) { alerts(t, root, onWire) })
}

// check parses an expression, and finds every metric and label that it names among those that are exported. It returns the
// metrics.
func check(t *testing.T, what, expr string, onWire series) map[string]bool {
	t.Helper()
	e, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		t.Errorf("%s: %s: %v", what, expr, err)
		return nil
	}
	names := map[string]bool{}
	labels := map[string]bool{"instance": true, "job": true, "le": true} // the scrape's, and those of buckets
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		v, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		name := v.Name
		names[name] = true
		if onWire[name] == nil {
			t.Errorf("%s: there is no %s", what, name)
			return nil
		}
		maps.Copy(labels, onWire[name])
		for _, m := range v.LabelMatchers {
			if m.Name != "__name__" && m.Name != "instance" && !onWire[name][m.Name] {
				t.Errorf("%s: %s has no label %s", what, name, m.Name)
			}
		}
		return nil
	})
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		if a, ok := n.(*parser.AggregateExpr); ok {
			for _, label := range a.Grouping {
				if !labels[label] {
					t.Errorf("%s: nothing has the label %s to group by", what, label)
				}
			}
		}
		return nil
	})
	return names
}

// fired is a made-up series for an alert.
type fired struct {
	Name  string       `yaml:"name"`
	Input []madeSeries `yaml:"input_series"`
	At    string       `yaml:"alert_at"`
	Quiet []madeSeries `yaml:"quiet"`
}

type madeSeries struct {
	Series string `yaml:"series"`
	Values string `yaml:"values"`
}

const step = 30 * time.Second

func alerts(t *testing.T, root string, onWire series) {
	groups, errs := rulefmt.Parse([]byte(read(t, root, "deploy/prometheus/barong.rules.yml")), false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	var tests struct {
		Tests []fired `yaml:"tests"`
	}
	if err := yaml.Unmarshal([]byte(read(t, root, "deploy/prometheus/barong.rules.test.yml")), &tests); err != nil {
		t.Fatal(err)
	}
	made := map[string]fired{}
	for _, f := range tests.Tests {
		made[f.Name] = f
	}
	engine := promqltest.NewTestEngine(t, false, 0, promqltest.DefaultMaxSamplesPerQuery)
	seen := 0
	for _, group := range groups.Groups {
		for _, rule := range group.Rules {
			t.Run(rule.Alert, func(t *testing.T) {
				seen++
				check(t, rule.Alert, rule.Expr, onWire)
				if rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" || !slices.Contains([]string{"critical", "warning"}, rule.Labels["severity"]) {
					t.Errorf("it does not say what to do: %v %v", rule.Annotations, rule.Labels)
				}
				f, ok := made[rule.Alert]
				if !ok {
					t.Fatal("no series is made up for it")
				}
				at, err := time.ParseDuration(f.At)
				if err != nil {
					t.Fatal(err)
				}
				if at <= time.Duration(rule.For) {
					t.Fatalf("it cannot fire at %v: it waits for %v", at, rule.For)
				}
				if !fires(t, engine, f.Input, rule.Expr, time.Duration(rule.For), at) {
					t.Errorf("it does not fire on %v", f.Input)
				}
				if fires(t, engine, f.Quiet, rule.Expr, time.Duration(rule.For), at) {
					t.Errorf("it fires on %v", f.Quiet)
				}
				// What is made up has the labels of what is exported.
				for _, s := range append(slices.Clone(f.Input), f.Quiet...) {
					if !strings.HasPrefix(s.Series, "something_else") {
						check(t, "series of "+rule.Alert, s.Series, onWire)
					}
				}
			})
		}
	}
	if seen != len(made) || seen < 10 {
		t.Errorf("%d alerts, %d with a series", seen, len(made))
	}
}

// fires reports whether an expression has held for so long by a moment.
func fires(t *testing.T, engine *promql.Engine, input []madeSeries, expr string, holds, at time.Duration) bool {
	t.Helper()
	var load strings.Builder
	fmt.Fprintf(&load, "load %s\n", step)
	for _, s := range input {
		fmt.Fprintf(&load, "  %s %s\n", s.Series, s.Values)
	}
	storage := promqltest.LoadedStorage(t, load.String())
	defer storage.Close()
	q, err := engine.NewRangeQuery(t.Context(), storage, nil, expr, time.Unix(0, 0), time.Unix(0, 0).Add(at), step)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	result := q.Exec(t.Context())
	if result.Err != nil {
		t.Fatal(result.Err)
	}
	matrix, err := result.Matrix()
	if err != nil {
		t.Fatal(err)
	}
	end := at.Milliseconds()
	for _, s := range matrix {
		held := map[int64]bool{}
		for _, p := range s.Floats {
			held[p.T] = true
		}
		all := true
		for ts := end; ts >= end-holds.Milliseconds(); ts -= step.Milliseconds() {
			all = all && held[ts]
		}
		if all {
			return true
		}
	}
	return false
}

func read(t *testing.T, root, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
