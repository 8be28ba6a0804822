package wheel

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// A record holds when to wake a loop for a slot, and the state of that:
//
//	due = 0                   no wake is wanted, or it has happened
//	due > 0, target > 0       an AfterFunc is outstanding that fires at target
//	due > 0, dirty            the scheduler has to call AfterFunc
//	due > 0, neither          the timing wheel failed; the watchdog notices
//
// Times are monotonic, in ns since New. The due time of a slot only increases, as
// the loop reuses a slot only for a later tick, so target is never after due.
type record struct {
	due    int64
	target int64
}

// A wakeTable holds when to wake a loop, by slot. It is the part of a Loop that
// other goroutines share. Its lock is never held during a call into timingwheel or
// of wake, so a loop waits for it a fraction of a microsecond at most, whatever
// state timingwheel is in.
//
// Safe for concurrent use.
type wakeTable struct {
	// Static after construction.
	wake func()

	pulsed atomic.Bool // the watchdog wakes it every tick

	mu sync.Mutex

	// Guarded by mu.
	gen      uint64 // the scheduler that serves it; firings of others are stale
	records  []record
	dirty    []uint64 // a bit for each slot that the scheduler has to look at
	panicked bool     // a panic of wake has been logged
}

func newWakeTable(slots int, wake func(), gen uint64) *wakeTable {
	return &wakeTable{
		wake:    wake,
		gen:     gen,
		records: make([]record, slots),
		dirty:   make([]uint64, (slots+63)/64),
	}
}

// request asks for a wake for slot i at due. It reports whether the scheduler has
// to be kicked.
func (wt *wakeTable) request(i int, due int64) (kick bool) {
	wt.mu.Lock()
	kick = wt.requestLocked(i, due)
	wt.mu.Unlock()
	return kick
}

// requestLocked is request with mu held. An outstanding AfterFunc fires before due
// and is then armed again.
func (wt *wakeTable) requestLocked(i int, due int64) (kick bool) {
	r := &wt.records[i]
	r.due = due
	if r.target != 0 {
		return false
	}
	wt.mark(i)
	return true
}

// mark sets the dirty bit of slot i. mu is held.
func (wt *wakeTable) mark(i int) { wt.dirty[i/64] |= 1 << (i % 64) }

// isDirty returns the dirty bit of slot i. mu is held.
func (wt *wakeTable) isDirty(i int) bool { return wt.dirty[i/64]&(1<<(i%64)) != 0 }

// claim returns the next dirty slot, and the target, now outstanding, to call
// AfterFunc for; -1 if there is none or gen does not serve wt any more.
func (wt *wakeTable) claim(gen uint64, now, reach int64) (i int, target int64) {
	wt.mu.Lock()
	defer wt.mu.Unlock()
	if wt.gen != gen {
		return -1, 0
	}
	for w := range wt.dirty {
		for wt.dirty[w] != 0 {
			b := bits.TrailingZeros64(wt.dirty[w])
			wt.dirty[w] &^= 1 << b
			i = w*64 + b
			if r := &wt.records[i]; r.due != 0 && r.target == 0 {
				r.target = min(r.due, now+reach)
				return i, r.target
			}
		}
	}
	return -1, 0
}

// A firing says how a call from the timing wheel relates to what was asked of it.
type firing int

const (
	firedStale    firing = iota // not the outstanding one: ignore it
	firedFarEarly               // so early that the wall clock must have jumped
	firedEarly                  // slightly early: the watchdog has it armed again
	firedPartWay                // at its target, before due: arm it again
	firedDue                    // at due: wake the loop
)

// fired records a firing of generation gen that was armed for target.
func (wt *wakeTable) fired(gen uint64, i int, target, now, slack int64) firing {
	wt.mu.Lock()
	defer wt.mu.Unlock()
	r := &wt.records[i]
	if wt.gen != gen || r.target != target {
		return firedStale
	}
	r.target = 0
	switch {
	case now < target-slack:
		// Arming it again on a wheel that fires at once would spin. The rebuild
		// arms it.
		return firedFarEarly
	case now < target:
		wt.mark(i) // without a kick, for the same reason
		return firedEarly
	case now < r.due:
		wt.mark(i)
		return firedPartWay
	}
	r.due = 0
	return firedDue
}

// inspect counts the records that should have fired patience ago, and reports
// whether any is dirty.
func (wt *wakeTable) inspect(now, patience int64) (overdue int, dirty bool) {
	wt.mu.Lock()
	defer wt.mu.Unlock()
	for i := range wt.records {
		r := &wt.records[i]
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
	for _, w := range wt.dirty {
		dirty = dirty || w != 0
	}
	return overdue, dirty
}

// adopt makes gen the generation that serves wt, and leaves everything that has not
// fired to it.
func (wt *wakeTable) adopt(gen uint64) {
	wt.mu.Lock()
	defer wt.mu.Unlock()
	wt.gen = gen
	for i := range wt.records {
		r := &wt.records[i]
		r.target = 0
		if r.due != 0 {
			wt.mark(i)
		}
	}
}

// firstPanic reports whether this is its first call.
func (wt *wakeTable) firstPanic() bool {
	wt.mu.Lock()
	defer wt.mu.Unlock()
	first := !wt.panicked
	wt.panicked = true
	return first
}
