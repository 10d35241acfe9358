package redisstore

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

const noncePrefix = "barong:nonce:" // + key id ":" nonce in Unix milliseconds

// Nonces remembers which nonces of an API key were used, for all replicas together.
type Nonces struct{ client redis.UniversalClient }

// NewNonces returns the memory behind a client, which the caller closes.
func NewNonces(client redis.UniversalClient) *Nonces { return &Nonces{client: client} }

// FirstUse implements authz.Nonces: it marks the pair as used until the given time and reports whether it was not
// before. Of parallel uses on any replicas exactly one is the first. An error means that it is not known, and the caller
// refuses. Mark only pairs whose signature has been verified, or strangers can use up the nonces of others.
func (n *Nonces) FirstUse(ctx context.Context, kid string, nonce, until time.Time) (bool, error) {
	// At least the slack: on a clock ahead of ours the pair may still be fresh.
	keep := max(time.Until(until), 0) + slack
	// A retry after a lost answer finds its own mark and reports a second use: that refuses, it never allows.
	first, err := n.client.SetNX(ctx, noncePrefix+kid+":"+millis(nonce), 1, keep).Result()
	if err != nil {
		return false, fmt.Errorf("mark nonce: %w", err)
	}
	return first, nil
}
