package listener

import (
	"errors"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// newcomers is a socket filter that drops what asks for a connection: packets with SYN and without ACK among their flags, which
// stand in byte 13 of the header of TCP.
var newcomers = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 13},
	{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 0x12},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 0x02, Jf: 1},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff},
}

// refuseNewcomers has the system take no notice of who asks a listener for a connection from now on: they ask again in a moment,
// when nobody listens any more, and are refused. Those whom it has answered already will stand in the queue.
func refuseNewcomers(l net.Listener) {
	s, ok := l.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(listener uintptr) { // without it a few may be reset
		_ = unix.SetsockoptSockFprog(int(listener), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(newcomers)), Filter: &newcomers[0]})
	})
}

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
