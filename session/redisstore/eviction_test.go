package redisstore_test

import (
	"testing"

	"barong/internal/test/testkit"
	"barong/session/redisstore"
)

func TestEvicts(t *testing.T) {
	t.Parallel()
	client := connect(t, testkit.ValkeyServer(t).URL+patient)
	for _, c := range []struct{ limit, policy, want string }{
		{"0", "noeviction", ""},
		{"100mb", "noeviction", ""},
		{"0", "allkeys-lru", ""}, // nothing to make room for
		{"100mb", "allkeys-lru", "allkeys-lru"},
		{"100mb", "volatile-ttl", "volatile-ttl"}, // all but one of our keys expire
	} {
		for name, value := range map[string]string{"maxmemory": c.limit, "maxmemory-policy": c.policy} {
			if err := client.ConfigSet(t.Context(), name, value).Err(); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := redisstore.Evicts(t.Context(), client); err != nil || got != c.want {
			t.Errorf("limit %s, policy %s: %q, %v, want %q", c.limit, c.policy, got, err, c.want)
		}
	}
}
