package redisstore

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"
)

// Questions that come while a round trip is under way share the next one, which begins once as many wait as are on their way,
// and enough of them; each gets its own answer.
func TestTogether(t *testing.T) {
	sent, answer := make(chan int, 100), make(chan struct{})
	a := newTogether(func(_ context.Context, questions []int) ([]int, error) {
		sent <- len(questions)
		<-answer
		out := slices.Clone(questions)
		for i := range out {
			out[i] *= 10
		}
		return out, nil
	})
	a.turns, a.wait = 1, time.Hour
	var all sync.WaitGroup
	next := 0
	ask := func(n int) {
		for range n {
			q := next
			next++
			all.Go(func() {
				if got, err := a.ask(t.Context(), q); err != nil || got != 10*q {
					t.Errorf("question %d: %d, %v", q, got, err)
				}
			})
		}
	}
	trip := func(want int) {
		t.Helper()
		select {
		case got := <-sent:
			if got != want {
				t.Errorf("a round trip of %d questions, want %d", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no round trip of %d questions", want)
		}
	}
	ask(1)
	trip(1)
	ask(minApart - 1)
	select {
	case n := <-sent:
		t.Errorf("a round trip of %d questions, which were to wait", n)
	case <-time.After(50 * time.Millisecond):
	}
	ask(1)
	trip(minApart)
	ask(minApart + 1)
	trip(minApart + 1) // as many as are on their way
	ask(1)             // waits for a turn
	close(answer)
	all.Wait()
	for idle := false; !idle; time.Sleep(time.Millisecond) { // the test's own time ends a wait that has none
		a.mu.Lock()
		idle = a.running == 0 && a.sent == 0 && a.next == nil
		a.mu.Unlock()
	}
}
