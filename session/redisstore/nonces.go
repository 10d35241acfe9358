package redisstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

const noncePrefix = "barong:nonce:" // + key id ":" nonce

// Nonces remembers which nonces of an API key were used, for all replicas together.
type Nonces struct{ client redis.UniversalClient }

// NewNonces returns the memory behind a client, which the caller closes.
func NewNonces(client redis.UniversalClient) *Nonces { return &Nonces{client: client} }

// FirstUse implements authz.Nonces: it marks the pair as used until the given time and reports whether it was not
// before. Of parallel uses on any replicas exactly one is the first. An error means that it is not known, and the caller
// refuses. Mark only pairs whose signature has been verified, or strangers can use up the nonces of others.
func (n *Nonces) FirstUse(ctx context.Context, kid, nonce string, until time.Time) (bool, error) {
	// At least the slack: on a clock ahead of ours the pair may still be fresh.
	keep := max(time.Until(until), 0) + slack
	key := noncePrefix + kid + ":" + nonce
	// The client sends a command again when its answer was lost, and then meets the mark of the first attempt. So each
	// mark bears a random word of the call that made it: one's own is a first use.
	call := rand.Text()
	first, err := n.client.SetNX(ctx, key, call, keep).Result()
	if err != nil {
		return false, fmt.Errorf("mark nonce: %w", err)
	}
	if first {
		return true, nil
	}
	mark, err := n.client.Get(ctx, key).Result()
	if err != nil && !errors.Is(err, redis.Nil) { // nil: the mark of another has just ended
		return false, fmt.Errorf("read the mark of a nonce: %w", err)
	}
	return mark == call, nil
}
