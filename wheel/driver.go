package wheel

import (
	"time"

	"github.com/RussellLuo/timingwheel"
)

// driver is what this package needs of a timing wheel. Tests put faulty ones
// here.
type driver interface {
	// AfterFunc calls f on a goroutine of its own after d. Called by one
	// goroutine only.
	AfterFunc(d time.Duration, f func())
	// Stop ends the driver's goroutines and waits for them. Called once.
	Stop()
}

// driverSlots is the number of buckets of the timing wheel: 80 kB. With fine
// ticks of 20 ms they span 20 s.
const driverSlots = 1024

// fineTick is the tick of the timing wheel under a loop tick. It wants whole
// milliseconds.
func fineTick(tick time.Duration) time.Duration {
	return max((tick / 5).Truncate(time.Millisecond), time.Millisecond)
}

// reach is the longest delay ever asked of it: half its span, so that a bucket
// never holds two rounds of timers at once, which is what locks it up.
func reach(fine time.Duration) time.Duration { return fine*driverSlots/2 - margin(fine) }

// margin is what has to be added to a delay so that the timing wheel does not
// fire before it: a tick, because it rounds down to ticks, and a millisecond,
// because it rounds down to those too.
func margin(fine time.Duration) time.Duration { return fine + time.Millisecond }

// realDriver is github.com/RussellLuo/timingwheel.
type realDriver struct{ tw *timingwheel.TimingWheel }

func newRealDriver(fine time.Duration) driver {
	tw := timingwheel.NewTimingWheel(fine, driverSlots)
	tw.Start()
	return realDriver{tw}
}

func (d realDriver) AfterFunc(delay time.Duration, f func()) { d.tw.AfterFunc(delay, f) }
func (d realDriver) Stop()                                   { d.tw.Stop() }

// alarm calls the function it was made with, on a goroutine of its own, d after
// the latest Reset. It goes by the monotonic clock.
type alarm interface{ Reset(d time.Duration) bool }

func newRealAlarm(f func()) alarm {
	t := time.AfterFunc(time.Hour, f)
	t.Stop()
	return t
}
