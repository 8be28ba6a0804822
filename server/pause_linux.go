package server

import "golang.org/x/sys/unix"

// A readGate stops and resumes the reading of sockets. gnet cannot, but its epoll
// instance can be found, and told for a socket. A socket without events costs
// nothing; the end of its stream waits, and only a reset is still reported.
// Loop only.
type readGate struct{ epoll int } // -1: not found

// highestEpoll bounds the search, which takes about 0.1 µs a descriptor. A loop's is
// among the first of a server.
const highestEpoll = 1 << 16

// newReadGate finds the epoll instance that watches fd, which one loop does: another
// descriptor refuses the change.
func newReadGate(fd int) readGate {
	for epoll := range highestEpoll {
		if set(epoll, fd, unix.EPOLLIN) == nil {
			return readGate{epoll}
		}
	}
	return readGate{-1}
}

func (g readGate) pause(fd int) { g.set(fd, 0) }

// resume leaves out EPOLLPRI, which gnet asks for and has no use for: urgent data
// beyond a gap is reported all the time, and there is nothing to read.
func (g readGate) resume(fd int) { g.set(fd, unix.EPOLLIN) }

// set does nothing if it fails: then reading goes on, as on other systems.
func (g readGate) set(fd int, events uint32) {
	if g.epoll >= 0 {
		_ = set(g.epoll, fd, events)
	}
}

func set(epoll, fd int, events uint32) error {
	return unix.EpollCtl(epoll, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Fd: int32(fd), Events: events})
}
