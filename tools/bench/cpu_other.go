//go:build !linux

package main

import (
	"errors"
	"os/exec"
	"time"
)

// processorTime is not known here: rates alone are compared then.
func processorTime(int) (time.Duration, error) {
	return 0, errors.New("the processor time of a process can be read on Linux alone")
}

// countInstructions is not possible here.
func countInstructions(int) (end func() (int64, error), err error) {
	return nil, errors.New("the instructions of a process can be counted on Linux alone")
}

func cores() []int { return nil }

// startOn leaves it to the system where the command runs, and keeps a Go program to one processor at a time.
func startOn(_ int, c *exec.Cmd) error {
	c.Env = append(c.Environ(), "GOMAXPROCS=1")
	return c.Start()
}

func bindTo(int) error { return errors.New("processes are bound to a processor on Linux alone") }
