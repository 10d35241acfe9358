package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"barong/internal/test/testkit"
)

// A dump is one that "barong import" reads, and of the size that was asked for.
func TestDump(t *testing.T) {
	folder := t.TempDir()
	f, err := os.Create(filepath.Join(folder, "dump.sql"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := run(t.Context(), []string{"-users", "300", "-activities", "12000", "dump"}, f); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), testkit.Barong(t), "import", "dump.sql", "--dry-run", "--report", "report.json")
	cmd.Dir = folder
	if out, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 3 { // secrets of API keys are missing, and there is a password in clear
		t.Fatalf("%v: %s", err, out)
	}
	var report struct {
		Rows   map[string]struct{ Imported int64 }
		Counts map[string]int64
	}
	text, err := os.ReadFile(filepath.Join(folder, "report.json"))
	if err == nil {
		err = json.Unmarshal(text, &report)
	}
	if err != nil {
		t.Fatal(err)
	}
	for table, want := range map[string]int64{
		"users": 300, "activities": 12000, "labels": 675, "phones": 225, "profiles": 150, "documents": 75, "apikeys": 15, "levels": 3, "permissions": 1,
	} {
		if n := report.Rows[table].Imported; n != want {
			t.Errorf("%s: %d rows are imported, want %d", table, n, want)
		}
	}
	for kind, n := range report.Counts {
		switch kind {
		case "activity_data_redacted", "apikey_without_secret", "level_differs_from_labels", "refers_to_itself":
		default:
			t.Errorf("the report tells of %d %s", n, kind)
		}
	}
}
