//go:build !linux

package listener

import "net"

// takeQueue takes nothing where the system gives no way to.
func takeQueue(net.Listener) []net.Conn { return nil }
