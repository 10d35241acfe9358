package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"barong/internal/test/testkit"
)

// testsOf are the names of all tests of the repository.
func testsOf(t *testing.T, root string) (there map[string]bool) {
	t.Helper()
	there = map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != root:
			return fs.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		b, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(b, -1) {
			there[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return there
}

// TestSecurityPage holds that docs/security.md names tests that are there, and at least one in each row.
func TestSecurityPage(t *testing.T) {
	t.Parallel()
	root := testkit.Root(t)
	there := testsOf(t, root)
	page, err := os.ReadFile(filepath.Join(root, "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for line := range strings.Lines(string(page)) {
		if !regexp.MustCompile(`^\| (\d+|[A-Z]) \|`).MatchString(line) {
			continue
		}
		rows++
		columns := strings.Split(strings.TrimSuffix(strings.TrimSpace(line), "|"), " | ")
		names := regexp.MustCompile("`((?:Test|Fuzz)\\w+)`").FindAllStringSubmatch(columns[len(columns)-1], -1)
		if len(names) == 0 {
			t.Errorf("no test: %s", line)
		}
		for _, name := range names {
			if !there[name[1]] {
				t.Errorf("there is no test %s", name[1])
			}
		}
	}
	if rows < 48 {
		t.Errorf("%d rows", rows)
	}
}

// TestReliabilityPage holds that docs/reliability.md names tests that are there, and for each promise a test, or the drills,
// which have a test of their own (TestDrillsAreDocumented).
func TestReliabilityPage(t *testing.T) {
	t.Parallel()
	root := testkit.Root(t)
	there := testsOf(t, root)
	page, err := os.ReadFile(filepath.Join(root, "docs", "reliability.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range regexp.MustCompile("`(Test\\w+)").FindAllStringSubmatch(string(page), -1) {
		if !there[name[1]] {
			t.Errorf("there is no test %s", name[1])
		}
	}
	_, promises, _ := strings.Cut(string(page), "\n## Promises\n")
	promises, _, _ = strings.Cut(promises, "\n## ")
	rows := 0
	for line := range strings.Lines(promises) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| Promise |") || strings.HasPrefix(line, "| --- |") {
			continue
		}
		rows++
		columns := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if len(columns) != 4 || strings.TrimSpace(columns[2]) == "" || !regexp.MustCompile("`Test\\w+|drill|`make soak`").MatchString(columns[3]) {
			t.Errorf("no figure, or nothing that measures it again: %s", line)
		}
	}
	if rows < 9 {
		t.Errorf("%d promises", rows)
	}
}
