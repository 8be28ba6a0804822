package epoll

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func listen(t *testing.T, addr string) (*net.TCPListener, netip.AddrPort) {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln.(*net.TCPListener), ln.Addr().(*net.TCPAddr).AddrPort()
}

// connected waits until the connect of fd has ended.
func connected(t *testing.T, fd int) error {
	t.Helper()
	p := newPoller(t, 1)
	if err := p.Add(fd, unix.EPOLLOUT, Key{}); err != nil {
		t.Fatal(err)
	}
	if events := wait(t, p, 10*time.Second); len(events) != 1 {
		t.Fatal("the connect does not end")
	}
	return ConnectError(fd)
}

// The sources are used in turn, and a close is a reset.
func TestDial(t *testing.T) {
	for addr, sources := range map[string][]string{
		"127.0.0.1:0": {"127.0.5.1", "127.0.5.2"},
		"[::1]:0":     nil,
	} {
		ln, target := listen(t, addr)
		var from []netip.Addr
		for _, s := range sources {
			from = append(from, netip.MustParseAddr(s))
		}
		d := NewDialer(target, from)
		for n := range 4 {
			fd, err := d.Dial(n)
			if err != nil {
				t.Fatal(err)
			}
			if err := connected(t, fd); err != nil {
				t.Fatal(err)
			}
			c, err := ln.AcceptTCP()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			peer := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
			if len(sources) > 0 && peer != from[n%len(from)] {
				t.Errorf("connection %d is from %s, want %s", n, peer, from[n%len(from)])
			}
			if n, _ := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY); n != 1 {
				t.Error("TCP_NODELAY is off")
			}
			unix.Close(fd)
			if _, err := io.Copy(io.Discard, c); !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("a close is seen as %v, want a reset", err)
			}
		}
	}
}

func TestDialErrors(t *testing.T) {
	ln, target := listen(t, "127.0.0.1:0")
	ln.Close()
	fd, err := NewDialer(target, nil).Dial(0)
	if err == nil { // else the kernel has refused at once
		defer unix.Close(fd)
		err = connected(t, fd)
	}
	if err != unix.ECONNREFUSED {
		t.Errorf("a closed port: %v", err)
	}
	d := NewDialer(target, []netip.Addr{netip.MustParseAddr("192.0.2.1")}) // TEST-NET-1
	if fd, err := d.Dial(0); fd != -1 || !errors.Is(err, ErrSource) {
		t.Errorf("a source of another machine: %d, %v", fd, err)
	}
}
