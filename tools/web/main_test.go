package main

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/andybalholm/brotli"
)

// TestBundleIsBuiltFromTheSources holds what is committed in web/dist to what the sources make. Compressed forms are held
// to what they hold: another release of Go may pack otherwise.
func TestBundleIsBuiltFromTheSources(t *testing.T) {
	root, err := findRoot()
	if err != nil {
		t.Fatal(err)
	}
	want, err := build(root)
	if err != nil {
		t.Fatal(err)
	}
	const remedy = `run "make web", and commit web/dist`
	dist := filepath.Join(root, "web", "dist")
	have, err := os.ReadDir(dist)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range have {
		if _, ok := want[f.Name()]; !ok {
			t.Errorf("web/dist/%s comes from no source: %s", f.Name(), remedy)
		}
	}
	for name, data := range want {
		got, err := os.ReadFile(filepath.Join(dist, name))
		if err != nil {
			t.Errorf("%v: %s", err, remedy)
			continue
		}
		var unpack io.Reader
		switch filepath.Ext(name) {
		case ".gz":
			if unpack, err = gzip.NewReader(bytes.NewReader(got)); err != nil {
				t.Errorf("web/dist/%s: %v", name, err)
				continue
			}
		case ".br":
			unpack = brotli.NewReader(bytes.NewReader(got))
		}
		if unpack != nil {
			if got, err = io.ReadAll(unpack); err != nil {
				t.Errorf("web/dist/%s: %v", name, err)
			}
			data = want[name[:len(name)-len(filepath.Ext(name))]]
		}
		if !bytes.Equal(got, data) {
			t.Errorf("web/dist/%s is stale: %s", name, remedy)
		}
	}
	again, err := build(root)
	if err != nil {
		t.Fatal(err)
	}
	for name := range want {
		if !bytes.Equal(again[name], want[name]) {
			t.Errorf("%s is another one the second time", name)
		}
	}
}

// TestTypes has the TypeScript compiler check the sources, strictly.
func TestTypes(t *testing.T) {
	root, err := findRoot()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(root, ".tools", "servers", "node"), filepath.Join(root, ".tools", "npm", "node_modules", "typescript", "bin", "tsc"), "-p", "web")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
