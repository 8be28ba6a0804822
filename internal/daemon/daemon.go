// Package daemon is one serving process from its start to its end: it runs a
// server.Server, answers signals, hands over to a successor, and drains. Of this
// module it imports internal/admission, internal/handover, internal/ops,
// internal/settings, internal/wording and server.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"heartwheel/internal/admission"
	"heartwheel/internal/handover"
	"heartwheel/internal/ops"
	"heartwheel/internal/settings"
	"heartwheel/internal/wording"
	"heartwheel/server"
)

// GCPercent is GOGC for a serving process unless the environment sets it.
// Frames make no garbage, so the collector hardly runs once the clients are
// connected, and a connection takes a fifth less memory than with Go's 100
// (docs/benchmarks.md).
const GCPercent = 25

// A Process is what a daemon needs of the process that it runs in. A worker has
// no program, notifier or signals: those are its supervisor's.
type Process struct {
	Program   *handover.Program // what a hand-over starts
	Notifier  *handover.Notifier
	Signals   <-chan os.Signal // SIGTERM, SIGINT
	Reloads   <-chan os.Signal // SIGHUP
	Handovers <-chan os.Signal // SIGUSR2
	Read      func() *settings.File
	Resolve   func(*settings.File) (*settings.Resolved, error)
	SetLog    func(*settings.Resolved) // puts its log-level and log-format in force
	Metrics   []prometheus.Collector

	quota *admission.SharedQuota // of a worker; nil: none
}

// Run serves with the settings r until the server ends by itself, which is a
// failure, or a signal or a hand-over has made it drain. in is what this process
// inherited. After a second signal Run returns while the server still runs: the
// process must exit. Errors are of type *settings.Failure.
func Run(r *settings.Resolved, log *slog.Logger, in *handover.Inheritance, p Process) error {
	start := log // its first line has the pid anyway
	if in.FromParent() {
		log = withPID(log)
	}
	d := &daemon{process: p, r: r, log: log, in: in, worker: in.Control}
	r.Logger = log
	if err := d.openOps(); err != nil {
		in.Close()
		return &settings.Failure{Err: err}
	}
	r.Sockets = in.TakeListen()
	s, err := server.New(r.Config, server.Echo{})
	if err != nil {
		d.ops.Close()
		in.Close()
		return &settings.Failure{Err: settings.InFlags(err)}
	}
	d.s = s
	if d.worker == nil { // the supervisor logs it for all
		r.LogStart(start, ops.Version(), s.MaxConnections(), 0)
	}
	return d.run()
}

// RunWorker is Run for a worker of a supervisor.
func RunWorker(r *settings.Resolved, log *slog.Logger, in *handover.Inheritance, p Process) error {
	c := in.Control
	log = log.With("worker", c.Index)
	descriptors, err := admission.RaiseDescriptorLimit()
	if descriptors != 0 { // else server.New reports it
		err = checkUnchanged(r, c, in.Addresses(), descriptors)
	}
	if err != nil {
		in.Close()
		return &settings.Failure{Err: err}
	}
	if in.Reload != nil {
		if next, err := p.Resolve(in.Reload); err != nil {
			settings.LogReloadFailed(log, err)
		} else {
			r.TakeLive(next)
			p.SetLog(r)
		}
	}
	if in.Count != nil {
		p.quota = in.Count.Quota(r.MaxConnections)
		r.Quota = p.quota
	}
	if r.Loops == 0 {
		r.Loops = c.Loops
	}
	if r.MemoryLimit > 0 {
		r.MemoryLimit /= c.Count
	}
	r.Processes = c.Count
	c.Start()
	return Run(r, log, in, p)
}

// withPID is for the time when two processes write to one log.
func withPID(log *slog.Logger) *slog.Logger { return log.With("pid", os.Getpid()) }

// A daemon is a running server. Its fields belong to the goroutine of run.
type daemon struct {
	// Static after Run.
	process Process
	worker  *handover.Control // nil: this process is not a worker
	in      *handover.Inheritance
	s       *server.Server
	ops     *ops.Server

	r         *settings.Resolved // in force
	log       *slog.Logger
	reading   chan reloading     // what came of a reload; nil: none is under way
	stop      context.CancelFunc // starts the server's drain
	drainFrom time.Time          // when the drain began; zero: it has not
	signaled  bool               // a signal has asked for the end

	result    chan handoverResult // of the hand-over under way; nil: none is
	cancel    context.CancelFunc  // cancels it
	successor *handover.Child     // serves in place of this process; nil: none
}

type handoverResult struct {
	child *handover.Child
	err   error
	took  time.Duration
}

func (d *daemon) run() error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	d.stop = cancel
	done := make(chan error, 1)
	go func() { done <- d.s.Run(ctx) }()
	<-d.s.Accepting()
	d.announce()
	var drains <-chan handover.DrainRequest
	var orders <-chan handover.ReloadRequest
	if d.worker != nil {
		drains, orders = d.worker.Drains(), d.worker.Reloads()
	}
	scavenger, scavenge := newScavenger(), time.NewTicker(scavengeEvery)
	defer scavenge.Stop()
	for {
		result := d.result
		if d.signaled { // too late for a hand-over: see finish
			result = nil
		}
		reloads, handovers, orders := d.process.Reloads, d.process.Handovers, orders
		if d.reading != nil { // the next waits for its turn
			reloads, handovers, orders = nil, nil, nil
		}
		var successorDone <-chan struct{}
		if d.successor != nil {
			successorDone = d.successor.Done()
		}
		select {
		case sig := <-d.process.Signals:
			if d.signaled {
				d.log.Error("second signal: exiting before the drain is complete", "signal", sig.String())
				return &settings.Failure{Err: errors.New("ended by a second signal"), Logged: true}
			}
			d.drain(sig)
		case r := <-drains:
			if r.Orphaned {
				d.log.Warn("the supervisor has ended: this worker drains, " +
					"and connections are refused until a server is started again")
			}
			d.signaled, d.drainFrom = true, time.Now()
			d.stop()
		case <-reloads:
			d.reload()
		case r := <-d.reading:
			d.reloaded(r)
		case r := <-orders:
			d.obey(r)
		case <-handovers:
			d.handOver()
		case r := <-result:
			d.handedOver(r)
		case <-successorDone:
			d.successorEnded()
		case <-scavenge.C:
			scavenger.check()
		case err := <-done:
			return d.finish(err)
		}
	}
}

// openOps opens the ops listener. A worker answers through its supervisor.
func (d *daemon) openOps() (err error) {
	if d.worker != nil {
		d.ops = ops.New(d.worker, d.log)
		return nil
	}
	d.ops, err = ops.Listen(d.r.Ops, d.in.TakeOps(d.r.Ops), d.log)
	return err
}

// announce tells everything that waits for it that connections are accepted.
func (d *daemon) announce() {
	d.ops.Serve(d.s.OpsHandler(d.process.Metrics...))
	if d.worker == nil { // the supervisor logs it when all workers are ready
		d.r.LogListening(d.log, d.s.Addrs())
	}
	if !d.in.FromParent() { // else the parent tells the manager
		d.process.Notifier.Notify("READY=1")
	}
	if err := d.in.Announce(); err != nil {
		d.log.Warn("cannot tell the parent process that this one is ready", "error", err)
	}
}

// drain begins the drain that a signal asks for.
func (d *daemon) drain(sig os.Signal) {
	d.signaled = true
	if !d.drainFrom.IsZero() {
		d.log.Info("already draining after a hand-over; a second signal exits at once", "signal", sig.String())
		return
	}
	d.drainFrom = time.Now()
	if d.result != nil {
		d.cancel()
	}
	d.stop()
	d.process.Notifier.Notify("STOPPING=1")
	d.log.Info("draining; a second signal exits at once",
		"signal", sig.String(), "at_most", wording.Duration(d.r.Drain))
}

// handOver starts a successor.
func (d *daemon) handOver() {
	switch {
	case !d.drainFrom.IsZero():
		d.log.Warn("SIGUSR2 ignored: this process is draining")
		return
	case d.result != nil:
		d.log.Warn("SIGUSR2 ignored: a hand-over is under way")
		return
	case os.Getpid() == 1:
		d.log.Error("SIGUSR2 refused: this is process 1, and its end would end the container and the new process " +
			"with it; start a new container instead")
		return
	}
	d.process.Notifier.Notify(handover.Reloading()...)
	sockets := d.in.OwnFiles(d.s.Sockets())
	if addr, ln := d.ops.Listener(); ln != nil {
		sockets = append(sockets, server.Socket{Address: handover.OpsScheme + addr, Listener: ln})
	}
	h := &handover.Handover{Program: d.process.Program, Sockets: sockets,
		Timeout: handover.ReadyTimeout, Drain: d.r.Drain, Log: d.log}
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan handoverResult, 1)
	d.result, d.cancel = result, cancel
	go func() {
		start := time.Now()
		child, err := h.Run(ctx)
		result <- handoverResult{child, err, time.Since(start)}
	}()
}

// handedOver acts on the result of a hand-over. If it succeeded, this process
// stops accepting, which leaves the sockets to the successor, and drains.
func (d *daemon) handedOver(result handoverResult) {
	d.result = nil
	d.cancel()
	if result.err != nil {
		args := []any{"error", result.err}
		var e *handover.Error
		if errors.As(result.err, &e) && e.Stderr != "" {
			args = append(args, "stderr", e.Stderr)
		}
		d.log.Error("hand-over failed: nothing has changed, this process goes on", args...)
		d.process.Notifier.Notify("READY=1", "STATUS=the last hand-over failed, see the log")
		return
	}
	if !d.in.FromParent() { // else the log has the pid already
		d.log = withPID(d.log)
	}
	d.successor, d.drainFrom = result.child, time.Now()
	d.ops.StopAccepting()
	handover.KeepFiles(d.s.Sockets())
	d.stop()
	d.process.Notifier.Notify(fmt.Sprintf("MAINPID=%d", result.child.PID()), "READY=1", "STATUS=")
	d.log.Info("handed over", "successor", result.child.PID(), "took", result.took.Round(time.Millisecond).String(),
		"drain_at_most", wording.Duration(d.r.Drain))
}

// successorEnded logs that the successor has ended while this process drains.
// There is no way back: the sockets are no longer this process's.
func (d *daemon) successorEnded() {
	state := d.successor.State()
	if state.Success() {
		d.log.Info("the successor has ended", "successor", state.Pid(), "state", state.String())
	} else {
		d.log.Error("the successor has ended: connections are refused until a server is started again",
			"successor", state.Pid(), "state", state.String())
	}
	d.successor = nil
}

// finish ends what is left when the server has ended with err.
func (d *daemon) finish(err error) error {
	if d.worker != nil {
		d.worker.FinalScrape()
	}
	d.ops.Close()
	if d.result != nil { // a successor must not outlive the signal that ends this process
		d.cancel()
		if result := <-d.result; result.err == nil {
			result.child.Terminate(d.r.Drain)
		}
	}
	if err == nil && d.drainFrom.IsZero() {
		err = errors.New("the server ended without being asked to")
	}
	if err != nil {
		d.log.Error("ended", "error", err)
		return &settings.Failure{Err: err, Logged: true}
	}
	stats := d.s.Stats()
	closed := uint64(0)
	for _, n := range stats.Closed {
		closed += n
	}
	d.log.Info("drained", "took", time.Since(d.drainFrom).Round(time.Millisecond).String(),
		"accepted", stats.Accepted, "closed", closed)
	return nil
}
