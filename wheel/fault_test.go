package wheel

import (
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A logBuffer keeps the log.
type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// faulty runs f with a wheel over fake timing wheels.
func faulty(t *testing.T, make func(n int) *fakeDriver,
	f func(t *testing.T, w *Wheel, e *eventLoop, fakes *fakeDrivers)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		fakes := &fakeDrivers{make: make}
		w := newWheel(Config{}, fakes.new)
		w.run()
		defer w.Close()
		e := newEventLoop(t, w)
		f(t, w, e, fakes)
		e.do(func() {
			if err := e.Check(); err != nil {
				t.Error(err)
			}
			if n, _ := e.Stalls(); n != 0 {
				t.Errorf("%d stalls", n)
			}
		})
	})
}

// armMany arms one session per 700 ms up to a minute.
func armMany(e *eventLoop) []*session {
	var all []*session
	e.do(func() {
		for d := 300 * time.Millisecond; d < time.Minute; d += 700 * time.Millisecond {
			s := &session{}
			all = append(all, s)
			e.Arm(&s.Timer, e.now, d)
		}
	})
	return all
}

// allDue checks that each was due once, not early and at most two ticks late.
func allDue(t *testing.T, all []*session) {
	t.Helper()
	for _, s := range all {
		d := s.Deadline()
		if len(s.fired) != 1 || s.fired[0] < d || s.fired[0] > d+2*tick {
			t.Errorf("the deadline %v was met at %v", time.Duration(d), s.fired)
		}
	}
}

func TestFakeIsSound(t *testing.T) {
	faulty(t, nil, func(t *testing.T, w *Wheel, e *eventLoop, fakes *fakeDrivers) {
		all := armMany(e)
		e.sleep(70 * time.Second)
		allDue(t, all)
		if w.Rebuilds() != 0 {
			t.Errorf("%d rebuilds", w.Rebuilds())
		}
	})
}

func TestNeverFires(t *testing.T) {
	deaf := func(n int) *fakeDriver { return &fakeDriver{deaf: n == 0} }
	faulty(t, deaf, func(t *testing.T, w *Wheel, e *eventLoop, fakes *fakeDrivers) {
		all := armMany(e)
		e.sleep(900 * time.Millisecond) // the first was due at 300 ms
		if w.Rebuilds() != 1 {
			t.Errorf("%d rebuilds five ticks after the first missed slot", w.Rebuilds())
		}
		e.sleep(70 * time.Second)
		allDue(t, all)
		if w.Rebuilds() != 1 {
			t.Errorf("%d rebuilds for one fault", w.Rebuilds())
		}
	})
}

// A timing wheel that never works again costs next to nothing, and every deadline
// is still met.
func TestNeverFiresAgain(t *testing.T) {
	deaf := func(int) *fakeDriver { return &fakeDriver{deaf: true} }
	faulty(t, deaf, func(t *testing.T, w *Wheel, e *eventLoop, fakes *fakeDrivers) {
		for range 60 {
			all := armMany(e)
			e.sleep(time.Minute)
			allDue(t, all)
		}
		if n := w.Rebuilds(); n < 10 || n > 15 {
			t.Errorf("%d rebuilds in an hour", n)
		}
	})
}

func TestFiresAtOnce(t *testing.T) {
	for name, mk := range map[string]func(n int) *fakeDriver{
		"once":   func(n int) *fakeDriver { return &fakeDriver{hasty: n == 0} },
		"always": func(int) *fakeDriver { return &fakeDriver{hasty: true} },
	} {
		t.Run(name, func(t *testing.T) {
			faulty(t, mk, func(t *testing.T, w *Wheel, e *eventLoop, fakes *fakeDrivers) {
				all := armMany(e)
				synctest.Wait()
				if w.Rebuilds() != 1 {
					t.Errorf("%d rebuilds at once", w.Rebuilds())
				}
				e.sleep(70 * time.Second)
				allDue(t, all)
				if n := w.Rebuilds(); name == "once" && n != 1 || n > 7 {
					t.Errorf("%d rebuilds in the end", n)
				}
				calls := 0
				for _, d := range fakes.all {
					calls += d.afterFuncs()
				}
				if calls > 1500 {
					t.Errorf("AfterFunc was called %d times for %d deadlines", calls, len(all))
				}
			})
		})
	}
}

func TestWallClockSteps(t *testing.T) {
	for _, step := range []time.Duration{
		time.Minute, -time.Minute, time.Hour, -time.Hour, 24 * 365 * time.Hour, 2 * time.Second, -2 * time.Second,
	} {
		t.Run(step.String(), func(t *testing.T) {
			faulty(t, nil, func(t *testing.T, w *Wheel, e *eventLoop, fakes *fakeDrivers) {
				all := armMany(e)
				e.sleep(10 * time.Second)
				fakes.last().stepWall(step)
				e.sleep(1200 * time.Millisecond) // a slot every 700 ms, and five ticks
				if w.Rebuilds() != 1 {
					t.Errorf("%d rebuilds five ticks after the first missed slot", w.Rebuilds())
				}
				e.sleep(60 * time.Second)
				allDue(t, all)
				if w.Rebuilds() != 1 {
					t.Errorf("%d rebuilds for one step", w.Rebuilds())
				}
			})
		})
	}
}

// A clock that is slewed, or stepped slightly, causes no rebuild.
func TestWallClockDrifts(t *testing.T) {
	for _, step := range []time.Duration{25 * time.Millisecond, -25 * time.Millisecond} {
		t.Run(step.String(), func(t *testing.T) {
			faulty(t, nil, func(t *testing.T, w *Wheel, e *eventLoop, fakes *fakeDrivers) {
				all := armMany(e)
				for range 8 {
					e.sleep(8 * time.Second)
					fakes.last().stepWall(step)
				}
				allDue(t, all)
				if w.Rebuilds() != 0 {
					t.Errorf("%d rebuilds", w.Rebuilds())
				}
			})
		})
	}
}

// A panic costs one generation, at once, and no deadline. If every generation
// panics, the pulses still wake the loops.
func TestPanics(t *testing.T) {
	for name, mk := range map[string]func(n int) *fakeDriver{
		"once":   func(n int) *fakeDriver { return &fakeDriver{panics: n == 0} },
		"always": func(int) *fakeDriver { return &fakeDriver{panics: true} },
	} {
		t.Run(name, func(t *testing.T) {
			faulty(t, mk, func(t *testing.T, w *Wheel, e *eventLoop, fakes *fakeDrivers) {
				all := armMany(e)
				synctest.Wait()
				if w.Rebuilds() != 1 {
					t.Errorf("%d rebuilds at once", w.Rebuilds())
				}
				e.sleep(70 * time.Second)
				allDue(t, all)
				if n := w.Rebuilds(); name == "once" && n != 1 || n > 7 {
					t.Errorf("%d rebuilds in the end", n)
				}
			})
		})
	}
}

func TestLocksUp(t *testing.T) {
	release := make(chan struct{})
	locks := func(n int) *fakeDriver { return &fakeDriver{} }
	faulty(t, locks, func(t *testing.T, w *Wheel, e *eventLoop, fakes *fakeDrivers) {
		release = make(chan struct{}) // of this bubble
		all := armMany(e)
		e.sleep(5 * time.Second)
		old := fakes.last()
		old.mu.Lock()
		old.locked = release
		for ft := range old.timers {
			ft.t.Stop() // its firing is locked too
		}
		old.mu.Unlock()

		// Another slot, so that the scheduler calls AfterFunc.
		var s session
		e.do(func() { e.Arm(&s.Timer, e.now, 150*time.Millisecond) })
		e.sleep(time.Second)
		if w.Rebuilds() != 1 {
			t.Errorf("%d rebuilds", w.Rebuilds())
		}
		e.sleep(65 * time.Second)
		allDue(t, append(all, &s))
		if w.Rebuilds() != 1 {
			t.Errorf("%d rebuilds for one lock-up", w.Rebuilds())
		}
		select {
		case <-w.retired[0].gone:
			t.Error("the locked-up timing wheel is gone")
		default:
		}
		close(release)
	})
}

func TestCloseWhenLockedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var log logBuffer
		fakes := &fakeDrivers{make: func(int) *fakeDriver { return &fakeDriver{locked: release} }}
		w := newWheel(Config{Logger: log.logger()}, fakes.new)
		w.run()
		e := newEventLoop(t, w)
		all := armMany(e)
		e.sleep(65 * time.Second)
		allDue(t, all)
		before := w.Now()
		w.Close()
		if took := time.Duration(w.Now() - before); took > closeGrace+w.cfg.Tick {
			t.Errorf("Close took %v", took)
		}
		if !strings.Contains(log.String(), "closed with a timing wheel locked up") {
			t.Error("not logged")
		}
		close(release)
	})
}

// The whole process stops, as for SIGSTOP or a paused virtual machine: neither the
// loops nor the watchdog run, and afterwards the watchdog may run first.
func TestProcessStallIsNoFault(t *testing.T) {
	for stall := int64(1); stall < 200; stall = stall*4/3 + 1 {
		for offset := range int64(10) {
			h := newHand(Config{})
			d := &watchdog{w: h.w, tick: tick}
			pulse := func() {
				d.step(h.mono)
				h.Now()
				h.Advance(h.Now(), 10, func(*Timer) {})
			}
			h.mono = tick / 2
			d.prev = h.mono
			var tms [40]Timer
			for i := range tms {
				h.Arm(&tms[i], h.Now(), time.Duration(i)*10*time.Second/40)
			}
			run := func(ticks int64) {
				for range ticks {
					for range 20 {
						h.mono += tick / 20
						h.settle()
					}
					pulse()
				}
			}
			run(20)
			// It stops shortly before or after a pulse. The pulse is late, and the
			// timing wheel runs after it.
			for range offset {
				h.mono += tick / 10
				h.settle()
			}
			h.mono += stall * tick / 10
			if stall*tick/10+offset*tick/10 >= tick {
				pulse()
			}
			h.mono += tick / 10
			h.settle()
			run(30)
			if h.w.Rebuilds() != 0 {
				t.Errorf("a stall of %d ms was taken for a broken timing wheel", stall*10)
			}
		}
	}
}

func TestRebuildPauses(t *testing.T) {
	h := newHand(Config{})
	d := &watchdog{w: h.w, tick: tick}
	hour := int64(time.Hour)
	h.w.newDriver = func(time.Duration) driver { return &handDriver{clock: func() int64 { return h.mono }} }
	n := uint64(0)
	at := func(now int64, want uint64) {
		t.Helper()
		d.rebuild(now, "test")
		if got := h.w.Rebuilds() - n; got != want {
			t.Errorf("at %v: %d rebuilds, want %d", time.Duration(now), got, want)
		}
		n = h.w.Rebuilds()
	}
	at(hour, 1)
	at(hour+1, 0)
	at(hour+1000*ms-1, 0)
	at(hour+1000*ms, 1)
	at(hour+2999*ms, 0)
	at(hour+3000*ms, 1)
	at(2*hour, 1) // quiet for long
	at(2*hour+1000*ms, 1)
	for i := range int64(20) {
		d.rebuild((10+i)*hour/4, "test") // every quarter of an hour: not quiet enough
	}
	if d.pause > int64(maxPause) {
		t.Errorf("the pause grew to %v", time.Duration(d.pause))
	}
	go h.a.run() // newHand does not
	h.w.scheduler.Load().retire()
	for _, a := range h.w.retired {
		<-a.gone
	}
	<-h.w.scheduler.Load().gone
}
