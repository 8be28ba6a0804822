package admission

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestLevels(t *testing.T) {
	// One story after the other: how much of 1000 is in use, and the level then.
	for _, story := range []struct {
		name string
		use  []uint64
		want []level
	}{
		{"up", []uint64{0, 849, 850, 899, 900, 949, 950, 1000, 2000}, []level{0, 0, 1, 1, 2, 2, 3, 3, 3}},
		{"down", []uint64{1000, 920, 919, 870, 869, 820, 819, 0}, []level{3, 3, 2, 2, 1, 1, 0, 0}},
		{"all at once", []uint64{960, 100, 910, 100}, []level{3, 0, 2, 0}},
		{"at an edge", []uint64{850, 849, 850, 821, 850, 819, 849}, []level{1, 1, 1, 1, 1, 0, 0}},
		{"down and up", []uint64{950, 930, 910, 950}, []level{3, 3, 2, 3}},
	} {
		l := levelNone
		for i, use := range story.use {
			if l = l.next(use, 1000); l != story.want[i] {
				t.Errorf("%s: level %d at %d, want %d", story.name, l, use, story.want[i])
			}
		}
	}
	if l := levelNone.next(1<<40, noLimit); l != levelNone {
		t.Errorf("level %d without a limit", l)
	}
}

func TestRoomUntilSample(t *testing.T) {
	const limit = 1000 * 2 * connBytes
	for _, test := range []struct{ use, want uint64 }{
		{0, 925}, {limit / 2, 425}, {limit / 1000 * 899, 26}, {limit / 1000 * 924, 1},
		{limit / 1000 * 925, 0}, {2 * limit, 0},
	} {
		if got := roomUntilSample(test.use, limit); got != int64(test.want) {
			t.Errorf("%d of %d in use: room for %d, want %d", test.use, limit, got, test.want)
		}
	}
	if roomUntilSample(0, 0) != 0 || roomUntilSample(0, noLimit) < math.MaxInt32 {
		t.Error("room with nothing, or without a limit")
	}
}

// A fakeMeter has the values that a test gives it. Safe for concurrent use.
type fakeMeter struct {
	use, limit atomic.Uint64
	broken     atomic.Bool
	closes     atomic.Int32
	reads      atomic.Int64
}

func newFakeMeter(use, limit uint64) *fakeMeter {
	m := &fakeMeter{}
	m.use.Store(use)
	m.limit.Store(limit)
	return m
}

func (m *fakeMeter) Read() (use, limit uint64, err error) {
	m.reads.Add(1)
	if m.broken.Load() {
		return 0, 0, errors.New("broken")
	}
	return m.use.Load(), m.limit.Load(), nil
}
func (m *fakeMeter) Name() string { return "fake" }
func (m *fakeMeter) Close()       { m.closes.Add(1) }
func (m *fakeMeter) Shared() bool { return true }

// fakeHolders hold what a test says. Safe for concurrent use.
type fakeHolders struct{ held, budget atomic.Int64 }

func (h *fakeHolders) Held() int64       { return h.held.Load() }
func (h *fakeHolders) SetBudget(n int64) { h.budget.Store(n) }

const gib = 1 << 30

// fakeMemory watches fakes, and notes when memory was given back.
func fakeMemory(log io.Writer, gave func(string), meters ...*fakeMeter) *memory {
	var all []Meter
	for _, m := range meters {
		all = append(all, m)
	}
	return newMemory(all, 1, slog.New(slog.NewTextHandler(log, nil)), new(fakeHolders), func() { gave("free") })
}

func nothing(string) {}

// admitted returns how many of n connections are let in.
func admitted(m *memory, n int) (in int) {
	for range n {
		if m.admit() {
			in++
		}
	}
	return in
}

func TestMemoryAdmits(t *testing.T) {
	meter := newFakeMeter(0, gib)
	m := fakeMemory(io.Discard, nothing, meter)
	defer m.goLimit.restore()
	for _, step := range []struct {
		percent uint64
		want    int // of 100
		full    bool
	}{
		{0, 100, false}, {84, 100, false}, {85, 50, false}, {86, 50, false}, {90, 0, true}, {88, 0, true},
		{86, 50, false}, {95, 0, true}, {99, 0, true}, {120, 0, true}, {80, 100, false},
	} {
		meter.use.Store(gib/100*step.percent + step.percent) // rounded up
		m.sample()
		if got := admitted(m, 100); got != step.want || m.full() != step.full {
			t.Errorf("at %d %%: %d of 100 are let in, full: %v; want %d, %v", step.percent, got, m.full(), step.want,
				step.full)
		}
	}
	// However many come before the next sample, they do not fill the rest.
	m.sample()
	room := roomUntilSample(m.use.Load(), gib)
	if got := admitted(m, int(room)+1000); int64(got) != room || room == 0 {
		t.Errorf("%d are let in between two samples, want %d", got, room)
	}
	m.sample()
	if got := admitted(m, 1); got != 1 {
		t.Error("none is let in after the next sample")
	}

	var none *memory
	if !none.admit() || none.full() {
		t.Error("without a limit one is refused")
	}
	none.close()
}

// TestMemoryNearestLimit: of several limits the one that is nearest counts.
func TestMemoryNearestLimit(t *testing.T) {
	far, near := newFakeMeter(100, 1000), newFakeMeter(860, 1000)
	var log bytes.Buffer
	m := fakeMemory(&log, nothing, far, near)
	defer m.goLimit.restore()
	if m.use.Load() != 860 || level(m.level.Load()) != levelSlow {
		t.Errorf("%d is in use, level %d", m.use.Load(), m.level.Load())
	}
	far.use.Store(960)
	m.sample()
	if m.use.Load() != 960 || level(m.level.Load()) != levelShed {
		t.Errorf("%d is in use, level %d", m.use.Load(), m.level.Load())
	}
	// One that cannot be read any more is left out; then none is left.
	log.Reset()
	far.broken.Store(true)
	m.sample()
	m.sample()
	if m.use.Load() != 860 || far.closes.Load() != 1 || strings.Count(log.String(), "no longer watched") != 1 {
		t.Errorf("%d is in use, closed %d times, log %s", m.use.Load(), far.closes.Load(), &log)
	}
	near.broken.Store(true)
	m.sample()
	m.sample()
	if level(m.level.Load()) != levelNone || !m.admit() {
		t.Errorf("with nothing to watch: level %d", m.level.Load())
	}
}

// TestMemoryLog: each change of level is logged once, with the figures and, on the
// way up, what to do.
func TestMemoryLog(t *testing.T) {
	meter := newFakeMeter(0, 1000)
	var log bytes.Buffer
	m := fakeMemory(&log, nothing, meter)
	defer m.goLimit.restore()
	for _, step := range []struct {
		use  uint64
		want []string // nil: no line
	}{
		{840, nil},
		{850, []string{"level=WARN", "every second new connection is refused",
			"used=850 of=1000 percent=85 limit=fake", "MemoryMax="}},
		{860, nil}, {849, nil},
		{900, []string{"level=WARN", "every new connection is refused", "used=900", "fix="}},
		{950, []string{"level=ERROR", "memory is given back", "used=950", "fix="}},
		{990, nil},
		{100, []string{"level=INFO", "all new connections are accepted again", "used=100"}},
		{100, nil},
	} {
		log.Reset()
		meter.use.Store(step.use)
		m.sample()
		line := log.String()
		if strings.Count(line, "\n") != min(len(step.want), 1) {
			t.Errorf("at %d the log says %q", step.use, line)
		}
		for _, want := range step.want {
			if !strings.Contains(line, want) {
				t.Errorf("at %d the log says %q, without %q", step.use, line, want)
			}
		}
	}
}

// TestMemoryHurries: when most of those have come in that may between two samples,
// the next sample is taken at once. Refused ones hurry nothing.
func TestMemoryHurries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meter := newFakeMeter(0, gib)
		m := fakeMemory(io.Discard, nothing, meter)
		go m.run()
		defer m.close()
		for range roomUntilSample(0, gib) - inFlight - 1 {
			m.admit()
		}
		meter.use.Store(gib / 2)
		synctest.Wait()
		if left := m.room.Load(); left != inFlight+1 {
			t.Errorf("room for %d before its time", left)
		}
		m.admit()
		synctest.Wait()
		if left := m.room.Load(); left != roomUntilSample(gib/2, gib) {
			t.Errorf("room for %d at once, want %d", left, roomUntilSample(gib/2, gib))
		}
		meter.use.Store(gib)
		time.Sleep(memoryInterval)
		synctest.Wait()
		meter.use.Store(0)
		if in := admitted(m, 100); in != 0 {
			t.Errorf("%d are let in when it is full", in)
		}
		synctest.Wait()
		if m.admit() {
			t.Error("there is room again before the tick")
		}
		time.Sleep(memoryInterval)
		synctest.Wait()
		if !m.admit() {
			t.Error("there is no room after the tick")
		}
	})
}

// TestMemoryTimes: a change is seen at the next tick, and memory is given back
// at once beyond 95 %, then every shedInterval for as long as it stays so.
func TestMemoryTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var given []time.Duration
		meter := newFakeMeter(0, 1000)
		m := fakeMemory(io.Discard, func(what string) {
			if what == "free" {
				given = append(given, time.Since(start))
			}
		}, meter)
		go m.run()
		defer m.close()
		at := func(d time.Duration) { time.Sleep(time.Until(start.Add(d))); synctest.Wait() }

		at(memoryInterval / 2)
		meter.use.Store(990)
		at(memoryInterval - 1)
		if m.full() {
			t.Error("it was seen before the tick")
		}
		at(memoryInterval)
		if !m.full() {
			t.Error("it was not seen at the tick")
		}
		at(12 * time.Second)
		meter.use.Store(930) // still on levelShed
		at(16 * time.Second)
		meter.use.Store(900)
		at(30 * time.Second)
		meter.use.Store(990)
		at(31 * time.Second)
		meter.use.Store(0)
		at(32 * time.Second)
		meter.use.Store(990)
		at(36 * time.Second)
		want := []time.Duration{
			memoryInterval, memoryInterval + shedInterval, memoryInterval + 2*shedInterval,
			memoryInterval + 3*shedInterval,
			30*time.Second + memoryInterval, 30*time.Second + memoryInterval + shedInterval,
		}
		if len(given) != len(want) {
			t.Fatalf("memory was given back at %v, want %v", given, want)
		}
		for i := range want {
			if given[i] != want[i] {
				t.Errorf("memory was given back at %v, want %v", given, want)
			}
		}
	})
}

// TestHeldBudget: a quarter of the limit, less when that does not fit beside all
// else, and never nothing.
func TestHeldBudget(t *testing.T) {
	const limit = 64_000_000
	for _, test := range []struct {
		name            string
		use, held, idle uint64 // millionths of a 64th
		want            int64
	}{
		{"an empty server", 5, 0, 0, 16_000_000},
		{"idle connections to the ladder's first step", 54, 0, 0, 2_880_000},
		{"what is held makes no difference", 30, 16, 0, 16_000_000},
		{"what the runtime keeps neither", 50, 10, 10, 16_000_000},
		{"others take nearly all", 62, 0, 0, 1_000_000},
		{"beyond the limit", 80, 10, 0, 1_000_000},
	} {
		if got := heldBudget(test.use*1e6, limit, test.held*1e6, test.idle*1e6); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
}

// TestMemoryBudget: holders get their share of the nearest limit at each sample.
func TestMemoryBudget(t *testing.T) {
	h := new(fakeHolders)
	near, far := newFakeMeter(0, gib), newFakeMeter(0, 8*gib)
	m := newMemory([]Meter{near, far}, 4, slog.New(slog.DiscardHandler), h, func() {})
	defer m.goLimit.restore()
	if got := h.budget.Load(); got != gib/4/4 {
		t.Errorf("4 processes: %d, want a 16th of the limit", got)
	}
	near.use.Store(gib)
	m.sample()
	if got := h.budget.Load(); got != gib/64/4 {
		t.Errorf("without room: %d, want the least", got)
	}
	near.broken.Store(true)
	m.sample()
	if got := h.budget.Load(); got != 8*gib/4/4 {
		t.Errorf("with the other limit alone: %d", got)
	}
}

// TestMemoryFreed: when connections let go what they held, memory is given back
// within a second, and not for every trifle.
func TestMemoryFreed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start, freed := time.Now(), []time.Duration(nil)
		h, meter := new(fakeHolders), newFakeMeter(gib/2, gib)
		m := newMemory([]Meter{meter}, 1, slog.New(slog.DiscardHandler), h, func() {
			freed = append(freed, time.Since(start))
		})
		go m.run()
		defer m.close()
		at := func(d time.Duration) { time.Sleep(time.Until(start.Add(d))); synctest.Wait() }
		h.held.Store(gib / 8)
		meter.use.Store(gib / 8 * 5)
		at(time.Second)
		h.held.Store(gib/8 - gib/32) // what shed lets go each time
		m.hurry()
		at(1500 * time.Millisecond)
		if len(freed) != 0 {
			t.Fatalf("memory was given back at %v for a trifle", freed)
		}
		h.held.Store(0)
		m.hurry() // as Freed does
		at(1500 * time.Millisecond)
		if len(freed) != 1 || freed[0] != 1500*time.Millisecond {
			t.Fatalf("memory was given back at %v, want at once", freed)
		}
		meter.use.Store(gib / 100 * 88) // newcomers are refused
		h.held.Store(gib / 64)
		at(6 * time.Second)
		h.held.Store(0)
		at(6*time.Second + memoryInterval)
		h.held.Store(gib / 64)
		at(6*time.Second + 2*memoryInterval)
		h.held.Store(0)
		at(8 * time.Second)
		if len(freed) != 3 || freed[1] > 6*time.Second+memoryInterval ||
			freed[2] > freed[1]+freeInterval+memoryInterval {
			t.Errorf("memory was given back at %v", freed)
		}
	})
}

// TestMemoryCalm: while nothing changes samples are rare. The first newcomer brings
// them back, and so does a change of use.
func TestMemoryCalm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meter := newFakeMeter(gib/2, gib)
		m := fakeMemory(io.Discard, nothing, meter)
		go m.run()
		defer m.close()
		reads := func(d time.Duration) int64 {
			before := meter.reads.Load()
			time.Sleep(d)
			synctest.Wait()
			return meter.reads.Load() - before
		}
		if n := reads(10 * time.Second); n > 8 {
			t.Errorf("%d samples within the first 10 s", n)
		}
		if n := reads(32 * time.Second); n > 10 {
			t.Errorf("%d samples within 32 s of nothing", n)
		}
		m.admit()
		synctest.Wait()
		if n := reads(memoryInterval); n != 1 {
			t.Errorf("%d samples after a newcomer", n)
		}
		reads(20 * time.Second)
		meter.use.Store(gib / 100 * 86)
		reads(calmInterval)
		first, second := m.admit(), m.admit()
		if first && second {
			t.Error("growth was not seen")
		}
		if n := reads(time.Second); n < 9 {
			t.Errorf("%d samples a second near the limit", n)
		}
	})
}
