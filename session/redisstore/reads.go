package redisstore

import (
	"context"
	"runtime"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Bounds of reads.
const (
	maxTogether = 64                   // records that are read by one command
	maxWait     = 5 * time.Millisecond // how long a reading waits for its turn: little of the 200 ms that a check has
)

// reads reads records where all keys are on one node. Most of what a reading costs this process is the system's: to send
// a command, to wait, to be woken. So a few commands are under way at a time, and the readings that come meanwhile share
// the next one. A reading that finds none under way is sent at once; none is answered by a command sent before it came.
type reads struct {
	client redis.UniversalClient
	turns  int // most commands under way, but for those that waited too long

	mu      sync.Mutex
	running int
	next    *shared // nil: nobody waits
}

func newReads(client redis.UniversalClient) *reads {
	return &reads{client: client, turns: 1 + runtime.GOMAXPROCS(0)}
}

// A shared is one command for several readings. What it answers may be read when done is closed.
type shared struct {
	args  []any // "mget", the generation's key, and the records'
	late  *time.Timer
	done  chan struct{}
	texts []any
	err   error
}

// read returns the record under a name, and the current generation at the same moment. What is not there is empty.
func (r *reads) read(ctx context.Context, name string) (record, generation string, err error) {
	if err := ctx.Err(); err != nil {
		return "", "", err
	}
	r.mu.Lock()
	if r.next == nil && r.running < r.turns {
		r.running++
		r.mu.Unlock()
		defer r.pass()
		texts, err := r.mget(ctx, "mget", generationKey, name)
		return pick(texts, 0, err)
	}
	s := r.next
	if s == nil {
		s = &shared{args: append(make([]any, 0, 16), "mget", generationKey), done: make(chan struct{})}
		s.late = time.AfterFunc(maxWait, func() { r.hurry(s) })
		r.next = s
	}
	i := len(s.args) - 2
	s.args = append(s.args, name)
	if i+1 == maxTogether {
		r.start(s)
	}
	r.mu.Unlock()
	select {
	case <-s.done:
		return pick(s.texts, i, s.err)
	case <-ctx.Done():
		return "", "", ctx.Err()
	}
}

// start sends a command for those who wait. The lock is held.
func (r *reads) start(s *shared) {
	r.next = nil
	r.running++
	s.late.Stop()
	go func() {
		defer r.pass()
		defer close(s.done)
		// None of the callers' contexts: each of them may give up alone. The client's own timeouts end it.
		s.texts, s.err = r.mget(context.Background(), s.args...)
	}()
}

// pass ends a turn, which is then of those who wait.
func (r *reads) pass() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running--
	if r.next != nil && r.running < r.turns {
		r.start(r.next)
	}
}

// hurry gives up waiting for a turn: the commands under way are slow.
func (r *reads) hurry(s *shared) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next == s {
		r.start(s)
	}
}

func (r *reads) mget(ctx context.Context, args ...any) ([]any, error) {
	c := redis.NewSliceCmd(ctx, args...)
	if err := r.client.Process(ctx, c); err != nil {
		return nil, err
	}
	if texts := c.Val(); len(texts) == len(args)-1 {
		return texts, nil
	}
	return nil, errRecord
}

// pick takes a reading's own record out of what a command answered.
func pick(texts []any, i int, err error) (record, generation string, _ error) {
	if err != nil {
		return "", "", err
	}
	generation, _ = texts[0].(string)
	record, _ = texts[1+i].(string)
	return record, generation, nil
}
