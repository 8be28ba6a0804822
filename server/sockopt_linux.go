package server

import (
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const fionread = unix.TIOCINQ // the same number and meaning as FIONREAD

// writeNow is write(2) for a non-blocking socket, hidden from Go's scheduler:
// entersyscall would cost more than the rest of an answer in user mode. Loop only.
func writeNow(fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))),
		uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// unacked returns how many written bytes the peer has not acknowledged.
func unacked(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	if err != nil {
		return 0
	}
	return n
}

// traffic returns the bytes received from the peer and those that it has
// acknowledged, as the kernel counts them: retransmissions are not, the end of the
// stream is one.
func traffic(fd int) (in, out uint64, ok bool) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, 0, false
	}
	return info.Bytes_received, info.Bytes_acked, true
}

// unsentLimit is how many bytes a socket takes beyond what the peer's window and
// the network let it send. Without it the kernel keeps up to 4 MB (tcp_wmem) for
// each peer that does not read, outside of any outbox limit and ahead of control
// frames.
const unsentLimit = 64 << 10

// limitUnsent bounds the unsent bytes of a socket.
func limitUnsent(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentLimit); err != nil {
		return fmt.Errorf("TCP_NOTSENT_LOWAT: %w", err)
	}
	return nil
}

// wantOptions lists the options of an accepted socket. It is an array to save an
// allocation per connection.
func wantOptions(timeout time.Duration) [7]option {
	idle, interval, count := keepAlive(timeout)
	return [...]option{
		{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{"TCP_NOTSENT_LOWAT", unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentLimit},
		{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, idle},
		{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, interval},
		{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, count},
		{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout(timeout).Milliseconds())},
	}
}

// retransmitLimit is about how long Linux waits for an acknowledgement by default
// (tcp_retries2 = 15: 924 s).
const retransmitLimit = 15 * time.Minute

// userTimeout returns TCP_USER_TIMEOUT for an idle timeout: 0, none, unless the
// kernel by itself would give up before the idle timeout.
//
// It would end a peer that vanished while we were sending sooner. But it also ends
// one that reads slowly: its clock runs while the peer's window does not hold the
// whole waiting segment (icsk_probes_tstamp), which may be 64 KiB, however many
// bytes of it are acknowledged meanwhile. And it replaces the count of keep-alive
// probes, so a long one would be worse than none.
func userTimeout(timeout time.Duration) time.Duration {
	if own := timeout + timeout/2; own >= retransmitLimit {
		return own
	}
	return 0
}

func setTimeouts(fd int, timeout time.Duration) error {
	options := wantOptions(timeout)
	for _, o := range options[3:] {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return fmt.Errorf("%s: %w", o.word, err)
		}
	}
	return nil
}

// plainTCP returns an error for a socket of another protocol, such as multipath
// TCP, whose connections do not take every option.
func plainTCP(fd int) error {
	proto, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err == nil && proto != unix.IPPROTO_TCP {
		err = fmt.Errorf("its protocol is %d, not plain TCP (%d)", proto, unix.IPPROTO_TCP)
	}
	return err
}
