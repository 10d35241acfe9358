package redisstore

import (
	"context"
	"errors"
	"net"
	"strings"

	"github.com/redis/go-redis/v9"
)

// A mapReader has the client of a cluster read the map of slots again whenever a command fails for a reason that a newer
// map may mend. The client itself does so when a node sends it elsewhere, and else once a minute: a primary that is gone
// sends nobody anywhere. While commands fail the map is read a few times a second, whatever their number, and not at all
// when none does.
type mapReader struct{ cluster *redis.ClusterClient }

func (r mapReader) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (r mapReader) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		r.heed(ctx, err)
		return err
	}
}

func (r mapReader) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		r.heed(ctx, err)
		return err
	}
}

func (r mapReader) heed(ctx context.Context, err error) {
	if err == nil || errors.Is(err, redis.Nil) || errors.Is(err, redis.ErrClosed) {
		return
	}
	var answer redis.Error
	if errors.As(err, &answer) && !strings.HasPrefix(answer.Error(), "CLUSTERDOWN") {
		return // the right node has spoken
	}
	r.cluster.ReloadState(ctx)
}
