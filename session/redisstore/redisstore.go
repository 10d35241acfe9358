// Package redisstore keeps sessions in Redis or Valkey, single, behind Sentinel, or as a cluster: the store that
// replicas share. It also makes the client of a Redis URL (Connect) and remembers used nonces (Nonces).
//
// A session is one hash under its key, which expires by itself. A user's index is a sorted set of the keys of their
// sessions. On a cluster the two live in different slots and cannot change together, so each is written in an order
// that leaves at worst an index entry without a session, never a session without its entry; readers pass over such an
// entry, and it goes when the session would have ended. Every change of a session is one script on its own key.
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
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"barong/session"

	"github.com/redis/go-redis/v9"
)

// The names of our keys.
const (
	sessionPrefix = "barong:session:"       // + session key: hash
	userPrefix    = "barong:sessions:user:" // + uid: sorted set, member = session key ":" CreatedAt, score = EndsAt
	generationKey = "barong:sessions:generation"
)

// slack is how much longer than needed Redis keeps things. What has expired is decided on the caller's clock, to the
// millisecond; Redis only clears up, and must not be early when the clocks differ.
const slack = time.Minute

// batch is how many commands go into one pipeline.
const batch = 512

var errTaken = errors.New("session key is taken")

// A Store keeps sessions in Redis.
type Store struct{ client redis.UniversalClient }

var _ session.Store = (*Store)(nil)

// New returns the store behind a client, which the caller closes.
func New(client redis.UniversalClient) *Store { return &Store{client: client} }

// The scripts. Times are Unix milliseconds, which Lua's numbers hold exactly; epochs stay texts, they may be larger.
// Fields: u uid, o epoch, t CSRF token, a address, b User-Agent, n country, c s x e the four times, g generation, r the
// call that created it. A record that was deleted has none of them.
const (
	// createScript stores a session unless the key is taken, by anything but the same call: the client sends a command
	// again when its answer was lost. Arguments: life in ms, then the hash, which begins with a random word of the call.
	createScript = `
if redis.call('EXISTS', KEYS[1]) == 1 then
  if redis.call('HGET', KEYS[1], ARGV[2]) == ARGV[3] then return 1 end
  return 0
end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1`
	// indexScript adds a session to its user's index. Arguments: what had ended before, EndsAt, member, life in ms.
	indexScript = `
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[3])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[4]) then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
return 1`
	// touchScript moves the expiry and answers the generation; nil when the session is gone or had expired.
	// Arguments: seen, expires, slack.
	touchScript = `
local v = redis.call('HMGET', KEYS[1], 'x', 'e', 'g')
if not v[1] or tonumber(v[1]) <= tonumber(ARGV[1]) then return false end
local x = math.min(tonumber(ARGV[2]), tonumber(v[2]))
redis.call('HSET', KEYS[1], 's', ARGV[1], 'x', string.format('%.0f', x))
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.max(x - tonumber(ARGV[1]), 0) + tonumber(ARGV[3])))
return v[3]`
	// rebaseScript sets the epoch and answers the generation; nil when the session is gone.
	rebaseScript = `
local g = redis.call('HGET', KEYS[1], 'g')
if g then redis.call('HSET', KEYS[1], 'o', ARGV[1]) end
return g`
	// deleteScript deletes a session and answers generation, uid and CreatedAt; nil when there was none, or when it is
	// not of the user named by the second argument, if one is. In its place it leaves for a minute what it answered and
	// the random word of the call, the first argument, so that the same call sent again gets the same answer.
	deleteScript = `
local v = redis.call('HMGET', KEYS[1], 'g', 'u', 'c', 'd', 'dg', 'du', 'dc')
if v[4] == ARGV[1] then return {v[5], v[6], v[7]} end
if not v[1] or (ARGV[2] and ARGV[2] ~= v[2]) then return false end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'd', ARGV[1], 'dg', v[1], 'du', v[2], 'dc', v[3])
redis.call('PEXPIRE', KEYS[1], 60000)
return {v[1], v[2], v[3]}`
)

func millis(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }

func member(key string, createdAt string) string { return key + ":" + createdAt }

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
	key, created := v.Key.String(), millis(v.CreatedAt)
	ip := ""
	if v.IP.IsValid() {
		ip = v.IP.String()
	}
	expires := v.ExpiresAt
	if expires.After(v.EndsAt) {
		expires = v.EndsAt
	}
	// Lives are counted from the caller's own now, so that its clock need not agree with Redis's.
	from := v.SeenAt
	if from.Before(v.CreatedAt) {
		from = v.CreatedAt
	}
	err = s.client.Eval(ctx, indexScript, []string{userPrefix + v.UID}, millis(from.Add(-slack)), millis(v.EndsAt),
		member(key, created), life(from, v.EndsAt)).Err()
	if err != nil {
		return fmt.Errorf("index session: %w", err)
	}
	made, err := s.client.Eval(ctx, createScript, []string{sessionPrefix + key}, life(from, expires),
		"r", rand.Text(), "u", v.UID, "o", v.Epoch, "t", v.CSRF, "a", ip,
		"b", v.UserAgent[:min(len(v.UserAgent), session.MaxUserAgent)],
		"n", v.Country, "c", created, "s", millis(v.SeenAt), "x", millis(expires), "e", millis(v.EndsAt),
		"g", generation).Int()
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

// read makes a session of its hash; ErrNotFound when there is none of this generation that lives at now.
func read(key session.Key, hash map[string]string, generation string, now time.Time) (*session.Session, error) {
	if len(hash) == 0 || hash["g"] != generation {
		return nil, session.ErrNotFound
	}
	var failed error
	number := func(field string) int64 {
		n, err := strconv.ParseInt(hash[field], 10, 64)
		if err != nil {
			failed = fmt.Errorf("session record: field %s is no number", field)
		}
		return n
	}
	at := func(field string) time.Time { return time.UnixMilli(number(field)).UTC() }
	v := &session.Session{
		Key: key, UID: hash["u"], Epoch: number("o"), CSRF: hash["t"], UserAgent: hash["b"], Country: hash["n"],
		CreatedAt: at("c"), SeenAt: at("s"), ExpiresAt: at("x"), EndsAt: at("e"),
	}
	if ip := hash["a"]; ip != "" {
		var err error
		if v.IP, err = netip.ParseAddr(ip); err != nil {
			failed = errors.New("session record: malformed address")
		}
	}
	if failed != nil {
		return nil, failed
	}
	if !v.Live(now) {
		return nil, session.ErrNotFound
	}
	return v, nil
}

// Get implements session.Store.
func (s *Store) Get(ctx context.Context, key session.Key, now time.Time) (*session.Session, error) {
	pipe := s.client.Pipeline() // one round trip; on a cluster one to each of two nodes, at the same time
	hash := pipe.HGetAll(ctx, sessionPrefix+key.String())
	generation := pipe.Get(ctx, generationKey)
	if err := exec(ctx, pipe); err != nil {
		return nil, fmt.Errorf("get session: %w", err)
	}
	return read(key, hash.Val(), generation.Val(), now)
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

// change runs a script on one session, and reports ErrNotFound when the script found none, or one of a generation that
// has ended: what the script did to that one, nobody sees.
func (s *Store) change(ctx context.Context, what, script string, key session.Key, args ...any) (*redis.Cmd, error) {
	pipe := s.client.Pipeline()
	done := pipe.Eval(ctx, script, []string{sessionPrefix + key.String()}, args...)
	current := pipe.Get(ctx, generationKey)
	if err := exec(ctx, pipe); err != nil {
		return nil, fmt.Errorf("%s session: %w", what, err)
	}
	generation, ok := done.Val().(string)
	if list, isList := done.Val().([]any); isList && len(list) > 0 {
		generation, ok = list[0].(string)
	}
	if !ok || generation != current.Val() {
		return nil, session.ErrNotFound
	}
	return done, nil
}

// Touch implements session.Store. A session that had expired at seenAt is gone.
func (s *Store) Touch(ctx context.Context, key session.Key, seenAt, expiresAt time.Time) error {
	_, err := s.change(ctx, "touch", touchScript, key, millis(seenAt), millis(expiresAt), slack.Milliseconds())
	return err
}

// Rebase implements session.Store.
func (s *Store) Rebase(ctx context.Context, key session.Key, epoch int64) error {
	_, err := s.change(ctx, "rebase", rebaseScript, key, epoch)
	return err
}

// Delete implements session.Store.
func (s *Store) Delete(ctx context.Context, key session.Key) error {
	done, err := s.change(ctx, "delete", deleteScript, key, rand.Text())
	if err != nil {
		return err
	}
	if v, err := done.StringSlice(); err == nil && len(v) == 3 {
		// The session is gone; that its entry stays behind would harm nothing.
		_ = s.client.ZRem(ctx, userPrefix+v[1], member(key.String(), v[2])).Err()
	}
	return nil
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
		hashes := make([]*redis.MapStringStringCmd, len(chunk))
		for i, m := range chunk {
			text, _, _ := strings.Cut(m, ":")
			hashes[i] = pipe.HGetAll(ctx, sessionPrefix+text)
		}
		if err := exec(ctx, pipe); err != nil {
			return nil, fmt.Errorf("list sessions: %w", err)
		}
		for i, m := range chunk {
			text, created, _ := strings.Cut(m, ":")
			key, ok := session.ParseKey(text)
			hash := hashes[i].Val()
			if ms, err := strconv.ParseInt(created, 10, 64); !ok || err != nil ||
				len(hash) == 0 && time.UnixMilli(ms).Before(now.Add(-slack)) {
				stale = append(stale, m) // ended or expired; a younger one may be in the middle of its Create
				continue
			}
			v, err := read(key, hash, generation, now)
			if errors.Is(err, session.ErrNotFound) {
				continue
			}
			if err != nil {
				return nil, err
			}
			if v.UID == uid && hash["c"] == created { // else the entry of a Create that was refused
				out = append(out, v)
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
	var ended []session.Key
	call := rand.Text()
	for chunk := range slices.Chunk(members, batch) {
		pipe := s.client.Pipeline()
		done := make([]*redis.Cmd, len(chunk))
		for i, m := range chunk {
			text, _, _ := strings.Cut(m, ":")
			done[i] = pipe.Eval(ctx, deleteScript, []string{sessionPrefix + text}, call, uid)
		}
		err := exec(ctx, pipe)
		// Only entries whose session was there go: another's session may be on its way, between its entry and itself.
		var gone []any
		for i, m := range chunk {
			v, failed := done[i].StringSlice()
			if failed != nil || len(v) != 3 {
				continue
			}
			gone = append(gone, m)
			text, _, _ := strings.Cut(m, ":")
			if key, ok := session.ParseKey(text); ok && v[0] == generation {
				ended = append(ended, key)
			}
		}
		if len(gone) > 0 {
			_ = s.client.ZRem(ctx, userPrefix+uid, gone...).Err() // see Delete
		}
		if err != nil {
			return ended, fmt.Errorf("delete sessions of a user: %w", err)
		}
	}
	return ended, nil
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
			found[i] = pipe.HGet(ctx, key, "g")
		}
		if len(keys) > 0 {
			if err := exec(ctx, pipe); err != nil {
				return total, err
			}
		}
		pipe = s.client.Pipeline()
		var removed []*redis.IntCmd
		for i, key := range keys {
			if found[i].Val() == generation {
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

// Ping implements session.Store: it reads the one key that every other call needs.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.client.Get(ctx, generationKey).Err(); err != nil && !errors.Is(err, redis.Nil) {
		return fmt.Errorf("ping redis: %w", err)
	}
	return nil
}
