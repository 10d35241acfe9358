package envoy_test

import (
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"

	"barong/envoy"
)

func TestOwns(t *testing.T) {
	for target, want := range map[string]envoy.Kind{
		// Checks, whatever stands behind the prefix.
		"/api/v2/auth/x":                         envoy.ExtAuthz,
		"/api/v2/auth/x?y=z":                     envoy.ExtAuthz,
		"/api/v2/auth//":                         envoy.ExtAuthz,
		"/api/v2/auth/%":                         envoy.ExtAuthz,
		"/api/v2/auth/..":                        envoy.ExtAuthz,
		"/api/v2/auth/../identity/ping":          envoy.ExtAuthz,
		"/api/v2/auth/x/..%2f..%2fidentity/ping": envoy.ExtAuthz,
		"/api/v2/auth/api/v2/forward-auth":       envoy.ExtAuthz,
		"/api/v2/auth/#":                         envoy.ExtAuthz,
		"/api/v2/forward-auth":                   envoy.ForwardAuth,
		"/api/v2/forward-auth?x=/api/v2/auth/x":  envoy.ForwardAuth,
		"/api/v2/auth-request":                   envoy.AuthRequest,
		"/api/v2/auth-request?":                  envoy.AuthRequest,
		"/api/v2/auth":                           envoy.BarePrefix,
		"/api/v2/auth/":                          envoy.BarePrefix,
		"/api/v2/auth/?x":                        envoy.BarePrefix,
		"/api/v2/auth?/x":                        envoy.BarePrefix,
		"/":                                      envoy.Other,
		"/api/v2/authx":                          envoy.Other,
		"/api/v2/auth-requests":                  envoy.Other,
		"/api/v2/auth-request/x":                 envoy.Other, // the router's to refuse: it is no spelling of the check
		"/api/v2/identity/ping":                  envoy.Other,
		"/api/v2/identity/ping?x=/api/v2/auth/%": envoy.Other,
		"/api/v2/barong/api/v2/auth/x":           envoy.Other,
		"/api/v2/barong/resource/labels/a%20b":   envoy.Other,
		"/API/v2/identity":                       envoy.Other,
		"/x/../api/v2/identity":                  envoy.Other,
		"/.well-known/jwks.json":                 envoy.Other,
		"":                                       envoy.RefusedTarget,
		"*":                                      envoy.RefusedTarget,
		"gateway:443":                            envoy.RefusedTarget,
		"http://gateway/api/v2/auth/x":           envoy.RefusedTarget,
		"api/v2/auth/x":                          envoy.RefusedTarget,
		"//api/v2/auth/x":                        envoy.RefusedTarget,
		"/api//v2/auth/x":                        envoy.RefusedTarget,
		"/api/v2//auth":                          envoy.RefusedTarget,
		"/api/v2/auth-request/":                  envoy.RefusedTarget,
		"/api/v2/forward-auth//":                 envoy.RefusedTarget,
		"/api/v2/forward-auth/.":                 envoy.RefusedTarget,
		"/API/V2/AUTH/x":                         envoy.RefusedTarget,
		"/api/v2/Forward-Auth":                   envoy.RefusedTarget,
		"/api/v2/%61uth/x":                       envoy.RefusedTarget,
		"/api/v2/auth%2fx":                       envoy.RefusedTarget,
		"/api/v2/auth%2Fx":                       envoy.RefusedTarget,
		"/api%2fv2%2fauth%2fx":                   envoy.RefusedTarget,
		"/api/v2/%2561uth/x":                     envoy.RefusedTarget,
		"/api/v2/%25%36%31uth/x":                 envoy.RefusedTarget,
		"/api/v2/%252561uth/x":                   envoy.RefusedTarget,
		"/%2525252525252525":                     envoy.RefusedTarget,
		"/api/v2/./auth/x":                       envoy.RefusedTarget,
		"/x/../api/v2/auth/y":                    envoy.RefusedTarget,
		"/api/v2/identity/../auth/y":             envoy.RefusedTarget,
		"/api/v2/identity/%2e%2e/auth/y":         envoy.RefusedTarget,
		"/api/v2/identity/..%2fauth/y":           envoy.RefusedTarget,
		`/api/v2/identity\..\auth/y`:             envoy.RefusedTarget,
		`\api\v2\auth\x`:                         envoy.RefusedTarget,
		`/api/v2\auth/x`:                         envoy.RefusedTarget,
		"/api/v2/identity/..%5cauth/y":           envoy.RefusedTarget,
		"/api/v2/auth;x=y/z":                     envoy.RefusedTarget,
		"/api;a/v2;b/auth;c/z":                   envoy.RefusedTarget,
		"/api/v2/auth#x":                         envoy.RefusedTarget,
		"/api/v2/auth%3fx":                       envoy.RefusedTarget,
		"/../../api/v2/auth-request":             envoy.RefusedTarget,
	} {
		if got := envoy.Owns([]byte(target)); got != want {
			t.Errorf("%q: got %d, want %d", target, got, want)
		}
	}
}

// readings are what decoders, cleaners and routers make of a target's path, each in its own way.
func readings(target string) []string {
	var uri fasthttp.URI
	uri.Update(target)
	all := []string{target, string(uri.Path())}
	if u, err := url.ParseRequestURI(target); err == nil {
		all = append(all, u.Path, u.EscapedPath())
	}
	for _, p := range all {
		p, _, _ = strings.Cut(p, "?")
		for range 3 {
			decoded, err := url.PathUnescape(p)
			if err != nil {
				break
			}
			p = decoded
			all = append(all, p)
		}
	}
	for _, p := range all {
		p, _, _ = strings.Cut(p, "?")
		all = append(all, path.Clean(p), path.Clean(strings.ReplaceAll(p, `\`, "/")), strings.TrimSuffix(p, "/"))
	}
	return all
}

func isCheck(p string) bool {
	p, _, _ = strings.Cut(strings.ToLower(p), "?")
	return p == envoy.ForwardAuthPath || p == envoy.AuthRequestPath || p == envoy.ExtAuthzPrefix ||
		strings.HasPrefix(p, envoy.ExtAuthzPrefix+"/")
}

// No target that goes on to a router is a check in any reading, and none that is a check on the wire is anything else.
func FuzzOwns(f *testing.F) {
	for _, target := range []string{
		"/", "/api/v2/auth", "/api/v2/auth/x", "/api/v2/forward-auth", "/api/v2/auth-request", "/api/v2/identity/ping",
		"/api/v2/auth/x/..%2f..%2fidentity/ping", "/api/v2/%2561uth/x", "/api/v2/./auth/x", `/api/v2\auth/x`,
		"/api/v2/identity/%2e%2e/auth/y", "/api/v2/auth;x/y", "//api/v2/auth/x", "/API/V2/AUTH/x", "http://a/api/v2/auth/x",
		"/api/v2/auth%23", "/api/v2/x/%2e%2e%5c%2e%2e/v2/auth",
	} {
		f.Add(target)
	}
	f.Fuzz(func(t *testing.T, target string) {
		switch kind := envoy.Owns([]byte(target)); kind {
		case envoy.Other:
			for _, reading := range readings(target) {
				if isCheck(reading) {
					t.Fatalf("%q goes on to a router, and reads %q", target, reading)
				}
			}
		case envoy.ExtAuthz:
			if !strings.HasPrefix(target, envoy.ExtAuthzPrefix+"/") {
				t.Fatalf("%q is taken for ext_authz", target)
			}
		case envoy.ForwardAuth, envoy.AuthRequest, envoy.BarePrefix:
			if !isCheck(target) {
				t.Fatalf("%q is taken for a check", target)
			}
		case envoy.RefusedTarget:
		default:
			t.Fatalf("%q: kind %d", target, kind)
		}
	})
}
