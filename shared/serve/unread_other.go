//go:build !unix

package serve

import "net"

// unread cannot be told here.
func unread(net.Conn) bool { return false }
