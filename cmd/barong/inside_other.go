//go:build !linux

package main

// keepInside has nothing to do where a process's environment is not a file.
func keepInside(_, _ func(name string) bool) error { return nil }
