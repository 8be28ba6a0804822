package epoll

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Errors of Dial, beside those of the system calls.
var (
	ErrSource = errors.New("the source address cannot be used") // it cannot be bound
	ErrNoPort = errors.New("the source addresses have no free port left")
)

// maxTries is how many source addresses Dial tries for one with a free port.
const maxTries = 8

// A Dialer begins TCP connections to one address. Safe for concurrent use.
type Dialer struct {
	domain  int
	target  unix.Sockaddr
	sources []unix.Sockaddr
}

// NewDialer makes a dialer that uses the source addresses in turn; without any
// the kernel chooses. They are of the target's family.
func NewDialer(target netip.AddrPort, sources []netip.Addr) *Dialer {
	d := &Dialer{domain: unix.AF_INET, target: sockaddr(target)}
	if target.Addr().Unmap().Is6() {
		d.domain = unix.AF_INET6
	}
	for _, a := range sources {
		d.sources = append(d.sources, sockaddr(netip.AddrPortFrom(a, 0)))
	}
	return d
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if ip := a.Addr().Unmap(); ip.Is4() {
		return &unix.SockaddrInet4{Addr: ip.As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

// Dial makes a non-blocking socket and begins to connect it, from source address
// n modulo their number or, if that has no port left, one of the next. The socket
// sends without delay (TCP_NODELAY), and closing it is a reset, which leaves
// nothing in TIME_WAIT. It is the caller's to close. unix.EPOLLOUT, EPOLLERR or
// EPOLLHUP says that the connect has ended, and ConnectError how.
func (d *Dialer) Dial(n int) (fd int, err error) {
	for try := range max(1, min(len(d.sources), maxTries)) {
		fd, err = unix.Socket(d.domain, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return -1, fmt.Errorf("socket: %w", err)
		}
		err = d.connect(fd, n+try)
		if err == nil {
			return fd, nil
		}
		unix.Close(fd)
		if !errors.Is(err, unix.EADDRNOTAVAIL) {
			return -1, err
		}
	}
	return -1, ErrNoPort
}

func (d *Dialer) connect(fd, n int) error {
	// What fails here shows in connect, or does not matter.
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if len(d.sources) > 0 {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1) // the port is chosen by connect
		if err := unix.Bind(fd, d.sources[n%len(d.sources)]); err != nil {
			return fmt.Errorf("%w: %s", ErrSource, err) // not %w: a foreign address is EADDRNOTAVAIL too
		}
	}
	if err := unix.Connect(fd, d.target); err != nil && err != unix.EINPROGRESS {
		return err
	}
	return nil
}

// ConnectError is how the connect of a socket ended; nil: it is connected. It
// clears the socket's error.
func ConnectError(fd int) error {
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && errno != 0 {
		err = unix.Errno(errno)
	}
	return err
}
