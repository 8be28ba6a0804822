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
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	s.done = make(chan struct{})
	go func() {
		defer close(s.done)
		if err := s.http.Serve(retryListener{s.ln}); !errors.Is(err, http.ErrServerClosed) {
			// The connections matter more: they stay.
			s.log.Error("the ops address is not served any more", "error", err)
		}
	}()
	if s.addr != "" {
		s.log.Info("ops listening", "addr", s.ln.Addr().String())
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
