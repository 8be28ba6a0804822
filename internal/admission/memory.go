package server

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

const (
	// memoryTick is the time between two looks at the use of memory. How many may
	// come in between is bounded, and when most of them have come the next look
	// is at once: see memory.room.
	memoryTick = 100 * time.Millisecond

	// reliefEvery is the least time between two attempts to give memory back:
	// each costs a whole garbage collection.
	reliefEvery = 5 * time.Second

	// newcomerBytes is what a connection may take, the kernel's part and the
	// collector's slack included, before it shows in the use of memory. An idle
	// one takes some 5 kB.
	newcomerBytes = 8 << 10

	// noLimit is more than any limit; the kernel says max or some such number.
	noLimit = 1 << 62
)

// A rung says how much of the memory limit is in use, and so what is done
// about it. The next one is climbed at once; one is left rungSlack points below
// where it begins, so that a server at the edge of one does not flap.
type rung int32

const (
	rungNone rung = iota // everybody is taken
	rungSlow             // every second newcomer is refused: growth slows, and clients try elsewhere
	rungFull             // every newcomer is refused
	rungShed             // besides, memory is given back: see memory.relieve
	numRungs
)

var rungs = [numRungs]struct {
	begins float64 // percent of the limit
	what   string
}{
	rungNone: {0, "all newcomers are taken again"},
	rungSlow: {85, "every second newcomer is refused"},
	rungFull: {90, "every newcomer is refused"},
	rungShed: {95, "every newcomer is refused; memory is given back"},
}

const rungSlack = 3 // percent of the limit

// next returns the rung after r when so much of the limit is in use.
func (r rung) next(use, limit uint64) rung {
	share := percent(use, limit)
	for r < rungShed && share >= rungs[r+1].begins {
		r++
	}
	for r > rungNone && share < rungs[r].begins-rungSlack {
		r--
	}
	return r
}

func percent(use, limit uint64) float64 { return 100 * float64(use) / float64(limit) }

// newcomers returns how many connections may be taken until the next look:
// those that fill half of what is left up to the middle of rungFull. So however
// fast they come, and however late the next look is, they reach rungFull, where
// the server says that it is full, but not much more.
func newcomers(use, limit uint64) int64 {
	if end := limit / 1000 * 925; end > use {
		return int64((end - use) / 2 / newcomerBytes)
	}
	return 0
}

// A memoryMeter reads a limit of memory, and how much of it is in use. It is
// owned by one goroutine.
type memoryMeter interface {
	read() (use, limit uint64, err error) // bytes. Allocates nothing unless it fails
	name() string                         // for the log
	close()
}

// A memory keeps the process from being killed for its use of memory: beyond
// shares of the limit it refuses newcomers, makes the collector work, and gives
// memory back. Nobody who is there and reads is closed for it. The nil one
// knows no limit and lets everybody in.
type memory struct {
	// Static after construction.
	log  *slog.Logger
	shed func() // has the loops close those who read nothing
	free func() // collects garbage and returns what is free to the kernel
	quit chan struct{}
	done chan struct{} // closed when run has ended
	soon chan struct{} // asks for a look at once

	// Owned by run.
	meters    []memoryMeter // never empty at the start
	collector collector
	relieved  time.Time // when relieve was last due

	// Safe for concurrent use.
	rung  atomic.Int32
	room  atomic.Int64  // newcomers that may still be taken before the next look
	turn  atomic.Uint32 // counts newcomers on rungSlow
	use   atomic.Uint64 // with limit: of the meter nearest to its limit
	limit atomic.Uint64
}

// newMemory takes the first look. It is watched from start to close.
func newMemory(meters []memoryMeter, log *slog.Logger, shed, free func()) *memory {
	m := &memory{log: log, shed: shed, free: free, meters: meters, quit: make(chan struct{}), done: make(chan struct{}), soon: make(chan struct{}, 1)}
	m.collector.init()
	m.look()
	return m
}

func (m *memory) start() { go m.run() }

func (m *memory) run() {
	defer close(m.done)
	t := time.NewTicker(memoryTick)
	defer t.Stop()
	for {
		select {
		case <-m.quit:
			return
		case <-m.soon:
			m.look()
		case now := <-t.C:
			m.look()
			m.relieve(now)
		}
	}
}

// close ends run, and leaves the collector as it was. Only after start.
func (m *memory) close() {
	if m == nil {
		return
	}
	close(m.quit)
	<-m.done
	m.collector.restore()
	for _, meter := range m.meters {
		meter.close()
	}
}

// look reads the meters and acts on the one nearest to its limit. It allocates
// nothing while the rung stays.
func (m *memory) look() {
	var nearest memoryMeter
	use, limit := uint64(0), uint64(noLimit)
	m.collector.begin()
	for i := 0; i < len(m.meters); i++ {
		meter := m.meters[i]
		u, l, err := meter.read()
		if err != nil || l == 0 {
			m.log.Error("cannot read the use of memory any more; this limit of it is not watched", "limit", meter.name(), "error", err)
			meter.close()
			m.meters = append(m.meters[:i], m.meters[i+1:]...)
			i--
			continue
		}
		m.collector.consider(u, l)
		if nearest == nil || percent(u, l) > percent(use, limit) {
			nearest, use, limit = meter, u, l
		}
	}
	m.use.Store(use)
	m.limit.Store(limit)
	was := rung(m.rung.Load())
	now := was.next(use, limit)
	m.rung.Store(int32(now))
	if now >= rungFull {
		m.room.Store(0)
	} else {
		m.room.Store(newcomers(use, limit))
	}
	if now != was {
		m.report(was, now, nearest)
	}
	m.collector.apply() // last: it may wait for a collection to end
}

// report logs a change of rung.
func (m *memory) report(was, now rung, nearest memoryMeter) {
	limit := "none"
	if nearest != nil {
		limit = nearest.name()
	}
	attrs := []any{"used", m.use.Load(), "of", m.limit.Load(), "percent", int(percent(m.use.Load(), m.limit.Load())), "limit", limit}
	if now < was {
		m.log.Info("memory is less short: "+rungs[now].what, attrs...)
		return
	}
	attrs = append(attrs, "fix", "raise the limit (of the container, MemoryMax= in a systemd unit, or memory-limit), or lower max-connections below what is open now")
	level := slog.LevelWarn
	if now == rungShed {
		level = slog.LevelError
	}
	m.log.Log(context.Background(), level, "memory is short: "+rungs[now].what, attrs...)
}

// relieve gives memory back while it is nearly gone. Nothing else helps then
// that keeps everybody who reads.
func (m *memory) relieve(now time.Time) {
	if rung(m.rung.Load()) < rungShed || !m.relieved.IsZero() && now.Sub(m.relieved) < reliefEvery {
		return
	}
	m.relieved = now
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
	if left == acceptors { // the others use these up meanwhile
		select {
		case m.soon <- struct{}{}:
		default:
		}
	}
	if left < 0 {
		return false
	}
	return rung(m.rung.Load()) != rungSlow || m.turn.Add(1)%2 == 0
}

// full reports whether every newcomer is refused. Safe for concurrent use.
func (m *memory) full() bool { return m != nil && rung(m.rung.Load()) >= rungFull }
