// Package supervisor runs the workers of "serve --workers": it starts them with
// sockets of their own, restarts those that end, replaces them one after the
// other, drains them, and answers operators for all. Of this module it imports
// internal/address, internal/admission, internal/handover, internal/ops, internal/settings,
// internal/timerslack, internal/wording and server.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"heartwheel/internal/admission"
	"heartwheel/internal/handover"
	"heartwheel/internal/ops"
	"heartwheel/internal/settings"
	"heartwheel/internal/wording"
)

// Options is what a supervisor needs of the process that it runs in.
type Options struct {
	Program   *handover.Program // what workers are started from
	Notifier  *handover.Notifier
	Signals   <-chan os.Signal       // SIGTERM, SIGINT
	Reloads   <-chan os.Signal       // SIGHUP
	Handovers <-chan os.Signal       // SIGUSR2
	Metrics   []prometheus.Collector // of this process
	File      *settings.File         // what the settings are from; nil: no file
	Read      func() *settings.File
	Resolve   func(*settings.File) (*settings.Resolved, error)
	SetLog    func(*settings.Resolved) // puts its log-level and log-format in force
}

// A supervisor accepts no clients itself: it keeps the listening sockets open
// while workers come and go. All events reach the goroutine of run, as functions;
// methods belong to it unless they say otherwise.
type supervisor struct {
	// Static after newSupervisor.
	Options
	log       *slog.Logger
	ops       *ops.Server
	count     *admission.SharedCount
	countFile *os.File // of count
	slots     []*slot
	loops     int           // of a worker, unless the settings say
	starts    chan struct{} // a semaphore: bounds concurrent starts
	events    chan func()
	done      chan struct{} // closed when run has returned
	started   time.Time

	// Of the goroutine of run.
	settings     *settings.Resolved // in force
	reading      bool               // settings are being read, or workers take them
	startCtx     context.Context    // ends when the supervisor stops
	cancelStarts context.CancelFunc
	serving      bool // all workers have been ready at the same time
	stopping     bool
	stopFrom     time.Time
	failed       error    // why it ends, unless by a signal
	busy         int      // starts under way and workers
	rolling      *rolling // nil: no rolling restart is under way

	mu       sync.Mutex // guards the workers of slots, and what follows
	limit    int        // max-connections; 0: none
	ending   bool       // same as stopping
	restarts int        // of workers that ended unasked
	replaced int        // workers, by rolling restarts
}

// drainGrace is how much longer than its drain a worker may take to end.
const drainGrace = 10 * time.Second

// Run runs the workers until a signal has ended them, or they cannot start.
// Errors are of type *settings.Failure.
func Run(r *settings.Resolved, log *slog.Logger, o Options) error {
	v, err := newSupervisor(r, log, o)
	if err != nil {
		return &settings.Failure{Err: err}
	}
	return v.run()
}

func newSupervisor(r *settings.Resolved, log *slog.Logger, o Options) (*supervisor, error) {
	descriptors, err := admission.RaiseDescriptorLimit()
	if descriptors == 0 {
		return nil, err
	}
	n, err := r.WorkerCount(descriptors)
	if err != nil {
		return nil, err
	}
	warnOfLimits(r, log, n, descriptors)
	limit := admission.RoomForConnections(descriptors) * n
	if r.MaxConnections > 0 {
		limit = min(limit, r.MaxConnections)
	}
	v := &supervisor{Options: o, log: log, settings: r, limit: r.MaxConnections, started: time.Now()}
	if v.ops, err = ops.Listen(r.Ops, nil, log); err != nil {
		return nil, err
	}
	sockets, err := openSockets(r.ListenSockets(), n)
	if err == nil {
		v.countFile, v.count, err = handover.NewCount(2 * n)
	}
	if err != nil {
		closeSockets(sockets)
		v.ops.Close()
		return nil, err
	}
	loops, maxProcs := shareProcessors(n, runtime.GOMAXPROCS(0))
	r.LogStart(log, ops.Version(), limit, n)
	v.Program, v.loops = workerProgram(o.Program, maxProcs), loops
	v.starts, v.events, v.done = make(chan struct{}, 2*runtime.GOMAXPROCS(0)), make(chan func()), make(chan struct{})
	for i := range n {
		v.slots = append(v.slots, &slot{index: i, sockets: sockets[i], settings: &workerSettings{base: o.File, now: r}})
	}
	return v, nil
}

// warnOfLimits logs what n workers cannot keep of the limits in r.
func warnOfLimits(r *settings.Resolved, log *slog.Logger, n int, descriptors uint64) {
	if room := admission.RoomForConnections(descriptors) * n; r.MaxConnections > room {
		log.Warn("max-connections is more than these workers may open",
			"max-connections", r.MaxConnections, "now", room,
			"fix", fmt.Sprintf("write --workers %d", settings.WorkersFor(r.MaxConnections, descriptors)))
	}
	if n > 1 && (r.AddressRate > 0 || r.AddressMax > 0 || r.FlapLimit > 0) {
		log.Warn("each worker applies the limits by address on its own: "+
			"an address whose connections spread over all workers may have that many times as much", "workers", n)
	}
}

func (v *supervisor) run() error {
	v.startCtx, v.cancelStarts = context.WithCancel(context.Background())
	defer v.cancelStarts()
	defer close(v.done)
	v.start(v.slots[0]) // if this one cannot start, the others cannot either
	for !v.stopping || v.busy > 0 {
		reloads, handovers := v.Reloads, v.Handovers
		if v.reading { // the next waits for its turn
			reloads, handovers = nil, nil
		}
		select {
		case sig := <-v.Signals:
			if v.stopping {
				v.killAll()
				v.log.Error("second signal: exiting before the drain is complete", "signal", sig.String())
				return &settings.Failure{Err: errors.New("ended by a second signal"), Logged: true}
			}
			v.stop()
			v.Notifier.Notify("STOPPING=1")
			v.log.Info("draining; a second signal exits at once",
				"signal", sig.String(), "at_most", wording.Duration(v.settings.Drain))
		case <-reloads:
			v.reload()
		case <-handovers:
			v.handOver()
		case event := <-v.events:
			event()
		}
	}
	v.ops.Close()
	if v.failed != nil {
		return &settings.Failure{Err: v.failed, Logged: v.serving}
	}
	v.log.Info("drained", "took", time.Since(v.stopFrom).Round(time.Millisecond).String())
	return nil
}

// post has the goroutine of run call f. Safe for concurrent use.
func (v *supervisor) post(f func()) {
	select {
	case v.events <- f:
	case <-v.done:
	}
}

// startOthers starts the rest once the first worker is ready, and announces that
// the server is up once all are.
func (v *supervisor) startOthers() {
	ready := 0
	for _, s := range v.slots {
		if s.current == nil {
			v.start(s) // unless it is starting
		} else {
			ready++
		}
	}
	if ready < len(v.slots) {
		return
	}
	v.serving = true
	v.ops.Serve(v.handler())
	var addrs []net.Addr
	for _, s := range v.slots[0].sockets {
		addrs = append(addrs, s.Listener.Addr())
	}
	took := time.Since(v.started).Round(time.Millisecond)
	v.settings.LogListening(v.log, addrs, "workers", len(v.slots), "took", took.String())
	v.Notifier.Notify("READY=1")
}

// stop drains all workers at the same time, each at its own pace.
func (v *supervisor) stop() {
	v.stopping, v.stopFrom = true, time.Now()
	v.mu.Lock()
	v.ending = true
	v.mu.Unlock()
	v.cancelStarts()
	for _, s := range v.slots {
		for _, socket := range s.sockets {
			socket.Listener.Close()
		}
		if s.current != nil {
			v.drain(s.current)
		}
	}
}

func (v *supervisor) killAll() {
	for _, w := range v.workers() {
		w.Kill()
	}
	for _, w := range v.workers() {
		<-w.Done()
	}
}

// workers returns those that are ready or drain. Safe for concurrent use.
func (v *supervisor) workers() []*worker {
	v.mu.Lock()
	defer v.mu.Unlock()
	var all []*worker
	for _, s := range v.slots {
		all = append(all, s.workers()...)
	}
	return all
}
