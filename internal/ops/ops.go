// Package ops is the HTTP server for operators, and the parts of its answers that
// need nothing of heartwheel: process metrics, profiles, access from this machine
// only. It imports nothing of this module.
package ops

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// A Server is the HTTP server for operators. The nil Server does nothing.
type Server struct {
	http http.Server
	addr string // as in the settings; empty: see New
	ln   net.Listener
	log  *slog.Logger
	done chan struct{} // closed when serving has ended; nil before it began
}

// New returns a server for the connections that ln accepts. It does not log
// where it listens.
func New(ln net.Listener, log *slog.Logger) *Server { return &Server{ln: ln, log: log} }

// Listen opens addr, HOST:PORT, or returns nil if it is "off". An inherited
// socket, if not nil, listens there already.
func Listen(addr string, inherited *net.TCPListener, log *slog.Logger) (*Server, error) {
	if addr == "off" {
		return nil, nil
	}
	if inherited != nil {
		return &Server{addr: addr, ln: inherited, log: log}, nil
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		do := "give --ops an address of this machine, or off"
		if errors.Is(err, syscall.EADDRINUSE) {
			do = "another process has this port; stop it, or give --ops another address, or off"
		}
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err // without the address, which the message has
		}
		return nil, fmt.Errorf("cannot listen on %s for ops: %w: %s", addr, err, do)
	}
	return &Server{addr: addr, ln: ln, log: log}, nil
}

// A retryListener calls every failure of accept temporary while it is open, so
// that an http.Server tries again. By itself that ends at ENOBUFS and ENOMEM,
// which pass as EMFILE does.
type retryListener struct{ net.Listener }

func (l retryListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		err = temporaryError{err}
	}
	return c, err
}

// maxConns is how many connections the ops address serves at one time. More wait
// in the kernel's backlog until one ends: a probe that waits is better off than
// one that is reset, and idleTime and the other timeouts bound the wait.
const maxConns = 32

// idleTime is how long a connection without a request stays open.
const idleTime = 10 * time.Second

// A limitListener accepts a connection only while fewer than cap(slots) are open.
type limitListener struct {
	net.Listener
	slots     chan struct{} // one element for each open connection
	closed    chan struct{}
	closeOnce sync.Once
}

func limitConns(ln net.Listener, n int) *limitListener {
	return &limitListener{Listener: ln, slots: make(chan struct{}, n), closed: make(chan struct{})}
}

func (l *limitListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitedConn{Conn: c, slots: l.slots}, nil
}

func (l *limitListener) Close() error {
	l.closeOnce.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// A limitedConn gives its slot back when it is closed.
type limitedConn struct {
	net.Conn
	slots chan struct{}
	once  sync.Once
}

func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { <-c.slots })
	return err
}

// A temporaryError is a net.Error that passes.
type temporaryError struct{ error }

func (temporaryError) Temporary() bool { return true }
func (temporaryError) Timeout() bool   { return false }
func (e temporaryError) Unwrap() error { return e.error }

// Serve answers requests by h, in the background, until Close.
func (s *Server) Serve(h http.Handler) {
	if s == nil {
		return
	}
	s.http = http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      time.Minute, // profiles that take longer extend it themselves
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	ln := s.ln
	if s.addr != "" {
		ln = limitConns(ln, maxConns)
	} else { // the one client is the supervisor, which keeps connections for a minute
		s.http.IdleTimeout = 2 * time.Minute
	}
	s.done = make(chan struct{})
	go func() {
		defer close(s.done)
		if err := s.http.Serve(retryListener{ln}); !errors.Is(err, http.ErrServerClosed) {
			// The connections matter more: they stay.
			s.log.Error("the ops address is not served any more", "error", err)
		}
	}()
	if s.addr != "" {
		s.log.Info("ops listening", "addr", s.ln.Addr().String())
		if a, ok := s.ln.Addr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
			s.log.Warn("the ops address is open to other machines and asks for no token: "+
				"whatever reaches it reads the metrics", "addr", s.ln.Addr().String(),
				"fix", "--ops with a loopback address, or a firewall")
		}
	}
}

// Listener returns the address of the settings that is listened on, and the
// socket, for a successor; nil if there is none.
func (s *Server) Listener() (addr string, ln *net.TCPListener) {
	if s == nil {
		return "", nil
	}
	ln, _ = s.ln.(*net.TCPListener)
	return s.addr, ln
}

// StopAccepting leaves the socket to another process. Short requests under way are
// answered first, so that readiness probes do not see this process drain; long ones
// go on until Close.
func (s *Server) StopAccepting() {
	if s == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = s.http.Shutdown(ctx) // an error means that some go on
}

// Close ends serving: requests under way get a second.
func (s *Server) Close() {
	if s == nil {
		return
	}
	if s.done == nil {
		s.ln.Close()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		s.http.Close()
	}
	<-s.done
}
