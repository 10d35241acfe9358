package authz

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"barong/internal/crypto/keys"
	"barong/internal/trusted"
	"barong/policy"
	"barong/session"
	"barong/session/near"
)

// errDown is what a world's stores answer while they are down.
var errDown = errors.New("connection refused")

// A world is everything around an engine: stores in memory that count their calls and can be switched off, and a clock
// that only moves when told to.
type world struct {
	mu         sync.Mutex
	sessions   map[session.Key]session.Session
	principals map[string]session.Principal
	apiKeys    map[string]session.APIKey

	down                         atomic.Bool
	gets, touches, reads, kreads atomic.Int64
	clock                        atomic.Int64 // nanoseconds after epoch

	rules   atomic.Pointer[policy.Snapshot]
	signer  atomic.Pointer[keys.Set]
	signed  atomic.Int64
	cache   *near.Cache
	engine  *Engine
	entries []AuditEntry
	audited error // what Audit answers
	samples []string
}

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func (w *world) now() time.Time          { return epoch.Add(time.Duration(w.clock.Load())) }
func (w *world) advance(d time.Duration) { w.clock.Add(int64(d)) }
func (w *world) calls() int64            { return w.gets.Load() + w.reads.Load() + w.kreads.Load() }

// KeyID and SignPayload make the world a Signer that counts.
func (w *world) KeyID() string { return w.signer.Load().KeyID() }

func (w *world) SignPayload(payload []byte) ([]byte, error) {
	w.signed.Add(1)
	return w.signer.Load().SignPayload(payload)
}

func (w *world) Audit(_ context.Context, e *AuditEntry) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.entries = append(w.entries, *e.Clone())
	return w.audited
}

func (w *world) Sample(role, verb, path string, allowed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.samples = append(w.samples, fmt.Sprint(role, " ", verb, " ", path, " ", allowed))
}

var testKeys = sync.OnceValues(func() (*keys.Set, error) { return keys.New(keys.EdDSA) })

// newWorld returns a world with these rules and an engine made of the options that change leaves.
func newWorld(t testing.TB, src policy.Source, change func(*world, *near.Options, *Options)) *world {
	t.Helper()
	w := &world{
		sessions: map[session.Key]session.Session{}, principals: map[string]session.Principal{},
		apiKeys: map[string]session.APIKey{},
	}
	snapshot, err := policy.Compile(src)
	if err != nil {
		t.Fatal(err)
	}
	w.rules.Store(snapshot)
	set, err := testKeys()
	if err != nil {
		t.Fatal(err)
	}
	w.signer.Store(set)
	proxies, err := trusted.Parse("loopback,10.0.0.0/8")
	if err != nil {
		t.Fatal(err)
	}
	cookies, err := NewCookies(CookieSettings{Name: "_barong_session"})
	if err != nil {
		t.Fatal(err)
	}
	co := near.Options{
		Store: worldStore{w}, Principals: w, APIKeys: w, Now: w.now,
		Fresh: func(time.Time, time.Time) bool { return true },
	}
	o := Options{
		Policy: w.rules.Load, Signer: func() Signer { return w }, Proxies: &proxies, Cookies: cookies, CSRF: true,
		Bind: Binding{UserAgent: true, IP: true}, Auditor: w, Now: w.now,
		Token: TokenSettings{Life: 300 * time.Second, Reuse: 0.5, Issuer: "barong", Audience: []string{"peatio", "barong"}},
	}
	if change != nil {
		change(w, &co, &o)
	}
	w.cache = near.New(co)
	o.Cache = w.cache
	if w.engine, err = New(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.cache.Close)
	t.Cleanup(w.engine.Close)
	return w
}

func (w *world) Principal(_ context.Context, uid string) (*session.Principal, error) {
	w.reads.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down.Load() {
		return nil, errDown
	}
	p, ok := w.principals[uid]
	if !ok {
		return nil, session.ErrNotFound
	}
	return &p, nil
}

func (w *world) APIKey(_ context.Context, kid string) (*session.APIKey, error) {
	w.kreads.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down.Load() {
		return nil, errDown
	}
	k, ok := w.apiKeys[kid]
	if !ok {
		return nil, session.ErrNotFound
	}
	return &k, nil
}

func (w *world) PrincipalsOf(ctx context.Context, uids []string) ([]*session.Principal, error) {
	return each(ctx, uids, w.Principal)
}

func (w *world) APIKeysOf(ctx context.Context, kids []string) ([]*session.APIKey, error) {
	return each(ctx, kids, w.APIKey)
}

// each reads several values, of which those that are not there are nil.
func each[K, V any](ctx context.Context, keys []K, read func(context.Context, K) (*V, error)) ([]*V, error) {
	out := make([]*V, len(keys))
	for i, k := range keys {
		v, err := read(ctx, k)
		if err != nil && !errors.Is(err, session.ErrNotFound) {
			return nil, err
		}
		out[i] = v
	}
	return out, nil
}

// worldStore is the world's session store.
type worldStore struct{ *world }

func (w worldStore) Create(_ context.Context, s *session.Session) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sessions[s.Key] = *s
	return nil
}

func (w worldStore) Get(_ context.Context, key session.Key, now time.Time) (*session.Session, error) {
	w.gets.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down.Load() {
		return nil, errDown
	}
	s, ok := w.sessions[key]
	if !ok || !s.Live(now) {
		return nil, session.ErrNotFound
	}
	return &s, nil
}

func (w worldStore) GetMany(ctx context.Context, keys []session.Key, now time.Time) ([]*session.Session, error) {
	return each(ctx, keys, func(ctx context.Context, key session.Key) (*session.Session, error) { return w.Get(ctx, key, now) })
}

// change changes a stored session, or reports ErrNotFound.
func (w worldStore) change(key session.Key, f func(*session.Session)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down.Load() {
		return errDown
	}
	s, ok := w.sessions[key]
	if !ok {
		return session.ErrNotFound
	}
	f(&s)
	w.sessions[key] = s
	return nil
}

func (w worldStore) Touch(_ context.Context, key session.Key, seenAt, expiresAt time.Time) error {
	w.touches.Add(1)
	return w.change(key, func(s *session.Session) { s.SeenAt, s.ExpiresAt = seenAt, expiresAt })
}

func (w worldStore) Rebase(_ context.Context, key session.Key, epoch int64) error {
	return w.change(key, func(s *session.Session) { s.Epoch = epoch })
}

func (w worldStore) Delete(_ context.Context, key session.Key) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down.Load() {
		return errDown
	}
	if _, ok := w.sessions[key]; !ok {
		return session.ErrNotFound
	}
	delete(w.sessions, key)
	return nil
}

func (w worldStore) List(_ context.Context, uid string, now time.Time) ([]*session.Session, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []*session.Session
	for _, s := range w.sessions {
		if s.UID == uid && s.Live(now) {
			list = append(list, &s)
		}
	}
	return list, nil
}

func (w worldStore) DeleteUser(_ context.Context, uid string, keep *session.Key) ([]session.Key, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var ended []session.Key
	for k, s := range w.sessions {
		if s.UID == uid && (keep == nil || k != *keep) {
			ended = append(ended, k)
			delete(w.sessions, k)
		}
	}
	return ended, nil
}

func (w worldStore) Trim(ctx context.Context, uid string, epoch int64, keep int, now time.Time) (ended []session.Key, err error) {
	all, err := w.List(ctx, uid, now)
	for _, s := range all {
		if s.Epoch != epoch {
			continue
		}
		if keep--; keep < 0 {
			ended = append(ended, s.Key)
			err = errors.Join(err, w.Delete(ctx, s.Key))
		}
	}
	return ended, err
}

func (w worldStore) DeleteAll(context.Context) (int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.sessions)
	clear(w.sessions)
	return int64(n), nil
}

func (w worldStore) Purge(_ context.Context, now time.Time, limit int) (int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	dead := slices.Collect(maps.Keys(w.sessions))
	dead = slices.DeleteFunc(dead, func(k session.Key) bool { s := w.sessions[k]; return s.Live(now) })
	dead = dead[:min(limit, len(dead))]
	for _, k := range dead {
		delete(w.sessions, k)
	}
	return int64(len(dead)), nil
}

func (w worldStore) Ping(context.Context) error {
	if w.down.Load() {
		return errDown
	}
	return nil
}

func foundKey(k *session.APIKey) near.FoundKey {
	return near.FoundKey{Key: k, MAC: near.NewMAC(k.Secret)}
}
