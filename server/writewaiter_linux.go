package server

import (
	"os"

	"golang.org/x/sys/unix"
)

// A writeWaiter reports which of its sockets can be written again, once for each
// add. It is an epoll instance of its own that holds only full sockets.
type writeWaiter struct {
	file *os.File
	fd   int
	done chan struct{}
}

// newWriteWaiter starts one. ready is called on a goroutine of the waiter's
// and may keep the slice.
func newWriteWaiter(ready func(fds []int)) (*writeWaiter, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // lets the runtime's poller wait for it
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	w := &writeWaiter{file: os.NewFile(uintptr(fd), "epoll"), fd: fd, done: make(chan struct{})}
	raw, err := w.file.SyscallConn()
	if err != nil {
		_ = w.file.Close()
		return nil, err
	}
	go func() {
		defer close(w.done)
		events := make([]unix.EpollEvent, 128)
		for {
			var n int
			err := raw.Read(func(fd uintptr) bool {
				n, _ = unix.EpollWait(int(fd), events, 0)
				return n > 0
			})
			if err != nil {
				return
			}
			fds := make([]int, n)
			for i := range fds {
				fds[i] = int(events[i].Fd)
			}
			ready(fds)
		}
	}()
	return w, nil
}

// add waits for room in a socket. Safe for concurrent use, as is remove.
func (w *writeWaiter) add(fd int) error {
	ev := unix.EpollEvent{Events: unix.EPOLLOUT | unix.EPOLLONESHOT, Fd: int32(fd)}
	err := unix.EpollCtl(w.fd, unix.EPOLL_CTL_ADD, fd, &ev)
	if err == unix.EEXIST {
		err = unix.EpollCtl(w.fd, unix.EPOLL_CTL_MOD, fd, &ev)
	}
	return os.NewSyscallError("epoll_ctl", err)
}

func (w *writeWaiter) remove(fd int) { _ = unix.EpollCtl(w.fd, unix.EPOLL_CTL_DEL, fd, nil) }

// close ends the waiter and its goroutine. add and remove must not be called
// any more.
func (w *writeWaiter) close() {
	_ = w.file.Close()
	<-w.done
}
