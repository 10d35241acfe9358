// Package sessiontest is the contract of session.Store as tests. Every store passes it, and so does every decorator of
// one. It opens its stores through the function it is given and knows none of them.
package sessiontest

import (
	"context"
	"encoding/hex"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"barong/session"
)

// timeout bounds one test's calls: a store that hangs fails, it does not stop the suite.
const timeout = 60 * time.Second

// Run tests a session.Store. open returns an empty store and registers its own clean-up; it is called once a test, and
// the stores of two tests must not see each other's sessions.
func Run(t *testing.T, open func(t *testing.T) session.Store) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, s *suite)
	}{
		{"what was created is got, field for field", roundTrip},
		{"an absent key is not found", absent},
		{"many are got at once", getMany},
		{"a key that is there is taken", taken},
		{"a session ends exactly at its expiry", expiry},
		{"the absolute end wins over the sliding one", absoluteEnd},
		{"touch moves the sliding expiry", touch},
		{"touch is cut to the absolute end", touchCut},
		{"touch never revives an expired session", touchExpired},
		{"touch after delete never revives", touchAfterDelete},
		{"touch racing delete never revives", touchRacesDelete},
		{"rebase changes the epoch alone", rebase},
		{"rebase racing delete never revives", rebaseRacesDelete},
		{"delete ends one session once", deleteOnce},
		{"of parallel deletes one succeeds", deleteParallel},
		{"list is newest first, and of one user", list},
		{"list leaves out what has expired", listExpired},
		{"delete user ends all sessions", deleteUser},
		{"delete user keeps the one named", deleteUserKeep},
		{"delete user with another user's key keeps nothing", deleteUserForeignKeep},
		{"trim ends the oldest beyond those to keep", trim},
		{"trim counts live sessions of one user and epoch alone", trimForeign},
		{"of sessions opened in parallel trim leaves as many as are to be kept", trimParallel},
		{"delete all ends everybody's sessions", deleteAll},
		{"purge drops only what has expired, up to its limit", purge},
		{"a cancelled context is an error", cancelled},
		{"times keep milliseconds and lose their zone", times},
		{"user agents are kept verbatim", userAgents},
		{"how and when a session began is kept", began},
		{"addresses are kept", addresses},
		{"texts of any script are kept", texts},
		{"a user may have many sessions", many},
		{"parallel use mixes nothing up", parallel},
		{"parallel creates of one key: one succeeds", createParallel},
		{"what the caller changes later does not reach the store", isolated},
		{"the store answers a ping", ping},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			store := open(t) // which may have to wait for its turn
			ctx, cancel := context.WithTimeout(context.Background(), timeout)
			t.Cleanup(cancel)
			c.test(t, &suite{Store: store, ctx: ctx, now: time.Now().UTC().Truncate(time.Millisecond)})
		})
	}
}

// A suite is the store under test, the context of its calls, and the time at which the test takes place.
type suite struct {
	session.Store
	ctx context.Context
	now time.Time
}

// session is a fresh session of uid, half an hour from its end and a day from its absolute one.
func (s *suite) session(uid string) *session.Session {
	return &session.Session{
		Key: session.NewID().Key(), UID: uid, Epoch: 3, CSRF: "0123456789abcdef0123",
		IP: netip.MustParseAddr("203.0.113.7"), UserAgent: "Mozilla/5.0 (X11; Linux x86_64)", Country: "NL",
		Methods: session.Password | session.Code, AuthTime: s.now.Add(time.Second),
		CreatedAt: s.now, SeenAt: s.now, ExpiresAt: s.now.Add(30 * time.Minute), EndsAt: s.now.Add(24 * time.Hour),
	}
}

func (s *suite) create(t *testing.T, ss ...*session.Session) {
	t.Helper()
	for _, v := range ss {
		if err := s.Create(s.ctx, v); err != nil {
			t.Fatalf("Create: %v", err)
		}
	}
}

// opened is a fresh session that the store holds.
func (s *suite) opened(t *testing.T, uid string) *session.Session {
	t.Helper()
	v := s.session(uid)
	s.create(t, v)
	return v
}

func (s *suite) get(t *testing.T, key session.Key, now time.Time) *session.Session {
	t.Helper()
	v, err := s.Get(s.ctx, key, now)
	if err != nil {
		t.Fatalf("Get at %s: %v", now.Sub(s.now), err)
	}
	return v
}

func (s *suite) gone(t *testing.T, key session.Key, now time.Time) {
	t.Helper()
	if v, err := s.Get(s.ctx, key, now); !errors.Is(err, session.ErrNotFound) {
		t.Fatalf("Get at %s = %+v, %v, want ErrNotFound", now.Sub(s.now), v, err)
	}
}

// getMany asks for more than one statement or pipeline has room for, with some that are not there among them.
func getMany(t *testing.T, s *suite) {
	const n = 700
	keys, want := make([]session.Key, n), make([]*session.Session, n)
	for i := range n {
		v := s.session("ID0000000001")
		switch keys[i] = v.Key; {
		case i%3 == 0:
			continue // never opened
		case i == 100:
			v.ExpiresAt = s.now.Add(time.Second)
		case i%100 == 1:
			v.UserAgent = strings.Repeat("x", i%session.MaxUserAgent)
			want[i] = v
		default:
			want[i] = v
		}
		s.create(t, v)
	}
	if err := s.Delete(s.ctx, keys[200]); err != nil {
		t.Fatal(err)
	}
	want[200] = nil
	got, err := s.GetMany(s.ctx, keys, s.now.Add(time.Second))
	if err != nil || len(got) != n {
		t.Fatalf("GetMany = %d sessions, %v", len(got), err)
	}
	for i := range n {
		switch {
		case (got[i] == nil) != (want[i] == nil):
			t.Fatalf("session %d: got %+v, want %+v", i, got[i], want[i])
		case got[i] != nil:
			equal(t, got[i], want[i])
		}
	}
	if got, err := s.GetMany(s.ctx, nil, s.now); err != nil || len(got) != 0 {
		t.Errorf("GetMany of no key = %v, %v", got, err)
	}
	if _, err := s.DeleteAll(s.ctx); err != nil {
		t.Fatal(err)
	}
	got, err = s.GetMany(s.ctx, keys[:5], s.now)
	if err != nil || slices.ContainsFunc(got, func(v *session.Session) bool { return v != nil }) {
		t.Errorf("GetMany after all have ended = %v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	if _, err := s.GetMany(ctx, keys[:2], s.now); err == nil {
		t.Error("GetMany with a cancelled context is no error")
	}
}

func notFound(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, session.ErrNotFound) {
		t.Errorf("%s: error %v, want ErrNotFound", what, err)
	}
}

func equal(t *testing.T, got, want *session.Session) {
	t.Helper()
	g, w := *got, *want
	for _, v := range []*session.Session{&g, &w} {
		for _, at := range []*time.Time{&v.AuthTime, &v.CreatedAt, &v.SeenAt, &v.ExpiresAt, &v.EndsAt} {
			*at = at.UTC()
		}
	}
	if g != w {
		t.Errorf("got  %+v\nwant %+v", g, w)
	}
}

func roundTrip(t *testing.T, s *suite) {
	v := s.opened(t, "ID0000000001")
	equal(t, s.get(t, v.Key, s.now), v)
	list, err := s.List(s.ctx, v.UID, s.now)
	if err != nil || len(list) != 1 {
		t.Fatalf("List = %d sessions, %v, want 1", len(list), err)
	}
	equal(t, list[0], v)
}

func began(t *testing.T, s *suite) {
	for m := range session.MailedToken << 1 {
		v := s.session("ID0000000001")
		v.Methods, v.AuthTime = m, s.now.Add(-time.Duration(m)*time.Millisecond)
		s.create(t, v)
		equal(t, s.get(t, v.Key, s.now), v)
		if err := s.Touch(s.ctx, v.Key, s.now, v.ExpiresAt); err != nil {
			t.Fatal(err)
		}
		if err := s.Rebase(s.ctx, v.Key, 9); err != nil {
			t.Fatal(err)
		}
		v.Epoch = 9
		equal(t, s.get(t, v.Key, s.now), v)
	}
	v := s.session("ID0000000002")
	v.Methods, v.AuthTime = 0, time.Time{}
	s.create(t, v)
	v.AuthTime = v.CreatedAt
	equal(t, s.get(t, v.Key, s.now), v)
}

func absent(t *testing.T, s *suite) {
	key := session.NewID().Key()
	s.gone(t, key, s.now)
	notFound(t, "Touch", s.Touch(s.ctx, key, s.now, s.now.Add(time.Hour)))
	notFound(t, "Rebase", s.Rebase(s.ctx, key, 1))
	notFound(t, "Delete", s.Delete(s.ctx, key))
	s.gone(t, key, s.now) // none of them made one
	list, err := s.List(s.ctx, "ID0000000001", s.now)
	if err != nil || len(list) != 0 {
		t.Errorf("List = %v, %v, want none", list, err)
	}
	keys, err := s.DeleteUser(s.ctx, "ID0000000001", nil)
	if err != nil || len(keys) != 0 {
		t.Errorf("DeleteUser = %v, %v, want none", keys, err)
	}
	if n, err := s.DeleteAll(s.ctx); err != nil || n != 0 {
		t.Errorf("DeleteAll = %d, %v, want 0", n, err)
	}
	if n, err := s.Purge(s.ctx, s.now, 10); err != nil || n != 0 {
		t.Errorf("Purge = %d, %v, want 0", n, err)
	}
}

func taken(t *testing.T, s *suite) {
	first := s.opened(t, "ID0000000001")
	for _, uid := range []string{first.UID, "ID0000000002"} {
		second := s.session(uid)
		second.Key, second.CSRF = first.Key, "ffffffffffffffffffff"
		second.CreatedAt = second.CreatedAt.Add(time.Second)
		if err := s.Create(s.ctx, second); err == nil || errors.Is(err, session.ErrNotFound) {
			t.Errorf("Create of a taken key as %s: error %v, want one", uid, err)
		}
	}
	equal(t, s.get(t, first.Key, s.now), first)
	// The refused ones left no trace in anybody's list, and nobody else's delete reaches the session.
	for uid, want := range map[string]int{first.UID: 1, "ID0000000002": 0} {
		if list, err := s.List(s.ctx, uid, s.now); err != nil || len(list) != want {
			t.Errorf("List of %s = %d sessions, %v, want %d", uid, len(list), err, want)
		}
	}
	if keys, err := s.DeleteUser(s.ctx, "ID0000000002", nil); err != nil || len(keys) != 0 {
		t.Errorf("DeleteUser of the other = %v, %v, want none", keys, err)
	}
	s.get(t, first.Key, s.now)
}

func expiry(t *testing.T, s *suite) {
	v := s.opened(t, "ID0000000001")
	s.get(t, v.Key, v.ExpiresAt.Add(-time.Millisecond))
	s.get(t, v.Key, v.ExpiresAt.Add(-time.Nanosecond))
	s.gone(t, v.Key, v.ExpiresAt)
	s.gone(t, v.Key, v.ExpiresAt.Add(time.Hour))
}

func absoluteEnd(t *testing.T, s *suite) {
	v := s.session("ID0000000001")
	v.EndsAt = s.now.Add(10 * time.Minute) // before ExpiresAt
	s.create(t, v)
	s.gone(t, v.Key, v.EndsAt)
	got := s.get(t, v.Key, v.EndsAt.Add(-time.Millisecond))
	if got.ExpiresAt.After(got.EndsAt) {
		t.Errorf("ExpiresAt %s passes EndsAt %s", got.ExpiresAt, got.EndsAt)
	}
}

func touch(t *testing.T, s *suite) {
	v, other := s.opened(t, "ID0000000001"), s.opened(t, "ID0000000001")
	seen, expires := s.now.Add(5*time.Minute), s.now.Add(35*time.Minute)
	if err := s.Touch(s.ctx, v.Key, seen, expires); err != nil {
		t.Fatalf("Touch: %v", err)
	}
	want := *v
	want.SeenAt, want.ExpiresAt = seen, expires
	equal(t, s.get(t, v.Key, v.ExpiresAt), &want)
	s.gone(t, v.Key, expires)
	equal(t, s.get(t, other.Key, s.now), other)
}

func touchCut(t *testing.T, s *suite) {
	v := s.session("ID0000000001")
	v.EndsAt = s.now.Add(time.Hour)
	s.create(t, v)
	if err := s.Touch(s.ctx, v.Key, s.now.Add(time.Minute), s.now.Add(2*time.Hour)); err != nil {
		t.Fatalf("Touch: %v", err)
	}
	got := s.get(t, v.Key, v.EndsAt.Add(-time.Millisecond))
	if !got.ExpiresAt.Equal(v.EndsAt) {
		t.Errorf("ExpiresAt = %s, want EndsAt %s", got.ExpiresAt, v.EndsAt)
	}
	s.gone(t, v.Key, v.EndsAt)
}

func touchExpired(t *testing.T, s *suite) {
	v := s.opened(t, "ID0000000001")
	notFound(t, "Touch at the expiry", s.Touch(s.ctx, v.Key, v.ExpiresAt, v.ExpiresAt.Add(time.Hour)))
	s.gone(t, v.Key, v.ExpiresAt)
	s.get(t, v.Key, v.ExpiresAt.Add(-time.Millisecond)) // the refused touch changed nothing
}

func touchAfterDelete(t *testing.T, s *suite) {
	for _, end := range []func(v *session.Session) error{
		func(v *session.Session) error { return s.Delete(s.ctx, v.Key) },
		func(v *session.Session) error { _, err := s.DeleteUser(s.ctx, v.UID, nil); return err },
		func(*session.Session) error { _, err := s.DeleteAll(s.ctx); return err },
	} {
		v := s.opened(t, "ID0000000001")
		if err := end(v); err != nil {
			t.Fatalf("end: %v", err)
		}
		notFound(t, "Touch", s.Touch(s.ctx, v.Key, s.now, s.now.Add(time.Hour)))
		notFound(t, "Rebase", s.Rebase(s.ctx, v.Key, 9))
		notFound(t, "Delete", s.Delete(s.ctx, v.Key))
		s.gone(t, v.Key, s.now)
		if list, err := s.List(s.ctx, v.UID, s.now); err != nil || len(list) != 0 {
			t.Errorf("List = %d sessions, %v, want none", len(list), err)
		}
	}
}

// races runs touch in several goroutines against one delete, many times over, and looks that the session stays dead.
func races(t *testing.T, s *suite, touch func(key session.Key) error) {
	for range 10 {
		v := s.opened(t, "ID0000000001")
		start := make(chan struct{})
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				<-start
				for range 3 {
					if err := touch(v.Key); err != nil && !errors.Is(err, session.ErrNotFound) {
						t.Errorf("touch: %v", err)
					}
				}
			})
		}
		group.Go(func() {
			<-start
			if err := s.Delete(s.ctx, v.Key); err != nil {
				t.Errorf("Delete: %v", err)
			}
		})
		close(start)
		group.Wait()
		s.gone(t, v.Key, s.now)
		notFound(t, "after the delete", touch(v.Key))
	}
}

func touchRacesDelete(t *testing.T, s *suite) {
	races(t, s, func(key session.Key) error { return s.Touch(s.ctx, key, s.now, s.now.Add(time.Hour)) })
}

func rebaseRacesDelete(t *testing.T, s *suite) {
	races(t, s, func(key session.Key) error { return s.Rebase(s.ctx, key, 5) })
}

func rebase(t *testing.T, s *suite) {
	v, other := s.opened(t, "ID0000000001"), s.opened(t, "ID0000000001")
	for _, epoch := range []int64{4, 1<<53 + 1, 0} {
		if err := s.Rebase(s.ctx, v.Key, epoch); err != nil {
			t.Fatalf("Rebase: %v", err)
		}
		want := *v
		want.Epoch = epoch
		equal(t, s.get(t, v.Key, s.now), &want)
	}
	equal(t, s.get(t, other.Key, s.now), other)
}

func deleteOnce(t *testing.T, s *suite) {
	v, other := s.opened(t, "ID0000000001"), s.opened(t, "ID0000000001")
	if err := s.Delete(s.ctx, v.Key); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	s.gone(t, v.Key, s.now)
	notFound(t, "second Delete", s.Delete(s.ctx, v.Key))
	equal(t, s.get(t, other.Key, s.now), other)
	list, err := s.List(s.ctx, v.UID, s.now)
	if err != nil || len(list) != 1 || list[0].Key != other.Key {
		t.Errorf("List = %v, %v, want the other session", list, err)
	}
}

func deleteParallel(t *testing.T, s *suite) {
	v := s.opened(t, "ID0000000001")
	var ended atomic.Int32
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			switch err := s.Delete(s.ctx, v.Key); {
			case err == nil:
				ended.Add(1)
			case !errors.Is(err, session.ErrNotFound):
				t.Errorf("Delete: %v", err)
			}
		})
	}
	group.Wait()
	if n := ended.Load(); n != 1 {
		t.Errorf("%d deletes of one session succeeded, want 1", n)
	}
}

func list(t *testing.T, s *suite) {
	var mine []*session.Session
	for i := range 6 {
		v := s.session("ID0000000001")
		v.CreatedAt = s.now.Add(-time.Duration(i/2) * time.Minute) // three pairs of one age
		mine = append(mine, v)
	}
	slices.SortFunc(mine, func(a, b *session.Session) int {
		if c := b.CreatedAt.Compare(a.CreatedAt); c != 0 {
			return c
		}
		return slices.Compare(a.Key[:], b.Key[:])
	})
	for _, i := range []int{3, 0, 5, 1, 4, 2} {
		s.create(t, mine[i])
		s.opened(t, "ID0000000002")
		s.opened(t, "id0000000001") // differs in case only: another user
	}
	got, err := s.List(s.ctx, "ID0000000001", s.now)
	if err != nil || len(got) != len(mine) {
		t.Fatalf("List = %d sessions, %v, want %d", len(got), err, len(mine))
	}
	for i := range mine {
		equal(t, got[i], mine[i])
	}
}

func listExpired(t *testing.T, s *suite) {
	short, long := s.session("ID0000000001"), s.session("ID0000000001")
	short.ExpiresAt = s.now.Add(time.Minute)
	s.create(t, short, long)
	for _, c := range []struct {
		at   time.Time
		want int
	}{
		{short.ExpiresAt.Add(-time.Millisecond), 2},
		{short.ExpiresAt, 1},
		{long.ExpiresAt, 0},
		{s.now, 2}, // a look into the future has dropped nothing
	} {
		got, err := s.List(s.ctx, "ID0000000001", c.at)
		if err != nil || len(got) != c.want {
			t.Errorf("List at %s = %d sessions, %v, want %d", c.at.Sub(s.now), len(got), err, c.want)
		}
	}
}

func sorted(keys []session.Key) []string {
	out := make([]string, 0, len(keys))
	for _, k := range keys {
		out = append(out, k.String())
	}
	slices.Sort(out)
	return out
}

func deleteUser(t *testing.T, s *suite) {
	var want []session.Key
	for range 5 {
		want = append(want, s.opened(t, "ID0000000001").Key)
	}
	other := s.opened(t, "ID0000000002")
	got, err := s.DeleteUser(s.ctx, "ID0000000001", nil)
	if err != nil || !slices.Equal(sorted(got), sorted(want)) {
		t.Errorf("DeleteUser = %v, %v, want %v", sorted(got), err, sorted(want))
	}
	for _, k := range want {
		s.gone(t, k, s.now)
	}
	equal(t, s.get(t, other.Key, s.now), other)
	if got, err := s.DeleteUser(s.ctx, "ID0000000001", nil); err != nil || len(got) != 0 {
		t.Errorf("second DeleteUser = %v, %v, want none", got, err)
	}
	again := s.opened(t, "ID0000000001") // a sign-in after it lives
	equal(t, s.get(t, again.Key, s.now), again)
}

func deleteUserKeep(t *testing.T, s *suite) {
	keep := s.opened(t, "ID0000000001")
	var want []session.Key
	for range 3 {
		want = append(want, s.opened(t, "ID0000000001").Key)
	}
	got, err := s.DeleteUser(s.ctx, "ID0000000001", &keep.Key)
	if err != nil || !slices.Equal(sorted(got), sorted(want)) {
		t.Errorf("DeleteUser = %v, %v, want %v", sorted(got), err, sorted(want))
	}
	equal(t, s.get(t, keep.Key, s.now), keep)
	list, err := s.List(s.ctx, "ID0000000001", s.now)
	if err != nil || len(list) != 1 || list[0].Key != keep.Key {
		t.Errorf("List = %v, %v, want the kept session", list, err)
	}
}

func deleteUserForeignKeep(t *testing.T, s *suite) {
	mine, other := s.opened(t, "ID0000000001"), s.opened(t, "ID0000000002")
	got, err := s.DeleteUser(s.ctx, "ID0000000001", &other.Key)
	if err != nil || !slices.Equal(sorted(got), []string{mine.Key.String()}) {
		t.Errorf("DeleteUser = %v, %v, want %v", sorted(got), err, mine.Key)
	}
	s.gone(t, mine.Key, s.now)
	equal(t, s.get(t, other.Key, s.now), other)
}

// aged opens n sessions of a user, each a second older than the one before.
func (s *suite) aged(t *testing.T, uid string, n int) []*session.Session {
	t.Helper()
	out := make([]*session.Session, n)
	for i := range out {
		out[i] = s.session(uid)
		out[i].CreatedAt = s.now.Add(-time.Duration(i) * time.Second)
	}
	for _, i := range []int{2, 0, 3, 1} { // not in their order
		if i < n {
			s.create(t, out[i])
		}
	}
	if n > 4 {
		s.create(t, out[4:]...)
	}
	return out
}

func keysOf(list []*session.Session) []session.Key {
	var out []session.Key
	for _, v := range list {
		out = append(out, v.Key)
	}
	return out
}

func (s *suite) trims(t *testing.T, uid string, epoch int64, keep int, want []session.Key) {
	t.Helper()
	got, err := s.Trim(s.ctx, uid, epoch, keep, s.now)
	if err != nil || !slices.Equal(sorted(got), sorted(want)) {
		t.Errorf("Trim to %d = %v, %v, want %v", keep, sorted(got), err, sorted(want))
	}
	for _, k := range got {
		s.gone(t, k, s.now)
	}
}

func trim(t *testing.T, s *suite) {
	mine := s.aged(t, "ID0000000001", 6)
	s.trims(t, mine[0].UID, mine[0].Epoch, 6, nil)
	s.trims(t, mine[0].UID, mine[0].Epoch, 4, keysOf(mine[4:]))
	s.trims(t, mine[0].UID, mine[0].Epoch, 4, nil)
	list, err := s.List(s.ctx, mine[0].UID, s.now)
	if err != nil || !slices.Equal(keysOf(list), keysOf(mine[:4])) {
		t.Errorf("List = %v, %v, want the four newest", keysOf(list), err)
	}
	s.trims(t, mine[0].UID, mine[0].Epoch, 0, keysOf(mine[:4]))
	s.trims(t, "ID0000000009", 0, 0, nil) // nobody's
}

func trimForeign(t *testing.T, s *suite) {
	mine := s.aged(t, "ID0000000001", 3)
	other := s.opened(t, "ID0000000002")
	older, expired := s.session(mine[0].UID), s.session(mine[0].UID)
	older.Epoch--
	expired.CreatedAt, expired.ExpiresAt = s.now.Add(time.Second), s.now.Add(-time.Millisecond)
	s.create(t, older, expired)
	s.trims(t, mine[0].UID, mine[0].Epoch, 3, nil)
	s.trims(t, mine[0].UID, mine[0].Epoch, 2, keysOf(mine[2:]))
	equal(t, s.get(t, older.Key, s.now), older)
	equal(t, s.get(t, other.Key, s.now), other)
}

func trimParallel(t *testing.T, s *suite) {
	const keep = 5
	var group sync.WaitGroup
	for range 6 {
		group.Go(func() {
			for range 4 {
				v := s.session("ID0000000001")
				if err := s.Create(s.ctx, v); err != nil {
					t.Errorf("Create: %v", err)
				}
				if _, err := s.Trim(s.ctx, v.UID, v.Epoch, keep, s.now); err != nil {
					t.Errorf("Trim: %v", err)
				}
			}
		})
	}
	group.Wait()
	if list, err := s.List(s.ctx, "ID0000000001", s.now); err != nil || len(list) != keep {
		t.Errorf("List = %d sessions, %v, want %d", len(list), err, keep)
	}
}

func deleteAll(t *testing.T, s *suite) {
	var keys []session.Key
	for _, uid := range []string{"ID0000000001", "ID0000000001", "ID0000000002", "ID0000000003"} {
		keys = append(keys, s.opened(t, uid).Key)
	}
	if n, err := s.DeleteAll(s.ctx); err != nil || n != int64(len(keys)) {
		t.Errorf("DeleteAll = %d, %v, want %d", n, err, len(keys))
	}
	for _, k := range keys {
		s.gone(t, k, s.now)
	}
	if list, err := s.List(s.ctx, "ID0000000001", s.now); err != nil || len(list) != 0 {
		t.Errorf("List = %d sessions, %v, want none", len(list), err)
	}
	if n, err := s.DeleteAll(s.ctx); err != nil || n != 0 {
		t.Errorf("second DeleteAll = %d, %v, want 0", n, err)
	}
	again := s.opened(t, "ID0000000001") // a sign-in after it lives
	equal(t, s.get(t, again.Key, s.now), again)
	if n, err := s.DeleteAll(s.ctx); err != nil || n != 1 {
		t.Errorf("third DeleteAll = %d, %v, want 1", n, err)
	}
	s.gone(t, again.Key, s.now)
}

func purge(t *testing.T, s *suite) {
	const dead = 7
	for range dead {
		v := s.session("ID0000000001")
		v.ExpiresAt = s.now.Add(time.Minute)
		s.create(t, v)
	}
	live := s.opened(t, "ID0000000001")
	at := s.now.Add(time.Minute)
	if n, err := s.Purge(s.ctx, at.Add(-time.Millisecond), 100); err != nil || n != 0 {
		t.Errorf("Purge before the expiry = %d, %v, want 0", n, err)
	}
	var total int64
	for range 2 {
		n, err := s.Purge(s.ctx, at, 5)
		if err != nil || n > 5 {
			t.Errorf("Purge = %d, %v, want at most 5", n, err)
		}
		total += n
	}
	if total != dead && total != 0 { // 0: the engine expires by itself
		t.Errorf("two purges dropped %d, want %d (or 0)", total, dead)
	}
	if n, err := s.Purge(s.ctx, at, 0); err != nil || n != 0 {
		t.Errorf("Purge of none = %d, %v, want 0", n, err)
	}
	equal(t, s.get(t, live.Key, at), live)
	if list, err := s.List(s.ctx, "ID0000000001", at); err != nil || len(list) != 1 {
		t.Errorf("List = %d sessions, %v, want 1", len(list), err)
	}
}

func cancelled(t *testing.T, s *suite) {
	v := s.opened(t, "ID0000000001")
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	fresh := s.session("ID0000000001")
	for name, call := range map[string]func() error{
		"Create":     func() error { return s.Create(ctx, fresh) },
		"Get":        func() error { _, err := s.Get(ctx, v.Key, s.now); return err },
		"Touch":      func() error { return s.Touch(ctx, v.Key, s.now, s.now.Add(time.Hour)) },
		"Rebase":     func() error { return s.Rebase(ctx, v.Key, 9) },
		"Delete":     func() error { return s.Delete(ctx, v.Key) },
		"List":       func() error { _, err := s.List(ctx, v.UID, s.now); return err },
		"DeleteUser": func() error { _, err := s.DeleteUser(ctx, v.UID, nil); return err },
		"Trim":       func() error { _, err := s.Trim(ctx, v.UID, v.Epoch, 0, s.now); return err },
		"DeleteAll":  func() error { _, err := s.DeleteAll(ctx); return err },
		"Ping":       func() error { return s.Ping(ctx) },
	} {
		if err := call(); err == nil || errors.Is(err, session.ErrNotFound) {
			t.Errorf("%s with a cancelled context: error %v, want one that is not ErrNotFound", name, err)
		}
	}
	equal(t, s.get(t, v.Key, s.now), v) // nothing was done
	s.gone(t, fresh.Key, s.now)
}

func times(t *testing.T, s *suite) {
	zone := time.FixedZone("far east", 13*3600+45*60)
	v := s.session("ID0000000001")
	at := s.now.Truncate(time.Second).Add(123*time.Millisecond + 987654*time.Nanosecond)
	v.CreatedAt, v.SeenAt = at.In(zone), at.In(zone)
	v.ExpiresAt, v.EndsAt = at.Add(time.Minute).In(zone), at.Add(time.Hour).In(zone)
	s.create(t, v)
	got := s.get(t, v.Key, at)
	for _, c := range []struct {
		name      string
		got, want time.Time
	}{
		{"CreatedAt", got.CreatedAt, v.CreatedAt},
		{"SeenAt", got.SeenAt, v.SeenAt},
		{"ExpiresAt", got.ExpiresAt, v.ExpiresAt},
		{"EndsAt", got.EndsAt, v.EndsAt},
	} {
		if want := c.want.Truncate(time.Millisecond); !c.got.Equal(want) || c.got.Location() != time.UTC {
			t.Errorf("%s = %s, want %s", c.name, c.got, want.UTC())
		}
	}
	s.gone(t, v.Key, v.ExpiresAt.Truncate(time.Millisecond))
	if err := s.Touch(s.ctx, v.Key, at.Add(time.Second).In(zone), at.Add(2*time.Minute).In(zone)); err != nil {
		t.Fatalf("Touch: %v", err)
	}
	got = s.get(t, v.Key, at)
	if want := at.Add(2 * time.Minute).Truncate(time.Millisecond); !got.ExpiresAt.Equal(want) {
		t.Errorf("touched ExpiresAt = %s, want %s", got.ExpiresAt, want.UTC())
	}
}

func userAgents(t *testing.T, s *suite) {
	for name, agent := range map[string]string{
		"empty":            "",
		"quotes":           `it's "quoted" \ back?slash ?0 {"json":1} $1 %s`,
		"controls":         "tab\tnewline\r\nbell\a",
		"NUL":              "before\x00after",
		"not UTF-8":        "\xff\xfe caf\xe9",
		"other scripts":    "浏览器 браузер 🦊",
		"spaces":           "  leading and trailing  ",
		"comment":          "x'; DROP TABLE sessions; --",
		"longest":          strings.Repeat("a", session.MaxUserAgent),
		"every byte twice": everyByte() + everyByte(),
	} {
		v := s.session("ID0000000001")
		v.UserAgent = agent
		s.create(t, v)
		if got := s.get(t, v.Key, s.now).UserAgent; got != agent {
			t.Errorf("%s: user agent = %q, want %q", name, got, agent)
		}
	}
	v := s.session("ID0000000001")
	v.UserAgent = strings.Repeat("é", session.MaxUserAgent)
	s.create(t, v)
	if got := s.get(t, v.Key, s.now).UserAgent; got != v.UserAgent[:session.MaxUserAgent] {
		t.Errorf("too long a user agent is kept as %d bytes, want the first %d", len(got), session.MaxUserAgent)
	}
}

func everyByte() string {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return string(b)
}

func addresses(t *testing.T, s *suite) {
	for _, ip := range []netip.Addr{
		{},
		netip.MustParseAddr("0.0.0.0"),
		netip.MustParseAddr("255.255.255.255"),
		netip.MustParseAddr("::"),
		netip.MustParseAddr("2001:db8::1"),
		netip.MustParseAddr("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
		netip.MustParseAddr("::ffff:192.0.2.1"),
		netip.MustParseAddr("fe80::1%eth0"),
	} {
		v := s.session("ID0000000001")
		v.IP = ip
		s.create(t, v)
		if got := s.get(t, v.Key, s.now).IP; got != ip {
			t.Errorf("address = %v, want %v", got, ip)
		}
	}
}

func texts(t *testing.T, s *suite) {
	for _, uid := range []string{"ID0000000001", "ünïcode", "用户", "a{b}c", "o'hara", "a:b", "*", "%", "_"} {
		v := s.session(uid)
		v.Country, v.CSRF = "", hex.EncodeToString([]byte(uid))
		s.create(t, v)
		equal(t, s.get(t, v.Key, s.now), v)
		list, err := s.List(s.ctx, uid, s.now)
		if err != nil || len(list) != 1 || list[0].Key != v.Key {
			t.Errorf("List of %q = %d sessions, %v, want its one", uid, len(list), err)
		}
	}
	// Names that nobody can have are nobody's; they break nothing.
	for _, uid := range []string{"", "nul\x00", "\xff"} {
		if list, err := s.List(s.ctx, uid, s.now); err != nil || len(list) != 0 {
			t.Errorf("List of %q = %d sessions, %v, want none", uid, len(list), err)
		}
		if keys, err := s.DeleteUser(s.ctx, uid, nil); err != nil || len(keys) != 0 {
			t.Errorf("DeleteUser of %q = %v, %v, want none", uid, keys, err)
		}
	}
}

func many(t *testing.T, s *suite) {
	const n = 600
	var group sync.WaitGroup
	for range 6 {
		group.Go(func() {
			for range n / 6 {
				if err := s.Create(s.ctx, s.session("ID0000000001")); err != nil {
					t.Errorf("Create: %v", err)
					return
				}
			}
		})
	}
	group.Wait()
	list, err := s.List(s.ctx, "ID0000000001", s.now)
	if err != nil || len(list) != n {
		t.Fatalf("List = %d sessions, %v, want %d", len(list), err, n)
	}
	keep := list[n/2].Key
	keys, err := s.DeleteUser(s.ctx, "ID0000000001", &keep)
	if err != nil || len(keys) != n-1 {
		t.Errorf("DeleteUser = %d keys, %v, want %d", len(keys), err, n-1)
	}
	s.get(t, keep, s.now)
}

func parallel(t *testing.T, s *suite) {
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			uid := "ID000000000" + string(rune('0'+i))
			for range 5 {
				v := s.session(uid)
				v.CSRF = v.Key.String()[:20]
				if err := s.Create(s.ctx, v); err != nil {
					t.Errorf("Create: %v", err)
					return
				}
				got, err := s.Get(s.ctx, v.Key, s.now)
				if err != nil {
					t.Errorf("Get: %v", err)
					return
				}
				if got.CSRF != v.CSRF || got.UID != uid {
					t.Errorf("Get answers another session: %+v", got)
				}
				v.SeenAt, v.ExpiresAt = s.now.Add(time.Minute), s.now.Add(40*time.Minute)
				if err := s.Touch(s.ctx, v.Key, v.SeenAt, v.ExpiresAt); err != nil {
					t.Errorf("Touch: %v", err)
				}
				list, err := s.List(s.ctx, uid, s.now)
				if err != nil || len(list) != 1 {
					t.Errorf("List = %d sessions, %v, want 1", len(list), err)
					return
				}
				equal(t, list[0], v)
				if err := s.Delete(s.ctx, v.Key); err != nil {
					t.Errorf("Delete: %v", err)
				}
			}
		})
	}
	group.Wait()
}

func createParallel(t *testing.T, s *suite) {
	key := session.NewID().Key()
	var made atomic.Int32
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			v := s.session("ID0000000001")
			v.Key = key
			if s.Create(s.ctx, v) == nil {
				made.Add(1)
			}
		})
	}
	group.Wait()
	if n := made.Load(); n != 1 {
		t.Errorf("%d creates of one key succeeded, want 1", n)
	}
	if list, err := s.List(s.ctx, "ID0000000001", s.now); err != nil || len(list) != 1 {
		t.Errorf("List = %d sessions, %v, want 1", len(list), err)
	}
}

func isolated(t *testing.T, s *suite) {
	v := s.session("ID0000000001")
	want := *v
	s.create(t, v)
	v.UID, v.Epoch = "ID0000000002", 99
	got := s.get(t, want.Key, s.now)
	equal(t, got, &want)
	got.CSRF, got.EndsAt = "changed", s.now
	equal(t, s.get(t, want.Key, s.now), &want)
}

func ping(t *testing.T, s *suite) {
	if err := s.Ping(s.ctx); err != nil {
		t.Errorf("Ping: %v", err)
	}
}
