package testkit

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

//go:embed preload/disk.c
var diskSource string

// A Disk is the one of a Postgres of [PostgresOnDisk], which a test fills.
type Disk struct{ file *os.File }

// diskVariable names the file whose first byte says that the disk is full.
const diskVariable = "BARONG_TEST_DISK"

// PostgresOnDisk is [PostgresServer] on a disk of its own. It needs a C compiler, as the race detector does: where there is
// none, cgo is off.
func PostgresOnDisk(t testing.TB) (*Server, *Disk) {
	t.Helper()
	d := new(Disk)
	s, err := newPostgres(d.below)
	if err != nil {
		t.Fatalf("testkit: %v", err)
	}
	t.Cleanup(func() { d.file.Close() })
	return s.forTest(t), d
}

// below has a server that was prepared in dir lie on the disk.
func (d *Disk) below(s *Server, dir string) error {
	source, library, is := filepath.Join(dir, "disk.c"), filepath.Join(dir, "disk.so"), filepath.Join(dir, "full")
	if err := os.WriteFile(source, []byte(diskSource), 0o644); err != nil {
		return err
	}
	compiler, err := exec.Command("go", "env", "CC").Output()
	if err != nil {
		return fmt.Errorf("go env CC: %w", err)
	}
	args := append(strings.Fields(string(compiler)), "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl")
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("a disk that can be full needs a C compiler: %w\n%s", err, out)
	}
	if d.file, err = os.Create(is); err != nil {
		return err
	}
	s.command.env = append(s.command.env, "LD_PRELOAD="+library, diskVariable+"="+is)
	return d.set(0)
}

func (d *Disk) set(full byte) error {
	_, err := d.file.WriteAt([]byte{full}, 0)
	return err
}

// Fill takes all room from the disk: no file grows any more.
func (d *Disk) Fill(t testing.TB) {
	t.Helper()
	if err := d.set(1); err != nil {
		t.Fatalf("testkit: %v", err)
	}
}

// Free gives it back.
func (d *Disk) Free(t testing.TB) {
	t.Helper()
	if err := d.set(0); err != nil {
		t.Fatalf("testkit: %v", err)
	}
}
