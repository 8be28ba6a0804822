package server

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"heartwheel/internal/admission"
)

// enteringMost is how many sockets may be on their way to a loop.
const enteringMost = 256

// enteringFull reports whether as many are. Safe for concurrent use.
func (l *loop) enteringFull() bool { return len(l.entering) == cap(l.entering) }

// enter hands an accepted socket to its loop, without waiting for that loop's turn
// unless enteringMost others do so already. It takes over sc, and reports to the log
// and to admission what fails.
func (ln *listener) enter(l *loop, e *engine, sc streamConn, c *Conn) {
	spare, err := ln.takeSpare(sc)
	if err != nil {
		ln.enrolled(l, sc, c, err)
		return
	}
	l.entering <- struct{}{}
	ln.wg.Go(func() {
		ln.enrolled(l, sc, c, ln.enroll(e, sc, c, spare))
		<-l.entering
	})
}

// enrolled deals with an error of enroll.
func (ln *listener) enrolled(l *loop, sc streamConn, c *Conn, err error) {
	if err == nil {
		return
	}
	l.assigned.Add(-1) // the loop does not have c
	ln.s.admission.Fail(&c.ticket, admission.EnrollFailed)
	_ = sc.Close()
	ln.s.enrollLog.log(ln.s.log, slog.LevelError, faultLogEvery,
		"cannot hand a connection to its event loop; it is closed",
		func() []any { return []any{"loop", l.index, "error", err} })
}

// takeSpare duplicates the descriptor of sc, and waits while there is none left.
//
// The engine duplicates it too and closes the one it was given, even if there was
// none left for the duplicate. The spare keeps the socket open meanwhile, so that the
// connection waits for a descriptor as those in the backlog do, and is not reset.
func (ln *listener) takeSpare(sc streamConn) (spare int, err error) {
	var backoff time.Duration
	for {
		err := control(sc, func(fd int) (err error) {
			spare, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
			return err
		})
		if !outOfFiles(err) || !ln.waitToRetry(&backoff, err) {
			return spare, err
		}
	}
}

// enroll hands a socket to the loop of e and waits until that has it. It takes over
// the spare.
func (ln *listener) enroll(e *engine, sc streamConn, c *Conn, spare int) error {
	err := e.enroll(sc, c)
	if !outOfFiles(err) {
		_ = unix.Close(spare)
		return err
	}
	kept := os.NewFile(uintptr(spare), "spare")
	defer func() { _ = kept.Close() }()
	var backoff time.Duration
	for outOfFiles(err) && ln.waitToRetry(&backoff, err) {
		if sc, err = reopen(kept); err == nil {
			err = e.enroll(sc, c)
		}
	}
	return err
}

// reopen makes a connection from a duplicate of the spare.
func reopen(spare *os.File) (streamConn, error) {
	nc, err := net.FileConn(spare)
	if err != nil {
		return nil, err
	}
	sc := nc.(streamConn)
	if sc.RemoteAddr() == nil {
		_ = sc.Close()
		return nil, errors.New("server: the peer is gone")
	}
	return sc, nil
}

func outOfFiles(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE)
}
