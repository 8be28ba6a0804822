package server

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"heartwheel/codec"
	"heartwheel/internal/admission"
	"heartwheel/internal/edge/tlsedge"
	"heartwheel/internal/edge/websocket"
)

// acceptors is the number of goroutines that accept on a listener. One may wait for
// a descriptor, or for a loop that does not run.
const acceptors = 8

// Back-off after an accept error such as EMFILE. Once there is room again, the
// kernel's backlog is served within the longer of these.
const (
	acceptBackoffMin = 5 * time.Millisecond
	acceptBackoffMax = 500 * time.Millisecond
)

// A listener accepts for the server. It is not the engine's, so that accepting can
// fail, pause and end without touching a connection.
type listener struct {
	StreamListener
	address  string // as in Config.ListenSockets
	unix     bool   // a unix socket: no options of TCP, and peers without an address
	end      int    // index of its endpoint
	ws       bool   // its connections begin with an HTTP request
	secure   bool   // and with a TLS handshake before that
	foreign  bool   // they are not told why they are refused
	edge     uint8  // what they speak: index in loop.edges
	s        *Server
	tls      *tlsedge.Server        // nil: none; set before anything is accepted
	options  atomic.Int32           // whether connections inherit the socket's options: an optionState
	local    atomic.Pointer[net.IP] // of the latest connection: see compactAddrs
	prefaces prefaces
	wg       sync.WaitGroup
}

// serve starts to accept, until the listener is closed.
func (ln *listener) serve() {
	ln.prefaces.most = min(max(prefaceLeast, ln.s.admission.Max()/prefaceShare), prefaceMost)
	for range acceptors {
		ln.wg.Add(1)
		go func() {
			defer ln.wg.Done()
			ln.accept()
		}()
	}
}

func (ln *listener) accept() {
	var backoff time.Duration
	var ips ipBlock
	for {
		nc, err := ln.Accept()
		if err == nil {
			backoff = 0
			ln.s.accepted(ln, nc.(streamConn), &ips)
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if !ln.waitToRetry(&backoff, err) {
			return
		}
	}
}

// waitToRetry waits after err, which kept a connection from being accepted,
// longer each time. It reports whether to try again.
func (ln *listener) waitToRetry(backoff *time.Duration, err error) bool {
	ln.s.acceptErrors.Add(1)
	*backoff = min(max(2**backoff, acceptBackoffMin), acceptBackoffMax)
	ln.s.acceptLog.log(ln.s.log, slog.LevelError, faultLogEvery, "accept failed; connections wait in the backlog",
		func() []any { return []any{"addr", ln.Addr().String(), "error", err, "retry", backoff.String()} })
	return ln.s.sleep(*backoff)
}

// accepted admits a connection and sends it on its way to a loop.
func (s *Server) accepted(ln *listener, sc streamConn, ips *ipBlock) {
	tc, _ := sc.(*net.TCPConn) // what has a preface is TCP
	f := s.inForce.Load()
	from := f.proxyFrom[ln.end]
	var peer netip.Addr
	if len(from) > 0 {
		if !ln.fromProxy(tc, from) {
			return
		}
	} else if s.admission.ByAddress() {
		peer = ipOf(sc.RemoteAddr())
		if ln.ws && trusts(f.trusted[ln.end], peer) {
			peer = netip.Addr{} // that of its client comes with the request
		}
	}
	ticket, refusal := s.admission.Admit(peer)
	if refusal.Refused() {
		s.refuse(ln, sc, refusal)
		return
	}
	if len(from) > 0 || ln.secure {
		ln.preface(tc, ticket, len(from) > 0)
		return
	}
	s.admitted(ln, sc, ticket, ips, nil)
}

// admitted sends a connection that was admitted on its way to a loop.
func (s *Server) admitted(ln *listener, sc streamConn, ticket admission.Ticket, ips *ipBlock, t transport) {
	if err := ln.ensureOptions(sc, s.tcpTimeout()); err != nil { // the peer is gone already
		s.admission.Fail(&ticket, admission.Gone)
		_ = sc.Close()
		return
	}
	ln.compactAddrs(sc, ips)
	l, e := s.leastLoaded()
	c := l.newConn(ln.edge, t)
	c.ticket = ticket
	l.assigned.Add(1)
	ln.enter(l, e, sc, c)
}

// ipOf returns the address of a socket's peer in the form that admission wants: none
// for that of a unix socket.
func ipOf(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap()
	case *net.UnixAddr:
		return netip.Addr{}
	}
	return netip.IPv6Unspecified()
}

// compactAddrs shrinks the addresses of tc before gnet keeps them for as long as
// the connection lives. Each net.TCPAddr of a socket holds on to the 32 or 64
// bytes of a system call's answer, for 4 or 16 bytes of address, and the local
// address is the same for nearly all connections. tc must not be shared yet.
//
// Zones are cleared: gnet returns the bytes of Zone, a Go string, to a pool of
// buffers when it closes the connection, and so lets the next peer overwrite it.
func (ln *listener) compactAddrs(tc streamConn, ips *ipBlock) {
	if a, ok := tc.RemoteAddr().(*net.TCPAddr); ok {
		a.IP, a.Zone = ips.keep(shortIP(a.IP)), ""
	}
	if a, ok := tc.LocalAddr().(*net.TCPAddr); ok {
		a.Zone = ""
		if last := ln.local.Load(); last != nil && last.Equal(a.IP) {
			a.IP = *last
			return
		}
		ip := net.IP(bytes.Clone(shortIP(a.IP)))
		a.IP = ip
		ln.local.Store(&ip)
	}
}

// An ipBlock is the unused part of 16 bytes, the least that the allocator gives
// out for bytes, so that four connections with IPv4 addresses share them. Not safe
// for concurrent use.
type ipBlock []byte

// keep returns a copy of ip in the block.
func (b *ipBlock) keep(ip net.IP) net.IP {
	if len(*b) < len(ip) {
		*b = make([]byte, net.IPv6len)
	}
	n := copy(*b, ip)
	kept := (*b)[:n:n]
	*b = (*b)[n:]
	return net.IP(kept)
}

// shortIP is ip in 4 bytes if it has that form.
func shortIP(ip net.IP) net.IP {
	if four := ip.To4(); four != nil {
		return four
	}
	return ip
}

// refuse ends a connection that was not admitted: it sends GOAWAY, without
// waiting for the peer, or resets. In place of GOAWAY, HTTP is answered with its own
// words, and TLS with a reset, as a handshake would cost more than that is worth.
func (s *Server) refuse(ln *listener, sc streamConn, r admission.Refusal) {
	s.logRefusal(r.Cause, sc.RemoteAddr())
	if r.Silent || ln.secure {
		if tc, ok := sc.(*net.TCPConn); ok {
			_ = tc.SetLinger(0)
		}
		_ = sc.Close()
		return
	}
	notice := s.inForce.Load().notices[r.Cause]
	switch {
	case ln.foreign:
		notice = nil
	case ln.ws:
		notice = httpRefusal(r)
	case notice == nil:
		notice = newNotice(r)
	}
	if raw, err := sc.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_, _ = unix.Write(int(fd), notice)
			hangUp(int(fd), make([]byte, 4096))
		})
	}
	_ = sc.Close()
}

// newNotices makes the GOAWAY frames that are the same for each connection, by
// admission.Cause.
func newNotices(spread time.Duration) [][]byte {
	notices := make([][]byte, len(admission.Causes())+1)
	for _, c := range []admission.Cause{admission.Overloaded, admission.AddressLimit, admission.AddressRate,
		admission.Memory} {
		notices[c] = newNotice(admission.Refusal{Cause: c, RetryAfter: spread})
	}
	notices[admission.Banned] = newNotice(admission.Refusal{Cause: admission.Banned})
	return notices
}

// newNotice returns the GOAWAY frame for a refused connection. Its after_ms is
// rounded up, so that a peer that comes back just then is let in.
func newNotice(r admission.Refusal) []byte {
	return goaway(r.Cause.Code(), refusalText(r.Cause), r.RetryAfter+time.Millisecond-1)
}

// httpRefusal returns the HTTP response for a refused connection.
func httpRefusal(r admission.Refusal) []byte {
	status := http.StatusServiceUnavailable
	switch r.Cause.Code() {
	case codec.CodeRateLimited:
		status = http.StatusTooManyRequests
	case codec.CodeBanned:
		status = http.StatusForbidden
	}
	return websocket.Refuse(status, refusalText(r.Cause), r.RetryAfter).Bytes
}

func refusalText(cause admission.Cause) string {
	switch cause {
	case admission.Overloaded:
		return "server is at its connection limit"
	case admission.AddressLimit:
		return "this address is at its connection limit"
	case admission.AddressRate:
		return "this address connects too fast"
	case admission.Flapping:
		return "this address connects too often"
	case admission.Memory:
		return "server is short of memory"
	case admission.Banned:
		return "this address is banned"
	}
	return ""
}

func goaway(code codec.Code, reason string, after time.Duration) []byte {
	return codec.AppendGoaway(nil, codec.Goaway{Code: code, Reason: reason, AfterMS: after.Milliseconds()})
}

// hangUp shuts down our half of the connection and discards what has arrived:
// unread bytes would make the kernel reset the connection, and the peer might
// never read our last frame.
func hangUp(fd int, scratch []byte) {
	_ = unix.Shutdown(fd, unix.SHUT_WR)
	for range 16 {
		if n, err := unix.Read(fd, scratch); n <= 0 || err != nil {
			return
		}
	}
}

// An optionState says whether the connections of a listener inherit its options.
type optionState = int32

const (
	optionsUnknown   optionState = iota // none was looked at
	optionsInherited                    // they do
	optionsSet                          // they do not: each has its own set
)

// setOptions sets the options of the listening socket, for connections that are
// yet to come. Safe for concurrent use.
func (ln *listener) setOptions(timeout time.Duration) {
	if ln.unix {
		return
	}
	_ = setOptions(ln.StreamListener, timeout) // what fails is seen at the first connection
	ln.options.Store(optionsUnknown)
}

// ensureOptions sees to it that tc has its options. It reads them back from the
// first connection, and sets them on each where they are not inherited.
func (ln *listener) ensureOptions(tc syscall.Conn, timeout time.Duration) error {
	if ln.unix {
		return nil
	}
	state := ln.options.Load()
	if state == optionsUnknown && checkOptions(tc, timeout) == nil {
		state = optionsInherited
		ln.options.CompareAndSwap(optionsUnknown, state)
	}
	if state == optionsInherited {
		return nil
	}
	if err := setOptions(tc, timeout); err != nil {
		return err
	}
	if ln.options.CompareAndSwap(optionsUnknown, optionsSet) {
		if err := checkOptions(tc, timeout); err != nil {
			ln.s.log.Warn("kernel rejected a socket option; the TCP-level backup for the idle timeout is not "+
				"fully active", "error", err)
		}
	}
	return nil
}

// setOptions sets the options of a socket, which the connections of a listening one
// inherit: a bound on unsent bytes, and the kernel's own detection of dead peers as
// the TCP-level backup for the idle timeout. Go sets no delay on each connection.
func setOptions(tc syscall.Conn, timeout time.Duration) error {
	return control(tc, func(fd int) error {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1); err != nil {
			return fmt.Errorf("SO_KEEPALIVE: %w", err)
		}
		if err := limitUnsent(fd); err != nil {
			return err
		}
		return setTimeouts(fd, timeout)
	})
}

// checkOptions reads the options of a connection back.
func checkOptions(tc syscall.Conn, timeout time.Duration) error {
	return control(tc, func(fd int) error {
		var errs []error
		for _, o := range wantOptions(timeout) {
			got, err := unix.GetsockoptInt(fd, o.level, o.name)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", o.word, err))
			} else if got != o.value {
				errs = append(errs, fmt.Errorf("%s is %d instead of %d", o.word, got, o.value))
			}
		}
		return errors.Join(errs...)
	})
}

// An option is a socket option and the value that it must have.
type option struct {
	word        string
	level, name int
	value       int
}

// keepAlive spreads the kernel's probes over the timeout: the first after that
// much silence, then three within half of it. idle and interval are in seconds.
func keepAlive(timeout time.Duration) (idle, interval, count int) {
	return max(1, int(timeout/time.Second)), max(1, int(timeout/time.Second)/6), 3
}

func control(tc syscall.Conn, f func(fd int) error) error {
	raw, err := tc.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}
