// Package redisbus carries the notices of package bus over the pub/sub of Redis or Valkey, single, behind Sentinel or as
// a cluster.
package redisbus

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"

	"barong/internal/bus"

	"github.com/redis/go-redis/v9"
)

// maxBytes keeps messages far below the output buffer at which Redis drops a subscriber that reads slowly.
const maxBytes = 64 << 10

// Open joins the replicas that use the same Redis and database number. The caller keeps and closes the client. See
// bus.Join.
func Open(ctx context.Context, client redis.UniversalClient, o bus.Options) (*bus.Shared, error) {
	channel := "barong:bus"
	if single, ok := client.(*redis.Client); ok && single.Options().DB != 0 {
		// Channels know no databases; installations that share a server by them should not talk to each other.
		channel += ":" + strconv.Itoa(single.Options().DB)
	}
	return bus.Join(ctx, &transport{client: client, channel: channel}, o)
}

type transport struct {
	client  redis.UniversalClient
	channel string
}

func (t *transport) Send(ctx context.Context, m bus.Message) error {
	payload, err := json.Marshal(m)
	if err != nil {
		return err
	}
	single, ok := t.client.(*redis.Client)
	if !ok { // a cluster takes the two commands over different connections
		return t.client.Publish(ctx, t.channel, payload).Err()
	}
	// Redis writes out what its commands answered latest first, so the publisher would hear before the subscribers; on a
	// busy machine those then wait for as long as Redis for its next turn on a processor, while the change has been
	// answered already. With a command before PUBLISH in the same write the publisher has the first answer, and hears last.
	pipe := single.Pipeline()
	pipe.Ping(ctx)
	published := pipe.Publish(ctx, t.channel, payload)
	if _, err := pipe.Exec(ctx); err != nil {
		return err
	}
	return published.Err()
}

var errResubscribed = errors.New("the subscription was renewed")

func (t *transport) Listen(ctx context.Context, l bus.Listener) error {
	pubsub := t.client.Subscribe(ctx, t.channel)
	defer pubsub.Close()
	defer context.AfterFunc(ctx, func() { pubsub.Close() })() // Receive does not see the context end
	up := false
	for {
		received, err := pubsub.Receive(ctx)
		if err != nil {
			return err
		}
		switch v := received.(type) {
		case *redis.Subscription:
			if up {
				return errResubscribed // by the client, after a break that it keeps to itself
			}
			up = true
			l.Up()
		case *redis.Message:
			var m bus.Message
			if err := json.Unmarshal([]byte(v.Payload), &m); err != nil || m.Origin == "" {
				l.Gap("a message that cannot be read")
				continue
			}
			l.Hear(m)
		}
	}
}

func (t *transport) MaxBytes() int { return maxBytes }
func (t *transport) Polls() bool   { return false }
func (t *transport) Close() error  { return nil }
