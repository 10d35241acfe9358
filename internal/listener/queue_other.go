//go:build !linux

package listener

import "net"

// refuseNewcomers does nothing where the system gives no way to.
func refuseNewcomers(net.Listener) {}

// takeQueue takes nothing where the system gives no way to.
func takeQueue(net.Listener) []net.Conn { return nil }
