package server

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"heartwheel/codec"
)

func TestRungs(t *testing.T) {
	// One story after the other: how much of 1000 is in use, and the rung then.
	for _, story := range []struct {
		name string
		use  []uint64
		want []rung
	}{
		{"up", []uint64{0, 849, 850, 899, 900, 949, 950, 1000, 2000}, []rung{0, 0, 1, 1, 2, 2, 3, 3, 3}},
		{"down", []uint64{1000, 920, 919, 870, 869, 820, 819, 0}, []rung{3, 3, 2, 2, 1, 1, 0, 0}},
		{"all at once", []uint64{960, 100, 910, 100}, []rung{3, 0, 2, 0}},
		{"at an edge", []uint64{850, 849, 850, 821, 850, 819, 849}, []rung{1, 1, 1, 1, 1, 0, 0}},
		{"down and up", []uint64{950, 930, 910, 950}, []rung{3, 3, 2, 3}},
	} {
		r := rungNone
		for i, use := range story.use {
			if r = r.next(use, 1000); r != story.want[i] {
				t.Errorf("%s: rung %d at %d, want %d", story.name, r, use, story.want[i])
			}
		}
	}
	if r := rungNone.next(1<<40, noLimit); r != rungNone {
		t.Errorf("rung %d without a limit", r)
	}
}

func TestNewcomers(t *testing.T) {
	const limit = 1000 * 2 * newcomerBytes
	for _, test := range []struct{ use, want uint64 }{
		{0, 925}, {limit / 2, 425}, {limit / 1000 * 899, 26}, {limit / 1000 * 924, 1}, {limit / 1000 * 925, 0}, {2 * limit, 0},
	} {
		if got := newcomers(test.use, limit); got != int64(test.want) {
			t.Errorf("%d of %d in use: %d newcomers, want %d", test.use, limit, got, test.want)
		}
	}
	if newcomers(0, 0) != 0 || newcomers(0, noLimit) < math.MaxInt32 {
		t.Error("newcomers with nothing, or without a limit")
	}
}

// A fakeMeter says what it is told to. Safe for concurrent use.
type fakeMeter struct {
	use, limit atomic.Uint64
	broken     atomic.Bool
	closes     atomic.Int32
}

func newFakeMeter(use, limit uint64) *fakeMeter {
	m := &fakeMeter{}
	m.use.Store(use)
	m.limit.Store(limit)
	return m
}

func (m *fakeMeter) read() (use, limit uint64, err error) {
	if m.broken.Load() {
		return 0, 0, errors.New("broken")
	}
	return m.use.Load(), m.limit.Load(), nil
}
func (m *fakeMeter) name() string { return "fake" }
func (m *fakeMeter) close()       { m.closes.Add(1) }

const gib = 1 << 30

// fakeMemory watches fakes, and notes when memory was given back.
func fakeMemory(log io.Writer, gave func(string), meters ...*fakeMeter) *memory {
	var all []memoryMeter
	for _, m := range meters {
		all = append(all, m)
	}
	return newMemory(all, slog.New(slog.NewTextHandler(log, nil)), func() { gave("shed") }, func() { gave("free") })
}

func nothing(string) {}

// admitted tells how many of n newcomers are let in.
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
	defer m.collector.restore()
	for _, step := range []struct {
		percent uint64
		want    int // of 100
		full    bool
	}{
		{0, 100, false}, {84, 100, false}, {85, 50, false}, {86, 50, false}, {90, 0, true}, {88, 0, true},
		{86, 50, false}, {95, 0, true}, {99, 0, true}, {120, 0, true}, {80, 100, false},
	} {
		meter.use.Store(gib/100*step.percent + step.percent) // rounded up
		m.look()
		if got := admitted(m, 100); got != step.want || m.full() != step.full {
			t.Errorf("at %d %%: %d of 100 are let in, full: %v; want %d, %v", step.percent, got, m.full(), step.want, step.full)
		}
	}
	// However many come before the next look, they do not fill the rest.
	m.look()
	room := newcomers(m.use.Load(), gib)
	if got := admitted(m, int(room)+1000); int64(got) != room || room == 0 {
		t.Errorf("%d are let in between two looks, want %d", got, room)
	}
	m.look()
	if got := admitted(m, 1); got != 1 {
		t.Error("nobody is let in after the next look")
	}

	var none *memory
	if !none.admit() || none.full() {
		t.Error("without a limit somebody is refused")
	}
	none.close()
}

// TestMemoryNearestLimit: of several limits the one that is nearest counts.
func TestMemoryNearestLimit(t *testing.T) {
	far, near := newFakeMeter(100, 1000), newFakeMeter(860, 1000)
	var log bytes.Buffer
	m := fakeMemory(&log, nothing, far, near)
	defer m.collector.restore()
	if m.use.Load() != 860 || rung(m.rung.Load()) != rungSlow {
		t.Errorf("%d is in use, rung %d", m.use.Load(), m.rung.Load())
	}
	far.use.Store(960)
	m.look()
	if m.use.Load() != 960 || rung(m.rung.Load()) != rungShed {
		t.Errorf("%d is in use, rung %d", m.use.Load(), m.rung.Load())
	}
	// One that cannot be read any more is left out; then none is left.
	log.Reset()
	far.broken.Store(true)
	m.look()
	m.look()
	if m.use.Load() != 860 || far.closes.Load() != 1 || strings.Count(log.String(), "not watched") != 1 {
		t.Errorf("%d is in use, closed %d times, log %s", m.use.Load(), far.closes.Load(), &log)
	}
	near.broken.Store(true)
	m.look()
	m.look()
	if rung(m.rung.Load()) != rungNone || !m.admit() {
		t.Errorf("with nothing to watch: rung %d", m.rung.Load())
	}
}

// TestMemoryLog: each change of rung is told once, with the figures and, on the
// way up, what to do.
func TestMemoryLog(t *testing.T) {
	meter := newFakeMeter(0, 1000)
	var log bytes.Buffer
	m := fakeMemory(&log, nothing, meter)
	defer m.collector.restore()
	for _, step := range []struct {
		use  uint64
		want []string // nil: no line
	}{
		{840, nil},
		{850, []string{"level=WARN", "every second newcomer is refused", "used=850 of=1000 percent=85 limit=fake", "MemoryMax="}},
		{860, nil}, {849, nil},
		{900, []string{"level=WARN", "every newcomer is refused", "used=900", "fix="}},
		{950, []string{"level=ERROR", "memory is given back", "used=950", "fix="}},
		{990, nil},
		{100, []string{"level=INFO", "all newcomers are taken again", "used=100"}},
		{100, nil},
	} {
		log.Reset()
		meter.use.Store(step.use)
		m.look()
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

// TestMemoryHurries: when most of those have come who may come between two
// looks, the next look is at once. Those who are refused hurry nothing.
func TestMemoryHurries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meter := newFakeMeter(0, gib)
		m := fakeMemory(io.Discard, nothing, meter)
		m.start()
		defer m.close()
		for range newcomers(0, gib) - acceptors - 1 {
			m.admit()
		}
		meter.use.Store(gib / 2)
		synctest.Wait()
		if left := m.room.Load(); left != acceptors+1 {
			t.Errorf("room for %d before its time", left)
		}
		m.admit()
		synctest.Wait()
		if left := m.room.Load(); left != newcomers(gib/2, gib) {
			t.Errorf("room for %d at once, want %d", left, newcomers(gib/2, gib))
		}
		meter.use.Store(gib)
		time.Sleep(memoryTick)
		synctest.Wait()
		meter.use.Store(0)
		if in := admitted(m, 100); in != 0 {
			t.Errorf("%d are let in when it is full", in)
		}
		synctest.Wait()
		if m.admit() {
			t.Error("there is room again before the tick")
		}
		time.Sleep(memoryTick)
		synctest.Wait()
		if !m.admit() {
			t.Error("there is no room after the tick")
		}
	})
}

// TestMemoryTimes: a change is seen at the next tick, and memory is given back
// at once beyond 95 %, then every reliefEvery for as long as it stays so.
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
		m.start()
		defer m.close()
		at := func(d time.Duration) { time.Sleep(time.Until(start.Add(d))); synctest.Wait() }

		at(memoryTick / 2)
		meter.use.Store(990)
		at(memoryTick - 1)
		if m.full() {
			t.Error("it was seen before the tick")
		}
		at(memoryTick)
		if !m.full() {
			t.Error("it was not seen at the tick")
		}
		at(12 * time.Second)
		meter.use.Store(930) // still on rungShed
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
			memoryTick, memoryTick + reliefEvery, memoryTick + 2*reliefEvery, memoryTick + 3*reliefEvery,
			30*time.Second + memoryTick, 30*time.Second + memoryTick + reliefEvery,
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

// TestShed: when memory is nearly gone, those who read nothing give it back,
// and nobody else does.
func TestShed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{Outbox: 1 << 20}, nil)
		waiting := func(n int) *Conn {
			c := r.open()
			r.do(func() {
				r.sock(c).room = 0
				for ; n > 0; n -= 8 << 10 {
					_ = c.Send(codec.OpData, make([]byte, 8<<10))
				}
			})
			return c
		}
		stuck, slow, small, secret, idle := waiting(64<<10), waiting(64<<10), waiting(8<<10), waiting(64<<10), r.open()
		shed := func() { r.do(func() { r.loop.clock(); r.loop.shed(); r.loop.reap() }) }
		r.wait(shedStall - time.Second)
		r.do(func() { r.loop.clock(); r.writable(slow, 1) })
		r.wait(time.Second - time.Millisecond)
		shed()
		r.alive(stuck, "before its time")
		r.do(func() { r.sock(secret).room = 1 }) // room that nobody told of
		r.wait(time.Millisecond)
		shed()
		r.wantEnd(stuck, SlowConsumer, true)
		for what, c := range map[string]*Conn{"it reads": slow, "too little waits": small, "it has read": secret, "nothing waits": idle} {
			r.alive(c, what)
		}
		r.check()
	})
}

// TestShortOfMemory: a server that is short of memory says so to newcomers and
// to the balancer, and keeps whom it has.
func TestShortOfMemory(t *testing.T) {
	cfg := Config{Listen: []string{"tcp://127.0.0.1:0"}, MemoryLimit: -1, Drain: 200 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)}
	s, err := New(cfg, Echo{})
	if err != nil {
		t.Fatal(err)
	}
	if s.memory != nil {
		t.Fatal("a limit is watched although that is off")
	}
	meter := newFakeMeter(0, gib)
	s.memory = fakeMemory(io.Discard, nothing, meter)
	s.memory.start()
	stop := run(s)
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
	first := dial(t, s)
	_, _ = first.Write(beat)
	expect(t, first, beat)

	readyz := func() (int, string) {
		w := httptest.NewRecorder()
		s.OpsHandler().ServeHTTP(w, httptest.NewRequest("GET", "/readyz", nil))
		return w.Code, w.Body.String()
	}
	await := func(full bool) {
		for end := time.Now().Add(patience); s.memory.full() != full; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("full: %v", !full)
			}
		}
	}
	if code, _ := readyz(); code != http.StatusOK {
		t.Errorf("/readyz is %d with memory enough", code)
	}
	meter.use.Store(gib / 100 * 92)
	await(true)
	c := dial(t, s)
	expect(t, c, codec.AppendGoaway(nil, codec.Goaway{Code: codec.CodeOverloaded, Reason: "server is short of memory", AfterMS: 5000}))
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("after GOAWAY: %d, %v", n, err)
	}
	if code, body := readyz(); code != http.StatusServiceUnavailable || !strings.Contains(body, "memory is short") {
		t.Errorf("/readyz is %d %q", code, body)
	}
	_, _ = first.Write(beat)
	expect(t, first, beat)
	if st := s.Stats(); st.Refused["memory"] != 1 || st.Connections != 1 {
		t.Errorf("refused %v, %d connections", st.Refused, st.Connections)
	}
	w := httptest.NewRecorder()
	s.OpsHandler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		"heartwheel_memory_rung 2\n", "heartwheel_ready 0\n", "heartwheel_memory_limit_bytes 1.073741824e+09\n",
		"heartwheel_memory_used_bytes 9.87842456e+08\n", `heartwheel_refused_total{reason="memory"} 1` + "\n",
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("/metrics has no line %q", want)
		}
	}
	meter.use.Store(0)
	await(false)
	c = dial(t, s)
	_, _ = c.Write(beat)
	expect(t, c, beat)
}
