// Package near is the near cache of sessions: what one process remembers of sessions, API keys and their users, so that
// a warm check asks no store. Beside each it keeps what a check needs and no store has: the token that was signed last, and
// the hash states of an API key's secret. It reads session.Store, session.Principals and session.APIKeys, and knows
// neither rules nor keys nor gateways.
package near

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"barong/session"
)

// ErrExpired says that a session was known and its time is over.
var ErrExpired = errors.New("session: expired")

// errTooLong says that a session cannot be kept: see compact.
var errTooLong = errors.New("session: the CSRF token is too long")

// errOrphan says that a session's or key's user is gone.
var errOrphan = errors.New("session: the user is gone")

// Options are what a Cache is made of.
type Options struct {
	Store      session.Store      // required
	Principals session.Principals // required
	APIKeys    session.APIKeys    // required

	// Fresh reports whether memory filled at loaded may be trusted at now: bus.Fresh with the TTL below. It must never
	// trust older memory where it does not trust younger. nil trusts memory for the TTL alone.
	Fresh func(loaded, now time.Time) bool
	// TTL is how long memory is trusted where Fresh is nil, or does not hear of changes. 0 is DefaultTTL.
	TTL time.Duration
	// Trust is how long memory is trusted at most, whatever Fresh says: a row that was edited by hand, or restored, is
	// felt within it. 0 is DefaultTrust.
	Trust time.Duration
	// Life is the sliding life of a session, which is written back once per Life/20. 0 is DefaultLife.
	Life time.Duration

	MaxSessions int // most sessions, and most users, kept in memory; 0 is DefaultMaxSessions
	MaxAPIKeys  int // most API keys kept in memory; 0 is DefaultMaxAPIKeys

	// Read is told of each reading of the stores: of what (ReadSession, ReadPrincipal, ReadAPIKey), how many keys it asked
	// for, and whether it renewed what is known rather than answer somebody who waits. It must not block; nil tells nobody.
	Read func(what string, keys int, renewal bool)
	// Record makes the end of a session outlive what happens to the store. It is given key, user and absolute end. nil
	// leaves it to the store alone.
	Record func(context.Context, *session.Session) error
	// Ended is called when the cache itself ended a session in the store, so that other replicas can be told
	// (bus.SessionGone). nil tells nobody.
	Ended func(session.Key)
	Now   func() time.Time // nil is time.Now
	Log   *slog.Logger     // nil logs nothing
}

// What Options.Read is told of.
const (
	ReadSession   = "session"
	ReadPrincipal = "principal"
	ReadAPIKey    = "API key"
)

// Defaults of Options.
const (
	DefaultTTL         = 5 * time.Second
	DefaultTrust       = time.Minute
	DefaultLife        = 30 * time.Minute
	DefaultMaxSessions = 1 << 20
	DefaultMaxAPIKeys  = 1 << 18
)

// What a session takes at most with its user and its token of RS256, resident and with what Go needs to look after it, and
// so does an API key; see docs/scale.md. Of what is remembered a fifth are API keys.
const (
	bytesEach      = 1536
	sessionsPerKey = 4
)

// Room is how many sessions and API keys fit into so many bytes: MaxSessions and MaxAPIKeys.
func Room(bytes int64) (sessions, apiKeys int) {
	apiKeys = int(max(1, bytes/(bytesEach*(sessionsPerKey+1))))
	return sessionsPerKey * apiKeys, apiKeys
}

// A Cache is the near cache: what this process remembers of sessions, API keys and their users, so that a warm check
// asks no store. It reads through to the stores, once per key however many ask for it, and believes what it read as
// long as Fresh allows, and for Trust at most. What is in use it reads again before that, in the background and in
// batches (renew), so that no check waits for it. An invalidation also defeats a reading that is under way: what was read
// before it is not kept.
//
// A session is found by its key alone, and only if its user exists, has its epoch and does not list it as ended. Keys that
// the store does not have are remembered a few at a time, for a second; so strangers can neither fill the memory nor hide a
// new session for long. Memory per session is below 560 bytes, its user included, as long as it has no token.
//
// A Cache runs goroutines that write sliding expiries back, read again what is in use and drop what is dead; Close stops
// them. All methods are safe for concurrent use.
type Cache struct {
	store      session.Store
	principals session.Principals
	keys       session.APIKeys
	fresh      func(loaded, now time.Time) bool
	ttl        time.Duration
	trust      time.Duration
	life       time.Duration
	reads      func(what string, keys int, renewal bool)
	record     func(context.Context, *session.Session) error
	ended      func(session.Key)
	now        func() time.Time
	log        *slog.Logger
	base       time.Time // stamp 0
	useEvery   time.Duration
	distrusted atomic.Int64 // stamp: what was read until then is not trusted

	sessions *table[session.Key, sessionState]
	users    *table[string, session.Principal]
	apiKeys  *table[string, keyState]
	texts    interner

	touches chan touch
	renewal renewal
	quit    chan struct{}
	closed  atomic.Bool
	workers sync.WaitGroup
}

type sessionState struct {
	session Session
	user    *node[string, session.Principal] // nil when the user is gone
}

type keyState struct {
	key  session.APIKey
	mac  *MAC
	user *node[string, session.Principal]
}

// New returns a cache that is empty, and starts its goroutines.
func New(o Options) *Cache {
	c := &Cache{
		store: o.Store, principals: o.Principals, keys: o.APIKeys, fresh: o.Fresh, ttl: o.TTL, trust: o.Trust, life: o.Life,
		reads: o.Read, record: o.Record, ended: o.Ended, now: o.Now, log: o.Log,
		touches: make(chan touch, maxTouches), quit: make(chan struct{}),
	}
	if c.ttl <= 0 {
		c.ttl = DefaultTTL
	}
	if c.trust <= 0 {
		c.trust = DefaultTrust
	}
	if c.life <= 0 {
		c.life = DefaultLife
	}
	c.useEvery = min(c.ttl/8, time.Second)
	c.distrusted.Store(math.MinInt64)
	if c.fresh == nil {
		c.fresh = func(loaded, now time.Time) bool { return now.Sub(loaded) < c.ttl }
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.reads == nil {
		c.reads = func(string, int, bool) {}
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if o.MaxSessions <= 0 {
		o.MaxSessions = DefaultMaxSessions
	}
	if o.MaxAPIKeys <= 0 {
		o.MaxAPIKeys = DefaultMaxAPIKeys
	}
	c.base = c.now()
	byText := hashOfText()
	c.sessions = newTable(c, ReadSession, o.MaxSessions, hashOfKey, c.readSession, c.readSessions)
	c.sessions.kept = func(n *node[session.Key, sessionState], st *known[sessionState]) {
		// What was read may be from before a touch that is on its way.
		n.nextTouch.Store(max(n.nextTouch.Load(), c.stamp(st.value.session.SeenAt())+c.touchEvery()))
	}
	c.users = newTable(c, ReadPrincipal, o.MaxSessions+o.MaxAPIKeys, byText, c.readPrincipal, c.readPrincipals)
	c.users.named = func(uid string, st *known[session.Principal]) string {
		if st.value.UID == uid {
			return st.value.UID // one copy, and not a part of the record from which a session was read
		}
		return strings.Clone(uid)
	}
	c.apiKeys = newTable(c, ReadAPIKey, o.MaxAPIKeys, byText, c.readAPIKey, c.readAPIKeys)
	c.startRenewal()
	c.workers.Add(touchers + 1)
	for range touchers {
		go c.touchWorker()
	}
	go c.sweeper()
	return c
}

// Close writes back what waits for it and stops the goroutines. The cache still answers afterwards.
func (c *Cache) Close() {
	if !c.closed.Swap(true) {
		close(c.quit)
		c.renewal.stop()
	}
	c.workers.Wait()
}

func (c *Cache) stamp(t time.Time) stamp { return int64(t.Sub(c.base)) }

// trusts reports whether what was read from loaded on may be believed at now, whose stamp is at.
func (c *Cache) trusts(loaded, at stamp, now time.Time) bool {
	return at-loaded < int64(c.trust) && loaded > c.distrusted.Load() &&
		c.fresh(c.base.Add(time.Duration(loaded)), now)
}

// begin is the stamp of a reading that begins now. It is later than every distrust so far, also where the clock has not
// moved since.
func (c *Cache) begin() stamp { return max(c.stamp(c.now()), c.distrusted.Load()+1) }

// A Found is what the cache knows about a session. What it points to must only be read.
type Found struct {
	Session   *Session
	Principal *session.Principal
	Token     *TokenSlot

	node  *node[session.Key, sessionState]
	known *known[sessionState]
}

// Expect says that Session will be asked for a key: it begins to fetch the memory where it will look first.
func (c *Cache) Expect(key session.Key) { c.sessions.expect(key) }

// ExpectSoon says so again, when what Expect has asked for may have come: it begins to fetch what that points to.
func (c *Cache) ExpectSoon(key session.Key) { c.sessions.expectSoon(key) }

// Session returns the live session of a key and its user. The error is ErrNotFound when there is none, ErrExpired when
// there was one until a moment ago, and any other when it cannot be told now. With ErrExpired, and with ErrNotFound if
// the session's user is gone or has another epoch, Found has the Session alone, for its CSRF token.
func (c *Cache) Session(ctx context.Context, key session.Key, now time.Time) (Found, error) {
	n := c.sessions.get(key)
	if n != nil {
		n.fetchToken()
		if st, p := n.state.Load(), n.user.Load(); st != nil && p != nil {
			prefetch(unsafe.Pointer(st), 2*line)
			prefetch(unsafe.Pointer(p), 2*line)
			at := c.stamp(now)
			s := &st.value.session
			if p.use(at, c.useEvery) && s.Epoch == p.value.Epoch && s.liveAt(now.UnixMilli()) &&
				c.trusts(min(st.loaded.Load(), p.loaded.Load()), at, now) && s.UID == p.value.UID {
				st.use(at, c.useEvery)
				return found(n, st, p), nil
			}
		}
	}
	return c.findSession(ctx, key, n, now)
}

// Key is the key of a session that was found live.
func (f *Found) Key() session.Key { return f.node.key }

func found(n *node[session.Key, sessionState], st *known[sessionState], p *known[session.Principal]) Found {
	n.keepUser(p)
	return Found{Session: &st.value.session, Principal: &p.value, Token: &n.token, node: n, known: st}
}

// epochPause is how long a session whose epoch is not its user's is believed dead before both are read again: a password
// change gives the session that it keeps the new epoch a moment after the user.
const epochPause = 250 * time.Millisecond

// findSession is Session when memory alone does not answer.
func (c *Cache) findSession(ctx context.Context, key session.Key, n *node[session.Key, sessionState], now time.Time) (Found, error) {
	var before *known[sessionState]
	if n != nil {
		before = n.state.Load()
	}
	n, st, value, err := c.sessions.current(ctx, key, n, now)
	if before != nil && errors.Is(err, session.ErrNotFound) && !before.value.session.Live(now) {
		return Found{Session: &before.value.session}, ErrExpired
	}
	for range maxReads {
		if errors.Is(err, errOrphan) {
			c.drop(ctx, key)
			return Found{Session: &value.session}, session.ErrNotFound
		}
		if err != nil {
			return Found{}, err
		}
		s, u := &st.value.session, st.value.user
		justRead := st.loaded.Load() >= c.stamp(now)
		switch {
		case now.UnixMilli() >= s.ends:
			c.sessions.forget(key)
			return Found{Session: s}, ErrExpired
		case !s.Live(now) && !justRead: // another replica may have moved the expiry
			n, st, value, err = c.sessions.fetch(ctx, key, now)
			if errors.Is(err, session.ErrNotFound) {
				return Found{Session: s}, ErrExpired
			}
			continue
		case !s.Live(now):
			return Found{Session: s}, ErrExpired
		case u.state.Load() == nil: // the user was invalidated, and with it what it says about its sessions
			n, st, value, err = c.sessions.fetch(ctx, key, now)
			continue
		}
		u, p, _, userErr := c.users.current(ctx, s.UID, u, now)
		switch {
		case errors.Is(userErr, session.ErrNotFound):
			value, err = sessionState{session: *s}, errOrphan
			continue
		case userErr != nil:
			return Found{}, userErr
		case u != st.value.user:
			n, st, value, err = c.sessions.fetch(ctx, key, now)
			continue
		case p.value.HasEnded(key):
			return Found{Session: s}, session.ErrNotFound
		case s.Epoch == p.value.Epoch:
			return found(n, st, p), nil
		}
		if c.stamp(c.now())-min(st.loaded.Load(), p.loaded.Load()) < int64(epochPause) {
			return Found{Session: s}, session.ErrNotFound
		}
		if _, _, _, userErr = c.users.fetch(ctx, s.UID, now); userErr != nil && !answers(userErr) {
			return Found{}, userErr
		}
		n, st, value, err = c.sessions.fetch(ctx, key, now)
	}
	return Found{}, errRestless
}

// A FoundKey is what the cache knows about an API key. What it points to must only be read.
type FoundKey struct {
	Key       *session.APIKey
	MAC       *MAC
	Principal *session.Principal // the owner; nil when the user is gone
	Token     *TokenSlot
}

// APIKey returns the key of that id, active or not, and its owner. The error is ErrNotFound when there is none, and any
// other when it cannot be told now. kid may be a view of a buffer.
func (c *Cache) APIKey(ctx context.Context, kid string, now time.Time) (FoundKey, error) {
	n := c.apiKeys.get(kid)
	if n != nil {
		n.fetchToken()
		if st, p := n.state.Load(), n.user.Load(); st != nil && p != nil {
			at := c.stamp(now)
			if p.use(at, c.useEvery) && c.trusts(min(st.loaded.Load(), p.loaded.Load()), at, now) && st.value.key.UID == p.value.UID {
				st.use(at, c.useEvery)
				return foundKey(n, st, p), nil
			}
		}
	}
	return c.findAPIKey(ctx, strings.Clone(kid), n, now)
}

func foundKey(n *node[string, keyState], st *known[keyState], p *known[session.Principal]) FoundKey {
	n.keepUser(p)
	return FoundKey{Key: &st.value.key, MAC: st.value.mac, Principal: &p.value, Token: &n.token}
}

func (c *Cache) findAPIKey(ctx context.Context, kid string, n *node[string, keyState], now time.Time) (FoundKey, error) {
	n, st, value, err := c.apiKeys.current(ctx, kid, n, now)
	for range maxReads {
		if errors.Is(err, errOrphan) { // not kept: nobody would say when it is over
			return FoundKey{Key: &value.key, MAC: value.mac, Token: new(TokenSlot)}, nil
		}
		if err != nil {
			return FoundKey{}, err
		}
		if st.value.user.state.Load() != nil {
			u, p, _, userErr := c.users.current(ctx, st.value.key.UID, st.value.user, now)
			switch {
			case errors.Is(userErr, session.ErrNotFound):
				value, err = st.value, errOrphan
				continue
			case userErr != nil:
				return FoundKey{}, userErr
			case u == st.value.user:
				return foundKey(n, st, p), nil
			}
		}
		n, st, value, err = c.apiKeys.fetch(ctx, kid, now)
	}
	return FoundKey{}, errRestless
}

// readSession reads a session and its user, so that no invalidation of the user lies between the two: whatever the
// invalidation was about, the session says what it said after it.
func (c *Cache) readSession(ctx context.Context, key session.Key, now time.Time) (sessionState, error) {
	for try := 1; ; try++ {
		forgets := c.users.forgets.Load()
		read, err := c.store.Get(ctx, key, now)
		if err != nil {
			return sessionState{}, err
		}
		s, ok := compact(read)
		if !ok {
			return sessionState{}, errTooLong
		}
		u, p, _, err := c.users.current(ctx, s.UID, c.users.get(s.UID), now)
		switch {
		case errors.Is(err, session.ErrNotFound):
			return sessionState{session: c.own(s, strings.Clone(s.UID))}, errOrphan
		case err != nil:
			return sessionState{}, err
		case try < maxReads && c.users.forgotSince(s.UID, forgets):
			continue // a notice came while it was read, which may be older than the notice; after maxReads the user's epoch decides
		case p.value.HasEnded(key):
			return sessionState{}, session.ErrNotFound
		}
		return sessionState{session: c.own(s, p.value.UID), user: u}, nil
	}
}

func (c *Cache) readAPIKey(ctx context.Context, kid string, now time.Time) (keyState, error) {
	for try := 1; ; try++ {
		forgets := c.users.forgets.Load()
		read, err := c.keys.APIKey(ctx, kid)
		if err != nil {
			return keyState{}, err
		}
		state := keyStateOf(kid, read, nil)
		k := &state.key
		u, _, _, err := c.users.current(ctx, k.UID, c.users.get(k.UID), now)
		switch {
		case errors.Is(err, session.ErrNotFound):
			return state, errOrphan
		case err != nil:
			return keyState{}, err
		case c.users.forgotSince(k.UID, forgets):
			if try < maxReads {
				continue
			}
			return keyState{}, errRestless // a key has no epoch: switching it off comes with a notice about its owner
		}
		state.user = u
		return state, nil
	}
}

func (c *Cache) readPrincipal(ctx context.Context, uid string, _ time.Time) (session.Principal, error) {
	read, err := c.principals.Principal(ctx, uid)
	if err != nil {
		return session.Principal{}, err
	}
	return c.ownPrincipal(read), nil
}

// own is a session as it is kept: it shares no memory with what a store has read, but with other sessions and its user.
func (c *Cache) own(s Session, uid string) Session {
	s.UID, s.UserAgent = uid, c.texts.of(s.UserAgent)
	return s
}

// ownPrincipal is a principal as it is kept.
func (c *Cache) ownPrincipal(read *session.Principal) session.Principal {
	p := *read
	p.UID, p.Email, p.Ended = strings.Clone(p.UID), strings.Clone(p.Email), strings.Clone(p.Ended)
	p.Role, p.State = c.texts.of(p.Role), c.texts.of(p.State)
	return p
}

// keyStateOf is an API key as it is kept, with the place of its owner.
func keyStateOf(kid string, read *session.APIKey, user *node[string, session.Principal]) keyState {
	k := session.APIKey{KID: kid, UID: strings.Clone(read.UID), Secret: bytes.Clone(read.Secret), Active: read.Active}
	k.PublicKey = bytes.Clone(read.PublicKey)
	return keyState{key: k, mac: NewMAC(k.Secret), user: user}
}

// End ends a session that was found live: it has that recorded, deletes it from the store, forgets it and has the other
// replicas told. It logs what fails.
func (c *Cache) End(ctx context.Context, f Found) {
	if c.record != nil {
		if err := c.record(ctx, &session.Session{Key: f.Key(), UID: f.Session.UID, EndsAt: f.Session.EndsAt()}); err != nil {
			c.log.LogAttrs(ctx, slog.LevelWarn, "the end of a session could not be recorded", slog.Any("error", err))
		}
	}
	c.drop(ctx, f.Key())
}

// drop deletes a session from the store, forgets it and has the other replicas told. When the store does not answer, the
// session is forgotten and stays in the store.
func (c *Cache) drop(ctx context.Context, key session.Key) {
	err := c.store.Delete(ctx, key)
	c.sessions.forget(key)
	if err != nil && !errors.Is(err, session.ErrNotFound) {
		c.log.LogAttrs(ctx, slog.LevelWarn, "a session could not be ended", slog.Any("error", err))
		return
	}
	if c.ended != nil {
		c.ended(key)
	}
}

// ForgetUser forgets a user, and that its sessions and API keys still are what they were: the next check of one of them
// reads both again. It is what bus.UserChanged asks for, after the change is in the stores.
func (c *Cache) ForgetUser(uid string) { c.users.forget(uid) }

// ForgetSession forgets one session (bus.SessionGone).
func (c *Cache) ForgetSession(key session.Key) { c.sessions.forget(key) }

// ForgetKey forgets one API key (bus.KeyChanged), or that there was none.
func (c *Cache) ForgetKey(kid string) { c.apiKeys.forget(kid) }

// ForgetSessions forgets the sessions of everybody (bus.SessionsGone), and with the users the epochs that they must have.
func (c *Cache) ForgetSessions() {
	c.users.forgetAll()
	c.sessions.forgetAll()
}

// ForgetAll trusts nothing that was read so far (bus.Everything). What is in use is read again at once, in batches. Tokens
// stay in their slots: they are handed out again when their session or API key, and its user, are found to be what they were.
func (c *Cache) ForgetAll() {
	for old := c.distrusted.Load(); !c.distrusted.CompareAndSwap(old, max(c.stamp(c.now()), old+1)); {
		old = c.distrusted.Load()
	}
	c.users.distrust()
	c.sessions.distrust()
	c.apiKeys.distrust()
}

// Len returns how many sessions, users and API keys are remembered, for metrics. It takes time by the number of locks,
// not of entries.
func (c *Cache) Len() (sessions, users, apiKeys int) {
	return c.sessions.len(), c.users.len(), c.apiKeys.len()
}

// An interner keeps one copy of texts that many sessions share, such as user agents and roles. It is bounded: a text that
// it has dropped is merely kept twice.
type interner struct {
	mu   sync.Mutex
	seen map[string]string
}

const maxTexts = 1 << 14

func (i *interner) of(s string) string {
	if s == "" {
		return ""
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if kept, ok := i.seen[s]; ok {
		return kept
	}
	if i.seen == nil || len(i.seen) >= maxTexts {
		i.seen = make(map[string]string)
	}
	s = strings.Clone(s)
	i.seen[s] = s
	return s
}
