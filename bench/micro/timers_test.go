package micro

import (
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/RussellLuo/timingwheel"

	"heartwheel/wheel"
)

const (
	million = 1_000_000
	timeout = 37500 * time.Millisecond
	stride  = 7919 // a prime: the next session is far off in memory
)

// rest is what a session has beside its timer.
type rest [96]byte

// timers is a number of idle deadlines, numbered from 0. One goroutine calls it,
// as one event loop would. fired is called once for each that runs out, on any
// goroutine.
type timers interface {
	arm(i int, timeout time.Duration)
	refresh(i int) // a frame has come: the deadline is the timeout from now
	cancel(i int)
	wait(done <-chan struct{}) // lets deadlines run out until done is closed
	close()
}

// kinds has all kinds of timers.
var kinds = []struct {
	name string
	make func(n int, fired func()) timers
}{
	{"heartwheel", newOwn},
	{"timingwheel", newWheeled},
	{"time.Timer", newStandard},
	{"heap", newHeaped},
}

// own is heartwheel's wheel.
type own struct {
	w        *wheel.Wheel
	l        *wheel.Loop
	now      int64 // read once for each turn of the loop, as in the server
	wake     chan struct{}
	fired    func()
	sessions []struct {
		wheel.Timer
		_ rest
	}
}

func newOwn(n int, fired func()) timers {
	o := &own{w: wheel.New(wheel.Config{}), wake: make(chan struct{}, 1), fired: fired}
	o.sessions = make([]struct {
		wheel.Timer
		_ rest
	}, n)
	o.l = o.w.NewLoop(func() {
		select {
		case o.wake <- struct{}{}:
		default:
		}
	})
	o.now = o.l.Now()
	return o
}

func (o *own) refresh(i int) { o.sessions[i].Touch(o.now) }
func (o *own) cancel(i int)  { o.l.Cancel(&o.sessions[i].Timer) }
func (o *own) close()        { o.w.Close() }

func (o *own) arm(i int, d time.Duration) {
	o.now = o.l.Now() // every connection opens in a turn of its own
	o.l.Arm(&o.sessions[i].Timer, o.now, d)
}

func (o *own) wait(done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case <-o.wake:
		}
		for o.l.Advance(o.l.Now(), 256, func(*wheel.Timer) { o.fired() }) {
		}
	}
}

// wheeled is a timingwheel, with Stop and AfterFunc for each refresh. It is
// wide enough to have one level, as in the server of that name.
type wheeled struct {
	w        *timingwheel.TimingWheel
	fired    func()
	sessions []struct {
		t *timingwheel.Timer
		_ rest
	}
}

func newWheeled(n int, fired func()) timers {
	w := &wheeled{w: timingwheel.NewTimingWheel(100*time.Millisecond, 3001), fired: fired}
	w.sessions = make([]struct {
		t *timingwheel.Timer
		_ rest
	}, n)
	w.w.Start()
	return w
}

func (w *wheeled) arm(i int, d time.Duration) { w.sessions[i].t = w.w.AfterFunc(d, w.fired) }
func (w *wheeled) cancel(i int)               { w.sessions[i].t.Stop() }
func (w *wheeled) close()                     { w.w.Stop() }
func (w *wheeled) wait(done <-chan struct{})  { <-done }

func (w *wheeled) refresh(i int) {
	w.sessions[i].t.Stop()
	w.sessions[i].t = w.w.AfterFunc(timeout, w.fired)
}

// standard is a time.Timer for each session.
type standard struct {
	fired    func()
	sessions []struct {
		t *time.Timer
		_ rest
	}
}

func newStandard(n int, fired func()) timers {
	s := &standard{fired: fired}
	s.sessions = make([]struct {
		t *time.Timer
		_ rest
	}, n)
	return s
}

func (s *standard) arm(i int, d time.Duration) { s.sessions[i].t = time.AfterFunc(d, s.fired) }
func (s *standard) refresh(i int)              { s.sessions[i].t.Reset(timeout) }
func (s *standard) cancel(i int)               { s.sessions[i].t.Stop() }
func (s *standard) wait(done <-chan struct{})  { <-done }
func (s *standard) close()                     {}

// armed returns n timers, all armed, and bytes of the heap that each takes.
func armed(kind func(int, func()) timers, n int) (ts timers, bytes float64) {
	before := heapLive()
	ts = kind(n, func() {})
	for i := range n {
		ts.arm(i, timeout)
	}
	return ts, float64(heapLive()-before)/float64(n) - float64(len(rest{}))
}

func heapLive() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkArm arms a million timers; an operation is all of them. They have
// been armed once before, so that it is not the memory's first touch that counts.
func BenchmarkArm(b *testing.B) {
	for _, k := range kinds {
		b.Run(k.name, func(b *testing.B) {
			b.ReportAllocs()
			var bytes float64
			for b.Loop() {
				b.StopTimer()
				var ts timers
				ts, bytes = armed(k.make, million)
				cancelAll(ts)
				runtime.GC()
				b.StartTimer()
				for i := range million {
					ts.arm(i, timeout)
				}
				b.StopTimer()
				cancelAll(ts)
				ts.close()
				b.StartTimer()
			}
			perTimer(b)
			b.ReportMetric(bytes, "B/timer")
		})
	}
}

// BenchmarkRefresh is what a frame pays, of one of a million.
func BenchmarkRefresh(b *testing.B) {
	for _, k := range kinds {
		b.Run(k.name, func(b *testing.B) {
			ts, _ := armed(k.make, million)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				ts.refresh(i)
				if i += stride; i >= million {
					i -= million
				}
			}
			cancelAll(ts)
			ts.close()
		})
	}
	// The server reads the clock once for all frames of a read. Were it to do so
	// for each one:
	b.Run("heartwheel+clock", func(b *testing.B) {
		ts, _ := armed(newOwn, million)
		o := ts.(*own)
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			o.now = o.l.Now()
			ts.refresh(i)
			if i += stride; i >= million {
				i -= million
			}
		}
		cancelAll(ts)
		ts.close()
	})
}

// BenchmarkCancel cancels a million timers; an operation is all of them.
func BenchmarkCancel(b *testing.B) {
	for _, k := range kinds {
		b.Run(k.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				ts, _ := armed(k.make, million)
				b.StartTimer()
				cancelAll(ts)
				b.StopTimer()
				ts.close()
				b.StartTimer()
			}
			perTimer(b)
		})
	}
}

// cancelAll cancels a million timers, in no order that a cache would like.
func cancelAll(ts timers) {
	for i, n := 0, 0; n < million; n++ {
		ts.cancel(i)
		if i += stride; i >= million {
			i -= million
		}
	}
}

// perTimer adds the figure that matters where an operation is a million timers.
func perTimer(b *testing.B) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/million, "ns/timer")
}

// BenchmarkExpire lets a million timers run out at once, in real time: what
// counts is the processor time of it, and when the last one was told.
func BenchmarkExpire(b *testing.B) {
	for _, k := range kinds {
		b.Run(k.name, func(b *testing.B) {
			var cpu, late time.Duration
			for b.Loop() {
				c, l := expire(k.make, million, 2*time.Second)
				cpu += c
				late += l
			}
			b.ReportMetric(float64(cpu.Nanoseconds())/float64(b.N)/million, "cpu-ns/timer")
			b.ReportMetric(float64(late.Milliseconds())/float64(b.N), "ms-last-late")
		})
	}
}

// expire arms n timers and waits until all have run out. All are due at one
// time, soon after the last is armed. late is how long after that it took.
func expire(kind func(int, func()) timers, n int, soon time.Duration) (cpu, late time.Duration) {
	var count atomic.Int64
	var last time.Time
	done := make(chan struct{})
	ts := kind(n, func() {
		if count.Add(1) == int64(n) {
			last = time.Now()
			close(done)
		}
	})
	runtime.GC()
	due := time.Now().Add(soon)
	for i := range n {
		ts.arm(i, time.Until(due))
	}
	begin := cpuTime()
	ts.wait(done)
	cpu = cpuTime() - begin
	ts.close()
	return cpu, last.Sub(due)
}

func cpuTime() time.Duration {
	var use syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &use) // fails for no valid argument
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

// TestExpire checks that each kind tells of every timer, so that what is
// benchmarked does what it should.
func TestExpire(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			if _, late := expire(k.make, 1000, 200*time.Millisecond); late < -101*time.Millisecond {
				t.Errorf("the last was told %s before it was due", -late)
			}
		})
	}
}
