// Package envoy is everything that speaks to gateways: all of them live here, and it has the name of the first. It reads
// one request out of each gateway's dialect, has it decided, and writes the decision back the way that gateway understands:
// ext_authz over HTTP and gRPC (Envoy), forward auth (Traefik, Caddy, and HAProxy by a script), and auth_request (nginx).
//
// It holds no rule of its own. What may pass, and as whom, is decided by the Checker (package authz); this package
// only refuses what it cannot hand over faithfully: a malformed header block, a dialect's header missing or sent
// twice, and a peer that may not speak for others. It depends on authz and fasthttp, and on gRPC for the gRPC service;
// it knows no store, no policy and no REST route. The HTTP servers that it answers on are those of package listener.
//
// The reference configurations of the five gateways stand beside the code (envoy.yaml, envoy-grpc.yaml, traefik.yml
// with traefik-dynamic.yml, nginx.conf, Caddyfile, haproxy.cfg with haproxy.lua), and the end-to-end tests run exactly
// these files in front of a started server. The pages of docs/gateways go through them piece by piece.
package envoy
