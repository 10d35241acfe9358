package authz

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"barong/internal/test/testkit"
	"barong/session"
	"barong/session/near"
)

// A slowSigner counts how many sign at a time.
type slowSigner struct {
	present, most, all atomic.Int64
}

func (s *slowSigner) SignPayload([]byte) ([]byte, error) {
	s.all.Add(1)
	n := s.present.Add(1)
	for most := s.most.Load(); n > most && !s.most.CompareAndSwap(most, n); most = s.most.Load() {
	}
	time.Sleep(time.Millisecond)
	s.present.Add(-1)
	return []byte("a.b.c"), nil
}
func (*slowSigner) KeyID() string { return "k" }

// However many sessions are new at once, some of the processors are left to the checks that need no signature.
func TestAStormLeavesProcessorsToOthers(t *testing.T) {
	signer := new(slowSigner)
	w := newWorld(t, testRules(10), func(_ *world, _ *near.Options, o *Options) {
		o.Signer = func() Signer { return signer }
	})
	const sessions = 50
	var group sync.WaitGroup
	for i := range sessions {
		var r Request
		browser(&r, "GET", ownPath, w.addMember(i, ""))
		group.Go(func() {
			var d Decision
			if w.engine.Check(context.Background(), &r, &d); d.Effect != Allow {
				t.Errorf("code %q", d.Code)
			}
		})
	}
	group.Wait()
	if most, want := signer.most.Load(), int64(max(1, runtime.GOMAXPROCS(0)/2)); most > want || signer.all.Load() != sessions {
		t.Errorf("%d signatures, up to %d at a time; want %d and at most %d", signer.all.Load(), most, sessions, want)
	}
}

// Whoever waits for its turn to sign gives up when its time is up, and leaves the session to the next.
func TestWaitingToSignIsBounded(t *testing.T) {
	w := newWorld(t, testRules(10), nil)
	id := w.addMember(0, "")
	for range cap(w.engine.tokens.busy) {
		w.engine.tokens.busy <- struct{}{}
	}
	var r Request
	browser(&r, "GET", ownPath, id)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	var d Decision
	if w.engine.Check(ctx, &r, &d); d.Code != unavailable.code {
		t.Errorf("code %q, want %q", d.Code, unavailable.code)
	}
	for range cap(w.engine.tokens.busy) {
		<-w.engine.tokens.busy
	}
	w.wantAllow(t, id)
	if n := w.signed.Load(); n != 1 {
		t.Errorf("%d signatures, want 1", n)
	}
}

// A check that found no token, and got its turn only after another had signed, signs no second time.
func TestATokenThatCameMeanwhileIsTaken(t *testing.T) {
	w := newWorld(t, testRules(10), nil)
	tokens := w.engine.tokens
	var slot near.TokenSlot
	p := &session.Principal{UID: "ID0000000001", Role: "member", State: "active"}
	first, err := tokens.current(t.Context(), &slot, w, p, nil, w.now())
	if err != nil {
		t.Fatal(err)
	}
	if _, mine := tokens.begin(&slot); !mine {
		t.Fatal("a signature is still under way")
	}
	second, err := tokens.signInto(t.Context(), &slot, nil, w, p, nil, w.now())
	if err != nil || second != first || w.signed.Load() != 1 {
		t.Errorf("another token (%v) or error %v after %d signatures", second != first, err, w.signed.Load())
	}
}

// A token is handed out again for its share of a life, whatever is done to the wall clock; and never after its end by that.
func TestTokensAndTheWallClock(t *testing.T) {
	w := newWorld(t, testRules(10), func(_ *world, _ *near.Options, o *Options) { o.Now = time.Now })
	tokens := w.engine.tokens
	p := &session.Principal{UID: "ID0000000001", Role: "member", State: "active"}
	now := time.Now()
	token, err := tokens.sign(w, p, nil, now)
	if err != nil {
		t.Fatal(err)
	}
	const hour = 3600
	for _, c := range []struct {
		what   string
		after  time.Duration
		step   int64
		usable bool
	}{
		{"within its share", tokens.window - time.Second, 0, true},
		{"after it", tokens.window, 0, false},
		{"within, stepped back", tokens.window - time.Second, -hour, true},
		{"after, stepped back", tokens.window, -hour, false},
		{"within, stepped forward beyond its end", time.Second, hour, false},
	} {
		at := testkit.WallStepped(t, now.Add(c.after), c.step)
		if got := tokens.usable(token, w, p, at); got != c.usable {
			t.Errorf("%s: usable is %v", c.what, got)
		}
	}
}

// A token is signed anew when it would say something else, and for no other change of its user.
func TestATokenLastsAsLongAsWhatItSays(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*session.Principal)
		signed int64
	}{
		"second factor": {func(p *session.Principal) { p.OTP = !p.OTP }, 1},
		"nothing":       {func(*session.Principal) {}, 1},
		"a role that may not do it, so that there is no token": {func(p *session.Principal) { p.Role = "admin" }, 1},
		"level":    {func(p *session.Principal) { p.Level++ }, 2},
		"state":    {func(p *session.Principal) { p.State = "pending" }, 2},
		"e-mail":   {func(p *session.Principal) { p.Email = "other@example.com" }, 2},
		"referrer": {func(p *session.Principal) { p.ReferralID = 7 }, 2},
	} {
		for how, forget := range map[string]func(*near.Cache, session.Key){
			"the user is forgotten": func(c *near.Cache, _ session.Key) { c.ForgetUser("ID0000000000") },
			"all is forgotten":      func(c *near.Cache, _ session.Key) { c.ForgetAll() },
		} {
			w := newWorld(t, testRules(10), nil)
			id := w.addMember(0, "")
			w.wantAllow(t, id)
			w.mu.Lock()
			p := w.principals["ID0000000000"]
			c.change(&p)
			w.principals["ID0000000000"] = p
			w.mu.Unlock()
			forget(w.cache, id.Key())
			r := Request{}
			browser(&r, "GET", ownPath, id)
			var d Decision
			if w.engine.Check(context.Background(), &r, &d); d.Principal == nil || *d.Principal != p {
				t.Errorf("%s, %s: judged as %+v", name, how, d.Principal)
			}
			if n := w.signed.Load(); n != c.signed {
				t.Errorf("%s, %s: %d signatures, want %d", name, how, n, c.signed)
			}
		}
	}
}
