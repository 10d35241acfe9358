package testkit

import (
	"flag"
	"os"
	"strconv"
	"testing"
)

// Main runs the tests of a package in which most wait for programs that they have started, as its TestMain: so many at a time,
// unless -parallel says otherwise.
func Main(m *testing.M, parallel int) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", strconv.Itoa(parallel)); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}
