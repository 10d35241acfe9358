package main

import (
	"bytes"
	"io"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"barong/internal/test/testkit"
)

// TestRun makes a small data set, and measures and explains every list on it.
func TestRun(t *testing.T) {
	args := []string{"-url", testkit.Postgres(t), "-users", "600", "-activities", "3000"}
	if err := run(t.Context(), append(args, "generate"), io.Discard); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := run(t.Context(), append(args, "measure"), &out); err != nil {
		t.Fatal(err)
	}
	var users, activities int64
	for _, m := range regexp.MustCompile(`(?m)^\| no filter \| (\d+) \|`).FindAllStringSubmatch(out.String(), -1) {
		n, err := strconv.ParseInt(m[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case users == 0:
			users = n
		case n >= 100: // not the few documents that wait
			activities += n
		}
	}
	if users != 600 || activities != 3000 {
		t.Errorf("%d users and %d activities are listed:\n%s", users, activities, out.String())
	}
	out.Reset()
	if err := run(t.Context(), append(args, "-only", "/admin/users: role=member$", "explain"), &out); err != nil {
		t.Fatal(err)
	}
	if text := out.String(); strings.Count(text, "=====") != 1 || !strings.Contains(text, "Execution Time") {
		t.Errorf("explained:\n%s", text)
	}
}

func TestRunRefuses(t *testing.T) {
	for _, args := range [][]string{{}, {"measure"}, {"-url", "x", "measure"}, {"-end", "never", "measure"}, {"-only", "(", "measure"}} {
		if err := run(t.Context(), args, io.Discard); err == nil {
			t.Errorf("run(%q) did not fail", args)
		}
	}
}
