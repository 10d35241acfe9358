package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"go.yaml.in/yaml/v3"

	"barong/internal/test/testkit"
)

// A document is a page of Markdown.
type document struct {
	links   []docLink
	anchors map[string]bool
	blocks  []docBlock
}

type docLink struct {
	line   int
	target string
}

// A docBlock is a fenced piece of code.
type docBlock struct {
	line                   int
	language, name, indent string
	text                   string
}

var (
	docFence   = regexp.MustCompile("^( *)(```+)(.*)$")
	docHeading = regexp.MustCompile(`^#{1,6} +(.*?) *#*$`)
	docCode    = regexp.MustCompile("``[^`].*?``|`[^`]*`")
	// [text](target), ![text](target) and [name]: target.
	docInline    = regexp.MustCompile(`\]\(\s*<?([^()\s<>]+(?:\([^()\s]*\))?)>?(?:\s+"[^"]*")?\s*\)`)
	docReference = regexp.MustCompile(`^ {0,3}\[[^\]]+\]: *<?([^\s<>]+)>?`)
	docHTML      = regexp.MustCompile(`(?:href|src|id|name)="([^"]*)"`)
)

// readDocument reads a page.
func readDocument(text string) document {
	d := document{anchors: map[string]bool{}}
	var block *docBlock
	fence, n := "", 0
	count := map[string]int{}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		n++
		if m := docFence.FindStringSubmatch(line); m != nil && (block == nil || m[2] == fence && strings.TrimSpace(m[3]) == "") {
			if block == nil {
				language, name, _ := strings.Cut(strings.TrimSpace(m[3]), " ")
				block, fence = &docBlock{line: n, language: language, name: name, indent: m[1]}, m[2]
			} else {
				d.blocks = append(d.blocks, *block)
				block = nil
			}
			continue
		}
		if block != nil {
			block.text += strings.TrimPrefix(line, block.indent) + "\n"
			continue
		}
		if m := docHeading.FindStringSubmatch(line); m != nil {
			slug := docSlug(m[1])
			if count[slug]++; count[slug] > 1 {
				slug = fmt.Sprintf("%s-%d", slug, count[slug]-1)
			}
			d.anchors[slug] = true
		}
		plain := docCode.ReplaceAllString(line, "")
		for _, m := range docInline.FindAllStringSubmatch(plain, -1) {
			d.links = append(d.links, docLink{n, m[1]})
		}
		if m := docReference.FindStringSubmatch(plain); m != nil {
			d.links = append(d.links, docLink{n, m[1]})
		}
		for _, m := range docHTML.FindAllStringSubmatch(plain, -1) {
			if strings.HasPrefix(m[0], "href") || strings.HasPrefix(m[0], "src") {
				d.links = append(d.links, docLink{n, m[1]})
			} else {
				d.anchors[m[1]] = true
			}
		}
	}
	return d
}

// docSlug is the anchor of a heading, as GitHub makes it.
func docSlug(heading string) string {
	heading = regexp.MustCompile(`!?\[([^\]]*)\]\([^)]*\)`).ReplaceAllString(heading, "$1")
	var b strings.Builder
	for _, r := range strings.ToLower(heading) {
		switch {
		case r == ' ':
			b.WriteByte('-')
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsNumber(r):
			b.WriteRune(r)
		}
	}
	return b.String()
}

// documents are all pages of Markdown of the repository, by their path in it.
func documents(t *testing.T) map[string]document {
	t.Helper()
	root := testkit.Root(t)
	all := map[string]document{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "bin" || d.Name() == "dist") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".md") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		all[filepath.ToSlash(name)] = readDocument(string(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("found %d pages", len(all))
	}
	return all
}

// TestDocumentLinks: every link within the pages leads to a file that is there, and to a heading of it. Those to other sites
// are whole addresses over TLS, or on this machine.
func TestDocumentLinks(t *testing.T) {
	t.Parallel()
	root, all := testkit.Root(t), documents(t)
	within := 0
	for name, d := range all {
		for _, l := range d.links {
			u, err := url.Parse(l.target)
			if err != nil {
				t.Errorf("%s:%d: %v", name, l.line, err)
				continue
			}
			if u.IsAbs() || u.Host != "" {
				if u.Scheme != "https" && u.Scheme != "mailto" && u.Hostname() != "127.0.0.1" && u.Hostname() != "localhost" {
					t.Errorf("%s:%d: %s is no address over TLS", name, l.line, l.target)
				}
				continue
			}
			within++
			to := name
			if u.Path != "" {
				to = filepath.ToSlash(filepath.Join(filepath.Dir(name), u.Path))
			}
			if strings.HasPrefix(u.Path, "/") || strings.HasPrefix(to, "..") {
				t.Errorf("%s:%d: %s leads out of the repository", name, l.line, l.target)
				continue
			}
			if _, err := os.Stat(filepath.Join(root, to)); err != nil {
				t.Errorf("%s:%d: %s leads nowhere: %v", name, l.line, l.target, err)
				continue
			}
			if u.Fragment == "" {
				continue
			}
			if page, ok := all[to]; !ok || !page.anchors[u.Fragment] {
				t.Errorf("%s:%d: %s has no heading #%s", name, l.line, to, u.Fragment)
			}
		}
	}
	if within < 60 {
		t.Errorf("only %d links lead within the pages", within)
	}
}

// whole joins the pieces of a file that a page goes through.
func (d document) whole() []docBlock {
	var out []docBlock
	at := map[string]int{}
	for _, b := range d.blocks {
		if i, ok := at[b.name]; ok && b.name != "" {
			out[i].text += b.text
			continue
		}
		at[b.name] = len(out)
		out = append(out, b)
	}
	return out
}

// TestDocumentBlocks: what the pages show as a language is of that language. What is run besides is the business of the
// tests of each page.
func TestDocumentBlocks(t *testing.T) {
	t.Parallel()
	seen := map[string]int{}
	for name, d := range documents(t) {
		for _, b := range d.whole() {
			seen[b.language]++
			var err error
			switch b.language {
			case "yaml", "yml":
				dec := yaml.NewDecoder(strings.NewReader(b.text))
				for err == nil {
					var doc any
					err = dec.Decode(&doc)
				}
				if errors.Is(err, io.EOF) {
					err = nil
				}
			case "json":
				err = json.Unmarshal([]byte(b.text), new(any))
			case "sh", "bash":
				cmd := exec.CommandContext(t.Context(), "/bin/sh", "-n")
				cmd.Stdin = strings.NewReader(b.text)
				var out []byte
				if out, err = cmd.CombinedOutput(); err != nil {
					err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
				}
			}
			if err != nil {
				t.Errorf("%s:%d: no %s: %v", name, b.line, b.language, err)
			}
		}
	}
	if seen["sh"] < 8 || seen["yaml"] < 8 {
		t.Errorf("found %v", seen)
	}
}

// The reader of pages finds what is there.
func TestDocumentReader(t *testing.T) {
	t.Parallel()
	d := readDocument("# One `two` & three\n\n[a](b.md#c) `[no](x)` ![i](i.png \"t\")\n\n  ```sh name\n  echo\n  ```\n# One `two` & three\n" +
		"<a id=\"here\" href=\"y.md\">\n[r]: z.md\n````text\n```\n[no](x)\n````\n## What's *new*, and `a_b`\n")
	if got, want := fmt.Sprint(d.links), "[{3 b.md#c} {3 i.png} {9 y.md} {10 z.md}]"; got != want {
		t.Errorf("links: got %s, want %s", got, want)
	}
	for _, anchor := range []string{"one-two--three", "one-two--three-1", "here", "whats-new-and-a_b"} {
		if !d.anchors[anchor] {
			t.Errorf("no anchor %s in %v", anchor, d.anchors)
		}
	}
	if len(d.blocks) != 2 || d.blocks[0] != (docBlock{5, "sh", "name", "  ", "echo\n"}) || d.blocks[1].text != "```\n[no](x)\n" {
		t.Errorf("blocks: %+v", d.blocks)
	}
}
