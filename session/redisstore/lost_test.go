package redisstore_test

import (
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"barong/internal/test/testkit"
	"barong/session"
	"barong/session/redisstore"
)

// relayed connects through a relay that loses answers, and directly.
func relayed(t *testing.T, options string) (relay *testkit.Relay, through, direct string) {
	t.Helper()
	server := testkit.ValkeyServer(t)
	relay = testkit.NewRelay(t, server.Addr)
	return relay, "redis://" + relay.Addr + options, "redis://" + server.Addr + patient
}

// A nonce is accepted once: by the call whose answer was lost as well, and by no other call.
func TestNonceWhoseAnswerIsLost(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	relay, through, direct := relayed(t, patient)
	a, b := redisstore.NewNonces(connect(t, through)), redisstore.NewNonces(connect(t, direct))
	until := time.Now().Add(time.Minute)
	for i := range 50 {
		nonce := strconv.Itoa(i)
		relay.LoseAnswers(1, "barong:nonce:")
		if first, err := a.FirstUse(ctx, "kid", nonce, until); err != nil || !first {
			t.Errorf("a first use whose answer was lost: %v, %v, want true", first, err)
		}
		relay.LoseAnswers(i%2, "barong:nonce:") // a replay may lose its answer too
		for name, n := range map[string]*redisstore.Nonces{"the same replica": a, "another": b} {
			if first, err := n.FirstUse(ctx, "kid", nonce, until); err != nil || first {
				t.Errorf("a second use at %s: %v, %v, want false", name, first, err)
			}
		}
	}
	if n := relay.Lost(); n != 75 {
		t.Errorf("%d answers were lost, want 75", n)
	}
	// With every attempt's answer lost it is not known, and never afterwards a first use.
	relay.LoseAnswers(2, "barong:nonce:")
	if first, err := a.FirstUse(ctx, "kid", "1000", until); err == nil || first {
		t.Errorf("a use of which nothing was heard: %v, %v, want an error", first, err)
	}
	relay.LoseAnswers(0, "")
	for range 2 {
		if first, err := a.FirstUse(ctx, "kid", "1000", until); err != nil || first {
			t.Errorf("the next use: %v, %v, want false", first, err)
		}
	}
}

// Of two requests with the same nonce at two replicas, at most one is accepted, whatever answers get lost or come too
// late, and at least one when each of them gets an answer.
func TestParallelNoncesWhoseAnswersAreLost(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	// So short a patience that answers come too late now and then as well.
	relay, through, _ := relayed(t, "?read_timeout=2ms&pool_size=8")
	replicas := []*redisstore.Nonces{redisstore.NewNonces(connect(t, through)), redisstore.NewNonces(connect(t, through))}
	until := time.Now().Add(time.Minute)
	unknown := 0
	for i := range 300 {
		relay.LoseAnswers(i%4, "barong:nonce:")
		var firsts, failed atomic.Int32
		var group sync.WaitGroup
		for _, n := range replicas {
			group.Go(func() {
				first, err := n.FirstUse(ctx, "kid", strconv.Itoa(i), until)
				if first {
					firsts.Add(1)
				}
				if err != nil {
					failed.Add(1)
				}
			})
		}
		group.Wait()
		if n := firsts.Load(); n > 1 || n+failed.Load() == 0 {
			t.Fatalf("nonce %d: %d of 2 uses were the first, %d unknown", i, n, failed.Load())
		}
		unknown += int(failed.Load())
	}
	t.Logf("%d of 600 uses were refused as unknown; %d answers were lost", unknown, relay.Lost())
}

// A session is created, and deleted, by the call whose answer was lost; and by no other.
func TestSessionWhoseAnswerIsLost(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	relay, through, direct := relayed(t, patient)
	a, b := redisstore.New(connect(t, through)), redisstore.New(connect(t, direct))
	now := time.Now().UTC().Truncate(time.Millisecond)
	lose := func() { relay.LoseAnswers(1, "\r\n$4\r\neval\r\n") }

	v := newSession("ID0000000001", now)
	lose()
	if err := a.Create(ctx, v); err != nil {
		t.Errorf("Create: %v", err)
	}
	lose()
	if err := a.Create(ctx, v); err == nil {
		t.Error("a key that is taken is created again")
	}
	lose()
	if err := a.Touch(ctx, v.Key, now.Add(time.Second), now.Add(time.Hour)); err != nil {
		t.Errorf("Touch: %v", err)
	}
	lose()
	if err := a.Rebase(ctx, v.Key, 7); err != nil {
		t.Errorf("Rebase: %v", err)
	}
	if got, err := b.Get(ctx, v.Key, now); err != nil || got.Epoch != 7 || !got.ExpiresAt.Equal(now.Add(time.Hour)) {
		t.Errorf("Get = %+v, %v", got, err)
	}
	lose()
	if err := a.Delete(ctx, v.Key); err != nil {
		t.Errorf("Delete: %v", err)
	}
	lose()
	if err := a.Delete(ctx, v.Key); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("second Delete: %v, want ErrNotFound", err)
	}
	if err := b.Create(ctx, v); err == nil {
		t.Error("a session that was just deleted is created again")
	}

	var want []session.Key
	for i := range 3 {
		v := newSession("ID0000000002", now.Add(time.Duration(i)))
		if err := a.Create(ctx, v); err != nil {
			t.Fatal(err)
		}
		want = append(want, v.Key)
	}
	lose()
	if got, err := a.DeleteUser(ctx, "ID0000000002", nil); err != nil || len(got) != len(want) {
		t.Errorf("DeleteUser = %v, %v, want %v", got, err, want)
	}
	if got, err := b.DeleteUser(ctx, "ID0000000002", nil); err != nil || len(got) != 0 {
		t.Errorf("second DeleteUser = %v, %v, want none", got, err)
	}
	if n := relay.Lost(); n != 7 {
		t.Errorf("%d answers were lost, want 7", n)
	}
}

// When the answer to the end of all sessions is lost, those that are opened next stay.
func TestDeleteAllWhoseAnswerIsLost(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	relay, through, direct := relayed(t, patient)
	a, client := redisstore.New(connect(t, through)), connect(t, direct)
	b := redisstore.New(client)
	now := time.Now()
	for i := range 5 {
		if err := b.Create(ctx, newSession("ID000000000"+strconv.Itoa(i), now)); err != nil {
			t.Fatal(err)
		}
	}
	relay.LoseAnswers(1, "$3\r\nset\r\n$26\r\nbarong:sessions:generation")
	if n, err := a.DeleteAll(ctx); err != nil || n != 5 {
		t.Errorf("DeleteAll = %d, %v, want 5", n, err)
	}
	if n := relay.Lost(); n != 1 {
		t.Errorf("%d answers were lost, want 1", n)
	}
	after := newSession("ID0000000001", now)
	if err := b.Create(ctx, after); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Get(ctx, after.Key, now); err != nil {
		t.Errorf("Get of a new session: %v", err)
	}
}

// Of many uses of the same moment, which share round trips, exactly one of each nonce is the first, also when the answer to
// all of them is lost.
func TestNoncesOfTheSameMoment(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	relay, through, _ := relayed(t, patient)
	replicas := []*redisstore.Nonces{redisstore.NewNonces(connect(t, through)), redisstore.NewNonces(connect(t, through))}
	until := time.Now().Add(time.Minute)
	const nonces, uses = 40, 3
	for round := range 20 {
		relay.LoseAnswers(round%2, "barong:nonce:")
		var firsts [nonces]atomic.Int32
		var group sync.WaitGroup
		for use := range uses * nonces {
			i := use % nonces
			group.Go(func() {
				first, err := replicas[use%2].FirstUse(ctx, "kid", strconv.Itoa(round*nonces+i), until)
				if err != nil {
					t.Errorf("round %d: %v", round, err)
				}
				if first {
					firsts[i].Add(1)
				}
			})
		}
		group.Wait()
		for i := range firsts {
			if n := firsts[i].Load(); n != 1 {
				t.Errorf("round %d: nonce %d had %d first uses", round, i, n)
			}
		}
		relay.LoseAnswers(0, "")
	}
	t.Logf("%d answers lost", relay.Lost())
}
