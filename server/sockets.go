package server

import (
	"errors"
	"fmt"
	"net"
	"reflect"
	"slices"

	"golang.org/x/sys/unix"
)

// A Socket is a listening TCP socket, such as one inherited from another process.
// The connections in its backlog are served.
type Socket struct {
	Address  string // the entry of Config.ListenSockets that it is for
	Listener *net.TCPListener
}

// openListeners makes a listener for each endpoint, from a socket of Config.Sockets
// where there is one. It closes the other sockets.
func (s *Server) openListeners() error {
	sockets := slices.Clone(s.cfg.Sockets)
	for i, e := range s.inForce.Load().ends {
		var ln *listener
		var err error
		j := slices.IndexFunc(sockets, func(o Socket) bool {
			a, err := parseListen(o.Address)
			return err == nil && socketOf(a) == e.socket
		})
		if j >= 0 {
			ln, err = adopt(s, sockets[j])
			sockets = slices.Delete(sockets, j, j+1)
		} else {
			ln, err = listen(s, e.socket)
		}
		if err != nil {
			return err
		}
		ln.end, ln.ws, ln.secure = i, e.web(), e.secure()
		ln.setOptions(s.tcpTimeout())
		s.listeners = append(s.listeners, ln)
	}
	for _, o := range sockets {
		s.log.Info("not listening any more: no listen address asks for it", "addr", o.Listener.Addr().String())
	}
	closeSockets(sockets)
	return nil
}

func closeSockets(sockets []Socket) {
	for _, o := range sockets {
		_ = o.Listener.Close()
	}
}

// adopt makes a listener of a socket that listens already.
func adopt(s *Server, o Socket) (*listener, error) {
	err := control(o.Listener, func(fd int) error {
		// Not every system has this option.
		if on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && on == 0 {
			return errors.New("it is not listening")
		}
		return plainTCP(fd)
	})
	if err != nil {
		return nil, fmt.Errorf("server: cannot use the socket given for %s: %w", o.Address, err)
	}
	noKeepAlive(o.Listener)
	return &listener{TCPListener: o.Listener, address: o.Address, s: s}, nil
}

// noKeepAlive keeps Go from setting its own keep-alive times on each connection that
// ln accepts, in place of those inherited. For a listener made of a descriptor there is
// no other way than to set its ListenConfig. If a later Go has no such field, the times
// are set once more for each connection: see ensureOptions.
func noKeepAlive(ln *net.TCPListener) {
	lc := reflect.ValueOf(ln).Elem().FieldByName("lc")
	if lc.IsValid() && lc.Type() == reflect.TypeFor[net.ListenConfig]() {
		(*net.ListenConfig)(lc.Addr().UnsafePointer()).KeepAlive = -1
	}
}

// Sockets returns the listening sockets, in the order of Config.ListenSockets, for
// Config.Sockets of a server in another process. They stay the server's: pass on
// duplicates. Safe for concurrent use.
func (s *Server) Sockets() []Socket {
	var sockets []Socket
	for _, ln := range s.listeners {
		sockets = append(sockets, Socket{Address: ln.address, Listener: ln.TCPListener})
	}
	return sockets
}
