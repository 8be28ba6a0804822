// This file is added to a copy of package timingwheel, for tests only: see
// wheelFlags. It makes the first timing wheel of a process fail, or the clock of
// all step, once the process is old enough.

//go:build go1.26

package timingwheel

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// theFault is what the environment asks for: FAULTS_WHEEL=stall,5s is a
// goroutine that stops when the process is 5 s old, and -60s,5s is a clock that
// then steps back by a minute.
var theFault struct {
	kind  string        // stall, lockup, panic or a duration
	step  time.Duration // that duration
	since time.Time     // when the process began
	age   time.Duration // when it happens
	first atomic.Pointer[TimingWheel]
	tell  sync.Once
	began atomic.Bool
}

func init() {
	theFault.since = time.Now()
	kind, age, _ := strings.Cut(os.Getenv("FAULTS_WHEEL"), ",")
	if d, err := time.ParseDuration(age); err == nil {
		theFault.kind, theFault.age = kind, d
		theFault.step, _ = time.ParseDuration(kind)
	}
}

// stepped is how many ms the clock of all timing wheels is ahead.
func stepped() int64 {
	if theFault.step == 0 || time.Since(theFault.since) < theFault.age {
		return 0
	}
	tell()
	return theFault.step.Milliseconds()
}

// faulty reports whether tw is to fail from now on.
func (tw *TimingWheel) faulty() bool {
	if theFault.kind == "" || time.Since(theFault.since) < theFault.age || theFault.first.Load() != tw {
		return false
	}
	tell()
	return true
}

// tell says in the log that it fails.
func tell() {
	theFault.tell.Do(func() {
		fmt.Fprintf(os.Stderr, `{"time":%q,"level":"INFO","msg":"timing wheel fails","how":%q}`+"\n",
			time.Now().Format(time.RFC3339Nano), theFault.kind)
		theFault.began.Store(true)
	})
}

// started is called by Start.
func (tw *TimingWheel) started() { theFault.first.CompareAndSwap(nil, tw) }

// flushes is called by the wheel's goroutine before it fires a bucket. What
// blocks here never goes on.
func (tw *TimingWheel) flushes() {
	if theFault.kind != "panic" && theFault.step == 0 && tw.faulty() {
		select {}
	}
}

// takes is called by AfterFunc.
func (tw *TimingWheel) takes() {
	switch {
	case theFault.kind == "lockup" && theFault.began.Load() && tw.faulty():
		select {}
	case theFault.kind == "panic" && tw.faulty():
		panic("timingwheel: a fault of the test")
	}
}
