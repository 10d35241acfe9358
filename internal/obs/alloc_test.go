//go:build !race

package obs_test

import (
	"testing"
	"time"

	"barong/authz"
	"barong/internal/obs"
)

func TestCountingAllocatesNothing(t *testing.T) {
	m := obs.NewMetrics()
	r := m.Route("GET", "/x")
	for name, f := range map[string]func(){
		"allow":   func() { m.Observe(authz.EnvoyHTTP, authz.Allow, "", authz.Cookie) },
		"deny":    func() { m.Observe(authz.EnvoyHTTP, authz.Deny, "authz.invalid_session", authz.NoCredential) },
		"unknown": func() { m.Observe(authz.EnvoyHTTP, authz.Deny, "x", authz.NoCredential) },
		"warm":    func() { m.Took(authz.EnvoyHTTP, true, 3*time.Microsecond, 16) },
		"cold":    func() { m.Took(authz.EnvoyHTTP, false, time.Hour, 1) },
		"route":   func() { r.Observe(200, time.Millisecond) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations, want none", name, n)
		}
	}
}
