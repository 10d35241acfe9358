//go:build !race

package envoy_test

import (
	"testing"

	"barong/envoy"
)

// A check costs no allocation beyond what fasthttp and the decision cost. (The race detector allocates by itself.)
func TestChecksAllocateNothing(t *testing.T) {
	for _, cost := range costs {
		t.Run(cost.name, func(t *testing.T) {
			h := envoy.New(envoy.Options{Checker: &fixed{cost.decision}, Trusted: loopback, LoginURL: "/accounts/signin", Refusals: refusals()})
			ctx := prepared(t, cost.wire)
			if n := testing.AllocsPerRun(1000, func() {
				ctx.Response.Reset()
				h.ServeChecks(ctx)
			}); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}
