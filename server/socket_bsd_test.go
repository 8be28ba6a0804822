//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package server

import (
	"net"
	"testing"
)

// breakPoller needs Linux's /proc to find the poller's descriptor.
func breakPoller(t *testing.T, _ *engine) { t.Skip("needs /proc/self/fdinfo") }

func wantPlainTCP(*testing.T, *net.TCPConn) {} // multipath listeners are Linux only
