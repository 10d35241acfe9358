package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// keepInside keeps what this process knows from who looks at it from beside: no core is written when it crashes, and the
// values of secret variables and flags are blanked where the system shows them (/proc/PID/environ and cmdline).
func keepInside(variable, flag func(name string) bool) error {
	// A limit of 0 would still hand a core to a program that core_pattern names; one of 1 byte does not (core(5)).
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 1, Max: 1}); err != nil {
		return fmt.Errorf("forbid cores: %w", err)
	}
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return err
	}
	// The name of the program, in parentheses, may hold anything; the third field stands behind it.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const argStart, argEnd, envStart, envEnd = 48 - 3, 49 - 3, 50 - 3, 51 - 3
	if len(fields) <= envEnd {
		return nil // an old kernel
	}
	memory, err := os.OpenFile("/proc/self/mem", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer memory.Close()
	secretNext := false // the value is an argument by itself
	err = blank(memory, fields[argStart], fields[argEnd], func(arg string) (from int) {
		name, _, hasValue := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		switch isFlag := strings.HasPrefix(arg, "-"); {
		case secretNext && !isFlag:
			secretNext = false
			return 0
		case isFlag && flag(name) && hasValue:
			return strings.IndexByte(arg, '=') + 1
		default:
			secretNext = isFlag && flag(name)
			return -1
		}
	})
	if err != nil {
		return err
	}
	return blank(memory, fields[envStart], fields[envEnd], func(entry string) int {
		name, _, _ := strings.Cut(entry, "=")
		if !variable(name) {
			return -1
		}
		return len(name) + 1
	})
}

// blank overwrites texts of this process's memory, which end in a zero each, from where secret says; -1 leaves one as it is.
func blank(memory *os.File, start, end string, secret func(text string) (from int)) error {
	from, err1 := strconv.ParseInt(start, 10, 64)
	to, err2 := strconv.ParseInt(end, 10, 64)
	if err1 != nil || err2 != nil || to <= from {
		return nil // the system does not say where they are
	}
	all := make([]byte, to-from)
	if _, err := memory.ReadAt(all, from); err != nil {
		return err
	}
	for at := 0; at < len(all); {
		n := bytes.IndexByte(all[at:], 0)
		if n < 0 {
			n = len(all) - at
		}
		if cut := secret(string(all[at : at+n])); cut >= 0 && cut < n {
			if _, err := memory.WriteAt(bytes.Repeat([]byte("*"), n-cut), from+int64(at+cut)); err != nil {
				return err
			}
		}
		at += n + 1
	}
	return nil
}
