package envoy

import (
	"strings"
)

// A mend is what mends something, for each kind of gateway: lines of the reference configurations beside this package, which
// a test finds there.
type mend struct{ envoy, traefik, caddy, nginx, haproxy string }

// lines are those for a kind of gateway, or for all when it is not known.
func (m mend) lines(kind string) string {
	var out []string
	for _, one := range m.all() {
		if one.line != "" && (kind == "" || kind == one.kind) {
			out = append(out, one.kind+": "+one.line)
		}
	}
	return strings.Join(out, "; ")
}

type mendLine struct{ kind, line string }

func (m mend) all() []mendLine {
	return []mendLine{{"envoy", m.envoy}, {"traefik", m.traefik}, {"caddy", m.caddy}, {"nginx", m.nginx}, {"haproxy", m.haproxy}}
}

// Mends are written as they stand in the reference configurations; " … " parts lines.
var (
	mendCheck = mend{
		envoy:   "- name: envoy.filters.http.ext_authz … failure_mode_allow: false",
		traefik: "middlewares: [cors, clean, check] … address: http://127.0.0.1:8081/api/v2/forward-auth",
		caddy:   "forward_auth 127.0.0.1:8081 { … uri /api/v2/forward-auth?",
		nginx:   "auth_request /.check; … proxy_pass http://barong_checks/api/v2/auth-request;",
		haproxy: "http-request lua.barong … unless { var(txn.barong_allows) -m bool }",
	}
	mendPaths = mend{
		envoy:   "normalize_path: true … merge_slashes: true … path_with_escaped_slashes_action: REJECT_REQUEST",
		traefik: "sanitizePath: true … middlewares: [cors, clean, check, publish]",
		caddy:   "@barong expression `{http.request.orig_uri}.startsWith(\"/api/v2/barong/\")`",
		nginx:   "proxy_set_header X-Original-URI $request_uri; … proxy_pass http://service;",
		haproxy: "[\"x-forwarded-uri\"] = { txn.f:pathq() }, … use_backend barong_api if { path_beg /api/v2/barong/ }",
	}
	mendForged = mend{
		envoy:   "allowed_headers: … path_prefix: /api/v2/auth",
		traefik: "trustForwardHeader: false … insecure: false",
		caddy:   "request_header -X-Forwarded-Uri … request_header -X-Forwarded-Method",
		nginx:   "proxy_set_header X-Original-Method $request_method; … proxy_set_header X-Original-URI $request_uri; … proxy_set_header X-Original-URL \"\";",
		haproxy: "[\"x-forwarded-method\"] = { txn.f:method() }, … [\"x-forwarded-uri\"] = { txn.f:pathq() },",
	}
	mendAddress = mend{
		envoy:   "use_remote_address: true",
		traefik: "insecure: false",
		nginx:   "proxy_set_header X-Forwarded-For $remote_addr;",
		haproxy: "http-request set-header X-Forwarded-For %[src]",
	}
	mendRefusal = mend{
		envoy:   "allowed_client_headers: … - exact: content-type … - exact: cache-control",
		traefik: "maxResponseBodySize: 65536",
		caddy:   "forward_auth 127.0.0.1:8081 {",
		nginx:   "error_page 401 403 500 = $refused; … auth_request_set $check_status $upstream_http_x_auth_status; … add_header Cache-Control no-store always;",
		haproxy: "local told = { … txn:done(reply)",
	}
	mendRequestID = mend{
		envoy:   "- exact: x-request-id",
		nginx:   "add_header X-Request-Id $request_id always;",
		haproxy: "http-request set-header X-Request-Id %[uuid]",
	}
	mendCORS = mend{
		envoy:   "- name: envoy.filters.http.cors",
		traefik: "accessControlAllowOriginList: … middlewares: [cors, clean, check]",
		caddy:   "respond @preflight 204 … header @app {",
		nginx:   "if ($cors_preflight) { … add_header Access-Control-Allow-Origin $cors_origin always; … add_header Access-Control-Allow-Origin $cors_known always;",
		haproxy: "http-request return status 204 hdr Access-Control-Allow-Methods … http-after-response set-header Access-Control-Allow-Origin",
	}
	mendBody = mend{
		nginx: "client_max_body_size 12m; … proxy_pass_request_body off; … proxy_set_header Content-Length \"\";",
	}
	mendCookies = mend{
		envoy:   "max_request_headers_kb: 32",
		caddy:   "max_header_size 64KiB",
		nginx:   "large_client_header_buffers 4 32k; … error_page 494 = @too_large;",
		haproxy: "tune.bufsize 98304 … tune.maxrewrite 8192",
	}
)

// mendHeader keeps a header that only gateways may set from services.
func mendHeader(name string) mend {
	lower := strings.ToLower(name)
	canonical := strings.NewReplacer("-uri", "-Uri", "-url", "-Url", "-ip", "-Ip").Replace(titled(lower))
	m := mend{
		envoy: "- remove: " + lower, traefik: canonical + ": \"\"", caddy: "request_header -" + canonical,
		nginx: "proxy_set_header " + canonical + " \"\";", haproxy: "http-request del-header " + canonical,
	}
	switch name {
	case "Authorization":
		return mend{
			envoy: "allowed_upstream_headers: … - exact: authorization", traefik: "authResponseHeaders: … - Authorization",
			caddy: "copy_headers Authorization", nginx: "proxy_set_header Authorization $check_authorization;",
			haproxy: "http-request del-header Authorization",
		}
	case "X_Forwarded_For":
		return mend{envoy: "headers_with_underscores_action: REJECT_REQUEST", nginx: "underscores_in_headers off;", haproxy: "http-request del-header _ -m sub"}
	}
	return m
}

// titled is a header's name with each word's first letter large.
func titled(lower string) string {
	words := strings.Split(lower, "-")
	for i, w := range words {
		if w != "" {
			words[i] = strings.ToUpper(w[:1]) + w[1:]
		}
	}
	return strings.Join(words, "-")
}

// Mends are all lines that a Probed may name, by the kind of gateway.
func Mends() map[string][]string {
	all := []mend{mendCheck, mendPaths, mendForged, mendAddress, mendRefusal, mendRequestID, mendCORS, mendBody, mendCookies}
	for _, name := range onlyGateways {
		all = append(all, mendHeader(name))
	}
	out := map[string][]string{}
	for _, m := range all {
		for _, one := range m.all() {
			if one.line != "" {
				out[one.kind] = append(out[one.kind], one.line)
			}
		}
	}
	return out
}
