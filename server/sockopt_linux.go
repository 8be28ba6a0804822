package server

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const fionread = unix.TIOCINQ // the same number and meaning as FIONREAD

// unacked returns how many bytes of a socket its peer has not acknowledged.
func unacked(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	if err != nil {
		return 0
	}
	return n
}

// wantOptions lists what an accepted socket must have. TCP_USER_TIMEOUT also
// ends what keep-alive does not: a peer that vanished while we were sending.
func wantOptions(timeout time.Duration) []option {
	idle, interval, count := keepAlive(timeout)
	return []option{
		{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, idle},
		{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, interval},
		{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, count},
		{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout(timeout).Milliseconds())},
	}
}

// userTimeout is longer than the idle timeout, so that the reason which a
// person sees is ours.
func userTimeout(timeout time.Duration) time.Duration { return timeout + timeout/2 }

func setTimeouts(fd int, timeout time.Duration) error {
	for _, o := range wantOptions(timeout)[2:] {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return fmt.Errorf("%s: %w", o.word, err)
		}
	}
	return nil
}

// plainTCP is the error for a socket of another protocol, such as multipath
// TCP: what that accepts does not get every option.
func plainTCP(fd int) error {
	proto, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err == nil && proto != unix.IPPROTO_TCP {
		err = fmt.Errorf("its protocol is %d, not plain TCP (%d)", proto, unix.IPPROTO_TCP)
	}
	return err
}
