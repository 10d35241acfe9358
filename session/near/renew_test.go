package near

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"barong/internal/test/testkit"

	"barong/session"
)

// inUse is a cache on the running clock whose bus is always heard, with n people who sign in with a session and a key.
func inUse(t *testing.T, b *backend, n int, change func(*Options)) (*Cache, []session.Key) {
	b.clock.Store(int64(time.Since(epoch)))
	o := Options{Store: b, Principals: b, APIKeys: b, Fresh: func(time.Time, time.Time) bool { return true }, Life: 24 * time.Hour}
	if change != nil {
		change(&o)
	}
	c := New(o)
	t.Cleanup(c.Close)
	var keys []session.Key
	for i := range n {
		key := b.open(i)
		b.setSession(key, func(s *session.Session) { s.ExpiresAt = s.EndsAt })
		b.mu.Lock()
		b.keys[kidOf(i)] = session.APIKey{KID: kidOf(i), UID: uidOf(i), Secret: []byte("secret"), Active: true}
		b.mu.Unlock()
		keys = append(keys, key)
	}
	return c, keys
}

func uidOf(i int) string { return fmt.Sprintf("ID%010X", i) }
func kidOf(i int) string { return fmt.Sprintf("kid%d", i) }

// ask checks with the session and the key of person i.
func ask(c *Cache, keys []session.Key, i int) (Found, error, FoundKey, error) {
	f, err := c.Session(context.Background(), keys[i], time.Now())
	k, kerr := c.APIKey(context.Background(), kidOf(i), time.Now())
	return f, err, k, kerr
}

// Whatever the bus says, a row that was edited by hand is felt within the trust, and no check of what is in use waits for a
// store, before it or after.
func TestEditsByHandAreFelt(t *testing.T) {
	for name, tc := range map[string]struct {
		edit func(b *backend, key session.Key)
		felt func(f Found, err error, k FoundKey, kerr error) bool
	}{
		"a ban": {
			func(b *backend, _ session.Key) {
				b.setUser(uidOf(1), func(p *session.Principal) { p.State = "banned" })
			},
			func(f Found, _ error, k FoundKey, _ error) bool { return !f.Principal.Open() && !k.Principal.Open() },
		},
		"another role and level": {
			func(b *backend, _ session.Key) {
				b.setUser(uidOf(1), func(p *session.Principal) { p.Role, p.Level = "new", 3 })
			},
			func(f Found, _ error, k FoundKey, _ error) bool {
				return f.Principal.Role == "new" && k.Principal.Level == 3
			},
		},
		"another epoch": {
			func(b *backend, _ session.Key) { b.setUser(uidOf(1), func(p *session.Principal) { p.Epoch++ }) },
			func(_ Found, err error, _ FoundKey, _ error) bool { return errors.Is(err, session.ErrNotFound) },
		},
		"a session whose end was recorded": {
			func(b *backend, key session.Key) {
				b.setUser(uidOf(1), func(p *session.Principal) { p.Ended = key.String()[:session.TagLen] })
			},
			func(_ Found, err error, _ FoundKey, _ error) bool { return errors.Is(err, session.ErrNotFound) },
		},
		"a session deleted": {
			func(b *backend, key session.Key) { _ = b.Delete(context.Background(), key) },
			func(_ Found, err error, _ FoundKey, _ error) bool { return errors.Is(err, session.ErrNotFound) },
		},
		"a session of somebody else": {
			func(b *backend, key session.Key) { b.setSession(key, func(s *session.Session) { s.UID = uidOf(2) }) },
			func(f Found, _ error, _ FoundKey, _ error) bool {
				return f.Session.UID == uidOf(2) && f.Principal.UID == uidOf(2)
			},
		},
		"a session bound elsewhere": {
			func(b *backend, key session.Key) {
				b.setSession(key, func(s *session.Session) { s.UserAgent = "curl" })
			},
			func(f Found, _ error, _ FoundKey, _ error) bool { return f.Session.UserAgent == "curl" },
		},
		"a user deleted": {
			func(b *backend, _ session.Key) {
				b.mu.Lock()
				defer b.mu.Unlock()
				delete(b.users, uidOf(1))
			},
			func(_ Found, err error, k FoundKey, kerr error) bool {
				return errors.Is(err, session.ErrNotFound) && kerr == nil && k.Principal == nil
			},
		},
		"a key switched off": {
			func(b *backend, _ session.Key) {
				b.mu.Lock()
				defer b.mu.Unlock()
				b.keys[kidOf(1)] = session.APIKey{KID: kidOf(1), UID: uidOf(1), Secret: []byte("secret")}
			},
			func(_ Found, _ error, k FoundKey, _ error) bool { return !k.Key.Active },
		},
		"a key with another secret": {
			func(b *backend, _ session.Key) {
				b.mu.Lock()
				defer b.mu.Unlock()
				b.keys[kidOf(1)] = session.APIKey{KID: kidOf(1), UID: uidOf(1), Secret: []byte("other"), Active: true}
			},
			func(_ Found, _ error, k FoundKey, _ error) bool { return string(k.Key.Secret) == "other" },
		},
		"a key deleted": {
			func(b *backend, _ session.Key) {
				b.mu.Lock()
				defer b.mu.Unlock()
				delete(b.keys, kidOf(1))
			},
			func(_ Found, _ error, _ FoundKey, kerr error) bool { return errors.Is(kerr, session.ErrNotFound) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBackend()
				c, keys := inUse(t, b, 3, nil)
				defer c.Close()
				var tokens [3]*Token
				for i := range keys {
					f, err, _, kerr := ask(c, keys, i)
					if err != nil || kerr != nil {
						t.Fatal(err, kerr)
					}
					tokens[i] = &Token{Expires: time.Now().Add(24 * time.Hour).UnixNano()}
					f.Token.Store(tokens[i])
				}
				for range 300 { // what is in use is never read by a check
					time.Sleep(time.Second)
					for i := range keys {
						if f, err, _, kerr := ask(c, keys, i); err != nil || kerr != nil || f.Token.Load() != tokens[i] {
							t.Fatalf("%v, %v, token %p; want %p", err, kerr, f.Token.Load(), tokens[i])
						}
					}
				}
				if s, u, k := b.gets.Load(), b.reads.Load(), b.kreads.Load(); s != 3 || u != 3 || k != 3 {
					t.Errorf("%d, %d and %d readings of 3 sessions, users and keys by checks, want one of each", s, u, k)
				}
				if n := b.batches.Load(); n == 0 || n > 3*300 {
					t.Errorf("%d readings in the background in five minutes", n)
				}
				tc.edit(b, keys[1])
				edited := time.Now()
				for {
					f, err, k, kerr := ask(c, keys, 1)
					if tc.felt(f, err, k, kerr) {
						break
					}
					if err != nil || kerr != nil || time.Since(edited) > DefaultTrust {
						t.Fatalf("%v, %v after %v: not felt", err, kerr, time.Since(edited))
					}
					time.Sleep(100 * time.Millisecond)
				}
				for range 60 { // nor do the others notice
					time.Sleep(time.Second)
					for _, i := range []int{0, 2} {
						if f, err, _, kerr := ask(c, keys, i); err != nil || kerr != nil || f.Token.Load() != tokens[i] {
							t.Fatalf("somebody else: %v, %v", err, kerr)
						}
					}
				}
			})
		})
	}
}

// What is not in use is left alone, and its next check asks the stores.
func TestWhatIsIdleIsReadByItsNextCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend()
		c, keys := inUse(t, b, 1, nil)
		defer c.Close()
		_, _, _, _ = ask(c, keys, 0)
		time.Sleep(4 * DefaultTrust)
		batches := b.batches.Load()
		time.Sleep(10 * DefaultTrust)
		if n := b.batches.Load() - batches; n != 0 {
			t.Errorf("%d readings of what nobody uses", n)
		}
		b.setUser(uidOf(0), func(p *session.Principal) { p.State = "banned" })
		if f, err, k, kerr := ask(c, keys, 0); err != nil || kerr != nil || f.Principal.Open() || k.Principal.Open() {
			t.Errorf("%v, %v: an old state is believed", err, kerr)
		}
	})
}

// While the bus is not heard, memory counts for the TTL; what is in use is read again before that, so that no check waits.
func TestWithoutTheBusNoCheckWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend()
		c, keys := inUse(t, b, 3, func(o *Options) {
			o.Fresh = func(loaded, now time.Time) bool { return now.Sub(loaded) < DefaultTTL }
		})
		defer c.Close()
		for range 200 {
			for i := range keys {
				if _, err, _, kerr := ask(c, keys, i); err != nil || kerr != nil {
					t.Fatal(err, kerr)
				}
			}
			time.Sleep(time.Second)
		}
		if s, u, k := b.gets.Load(), b.reads.Load(), b.kreads.Load(); s != 3 || u != 3 || k != 3 {
			t.Errorf("%d, %d and %d readings of 3 sessions, users and keys by checks, want one of each", s, u, k)
		}
		b.down.Store(true)
		down := time.Now()
		for time.Since(down) < DefaultTTL/4 {
			if _, err, _, kerr := ask(c, keys, 0); err != nil || kerr != nil {
				t.Fatalf("%v after the stores went away: %v, %v", time.Since(down), err, kerr)
			}
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(DefaultTTL)
		if _, err, _, kerr := ask(c, keys, 0); !errors.Is(err, errDown) || !errors.Is(kerr, errDown) {
			t.Errorf("%v after the stores went away: %v, %v", time.Since(down), err, kerr)
		}
	})
}

// With a TTL of 0 nothing is trusted, so nothing is read ahead.
func TestNothingIsReadAheadInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend()
		c, keys := inUse(t, b, 1, func(o *Options) { o.Fresh = func(time.Time, time.Time) bool { return false } })
		defer c.Close()
		for range 100 {
			_, _, _, _ = ask(c, keys, 0)
			time.Sleep(time.Second)
		}
		if n := b.batches.Load(); n != 0 {
			t.Errorf("%d readings in the background", n)
		}
	})
}

// When everything is forgotten it is read again, and tokens stay; what has changed meanwhile is not passed a single time.
func TestForgetAllKeepsTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend()
		const people = 1000
		c, keys := inUse(t, b, people, nil)
		defer c.Close()
		tokens := make([]*Token, people)
		for i := range keys {
			f, _, k, _ := ask(c, keys, i)
			tokens[i] = &Token{Expires: time.Now().Add(24 * time.Hour).UnixNano()}
			f.Token.Store(tokens[i])
			k.Token.Store(tokens[i])
		}
		b.setUser(uidOf(1), func(p *session.Principal) { p.State = "banned" })
		c.ForgetAll()
		if f, err, k, kerr := ask(c, keys, 1); err != nil || kerr != nil || f.Principal.Open() || k.Principal.Open() {
			t.Errorf("%v, %v: what was forgotten is believed", err, kerr)
		}
		s, u, k := b.gets.Load(), b.reads.Load(), b.kreads.Load()
		time.Sleep(time.Second)
		synctest.Wait()
		for i := range keys {
			f, err, k, kerr := ask(c, keys, i)
			if err != nil || kerr != nil || f.Token.Load() != tokens[i] || k.Token.Load() != tokens[i] {
				t.Fatalf("person %d: %v, %v, tokens %p and %p, want %p", i, err, kerr, f.Token.Load(), k.Token.Load(), tokens[i])
			}
		}
		if b.gets.Load() != s || b.reads.Load() != u || b.kreads.Load() != k {
			t.Error("checks had to read what is in use")
		}
		if n := b.batches.Load(); n < 3 || n > 3*parts {
			t.Errorf("%d readings in the background, want a few", n)
		}
	})
}

// Each kind of invalidation is thrown between a reading in the background and its answer: what was read must not be seen.
func TestInvalidationDefeatsRenewal(t *testing.T) {
	for name, tc := range map[string]struct {
		during string
		change func(b *backend, c *Cache, key session.Key)
		want   func(f Found, err error, k FoundKey) bool
	}{
		"logout": {"sessions", func(b *backend, c *Cache, key session.Key) {
			_ = b.Delete(context.Background(), key)
			c.ForgetSession(key)
		}, func(_ Found, err error, _ FoundKey) bool { return errors.Is(err, session.ErrNotFound) }},
		"logout of everybody": {"sessions", func(b *backend, c *Cache, key session.Key) {
			_ = b.Delete(context.Background(), key)
			c.ForgetSessions()
		}, func(_ Found, err error, _ FoundKey) bool { return errors.Is(err, session.ErrNotFound) }},
		"everything, a logout among it": {"sessions", func(b *backend, c *Cache, key session.Key) {
			_ = b.Delete(context.Background(), key)
			c.ForgetAll()
		}, func(_ Found, err error, _ FoundKey) bool { return errors.Is(err, session.ErrNotFound) }},
		"everything, a ban among it": {"principals", func(b *backend, c *Cache, _ session.Key) {
			b.setUser(uidOf(0), func(p *session.Principal) { p.State = "banned" })
			c.ForgetAll()
		}, func(f Found, _ error, k FoundKey) bool { return !f.Principal.Open() && !k.Principal.Open() }},
		"ban": {"principals", func(b *backend, c *Cache, _ session.Key) {
			b.setUser(uidOf(0), func(p *session.Principal) { p.State = "banned" })
			c.ForgetUser(uidOf(0))
		}, func(f Found, _ error, k FoundKey) bool { return !f.Principal.Open() && !k.Principal.Open() }},
		"password change that keeps the session": {"sessions", func(b *backend, c *Cache, key session.Key) {
			b.setUser(uidOf(0), func(p *session.Principal) { p.Epoch = 2 })
			b.setSession(key, func(s *session.Session) { s.Epoch = 2 })
			c.ForgetUser(uidOf(0))
		}, func(f Found, err error, _ FoundKey) bool { return err == nil && f.Session.Epoch == 2 }},
		"a key switched off with its owner": {"keys", func(b *backend, c *Cache, _ session.Key) {
			b.mu.Lock()
			b.keys[kidOf(0)] = session.APIKey{KID: kidOf(0), UID: uidOf(0), Secret: []byte("secret")}
			b.mu.Unlock()
			c.ForgetUser(uidOf(0))
		}, func(_ Found, _ error, k FoundKey) bool { return !k.Key.Active }},
		"a key switched off": {"keys", func(b *backend, c *Cache, _ session.Key) {
			b.mu.Lock()
			b.keys[kidOf(0)] = session.APIKey{KID: kidOf(0), UID: uidOf(0), Secret: []byte("secret")}
			b.mu.Unlock()
			c.ForgetKey(kidOf(0))
		}, func(_ Found, _ error, k FoundKey) bool { return !k.Key.Active }},
	} {
		for _, asked := range []string{"before the answer", "after it"} {
			t.Run(name+", asked "+asked, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newBackend()
					c, keys := inUse(t, b, 1, nil)
					defer c.Close()
					check := func() {
						if f, err, k, _ := ask(c, keys, 0); !tc.want(f, err, k) {
							t.Errorf("%v: what was before is seen", err)
						}
					}
					if _, err, _, kerr := ask(c, keys, 0); err != nil || kerr != nil {
						t.Fatal(err, kerr)
					}
					var once sync.Once
					var done atomic.Bool
					b.onRead(func(kind string) {
						if kind == tc.during {
							once.Do(func() {
								tc.change(b, c, keys[0])
								if asked == "before the answer" {
									check()
								}
								done.Store(true)
							})
						}
					})
					for !done.Load() {
						time.Sleep(100 * time.Millisecond)
					}
					synctest.Wait()
					check()
				})
			})
		}
	}
}

// While the stores do not answer, what is known passes until its trust is over, and then the answer is neither yes nor no.
func TestRenewalInAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend()
		c, keys := inUse(t, b, 1, nil)
		defer c.Close()
		for range 20 {
			_, _, _, _ = ask(c, keys, 0)
			time.Sleep(time.Second)
		}
		b.down.Store(true)
		for range 10 {
			if _, err, _, kerr := ask(c, keys, 0); err != nil || kerr != nil {
				t.Fatal(err, kerr)
			}
			time.Sleep(time.Second)
		}
		time.Sleep(DefaultTrust)
		if _, err, _, kerr := ask(c, keys, 0); !errors.Is(err, errDown) || !errors.Is(kerr, errDown) {
			t.Errorf("after the trust: %v, %v", err, kerr)
		}
		b.down.Store(false)
		if _, err, _, kerr := ask(c, keys, 0); err != nil || kerr != nil {
			t.Errorf("after the outage: %v, %v", err, kerr)
		}
		s := b.gets.Load()
		for range 120 {
			time.Sleep(time.Second)
			_, _, _, _ = ask(c, keys, 0)
		}
		if b.gets.Load() != s {
			t.Error("after the outage checks read what is in use")
		}
	})
}

// A touch that was written back stands, also when the reading again began before it.
func TestRenewalAndSlide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend()
		c, keys := inUse(t, b, 1, func(o *Options) { o.Life = time.Hour })
		defer c.Close()
		b.setSession(keys[0], func(s *session.Session) { s.ExpiresAt = time.Now().Add(time.Hour) })
		for range 8 * 3600 {
			f, err := c.Session(t.Context(), keys[0], time.Now())
			if err != nil {
				t.Fatal(err)
			}
			c.Slide(f, time.Now())
			time.Sleep(time.Second)
		}
		if n := b.touches.Load(); n < 8*20-1 || n > 8*20+1 {
			t.Errorf("written back %d times in eight hours, want each 1/20 of an hour", n)
		}
	})
}

// Memory gets old by the running clock: a wall clock that was moved neither makes it young, nor old.
func TestTrustAndTheWallClock(t *testing.T) {
	b := newBackend()
	c, keys := inUse(t, b, 1, nil)
	now := time.Now()
	b.setSession(keys[0], func(s *session.Session) { s.ExpiresAt = now.Add(72 * time.Hour); s.EndsAt = s.ExpiresAt })
	if _, err := c.Session(t.Context(), keys[0], now); err != nil {
		t.Fatal(err)
	}
	b.down.Store(true)
	for _, step := range []int64{-3600, 0, 3600} {
		if _, err := c.Session(t.Context(), keys[0], testkit.WallStepped(t, now.Add(DefaultTrust/2), step)); err != nil {
			t.Errorf("young, wall clock moved by %d s: %v", step, err)
		}
		if _, err := c.Session(t.Context(), keys[0], testkit.WallStepped(t, now.Add(2*DefaultTrust), step)); !errors.Is(err, errDown) {
			t.Errorf("old, wall clock moved by %d s: %v, want the store's error", step, err)
		}
	}
}
