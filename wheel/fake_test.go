package wheel

import (
	"sync"
	"testing"
	"time"
)

// A fakeDriver is a timing wheel with faults, and with a wall clock that can be
// stepped. The zero value works.
type fakeDriver struct {
	mu     sync.Mutex
	skew   time.Duration // by which the wall clock was stepped
	timers map[*fakeTimer]struct{}
	calls  int // of AfterFunc

	deaf   bool          // AfterFunc never fires
	hasty  bool          // AfterFunc fires at once
	locked chan struct{} // AfterFunc and Stop hang until it is closed
	panics bool          // AfterFunc and Stop panic
}

type fakeTimer struct {
	t    *time.Timer
	wall time.Time // skewed
	f    func()
}

func (d *fakeDriver) AfterFunc(delay time.Duration, f func()) {
	d.mu.Lock()
	d.calls++
	locked, panics := d.locked, d.panics
	d.mu.Unlock()
	if panics {
		panic("fake: AfterFunc")
	}
	if locked != nil {
		<-locked
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.deaf:
	case d.hasty:
		go f()
	default:
		if d.timers == nil {
			d.timers = make(map[*fakeTimer]struct{})
		}
		ft := &fakeTimer{wall: time.Now().Add(d.skew + delay), f: f}
		d.timers[ft] = struct{}{}
		ft.t = time.AfterFunc(delay, func() {
			d.mu.Lock()
			_, ok := d.timers[ft]
			delete(d.timers, ft)
			d.mu.Unlock()
			if ok {
				f()
			}
		})
	}
}

func (d *fakeDriver) Stop() {
	d.mu.Lock()
	locked, panics := d.locked, d.panics
	d.mu.Unlock()
	if panics {
		panic("fake: Stop")
	}
	if locked != nil {
		<-locked
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for ft := range d.timers {
		ft.t.Stop()
	}
	clear(d.timers)
}

// stepWall steps the wall clock, as settimeofday would.
func (d *fakeDriver) stepWall(by time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.skew += by
	for ft := range d.timers {
		ft.t.Reset(max(time.Until(ft.wall)-d.skew, 0))
	}
}

func (d *fakeDriver) afterFuncs() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.calls
}

// fakeDrivers makes drivers and keeps them.
type fakeDrivers struct {
	mu  sync.Mutex
	all []*fakeDriver

	// make returns the driver of generation n, from 0; nil: a working one.
	make func(n int) *fakeDriver
}

func (f *fakeDrivers) new(time.Duration) driver {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := &fakeDriver{}
	if f.make != nil {
		d = f.make(len(f.all))
	}
	f.all = append(f.all, d)
	return d
}

func (f *fakeDrivers) last() *fakeDriver {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.all[len(f.all)-1]
}

// A session embeds a Timer as its first field, as in the package documentation.
type session struct {
	Timer
	id    int
	fired []int64 // loop clock of each expiry
	mono  []int64 // monotonic clock of each expiry
}

// An eventLoop is a goroutine that runs the functions posted to it.
type eventLoop struct {
	*Loop
	w     *Wheel
	posts chan func()
	quit  chan struct{}
	done  chan struct{}

	// Owned by the loop.
	now   int64 // loop clock at the start of the callback
	limit int
	onDue func(*session)
	wakes int
}

func newEventLoop(t testing.TB, w *Wheel) *eventLoop {
	e := &eventLoop{
		w:     w,
		posts: make(chan func(), 1),
		quit:  make(chan struct{}),
		done:  make(chan struct{}),
		limit: 64,
	}
	woken := make(chan struct{}, 1)
	e.Loop = w.NewLoop(func() {
		select {
		case woken <- struct{}{}:
		default:
		}
	})
	go func() {
		defer close(e.done)
		for {
			select {
			case <-e.quit:
				return
			case f := <-e.posts:
				e.now = e.Now()
				f()
			case <-woken:
				e.now = e.Now()
				e.wakes++
				for e.Advance(e.now, e.limit, e.due) {
				}
			}
		}
	}()
	t.Cleanup(e.stop)
	return e
}

func (e *eventLoop) due(t *Timer) {
	s := sessionOf(t)
	s.fired = append(s.fired, e.now)
	s.mono = append(s.mono, e.w.Now())
	if e.onDue != nil {
		e.onDue(s)
	}
}

// do runs f on the loop and waits for it.
func (e *eventLoop) do(f func()) {
	done := make(chan struct{})
	e.posts <- func() { defer close(done); f() }
	<-done
}

// sleep waits for d, and then for the loop to be idle.
func (e *eventLoop) sleep(d time.Duration) {
	time.Sleep(d)
	e.do(func() {})
}

func (e *eventLoop) stop() {
	select {
	case <-e.quit:
	default:
		close(e.quit)
	}
	<-e.done
}
