//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package server

// This is the only file that uses gnet. One engine runs one event loop, so the
// event handler owns all that a loop owns, and balancing is ours. gnet never
// accepts: most accept errors end its engine. It never writes: its outbound buffer
// has no bound and does not report when it has drained; a writeWaiter reports room
// in a full socket. It keeps no input: its inbound buffer has no bound either.

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"
)

// readSize is how much of a socket is read at a time. With gnet's 64 KiB large
// frames took twice the processor time (docs/decisions/loops.md). A loop has one buffer,
// whose pages are there once they are used.
const readSize = 256 << 10

// stopPatience is how long stop waits for a loop whose handler is busy.
const stopPatience = 5 * time.Second

// engine runs one loop on gnet. Its methods named On… are gnet's callbacks,
// loop only; the others say what they are.
type engine struct {
	gnet.BuiltinEventEngine
	loop   *loop
	client *gnet.Client
	fail   func(error) // reports an unexpected end of the engine

	stopping atomic.Bool
	wakeFD   int // our end of the socket pair that wakes the loop

	// Loop only.
	control gnet.Conn      // the loop's end of that pair
	events  gnet.EventLoop // known from control's OnOpen on
	current *Conn          // whose OnTraffic runs
	closing bool           // current is closed when its OnTraffic returns
	waiter  *writeWaiter
	gate    readGate
	blocked map[int]*Conn // connections that wait for their socket to have room, by descriptor
	resting []rest        // in the order in which they were read
	scratch []byte
}

// wakeCtx marks the control connection, whose only bytes mean "run".
type wakeCtx struct{}

var wakeByte [1]byte

// startEngine starts the event loop for l and waits until it runs.
func startEngine(l *loop, fail func(error)) (*engine, error) {
	e := &engine{loop: l, fail: fail, blocked: map[int]*Conn{}, scratch: make([]byte, 16<<10)}
	var err error
	if e.waiter, err = newWriteWaiter(e.roomFor); err != nil {
		return nil, fmt.Errorf("server: cannot watch for writable sockets: %w", err)
	}
	l.io = e
	e.client, err = gnet.NewClient(e, gnet.WithNumEventLoop(1), gnet.WithReadBufferCap(readSize),
		gnet.WithTCPNoDelay(gnet.TCPDelay), // leaves TCP_NODELAY as it is: Go has set it
		gnet.WithLogger(gnetLog{l.log}))
	if err != nil {
		e.waiter.close()
		return nil, fmt.Errorf("server: event loop: %w", err)
	}
	if err := e.client.Start(); err != nil {
		e.waiter.close()
		return nil, fmt.Errorf("server: event loop: %w", err)
	}
	if err := e.connectWaker(); err != nil {
		_ = e.stop()
		return nil, err
	}
	l.mail.open(e.wake)
	return e, nil
}

// connectWaker gives the loop one end of a socket pair. Its OnOpen proves that
// the loop runs and provides its handle; its OnClose reports the loop's end. A
// byte on it wakes the loop in turn with the sockets; gnet's own task queue would
// run before them.
func (e *engine) connectWaker() error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return fmt.Errorf("server: socket pair: %w", os.NewSyscallError("socketpair", err))
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
		_ = unix.SetNonblock(fd, true)
	}
	f := os.NewFile(uintptr(fds[1]), "wake")
	conn, err := net.FileConn(f)
	_ = f.Close()
	if err == nil {
		_, err = e.client.EnrollContext(conn, wakeCtx{})
	}
	if err != nil {
		_ = unix.Close(fds[0])
		return fmt.Errorf("server: event loop: %w", err)
	}
	e.wakeFD = fds[0]
	if e.events == nil { // written before EnrollContext returned
		return errors.New("server: event loop did not take its control connection")
	}
	return nil
}

// wake makes the loop call run. The mailbox serializes the calls, and makes none
// before the loop has run for the one before. Safe for concurrent use.
func (e *engine) wake() {
	for {
		if _, err := unix.Write(e.wakeFD, wakeByte[:]); err != unix.EINTR {
			return
		}
	}
}

// enroll hands an accepted socket to the loop and waits until it has opened the
// connection. It takes over tc in any case.
// Safe for concurrent use.
func (e *engine) enroll(tc net.Conn, c *Conn) error {
	if _, err := e.client.EnrollContext(tc, c); err != nil {
		return err
	}
	// gnet gives no error when the poller refuses the socket; only OnOpen,
	// which has run by now if it ever will, proves that it was taken.
	if !c.taken {
		return errors.New("server: the event loop did not take the socket")
	}
	return nil
}

// stop ends the loop. It closes what is still open, and gives up on a loop
// whose handler does not return. Safe for concurrent use.
func (e *engine) stop() error {
	e.stopping.Store(true)
	e.loop.mail.close()
	done := make(chan error, 1)
	go func() {
		err := e.client.Stop()
		e.waiter.close()
		if e.wakeFD != 0 {
			_ = unix.Close(e.wakeFD)
		}
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(stopPatience):
		return fmt.Errorf("server: event loop %d does not stop: a handler has not returned for %s",
			e.loop.index, stopPatience)
	}
}

func (e *engine) OnOpen(c gnet.Conn) ([]byte, gnet.Action) {
	conn, ok := c.Context().(*Conn)
	if !ok {
		e.control, e.events, e.gate = c, c.EventLoop(), newReadGate(c.Fd())
		return nil, gnet.None
	}
	e.gate.resume(c.Fd()) // gnet asked for EPOLLPRI too
	e.current, conn.taken = conn, true
	e.loop.opened(conn, c)
	action := e.action()
	e.loop.runIfLate()
	return nil, action
}

func (e *engine) OnTraffic(c gnet.Conn) gnet.Action {
	conn, ok := c.Context().(*Conn)
	if !ok {
		_, _ = c.Discard(-1)
		e.loop.run()
		e.endRests()
		return gnet.None
	}
	b, _ := c.Next(-1) // all of it: gnet's own buffer is neither bounded nor counted
	began := int64(0)
	if len(b) >= restBytes {
		began = e.loop.mono()
	}
	e.current = conn
	e.loop.received(conn, b)
	action := e.action()
	if began != 0 && action == gnet.None {
		e.mayRest(conn, began)
	}
	e.loop.runIfLate() // it may close any connection, also this one: gnet ignores what comes later
	return action
}

// action closes the connection whose callback has ended, if close was called in it.
func (e *engine) action() gnet.Action {
	e.current = nil
	if e.closing {
		e.closing = false
		return gnet.Close
	}
	return gnet.None
}

func (e *engine) OnClose(c gnet.Conn, err error) gnet.Action {
	conn, ok := c.Context().(*Conn)
	switch {
	case ok && err == nil:
		e.loop.lost(conn, EngineStopped) // nothing if we closed it: it has its reason
	case ok:
		if errors.Is(err, io.EOF) && err != io.EOF && conn.owes() { // the end of what it sends
			if fd, dupErr := unix.FcntlInt(uintptr(c.Fd()), unix.F_DUPFD_CLOEXEC, 0); dupErr == nil {
				e.loop.inputEnded(conn, detached{fd, c.RemoteAddr()})
				return gnet.None
			}
		}
		e.loop.lost(conn, e.endReason(c, err))
	default:
		e.endDetached()
		if !e.stopping.Load() {
			e.loop.mail.close()
			e.fail(fmt.Errorf("server: event loop %d ended unexpectedly: %w", e.loop.index, closeCause(err)))
		}
	}
	return gnet.None
}

// endDetached ends the connections that gnet does not end with the loop.
func (e *engine) endDetached() {
	for _, c := range e.loop.conns() {
		if _, ok := c.sock.(detached); ok {
			e.loop.lost(c, EngineStopped)
		}
	}
}

// endReason returns why a connection has ended. gnet reports EPOLLHUP as io.EOF
// itself; a reset and the end of both directions look the same there.
func (e *engine) endReason(c gnet.Conn, err error) Reason {
	if err == io.EOF {
		if errno, _ := unix.GetsockoptInt(c.Fd(), unix.SOL_SOCKET, unix.SO_ERROR); errno != 0 {
			err = unix.Errno(errno)
		}
	}
	return readReason(err)
}

func closeCause(err error) error {
	if err == nil {
		return errors.New("no reason given; see the log")
	}
	return err
}

// The methods from here on are socketOps.

func (e *engine) write(c *Conn, b []byte) (int, error) {
	for {
		n, err := writeNow(c.sock.Fd(), b)
		switch {
		case err == nil && n < len(b):
			return n, errWouldBlock
		case err == nil:
			return n, nil
		case err == unix.EINTR:
		case err == unix.EAGAIN || err == unix.ENOBUFS || err == unix.ENOMEM:
			return 0, errWouldBlock
		default:
			return 0, err
		}
	}
}

func (e *engine) unread(c *Conn) int {
	n, err := unix.IoctlGetInt(c.sock.Fd(), fionread)
	if err != nil {
		return 0
	}
	return n
}

func (e *engine) unacked(c *Conn) int { return unacked(c.sock.Fd()) }

func (e *engine) traffic(c *Conn) (in, out uint64, ok bool) { return traffic(c.sock.Fd()) }

func (e *engine) setTimeout(c *Conn, t time.Duration) {
	_ = setTimeouts(c.sock.Fd(), t) // it fails only when the peer is gone, which is noticed anyway
}

func (e *engine) close(c *Conn, abort bool) {
	fd := c.sock.Fd()
	if fd <= 0 {
		return
	}
	if abort {
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	} else {
		// Unread bytes would turn the close into a reset, which may overtake the
		// last message.
		hangUp(fd, e.scratch)
	}
	if c == e.current {
		e.closing = true
		return
	}
	if _, ok := c.sock.(detached); ok {
		_ = unix.Close(fd)
		return
	}
	if g, ok := c.sock.(gnet.Conn); ok {
		_ = e.events.Close(g)
	}
}

func (e *engine) watch(c *Conn) error {
	fd := c.sock.Fd()
	e.blocked[fd] = c
	return e.waiter.add(fd)
}

func (e *engine) unwatch(c *Conn) {
	fd := c.sock.Fd()
	delete(e.blocked, fd)
	e.waiter.remove(fd)
}

func (e *engine) pause(c *Conn) { e.gate.pause(c.sock.Fd()) }

func (e *engine) resume(c *Conn) {
	if !c.has(flagRests) { // else endRests does it
		e.gate.resume(c.sock.Fd())
	}
}

// roomFor passes descriptors that have room from the waiter to the loop.
// Safe for concurrent use.
func (e *engine) roomFor(fds []int) {
	for _, fd := range fds { // a task each: a pause that ends may leave much input to act on
		_ = e.loop.mail.postOwn(func() {
			// The descriptor may be another connection's by now, whose attempt to
			// write does no harm.
			if c := e.blocked[fd]; c != nil {
				delete(e.blocked, fd)
				e.loop.writable(c)
			}
		})
	}
}

// readReason and writeReason return the Reason for a socket error.
func readReason(err error) Reason {
	if errors.Is(err, io.EOF) {
		return PeerClosed
	}
	return netReason(err, ReadError)
}

func writeReason(err error) Reason { return netReason(err, WriteError) }

func netReason(err error, other Reason) Reason {
	switch {
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return PeerReset
	case errors.Is(err, unix.ETIMEDOUT), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH):
		return PeerTimeout
	}
	return other
}

// gnetLog logs gnet's errors as such. Its warnings are about events for
// connections that this side closed in the same turn.
type gnetLog struct{ log *slog.Logger }

func (g gnetLog) Debugf(f string, a ...any) { g.log.Debug("gnet: " + fmt.Sprintf(f, a...)) }
func (g gnetLog) Infof(f string, a ...any)  { g.log.Debug("gnet: " + fmt.Sprintf(f, a...)) }
func (g gnetLog) Warnf(f string, a ...any)  { g.log.Debug("gnet: " + fmt.Sprintf(f, a...)) }
func (g gnetLog) Errorf(f string, a ...any) { g.log.Error("gnet: " + fmt.Sprintf(f, a...)) }
func (g gnetLog) Fatalf(f string, a ...any) { g.log.Error("gnet: " + fmt.Sprintf(f, a...)) }
