package rest

import (
	"context"
	"sync"
	"testing"
	"time"

	"barong/internal/fault"
)

func TestTurnstile(t *testing.T) {
	const parallel = 2
	gate := newTurnstile(parallel)
	waits := func(user any, n int) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			gate.mu.Lock()
			l := gate.lines[user]
			there := l != nil && l.calls == n && len(l.running) == min(n, parallel)
			gate.mu.Unlock()
			if there {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("user %d has no line of %d", user, n)
			}
		}
	}
	refused := func(ctx context.Context, user any) {
		t.Helper()
		leave, err := gate.enter(ctx, user)
		if f := fault.As(err); leave != nil || f == nil || f.Status != 429 || f.RetryAfter <= 0 {
			t.Fatalf("entered: %v", err)
		}
	}

	var all sync.WaitGroup
	var mu sync.Mutex
	inside, most := 0, 0
	goOn := make(chan struct{})
	for range parallel * (1 + waiting) {
		all.Go(func() {
			leave, err := gate.enter(t.Context(), 1)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			inside++
			most = max(most, inside)
			mu.Unlock()
			<-goOn
			mu.Lock()
			inside--
			mu.Unlock()
			leave()
		})
	}
	waits(1, parallel*(1+waiting))
	refused(t.Context(), 1)
	leave, err := gate.enter(t.Context(), 2) // nobody waits for somebody else
	if err != nil {
		t.Fatal(err)
	}
	leave()
	close(goOn)
	all.Wait()
	if most != parallel {
		t.Errorf("%d ran at the same time", most)
	}

	// Who gives up leaves no trace.
	var leaves []func()
	for range parallel {
		leave, err := gate.enter(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, leave)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	refused(gone, 1)
	waits(1, parallel)
	for _, leave := range leaves {
		leave()
	}
	if len(gate.lines) != 0 {
		t.Errorf("lines are left: %v", gate.lines)
	}
}
