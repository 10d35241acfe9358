package listener

import (
	"errors"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// takeQueue takes the connections that wait to be accepted and has the system take no more, one right after the other: whoever
// connects in between is reset, and closing the listener from a goroutine that first has to be woken leaves time for many.
func takeQueue(l net.Listener) (conns []net.Conn) {
	s, ok := l.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return nil
	}
	var sockets []int
	_ = raw.Control(func(listener uintptr) { // fails on a listener that is closed already
		for {
			socket, _, err := unix.Accept4(int(listener), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED) {
				continue
			}
			if err != nil {
				break
			}
			sockets = append(sockets, socket)
		}
		_ = unix.Shutdown(int(listener), unix.SHUT_RD)
	})
	for _, socket := range sockets {
		f := os.NewFile(uintptr(socket), "connection")
		if c, err := net.FileConn(f); err == nil { // holds a copy
			conns = append(conns, c)
		}
		_ = f.Close()
	}
	return conns
}
