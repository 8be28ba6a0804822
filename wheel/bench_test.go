package wheel

import (
	"math/rand/v2"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/RussellLuo/timingwheel"
)

const million = 1_000_000

// A payload is a session of usual size, so that cache misses are as in a server.
type payload struct {
	Timer
	_ [96]byte
}

func BenchmarkTouch(b *testing.B) {
	var t Timer
	now := int64(0)
	for b.Loop() {
		now++
		t.Touch(now)
	}
}

// BenchmarkTouchCold touches sessions that are in no cache: a beat among a million.
func BenchmarkTouchCold(b *testing.B) {
	ss := make([]payload, million)
	i := 0
	for b.Loop() {
		ss[i].Touch(int64(i))
		if i += 7919; i >= million {
			i -= million
		}
	}
}

func BenchmarkLoopNow(b *testing.B) {
	l := newWheel(Config{}, nil).NewLoop(nil)
	for b.Loop() {
		l.Now()
	}
}

func BenchmarkArmCancel(b *testing.B) {
	l := newManual(Config{}).Loop
	var t Timer
	for b.Loop() {
		l.Arm(&t, 0, 30*time.Second)
		l.Cancel(&t)
	}
}

// scattered returns 100,000 of a million sessions in random order: one slot of a
// server that has run for a while.
func scattered() []*payload {
	ss := make([]payload, million)
	rng := rand.New(rand.NewPCG(5, 5))
	out := make([]*payload, 100_000)
	for i, j := range rng.Perm(million)[:len(out)] {
		out[i] = &ss[j]
	}
	return out
}

// BenchmarkAdvanceRefreshed visits a slot of 100,000 sessions that were all touched.
func BenchmarkAdvanceRefreshed(b *testing.B) {
	m := newManual(Config{})
	ss := scattered()
	for _, s := range ss {
		m.Arm(&s.Timer, 0, 30*time.Second)
	}
	now := int64(0)
	b.ResetTimer()
	for b.Loop() {
		b.StopTimer()
		now += 30_000 * ms
		for _, s := range ss {
			s.Touch(now)
		}
		b.StartTimer()
		for m.Advance(now, 256, func(*Timer) {}) {
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(ss)), "ns/session")
}

// BenchmarkAdvanceExpired visits a slot of 100,000 sessions that have all expired.
func BenchmarkAdvanceExpired(b *testing.B) {
	m := newManual(Config{})
	ss := scattered()
	now, due := int64(0), 0
	b.ResetTimer()
	for b.Loop() {
		b.StopTimer()
		for _, s := range ss {
			m.Arm(&s.Timer, now, 30*time.Second)
		}
		now += 30_000 * ms
		b.StartTimer()
		for m.Advance(now, 256, func(*Timer) { due++ }) {
		}
	}
	if due != b.N*len(ss) {
		b.Errorf("%d were due", due)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(ss)), "ns/session")
}

// BenchmarkSweep sweeps near sessions, none due, scattered in memory.
func BenchmarkSweep(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			m := newManual(Config{})
			for _, s := range scattered()[:n] {
				m.Arm(&s.Timer, 0, 150*time.Millisecond)
			}
			b.ResetTimer()
			for b.Loop() {
				m.nearAt, m.sweepFrom = 0, 0 // one may be due
				for m.Advance(0, 256, func(*Timer) { b.Error("due early") }) {
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/session")
		})
	}
}

// BenchmarkMillion simulates ten minutes of a million sessions that beat every 30 s
// with a timeout of 37.5 s, without sockets or waiting. It includes the scheduler and
// the timing wheel's firings, which it triggers itself.
func BenchmarkMillion(b *testing.B) {
	const (
		ticks   = 6000
		perBeat = 300 // ticks
		perTick = million / perBeat
	)
	for b.Loop() {
		b.StopTimer()
		before := heap()
		ss := make([]Timer, million)
		h := newHand(Config{})
		for i := range ss {
			if i%(perTick+1) == 0 {
				h.mono += tick
				h.settle()
				h.Advance(h.Now(), 256, func(*Timer) { b.Error("due") })
			}
			h.Arm(&ss[i], h.Now(), 37500*time.Millisecond)
		}
		bytes := heap() - before
		h.d.fired = 0
		var m0, m1 runtime.MemStats
		runtime.ReadMemStats(&m0)
		b.StartTimer()

		next := 0
		var longest time.Duration
		begin := time.Now()
		for range ticks {
			h.mono += tick
			h.settle()
			now := h.Now()
			t0 := time.Now()
			for h.Advance(now, 256, func(*Timer) { b.Error("due") }) {
			}
			longest = max(longest, time.Since(t0))
			for range perTick {
				ss[next].Touch(now)
				if next++; next == million {
					next = 0
				}
			}
		}
		spent := time.Since(begin)

		b.StopTimer()
		runtime.ReadMemStats(&m1)
		if err := h.Check(); err != nil || h.Len() != million {
			b.Fatal(err, h.Len())
		}
		b.ReportMetric(float64(bytes)/million, "B/session")
		b.ReportMetric(float64(m1.Mallocs-m0.Mallocs)/(ticks/10), "allocs/simulated-s")
		b.ReportMetric(float64(h.d.fired)/(ticks/10), "firings/simulated-s")
		b.ReportMetric(float64(spent.Nanoseconds())/(ticks*perTick), "ns/beat")
		b.ReportMetric(float64(longest.Microseconds()), "µs-longest-tick")
		runtime.KeepAlive(ss)
		b.StartTimer()
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkMemory measures an idle wheel with a loop, and another loop.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		before := heap()
		w := New(Config{})
		one := heap()
		l := w.NewLoop(func() {})
		two := heap()
		// Every slot in use: one wheel timer each.
		ts := make([]Timer, 512)
		for i := range ts {
			l.Arm(&ts[i], l.Now(), time.Duration(i)*defaultTick)
		}
		time.Sleep(50 * time.Millisecond)
		three := heap()
		b.ReportMetric(float64(one-before)/1000, "kB/wheel")
		b.ReportMetric(float64(two-one)/1000, "kB/loop")
		b.ReportMetric(float64(three-two)/1000, "kB/512-slots")
		w.Close()
		runtime.KeepAlive(ts)
	}
}

// For comparison: heartbeats that move a timer of their own.

func BenchmarkBareTimingwheelMillion(b *testing.B) {
	tw := timingwheel.NewTimingWheel(defaultTick, driverSlots)
	tw.Start()
	defer tw.Stop()
	before := heap()
	ts := make([]*timingwheel.Timer, million)
	f := func() {}
	for i := range ts {
		ts[i] = tw.AfterFunc(time.Hour, f)
	}
	bytes := heap() - before
	i := 0
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		ts[i].Stop()
		ts[i] = tw.AfterFunc(time.Hour, f)
		if i += 7919; i >= million {
			i -= million
		}
	}
	b.ReportMetric(float64(bytes)/million, "B/session")
}

func BenchmarkTimeTimerMillion(b *testing.B) {
	before := heap()
	ts := make([]*time.Timer, million)
	f := func() {}
	for i := range ts {
		ts[i] = time.AfterFunc(time.Hour+time.Duration(i), f)
	}
	bytes := heap() - before
	i := 0
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		ts[i].Reset(time.Hour + time.Duration(i))
		if i += 7919; i >= million {
			i -= million
		}
	}
	b.ReportMetric(float64(bytes)/million, "B/session")
	for _, t := range ts {
		t.Stop()
	}
}
