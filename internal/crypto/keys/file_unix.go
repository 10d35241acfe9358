//go:build unix

package keys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// flock waits for an exclusive lock on f, which ends when f is closed, also by the death of the process.
func flock(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// OthersMayRead reports whether the file at path may be read by users who are neither its owner nor of its group.
func OthersMayRead(path string) (bool, error) {
	info, err := os.Stat(path)
	return err == nil && info.Mode().Perm()&0o004 != 0, err
}

// keepOwner gives f, or a file that will be at name, to the owner of what is at name now or else of the folder: an
// administrator who rotates as root must not lock out the service.
func keepOwner(f *os.File, name string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		if err := f.Chown(int(st.Uid), int(st.Gid)); err != nil {
			return fmt.Errorf("keep the owner: %w", err)
		}
	}
	return nil
}
