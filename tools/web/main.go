// Command web builds the pages: the bundle in web/dist from the sources in web/src, with esbuild. It needs Go and the
// packages of npm that "make tools" brings, and no Node. The same sources give the same bytes.
package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/evanw/esbuild/pkg/api"
)

func main() {
	log.SetFlags(0)
	root, err := findRoot()
	if err != nil {
		log.Fatal("web: ", err)
	}
	files, err := build(root)
	if err != nil {
		log.Fatal("web: ", err)
	}
	if err := write(filepath.Join(root, "web", "dist"), files); err != nil {
		log.Fatal("web: ", err)
	}
}

// findRoot goes up from the working directory to the top of the project.
func findRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "web", "web.go")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("not inside the project")
		}
		dir = up
	}
}

// write replaces what is in a folder by these files.
func write(folder string, files map[string][]byte) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	old, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, f := range old {
		if _, kept := files[f.Name()]; !kept {
			if err := os.Remove(filepath.Join(folder, f.Name())); err != nil {
				return err
			}
		}
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(folder, name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// The manifest tells the server what was made; see web.manifest. It stands here again, since a build must not need the bundle
// that package web cannot be compiled without.
type manifest struct {
	Style     string     `json:"style"`
	Icon      string     `json:"icon"`
	Portal    entry      `json:"portal"`
	Console   entry      `json:"console"`
	Languages []language `json:"languages"`
}

type entry struct {
	Script  string   `json:"script"`
	Imports []string `json:"imports"`
}

type language struct {
	Tag       string   `json:"tag"`
	Name      string   `json:"name"`
	Direction string   `json:"direction"`
	Portal    []string `json:"portal"`
	Console   []string `json:"console"`
}

// languages are those that come with the program. English is part of the scripts.
var languages = []string{"en", "ru"}

// build makes all files of the bundle.
func build(root string) (map[string][]byte, error) {
	const src = "web/src/"
	have := func(name string) bool {
		_, err := os.Stat(filepath.Join(root, src, name))
		return err == nil
	}
	entries := []string{src + "portal.tsx", src + "style.css"}
	if have("console.tsx") {
		entries = append(entries, src+"console.tsx")
	}
	result := api.Build(api.BuildOptions{
		AbsWorkingDir: root, EntryPoints: entries, Outdir: "web/dist", Outbase: src,
		EntryNames: "[name]-[hash]", ChunkNames: "chunk-[hash]", AssetNames: "[name]-[hash]",
		Bundle: true, Splitting: true, Format: api.FormatESModule, Target: api.ES2022, Charset: api.CharsetUTF8,
		MinifyWhitespace: true, MinifyIdentifiers: true, MinifySyntax: true, LegalComments: api.LegalCommentsNone,
		JSX: api.JSXAutomatic, JSXImportSource: "preact",
		NodePaths: []string{filepath.Join(root, ".tools", "npm", "node_modules")}, PreserveSymlinks: true,
		TsconfigRaw: `{"compilerOptions":{"jsx":"react-jsx","jsxImportSource":"preact"}}`, // not the paths of the type check
		Metafile:    true, LogLevel: api.LogLevelSilent,
	})
	if len(result.Errors) > 0 {
		return nil, errors.New(strings.Join(api.FormatMessages(result.Errors, api.FormatMessagesOptions{}), "\n"))
	}
	b := bundle{files: map[string][]byte{}}
	for _, f := range result.OutputFiles {
		if err := b.add(filepath.Base(f.Path), f.Contents); err != nil {
			return nil, err
		}
	}
	m, err := b.readMeta(result.Metafile)
	if err != nil {
		return nil, err
	}
	icon, err := os.ReadFile(filepath.Join(root, src, "icon.svg"))
	if err != nil {
		return nil, err
	}
	if m.Icon, err = b.addHashed("icon", ".svg", icon); err != nil {
		return nil, err
	}
	for _, tag := range languages {
		l := language{Tag: tag, Direction: "ltr", Portal: []string{}, Console: []string{}}
		for prefix, to := range map[string]*[]string{"": &l.Portal, "console.": &l.Console} {
			if !have("lang/" + prefix + tag + ".json") {
				continue
			}
			text, err := os.ReadFile(filepath.Join(root, src, "lang", prefix+tag+".json"))
			if err != nil {
				return nil, err
			}
			var words map[string]string
			if err := json.Unmarshal(text, &words); err != nil {
				return nil, fmt.Errorf("%s%s.json: %w", prefix, tag, err)
			}
			if prefix == "" {
				l.Name = words["language"]
				l.Direction = words["direction"]
			}
			if tag == "en" {
				continue
			}
			compact, err := json.Marshal(words) // its keys are in order
			if err != nil {
				return nil, err
			}
			name, err := b.addHashed(prefix+tag, ".json", compact)
			if err != nil {
				return nil, err
			}
			*to = append(*to, name)
		}
		m.Languages = append(m.Languages, l)
	}
	text, err := json.MarshalIndent(m, "", "\t")
	if err != nil {
		return nil, err
	}
	b.files["manifest.json"] = append(text, '\n')
	return b.files, nil
}

// A bundle is what has been made, by name.
type bundle struct{ files map[string][]byte }

func (b *bundle) addHashed(name, ext string, data []byte) (string, error) {
	sum := sha256.Sum256(data)
	name += "-" + base32.StdEncoding.EncodeToString(sum[:])[:8] + ext
	return name, b.add(name, data)
}

// add takes a file in, with its compressed forms.
func (b *bundle) add(name string, data []byte) error {
	b.files[name] = data
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := z.Write(data); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	b.files[name+".gz"] = bytes.Clone(packed.Bytes())
	packed.Reset()
	w := brotli.NewWriterLevel(&packed, brotli.BestCompression)
	if _, err := w.Write(data); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	b.files[name+".br"] = bytes.Clone(packed.Bytes())
	return nil
}

// readMeta learns from esbuild which file is what.
func (b *bundle) readMeta(text string) (*manifest, error) {
	var meta struct {
		Outputs map[string]struct {
			EntryPoint string
			Imports    []struct{ Path, Kind string }
		}
	}
	if err := json.Unmarshal([]byte(text), &meta); err != nil {
		return nil, err
	}
	m := &manifest{}
	// imports are the files that a file cannot do without, by way of others too.
	var imports func(output string, list []string) []string
	imports = func(output string, list []string) []string {
		for _, i := range meta.Outputs[output].Imports {
			if i.Kind == "import-statement" && !slices.Contains(list, path.Base(i.Path)) {
				list = imports(i.Path, append(list, path.Base(i.Path)))
			}
		}
		return list
	}
	for output, o := range meta.Outputs {
		e := entry{Script: path.Base(output), Imports: imports(output, []string{})}
		slices.Sort(e.Imports)
		switch path.Base(o.EntryPoint) {
		case "portal.tsx":
			m.Portal = e
		case "console.tsx":
			m.Console = e
		case "style.css":
			m.Style = e.Script
		}
	}
	if m.Console.Imports == nil {
		m.Console.Imports = []string{}
	}
	return m, nil
}
