package server

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// A readGate stops and resumes the reading of sockets. gnet cannot, but its epoll
// instance can be found, and told for a socket. A socket without events costs
// nothing; the end of its stream waits, and only a reset is still reported.
// Loop only.
type readGate struct{ epoll int } // -1: not found

// newReadGate finds the epoll instance that watches fd, which one loop does.
func newReadGate(fd int) readGate {
	infos, _ := filepath.Glob("/proc/self/fdinfo/*")
	watches := fmt.Appendf(nil, "tfd: %8d ", fd)
	for _, name := range infos {
		info, err := os.ReadFile(name)
		if err != nil || !bytes.Contains(info, watches) {
			continue
		}
		if epoll, err := strconv.Atoi(filepath.Base(name)); err == nil {
			return readGate{epoll}
		}
	}
	return readGate{-1}
}

func (g readGate) pause(fd int) { g.set(fd, 0) }

// resume leaves out EPOLLPRI, which gnet asks for and has no use for.
func (g readGate) resume(fd int) { g.set(fd, unix.EPOLLIN) }

// set does nothing if it fails: then reading goes on, as on other systems.
func (g readGate) set(fd int, events uint32) {
	if g.epoll >= 0 {
		_ = unix.EpollCtl(g.epoll, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Fd: int32(fd), Events: events})
	}
}
