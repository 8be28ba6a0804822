package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"heartwheel/internal/address"
	"heartwheel/server"
)

// openSockets opens n listening sockets on each address with SO_REUSEPORT: the
// kernel distributes connections over them by a hash of their addresses. A unix socket
// is one for all, and the first worker that accepts has the connection. The
// result has the sockets of each slot, in the order of addresses.
func openSockets(addresses []string, n int) ([][]server.Socket, error) {
	sockets := make([][]server.Socket, n)
	for _, text := range addresses {
		a, err := address.Parse(text, address.TCP, address.Unix)
		if err != nil {
			closeSockets(sockets)
			return nil, fmt.Errorf("listen %q: %w", text, err)
		}
		if a.Scheme == address.Unix {
			ln, err := server.ListenUnix(a.Path)
			if err != nil {
				closeSockets(sockets)
				return nil, fmt.Errorf("cannot listen on %s: %w", text, err)
			}
			for i := range n {
				sockets[i] = append(sockets[i], server.Socket{Address: text, Listener: ln})
			}
			continue
		}
		hostport := a.HostPort()
		for i := range n {
			ln, err := listenShared(hostport, i == 0)
			if err != nil {
				closeSockets(sockets)
				if errors.Is(err, unix.EADDRINUSE) {
					return nil, fmt.Errorf("cannot listen on %s: another process has this port; stop it, "+
						"or choose another address with --listen: %w", hostport, err)
				}
				return nil, fmt.Errorf("cannot listen on %s: %w", hostport, err)
			}
			sockets[i] = append(sockets[i], server.Socket{Address: text, Listener: ln})
			hostport = ln.Addr().String() // port 0 takes a free port once
		}
	}
	return sockets, nil
}

// listenShared opens one socket. SO_REUSEPORT would silently share the port with
// another server of this user. So the first socket is bound without it, which
// fails if the port is taken, and gets the option afterwards: Linux checks it on
// every socket when the next one is bound.
func listenShared(hostport string, first bool) (*net.TCPListener, error) {
	share := func(c syscall.RawConn) (err error) {
		ctlErr := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		})
		return errors.Join(ctlErr, err)
	}
	lc := net.ListenConfig{KeepAlive: -1}
	lc.SetMultipathTCP(false) // as in server.listen
	if !first {
		lc.Control = func(_, _ string, c syscall.RawConn) error { return share(c) }
	}
	l, err := lc.Listen(context.Background(), "tcp", hostport)
	if err != nil {
		return nil, err
	}
	ln := l.(*net.TCPListener)
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
