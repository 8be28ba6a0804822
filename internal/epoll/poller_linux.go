package epoll

import (
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Poller waits for events of many sockets. Not safe for concurrent use.
type Poller struct {
	fd     int
	events []Event
	holdsP bool
}

// A Key names a socket in its events.
type Key struct {
	ID  int32  // the caller's number for the connection
	Gen uint32 // tells apart the sockets that the connection had: an event may be older than its socket
}

// An Event is what epoll reported of one socket. Its member Events holds
// unix.EPOLLIN and so on.
type Event unix.EpollEvent

// Key is the key that the socket was added with.
func (e *Event) Key() Key { return Key{e.Fd, uint32(e.Pad)} }

// New makes a poller that takes at most size events at a time.
func New(size int) (*Poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return &Poller{fd: fd, events: make([]Event, size)}, nil
}

// Add begins to report events (unix.EPOLLIN, unix.EPOLLET and so on) of fd. The
// kernel forgets fd when it is closed.
func (p *Poller) Add(fd int, events uint32, k Key) error {
	return p.ctl(unix.EPOLL_CTL_ADD, fd, events, k)
}

// Modify replaces what Add was given. An edge that was reported already is
// reported again.
func (p *Poller) Modify(fd int, events uint32, k Key) error {
	return p.ctl(unix.EPOLL_CTL_MOD, fd, events, k)
}

// Remove ends the reports of fd, which stays open.
func (p *Poller) Remove(fd int) error { return p.ctl(unix.EPOLL_CTL_DEL, fd, 0, Key{}) }

func (p *Poller) ctl(op, fd int, events uint32, k Key) error {
	ev := unix.EpollEvent{Events: events, Fd: k.ID, Pad: int32(k.Gen)}
	return unix.EpollCtl(p.fd, op, fd, &ev)
}

// Close ends the poller. The sockets stay open.
func (p *Poller) Close() error {
	if p.holdsP {
		p.holdsP = false
		holders.Add(-1)
	}
	return unix.Close(p.fd)
}

// HoldP makes Wait keep its P: Go's scheduler does not learn that the thread
// waits. Its monitor would otherwise take the P from a goroutine that never
// yields at every wait (Go 1.26, proc.go, retake), and wake for each: a quarter
// of the processor time where many processes beat a few hundred times a second.
// The monitor still interrupts a wait every 10 ms, and at once when the world
// has to stop. HoldP does nothing if all Ps but one are held already.
func (p *Poller) HoldP() {
	if p.holdsP {
		return
	}
	if p.holdsP = int(holders.Add(1)) < runtime.GOMAXPROCS(0); !p.holdsP {
		holders.Add(-1)
	}
}

// holders is how many pollers of this process hold their P.
var holders atomic.Int32

// Wait waits for events, at most for timeout; 0 or less: not at all. The events
// are valid until the next call. With as many as the size of New there may be
// more. A signal ends it early with none. Kernels and seccomp filters without
// epoll_pwait2 get whole milliseconds, rounded down: a wait that is too short
// costs a turn, one that is too long makes the caller late.
func (p *Poller) Wait(timeout time.Duration) ([]Event, error) {
	n, err := p.wait(int64(max(0, timeout)))
	if err != nil && err != unix.EINTR {
		return nil, err
	}
	return p.events[:max(0, n)], nil
}

func (p *Poller) wait(timeout int64) (int, error) {
	if !noPwait2 {
		ts := [2]int64{timeout / 1e9, timeout % 1e9}
		var n uintptr
		var errno unix.Errno
		if p.holdsP || timeout == 0 {
			n, _, errno = unix.RawSyscall6(unix.SYS_EPOLL_PWAIT2, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])),
				uintptr(len(p.events)), uintptr(unsafe.Pointer(&ts)), 0, 0)
		} else {
			n, _, errno = unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])),
				uintptr(len(p.events)), uintptr(unsafe.Pointer(&ts)), 0, 0)
		}
		if errno == 0 {
			return int(n), nil
		}
		if errno != unix.ENOSYS && errno != unix.EPERM {
			return 0, errno
		}
	}
	return unix.EpollWait(p.fd, unsafe.Slice((*unix.EpollEvent)(&p.events[0]), len(p.events)), int(timeout/1e6))
}

// noPwait2 is whether this kernel lacks epoll_pwait2.
var noPwait2 = func() bool {
	_, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, ^uintptr(0), 0, 0, 0, 0, 0)
	return errno == unix.ENOSYS || errno == unix.EPERM
}()

// Read and Write are read(2) and write(2) on a non-blocking socket, without a
// word to Go's scheduler. b is not empty, and not kept. The error is a
// unix.Errno, such as unix.EAGAIN. Safe for concurrent use.
func Read(fd int, b []byte) (int, error) { return transfer(unix.SYS_READ, fd, b) }

// Write is documented at Read.
func Write(fd int, b []byte) (int, error) { return transfer(unix.SYS_WRITE, fd, b) }

func transfer(call uintptr, fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}
