// Package server keeps many TCP connections alive and knows within a stated
// bound when a peer is dead.
//
// A connection passes accept → admit → enroll → loop → session → handler.
// listener.go accepts, internal/admission admits, gnet.go is the one file that
// knows the event loops' engine. loop.go and session.go are the state machine, which
// does no I/O: liveness.go has the deadlines of every protocol, native.go the native
// Protocol, edge.go what lies between it and the wire, output.go and outbox.go the
// way back. A Handler is the application. Deadlines come from package wheel. A
// connection belongs to one loop for life, and loops share nothing that a frame
// passes.
//
// Every method says "Safe for concurrent use." or "Loop only.": in Handler
// callbacks, and in functions given to Conn.Post, and nowhere else.
package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"heartwheel/internal/admission"
	"heartwheel/internal/auth"
	"heartwheel/wheel"
)

// A Server is a heartbeat server. New makes one, Run runs it once. Its methods are
// safe for concurrent use unless they say otherwise.
type Server struct {
	// Static after New.
	cfg       Config // as New got it, with defaults: see inForce for what Reload changes
	log       *slog.Logger
	boot      string
	wheel     *wheel.Wheel
	loops     []*loop
	engines   []*engine
	listeners []*listener
	admission *admission.Control
	accounts  *accounts

	// Safe for concurrent use.
	inForce      atomic.Pointer[inForce]
	acceptErrors atomic.Uint64
	acceptLog    logLimiter
	enrollLog    logLimiter
	proxyLog     logLimiter
	tlsLog       logLimiter
	refusalLog   []logLimiter // by admission.Cause
	ready        atomic.Bool
	accepting    chan struct{} // closed when Run has begun to accept
	failed       chan error    // the error of the first engine that ended by itself

	reloadMu sync.Mutex // serializes Reload, which may read and fetch files for seconds
	forceMu  sync.Mutex // held to change inForce, never for long
	draining bool       // guarded by forceMu: inForce does not change any more

	lastMu sync.Mutex
	last   []counters // guarded by lastMu: each loop's figures as last read

	quit     chan struct{} // closed when accepting ends
	quitOnce sync.Once

	closeOnce sync.Once
	closeErr  error // set by closeOnce
}

// New validates cfg, opens the listeners and starts the event loops. It raises the
// process's limit of open descriptors to its hard value. Nothing is accepted
// before Run. The caller must call Run or Close. If there is an error,
// cfg.Sockets are closed; one that matches ErrConfig comes from cfg.Validate. Safe
// for concurrent use.
func New(cfg Config, h Handler) (*Server, error) {
	s, err := newServer(cfg, h)
	if err != nil {
		closeSockets(cfg.Sockets)
	}
	return s, err
}

func newServer(cfg Config, h Handler) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if h == nil {
		return nil, errors.New("server: New needs a handler, such as Echo{}")
	}
	cfg = cfg.WithDefaults()
	s := &Server{cfg: cfg, log: cfg.Logger, accepting: make(chan struct{}), failed: make(chan error, 1),
		quit: make(chan struct{}), refusalLog: make([]logLimiter, len(admission.Causes())+1)}
	s.inForce.Store(newInForce(cfg, s.ready.Load))
	var boot [4]byte
	_, _ = rand.Read(boot[:]) // never fails
	s.boot = hex.EncodeToString(boot[:])
	var err error
	if s.admission, err = admission.New(cfg.admission()); err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	if err := s.open(h); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Server) open(h Handler) error {
	if err := s.openListeners(); err != nil {
		return err
	}
	if err := s.loadFiles(); err != nil {
		return fmt.Errorf("server: %w", err)
	}
	s.wheel = wheel.New(wheel.Config{Logger: s.log})
	for i := range s.cfg.Loops {
		l := newLoop(i, &s.cfg, h, s.wheel, s.boot, s.admission.Release)
		l.bind = s.bind
		for end, edge := range l.setEdges(s.inForce.Load()) {
			s.listeners[end].edge = edge // the same for each loop
		}
		l.strangers.most = strangersMost(s.admission.Max(), s.cfg.Loops)
		e, err := startEngine(l, s.fail)
		if err != nil {
			return err
		}
		s.loops = append(s.loops, l)
		s.engines = append(s.engines, e)
	}
	s.watchMemory()
	return nil
}

// loadFiles loads what the listeners need of files: certificates, and what identifies
// clients.
func (s *Server) loadFiles() error {
	f := s.inForce.Load()
	files, err := s.cfg.readFiles(f.ends)
	if err != nil {
		return err
	}
	for i, t := range files.tls {
		s.listeners[i].tls = t
		for _, c := range f.ends[i].Certificates {
			if exposed := auth.Exposed(c.Key, true); exposed != "" {
				s.log.Warn("the key of a certificate is not safe", "file", c.Key, "fix", exposed)
			}
		}
	}
	f.auths, err = makeAuths(f.ends, files.auths, nil)
	return err
}

// watchMemory bounds what connections hold, and starts to watch the limits of
// memory, if there are any.
func (s *Server) watchMemory() {
	s.accounts = newAccounts(s.loops, &s.cfg, s.admission)
	if s.cfg.MemoryLimit < 0 {
		return
	}
	meters, err := s.admission.Meters(s.cfg.MemoryLimit)
	if err != nil {
		s.log.Warn("a memory limit is not watched; near it no connection is refused, and the "+
			"kernel may kill this process",
			"error", err, "fix", "let this user read /sys/fs/cgroup, or switch the memory limit off")
	}
	s.admission.Watch(meters, s.cfg.Processes, s.accounts)
}

// notReady returns why no new connection is accepted now; empty: they are.
func (s *Server) notReady() string {
	switch {
	case !s.ready.Load():
		return "starting or draining"
	case s.admission.MemoryFull():
		return "memory is short"
	}
	return ""
}

// fail keeps the error of the first engine that ended by itself. Safe for
// concurrent use.
func (s *Server) fail(err error) {
	select {
	case s.failed <- err:
	default:
	}
}

// Run accepts and serves until ctx ends, then drains for up to Config.Drain and
// returns nil. It returns an error as soon as an event loop ends by itself. That
// loop's connections are lost, so the process should end too. Run may be called
// once.
func (s *Server) Run(ctx context.Context) error {
	for _, ln := range s.listeners {
		ln.serve()
	}
	if s.hasTLS() {
		s.listeners[0].wg.Go(newCertificateWatch(s).run)
	}
	s.ready.Store(true)
	close(s.accepting)
	var err error
	select {
	case <-ctx.Done():
		err = s.drain()
	case err = <-s.failed:
		s.log.Error("event loop ended", "error", err)
	}
	return errors.Join(err, s.Close())
}

// drain stops accepting, asks each client to reconnect, and returns when all
// connections are gone or the time is up.
func (s *Server) drain() error {
	s.ready.Store(false)
	s.stopAccepting()
	s.freeze()
	atMost := s.inForce.Load().cfg.Drain
	s.log.Info("draining", "connections", s.admission.Connections(), "at_most", atMost.String())
	for _, l := range s.loops {
		_ = l.mail.postOwn(l.startDrain)
	}
	deadline := time.NewTimer(atMost)
	defer deadline.Stop()
	step := time.NewTicker(drainStep)
	defer step.Stop()
	for s.admission.Connections() > 0 {
		select {
		case err := <-s.failed:
			return err
		case <-deadline.C:
			s.log.Info("drain time is up; closing what is left", "connections", s.admission.Connections())
			return nil
		case <-step.C:
			for _, l := range s.loops {
				l.mail.wake()
			}
		}
	}
	return nil
}

// freeze keeps what is in force from now on.
func (s *Server) freeze() {
	s.forceMu.Lock()
	defer s.forceMu.Unlock()
	s.draining = true
}

// stopping reports whether accepting has ended.
func (s *Server) stopping() bool {
	select {
	case <-s.quit:
		return true
	default:
		return false
	}
}

func (s *Server) stopAccepting() {
	s.quitOnce.Do(func() { close(s.quit) })
	for _, ln := range s.listeners {
		_ = ln.Close()
		ln.prefaces.end()
	}
	gone := make(chan struct{})
	go func() {
		for _, ln := range s.listeners {
			ln.wg.Wait()
		}
		close(gone)
	}()
	select {
	case <-gone:
	case <-time.After(stopPatience): // an acceptor waits for a loop that ended or is stuck
		s.log.Warn("accepting has not ended; closing without waiting for it", "after", stopPatience.String())
	}
}

// Close ends everything at once: connections are closed as draining. Run calls it
// before it returns. It is idempotent, and safe for concurrent use with everything
// but Run.
func (s *Server) Close() error {
	s.closeOnce.Do(func() { s.closeErr = s.close() })
	return s.closeErr
}

func (s *Server) close() error {
	s.ready.Store(false)
	s.stopAccepting()
	s.freeze()
	s.admission.Close()
	for _, l := range s.loops {
		s.ask(l, l.stop)
	}
	s.read() // for later calls of Stats
	var errs []error
	for _, e := range s.engines {
		errs = append(errs, e.stop())
	}
	if s.wheel != nil {
		s.wheel.Close()
	}
	closeAuths(s.inForce.Load().auths, nil)
	return errors.Join(errs...)
}

// ask runs f on the loop and waits up to a second: a loop that does not answer by
// then is stuck in a handler. It reports whether f ran. Safe for concurrent use.
func (s *Server) ask(l *loop, f func()) bool {
	done := make(chan struct{})
	if l.mail.postOwn(func() { f(); close(done) }) != nil {
		return false
	}
	patience := time.NewTimer(time.Second)
	defer patience.Stop()
	select {
	case <-done:
		return true
	case <-patience.C:
		return false
	}
}

// sleep waits for d, and reports false if accepting ended meanwhile.
func (s *Server) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.quit:
		return false
	}
}

// leastLoaded returns the loop with the fewest connections, of those that take their
// newcomers in if there are any.
func (s *Server) leastLoaded() (*loop, *engine) {
	best := 0
	for i, l := range s.loops {
		if full, than := l.enteringFull(), s.loops[best].enteringFull(); full != than {
			if than {
				best = i
			}
		} else if l.assigned.Load() < s.loops[best].assigned.Load() {
			best = i
		}
	}
	return s.loops[best], s.engines[best]
}

// Accepting is closed once Run accepts. Safe for concurrent use.
func (s *Server) Accepting() <-chan struct{} { return s.accepting }

// Addrs returns the addresses of the sockets, in the order of Config.ListenSockets. The
// slice is the caller's. Safe for concurrent use.
func (s *Server) Addrs() []net.Addr {
	var addrs []net.Addr
	for _, ln := range s.listeners {
		addrs = append(addrs, ln.Addr())
	}
	return addrs
}

// MaxConnections returns the connection limit of this process. Safe for concurrent
// use.
func (s *Server) MaxConnections() int { return s.admission.Max() }
