package loadtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"heartwheel/internal/config"
	"heartwheel/internal/epoll"
	"heartwheel/internal/wording"
	"heartwheel/loadtest/engine"
	"heartwheel/loadtest/report"
)

// Options is what a run needs beside the plan. Only Signals is optional.
type Options struct {
	Plan     *Plan
	Settings []report.Setting
	Version  string // of heartwheel

	// Command makes a command line of heartwheel: for the run's own server and for
	// worker processes of the generator.
	Command func(args ...string) *exec.Cmd

	Stdout   io.Writer // for the report
	JSON     bool      // the report is summary.json, not text
	Force    bool      // Plan.Out may have the files of another run
	Quiet    bool      // no progress
	Progress io.Writer // for the live view, or one line a second
	Terminal bool      // Progress is a terminal: redraw the view in place
	Color    bool
	Width    int // of the terminal, in characters

	// Signals asks the run to end early; a second one ends it without figures. nil:
	// never.
	Signals <-chan os.Signal
}

// A run is a run in progress. Its fields belong to the goroutine of Run.
type run struct {
	Options
	plan      *Plan
	target    netip.AddrPort
	own       *ownServer // nil: the target was given
	probed    probeResult
	generator *engine.Generator
	sampler   *sampler
	view      *view

	started     time.Time
	start       int64 // when the first connect is due, on epoll.Monotonic
	hold        int64 // when hold begins; 0: not known yet
	interrupted bool
	stopped     bool // the loops were sent Stop
	connected   int  // loops that tried all their connections
	ended       int  // loops that sent their last message
	results     []*engine.Result
	latest      []engine.Tallies // by loop
	procCPU     []int64          // by process
	lastTallies engine.Tallies   // at the last sample
	lastCPU     int64            // at the last sample
	ticks       int              // the last second with ticks
	second      secondStats
	samples     []report.Sample
	events      []report.Event
	notes       []string
	errors      []string
}

// secondStats adds up the ticks since the last sample.
type secondStats struct{ response, service, lag engine.Histogram }

// Run carries out the plan, shows it, and writes the report. An error means that no
// connection was made: a *PlanError for a plan that cannot be carried out, any other
// for a target that cannot be tested. All else is in the Summary. Run waits for
// everything that it has started. With a Summary, an error means that the report could
// not be written.
func Run(o Options) (*report.Summary, error) {
	r := &run{Options: o, plan: o.Plan}
	if _, err := r.plan.NewTLS(); err != nil {
		return nil, &PlanError{[]string{err.Error()}}
	}
	if r.plan.HasTLS() && r.plan.Insecure {
		r.notes = append(r.notes, "the target's certificate was not verified, because of --insecure")
	}
	if err := prepareOut(r.plan.Out, o.Force); err != nil {
		return nil, err
	}
	if err := r.prepareTarget(); err != nil {
		return nil, err
	}
	if r.own != nil {
		defer r.own.stop()
	}
	sources, err := r.prepareSources()
	if err != nil {
		return nil, err
	}
	ops := r.plan.Ops
	pid := 0
	if r.own != nil {
		pid = r.own.cmd.Process.Pid
		if ops == "" && r.own.ops != "" {
			ops = "http://" + r.own.ops
		}
	}
	r.sampler = newSampler(r.target, ops, pid)
	if r.plan.StallsServer() {
		if err := checkStoppable(r.sampler.pids); err != nil {
			return nil, err
		}
	}
	if r.generator, err = r.startGenerator(sources); err != nil {
		return nil, err
	}
	r.view = newView(r)
	r.runPhases()
	out := r.result()
	r.view.end()
	return out.Summary, r.write(out)
}

// write writes the files, then the report.
func (r *run) write(out *report.Run) error {
	var files []string
	var filesErr error
	if r.plan.Out != "" {
		if files, filesErr = out.Write(r.plan.Out); filesErr != nil {
			out.Summary.Errors = append(out.Summary.Errors, filesErr.Error())
			out.Summary.Verdict = decide(out.Summary, r.plan.SLO, r.interrupted)
		}
	}
	b := &bytes.Buffer{}
	if r.JSON {
		_ = out.WriteSummary(b) // a Buffer cannot fail
	} else {
		b.WriteString(out.Summary.Text())
		if r.plan.Out != "" && filesErr == nil {
			fmt.Fprintf(b, "\nwritten to %s: %s\n", r.plan.Out, strings.Join(files, ", "))
		}
	}
	if _, err := r.Stdout.Write(b.Bytes()); err != nil {
		return errors.Join(filesErr, fmt.Errorf("cannot write the report to standard output: %w", wording.Cause(err)))
	}
	return filesErr
}

// prepareTarget starts a server if the plan names no target, and probes the target.
func (r *run) prepareTarget() error {
	target := r.plan.Target
	if target == "" {
		own, err := startServer(r.plan.serveFlags(), r.Command)
		if err != nil {
			return err
		}
		r.own, target = own, "tcp://"+own.addr
	}
	err := func() (err error) {
		if r.target, err = resolveTarget(target); err != nil {
			return err
		}
		if r.probed, err = probe(r.target, r.plan); err != nil {
			return err
		}
		return r.plan.ValidateTimeout(r.probed.timeout)
	}()
	if err != nil && r.own != nil {
		r.own.stop()
	}
	return err
}

// prepareSources lists the source addresses. It is an error if they have too few
// ports.
func (r *run) prepareSources() ([]netip.Addr, error) {
	prefixes := r.plan.Sources
	if len(prefixes) == 0 {
		prefixes = defaultSources(r.target.Addr(), r.plan.Connections)
	}
	for _, p := range prefixes {
		if p.Addr().Unmap().Is4() != r.target.Addr().Is4() {
			return nil, &PlanError{[]string{fmt.Sprintf("source %s: is of another address family than the target %s", p,
				r.target.Addr())}}
		}
	}
	addrs := sourceAddrs(prefixes, r.plan.Connections)
	if n, ports := max(1, len(addrs)), portRange(); r.plan.Connections > n*ports {
		need := (r.plan.Connections + ports - 1) / ports
		return nil, &PlanError{[]string{fmt.Sprintf(
			"connections %s: are more than the %s × %d ports of the source addresses allow; "+
				"write --source with at least %d addresses of this machine",
			config.FormatNumber(r.plan.Connections), wording.Plural(n, "address"), ports, need)}}
	}
	return addrs, nil
}

// startGenerator starts the event loops.
func (r *run) startGenerator(sources []netip.Addr) (*engine.Generator, error) {
	j := &engine.Job{Load: r.plan.Load, Of: r.plan.Processes * r.plan.Loops, Target: r.target, Sources: sources,
		Timeout: r.probed.timeout}
	r.latest, r.procCPU = make([]engine.Tallies, j.Of), make([]int64, r.plan.Processes)
	return engine.Start(j, func() *exec.Cmd { return r.Command(engine.WorkerCommand) })
}

// runPhases runs the phases until every loop has sent its last message.
func (r *run) runPhases() {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	r.sampler.begin()
	wg.Go(func() { r.sampler.run(ctx) })

	r.started = time.Now()
	r.start = epoll.Monotonic() + int64(r.plan.Lead())
	o := engine.Order{Start: r.start}
	if r.plan.Mode == modeChurn {
		r.beginHold(ctx, &wg, r.start)
		o.Hold = r.hold
	} else {
		r.event(0, report.EventPhase, "connect")
	}
	r.generator.Send(o)
	r.handleMessages(ctx, &wg)
	// After the last messages nothing is left to wait for long.
	r.generator.Wait()
}

// handleMessages reads the messages of the loops and sends their orders.
func (r *run) handleMessages(ctx context.Context, wg *sync.WaitGroup) {
	const collect = engine.TickSpread + 100*time.Millisecond // until the ticks of all loops are in
	sample := time.NewTimer(time.Until(r.started) + r.plan.Lead() + time.Second + collect)
	defer sample.Stop()
	var ownEnded <-chan struct{}
	if r.own != nil {
		ownEnded = r.own.ended
	}
	n := 1
	defer func() { // the last second, if it was whole
		for ; n <= r.ticks; n++ {
			r.sample(n)
		}
	}()
	for r.ended < r.generator.Loops() {
		select {
		case rep := <-r.generator.Messages():
			r.handleMessage(rep)
			if r.connected+r.ended >= r.generator.Loops() && r.hold == 0 && !r.stopped {
				r.endConnect(ctx, wg)
			}
		case <-sample.C:
			r.sample(n)
			n++
			sample.Reset(time.Duration(r.start + int64(n)*int64(time.Second) + int64(collect) - epoll.Monotonic()))
		case <-ownEnded:
			ownEnded = nil
			r.errors = append(r.errors, fmt.Sprintf("the server ended during the run: %s: %s", r.own.err,
				r.own.log.Last()))
			r.stop()
		case <-r.Signals:
			if r.interrupted {
				r.errors = append(r.errors, "second signal: ended without waiting for the figures")
				r.generator.Kill()
				return
			}
			r.interrupted = true
			r.stop()
		}
	}
}

func (r *run) stop() {
	if !r.stopped {
		r.stopped = true
		r.sampler.markHold(false)
		r.generator.Send(engine.Order{Stop: true})
	}
}

// endConnect begins the hold phase, unless no connection was established.
func (r *run) endConnect(ctx context.Context, wg *sync.WaitGroup) {
	t := r.total()
	if r.plan.Mode != modeChurn && t.Established == 0 {
		r.errors = append(r.errors, fmt.Sprintf("none of %s was established",
			wording.Plural(r.plan.Connections, "connection")))
		r.stop()
		return
	}
	r.beginHold(ctx, wg, epoll.Monotonic()+int64(r.plan.Lead()))
	r.generator.Send(engine.Order{Hold: r.hold})
}

// beginHold sets when the hold phase begins, and starts what the loops do not do in
// it.
func (r *run) beginHold(ctx context.Context, wg *sync.WaitGroup, at int64) {
	r.hold = at
	r.event(at, report.EventPhase, "hold")
	for i := range r.plan.Faults {
		f := &r.plan.Faults[i]
		k, _ := engine.FaultKindByName(f.Kind)
		r.events = append(r.events, report.Event{T: engine.Since(r.start, at+int64(f.At)), Kind: report.EventFault,
			Fault: f.Text, Text: f.Kind + ": " + k.Does})
		if f.Kind == engine.StallServer {
			wg.Go(func() { stopProcesses(ctx, r.sampler.pids, at+int64(f.At), f.For) })
		}
	}
	wg.Go(func() {
		if sleepUntil(ctx, at) {
			r.sampler.markHold(true)
		}
	})
	// The server is measured a moment before the phase ends, and the phase does not end
	// before that is done: all connections are still open then.
	early := min(r.plan.Duration/4, 200*time.Millisecond)
	wg.Go(func() {
		if sleepUntil(ctx, at+int64(r.plan.Duration-early)) {
			r.sampler.markHold(false)
			r.generator.Send(engine.Order{MayEnd: true})
		}
	})
}

// handleMessage handles one message.
func (r *run) handleMessage(rep engine.Message) {
	switch {
	case rep.Tick != nil:
		t := rep.Tick
		r.ticks = max(r.ticks, t.N)
		r.latest[rep.Loop] = t.Tallies
		r.procCPU[rep.Loop/r.plan.Loops] = t.ProcCPU
		r.second.response.Merge(t.Response)
		r.second.service.Merge(t.Service)
		r.second.lag.Merge(t.Lag)
		total := r.total()
		r.sampler.setOpen(total.Open)
		r.endIfNothingIsLeft(&total)
	case rep.Event != nil:
		r.events = append(r.events, report.Event(*rep.Event))
	case rep.Connected != nil:
		r.latest[rep.Loop] = *rep.Connected
		r.connected++
	}
	if rep.Result != nil {
		r.results = append(r.results, rep.Result)
		r.latest[rep.Loop] = rep.Result.Tallies
		r.ended++
		return
	}
	if rep.Error != "" {
		r.errors = append(r.errors, rep.Error)
		r.event(epoll.Monotonic(), report.EventError, rep.Error)
	}
	if rep.Error != "" || rep.Lost {
		r.latest[rep.Loop].Open, r.latest[rep.Loop].Connecting = 0, 0
		r.ended++
	}
}

func (r *run) total() engine.Tallies {
	var t engine.Tallies
	for i := range r.latest {
		t.Add(&r.latest[i])
	}
	return t
}

// event adds an event of the run; at is 0 for its start.
func (r *run) event(at int64, kind, text string) {
	t := 0.0
	if at != 0 {
		t = engine.Since(r.start, at)
	}
	r.events = append(r.events, report.Event{T: t, Kind: kind, Text: text})
}

// sample makes the sample of second n and shows it.
func (r *run) sample(n int) {
	t := r.total()
	var cpu int64
	for _, ns := range r.procCPU {
		cpu += ns
	}
	s := report.Sample{
		T: float64(n), Phase: r.phase(r.start +
			int64(n)*int64(time.Second) - 1), Connections: t.Open, Connecting: t.Connecting, Failed: t.Failed +
			t.Refused,
		ResponseUS: distribution(r.second.response), ServiceUS: distribution(r.second.service),
		LagUS:    distribution(r.second.lag),
		Injected: t.Injected, Detected: t.Detected, FalseKills: t.FalseKills, Unexplained: t.Unexplained,
		Wrong:      t.Wrong,
		CPUPercent: wording.Thousandths(float64(cpu-r.lastCPU) / 1e7), Server: r.sampler.sample(),
	}
	if last := &r.lastTallies; len(r.samples) > 0 {
		s.Connects = float64(t.Attempts - last.Attempts)
		s.Sent, s.Answered = float64(t.Sent-last.Sent), float64(t.Answered-last.Answered)
	} else {
		s.Connects, s.Sent, s.Answered, s.CPUPercent = float64(t.Attempts), float64(t.Sent), float64(t.Answered), 0
	}
	r.lastTallies, r.lastCPU = t, cpu
	r.second = secondStats{}
	r.samples = append(r.samples, s)
	if !r.Quiet {
		r.view.show(&s, r.length())
	}
}

// endIfNothingIsLeft ends the hold phase once every connection is gone: none would come
// back.
func (r *run) endIfNothingIsLeft(t *engine.Tallies) {
	now := epoll.Monotonic()
	if r.plan.Mode == modeChurn || r.stopped || r.hold == 0 || now < r.hold || t.Open+t.Connecting > 0 {
		return
	}
	text := fmt.Sprintf("no connection was left %s before the planned end, so the run ended then",
		wording.Duration((time.Duration(r.hold-now) + r.plan.Duration).Round(100*time.Millisecond)))
	r.notes = append(r.notes, text)
	r.event(now, report.EventNothingLeft, text)
	r.stop()
}

// length is how long the run takes: an estimate until the hold phase begins.
func (r *run) length() time.Duration {
	switch {
	case r.hold != 0:
		return time.Duration(r.hold-r.start) + r.plan.Duration
	case r.plan.Mode == modeChurn:
		return r.plan.Duration
	}
	return r.plan.ConnectTime() + r.plan.Duration
}

// phase is the phase at a time.
func (r *run) phase(at int64) string {
	switch {
	case r.hold == 0 || at < r.hold:
		return "connect"
	case at < r.hold+int64(r.plan.Duration):
		return "hold"
	}
	return "close"
}

// result puts everything together.
func (r *run) result() *report.Run {
	return summarize(&measurements{
		plan: r.plan, settings: r.Settings, environment: r.environment(), probed: r.probed,
		start: r.start, hold: r.hold, interrupted: r.interrupted, results: r.results, server: r.sampler.summary(),
		samples: r.samples, events: r.events, notes: r.notes, errors: r.errors,
	})
}
