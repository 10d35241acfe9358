package redisstore

import (
	"context"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Evicts returns the policy (maxmemory-policy) by which the server drops keys when its memory is full, or nothing when it
// drops none: it has no limit, or refuses to write at it. A server that may drop keys logs people out at random, forgets
// nonces that were used and attempts that were counted. Of a cluster, one node is asked.
func Evicts(ctx context.Context, client redis.UniversalClient) (policy string, err error) {
	text, err := client.Info(ctx, "memory").Result() // CONFIG GET is more often denied
	if err != nil {
		return "", fmt.Errorf("ask for the memory policy: %w", err)
	}
	limit := "0"
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch name {
		case "maxmemory":
			limit = value
		case "maxmemory_policy":
			policy = value
		}
	}
	if limit == "0" || policy == "noeviction" {
		return "", nil
	}
	return policy, nil
}
