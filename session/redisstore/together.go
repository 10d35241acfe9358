package redisstore

import (
	"context"
	"runtime"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Bounds of what goes together.
const (
	maxTogether = 64                   // questions that share one round trip
	minApart    = 16                   // questions that are worth one of their own while as many are on their way
	maxWait     = 5 * time.Millisecond // how long a question waits for its turn: little of the 200 ms that a check has
)

// A together asks Redis for callers of the same moment at once. Most of what a question costs this process is the
// system's: to send a command, to wait, to be woken. So a few round trips are under way at a time, and the questions that
// come meanwhile share the next one. It begins when one of those ends, or when as many wait as are on their way: were all of
// a process's callers to wait for one answer, it had nothing to do until that comes. A question that finds none under way is
// sent at once; none is answered by a round trip that began before it came.
type together[Q, A any] struct {
	send  func(ctx context.Context, questions []Q) ([]A, error) // as many answers as questions, unless there is an error
	turns int                                                   // most round trips under way, but for those of many, or that waited too long
	wait  time.Duration                                         // until a question that finds no turn is sent all the same
	// untimed says that the client's own timeouts end a question, and not the deadline of who asks. That of a check is only
	// made when it is asked for, which costs a check more memory and time than its share of a round trip.
	untimed bool

	mu      sync.Mutex
	running int           // round trips
	sent    int           // questions that they ask
	next    *shared[Q, A] // nil: nobody waits
}

func newTogether[Q, A any](send func(context.Context, []Q) ([]A, error)) *together[Q, A] {
	return &together[Q, A]{send: send, turns: runtime.GOMAXPROCS(0), wait: maxWait}
}

// A shared is one round trip for several questions. What it answers may be read when done is closed.
type shared[Q, A any] struct {
	questions []Q
	late      *time.Timer
	done      chan struct{}
	answers   []A
	err       error
}

// ask returns the answer to a question.
func (t *together[Q, A]) ask(ctx context.Context, q Q) (A, error) {
	var none A
	if err := ctx.Err(); err != nil {
		return none, err
	}
	t.mu.Lock()
	if t.next == nil && t.running < t.turns {
		t.running++
		t.sent++
		t.mu.Unlock()
		defer t.pass(1)
		if t.untimed {
			ctx = context.WithoutCancel(ctx)
		}
		answers, err := t.send(ctx, []Q{q})
		if err != nil {
			return none, err
		}
		return answers[0], nil
	}
	s := t.next
	if s == nil {
		s = &shared[Q, A]{questions: make([]Q, 0, 8), done: make(chan struct{})}
		s.late = time.AfterFunc(t.wait, func() { t.hurry(s) })
		t.next = s
	}
	i := len(s.questions)
	s.questions = append(s.questions, q)
	if n := len(s.questions); n == maxTogether || n >= max(minApart, t.sent) {
		t.start(s)
	}
	t.mu.Unlock()
	if t.untimed {
		<-s.done
	} else {
		select {
		case <-s.done:
		case <-ctx.Done():
			return none, ctx.Err()
		}
	}
	if s.err != nil {
		return none, s.err
	}
	return s.answers[i], nil
}

// start makes a round trip for those who wait. The lock is held.
func (t *together[Q, A]) start(s *shared[Q, A]) {
	t.next = nil
	t.running++
	t.sent += len(s.questions)
	s.late.Stop()
	go func() {
		defer t.pass(len(s.questions))
		defer close(s.done)
		// None of the callers' contexts: each of them may give up alone. The client's own timeouts end it.
		s.answers, s.err = t.send(context.Background(), s.questions)
	}()
}

// pass ends a turn of so many questions, which is then of those who wait.
func (t *together[Q, A]) pass(asked int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.running--
	t.sent -= asked
	if t.next != nil && t.running < t.turns {
		t.start(t.next)
	}
}

// hurry gives up waiting for a turn: the round trips under way are slow.
func (t *together[Q, A]) hurry(s *shared[Q, A]) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.next == s {
		t.start(s)
	}
}

// A reading is the record under a name, and the generation at the same moment. What is not there is empty.
type reading struct{ record, generation string }

// newReads reads records by their names where all keys are on one node.
func newReads(client redis.UniversalClient) *together[string, reading] {
	return newTogether(func(ctx context.Context, names []string) ([]reading, error) {
		args := make([]any, 2, 2+len(names))
		args[0], args[1] = "mget", generationKey
		for _, name := range names {
			args = append(args, name)
		}
		c := redis.NewSliceCmd(ctx, args...)
		if err := client.Process(ctx, c); err != nil {
			return nil, err
		}
		texts := c.Val()
		if len(texts) != 1+len(names) {
			return nil, errRecord
		}
		out := make([]reading, len(names))
		for i := range out {
			out[i].generation, _ = texts[0].(string)
			out[i].record, _ = texts[1+i].(string)
		}
		return out, nil
	})
}
