// Release writes into dist/ what a version is published as: the program for each system, packed and as packages, what it is
// made of, and the checksums of all. The same commit gives the same bytes: times are the commit's, paths are trimmed, and
// nothing of the machine goes in.
//
//	go run ./release [-only linux/amd64] [-out dist]
//
// What needs a key or a registry is left to whoever publishes: docs/release.md.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/apk"
	_ "github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"

	"barong/internal/test/testkit"
)

// targets are the systems that a version is published for.
var targets = []string{"linux/amd64", "linux/arm64", "darwin/amd64", "darwin/arm64"}

func main() {
	only := flag.String("only", "", "this system alone, such as linux/amd64")
	out := flag.String("out", "", "folder to write; dist at the root without it")
	flag.Parse()
	list := targets
	if *only != "" {
		list = []string{*only}
	}
	if err := run(*out, list); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// A release is one version on its way into a folder.
type release struct {
	root, out       string
	main            string // package of the program
	version, commit string
	time            time.Time
	written         []string // names of the files in out
}

func run(out string, list []string) error {
	root, err := testkit.FindRoot()
	if err != nil {
		return err
	}
	if out == "" {
		out = filepath.Join(root, "dist")
	}
	r := &release{root: root, out: out, main: "./cmd/barong"}
	if err := r.identify(); err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	for _, target := range list {
		if !slices.Contains(targets, target) {
			return fmt.Errorf("%s is none of %s", target, strings.Join(targets, ", "))
		}
		system, arch, _ := strings.Cut(target, "/")
		if err := r.build(system, arch); err != nil {
			return fmt.Errorf("%s: %w", target, err)
		}
	}
	if err := r.chart(); err != nil {
		return fmt.Errorf("chart: %w", err)
	}
	return r.checksums()
}

// identify takes version and time from the repository: a tag, else 0.0.0 and the commit.
func (r *release) identify() error {
	commit, err := r.git("rev-parse", "HEAD")
	if err != nil {
		return fmt.Errorf("a release is made of a commit: %w", err)
	}
	stamp, err := r.git("log", "-1", "--format=%cI")
	if err != nil {
		return err
	}
	if r.time, err = time.Parse(time.RFC3339, stamp); err != nil {
		return err
	}
	r.time, r.commit, r.version = r.time.UTC(), commit, "0.0.0-"+commit[:12]
	if tag, err := r.git("describe", "--tags", "--exact-match"); err == nil {
		r.version = strings.TrimPrefix(tag, "v")
	}
	return nil
}

func (r *release) git(args ...string) (string, error) {
	c := exec.Command("git", args...)
	c.Dir = r.root
	out, err := c.Output()
	return strings.TrimSpace(string(out)), err
}

// build makes everything for one system.
func (r *release) build(system, arch string) error {
	tmp, err := os.MkdirTemp("", "barong-release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	program := filepath.Join(tmp, "barong")
	if err := r.compile(system, arch, program); err != nil {
		return err
	}
	return r.publish(system, arch, program)
}

// compile builds the program for one system, with its version in it and nothing of this machine.
func (r *release) compile(system, arch, program string) error {
	const stamped = "barong/internal/obs"
	flags := fmt.Sprintf("-s -w -buildid= -X %s.commit=%s -X %s.date=%s", stamped, r.commit, stamped, r.time.Format(time.RFC3339))
	if !strings.HasPrefix(r.version, "0.0.0-") {
		flags += fmt.Sprintf(" -X %s.tag=%s", stamped, r.version)
	}
	c := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", program, r.main)
	c.Dir, c.Env = r.root, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOOS="+system, "GOARCH="+arch)
	if text, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, text)
	}
	return nil
}

// publish writes what one system gets of a program.
func (r *release) publish(system, arch, program string) error {
	name := fmt.Sprintf("barong_%s_%s_%s", r.version, system, arch)
	if err := r.pack(name, program); err != nil {
		return err
	}
	if err := r.contents(name, program); err != nil {
		return err
	}
	if system != "linux" {
		return nil
	}
	for _, format := range []string{"deb", "apk"} {
		if err := r.packages(format, name, arch, program); err != nil {
			return fmt.Errorf("%s: %w", format, err)
		}
	}
	return nil
}

func (r *release) write(name string, content []byte) error {
	r.written = append(r.written, name)
	return os.WriteFile(filepath.Join(r.out, name), content, 0o644)
}

// gateways are the reference configurations, below the root.
var gateways = []string{"envoy/*.yaml", "envoy/*.yml", "envoy/*.conf", "envoy/*.cfg", "envoy/*.lua", "envoy/Caddyfile"}

// A packed is a file of an archive.
type packed struct {
	name string
	mode int64
	text []byte
}

// pack writes the archive: the program, what its licence asks to go with it, and the configurations of gateways.
func (r *release) pack(name, program string) error {
	type file struct {
		name, path string
		mode       int64
	}
	files := []file{{"barong", program, 0o755}}
	for _, pattern := range append([]string{"LICENSE", "NOTICE", "README.md"}, gateways...) {
		paths, err := filepath.Glob(filepath.Join(r.root, pattern))
		if err != nil || len(paths) == 0 {
			return errors.Join(fmt.Errorf("there is no %s", pattern), err)
		}
		for _, path := range paths {
			rel, err := filepath.Rel(r.root, path)
			if err != nil {
				return err
			}
			files = append(files, file{filepath.ToSlash(rel), path, 0o644})
		}
	}
	var all []packed
	for _, f := range files {
		text, err := os.ReadFile(f.path)
		if err != nil {
			return err
		}
		all = append(all, packed{name + "/" + f.name, f.mode, text})
	}
	return r.archive(name+".tar.gz", all)
}

// chart writes the Helm chart, of the version of the program. What .helmignore names stays out.
func (r *release) chart() error {
	folder := filepath.Join(r.root, "deploy", "helm", "barong")
	version := r.version
	if commit, ok := strings.CutPrefix(version, "0.0.0-"); ok {
		version = "0.0.0-g" + commit // a commit of digits alone is no version that Helm takes
	}
	all := []packed{}
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if err == nil && d.Name() == "ci" {
				return filepath.SkipDir
			}
			return err
		}
		name, err := filepath.Rel(folder, path)
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if name == "Chart.yaml" {
			text = bytes.Replace(text, []byte("\nversion: 0.0.0\n"), []byte("\nversion: "+version+"\n"), 1)
			text = bytes.Replace(text, []byte("\nappVersion: latest\n"), []byte("\nappVersion: "+r.version+"\n"), 1)
		}
		all = append(all, packed{"barong/" + filepath.ToSlash(name), 0o644, text})
		return nil
	})
	if err != nil {
		return err
	}
	return r.archive("barong-"+version+".tgz", all)
}

// archive writes files into an archive.
func (r *release) archive(name string, all []packed) error {
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return err
	}
	t := tar.NewWriter(z)
	for _, f := range all {
		h := &tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.text)), ModTime: r.time, Format: tar.FormatPAX}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := t.Write(f.text); err != nil {
			return err
		}
	}
	if err := errors.Join(t.Close(), z.Close()); err != nil {
		return err
	}
	return r.write(name, out.Bytes())
}

// contents writes what the program is made of, as the program itself says it (CycloneDX 1.6).
func (r *release) contents(name, program string) error {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return err
	}
	ours := cdx.Component{
		BOMRef: "barong", Type: cdx.ComponentTypeApplication, Name: "barong", Version: r.version,
		PackageURL: "pkg:golang/barong@" + r.version,
		Licenses:   &cdx.Licenses{{License: &cdx.License{ID: "Apache-2.0"}}},
	}
	uses := []string{}
	components := []cdx.Component{{
		BOMRef: "std", Type: cdx.ComponentTypeLibrary, Name: "std", Version: info.GoVersion,
		PackageURL: "pkg:golang/std@" + strings.TrimPrefix(info.GoVersion, "go"),
	}}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		one := cdx.Component{
			BOMRef: m.Path + "@" + m.Version, Type: cdx.ComponentTypeLibrary, Name: m.Path, Version: m.Version,
			PackageURL: "pkg:golang/" + m.Path + "@" + m.Version,
		}
		if sum, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(m.Sum, "h1:")); err == nil && len(sum) == sha256.Size {
			one.Hashes = &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex.EncodeToString(sum)}}
		}
		components = append(components, one)
	}
	for _, c := range components {
		uses = append(uses, c.BOMRef)
	}
	bom := cdx.NewBOM()
	bom.Metadata = &cdx.Metadata{Timestamp: r.time.Format(time.RFC3339), Component: &ours}
	bom.Components = &components
	bom.Dependencies = &[]cdx.Dependency{{Ref: ours.BOMRef, Dependencies: &uses}}
	var text bytes.Buffer
	if err := cdx.NewBOMEncoder(&text, cdx.BOMFileFormatJSON).SetPretty(true).EncodeVersion(bom, cdx.SpecVersion1_6); err != nil {
		return err
	}
	return r.write(name+".cdx.json", text.Bytes())
}

// packages writes the program with its service as a package of a distribution.
func (r *release) packages(format, name, arch, program string) error {
	file := func(source, destination, kind string, mode os.FileMode) *files.Content {
		return &files.Content{Source: source, Destination: destination, Type: kind, FileInfo: &files.ContentFileInfo{Owner: "root", Group: "root", Mode: mode, MTime: r.time}}
	}
	deploy := func(path string) string { return filepath.Join(r.root, "deploy", filepath.FromSlash(path)) }
	info := nfpm.WithDefaults(&nfpm.Info{
		Name: "barong", Arch: arch, Platform: "linux", Version: r.version, Section: "net", Priority: "optional",
		Maintainer: "barong maintainers <maintainers@barong.invalid>", License: "Apache-2.0", MTime: r.time,
		Description: "Authentication gateway: decides the requests of Envoy, Traefik, nginx and Caddy,\nand serves the API in which accounts, sessions and rules live.",
		Overridables: nfpm.Overridables{
			Contents: files.Contents{
				file(program, "/usr/bin/barong", "", 0o755),
				file(deploy("systemd/barong.service"), "/usr/lib/systemd/system/barong.service", "", 0o644),
				file(deploy("systemd/barong.env"), "/etc/barong/barong.env", "config|noreplace", 0o640),
				file(filepath.Join(r.root, "LICENSE"), "/usr/share/doc/barong/copyright", "", 0o644),
				file(filepath.Join(r.root, "NOTICE"), "/usr/share/doc/barong/NOTICE", "", 0o644),
			},
			Scripts: nfpm.Scripts{PostInstall: deploy("package/postinstall.sh"), PreRemove: deploy("package/preremove.sh")},
		},
	})
	packager, err := nfpm.Get(format)
	if err != nil {
		return err
	}
	if err := nfpm.PrepareForPackager(info, format); err != nil {
		return err
	}
	var packed bytes.Buffer
	if err := packager.Package(info, &packed); err != nil {
		return err
	}
	return r.write(name+"."+format, packed.Bytes())
}

// checksums writes SHA-256 of everything, as sha256sum -c reads it.
func (r *release) checksums() error {
	slices.Sort(r.written)
	var text strings.Builder
	for _, name := range r.written {
		f, err := os.Open(filepath.Join(r.out, name))
		if err != nil {
			return err
		}
		hash := sha256.New()
		_, err = io.Copy(hash, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		fmt.Fprintf(&text, "%x  %s\n", hash.Sum(nil), name)
	}
	return os.WriteFile(filepath.Join(r.out, "SHA256SUMS"), []byte(text.String()), 0o644)
}
