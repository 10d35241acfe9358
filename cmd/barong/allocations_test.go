package main_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var testName = regexp.MustCompile(`(?m)^func (Test\w+)\(`)

// TestWhatCountsAllocationsSaysSo holds that the tests that the race detector leaves out run at all: make test runs them
// without it, by the Allocat… in their names.
func TestWhatCountsAllocationsSaysSo(t *testing.T) {
	found := 0
	err := fs.WalkDir(os.DirFS("../.."), ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (path == "tools" || path == "web" || path != "." && strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(filepath.Join("../..", path))
		if err != nil || !bytes.HasPrefix(text, []byte("//go:build !race\n")) {
			return err
		}
		for _, m := range testName.FindAllSubmatch(text, -1) {
			found++
			if !bytes.Contains(m[1], []byte("Allocat")) {
				t.Errorf("%s: nothing runs %s", path, m[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found == 0 {
		t.Error("no test counts allocations")
	}
}
