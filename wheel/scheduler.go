package wheel

import (
	"runtime/debug"
	"time"
)

// armer owns one timing wheel and is the only goroutine that ever calls it. It
// is a generation: when its timing wheel fails, both are abandoned, possibly
// for ever inside AfterFunc, and the next generation takes over.
type armer struct {
	// Static after construction.
	w    *Wheel
	gen  uint64
	tw   driver
	quit chan struct{} // closed by retire
	work chan struct{} // 1 deep: some ledger is dirty
	done chan struct{} // closed when the goroutine has ended
	gone chan struct{} // closed when the timing wheel has ended too
}

func newArmer(w *Wheel, gen uint64) *armer {
	return &armer{
		w:    w,
		gen:  gen,
		tw:   w.newDriver(w.fine),
		quit: make(chan struct{}),
		work: make(chan struct{}, 1),
		done: make(chan struct{}),
		gone: make(chan struct{}),
	}
}

// kick tells the armer that a ledger is dirty. It never blocks. Safe for
// concurrent use.
func (a *armer) kick() {
	select {
	case a.work <- struct{}{}:
	default: // it has yet to look anyway
	}
}

func (a *armer) run() {
	defer close(a.done)
	defer a.guard()
	for {
		select {
		case <-a.quit:
			return
		case <-a.work:
		}
		for _, g := range *a.w.ledgers.Load() {
			a.arm(g)
		}
	}
}

// arm calls AfterFunc for every dirty slot of g.
func (a *armer) arm(g *ledger) {
	for {
		now := a.w.clock()
		i, target := g.take(a.gen, now, int64(reach(a.w.fine)))
		if i < 0 {
			return
		}
		delay := time.Duration(max(target-now, 0)) + margin(a.w.fine)
		a.tw.AfterFunc(delay, func() { a.fire(g, i, target) })
	}
}

// guard turns a panic of the timing wheel into the end of this generation: on a
// goroutine of ours it would end the process.
func (a *armer) guard() {
	if p := recover(); p != nil {
		a.w.cfg.Logger.Error("wheel: timing wheel panicked", "panic", p, "stack", string(debug.Stack()))
		a.w.accuse(a.gen)
	}
}

// fire is what the timing wheel calls, on a goroutine of its own.
func (a *armer) fire(g *ledger, i int, target int64) {
	switch g.fired(a.gen, i, target, a.w.clock(), int64(2*a.w.fine)) {
	case wild:
		a.w.accuse(a.gen)
	case hop:
		a.kick()
	case wake:
		a.w.wake(g)
	}
}

// retire ends the armer and its timing wheel on a goroutine that nobody has to
// wait for, as it may never end; gone tells.
func (a *armer) retire() {
	close(a.quit)
	go func() {
		defer close(a.gone)
		defer a.guard()
		// Stop beside a running AfterFunc can hang it, so let that end first,
		// unless it is hung already.
		t := time.NewTimer(retireGrace)
		select {
		case <-a.done:
		case <-t.C:
		}
		t.Stop()
		a.tw.Stop()
		<-a.done
	}()
}
