package systemtest

import (
	"sync"
	"testing"
	"time"
)

// Replicas are restarted one after the other under load: whoever asks one that serves is answered, and nobody is logged
// out.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	c := newCluster(t, true)
	at := c.open(c.person(false))
	stop := make(chan struct{})
	var callers sync.WaitGroup
	asked := 0
	callers.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			// As a gateway does, go to the other one when the first does not accept.
			r := at.at(c.a).checkPatiently(account)
			if r.err != nil {
				r = at.at(c.b).checkPatiently(account)
			}
			if r.status != 200 {
				t.Errorf("a check while replicas are restarted: got %s", r)
				return
			}
			asked++
			time.Sleep(time.Millisecond)
		}
	})
	for _, s := range []*server{c.a, c.b, c.a} {
		s.stop()
		s.start()
		at.at(s).checkPatiently(account).wants(t, "a replica that has just started", 200)
	}
	close(stop)
	callers.Wait()
	t.Logf("%d checks passed meanwhile", asked)
}
