package main

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/evanw/esbuild/pkg/api"

	"barong/api/admin"
	"barong/api/identity"
	"barong/api/openapi"
	"barong/api/resource"
	"barong/internal/fault"
)

// codes are all that the API can refuse with: those of the catalogue, and those that each route spells from its parameters.
func codes(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, e := range fault.Catalogue() {
		all = append(all, string(e.Code))
	}
	raw, err := openapi.Document(openapi.Options{
		Routes:  slices.Concat(identity.New(identity.Options{}).Routes(), resource.New(resource.Options{}).Routes(), admin.New(admin.Options{}).Routes()),
		Version: "0.0.0", Prefix: "api/v2/barong",
	})
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]struct {
			Responses map[string]struct {
				Codes []string `json:"x-codes"`
			}
		}
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	for _, operations := range doc.Paths {
		for _, o := range operations {
			for _, r := range o.Responses {
				for _, code := range r.Codes {
					if code == "upload.<sentence>" {
						all = append(all, `upload.You are not allowed to upload "txt" files, allowed types: jpg`, "upload.File size should be less than 10 MB")
						continue
					}
					all = append(all, code)
				}
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// TestWords has the pages put every code that the API can give into words: none falls back to "that was refused", no
// value is left out, and a code about a parameter names it by its label.
func TestWords(t *testing.T) {
	root, err := findRoot()
	if err != nil {
		t.Fatal(err)
	}
	built := api.Build(api.BuildOptions{
		AbsWorkingDir: root, Bundle: true, Write: false, Format: api.FormatESModule, Platform: api.PlatformNode, LogLevel: api.LogLevelSilent,
		NodePaths: []string{filepath.Join(root, ".tools", "npm", "node_modules")}, TsconfigRaw: "{}",
		Banner: map[string]string{"js": `globalThis.document={querySelector:()=>({content:'{"languages":[{"tag":"en"}]}'})};globalThis.location={};`},
		Stdin: &api.StdinOptions{ResolveDir: root, Loader: api.LoaderTS, Contents: `
			import { readFileSync } from "node:fs";
			import { explain } from "./web/src/faults";
			import { addWords } from "./web/src/i18n";
			import words from "./web/src/lang/console.en.json";
			addWords(words);
			console.log(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map(explain)));`},
	})
	if len(built.Errors) > 0 {
		t.Fatal(built.Errors)
	}
	all := codes(t)
	if len(all) < 250 {
		t.Fatalf("only %d codes", len(all))
	}
	asked, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	node := exec.Command(filepath.Join(root, ".tools", "servers", "node"), "--input-type=module", "--eval", string(built.OutputFiles[0].Contents))
	node.Stdin = strings.NewReader(string(asked))
	var stderr strings.Builder
	node.Stderr = &stderr
	out, err := node.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	var answers []struct{ Code, Text, Field string }
	if err := json.Unmarshal(out, &answers); err != nil || len(answers) != len(all) {
		t.Fatalf("%v: %s", err, out)
	}
	for _, a := range answers {
		if a.Text == "" || strings.HasPrefix(a.Text, "That was refused") || strings.ContainsAny(a.Text, "{}") {
			t.Errorf("%s: %q", a.Code, a.Text)
		}
	}
}
