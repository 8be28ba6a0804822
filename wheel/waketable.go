package wheel

import (
	"math/bits"
	"sync"
)

// record says when a slot's loop is to be woken and what has been done about it.
// The states:
//
//	due = 0                   nothing to do: never used, or the wake has happened
//	due > 0, target > 0       an AfterFunc is outstanding that is to fire at target
//	due > 0, dirty            the armer is to call AfterFunc
//	due > 0, neither          the timing wheel failed it: the watchdog will see
//
// All times are monotonic, ns since New. For one slot due only ever grows, as
// the loop reuses a slot only for a later tick, so target is never after due.
type record struct {
	due    int64
	target int64
}

// ledger is the part of a Loop that other goroutines share. Its lock is never
// held during a call into timingwheel or into wake, so a loop waits for it a
// fraction of a microsecond, whatever state timingwheel is in.
//
// Safe for concurrent use.
type ledger struct {
	// Static after construction.
	wake func()

	mu sync.Mutex

	// Guarded by mu.
	gen      uint64 // generation that serves it; firings of any other are stale
	recs     []record
	dirty    []uint64 // bit set: slots the armer has to look at
	panicked bool     // wake has panicked, and that has been logged
}

func newLedger(slots int, wake func(), gen uint64) *ledger {
	return &ledger{
		wake:  wake,
		gen:   gen,
		recs:  make([]record, slots),
		dirty: make([]uint64, (slots+63)/64),
	}
}

// ask wants the loop woken for slot i at due. It reports whether the armer has
// something to do.
func (g *ledger) ask(i int, due int64) (kick bool) {
	g.mu.Lock()
	kick = g.set(i, due)
	g.mu.Unlock()
	return kick
}

// set is ask with mu held. An AfterFunc that is outstanding fires before due:
// then it is armed again, so there is nothing to do now.
func (g *ledger) set(i int, due int64) (kick bool) {
	r := &g.recs[i]
	r.due = due
	if r.target != 0 {
		return false
	}
	g.mark(i)
	return true
}

// mark sets slot i's dirty bit; with mu held.
func (g *ledger) mark(i int) { g.dirty[i/64] |= 1 << (i % 64) }

// isDirty reads it; with mu held.
func (g *ledger) isDirty(i int) bool { return g.dirty[i/64]&(1<<(i%64)) != 0 }

// take hands the next dirty slot to generation gen's armer: the slot, and the
// target, now outstanding, to call AfterFunc for. It returns -1 if there is
// none or if another generation has taken over.
func (g *ledger) take(gen uint64, now, reach int64) (i int, target int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.gen != gen {
		return -1, 0
	}
	for w := range g.dirty {
		for g.dirty[w] != 0 {
			b := bits.TrailingZeros64(g.dirty[w])
			g.dirty[w] &^= 1 << b
			i = w*64 + b
			if r := &g.recs[i]; r.due != 0 && r.target == 0 {
				r.target = min(r.due, now+reach)
				return i, r.target
			}
		}
	}
	return -1, 0
}

// verdict is what a firing means.
type verdict int

const (
	stale verdict = iota // not the outstanding one: ignore it
	wild                 // so early that the wall clock must have jumped
	early                // a little early: the watchdog has it armed again
	hop                  // in time, but short of due on purpose: arm again
	wake                 // due
)

// fired settles a firing of generation gen that was armed for target.
func (g *ledger) fired(gen uint64, i int, target, now, slack int64) verdict {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := &g.recs[i]
	if g.gen != gen || r.target != target {
		return stale
	}
	r.target = 0
	switch {
	case now < target-slack:
		// Not to be armed again on a wheel that fires at once: that would
		// spin. The rebuild does it.
		return wild
	case now < target:
		g.mark(i) // but no kick, for the same reason
		return early
	case now < r.due:
		g.mark(i)
		return hop
	}
	r.due = 0
	return wake
}

// inspect looks for records that should have fired patience ago, and for work
// that the armer has not been told of.
func (g *ledger) inspect(now, patience int64) (overdue int, dirty bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.recs {
		r := &g.recs[i]
		if r.due == 0 {
			continue
		}
		at := r.target
		if at == 0 {
			at = r.due
		}
		if now > at+patience {
			overdue++
		}
	}
	for _, w := range g.dirty {
		dirty = dirty || w != 0
	}
	return overdue, dirty
}

// adopt makes gen the generation that serves the ledger and leaves everything
// that has not fired to its armer.
func (g *ledger) adopt(gen uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gen = gen
	for i := range g.recs {
		r := &g.recs[i]
		r.target = 0
		if r.due != 0 {
			g.mark(i)
		}
	}
}

// idle reports whether slot i has nothing to do.
func (g *ledger) idle(i int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.recs[i].due == 0
}

// firstPanic reports whether it is called for the first time.
func (g *ledger) firstPanic() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	first := !g.panicked
	g.panicked = true
	return first
}
