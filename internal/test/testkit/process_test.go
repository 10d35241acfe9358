package testkit

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestPauseStopsEveryProcess pauses a Postgres that is making processes all the time.
func TestPauseStopsEveryProcess(t *testing.T) {
	pg := PostgresServer(t)
	ctx, stop := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	for range 6 {
		callers.Go(func() {
			for ctx.Err() == nil {
				calling, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
				if c, err := pgx.Connect(calling, pg.URL); err == nil {
					c.Close(context.Background())
				}
				cancel()
			}
		})
	}
	defer callers.Wait()
	defer stop()
	for range 20 {
		time.Sleep(30 * time.Millisecond)
		pg.Pause()
		time.Sleep(10 * time.Millisecond) // a signal takes a moment
		for _, pid := range descendants(pg.process.Pid) {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err != nil {
				t.Fatal(err)
			}
			state := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))[0]
			if state != "T" && state != "Z" {
				t.Errorf("process %d goes on: state %s", pid, state)
			}
		}
		pg.Resume()
	}
}
