package near

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"barong/session"
)

var errDown = errors.New("connection refused")

const agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"

// A backend is the truth behind a cache: stores in memory that count their calls, can be switched off, and can be made
// to wait between reading and answering.
type backend struct {
	session.Store // panics on what no cache calls

	mu       sync.Mutex
	sessions map[session.Key]session.Session
	users    map[string]session.Principal
	keys     map[string]session.APIKey

	gets, touches, reads, kreads, batches atomic.Int64

	down      atomic.Bool
	explode   atomic.Bool
	trusted   atomic.Bool  // the bus is heard: what Fresh answers
	heard     atomic.Int64 // otherwise: when it was heard last, on the clock
	clock     atomic.Int64 // nanoseconds
	afterRead atomic.Pointer[func(kind string)]
	ended     []session.Key
}

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func (b *backend) now() time.Time          { return epoch.Add(time.Duration(b.clock.Load())) }
func (b *backend) advance(d time.Duration) { b.clock.Add(int64(d)) }

func (b *backend) answer(kind string) error {
	if f := b.afterRead.Load(); f != nil {
		(*f)(kind)
	}
	if b.explode.Load() {
		panic("store")
	}
	if b.down.Load() {
		return errDown
	}
	return nil
}

// onRead calls f each time a store was read and has not answered yet.
func (b *backend) onRead(f func(kind string)) {
	if f == nil {
		b.afterRead.Store(nil)
		return
	}
	b.afterRead.Store(&f)
}

func lookUp[K comparable, V any](b *backend, m map[K]V, k K) (*V, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	v, ok := m[k]
	if !ok {
		return nil, session.ErrNotFound
	}
	return &v, nil
}

func (b *backend) Get(_ context.Context, key session.Key, now time.Time) (*session.Session, error) {
	b.gets.Add(1)
	s, err := lookUp(b, b.sessions, key)
	if err == nil && !s.Live(now) {
		s, err = nil, session.ErrNotFound
	}
	if failed := b.answer("session"); failed != nil {
		return nil, failed
	}
	return s, err
}

func (b *backend) Principal(_ context.Context, uid string) (*session.Principal, error) {
	b.reads.Add(1)
	p, err := lookUp(b, b.users, uid)
	if failed := b.answer("principal"); failed != nil {
		return nil, failed
	}
	return p, err
}

func (b *backend) APIKey(_ context.Context, kid string) (*session.APIKey, error) {
	b.kreads.Add(1)
	k, err := lookUp(b, b.keys, kid)
	if failed := b.answer("key"); failed != nil {
		return nil, failed
	}
	return k, err
}

func (b *backend) GetMany(_ context.Context, keys []session.Key, now time.Time) ([]*session.Session, error) {
	return many(b, &b.batches, "sessions", keys, func(k session.Key) (*session.Session, error) {
		s, err := lookUp(b, b.sessions, k)
		if err == nil && !s.Live(now) {
			s = nil
		}
		return s, err
	})
}

func (b *backend) PrincipalsOf(_ context.Context, uids []string) ([]*session.Principal, error) {
	return many(b, &b.batches, "principals", uids, func(uid string) (*session.Principal, error) { return lookUp(b, b.users, uid) })
}

func (b *backend) APIKeysOf(_ context.Context, kids []string) ([]*session.APIKey, error) {
	return many(b, &b.batches, "keys", kids, func(kid string) (*session.APIKey, error) { return lookUp(b, b.keys, kid) })
}

// many reads several values at once.
func many[K comparable, V any](b *backend, calls *atomic.Int64, kind string, keys []K, one func(K) (*V, error)) ([]*V, error) {
	calls.Add(1)
	out := make([]*V, len(keys))
	for i, k := range keys {
		if v, err := one(k); err == nil {
			out[i] = v
		}
	}
	return out, b.answer(kind)
}

func (b *backend) Touch(_ context.Context, key session.Key, seenAt, expiresAt time.Time) error {
	b.touches.Add(1)
	if failed := b.answer("touch"); failed != nil {
		return failed
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s, ok := b.sessions[key]
	if !ok {
		return session.ErrNotFound
	}
	s.SeenAt, s.ExpiresAt = seenAt, expiresAt
	b.sessions[key] = s
	return nil
}

func (b *backend) Delete(_ context.Context, key session.Key) error {
	if b.down.Load() {
		return errDown
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.sessions[key]; !ok {
		return session.ErrNotFound
	}
	delete(b.sessions, key)
	return nil
}

func (b *backend) setUser(uid string, change func(*session.Principal)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.users[uid]
	change(&p)
	b.users[uid] = p
}

func (b *backend) setSession(key session.Key, change func(*session.Session)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.sessions[key]
	change(&s)
	b.sessions[key] = s
}

func keyOf(i int) session.Key {
	var seed [8]byte
	binary.BigEndian.PutUint64(seed[:], uint64(i))
	return sha256.Sum256(seed[:])
}

func csrfOf(i int) string { return fmt.Sprintf("%020x", i) }

// open adds user i with session i.
func (b *backend) open(i int) session.Key {
	uid, key := fmt.Sprintf("ID%010X", i), keyOf(i)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.users[uid] = session.Principal{
		UserID: int64(i) + 1, UID: uid, Email: fmt.Sprintf("user%d@example.com", i), Role: "member", State: "active", OTP: true,
	}
	b.sessions[key] = session.Session{
		Key: key, UID: uid, CSRF: csrfOf(i), IP: netip.MustParseAddr("203.0.113.7"),
		UserAgent: strings.Clone(agent), Country: "NL",
		CreatedAt: b.now(), SeenAt: b.now(), ExpiresAt: b.now().Add(30 * time.Minute), EndsAt: b.now().Add(24 * time.Hour),
	}
	return key
}

func newBackend() *backend {
	b := &backend{sessions: map[session.Key]session.Session{}, users: map[string]session.Principal{}, keys: map[string]session.APIKey{}}
	b.trusted.Store(true)
	return b
}

func (b *backend) cache(t testing.TB, change func(*Options)) *Cache {
	o := Options{
		Store: b, Principals: b, APIKeys: b, Now: b.now, TTL: 5 * time.Second, Trust: 10_000 * time.Hour,
		Fresh: func(loaded, now time.Time) bool {
			since := max(b.heard.Load(), int64(loaded.Sub(epoch)))
			return b.trusted.Load() || now.Sub(epoch)-time.Duration(since) < 5*time.Second
		},
		Ended: func(k session.Key) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.ended = append(b.ended, k)
		},
	}
	if change != nil {
		change(&o)
	}
	c := New(o)
	t.Cleanup(c.Close)
	return c
}

// want looks a session up and checks the error.
func (b *backend) want(t *testing.T, c *Cache, key session.Key, want error) Found {
	t.Helper()
	f, err := c.Session(t.Context(), key, b.now())
	if !errors.Is(err, want) || want == nil && (f.Session == nil || f.Principal == nil || f.Token == nil) {
		t.Fatalf("Session = %+v, %v; want error %v", f, err, want)
	}
	return f
}

func TestWarmSessionAsksNoStore(t *testing.T) {
	b := newBackend()
	key := b.open(1)
	c := b.cache(t, nil)
	for range 100 {
		f := b.want(t, c, key, nil)
		if f.Session.UID != "ID0000000001" || f.Principal.UID != f.Session.UID || f.Key() != key {
			t.Fatalf("found %+v, %+v", f.Session, f.Principal)
		}
		b.advance(time.Second)
	}
	if b.gets.Load() != 1 || b.reads.Load() != 1 {
		t.Errorf("%d readings of the session and %d of the user, want 1 and 1", b.gets.Load(), b.reads.Load())
	}
}

func TestConcurrentLookUpsShareOneReading(t *testing.T) {
	b := newBackend()
	key := b.open(1)
	c := b.cache(t, nil)
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		b.onRead(func(string) { <-gate })
		var group sync.WaitGroup
		for range 50 {
			group.Go(func() { b.want(t, c, key, nil) })
		}
		synctest.Wait() // all wait for one reading
		close(gate)
		group.Wait()
	})
	if b.gets.Load() != 1 || b.reads.Load() != 1 {
		t.Errorf("%d readings of the session and %d of the user, want 1 and 1", b.gets.Load(), b.reads.Load())
	}
}

// Each kind of invalidation is thrown between a reading and its answer: what was read must not be seen.
func TestInvalidationDefeatsReadingUnderWay(t *testing.T) {
	for name, tc := range map[string]struct {
		during string // the reading that is under way
		change func(b *backend, c *Cache, key session.Key)
		want   error
	}{
		"logout": {"session", func(b *backend, c *Cache, key session.Key) {
			_ = b.Delete(context.Background(), key)
			c.ForgetSession(key)
		}, session.ErrNotFound},
		"logout of everybody": {"session", func(b *backend, c *Cache, key session.Key) {
			_ = b.Delete(context.Background(), key)
			c.ForgetSessions()
		}, session.ErrNotFound},
		"everything": {"session", func(b *backend, c *Cache, key session.Key) {
			_ = b.Delete(context.Background(), key)
			c.ForgetAll()
		}, session.ErrNotFound},
		"role change": {"principal", func(b *backend, c *Cache, _ session.Key) {
			b.setUser("ID0000000001", func(p *session.Principal) { p.Role = "new" })
			c.ForgetUser("ID0000000001")
		}, nil},
		"role change while the session is read": {"session", func(b *backend, c *Cache, _ session.Key) {
			b.setUser("ID0000000001", func(p *session.Principal) { p.Role = "new" })
			c.ForgetUser("ID0000000001")
		}, nil},
		"password change that keeps the session": {"session", func(b *backend, c *Cache, key session.Key) {
			b.setUser("ID0000000001", func(p *session.Principal) { p.Epoch, p.Role = 2, "new" })
			b.setSession(key, func(s *session.Session) { s.Epoch = 2 })
			c.ForgetUser("ID0000000001")
		}, nil},
		"password change that ends the session": {"principal", func(b *backend, c *Cache, _ session.Key) {
			b.setUser("ID0000000001", func(p *session.Principal) { p.Epoch = 2 })
			c.ForgetUser("ID0000000001")
		}, session.ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBackend()
			key := b.open(1)
			c := b.cache(t, nil)
			var once sync.Once
			b.onRead(func(kind string) {
				if kind == tc.during {
					once.Do(func() { tc.change(b, c, key) })
				}
			})
			for range 2 {
				f := b.want(t, c, key, tc.want)
				if tc.want == nil && f.Principal.Role != "new" {
					t.Errorf("role %q, want the new one", f.Principal.Role)
				}
			}
		})
	}
}

func TestKeyInvalidationDefeatsReadingUnderWay(t *testing.T) {
	b := newBackend()
	b.open(1)
	b.keys["kid"] = session.APIKey{KID: "kid", UID: "ID0000000001", Secret: []byte("s"), Active: true}
	c := b.cache(t, nil)
	var once sync.Once
	b.onRead(func(kind string) {
		if kind == "key" {
			once.Do(func() {
				b.mu.Lock()
				b.keys["kid"] = session.APIKey{KID: "kid", UID: "ID0000000001", Secret: []byte("s")}
				b.mu.Unlock()
				c.ForgetKey("kid")
			})
		}
	})
	for range 2 {
		f, err := c.APIKey(t.Context(), "kid", b.now())
		if err != nil || f.Key.Active || f.Principal == nil {
			t.Fatalf("APIKey = %+v, %v; want the inactive key", f.Key, err)
		}
	}
	if n := b.kreads.Load(); n != 2 {
		t.Errorf("%d readings, want 2", n)
	}
}

// A key that is switched off with its owner, without a notice of its own, is read again after the owner's.
func TestUserNoticeReachesKeys(t *testing.T) {
	b := newBackend()
	b.open(1)
	b.keys["kid"] = session.APIKey{KID: "kid", UID: "ID0000000001", Secret: []byte("s"), Active: true}
	c := b.cache(t, nil)
	if f, err := c.APIKey(t.Context(), "kid", b.now()); err != nil || !f.Key.Active {
		t.Fatal(f, err)
	}
	b.keys["kid"] = session.APIKey{KID: "kid", UID: "ID0000000001", Secret: []byte("s")}
	c.ForgetUser("ID0000000001")
	if f, err := c.APIKey(t.Context(), "kid", b.now()); err != nil || f.Key.Active {
		t.Fatal(f, err)
	}
	delete(b.users, "ID0000000001")
	c.ForgetUser("ID0000000001")
	if f, err := c.APIKey(t.Context(), "kid", b.now()); err != nil || f.Principal != nil || f.MAC == nil {
		t.Fatalf("APIKey of a user who is gone = %+v, %v; want a key without principal", f, err)
	}
}

// While the stores and the bus are down, what was true when the bus was heard last goes on for the TTL, however often it
// is used, and then the answer is neither yes nor no.
func TestOutage(t *testing.T) {
	b := newBackend()
	key := b.open(1)
	b.keys["kid"] = session.APIKey{KID: "kid", UID: "ID0000000001", Secret: []byte("s"), Active: true}
	c := b.cache(t, nil)
	look := func() []error {
		_, err1 := c.Session(t.Context(), key, b.now())
		_, err2 := c.APIKey(t.Context(), "kid", b.now())
		return []error{err1, err2}
	}
	look()
	b.advance(10 * time.Minute)
	look() // confirmed by the bus alone
	b.heard.Store(b.clock.Load())
	b.trusted.Store(false)
	b.down.Store(true)
	for at := time.Duration(0); at < 20*time.Second; at += 500 * time.Millisecond {
		for i, err := range look() {
			switch {
			case at < 5*time.Second && err != nil:
				t.Errorf("%v after the outage began, credential %d: %v", at, i, err)
			case at >= 5*time.Second && !errors.Is(err, errDown):
				t.Errorf("%v after the outage began, credential %d: error %v, want the store's", at, i, err)
			}
		}
		b.advance(500 * time.Millisecond)
	}
	if _, err := c.Session(t.Context(), keyOf(2), b.now()); !errors.Is(err, errDown) {
		t.Errorf("unknown session in an outage: %v, want the store's error", err)
	}
	b.down.Store(false)
	for i, err := range look() {
		if err != nil {
			t.Errorf("after the outage, credential %d: %v", i, err)
		}
	}
}

// What was invalidated has no grace.
func TestOutageGivesNoGraceToWhatWasForgotten(t *testing.T) {
	b := newBackend()
	key := b.open(1)
	c := b.cache(t, nil)
	for name, forget := range map[string]func(){
		"user": func() { c.ForgetUser("ID0000000001") }, "session": func() { c.ForgetSession(key) },
		"sessions": c.ForgetSessions, "all": c.ForgetAll,
	} {
		b.down.Store(false)
		b.want(t, c, key, nil)
		b.down.Store(true)
		forget()
		if _, err := c.Session(t.Context(), key, b.now()); !errors.Is(err, errDown) {
			t.Errorf("forget %s: %v, want the store's error", name, err)
		}
	}
}

// An expiry in memory says nothing when another replica may have moved it.
func TestExpiry(t *testing.T) {
	b := newBackend()
	key := b.open(1)
	c := b.cache(t, nil)
	b.want(t, c, key, nil)
	b.advance(29 * time.Minute)
	b.setSession(key, func(s *session.Session) { s.ExpiresAt = b.now().Add(30 * time.Minute) })
	b.advance(2 * time.Minute)
	b.want(t, c, key, nil)

	b.advance(time.Hour)
	b.down.Store(true)
	if _, err := c.Session(t.Context(), key, b.now()); !errors.Is(err, errDown) {
		t.Errorf("expired in memory while the store is down: %v, want the store's error", err)
	}
	b.down.Store(false)
	if f := b.want(t, c, key, ErrExpired); f.Session == nil || string(f.Session.CSRF()) != csrfOf(1) {
		t.Error("an expired session comes without its record")
	}
	b.want(t, c, key, session.ErrNotFound)
}

func TestAbsoluteEndNeedsNoStore(t *testing.T) {
	b := newBackend()
	key := b.open(1)
	b.setSession(key, func(s *session.Session) { s.ExpiresAt = s.EndsAt })
	c := b.cache(t, nil)
	b.advance(24*time.Hour - time.Millisecond)
	b.want(t, c, key, nil)
	b.advance(time.Millisecond)
	b.down.Store(true)
	b.want(t, c, key, ErrExpired)
}

func TestEpoch(t *testing.T) {
	b := newBackend()
	key := b.open(1)
	c := b.cache(t, nil)
	b.want(t, c, key, nil)
	b.setUser("ID0000000001", func(p *session.Principal) { p.Epoch = 1 })
	c.ForgetUser("ID0000000001")
	if f := b.want(t, c, key, session.ErrNotFound); f.Session == nil {
		t.Error("a session of another epoch comes without its record")
	}
	before := b.gets.Load()
	for range 100 {
		b.want(t, c, key, session.ErrNotFound)
	}
	if n := b.gets.Load() - before; n > 1 {
		t.Errorf("100 look-ups of a dead session read the store %d times", n)
	}
	if len(b.sessions) != 1 || len(b.ended) != 0 {
		t.Error("a session of another epoch was ended in the store, where it may be about to get the new one")
	}
	b.setSession(key, func(s *session.Session) { s.Epoch = 1 }) // Rebase, a moment later and without a notice
	b.advance(time.Second)
	b.want(t, c, key, nil)
}

func TestSessionOfNobodyIsEnded(t *testing.T) {
	b := newBackend()
	key := b.open(1)
	c := b.cache(t, nil)
	b.want(t, c, key, nil)
	delete(b.users, "ID0000000001")
	c.ForgetUser("ID0000000001")
	if f := b.want(t, c, key, session.ErrNotFound); f.Session == nil {
		t.Error("a session without user comes without its record")
	}
	if len(b.sessions) != 0 || len(b.ended) != 1 || b.ended[0] != key {
		t.Errorf("%d sessions left, ended %v; want it ended and told", len(b.sessions), b.ended)
	}
}

// touched waits until the store has seen n touches and the cache has taken them in.
func (b *backend) touched(t *testing.T, c *Cache, key session.Key, n int64, expires time.Time) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		node := c.sessions.get(key)
		if b.touches.Load() == n && node != nil && node.state.Load().value.session.ExpiresAt().Equal(expires) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d touches, want %d and the expiry %v", b.touches.Load(), n, expires)
		}
	}
}

func TestSlide(t *testing.T) {
	b := newBackend()
	key := b.open(1)
	c := b.cache(t, nil)
	var touches int64
	for second := range 600 {
		f := b.want(t, c, key, nil)
		if c.Slide(f, b.now()) {
			touches++
			b.touched(t, c, key, touches, b.now().Add(30*time.Minute))
			if second == 0 {
				t.Error("written back right after the sign-in")
			}
		}
		b.advance(time.Second)
	}
	if touches != 6 { // 600 s, a 1/20 of 30 minutes is 90 s
		t.Errorf("written back %d times in 10 minutes, want 6", touches)
	}
	b.setSession(key, func(s *session.Session) { s.EndsAt = b.now().Add(time.Minute) })
	c.ForgetSession(key)
	b.advance(30 * time.Second)
	f := b.want(t, c, key, nil)
	b.advance(29 * time.Second)
	if b.clock.Load() >= int64(90*time.Second) && c.Slide(f, f.Session.SeenAt().Add(90*time.Second)) {
		b.touched(t, c, key, touches+1, f.Session.EndsAt())
	} else {
		t.Error("not due after a 1/20 of the life")
	}
}

// A check that holds a session while it is ended elsewhere must not bring it back.
func TestSlideNeverRevives(t *testing.T) {
	b := newBackend()
	key := b.open(1)
	c := b.cache(t, nil)
	f := b.want(t, c, key, nil)
	b.advance(2 * time.Minute)
	held := make(chan struct{})
	b.onRead(func(kind string) {
		if kind == "touch" {
			<-held
		}
	})
	if !c.Slide(f, b.now()) {
		t.Fatal("not due")
	}
	_ = b.Delete(t.Context(), key)
	c.ForgetSession(key)
	close(held)
	c.Close() // waits for the touch
	b.want(t, c, key, session.ErrNotFound)
	if len(b.sessions) != 0 || c.sessions.len() != 0 {
		t.Error("the session is back")
	}
}

// The store says that the session is gone, though no notice came.
func TestSlideOfAGoneSessionForgetsIt(t *testing.T) {
	b := newBackend()
	key := b.open(1)
	c := b.cache(t, nil)
	f := b.want(t, c, key, nil)
	_ = b.Delete(t.Context(), key)
	b.want(t, c, key, nil) // nobody told
	b.advance(2 * time.Minute)
	c.Slide(f, b.now())
	c.Close()
	b.want(t, c, key, session.ErrNotFound)
	if c.Slide(f, b.now().Add(time.Hour)) {
		t.Error("a closed cache took a touch")
	}
}

func TestFailedSlideIsTriedAgain(t *testing.T) {
	b := newBackend()
	key := b.open(1)
	c := b.cache(t, nil)
	b.want(t, c, key, nil)
	b.down.Store(true)
	b.advance(2 * time.Minute)
	for n := int64(1); n <= 3; n++ {
		if !c.Slide(b.want(t, c, key, nil), b.now()) {
			t.Fatal("not due")
		}
		b.touchedInVain(t, c, key, n)
		if c.Slide(b.want(t, c, key, nil), b.now()) {
			t.Fatal("tried again at once")
		}
		b.advance(2 * time.Second)
	}
}

func (b *backend) touchedInVain(t *testing.T, c *Cache, key session.Key, n int64) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if b.touches.Load() == n && c.sessions.get(key).nextTouch.Load() == c.stamp(b.now())+int64(touchPause) {
			return
		}
	}
	t.Fatalf("%d touches, want %d", b.touches.Load(), n)
}

func TestUnknownKeysFillNoMemory(t *testing.T) {
	b := newBackend()
	c := b.cache(t, nil)
	for range 100 {
		b.want(t, c, keyOf(1), session.ErrNotFound)
		if _, err := c.APIKey(t.Context(), "nobody", b.now()); !errors.Is(err, session.ErrNotFound) {
			t.Fatal(err)
		}
	}
	if b.gets.Load() != 1 || b.kreads.Load() != 1 {
		t.Errorf("%d and %d readings of what is not there, want 1 and 1", b.gets.Load(), b.kreads.Load())
	}
	for i := range 20_000 {
		b.want(t, c, keyOf(i), session.ErrNotFound)
		if _, err := c.APIKey(t.Context(), fmt.Sprint("k", i), b.now()); !errors.Is(err, session.ErrNotFound) {
			t.Fatal(err)
		}
	}
	if s, u, k := c.Len(); s+u+k != 0 {
		t.Errorf("%d sessions, %d users, %d keys remembered", s, u, k)
	}
	key := b.open(1)
	c.ForgetSession(key)
	b.want(t, c, key, nil)
	b.keys["k1"] = session.APIKey{KID: "k1", UID: "ID0000000001", Secret: []byte("s")}
	b.advance(absenceLife)
	if _, err := c.APIKey(t.Context(), "k1", b.now()); err != nil {
		t.Errorf("a key made after it was asked for: %v", err)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	b := newBackend()
	c := b.cache(t, func(o *Options) { o.MaxSessions, o.MaxAPIKeys = 2*parts, parts })
	for i := range 10 * parts {
		b.want(t, c, b.open(i), nil)
		b.advance(time.Millisecond)
	}
	sessions, users, _ := c.Len()
	if sessions > 2*parts || users > 3*parts || sessions < parts {
		t.Errorf("%d sessions and %d users remembered, want at most %d and %d", sessions, users, 2*parts, 3*parts)
	}
	for i := range 10 * parts {
		b.want(t, c, keyOf(i), nil)
	}
}

// A session whose user was evicted is not judged by what the user was.
func TestEvictedUserIsReadAgain(t *testing.T) {
	b := newBackend()
	key := b.open(1)
	c := b.cache(t, nil)
	b.want(t, c, key, nil)
	p := c.users.part(c.users.hash("ID0000000001"))
	p.mu.Lock()
	p.nodes.evict(0)
	p.mu.Unlock()
	b.setUser("ID0000000001", func(p *session.Principal) { p.State = "banned" })
	c.ForgetUser("ID0000000001")
	if f := b.want(t, c, key, nil); f.Principal.State != "banned" {
		t.Errorf("state %q, want banned", f.Principal.State)
	}
}

// One check's time is up while it reads for another one too.
func TestWaiterOutlivesTheReader(t *testing.T) {
	b := newBackend()
	key := b.open(1)
	synctest.Test(t, func(t *testing.T) {
		c := b.cache(t, func(o *Options) { o.Store = &hangingStore{backend: b} })
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		group.Go(func() {
			if _, err := c.Session(ctx, key, b.now()); !errors.Is(err, context.Canceled) {
				t.Errorf("the reader: %v, want canceled", err)
			}
		})
		synctest.Wait()
		group.Go(func() { b.want(t, c, key, nil) })
		group.Go(func() {
			if _, err := c.Session(ctx, key, b.now()); !errors.Is(err, context.Canceled) {
				t.Errorf("a waiter whose time is up: %v, want canceled", err)
			}
		})
		synctest.Wait()
		cancel()
		group.Wait()
	})
}

// A hangingStore answers its first question only when the asker gives up.
type hangingStore struct {
	*backend
	asked atomic.Bool
}

func (s *hangingStore) Get(ctx context.Context, key session.Key, now time.Time) (*session.Session, error) {
	if !s.asked.Swap(true) {
		<-ctx.Done()
		return nil, fmt.Errorf("get: %w", ctx.Err())
	}
	return s.backend.Get(ctx, key, now)
}

func TestStorePanicLeavesNobodyWaiting(t *testing.T) {
	b := newBackend()
	key := b.open(1)
	c := b.cache(t, nil)
	b.explode.Store(true)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_, _ = c.Session(t.Context(), key, b.now())
	}()
	b.explode.Store(false)
	b.want(t, c, key, nil)
}

func TestSweep(t *testing.T) {
	b := newBackend()
	dead, live := b.open(1), b.open(2)
	c := b.cache(t, nil)
	b.want(t, c, dead, nil)
	f := b.want(t, c, live, nil)
	f.Token.Store(&Token{Expires: b.now().Add(time.Minute).UnixNano()})
	b.advance(29 * time.Minute)
	b.setSession(live, func(s *session.Session) { s.ExpiresAt = b.now().Add(90 * time.Minute) })
	c.ForgetSession(live)
	f = b.want(t, c, live, nil)
	f.Token.Store(&Token{Expires: b.now().Add(time.Minute).UnixNano()})
	b.advance(2 * time.Minute)
	c.sweep(b.now())
	if s, _, _ := c.Len(); s != 1 || c.sessions.get(live) == nil {
		t.Errorf("%d sessions left, want the live one", s)
	}
	if f.Token.Load() != nil {
		t.Error("a token that will not be handed out again is still there")
	}
	b.advance(2 * userIdle)
	c.sweep(b.now())
	if s, u, _ := c.Len(); s+u != 0 {
		t.Errorf("%d sessions and %d users left", s, u)
	}
}

func TestSweeperAndDefaultClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend()
		key := b.open(1)
		now := time.Now()
		b.setSession(key, func(s *session.Session) {
			s.SeenAt, s.ExpiresAt, s.EndsAt = now, now.Add(DefaultLife), now.Add(24*time.Hour)
		})
		c := New(Options{Store: b, Principals: b, APIKeys: b})
		defer c.Close()
		for range 10 {
			if _, err := c.Session(t.Context(), key, time.Now()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(DefaultTTL / 5) // without Fresh, memory is trusted for the TTL alone
		}
		if n, m := b.gets.Load(), b.batches.Load(); n != 1 || m == 0 {
			t.Errorf("%d readings for checks and %d in the background in two TTLs, want 1 and some", n, m)
		}
		time.Sleep(DefaultLife + 2*sweepEvery)
		synctest.Wait()
		if s, _, _ := c.Len(); s != 0 {
			t.Error("an expired session is still in memory")
		}
	})
}

// TestInvalidationIsFelt races checks with changes: once ForgetUser has returned, no check says what was before.
func TestInvalidationIsFelt(t *testing.T) {
	b := newBackend()
	var sessions []session.Key
	for i := range 4 {
		sessions = append(sessions, b.open(i))
	}
	c := b.cache(t, nil)
	var (
		felt [4]atomic.Int64 // the level that every check must see at least
		stop atomic.Bool
		work sync.WaitGroup
	)
	for range 4 {
		work.Go(func() {
			for i := 0; !stop.Load(); i = (i + 1) % 4 {
				want := felt[i].Load()
				f, err := c.Session(context.Background(), sessions[i], b.now())
				if errors.Is(err, errRestless) {
					continue
				}
				if err != nil || int64(f.Principal.Level) < want {
					t.Errorf("level %v, error %v; want at least %d", f.Principal, err, want)
					return
				}
			}
		})
	}
	for change := int64(1); change <= 1500; change++ {
		i := change % 4
		b.setUser(fmt.Sprintf("ID%010X", i), func(p *session.Principal) { p.Level = int32(change) })
		c.ForgetUser(fmt.Sprintf("ID%010X", i))
		felt[i].Store(change)
		if change%10 == 0 {
			c.ForgetSession(sessions[i])
		}
		if change%100 == 0 {
			c.ForgetAll()
		}
	}
	stop.Store(true)
	work.Wait()
}

// bytesPerSession opens n sessions of n users and measures what the cache keeps of each.
func bytesPerSession(t testing.TB, n int) float64 {
	b := newBackend()
	c := b.cache(t, nil)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range n {
		if _, err := c.Session(context.Background(), b.open(i), b.now()); err != nil {
			t.Fatal(err)
		}
		clear(b.sessions)
		clear(b.users)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if s, u, _ := c.Len(); s < n*99/100 || u < n*99/100 {
		t.Fatalf("%d sessions and %d users remembered of %d", s, u, n)
	}
	runtime.KeepAlive(c)
	return float64(after.HeapAlloc-before.HeapAlloc) / float64(n)
}

func TestMemoryPerSession(t *testing.T) {
	if got := bytesPerSession(t, 100_000); got > 560 {
		t.Errorf("%.0f bytes per session and user, want at most 560", got)
	}
}

func BenchmarkMemoryOfAMillionSessions(b *testing.B) {
	for b.Loop() {
		b.ReportMetric(bytesPerSession(b, 1_000_000), "bytes/session")
	}
}

func BenchmarkSession(b *testing.B) {
	back := newBackend()
	key := back.open(1)
	c := back.cache(b, nil)
	ctx, now := context.Background(), back.now()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := c.Session(ctx, key, now); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// What an empty secret signs, anybody signs.
func TestMACOfNoSecret(t *testing.T) {
	h := hmac.New(sha256.New, nil)
	h.Write([]byte("ab"))
	sum := [sha256.Size]byte(h.Sum(nil))
	if NewMAC(nil).Verify([]byte("a"), []byte("b"), &sum) {
		t.Error("the signature is accepted")
	}
}

func TestMACIsHMAC(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		secret := rapid.SliceOfN(rapid.Byte(), 1, 150).Draw(t, "secret")
		first := rapid.SliceOfN(rapid.Byte(), 0, 150).Draw(t, "first")
		second := rapid.SliceOfN(rapid.Byte(), 0, 150).Draw(t, "second")
		h := hmac.New(sha256.New, secret)
		h.Write(first)
		h.Write(second)
		sum := [sha256.Size]byte(h.Sum(nil))
		mac := NewMAC(secret)
		if !mac.Verify(first, second, &sum) {
			t.Fatal("a good signature is refused")
		}
		sum[rapid.IntRange(0, sha256.Size-1).Draw(t, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if mac.Verify(first, second, &sum) {
			t.Fatal("a bad signature is accepted")
		}
	})
}

func TestInternerIsBounded(t *testing.T) {
	var i interner
	for n := range 3 * maxTexts {
		i.of(fmt.Sprint("agent ", n))
	}
	if len(i.seen) > maxTexts {
		t.Errorf("%d texts kept, want at most %d", len(i.seen), maxTexts)
	}
}
