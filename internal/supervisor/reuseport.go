package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"heartwheel/server"
)

// openSockets listens n times on each address, with SO_REUSEPORT: the kernel
// deals newcomers out over the n by a hash of their addresses. The result has
// for each of the n its sockets, in the order of addresses.
func openSockets(addresses []string, n int) ([][]server.Socket, error) {
	sockets := make([][]server.Socket, n)
	for _, address := range addresses {
		hostport := strings.TrimPrefix(address, tcpScheme)
		for i := range n {
			ln, err := listenShared(hostport, i == 0)
			if err != nil {
				closeSockets(sockets)
				if errors.Is(err, unix.EADDRINUSE) {
					return nil, fmt.Errorf("cannot listen on %s: another process has this port; stop it, or choose another address with --listen: %w", hostport, err)
				}
				return nil, fmt.Errorf("cannot listen on %s: %w", hostport, err)
			}
			sockets[i] = append(sockets[i], server.Socket{Address: address, Listener: ln})
			hostport = ln.Addr().String() // for the others: port 0 takes a free one once
		}
	}
	return sockets, nil
}

// listenShared opens one socket. With SO_REUSEPORT a port would silently be
// shared with another server of this user that has it too. So the first is
// bound without, which fails if anybody listens there, and gets the option
// then: Linux looks at it on each socket when the next is bound.
func listenShared(hostport string, first bool) (*net.TCPListener, error) {
	share := func(c syscall.RawConn) (err error) {
		ctlErr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		return errors.Join(ctlErr, err)
	}
	lc := net.ListenConfig{KeepAlive: -1}
	lc.SetMultipathTCP(false) // as in server.listen
	if !first {
		lc.Control = func(_, _ string, c syscall.RawConn) error { return share(c) }
	}
	any, err := lc.Listen(context.Background(), "tcp", hostport)
	if err != nil {
		return nil, err
	}
	ln := any.(*net.TCPListener)
	if first {
		raw, err := ln.SyscallConn()
		if err == nil {
			err = share(raw)
		}
		if err != nil {
			ln.Close()
			return nil, fmt.Errorf("SO_REUSEPORT: %w", err)
		}
	}
	return ln, nil
}

func closeSockets(sockets [][]server.Socket) {
	for _, o := range slices.Concat(sockets...) {
		o.Listener.Close()
	}
}
