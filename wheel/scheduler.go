package wheel

import (
	"runtime/debug"
	"time"
)

// A scheduler owns one timing wheel, and its goroutine is the only one to call
// AfterFunc. When the timing wheel fails, both are abandoned, possibly for ever
// inside AfterFunc, and a scheduler of the next generation takes over.
type scheduler struct {
	// Static after construction.
	w    *Wheel
	gen  uint64
	tw   driver
	quit chan struct{} // closed by retire
	work chan struct{} // 1 deep: a wakeTable is dirty
	done chan struct{} // closed when the goroutine has ended
	gone chan struct{} // closed when the timing wheel has ended too
}

func newScheduler(w *Wheel, gen uint64) *scheduler {
	return &scheduler{
		w:    w,
		gen:  gen,
		tw:   w.newDriver(w.fine),
		quit: make(chan struct{}),
		work: make(chan struct{}, 1),
		done: make(chan struct{}),
		gone: make(chan struct{}),
	}
}

// kick makes the scheduler look for dirty slots. It never blocks. Safe for
// concurrent use.
func (s *scheduler) kick() {
	select {
	case s.work <- struct{}{}:
	default: // a kick is pending
	}
}

func (s *scheduler) run() {
	defer close(s.done)
	defer s.recoverPanic()
	for {
		select {
		case <-s.quit:
			return
		case <-s.work:
		}
		for _, wt := range *s.w.wakeTables.Load() {
			s.arm(wt)
		}
	}
}

// arm calls AfterFunc for every dirty slot of wt.
func (s *scheduler) arm(wt *wakeTable) {
	for {
		now := s.w.clock()
		i, target := wt.claim(s.gen, now, int64(reach(s.w.fine)))
		if i < 0 {
			return
		}
		delay := time.Duration(max(target-now, 0)) + margin(s.w.fine)
		s.tw.AfterFunc(delay, func() { s.fire(wt, i, target) })
	}
}

// recoverPanic, deferred, turns a panic of the timing wheel into the end of this
// generation: on a goroutine of ours it would end the process.
func (s *scheduler) recoverPanic() {
	if p := recover(); p != nil {
		s.w.cfg.Logger.Error("wheel: timing wheel panicked", "panic", p, "stack", string(debug.Stack()))
		s.w.reportFailure(s.gen)
	}
}

// fire is called by the timing wheel, on a goroutine of its own.
func (s *scheduler) fire(wt *wakeTable, i int, target int64) {
	switch wt.fired(s.gen, i, target, s.w.clock(), int64(2*s.w.fine)) {
	case firedFarEarly:
		s.w.reportFailure(s.gen)
	case firedEarly:
		s.w.rouse()
	case firedPartWay:
		s.kick()
	case firedDue:
		s.w.wake(wt)
	}
}

// retire ends the scheduler and its timing wheel in the background, as that may
// never end; gone is closed when it has.
func (s *scheduler) retire() {
	close(s.quit)
	go func() {
		defer close(s.gone)
		defer s.recoverPanic()
		// Stop can hang a concurrent AfterFunc, so let that return first, unless
		// it hangs already.
		t := time.NewTimer(retireGrace)
		select {
		case <-s.done:
		case <-t.C:
		}
		t.Stop()
		s.tw.Stop()
		<-s.done
	}()
}
