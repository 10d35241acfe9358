package authz

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"barong/session"
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
	w := newWorld(t, testRules(10), func(_ *world, _ *session.CacheOptions, o *Options) {
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
	var slot session.TokenSlot
	p := &session.Principal{UID: "ID0000000001", Role: "member", State: "active"}
	first, err := tokens.current(t.Context(), &slot, w, p, w.now())
	if err != nil {
		t.Fatal(err)
	}
	if _, mine := tokens.begin(&slot); !mine {
		t.Fatal("a signature is still under way")
	}
	second, err := tokens.signInto(t.Context(), &slot, nil, w, p, w.now())
	if err != nil || second != first || w.signed.Load() != 1 {
		t.Errorf("another token (%v) or error %v after %d signatures", second != first, err, w.signed.Load())
	}
}

func TestEmptyTokenHasRoom(t *testing.T) {
	for _, n := range []int{0, 1, 448, 449, 960, 961, 5000} {
		if _, text := emptyToken(n); len(text) != 0 || cap(text) < n {
			t.Errorf("%d bytes: room for %d", n, cap(text))
		}
	}
}
