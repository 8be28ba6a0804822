package server

import (
	"container/list"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"heartwheel/internal/admission"
	"heartwheel/internal/edge/proxyproto"
)

// A preface is what comes before a connection reaches its loop: a PROXY header, a TLS
// handshake. Its goroutine ends with it.
const (
	prefaceTime  = 5 * time.Second // for a PROXY header; for the first byte of a handshake
	prefaceShare = 2               // the part of the connection limit that may be in theirs
	prefaceLeast = 64
	prefaceMost  = 8192 // some 4 KiB each while silent, 90 KiB with the longest ClientHello
)

var (
	errPrefaceEnded   = errors.New("connection ended before its PROXY header")
	errPrefaceLate    = fmt.Errorf("no PROXY header within %s", prefaceTime)
	errHandshakeEnded = errors.New("connection ended before its TLS handshake")
	errHandshakeLate  = fmt.Errorf("no TLS handshake began within %s", prefaceTime)
	errCrowded        = errors.New("too many connections had not begun; this one was the oldest")
)

// prefaces are the connections of a listener that are in their preface. They cost a
// peer nothing, so one more than there may be ends the oldest. Safe for concurrent use.
type prefaces struct {
	mu    sync.Mutex
	most  int
	ended bool
	list  list.List // of *preface, the oldest first
}

// A preface is one of them.
type preface struct {
	tc      *net.TCPConn
	at      *list.Element // guarded by prefaces.mu; nil: it was ended, or removed
	crowded bool          // guarded by prefaces.mu: ended as the oldest
}

// endedDeadline has passed.
var endedDeadline = time.Unix(1, 0)

// add adds tc; nil: none is taken any more, as end was called.
func (p *prefaces) add(tc *net.TCPConn) *preface {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return nil
	}
	if p.list.Len() >= p.most {
		p.endOne(p.list.Front()).crowded = true
	}
	f := &preface{tc: tc}
	f.at = p.list.PushBack(f)
	return f
}

// endOne ends the preface at e. It needs mu.
func (p *prefaces) endOne(e *list.Element) *preface {
	f := p.list.Remove(e).(*preface)
	f.at = nil
	_ = f.tc.SetDeadline(endedDeadline)
	return f
}

// remove takes f out, and reports whether it was ended as the oldest.
func (p *prefaces) remove(f *preface) (crowded bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.at != nil {
		p.list.Remove(f.at)
		f.at = nil
	}
	return f.crowded
}

// setDeadline sets the deadline of f, unless it was ended.
func (p *prefaces) setDeadline(f *preface, t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.at != nil {
		_ = f.tc.SetDeadline(t)
	}
}

// end ends all prefaces.
func (p *prefaces) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	for p.list.Len() > 0 {
		p.endOne(p.list.Front())
	}
}

// fromProxy reports whether tc comes from a load balancer, and refuses it if not.
func (ln *listener) fromProxy(tc *net.TCPConn, from []netip.Prefix) bool {
	if trusts(from, ipOf(tc.RemoteAddr())) {
		return true
	}
	ln.s.admission.Fail(new(admission.Ticket), admission.NoProxy)
	ln.s.refuse(ln, tc, admission.Refusal{Cause: admission.NoProxy, Silent: true})
	return false
}

// preface reads what comes before tc reaches its loop, in a goroutine, and sends it on
// its way.
func (ln *listener) preface(tc *net.TCPConn, ticket admission.Ticket, proxied bool) {
	f := ln.prefaces.add(tc)
	if f == nil { // a drain has begun
		ln.s.admission.Fail(&ticket, admission.Gone)
		_ = tc.Close()
		return
	}
	ln.wg.Go(func() {
		t, cause, err := ln.readPreface(f, &ticket, proxied)
		crowded := ln.prefaces.remove(f)
		switch {
		case err == errRefused:
		case err != nil && ln.s.stopping():
			ln.s.admission.Fail(&ticket, admission.Gone)
			_ = tc.Close()
		case err != nil:
			if crowded {
				err = errCrowded
			}
			ln.failPreface(tc, &ticket, cause, err)
		default:
			_ = tc.SetDeadline(time.Time{})
			var ips ipBlock
			ln.s.admitted(ln, tc, ticket, &ips, t)
		}
	})
}

// An endableConn is the socket of a preface for its handshake, which sets deadlines too:
// none puts off an end.
type endableConn struct {
	*net.TCPConn
	of *prefaces
	f  *preface
}

func (c endableConn) SetDeadline(t time.Time) error {
	c.of.setDeadline(c.f, t)
	return nil
}

// errRefused: the connection was refused, and all is said and done.
var errRefused = errors.New("refused")

// readPreface returns the transport of a connection whose preface is good, or nil if it
// needs none. cause is what an error counts as.
func (ln *listener) readPreface(
	f *preface, ticket *admission.Ticket, proxied bool,
) (t transport, cause admission.Cause, err error) {
	if proxied {
		ln.prefaces.setDeadline(f, time.Now().Add(prefaceTime))
		h, err := readProxyHeader(f.tc)
		if err != nil {
			return nil, admission.ProxyHeader, err
		}
		if a, ok := f.tc.RemoteAddr().(*net.TCPAddr); ok && h.Source.IsValid() {
			*a = *net.TCPAddrFromAddrPort(h.Source)
		}
		if ln.s.admission.ByAddress() {
			if refusal := ln.s.admission.Bind(ticket, ipOf(f.tc.RemoteAddr())); refusal.Refused() {
				ln.s.admission.Release(ticket)
				ln.s.refuse(ln, f.tc, refusal)
				return nil, 0, errRefused
			}
		}
	}
	if !ln.secure {
		return nil, 0, nil
	}
	ln.prefaces.setDeadline(f, time.Now().Add(prefaceTime))
	if err := awaitByte(f.tc); err != nil {
		return nil, admission.TLSHandshake, err
	}
	shake, err := ln.tls.Handshake(endableConn{f.tc, &ln.prefaces, f})
	if err != nil {
		return nil, admission.TLSHandshake, err
	}
	return shake, 0, nil
}

// failPreface closes a connection whose preface has failed.
func (ln *listener) failPreface(tc *net.TCPConn, ticket *admission.Ticket, cause admission.Cause, err error) {
	ln.s.admission.Fail(ticket, cause)
	if cause == admission.ProxyHeader {
		ln.s.proxyLog.log(ln.s.log, slog.LevelWarn, connLogEvery,
			"a load balancer's connection is refused for its PROXY header",
			func() []any {
				return []any{"addr", tc.RemoteAddr().String(), "error", err,
					"fix", "let it send them, also with its health checks (HAProxy: send-proxy-v2, check-send-proxy)"}
			})
		_ = tc.SetLinger(0)
	} else {
		ln.s.tlsLog.log(ln.s.log, slog.LevelInfo, connLogEvery, "a TLS handshake failed", func() []any {
			return []any{"addr", tc.RemoteAddr().String(), "error", err}
		})
		if !errors.Is(err, io.EOF) { // an alert may be on its way
			_ = control(tc, func(fd int) error { hangUp(fd, make([]byte, 4096)); return nil })
		}
	}
	_ = tc.Close()
}

// awaitByte waits for the first byte, which costs less than a handshake that waits.
func awaitByte(tc *net.TCPConn) error {
	raw, err := tc.SyscallConn()
	if err != nil {
		return err
	}
	var b [1]byte
	waitErr := raw.Read(func(fd uintptr) (done bool) {
		_, err = peek(int(fd), b[:])
		return err != unix.EAGAIN
	})
	switch {
	case waitErr != nil:
		return errHandshakeLate
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%w: %w", errHandshakeEnded, io.EOF)
	}
	return err
}

// readProxyHeader takes a PROXY header, and nothing behind it, out of the socket.
func readProxyHeader(tc *net.TCPConn) (h proxyproto.Header, err error) {
	raw, err := tc.SyscallConn()
	if err != nil {
		return h, err
	}
	b := make([]byte, 512)
	seen := 0 // bytes at the last look, which stay in the socket until the header is whole
	waitErr := raw.Read(func(fd uintptr) (done bool) {
		for {
			n, used := 0, 0
			if n, err = peek(int(fd), b); err == unix.EAGAIN || err == nil && n == seen {
				err = nil
				return false
			}
			if err != nil {
				return true
			}
			seen = n
			if h, used, err = proxyproto.Parse(b[:n]); used > 0 {
				_, err = unix.Read(int(fd), b[:used])
			}
			if err != nil || used > 0 {
				return true
			}
			if n == len(b) && n < proxyproto.MaxV2 {
				b = make([]byte, proxyproto.MaxV2)
			}
		}
	})
	if waitErr != nil {
		return h, errPrefaceLate
	}
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: %w", errPrefaceEnded, err)
	}
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
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}
