package envoy

import (
	"os"
	"regexp"
	"testing"
	"time"
)

// The gateways of the reference configurations wait for an answer at least twice as long as a check may take, also when
// they must connect first.
func TestGatewaysOutwaitChecks(t *testing.T) {
	t.Parallel()
	for file, waits := range map[string]struct{ answer, connect string }{
		"envoy.yaml":      {`server_uri: \{[^}]*cluster: barong_checks, timeout: (\S+) \}`, `connect_timeout: (\S+)`},
		"envoy-grpc.yaml": {`(?s)grpc_service:.*?\n +timeout: (\S+)`, `connect_timeout: (\S+)`},
		"nginx.conf":      {`proxy_read_timeout (\S+);`, `proxy_connect_timeout (\S+);`},
		"Caddyfile":       {`response_header_timeout (\S+)`, `dial_timeout (\S+)`},
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		wait := func(pattern string) time.Duration {
			t.Helper()
			found := regexp.MustCompile(pattern).FindSubmatch(text)
			if found == nil {
				t.Fatalf("%s: no %s", file, pattern)
			}
			d, err := time.ParseDuration(string(found[1]))
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			return d
		}
		if answer := wait(waits.answer); answer < 2*DefaultTimeout {
			t.Errorf("%s waits %s for a check that may take %s", file, answer, DefaultTimeout)
		}
		if connect := wait(waits.connect); DefaultTimeout+connect >= wait(waits.answer) {
			t.Errorf("%s: %s to connect and a check of %s are more than it waits", file, connect, DefaultTimeout)
		}
	}
}
