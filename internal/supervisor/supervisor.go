package cli

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

	dto "github.com/prometheus/client_model/go"

	"heartwheel/internal/wording"
	"heartwheel/server"
)

// A supervisor serves nobody: it starts workers that do, and keeps their
// listening sockets open while they come and go. Without a comment that says
// otherwise a method is for the goroutine of run, to which everything that
// happens is sent as a function.
type supervisor struct {
	// Static after supervise.
	program *program // of this process; see workerProgram
	manager manager
	signals chan os.Signal            // SIGTERM, SIGINT
	hangups chan os.Signal            // SIGHUP
	again   func() (*resolved, error) // the settings as they are now
	r       *resolved
	log     *slog.Logger
	ops     *opsServer
	count   *server.SharedCount
	memory  *os.File // that it counts in
	places  []*place
	loops   int           // of a worker, unless the settings say
	gate    chan struct{} // bounds the starts at one time
	events  chan func()
	over    chan struct{} // closed when run has ended

	// Of the goroutine of run.
	starts   context.Context // ends when the supervisor is to end
	giveUp   context.CancelFunc
	begun    time.Time
	serving  bool // all workers have been ready once
	stopping bool
	stopFrom time.Time
	failed   error // why it ends, but for a signal
	busy     int   // starts under way, and workers
	roll     *roll // nil: none is under way

	mu       sync.Mutex // guards the workers of places, and what follows
	limit    int        // max-connections; 0: none
	ending   bool       // as stopping
	restarts int        // of workers that ended unasked
	replaced int        // workers, by a roll
}

// A place is where a worker serves: it has the listening sockets.
type place struct {
	// Static.
	index   int
	sockets []server.Socket

	// Of the goroutine of run.
	backoff  backoff
	starting bool

	// Written by the goroutine of run under supervisor.mu.
	current *worker             // nil: none is ready
	old     *worker             // drains; nil: none
	retired []*dto.MetricFamily // what workers that have ended have counted
}

// stopGrace is how much longer than its drain a worker may take to end.
const stopGrace = 10 * time.Second

// supervise runs the workers until a signal has ended them, or they cannot
// start.
func supervise(r *resolved, log *slog.Logger, v *supervisor) error {
	descriptors, err := server.RaiseDescriptorLimit()
	if descriptors == 0 {
		return &failure{err: err}
	}
	n, err := decideWorkers(r, descriptors)
	if err != nil {
		return &failure{err: err}
	}
	if room := server.RoomForConnections(descriptors) * n; r.MaxConnections > room {
		log.Warn("max-connections is more than these workers may open", "max-connections", r.MaxConnections, "now", room,
			"fix", fmt.Sprintf("write --workers %d", workersFor(r.MaxConnections, descriptors)))
	}
	if n > 1 && (r.AddressRate > 0 || r.AddressMax > 0 || r.FlapLimit > 0) {
		log.Warn("the limits by address hold in each worker by itself: an address that is dealt out over all of them may have as many times as much", "workers", n)
	}
	v.r, v.log = r, log
	if v.ops, err = listenOps(r.ops, nil, log); err != nil {
		return &failure{err: err}
	}
	sockets, err := openSockets(r.WithDefaults().Listen, n)
	if err == nil {
		v.memory, v.count, err = newCount(2 * n)
	}
	if err != nil {
		closeSockets(sockets)
		v.ops.close()
		return &failure{err: err}
	}
	loops, maxProcs := shares(n, runtime.GOMAXPROCS(0))
	v.program, v.loops = workerProgram(v.program, maxProcs), loops
	v.gate, v.events = make(chan struct{}, 2*runtime.GOMAXPROCS(0)), make(chan func())
	v.over, v.limit = make(chan struct{}), r.MaxConnections
	for i := range n {
		v.places = append(v.places, &place{index: i, sockets: sockets[i]})
	}
	return v.run()
}

func (v *supervisor) run() error {
	v.starts, v.giveUp = context.WithCancel(context.Background())
	defer v.giveUp()
	defer close(v.over)
	v.begun = time.Now()
	v.log.Info("starting workers", "workers", len(v.places), "pid", os.Getpid())
	v.start(v.places[0]) // if that is in vain, the others are too
	for !v.stopping || v.busy > 0 {
		select {
		case sig := <-v.signals:
			if v.stopping {
				v.log.Error("second signal: ended at once, the drain was not over", "signal", sig.String())
				v.killAll()
				return &failure{err: errors.New("ended by a second signal"), logged: true}
			}
			v.log.Info("draining; a second signal ends at once", "signal", sig.String(), "at_most", wording.Duration(v.r.Drain))
			v.tell("STOPPING=1")
			v.stop()
		case <-v.hangups:
			v.replace()
		case happens := <-v.events:
			happens()
		}
	}
	v.ops.close()
	if v.failed != nil {
		return &failure{err: v.failed, logged: v.serving}
	}
	v.log.Info("drained", "took", time.Since(v.stopFrom).Round(time.Millisecond).String())
	return nil
}

func (v *supervisor) tell(states ...string) {
	if err := v.manager.tell(states...); err != nil {
		v.log.Warn("cannot tell the service manager", "states", states, "error", err)
	}
}

// happen has the goroutine of run do f. Safe for concurrent use.
func (v *supervisor) happen(f func()) {
	select {
	case v.events <- f:
	case <-v.over:
	}
}

// start starts a worker for the place.
func (v *supervisor) start(p *place) {
	if v.stopping || p.starting {
		return
	}
	p.starting = true
	v.busy++
	line := 2 * p.index // each place has two, as two workers may be in it
	for _, w := range []*worker{p.current, p.old} {
		if w != nil && w.line == line {
			line++
		}
	}
	if now, err := v.again(); err == nil {
		v.r.Drain = now.Drain // what a new worker will have
		v.mu.Lock()
		v.limit = now.MaxConnections
		v.mu.Unlock()
	}
	ctx, o := v.starts, startOrder{
		program: v.program, name: fmt.Sprintf("%s%d/%d/%d/%s", workerScheme, p.index, len(v.places), v.loops, v.r.ops),
		index: p.index, line: line, count: v.memory, sockets: p.sockets, drain: v.r.Drain,
	}
	go func() {
		v.gate <- struct{}{}
		w, err := startWorker(ctx, o)
		<-v.gate
		v.happen(func() { v.started(p, w, err, line) })
	}()
}

// started takes the result of a start.
func (v *supervisor) started(p *place, w *worker, err error, line int) {
	p.starting = false
	if err != nil {
		v.busy--
		v.count.Clear(line)
		v.notStarted(p, err)
		return
	}
	go func() {
		<-w.gone
		<-w.words
		v.happen(func() { v.ended(p, w) })
	}()
	v.mu.Lock()
	before := p.current
	p.current = w
	if before != nil {
		p.old = before
		v.replaced++
	}
	v.mu.Unlock()
	if before != nil && v.roll != nil {
		v.roll.replaced++
	}
	switch {
	case v.stopping:
		v.drain(w)
	case before != nil:
		v.log.Info("worker replaced", "worker", p.index, "pid", w.pid(), "before", before.pid())
		v.drain(before)
		v.rollOn()
	case !v.serving:
		v.startOthers()
	default:
		v.log.Info("worker started", "worker", p.index, "pid", w.pid())
		v.rollOn()
	}
}

// startOthers starts the rest once the first is ready, and says so when all
// are.
func (v *supervisor) startOthers() {
	ready := 0
	for _, p := range v.places {
		if p.current == nil {
			v.start(p) // unless it is starting
		} else {
			ready++
		}
	}
	if ready < len(v.places) {
		return
	}
	v.serving = true
	v.ops.serve(v.handler())
	var addrs []net.Addr
	for _, o := range v.places[0].sockets {
		addrs = append(addrs, o.Listener.Addr())
	}
	v.r.logListening(v.log, addrs, "workers", len(v.places), "took", time.Since(v.begun).Round(time.Millisecond).String())
	v.tell("READY=1")
}

// notStarted decides what follows from a start in vain.
func (v *supervisor) notStarted(p *place, err error) {
	if v.stopping {
		return
	}
	var e *handoverError
	said := ""
	if errors.As(err, &e) {
		said = e.said
	}
	switch {
	case !v.serving:
		if v.failed = fmt.Errorf("worker %d cannot start: %w", p.index, err); said != "" {
			v.failed = fmt.Errorf("%w\n%s", v.failed, said)
		}
		v.stop()
	case p.current != nil:
		v.rollFailed(p, err, said)
	default:
		v.restart(p, 0, "error", err, "stderr", said)
	}
}

// ended takes the end of a worker that was ready.
func (v *supervisor) ended(p *place, w *worker) {
	v.busy--
	w.release()
	v.count.Clear(w.line)
	v.mu.Lock()
	m := newMerger()
	m.add(p.retired)
	m.add(lasting(w.figures.known()))
	p.retired = m.all()
	wanted := w.draining.Load()
	if p.current == w {
		p.current = nil
	} else {
		p.old = nil
	}
	v.mu.Unlock()
	if (wanted || v.stopping) && !w.state().Success() {
		v.log.Error("worker ended before it had drained", "worker", p.index, "pid", w.pid(), "state", w.state().String())
		if v.stopping && v.failed == nil {
			v.failed = fmt.Errorf("worker %d ended with %s", p.index, w.state())
		}
	}
	if !v.stopping && p.current == nil && !p.starting {
		v.restart(p, time.Since(w.since), "pid", w.pid(), "state", w.state().String())
		return
	}
	v.rollOn()
}

// restart starts a worker in a place that has none, a little later.
func (v *supervisor) restart(p *place, served time.Duration, why ...any) {
	if !v.serving { // it was ready, and then ended while others start
		v.failed = fmt.Errorf("worker %d ended at once: %v", p.index, why)
		v.stop()
		return
	}
	wait := p.backoff.next(served)
	v.log.Error("worker ended; what waits in its sockets is served by the next", append([]any{"worker", p.index, "next_in", wait.String()}, why...)...)
	v.mu.Lock()
	v.restarts++
	v.mu.Unlock()
	time.AfterFunc(wait, func() {
		v.happen(func() {
			if p.current == nil {
				v.start(p)
			}
		})
	})
	v.rollOn()
}

// stop drains all workers at once; each keeps its own pace.
func (v *supervisor) stop() {
	v.stopping, v.stopFrom = true, time.Now()
	v.mu.Lock()
	v.ending = true
	v.mu.Unlock()
	v.giveUp()
	for _, p := range v.places {
		for _, o := range p.sockets {
			o.Listener.Close()
		}
		if p.current != nil {
			v.drain(p.current)
		}
	}
}

// drain asks a worker to drain and end, and kills it when it does not.
func (v *supervisor) drain(w *worker) {
	if w.draining.Swap(true) {
		return
	}
	late := time.AfterFunc(w.drain+stopGrace, w.kill)
	go func() { // it may take a second if the worker hangs
		if err := w.order(orderDrain, nil); err != nil {
			w.kill()
		}
		<-w.gone
		late.Stop()
	}()
}

func (v *supervisor) killAll() {
	for _, w := range v.workers() {
		w.kill()
	}
	for _, w := range v.workers() {
		<-w.gone
	}
}

// workers returns those that are ready or drain. Safe for concurrent use.
func (v *supervisor) workers() []*worker {
	v.mu.Lock()
	defer v.mu.Unlock()
	var all []*worker
	for _, p := range v.places {
		for _, w := range []*worker{p.current, p.old} {
			if w != nil {
				all = append(all, w)
			}
		}
	}
	return all
}
