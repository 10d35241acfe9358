package listener

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
)

// Open listens on an address as settings hold it: host:port, or "unix:" and the path of a socket. A socket that a process
// left behind is replaced; one that somebody listens on is an error.
func Open(addr string) (net.Listener, error) {
	path, ok := strings.CutPrefix(addr, "unix:")
	if !ok {
		return net.Listen("tcp", addr)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		return nil, errors.Join(fmt.Errorf("somebody listens on %s already", path), conn.Close())
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	return net.Listen("unix", path)
}
