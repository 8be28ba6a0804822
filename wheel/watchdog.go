package wheel

import "time"

const (
	// overdueTicks is how much later than it should a firing may come before
	// the timing wheel counts as failed; never less than minPatience.
	overdueTicks = 2
	minPatience  = 50 * time.Millisecond

	// Each rebuild doubles the least time to the next: firstPause ticks, then
	// up to maxPause, and maxPause without a fault more starts anew. One that is
	// locked up cannot be freed and keeps 0.1 MB: at worst 15 MB a day.
	firstPause = 10
	maxPause   = 10 * time.Minute
)

// watchdog judges the timing wheel by the monotonic clock, and once a tick
// wakes every loop. All of it is owned by its goroutine.
type watchdog struct {
	w    *Wheel
	tick int64

	prev    int64 // its previous tick
	blindTo int64 // not judged before: this process itself was late
	built   int64 // last rebuild
	pause   int64 // least distance of the next one from it; 0: none yet
}

func (d *watchdog) run() {
	w := d.w
	defer close(w.watched)

	// Half a tick beside the slots: so the timing wheel has its say first, and
	// if it fails the pulses are not much later.
	t := time.NewTicker(w.cfg.Tick / 2)
	defer t.Stop()
	d.prev = w.clock()
	for begun := false; ; {
		select {
		case <-w.quit:
			return
		case <-w.accused:
			d.failed(w.clock())
		case <-t.C:
			if !begun {
				begun = true
				t.Reset(w.cfg.Tick)
			}
			d.step(w.clock())
		}
	}
}

// failed is called when a firing came so early that the wall clock must have
// jumped ahead, or when the timing wheel panicked, which is in the log.
func (d *watchdog) failed(now int64) {
	if d.w.failedGen.Load() == d.w.armer.Load().gen {
		d.rebuild(now, "fired early or panicked")
	}
}

// step is one tick.
func (d *watchdog) step(now int64) {
	w := d.w
	patience := int64(max(overdueTicks*w.cfg.Tick, minPatience) + margin(w.fine))
	if now-d.prev > 2*d.tick {
		// We were late ourselves, and so may the timing wheel have been: it
		// gets time to catch up.
		d.blindTo = now + 2*d.tick
	}
	d.prev = now

	overdue, dirty := 0, false
	for _, g := range *w.ledgers.Load() {
		o, dy := g.inspect(now, patience)
		overdue += o
		dirty = dirty || dy
	}
	switch {
	case overdue > 0 && now >= d.blindTo:
		d.rebuild(now, "overdue")
	case w.failedGen.Load() == w.armer.Load().gen:
		d.rebuild(now, "fired early or panicked")
	case dirty:
		w.kick()
	}

	// The pulse. It also stands in for a timing wheel that has failed.
	for _, g := range *w.ledgers.Load() {
		w.wake(g)
	}
}

// rebuild abandons the timing wheel for a new one, if the last time is not too
// recent.
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
