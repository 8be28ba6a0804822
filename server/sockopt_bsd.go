//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package server

import (
	"time"

	"golang.org/x/sys/unix"
)

const fionread = 0x4004667f // _IOR('f', 127, int) on all of them

// wantOptions lists the options of an accepted socket that can be read back: none.
//
// Unlike on Linux there is no bound on unsent bytes, no TCP_USER_TIMEOUT, and no
// keep-alive time for each socket. The TCP-level backup for the idle timeout is
// the system's keep-alive of two hours; the idle timeout itself is the same.
func wantOptions(time.Duration) (none [0]option) { return none }

// writeNow is write(2). Loop only.
func writeNow(fd int, b []byte) (int, error) { return unix.Write(fd, b) }

// unacked is not known here: bytes in the socket's buffer count as read by the
// peer.
func unacked(int) int { return 0 }

// traffic is not known here.
func traffic(int) (in, out uint64, ok bool) { return 0, 0, false }

func limitUnsent(int) error { return nil }

func setTimeouts(int, time.Duration) error { return nil }

// plainTCP is for Linux, which alone has multipath listeners.
func plainTCP(int) error { return nil }
