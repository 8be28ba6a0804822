package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"heartwheel/codec"
)

// acceptors is the number of goroutines that accept on a listener. Handing a
// socket to its loop waits for that loop's turn, so one would not do.
const acceptors = 8

// Back-off after an accept error such as EMFILE: what waits in the kernel's
// backlog is taken within the longer of these once there is room again.
const (
	acceptBackoffMin = 5 * time.Millisecond
	acceptBackoffMax = 500 * time.Millisecond
)

// A listener accepts for the server. It is ours, not the engine's, so that
// accepting can fail, pause and end without touching a connection.
type listener struct {
	*net.TCPListener
	address string // as in Config.Listen
	edge    uint8  // what its connections speak: index in loop.edges
	s       *Server
	checked atomic.Bool            // socket options were read back once
	local   atomic.Pointer[net.IP] // of the latest connection: see slim
	wg      sync.WaitGroup
}

// listen opens a listener. Multipath TCP is off, as TCP_USER_TIMEOUT is not
// inherited there, and so are Go's own keep-alive settings: see setOptions.
func listen(s *Server, address string) (*listener, error) {
	hostport, err := parseListen(address)
	if err != nil {
		return nil, err
	}
	lc := net.ListenConfig{KeepAlive: -1}
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(context.Background(), "tcp", hostport)
	if err != nil {
		if errors.Is(err, unix.EADDRINUSE) {
			return nil, fmt.Errorf("server: cannot listen on %s: another process has this port; stop it, or choose another address with --listen: %w", hostport, err)
		}
		return nil, fmt.Errorf("server: cannot listen on %s: %w", hostport, err)
	}
	return &listener{TCPListener: ln.(*net.TCPListener), address: address, s: s}, nil
}

// serve accepts until the listener is closed.
func (ln *listener) serve() {
	for range acceptors {
		ln.wg.Add(1)
		go func() {
			defer ln.wg.Done()
			ln.accept()
		}()
	}
}

func (ln *listener) accept() {
	var pause time.Duration
	var ips ipBlock
	for {
		tc, err := ln.AcceptTCP()
		if err == nil {
			pause = 0
			ln.s.take(ln, tc, &ips)
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if !ln.rest(&pause, err) {
			return
		}
	}
}

// rest waits after err, which kept a connection from being taken, longer each
// time. It reports whether to try again.
func (ln *listener) rest(pause *time.Duration, err error) bool {
	ln.s.acceptErrors.Add(1)
	*pause = min(max(2**pause, acceptBackoffMin), acceptBackoffMax)
	if ln.s.acceptLog.allow() {
		ln.s.log.Error("accept failed; connections wait in the backlog", "addr", ln.Addr().String(), "error", err, "retry", pause.String())
	}
	return ln.s.sleep(*pause)
}

// take is the way of an accepted socket: admit, options, enroll.
func (s *Server) take(ln *listener, tc *net.TCPConn, ips *ipBlock) {
	if v := s.admit(tc); !v.ok {
		s.turnAway(tc, v)
		return
	}
	err := setOptions(tc, s.tcpTimeout)
	if err == nil && ln.checked.CompareAndSwap(false, true) {
		if err := checkOptions(tc, s.tcpTimeout); err != nil {
			s.log.Warn("the kernel did not take a socket option; the second net under the idle timeout has a hole", "error", err)
		}
	}
	if err != nil { // the peer is gone already
		s.refuse(refusedOptions, tc)
		return
	}
	ln.slim(tc, ips)
	l, e := s.leastLoaded()
	c := l.newConn(ln.edge)
	l.assigned.Add(1)
	if err := ln.enroll(e, tc, c); err != nil {
		l.assigned.Add(-1)
		s.refuse(refusedEnroll, tc)
		if s.acceptLog.allow() {
			s.log.Error("cannot hand a connection to its event loop; it is closed", "loop", l.index, "error", err)
		}
	}
}

// slim makes the addresses of tc small before gnet keeps them for as long as the
// connection lives. Each net.TCPAddr that comes from a socket holds on to the 32
// or 64 bytes of a system call's answer, for 4 or 16 bytes of address; the local
// one is moreover the same for nearly all connections. Nobody else has them yet.
func (ln *listener) slim(tc *net.TCPConn, ips *ipBlock) {
	if a, ok := tc.RemoteAddr().(*net.TCPAddr); ok {
		a.IP = ips.keep(shortIP(a.IP))
	}
	if a, ok := tc.LocalAddr().(*net.TCPAddr); ok {
		if last := ln.local.Load(); last != nil && last.Equal(a.IP) {
			a.IP = *last
			return
		}
		ip := net.IP(bytes.Clone(shortIP(a.IP)))
		a.IP = ip
		ln.local.Store(&ip)
	}
}

// An ipBlock is what is left of the least that the allocator gives out, 16 bytes,
// so that four connections with short addresses share it.
type ipBlock []byte

// keep returns a copy of ip.
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

// admit decides on a connection before anything is paid for it. What it counts
// is taken back by the loop when the connection ends, or by refuse.
func (s *Server) admit(tc *net.TCPConn) verdict {
	if s.addresses != nil {
		if v := s.addresses.admit(ipOf(tc.RemoteAddr()), s.admission.full()); !v.ok {
			s.admission.refused[v.why].Add(1)
			return v
		}
	}
	if !s.memory.admit() {
		s.admission.refused[refusedMemory].Add(1)
		s.leaveAddress(tc)
		return verdict{why: refusedMemory, tell: true}
	}
	if !s.admission.admit() { // it counts the refusal
		s.leaveAddress(tc)
		return verdict{why: refusedOverloaded, tell: true}
	}
	return verdict{ok: true}
}

func (s *Server) leaveAddress(tc *net.TCPConn) {
	if s.addresses != nil {
		s.addresses.leave(ipOf(tc.RemoteAddr()))
	}
}

// refuse ends a connection that was admitted and cannot be served.
func (s *Server) refuse(why refusal, tc *net.TCPConn) {
	s.leaveAddress(tc)
	s.admission.leave()
	s.admission.refused[why].Add(1)
	_ = tc.Close()
}

// turnAway ends a connection that was not admitted: it tells the peer, without
// waiting for it, or resets.
func (s *Server) turnAway(tc *net.TCPConn, v verdict) {
	if v.made && s.banLog.allow() {
		s.log.Warn("an address connects too often and is banned", "address", prefixOf(ipOf(tc.RemoteAddr())).String(),
			"limit", s.cfg.FlapLimit, "for", s.cfg.BanTime.String())
	}
	if !v.tell {
		_ = tc.SetLinger(0)
		_ = tc.Close()
		return
	}
	notice := s.notices[v.why]
	if v.rest > 0 { // rounded up: who comes back just then is let in
		notice = goaway(codec.CodeRateLimited, "this address connects too often", time.Duration(v.rest)+time.Millisecond-1)
	}
	if raw, err := tc.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_, _ = unix.Write(int(fd), notice)
			hangUp(int(fd), make([]byte, 4096))
		})
	}
	_ = tc.Close()
}

// newNotices makes what a peer is told when it is turned away. Who may come
// back later is told so: 3013 and 3020 are codes after which clients do, while
// 3513, and 3504 for too many of one identity, end them for good, and an
// address may be that of many clients. Too many connections of one address are
// 3020 like too many in all: it helps to wait until one has gone.
func newNotices(spread time.Duration) (n [numRefusals][]byte) {
	n[refusedOverloaded] = goaway(codec.CodeOverloaded, "server is at its connection limit", spread)
	n[refusedAddressLimit] = goaway(codec.CodeOverloaded, "this address is at its connection limit", spread)
	n[refusedAddressRate] = goaway(codec.CodeRateLimited, "this address connects too fast", spread)
	n[refusedMemory] = goaway(codec.CodeOverloaded, "server is short of memory", spread)
	n[refusedBanned] = goaway(codec.CodeBanned, "this address is banned", 0)
	return n
}

func goaway(code codec.Code, reason string, after time.Duration) []byte {
	return codec.AppendGoaway(nil, codec.Goaway{Code: code, Reason: reason, AfterMS: after.Milliseconds()})
}

// hangUp ends our half of the connection and reads away what has arrived, as
// bytes left unread would make the kernel reset the connection, and the peer
// might never read our last words.
func hangUp(fd int, scratch []byte) {
	_ = unix.Shutdown(fd, unix.SHUT_WR)
	for range 16 {
		if n, err := unix.Read(fd, scratch); n <= 0 || err != nil {
			return
		}
	}
}

// setOptions sets what every accepted socket gets: no delay (Go has set that),
// a bound on what it takes and cannot send, and the kernel's own ways of
// noticing a dead peer as the second net under the idle timeout.
func setOptions(tc *net.TCPConn, timeout time.Duration) error {
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

// checkOptions reads back what setOptions set.
func checkOptions(tc *net.TCPConn, timeout time.Duration) error {
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

// keepAlive spreads the kernel's probes over the timeout: the first after a
// whole one of silence, then three in the next half.
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

// A logLimiter lets one message a second through. Safe for concurrent use.
type logLimiter struct{ last atomic.Int64 }

func (l *logLimiter) allow() bool {
	now, last := time.Now().Unix(), l.last.Load()
	return now != last && l.last.CompareAndSwap(last, now)
}
