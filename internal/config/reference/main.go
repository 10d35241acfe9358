// Command reference writes what is generated of the documentation into the folder that it is given: the reference page of the
// configuration, and the schemas of the files that operators write.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"barong/internal/config"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: reference FOLDER")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func write(folder string) error {
	files, err := pages()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(folder, "schemas"), 0o755); err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(folder, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// pages are the files, by their names below the folder.
func pages() (map[string][]byte, error) {
	files := map[string][]byte{"configuration.md": []byte(config.Reference())}
	for name, schema := range schemas() {
		text, err := json.MarshalIndent(schema, "", "  ")
		if err != nil {
			return nil, err
		}
		files["schemas/"+name+".json"] = append(text, '\n')
	}
	return files, nil
}
