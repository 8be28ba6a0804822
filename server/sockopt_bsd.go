//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package server

import (
	"time"

	"golang.org/x/sys/unix"
)

const fionread = 0x4004667f // _IOR('f', 127, int) on all of them

// wantOptions lists what an accepted socket must have and can be asked for.
//
// What Linux has and this lacks: a bound on what a socket takes and cannot
// send, TCP_USER_TIMEOUT, and keep-alive times set for each socket. The system's
// keep-alive (two hours) is the second net here; the idle timeout is the same
// everywhere.
func wantOptions(time.Duration) (none [0]option) { return none }

// writeNow is write(2). Loop only.
func writeNow(fd int, b []byte) (int, error) { return unix.Write(fd, b) }

// unacked is not known here: what a socket's buffer takes counts as taken by
// the peer.
func unacked(int) int { return 0 }

func limitUnsent(int) error { return nil }

func setTimeouts(int, time.Duration) error { return nil }

// plainTCP is for Linux: nobody else's listeners can be multipath ones.
func plainTCP(int) error { return nil }
