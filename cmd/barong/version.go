package main

import (
	"fmt"

	"barong/internal/obs"
)

// A versionCommand prints what this program is.
type versionCommand struct{}

// Run prints it.
func (versionCommand) Run(p *program) error {
	b := obs.Built()
	_, err := fmt.Fprintf(p.stdout, "barong %s\ncommit %s\nbuilt %s\n%s\n", b.Version, b.Commit, b.Date, b.Go)
	return err
}
