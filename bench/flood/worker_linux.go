package flood

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"heartwheel/internal/epoll"
)

// A part is what one worker measured.
type part struct {
	frames            int64
	seconds           float64
	ownCPU, serverCPU float64
}

// connect opens one connection, and waits until it is open.
func (w *worker) connect() error {
	id := int32(len(w.conns))
	fd, err := w.dialer.Dial(0)
	if err == nil {
		w.conns = append(w.conns, &conn{fd: fd, number: id, owed: w.frame * w.job.Inflight})
		err = w.poller.Add(fd, unix.EPOLLOUT, epoll.Key{ID: id})
	}
	for open := false; err == nil && !open; {
		var events []epoll.Event
		events, err = w.poller.Wait(time.Second)
		open = slices.ContainsFunc(events, func(e epoll.Event) bool { return e.Key().ID == id })
	}
	if err == nil {
		err = errors.Join(epoll.ConnectError(fd), w.poller.Modify(fd, unix.EPOLLIN, epoll.Key{ID: id}))
	}
	if err != nil {
		return fmt.Errorf("connect to %s: %w", w.job.Addr, err)
	}
	return nil
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
	w.poller.HoldP()
	for _, c := range w.conns {
		if err := w.write(c); err != nil {
			return p, err
		}
	}
	var before mark
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
		if err := w.once(); err != nil {
			return p, err
		}
	}
}

// once waits for events, a tenth of a second at most, and handles them.
func (w *worker) once() error {
	events, err := w.poller.Wait(100 * time.Millisecond)
	if err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	for i := range events {
		c := w.conns[events[i].Key().ID]
		if events[i].Events&unix.EPOLLOUT != 0 {
			if err := w.write(c); err != nil {
				return err
			}
		}
		if events[i].Events&^unix.EPOLLOUT != 0 {
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
	var err error
	w.reads++
	look := w.reads%lookEvery == 0
	if look {
		n, err = epoll.Read(c.fd, w.buf)
	} else {
		n, err = discard(c.fd)
	}
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return nil
	case err != nil:
		return fmt.Errorf("the server broke a connection: %w", err)
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
		n, err := epoll.Write(c.fd, w.stream[c.sent:c.sent+min(c.owed, readSize)])
		if err == unix.EINTR {
			continue
		}
		if err == unix.EAGAIN {
			return w.want(c, true)
		}
		if err != nil {
			return fmt.Errorf("the server broke a connection: %w", err)
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
	events := uint32(unix.EPOLLIN)
	if room {
		events |= unix.EPOLLOUT
	}
	return w.poller.Modify(c.fd, events, epoll.Key{ID: c.number})
}

func (w *worker) close() {
	for _, c := range w.conns {
		unix.Close(c.fd)
	}
	w.poller.Close()
}

// lookEvery is how many reads there are for each whose bytes are compared. The
// others drop them unseen, as comparing costs the generator more than all else where
// frames are large. A frame that is too long or too short would shift all
// that follow, and the next look would find it.
const lookEvery = 16

// discard takes what has arrived out of the socket without copying it: MSG_TRUNC
// of tcp(7).
func discard(fd int) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), 0, readSize, unix.MSG_TRUNC, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
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
