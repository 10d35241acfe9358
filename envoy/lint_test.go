package envoy

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// references are the configurations that this package hands out.
var references = []string{"envoy.yaml", "envoy-grpc.yaml", "traefik.yml", "traefik-dynamic.yml", "Caddyfile", "nginx.conf", "haproxy.cfg"}

func TestLintReferences(t *testing.T) {
	for _, name := range references {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		read, err := Lint(text)
		asks := name != "traefik.yml" // which leaves it to the other file
		if err != nil || len(read.Found) > 0 || read.Unasked != nil || read.Gateway == "" || read.Asks != asks {
			t.Errorf("%s: %+v %v", name, read, err)
		}
		// A check that Envoy asks again waits for up to a second by default, and has no more than that in all.
		if again := strings.Contains(string(text), "ext_authz.v3.ExtAuthz\n"); again != strings.Contains(string(text), "retry_back_off: { base_interval: 0.025s") {
			t.Errorf("%s: a check is asked again when its time is over", name)
		}
		if strings.Contains(string(text), "ext_authz.v3.ExtAuthz\n") && !strings.Contains(string(text), "route: { cluster: upstream, timeout: 0s }") {
			t.Errorf("%s: what the service takes longer over than 15 seconds is cut off", name)
		}
		// Without what has the check asked, and with it in a comment alone.
		for _, mark := range []string{"forward_auth", "auth_request /", "forwardAuth:", "ext_authz.v3.ExtAuthz\n", "http-request lua.barong"} {
			var kept []string
			for line := range strings.Lines(string(text)) {
				if strings.Contains(line, mark) {
					if mark == "forwardAuth:" || mark == "forward_auth" { // begins a block
						line = strings.Replace(line, strings.TrimSpace(strings.TrimSuffix(mark, ":")), "other", 1)
					} else {
						line = "#" + line
					}
				}
				kept = append(kept, line)
			}
			if spoiled := strings.Join(kept, ""); asks && spoiled != string(text) {
				if read, err := Lint([]byte(spoiled)); err != nil || read.Asks || read.Unasked == nil || !read.Unasked.Open {
					t.Errorf("%s without %s: %+v %v", name, mark, read, err)
				}
			}
		}
	}
	// Without what requests need that are signed whole.
	for _, c := range []struct {
		name, drop string
		why        string // empty: nothing is wrong then
	}{
		{"envoy.yaml", "- exact: signature-input\n", "the check does not get signature-input"},
		{"envoy.yaml", "- exact: content-digest\n", "the check does not get content-digest"},
		{"envoy.yaml", "header: { key: x-original-framing", "X-Original-Framing"},
		{"envoy.yaml", "- exact: x-original-framing\n", ""}, // then every method but GET has to cover a digest
		{"envoy-grpc.yaml", "- remove: x-original-framing\n", ""},
		{"traefik-dynamic.yml", "X-Original-Framing:", ""}, // which the check does not get
		{"traefik-dynamic.yml", "- Signature-Input\n", "the check does not get signature-input"},
		{"nginx.conf", "X-Original-Framing", "X-Original-Framing"},
		{"Caddyfile", "X-Original-Framing", "X-Original-Framing"},
	} {
		text, err := os.ReadFile(c.name)
		if err != nil {
			t.Fatal(err)
		}
		var kept []string
		for line := range strings.Lines(string(text)) {
			if !strings.Contains(line, c.drop) && !(c.name == "envoy.yaml" && strings.HasPrefix(c.drop, "header:") && strings.Contains(line, "request_headers_to_remove")) {
				kept = append(kept, line)
				continue
			}
			if c.drop == "header: { key: x-original-framing" && strings.Contains(line, c.drop) {
				kept = append(kept, strings.Replace(line, "x-original-framing", "x-other", 1))
			}
		}
		read, err := Lint([]byte(strings.Join(kept, "")))
		signed := slices.DeleteFunc(read.Found, func(f Finding) bool { return !f.Signed })
		switch {
		case err != nil, len(kept) == strings.Count(string(text), "\n") && c.drop != "header: { key: x-original-framing":
			t.Errorf("%s without %s: %+v %v", c.name, c.drop, read, err)
		case c.why == "" && len(signed) != 0, c.why != "" && (len(signed) != 1 || !strings.Contains(signed[0].Why, c.why) || signed[0].Open):
			t.Errorf("%s without %s: %+v", c.name, c.drop, read.Found)
		}
	}
	// The same files, spoiled in one place.
	for _, c := range []struct{ name, good, bad string }{
		{"envoy.yaml", "failure_mode_allow: false", "failure_mode_allow: true"},
		{"envoy-grpc.yaml", "failure_mode_allow: false", "failure_mode_allow: true"},
		{"traefik-dynamic.yml", "trustForwardHeader: false", "trustForwardHeader: true"},
		{"nginx.conf", "error_page 401 403 500 = $refused;", "error_page 401 403 500 =200 $refused;"},
		{"haproxy.cfg", "    http-request lua.barong\n", "    http-request allow if METH_HEAD\n    http-request lua.barong\n"},
	} {
		text, err := os.ReadFile(c.name)
		if err != nil {
			t.Fatal(err)
		}
		before, after, ok := strings.Cut(string(text), c.good)
		if !ok {
			t.Fatalf("%s has no %s", c.name, c.good)
		}
		line := strings.Count(before, "\n") + 1
		read, err := Lint([]byte(before + c.bad + after))
		found := read.Found
		if err != nil || len(found) != 1 || found[0].Line != line || !strings.Contains(c.bad, found[0].Setting) {
			t.Errorf("%s in line %d: %v %v", c.bad, line, found, err)
		}
	}
}

func TestLint(t *testing.T) {
	for text, want := range map[string][]string{
		"":     nil,
		"a: 1": nil,
		"# failure_mode_allow: true\na: failure_mode_allow":                                nil,
		"failure_mode_allow: True":                                                         {"1 open"},
		"failure_mode_allow: \"yes\"":                                                      {"1 open"},
		`{"a": [{"failure_mode_allow": true}, {"failOpen": false}]}`:                       {"1 open"},
		"a: 1\n---\nb:\n- failureModeAllow: on\n":                                          {"4 open"},
		"spec:\n  extAuth:\n    failOpen: true\n":                                          {"3 open"},
		"typed_per_filter_config:\n  envoy.filters.http.ext_authz:\n    disabled: true\n":  {"3"},
		"typed_per_filter_config:\n  envoy.filters.http.ext_authz:\n    disabled: false\n": nil,
		"other:\n  disabled: true\n":                                                       nil,
		"a: &x {failOpen: true}\nb: *x\nc: {<<: *x}\n":                                     {"1 open"},
		"a: &a\n  b: *a\n  fail_open: true\n":                                              {"3 open"}, // contains itself
		"http.middlewares.check.forwardAuth\ntrustForwardHeader = true\n":                  {"2"},
		"{{ if .x }}\nfailure_mode_allow: true # why\n{{ end }}\n":                         {"2 open"}, // a template
		"routes:\n- authPolicy:\n    disabled: true\n":                                     {"3"},
		// HAProxy goes on when the script fails.
		"frontend a\nbind :80\nhttp-request lua.barong\ndefault_backend b\n":                                                                   {"3 open"},
		"frontend a\nbind :80\nhttp-request lua.auth-request b /check\nhttp-request deny if ! { var(txn.auth_response_successful) -m bool }\n": nil,
		"frontend a\nhttp-request deny if ! { var(txn.auth) -m bool }\nhttp-request lua.auth-intercept b /check GET * * *\nbind :80\n":         {"3 open"},
		"error_page 404 =200 /x;\nerror_page 500 502 =204 /y;\nerror_page 500 = @z;\n":                                                         {"2 open"},
	} {
		read, err := Lint([]byte(text))
		found := read.Found
		if err != nil {
			t.Errorf("%q: %v", text, err)
		}
		var got []string
		for _, f := range found {
			s := fmt.Sprint(f.Line)
			if f.Open {
				s += " open"
			}
			got = append(got, s)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", text, found, want)
		}
	}
	if _, err := Lint(make([]byte, maxLint+1)); err == nil {
		t.Error("a file without bounds is read")
	}
}

// Lists of headers in the forms of other gateways.
func TestLintSignedHeaders(t *testing.T) {
	for text, want := range map[string]int{
		"x:\n  forwardAuth:\n    address: a\n    authRequestHeaders: [cookie, signature, signature-input, content-digest]\n":                     0,
		"x:\n  forwardAuth:\n    address: a\n    authRequestHeaders: [Cookie, Signature, Signature-Input, Content-Digest, X-Original-Framing]\n": 1,
		"x:\n  forwardAuth:\n    address: a\n    authRequestHeaders: [cookie]\n":                                                                 1,
		"x:\n  forwardAuth:\n    address: a\n": 1,
		"x:\n  forwardAuth: {address: a}\n  headers: {customRequestHeaders: {x-original-framing: ''}}\n":           0,
		"envoyExtAuthzHttp:\n  includeRequestHeadersInCheck: [cookie]\n":                                           1,
		"envoyExtAuthzGrpc:\n  service: a\n":                                                                       0,
		"extAuth:\n  headersToExtAuth: [signature, signature-input, content-digest, x-original-framing]\n":         1,
		"x:\n  forwardAuth: {address: a, authRequestHeaders: &x [*x]}\n":                                           1,
		"location / { auth_request /check; proxy_pass http://a; }\n":                                               1,
		"location / { auth_request /check; include check.conf; proxy_pass http://a; }\n":                           0,
		"include mime.types; location / { auth_request /check; proxy_pass http://a; }\n":                           1,
		":80 {\n\tforward_auth a {\n\t\turi /api/v2/forward-auth\n\t}\n\treverse_proxy b\n}\n":                     1,
		":80 {\n\trequest_header -X-Original-Framing\n\tforward_auth a {\n\t\turi /x\n\t}\n\treverse_proxy b\n}\n": 0,
	} {
		read, err := Lint([]byte(text))
		if n := len(read.Found); err != nil || n != want || n == 1 && (!read.Found[0].Signed || read.Found[0].Open) {
			t.Errorf("%q: %+v %v", text, read, err)
		}
	}
}

// What a file is, and whether it has a check asked.
func TestLintRecognises(t *testing.T) {
	for text, want := range map[string]string{
		"":                                  "",
		"hello":                             "",
		"a: 1":                              "",
		"# auth_request /x;\n":              "",
		"services:\n  db:\n    image: pg\n": "",
		`{"name": "x", "version": 1}`:       "",
		"[section]\nkey = value\n":          "",
		"key value;\n":                      "",
		"server { listen 80; location / { proxy_pass http://x; } }":                                        "nginx open 1",
		"server {\n  # auth_request /x;\n  location / {\n    proxy_pass http://x;\n  }\n}":                 "nginx open 4",
		"server { auth_request /x; location / { proxy_pass http://x; } }":                                  "nginx asks",
		"server { auth_request off; location / { proxy_pass http://x; } }":                                 "nginx open 1",
		"location / {\n  auth_request /x;\n  proxy_pass http://x;\n}":                                      "nginx asks",
		"server { content_by_lua_block { local x = {1, 2}; y = [[ } ]] }\n auth_request /x; }":             "nginx asks",
		"server { location / { return 200 'ok;}'; } }":                                                     "nginx",
		":80 {\n\treverse_proxy x:1\n}\n":                                                                  "Caddy open 2",
		":80 {\n\t# forward_auth x:1\n\treverse_proxy x:1\n}\n":                                            "Caddy open 3",
		":80 {\n\tforward_auth x:1 {\n\t\turi /api/v2/forward-auth?\n\t}\n\treverse_proxy x:1\n}\n":        "Caddy asks",
		":80 {\n\trespond \"forward_auth {\"\n}\n":                                                         "Caddy",
		`{"apps": {"http": {"servers": {"a": {"routes": [{"handle": [{"handler": "reverse_proxy"}]}]}}}}}`: "Caddy open 1",
		`{"handle": [{"handler": "reverse_proxy", "rewrite": {"uri": "/api/v2/forward-auth?"}}]}`:          "Caddy asks",
		"http:\n  routers:\n    a: {rule: x}\n":                                                            "Traefik open 2",
		"http:\n  routers:\n    a: {rule: x}\n  middlewares:\n    c: {forwardAuth: {address: x}}\n":        "Traefik asks",
		"entryPoints: {a: {address: x}}":                                                                   "Traefik",
		"[http.middlewares.check.forwardAuth]\naddress = 'x'\n":                                            "Traefik asks",
		"kind: Middleware\nspec: {forwardAuth: {address: x}}\n":                                            "Traefik asks",
		"kind: SecurityPolicy\nspec: {extAuth: {http: {}}}\n":                                              "Envoy Gateway asks",
		"kind: Ingress\nmetadata: {annotations: {nginx.ingress.kubernetes.io/auth-url: x}}\n":              "ingress-nginx asks",
		"extensionProviders:\n- name: x\n  envoyExtAuthzHttp: {service: x}\n":                              "Istio asks",
		"static_resources: {}": "Envoy",
		"filters:\n- typed_config:\n    \"@type\": " + typeURL + "network.http_connection_manager.v3.HttpConnectionManager\n": "Envoy open 3",
	} {
		read, err := Lint([]byte(text))
		got := read.Gateway
		if read.Asks {
			got += " asks"
		}
		if read.Unasked != nil {
			got += fmt.Sprint(" open ", read.Unasked.Line)
		}
		if err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", text, got, err, want)
		}
	}
}

// Envoy's filter is read by its own schema: what Envoy would not take is told.
func TestLintReadsBySchema(t *testing.T) {
	for fields, want := range map[string]string{
		"failure_mode_allow: false":   "",
		"failureModeAllow: false":     "",
		"failure_mode_allowed: false": "failure_mode_allowed",
		"failure_mode_allow: \"no\"":  "failureModeAllow",
		"grpc_service: {envoy_grpc: {retry_policy: {retry_host_predicate: [{name: x, typed_config: {\"@type\": type.googleapis.com/x.y.Z}}]}}}": "",
		"http_service: {path_prefix: 1}":                     "pathPrefix",
		"http_service: {path_prefix: /x, no_such_field: {}}": "no_such_field",
		"transport_api_version: V3":                          "",
		"transport_api_version: V9":                          "transportApiVersion",
	} {
		read, err := Lint([]byte("typed_config:\n  \"@type\": " + typeURL + "http.ext_authz.v3.ExtAuthz\n  " + fields + "\n"))
		var got string
		for _, f := range read.Found {
			got += f.String()
		}
		if err != nil || !strings.Contains(got, want) || (want == "") != (got == "") || read.Gateway != "Envoy" || !read.Asks {
			t.Errorf("%s: %q (%+v), %v", fields, got, read, err)
		}
	}
}

func FuzzLint(f *testing.F) {
	f.Add([]byte("a: &a\n  b: *a\n  fail_open: true\n"))
	f.Add([]byte("{{ x }}\nfailOpen: true"))
	f.Add([]byte(`[{"failure_mode_allow": true}]`))
	f.Add([]byte("error_page 500 =200 /x;\n"))
	f.Add([]byte("server { auth_request off; location ~ \"a{2}\" { proxy_pass http://${x}; } }"))
	f.Add([]byte(":80 {\n\treverse_proxy \"a b\" `c`\n}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		read, err := Lint(text)
		if err != nil {
			t.Fatal(err)
		}
		found := read.Found
		if read.Unasked != nil {
			found = append(found, *read.Unasked)
		}
		for _, f := range found {
			if f.Line < 1 || f.Line > strings.Count(string(text), "\n")+strings.Count(string(text), "\r")+1 || f.Setting == "" || f.Why == "" {
				t.Errorf("%+v in %q", f, text)
			}
		}
	})
}
