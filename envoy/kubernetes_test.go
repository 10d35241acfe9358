package envoy_test

import (
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// controlled are real gateways, configured as control planes of Kubernetes do it from the objects of their pages in
// docs/gateways. Envoy's files are those of the reference, changed in what differs.
var controlled = []gateway{
	{"envoy as Istio writes it", "envoy", []string{"envoy.yaml"}, gateways[0].args, 503, func(text string) string {
		text = withoutEarly(text)
		text = cut(text, "          # Whether there is a body", "          - name: envoy.filters.http.ext_authz")
		text = swap(text, "            request_headers_to_remove: [x-original-framing]\n", removed)
		text = swap(text, "              encode_raw_headers: true # or headers sent twice arrive as one, and Cookie lines joined by a comma\n", "")
		text = swap(text, "                - exact: x-original-framing\n", "")
		text = cut(text, "                # Of several replicas another one", "                authorization_response:")
		text = strings.ReplaceAll(text, ", retry_policy: *again", "")
		text = cut(text, "          # When the check itself fails", "          http_filters:")
		text = swap(text, "REJECT_REQUEST\n          common_http", "KEEP_UNCHANGED\n          common_http")
		text = swap(text, "headers_with_underscores_action: REJECT_REQUEST", "headers_with_underscores_action: ALLOW")
		// CORS comes behind the check, which is asked where the policy's rules say so.
		cors := text[strings.Index(text, "          # Preflights are answered here"):strings.Index(text, "          - name: envoy.filters.http.ext_authz")]
		text = swap(text, cors, istioRules)
		text = swap(text, "              transport_api_version: V3\n", "              transport_api_version: V3\n"+istioAsks)
		return swap(text, "          - name: envoy.filters.http.router\n", cors+"          - name: envoy.filters.http.router\n")
	}, true},
	{"envoy as Contour writes it", "envoy", []string{"envoy-grpc.yaml"}, gateways[0].args, 403, func(text string) string {
		text = plainGRPC(withoutEarly(text))
		text = swap(text, "            name: public\n            virtual_hosts:", "            name: public\n"+removed+"            virtual_hosts:")
		text = cut(text, "          # When the check itself fails", "          http_filters:")
		text = swap(text, "REJECT_REQUEST\n          common_http", "KEEP_UNCHANGED\n          common_http")
		text = swap(text, "headers_with_underscores_action: REJECT_REQUEST", "headers_with_underscores_action: ALLOW")
		text = swap(text, "max_request_headers_kb: 32", "max_request_headers_kb: 60")
		return swap(text, "status_on_error: { code: ServiceUnavailable }", "status_on_error: { code: Forbidden }\n              clear_route_cache: true\n              include_peer_certificate: true")
	}, false},
	{"envoy as Envoy Gateway writes it", "envoy", []string{"envoy-grpc.yaml"}, gateways[0].args, 503, func(text string) string {
		return cut(plainGRPC(text), "          # When the check itself fails", "          http_filters:")
	}, false},
}

// removed are the headers that routes remove where they cannot be removed earlier.
const removed = "            request_headers_to_remove: [x-forwarded-method, x-forwarded-uri, x-forwarded-prefix, x-original-method, x-original-uri, " +
	"x-original-url, x-original-framing, x-rewrite-url, x-http-method, x-http-method-override, x-method-override, x-real-ip, true-client-ip, " +
	"client-ip, forwarded]\n"

// What Istio makes of the AuthorizationPolicy of its page: a policy for each rule, of which any has the check asked.
const (
	istioRules = `          - name: envoy.filters.http.rbac
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
              shadow_rules_stat_prefix: istio_ext_authz_
              shadow_rules:
                action: DENY
                policies:
                  istio-ext-authz-ns[istio-ingress]-policy[barong]-rule[0]:
                    permissions:
                    - and_rules: { rules: [{ not_rule: { header: { name: ":method", string_match: { exact: OPTIONS } } } }] }
                    principals:
                    - and_ids: { ids: [{ any: true }] }
                  istio-ext-authz-ns[istio-ingress]-policy[barong]-rule[1]:
                    permissions:
                    - and_rules: { rules: [{ any: true }] }
                    principals:
                    - and_ids: { ids: [{ not_id: { or_ids: { ids: [
                        { header: { name: access-control-request-method, string_match: { exact: GET } } },
                        { header: { name: access-control-request-method, string_match: { exact: POST } } },
                        { header: { name: access-control-request-method, string_match: { exact: PUT } } },
                        { header: { name: access-control-request-method, string_match: { exact: PATCH } } },
                        { header: { name: access-control-request-method, string_match: { exact: DELETE } } },
                        { header: { name: access-control-request-method, string_match: { exact: HEAD } } },
                        { header: { name: access-control-request-method, string_match: { exact: OPTIONS } } }] } } }] }
                  istio-ext-authz-ns[istio-ingress]-policy[barong]-rule[2]:
                    permissions:
                    - and_rules: { rules: [{ any: true }] }
                    principals:
                    - and_ids: { ids: [{ not_id: { or_ids: { ids: [
                        { header: { name: origin, string_match: { exact: "https://app.example.com" } } }] } } }] }
`
	istioAsks = `              filter_enabled_metadata:
                filter: envoy.filters.http.rbac
                path: [{ key: istio_ext_authz_shadow_effective_policy_id }]
                value: { string_match: { prefix: istio-ext-authz } }
`
)

// withoutEarly removes what is done before the filters: Istio and Contour have no such thing.
func withoutEarly(text string) string {
	return cut(text, "          # What only gateways may say", "          # When the check itself fails")
}

// plainGRPC removes what no control plane sets.
func plainGRPC(text string) string {
	text = swap(text, "              encode_raw_headers: true # or headers sent twice arrive as one\n", "")
	begin := strings.Index(text, "                # Of several replicas another one")
	end := begin + strings.Index(text[begin:], "          - name: envoy.filters.http.router")
	text = text[:begin] + text[end:]
	return strings.ReplaceAll(text, ", retry_policy: *again", "")
}

// swap replaces what has to be there.
func swap(text, old, replacement string) string {
	if !strings.Contains(text, old) {
		panic(fmt.Sprintf("the configuration has no %q", old))
	}
	return strings.Replace(text, old, replacement, 1)
}

// cut removes lines up to another one. Both have to be there.
func cut(text, from, to string) string {
	begin := strings.Index(text, from)
	end := strings.Index(text, to)
	if begin < 0 || end < begin {
		panic(fmt.Sprintf("the configuration has no %q before %q", from, to))
	}
	return text[:begin] + text[end:]
}

// ingressNginx is a real nginx with what ingress-nginx writes.
var ingressNginx = gateway{"ingress-nginx", "nginx", []string{"testdata/ingress-nginx.conf"}, func(config string) []string {
	return []string{"-p", filepath.Dir(config), "-c", config, "-g", "daemon off; user root;"}
}, 500, nil, false}

// throughIngressNginx walks the way that is left where refusals have two statuses, and no codes: nothing passes that should
// not, what may pass does, with a token that verifies, and everything else is refused.
func (w *world) throughIngressNginx(t *testing.T, addr string) {
	refused := func(what string, r reply, status int) {
		t.Helper()
		if seen := w.service.take(); r.Status != status || len(seen) != 0 {
			t.Errorf("%s: got %+v, and the service %+v", what, r, seen)
		}
	}
	stranger, c, far := newClient(t, addr, here), newClient(t, addr, here), newClient(t, addr, restricted)
	refused("a stranger", stranger.call(t, "GET", account, nil), 401)
	refused("a stranger who changes", stranger.call(t, "POST", account, nil), 401)
	refused("a blocked path", stranger.call(t, "GET", blocked, nil), 401)
	refused("half an API key", stranger.call(t, "GET", account, nil, "X-Auth-Apikey: x"), 500)
	refused("a restricted address", far.call(t, "GET", public, nil), 500)
	refused("a preflight", stranger.call(t, "OPTIONS", account, nil, "Origin: https://app.example.com", "Access-Control-Request-Method: PUT"), 204)
	spoken := []string{"Authorization: Bearer forged"}
	for _, name := range []string{
		"Forwarded", "Client-Ip", "True-Client-Ip", "X-Forwarded-Method", "X-Forwarded-Prefix", "X-Forwarded-Uri", "X-Original-Method", "X-Original-Framing",
		"X-Rewrite-Url", "X-Http-Method", "X-Http-Method-Override", "X-Method-Override",
	} {
		spoken = append(spoken, name+": x")
	}
	r := stranger.call(t, "GET", public, nil, spoken...)
	seen := w.service.take()
	if r.Status != 200 || len(seen) != 1 {
		t.Fatalf("a public path: got %+v, the service %+v", r, seen)
	}
	for _, line := range spoken {
		name, _, _ := strings.Cut(line, ":")
		if value, ok := seen[0].Header[strings.ToLower(name)]; ok {
			t.Errorf("the service got %s: %s", name, value)
		}
	}

	c.open(t, "/api/v2/barong/identity/sessions", adminEmail, adminPassword)
	if claims := w.arrived(t, "a session", c.call(t, "GET", account, nil)); claims["email"] != adminEmail {
		t.Errorf("the token says %+v", claims)
	}
	refused("no CSRF token", c.call(t, "POST", account, nil), 401)
	w.arrived(t, "a CSRF token", c.call(t, "POST", account, map[string]int{"a": 1}, c.csrf))
	refused("a blocked path with a session", c.call(t, "GET", blocked, nil), 401)
	if r := c.call(t, "GET", "/api/v2/barong/resource/users/me", nil); r.Status != 200 || !strings.Contains(r.Body, adminEmail) {
		t.Errorf("the API: got %+v", r)
	}
	w.arrived(t, "an API key", stranger.call(t, "GET", account, nil, w.bot.headers(w.nonce())...))
	target := account + "?page=2&a=%20b"
	w.arrived(t, "signed whole", stranger.call(t, "GET", target, nil, w.bot.sign(w.nonce(), "@method", "GET", "@target-uri", "http://"+addr+target)...))
	refused("signed whole, with a claim to have no body", stranger.call(t, "DELETE", target, nil,
		append(w.bot.sign(w.nonce(), "@method", "DELETE", "@target-uri", "http://"+addr+target), "X-Original-Framing: HTTP/1.1 0")...), 401)

	for _, forged := range forgeries {
		what := strings.Join(forged, ", ")
		for who, r := range map[string]reply{
			"a stranger": stranger.call(t, "GET", account, nil, forged...), "a blocked path": c.call(t, "GET", blocked, nil, forged...),
			"no CSRF token": c.call(t, "DELETE", account, nil, forged...), "a restricted address": far.call(t, "GET", public, nil, forged...),
		} {
			if seen := w.service.take(); r.Status < 400 || len(seen) != 0 {
				t.Errorf("%s, %s: got %+v, and the service %+v", what, who, r, seen)
			}
		}
	}
	w.broken(t, addr)
	w.service.take()
	w.odd(t, addr)
	if seen := w.service.take(); slices.ContainsFunc(seen, func(d delivery) bool { u, err := url.Parse(d.Target); return err != nil || u.Path == account }) {
		t.Errorf("what was refused reached the service: %+v", seen)
	}
}
