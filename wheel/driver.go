package wheel

import (
	"time"

	"github.com/RussellLuo/timingwheel"
)

// A driver is what this package needs of a timing wheel. Tests have faulty ones.
type driver interface {
	// AfterFunc calls f on a goroutine of its own after d. Not safe for concurrent
	// use.
	AfterFunc(d time.Duration, f func())
	// Stop ends the driver's goroutines and waits for them. Called once.
	Stop()
}

// driverSlots is the number of buckets of the timing wheel: 80 kB. With fine
// ticks of 20 ms they span 20 s.
const driverSlots = 1024

// fineTick returns the tick of the timing wheel for a loop tick. timingwheel
// requires whole milliseconds.
func fineTick(tick time.Duration) time.Duration {
	return max((tick / 5).Truncate(time.Millisecond), time.Millisecond)
}

// reach returns the longest delay that is used: half the timing wheel's span, so
// that a bucket never holds two rounds of timers, which would lock it up.
func reach(fine time.Duration) time.Duration { return fine*driverSlots/2 - margin(fine) }

// margin returns what to add to a delay so that the timing wheel does not fire
// early: it rounds down to its ticks and to milliseconds.
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

// An alarm calls its function, on a goroutine of its own, d after the latest Reset,
// by the monotonic clock.
type alarm interface{ Reset(d time.Duration) bool }

func newRealAlarm(f func()) alarm {
	t := time.AfterFunc(time.Hour, f)
	t.Stop()
	return t
}
