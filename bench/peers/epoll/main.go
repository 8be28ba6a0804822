//go:build linux

// Command epoll is the physical floor in Go: one locked thread for each loop, a
// listener of its own (SO_REUSEPORT), level-triggered epoll, and for a frame
// nothing but the three system calls. Read and write do not go through Go's
// scheduler. It has no deadlines.
package main

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"heartwheel/bench/peers/peer"
)

// readSize is how much one read takes: as gnet and nbio.
const readSize = 64 << 10

type loop struct {
	ep, ln int
	conns  []*conn // by descriptor
	buf    []byte  // what the latest read has brought
}

// A conn is read only while out is empty, so that neither slice outgrows a
// frame and a read.
type conn struct {
	fd   int
	rest []byte // part of a frame
	out  []byte // what the socket did not take
}

func main() {
	o := peer.Start()
	addr := o.Addr
	for range o.Loops {
		l, err := newLoop(addr)
		if err != nil {
			peer.Fail(err)
		}
		if addr, err = peer.Address(l.ln); err != nil { // of port 0
			peer.Fail(err)
		}
		go func() {
			runtime.LockOSThread()
			peer.Fail(l.run())
		}()
	}
	peer.Listening(addr)
	select {}
}

// run serves until epoll fails.
func (l *loop) run() error {
	events := make([]unix.EpollEvent, 1024)
	for {
		n, err := unix.EpollWait(l.ep, events, -1)
		if err != nil && err != unix.EINTR {
			return err
		}
		for _, ev := range events[:max(n, 0)] {
			fd := int(ev.Fd)
			switch c := l.conns[fd]; {
			case fd == l.ln:
				l.accept()
			case c == nil:
			case ev.Events&unix.EPOLLOUT != 0:
				l.flush(c)
			default:
				l.read(c)
			}
		}
	}
}

func (l *loop) accept() {
	for {
		fd, _, err := unix.Accept4(l.ln, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return // the next turn tries again
		}
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		l.track(fd)
		l.conns[fd] = &conn{fd: fd}
		peer.Conns.Add(1)
		l.control(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN)
	}
}

// track makes room for a descriptor in conns.
func (l *loop) track(fd int) {
	for fd >= len(l.conns) {
		l.conns = append(l.conns, nil)
	}
}

func (l *loop) control(op, fd int, events uint32) {
	if err := unix.EpollCtl(l.ep, op, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}); err != nil {
		peer.Fail(err)
	}
}

func (l *loop) read(c *conn) {
	n, errno := call(unix.SYS_READ, c.fd, l.buf)
	if errno == unix.EAGAIN || errno == unix.EINTR {
		return
	}
	if n == 0 || errno != 0 {
		l.close(c)
		return
	}
	b := l.buf[:n]
	if len(c.rest) > 0 {
		c.rest = append(c.rest, b...)
		b = c.rest
	}
	n, ok := peer.Whole(b)
	if !ok || !l.write(c, b[:n]) {
		l.close(c)
		return
	}
	if n == len(b) {
		c.rest = nil
		return
	}
	c.rest = append(c.rest[:0], b[n:]...)
}

// write reports false if the connection is broken. What the socket does not take
// is copied.
func (l *loop) write(c *conn, b []byte) bool {
	for len(b) > 0 {
		n, errno := call(unix.SYS_WRITE, c.fd, b)
		switch errno {
		case 0:
			b = b[n:]
		case unix.EINTR:
		case unix.EAGAIN:
			c.out = append([]byte{}, b...)
			l.control(unix.EPOLL_CTL_MOD, c.fd, unix.EPOLLOUT)
			return true
		default:
			return false
		}
	}
	return true
}

func (l *loop) flush(c *conn) {
	for len(c.out) > 0 {
		n, errno := call(unix.SYS_WRITE, c.fd, c.out)
		switch errno {
		case 0:
			c.out = c.out[n:]
		case unix.EINTR:
		case unix.EAGAIN:
			return
		default:
			l.close(c)
			return
		}
	}
	c.out = nil
	l.control(unix.EPOLL_CTL_MOD, c.fd, unix.EPOLLIN)
}

func (l *loop) close(c *conn) {
	_ = unix.Close(c.fd)
	l.conns[c.fd] = nil
	peer.Conns.Add(-1)
}

// call is read or write on a socket that never blocks, so that the scheduler
// need not be told. b is not empty.
func call(trap uintptr, fd int, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(trap, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), errno
}
