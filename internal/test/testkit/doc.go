// Package testkit starts the real servers that tests talk to: Postgres, Valkey, the gateways, a browser and the
// program itself. It owns their folders, ports and processes and ends all of them with the test binary, also when that
// is killed. It knows nothing of the packages under test, and only tests import it.
//
// The binaries are those of the repository's .tools folder, which is filled on first use (see .ci/tools), so that a
// plain "go test ./..." works on a fresh clone.
package testkit
