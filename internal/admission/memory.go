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
	// next sample is taken at once: see memory.room.
	memoryInterval = 100 * time.Millisecond

	// reclaimInterval is the least time between two attempts to give memory back:
	// each costs a whole garbage collection.
	reclaimInterval = 5 * time.Second

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

// A Meter reads a limit of memory, and how much of it is in use. One goroutine
// uses it.
type Meter interface {
	Read() (use, limit uint64, err error) // bytes. Allocates nothing unless it fails
	Name() string                         // for the log
	Close()
}

// memory keeps the process from being killed for its use of memory: beyond shares
// of the limit it refuses connections, makes the collector work, and gives memory
// back. It never ends a connection whose peer reads. A nil memory knows no limit
// and lets everything in.
type memory struct {
	// Static after construction.
	log  *slog.Logger
	shed func() // has the loops close connections whose peers read nothing
	free func() // collects garbage and returns free memory to the kernel
	quit chan struct{}
	done chan struct{} // closed when run has ended
	soon chan struct{} // asks for a sample at once

	// Owned by run.
	meters    []Meter // never empty at the start
	goLimit   goLimit
	reclaimed time.Time // of the last reclaim

	// Safe for concurrent use.
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
// is near; see Meters. Beyond 95 % of a limit it calls shed, from a goroutine of
// its own, to have connections ended that hold memory and whose peers read
// nothing. While it watches it moves the memory limit of Go's runtime
// (debug.SetMemoryLimit), unless that is set already. Watch must be called once
// at most, before Admit; without meters it does nothing.
func (c *Control) Watch(meters []Meter, shed func()) {
	if len(meters) > 0 {
		c.memory = newMemory(meters, c.log, shed, debug.FreeOSMemory)
		go c.memory.run()
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
func newMemory(meters []Meter, log *slog.Logger, shed, free func()) *memory {
	m := &memory{log: log, shed: shed, free: free, meters: meters,
		quit: make(chan struct{}), done: make(chan struct{}), soon: make(chan struct{}, 1)}
	m.goLimit.init()
	m.sample()
	return m
}

// run takes samples until close.
func (m *memory) run() {
	defer close(m.done)
	t := time.NewTicker(memoryInterval)
	defer t.Stop()
	for {
		select {
		case <-m.quit:
			return
		case <-m.soon:
			m.sample()
		case now := <-t.C:
			m.sample()
			m.reclaim(now)
		}
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

// reclaim gives memory back while it is nearly gone. Nothing else helps then that
// keeps every peer that reads.
func (m *memory) reclaim(now time.Time) {
	if level(m.level.Load()) < levelShed || !m.reclaimed.IsZero() && now.Sub(m.reclaimed) < reclaimInterval {
		return
	}
	m.reclaimed = now
	m.shed()
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
		select {
		case m.soon <- struct{}{}:
		default:
		}
	}
	if left < 0 {
		return false
	}
	return level(m.level.Load()) != levelSlow || m.turn.Add(1)%2 == 0
}

// full reports whether every connection is refused. Safe for concurrent use.
func (m *memory) full() bool { return m != nil && level(m.level.Load()) >= levelFull }
