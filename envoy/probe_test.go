package envoy_test

import (
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"barong/envoy"
	"barong/internal/listener"

	"github.com/valyala/fasthttp"
)

// probing asks a gateway for paths of a service that shows what it was given.
func probing(addr, kind string) envoy.Probing {
	return envoy.Probing{
		Gateway: &url.URL{Scheme: "http", Host: addr}, Guarded: account, Public: public, Echo: public,
		Origin: "https://app.example.com", Kind: kind,
	}
}

func kindOf(g gateway) string { return strings.Fields(g.name)[0] }

// A gateway with its reference configuration is found to be in order, and one whose configuration was spoilt is found out,
// with the line that mends it.
func TestProbe(t *testing.T) {
	w := newWorld(t)
	spoilt := map[string][]struct{ line, instead, finds, mend string }{
		"envoy over HTTP": {
			{"              - remove: x-forwarded-uri\n", "", "X-Forwarded-Uri of a client's", "- remove: x-forwarded-uri"},
			{"              - remove: x-http-method-override\n", "", "X-HTTP-Method-Override of a client's", "- remove: x-http-method-override"},
			{"headers_with_underscores_action: REJECT_REQUEST", "headers_with_underscores_action: ALLOW", "X_Forwarded_For of a client's", "REJECT_REQUEST"},
			{"                    - exact: cache-control\n", "", "kept by caches", "- exact: cache-control"},
			{"max_request_headers_kb: 32", "max_request_headers_kb: 8", "cookies of 12 KiB", "max_request_headers_kb: 32"},
		},
		"envoy over gRPC": {
			{"              - remove: x-original-url\n", "", "X-Original-URL of a client's", "- remove: x-original-url"},
			{"exact: https://app.example.com # your front end", "exact: https://other.example", "a preflight of https://app.example.com", "- name: envoy.filters.http.cors"},
		},
		"traefik": {
			{"          X-Original-Uri: \"\"\n", "", "X-Original-URI of a client's", "X-Original-Uri: \"\""},
			{"middlewares: [cors, clean, check]", "middlewares: [clean, check]", "a preflight of https://app.example.com", "accessControlAllowOriginList"},
		},
		"caddy": {
			{"		max_header_size 64KiB\n", "", "cookies of 20 KiB", "max_header_size 64KiB"},
			{"		request_header -X-Original-Uri\n", "", "X-Original-URI of a client's", "request_header -X-Original-Uri"},
			{"			copy_headers Authorization\n", "", "Authorization of a client's", "copy_headers Authorization"},
		},
		"nginx": {
			{"        proxy_set_header X-Original-Url \"\";\n", "", "X-Original-URL of a client's", "proxy_set_header X-Original-Url"},
			{"        error_page 401 403 500 = $refused;\n", "", "without a credential", "error_page 401 403 500 = $refused;"},
			{"client_max_body_size 12m;", "client_max_body_size 1m;", "a body of 2048 KiB", "client_max_body_size 12m;"},
			{
				"        proxy_set_header X-Forwarded-For $remote_addr;\n", "        #\n", "X-Forwarded-For of a client's", "proxy_set_header X-Forwarded-For $remote_addr;",
			},
		},
		"haproxy": {
			{"    http-request del-header X-Original-Uri\n", "", "X-Original-URI of a client's", "http-request del-header X-Original-Uri"},
			{"    http-request del-header _ -m sub", "    #", "X_Forwarded_For of a client's", "http-request del-header _ -m sub"},
			{"    tune.bufsize 98304\n", "", "cookies of 20 KiB", "tune.bufsize 98304"},
			{"    http-after-response set-header Access-Control-Allow-Origin", "    #", "a refusal that https://app.example.com reads", "http-after-response set-header Access-Control-Allow-Origin"},
		},
	}
	for _, g := range gateways {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			found := func(g gateway) []envoy.Probed {
				t.Helper()
				out, err := envoy.Probe(t.Context(), probing(g.start(t, w.ports), kindOf(g)))
				if err != nil {
					t.Fatal(err)
				}
				return slices.DeleteFunc(out, func(f envoy.Probed) bool { return f.Why == "" })
			}
			t.Run("reference", func(t *testing.T) {
				for _, f := range found(g) {
					t.Errorf("%+v", f)
				}
			})
			for _, s := range spoilt[g.name] {
				t.Run(s.finds, func(t *testing.T) {
					worse, changed := g, false
					worse.edit = func(text string) string {
						changed = changed || strings.Contains(text, s.line)
						return strings.ReplaceAll(text, s.line, s.instead)
					}
					all := found(worse)
					if !changed {
						t.Fatalf("the configuration has no %q", s.line)
					}
					if !slices.ContainsFunc(all, func(f envoy.Probed) bool {
						return strings.Contains(f.What, s.finds) && strings.Contains(f.Mend, s.mend)
					}) {
						t.Errorf("not found out: %+v", all)
					}
				})
			}
		})
	}
}

// A gateway that asks nobody, and one whose check cannot be reached, are told apart from one that works.
func TestProbeOfWhatIsNoGateway(t *testing.T) {
	open := serve(t, func(ctx *fasthttp.RequestCtx) { ctx.SetBodyString("everything") }, listener.Options{})
	out, err := envoy.Probe(t.Context(), probing(open, ""))
	if err != nil || len(out) != 1 || !out[0].Open || !strings.Contains(out[0].Mend, "nginx: auth_request") || !strings.Contains(out[0].Mend, "envoy: ") {
		t.Errorf("%+v, %v", out, err)
	}
	down := serve(t, func(ctx *fasthttp.RequestCtx) { ctx.SetStatusCode(502) }, listener.Options{})
	if out, err := envoy.Probe(t.Context(), probing(down, "caddy")); err != nil || len(out) != 1 || out[0].Open || !strings.HasPrefix(out[0].Mend, "caddy: ") {
		t.Errorf("%+v, %v", out, err)
	}
	if _, err := envoy.Probe(t.Context(), probing("127.0.0.1:1", "")); err == nil {
		t.Error("nobody is there, and that is no error")
	}
}

// Every line that mends something stands in the reference configuration.
func TestMendsStandInTheReference(t *testing.T) {
	files := map[string][]string{
		"envoy": {"envoy.yaml"}, "traefik": {"traefik.yml", "traefik-dynamic.yml"}, "caddy": {"Caddyfile"}, "nginx": {"nginx.conf"},
		"haproxy": {"haproxy.cfg", "haproxy.lua"},
	}
	for kind, lines := range envoy.Mends() {
		text := ""
		for _, file := range files[kind] {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text += string(b)
		}
		if len(lines) < 5 {
			t.Errorf("%s: %d lines", kind, len(lines))
		}
		for _, line := range lines {
			for part := range strings.SplitSeq(line, " … ") {
				if !strings.Contains(text, part) {
					t.Errorf("%s: the reference has no %q", kind, part)
				}
			}
		}
	}
}
