package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"heartwheel/internal/timerslack"
	"heartwheel/internal/wording"
	"heartwheel/server"
)

// A program is what a process of serve is started from.
type program struct {
	path    string
	args    []string
	environ []string
	stderr  *os.File      // the log of both processes
	slack   time.Duration // of its timers; 0: as of this process
}

// thisProgram is the program that this process was started from: whatever is
// at that path later is what a hand-over starts.
func thisProgram(argv, environ []string, stderr *os.File) (*program, error) {
	path, err := startedFrom(argv[0])
	if err != nil {
		return nil, err
	}
	return &program{path: path, args: argv[1:], environ: environ, stderr: stderr}, nil
}

// startedFrom is the path that the command arg0 was found at. Where that is a
// symbolic link it stays one, so that it can be pointed at another version.
func startedFrom(arg0 string) (string, error) {
	self, err := os.Executable()
	found, lookErr := exec.LookPath(arg0)
	if lookErr != nil {
		return self, err
	}
	if found, lookErr = filepath.Abs(found); lookErr != nil || err == nil && !sameFile(found, self) {
		return self, err
	}
	return found, nil
}

func sameFile(a, b string) bool {
	ia, err := os.Stat(a)
	if err != nil {
		return false
	}
	ib, err := os.Stat(b)
	return err == nil && os.SameFile(ia, ib)
}

// A successor is a started process that was given sockets.
type successor struct {
	cmd   *exec.Cmd
	ready *os.File // reading end of its pipe
	said  *heldBack
	gone  chan struct{} // closed when it has ended; cmd.ProcessState tells how
}

// A gift is a descriptor that a started process is given, with its name in
// inheritEnv.
type gift struct {
	name string
	file *os.File
}

// start starts p as a process that is given duplicates of the sockets, and the
// gifts, which it closes here.
func (p *program) start(sockets []server.Socket, gifts ...gift) (*successor, error) {
	ready, announce, err := os.Pipe()
	names, files := []string{readyName, stderrName}, []*os.File{announce, p.stderr}
	for _, g := range gifts {
		names, files = append(names, g.name), append(files, g.file)
	}
	defer func() {
		for i, f := range files {
			if names[i] != stderrName {
				f.Close()
			}
		}
	}()
	if err != nil {
		return nil, err
	}
	for _, o := range sockets {
		f, err := duplicate(o.Listener)
		if err != nil {
			ready.Close()
			return nil, fmt.Errorf("cannot duplicate the socket of %s: %w", o.Address, err)
		}
		names, files = append(names, o.Address), append(files, f)
	}
	s := &successor{ready: ready, said: &heldBack{to: p.stderr}, gone: make(chan struct{})}
	s.cmd = exec.Command(p.path, p.args...)
	s.cmd.Env = append(p.environ[:len(p.environ):len(p.environ)], inheritEnv+"="+strings.Join(names, ","))
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = os.Stdin, os.Stdout, s.said
	s.cmd.ExtraFiles = files
	s.cmd.WaitDelay = time.Second // for children of its own that keep its standard error
	if err := timerslack.Start(s.cmd, p.slack); err != nil {
		ready.Close()
		return nil, err
	}
	go func() {
		defer close(s.gone)
		_ = s.cmd.Wait() // the state says what came of it
	}()
	return s, nil
}

// duplicate is another descriptor of the socket. ln.File would not do: os/exec
// makes that blocking, and with it the socket that this process accepts on.
func duplicate(ln *net.TCPListener) (*os.File, error) {
	raw, err := ln.SyscallConn()
	if err != nil {
		return nil, err
	}
	var dup int
	if ctlErr := raw.Control(func(fd uintptr) { dup, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); ctlErr != nil {
		return nil, ctlErr
	}
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(dup), "socket"), nil
}

func (s *successor) pid() int { return s.cmd.Process.Pid }

// awaitReady waits until the process says that it is ready, for at most limit.
func (s *successor) awaitReady(limit time.Duration) error {
	defer s.ready.Close()
	_ = s.ready.SetReadDeadline(time.Now().Add(limit))
	line, err := io.ReadAll(io.LimitReader(s.ready, int64(len(readyLine))))
	switch {
	case string(line) == readyLine:
		s.said.passOn()
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("the new process was not ready within %s", wording.Duration(limit))
	case err != nil:
		return err
	}
	select { // most likely it is ending, and its exit code says why
	case <-s.gone:
	case <-time.After(time.Second):
	}
	return errors.New("the new process did not say that it is ready")
}

// end asks the process to drain and end, kills it after the time it may take,
// and returns when it has ended.
func (s *successor) end(within time.Duration) {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	patience := time.AfterFunc(within, func() { _ = s.cmd.Process.Kill() })
	defer patience.Stop()
	<-s.gone
}

// maxHeldBack bounds what is kept of a new process' standard error, in bytes.
const maxHeldBack = 16 << 10

// A heldBack takes what a process writes to standard error before it is ready.
// That is passed on when it is; if it never is, text has its beginning. Safe
// for concurrent use.
type heldBack struct {
	to io.Writer

	mu     sync.Mutex
	kept   []byte // guarded by mu
	passes bool   // guarded by mu
}

func (h *heldBack) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.passes {
		_, _ = h.to.Write(b)
	} else {
		h.kept = append(h.kept, b[:min(len(b), maxHeldBack-len(h.kept))]...)
	}
	return len(b), nil // a log that is gone is no reason to block the process
}

func (h *heldBack) passOn() {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, _ = h.to.Write(h.kept)
	h.kept, h.passes = nil, true
}

func (h *heldBack) text() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.TrimSpace(string(h.kept))
}

// A handover is one attempt to be replaced by a new process.
type handover struct {
	program *program
	sockets []server.Socket
	limit   time.Duration // for the new process to be ready
	drain   time.Duration // for it to end where it must not go on
	log     *slog.Logger
}

// A handoverError is a hand-over that did not come about.
type handoverError struct {
	err  error
	said string // by the new process, on standard error
}

func (e *handoverError) Error() string { return e.err.Error() }
func (e *handoverError) Unwrap() error { return e.err }

// run starts the new process and returns it once it is ready. When ctx ends
// before, or it does not become ready, it is made to end, and the error is a
// *handoverError.
func (h *handover) run(ctx context.Context) (*successor, error) {
	s, err := h.program.start(h.sockets)
	if err != nil {
		return nil, &handoverError{err: err}
	}
	h.log.Info("handing over", "successor", s.pid(), "path", h.program.path)
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		s.end(h.drain)
	})
	err = s.awaitReady(h.limit)
	switch {
	case !stop():
		<-ended
		err = errors.New("given up, as this process is to end")
	case err == nil:
		return s, nil
	default:
		s.end(h.drain)
		err = fmt.Errorf("%w; it ended with %s", err, s.cmd.ProcessState)
	}
	return nil, &handoverError{err: err, said: s.said.text()}
}
