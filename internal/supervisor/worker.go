package supervisor

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	dto "github.com/prometheus/client_model/go"

	"heartwheel/internal/handover"
	"heartwheel/internal/settings"
	"heartwheel/internal/timerslack"
	"heartwheel/server"
)

// A worker is a process that serves in a slot. Its methods are safe for
// concurrent use.
type worker struct {
	// Static after startWorker.
	*handover.Child
	index     int            // of its slot
	countSlot int            // in the shared connection count
	reload    *settings.File // of its start: see workerSettings
	control   *handover.WorkerControl
	client    *http.Client  // connects to its ops handler, whatever the host in the URL
	readyAt   time.Time     // when it became ready
	scraped   chan struct{} // closed when its control socket has ended

	drainTime time.Duration // of the goroutine of supervisor.run
	draining  atomic.Bool   // written by it

	metrics metricsCache
}

// A workerStart is what a worker is started with.
type workerStart struct {
	program   *handover.Program
	control   string // name of its control socket
	index     int
	countSlot int
	countFile *os.File // of the shared connection count
	sockets   []server.Socket

	base, reload *settings.File // see workerSettings
}

// startWorker starts a worker and waits until it is ready. If ctx ends first, or
// it does not become ready, it is killed and the error is a *handover.Error.
func startWorker(ctx context.Context, s workerStart) (*worker, error) {
	control, theirs, err := handover.NewWorkerControl()
	if err != nil {
		return nil, &handover.Error{Err: err}
	}
	count, err := dupFile(s.countFile)
	if err != nil {
		control.Close()
		theirs.Close()
		return nil, &handover.Error{Err: err}
	}
	files, err := handover.InheritedSettings(s.base, s.reload)
	if err != nil {
		control.Close()
		theirs.Close()
		count.Close()
		return nil, &handover.Error{Err: err}
	}
	child, err := s.program.StartWorker(ctx, s.sockets, append(files,
		handover.InheritedFile{Name: s.control, File: theirs}, handover.InheritedCount(count, s.countSlot))...)
	if err != nil {
		control.Close()
		return nil, err
	}
	w := &worker{Child: child, index: s.index, countSlot: s.countSlot, reload: s.reload,
		control: control, readyAt: time.Now(), scraped: make(chan struct{})}
	w.client = &http.Client{Transport: &http.Transport{
		DialContext:         func(context.Context, string, string) (net.Conn, error) { return control.Dial() },
		MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute, DisableCompression: true,
	}}
	go func() {
		defer close(w.scraped)
		control.Serve(w.finalScrape)
	}()
	return w, nil
}

// dupFile returns another descriptor of f: a start closes the files it passes on.
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

// release frees what belongs to a worker that has ended.
func (w *worker) release() {
	w.client.CloseIdleConnections()
	w.control.Close()
}

// String names the worker, for people.
func (w *worker) String() string {
	if w.draining.Load() {
		return fmt.Sprintf("worker %d (draining)", w.index)
	}
	return fmt.Sprintf("worker %d", w.index)
}

// get sends a request to the worker's ops handler.
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

// getText is get for a short answer.
func (w *worker) getText(ctx context.Context, path string) (status int, body []byte, err error) {
	resp, err := w.get(ctx, path, "")
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxScrape))
	return resp.StatusCode, body, err
}

// scrape reads the worker's metrics. If that fails it returns those of the last
// time with the error.
func (w *worker) scrape(ctx context.Context) ([]*dto.MetricFamily, error) {
	return w.metrics.refresh(func() (*http.Response, error) { return w.get(ctx, "/metrics", acceptProto) })
}

// finalScrape reads the metrics of a worker that has drained, before it exits.
func (w *worker) finalScrape() {
	ctx, cancel := context.WithTimeout(context.Background(), handover.ScrapeTimeout)
	defer cancel()
	_, _ = w.scrape(ctx) // if it fails, the last scrape stands
}

// workerProgram returns p as workers are started: without the service manager,
// which is the supervisor's to notify, and with their share of the processors.
func workerProgram(p *handover.Program, maxProcs int) *handover.Program {
	environ := slices.DeleteFunc(slices.Clone(p.Environ), func(kv string) bool {
		return strings.HasPrefix(kv, "NOTIFY_SOCKET=")
	})
	if handover.Lookup(environ, "GOMAXPROCS") == "" {
		environ = append(environ, fmt.Sprintf("GOMAXPROCS=%d", maxProcs))
	}
	return &handover.Program{
		Path:    p.Path,
		Args:    p.Args,
		Environ: environ,
		Stderr:  p.Stderr,
		Log:     p.Log,
		Slack:   timerslack.Busy,
	}
}
