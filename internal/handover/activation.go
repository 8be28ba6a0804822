package handover

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"heartwheel/internal/address"
)

// Activated returns the listening sockets that a service manager has opened for
// this process, as in sd_listen_fds(3): LISTEN_FDS of them, from descriptor 3 on.
// A socket is for the address of listen that it is bound to, or for ops if
// LISTEN_FDNAMES calls it "ops" or it is bound to that address. Without
// LISTEN_FDS for this process the result is empty.
func Activated(environ, listen []string, ops string) (*Inheritance, error) {
	in := &Inheritance{}
	if Lookup(environ, "LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return in, nil
	}
	text := Lookup(environ, "LISTEN_FDS")
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > maxInherited {
		return nil, fmt.Errorf("LISTEN_FDS=%s: is not a number of descriptors", text)
	}
	names := strings.Split(Lookup(environ, "LISTEN_FDNAMES"), ":")
	for i := range n {
		name := ""
		if i < len(names) {
			name = names[i]
		}
		if err := in.activate(firstInherited+i, name, listen, ops); err != nil {
			in.Close()
			return nil, fmt.Errorf("LISTEN_FDS=%s: descriptor %d: %w", text, firstInherited+i, err)
		}
	}
	return in, nil
}

// activate takes over one socket.
func (in *Inheritance) activate(fd int, name string, listen []string, ops string) error {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "activated")
	defer f.Close() // the listener has a duplicate
	ln, err := net.FileListener(f)
	if err != nil {
		return err
	}
	if file, ok := ln.(*net.UnixListener); ok {
		path := address.Unix + "://" + file.Addr().String()
		if !slices.Contains(listen, path) {
			ln.Close()
			return fmt.Errorf("it listens on %s, which is not an address of listen: %s; add --listen %[1]s, "+
				"or change the socket unit", path, strings.Join(listen, ", "))
		}
		in.addSocket(path, file, false)
		return nil
	}
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		ln.Close()
		return fmt.Errorf("is not a TCP or unix stream socket but %s", ln.Addr().Network())
	}
	bound := tcp.Addr().(*net.TCPAddr).AddrPort()
	i := slices.IndexFunc(listen, func(text string) bool {
		a, err := address.Parse(text, address.TCP)
		return err == nil && boundTo(bound, a)
	})
	opsAddress, opsErr := address.ParseHostPort(ops) // fails for off
	isFor := ""
	switch {
	case name == "ops" || opsErr == nil && boundTo(bound, opsAddress):
		isFor = OpsScheme + ops
	case i >= 0:
		isFor = listen[i]
	default:
		ln.Close()
		return fmt.Errorf("it listens on %s, which is not an address of listen: %s; "+
			"add --listen tcp://%s, or change the socket unit", bound, strings.Join(listen, ", "), bound)
	}
	in.addSocket(isFor, tcp, false)
	return nil
}

// boundTo reports whether a socket bound to that address is one for a. The kernel
// keeps the zone of link-local addresses only.
func boundTo(bound netip.AddrPort, a address.Address) bool {
	if a.Port != bound.Port() {
		return false
	}
	if a.Host == "" {
		return bound.Addr().IsUnspecified()
	}
	ip, err := netip.ParseAddr(a.Host)
	zone := bound.Addr().Zone()
	return err == nil && ip.WithZone("").Unmap() == bound.Addr().WithZone("").Unmap() &&
		(zone == "" || zone == ip.Zone())
}
