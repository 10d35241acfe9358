//go:build !unix

package keys

import (
	"errors"
	"os"
)

// flock fails: without advisory locks two rotations at once could lose a key.
func flock(*os.File) error { return errors.ErrUnsupported }

// OthersMayRead cannot tell here.
func OthersMayRead(string) (bool, error) { return false, nil }

func keepOwner(*os.File, string) error { return nil }
