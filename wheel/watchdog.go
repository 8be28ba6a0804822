package wheel

import "time"

const (
	// overdueTicks is how late a firing may be before the timing wheel counts as
	// failed, at least minPatience.
	overdueTicks = 2
	minPatience  = 50 * time.Millisecond

	// Each rebuild doubles the minimum time to the next, from firstPause ticks to
	// maxPause; maxPause more without a failure resets it. A timing wheel that is
	// locked up cannot be freed and keeps 0.1 MB: at worst 15 MB a day.
	firstPause = 10
	maxPause   = 10 * time.Minute
)

// A watchdog checks the timing wheel against the monotonic clock, and wakes every loop
// that has armed timers once a tick: the pulse. While no loop has any it rests, after a
// tick in which nothing changed. It is owned by its goroutine.
type watchdog struct {
	w    *Wheel
	tick int64

	prev       int64 // previous step
	graceUntil int64 // no rebuild for overdue firings before: this process was late itself
	built      int64 // last rebuild
	pause      int64 // minimum time from it to the next; 0: none yet
}

func (d *watchdog) run() {
	w := d.w
	defer close(w.watched)

	d.prev = w.clock()
	t := time.NewTicker(d.untilStep(d.prev))
	defer t.Stop()
	for inStep := false; ; {
		select {
		case <-w.quit:
			return
		case <-w.failure:
			d.failed(w.clock())
		case <-w.roused:
			t.Reset(d.untilStep(w.clock()))
			inStep = false
		case <-t.C:
			if !inStep {
				inStep = true
				t.Reset(w.cfg.Tick)
			}
			if busy := d.step(w.clock()); busy {
				w.resting.Store(false)
			} else if w.resting.Swap(true) { // else a loop may have found it false since step looked
				t.Stop()
			}
		}
	}
}

// untilStep returns the time to the next step, half a tick after the slots are due: the
// timing wheel comes first, and the pulse is not much later if it fails.
func (d *watchdog) untilStep(now int64) time.Duration {
	return time.Duration(d.tick - (now+d.tick/2)%d.tick)
}

// failed acts on a firing so early that the wall clock must have jumped ahead, or
// on a panic of the timing wheel, which has been logged.
func (d *watchdog) failed(now int64) {
	if d.w.failedGen.Load() == d.w.scheduler.Load().gen {
		d.rebuild(now, "fired early or panicked")
	}
}

// step checks the timing wheel and pulses, and reports whether there was anything to do.
// It is called once a tick, unless the watchdog rests.
func (d *watchdog) step(now int64) (busy bool) {
	w := d.w
	patience := int64(max(overdueTicks*w.cfg.Tick, minPatience) + margin(w.fine))
	if now-d.prev > 2*d.tick {
		// This process was late, or has rested and may have been, and so may the timing
		// wheel be: let it catch up.
		d.graceUntil = now + 2*d.tick
	}
	d.prev = now

	overdue, dirty := 0, false
	for _, wt := range *w.wakeTables.Load() {
		o, dy := wt.inspect(now, patience)
		overdue += o
		dirty = dirty || dy
	}
	switch {
	case overdue > 0 && now >= d.graceUntil:
		d.rebuild(now, "overdue")
	case w.failedGen.Load() == w.scheduler.Load().gen:
		d.rebuild(now, "fired early or panicked")
	case dirty:
		w.kick()
	}

	// The pulse, which also replaces a timing wheel that has failed.
	busy = overdue > 0 || dirty
	for _, wt := range *w.wakeTables.Load() {
		if wt.pulsed.Load() {
			busy = true
			w.wake(wt)
		}
	}
	return busy
}

// rebuild replaces the timing wheel, unless the last time was too recent.
func (d *watchdog) rebuild(now int64, reason string) {
	first := firstPause * d.tick
	if d.pause != 0 {
		since := now - d.built
		if since < d.pause {
			return
		}
		if since > d.pause+int64(maxPause) {
			d.pause = 0
		}
	}
	d.pause = min(max(2*d.pause, first), max(int64(maxPause), first))
	d.built = now
	d.w.rebuild(reason, time.Duration(d.pause))
}
