package faults

import (
	big "encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestUrgent sends the real command urgent data behind a gap, which the kernel
// reports all the time and never gives out. The server must not spin on it. Ordinary
// urgent data does no harm either.
func TestUrgent(t *testing.T) {
	t.Parallel()
	lasts := sized(500*time.Millisecond, 2*time.Second, 5*time.Second)
	s := startServer(t, binary(t), "--timeout", "10m", "--drain", "1s")
	plain, gap := dial(t, s.addr), dial(t, s.addr)
	plain.echo()
	gap.echo()
	if err := control(plain, func(fd int) error { return unix.Send(fd, []byte{1}, unix.MSG_OOB) }); err != nil {
		t.Fatal(err)
	}
	plain.echo()
	sendUrgent(t, gap, 100)
	s.metrics() // the segment has been taken in: loopback delivers at once
	before := cpuTime(t, s.pid())
	time.Sleep(lasts)
	took := cpuTime(t, s.pid()) - before
	if took > lasts/4 {
		t.Errorf("the server took %s of processor time in %s with nothing to do", took, lasts)
	}
	plain.echo()
	gap.echo()
	s.check()
	figure(t, 23, "an urgent segment behind a gap: %s of processor time in %s", took, lasts)
}

// sendUrgent sends one segment of a connection, skip bytes ahead of what its peer
// expects, with a byte of urgent data. It skips the test where raw sockets are refused.
func sendUrgent(t *testing.T, c *conn, skip uint32) {
	t.Helper()
	var seq, ack int
	err := control(c, func(fd int) (err error) {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_ON); err != nil {
			return fmt.Errorf("TCP_REPAIR: %w", err)
		}
		for queue, at := range map[int]*int{sendQueue: &seq, recvQueue: &ack} {
			if err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, queue); err != nil {
				return err
			}
			if *at, err = unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ); err != nil {
				return err
			}
		}
		return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_OFF_NO_WP)
	})
	raw := -1
	if err == nil {
		raw, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	}
	if err != nil {
		t.Skipf("segments cannot be made here: %v", err)
	}
	defer func() { _ = unix.Close(raw) }()
	from := netip.MustParseAddrPort(c.LocalAddr().String())
	to := netip.MustParseAddrPort(c.RemoteAddr().String())
	segment := urgentSegment(from, to, uint32(seq)+skip, uint32(ack))
	if err := unix.Bind(raw, &unix.SockaddrInet4{Addr: from.Addr().As4()}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Sendto(raw, segment, 0, &unix.SockaddrInet4{Addr: to.Addr().As4()}); err != nil {
		t.Fatal(err)
	}
}

// Values of TCP_REPAIR_QUEUE (linux/tcp.h).
const (
	recvQueue = 1
	sendQueue = 2
)

// urgentSegment is a TCP segment with one byte of urgent data.
func urgentSegment(from, to netip.AddrPort, seq, ack uint32) []byte {
	const flags = 0x38 // URG, ACK, PSH
	b := big.BigEndian.AppendUint16(nil, from.Port())
	b = big.BigEndian.AppendUint16(b, to.Port())
	b = big.BigEndian.AppendUint32(b, seq)
	b = big.BigEndian.AppendUint32(b, ack)
	b = append(b, 5<<4, flags)
	b = big.BigEndian.AppendUint16(b, 512) // window
	b = append(b, 0, 0, 0, 1)              // checksum, urgent pointer
	b = append(b, 'u')
	pseudo := append(from.Addr().AsSlice(), to.Addr().AsSlice()...)
	pseudo = append(pseudo, 0, unix.IPPROTO_TCP, 0, byte(len(b)))
	sum := uint32(0)
	for _, part := range [][]byte{pseudo, b} {
		for i, v := range part {
			sum += uint32(v) << (8 * (1 - i%2))
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	big.BigEndian.PutUint16(b[16:], ^uint16(sum))
	return b
}

func control(c *conn, f func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// cpuTime is the processor time that a process has taken so far, to 10 ms.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:])) // from the state on
	var sum time.Duration
	for _, f := range fields[11:13] { // user and system time
		hundredths, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += time.Duration(hundredths) * 10 * time.Millisecond
	}
	return sum
}
