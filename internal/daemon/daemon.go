package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"heartwheel/internal/wording"
	"heartwheel/server"
)

// readyWithin is how long a new process may take until it is ready.
const readyWithin = 30 * time.Second

// A serving is a server and what happens to it. Only the goroutine of run uses
// its fields, but for what the channels bring.
type serving struct {
	// Static after serve.
	program *program // what a hand-over starts; nil: a worker
	manager manager
	signals chan os.Signal // SIGTERM, SIGINT; nil: a worker
	hangups chan os.Signal // SIGHUP; nil: a worker
	worker  *underling     // nil: no worker
	r       *resolved
	log     *slog.Logger
	given   *inheritance // from the process before
	s       *server.Server
	ops     *opsServer

	drain     context.CancelFunc
	drainFrom time.Time // when the drain began; zero: it has not
	asked     bool      // a signal has asked for the end

	handing  chan handed        // brings the result of the hand-over under way; nil: there is none
	giveUp   context.CancelFunc // of that
	handedTo *successor         // serves instead; nil: nobody does
}

// handed is the result of a hand-over.
type handed struct {
	to   *successor
	err  error
	took time.Duration
}

// run serves until the server ends by itself, which is a failure, or it has
// drained because a signal asked for it or a successor serves instead. After a
// second signal it returns while the server still runs: the process has to end.
func (v *serving) run() error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	v.drain = cancel
	done := make(chan error, 1)
	go func() { done <- v.s.Run(ctx) }()
	<-v.s.Accepting()
	v.begin()
	var orders chan order
	if v.worker != nil {
		orders = v.worker.orders
	}
	tidier, tidy := newTidier(), time.NewTicker(tidyEvery)
	defer tidy.Stop()
	for {
		handing := v.handing
		if v.asked { // too late for it: see over
			handing = nil
		}
		var gone chan struct{}
		if v.handedTo != nil {
			gone = v.handedTo.gone
		}
		select {
		case sig := <-v.signals:
			if v.asked {
				v.log.Error("second signal: ended at once, the drain was not over", "signal", sig.String())
				return &failure{err: errors.New("ended by a second signal"), logged: true}
			}
			v.end(sig)
		case o := <-orders:
			if o.deserted {
				v.log.Warn("the supervisor has ended, so this worker drains: connects are refused until a server is started again")
			}
			v.asked, v.drainFrom = true, time.Now()
			v.drain()
		case <-v.hangups:
			v.handOver()
		case result := <-handing:
			v.handed(result)
		case <-gone:
			v.deserted()
		case <-tidy.C:
			tidier.look()
		case err := <-done:
			return v.over(err)
		}
	}
}

// begin says that connections are taken, to all who wait for it.
func (v *serving) begin() {
	v.ops.serve(v.s.OpsHandler())
	if v.worker == nil { // else the supervisor says it, when all are ready
		v.r.logListening(v.log, v.s.Addrs())
	}
	if !v.given.given() { // else the process before tells the manager
		v.tell("READY=1")
	}
	if err := v.given.announce(); err != nil {
		v.log.Warn("cannot tell the process before that this one is ready", "error", err)
	}
}

// openOps opens what the ops handler answers on.
func (v *serving) openOps(addr string, given *inheritance, log *slog.Logger) (*opsServer, error) {
	if v.worker != nil {
		return &opsServer{ln: v.worker, log: log}, nil
	}
	return listenOps(addr, given.takeOps(addr), log)
}

// logListening says where connections are taken, and how they are kept.
func (r *resolved) logListening(log *slog.Logger, addrs []net.Addr, more ...any) {
	timeout, _ := r.show(settingByKey("timeout"))
	for _, addr := range addrs {
		log.Info("listening", append([]any{"addr", addr.String(), "profile", r.profile, "beat", wording.Duration(r.Beat),
			"timeout", timeout, "beats", r.beats, "handler", r.handler}, more...)...)
	}
}

func (v *serving) tell(states ...string) {
	if err := v.manager.tell(states...); err != nil {
		v.log.Warn("cannot tell the service manager", "states", states, "error", err)
	}
}

// end begins the drain that a signal asks for.
func (v *serving) end(sig os.Signal) {
	v.asked = true
	if !v.drainFrom.IsZero() {
		v.log.Info("draining already, as another process serves instead; a second signal ends at once", "signal", sig.String())
		return
	}
	v.drainFrom = time.Now()
	v.log.Info("draining; a second signal ends at once", "signal", sig.String(), "at_most", wording.Duration(v.r.Drain))
	v.tell("STOPPING=1")
	if v.handing != nil {
		v.giveUp()
	}
	v.drain()
}

// handOver starts a process that is to serve instead of this one.
func (v *serving) handOver() {
	switch {
	case !v.drainFrom.IsZero():
		v.log.Warn("SIGHUP ignored: this process drains")
		return
	case v.handing != nil:
		v.log.Warn("SIGHUP ignored: a hand-over is under way")
		return
	}
	v.tell(reloading()...)
	h := &handover{program: v.program, sockets: append(v.s.Sockets(), v.ops.sockets()...),
		limit: readyWithin, drain: v.r.Drain, log: v.log}
	ctx, cancel := context.WithCancel(context.Background())
	handing := make(chan handed, 1)
	v.handing, v.giveUp = handing, cancel
	go func() {
		start := time.Now()
		to, err := h.run(ctx)
		handing <- handed{to, err, time.Since(start)}
	}()
}

// handed takes the result of a hand-over. If it came about, this process stops
// accepting, which leaves the sockets to the other, and drains.
func (v *serving) handed(result handed) {
	v.handing = nil
	v.giveUp()
	if result.err != nil {
		args := []any{"error", result.err}
		var e *handoverError
		if errors.As(result.err, &e) && e.said != "" {
			args = append(args, "stderr", e.said)
		}
		v.log.Error("hand-over failed: nothing has changed, this process goes on", args...)
		v.tell("READY=1", "STATUS=the last hand-over failed, see the log")
		return
	}
	if !v.given.given() { // else it has that already
		v.log = withPID(v.log)
	}
	v.handedTo, v.drainFrom = result.to, time.Now()
	v.ops.leave()
	v.drain()
	v.tell(fmt.Sprintf("MAINPID=%d", result.to.pid()), "READY=1", "STATUS=")
	v.log.Info("handed over", "successor", result.to.pid(), "took", result.took.Round(time.Millisecond).String(),
		"drain_at_most", wording.Duration(v.r.Drain))
}

// deserted takes the news that the successor has ended while this process
// drains. There is no way back: the sockets are not this one's any more.
func (v *serving) deserted() {
	state := v.handedTo.cmd.ProcessState
	if state.Success() {
		v.log.Info("the process that this one has handed over to has ended", "successor", state.Pid(), "state", state.String())
	} else {
		v.log.Error("the process that this one has handed over to has ended: nobody takes connections now; start it again",
			"successor", state.Pid(), "state", state.String())
	}
	v.handedTo = nil
}

// over ends what is left when the server has ended.
func (v *serving) over(err error) error {
	if v.worker != nil {
		v.worker.lastWords()
	}
	v.ops.close()
	if v.handing != nil { // a new process must not outlive what asks for the end
		v.giveUp()
		if result := <-v.handing; result.err == nil {
			result.to.end(v.r.Drain)
		}
	}
	if err == nil && v.drainFrom.IsZero() {
		err = errors.New("the server ended without being asked to")
	}
	if err != nil {
		v.log.Error("ended", "error", err)
		return &failure{err: err, logged: true}
	}
	stats := v.s.Stats()
	closed := uint64(0)
	for _, n := range stats.Closed {
		closed += n
	}
	v.log.Info("drained", "took", time.Since(v.drainFrom).Round(time.Millisecond).String(), "accepted", stats.Accepted, "closed", closed)
	return nil
}
