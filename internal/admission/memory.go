package admission

import (
	"context"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"
)

const (
	// memoryInterval is the time between two samples of the use of memory. The
	// connections in between are bounded, and when most of these have come the
	// next sample is taken at once: see memory.room. What connections hold in between
	// is bounded too: see budget.
	memoryInterval = 100 * time.Millisecond

	// While nothing changes and less than calmShare percent of the limit is in use,
	// that time doubles up to calmInterval: it is then for what grows beside the
	// connections.
	calmInterval = 3200 * time.Millisecond
	calmShare    = 75
	calmChange   = 64 // this part of the limit is a change

	// Memory is given back when connections have let go a heldShare-th of the limit,
	// or a heldShareShort-th while newcomers are refused, and then at most every
	// freeInterval; on levelShed every shedInterval in any case. Each time costs a
	// whole garbage collection.
	heldShare      = 16
	heldShareShort = 128
	freeInterval   = 500 * time.Millisecond
	shedInterval   = 5 * time.Second

	// budgetShare is the part of a limit that connections may hold at most,
	// budgetFloor what they may in any case.
	budgetShare = 4
	budgetFloor = 64

	// connBytes is what a connection may take, the kernel's part and the
	// collector's slack included, before it shows in the use of memory. An idle
	// one takes some 5 kB.
	connBytes = 8 << 10

	// inFlight is about how many connections are admitted while a sample is
	// taken: a listener has as many goroutines that accept.
	inFlight = 8

	// noLimit is more than any limit; the kernel says max or a number beyond it.
	noLimit = 1 << 62
)

// A level says how much of the memory limit is in use, and so what is done about
// it. A higher level is entered at once; it is left levelHysteresis points below
// where it begins, so that a server at its edge does not flap.
type level int32

const (
	levelNone level = iota // every connection may come in
	levelSlow              // every second one is refused: growth slows, and clients try elsewhere
	levelFull              // every one is refused
	levelShed              // and memory is given back: see memory.reclaim
	numLevels
)

var levels = [numLevels]struct {
	begins float64 // percent of the limit
	what   string
}{
	levelNone: {0, "all new connections are accepted again"},
	levelSlow: {85, "every second new connection is refused"},
	levelFull: {90, "every new connection is refused"},
	levelShed: {95, "every new connection is refused; memory is given back"},
}

const levelHysteresis = 3 // percent of the limit

// next returns the level after l when use bytes of limit are in use.
func (l level) next(use, limit uint64) level {
	share := percent(use, limit)
	for l < levelShed && share >= levels[l+1].begins {
		l++
	}
	for l > levelNone && share < levels[l].begins-levelHysteresis {
		l--
	}
	return l
}

func percent(use, limit uint64) float64 { return 100 * float64(use) / float64(limit) }

// roomUntilSample returns how many connections may come in until the next sample:
// those that fill half of what is left up to the middle of levelFull. However
// fast they come, and however late the next sample is, they reach levelFull,
// where the server says that it is full, but not much more.
func roomUntilSample(use, limit uint64) int64 {
	if end := limit / 1000 * 925; end > use {
		return int64((end - use) / 2 / connBytes)
	}
	return 0
}

// heldBudget returns how many bytes connections may hold, when use of limit are in
// use, connections hold held of them, and the runtime has idle ones without giving
// them back. It leaves them a quarter of the limit at most, and no more than fits
// below 90 % of it beside all else, with a quarter on top for garbage.
func heldBudget(use, limit, held, idle uint64) int64 {
	room := uint64(0)
	if others, end := use-min(use, held+idle), limit/10*9; others < end {
		room = (end - others) / 5 * 4
	}
	return int64(max(min(room, limit/budgetShare), limit/budgetFloor))
}

// MachineBudget is what connections may hold where no limit is known: a quarter of
// the machine's memory, divided among processes.
func MachineBudget(processes int) int64 {
	return int64(min(machineMemory(), noLimit)/budgetShare) / int64(max(processes, 1))
}

// A Meter reads a limit of memory, and how much of it is in use. One goroutine
// uses it.
type Meter interface {
	Read() (use, limit uint64, err error) // bytes. Allocates nothing unless it fails
	Name() string                         // for the log
	Shared() bool                         // whether the limit holds for all workers together
	Close()
}

// Holders are what connections make this process keep in memory. Its methods are
// safe for concurrent use and never wait.
type Holders interface {
	Held() int64           // bytes now
	SetBudget(bytes int64) // closes connections at once while more is held
}

// memory keeps the process from being killed for its use of memory: beyond shares
// of the limit it refuses connections, makes the collector work, and gives memory
// back; and it sets what connections may hold. A nil memory knows no limit and lets
// everything in.
type memory struct {
	// Static after construction.
	log       *slog.Logger
	holders   Holders
	processes int64  // that share a limit
	free      func() // collects garbage and returns free memory to the kernel
	quit      chan struct{}
	done      chan struct{} // closed when run has ended
	soon      chan struct{} // asks for a sample at once

	// Owned by run.
	meters  []Meter // never empty at the start
	goLimit goLimit
	freed   time.Time     // when free was last called
	peak    uint64        // the most that connections have held since
	pause   time.Duration // until the next sample
	calmUse uint64        // use when the last change was seen
	calmIn  int64         // room after the last sample

	// Safe for concurrent use.
	calm  atomic.Bool // pause is longer than memoryInterval
	level atomic.Int32
	room  atomic.Int64  // connections that may still come in before the next sample
	turn  atomic.Uint32 // counts connections on levelSlow
	use   atomic.Uint64 // with limit: of the meter nearest to its limit
	limit atomic.Uint64
}

// MemoryStats are the figures of the memory limit that is nearest.
type MemoryStats struct {
	Limit, Used uint64 // bytes
	Level       int    // 0: none; 1: every second connection is refused; 2: every one; 3: and memory is given back
}

// Watch refuses connections from now on while one of the limits that meters read
// is near; see Meters. From a goroutine of its own it sets what holders may keep;
// processes is how many share the limits that are shared, 0 as 1. While it watches it
// moves the memory limit of Go's runtime (debug.SetMemoryLimit), unless that is set
// already. Watch must be called once at most, before Admit; without meters it does
// nothing.
func (c *Control) Watch(meters []Meter, processes int, holders Holders) {
	if len(meters) > 0 {
		c.memory = newMemory(meters, processes, c.log, holders, debug.FreeOSMemory)
		go c.memory.run()
	}
}

// Freed says that connections were closed for the memory that they held.
func (c *Control) Freed() {
	if c.memory != nil {
		c.memory.hurry()
	}
}

// Meters returns a Meter for each limit of memory that holds for this process:
// those of its cgroups, and limit bytes unless that is 0. The error says which are
// not watched.
func (c *Control) Meters(limit int) ([]Meter, error) { return memoryMeters(limit, c.Connections) }

// Memory returns the figures of the memory limit, and false if none is watched.
func (c *Control) Memory() (MemoryStats, bool) {
	m := c.memory
	if m == nil {
		return MemoryStats{}, false
	}
	return MemoryStats{Limit: m.limit.Load(), Used: m.use.Load(), Level: int(m.level.Load())}, true
}

// MemoryFull reports whether every connection is refused because memory is short.
func (c *Control) MemoryFull() bool { return c.memory.full() }

// Close ends what Watch began. Admit may go on.
func (c *Control) Close() { c.memory.close() }

// newMemory takes the first sample; run takes the others.
func newMemory(meters []Meter, processes int, log *slog.Logger, holders Holders, free func()) *memory {
	m := &memory{log: log, holders: holders, processes: int64(max(processes, 1)), free: free, meters: meters,
		pause: memoryInterval,
		quit:  make(chan struct{}), done: make(chan struct{}), soon: make(chan struct{}, 1)}
	m.goLimit.init()
	m.sample()
	return m
}

// run takes samples until close.
func (m *memory) run() {
	defer close(m.done)
	t := time.NewTimer(m.pause)
	defer t.Stop()
	for {
		select {
		case <-m.quit:
			return
		case <-m.soon:
		case <-t.C:
		}
		in := m.room.Load()
		m.sample()
		m.reclaim(time.Now())
		m.settle(in)
		t.Reset(m.pause)
	}
}

// settle sets the time until the next sample. in is what was left of room before
// this one.
func (m *memory) settle(in int64) {
	use, limit := m.use.Load(), m.limit.Load()
	change := max(use, m.calmUse) - min(use, m.calmUse)
	if in != m.calmIn || change > limit/calmChange || percent(use, limit) >= calmShare {
		m.pause, m.calmUse = memoryInterval, use
	} else {
		m.pause = min(2*m.pause, calmInterval)
	}
	m.calmIn = m.room.Load()
	m.calm.Store(m.pause > memoryInterval)
}

// hurry asks for a sample at once. Safe for concurrent use.
func (m *memory) hurry() {
	select {
	case m.soon <- struct{}{}:
	default:
	}
}

// close ends run, and leaves the runtime's limit as it was.
func (m *memory) close() {
	if m == nil {
		return
	}
	close(m.quit)
	<-m.done
	m.goLimit.restore()
	for _, meter := range m.meters {
		meter.Close()
	}
}

// sample reads the meters and acts on the one nearest to its limit. It allocates
// nothing while the level stays.
func (m *memory) sample() {
	var nearest Meter
	use, limit := uint64(0), uint64(noLimit)
	budget, held := int64(noLimit), uint64(max(m.holders.Held(), 0))
	m.peak = max(m.peak, held)
	m.goLimit.begin()
	for i := 0; i < len(m.meters); i++ {
		meter := m.meters[i]
		u, l, err := meter.Read()
		if err != nil || l == 0 {
			m.log.Error("cannot read the use of memory; this limit is no longer watched", "limit", meter.Name(),
				"error", err)
			meter.Close()
			m.meters = append(m.meters[:i], m.meters[i+1:]...)
			i--
			continue
		}
		m.goLimit.consider(u, l)
		share := int64(1)
		if meter.Shared() {
			share = m.processes
		}
		budget = min(budget, heldBudget(u, l, held, m.goLimit.now.idle)/share)
		if nearest == nil || percent(u, l) > percent(use, limit) {
			nearest, use, limit = meter, u, l
		}
	}
	m.use.Store(use)
	m.limit.Store(limit)
	was := level(m.level.Load())
	now := was.next(use, limit)
	m.level.Store(int32(now))
	if now >= levelFull {
		m.room.Store(0)
	} else {
		m.room.Store(roomUntilSample(use, limit))
	}
	if now != was {
		m.report(was, now, nearest)
	}
	m.holders.SetBudget(budget)
	m.goLimit.apply() // last: it may wait for a collection to end
}

// report logs a change of level.
func (m *memory) report(was, now level, nearest Meter) {
	limit := "none"
	if nearest != nil {
		limit = nearest.Name()
	}
	attrs := []any{"used", m.use.Load(), "of", m.limit.Load(), "percent", int(percent(m.use.Load(), m.limit.Load())),
		"limit", limit}
	if now < was {
		m.log.Info("memory pressure is lower: "+levels[now].what, attrs...)
		return
	}
	attrs = append(attrs, "fix",
		"raise the limit (of the container, MemoryMax= in a systemd unit, or the configured one), "+
			"or set a connection limit below what is open now")
	severity := slog.LevelWarn
	if now == levelShed {
		severity = slog.LevelError
	}
	m.log.Log(context.Background(), severity, "memory is short: "+levels[now].what, attrs...)
}

// reclaim gives memory back when connections have let it go, and while it is nearly
// gone.
func (m *memory) reclaim(now time.Time) {
	held, limit, l := uint64(max(m.holders.Held(), 0)), m.limit.Load(), level(m.level.Load())
	wait, least := freeInterval, limit/heldShare
	if l > levelNone {
		least = limit / heldShareShort
	}
	if m.peak-min(m.peak, held) < max(least, 1) {
		if l < levelShed {
			return
		}
		wait = shedInterval
	}
	if !m.freed.IsZero() && now.Sub(m.freed) < wait {
		return
	}
	m.freed, m.peak = now, held
	m.free()
}

// admit reports whether there is memory for one more connection. Safe for
// concurrent use.
func (m *memory) admit() bool {
	if m == nil {
		return true
	}
	left := m.room.Add(-1)
	if left == inFlight { // the others use these up meanwhile
		m.hurry()
	} else if m.calm.Load() && m.calm.CompareAndSwap(true, false) {
		m.hurry()
	}
	if left < 0 {
		return false
	}
	return level(m.level.Load()) != levelSlow || m.turn.Add(1)%2 == 0
}

// full reports whether every connection is refused. Safe for concurrent use.
func (m *memory) full() bool { return m != nil && level(m.level.Load()) >= levelFull }
