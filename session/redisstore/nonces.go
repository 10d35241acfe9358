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
	one    bool // all keys are on one node
	marks  *together[mark, marked]
	word   string // of this process
	calls  atomic.Uint64
}

// A mark says that a nonce is used up.
type mark struct {
	key   string
	until time.Time
}

// A marked is what became of a mark.
type marked struct {
	first bool
	err   error
}

// NewNonces returns the memory behind a client, which the caller closes.
func NewNonces(client redis.UniversalClient) *Nonces {
	n := &Nonces{client: client, word: rand.Text()}
	_, n.one = client.(*redis.Client) // behind Sentinel too
	n.marks = newTogether(n.mark)
	return n
}

// FirstUse implements authz.Nonces: it marks the pair as used until the given time and reports whether it was not
// before. Of parallel uses on any replicas exactly one is the first. An error means that it is not known, and the caller
// refuses. Mark only pairs whose signature has been verified, or strangers can use up the nonces of others.
func (n *Nonces) FirstUse(ctx context.Context, kid, nonce string, until time.Time) (bool, error) {
	got, err := n.marks.ask(ctx, mark{noncePrefix + kid + ":" + nonce, until})
	if err = cmp.Or(err, got.err); err != nil {
		return false, fmt.Errorf("mark nonce: %w", err)
	}
	return got.first, nil
}

// call is a word that no other call has. The client sends a command again when its answer was lost, and then meets the mark
// of the first attempt. So each mark bears a word of the call that made it: one's own is a first use.
func (n *Nonces) call() string { return n.word + strconv.FormatUint(n.calls.Add(1), 36) + "." }

// keep is how long Redis keeps a mark: at least the slack, since on a clock ahead of ours the pair may still be fresh.
func (m *mark) keep(now time.Time) time.Duration { return max(m.until.Sub(now), 0) + slack }

// mark sets marks where there are none, and says of each whether it is there now.
func (n *Nonces) mark(ctx context.Context, marks []mark) ([]marked, error) {
	if n.one && len(marks) > 1 {
		return n.markAtOnce(ctx, marks)
	}
	return n.markEach(ctx, marks)
}

// marksScript sets marks where there are none, and says of each by a digit whether it is there now. Arguments: the word of
// the call, how long marks are kept in ms.
const marksScript = `
local said = {}
for i, key in ipairs(KEYS) do
  local mark = ARGV[1] .. i
  said[i] = (redis.call('SET', key, mark, 'NX', 'PX', ARGV[2]) or redis.call('GET', key) == mark) and '1' or '0'
end
return table.concat(said)`

// marksScriptName is how Redis names a script that it has seen.
var marksScriptName = redis.NewScript(marksScript).Hash()

// markAtOnce sets marks of one node by one command: to make, write and read a command for each is most of what a mark costs
// this process. With an error none of them counts, whatever was set.
func (n *Nonces) markAtOnce(ctx context.Context, marks []mark) ([]marked, error) {
	now, keep := time.Now(), time.Duration(0)
	args := make([]any, 3, 5+len(marks))
	args[0], args[1], args[2] = "evalsha", marksScriptName, len(marks)
	for i := range marks {
		args = append(args, &marks[i].key) // the pointer takes no memory
		keep = max(keep, marks[i].keep(now))
	}
	args = append(args, n.call(), keep.Milliseconds())
	said := redis.NewStringCmd(ctx, args...)
	err := n.client.Process(ctx, said)
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		args[0], args[1] = "eval", marksScript
		said = redis.NewStringCmd(ctx, args...)
		err = n.client.Process(ctx, said)
	}
	if err != nil {
		return nil, err
	}
	digits := said.Val()
	if len(digits) != len(marks) {
		return nil, errMarks
	}
	out := make([]marked, len(marks))
	for i := range out {
		out[i].first = digits[i] == '1'
	}
	return out, nil
}

// errMarks says that a script has not said of each mark whether it is there.
var errMarks = errors.New("not every mark was answered")

// markEach sets marks by a command each, in one round trip to each node, which speak for themselves.
func (n *Nonces) markEach(ctx context.Context, marks []mark) ([]marked, error) {
	out := make([]marked, len(marks))
	set := make([]*redis.BoolCmd, len(marks))
	calls := make([]string, len(marks))
	pipe, now := n.client.Pipeline(), time.Now()
	for i, m := range marks {
		calls[i] = n.call()
		set[i] = pipe.SetNX(ctx, m.key, calls[i], m.keep(now))
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
			out[i] = marked{there == calls[i] && err == nil, err}
		}
	}
	return out, nil
}
