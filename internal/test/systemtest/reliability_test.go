package systemtest

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"barong/internal/test/testkit"
)

// TestDrillsAreDocumented holds that docs/reliability.md has a row of each drill, with its figures, and no other.
func TestDrillsAreDocumented(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(testkit.Root(t), "docs", "reliability.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "\n## When a part fails\n")
	table, _, _ = strings.Cut(table, "\n## ")
	var names, documented []string
	for _, world := range drillTables {
		for _, d := range world.drills {
			names = append(names, d.name)
		}
	}
	columns := 0
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| --- |") {
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if columns == 0 { // the head
			columns = len(cells)
			continue
		}
		if len(cells) != columns || slices.Contains(cells, "") {
			t.Errorf("a row with something missing: %s", line)
		}
		documented = append(documented, cells[0])
	}
	for _, name := range names {
		if !slices.Contains(documented, name) {
			t.Errorf("no row of the drill %q", name)
		}
	}
	for _, name := range documented {
		if !slices.Contains(names, name) {
			t.Errorf("there is no drill %q", name)
		}
	}
	// What the page says of one drill is how it is run by itself.
	for _, m := range regexp.MustCompile(`-run '\^TestDrills\$/([^/']+)/([^']+)'`).FindAllStringSubmatch(string(page), -1) {
		if !slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(strings.ReplaceAll(name, " ", "_"), m[2]) }) {
			t.Errorf("no drill is run by %s", m[0])
		}
	}
}
