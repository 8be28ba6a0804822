package flood

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A part is what one worker measured.
type part struct {
	frames            int64
	seconds           float64
	ownCPU, serverCPU float64
}

// connect opens one connection, blocking, and puts it into the epoll instance.
func (w *worker) connect() error {
	addr, err := net.ResolveTCPAddr("tcp4", w.job.Addr)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	sa := &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte(addr.IP.To4())}
	if err := unix.Connect(fd, sa); err != nil {
		return fmt.Errorf("connect to %s: %w", w.job.Addr, err)
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}), // no TIME_WAIT
		unix.SetNonblock(fd, true),
		unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(len(w.conns))}))
	w.conns = append(w.conns, &conn{fd: fd, number: int32(len(w.conns)), owed: w.frame * w.job.Inflight})
	return err
}

// run floods until to, and measures from from on.
func (w *worker) run(cpu int, from, to time.Time) (p part, err error) {
	runtime.LockOSThread() // for good: the thread is pinned
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return p, fmt.Errorf("pin to processor %d: %w", cpu, err)
	}
	defer w.close()
	for _, c := range w.conns {
		if err := w.write(c); err != nil {
			return p, err
		}
	}
	var before mark
	events := make([]unix.EpollEvent, 512)
	for {
		now := time.Now()
		switch {
		case before.at.IsZero() && !now.Before(from):
			if before, err = w.mark(now); err != nil {
				return p, err
			}
		case !now.Before(to):
			after, err := w.mark(now)
			if err != nil {
				return p, err
			}
			return before.until(after), nil
		}
		if err := w.once(events); err != nil {
			return p, err
		}
	}
}

// once waits for events, a tenth of a second at most, and handles them.
func (w *worker) once(events []unix.EpollEvent) error {
	const wait = 100 // ms
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_WAIT, uintptr(w.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), wait, 0, 0)
	if errno != 0 && errno != unix.EINTR {
		return fmt.Errorf("epoll_wait: %w", errno)
	}
	if errno != 0 {
		return nil
	}
	for _, e := range events[:n] {
		c := w.conns[e.Fd]
		if e.Events&unix.EPOLLOUT != 0 {
			if err := w.write(c); err != nil {
				return err
			}
		}
		if e.Events&^unix.EPOLLOUT != 0 {
			if err := w.read(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// read takes what has arrived, and sends a frame for each that is whole.
func (w *worker) read(c *conn) error {
	var n int
	var errno unix.Errno
	w.reads++
	look := w.reads%lookEvery == 0
	if look {
		n, errno = rawIO(unix.SYS_READ, c.fd, w.buf)
	} else {
		n, errno = discard(c.fd)
	}
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
		return nil
	case errno != 0:
		return fmt.Errorf("the server broke a connection: %w", errno)
	case n == 0:
		return errors.New("the server closed a connection")
	}
	if look && !bytes.Equal(w.buf[:n], w.stream[c.received:c.received+n]) {
		return errors.New("the server sent back something else")
	}
	whole := (c.received + n) / w.frame
	c.received = (c.received + n) % w.frame
	if whole == 0 {
		return nil
	}
	w.frames += int64(whole)
	c.owed += whole * w.frame
	if c.waiting {
		return nil
	}
	return w.write(c)
}

// write sends what is owed, as far as the socket takes it.
func (w *worker) write(c *conn) error {
	for c.owed > 0 {
		n, errno := rawIO(unix.SYS_WRITE, c.fd, w.stream[c.sent:c.sent+min(c.owed, readSize)])
		if errno == unix.EINTR {
			continue
		}
		if errno == unix.EAGAIN {
			return w.want(c, true)
		}
		if errno != 0 {
			return fmt.Errorf("the server broke a connection: %w", errno)
		}
		c.owed -= n
		c.sent = (c.sent + n) % w.frame
	}
	return w.want(c, false)
}

// want says whether the connection waits for room in its socket.
func (w *worker) want(c *conn, room bool) error {
	if c.waiting == room {
		return nil
	}
	c.waiting = room
	e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: c.number}
	if room {
		e.Events |= unix.EPOLLOUT
	}
	return unix.EpollCtl(w.epoll, unix.EPOLL_CTL_MOD, c.fd, &e)
}

func (w *worker) close() {
	for _, c := range w.conns {
		unix.Close(c.fd)
	}
	unix.Close(w.epoll)
}

// lookEvery is how many reads there are for one of which the bytes are looked at.
// The others drop them unseen, as looking costs the generator more than all else
// where frames are large. A frame that is too long or too short would shift all
// that follow, and the next look would find it.
const lookEvery = 16

// discard takes what has arrived out of the socket without copying it: MSG_TRUNC
// of tcp(7).
func discard(fd int) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), 0, readSize, unix.MSG_TRUNC, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// rawIO reads or writes without telling Go's scheduler: the sockets never block.
func rawIO(call uintptr, fd int, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// A mark is the state of all counters at one time.
type mark struct {
	at          time.Time
	frames      int64
	own, server time.Duration
}

func (w *worker) mark(now time.Time) (mark, error) {
	m := mark{at: now, frames: w.frames}
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		return m, err
	}
	m.own = time.Duration(ts.Nano())
	var err error
	m.server, err = CPUTime(w.job.PID)
	return m, err
}

func (m mark) until(o mark) part {
	return part{
		frames: o.frames - m.frames, seconds: o.at.Sub(m.at).Seconds(),
		ownCPU: (o.own - m.own).Seconds(), serverCPU: (o.server - m.server).Seconds(),
	}
}

// CPUTime is the processor time that a process has used, all its threads
// together, those that have ended included: clock_getcpuclockid(3).
func CPUTime(pid int) (time.Duration, error) {
	const schedClock = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|schedClock), &ts); err != nil {
		return 0, fmt.Errorf("processor time of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}
