package redisstore

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// awaitPause is how soon a Redis that does not answer is asked again.
const awaitPause = 250 * time.Millisecond

// Await waits until Redis answers, and for one that does not let the client in not at all. The error is what was answered
// last before ctx ended, with what to do about it.
func Await(ctx context.Context, client redis.UniversalClient) error {
	for {
		err := client.Ping(ctx).Err()
		if err == nil {
			return nil
		}
		if strings.Contains(err.Error(), "NOAUTH ") {
			return fmt.Errorf("%w The URL has no password: redis://:password@host", err)
		}
		if strings.Contains(err.Error(), "WRONGPASS ") {
			return fmt.Errorf("%w What is not a letter or digit in them is percent-encoded", err)
		}
		select {
		case <-time.After(awaitPause):
			continue
		case <-ctx.Done():
		}
		if hint := hintOfTLS(client, err); hint != "" {
			return fmt.Errorf("%w; %s", err, hint)
		}
		return err
	}
}

// hintOfTLS says that one end may speak TLS and the other not, where the error looks like it.
func hintOfTLS(client redis.UniversalClient, err error) string {
	var config *tls.Config
	switch c := client.(type) {
	case *redis.Client:
		config = c.Options().TLSConfig
	case *redis.ClusterClient:
		config = c.Options().TLSConfig
	}
	text := err.Error()
	switch {
	case config != nil && (strings.Contains(text, "deadline exceeded") || strings.Contains(text, "timeout") || strings.Contains(text, "first record does not look like")):
		return "a server that speaks no TLS wants redis:// in the place of rediss://"
	case config == nil && (strings.Contains(text, "EOF") || strings.Contains(text, "reset by peer")):
		return "a server that speaks TLS wants rediss:// in the place of redis://"
	}
	return ""
}
