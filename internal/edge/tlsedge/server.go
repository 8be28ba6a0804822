package tlsedge

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync/atomic"
	"time"
)

// A Config configures a Server. Files are in PEM.
type Config struct {
	// Certificates are pairs of files. The client's server name chooses; without
	// one, or with one that no certificate has, it is the first.
	Certificates []Pair
	// ClientCA is the file of the authorities for certificates of clients; empty:
	// clients are not asked for one.
	ClientCA string
	// ClientOptional accepts clients without a certificate despite a ClientCA.
	ClientOptional bool
	// ALPN are the protocols that are offered, the preferred one first. A client
	// that names others only is refused.
	ALPN []string
	// MinVersion is tls.VersionTLS12 or tls.VersionTLS13; 0: 1.2.
	MinVersion uint16
	// Timeout is for a whole handshake; 0: 5 s.
	Timeout time.Duration
	// Handshakes is how many may compute at once; 0: GOMAXPROCS. More wait for
	// each other, but never for a peer.
	Handshakes int
}

// A Pair is the file of a certificate with its chain, and that of its key. They may
// be the same.
type Pair struct{ Cert, Key string }

// A Server makes connections of TLS. Safe for concurrent use.
type Server struct {
	slots  chan struct{}
	outer  *tls.Config // has the keys of the session tickets, which outlive a reload
	loaded atomic.Pointer[loaded]
}

// New loads the files of c and returns a Server, or all that is wrong with them.
func New(c Config) (*Server, error) {
	if c.Handshakes == 0 {
		c.Handshakes = runtime.GOMAXPROCS(0)
	}
	if c.Timeout == 0 {
		c.Timeout = 5 * time.Second
	}
	if c.MinVersion == 0 {
		c.MinVersion = tls.VersionTLS12
	}
	if len(c.Certificates) == 0 {
		return nil, errors.New("tls: no certificate")
	}
	if c.MinVersion != tls.VersionTLS12 && c.MinVersion != tls.VersionTLS13 {
		return nil, fmt.Errorf("tls: minimum version %#x is neither 1.2 nor 1.3", c.MinVersion)
	}
	l, err := load(c)
	if err != nil {
		return nil, err
	}
	s := &Server{slots: make(chan struct{}, c.Handshakes)}
	s.outer = &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: s.configFor}
	s.loaded.Store(l)
	return s, nil
}

// Use puts the Config and files of o in force for handshakes that begin from now on.
// Connections are not affected, the session tickets stay valid, and so do Handshakes.
func (s *Server) Use(o *Server) { s.loaded.Store(o.loaded.Load()) }

// Reload loads the files again. If anything is wrong, it says everything that is, and
// nothing changes.
func (s *Server) Reload() error {
	l, err := load(s.loaded.Load().c)
	if err == nil {
		s.loaded.Store(l)
	}
	return err
}

// Changed reports whether a file is another than the one that was loaded, by its
// size and time.
func (s *Server) Changed() bool { return s.loaded.Load().changed() }

// Certificates returns what is loaded, in the order of the Config.
func (s *Server) Certificates() []Certificate { return s.loaded.Load().info }

// configFor is called with the ClientHello. What a handshake computes comes after
// it, in the slot that it takes.
func (s *Server) configFor(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	h := hello.Conn.(*wire).peer
	h.hello = true
	if err := h.take(); err != nil {
		return nil, err
	}
	return s.loaded.Load().config, nil
}

// Handshake does the handshake on conn, which blocks for up to Config.Timeout. It
// reads nothing beyond it from conn, keeps nothing of conn, and clears its deadline.
// It does not close conn on an error either; an alert is sent.
func (s *Server) Handshake(conn net.Conn) (*Transport, error) {
	timeout := s.loaded.Load().c.Timeout
	h := &handshake{conn: conn, slots: s.slots, end: time.Now().Add(timeout)}
	if err := conn.SetDeadline(h.end); err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	w := &wire{peer: h}
	c := tls.Server(w, s.outer)
	err := c.Handshake()
	h.give()
	if err != nil {
		return nil, handshakeError(err, h.hello, timeout)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	w.peer = nil
	return &Transport{conn: c, wire: w}, nil
}

// ErrNotTLS: the peer speaks something else.
var ErrNotTLS = errors.New("tls: not a TLS handshake: the client connects without TLS")

func handshakeError(err error, hello bool, timeout time.Duration) error {
	var header tls.RecordHeaderError
	var late net.Error
	switch {
	case errors.As(err, &header) && !hello:
		return ErrNotTLS
	case errors.As(err, &late) && late.Timeout():
		return fmt.Errorf("tls: handshake is not complete after %v: %w", timeout, err)
	}
	return fmt.Errorf("tls: handshake: %w", err)
}
