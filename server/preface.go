package server

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"heartwheel/internal/admission"
	"heartwheel/internal/edge/proxyproto"
)

// A PROXY header is sent first of all, by a load balancer that is not far.
const (
	prefaceTime = 5 * time.Second // for the whole header
	prefaceMost = 1024            // connections of a listener that owe theirs
)

var (
	errPrefaceEnded = errors.New("connection ended before its PROXY header")
	errPrefaceLate  = fmt.Errorf("no PROXY header within %s", prefaceTime)
)

// prefaces are the connections of a listener that owe a PROXY header. Each has a
// goroutine, which ends before the connection reaches its loop. Safe for concurrent
// use.
type prefaces struct {
	places chan struct{}

	mu    sync.Mutex
	conns map[*net.TCPConn]struct{} // guarded by mu; nil: no more are taken
}

func (p *prefaces) init() {
	p.places, p.conns = make(chan struct{}, prefaceMost), map[*net.TCPConn]struct{}{}
}

// add waits for a place, and reports whether tc got one: none does once end was
// called.
func (p *prefaces) add(tc *net.TCPConn, quit <-chan struct{}) bool {
	select {
	case p.places <- struct{}{}:
	case <-quit:
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns == nil {
		<-p.places
		return false
	}
	p.conns[tc] = struct{}{}
	return true
}

func (p *prefaces) remove(tc *net.TCPConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, tc)
	<-p.places
}

// end ends the waiting for all headers.
func (p *prefaces) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for tc := range p.conns {
		_ = tc.SetReadDeadline(time.Unix(1, 0))
	}
	p.conns = nil
}

// proxied deals with a connection where load balancers send PROXY headers: only those
// in from may connect. It counts for the address that the header names.
func (s *Server) proxied(ln *listener, tc *net.TCPConn, from []netip.Prefix) {
	peer := ipOf(tc.RemoteAddr())
	if !slices.ContainsFunc(from, func(p netip.Prefix) bool { return p.Contains(peer) }) {
		s.admission.Fail(new(admission.Ticket), admission.NoProxy)
		s.refuse(tc, admission.Refusal{Cause: admission.NoProxy, Silent: true})
		return
	}
	ticket, refusal := s.admission.Admit(netip.Addr{})
	if refusal.Refused() {
		s.refuse(tc, refusal)
		return
	}
	if !ln.prefaces.add(tc, s.quit) { // a drain has begun
		s.admission.Fail(&ticket, admission.Gone)
		_ = tc.Close()
		return
	}
	ln.wg.Go(func() {
		defer ln.prefaces.remove(tc)
		s.readPreface(ln, tc, &ticket)
	})
}

// readPreface reads the PROXY header of tc and sends the connection on its way.
func (s *Server) readPreface(ln *listener, tc *net.TCPConn, ticket *admission.Ticket) {
	h, err := readProxyHeader(tc)
	if err != nil && s.stopping() {
		s.admission.Fail(ticket, admission.Gone)
		_ = tc.Close()
		return
	}
	if err != nil {
		s.admission.Fail(ticket, admission.ProxyHeader)
		s.proxyLog.log(s.log, slog.LevelWarn, connLogEvery,
			"a load balancer's connection is refused for its PROXY header",
			func() []any {
				return []any{"addr", tc.RemoteAddr().String(), "error", err,
					"fix", "let it send them, also with its health checks (HAProxy: send-proxy-v2, check-send-proxy)"}
			})
		_ = tc.SetLinger(0)
		_ = tc.Close()
		return
	}
	if a, ok := tc.RemoteAddr().(*net.TCPAddr); ok && h.Source.IsValid() {
		*a = *net.TCPAddrFromAddrPort(h.Source)
	}
	if s.admission.ByAddress() {
		if refusal := s.admission.Bind(ticket, ipOf(tc.RemoteAddr())); refusal.Refused() {
			s.admission.Release(ticket)
			s.refuse(tc, refusal)
			return
		}
	}
	var ips ipBlock
	s.admitted(ln, tc, *ticket, &ips)
}

// readProxyHeader takes a PROXY header, and nothing behind it, out of the socket.
func readProxyHeader(tc *net.TCPConn) (h proxyproto.Header, err error) {
	raw, err := tc.SyscallConn()
	if err != nil {
		return h, err
	}
	_ = tc.SetReadDeadline(time.Now().Add(prefaceTime))
	b := make([]byte, proxyproto.MaxV2)
	seen := 0 // bytes at the last look, which stay in the socket until the header is whole
	waitErr := raw.Read(func(fd uintptr) (done bool) {
		var n, used int
		if n, err = peek(int(fd), b); err == nil && n > seen {
			seen = n
			if h, used, err = proxyproto.Parse(b[:n]); used > 0 {
				_, err = unix.Read(int(fd), b[:used])
			}
			return err != nil || used > 0
		}
		if err == unix.EAGAIN || err == nil {
			err = nil
			return false
		}
		return true
	})
	if waitErr != nil {
		return h, errPrefaceLate
	}
	_ = tc.SetReadDeadline(time.Time{})
	if err == nil {
		h.TLVs = nil // a part of b
	}
	return h, err
}

// peek returns how many bytes the socket holds, as many as fit into b, and leaves
// them there.
func peek(fd int, b []byte) (int, error) {
	for {
		n, _, err := unix.Recvfrom(fd, b, unix.MSG_PEEK)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case n == 0:
			return 0, fmt.Errorf("%w: %w", errPrefaceEnded, io.EOF)
		default:
			return n, nil
		}
	}
}
