package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"barong/internal/crypto/password"
)

// hashArgument starts this program as one that hashes passwords for another: see password.Processes. It is no command for
// people, and is told apart before there is a command line to parse.
const hashArgument = "hash-passwords"

// hashCommand is a process that hashes passwords for this one. Nothing secret is in its arguments or environment.
func hashCommand() *exec.Cmd {
	program, err := os.Executable()
	if runtime.GOOS == "linux" {
		program, err = "/proc/self/exe", nil // this very version, also where another has taken the place of the file
	}
	c := exec.Command(program, hashArgument)
	c.Err = err
	c.Args[0], c.Env = "barong", []string{}
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what the terminal tells the whole group is for this process alone
	return c
}

func hash() (status int) {
	if err := password.Serve(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "barong:", err)
		return statusFailed
	}
	return statusOK
}
