package browsertest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"barong/internal/test/testkit"
)

// axe is the text of axe-core.
var axe = sync.OnceValues(func() (string, error) {
	root, err := testkit.FindRoot()
	if err != nil {
		return "", err
	}
	b, err := os.ReadFile(filepath.Join(root, ".tools", "npm", "node_modules", "axe-core", "axe.min.js"))
	return string(b), err
})

// A violation is a rule of axe-core that a page breaks.
type violation struct {
	ID, Help string
	Nodes    []struct {
		HTML           string `json:"html"`
		FailureSummary string `json:"failureSummary"`
	}
}

// Accessible fails the test for what axe-core finds wrong with the page as it is now: every rule of WCAG 2 in levels A and
// AA that a program can judge, and what is thought good practice.
func (p *Page) Accessible(what string) {
	p.t.Helper()
	for _, v := range p.Violations() {
		p.t.Errorf("%s: %s", what, v)
	}
}

// Violations are what axe-core finds wrong with the page as it is now.
func (p *Page) Violations() []string {
	p.t.Helper()
	testkit.Tools(p.t)
	source, err := axe()
	if err != nil {
		p.t.Fatalf("browsertest: %v", err)
	}
	// It comes by DevTools, so that no page has to let it in, once a page. A frame is that of somebody else.
	if !Eval[bool](p, "typeof axe === 'object'") {
		Eval[bool](p, source+"\n;typeof axe === 'object'")
	}
	found := Eval[[]violation](p, `axe.run(document, {resultTypes: ["violations"], preload: false, iframes: false}).then(r => r.violations.map(v =>
		({id: v.id, help: v.help, nodes: v.nodes.map(n => ({html: n.html, failureSummary: n.failureSummary}))})))`)
	var out []string
	for _, v := range found {
		var lines []string
		for _, n := range v.Nodes {
			lines = append(lines, fmt.Sprintf("  %s\n    %s", shortened(n.HTML), strings.ReplaceAll(n.FailureSummary, "\n", "\n    ")))
		}
		out = append(out, fmt.Sprintf("%s (%s)\n%s", v.ID, v.Help, strings.Join(lines, "\n")))
	}
	return out
}
