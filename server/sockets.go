package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"heartwheel/internal/address"
)

// A Socket is a listening socket, such as one inherited from another process. The
// connections in its backlog are served.
type Socket struct {
	Address  string // the entry of Config.ListenSockets that it is for
	Listener StreamListener
}

// A StreamListener is a *net.TCPListener or a *net.UnixListener. Whether the file of a
// unix socket is removed with it is for SetUnlinkOnClose to say.
type StreamListener interface {
	net.Listener
	syscall.Conn
}

// A streamConn is a *net.TCPConn or a *net.UnixConn.
type streamConn interface {
	net.Conn
	syscall.Conn
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
			ln, err = adopt(s, sockets[j], e.socket)
			sockets = slices.Delete(sockets, j, j+1)
		} else {
			ln, err = listen(s, e.socket)
		}
		if err != nil {
			return err
		}
		ln.unix = e.scheme == address.Unix
		ln.end, ln.ws, ln.secure, ln.foreign = i, e.web(), e.secure(), e.foreign()
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

// listen opens a listener. Multipath TCP is off, as connections do not inherit
// TCP_USER_TIMEOUT there. Go's own keep-alive settings, which it would set on each
// connection, are off: see setOptions.
func listen(s *Server, a address.Address) (*listener, error) {
	if a.Scheme == address.Unix {
		ln, err := ListenUnix(a.Path)
		if err != nil {
			return nil, fmt.Errorf("server: cannot listen on %s: %w", a, err)
		}
		return &listener{StreamListener: ln, address: a.String(), s: s}, nil
	}
	hostport := a.HostPort()
	lc := net.ListenConfig{KeepAlive: -1}
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(context.Background(), "tcp", hostport)
	if err != nil {
		if errors.Is(err, unix.EADDRINUSE) {
			return nil, fmt.Errorf("server: cannot listen on %s: another process has this port; "+
				"stop it, or choose another address for Config.Listen: %w", hostport, err)
		}
		return nil, fmt.Errorf("server: cannot listen on %s: %w", hostport, err)
	}
	return &listener{StreamListener: ln.(*net.TCPListener), address: a.String(), s: s}, nil
}

// socketMode is that of the file of a unix socket: who may connect is its owner and
// those of its group.
const socketMode = 0o660

// ListenUnix opens a listening unix socket. A file that a crash has left there is
// replaced, if nothing listens on it. The file is removed when the listener is closed.
// Safe for concurrent use.
func ListenUnix(path string) (*net.UnixListener, error) {
	var lc net.ListenConfig
	lc.Control = func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = unix.Fchmod(int(fd), socketMode) }) // Linux: from bind(2) on
	}
	open := func() (net.Listener, error) { return lc.Listen(context.Background(), "unix", path) }
	ln, err := open()
	if errors.Is(err, unix.EADDRINUSE) {
		if err = removeStale(path); err == nil {
			ln, err = open()
		}
	}
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, socketMode); err != nil { // what the umask has taken
		_ = ln.Close()
		return nil, err
	}
	return ln.(*net.UnixListener), nil
}

// removeStale removes a socket that nothing listens on.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != os.ModeSocket:
		return errors.New("it is a file that is not a socket; remove it, or choose another path")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = c.Close()
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("another process listens there; stop it, or choose another path: %w", unix.EADDRINUSE)
	}
	return os.Remove(path)
}

// adopt makes a listener of a socket that listens already.
func adopt(s *Server, o Socket, a address.Address) (*listener, error) {
	err := control(o.Listener, func(fd int) error {
		// Not every system has this option.
		if on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && on == 0 {
			return errors.New("it is not listening")
		}
		if a.Scheme == address.Unix {
			return nil
		}
		return plainTCP(fd)
	})
	if ln, ok := o.Listener.(*net.TCPListener); ok {
		noKeepAlive(ln)
	}
	if network := o.Listener.Addr().Network(); err == nil && network != a.Network() {
		err = fmt.Errorf("it is not a %s socket but %s", a.Network(), network)
	}
	if err != nil {
		return nil, fmt.Errorf("server: cannot use the socket given for %s: %w", o.Address, err)
	}
	return &listener{StreamListener: o.Listener, address: o.Address, s: s}, nil
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
		sockets = append(sockets, Socket{Address: ln.address, Listener: ln.StreamListener})
	}
	return sockets
}
