// Package handover passes listening sockets from one heartwheel process to
// another: to the successor that replaces this process, and to the workers of a
// supervisor. It starts those processes, and speaks to them over the control
// socket and to the service manager. Of this module it imports
// internal/address, internal/admission, internal/settings, internal/timerslack, internal/wording
// and server.
package handover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"heartwheel/internal/settings"
	"heartwheel/internal/timerslack"
	"heartwheel/internal/wording"
	"heartwheel/server"
)

// ReadyTimeout is how long a new process may take to become ready.
const ReadyTimeout = 30 * time.Second

// A Program is what a process of serve is started from.
type Program struct {
	Path    string
	Args    []string
	Environ []string
	Stderr  *os.File      // standard error once it is ready, shared with this process
	Log     io.Writer     // what it writes to standard error until then; must not block
	Slack   time.Duration // timer slack (prctl(2)); 0: as in this process
}

// ThisProgram returns the program that this process was started from. A
// hand-over starts what is at its path then.
func ThisProgram(argv, environ []string, stderr *os.File, log io.Writer) (*Program, error) {
	path, err := startedFrom(argv[0])
	if err != nil {
		return nil, err
	}
	return &Program{Path: path, Args: argv[1:], Environ: environ, Stderr: stderr, Log: log}, nil
}

// startedFrom returns the path where the command arg0 was found. A symbolic link
// is not resolved, so that it can be pointed at another version.
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

// A Child is a started process. Its methods are safe for concurrent use, but for
// AwaitReady.
type Child struct {
	cmd    *exec.Cmd
	ready  *os.File // reading end of its pipe
	stderr *startupOutput
	done   chan struct{} // closed when it has ended
}

// An InheritedFile is a descriptor that a child inherits beside its sockets.
type InheritedFile struct {
	Name string // in settings.InheritEnv
	File *os.File
}

// InheritedCount passes a connection count on, with a slot in it.
func InheritedCount(f *os.File, slot int) InheritedFile {
	return InheritedFile{fmt.Sprintf("%s%d", countScheme, slot), f}
}

// InheritedSettings returns what passes the configuration file on to a worker: as
// it was when the worker's settings were read anew, and as it was last reloaded
// since. Either may be nil.
func InheritedSettings(base, reload *settings.File) (files []InheritedFile, err error) {
	for _, one := range []struct {
		name string
		file *settings.File
	}{{settingsName, base}, {reloadName, reload}} {
		if one.file == nil {
			continue
		}
		f, err := newSettings(one.file.Data)
		if err != nil {
			for _, f := range files {
				f.File.Close()
			}
			return nil, err
		}
		files = append(files, InheritedFile{one.name, f})
	}
	return files, nil
}

// readSettings returns the content of what newSettings has made.
func readSettings(f *os.File) ([]byte, error) {
	return io.ReadAll(io.NewSectionReader(f, 0, 1<<62)) // the descriptor's offset is shared
}

// Start starts p with duplicates of the sockets, and with the inherited files,
// which it closes in this process.
func (p *Program) Start(sockets []server.Socket, inherited ...InheritedFile) (*Child, error) {
	ready, announce, err := os.Pipe()
	names, files := []string{readyName, stderrName}, []*os.File{announce, p.Stderr}
	for _, f := range inherited {
		names, files = append(names, f.Name), append(files, f.File)
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
	c := &Child{ready: ready, stderr: &startupOutput{to: p.Log}, done: make(chan struct{})}
	c.cmd = exec.Command(p.Path, p.Args...)
	c.cmd.Env = append(p.Environ[:len(p.Environ):len(p.Environ)], settings.InheritEnv+"="+strings.Join(names, ","))
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = os.Stdin, os.Stdout, c.stderr
	c.cmd.ExtraFiles = files
	c.cmd.WaitDelay = time.Second // its own children may hold its standard error
	if err := timerslack.Start(c.cmd, p.Slack); err != nil {
		ready.Close()
		return nil, err
	}
	go func() {
		defer close(c.done)
		_ = c.cmd.Wait() // see State
	}()
	return c, nil
}

// duplicate returns another descriptor of the socket. os/exec would make one from
// ln.File blocking, and with it the socket that this process accepts on.
func duplicate(ln syscall.Conn) (*os.File, error) {
	raw, err := ln.SyscallConn()
	if err != nil {
		return nil, err
	}
	var dup int
	ctlErr := raw.Control(func(fd uintptr) { dup, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	if ctlErr != nil {
		return nil, ctlErr
	}
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(dup), "socket"), nil
}

// PID returns its process id.
func (c *Child) PID() int { return c.cmd.Process.Pid }

// Done is closed when the process has ended.
func (c *Child) Done() <-chan struct{} { return c.done }

// State says how the process ended. Valid once Done is closed.
func (c *Child) State() *os.ProcessState { return c.cmd.ProcessState }

// Stderr returns what the process wrote to standard error before it was ready,
// its first 16 KiB.
func (c *Child) Stderr() string { return c.stderr.text() }

// AwaitReady waits until the process is ready, for at most timeout.
func (c *Child) AwaitReady(timeout time.Duration) error {
	defer c.ready.Close()
	_ = c.ready.SetReadDeadline(time.Now().Add(timeout))
	line, err := io.ReadAll(io.LimitReader(c.ready, int64(len(readyLine))))
	switch {
	case string(line) == readyLine:
		c.stderr.passOn()
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("the new process was not ready within %s", wording.Duration(timeout))
	case err != nil:
		return err
	}
	select { // most likely it is ending, and its exit status says why
	case <-c.done:
	case <-time.After(time.Second):
	}
	return errors.New("the new process did not say that it is ready")
}

// Kill ends the process at once.
func (c *Child) Kill() { _ = c.cmd.Process.Kill() }

// Terminate asks the process to drain and exit, kills it after timeout, and
// returns when it has ended.
func (c *Child) Terminate(timeout time.Duration) {
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	late := time.AfterFunc(timeout, c.Kill)
	defer late.Stop()
	<-c.done
}

// maxStartupOutput bounds what a startupOutput keeps, in bytes.
const maxStartupOutput = 16 << 10

// A startupOutput takes what a process writes to standard error before it is
// ready, and passes it on then. If that never happens, text has the beginning.
// Safe for concurrent use.
type startupOutput struct {
	to io.Writer

	mu     sync.Mutex
	kept   []byte // guarded by mu
	passes bool   // guarded by mu
}

func (h *startupOutput) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.passes {
		_, _ = h.to.Write(b)
	} else {
		h.kept = append(h.kept, b[:min(len(b), maxStartupOutput-len(h.kept))]...)
	}
	return len(b), nil // a broken log must not block the process
}

func (h *startupOutput) passOn() {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, _ = h.to.Write(h.kept)
	h.kept, h.passes = nil, true
}

func (h *startupOutput) text() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.TrimSpace(string(h.kept))
}

// A Handover is one attempt to replace this process by a new one.
type Handover struct {
	Program *Program
	Sockets []server.Socket
	Timeout time.Duration // for the new process to become ready
	Drain   time.Duration // for it to end if the attempt fails
	Log     *slog.Logger
}

// An Error is a child that did not become ready.
type Error struct {
	Err    error
	Stderr string // what it wrote to standard error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// errCanceled is the cause when this process ends before its child is ready.
var errCanceled = errors.New("canceled: this process is ending")

// Run starts the new process and returns it once it is ready. If ctx ends first,
// or the process does not become ready, it is terminated and the error is an
// *Error.
func (h *Handover) Run(ctx context.Context) (*Child, error) {
	c, err := h.Program.Start(h.Sockets)
	if err != nil {
		return nil, &Error{Err: err}
	}
	h.Log.Info("handing over", "successor", c.PID(), "path", h.Program.Path)
	canceled := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(canceled)
		c.Terminate(h.Drain)
	})
	err = c.AwaitReady(h.Timeout)
	switch {
	case !stop():
		<-canceled
		err = errCanceled
	case err == nil:
		return c, nil
	default:
		c.Terminate(h.Drain)
		err = fmt.Errorf("%w; it ended with %s", err, c.State())
	}
	return nil, &Error{Err: err, Stderr: c.Stderr()}
}

// StartWorker starts p as a worker and returns it once it is ready. If ctx ends
// first, or the process does not become ready, it is killed and the error is an
// *Error.
func (p *Program) StartWorker(ctx context.Context, sockets []server.Socket, files ...InheritedFile) (*Child, error) {
	c, err := p.Start(sockets, files...)
	if err != nil {
		return nil, &Error{Err: err}
	}
	canceled := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(canceled)
		c.Kill() // it serves few connections yet, if any
	})
	err = c.AwaitReady(ReadyTimeout)
	if !stop() {
		<-canceled
		err = errCanceled
	}
	if err == nil {
		return c, nil
	}
	c.Kill()
	<-c.done
	return nil, &Error{Err: fmt.Errorf("%w; it ended with %s", err, c.State()), Stderr: c.Stderr()}
}
