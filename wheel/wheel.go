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

	// retireGrace is how long a timing wheel may take to let go of its armer
	// before it is stopped regardless, closeGrace how long Close waits for all.
	retireGrace = time.Second
	closeGrace  = 2 * time.Second
)

// Config is what New wants to know. The zero value is right for servers.
type Config struct {
	// Tick is how often a loop looks who is near its deadline, one to two ticks
	// ahead. It is not the precision, which is that of an alarm of its own. 0
	// means 100 ms; less than 5 ms counts as 5 ms. A loop that is late by more
	// than three ticks counts as stalled, so a small Tick wants a machine that
	// is not busy.
	Tick time.Duration

	// Slots is the number of ticks that a loop looks ahead. Timeouts of more
	// than Slots x Tick are fine, they cost one visit more for each such span.
	// 0 means 512, which is 51 s; other numbers are rounded up to a power of
	// two from 8 to 65,536. A slot takes 60 bytes a loop.
	Slots int

	// Logger is told when the timing wheel had to be replaced. nil: nobody is.
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

// Wheel wakes the event loops of a process when deadlines may be due. All loops
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
	accused chan struct{} // 1 deep: failedGen has been set

	armer     atomic.Pointer[armer]     // the present one; nil before run
	ledgers   atomic.Pointer[[]*ledger] // replaced, never changed
	failedGen atomic.Uint64             // generation that has fired wildly early, or panicked
	rebuilds  atomic.Uint64

	// gate is held for reading during wake and for writing by Close, so that
	// no wake is running or starts when Close returns.
	gate   sync.RWMutex
	closed bool // guarded by gate

	mu      sync.Mutex
	retired []*armer // guarded by mu: those that may not be gone yet
}

// New starts a wheel: its goroutines run until Close.
func New(cfg Config) *Wheel {
	w := newWheel(cfg, newRealDriver)
	w.run()
	return w
}

// newWheel makes a wheel that does not run.
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
		accused:   make(chan struct{}, 1),
	}
	w.clock = w.Now
	w.ledgers.Store(new([]*ledger))
	return w
}

func (w *Wheel) run() {
	w.addMetronome()
	a := newArmer(w, 1)
	w.adopt(a)
	go (&watchdog{w: w, tick: int64(w.cfg.Tick)}).run()
}

// Now returns the monotonic time since New in ns. Steps of the wall clock do
// not touch it.
func (w *Wheel) Now() int64 { return int64(time.Since(w.start)) }

// Rebuilds returns how often the timing wheel underneath had failed and was
// replaced.
func (w *Wheel) Rebuilds() uint64 { return w.rebuilds.Load() }

// NewLoop returns the deadlines of one more event loop, with nothing armed.
// There is no way to give it back: a loop lives as long as its wheel.
//
// wake asks for l.Now and l.Advance to be called soon on the loop. It is called
// on any goroutine, at least once a tick, possibly by several at once, and not
// any more once Close has returned. It must not block, and not call Close. If it
// merges calls, then only those before l.Now: one that comes after l.Now has read
// the clock asks for another.
func (w *Wheel) NewLoop(wake func()) *Loop {
	g := newLedger(w.cfg.Slots, wake, 0)
	w.addLedger(g)
	return newLoop(w, g)
}

func (w *Wheel) addLedger(g *ledger) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if a := w.armer.Load(); a != nil {
		g.gen = a.gen
	}
	old := *w.ledgers.Load()
	all := append(old[:len(old):len(old)], g)
	w.ledgers.Store(&all)
}

// addMetronome keeps one timer going at a quarter of the timing wheel's span.
// timingwheel's own clock moves only when something expires: without it, after
// a quiet time even a short delay would seem beyond its span and go to a second
// level of buckets.
func (w *Wheel) addMetronome() {
	var g *ledger
	beat := func() {
		if g.ask(0, w.clock()+int64(reach(w.fine)/2)) {
			w.kick()
		}
	}
	g = newLedger(1, nil, 0)
	g.wake = func() {
		// Called by pulses too, when the last one is still to come.
		if g.idle(0) {
			beat()
		}
	}
	w.addLedger(g)
	beat()
}

// kick wakes the present armer. It never blocks.
func (w *Wheel) kick() {
	if a := w.armer.Load(); a != nil {
		a.kick()
	}
}

// accuse reports that generation gen has fired wildly early, or panicked.
func (w *Wheel) accuse(gen uint64) {
	for old := w.failedGen.Load(); gen > old; old = w.failedGen.Load() { // an older one matters no more
		if w.failedGen.CompareAndSwap(old, gen) {
			break
		}
	}
	select {
	case w.accused <- struct{}{}:
	default:
	}
}

// wake calls g's wake. A panic in it would end the process from a goroutine
// that nobody can guard, so it is logged instead, once.
func (w *Wheel) wake(g *ledger) {
	w.gate.RLock()
	defer w.gate.RUnlock()
	if w.closed {
		return
	}
	defer func() {
		if p := recover(); p != nil && g.firstPanic() {
			w.cfg.Logger.Error("wheel: wake panicked", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	g.wake()
}

// adopt makes a the present armer: everything outstanding is armed anew by it.
func (w *Wheel) adopt(a *armer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	// In this order nothing is lost: who marks a slot dirty before its ledger
	// is adopted is seen below, who does it after that kicks a.
	w.armer.Store(a)
	for _, g := range *w.ledgers.Load() {
		g.adopt(a.gen)
	}
	a.kick()
	go a.run()
}

// rebuild replaces the timing wheel and its armer. Only the watchdog calls it.
func (w *Wheel) rebuild(reason string, pause time.Duration) {
	old := w.armer.Load()
	w.adopt(newArmer(w, old.gen+1))
	w.retire(old)
	n := w.rebuilds.Add(1)
	w.cfg.Logger.Warn("wheel: timing wheel replaced", "reason", reason, "rebuilds", n, "next_not_before", pause)
}

func (w *Wheel) retire(a *armer) {
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

// Close ends the wheel: when it returns no wake is running and none will come.
// Loops still work but are not woken. It waits for the wheel's goroutines, at
// most two seconds for those that are caught in a locked-up timing wheel.
// Further calls wait for the first.
func (w *Wheel) Close() {
	w.closing.Do(func() {
		w.gate.Lock()
		w.closed = true
		w.gate.Unlock()

		close(w.quit)
		<-w.watched
		w.retire(w.armer.Load())

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
