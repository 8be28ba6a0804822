package server

import (
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// enroll hands an accepted socket to the loop of e. The engine duplicates the
// descriptor and closes the one it was given, even if there was none left for the
// duplicate. A spare keeps the socket open meanwhile, so that the connection waits
// for a descriptor as those in the backlog do, and is not reset. If there is an
// error, the caller closes tc.
func (ln *listener) enroll(e *engine, tc *net.TCPConn, c *Conn) error {
	var spare *os.File // after the first failure
	var backoff time.Duration
	for {
		var err error
		if spare == nil {
			spare, err = enrollSpared(e, tc, c)
		} else if tc, err = reopen(spare); err == nil {
			err = e.enroll(tc, c)
		}
		if !outOfFiles(err) || !ln.waitToRetry(&backoff, err) {
			if spare != nil {
				_ = spare.Close()
			}
			return err
		}
	}
}

// enrollSpared is the first attempt. It returns the spare if descriptors have run
// out.
func enrollSpared(e *engine, tc *net.TCPConn, c *Conn) (*os.File, error) {
	spare := -1
	err := control(tc, func(fd int) (err error) {
		spare, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err = e.enroll(tc, c); outOfFiles(err) {
		return os.NewFile(uintptr(spare), "spare"), err
	}
	_ = unix.Close(spare)
	return nil, err
}

// reopen makes a connection from a duplicate of the spare.
func reopen(spare *os.File) (*net.TCPConn, error) {
	nc, err := net.FileConn(spare)
	if err != nil {
		return nil, err
	}
	tc := nc.(*net.TCPConn)
	if tc.RemoteAddr() == nil {
		_ = tc.Close()
		return nil, errors.New("server: the peer is gone")
	}
	return tc, nil
}

func outOfFiles(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE)
}
