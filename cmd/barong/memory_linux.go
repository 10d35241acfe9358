package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// releaseProgram takes the pages of the program's own file out of this process's memory and returns how many bytes of
// address space that is about. Most of them were only needed once, by the start; those that are still needed come back
// from the system's cache one by one. Mappings with pages that differ from the file are left alone (proc(5), smaps).
//
// Eight seconds after a start and 50 checks later 43 MiB are resident with it and 58 without, which is what a sidecar is
// charged for in each pod. Remove it when a program that is smaller stays below 40 MiB by itself.
func releaseProgram() (released uintptr, err error) {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return 0, err
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var start, end uintptr // of a mapping that may be released, once it is known to be as in the file
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := lines.Text()
		if name, value, ok := strings.Cut(line, ":"); ok && !strings.Contains(name, " ") {
			if name == "Anonymous" && end > start && strings.TrimSpace(value) == "0 kB" {
				if _, _, e := syscall.Syscall(syscall.SYS_MADVISE, start, end-start, syscall.MADV_DONTNEED); e != 0 {
					return released, fmt.Errorf("madvise: %w", e)
				}
				released += end - start
			}
			continue
		}
		start, end = 0, 0
		fields := strings.Fields(line)
		if len(fields) < 6 || fields[1][1] == 'w' || fields[5] != program {
			continue
		}
		from, to, _ := strings.Cut(fields[0], "-")
		a, err1 := strconv.ParseUint(from, 16, 64)
		b, err2 := strconv.ParseUint(to, 16, 64)
		if err1 == nil && err2 == nil {
			start, end = uintptr(a), uintptr(b)
		}
	}
	return released, lines.Err()
}
