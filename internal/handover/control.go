package handover

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"heartwheel/internal/settings"
)

// The control socket joins a supervisor and a worker. A message is one byte:
const (
	msgConn    = 'c' // to the worker, with a descriptor: a connection for its ops handler
	msgDrain   = 'd' // to the worker: drain and exit
	msgExit    = 'g' // to the worker: its final scrape is done, exit
	msgReload  = 's' // to the worker, with a descriptor: the configuration file, to take settings from
	msgTaken   = 't' // from the worker: it has taken them
	msgRefused = 'r' // from the worker: it has not, and its log says why
	msgDrained = 'l' // from the worker: it has drained and waits for msgExit
)

// ScrapeTimeout is how long a worker that has drained waits for its final scrape.
const ScrapeTimeout = 2 * time.Second

// A DrainRequest asks a worker to drain and exit.
type DrainRequest struct {
	Orphaned bool // the supervisor has ended
}

// A ReloadRequest asks a worker to take settings from a configuration file. It is
// to be answered, once.
type ReloadRequest struct {
	File *settings.File
	c    *Control
}

// Answer tells the supervisor whether the settings are in force.
func (r ReloadRequest) Answer(taken bool) {
	msg := byte(msgRefused)
	if taken {
		msg = msgTaken
	}
	_, _ = r.c.conn.Write([]byte{msg}) // it fails if the supervisor has ended: see read
}

// A Control is a worker's side of its control socket. When the socket ends the
// supervisor has ended, however that happened: only the supervisor holds the
// other side. PR_SET_PDEATHSIG would not do as well: it follows the thread that
// started the process (golang/go#27505).
//
// It is a net.Listener for the connections that the supervisor passes. Accept,
// Close, Drains and Reloads are safe for concurrent use; the rest is for one goroutine.
type Control struct {
	// Static after newControl.
	Index, Count int    // of this worker, of all workers
	Loops        int    // event loops, unless the settings say
	Ops          string // the supervisor's --ops

	drains  chan DrainRequest  // of capacity 1: later requests are dropped
	reloads chan ReloadRequest // of capacity 1: a later request replaces the one that waits
	conn    *net.UnixConn
	conns   chan net.Conn
	exit    chan struct{} // closed at msgExit and at the end of the socket

	closeOnce sync.Once
	closed    chan struct{} // by Close
}

// ControlName is the name that a control socket is passed on by: see
// settings.InheritEnv.
func ControlName(index, count, loops int, ops string) string {
	return fmt.Sprintf("%s%d/%d/%d/%s", workerScheme, index, count, loops, ops)
}

// newControl takes over the control socket f. text is INDEX/COUNT/LOOPS/OPS.
func newControl(text string, f *os.File) (*Control, error) {
	parts := strings.SplitN(text, "/", 4)
	if len(parts) != 4 {
		return nil, errors.New("is not of the form INDEX/COUNT/LOOPS/OPS")
	}
	index, err1 := strconv.Atoi(parts[0])
	count, err2 := strconv.Atoi(parts[1])
	loops, err3 := strconv.Atoi(parts[2])
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	conn, err := unixConn(f)
	if err != nil {
		return nil, err
	}
	return &Control{Index: index, Count: count, Loops: loops, Ops: parts[3],
		drains: make(chan DrainRequest, 1), reloads: make(chan ReloadRequest, 1), conn: conn,
		conns: make(chan net.Conn), exit: make(chan struct{}), closed: make(chan struct{})}, nil
}

// unixConn returns a connection of its own for the socket f.
func unixConn(f *os.File) (*net.UnixConn, error) {
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	if u, ok := c.(*net.UnixConn); ok {
		return u, nil
	}
	c.Close()
	return nil, errors.New("is not a Unix socket")
}

// Start begins to read messages.
func (c *Control) Start() { go c.read() }

func (c *Control) read() {
	msg, rights := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	for {
		n, rightsLen, _, _, err := c.conn.ReadMsgUnix(msg, rights)
		if err != nil || n == 0 {
			c.drain(DrainRequest{Orphaned: true})
			c.stopWaiting()
			return
		}
		switch msg[0] {
		case msgConn:
			c.pass(rights[:rightsLen])
		case msgDrain:
			c.drain(DrainRequest{})
		case msgExit:
			c.stopWaiting()
		case msgReload:
			c.reload(rights[:rightsLen])
		}
	}
}

// pass gives the connection whose descriptor came with a message to Accept. An
// unusable one is closed, which the other side sees.
func (c *Control) pass(rights []byte) {
	f := fileOf(rights)
	if f == nil {
		return
	}
	defer f.Close()
	conn, err := unixConn(f)
	if err != nil {
		return
	}
	select {
	case c.conns <- conn:
	case <-c.closed:
		conn.Close()
	}
}

// fileOf returns the descriptor that came with a message; nil if there is none.
func fileOf(rights []byte) *os.File {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil || len(messages) != 1 {
		return nil
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil
	}
	return os.NewFile(uintptr(fds[0]), "passed")
}

// reload is called by read alone, which alone sends to reloads.
func (c *Control) reload(rights []byte) {
	r := ReloadRequest{File: &settings.File{Err: errors.New("did not reach the worker")}, c: c}
	if f := fileOf(rights); f != nil {
		r.File.Data, r.File.Err = readSettings(f)
		f.Close()
	}
	select {
	case <-c.reloads:
	default:
	}
	c.reloads <- r
}

// Reloads delivers requests to take other settings.
func (c *Control) Reloads() <-chan ReloadRequest { return c.reloads }

// Drains delivers the first request to drain; later ones are dropped.
func (c *Control) Drains() <-chan DrainRequest { return c.drains }

func (c *Control) drain(r DrainRequest) {
	select {
	case c.drains <- r:
	default: // already requested
	}
}

// stopWaiting is called by read alone.
func (c *Control) stopWaiting() {
	select {
	case <-c.exit:
	default:
		close(c.exit)
	}
}

// FinalScrape lets the supervisor read this worker's metrics once more while its
// ops handler still answers, and returns when that is done or after
// ScrapeTimeout.
func (c *Control) FinalScrape() {
	if _, err := c.conn.Write([]byte{msgDrained}); err != nil {
		return
	}
	select {
	case <-c.exit:
	case <-time.After(ScrapeTimeout):
	}
}

// Accept implements net.Listener.
func (c *Control) Accept() (net.Conn, error) {
	select {
	case conn := <-c.conns:
		return conn, nil
	case <-c.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. Drain requests still arrive.
func (c *Control) Close() error {
	c.closeOnce.Do(func() { close(c.closed) })
	return nil
}

// Addr implements net.Listener.
func (c *Control) Addr() net.Addr { return c.conn.LocalAddr() }

// A WorkerControl is the supervisor's side of a control socket. Its methods are
// safe for concurrent use, but for Serve.
type WorkerControl struct {
	conn    *net.UnixConn
	answers chan bool // to Reload, of capacity 1
}

// NewWorkerControl makes a control socket. The file is the worker's end, for
// Program.StartWorker, which closes it in this process.
func NewWorkerControl() (*WorkerControl, *os.File, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, nil, err
	}
	return &WorkerControl{conn: ours, answers: make(chan bool, 1)}, theirs, nil
}

// sendTimeout bounds sending to a worker that has stopped reading.
const sendTimeout = time.Second

func (w *WorkerControl) send(msg byte, rights []byte) error {
	_ = w.conn.SetWriteDeadline(time.Now().Add(sendTimeout))
	_, _, err := w.conn.WriteMsgUnix([]byte{msg}, rights, nil)
	return err
}

// Drain asks the worker to drain and exit.
func (w *WorkerControl) Drain() error { return w.send(msgDrain, nil) }

// ReloadTimeout is how long a worker may take to take other settings, of which fetching
// JWK sets may take 3 s.
const ReloadTimeout = 10 * time.Second

// Reload has the worker take settings from the file, and returns when it has. Not
// twice at one time.
func (w *WorkerControl) Reload(file *settings.File) error {
	f, err := newSettings(file.Data)
	if err != nil {
		return err
	}
	defer f.Close()
	select {
	case <-w.answers: // too late, to an earlier one
	default:
	}
	if err := w.send(msgReload, syscall.UnixRights(int(f.Fd()))); err != nil {
		return err
	}
	select {
	case taken := <-w.answers:
		if !taken {
			return errors.New("it has refused them, see its log")
		}
		return nil
	case <-time.After(ReloadTimeout):
		return fmt.Errorf("it has not answered within %s", ReloadTimeout)
	}
}

// Dial makes a connection to the worker's ops handler.
func (w *WorkerControl) Dial() (net.Conn, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	if err := w.send(msgConn, syscall.UnixRights(int(theirs.Fd()))); err != nil {
		ours.Close()
		return nil, fmt.Errorf("the worker does not take connections to its ops handler: %w", err)
	}
	return ours, nil
}

// Serve reads messages until the socket ends. It calls finalScrape when the
// worker has drained, and then lets it exit.
func (w *WorkerControl) Serve(finalScrape func()) {
	msg := make([]byte, 1)
	for {
		if _, err := w.conn.Read(msg); err != nil {
			return
		}
		switch msg[0] {
		case msgDrained:
			finalScrape()
			_ = w.send(msgExit, nil)
		case msgTaken, msgRefused:
			select {
			case w.answers <- msg[0] == msgTaken:
			default: // Reload has given up
			}
		}
	}
}

// Close closes the supervisor's end.
func (w *WorkerControl) Close() { w.conn.Close() }

// socketPair makes the two ends of a control socket, or of a connection to a
// worker's ops handler.
func socketPair() (ours *net.UnixConn, theirs *os.File, err error) {
	syscall.ForkLock.RLock() // not every system has a close-on-exec flag for this
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	f := os.NewFile(uintptr(fds[0]), "control")
	defer f.Close() // unixConn has a duplicate
	theirs = os.NewFile(uintptr(fds[1]), "control")
	if ours, err = unixConn(f); err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}
