package redisstore

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const noncePrefix = "barong:nonce:" // + key id ":" nonce

// Nonces remembers which nonces of an API key were used, for all replicas together. Marks of the same moment share a round
// trip.
type Nonces struct {
	client redis.UniversalClient
	marks  *together[mark, marked]
	word   string // of this process
	calls  atomic.Uint64
}

// A mark says that a nonce is used up.
type mark struct {
	key, call string
	keep      time.Duration
}

// A marked is what became of a mark.
type marked struct {
	first bool
	err   error
}

// NewNonces returns the memory behind a client, which the caller closes.
func NewNonces(client redis.UniversalClient) *Nonces {
	n := &Nonces{client: client, word: rand.Text()}
	n.marks = newTogether(n.mark)
	n.marks.untimed = true
	return n
}

// FirstUse implements authz.Nonces: it marks the pair as used until the given time and reports whether it was not
// before. Of parallel uses on any replicas exactly one is the first. An error means that it is not known, and the caller
// refuses. The client's timeouts limit it, and not ctx. Mark only pairs whose signature has been verified, or strangers can
// use up the nonces of others.
func (n *Nonces) FirstUse(ctx context.Context, kid, nonce string, until time.Time) (bool, error) {
	got, err := n.marks.ask(ctx, mark{
		key: noncePrefix + kid + ":" + nonce,
		// The client sends a command again when its answer was lost, and then meets the mark of the first attempt. So each
		// mark bears a word of the call that made it, which no other has: one's own is a first use.
		call: n.word + strconv.FormatUint(n.calls.Add(1), 36),
		// At least the slack: on a clock ahead of ours the pair may still be fresh.
		keep: max(time.Until(until), 0) + slack,
	})
	if err = cmp.Or(err, got.err); err != nil {
		return false, fmt.Errorf("mark nonce: %w", err)
	}
	return got.first, nil
}

// mark sets marks where there are none, and says of each whether it is there now. On a cluster each node speaks for itself.
func (n *Nonces) mark(ctx context.Context, marks []mark) ([]marked, error) {
	out := make([]marked, len(marks))
	set := make([]*redis.BoolCmd, len(marks))
	pipe := n.client.Pipeline()
	for i, m := range marks {
		set[i] = pipe.SetNX(ctx, m.key, m.call, m.keep)
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	pipe = n.client.Pipeline()
	read := make([]*redis.StringCmd, len(marks))
	for i, c := range set {
		if out[i].first, out[i].err = c.Result(); out[i].err == nil && !out[i].first {
			read[i] = pipe.Get(ctx, marks[i].key)
		}
	}
	if pipe.Len() == 0 {
		return out, nil
	}
	_, _ = pipe.Exec(ctx)
	for i, c := range read {
		if c == nil {
			continue
		}
		there, err := c.Result()
		if !errors.Is(err, redis.Nil) { // nil: the mark of another has just ended
			out[i] = marked{there == marks[i].call && err == nil, err}
		}
	}
	return out, nil
}
