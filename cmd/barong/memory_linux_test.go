package main

import (
	"runtime"
	"strings"
	"sync"
	"testing"
)

// The program's pages come back as they are needed, whoever is running in them.
func TestReleaseProgram(t *testing.T) {
	stop := make(chan struct{})
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if strings.Repeat("barong", 2) != "barongbarong" {
						t.Error("the program is not itself any more")
						return
					}
					runtime.Gosched()
				}
			}
		})
	}
	for range 10 {
		released, err := releaseProgram()
		if err != nil || released < 1<<20 {
			t.Fatalf("%d bytes released, error %v", released, err)
		}
	}
	close(stop)
	group.Wait()
	runtime.GC()
}
