package supervisor

import (
	"errors"
	"fmt"
	"time"

	dto "github.com/prometheus/client_model/go"

	"heartwheel/internal/handover"
	"heartwheel/server"
)

// A slot is one of the workers' places: it has the listening sockets, which stay
// open while workers come and go in it.
type slot struct {
	// Static.
	index   int
	sockets []server.Socket

	// Of the goroutine of supervisor.run.
	settings *workerSettings // what the next worker is started with
	backoff  backoff
	starting bool

	// Written by the goroutine of supervisor.run under supervisor.mu.
	current *worker             // nil: none is ready
	old     *worker             // drains; nil: none
	ended   []*dto.MetricFamily // counters of the workers that have ended
}

// workers returns the slot's workers. Under supervisor.mu, or by the goroutine of
// supervisor.run.
func (s *slot) workers() []*worker {
	var all []*worker
	for _, w := range []*worker{s.current, s.old} {
		if w != nil {
			all = append(all, w)
		}
	}
	return all
}

// freeCountSlot returns a slot of the shared connection count: each of our slots
// has two there, as two workers may be in it.
func (s *slot) freeCountSlot() int {
	n := 2 * s.index
	for _, w := range s.workers() {
		if w.countSlot == n {
			n++
		}
	}
	return n
}

// start starts a worker in s, unless one is starting.
func (v *supervisor) start(s *slot) {
	if v.stopping || s.starting {
		return
	}
	s.starting = true
	v.busy++
	from := s.settings
	if v.rolling != nil && s.current != nil {
		from = v.rolling.settings
	}
	ctx, start := v.startCtx, workerStart{
		program:   v.Program,
		control:   handover.ControlName(s.index, len(v.slots), v.loops, v.settings.Ops),
		index:     s.index,
		countSlot: s.freeCountSlot(),
		countFile: v.countFile,
		sockets:   s.sockets,
		base:      from.base,
		reload:    from.reload,
	}
	go func() {
		v.starts <- struct{}{}
		w, err := startWorker(ctx, start)
		<-v.starts
		v.post(func() {
			s.starting = false
			if err != nil {
				v.busy--
				v.count.Clear(start.countSlot)
				v.startFailed(s, err)
				return
			}
			w.drainTime = from.drain(v.settings)
			if s.settings = from; w.reload != from.reload { // reloaded while it started
				v.tell(w, from.reload)
			}
			v.ready(s, w)
		})
	}()
}

// ready takes a worker into its slot. One that was there drains.
func (v *supervisor) ready(s *slot, w *worker) {
	go func() {
		<-w.Done()
		<-w.scraped
		v.post(func() { v.ended(s, w) })
	}()
	v.mu.Lock()
	before := s.current
	s.current = w
	if before != nil {
		s.old = before
		v.replaced++
	}
	v.mu.Unlock()
	if before != nil && v.rolling != nil {
		if v.rolling.replaced++; v.rolling.replaced == 1 {
			v.adopt(v.rolling.settings.now)
		}
	}
	switch {
	case v.stopping:
		v.drain(w)
	case before != nil:
		v.log.Info("worker replaced", "worker", s.index, "pid", w.PID(), "before", before.PID())
		v.drain(before)
		v.rollOn()
	case !v.serving:
		v.startOthers()
	default:
		v.log.Info("worker started", "worker", s.index, "pid", w.PID())
		v.rollOn()
	}
}

// startFailed acts on a worker that did not become ready.
func (v *supervisor) startFailed(s *slot, err error) {
	if v.stopping {
		return
	}
	var e *handover.Error
	stderr := ""
	if errors.As(err, &e) {
		stderr = e.Stderr
	}
	switch {
	case !v.serving:
		if v.failed = fmt.Errorf("worker %d cannot start: %w", s.index, err); stderr != "" {
			v.failed = fmt.Errorf("%w\n%s", v.failed, stderr)
		}
		v.stop()
	case s.current != nil:
		v.rollFailed(s, err, stderr)
	default:
		v.restart(s, 0, "error", err, "stderr", stderr)
	}
}

// ended acts on the end of a worker that was ready.
func (v *supervisor) ended(s *slot, w *worker) {
	v.busy--
	w.release()
	v.count.Clear(w.countSlot)
	v.mu.Lock()
	sum := newAggregate()
	sum.add(s.ended)
	sum.add(countersOf(w.metrics.latest()))
	s.ended = sum.all()
	asked, replaced := w.draining.Load(), s.current != w
	if !replaced {
		s.current = nil
	} else {
		s.old = nil
	}
	v.mu.Unlock()
	if (asked || v.stopping) && !w.State().Success() {
		v.log.Error("worker ended before it had drained",
			"worker", s.index, "pid", w.PID(), "state", w.State().String())
		if v.stopping && v.failed == nil {
			v.failed = fmt.Errorf("worker %d ended with %s", s.index, w.State())
		}
	}
	// A worker that was replaced ends as planned: if its successor has ended too,
	// that one's end has caused a restart.
	if !v.stopping && !replaced && !s.starting {
		v.restart(s, time.Since(w.readyAt), "pid", w.PID(), "state", w.State().String())
		return
	}
	v.rollOn()
}

// restart starts a worker in an empty slot after a delay. served is how long the
// last one served; 0 if it never became ready.
func (v *supervisor) restart(s *slot, served time.Duration, why ...any) {
	if !v.serving { // it became ready, and ended while others start
		v.failed = fmt.Errorf("worker %d ended at once: %v", s.index, why)
		v.stop()
		return
	}
	wait := s.backoff.next(served)
	v.log.Error("worker ended; connections wait in its sockets for the next one",
		append([]any{"worker", s.index, "next_in", wait.String()}, why...)...)
	v.mu.Lock()
	v.restarts++
	v.mu.Unlock()
	time.AfterFunc(wait, func() {
		v.post(func() {
			if s.current == nil {
				v.start(s)
			}
		})
	})
	v.rollOn()
}

// drain asks a worker to drain and exit, and kills it if it takes too long.
func (v *supervisor) drain(w *worker) {
	if w.draining.Swap(true) {
		return
	}
	late := time.AfterFunc(w.drainTime+drainGrace, w.Kill)
	go func() { // may take a second if the worker hangs
		if err := w.control.Drain(); err != nil {
			w.Kill()
		}
		<-w.Done()
		late.Stop()
	}()
}
