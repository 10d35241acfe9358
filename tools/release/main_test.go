package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/blakesmith/ar"
	"github.com/coreos/go-systemd/v22/unit"

	"barong/internal/test/testkit"
)

// What is published holds the program, packages that install its service, and a list of what it is made of; and it is the
// same, byte by byte, when it is made again. A small program of this module stands for the whole one, which takes minutes.
func TestRelease(t *testing.T) {
	r := &release{root: testkit.Root(t), main: "./internal/config/reference"}
	if err := r.identify(); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "barong")
	if err := r.compile("linux", runtime.GOARCH, program); err != nil {
		t.Fatal(err)
	}
	compiled, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(compiled, []byte(r.root)) {
		t.Errorf("the program names the folder that it was built in, %s", r.root)
	}
	for _, name := range []string{"tag", "commit", "date"} { // what the linker writes the version into
		if !regexp.MustCompile(`(?m)^(var |\t)` + name + `\b.*string`).MatchString(read(t, r.root, "internal/obs/build.go")) {
			t.Errorf("internal/obs has no text %s", name)
		}
	}

	var sums [2][]byte
	for i := range sums {
		r.out, r.written = t.TempDir(), nil
		if err := errors.Join(r.publish("linux", runtime.GOARCH, program), r.chart(), r.checksums()); err != nil {
			t.Fatal(err)
		}
		if sums[i], err = os.ReadFile(filepath.Join(r.out, "SHA256SUMS")); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(sums[0], sums[1]) {
		t.Errorf("made twice:\n%s\n%s", sums[0], sums[1])
	}

	name := "barong_" + r.version + "_linux_" + runtime.GOARCH
	file := func(suffix string) []byte {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(r.out, name+suffix))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	packed := untar(t, file(".tar.gz"))
	if got := packed[name+"/barong"]; !bytes.Equal(got, compiled) {
		t.Errorf("the archive has another program, of %d bytes", len(got))
	}
	for _, gateway := range []string{"envoy.yaml", "envoy-grpc.yaml", "traefik.yml", "traefik-dynamic.yml", "Caddyfile", "nginx.conf", "haproxy.cfg", "haproxy.lua"} {
		if string(packed[name+"/envoy/"+gateway]) != read(t, r.root, "envoy/"+gateway) {
			t.Errorf("the archive has no envoy/%s", gateway)
		}
	}
	version := strings.Replace(r.version, "0.0.0-", "0.0.0-g", 1)
	text, err := os.ReadFile(filepath.Join(r.out, "barong-"+version+".tgz"))
	if err != nil {
		t.Fatal(err)
	}
	chart := untar(t, text)
	if got := string(chart["barong/Chart.yaml"]); !strings.Contains(got, "\nversion: "+version+"\n") || !strings.Contains(got, "\nappVersion: "+r.version+"\n") {
		t.Errorf("the chart is of another version:\n%s", got)
	}
	if chart["barong/templates/deployment.yaml"] == nil || chart["barong/values.schema.json"] == nil || chart["barong/ci/minimal-values.yaml"] != nil {
		t.Errorf("the chart has %d files", len(chart))
	}
	for kind, content := range map[string]map[string][]byte{"deb": debData(t, file(".deb")), "apk": untar(t, file(".apk"))} {
		for path, want := range map[string]string{
			"usr/bin/barong": string(compiled), "etc/barong/barong.env": read(t, r.root, "deploy/systemd/barong.env"),
			"usr/lib/systemd/system/barong.service": read(t, r.root, "deploy/systemd/barong.service"),
		} {
			if string(content[path]) != want {
				t.Errorf("%s: %s has %d bytes, want %d", kind, path, len(content[path]), len(want))
			}
		}
	}
	var bom struct {
		SpecVersion string
		Components  []struct{ Name, Version, PURL string }
	}
	if err := json.Unmarshal(file(".cdx.json"), &bom); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, c := range bom.Components {
		found = found || c.Name == "go.yaml.in/yaml/v3" && c.PURL == "pkg:golang/go.yaml.in/yaml/v3@"+c.Version
	}
	if bom.SpecVersion != "1.6" || !found {
		t.Errorf("the list of contents, %s, has no YAML among %d components", bom.SpecVersion, len(bom.Components))
	}
}

// The unit starts the program where the packages put it, as the user that they make, with the settings that they bring.
func TestUnit(t *testing.T) {
	root := testkit.Root(t)
	options, err := unit.DeserializeOptions(strings.NewReader(read(t, root, "deploy/systemd/barong.service")))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, o := range options {
		got[o.Section+"."+o.Name] = o.Value
	}
	for name, want := range map[string]string{
		"Service.ExecStart": "/usr/bin/barong serve", "Service.User": "barong", "Service.EnvironmentFile": "/etc/barong/barong.env",
		"Service.NoNewPrivileges": "yes", "Service.ProtectSystem": "strict", "Service.StateDirectory": "barong", "Install.WantedBy": "multi-user.target",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	// Each setting that the file suggests is one that there is.
	page := read(t, root, "docs/configuration.md")
	for line := range strings.Lines(read(t, root, "deploy/systemd/barong.env")) {
		name, _, ok := strings.Cut(strings.TrimPrefix(line, "#"), "=")
		name = strings.TrimSuffix(name, "_FILE")
		if ok && strings.HasPrefix(name, "BARONG_") && !strings.Contains(page, "`"+name+"`") {
			t.Errorf("docs/configuration.md has no %s", name)
		}
	}
	for _, script := range []string{"postinstall.sh", "preremove.sh"} {
		if out, err := exec.Command("sh", "-n", filepath.Join(root, "deploy", "package", script)).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", script, err, out)
		}
	}
}

func read(t *testing.T, root, path string) string {
	t.Helper()
	text, err := fs.ReadFile(os.DirFS(root), path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// untar is what a packed archive holds, by name.
func untar(t *testing.T, packed []byte) map[string][]byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for archive := tar.NewReader(z); ; {
		h, err := archive.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		out[strings.TrimPrefix(h.Name, "./")] = text
	}
}

// debData is what a Debian package installs, by name.
func debData(t *testing.T, deb []byte) map[string][]byte {
	t.Helper()
	for archive := ar.NewReader(bytes.NewReader(deb)); ; {
		h, err := archive.Next()
		if err != nil {
			t.Fatalf("the package has no data.tar.gz: %v", err)
		}
		if strings.TrimSuffix(h.Name, "/") != "data.tar.gz" {
			continue
		}
		text, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		return untar(t, text)
	}
}
