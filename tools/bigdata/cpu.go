package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"barong/db"
)

// A meter tells how much processor time a database on this machine and this program have used. On a machine that does
// other work at the same time, it says more than the time that a page took.
type meter struct {
	backends   []int // process ids
	postmaster int   // their parent
}

// newMeter finds the processes of the database. It returns nil when they are not on this machine.
func newMeter(ctx context.Context, d *db.DB) (*meter, error) {
	m := new(meter)
	err := d.Bun().NewRaw("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'").Scan(ctx, &m.backends)
	if err != nil {
		return nil, fmt.Errorf("measure: %w", err)
	}
	for _, pid := range m.backends {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || !bytes.Contains(text, []byte("(postgres")) {
			return nil, nil
		}
		if m.postmaster, err = strconv.Atoi(fields(text)[1]); err != nil {
			return nil, nil
		}
	}
	return m, nil
}

// fields are those of /proc/<pid>/stat from the third on, which is behind the name; see proc_pid_stat(5).
func fields(stat []byte) []string {
	return strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
}

// used is the processor time so far: of the backends, of the parallel workers that have ended, and of this program.
func (m *meter) used() time.Duration {
	var sum time.Duration
	for _, pid := range m.backends {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid)) // nothing when the backend has ended
		nanoseconds, _, _ := strings.Cut(string(text), " ")
		n, _ := strconv.ParseInt(nanoseconds, 10, 64)
		sum += time.Duration(n)
	}
	if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.postmaster)); err == nil {
		const tick = 10 * time.Millisecond // USER_HZ of every Linux
		for _, field := range fields(text)[13:15] {
			n, _ := strconv.ParseInt(field, 10, 64)
			sum += time.Duration(n) * tick
		}
	}
	var self syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &self) == nil {
		sum += time.Duration(self.Utime.Nano() + self.Stime.Nano())
	}
	return sum
}
