package redisstore

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

// A Watcher is told of every command, from many goroutines.
type Watcher interface {
	// Begin returns the context that a command runs with. operation is one of Operations.
	Begin(ctx context.Context, operation string) context.Context
	// End is told how it ended. That there is no value is no error, nor that its caller gave up.
	End(ctx context.Context, operation string, begun time.Time, err error)
}

// Operations are what a Watcher is told of: commands, several of them sent at once, and all the others.
var Operations = []string{
	"get", "set", "del", "exists", "eval", "evalsha", "zadd", "zrem", "zrange", "zcard", "publish", "ping", "time", "info", "pipeline", "other",
}

var operations = func() map[string]bool {
	m := map[string]bool{}
	for _, name := range Operations {
		m[name] = true
	}
	return m
}()

func operationOf(c redis.Cmder) string {
	if name := c.Name(); operations[name] { // go-redis has it in lower case
		return name
	}
	return "other"
}

// Watch has a Watcher told of what is asked of Redis from now on. Call it before the first command.
func Watch(client redis.UniversalClient, w Watcher) { client.AddHook(watched{w}) }

type watched struct{ w Watcher }

// DialHook implements redis.Hook.
func (h watched) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements redis.Hook.
func (h watched) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		operation, begun := operationOf(cmd), time.Now()
		ctx = h.w.Begin(ctx, operation)
		err := next(ctx, cmd)
		h.w.End(ctx, operation, begun, outcome(err))
		return err
	}
}

// ProcessPipelineHook implements redis.Hook.
func (h watched) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		const operation = "pipeline"
		begun := time.Now()
		ctx = h.w.Begin(ctx, operation)
		err := next(ctx, cmds)
		h.w.End(ctx, operation, begun, outcome(err))
		return err
	}
}

// outcome is the error that a Watcher hears of.
func outcome(err error) error {
	// A script that Redis does not know yet is sent whole right after.
	if errors.Is(err, redis.Nil) || errors.Is(err, context.Canceled) || redis.HasErrorPrefix(err, "NOSCRIPT") {
		return nil
	}
	return err
}

// A Pool is how the connections of Redis are used.
type Pool struct {
	Open, Idle int
	Waits      int64         // for a connection, so far
	Waited     time.Duration // in all
	Timeouts   int64         // waits that were in vain
}

// PoolOf is how a client's connections are used, those for pipelines among them.
func PoolOf(client redis.UniversalClient) Pool {
	var p Pool
	s := client.PoolStats()
	for s != nil {
		p.Open += int(s.TotalConns)
		p.Idle += int(s.IdleConns)
		p.Waits += int64(s.WaitCount)
		p.Waited += time.Duration(s.WaitDurationNs)
		p.Timeouts += int64(s.Timeouts)
		s = (*redis.PoolStats)(s.PipelineStats)
	}
	return p
}
