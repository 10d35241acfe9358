// Package redisstore keeps sessions in Redis or Valkey, single, behind Sentinel, or as a cluster: the store that
// replicas share. It also makes the client of a Redis URL (Connect) and remembers used nonces (Nonces).
//
// A session is one text under its key (record.go), which expires by itself. It is read together with the generation by
// one MGET, which readings at the same time share (together); on a cluster, where the two may lie on two nodes, by a GET of each. A
// user's index is a sorted set of the keys of their sessions. On a cluster the two live in different slots and cannot
// change together, so each is written in an order that leaves at worst an index entry without a session, never a session
// without its entry; readers pass over such an entry, and it goes when the session would have ended. A change of a session
// reads its record and replaces it by another, if it is still the same: no script knows what a record looks like.
//
// Every session bears the generation in which it was opened, a random word under a key of its own; a session of
// another generation does not exist. So ending all sessions is the change of one key, whatever their number.
package redisstore

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"barong/session"

	"github.com/redis/go-redis/v9"
)

// The names of our keys.
const (
	sessionPrefix = "barong:session:"       // + session key: record
	userPrefix    = "barong:sessions:user:" // + uid: sorted set, member = session key ":" CreatedAt in ms, score = EndsAt
	generationKey = "barong:sessions:generation"
	probeKey      = "barong:probe:" // + number; see Store.TryWrite
)

// slack is how much longer than needed Redis keeps things. What has expired is decided on the caller's clock, to the
// millisecond; Redis only clears up, and must not be early when the clocks differ.
const slack = time.Minute

// batch is how many commands go into one pipeline.
const batch = 512

var (
	errTaken = errors.New("session key is taken")
	errBusy  = errors.New("kept changing while it was changed")
)

// A Store keeps sessions in Redis.
type Store struct {
	client redis.UniversalClient
	reads  *together[string, reading] // nil on a cluster
}

var _ session.Store = (*Store)(nil)

// New returns the store behind a client, which the caller closes.
func New(client redis.UniversalClient) *Store {
	s := &Store{client: client}
	if _, one := client.(*redis.Client); one { // behind Sentinel too
		s.reads = newReads(client)
	}
	return s
}

// The scripts. None of them looks into a record. Each may be sent twice, since the client sends a command again when its
// answer was lost, and answers the second time what it answered the first.
const (
	// createScript stores a session unless the key is taken by anything else. Arguments: life in ms, record.
	createScript = `
local v = redis.call('GET', KEYS[1])
if not v then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[1]) end
return (not v or v == ARGV[2]) and 1 or 0`
	// indexScript adds a session to its user's index. Arguments: what had ended before, EndsAt, member, life in ms.
	indexScript = `
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[3])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[4]) then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
return 1`
	// replaceScript replaces a record by another, and answers 0 when it is not there any more. Arguments: the old one, the
	// new one, its life in ms, or 0 for what is left of the old one's.
	replaceScript = `
local v = redis.call('GET', KEYS[1])
if v == ARGV[2] then return 1 end
if v ~= ARGV[1] then return 0 end
local life = ARGV[3]
if life == '0' then life = math.max(redis.call('PTTL', KEYS[1]), 1) end
redis.call('SET', KEYS[1], ARGV[2], 'PX', life)
return 1`
	// endScript replaces a record by what a deletion leaves behind for a minute, so that the same call sent again gets the
	// same answer; by nothing when Redis has no memory left for it. It answers 0 when the record is not there any more.
	// Arguments: the record, what is left behind.
	endScript = `
local v = redis.call('GET', KEYS[1])
if v == ARGV[2] then return 1 end
if v ~= ARGV[1] then return 0 end
if redis.pcall('SET', KEYS[1], ARGV[2], 'PX', 60000).err then redis.call('DEL', KEYS[1]) end
return 1`
)

func millis(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }

// member is a session's entry in its user's index.
func member(key session.Key, created int64) string {
	return key.String() + ":" + strconv.FormatInt(created, 10)
}

// generation answers the current generation and makes the first.
func (s *Store) generation(ctx context.Context) (string, error) {
	for {
		g, err := s.client.Get(ctx, generationKey).Result()
		if !errors.Is(err, redis.Nil) {
			return g, err
		}
		// No expiry: were it lost, the next one is another word, and the sessions of the lost one stay dead.
		if err := s.client.SetNX(ctx, generationKey, newGeneration(), 0).Err(); err != nil {
			return "", err
		}
	}
}

func newGeneration() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// Create implements session.Store.
func (s *Store) Create(ctx context.Context, v *session.Session) error {
	generation, err := s.generation(ctx)
	if err != nil {
		return fmt.Errorf("create session: %w", err)
	}
	record, err := encode(&stored{Session: *v, generation: generation, call: rand.Text()})
	if err != nil {
		return fmt.Errorf("create session: %w", err)
	}
	// Lives are counted from the caller's own now, so that its clock need not agree with Redis's.
	from := v.SeenAt
	if from.Before(v.CreatedAt) {
		from = v.CreatedAt
	}
	err = s.client.Eval(ctx, indexScript, []string{userPrefix + v.UID}, millis(from.Add(-slack)), millis(v.EndsAt),
		member(v.Key, v.CreatedAt.UnixMilli()), life(from, v.EndsAt)).Err()
	if err != nil {
		return fmt.Errorf("index session: %w", err)
	}
	made, err := s.client.Eval(ctx, createScript, []string{name(v.Key)}, life(from, expiry(v)), record).Int()
	if err != nil {
		return fmt.Errorf("create session: %w", err)
	}
	if made == 0 {
		// The index may name the session under a time that is not its own: List compares.
		return fmt.Errorf("create session: %w", errTaken)
	}
	return nil
}

// life is how long Redis keeps something, in milliseconds.
func life(from, to time.Time) int64 {
	return max(to.Sub(from), 0).Milliseconds() + slack.Milliseconds()
}

// Get implements session.Store.
func (s *Store) Get(ctx context.Context, key session.Key, now time.Time) (*session.Session, error) {
	record, generation, err := s.record(ctx, name(key))
	if err != nil {
		return nil, fmt.Errorf("get session: %w", err)
	}
	v, err := decode(key, record, generation, now)
	if err != nil {
		return nil, err
	}
	return &v.Session, nil
}

// GetMany implements session.Store.
func (s *Store) GetMany(ctx context.Context, keys []session.Key, now time.Time) ([]*session.Session, error) {
	out := make([]*session.Session, 0, len(keys))
	for chunk := range slices.Chunk(keys, batch) {
		pipe := s.client.Pipeline()
		current := pipe.Get(ctx, generationKey)
		records := make([]*redis.StringCmd, len(chunk))
		for i, key := range chunk {
			records[i] = pipe.Get(ctx, name(key))
		}
		if err := exec(ctx, pipe); err != nil {
			return nil, fmt.Errorf("get sessions: %w", err)
		}
		for i, key := range chunk {
			if v, err := decode(key, records[i].Val(), current.Val(), now); err == nil {
				out = append(out, &v.Session)
			} else {
				out = append(out, nil)
			}
		}
	}
	return out, nil
}

// record reads a record and the current generation, in one round trip; on a cluster in one to each of two nodes, at the
// same time. What is not there is empty.
func (s *Store) record(ctx context.Context, name string) (record, generation string, err error) {
	if s.reads != nil {
		r, err := s.reads.ask(ctx, name)
		return r.record, r.generation, err
	}
	pipe := s.client.Pipeline()
	one, other := pipe.Get(ctx, name), pipe.Get(ctx, generationKey)
	err = exec(ctx, pipe)
	return one.Val(), other.Val(), err
}

// exec runs a pipeline. That a command answers nil is no error; its Val is empty then.
func exec(ctx context.Context, pipe redis.Pipeliner) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	commands, err := pipe.Exec(ctx)
	if err == nil {
		return nil
	}
	for _, c := range commands {
		if err := c.Err(); err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
	}
	if errors.Is(err, redis.Nil) {
		return nil
	}
	return err
}

// maxTries bounds how often a change begins anew since the session was changed meanwhile.
const maxTries = 8

// change reads a session, has it changed, and replaces its record unless that was changed meanwhile, when it does so again:
// a change never brings back what was deleted, nor undoes another. life is how long Redis keeps the record from then on, in
// ms, 0 for as long as it would have. The error is ErrNotFound when there is no session that lives at now.
func (s *Store) change(ctx context.Context, what string, key session.Key, now time.Time, change func(*session.Session) (life int64)) error {
	for range maxTries {
		old, generation, err := s.record(ctx, name(key))
		if err != nil {
			return fmt.Errorf("%s session: %w", what, err)
		}
		v, err := decode(key, old, generation, now)
		if err != nil {
			return err
		}
		life := change(&v.Session)
		changed, err := v.rewrite(old)
		if err != nil {
			return fmt.Errorf("%s session: %w", what, err)
		}
		done, err := s.client.Eval(ctx, replaceScript, []string{name(key)}, old, changed, life).Int()
		if err != nil {
			return fmt.Errorf("%s session: %w", what, err)
		}
		if done == 1 {
			return nil
		}
	}
	return fmt.Errorf("%s session: %w", what, errBusy)
}

// Touch implements session.Store. A session that had expired at seenAt is gone.
func (s *Store) Touch(ctx context.Context, key session.Key, seenAt, expiresAt time.Time) error {
	return s.change(ctx, "touch", key, seenAt, func(v *session.Session) int64 {
		v.SeenAt, v.ExpiresAt = seenAt, expiresAt
		return life(seenAt, expiry(v))
	})
}

// Rebase implements session.Store.
func (s *Store) Rebase(ctx context.Context, key session.Key, epoch int64) error {
	return s.change(ctx, "rebase", key, time.Time{}, func(v *session.Session) int64 {
		v.Epoch = epoch
		return 0
	})
}

// Delete implements session.Store.
func (s *Store) Delete(ctx context.Context, key session.Key) error {
	mark := string(ended) + rand.Text()
	for range maxTries {
		old, generation, err := s.record(ctx, name(key))
		if err != nil {
			return fmt.Errorf("delete session: %w", err)
		}
		v, err := decode(key, old, generation, time.Time{})
		if err != nil {
			return err
		}
		done, err := s.client.Eval(ctx, endScript, []string{name(key)}, old, mark).Int()
		if err != nil {
			return fmt.Errorf("delete session: %w", err)
		}
		if done == 1 {
			// The session is gone; that its entry stays behind would harm nothing.
			_ = s.client.ZRem(ctx, userPrefix+v.UID, member(key, v.CreatedAt.UnixMilli())).Err()
			return nil
		}
	}
	return fmt.Errorf("delete session: %w", errBusy)
}

// index reads the members of a user's index.
func (s *Store) index(ctx context.Context, uid string) (members []string, generation string, err error) {
	pipe := s.client.Pipeline()
	all := pipe.ZRange(ctx, userPrefix+uid, 0, -1)
	current := pipe.Get(ctx, generationKey)
	if err := exec(ctx, pipe); err != nil {
		return nil, "", err
	}
	return all.Val(), current.Val(), nil
}

// List implements session.Store.
func (s *Store) List(ctx context.Context, uid string, now time.Time) ([]*session.Session, error) {
	members, generation, err := s.index(ctx, uid)
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	out := make([]*session.Session, 0, len(members))
	var stale []any
	for chunk := range slices.Chunk(members, batch) {
		pipe := s.client.Pipeline()
		records := make([]*redis.StringCmd, len(chunk))
		for i, m := range chunk {
			text, _, _ := strings.Cut(m, ":")
			records[i] = pipe.Get(ctx, sessionPrefix+text)
		}
		if err := exec(ctx, pipe); err != nil {
			return nil, fmt.Errorf("list sessions: %w", err)
		}
		for i, m := range chunk {
			text, created, _ := strings.Cut(m, ":")
			key, ok := session.ParseKey(text)
			record := records[i].Val()
			ms, err := strconv.ParseInt(created, 10, 64)
			if !ok || err != nil || record == "" && time.UnixMilli(ms).Before(now.Add(-slack)) {
				stale = append(stale, m) // ended or expired; a younger one may be in the middle of its Create
				continue
			}
			v, err := decode(key, record, generation, now)
			if errors.Is(err, session.ErrNotFound) {
				continue
			}
			if err != nil {
				return nil, err
			}
			if v.UID == uid && v.CreatedAt.UnixMilli() == ms { // else the entry of a Create that was refused
				out = append(out, &v.Session)
			}
		}
	}
	if len(stale) > 0 {
		_ = s.client.ZRem(ctx, userPrefix+uid, stale...).Err() // the next one tries again
	}
	slices.SortFunc(out, func(a, b *session.Session) int {
		if c := b.CreatedAt.Compare(a.CreatedAt); c != 0 {
			return c
		}
		return slices.Compare(a.Key[:], b.Key[:])
	})
	return out, nil
}

// DeleteUser implements session.Store. With an error it returns the keys that were ended before it.
func (s *Store) DeleteUser(ctx context.Context, uid string, keep *session.Key) ([]session.Key, error) {
	members, generation, err := s.index(ctx, uid)
	if err != nil {
		return nil, fmt.Errorf("delete sessions of a user: %w", err)
	}
	if keep != nil {
		kept := keep.String()
		members = slices.DeleteFunc(members, func(m string) bool { return strings.HasPrefix(m, kept) })
	}
	ended, err := s.deleteMembers(ctx, uid, generation, members)
	if err != nil {
		return ended, fmt.Errorf("delete sessions of a user: %w", err)
	}
	return ended, nil
}

// Trim implements session.Store. With an error it returns the keys that were ended before it.
func (s *Store) Trim(ctx context.Context, uid string, epoch int64, keep int, now time.Time) ([]session.Key, error) {
	if n, err := s.client.ZCard(ctx, userPrefix+uid).Result(); err != nil || n <= int64(keep) { // most often
		return nil, err
	}
	all, err := s.List(ctx, uid, now)
	if err != nil {
		return nil, err
	}
	live := slices.DeleteFunc(all, func(v *session.Session) bool { return v.Epoch != epoch })
	if len(live) <= keep {
		return nil, nil
	}
	generation, err := s.generation(ctx)
	if err != nil {
		return nil, fmt.Errorf("trim sessions: %w", err)
	}
	var members []string
	for _, v := range live[keep:min(len(live), keep+2*batch)] {
		members = append(members, member(v.Key, v.CreatedAt.UnixMilli()))
	}
	ended, err := s.deleteMembers(ctx, uid, generation, members)
	if err != nil {
		return ended, fmt.Errorf("trim sessions: %w", err)
	}
	return ended, nil
}

// deleteMembers ends the sessions of these members of a user's index.
func (s *Store) deleteMembers(ctx context.Context, uid, generation string, members []string) ([]session.Key, error) {
	var ended []session.Key
	for chunk := range slices.Chunk(members, batch) {
		for range maxTries {
			done, changed, err := s.deleteBatch(ctx, uid, generation, chunk)
			ended = append(ended, done...)
			if err != nil {
				return ended, err
			}
			if chunk = changed; len(chunk) == 0 {
				break
			}
		}
		if len(chunk) > 0 {
			return ended, errBusy
		}
	}
	return ended, nil
}

// deleteBatch ends the sessions of a batch of members, and returns the keys that it ended and the members whose sessions
// were changed meanwhile. A record of another user or of none, which it cannot read, or that is not there stays as it is.
func (s *Store) deleteBatch(ctx context.Context, uid, generation string, members []string) (keys []session.Key, changed []string, err error) {
	pipe := s.client.Pipeline()
	records := make([]*redis.StringCmd, len(members))
	for i, m := range members {
		text, _, _ := strings.Cut(m, ":")
		records[i] = pipe.Get(ctx, sessionPrefix+text)
	}
	if err := exec(ctx, pipe); err != nil {
		return nil, nil, err
	}
	mark := string(ended) + rand.Text()
	pipe = s.client.Pipeline()
	done := make([]*redis.Cmd, len(members))
	live := make([]bool, len(members))
	for i, m := range members {
		text, _, _ := strings.Cut(m, ":")
		v, ok := readRecord(records[i].Val())
		if !ok || v.UID != uid {
			continue
		}
		live[i] = v.generation == generation
		done[i] = pipe.Eval(ctx, endScript, []string{sessionPrefix + text}, records[i].Val(), mark)
	}
	if pipe.Len() == 0 {
		return nil, nil, nil
	}
	err = exec(ctx, pipe)
	// Only entries whose session was there go: another's session may be on its way, between its entry and itself.
	var gone []any
	for i, m := range members {
		switch {
		case done[i] == nil || done[i].Err() != nil:
			continue
		case done[i].Val() != int64(1):
			changed = append(changed, m)
			continue
		}
		gone = append(gone, m)
		text, _, _ := strings.Cut(m, ":")
		if key, ok := session.ParseKey(text); ok && live[i] {
			keys = append(keys, key)
		}
	}
	if len(gone) > 0 {
		_ = s.client.ZRem(ctx, userPrefix+uid, gone...).Err() // see Delete
	}
	return keys, changed, err
}

// DeleteAll implements session.Store. The sessions end with the generation, at once; the count is of the records that
// were then found and removed, and falls short when Redis fails meanwhile. What stays behind expires by itself.
func (s *Store) DeleteAll(ctx context.Context) (int64, error) {
	next := newGeneration()
	before, err := s.client.Get(ctx, generationKey).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return 0, fmt.Errorf("delete all sessions: %w", err)
	}
	old, err := s.client.SetArgs(ctx, generationKey, next, redis.SetArgs{Get: true}).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return 0, fmt.Errorf("delete all sessions: %w", err)
	}
	if old == next { // the answer was lost and the command was sent again: those that live now are not to be swept
		old = before
	}
	if old == "" {
		return 0, nil
	}
	var total int64
	if cluster, ok := s.client.(*redis.ClusterClient); ok {
		counts := make(chan int64, 1)
		counts <- 0
		_ = cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
			n, err := s.sweep(ctx, node, old)
			counts <- n + <-counts
			return err
		})
		total = <-counts
	} else {
		total, _ = s.sweep(ctx, s.client, old)
	}
	return total, nil
}

// sweep removes the sessions of an ended generation from one node.
func (s *Store) sweep(ctx context.Context, node redis.UniversalClient, generation string) (total int64, err error) {
	var cursor uint64
	for {
		var keys []string
		keys, cursor, err = node.Scan(ctx, cursor, sessionPrefix+"*", batch).Result()
		if err != nil {
			return total, err
		}
		pipe := s.client.Pipeline()
		found := make([]*redis.StringCmd, len(keys))
		for i, key := range keys {
			found[i] = pipe.Get(ctx, key)
		}
		if len(keys) > 0 {
			if err := exec(ctx, pipe); err != nil {
				return total, err
			}
		}
		pipe = s.client.Pipeline()
		var removed []*redis.IntCmd
		for i, key := range keys {
			if v, ok := readRecord(found[i].Val()); ok && v.generation == generation {
				removed = append(removed, pipe.Unlink(ctx, key))
			}
		}
		if len(removed) > 0 {
			err = exec(ctx, pipe)
		}
		for _, r := range removed {
			total += r.Val()
		}
		if err != nil || cursor == 0 {
			return total, err
		}
	}
}

// Purge implements session.Store: Redis expires by itself.
func (s *Store) Purge(context.Context, time.Time, int) (int64, error) { return 0, nil }

// probeScript writes, for a minute, and reads what it wrote.
const probeScript = `redis.call('SET', KEYS[1], ARGV[1], 'PX', 60000) return redis.call('GET', KEYS[1])`

// probes is how many keys TryWrite writes to on a cluster: so many are spread over all of its nodes.
const probes = 64

// TryWrite reports whether Redis takes writes and scripts, as all that is stored there needs: one that only answers may be
// a replica, or full.
func (s *Store) TryWrite(ctx context.Context) error {
	n := 1
	if _, cluster := s.client.(*redis.ClusterClient); cluster {
		n = probes
	}
	word := rand.Text()
	pipe := s.client.Pipeline()
	read := make([]*redis.Cmd, n)
	for i := range read {
		read[i] = pipe.Eval(ctx, probeScript, []string{probeKey + strconv.Itoa(i)}, word)
	}
	if err := exec(ctx, pipe); err != nil {
		return fmt.Errorf("redis takes no writes: %w", err)
	}
	for _, r := range read {
		if _, err := r.Text(); err != nil {
			return fmt.Errorf("redis takes no writes: %w", err)
		}
	}
	return nil
}

// Ping implements session.Store: it reads the one key that every other call needs.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.client.Get(ctx, generationKey).Err(); err != nil && !errors.Is(err, redis.Nil) {
		return fmt.Errorf("ping redis: %w", err)
	}
	return nil
}
