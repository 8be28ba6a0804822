package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	dto "github.com/prometheus/client_model/go"

	"heartwheel/internal/timerslack"
	"heartwheel/server"
)

// A worker is a process that serves in a place of the supervisor: its side of
// the control socket. Methods are safe for concurrent use unless they say
// otherwise.
type worker struct {
	// Static after startWorker.
	*successor
	index   int           // of its place
	line    int           // of the shared count
	drain   time.Duration // how long its drain may take
	control *net.UnixConn
	client  *http.Client // asks its ops handler, whatever the host in the URL
	since   time.Time    // when it was ready
	words   chan struct{}

	draining atomic.Bool // it has been asked to; set by the goroutine of supervisor.run

	figures figures
}

// A startOrder is what a worker is started with.
type startOrder struct {
	program *program
	name    string // of its control socket
	index   int
	line    int
	count   *os.File
	sockets []server.Socket
	drain   time.Duration
}

// startWorker starts a process as a worker and waits until it is ready. When ctx ends
// before, or it does not become ready, it is made to end, and the error is a
// *handoverError.
func startWorker(ctx context.Context, o startOrder) (*worker, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, &handoverError{err: err}
	}
	shared, err := dupFile(o.count)
	if err != nil {
		ours.Close()
		theirs.Close()
		return nil, &handoverError{err: err}
	}
	s, err := o.program.start(o.sockets, gift{o.name, theirs}, gift{fmt.Sprintf("%s%d", countScheme, o.line), shared})
	if err != nil {
		ours.Close()
		return nil, &handoverError{err: err}
	}
	w := &worker{successor: s, index: o.index, line: o.line, drain: o.drain, control: ours, words: make(chan struct{})}
	w.client = &http.Client{Transport: &http.Transport{
		DialContext:         func(context.Context, string, string) (net.Conn, error) { return w.dial() },
		MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute, DisableCompression: true,
	}}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		w.kill() // it serves nobody yet, or hardly
	})
	err = s.awaitReady(readyWithin)
	if !stop() {
		<-ended
		err = errors.New("given up, as this process is to end")
	}
	if err == nil {
		w.since = time.Now()
		go w.listen()
		return w, nil
	}
	w.kill()
	<-w.gone
	w.release()
	return nil, &handoverError{err: fmt.Errorf("%w; it ended with %s", err, s.cmd.ProcessState), said: s.said.text()}
}

// socketPair makes the two ends of a control socket, or of a connection to ask
// a worker by.
func socketPair() (ours *net.UnixConn, theirs *os.File, err error) {
	syscall.ForkLock.RLock() // as there is no flag for close-on-exec everywhere
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
	defer f.Close() // FileConn has a duplicate
	theirs = os.NewFile(uintptr(fds[1]), "control")
	if ours, err = unixConn(f); err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// dupFile is another descriptor of f, as a start closes what it gives away.
func dupFile(f *os.File) (*os.File, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// controlPatience bounds sending to a worker that reads no more.
const controlPatience = time.Second

// order sends a message of one byte, perhaps with a descriptor.
func (w *worker) order(what byte, rights []byte) error {
	_ = w.control.SetWriteDeadline(time.Now().Add(controlPatience))
	_, _, err := w.control.WriteMsgUnix([]byte{what}, rights, nil)
	return err
}

// dial makes a connection to the worker's ops handler.
func (w *worker) dial() (net.Conn, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	if err := w.order(orderConn, syscall.UnixRights(int(theirs.Fd()))); err != nil {
		ours.Close()
		return nil, fmt.Errorf("the worker takes no question: %w", err)
	}
	return ours, nil
}

// listen reads what the worker says until it ends. There is one thing to say.
func (w *worker) listen() {
	defer close(w.words)
	word := make([]byte, 1)
	for {
		if _, err := w.control.Read(word); err != nil {
			return
		}
		if word[0] == wordLast {
			ctx, cancel := context.WithTimeout(context.Background(), lastPatience)
			_, _ = w.read(ctx) // what was read before does if this cannot be
			cancel()
			_ = w.order(orderGo, nil)
		}
	}
}

// release closes the control socket of a worker that has ended.
func (w *worker) release() {
	w.client.CloseIdleConnections()
	w.control.Close()
}

// kill ends it at once.
func (w *worker) kill() { _ = w.cmd.Process.Kill() }

// String names it, for people.
func (w *worker) String() string {
	if w.draining.Load() {
		return fmt.Sprintf("worker %d (draining)", w.index)
	}
	return fmt.Sprintf("worker %d", w.index)
}

// state is how it ended. Valid after gone is closed.
func (w *worker) state() *os.ProcessState { return w.cmd.ProcessState }

// get asks the worker's ops handler.
func (w *worker) get(ctx context.Context, path, accept string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://worker"+path, nil)
	if err != nil {
		return nil, err
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	return w.client.Do(req)
}

// read reads its figures. If that fails, those of the last time are returned
// with the error.
func (w *worker) read(ctx context.Context) ([]*dto.MetricFamily, error) {
	return w.figures.read(func() (*http.Response, error) { return w.get(ctx, "/metrics", acceptProto) })
}

// workerProgram is p as workers are started: the service manager is not theirs
// to speak to, and they share the processors.
func workerProgram(p *program, maxProcs int) *program {
	environ := slices.DeleteFunc(slices.Clone(p.environ), func(kv string) bool { return strings.HasPrefix(kv, "NOTIFY_SOCKET=") })
	if lookup(environ, "GOMAXPROCS") == "" {
		environ = append(environ, fmt.Sprintf("GOMAXPROCS=%d", maxProcs))
	}
	return &program{path: p.path, args: p.args, environ: environ, stderr: p.stderr, slack: timerslack.Busy}
}

// Between the end of a worker and the start of the next in its place.
const (
	restartMin   = 100 * time.Millisecond
	restartMax   = 30 * time.Second
	restartAfter = time.Minute // who has served so long had no bad start
)

// A backoff says how long to wait until the next start. The zero one has seen
// no failure.
type backoff struct{ last time.Duration }

// next takes the end of a worker that had served for so long, 0 if it did not
// get ready, and returns how long to wait.
func (b *backoff) next(served time.Duration) time.Duration {
	if served >= restartAfter {
		b.last = 0
	}
	b.last = min(max(2*b.last, restartMin), restartMax)
	return b.last
}
