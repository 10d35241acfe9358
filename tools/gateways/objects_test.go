package gateways

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"google.golang.org/protobuf/encoding/protojson"
	meshconfig "istio.io/api/mesh/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"barong/internal/test/testkit"
)

// A module publishes schemas. It is fetched for its files alone, and nothing is built of it: requiring it would bring all
// that its controller needs. sum is the one of go.sum.
type module struct{ path, version, sum string }

var (
	envoyGateway = module{"github.com/envoyproxy/gateway", "v1.9.1", "h1:vAVp6/AlBXJ1aOhp1mxL7fNEzVEfjADUguUhm2wzxQY="}
	gatewayAPI   = module{"sigs.k8s.io/gateway-api", "v1.6.3", "h1:lKpJa5bGlraC/QeACvCpsHLdmO6y0iKfzVl6gzaFEYc="}
	istioAPI     = module{"istio.io/api", "v1.32.0", "h1:37mJvg9I0biYZAEQF+MATs4FNeCpXEIVO3LFpVb6iNM="}
	contour      = module{"github.com/projectcontour/contour", "v1.33.8", "h1:QoOfwqWws+CVRFpsRC2+f1DmB5IdurtyUtepIsiWfE0="}
	ingressNginx = module{"k8s.io/ingress-nginx", "v0.0.0-20240708192948-52c50467d67d", "h1:tZui5g6S4GO1hxLm6yrEoIXLkl4QfeGytlmZqZ+DmdQ="}
)

// files are those of a module that match a pattern.
func (m module) files(t *testing.T, pattern string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", m.path+"@"+m.version)
	cmd.Dir = t.TempDir()                                                           // no module's: nothing is required of this one
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off", "GOSUMDB=off") // the sum is compared here
	out, err := cmd.Output()
	var got struct{ Dir, Sum, Error string }
	if err := errors.Join(err, json.Unmarshal(out, &got)); err != nil || got.Error != "" {
		t.Fatalf("%s: %v %s", m.path, err, got.Error)
	}
	if got.Sum != m.sum {
		t.Fatalf("%s %s has the sum %s, want %s", m.path, m.version, got.Sum, m.sum)
	}
	found, err := filepath.Glob(filepath.Join(got.Dir, filepath.FromSlash(pattern)))
	if err != nil || len(found) == 0 {
		t.Fatalf("%s has no %s: %v", m.path, pattern, err)
	}
	return found
}

// schemas are those of custom resources, by "group/version Kind".
type schemas map[string]*schema

// A schema is made into what validates when it is first needed: most never are.
type schema struct {
	name     string
	openAPI  map[string]any
	compiled *jsonschema.Schema
}

func (s *schema) validate(doc []byte) error {
	if s.compiled == nil {
		c := jsonschema.NewCompiler()
		c.AssertFormat()
		url := "crd:" + strings.ReplaceAll(s.name, " ", "/")
		if err := c.AddResource(url, strict(s.openAPI)); err != nil {
			return err
		}
		var err error
		if s.compiled, err = c.Compile(url); err != nil {
			return err
		}
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(doc))
	if err != nil {
		return err
	}
	return s.compiled.Validate(value)
}

// read adds the schemas of custom resources that stand in files.
func (s schemas) read(t *testing.T, files []string) {
	t.Helper()
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, doc := range documents(t, file, string(text)) {
			var crd struct {
				Kind string
				Spec struct {
					Group    string
					Names    struct{ Kind string }
					Versions []struct {
						Name   string
						Served bool
						Schema struct{ OpenAPIV3Schema map[string]any }
					}
				}
			}
			if err := yaml.Unmarshal(doc, &crd); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			if crd.Kind != "CustomResourceDefinition" {
				continue
			}
			for _, v := range crd.Spec.Versions {
				if !v.Served || v.Schema.OpenAPIV3Schema == nil {
					continue
				}
				name := crd.Spec.Group + "/" + v.Name + " " + crd.Spec.Names.Kind
				openAPI := v.Schema.OpenAPIV3Schema
				properties := openAPI["properties"].(map[string]any)
				for _, field := range []string{"apiVersion", "kind"} { // all have them, whether or not the schema says so
					properties[field] = map[string]any{"type": "string"}
				}
				properties["metadata"] = map[string]any{"type": "object"}
				s[name] = &schema{name: name, openAPI: openAPI}
			}
		}
	}
}

// strict makes a schema of OpenAPI 3 as Kubernetes writes it one of JSON that refuses fields that it does not name: a cluster
// drops them, unless it is asked to be strict.
func strict(schema map[string]any) map[string]any {
	out := map[string]any{}
	for key, value := range schema {
		switch key {
		case "properties":
			properties := map[string]any{}
			for name, p := range value.(map[string]any) {
				properties[name] = strict(p.(map[string]any))
			}
			out[key] = properties
		case "items", "additionalProperties", "not":
			if inner, ok := value.(map[string]any); ok {
				value = strict(inner)
			}
			out[key] = value
		case "allOf", "anyOf", "oneOf":
			var all []any
			for _, item := range value.([]any) {
				all = append(all, loose(item.(map[string]any)))
			}
			out[key] = all
		case "type", "enum", "required", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "uniqueItems",
			"minProperties", "maxProperties", "multipleOf":
			out[key] = value
		case "format":
			if slices.Contains([]string{"date-time", "ipv4", "ipv6", "uri", "hostname"}, value.(string)) {
				out[key] = value
			}
		}
	}
	if schema["x-kubernetes-int-or-string"] == true {
		delete(out, "type")
	}
	if schema["nullable"] == true && out["type"] != nil {
		out["type"] = []any{out["type"], "null"}
	}
	if out["properties"] != nil && out["additionalProperties"] == nil && schema["x-kubernetes-preserve-unknown-fields"] != true {
		out["additionalProperties"] = false
	}
	return out
}

// loose is a schema that only says more about what another one names.
func loose(schema map[string]any) map[string]any {
	out := strict(schema)
	var open func(value any)
	open = func(value any) {
		switch v := value.(type) {
		case map[string]any:
			if v["additionalProperties"] == false {
				delete(v, "additionalProperties")
			}
			for _, inner := range v {
				open(inner)
			}
		case []any:
			for _, inner := range v {
				open(inner)
			}
		}
	}
	open(out)
	return out
}

// parts are the documents of a YAML file.
func parts(text string) []string { return regexp.MustCompile(`(?m)^---.*$`).Split(text, -1) }

// documents are the parts of a YAML file, as JSON.
func documents(t *testing.T, name, text string) [][]byte {
	t.Helper()
	var out [][]byte
	for _, part := range parts(text) {
		doc, err := yaml.YAMLToJSONStrict([]byte(part))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !bytes.Equal(bytes.TrimSpace(doc), []byte("null")) {
			out = append(out, doc)
		}
	}
	return out
}

// check holds the objects of a page against the schemas, and those of Kubernetes itself against its types.
func (s schemas) check(page, text string) (kinds []string, problems []error) {
	for _, part := range parts(text) {
		doc, err := yaml.YAMLToJSONStrict([]byte(part))
		if err != nil {
			return kinds, append(problems, fmt.Errorf("%s: %w", page, err))
		}
		var object struct {
			APIVersion, Kind string
			Metadata         struct{ Name, Namespace string }
		}
		if err := json.Unmarshal(doc, &object); err != nil {
			return kinds, append(problems, fmt.Errorf("%s: %w", page, err))
		}
		if object.Kind == "" {
			continue
		}
		kinds = append(kinds, object.Kind)
		what := fmt.Sprintf("%s: %s %s", page, object.Kind, object.Metadata.Name)
		if object.Metadata.Name == "" || object.Metadata.Namespace == "" {
			problems = append(problems, fmt.Errorf("%s has no name or namespace", what))
		}
		switch name := object.APIVersion + " " + object.Kind; name {
		case "v1 ConfigMap":
			err = yaml.UnmarshalStrict(doc, new(corev1.ConfigMap))
		case "networking.k8s.io/v1 Ingress":
			err = yaml.UnmarshalStrict(doc, new(networkingv1.Ingress))
		default:
			schema, ok := s[name]
			if !ok {
				problems = append(problems, fmt.Errorf("%s: nobody publishes %s", what, name))
				continue
			}
			err := schema.validate(doc)
			if err == nil { // rules are for what the schema takes
				var broken []string
				broken, _, err = schema.rules(doc)
				for _, rule := range broken {
					problems = append(problems, fmt.Errorf("%s breaks a rule: %s", what, rule))
				}
			}
			if err != nil {
				problems = append(problems, fmt.Errorf("%s: %w", what, err))
			}
			continue
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", what, err))
		}
	}
	return kinds, problems
}

var published = sync.OnceValue(func() schemas { return schemas{} })

func all(t *testing.T) schemas {
	t.Helper()
	s := published()
	if len(s) == 0 {
		s.read(t, envoyGateway.files(t, "charts/gateway-helm/charts/crds/crds/generated/*_[cs]*policies.yaml"))
		s.read(t, gatewayAPI.files(t, "config/crd/standard/*_[ghr]*s.yaml"))
		s.read(t, istioAPI.files(t, "kubernetes/customresourcedefinitions.gen.yaml"))
		s.read(t, contour.files(t, "examples/contour/01-crds.yaml"))
	}
	return s
}

// Every object of the pages is one that the gateway's own schema takes.
func TestObjects(t *testing.T) {
	s := all(t)
	for page, want := range map[string][]string{
		"envoy-gateway.md": {"Gateway", "ClientTrafficPolicy", "SecurityPolicy", "ReferenceGrant", "HTTPRoute", "HTTPRoute"},
		"istio.md":         {"AuthorizationPolicy", "AuthorizationPolicy", "VirtualService"},
		"contour.md":       {"ExtensionService", "HTTPProxy"},
		"ingress-nginx.md": {"Ingress", "ConfigMap", "ConfigMap", "ConfigMap", "Ingress"},
	} {
		text := testkit.Pieces(t, "docs/gateways/"+page, "objects")
		kinds, problems := s.check(page, text)
		if err := errors.Join(problems...); err != nil || !slices.Equal(kinds, want) {
			t.Errorf("%s: %v, %v", page, kinds, err)
		}
		// The schemas find what is wrong: a name that is misspelt, anywhere.
		for _, object := range parts(text) {
			for _, m := range regexp.MustCompile(`(?m)^ +(?:- )?([a-z]\w+):(?: |$)`).FindAllStringSubmatchIndex(object, -1) {
				field, before := object[m[2]:m[3]], object[:m[2]]
				if inMap(before, field) {
					continue
				}
				if _, problems := s.check(page, before+field+"X"+object[m[3]:]); len(problems) == 0 {
					t.Errorf("%s: %sX is taken for %s behind\n%s", page, field, field, before)
				}
			}
		}
	}
}

// So are those of the chart's examples.
func TestExamples(t *testing.T) {
	for example, want := range map[string][]string{
		"envoy-gateway.yaml": {"SecurityPolicy", "ClientTrafficPolicy", "HTTPRoute"},
		"ingress-nginx.yaml": {"Ingress", "ConfigMap"},
	} {
		text, err := os.ReadFile(filepath.Join(testkit.Root(t), "deploy", "helm", "examples", example))
		if err != nil {
			t.Fatal(err)
		}
		kinds, problems := all(t).check(example, string(text))
		if err := errors.Join(problems...); err != nil || !slices.Equal(kinds, want) {
			t.Errorf("%s: %v, %v", example, kinds, err)
		}
	}
}

// The rules in the schemas find what the fields by themselves do not show.
func TestRules(t *testing.T) {
	s := all(t)
	text := testkit.Pieces(t, "docs/gateways/envoy-gateway.md", "objects")
	for line, instead := range map[string]string{
		"  extAuth:\n    failOpen: false\n": "  extAuth:\n    failOpen: false\n    http: {backendRefs: [{name: barong, port: 8081}]}\n", // and gRPC
		"    grpc:\n      backendRefs:\n":   "    grpc:\n      x-none:\n",
		"  targetRefs:\n  - group: gateway.networking.k8s.io\n    kind: Gateway\n    name: public\n  path:": "  targetRefs:\n  - group: gateway.networking.k8s.io\n    kind: Service\n    name: public\n  path:",
		"replacePrefixMatch: /api/v2 }": "replaceFullPath: /api/v2 }",
		"    requestID: Generate\n":     "    requestID: Generate\n    preserveXRequestID: true\n",
	} {
		spoilt := strings.Replace(text, line, instead, 1)
		if spoilt == text {
			t.Errorf("the page has no %q", line)
		}
		if _, problems := s.check("envoy-gateway.md", spoilt); len(problems) == 0 {
			t.Errorf("%q is taken", instead)
		}
	}
	ran := 0
	for _, doc := range documents(t, "envoy-gateway.md", text) {
		var object struct{ APIVersion, Kind string }
		if err := json.Unmarshal(doc, &object); err != nil {
			t.Fatal(err)
		}
		_, n, err := s[object.APIVersion+" "+object.Kind].rules(doc)
		if err != nil {
			t.Errorf("%s: %v", object.Kind, err)
		}
		ran += n
	}
	if ran < 30 {
		t.Errorf("only %d rules ran", ran)
	}
}

// inMap reports whether a name is a key of a free choice, such as a label, and not a field.
func inMap(before, field string) bool {
	lines := strings.Split(before, "\n")
	indent := len(lines[len(lines)-1])
	for i := len(lines) - 2; i >= 0; i-- {
		line := lines[i]
		if n := len(line) - len(strings.TrimLeft(line, " ")); strings.TrimSpace(line) != "" && n < indent {
			return slices.Contains([]string{"matchLabels:", "annotations:", "data:", "metadata:"}, strings.TrimSpace(line))
		}
	}
	return false
}

// Istio's mesh configuration is one by Istio's own type.
func TestMeshConfiguration(t *testing.T) {
	text := testkit.Pieces(t, "docs/gateways/istio.md", "mesh")
	parse := func(text string) (*meshconfig.MeshConfig, error) {
		doc, err := yaml.YAMLToJSONStrict([]byte(text))
		if err != nil {
			return nil, err
		}
		m := new(meshconfig.MeshConfig)
		return m, protojson.Unmarshal(doc, m)
	}
	m, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	p := m.GetExtensionProviders()[0].GetEnvoyExtAuthzHttp()
	if p.GetFailOpen() || p.GetPathPrefix() != "/api/v2/auth" || p.GetTimeout().AsDuration().Seconds() != 1 || p.GetStatusOnError() != "503" {
		t.Errorf("got %v", p)
	}
	for _, name := range []string{"failOpen", "pathPrefix", "headersToUpstreamOnAllow", "normalization"} {
		if _, err := parse(strings.Replace(text, name, name+"X", 1)); err == nil {
			t.Errorf("%sX is taken", name)
		}
	}
	// The policy names the provider.
	if !strings.Contains(testkit.Pieces(t, "docs/gateways/istio.md", "objects"), "  provider:\n    name: "+m.GetExtensionProviders()[0].GetName()+"\n") {
		t.Error("no policy names the provider")
	}
}

// ingress-nginx documents every annotation and every key of its configuration that its page has.
func TestIngressNginxNames(t *testing.T) {
	documented := func(file string) string {
		text, err := os.ReadFile(ingressNginx.files(t, "docs/user-guide/nginx-configuration/"+file)[0])
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	annotations, keys := documented("annotations.md"), documented("configmap.md")
	text := testkit.Pieces(t, "docs/gateways/ingress-nginx.md", "objects")
	found := regexp.MustCompile(`(nginx\.ingress\.kubernetes\.io/[a-z-]+): `).FindAllStringSubmatch(text, -1)
	if len(found) < 9 {
		t.Errorf("found %d annotations", len(found))
	}
	for _, m := range found {
		if !strings.Contains(annotations, "["+m[1]+"]") && !strings.Contains(annotations, "`"+m[1]+"`") && !strings.Contains(annotations, "`"+m[1]+":") {
			t.Errorf("ingress-nginx has no annotation %s", m[1])
		}
	}
	for _, doc := range documents(t, "ingress-nginx.md", text) {
		var object corev1.ConfigMap
		if err := json.Unmarshal(doc, &object); err != nil || object.Name != "ingress-nginx-controller" {
			continue
		}
		for key := range object.Data {
			if !strings.Contains(keys, "["+key+"](") {
				t.Errorf("ingress-nginx has no key %s", key)
			}
		}
		return
	}
	t.Error("there is no configuration of the controller")
}
