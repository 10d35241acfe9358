package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/yannh/kubeconform/pkg/validator"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"

	"barong/envoy"
	"barong/internal/config"
	"barong/internal/test/testkit"
)

// releases are those of Kubernetes that objects are held to; .ci/schemas brings their schemas.
var releases = []string{"1.30.0", "1.37.0"}

// TestGenerated: what the chart repeats of the rest of the repository is up to date.
func TestGenerated(t *testing.T) {
	root := testkit.Root(t)
	files, err := generated(root)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(root, folder, name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is stale: \"make docs\" writes it (%v)", name, err)
		}
	}
}

// objects are what a chart makes, by kind.
type objects struct {
	text            map[string]string // by kind and name, as it was rendered
	deployments     []*apps.Deployment
	jobs            []*batch.Job
	services        []*core.Service
	configMaps      []*core.ConfigMap
	accounts        []*core.ServiceAccount
	claims          []*core.PersistentVolumeClaim
	budgets         []*policy.PodDisruptionBudget
	scalers         []*autoscaling.HorizontalPodAutoscaler
	networkPolicies []*networking.NetworkPolicy
	ingresses       []*networking.Ingress
	monitors        []*monitoring.ServiceMonitor
	rules           []*monitoring.PrometheusRule
	notes           string
}

// load reads a chart of this repository.
func load(t *testing.T, path ...string) *chart.Chart {
	t.Helper()
	c, err := loader.Load(filepath.Join(append([]string{testkit.Root(t)}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	return c
}

// valuesOf reads a file of values, or none.
func valuesOf(t *testing.T, path string) map[string]any {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]any{}
	if err := yaml.UnmarshalStrict(text, &values); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return values
}

// rendered is what "helm install barong --namespace auth" sends.
func rendered(c *chart.Chart, release string, values map[string]any) (map[string]string, error) {
	version, err := common.ParseKubeVersion("v" + release)
	if err != nil {
		return nil, err
	}
	capabilities := common.DefaultCapabilities.Copy()
	capabilities.KubeVersion = *version
	all, err := util.ToRenderValues(c, values, common.ReleaseOptions{Name: "barong", Namespace: "auth", Revision: 1, IsInstall: true}, capabilities)
	if err != nil {
		return nil, err
	}
	return engine.Engine{Strict: true}.RenderWithContext(context.Background(), c, all)
}

// render renders a chart, and reads each object by the types of Kubernetes, which refuse what they do not know.
func render(t *testing.T, c *chart.Chart, values map[string]any) *objects {
	t.Helper()
	files, err := rendered(c, releases[len(releases)-1], values)
	if err != nil {
		t.Fatal(err)
	}
	o := &objects{text: map[string]string{}}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if filepath.Base(name) == "NOTES.txt" {
			o.notes += files[name]
			continue
		}
		for _, text := range regexp.MustCompile(`(?m)^---\n`).Split(files[name], -1) {
			var head struct {
				meta.TypeMeta `json:",inline"`
				Metadata      meta.ObjectMeta `json:"metadata"`
			}
			if err := yaml.Unmarshal([]byte(text), &head); err != nil {
				t.Fatalf("%s: %v\n%s", name, err, text)
			}
			if head.Kind == "" {
				if strings.TrimSpace(regexp.MustCompile(`(?m)^#.*$`).ReplaceAllString(text, "")) != "" {
					t.Errorf("%s holds what is no object:\n%s", name, text)
				}
				continue
			}
			id := head.Kind + "/" + head.Metadata.Name
			if o.text[id] != "" {
				t.Errorf("%s is made twice", id)
			}
			o.text[id] = text
			if head.Metadata.Namespace != "auth" || head.Metadata.Labels["app.kubernetes.io/instance"] != "barong" {
				t.Errorf("%s: namespace %q, labels %v", id, head.Metadata.Namespace, head.Metadata.Labels)
			}
			switch head.Kind {
			case "Deployment":
				o.deployments = append(o.deployments, decode[apps.Deployment](t, id, text))
			case "Job":
				o.jobs = append(o.jobs, decode[batch.Job](t, id, text))
			case "Service":
				o.services = append(o.services, decode[core.Service](t, id, text))
			case "ConfigMap":
				o.configMaps = append(o.configMaps, decode[core.ConfigMap](t, id, text))
			case "ServiceAccount":
				o.accounts = append(o.accounts, decode[core.ServiceAccount](t, id, text))
			case "PersistentVolumeClaim":
				o.claims = append(o.claims, decode[core.PersistentVolumeClaim](t, id, text))
			case "PodDisruptionBudget":
				o.budgets = append(o.budgets, decode[policy.PodDisruptionBudget](t, id, text))
			case "HorizontalPodAutoscaler":
				o.scalers = append(o.scalers, decode[autoscaling.HorizontalPodAutoscaler](t, id, text))
			case "NetworkPolicy":
				o.networkPolicies = append(o.networkPolicies, decode[networking.NetworkPolicy](t, id, text))
			case "Ingress":
				o.ingresses = append(o.ingresses, decode[networking.Ingress](t, id, text))
			case "ServiceMonitor":
				o.monitors = append(o.monitors, decode[monitoring.ServiceMonitor](t, id, text))
			case "PrometheusRule":
				o.rules = append(o.rules, decode[monitoring.PrometheusRule](t, id, text))
			default:
				t.Errorf("%s: nothing here knows such an object", id)
			}
		}
	}
	return o
}

// decode reads an object strictly.
func decode[T any](t *testing.T, id, text string) *T {
	t.Helper()
	var out T
	if err := yaml.UnmarshalStrict([]byte(text), &out); err != nil {
		t.Errorf("%s: %v\n%s", id, err, text)
	}
	return &out
}

// schemas brings the schemas of Kubernetes, and returns a validator of each release.
func schemas(t *testing.T) map[string]validator.Validator {
	t.Helper()
	root := testkit.Root(t)
	if out, err := exec.Command("sh", filepath.Join(root, ".ci", "schemas")).CombinedOutput(); err != nil {
		t.Fatalf("the schemas of Kubernetes: %v\n%s", err, out)
	}
	out := map[string]validator.Validator{}
	for _, release := range releases {
		v, err := validator.New(
			[]string{filepath.Join(root, ".schemas", release, "{{ .ResourceKind }}{{ .KindSuffix }}.json")},
			validator.Opts{Strict: true, KubernetesVersion: release},
		)
		if err != nil {
			t.Fatal(err)
		}
		out[release] = v
	}
	return out
}

// TestSchemasRefuse: the validator is one.
func TestSchemasRefuse(t *testing.T) {
	for release, v := range schemas(t) {
		for text, want := range map[string]validator.Status{
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: b}\n":                               validator.Valid,
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: b}\nsurprise: 1\n":                  validator.Invalid,
			"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {template: {}}\n":                 validator.Invalid, // no selector
			"apiVersion: policy/v1beta1\nkind: PodDisruptionBudget\nmetadata: {name: a}\nspec: {selector: {}}\n": validator.Error,   // long gone
		} {
			if got := v.Validate("a", io.NopCloser(strings.NewReader(text))); len(got) != 1 || got[0].Status != want {
				t.Errorf("%s: %q: %+v, want %v", release, text, got, want)
			}
		}
	}
}

// files are the values that the chart is tried with.
func files(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(testkit.Root(t), folder, "ci", "*-values.yaml"))
	if err != nil || len(names) < 5 {
		t.Fatal(names, err)
	}
	return names
}

// TestRender: what the chart makes of each file of values is what Kubernetes takes, and fits together.
func TestRender(t *testing.T) {
	validators := schemas(t)
	c := load(t, folder)
	for _, file := range files(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), "-values.yaml"), func(t *testing.T) {
			values := valuesOf(t, file)
			o := render(t, c, values)
			conforms(t, validators, o)
			fits(t, o)
			if o.notes == "" {
				t.Error("it says nothing after an installation")
			}
		})
	}
	t.Run("parent", func(t *testing.T) {
		parent := load(t, "deploy/helm/examples/own-gateway")
		parent.SetDependencies(c)
		o := render(t, parent, nil)
		conforms(t, validators, o)
		fits(t, o)
		if len(o.deployments) != 1 || len(o.jobs) != 1 {
			t.Errorf("%v", slices.Sorted(maps.Keys(o.text)))
		}
	})
}

func conforms(t *testing.T, validators map[string]validator.Validator, o *objects) {
	t.Helper()
	for id, text := range o.text {
		if strings.HasPrefix(id, "ServiceMonitor/") || strings.HasPrefix(id, "PrometheusRule/") {
			continue // render has read them by their own types
		}
		for release, v := range validators {
			for _, r := range v.Validate(id, io.NopCloser(strings.NewReader(text))) {
				if r.Status != validator.Valid {
					t.Errorf("%s, Kubernetes %s: %v %v", id, release, r.Err, r.ValidationErrors)
				}
			}
		}
	}
}

// fits holds the objects to each other, to the program's settings, and to what a Pod may do ("restricted" in the words of
// Kubernetes' Pod Security Standards).
func fits(t *testing.T, o *objects) {
	t.Helper()
	held := map[string]bool{}
	for _, c := range o.configMaps {
		held[c.Name] = true
	}
	known := map[string]bool{}
	for _, s := range config.Settings() {
		known[s.Name] = true
		if s.FromFile {
			known[s.Name+"_FILE"] = true
		}
	}
	pod := func(of string, p *core.PodSpec) map[int32]bool {
		if p.AutomountServiceAccountToken == nil || *p.AutomountServiceAccountToken || p.EnableServiceLinks == nil || *p.EnableServiceLinks {
			t.Errorf("%s: it is given a token, or variables of other Services", of)
		}
		if s := p.SecurityContext; s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.SeccompProfile == nil || s.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault {
			t.Errorf("%s: its security context is %+v", of, s)
		}
		volumes, mounted := map[string]bool{}, map[string]bool{}
		for _, v := range p.Volumes {
			if volumes[v.Name] {
				t.Errorf("%s: volume %s is there twice", of, v.Name)
			}
			volumes[v.Name] = true
			if c := v.ConfigMap; c != nil && !held[c.Name] && c.Name != "letters" && c.Name != "routes" { // the operator's
				t.Errorf("%s: there is no ConfigMap %s", of, c.Name)
			}
			if s := v.Secret; s != nil && (s.DefaultMode == nil || *s.DefaultMode&0o007 != 0) {
				t.Errorf("%s: others may read the Secret %s", of, s.SecretName)
			}
			if s := v.Projected; s != nil && (s.DefaultMode == nil || *s.DefaultMode&0o007 != 0) {
				t.Errorf("%s: others may read the volume %s", of, v.Name)
			}
		}
		ports := map[int32]bool{}
		for _, c := range slices.Concat(p.InitContainers, p.Containers) {
			if strings.HasPrefix(c.Image, "registry.example.com/sql-proxy") {
				continue // of the operator
			}
			what := of + ", container " + c.Name
			if s := c.SecurityContext; s == nil || *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem || !slices.Equal(s.Capabilities.Drop, []core.Capability{"ALL"}) {
				t.Errorf("%s may do %+v", what, s)
			}
			if c.Resources.Requests.Cpu().IsZero() || c.Resources.Limits.Memory().IsZero() {
				t.Errorf("%s: its resources are %+v", what, c.Resources)
			}
			named := map[string]bool{}
			for _, port := range c.Ports {
				named[port.Name], ports[port.ContainerPort] = true, true
			}
			for _, probe := range []*core.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
				switch {
				case probe == nil:
				case probe.HTTPGet != nil && !named[probe.HTTPGet.Port.String()], probe.TCPSocket != nil && !named[probe.TCPSocket.Port.String()]:
					t.Errorf("%s is asked at a port that it does not have", what)
				}
			}
			mounts := map[string]bool{}
			for _, m := range c.VolumeMounts {
				if !volumes[m.Name] || mounts[m.MountPath] {
					t.Errorf("%s: nothing, or two volumes, at %s", what, m.MountPath)
				}
				mounted[m.Name], mounts[m.MountPath] = true, true
			}
			if c.Name == "gateway" {
				continue
			}
			set := map[string]bool{}
			for _, e := range c.Env {
				if set[e.Name] || !known[e.Name] && e.Name != "OTEL_EXPORTER_OTLP_HEADERS" {
					t.Errorf("%s: %s is no setting, or set twice", what, e.Name)
				}
				set[e.Name] = true
				if path, ok := strings.CutPrefix(e.Value, "/run/secrets/barong/"); ok && !projects(p, path) {
					t.Errorf("%s: nothing brings the file of %s", what, e.Name)
				}
			}
		}
		for name := range volumes {
			if !mounted[name] {
				t.Errorf("%s: nobody has a use for the volume %s", of, name)
			}
		}
		return ports
	}
	for _, j := range o.jobs {
		pod("the Job", &j.Spec.Template.Spec)
		for _, s := range o.services {
			if labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(j.Spec.Template.Labels)) {
				t.Errorf("the Service %s sends requests to the Job", s.Name)
			}
		}
	}
	for _, d := range o.deployments {
		ports := pod("the Deployment", &d.Spec.Template.Spec)
		selects := func(what string, selector map[string]string) {
			if len(selector) == 0 || !labels.SelectorFromSet(selector).Matches(labels.Set(d.Spec.Template.Labels)) {
				t.Errorf("%s selects %v, the Pods are %v", what, selector, d.Spec.Template.Labels)
			}
		}
		selects("the Deployment", d.Spec.Selector.MatchLabels)
		for _, s := range o.services {
			selects("the Service "+s.Name, s.Spec.Selector)
			for _, port := range s.Spec.Ports {
				if !ports[port.TargetPort.IntVal] {
					t.Errorf("the Service %s sends to port %s, which no container has", s.Name, port.TargetPort.String())
				}
			}
		}
		for _, b := range o.budgets {
			selects("the PodDisruptionBudget", b.Spec.Selector.MatchLabels)
		}
		for _, n := range o.networkPolicies {
			selects("the NetworkPolicy", n.Spec.PodSelector.MatchLabels)
			for _, rule := range n.Spec.Ingress {
				for _, port := range rule.Ports {
					if !ports[port.Port.IntVal] {
						t.Errorf("the NetworkPolicy is about port %s, which no container has", port.Port.String())
					}
					if len(rule.From) == 0 && d.Spec.Template.Spec.Containers[0].Name != "gateway" {
						t.Error("everybody may ask")
					}
				}
			}
		}
		for _, s := range o.scalers {
			if s.Spec.ScaleTargetRef.Name != d.Name || d.Spec.Replicas != nil || len(s.Spec.Metrics) == 0 {
				t.Errorf("the number of Pods: %+v, replicas %v", s.Spec, d.Spec.Replicas)
			}
		}
		if len(o.scalers) == 0 && d.Spec.Replicas == nil {
			t.Error("nobody says how many Pods there are")
		}
		stops(t, d)
	}
	for _, m := range o.monitors {
		found := 0
		for _, s := range o.services {
			if labels.SelectorFromSet(m.Spec.Selector.MatchLabels).Matches(labels.Set(s.Labels)) {
				found++
				for _, e := range m.Spec.Endpoints {
					if !slices.ContainsFunc(s.Spec.Ports, func(p core.ServicePort) bool { return p.Name == e.Port }) {
						t.Errorf("the Service %s has no port %s to scrape", s.Name, e.Port)
					}
				}
			}
		}
		if found != 1 {
			t.Errorf("the ServiceMonitor selects %d Services", found)
		}
	}
	for _, i := range o.ingresses {
		for _, rule := range i.Spec.Rules {
			for _, path := range rule.HTTP.Paths {
				if !slices.ContainsFunc(o.services, func(s *core.Service) bool {
					return s.Name == path.Backend.Service.Name &&
						slices.ContainsFunc(s.Spec.Ports, func(p core.ServicePort) bool { return p.Name == path.Backend.Service.Port.Name })
				}) {
					t.Errorf("the Ingress leads to %+v", path.Backend.Service)
				}
			}
		}
	}
}

// projects reports whether a Pod has a file of a Secret.
func projects(p *core.PodSpec, file string) bool {
	for _, v := range p.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.Secret != nil && slices.ContainsFunc(s.Secret.Items, func(i core.KeyToPath) bool { return i.Path == file }) {
				return true
			}
		}
	}
	return false
}

// stops holds the grace period of a Pod to what docs/operations.md says that a stop takes.
func stops(t *testing.T, d *apps.Deployment) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(testkit.Root(t), "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	said := regexp.MustCompile(`at most (\d+) seconds with the\s+default`).FindSubmatch(text)
	byDefault := regexp.MustCompile("`BARONG_DRAIN_TIME` \\((\\d+) s\\)").FindSubmatch(text)
	if said == nil || byDefault == nil {
		t.Fatal("docs/operations.md does not say how long a stop takes")
	}
	var total, drain, own int64
	if _, err := fmt.Sscan(string(said[1])+" "+string(byDefault[1]), &total, &drain); err != nil {
		t.Fatal(err)
	}
	gateway := int64(0)
	for _, c := range slices.Concat(d.Spec.Template.Spec.InitContainers, d.Spec.Template.Spec.Containers) {
		for _, e := range c.Env {
			if e.Name == "BARONG_DRAIN_TIME" {
				if _, err := fmt.Sscanf(e.Value, "%ds", &own); err != nil {
					t.Errorf("BARONG_DRAIN_TIME=%s", e.Value)
				}
			}
		}
		if c.Lifecycle != nil && c.Lifecycle.PreStop != nil {
			gateway = c.Lifecycle.PreStop.Sleep.Seconds
		}
	}
	if grace := *d.Spec.Template.Spec.TerminationGracePeriodSeconds; grace < total-drain+own+gateway || own+gateway < 5 {
		t.Errorf("a stop takes %d seconds, of which %d and %d are for gateways to notice, and is given %d", total-drain+own+gateway, own, gateway, grace)
	}
}

// TestExamples: the examples of gateways ask the Services that there are, and none of them opens a gateway.
func TestExamples(t *testing.T) {
	root := testkit.Root(t)
	o := render(t, load(t, folder), valuesOf(t, filepath.Join(root, folder, "ci", "minimal-values.yaml")))
	there := map[string]bool{}
	for _, s := range o.services {
		for _, p := range s.Spec.Ports {
			there[fmt.Sprintf("%s %d", s.Name, p.Port)] = true
		}
	}
	asked := regexp.MustCompile(`(?:name: |//)(barong[a-z-]*)(?:\.auth\.svc\.cluster\.local)?(?:, port: |:)(\d+)`)
	for name, gateway := range map[string]string{"envoy-gateway": "Envoy Gateway", "ingress-nginx": "ingress-nginx", "traefik": "Traefik"} {
		text, err := os.ReadFile(filepath.Join(root, "deploy", "helm", "examples", name+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		found := asked.FindAllStringSubmatch(string(text), -1)
		if len(found) == 0 {
			t.Errorf("%s asks nobody", name)
		}
		for _, f := range found {
			if !there[f[1]+" "+f[2]] {
				t.Errorf("%s: the chart makes no Service %s with port %s", name, f[1], f[2])
			}
		}
		read, err := envoy.Lint(text)
		if err != nil || read.Gateway != gateway || !read.Asks {
			t.Errorf("%s: %+v, %v", name, read, err)
		}
		for _, f := range read.Found {
			t.Errorf("%s: %s", name, f)
		}
	}
}

// TestRefuses: values that cannot work are refused before anything is made, and say why.
func TestRefuses(t *testing.T) {
	c := load(t, folder)
	least := valuesOf(t, filepath.Join(testkit.Root(t), folder, "ci", "minimal-values.yaml"))
	for given, want := range map[string]string{
		`surprise: 1`: "surprise",
		`settings: {BARONG_SESSION_EXPIRE_TYME: 1}`:                         "BARONG_SESSION_EXPIRE_TYME",
		`settings: {BARONG_SECRET_KEY: abc}`:                                "BARONG_SECRET_KEY", // a secret has no place among values
		`settings: {BARONG_HTTP_ADDR: ":80"}`:                               "BARONG_HTTP_ADDR",  // the chart's own
		`settings: {BARONG_PORTAL: [on]}`:                                   "BARONG_PORTAL",
		`secrets: {settings: {BARONG_DOMAIN: {key: a}}}`:                    "BARONG_DOMAIN",
		`secrets: {settings: {BARONG_REDIS_URL: {kye: a}}}`:                 "kye",
		`files: {authz_rule.yml: ""}`:                                       "authz_rule.yml",
		`mode: both`:                                                        "mode",
		`replicas: -1`:                                                      "replicas",
		`image: {digest: "sha256:1"}`:                                       "digest",
		`ingress: {enabled: true}`:                                          "hosts",
		`autoscaling: {enabled: true, checksPerSecond: 0, cpuPercent: 0}`:   "cpuPercent",
		`sidecar: {gateway: {upstream: "http://app"}}`:                      "upstream",
		`secrets: {existingSecret: ""}`:                                     "secrets.existingSecret: name the Secret",
		`signingKeys: {existingSecret: ""}`:                                 "signingKeys.existingSecret",
		`secrets: {settings: {BARONG_DATABASE_URL: null}}`:                  "an embedded database has one Pod",
		`{replicas: 1, secrets: {settings: {BARONG_DATABASE_URL: null}}}`:   "data.persistent",
		`{mode: sidecar, secrets: {settings: {BARONG_DATABASE_URL: null}}}`: "no database of their own",
		`secrets: {settings: {ADMIN_PASSWORD: null}}`:                       "the password of the first superadmin",
		`networkPolicy: {gateways: []}`:                                     "networkPolicy.gateways",
		`{mode: inject, setup: {run: init}}`:                                "setup.run=init",
		`ports: {check: 8080}`:                                              "taken by another",
		`{mode: sidecar, sidecar: {gateway: {port: 8080}}}`:                 "taken by another",
		`{files: {seeds.yml: ""}, existingFiles: a}`:                        "give one of them",
	} {
		values := map[string]any{}
		if err := yaml.UnmarshalStrict([]byte(given), &values); err != nil {
			t.Fatalf("%s: %v", given, err)
		}
		if _, err := rendered(c, releases[len(releases)-1], merged(values, least)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", given, err, want)
		}
	}
	if _, err := rendered(c, "1.29.0", merged(map[string]any{"mode": "sidecar"}, least)); err == nil || !strings.Contains(err.Error(), "Kubernetes 1.30") {
		t.Errorf("a sidecar in an old cluster: %v", err)
	}
	if _, err := rendered(c, "1.29.0", merged(nil, least)); err != nil {
		t.Errorf("an old cluster: %v", err)
	}
}

// TestGatewayAsksWhom: each cluster of the gateway leads to its own, also where one has the port that another has by default, and
// the API is where it is published.
func TestGatewayAsksWhom(t *testing.T) {
	c := load(t, folder)
	least := valuesOf(t, filepath.Join(testkit.Root(t), folder, "ci", "minimal-values.yaml"))
	for given, want := range map[string][]string{ // where it listens, and where the checks, the API and the service are
		`ports: {http: 8090, check: 8080, ops: 9090}`: {"0.0.0.0:8000", "127.0.0.1:8080", "127.0.0.1:8090", "app:8080"},
		`ports: {http: 8081, check: 8090}`:            {"0.0.0.0:8000", "127.0.0.1:8090", "127.0.0.1:8081", "app:8080"},
		`{ports: {http: 8000, check: 8001}, sidecar: {gateway: {port: 8081, upstream: "127.0.0.1:8090"}}, settings: {BARONG_API_PREFIX: api/v3/auth}}`: {"0.0.0.0:8081", "127.0.0.1:8001", "127.0.0.1:8000", "127.0.0.1:8090", "/api/v3/auth/"},
	} {
		values := map[string]any{}
		if err := yaml.UnmarshalStrict([]byte(given), &values); err != nil {
			t.Fatal(err)
		}
		o := render(t, c, merged(merged(map[string]any{"mode": "sidecar"}, values), least))
		text := ""
		for _, m := range o.configMaps {
			text += m.Data["gateway.yaml"]
		}
		var got []string
		for _, m := range regexp.MustCompile(`address: ([a-z0-9.]+), port_value: (\d+)`).FindAllStringSubmatch(text, -1) {
			got = append(got, m[1]+":"+m[2])
		}
		prefix := "/api/v2/barong/"
		if len(want) > 4 {
			prefix = want[4]
		}
		if !slices.Equal(got, want[:4]) || strings.Count(text, "match: { prefix: "+prefix) != 2 || !strings.Contains(text, "server_uri: { uri: http://"+want[1]+",") {
			t.Errorf("%s: %v, want %v\n%s", given, got, want, text)
		}
	}
}

// merged lays values over others, as further files given to helm are; neither is changed.
func merged(over, below map[string]any) map[string]any {
	out := maps.Clone(below)
	for name, value := range over {
		a, isMap := value.(map[string]any)
		b, wasMap := out[name].(map[string]any)
		if isMap && wasMap {
			out[name] = merged(a, b)
		} else {
			out[name] = value
		}
	}
	return out
}

// TestSchemaIsStrict: the schema has the values that there are, and takes no others.
func TestSchemaIsStrict(t *testing.T) {
	var schema struct {
		Properties map[string]any `json:"properties"`
	}
	root := testkit.Root(t)
	text, err := os.ReadFile(filepath.Join(root, folder, "values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	values := valuesOf(t, filepath.Join(root, folder, "values.yaml"))
	delete(schema.Properties, "global")
	if got, want := slices.Sorted(maps.Keys(values)), slices.Sorted(maps.Keys(schema.Properties)); !slices.Equal(got, want) {
		t.Errorf("values.yaml has %v, its schema %v", got, want)
	}
	if err := strict("values", schema.Properties); err != nil {
		t.Error(err)
	}
}

// strict finds an object of a schema that takes whatever it is given, and does not say so.
func strict(path string, properties map[string]any) error {
	var errs []error
	for name, p := range properties {
		at := path + "." + name
		node, ok := p.(map[string]any)
		if !ok {
			return fmt.Errorf("%s is no schema", at)
		}
		below, _ := node["properties"].(map[string]any)
		if len(below) > 0 && node["additionalProperties"] != false {
			errs = append(errs, fmt.Errorf("%s takes properties that nobody knows", at))
		}
		errs = append(errs, strict(at, below))
	}
	return errors.Join(errs...)
}
