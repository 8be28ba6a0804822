package wheel

import (
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

const (
	defaultTick  = 100 * time.Millisecond
	minTick      = 5 * time.Millisecond
	defaultSlots = 512
	minSlots     = 8
	maxSlots     = 1 << 16

	// retireGrace is how long to wait for AfterFunc to return before a timing wheel
	// is stopped regardless, closeGrace how long Close waits in all.
	retireGrace = time.Second
	closeGrace  = 2 * time.Second
)

// Config configures New. The zero value suits servers.
type Config struct {
	// Tick is how often a loop checks for timers one to two ticks before their
	// deadline. It is not the precision: near timers have an alarm. 0 means
	// 100 ms, less than 5 ms means 5 ms. A loop that is more than three ticks
	// late counts as stalled, so a small Tick needs a machine with idle
	// processors.
	Tick time.Duration

	// Slots is the number of ticks that a loop looks ahead. A longer timeout
	// costs one more visit for each Slots x Tick. 0 means 512, which is 51 s;
	// other numbers are rounded up to a power of two from 8 to 65,536. A slot
	// takes 60 bytes a loop.
	Slots int

	// Logger receives failures of the timing wheel. nil discards them.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Tick <= 0 {
		c.Tick = defaultTick
	}
	c.Tick = max(c.Tick, minTick)
	if c.Slots <= 0 {
		c.Slots = defaultSlots
	}
	n := minSlots
	for n < min(c.Slots, maxSlots) {
		n *= 2
	}
	c.Slots = n
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// A Wheel wakes the event loops of a process when deadlines may be due. All loops
// share one.
//
// Safe for concurrent use.
type Wheel struct {
	// Static after construction.
	cfg       Config
	fine      time.Duration
	start     time.Time
	clock     func() int64 // Now; tests replace it
	newDriver func(fine time.Duration) driver
	newAlarm  func(f func()) alarm

	quit    chan struct{} // closed by Close
	watched chan struct{} // closed when the watchdog has ended
	closing sync.Once
	failure chan struct{} // 1 deep: failedGen has changed
	roused  chan struct{} // 1 deep: the watchdog has work again
	resting atomic.Bool   // the watchdog rests, or is about to

	scheduler  atomic.Pointer[scheduler]    // nil before run
	wakeTables atomic.Pointer[[]*wakeTable] // copied on write
	failedGen  atomic.Uint64                // the latest generation that fired far early or panicked
	rebuilds   atomic.Uint64

	// gate is read-locked during wake and locked by Close, so that no wake runs
	// or starts once Close has returned.
	gate   sync.RWMutex
	closed bool // guarded by gate

	mu      sync.Mutex
	retired []*scheduler // guarded by mu: may not have ended yet
}

// New starts a wheel, whose goroutines run until Close.
func New(cfg Config) *Wheel {
	w := newWheel(cfg, newRealDriver)
	w.run()
	return w
}

// newWheel returns a wheel that is not running.
func newWheel(cfg Config, newDriver func(time.Duration) driver) *Wheel {
	cfg = cfg.withDefaults()
	w := &Wheel{
		cfg:       cfg,
		fine:      fineTick(cfg.Tick),
		start:     time.Now(),
		newDriver: newDriver,
		newAlarm:  newRealAlarm,
		quit:      make(chan struct{}),
		watched:   make(chan struct{}),
		failure:   make(chan struct{}, 1),
		roused:    make(chan struct{}, 1),
	}
	w.clock = w.Now
	w.wakeTables.Store(new([]*wakeTable))
	return w
}

func (w *Wheel) run() {
	w.addClockTimer()
	a := newScheduler(w, 1)
	w.adopt(a)
	go (&watchdog{w: w, tick: int64(w.cfg.Tick)}).run()
}

// Now returns the monotonic time since New in ns. Steps of the wall clock do not
// change it.
func (w *Wheel) Now() int64 { return int64(time.Since(w.start)) }

// Rebuilds returns how often the timing wheel underneath failed and was replaced.
func (w *Wheel) Rebuilds() uint64 { return w.rebuilds.Load() }

// NewLoop returns the deadlines of another event loop, with nothing armed. A Loop
// lives as long as its Wheel.
//
// wake must make the event loop call l.Now and l.Advance soon. It is called at
// least once a tick while a timer is armed, on any goroutine, possibly on several at
// once, and never once Close has returned. It must not block, and must not call Close. It may merge
// calls until l.Now is called: a later call asks for another l.Now.
func (w *Wheel) NewLoop(wake func()) *Loop {
	wt := newWakeTable(w.cfg.Slots, wake, 0)
	w.addWakeTable(wt)
	return newLoop(w, wt)
}

func (w *Wheel) addWakeTable(wt *wakeTable) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if a := w.scheduler.Load(); a != nil {
		wt.gen = a.gen
	}
	old := *w.wakeTables.Load()
	all := append(old[:len(old):len(old)], wt)
	w.wakeTables.Store(&all)
}

// addClockTimer keeps a timer running at a quarter of the timing wheel's span.
// timingwheel's clock moves only when something expires: without this, after a
// quiet time even a short delay would seem beyond its span and go to a second
// level of buckets.
func (w *Wheel) addClockTimer() {
	var wt *wakeTable
	rearm := func() {
		if wt.request(0, w.clock()+int64(reach(w.fine)/2)) {
			w.kick()
		}
	}
	wt = newWakeTable(1, nil, 0)
	wt.wake = rearm
	w.addWakeTable(wt)
	rearm()
}

// kick kicks the present scheduler. It never blocks.
func (w *Wheel) kick() {
	if a := w.scheduler.Load(); a != nil {
		a.kick()
	}
}

// rouse ends the rest of the watchdog, which follows once there is something to
// watch. It never blocks.
func (w *Wheel) rouse() {
	if w.resting.Load() && w.resting.CompareAndSwap(true, false) {
		select {
		case w.roused <- struct{}{}:
		default:
		}
	}
}

// reportFailure records that generation gen fired far early or panicked.
func (w *Wheel) reportFailure(gen uint64) {
	for old := w.failedGen.Load(); gen > old; old = w.failedGen.Load() { // else a newer one has failed
		if w.failedGen.CompareAndSwap(old, gen) {
			break
		}
	}
	select {
	case w.failure <- struct{}{}:
	default:
	}
}

// wake calls wt.wake. A panic in it would end the process, on a goroutine where
// no caller can recover it, so it is logged instead, once.
func (w *Wheel) wake(wt *wakeTable) {
	w.gate.RLock()
	defer w.gate.RUnlock()
	if w.closed {
		return
	}
	defer func() {
		if p := recover(); p != nil && wt.firstPanic() {
			w.cfg.Logger.Error("wheel: wake panicked", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	wt.wake()
}

// adopt makes a the present scheduler, which arms everything outstanding again.
func (w *Wheel) adopt(a *scheduler) {
	w.mu.Lock()
	defer w.mu.Unlock()
	// In this order nothing is lost: slots marked dirty before their wakeTable is
	// adopted are armed by the kick below; marking one later kicks a.
	w.scheduler.Store(a)
	for _, wt := range *w.wakeTables.Load() {
		wt.adopt(a.gen)
	}
	a.kick()
	go a.run()
}

// rebuild replaces the timing wheel and its scheduler. Watchdog only.
func (w *Wheel) rebuild(reason string, pause time.Duration) {
	old := w.scheduler.Load()
	w.adopt(newScheduler(w, old.gen+1))
	w.retire(old)
	n := w.rebuilds.Add(1)
	w.cfg.Logger.Warn("wheel: timing wheel replaced", "reason", reason, "rebuilds", n, "next_not_before", pause)
}

func (w *Wheel) retire(a *scheduler) {
	a.retire()
	w.mu.Lock()
	defer w.mu.Unlock()
	keep := w.retired[:0]
	for _, r := range w.retired {
		select {
		case <-r.gone:
		default:
			keep = append(keep, r)
		}
	}
	clear(w.retired[len(keep):])
	w.retired = append(keep, a)
}

// Close ends the wheel: once it has returned no wake runs or starts. Loops still
// work but are not woken. It waits for the wheel's goroutines, at most two seconds
// for those caught in a timing wheel that is locked up. Further calls wait for the
// first.
func (w *Wheel) Close() {
	w.closing.Do(func() {
		w.gate.Lock()
		w.closed = true
		w.gate.Unlock()

		close(w.quit)
		<-w.watched
		w.retire(w.scheduler.Load())

		w.mu.Lock()
		retired := w.retired
		w.retired = nil
		w.mu.Unlock()
		t := time.NewTimer(closeGrace)
		defer t.Stop()
		for i, a := range retired {
			select {
			case <-a.gone:
			case <-t.C:
				w.cfg.Logger.Warn("wheel: closed with a timing wheel locked up", "count", len(retired)-i)
				return
			}
		}
	})
}
