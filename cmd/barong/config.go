package main

import (
	"errors"
	"fmt"
	"text/tabwriter"

	"barong/internal/config"
)

// A configCommand prints the effective configuration.
type configCommand struct{}

// Help is shown below the command's usage.
func (configCommand) Help() string {
	return "Prints a line for every setting: its name, its value with secrets masked, and its source (default, file, env or " +
		"flag). Warnings, and what \"barong serve\" would refuse, go to standard error. The exit status is 2 when a value is bad. " +
		"Every setting may be given as a flag here, too; see barong serve --help."
}

// Run prints the configuration.
func (configCommand) Run(p *program) error {
	c, err := p.config()
	if err != nil {
		return config.Join(err, c.Validate())
	}
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	for _, v := range c.Values() {
		source := v.Source
		if v.Origin != "" && v.Origin != v.Name {
			source += " (" + v.Origin + ")"
		}
		text := v.Text
		if text == "" {
			text = "-"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", v.Name, text, source)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, _, err = p.startable()
	if refused, ok := errors.AsType[*config.Error](err); ok {
		for _, line := range refused.Problems {
			fmt.Fprintln(p.stderr, "refused by serve:", line)
		}
	}
	return nil
}
