package wheel

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// bubble runs f with a running wheel over the real timingwheel in a synctest bubble.
func bubble(t *testing.T, cfg Config, f func(t *testing.T, w *Wheel)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		// Fake time begins at a whole second; coinciding ticks would hide rounding
		// by the timing wheel.
		time.Sleep(7_300_000)
		w := New(cfg)
		defer w.Close()
		f(t, w)
	})
}

// latest returns the latest time at which a timer with that deadline may be reported,
// among a few timers: others may have been due just before.
func latest(deadline int64) int64 { return deadline + ms }

func TestPrecision(t *testing.T) {
	for _, tick := range []time.Duration{0, 5 * time.Millisecond, 10 * time.Millisecond, 250 * time.Millisecond} {
		t.Run(fmt.Sprint(tick), func(t *testing.T) {
			bubble(t, Config{Tick: tick}, func(t *testing.T, w *Wheel) {
				e := newEventLoop(t, w)
				rng := rand.New(rand.NewPCG(1, uint64(tick)))
				var all []*session
				for timeout := 300 * time.Millisecond; timeout <= 150*time.Second; timeout += timeout / 3 {
					for range 4 {
						s := &session{}
						all = append(all, s)
						e.do(func() { e.Arm(&s.Timer, e.now, timeout) })
						time.Sleep(time.Duration(rng.IntN(50_000_000)))
					}
				}
				e.sleep(151 * time.Second)
				for _, s := range all {
					d := s.Deadline()
					if len(s.mono) != 1 {
						t.Fatalf("a timeout of %v was due %d times", s.Timeout(), len(s.mono))
					}
					if at := s.mono[0]; at < d || at > latest(d) {
						t.Errorf("a timeout of %v was due %v after its deadline", s.Timeout(), time.Duration(at-d))
					}
				}
				if n, _ := e.Stalls(); n != 0 || w.Rebuilds() != 0 {
					t.Errorf("%d stalls, %d rebuilds", n, w.Rebuilds())
				}
			})
		})
	}
}

func TestBeatsKeepAlive(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *Wheel) {
		e := newEventLoop(t, w)
		var s session
		e.do(func() { e.Arm(&s.Timer, e.now, 37500*time.Millisecond) })
		for range 40 {
			e.sleep(15 * time.Second)
			e.do(func() { s.Touch(e.now) })
		}
		e.do(func() {
			if len(s.fired) != 0 {
				t.Error("due although it beats")
			}
		})
		e.sleep(40 * time.Second)
		if len(s.mono) != 1 || s.mono[0] < s.Deadline() || s.mono[0] > latest(s.Deadline()) {
			t.Errorf("due at %d, the deadline was %d", s.mono, s.Deadline())
		}
	})
}

func TestRearmInsideDue(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *Wheel) {
		e := newEventLoop(t, w)
		var s session
		e.do(func() {
			e.onDue = func(s *session) { e.Arm(&s.Timer, e.now, time.Second) }
			e.Arm(&s.Timer, e.now, time.Second)
		})
		e.sleep(60 * time.Second)
		e.do(func() {
			if n := len(s.fired); n < 45 || n > 60 {
				t.Errorf("a second fits %d times into a minute", n)
			}
			for i := 1; i < len(s.mono); i++ {
				if gap := s.mono[i] - s.mono[i-1]; gap < 1000*ms || gap > 1200*ms {
					t.Errorf("due after %v", time.Duration(gap))
				}
			}
		})
	})
}

func TestMassExpiryIsSpread(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *Wheel) {
		e := newEventLoop(t, w)
		ss := make([]session, 5000)
		e.do(func() {
			for i := range ss {
				e.Arm(&ss[i].Timer, e.now, time.Second)
			}
		})
		e.sleep(1200 * time.Millisecond)
		e.do(func() {
			if e.Len() != 0 {
				t.Errorf("%d of %d are left", e.Len(), len(ss))
			}
		})
	})
}

// A handler blocks for 20 s: the loop reads nothing, and no timer is due because of it.
func TestStallIsCredited(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *Wheel) {
		e := newEventLoop(t, w)
		var s, far session
		e.do(func() {
			e.Arm(&s.Timer, e.now, time.Second)
			e.Arm(&far.Timer, e.now, 100*time.Second)
		})
		begin := w.Now()
		e.sleep(470 * time.Millisecond)
		var stall int64
		e.do(func() {
			at := w.Now()
			time.Sleep(20 * time.Second)
			stall = w.Now() - at
		})
		e.sleep(150 * time.Second)
		e.do(func() {
			n, total := e.Stalls()
			if n != 1 || total != time.Duration(stall)-w.cfg.Tick {
				t.Errorf("Stalls = %d, %v after one of %v", n, total, time.Duration(stall))
			}
			for _, s := range []*session{&s, &far} {
				want := begin + int64(s.Timeout()) + int64(total)
				if len(s.mono) != 1 || s.mono[0] < want || s.mono[0] > latest(want) {
					t.Errorf("a timeout of %v was due at %v, want %v", s.Timeout(), s.mono, want)
				}
			}
			if err := e.Check(); err != nil {
				t.Error(err)
			}
		})
		if w.Rebuilds() != 0 {
			t.Error("a stalled loop was taken for a broken timing wheel")
		}
	})
}

// A loop is woken every tick while it has an armed timer, however far its deadline is.
func TestPulse(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *Wheel) {
		e := newEventLoop(t, w)
		var s session
		for range 3 { // the pulses start again
			before := 0
			e.do(func() { e.Arm(&s.Timer, e.now, time.Hour); before = e.wakes })
			e.sleep(time.Minute)
			e.do(func() {
				// A slot of the ring's end is visited too.
				if n := e.wakes - before; n < 600 || n > 602 {
					t.Errorf("a loop with an armed timer was woken %d times in 600 ticks", n)
				}
				e.Cancel(&s.Timer)
			})
			e.sleep(2 * time.Minute)
		}
		if n, _ := e.Stalls(); n != 0 || w.Rebuilds() != 0 {
			t.Errorf("%d stalls, %d rebuilds", n, w.Rebuilds())
		}
	})
}

// Nothing wakes a loop without armed timers, nor the watchdog if no loop has any.
func TestNoPulseWithoutTimers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var looks atomic.Int64 // at the clock: the watchdog has one in each step
		w := newWheel(Config{}, newRealDriver)
		w.clock = func() int64 { looks.Add(1); return w.Now() }
		w.run()
		defer w.Close()
		e, other := newEventLoop(t, w), newEventLoop(t, w)
		quiet := func(d time.Duration) {
			t.Helper()
			time.Sleep(time.Second) // it rests after two steps
			synctest.Wait()
			wakes, looked := e.wakes+other.wakes, looks.Load()
			time.Sleep(d)
			synctest.Wait()
			if n := e.wakes + other.wakes - wakes; n != 0 {
				t.Errorf("loops without timers were woken %d times in %v", n, d)
			}
			// The timer that keeps the timing wheel's clock going looks as well, every five seconds.
			if n, most := looks.Load()-looked, 8*int64(d/(5*time.Second)); n > most {
				t.Errorf("the clock was read %d times in %v, want %d at most", n, d, most)
			}
			if !w.resting.Load() {
				t.Errorf("the watchdog does not rest")
			}
		}
		quiet(time.Minute)

		// One loop's timers do not wake the other.
		var s session
		e.do(func() { e.Arm(&s.Timer, e.now, 3*time.Second) })
		e.sleep(4 * time.Second)
		e.do(func() {
			if e.wakes < 30 || len(s.mono) != 1 || s.mono[0] > latest(s.Deadline()) {
				t.Errorf("woken %d times in 30 ticks; due at %v, the deadline was %d", e.wakes, s.mono, s.Deadline())
			}
		})
		if other.wakes != 0 {
			t.Errorf("a loop without timers was woken %d times", other.wakes)
		}
		quiet(time.Minute)
		if n, _ := e.Stalls(); n != 0 || w.Rebuilds() != 0 {
			t.Errorf("%d stalls, %d rebuilds", n, w.Rebuilds())
		}
	})
}

// The pulses are there at once: a stall right after a quiet hour is credited, and the
// quiet hour is not.
func TestStallAfterRest(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *Wheel) {
		e := newEventLoop(t, w)
		e.sleep(time.Hour)
		var s session
		var begin int64
		e.do(func() {
			begin = w.Now()
			e.Arm(&s.Timer, e.now, time.Second)
			time.Sleep(5 * time.Second)
		})
		e.sleep(10 * time.Second)
		n, total := e.Stalls()
		if want := begin + int64(time.Second+total); n != 1 || total != 5*time.Second-w.cfg.Tick ||
			len(s.mono) != 1 || s.mono[0] < want || s.mono[0] > latest(want) {
			t.Errorf("%d stalls of %v; due at %v, want %d", n, total, s.mono, want)
		}
	})
}

// The alarm goes off for near timers only.
func TestAlarmIsQuiet(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *Wheel) {
		e := newEventLoop(t, w)
		var dead, live, gone, far session
		e.do(func() {
			e.Arm(&far.Timer, e.now, time.Hour) // it keeps the pulses going
			e.Arm(&dead.Timer, e.now, time.Second)
			e.Arm(&live.Timer, e.now, 2*time.Second)
			e.Arm(&gone.Timer, e.now, 3*time.Second)
		})
		e.sleep(1950 * time.Millisecond)
		e.do(func() { live.Touch(e.now) })
		e.sleep(950 * time.Millisecond)
		e.do(func() { e.Cancel(&gone.Timer) })
		e.sleep(57100 * time.Millisecond)
		e.do(func() {
			// A pulse each tick; two slots and an alarm each for the first
			// three, and for live once more; a slot for far.
			if e.wakes < 600 || e.wakes > 610 || len(dead.mono) != 1 || len(live.mono) != 1 {
				t.Errorf("woken %d times in 600 ticks, due %d and %d times", e.wakes, len(dead.mono), len(live.mono))
			}
		})
	})
}

// The timing wheel's clock does not fall behind in a quiet hour.
func TestLongSilence(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *Wheel) {
		e := newEventLoop(t, w)
		e.sleep(time.Hour)
		var s session
		e.do(func() { e.Arm(&s.Timer, e.now, 3*time.Second) })
		e.sleep(4 * time.Second)
		if len(s.mono) != 1 || s.mono[0] < s.Deadline() || s.mono[0] > latest(s.Deadline()) {
			t.Errorf("due at %d, the deadline was %d", s.mono, s.Deadline())
		}
		tw := w.scheduler.Load().tw.(realDriver).tw
		if levels(tw) != 1 {
			t.Errorf("the timing wheel has %d levels", levels(tw))
		}
		if w.Rebuilds() != 0 {
			t.Errorf("%d rebuilds", w.Rebuilds())
		}
	})
}

func TestSeveralLoops(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *Wheel) {
		const loops, each = 8, 300
		var wg sync.WaitGroup
		for i := range loops {
			e := newEventLoop(t, w)
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(2, uint64(i)))
				ss := make([]session, each)
				for j := range ss {
					e.do(func() {
						e.Arm(&ss[j].Timer, e.now, time.Duration(rng.Int64N(int64(60*time.Second))))
						ss[rng.IntN(j+1)].Touch(e.now)
					})
					time.Sleep(time.Duration(rng.Int64N(int64(100 * time.Millisecond))))
				}
				e.sleep(61 * time.Second)
				e.do(func() {
					if err := e.Check(); err != nil {
						t.Error(err)
					}
					for j := range ss {
						// It may be touched once it was due and is not armed any more.
						if len(ss[j].mono) != 1 || ss[j].Last() <= ss[j].fired[0] &&
							(ss[j].fired[0] < ss[j].Deadline() || ss[j].fired[0] > latest(ss[j].Deadline())) {
							t.Errorf("loop %d: due at %v, the deadline was %d", i, ss[j].fired, ss[j].Deadline())
						}
					}
				})
			})
		}
		wg.Wait()
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := New(Config{})
		var wakes atomic.Int64
		l := w.NewLoop(func() { wakes.Add(1) })
		var a, b Timer
		l.Arm(&a, l.Now(), time.Second)
		time.Sleep(500 * time.Millisecond)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(w.Close)
		}
		wg.Wait()
		w.Close()
		before := wakes.Load()
		if w.Now() > 600*ms {
			t.Error("Close took long")
		}

		// Loops still work, but are not woken.
		l.Arm(&b, l.Now(), time.Second)
		w.wake(l.wakes) // a firing that is late
		l2 := w.NewLoop(func() { wakes.Add(1) })
		l2.Arm(&Timer{}, l2.Now(), time.Second)
		time.Sleep(200 * time.Millisecond)
		n := 0
		for range 20 {
			time.Sleep(100 * time.Millisecond)
			l.Advance(l.Now(), 10, func(*Timer) { n++ })
		}
		if wakes.Load() != before {
			t.Error("woken after Close")
		}
		if n != 2 {
			t.Errorf("%d were due, want 2", n)
		}
	})
}

func TestWakePanics(t *testing.T) {
	var log logBuffer
	bubble(t, Config{Logger: log.logger()}, func(t *testing.T, w *Wheel) {
		bad := w.NewLoop(func() { panic("oh") })
		bad.Arm(&Timer{}, bad.Now(), 300*time.Millisecond) // in the timing wheel's goroutine too
		e := newEventLoop(t, w)
		var s session
		e.do(func() { e.Arm(&s.Timer, e.now, 3*time.Second) })
		e.sleep(4 * time.Second)
		if len(s.mono) != 1 {
			t.Error("the other loop suffers")
		}
	})
	if n := strings.Count(log.String(), "wake panicked"); n != 1 {
		t.Errorf("logged %d times", n)
	}
}

// In real time and with the race detector: only what holds on any machine.
func TestRealTime(t *testing.T) {
	w := New(Config{Tick: 10 * time.Millisecond})
	defer w.Close()
	var wg sync.WaitGroup
	for range 4 {
		e := newEventLoop(t, w)
		ss := make([]session, 200)
		left := len(ss)
		wg.Add(1)
		e.do(func() {
			e.onDue = func(s *session) {
				if e.now < s.Deadline() {
					t.Error("due early")
				}
				if left--; left == 0 {
					wg.Done()
				}
			}
			for i := range ss {
				e.Arm(&ss[i].Timer, e.now, time.Duration(i)*time.Millisecond)
			}
		})
	}
	wg.Wait()
}
