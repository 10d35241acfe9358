package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// processorTime is how much of a processor a process has used so far, all threads together, user and system. The
// process's own clock counts nanoseconds where /proc counts ticks of ten milliseconds.
func processorTime(pid int) (time.Duration, error) {
	clock := int32(^pid<<3 | 2) // CPUCLOCK_SCHED of another process; see clock_getcpuclockid(3)
	var t unix.Timespec
	if err := unix.ClockGettime(clock, &t); err != nil {
		return 0, fmt.Errorf("read the processor clock of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

// countInstructions counts the instructions that the threads of a process run outside the kernel, until the function that it
// returns is called, which says how many. Machines without such a counter, or that keep it to root, return an error
// (perf_event_open(2)).
func countInstructions(pid int) (end func() (int64, error), err error) {
	attr := unix.PerfEventAttr{
		Type: unix.PERF_TYPE_HARDWARE, Config: unix.PERF_COUNT_HW_INSTRUCTIONS, Size: unix.PERF_ATTR_SIZE_VER0,
		Bits: unix.PerfBitExcludeKernel | unix.PerfBitExcludeHv | unix.PerfBitInherit,
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil, err
	}
	var counters []int
	closeAll := func() {
		for _, fd := range counters {
			_ = unix.Close(fd) // it was only read from
		}
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			continue
		}
		fd, err := unix.PerfEventOpen(&attr, id, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if errors.Is(err, unix.ESRCH) {
			continue // it has ended
		}
		if err != nil {
			closeAll()
			return nil, fmt.Errorf("count instructions: %w", err)
		}
		counters = append(counters, fd)
	}
	return func() (sum int64, err error) {
		defer closeAll()
		for _, fd := range counters {
			var count [8]byte
			if _, err := unix.Read(fd, count[:]); err != nil {
				return 0, fmt.Errorf("count instructions: %w", err)
			}
			sum += int64(binary.NativeEndian.Uint64(count[:]))
		}
		return sum, nil
	}, nil
}

// cores are the processors that this process may use.
func cores() []int {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil {
		return nil
	}
	var list []int
	for i := range len(set) * 64 {
		if set.IsSet(i) {
			list = append(list, i)
		}
	}
	return list
}

// startOn starts a command on one processor, to which it and its threads stay bound. Go then takes one P for it.
func startOn(core int, c *exec.Cmd) error {
	runtime.LockOSThread() // the child inherits the mask of the thread that forks it
	defer runtime.UnlockOSThread()
	var before, set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return err
	}
	set.Set(core)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return err
	}
	defer func() { _ = unix.SchedSetaffinity(0, &before) }()
	// Should this program die, its servers do too.
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return c.Start()
}

// bindTo starts this program anew, bound to one processor, so that the runtime sees no other from its beginning.
func bindTo(core int) error {
	runtime.LockOSThread()
	var set unix.CPUSet
	set.Set(core)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return syscall.Exec(self, os.Args, os.Environ())
}
